//! The end of a claimed batch, written together with the batch's last records. `updateBatchState` has the job's queue written first anyway, so with
//! `durability: 'batch'` the last group and the state are one transaction instead of two.
//!
//! That is an optimization and changes no promise. The writer takes the end along only with a group that holds nothing but records of that claim, and
//! tries once. If that fails, or no group is like that, the records are written as ever, and then the call sets the state itself.

use std::sync::{Arc, OnceLock, Weak};

use super::failures::Failures;
use crate::model::{BatchEnd, BatchIndex, BatchKey, BatchStatus, Token};
use crate::retry::LostReplies;

/// A call that ends a batch. It waits for the flush of its job's queue, which may write its end.
#[derive(Debug)]
pub struct EndingBatch {
    pub end: BatchEnd,
    pub lost_replies: LostReplies,
    written: OnceLock<BatchIndex>,
}

impl EndingBatch {
    pub fn new(end: BatchEnd) -> Arc<Self> {
        Arc::new(Self {
            end,
            lost_replies: LostReplies::default(),
            written: OnceLock::new(),
        })
    }

    /// The batch's index, if its state was written with its last records.
    pub fn written(&self) -> Option<BatchIndex> {
        self.written.get().copied()
    }

    pub(super) fn set_written(&self, index: BatchIndex) {
        self.written.get_or_init(|| index);
    }
}

/// A job's ends that may be taken along, each with the number of saves that were made before it.
#[derive(Default)]
pub struct Endings(Vec<(u64, Weak<EndingBatch>)>);

impl Endings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, saves: u64, batch: &Arc<EndingBatch>) {
        self.drop_ended();
        self.0.push((saves, Arc::downgrade(batch)));
    }

    /// Drops those whose calls ended without it.
    fn drop_ended(&mut self) {
        self.0.retain(|(_, batch)| batch.strong_count() > 0);
    }

    /// The end of this claim's batch, if all saves made before it are among the first `saves`. A batch with failures can't be COMPLETED.
    pub fn take(&mut self, (key, token): &(BatchKey, Token), saves: u64, failures: &Failures) -> Option<Arc<EndingBatch>> {
        self.drop_ended();
        let is_it = |batch: &Arc<EndingBatch>| batch.end.key == *key && batch.end.token == *token;
        let ready = |(before, batch): &(u64, Weak<EndingBatch>)| *before <= saves && batch.upgrade().is_some_and(|batch| is_it(&batch));
        let place = self.0.iter().position(ready)?;
        let batch = self.0.swap_remove(place).1.upgrade()?;
        let is_whole = batch.end.state.status != BatchStatus::Completed || failures.check_batch(&key.batch_id).is_ok();
        is_whole.then_some(batch)
    }
}
