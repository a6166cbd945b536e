//! A value that is computed once, at its first use, and whose failed attempts are shared by the callers that wait.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::{Error, Result};

/// Callers that arrive during an attempt wait for it and share its failure. With tokio's `OnceCell`, each waiting caller would start an attempt of
/// its own after the previous one failed: on a silent server, the last of many callers would wait for all their timeouts in a row.
pub struct Once<T> {
    value: OnceLock<T>,
    failures: AtomicU64,
    /// Held during an attempt. Contains the last attempt's failure.
    attempt: Mutex<Option<Error>>,
}

impl<T> Once<T> {
    pub fn new() -> Self {
        Self {
            value: OnceLock::new(),
            failures: AtomicU64::new(0),
            attempt: Mutex::new(None),
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    pub async fn get_or_try_init<F>(&self, make: impl FnOnce() -> F) -> Result<&T>
    where
        F: Future<Output = Result<T>>,
    {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let failures = self.failures.load(Ordering::Acquire);
        let mut last = self.attempt.lock().await;
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        if let Some(error) = &*last
            && self.failures.load(Ordering::Acquire) != failures
        {
            return Err(error.clone());
        }
        match make().await {
            Ok(value) => Ok(self.value.get_or_init(|| value)),
            Err(error) => {
                *last = Some(error.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Code;

    #[tokio::test]
    async fn waiting_callers_share_a_failure_and_later_callers_try_again() {
        let once = Arc::new(Once::new());
        let attempts = Arc::new(AtomicU64::new(0));
        let attempt = |ends: bool| {
            let (once, attempts) = (once.clone(), attempts.clone());
            tokio::spawn(async move {
                let make = || async {
                    attempts.fetch_add(1, Ordering::AcqRel);
                    tokio::task::yield_now().await;
                    if ends {
                        Ok(7)
                    } else {
                        Err(Error::new(Code::ConnectionFailed, "no answer"))
                    }
                };
                once.get_or_try_init(make).await.copied()
            })
        };
        let failing: Vec<_> = (0..50).map(|_| attempt(false)).collect();
        for call in failing {
            assert_eq!(call.await.unwrap().unwrap_err().code, Code::ConnectionFailed);
        }
        assert_eq!(attempts.load(Ordering::Acquire), 1);
        assert_eq!(attempt(true).await.unwrap(), Ok(7));
        assert_eq!(attempt(false).await.unwrap(), Ok(7));
        assert_eq!(attempts.load(Ordering::Acquire), 2);
    }
}
