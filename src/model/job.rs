//! A job as a user saves it, and the final status of a job.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::batch::{BatchRow, ListedBatch};
use super::batch_list::BatchList;
use super::captured_list::CapturedList;
use super::id_limits::{WORKER_ID_LENGTH, check_id};
use super::status::{BatchStatus, JobStatus, batch_is_open};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The argument of `saveJobState`: `JobState` of `index.d.ts`, and the claims that the caller saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: String,
    pub config: String,
    pub status: JobStatus,
    /// The JSON array for the column `batches`, in the caller's order.
    pub batches: String,
    /// The same batches, with their claims. Empty where `captured` has them.
    pub listed: Vec<ListedBatch>,
    /// The batches of a job that is not distributed, whose text is not made yet: see `write_list`.
    pub captured: Option<CapturedList>,
    pub total_records: i32,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
    /// `Backend::file` when the job was queued; it is not written to any other file. `None`: any file.
    pub file: Option<u64>,
}

impl Job {
    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"job", json)?;
        let batches = fields.must("batches", fields.array("batches")?, "an array")?;
        Self::from_fields(&fields, batches)
    }

    /// A job whose list is given by what changed in it since it was captured last. The captured list becomes the job's.
    pub fn from_change(json: &str, captured: &mut CapturedList) -> Result<Self> {
        let fields = Fields::read(&"job", json)?;
        let mut job = Self::from_fields(&fields, "[]")?;
        let changes = fields.must("changes", fields.get("changes"), "what changed in the list")?;
        *captured = captured.changed(changes)?;
        job.captured = Some(captured.clone());
        Ok(job)
    }

    fn from_fields(fields: &Fields<'_, '_>, batches: &str) -> Result<Self> {
        let config = fields.must("config", fields.get("config"), "an object")?;
        if !config.starts_with('{') {
            return Err(fields.wrong("config", config, "an object"));
        }
        let distributed = match fields.get("distributed") {
            None | Some("false") => false,
            Some("true") => true,
            Some(value) => return Err(fields.wrong("distributed", value, "a boolean")),
        };
        let mut listed = Fields::read_list(&"job.batches", batches, ListedBatch::from_fields)?;
        if let Some(holders) = fields.array("holders")? {
            read_holders(&mut listed, holders)?;
        }
        Ok(Self {
            id: fields.id("id")?,
            config: config.to_owned(),
            status: fields.status("status", JobStatus::from_text, JobStatus::names)?,
            listed,
            batches: batches.to_owned(),
            total_records: fields.optional_int("totalRecords")?.unwrap_or(0),
            started_at: fields.optional_time("startedAt")?,
            completed_at: fields.optional_time("completedAt")?,
            distributed,
            captured: None,
            file: None,
        })
    }

    /// Makes the text of a captured list.
    pub fn write_list(&mut self) {
        if let Some(captured) = &self.captured {
            self.batches = captured.to_json();
        }
    }

    /// Whether a store with `durability: 'batch'` queues the job. Later statuses are the end of something, which the caller has to know of.
    pub fn is_queueable(&self) -> bool {
        self.status == JobStatus::Processing && !self.distributed
    }

    /// The maximum size of `batches` in bytes, in any state of its batches.
    pub fn longest_list(&self) -> usize {
        let status = BatchStatus::ALL
            .iter()
            .map(|status| status.as_str().len())
            .max()
            .unwrap_or_default();
        let count = i32::MIN.to_string().len();
        let room = |batch: &ListedBatch| {
            let now = batch.status.len() + batch.processed.to_string().len() + batch.failed.to_string().len();
            (status + 2 * count).saturating_sub(now)
        };
        let room = match &self.captured {
            Some(captured) => captured.room(),
            None => self.listed.iter().map(room).sum::<usize>(),
        };
        self.batches.len() + room
    }

    /// Changes these batches from COMPLETED to FAILED, in `batches` and `listed`. A batch with another status keeps it.
    pub fn fail_completed(&mut self, batch_ids: &HashSet<String>) -> Result<()> {
        if let Some(captured) = &mut self.captured {
            return captured.fail_completed(&self.id, batch_ids);
        }
        let mut batches = BatchList::read(&self.id, &self.batches)?;
        let mut changed = false;
        for (position, listed) in self.listed.iter_mut().enumerate() {
            if batch_ids.contains(&listed.id) && listed.status == BatchStatus::Completed.as_str() {
                listed.status = BatchStatus::Failed.as_str().to_owned();
                changed |= batches.set_state(position, &listed.status, listed.processed, listed.failed);
            }
        }
        if changed {
            self.batches = batches.to_json();
        }
        Ok(())
    }
}

/// Adds the claims that the caller saw. `index.js` removes them from the list before it is stored as text, because claims belong only in the batches'
/// rows.
fn read_holders(listed: &mut [ListedBatch], json: &str) -> Result<()> {
    let holders: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| Error::invalid("job.batches must be an array"))?;
    for (position, (batch, holder)) in listed.iter_mut().zip(holders).enumerate() {
        let what = format_args!("job.batches[{position}]").to_string();
        let holder = Fields::read(&what, holder.get())?;
        batch.worker_id = holder.optional_string("workerId")?;
        if let Some(worker_id) = &batch.worker_id {
            check_id(&format_args!("{what}.workerId"), worker_id, WORKER_ID_LENGTH)?;
        }
        batch.claimed_at = holder.optional_time("claimedAt")?;
    }
    Ok(())
}

/// The job's final status; `None` while it has no batch or an open one.
pub fn final_status(rows: &[BatchRow]) -> Option<JobStatus> {
    if rows.is_empty() || rows.iter().any(|row| batch_is_open(&row.status)) {
        return None;
    }
    let failed = rows.iter().any(|row| row.status == BatchStatus::Failed.as_str());
    Some(if failed { JobStatus::Failed } else { JobStatus::Completed })
}
