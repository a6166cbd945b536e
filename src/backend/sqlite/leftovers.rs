//! Removes the companion files (-wal, -shm) of a SQLite file that another file replaces. SQLite would apply the old file's journal to the new file
//! and mix the two.

use std::path::Path;

use crate::error::{Code, Error, Quoted, Result};

/// The companion files that this process has open. They are found while the old connections are open, and removed after those are closed.
#[derive(Clone, Default)]
pub struct Leftovers {
    #[cfg(target_os = "linux")]
    files: Vec<(std::path::PathBuf, (u64, u64))>,
}

#[cfg(target_os = "linux")]
impl Leftovers {
    pub fn of(file: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;

        let Ok(real) = file.canonicalize() else { return Self::default() };
        let beside: Vec<_> = ["-wal", "-shm"]
            .iter()
            .map(|suffix| {
                let mut name = real.clone().into_os_string();
                name.push(suffix);
                std::path::PathBuf::from(name)
            })
            .collect();
        let mut files = Vec::new();
        for descriptor in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            if beside.contains(&target)
                && let Ok(metadata) = std::fs::metadata(descriptor.path())
                && !files.iter().any(|(found, _)| *found == target)
            {
                files.push((target, (metadata.dev(), metadata.ino())));
            }
        }
        Self { files }
    }

    /// Another process may already have removed them and created new ones; those stay.
    pub fn remove(self, _: &Path) -> Result<()> {
        use std::os::unix::fs::MetadataExt;

        for (path, old) in self.files {
            let mut aside = path.clone().into_os_string();
            aside.push(format!("-old-{}", std::process::id()));
            let removed = std::fs::rename(&path, &aside).and_then(|()| {
                let moved = std::fs::symlink_metadata(&aside)?;
                if (moved.dev(), moved.ino()) != old {
                    std::fs::hard_link(&aside, &path)?;
                }
                std::fs::remove_file(&aside)
            });
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(in_the_way(&path, &error.to_string())),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Leftovers {
    pub fn of(_: &Path) -> Self {
        Self::default()
    }

    /// This system can't tell which of them belong to which file.
    pub fn remove(self, file: &Path) -> Result<()> {
        let mut wal = file.as_os_str().to_owned();
        wal.push("-wal");
        match std::fs::metadata(&wal) {
            Ok(found) if found.len() > 0 => Err(in_the_way(Path::new(&wal), "remove it and the -shm file, or close the store first")),
            _ => Ok(()),
        }
    }
}

fn in_the_way(path: &Path, what: &str) -> Error {
    Error::new(
        Code::ConnectionFailed,
        format!(
            "the SQLite file was replaced while the store had it open, and {} of the previous file is still there: {what}",
            Quoted(&path.to_string_lossy())
        ),
    )
}
