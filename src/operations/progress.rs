//! `getProgress` and `getDistributedStatus`: the progress of a job in records and in batches.

use super::adoption::Adoption;
use super::call::{Access, Answer, Call, Entered};
use crate::error::Result;
use crate::model::{BatchCounts, BatchList, DistributedStatus, JobTimes, Progress};

/// The counts of a distributed job's batches.
pub struct DistributedCounts {
    job_id: String,
    counts: BatchCounts,
    /// The job is distributed and has an empty list.
    lists_none: bool,
}

impl DistributedCounts {
    pub fn status(&self) -> DistributedStatus<'_> {
        DistributedStatus::of(&self.job_id, self.counts, self.lists_none)
    }
}

impl Entered {
    pub fn progress(self, job_id: String) -> impl Answer<Progress> {
        self.accessing(Access::ReadsJob(&job_id))
            .run(|call| async move { call.progress(&job_id).await })
    }

    /// Adopts a job that another adapter prepared, so that there are rows to count.
    pub fn distributed_status(self, job_id: String) -> impl Answer<DistributedCounts> {
        self.accessing(Access::Claims(&job_id))
            .run(|call| async move { call.distributed_status(job_id).await })
    }
}

impl Call {
    async fn progress(&self, job_id: &str) -> Result<Progress> {
        let (job, batches, records) = self
            .read(|reads| async move {
                let job = reads.job_times(job_id).await?;
                // Batches before records, so that the result never has fewer records than its finished batches contain.
                let batches = reads.batch_counts(job_id).await?;
                Ok((job, batches, reads.record_counts(job_id).await?))
            })
            .await?;
        let Some(job) = job else {
            return Ok(Progress::of(JobTimes::default(), records, 0, 0));
        };
        let (completed, total) = if job.distributed && batches.total > 0 {
            // Workers claim the batches from their rows.
            (batches.completed, batches.total)
        } else {
            self.count_listed_batches(job_id, batches).await?
        };
        Ok(Progress::of(job, records, completed, total))
    }

    /// The number of COMPLETED batches in the job's list, and the number of all.
    async fn count_listed_batches(&self, job_id: &str, counts: BatchCounts) -> Result<(i64, i64)> {
        let stored = self.read(|reads| reads.job(job_id)).await?;
        let rows = if counts.total > 0 {
            self.read(|reads| reads.batch_rows(job_id)).await?
        } else {
            Vec::new()
        };
        let json = stored.map_or_else(|| "[]".to_owned(), |job| job.batches);
        let mut batches = BatchList::read(job_id, &json)?;
        batches.follow(&rows);
        Ok((batches.completed() as i64, batches.len() as i64))
    }

    async fn distributed_status(&self, job_id: String) -> Result<DistributedCounts> {
        let mut counts = self.read(|reads| reads.batch_counts(&job_id)).await?;
        let mut lists_none = false;
        if counts.total == 0 {
            match self.adopt_if_needed(&job_id).await? {
                Adoption::Adopted => counts = self.read(|reads| reads.batch_counts(&job_id)).await?,
                Adoption::NoBatches => lists_none = true,
                Adoption::NotNeeded => {}
            }
        }
        Ok(DistributedCounts {
            job_id,
            counts,
            lists_none,
        })
    }
}
