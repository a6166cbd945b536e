//! A page of a job's batches: which ones `batches` returns, and each of them as JSON text.

use super::json_string::push_string;
use super::status::BatchStatus;
use crate::error::Result;
use crate::fields::Fields;

/// The options of `batches`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPage {
    /// `None`: batches of any status.
    pub statuses: Option<Vec<BatchStatus>>,
    pub limit: i32,
    /// Only batches with a higher index.
    pub after: Option<i32>,
}

impl BatchPage {
    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["status", "limit", "after"])?;
        Ok(Self {
            statuses: fields.status_or_statuses("status", BatchStatus::from_text, BatchStatus::names)?,
            limit: fields.page_limit("limit")?,
            after: fields.optional_int("after")?,
        })
    }

    /// The statuses as exactly five parameters, padded by repeating the last one, so that one prepared statement serves any choice. All of them are null if
    /// any status will do.
    pub fn status_places(&self) -> [Option<&'static str>; 5] {
        let statuses = self.statuses.as_deref().unwrap_or_default();
        std::array::from_fn(|place| statuses.get(place).or(statuses.last()).map(|status| status.as_str()))
    }

    /// Whether a batch with this index is after the page before.
    pub(super) fn is_after(&self, index: i32) -> bool {
        self.after.is_none_or(|after| index > after)
    }

    pub(super) fn takes(&self, status: &str) -> bool {
        let statuses = self.statuses.as_deref();
        statuses.is_none_or(|statuses| statuses.iter().any(|one| one.as_str() == status))
    }
}

/// A batch's row as `batches` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSummary {
    pub id: String,
    pub index: i32,
    pub status: String,
    pub processed: i32,
    pub failed: i32,
    pub start: i32,
    pub end: i32,
    pub worker_id: Option<String>,
    pub claimed_at: Option<i64>,
}

impl BatchSummary {
    /// `BatchSummary` of `index.d.ts`, with the keys in the order that `getJobState` gives them.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(200 + self.id.len() + self.worker_id.as_ref().map_or(0, String::len));
        out.push_str("{\"id\":");
        push_string(&mut out, &self.id);
        let number = |out: &mut String, key: &str, number: i64| {
            out.push_str(key);
            out.push_str(&number.to_string());
        };
        number(&mut out, ",\"index\":", self.index.into());
        out.push_str(",\"status\":");
        push_string(&mut out, &self.status);
        number(&mut out, ",\"processedCount\":", self.processed.into());
        number(&mut out, ",\"failedCount\":", self.failed.into());
        number(&mut out, ",\"recordStartIndex\":", self.start.into());
        number(&mut out, ",\"recordEndIndex\":", self.end.into());
        if let Some(worker_id) = &self.worker_id {
            out.push_str(",\"workerId\":");
            push_string(&mut out, worker_id);
        }
        if let Some(claimed_at) = self.claimed_at {
            number(&mut out, ",\"claimedAt\":", claimed_at);
        }
        out.push('}');
        out
    }
}
