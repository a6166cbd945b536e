//! The number of a job's batches in each state: the result of `getDistributedStatus`.

use serde::Serialize;

use super::status::BatchStatus;

/// The number of a job's batch rows in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    pub total: i64,
    pub pending: i64,
    pub processing: i64,
    pub paused: i64,
    pub completed: i64,
    pub failed: i64,
}

impl BatchCounts {
    pub fn add(&mut self, status: &str, count: i64) {
        self.total += count;
        match BatchStatus::from_text(status) {
            Some(BatchStatus::Pending) => self.pending += count,
            Some(BatchStatus::Processing) => self.processing += count,
            Some(BatchStatus::Completed) => self.completed += count,
            Some(BatchStatus::Failed) => self.failed += count,
            Some(BatchStatus::Paused) => self.paused += count,
            None => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.total > 0 && self.pending == 0 && self.processing == 0 && self.paused == 0
    }
}

/// `DistributedJobStatus` of `index.d.ts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DistributedStatus<'a> {
    pub job_id: &'a str,
    pub total_batches: i64,
    pub completed_batches: i64,
    pub failed_batches: i64,
    pub processing_batches: i64,
    pub pending_batches: i64,
    pub is_complete: bool,
}

impl<'a> DistributedStatus<'a> {
    /// `lists_none`: the job is distributed and lists no batch, so it is complete.
    pub fn of(job_id: &'a str, counts: BatchCounts, lists_none: bool) -> Self {
        Self {
            job_id,
            total_batches: counts.total,
            completed_batches: counts.completed,
            failed_batches: counts.failed,
            processing_batches: counts.processing,
            pending_batches: counts.pending,
            is_complete: counts.is_complete() || lists_none,
        }
    }
}
