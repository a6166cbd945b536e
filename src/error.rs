//! What a call rejects with: a code, a message, what is known of the outcome, and the cause.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of failure, as users match on them. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// An argument or an option is not what it must be.
    InvalidArgument,
    /// The URL, the options or the Sequelize instance do not say where the database is.
    InvalidConnection,
    /// A dialect that is not served, or a server that is too old.
    UnsupportedDatabase,
    /// The database could not be reached, or refused the login.
    ConnectionFailed,
    /// The connection ended in the middle of a call.
    ConnectionLost,
    /// The wait for a connection of the pool, or a statement, took longer than it may.
    Timeout,
    /// Another transaction was in the way: a deadlock, a serialization failure, or a lock that was not had in time.
    Conflict,
    /// The database user lacks a right, or the database or its file may only be read.
    PermissionDenied,
    /// The tables do not exist.
    TablesMissing,
    /// The tables exist, and are not the ones that we know.
    TablesIncompatible,
    /// A value is longer than its column or than the server takes.
    ValueTooLong,
    /// An id or an index that is taken.
    Constraint,
    /// The batch has been claimed again, or given back, since the claim that the call belongs to: see `crate::lease_lost`.
    LeaseLost,
    /// The store has been closed.
    Closed,
    /// The server refused for a reason of its own: a full disk, say.
    DatabaseError,
    /// A defect of this package.
    Internal,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::InvalidConnection => "INVALID_CONNECTION",
            Code::UnsupportedDatabase => "UNSUPPORTED_DATABASE",
            Code::ConnectionFailed => "CONNECTION_FAILED",
            Code::ConnectionLost => "CONNECTION_LOST",
            Code::Timeout => "TIMEOUT",
            Code::Conflict => "CONFLICT",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::TablesMissing => "TABLES_MISSING",
            Code::TablesIncompatible => "TABLES_INCOMPATIBLE",
            Code::ValueTooLong => "VALUE_TOO_LONG",
            Code::Constraint => "CONSTRAINT",
            Code::LeaseLost => "LEASE_LOST",
            Code::Closed => "CLOSED",
            Code::DatabaseError => "DATABASE_ERROR",
            Code::Internal => "INTERNAL",
        }
    }
}

/// What is known of a call that failed, and so who may make it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// The database rolled it back, or never saw it: it may be repeated blindly.
    RolledBack,
    /// It may have taken effect: only what is idempotent may be repeated blindly.
    Unknown,
    /// The server has no connection left for this store, which waits for one of its own instead.
    NoConnectionLeft,
    /// The same call may succeed later; whether and when to make it is for the caller to say.
    ByCaller,
    /// The same call fails the same way.
    Never,
}

/// What another program said, word for word: the database, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub message: String,
    /// SQLSTATE, or SQLite's extended result code.
    pub code: Option<String>,
    /// Not the database but a function of the user's failed: the key of the value that it threw, which `index.js` keeps.
    pub thrown: Option<u32>,
}

/// A failed call. `Display` is the message that the user reads; it never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
    pub repeatable: Repeatable,
    pub cause: Option<Cause>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let repeatable = match code {
            Code::ConnectionFailed => Repeatable::ByCaller,
            Code::ConnectionLost | Code::Timeout => Repeatable::Unknown,
            Code::Conflict => Repeatable::RolledBack,
            _ => Repeatable::Never,
        };
        Self {
            code,
            message: message.into(),
            repeatable,
            cause: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn closed() -> Self {
        Self::new(Code::Closed, "the store is closed: make a new one")
    }

    pub fn repeatable(mut self, repeatable: Repeatable) -> Self {
        self.repeatable = repeatable;
        self
    }

    pub fn caused_by(mut self, message: impl Into<String>, code: Option<String>) -> Self {
        self.cause = Some(Cause {
            message: message.into(),
            code,
            thrown: None,
        });
        self
    }

    pub fn caused_by_thrown(mut self, message: impl Into<String>, thrown: u32) -> Self {
        self.cause = Some(Cause {
            message: message.into(),
            code: None,
            thrown: Some(thrown),
        });
        self
    }

    /// `retryable`, as the user sees it.
    pub fn retryable(&self) -> bool {
        self.repeatable != Repeatable::Never
    }
}

/// A user's string in a message: quoted, and cut where it is long.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}… ({} characters)", &self.0[..end], self.0.chars().count()),
        }
    }
}

/// Locks a mutex whose holders can't leave it half changed, so that a panic elsewhere does not spread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_in_messages() {
        assert_eq!(Quoted("a\"b").to_string(), "\"a\\\"b\"");
        let shown = Quoted(&"é".repeat(100)).to_string();
        assert!(shown.ends_with("… (100 characters)") && shown.len() < 200, "{shown}");
    }
}
