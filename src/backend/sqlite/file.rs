//! The file that a SQLite store has open. When its path holds another file, or none, the next call notices.
//!
//! SQLite itself continues with the file that it opened, so writes to a file that was removed or replaced by a rename would be lost. Each call first
//! checks the file's device and inode, which takes a microsecond. Windows does not allow an open file to be removed or renamed, so there is nothing
//! to check.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::connect::{Conn, Pools};
use super::file_in_use::{FileInUse, FileKey, key_of};
use super::leftovers::Leftovers;
use crate::backend::once::Once;
use crate::backend::pool::{Pool, PoolUse};
use crate::error::{Code, Error, Quoted, Repeatable, Result, lock};

pub struct SqliteFile {
    /// `None` in memory.
    path: Option<PathBuf>,
    /// Whether `Use::Make` creates a missing file.
    may_make: bool,
    pools: Box<dyn Fn() -> Pools + Send + Sync>,
    current: Mutex<Arc<Opened>>,
}

/// One file that the path holds or has held.
struct Opened {
    /// Counts the files that the path has held while the store was open.
    number: u64,
    pools: Pools,
    /// Set before the first connection.
    in_use: Once<Option<FileInUse>>,
    before: Mutex<Option<Before>>,
}

/// The previous file. Before the new one is opened, it must be closed and its leftovers removed, because both files may share their companion files
/// (-wal, -shm). It is kept until both steps are done, so that the call after one that failed or was abandoned repeats them.
struct Before {
    opened: Arc<Opened>,
    /// `Some` once they have been looked up, which must happen while the old connections are open: afterwards, nothing tells which files belong to
    /// them.
    leftovers: Option<Option<Leftovers>>,
}

impl Before {
    fn of(opened: Arc<Opened>) -> Self {
        Self { opened, leftovers: None }
    }

    fn leftovers(&mut self, path: &Path) -> Option<Leftovers> {
        let find = || {
            // If another store of this process already uses the new file, the companion files are the new file's.
            let is_new = key_of(path).is_ok_and(FileInUse::is_used);
            (!is_new).then(|| Leftovers::of(path))
        };
        self.leftovers.get_or_insert_with(find).clone()
    }
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
    /// To create the tables, and the file if it is missing.
    Make,
}

impl SqliteFile {
    pub fn new(path: Option<PathBuf>, may_make: bool, pools: impl Fn() -> Pools + Send + Sync + 'static) -> Self {
        Self {
            path,
            may_make,
            current: Mutex::new(Arc::new(Opened::new(1, pools(), None))),
            pools: Box::new(pools),
        }
    }

    pub async fn acquire(&self, what_for: Use) -> Result<Conn> {
        self.acquire_of(what_for, None).await
    }

    /// As `acquire`, for records queued while the path held the file of this number.
    pub async fn acquire_of(&self, what_for: Use, number: Option<u64>) -> Result<Conn> {
        loop {
            let opened = self.look(what_for)?;
            if let Some(path) = &self.path {
                opened.begin_use(path).await?;
                if number.is_some_and(|number| number != opened.number) {
                    return Err(replaced(path));
                }
            }
            let pool = match (&opened.pools.readers, what_for) {
                (Some(readers), Use::Read) => readers,
                _ => &opened.pools.writer,
            };
            match pool.acquire().await {
                // The pool was closed while this call waited, because the path holds another file.
                Err(error) if error.code == Code::Closed && !Arc::ptr_eq(&opened, &lock(&self.current)) => {}
                outcome => return outcome,
            }
        }
    }

    /// The connections to the current file.
    pub fn pool_use(&self) -> PoolUse {
        let pools = &lock(&self.current).pools;
        pools.readers.as_ref().map(Pool::now).unwrap_or_default() + pools.writer.now()
    }

    /// The number of the file that the path holds. `None` if that never changes.
    pub fn number(&self) -> Option<u64> {
        self.path.as_ref()?;
        let opened = self.look(Use::Read).unwrap_or_else(|_| lock(&self.current).clone());
        Some(opened.number)
    }

    fn look(&self, what_for: Use) -> Result<Arc<Opened>> {
        let mut current = lock(&self.current);
        let Some(path) = &self.path else { return Ok(current.clone()) };
        let key = match key_of(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && what_for == Use::Make => {
                if !self.may_make {
                    return Err(must_exist(path));
                }
                make(path)?;
                key_of(path)
            }
            found => found,
        };
        let key = key.map_err(|error| unavailable(path, &error))?;
        if !current.is_of(key) {
            *current = Arc::new(Opened::new(current.number + 1, (self.pools)(), Some(current.clone())));
        }
        Ok(current.clone())
    }

    pub async fn close(&self) {
        let current = lock(&self.current).clone();
        current.close().await;
    }
}

impl Opened {
    fn new(number: u64, pools: Pools, before: Option<Arc<Opened>>) -> Self {
        Self {
            number,
            pools,
            in_use: Once::new(),
            before: Mutex::new(before.map(Before::of)),
        }
    }

    fn is_of(&self, key: FileKey) -> bool {
        match self.in_use.get() {
            Some(Some(in_use)) => in_use.is_of(key),
            // Nothing has been opened yet, or this system can't tell files apart.
            _ => true,
        }
    }

    async fn begin_use(&self, path: &Path) -> Result<()> {
        let begin = || async {
            let before = lock(&self.before)
                .as_mut()
                .map(|before| (before.opened.clone(), before.leftovers(path)));
            if let Some((opened, leftovers)) = before {
                opened.close().await;
                if let Some(leftovers) = leftovers {
                    leftovers.remove(path)?;
                }
                drop(lock(&self.before).take());
            }
            FileInUse::begin(path).await.map_err(|error| match error {
                Ok(error) => error,
                Err(error) => unavailable(path, &error),
            })
        };
        self.in_use.get_or_try_init(begin).await.map(drop)
    }

    async fn close(&self) {
        let mut next = lock(&self.before).take();
        while let Some(Before { opened, .. }) = next {
            opened.end().await;
            next = lock(&opened.before).take();
        }
        self.end().await;
    }

    async fn end(&self) {
        if let Some(readers) = &self.pools.readers {
            readers.close().await;
        }
        self.pools.writer.close().await;
        if let Some(Some(in_use)) = self.in_use.get() {
            in_use.end();
        }
    }
}

/// Creates an empty file, which SQLite treats as a new database.
fn make(path: &Path) -> Result<()> {
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    made.map(drop).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::new(
            Code::PermissionDenied,
            format!(
                "the SQLite file {} can't be created, because its folder is not writable: {error}",
                shown(path)
            ),
        ),
        _ => unavailable(path, &error),
    })
}

fn must_exist(path: &Path) -> Error {
    Error::new(
        Code::ConnectionFailed,
        format!(
            "there is no SQLite file {}, and mode=rw in its URL says not to create it: create it first, or leave mode out",
            shown(path)
        ),
    )
    .repeatable(Repeatable::Never)
}

/// Why the file can't be opened.
fn unavailable(path: &Path, error: &std::io::Error) -> Error {
    let has_folder = path.parent().is_none_or(Path::is_dir);
    let failed = |code| Error::new(code, format!("the SQLite file {} can't be opened: {error}", shown(path)));
    match error.kind() {
        ErrorKind::PermissionDenied => failed(Code::PermissionDenied),
        ErrorKind::NotFound if has_folder => Error::new(
            Code::TablesMissing,
            format!("there is no SQLite file {}: call initialize() first", shown(path)),
        ),
        ErrorKind::NotFound => Error::new(
            Code::ConnectionFailed,
            format!("the SQLite file {} can't be opened: its folder does not exist", shown(path)),
        )
        .repeatable(Repeatable::Never),
        _ => failed(Code::ConnectionFailed).repeatable(Repeatable::Never),
    }
}

fn replaced(path: &Path) -> Error {
    Error::new(
        Code::ConnectionLost,
        format!(
            "the SQLite file {} was removed or replaced after this was queued for it, so it is not stored: it does not go into the file that is \
             there now",
            shown(path)
        ),
    )
    .repeatable(Repeatable::Never)
}

fn shown(path: &Path) -> String {
    Quoted(&path.to_string_lossy()).to_string()
}
