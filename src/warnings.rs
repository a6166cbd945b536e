//! What fails or changes in the background, where no call reports it. `index.js` publishes it on the channel `batchactions.store.warning`.
//!
//! A store has one [`Warnings`], which everything that works in the background holds. Sending never waits and never fails: the listener drops what it
//! has no room for, and counts it.

use std::future::Future;
use std::sync::Arc;

use crate::error::Error;
use crate::model::BatchKey;
use crate::panics::caught_in;

/// What a warning is about. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A job's list of batches could not be brought up to date after a batch had changed.
    ListBehind,
    /// The lease of a claim could not be renewed.
    RenewalFailed,
    /// A batch was taken from its worker.
    ClaimTaken,
    /// A stale batch became FAILED by `maxClaims`.
    BatchGivenUp,
    /// What was queued could not be stored after its call was answered.
    QueuedWriteFailed,
    /// A connection ended, or was given up.
    ConnectionLost,
    /// The server has no connection left for this store.
    ConnectionRefused,
    /// An index that only makes reads faster could not be created.
    IndexMissing,
    /// A background task panicked.
    Panic,
}

impl WarningKind {
    pub fn as_str(self) -> &'static str {
        match self {
            WarningKind::ListBehind => "list-behind",
            WarningKind::RenewalFailed => "renewal-failed",
            WarningKind::ClaimTaken => "claim-taken",
            WarningKind::BatchGivenUp => "batch-given-up",
            WarningKind::QueuedWriteFailed => "queued-write-failed",
            WarningKind::ConnectionLost => "connection-lost",
            WarningKind::ConnectionRefused => "connection-refused",
            WarningKind::IndexMissing => "index-missing",
            WarningKind::Panic => "panic",
        }
    }
}

/// A warning, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub kind: WarningKind,
    pub message: String,
    pub job_id: Option<String>,
    pub batch_id: Option<String>,
    pub worker_id: Option<String>,
    /// How many events this one stands for.
    pub count: usize,
    pub error: Option<Error>,
}

impl Warning {
    pub fn new(kind: WarningKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            job_id: None,
            batch_id: None,
            worker_id: None,
            count: 1,
            error: None,
        }
    }

    pub fn job(mut self, job_id: &str) -> Self {
        self.job_id = Some(job_id.to_owned());
        self
    }

    pub fn batch(mut self, key: &BatchKey) -> Self {
        self.batch_id = Some(key.batch_id.clone());
        self.job(&key.job_id)
    }

    pub fn worker(mut self, worker_id: Option<&str>) -> Self {
        self.worker_id = worker_id.map(str::to_owned);
        self
    }

    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    pub fn error(mut self, error: Error) -> Self {
        self.error = Some(error);
        self
    }
}

/// Receives the warnings of one store, on any thread.
pub trait WarningListener: Send + Sync {
    fn warn(&self, warning: Warning);
}

/// Where a store's warnings go. The default drops them.
#[derive(Clone, Default)]
pub struct Warnings(Option<Arc<dyn WarningListener>>);

impl Warnings {
    pub fn to(listener: Arc<dyn WarningListener>) -> Self {
        Self(Some(listener))
    }

    pub fn warn(&self, warning: Warning) {
        if let Some(listener) = &self.0 {
            listener.warn(warning);
        }
    }

    /// Warns of a panic that ended `what`.
    pub fn panicked(&self, what: &str, error: Error) {
        let message = format!("{what} ended: {}", error.message);
        self.warn(Warning::new(WarningKind::Panic, message).error(error));
    }

    /// Runs a background task. Returns whether it ended without a panic, of which it warns.
    pub async fn watch(self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let ended = caught_in(async move {
            task.await;
            Ok(())
        });
        match ended.await {
            Ok(()) => true,
            Err(error) => {
                self.panicked(what, error);
                false
            }
        }
    }
}

/// The warnings of a test.
#[cfg(test)]
#[derive(Default)]
pub struct Noted(std::sync::Mutex<Vec<Warning>>);

#[cfg(test)]
impl Noted {
    pub fn take(&self) -> Vec<Warning> {
        std::mem::take(&mut crate::error::lock(&self.0))
    }
}

#[cfg(test)]
impl WarningListener for Noted {
    fn warn(&self, warning: Warning) {
        crate::error::lock(&self.0).push(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_warned_of_without_the_panic_message() {
        let noted = Arc::new(Noted::default());
        let warnings = Warnings::to(noted.clone());
        assert!(warnings.clone().watch("closing", async {}).await);
        assert!(noted.take().is_empty());
        assert!(!warnings.watch("closing", async { panic!("hunter2") }).await);
        let [warning] = <[Warning; 1]>::try_from(noted.take()).unwrap();
        assert_eq!(warning.kind, WarningKind::Panic);
        assert!(warning.message.starts_with("closing ended: a defect of this package") && !warning.message.contains("hunter2"));
    }
}
