//! Refuses a file that another SQLite library in this process has open. Two copies of the library in one process break each other's locks, and in WAL
//! mode truncate and delete each other's files (sqlite.org/howtocorrupt.html, section 2.2.1). This addon contains its own copy; Sequelize's driver,
//! say, has another. Only Linux shows which files a process has open.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Quoted, lock};

/// Device and inode; `None` if the system has none.
pub type FileKey = Option<(u64, u64)>;

/// The files that stores of this process use, with the number of uses. While a file is in use, its open descriptors may be ours.
static IN_USE: LazyLock<Mutex<HashMap<(u64, u64), usize>>> = LazyLock::new(Mutex::default);

/// How long a descriptor may stay open: that of a connection that was just closed, or of another program's short look at the file.
const PATIENCE: Duration = Duration::from_secs(1);

/// A store's use of a file.
pub struct FileInUse {
    key: (u64, u64),
    ended: AtomicBool,
}

impl FileInUse {
    /// Waits a moment for other descriptors to close. Refuses the file if they stay open, or if it can't be checked. `None` if this system can't tell
    /// files apart.
    pub async fn begin(file: &Path) -> std::result::Result<Option<Self>, std::result::Result<Error, std::io::Error>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                // Under the lock: closing a descriptor here would drop the locks of a store that opens the file meanwhile.
                let mut in_use = lock(&IN_USE);
                let Some(key) = key_of(file).map_err(Err)? else { return Ok(None) };
                if in_use.contains_key(&key) || !is_open(key) {
                    *in_use.entry(key).or_default() += 1;
                    return Ok(Some(Self {
                        key,
                        ended: AtomicBool::new(false),
                    }));
                }
            }
            if Instant::now() >= deadline {
                return Err(Ok(Error::new(
                    Code::ConnectionFailed,
                    format!(
                        "another SQLite library in this process has the file {} open, Sequelize's perhaps, and two in one process can destroy \
                         the data: close the other connection first, or give the store a file of its own",
                        Quoted(&file.to_string_lossy())
                    ),
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether a store of this process uses the file.
    pub fn is_used(key: FileKey) -> bool {
        key.is_some_and(|key| lock(&IN_USE).contains_key(&key))
    }

    pub fn is_of(&self, key: FileKey) -> bool {
        key.is_none_or(|key| key == self.key)
    }

    pub fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut in_use = lock(&IN_USE);
        if let Some(count) = in_use.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&self.key);
            }
        }
    }
}

impl Drop for FileInUse {
    fn drop(&mut self) {
        self.end();
    }
}

/// The key of the file at a path. Fails if there is none, or if it is a folder.
#[cfg(unix)]
pub fn key_of(file: &Path) -> std::io::Result<FileKey> {
    use std::os::unix::fs::MetadataExt;

    let metadata = found(file)?;
    Ok(Some((metadata.dev(), metadata.ino())))
}

#[cfg(not(unix))]
pub fn key_of(file: &Path) -> std::io::Result<FileKey> {
    found(file).map(|_| None)
}

fn found(file: &Path) -> std::io::Result<std::fs::Metadata> {
    let metadata = std::fs::metadata(file)?;
    if metadata.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a directory"));
    }
    Ok(metadata)
}

#[cfg(target_os = "linux")]
fn is_open(key: (u64, u64)) -> bool {
    use std::os::unix::fs::MetadataExt;

    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        std::fs::metadata(descriptor.path()).is_ok_and(|metadata| metadata.is_file() && (metadata.dev(), metadata.ino()) == key)
    })
}

#[cfg(not(target_os = "linux"))]
fn is_open(_: (u64, u64)) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_another_descriptor_has_open_is_refused_until_it_is_closed() {
        let file = std::env::temp_dir().join(format!("batchactions-in-use-{}.db", std::process::id()));
        let other = std::fs::File::create(&file).unwrap();
        let refused = FileInUse::begin(&file).await.err().unwrap().unwrap();
        assert_eq!(refused.code, Code::ConnectionFailed);
        drop(other);
        let first = FileInUse::begin(&file).await.unwrap().unwrap();
        // From here on a descriptor may be ours.
        let ours = std::fs::File::open(&file).unwrap();
        let second = FileInUse::begin(&file).await.unwrap().unwrap();
        second.end();
        drop(second);
        assert!(lock(&IN_USE).contains_key(&first.key));
        drop((first, ours));
        std::fs::remove_file(&file).unwrap();
    }
}
