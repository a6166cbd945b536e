//! Which records `records` returns, page by page.

use super::record_slices::SLICE_BYTES;
use super::status::RecordStatus;
use crate::error::Result;
use crate::fields::Fields;

/// The approximate size of a page of `records` in bytes, unless it is a single record. The servers apply it, because only they know the size of the
/// next records.
pub const PAGE_BYTES: i64 = SLICE_BYTES as i64;

/// One page of the records that the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    pub statuses: Vec<RecordStatus>,
    pub batch_id: Option<String>,
    /// Only records with a higher index.
    pub after: Option<i32>,
    /// The maximum number of records that the server reads; the page ends earlier if it reaches `PAGE_BYTES`.
    pub limit: i32,
}

impl RecordPage {
    pub fn from_json(json: &str, after: Option<i32>, limit: i32) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["status", "batchId", "from"])?;
        let from = fields.optional_int("from")?;
        let batch_id = fields.get("batchId").map(|_| fields.id("batchId")).transpose()?;
        let statuses = fields.status_or_statuses("status", RecordStatus::from_text, RecordStatus::names)?;
        let from = from.and_then(|from| from.checked_sub(1));
        Ok(Self {
            statuses: statuses.unwrap_or_else(|| RecordStatus::ALL.to_vec()),
            batch_id,
            after: after.or(from),
            limit,
        })
    }

    /// The statuses as exactly five parameters, padded by repeating the last one, so that one prepared statement serves any choice.
    pub fn status_places(&self) -> [&'static str; 5] {
        std::array::from_fn(|position| self.statuses[position.min(self.statuses.len() - 1)].as_str())
    }
}
