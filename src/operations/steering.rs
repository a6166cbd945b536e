//! `pauseJob`, `resumeJob` and `abortJob`: a person or a program other than the workers changes a job's status.
//!
//! None of them is repeated if its reply is lost: a repeat could pause what another caller has resumed meanwhile, and `true` belongs to one caller.

use super::call::{Access, Answer, Call, Entered};
use super::finalize::status_when_complete;
use crate::backend::{Backend, LockedJob, Reclaimed, Transaction};
use crate::error::{Error, Quoted, Result};
use crate::model::{AbortOptions, BatchList, JobStatus, following};
use crate::retry::{LostReplies, Repeat};
use crate::warnings::WarningKind;

/// How often `abortJob` with `now` looks for claims that were being made while it ended the job. One more look than claims can come in between finds
/// none; a program that claims batches of jobs that are not PROCESSING must not hold it forever.
const MOST_SWEEPS: u32 = 20;

/// What one transaction of `abortJob` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Aborted {
    /// It changed the job's status.
    now: bool,
    /// The batches that it took from their workers.
    taken: Vec<Reclaimed>,
}

impl Entered {
    /// Whether this call paused the job.
    pub fn pause_job(self, job_id: String) -> impl Answer<bool> {
        self.accessing(Access::Claims(&job_id))
            .run(|call| async move { call.pause_job(&job_id).await })
    }

    /// Whether this call made the job go on, or made it final.
    pub fn resume_job(self, job_id: String) -> impl Answer<bool> {
        self.accessing(Access::Claims(&job_id))
            .run(|call| async move { call.resume_job(&job_id).await })
    }

    /// Whether this call aborted the job.
    pub fn abort_job(self, job_id: String, options: AbortOptions) -> impl Answer<bool> {
        self.accessing(Access::Claims(&job_id))
            .run(move |call| async move { call.abort_job(&job_id, options).await })
    }
}

impl Call {
    async fn pause_job(&self, job_id: &str) -> Result<bool> {
        let paused = self.write(Repeat::RolledBackOnly, |backend| backend.pause_job(job_id)).await?;
        if !paused && let Some(job) = self.read(|reads| reads.claim_snapshot(job_id)).await? {
            check_distributed(job_id, job.distributed, "paused")?;
        }
        Ok(paused)
    }

    async fn resume_job(&self, job_id: &str) -> Result<bool> {
        let resumed = self.write(Repeat::RolledBackOnly, |backend| resume_once(backend, job_id)).await?;
        if resumed.is_some_and(JobStatus::is_final) {
            self.forget_claims(job_id);
        }
        Ok(resumed.is_some())
    }

    /// The claims stay remembered: what is claimed goes on with its token, and what was taken is refused by it.
    async fn abort_job(&self, job_id: &str, options: AbortOptions) -> Result<bool> {
        let aborted = self
            .write(Repeat::RolledBackOnly, |backend| abort_once(backend, job_id, options))
            .await?;
        if options.now {
            self.warn_aborted(job_id, &aborted.taken);
            // A claim that looked at the job before it was aborted may be made yet. Once none such is under way, the claims that a sweep finds are the last.
            self.write(Repeat::Idempotent, |backend| backend.wait_for_claims()).await?;
            let mut sweeps = 0;
            while sweeps < MOST_SWEEPS && self.sweep(job_id).await? {
                sweeps += 1;
            }
            self.store.claims.reopened(job_id);
        }
        Ok(aborted.now)
    }

    /// Takes what is claimed of an aborted job. Returns whether anything was.
    async fn sweep(&self, job_id: &str) -> Result<bool> {
        // Idempotent: each attempt takes what is claimed at its time, and only while the job is ABORTED.
        let lost_replies = LostReplies::default();
        let swept = self
            .write_noting(&lost_replies, Repeat::Idempotent, |backend| sweep_once(backend, job_id))
            .await;
        if lost_replies.any() {
            self.warn_maybe_taken(job_id, "an abort");
        }
        let taken = swept?.taken;
        self.warn_aborted(job_id, &taken);
        Ok(!taken.is_empty())
    }

    fn warn_aborted(&self, job_id: &str, taken: &[Reclaimed]) {
        self.warn_taken(
            job_id,
            WarningKind::ClaimTaken,
            "taken from its worker, because its job was aborted",
            taken,
        );
    }
}

/// The status that the job has now, if this changed it.
async fn resume_once(backend: &dyn Backend, job_id: &str) -> Result<Option<JobStatus>> {
    let mut transaction = backend.begin().await?;
    let job = transaction.lock_job(job_id).await?;
    let Some(job) = job.filter(|job| !job.distributed || job.status == JobStatus::Paused.as_str()) else {
        transaction.rollback().await?;
        return Ok(None);
    };
    if !job.distributed {
        transaction.rollback().await?;
        return Err(not_distributed(job_id, "resumed"));
    }
    if transaction.has_open_batch(job_id).await? {
        transaction.set_job_status(job_id, JobStatus::Processing).await?;
        transaction.commit().await?;
        return Ok(Some(JobStatus::Processing));
    }
    // The worker of a batch that was open in that statement finds the job PROCESSING when it calls `tryFinalizeJob`, which waits for the job's row.
    let rows = transaction.batch_rows(job_id).await?;
    let mut batches = BatchList::read(job_id, &job.batches)?;
    let status = match status_when_complete(&job, &rows, &batches) {
        Some(status) => {
            batches.follow(&rows);
            transaction.finish_job(job_id, status, &batches.to_json()).await?;
            status
        }
        None => {
            transaction.set_job_status(job_id, JobStatus::Processing).await?;
            JobStatus::Processing
        }
    };
    transaction.commit().await?;
    Ok(Some(status))
}

async fn abort_once(backend: &dyn Backend, job_id: &str, options: AbortOptions) -> Result<Aborted> {
    let mut transaction = backend.begin().await?;
    let taken = match options.now {
        true => transaction.take_claims(job_id).await?,
        false => Vec::new(),
    };
    let Some(job) = transaction.lock_job(job_id).await? else {
        transaction.rollback().await?;
        return Ok(Aborted::default());
    };
    if !job.distributed && !options.force {
        transaction.rollback().await?;
        return Err(not_distributed(job_id, "aborted"));
    }
    if JobStatus::from_text(&job.status).is_some_and(JobStatus::is_final) {
        return end_taking(transaction, job_id, &job, taken).await;
    }
    let rows = transaction.batch_rows(job_id).await?;
    let mut batches = BatchList::read(job_id, &job.batches)?;
    batches.follow(&rows);
    transaction.finish_job(job_id, JobStatus::Aborted, &batches.to_json()).await?;
    transaction.commit().await?;
    Ok(Aborted { now: true, taken })
}

async fn sweep_once(backend: &dyn Backend, job_id: &str) -> Result<Aborted> {
    let mut transaction = backend.begin().await?;
    let taken = transaction.take_claims(job_id).await?;
    let Some(job) = transaction.lock_job(job_id).await?.filter(|_| !taken.is_empty()) else {
        transaction.rollback().await?;
        return Ok(Aborted::default());
    };
    end_taking(transaction, job_id, &job, taken).await
}

/// Ends a transaction that leaves the job's status as it is. Only an ABORTED job loses its claims.
async fn end_taking(mut transaction: Box<dyn Transaction>, job_id: &str, job: &LockedJob, taken: Vec<Reclaimed>) -> Result<Aborted> {
    if taken.is_empty() || job.status != JobStatus::Aborted.as_str() {
        transaction.rollback().await?;
        return Ok(Aborted::default());
    }
    let rows = transaction.batch_rows(job_id).await?;
    if let Some(batches) = following(job_id, &job.batches, &rows)? {
        transaction.set_job_batches(job_id, &batches).await?;
    }
    transaction.commit().await?;
    Ok(Aborted { now: false, taken })
}

fn check_distributed(job_id: &str, distributed: bool, what: &str) -> Result<()> {
    if distributed { Ok(()) } else { Err(not_distributed(job_id, what)) }
}

fn not_distributed(job_id: &str, what: &str) -> Error {
    let instead = if what == "aborted" {
        "abort it there, or, if that process is gone, with { force: true }"
    } else {
        "do it there, with the engine's own method"
    };
    Error::invalid(format!(
        "job {} can't be {what} here: it is not distributed, so the process that runs it would overwrite its status with its next batch. {instead}",
        Quoted(job_id)
    ))
}
