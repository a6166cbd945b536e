//! `retryFailed`: which records it takes, and the job that it makes of them.

use serde::Serialize;

use super::batch::ListedBatch;
use super::ids::BatchKey;
use super::job::Job;
use super::json_string::push_string;
use super::status::{BatchStatus, JobStatus, RecordStatus};
use crate::error::{Code, Error, Quoted, Result};
use crate::fields::Fields;

/// The options of `retryFailed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    pub statuses: Vec<RecordStatus>,
    /// `None`: as the source job has it.
    pub batch_size: Option<i32>,
}

const MAX_BATCH_SIZE: i32 = 100_000;

impl RetryOptions {
    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["statuses", "batchSize"])?;
        let statuses = fields.statuses("statuses", retryable, || "pending, valid, invalid, failed".to_owned())?;
        let batch_size = fields.optional_int("batchSize")?;
        if let Some(size) = batch_size.filter(|size| !(1..=MAX_BATCH_SIZE).contains(size)) {
            return Err(fields.wrong("batchSize", &size.to_string(), format_args!("from 1 to {MAX_BATCH_SIZE}")));
        }
        Ok(Self {
            statuses: statuses.unwrap_or_else(|| vec![RecordStatus::Failed]),
            batch_size,
        })
    }

    /// The statuses as exactly four parameters, padded by repeating the last one, so that one prepared statement serves any choice.
    pub fn status_places(&self) -> [&'static str; 4] {
        std::array::from_fn(|place| self.statuses[place.min(self.statuses.len() - 1)].as_str())
    }

    /// The new job's configuration, which is the source's with `retryOf`, and its number of records per batch.
    pub fn config(&self, source_id: &str, config: &str) -> Result<(String, i32)> {
        let what = format!("config of job {}", Quoted(source_id));
        let fields = Fields::read(&what, config).map_err(|error| Error {
            code: Code::TablesIncompatible,
            ..error
        })?;
        let own_size = || fields.optional_int("batchSize").ok().flatten();
        let usable = |size: &i32| (1..=MAX_BATCH_SIZE).contains(size);
        let Some(size) = self.batch_size.or_else(own_size).filter(usable) else {
            return Err(Error::invalid(format!(
                "options.batchSize is missing: job {} has no config.batchSize from 1 to {MAX_BATCH_SIZE} to take instead",
                Quoted(source_id)
            )));
        };
        let mut out = String::with_capacity(config.len() + 80);
        for (key, value) in &fields.entries {
            if key == "retryOf" || key == "batchSize" && self.batch_size.is_some() {
                continue;
            }
            out.push(if out.is_empty() { '{' } else { ',' });
            push_string(&mut out, key);
            out.push(':');
            out.push_str(value.get());
        }
        if self.batch_size.is_some() {
            out.push(if out.is_empty() { '{' } else { ',' });
            out.push_str(&format!("\"batchSize\":{size}"));
        }
        out.push_str(if out.is_empty() { "{\"retryOf\":" } else { ",\"retryOf\":" });
        push_string(&mut out, source_id);
        out.push('}');
        Ok((out, size))
    }
}

/// The status of a record that may be tried again.
fn retryable(text: &str) -> Option<RecordStatus> {
    RecordStatus::from_text(text).filter(|status| *status != RecordStatus::Processed)
}

/// Which records to copy into which batch of the new job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCopies<'a> {
    pub source_id: &'a str,
    pub into: &'a BatchKey,
    pub statuses: [&'static str; 4],
    /// Only records with a higher index.
    pub after: Option<i32>,
    pub limit: i32,
}

/// The number and the indexes of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRange {
    pub count: i64,
    pub first: i32,
    pub last: i32,
}

/// A job that is made of copied records, batch after batch.
#[derive(Clone, Debug)]
pub struct RetryJob {
    id: String,
    batches: Vec<ListedBatch>,
    records: i64,
}

impl RetryJob {
    pub fn new(id: String) -> Self {
        Self {
            id,
            batches: Vec::new(),
            records: 0,
        }
    }

    pub fn push(&mut self, batch_id: String, records: RecordRange) {
        self.records += records.count;
        self.batches.push(ListedBatch {
            id: batch_id,
            index: self.batches.len() as i32,
            status: BatchStatus::Pending.as_str().to_owned(),
            processed: 0,
            failed: 0,
            worker_id: None,
            claimed_at: None,
            start: records.first,
            end: records.last,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The job as `saveJobState` stores it.
    pub fn into_job(self, config: String, started_at: i64) -> Job {
        let mut batches = String::with_capacity(self.batches.len() * 200 + 2);
        for batch in &self.batches {
            batches.push_str(if batches.is_empty() { "[{\"id\":" } else { ",{\"id\":" });
            push_string(&mut batches, &batch.id);
            batches.push_str(&format!(
                ",\"index\":{},\"status\":\"{}\",\"records\":[],\"processedCount\":0,\"failedCount\":0,\"recordStartIndex\":{},\"recordEndIndex\":{}}}",
                batch.index, batch.status, batch.start, batch.end
            ));
        }
        batches.push_str(if batches.is_empty() { "[]" } else { "]" });
        Job {
            id: self.id,
            config,
            status: JobStatus::Processing,
            batches,
            listed: self.batches,
            captured: None,
            // A job has as many records as there are indexes of 32 bits.
            total_records: self.records.try_into().unwrap_or(i32::MAX),
            started_at: Some(started_at),
            completed_at: None,
            distributed: true,
            file: None,
        }
    }
}

/// `RetryResult` of `index.d.ts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    pub job_id: String,
    pub total_records: i32,
    pub total_batches: usize,
}

impl Retried {
    pub fn of(job: &Job) -> Self {
        Self {
            job_id: job.id.clone(),
            total_records: job.total_records,
            total_batches: job.listed.len(),
        }
    }
}
