//! `retryFailed`: makes a new job of the failed records of a final one.
//!
//! The records are copied inside the database, a batch at a time, and the new job's row is written last. So nothing of the job can be claimed before
//! all of it is there, and what an interrupted call leaves are records without a job.

use super::call::{Access, Answer, Call, Entered};
use crate::backend::Backend;
use crate::error::{Error, Quoted, Result};
use crate::model::{BatchKey, BatchPage, BatchStatus, JobStatus, RecordCopies, RecordRange, Retried, RetryJob, RetryOptions};
use crate::random_id::random_id;
use crate::retry::Repeat;

/// How many batches under way are looked at for one that a worker holds. A final job has few that no worker holds.
const MOST_HELD: i32 = 1_000;

impl Entered {
    /// The new job; `None` if the job has no such records.
    pub fn retry_failed(self, source_id: String, options: RetryOptions) -> impl Answer<Option<Retried>> {
        self.accessing(Access::ReadsJob(&source_id))
            .run(move |call| async move { call.retry_failed(&source_id, &options).await })
    }
}

impl Call {
    async fn retry_failed(&self, source_id: &str, options: &RetryOptions) -> Result<Option<Retried>> {
        let Some(source) = self.read(|reads| reads.job(source_id)).await? else {
            return Err(refused(source_id, "it doesn't exist"));
        };
        let status = &source.row.status;
        if !JobStatus::from_text(status).is_some_and(JobStatus::is_final) {
            let why = format!("it is {status}, so it is being worked on: retry when it is COMPLETED, ABORTED or FAILED");
            return Err(refused(source_id, &why));
        }
        let held = BatchPage {
            statuses: Some(vec![BatchStatus::Processing, BatchStatus::Paused]),
            limit: MOST_HELD,
            after: None,
        };
        let held = self.batch_page(source_id, &held).await?;
        if let Some((batch, worker)) = held.iter().find_map(|batch| Some((batch, batch.worker_id.as_deref()?))) {
            // Of a job with another final status, abortJob takes nothing.
            let end = match JobStatus::from_text(status) {
                Some(JobStatus::Aborted) => "take it away with abortJob(jobId, { now: true })",
                _ => "end the batch with updateBatchState",
            };
            let why = format!(
                "worker {} still holds batch {}, and may store more records: wait, or {end}",
                Quoted(worker),
                Quoted(&batch.id)
            );
            return Err(refused(source_id, &why));
        }
        let (config, batch_size) = options.config(source_id, &source.row.config)?;
        // Both ids say when they were made, so that `purge` knows how old what an interrupted call left is.
        let now = self.read(|reads| reads.now()).await?;
        let job_id = random_id(now)?;
        let mut job = RetryJob::new(job_id.clone());
        let mut after = None;
        loop {
            let batch = BatchKey::new(&*job_id, random_id(now)?);
            let copies = RecordCopies {
                source_id,
                into: &batch,
                statuses: options.status_places(),
                after,
                limit: batch_size,
            };
            // Idempotent: a record that an earlier attempt has copied into the batch stays.
            let copied = self.write(Repeat::Idempotent, |backend| copy_once(backend, &copies)).await?;
            let Some(range) = copied else { break };
            after = Some(range.last);
            job.push(batch.batch_id, range);
            if range.count < i64::from(batch_size) {
                break;
            }
        }
        if job.is_empty() {
            return Ok(None);
        }
        let job = job.into_job(config, now);
        let retried = Retried::of(&job);
        self.store.distributed_jobs.note(&job_id, true);
        self.store_job(job).await?;
        Ok(Some(retried))
    }
}

async fn copy_once(backend: &dyn Backend, copies: &RecordCopies<'_>) -> Result<Option<RecordRange>> {
    backend.copy_records(copies).await?;
    backend.record_range(copies.into).await
}

fn refused(source_id: &str, why: &str) -> Error {
    Error::invalid(format!("the records of job {} can't be retried: {why}", Quoted(source_id)))
}
