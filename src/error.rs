//! The error that a call rejects with: a code, a message, what is known of the outcome, and the cause.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of failure that users match on. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// An argument or an option is not valid.
    InvalidArgument,
    /// The URL, the options or the Sequelize instance do not describe a usable connection.
    InvalidConnection,
    /// The dialect is not supported, or the server is too old.
    UnsupportedDatabase,
    /// The database can't be reached, or refuses the login.
    ConnectionFailed,
    /// The connection ended during a call.
    ConnectionLost,
    /// Waiting for a pool connection, or running a statement, exceeded its time limit.
    Timeout,
    /// Another transaction was in the way: a deadlock, a serialization failure, or a lock that was not granted in time.
    Conflict,
    /// The database user lacks a right, or the database or its file is read-only.
    PermissionDenied,
    /// The tables do not exist.
    TablesMissing,
    /// The tables exist, but this store can't use them.
    TablesIncompatible,
    /// A value exceeds the limit of its column or of the server.
    ValueTooLong,
    /// An id or an index is already taken.
    Constraint,
    /// The batch has been claimed again, or released, since the claim that the call belongs to: see `crate::lease_lost`.
    LeaseLost,
    /// The store has been closed.
    Closed,
    /// The server refused for a reason that the other codes don't cover: a full disk, say.
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

/// What is known of a failed call, and so who may repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// The database rolled it back or never received it: it may be repeated blindly.
    RolledBack,
    /// It may have taken effect: only idempotent calls may be repeated blindly.
    Unknown,
    /// The server has no connection left for this store, so the call waits for one of the store's own.
    NoConnectionLeft,
    /// The same call may succeed later. The caller decides whether and when to repeat it.
    ByCaller,
    /// The same call fails in the same way.
    Never,
}

/// The original text of the program that failed, usually the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub message: String,
    /// SQLSTATE, or SQLite's extended result code.
    pub code: Option<String>,
    /// Set if a function in the options failed instead of the database: the key of the thrown value, which `index.js` keeps.
    pub thrown: Option<u32>,
}

/// A failed call. `Display` is the message for the user; it never contains a password.
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

    /// `retryable` in the user's error.
    pub fn retryable(&self) -> bool {
        self.repeatable != Repeatable::Never
    }
}

/// A user's string in a message: quoted, and shortened if it is long.
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

/// Locks a mutex that no holder can leave half changed, so that a panic elsewhere does not spread.
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
