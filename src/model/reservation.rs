//! A claim on a batch: what `claimBatch` answers.

use serde::Serialize;

/// A claim as JavaScript sees it, `BatchReservation` of `index.d.ts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    pub job_id: String,
    pub batch_id: String,
    pub batch_index: i32,
    pub worker_id: String,
    pub claimed_at: i64,
    pub record_start_index: i32,
    pub record_end_index: i32,
    pub token: i32,
    /// The highest batch index of the job when the batch was claimed.
    #[serde(skip)]
    pub last_batch_index: i32,
}
