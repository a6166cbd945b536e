//! What a call rejects with, what may be repeated, and the one place that repeats it.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// A connection, a lock or a statement took longer than it may.
    Timeout,
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
    /// The server refused for a reason of its own.
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

    pub fn lease_lost(job_id: &str, batch_id: &str, token: i32) -> Self {
        Self::new(
            Code::LeaseLost,
            format!(
                "the claim on batch {} of job {} with token {token} is no longer the last one: the batch was claimed anew or given back, \
                 so stop working on it",
                Quoted(batch_id),
                Quoted(job_id),
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

const ATTEMPTS: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The one retry loop, and how long it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// No attempt begins after so long: what a single statement may take, so that repeating never makes a call hang for much longer.
    pub patience: Duration,
}

impl Retry {
    /// Deadlocks, serialization failures, lock wait timeouts and SQLite's busy, and lost connections where `repeat`
    /// allows it. Bounded, with exponential backoff and full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).
    pub async fn run<T, F>(self, how: Repeat, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let began = std::time::Instant::now();
        let mut made = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match error.repeatable {
                Repeatable::RolledBack => true,
                // A call that took as long as it may is the caller's to repeat: hidden repetition would only make it hang longer.
                Repeatable::Unknown => how == Repeat::Alone || how == Repeat::Idempotent && error.code == Code::ConnectionLost,
                Repeatable::ByCaller => how == Repeat::Alone,
                Repeatable::Never => false,
            };
            if !again || (made >= ATTEMPTS && how != Repeat::Alone) || began.elapsed() >= self.patience {
                return Err(error);
            }
            tokio::time::sleep(jittered(FIRST_PAUSE.saturating_mul(1 << made.min(16)).min(LONGEST_PAUSE))).await;
            made += 1;
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

    async fn attempts_made(how: Repeat, error: Error) -> u32 {
        let made = Cell::new(0);
        let retry = Retry {
            patience: Duration::from_secs(30),
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

    #[tokio::test]
    async fn what_rolled_back_is_repeated_and_bounded() {
        let deadlock = Error::new(Code::Timeout, "deadlock").repeatable(Repeatable::RolledBack);
        assert_eq!(attempts_made(Repeat::RolledBackOnly, deadlock.clone()).await, ATTEMPTS);
        assert_eq!(attempts_made(Repeat::Idempotent, deadlock).await, ATTEMPTS);
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
                    Err(Error::new(Code::Timeout, "lock wait").repeatable(Repeatable::RolledBack))
                }
            })
            .await;
        // Fewer on a machine that is slow.
        assert!(result.is_err() && made.get() <= 3, "{}", made.get());
    }

    #[tokio::test]
    async fn a_lost_connection_is_repeated_only_where_that_is_idempotent() {
        let lost = Error::new(Code::ConnectionLost, "gone");
        assert_eq!(attempts_made(Repeat::RolledBackOnly, lost.clone()).await, 1);
        assert_eq!(attempts_made(Repeat::Idempotent, lost).await, ATTEMPTS);
    }

    #[tokio::test]
    async fn timeouts_and_final_errors_are_never_repeated() {
        for error in [
            Error::new(Code::Timeout, "slow"),
            Error::new(Code::ConnectionFailed, "no"),
            Error::invalid("bad"),
        ] {
            assert_eq!(attempts_made(Repeat::Idempotent, error).await, 1);
        }
    }

    #[tokio::test]
    async fn where_there_is_no_caller_all_that_may_succeed_is_repeated_for_as_long_as_it_may_take() {
        let retry = Retry {
            patience: Duration::from_millis(400),
        };
        for (error, again) in [
            (Error::new(Code::ConnectionFailed, "no"), true),
            (Error::new(Code::Timeout, "slow"), true),
            (Error::invalid("bad"), false),
        ] {
            let made = Cell::new(0);
            let result: Result<()> = retry
                .run(Repeat::Alone, || {
                    made.set(made.get() + 1);
                    let error = error.clone();
                    async move { Err(error) }
                })
                .await;
            assert_eq!(result.unwrap_err().code, error.code);
            assert_eq!(made.get() > 1, again, "{error}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        assert_eq!(Quoted("a\"b").to_string(), "\"a\\\"b\"");
        let shown = Quoted(&"é".repeat(100)).to_string();
        assert!(shown.ends_with("… (100 characters)") && shown.len() < 200, "{shown}");
    }
}
