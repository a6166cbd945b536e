//! Two copies of the SQLite library in one process break each other's locks, and in WAL mode truncate and delete each other's files
//! (sqlite.org/howtocorrupt.html, section 2.2.1). This addon has a copy of its own, so a file that another one in this process has open, Sequelize's
//! say, is refused. Linux alone shows which files a process has open.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Quoted, Result, lock};

/// Device and inode.
type FileKey = (u64, u64);

/// Files that stores of this process use, and how many do. While there is one, descriptors of the file may be ours.
static IN_USE: LazyLock<Mutex<HashMap<FileKey, usize>>> = LazyLock::new(Mutex::default);

/// How long a descriptor may linger: a connection that was just closed, or somebody's short look at the file.
const PATIENCE: Duration = Duration::from_secs(1);

/// A store's use of a file.
pub struct FileInUse {
    key: FileKey,
    ended: AtomicBool,
}

impl FileInUse {
    /// Waits a moment for other descriptors to go, and refuses the file where they stay. `None` where that can't be told.
    pub async fn begin(file: &Path) -> Result<Option<Self>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                // Under the lock, for closing a descriptor here would drop the locks of a store that has the file open meanwhile.
                let mut in_use = lock(&IN_USE);
                // An empty file is a new database to SQLite. Where it can't be made, SQLite says why.
                let Some(key) = key_of_new_or_old(file) else { return Ok(None) };
                if in_use.contains_key(&key) || !is_open(key) {
                    *in_use.entry(key).or_default() += 1;
                    return Ok(Some(Self {
                        key,
                        ended: AtomicBool::new(false),
                    }));
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Code::ConnectionFailed,
                    format!(
                        "another SQLite library in this process has the file {} open, Sequelize's perhaps, and two in one process can destroy \
                         the data: close the other connection first, or give the store a file of its own",
                        Quoted(&file.to_string_lossy())
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

#[cfg(target_os = "linux")]
fn key_of_new_or_old(file: &Path) -> Option<FileKey> {
    use std::os::unix::fs::MetadataExt;

    if !file.exists() {
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(file)
            .ok()?;
    }
    std::fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(target_os = "linux")]
fn is_open(key: FileKey) -> bool {
    use std::os::unix::fs::MetadataExt;

    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        std::fs::metadata(descriptor.path()).is_ok_and(|metadata| metadata.is_file() && (metadata.dev(), metadata.ino()) == key)
    })
}

#[cfg(not(target_os = "linux"))]
fn key_of_new_or_old(_: &Path) -> Option<FileKey> {
    None
}

#[cfg(not(target_os = "linux"))]
fn is_open(_: FileKey) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_another_descriptor_has_open_is_refused_until_it_is_closed() {
        let file = std::env::temp_dir().join(format!("batchactions-in-use-{}.db", std::process::id()));
        let other = std::fs::File::create(&file).unwrap();
        let refused = FileInUse::begin(&file).await.err().unwrap();
        assert_eq!(refused.code, Code::ConnectionFailed);
        drop(other);
        let first = FileInUse::begin(&file).await.unwrap().unwrap();
        // Now a descriptor may be ours.
        let ours = std::fs::File::open(&file).unwrap();
        let second = FileInUse::begin(&file).await.unwrap().unwrap();
        second.end();
        drop(second);
        assert!(lock(&IN_USE).contains_key(&first.key));
        drop((first, ours));
        std::fs::remove_file(&file).unwrap();
    }
}
