//! A batch in its three shapes: as `saveJobState` lists it, as `updateBatchState` changes it, and as a row of the table.

use super::ids::{BatchKey, Token};
use super::status::BatchStatus;
use crate::error::{Error, Quoted, Result};
use crate::fields::Fields;

/// A batch as `saveJobState` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBatch {
    pub id: String,
    pub index: i32,
    pub status: String,
    pub processed: i32,
    pub failed: i32,
    pub worker_id: Option<String>,
    pub claimed_at: Option<i64>,
    pub start: i32,
    pub end: i32,
}

impl ListedBatch {
    pub(super) fn from_fields(fields: &Fields<'_, '_>) -> Result<Self> {
        Ok(Self {
            id: fields.id("id")?,
            index: fields.int("index")?,
            status: fields
                .status("status", BatchStatus::from_text, BatchStatus::names)?
                .as_str()
                .to_owned(),
            processed: fields.int("processedCount")?,
            failed: fields.int("failedCount")?,
            worker_id: fields.optional_string("workerId")?,
            claimed_at: fields.optional_time("claimedAt")?,
            start: fields.optional_int("recordStartIndex")?.unwrap_or(0),
            end: fields.optional_int("recordEndIndex")?.unwrap_or(0),
        })
    }

    /// The initial status of its row: PENDING if the list says PROCESSING without a worker, because no worker holds such a batch and none could claim
    /// it.
    pub fn initial_status(&self) -> &str {
        if self.status == BatchStatus::Processing.as_str() && self.worker_id.is_none() {
            BatchStatus::Pending.as_str()
        } else {
            &self.status
        }
    }
}

/// What `updateBatchState` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchState {
    pub status: BatchStatus,
    pub processed: i32,
    pub failed: i32,
}

impl BatchState {
    pub fn from_json(batch_id: &str, json: &str) -> Result<Self> {
        let fields = Fields::read(&"state", json)?;
        let named = fields.id("batchId")?;
        if named != batch_id {
            return Err(Error::invalid(format!(
                "state.batchId is {}, but the call is for batch {}",
                Quoted(&named),
                Quoted(batch_id)
            )));
        }
        Ok(Self {
            status: fields.status("status", BatchStatus::from_text, BatchStatus::names)?,
            processed: fields.int("processedCount")?,
            failed: fields.int("failedCount")?,
        })
    }
}

/// The end of a batch: the final state that its holder sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    pub key: BatchKey,
    pub state: BatchState,
    /// The holder's claim, which the batch's version must still equal.
    pub token: Token,
}

/// A row of the batches table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    pub id: String,
    pub index: i32,
    pub status: String,
    pub worker_id: Option<String>,
    pub claimed_at: Option<i64>,
    pub processed: i32,
    pub failed: i32,
}
