//! Serializes the results of the store's methods as JSON text. This happens on the thread of the call, not on the JavaScript thread.

use std::time::Duration;

use super::boundary::Reply;
use crate::backend::{Examination, Ping};
use crate::error::{Error, Result};
use crate::model::{JobRow, Progress, Purged, RecordSlices, Retried, StoreStats};
use crate::operations::{Claim, DistributedCounts, JobState, PageOfBatches, PageOfRecords};

/// The result of a call.
pub trait IntoReply {
    fn into_reply(self) -> Result<Reply>;
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Nothing)
    }
}

impl IntoReply for bool {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Boolean(self))
    }
}

impl IntoReply for u32 {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Number(self))
    }
}

/// `JobState | null`.
impl IntoReply for Option<JobState> {
    fn into_reply(self) -> Result<Reply> {
        let Some(JobState { row, batches }) = self else {
            return Ok(Reply::Null);
        };
        // `index.js` puts the accessor in the place of the null.
        Ok(Reply::Job {
            job: row.to_json(Some("null")),
            batches,
        })
    }
}

/// `JobSummary[]`.
impl IntoReply for Vec<JobRow> {
    fn into_reply(self) -> Result<Reply> {
        let jobs: Vec<String> = self.iter().map(|job| job.to_json(None)).collect();
        Ok(Reply::Json(format!("[{}]", jobs.join(","))))
    }
}

/// `JobSummary | null`.
impl IntoReply for Option<JobRow> {
    fn into_reply(self) -> Result<Reply> {
        Ok(self.map_or(Reply::Null, |job| Reply::Json(job.to_json(None))))
    }
}

/// `BatchSummary[]`.
impl IntoReply for PageOfBatches {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Json(format!("[{}]", self.0.join(","))))
    }
}

impl IntoReply for StoreStats {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Json(self.to_json()))
    }
}

/// `PingResult`.
impl IntoReply for Ping {
    fn into_reply(self) -> Result<Reply> {
        let (database, version) = (json(&self.database)?, json(&self.version)?);
        let (latency, skew) = (rounded_ms(self.latency), self.clock_skew_ms);
        Ok(Reply::Json(format!(
            "{{\"database\":{database},\"version\":{version},\"latencyMs\":{latency},\"clockSkewMs\":{skew}}}"
        )))
    }
}

/// A duration in milliseconds, to the microsecond.
fn rounded_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// `ClaimBatchResult`.
impl IntoReply for Claim {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Json(match self {
            Claim::Made(reservation) => format!("{{\"claimed\":true,\"reservation\":{}}}", json(&reservation)?),
            Claim::NotMade(reason) => format!("{{\"claimed\":false,\"reason\":\"{}\"}}", reason.as_str()),
        }))
    }
}

impl IntoReply for DistributedCounts {
    fn into_reply(self) -> Result<Reply> {
        json(&self.status()).map(Reply::Json)
    }
}

impl IntoReply for Progress {
    fn into_reply(self) -> Result<Reply> {
        json(&self).map(Reply::Json)
    }
}

/// `RetryResult | null`.
impl IntoReply for Option<Retried> {
    fn into_reply(self) -> Result<Reply> {
        self.map_or(Ok(Reply::Null), |retried| json(&retried).map(Reply::Json))
    }
}

impl IntoReply for Purged {
    fn into_reply(self) -> Result<Reply> {
        json(&self).map(Reply::Json)
    }
}

/// `ProcessedRecord[]`.
impl IntoReply for RecordSlices {
    fn into_reply(self) -> Result<Reply> {
        Ok(Reply::Records(self))
    }
}

/// What `records()` in `index.js` reads page by page: the length of a page tells it how many records to ask for next.
impl IntoReply for PageOfRecords {
    fn into_reply(self) -> Result<Reply> {
        let records = self.0.into_page();
        Ok(Reply::Json(format!("{{\"bytes\":{},\"records\":{records}}}", records.len())))
    }
}

impl IntoReply for Examination {
    fn into_reply(self) -> Result<Reply> {
        json(&self).map(Reply::Json)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("a result could not be written: {error}")))
}
