//! Saves, lists and deletes jobs.

use std::future::Future;

use super::batch_rows::{insert_absent_batches, refuse};
use super::call::{Access, Answer, Call, Entered};
use crate::backend::{Backend, SavedJob, Slice};
use crate::error::{Error, Result};
use crate::held_claims::BatchCount;
use crate::model::{Job, JobFilter, JobRow, JobStatus, following};
use crate::panics;
use crate::retry::{LostReplies, Repeat};

/// The number of rows per delete statement of `deleteJob`, small enough that a large job does not lock its tables for long.
const DELETE_SLICE: i32 = 5_000;

impl Entered {
    pub fn list_jobs(self, filter: JobFilter) -> impl Answer<Vec<JobRow>> {
        self.accessing(Access::ReadsJobs)
            .run(|call| async move { call.read(|reads| reads.list_jobs(&filter)).await })
    }

    /// Returns whether there was anything to delete.
    pub fn delete_job(self, job_id: String) -> impl Answer<bool> {
        self.accessing(Access::WritesJob(&job_id))
            .run(|call| async move { call.delete_job(&job_id).await })
    }
}

impl Call {
    /// Saves a job that is not queued. After a failure of something that was queued for it, a job that goes on is refused. One that ends is stored, but
    /// not as COMPLETED.
    pub(super) async fn save_job(&self, mut job: Job) -> Result<()> {
        let queue = &self.store.queue;
        let (job_id, failure) = (job.id.clone(), queue.check_job(&job.id).err());
        let refused = match job.status {
            JobStatus::Completed => failure,
            _ if job.is_queueable() => return self.save_unless_failed(job, failure).await,
            _ => None,
        };
        if refused.is_some() {
            job.status = JobStatus::Failed;
        }
        self.store_job(job).await?;
        queue.clear_job_failure(&job_id);
        refused.map_or(Ok(()), Err)
    }

    async fn save_unless_failed(&self, job: Job, failure: Option<Error>) -> Result<()> {
        match failure {
            Some(error) => Err(error),
            None => self.store_job(job).await.map(drop),
        }
    }

    pub(super) async fn store_job(&self, mut job: Job) -> Result<SavedJob> {
        let (claims, queue) = (&self.store.claims, &self.store.queue);
        // The engine marks a batch as done before it asks for that to be stored.
        let failed = queue.failed_batches(&job.id);
        if !failed.is_empty() {
            job.fail_completed(&failed)?;
        }
        job.write_list();
        let limits = self.read(|reads| reads.limits()).await?;
        limits.fit_json(&"job.config", &mut job.config)?;
        limits.fit_json(&"job.batches", &mut job.batches)?;
        let job = &job;
        let claims_before = claims.made_so_far();
        let lost_replies = &LostReplies::default();
        // Idempotent with `keep_final`: a job that was finalized after an attempt whose reply was lost stays final. A job that is not distributed is
        // rewritten unchanged, because only one process works on it.
        let attempt = |backend| {
            let keep_final = job.distributed && !job.status.is_final() && lost_replies.any();
            self.store_job_once(backend, job, keep_final)
        };
        let saved = self.write_noting(lost_replies, Repeat::Idempotent, attempt).await;
        if job.distributed {
            // Batches below the last claim may be PENDING now, also if the outcome is unknown. Not before the commit: a concurrent claim would not
            // find them and would move the start past them.
            claims.reopened(&job.id);
        }
        let saved = saved?;
        if saved.inserted {
            // A new job: claims on an earlier job with the same id don't apply to it.
            claims.forget_made_before(&job.id, claims_before);
            queue.forget_claims(&job.id);
        }
        if job.status.is_final() {
            self.forget_claims(&job.id);
        }
        Ok(saved)
    }

    async fn store_job_once(&self, backend: &dyn Backend, job: &Job, keep_final: bool) -> Result<SavedJob> {
        if !job.distributed || job.listed.is_empty() {
            // One statement. If the job has rows nevertheless, their states are copied into its list afterwards.
            let saved = backend.save_job(job, keep_final).await?;
            if saved.has_rows {
                self.update_list(&job.id).await?;
            }
            return Ok(saved);
        }
        let mut transaction = backend.begin().await?;
        if let Err(error) = insert_absent_batches(&mut *transaction, &job.id, &job.listed).await {
            return Err(refuse(transaction, error).await?);
        }
        let inserted = match transaction.upsert_job(job, keep_final).await {
            Ok(inserted) => inserted,
            Err(error) => return Err(refuse(transaction, error).await?),
        };
        panics::fail_point("transaction");
        // The job is locked now, so a new statement sees every batch change that was committed before.
        let rows = transaction.batch_rows(&job.id).await?;
        if let Some(batches) = following(&job.id, &job.batches, &rows)? {
            transaction.set_job_batches(&job.id, &batches).await?;
        }
        transaction.commit().await?;
        self.store.claims.set_batches(&job.id, BatchCount::of(&rows));
        Ok(SavedJob { inserted, has_rows: true })
    }

    async fn delete_job(&self, job_id: &str) -> Result<bool> {
        // Idempotent: what is deleted stays deleted. If the job was stored again meanwhile, its row stays, but some of its batches and records may be
        // deleted, so a new job needs a new id.
        let emptied = self.write(Repeat::Idempotent, |backend| backend.empty_job(job_id)).await?;
        let deleted = self.delete_emptied_job(job_id, [JobStatus::Aborted.as_str(); 3]).await?;
        Ok(emptied || deleted != Deleted::default())
    }

    /// Deletes a job that no worker can claim of any more and that was left with one of these statuses. Its row is deleted last, so that an interrupted deletion can be found and repeated.
    pub(super) async fn delete_emptied_job(&self, job_id: &str, statuses: [&'static str; 3]) -> Result<Deleted> {
        let batches = self.delete_batches(job_id).await?;
        let records = self.delete_records(job_id).await?;
        // Idempotent, as above.
        let job = self
            .write(Repeat::Idempotent, |backend| backend.delete_job(job_id, statuses))
            .await?;
        self.forget_claims(job_id);
        self.store.queue.forget_job(job_id);
        self.store.copies.forget(job_id);
        Ok(Deleted { batches, records, job })
    }

    /// Returns the number of rows.
    pub(super) async fn delete_batches(&self, job_id: &str) -> Result<u64> {
        self.delete_in_slices(|backend, from| backend.delete_batches(job_id, from, DELETE_SLICE))
            .await
    }

    /// Returns the number of rows.
    pub(super) async fn delete_records(&self, job_id: &str) -> Result<u64> {
        self.delete_in_slices(|backend, from| backend.delete_records(job_id, from, DELETE_SLICE))
            .await
    }

    /// Deletes slice after slice until nothing is left. Returns the number of rows, without those of an attempt whose reply was lost.
    async fn delete_in_slices<'a, F>(&'a self, delete_slice: impl Fn(&'a dyn Backend, Option<i64>) -> F) -> Result<u64>
    where
        F: Future<Output = Result<Slice>>,
    {
        let (mut total, mut from) = (0, None);
        loop {
            // Idempotent: what is deleted stays deleted.
            let Slice { rows, next } = self.write(Repeat::Idempotent, |backend| delete_slice(backend, from)).await?;
            total += rows;
            // Only a slice that begins at the first row finds what was stored meanwhile.
            if rows == 0 && from.is_none() {
                return Ok(total);
            }
            from = next;
        }
    }
}

/// What was deleted of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deleted {
    pub batches: u64,
    pub records: u64,
    pub job: bool,
}
