//! What a call rejects with, what may be repeated, and the one place that repeats it.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{BatchKey, Token};

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
    /// The batch has been claimed anew, or given back, since the claim that the call belongs to.
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
    /// The database rolled it back, or never saw it: anybody may repeat it, blindly.
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

/// What was said, word for word: by the database, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub message: String,
    /// SQLSTATE, or SQLite's extended result code.
    pub code: Option<String>,
    /// Not the database but a function of the user's said it: the value that it threw, as `index.js` keeps it.
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

    pub fn lease_lost(key: &BatchKey, token: Token) -> Self {
        Self::new(
            Code::LeaseLost,
            format!(
                "the claim on batch {} of job {} with token {token} is no longer the last one: the batch was claimed anew or given back, \
                 so stop working on it",
                Quoted(&key.batch_id),
                Quoted(&key.job_id),
            ),
        )
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

/// Which failures [`Retry`] may answer by making the call again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Making the call twice is the same as making it once.
    Idempotent,
    /// Only a call that is known to have rolled back may be made again.
    RolledBackOnly,
    /// As `Idempotent`, and there is no caller who could make it again: all that may succeed later, for as long as it may take.
    Alone,
}

const FIRST_PAUSE: Duration = Duration::from_millis(8);
/// A server that starts again is noticed within this time; many callers that wait for it ask it a few times a second each.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Two that make the same thing at the same time are done after a few attempts; where they are not, something else has its name.
const MOST_RACES: u32 = 12;

/// The one retry loop, and how long it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// No attempt begins after this time, which is what a single statement may take. So a call takes at most twice as long as a statement may.
    pub patience: Duration,
}

impl Retry {
    /// Repeats what is transient: conflicts, servers that start, end or accept no writes, and lost connections where `repeat` allows it. Bounded in
    /// time and not in number, with exponential backoff and full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).
    pub async fn run<T, F>(self, how: Repeat, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let began = tokio::time::Instant::now();
        let mut longest = FIRST_PAUSE;
        let mut races = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match error.repeatable {
                Repeatable::RolledBack if error.code == Code::Constraint => {
                    races += 1;
                    races < MOST_RACES
                }
                Repeatable::RolledBack => true,
                // A call that took as long as it may is the caller's to repeat: hidden repetition would only make it hang longer.
                Repeatable::Unknown => how == Repeat::Alone || how == Repeat::Idempotent && error.code == Code::ConnectionLost,
                Repeatable::ByCaller | Repeatable::NoConnectionLeft => how == Repeat::Alone,
                Repeatable::Never => false,
            };
            let pause = jittered(longest);
            if !again || began.elapsed() + pause >= self.patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }
}

/// A random duration from zero to `longest`.
pub fn jittered(longest: Duration) -> Duration {
    // The standard library's hash keys are random, which is all the randomness that backing off needs.
    let random = std::hash::RandomState::new().build_hasher().finish();
    longest.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// How often a call that always fails is made within this time.
    async fn attempts_made(how: Repeat, error: Error, patience_ms: u64) -> u32 {
        let made = Cell::new(0);
        let retry = Retry {
            patience: Duration::from_millis(patience_ms),
        };
        let result: Result<()> = retry
            .run(how, || {
                made.set(made.get() + 1);
                let error = error.clone();
                async move { Err(error) }
            })
            .await;
        assert_eq!(result.unwrap_err().code, error.code);
        made.get()
    }

    fn lost() -> Error {
        Error::new(Code::ConnectionLost, "gone")
    }

    #[tokio::test]
    async fn what_is_transient_is_repeated_until_it_succeeds_or_the_time_is_over() {
        for (how, error) in [
            (Repeat::RolledBackOnly, Error::new(Code::Conflict, "deadlock")),
            (Repeat::Idempotent, Error::new(Code::Conflict, "deadlock")),
            (Repeat::Idempotent, lost()),
        ] {
            let began = tokio::time::Instant::now();
            let retry = Retry {
                patience: Duration::from_secs(30),
            };
            let back = || began.elapsed() >= Duration::from_millis(1_500);
            let attempt = || {
                let outcome = if back() { Ok(()) } else { Err(error.clone()) };
                async move { outcome }
            };
            assert_eq!(retry.run(how, attempt).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn nothing_is_repeated_beyond_what_a_statement_may_take() {
        let made = Cell::new(0);
        let retry = Retry {
            patience: Duration::from_millis(300),
        };
        let result: Result<()> = retry
            .run(Repeat::RolledBackOnly, || {
                made.set(made.get() + 1);
                async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Err(Error::new(Code::Conflict, "lock wait"))
                }
            })
            .await;
        // Fewer on a machine that is slow.
        assert!(result.is_err() && made.get() <= 3, "{}", made.get());
    }

    #[tokio::test]
    async fn a_lost_connection_is_repeated_only_where_that_is_idempotent() {
        assert_eq!(attempts_made(Repeat::RolledBackOnly, lost(), 300).await, 1);
        assert!(attempts_made(Repeat::Idempotent, lost(), 300).await > 1);
    }

    #[tokio::test]
    async fn timeouts_and_final_errors_are_never_repeated() {
        for error in [
            Error::new(Code::Timeout, "slow"),
            Error::new(Code::ConnectionFailed, "no"),
            Error::new(Code::DatabaseError, "full").repeatable(Repeatable::ByCaller),
            Error::invalid("bad"),
        ] {
            assert_eq!(attempts_made(Repeat::Idempotent, error, 300).await, 1);
        }
    }

    #[tokio::test]
    async fn where_there_is_no_caller_all_that_may_succeed_is_repeated_for_as_long_as_it_may_take() {
        for (error, again) in [
            (Error::new(Code::ConnectionFailed, "no"), true),
            (Error::new(Code::Timeout, "slow"), true),
            (Error::invalid("bad"), false),
        ] {
            assert_eq!(attempts_made(Repeat::Alone, error, 400).await > 1, again);
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        assert_eq!(Quoted("a\"b").to_string(), "\"a\\\"b\"");
        let shown = Quoted(&"é".repeat(100)).to_string();
        assert!(shown.ends_with("… (100 characters)") && shown.len() < 200, "{shown}");
    }
}
