//! A wait until what was queued is done. Saves and calls are each done in order, so that a number says how far the writer is.

use tokio::sync::watch;

/// Waits until the first `target` of a queue's saves, or of its calls, are written, successfully or not.
pub struct Done {
    pub target: u64,
    done: watch::Receiver<u64>,
}

impl Done {
    /// `done`: how many of them are done.
    pub fn new(target: u64, done: &watch::Sender<u64>) -> Self {
        Self {
            target,
            done: done.subscribe(),
        }
    }

    pub async fn wait(mut self) {
        let target = self.target;
        // The channel closes when the queue is dropped, and then nothing is left in it.
        let _ = self.done.wait_for(|done| *done >= target).await;
    }
}
