//! Tracks running `initialize()` calls, so that `initialize()` need not be awaited before the first call.

use std::sync::Arc;

use tokio::sync::watch;

/// A store's running `initialize()` calls. Calls made meanwhile wait for them.
#[derive(Clone)]
pub struct Initialization {
    under_way: Arc<watch::Sender<usize>>,
}

/// Held by a running `initialize()`.
pub struct Initializing {
    under_way: Arc<watch::Sender<usize>>,
}

impl Default for Initialization {
    fn default() -> Self {
        Self {
            under_way: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Initialization {
    /// Registers one more, until the returned guard is dropped.
    pub fn begin(&self) -> Initializing {
        self.under_way.send_modify(|count| *count += 1);
        Initializing {
            under_way: self.under_way.clone(),
        }
    }

    /// What a call made now must wait for.
    pub fn before_call(&self) -> Option<watch::Receiver<usize>> {
        (*self.under_way.borrow() > 0).then(|| self.under_way.subscribe())
    }

    /// Resolves when none is running.
    pub async fn wait(before: Option<watch::Receiver<usize>>) {
        if let Some(mut under_way) = before {
            // The channel closes with the store, and then none is running.
            let _ = under_way.wait_for(|count| *count == 0).await;
        }
    }
}

impl Drop for Initializing {
    fn drop(&mut self) {
        self.under_way.send_modify(|count| *count -= 1);
    }
}
