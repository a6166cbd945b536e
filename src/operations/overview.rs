//! What an operator looks at: a job without its batches, a page of batches, counts of everything, a ping, the pool.

use super::call::{Access, Answer, Call, Entered, Operations};
use crate::backend::{PageOrder, Ping, PoolUse};
use crate::error::Result;
use crate::model::{BatchPage, BatchSummary, JobRow, StoreStats};

/// A page of batches, each as JSON text.
pub struct PageOfBatches(pub Vec<String>);

impl Operations {
    /// Also of a store that is closed.
    pub fn pool_use(&self) -> PoolUse {
        self.storage.pool_use()
    }
}

impl Entered {
    /// A job without its batches.
    pub fn job_row(self, job_id: String) -> impl Answer<Option<JobRow>> {
        self.accessing(Access::ReadsJob(&job_id))
            .run(|call| async move { call.read(|reads| reads.job_row(&job_id)).await })
    }

    pub fn batches(self, job_id: String, page: BatchPage) -> impl Answer<PageOfBatches> {
        self.accessing(Access::ReadsJob(&job_id))
            .run(|call| async move { call.batches(&job_id, &page).await.map(PageOfBatches) })
    }

    pub fn stats(self) -> impl Answer<StoreStats> {
        self.accessing(Access::ReadsJobs)
            .run(|call| async move { call.read(|reads| reads.stats()).await })
    }

    pub fn ping(self) -> impl Answer<Ping> {
        self.accessing(Access::Unordered)
            .run(|call| async move { call.read(|reads| reads.ping()).await })
    }
}

impl Call {
    /// Workers claim the batches of a distributed job from their rows, so these are its batches. Another job has only its list, as has a distributed one
    /// that another adapter prepared and no worker has claimed of.
    async fn batches(&self, job_id: &str, page: &BatchPage) -> Result<Vec<String>> {
        let snapshot = self.read(|reads| reads.claim_snapshot(job_id)).await?;
        match snapshot {
            None => Ok(Vec::new()),
            Some(job) if job.distributed && job.has_rows => {
                let batches = self.batch_page(job_id, page).await?;
                Ok(batches.iter().map(BatchSummary::to_json).collect())
            }
            Some(_) => Ok(self.job(job_id).await?.map_or_else(Vec::new, |job| job.batches.page(page))),
        }
    }

    /// No index has both a status and the order. A status that few batches have is found by its own index, and these are sorted. One that many have is soon
    /// met in the order of the indexes; where its batches are far apart, the page costs as much as the batches in between.
    pub(super) async fn batch_page(&self, job_id: &str, page: &BatchPage) -> Result<Vec<BatchSummary>> {
        let by_index = page.statuses.is_none() || self.read(|reads| reads.has_frequent_status(job_id, page)).await?;
        let order = if by_index { PageOrder::ByIndex } else { PageOrder::ByStatus };
        self.read(|reads| reads.batch_page(job_id, page, order)).await
    }
}
