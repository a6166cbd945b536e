//! What could not be stored after its call was answered (`durability: 'batch'`): records, the job, and states of its batches. The caller already has its
//! answer, so the failure is recorded here. Of a record, calls on its batch are rejected until it is saved again; of the job or a state, calls on the job
//! are, until it is stored as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::backend::RecordWrite;
use crate::error::{Code, Error, Quoted, Repeatable, Result};
use crate::model::{BatchKey, Record, Token};

/// A queued record that could not be stored.
struct Failed {
    error: Error,
    /// It has been saved again, and that save is not written yet.
    queued_again: bool,
}

/// The failed records of one batch, by index.
type BatchFailures = BTreeMap<i32, Failed>;

/// The failures of one job.
#[derive(Default)]
pub struct Failures {
    /// By the id of the batch.
    batches: HashMap<String, BatchFailures>,
    /// For each batch, the tokens whose queued saves were refused because the claim was lost. These don't count as failures, because the batch's
    /// present holder writes its records itself. A refused token stays refused, even if a later claim gets the same token, as it can if a caller passed a
    /// token before its claim was made: records that were queued with the token are not stored, and the caller would not be told.
    lost: HashMap<String, HashSet<Token>>,
    /// Why the job or the state of a batch could not be stored after the call was answered.
    job: Option<Error>,
}

impl Failures {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.lost.is_empty() && self.job.is_none()
    }

    /// Records the result of calls that were answered before they were written. The first failure stays, because later ones may follow from it.
    pub fn settle_job(&mut self, job_id: &str, result: Result<()>) {
        if let Err(error) = result {
            self.job.get_or_insert_with(|| not_written(job_id, error));
        }
    }

    /// The job was stored as a whole.
    pub fn clear_job(&mut self) {
        self.job = None;
    }

    pub fn check_job_writes(&self) -> Result<()> {
        self.job.clone().map_or(Ok(()), Err)
    }

    /// The batches with records that could not be stored.
    pub fn batch_ids(&self) -> HashSet<String> {
        self.batches.keys().cloned().collect()
    }

    /// Records the result of a save that was answered before it was written.
    pub fn settle(&mut self, write: &RecordWrite, result: Result<()>) {
        match (result, write.token) {
            (Ok(()), _) => self.clear_failures([write.record.index]),
            (Err(error), Some(token)) if error.code == Code::LeaseLost => {
                self.lost.entry(write.batch_id.clone()).or_default().insert(token);
                let failures = self.batches.get_mut(&write.batch_id);
                if let Some(failed) = failures.and_then(|failures| failures.get_mut(&write.record.index)) {
                    failed.queued_again = false;
                }
            }
            (Err(error), _) => {
                let failed = Failed {
                    error,
                    queued_again: false,
                };
                self.batches
                    .entry(write.batch_id.clone())
                    .or_default()
                    .insert(write.record.index, failed);
            }
        }
    }

    /// Clears the failures of records that are now stored, in any batch: a job has only one record per index.
    pub fn clear_failures(&mut self, records: impl IntoIterator<Item = i32>) {
        if self.batches.is_empty() {
            return;
        }
        for record in records {
            self.batches.retain(|_, failures| {
                failures.remove(&record);
                !failures.is_empty()
            });
        }
    }

    /// Rejects a save to a batch with failures, unless it repeats one of the failed saves.
    pub fn check_save(&mut self, write: &RecordWrite) -> Result<()> {
        // A worker with a claim saves to a distributed job, whose list is not what failed here.
        if write.token.is_none() {
            self.check_job_writes()?;
        }
        if let Some(token) = write.token
            && self.lost.get(&write.batch_id).is_some_and(|lost| lost.contains(&token))
        {
            return Err(Error::lease_lost(&BatchKey::new(&*write.job_id, &*write.batch_id), token));
        }
        let Some(failures) = self.batches.get_mut(&write.batch_id) else {
            return Ok(());
        };
        if let Some(failed) = failures.get_mut(&write.record.index) {
            failed.queued_again = true;
        } else if failures.values().any(|failed| !failed.queued_again) {
            return Err(not_stored(&write.batch_id, failures));
        }
        Ok(())
    }

    /// Rejects a bulk save to a batch with failures, unless it repeats some of the failed saves.
    pub fn check_bulk(&self, batch_id: &str, records: &[Record]) -> Result<()> {
        match self.batches.get(batch_id) {
            Some(failures) if !records.iter().any(|record| failures.contains_key(&record.index)) => Err(not_stored(batch_id, failures)),
            _ => Ok(()),
        }
    }

    /// Rejects if the batch has failures.
    pub fn check_batch(&self, batch_id: &str) -> Result<()> {
        match self.batches.get(batch_id) {
            Some(failures) => Err(not_stored(batch_id, failures)),
            None => Ok(()),
        }
    }

    /// Rejects if anything that was queued for the job could not be stored.
    pub fn check_all(&self) -> Result<()> {
        self.check_job_writes()?;
        match self.batches.iter().next() {
            Some((batch_id, failures)) => Err(not_stored(batch_id, failures)),
            None => Ok(()),
        }
    }

    /// Rejects a call that would be queued. A failed record whose next save is queued too does not count: if that one fails as well, the call's batch is
    /// stored as FAILED.
    pub fn check_queued_call(&self) -> Result<()> {
        self.check_job_writes()?;
        let still_failed = |failures: &BatchFailures| failures.values().any(|failed| !failed.queued_again);
        match self.batches.iter().find(|(_, failures)| still_failed(failures)) {
            Some((batch_id, failures)) => Err(not_stored(batch_id, failures)),
            None => Ok(()),
        }
    }

    pub fn forget_batch(&mut self, batch_id: &str) {
        self.batches.remove(batch_id);
        self.lost.remove(batch_id);
    }

    pub fn forget_claims(&mut self) {
        self.lost.clear();
    }

    pub fn forget_all(&mut self) {
        *self = Self::default();
    }
}

/// The error of a call on a job while its list or the state of a batch could not be stored.
fn not_written(job_id: &str, error: Error) -> Error {
    Error {
        message: format!(
            "job {} could not be stored after the call was answered, so it can't go on until saveJobState ends or pauses it: {}",
            Quoted(job_id),
            error.message
        ),
        repeatable: Repeatable::Never,
        ..error.clone()
    }
}

/// The error of a call on a batch while some of the batch's records could not be stored.
fn not_stored(batch_id: &str, failures: &BatchFailures) -> Error {
    let Some((first, Failed { error, .. })) = failures.iter().find(|(_, failed)| !failed.queued_again).or(failures.iter().next()) else {
        return Error::internal("a batch without failed records is listed as one with failures");
    };
    let more = match failures.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Error {
        message: format!(
            "record {first}{more} of batch {} could not be stored after it was queued, so the batch can't go on until it is saved again: {}",
            Quoted(batch_id),
            error.message
        ),
        repeatable: Repeatable::Never,
        ..error.clone()
    }
}
