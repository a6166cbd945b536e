//! A claim on a batch: the result of `claimBatch`.

use serde::Serialize;

use super::ids::{BatchIndex, BatchKey, Token, WorkerId};

/// A claim as JavaScript sees it, `BatchReservation` of `index.d.ts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    pub job_id: String,
    pub batch_id: String,
    pub batch_index: BatchIndex,
    pub worker_id: WorkerId,
    pub claimed_at: i64,
    pub record_start_index: i32,
    pub record_end_index: i32,
    pub token: Token,
    /// The job's highest batch index at the time of the claim.
    #[serde(skip)]
    pub last_batch_index: BatchIndex,
}

impl Reservation {
    pub fn key(&self) -> BatchKey {
        BatchKey::new(&*self.job_id, &*self.batch_id)
    }
}
