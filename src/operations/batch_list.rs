//! The state of a batch has two copies: its row, which is the truth, and its place in the list of its job's row, which other adapters read. The rule
//! that keeps them together stands here:
//!
//! - A change of a row updates the list where the index of the batch calls for it (`mirrors`): always in a job of up to 100 batches, for one batch in a
//!   hundred of a larger one.
//! - A list that could not be updated is updated with the next change.
//! - A job becomes final with an exact list, in the same transaction (`finalize`).

use super::call::Call;
use crate::backend::Backend;
use crate::error::Result;
use crate::held_claims::BatchCount;
use crate::model::{BatchIndex, BatchList, mirror_step, mirrors};
use crate::retry::Repeat;

impl Call {
    /// Updates the job's list where the change of this batch calls for it, or where an earlier one did and failed.
    ///
    /// The change itself is committed, so a failure here is not the call's: it would tell a worker that it has no claim which it has. The next change
    /// makes up for it, and the job can't become final without an exact list, which is where a lasting failure comes to light.
    ///
    /// `last`: the highest index of the job's batches, where it was seen. It tells whether another process has made the job again, with another number of
    /// batches.
    pub(super) async fn update_list_if_due(&self, job_id: &str, index: BatchIndex, last: Option<BatchIndex>) {
        let due =
            self.store.claims.list_is_behind(job_id) || self.count_of_batches(job_id, last).await.is_none_or(|count| mirrors(index, count));
        if due {
            self.update_list_or_remember(job_id).await;
        }
    }

    /// Updates the job's list; where that fails, the next change of a batch does it.
    pub(super) async fn update_list_or_remember(&self, job_id: &str) {
        let behind = self.update_list(job_id).await.is_err();
        self.store.claims.set_list_is_behind(job_id, behind);
    }

    /// Updates the job's list from the rows.
    pub(super) async fn update_list(&self, job_id: &str) -> Result<()> {
        // Idempotent: what is written is what the rows say then.
        let count = self.write(Repeat::Idempotent, |backend| update_list_once(backend, job_id)).await?;
        self.store.claims.set_batches(job_id, count);
        Ok(())
    }

    /// The highest index of the job's batches; `None` where it is of no use, or can't be had.
    pub(super) async fn last_batch_index(&self, job_id: &str) -> Option<BatchIndex> {
        let known = self.store.claims.batches(job_id);
        // The list of a job that small is always updated.
        if known.is_none_or(|batches| mirror_step(batches.count) == 1) {
            return None;
        }
        self.read(|reads| reads.last_batch_index(job_id)).await.ok().flatten()
    }

    async fn count_of_batches(&self, job_id: &str, last: Option<BatchIndex>) -> Option<i64> {
        if let Some(batches) = self.store.claims.batches(job_id).filter(|batches| batches.holds(last)) {
            return Some(batches.count);
        }
        let (count, last) = self.read(|reads| reads.count_batches(job_id)).await.ok()?;
        self.store.claims.set_batches(job_id, BatchCount::new(count, last));
        Some(count)
    }
}

async fn update_list_once(backend: &dyn Backend, job_id: &str) -> Result<BatchCount> {
    let mut transaction = backend.begin().await?;
    let Some(job) = transaction.lock_job(job_id).await? else {
        transaction.rollback().await?;
        return Ok(BatchCount::of(&[]));
    };
    let rows = transaction.batch_rows(job_id).await?;
    let mut batches = BatchList::read(job_id, &job.batches)?;
    if batches.follow(&rows) {
        transaction.set_job_batches(job_id, &batches.to_json()).await?;
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(BatchCount::of(&rows))
}
