//! Which records `records` returns, page by page.

use std::borrow::Cow;

use serde_json::value::RawValue;

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
        let statuses = read_statuses(&fields)?;
        let from = from.and_then(|from| from.checked_sub(1));
        Ok(Self {
            statuses,
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

/// The option `status`: one status, a non-empty array of them, or all of them if it is absent.
fn read_statuses(fields: &Fields<'_, '_>) -> Result<Vec<RecordStatus>> {
    let Some(list) = fields.get("status") else {
        return Ok(RecordStatus::ALL.to_vec());
    };
    if !list.starts_with('[') {
        return Ok(vec![fields.status("status", RecordStatus::from_text, RecordStatus::names)?]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| fields.wrong("status", list, "an array"))?;
    if items.is_empty() {
        return Err(fields.wrong("status", list, "a status, or an array of at least one"));
    }
    let read = |item: &RawValue| {
        let text: Option<Cow<'_, str>> = serde_json::from_str(item.get()).ok();
        text.and_then(|text| RecordStatus::from_text(&text))
            .ok_or_else(|| fields.wrong("status", item.get(), format!("one of {}", RecordStatus::names())))
    };
    items.into_iter().map(read).collect()
}
