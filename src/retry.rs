//! The one retry loop: which failures are retried, how often, and for how long.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Code, Repeatable, Result};

/// Which failures [`Retry`] may retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Making the call twice has the same effect as making it once.
    Idempotent,
    /// Only a call that is known to have rolled back may be retried.
    RolledBackOnly,
    /// As `Idempotent`, but the caller already has its answer and can't retry: so every failure that may pass is retried, even a timeout.
    AlreadyAnswered,
}

const FIRST_PAUSE: Duration = Duration::from_millis(8);
/// The longest pause. A restarted server is noticed within this time, and each of many waiting callers sends it only a few requests per second.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Two processes that create the same object at the same time succeed after a few attempts. If they don't, another object has its name.
const MOST_RACES: u32 = 12;

/// The one retry loop and its time limit.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// No attempt begins after this time, which is the time limit of a single statement. So a call takes at most twice as long as a statement may.
    pub patience: Duration,
}

impl Retry {
    /// Retries transient failures: conflicts, servers that are starting, shutting down or read-only, and lost connections if `repeat` allows it.
    /// Attempts are limited by time and not by number, with exponential backoff and full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS,
    /// 2015).
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
                // A call that used up its time limit is left to the caller to retry: hidden retries would only prolong the hang.
                Repeatable::Unknown => how == Repeat::AlreadyAnswered || how == Repeat::Idempotent && error.code == Code::ConnectionLost,
                Repeatable::ByCaller | Repeatable::NoConnectionLeft => how == Repeat::AlreadyAnswered,
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

/// Whether an attempt's reply was lost. It may then have taken effect although it failed, and the next attempt may find its changes.
#[derive(Debug, Default)]
pub struct LostReplies(AtomicBool);

impl LostReplies {
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub async fn note<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = attempt.await;
        if outcome.as_ref().is_err_and(|error| error.repeatable == Repeatable::Unknown) {
            self.0.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// A random duration from zero to `longest`.
pub fn jittered(longest: Duration) -> Duration {
    // The standard library's hash keys are random, and backoff needs no better randomness.
    let random = std::hash::RandomState::new().build_hasher().finish();
    longest.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::cell::Cell;

    /// The number of attempts within this time of a call that always fails.
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
    async fn transient_failures_are_retried_until_success_or_the_time_limit() {
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
    async fn no_retry_begins_after_the_statement_time_limit() {
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
    async fn a_lost_connection_is_retried_only_for_idempotent_calls() {
        assert_eq!(attempts_made(Repeat::RolledBackOnly, lost(), 300).await, 1);
        assert!(attempts_made(Repeat::Idempotent, lost(), 300).await > 1);
    }

    #[tokio::test]
    async fn timeouts_and_final_errors_are_never_retried() {
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
    async fn after_the_answer_every_failure_that_may_pass_is_retried() {
        for (error, again) in [
            (Error::new(Code::ConnectionFailed, "no"), true),
            (Error::new(Code::Timeout, "slow"), true),
            (Error::invalid("bad"), false),
        ] {
            assert_eq!(attempts_made(Repeat::AlreadyAnswered, error, 400).await > 1, again);
        }
    }
}
