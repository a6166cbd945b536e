//! The progress of a job: the result of `getProgress`.

use serde::Serialize;

use super::status::RecordStatus;

/// The number of a job's records in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    pub processed: i64,
    /// Records that are `failed` or `invalid`.
    pub failed: i64,
}

impl RecordCounts {
    pub fn add(&mut self, status: &str, count: i64) {
        match RecordStatus::from_text(status) {
            Some(RecordStatus::Processed) => self.processed += count,
            Some(RecordStatus::Failed | RecordStatus::Invalid) => self.failed += count,
            Some(RecordStatus::Pending | RecordStatus::Valid) | None => {}
        }
    }
}

/// The part of the job's row that its progress depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTimes {
    pub total_records: i64,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
    /// The database's clock.
    pub now: i64,
}

/// `JobProgress` of `index.d.ts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub total_records: i64,
    pub processed_records: i64,
    pub failed_records: i64,
    pub pending_records: i64,
    pub percentage: i64,
    pub current_batch: i64,
    pub total_batches: i64,
    pub elapsed_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_remaining_ms: Option<i64>,
}

impl Progress {
    pub fn of(job: JobTimes, records: RecordCounts, completed_batches: i64, total_batches: i64) -> Self {
        let done = records.processed + records.failed;
        let pending = (job.total_records - done).max(0);
        let elapsed = job
            .started_at
            .map_or(0, |started| (job.completed_at.unwrap_or(job.now) - started).max(0));
        let percentage = if job.total_records > 0 {
            (done as f64 / job.total_records as f64 * 100.0).round() as i64
        } else {
            0
        };
        Self {
            total_records: job.total_records,
            processed_records: records.processed,
            failed_records: records.failed,
            pending_records: pending,
            percentage,
            current_batch: completed_batches,
            total_batches,
            elapsed_ms: elapsed,
            estimated_remaining_ms: (pending > 0 && done > 0).then(|| (elapsed as f64 / done as f64 * pending as f64).round() as i64),
        }
    }
}
