//! Finalizes a job whose batches are all COMPLETED or FAILED: in `tryFinalizeJob`, or when `reclaimStaleBatches` finds that no worker is left to call
//! that.

use std::time::Duration;

use super::adoption::Adoption;
use super::call::{Access, Answer, Call, Entered};
use crate::backend::{Backend, LockedJob};
use crate::error::Result;
use crate::model::{BatchList, BatchRow, JobStatus, final_status};
use crate::retry::Repeat;

/// The outcome of an attempt to finalize a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finalized {
    Now,
    NotYet,
    /// It was final already, is not PROCESSING, or does not exist.
    Not,
}

impl Entered {
    /// Whether this call finalized the job. Of all callers, one gets `true`.
    pub fn try_finalize_job(self, job_id: String) -> impl Answer<bool> {
        self.accessing(Access::Claims(&job_id))
            .run(|call| async move { call.try_finalize_job(&job_id).await })
    }
}

impl Call {
    async fn try_finalize_job(&self, job_id: &str) -> Result<bool> {
        if self.has_open_batch(job_id).await? {
            return Ok(false);
        }
        // `true` must reach its one caller, so the call is not retried if its reply is lost.
        let finalize = || self.write(Repeat::RolledBackOnly, |backend| self.finalize_once(backend, job_id, None));
        let mut finalized = finalize().await?;
        if finalized == Finalized::NotYet && self.adopt_if_needed(job_id).await? == Adoption::Adopted {
            finalized = finalize().await?;
        }
        Ok(finalized == Finalized::Now)
    }

    /// Finalizes a job when no caller waits for the result.
    pub(super) async fn finalize_unattended(&self, job_id: &str, abandoned_for: Option<Duration>) -> Result<()> {
        // Idempotent: only a job that is PROCESSING and complete is finalized, and it does not matter which call does it.
        self.write(Repeat::Idempotent, |backend| self.finalize_once(backend, job_id, abandoned_for))
            .await
            .map(drop)
    }

    pub(super) async fn has_open_batch(&self, job_id: &str) -> Result<bool> {
        self.read(|reads| reads.has_open_batch(job_id, self.store.claims.start(job_id).from))
            .await
    }

    /// `abandoned_for`: finalizes only if the newest claim is older than that.
    async fn finalize_once(&self, backend: &dyn Backend, job_id: &str, abandoned_for: Option<Duration>) -> Result<Finalized> {
        let mut transaction = backend.begin().await?;
        let Some(job) = transaction.lock_job(job_id).await? else {
            transaction.rollback().await?;
            return Ok(Finalized::Not);
        };
        if job.status != JobStatus::Processing.as_str() {
            transaction.rollback().await?;
            self.forget_claims_if_final(job_id, &job.status);
            return Ok(Finalized::Not);
        }
        let rows = transaction.batch_rows(job_id).await?;
        let mut batches = BatchList::read(job_id, &job.batches)?;
        let status = status_when_complete(&job, &rows, &batches);
        let abandoned = abandoned_for.is_none_or(|age| is_abandoned(&rows, &job, age));
        let Some(status) = status.filter(|_| abandoned) else {
            transaction.rollback().await?;
            return Ok(Finalized::NotYet);
        };
        batches.follow(&rows);
        transaction.finish_job(job_id, status, &batches.to_json()).await?;
        transaction.commit().await?;
        self.forget_claims(job_id);
        Ok(Finalized::Now)
    }
}

/// The final status of a job whose batches are all done; `None` if one is open. A distributed job that lists no batches is complete.
pub(super) fn status_when_complete(job: &LockedJob, rows: &[BatchRow], batches: &BatchList<'_>) -> Option<JobStatus> {
    if job.distributed && rows.is_empty() && batches.is_empty() {
        return Some(JobStatus::Completed);
    }
    final_status(rows)
}

/// Whether no worker of a complete job is left: its newest claim is older than that, or its start if no claim is recorded. A job with neither was
/// stored complete and had no worker.
fn is_abandoned(rows: &[BatchRow], job: &LockedJob, age: Duration) -> bool {
    let newest = rows.iter().filter_map(|row| row.claimed_at).max().or(job.started_at);
    newest.is_none_or(|time| time < job.now.saturating_sub_unsigned(age.as_millis() as u64))
}
