//! Keeps the two copies of a batch's state together: its row, which is authoritative, and its entry in the list of the job's row, which other
//! adapters read. The rules:
//!
//! - A change of a row updates the list if the batch's index calls for it (`mirrors`): in a job of up to 100 batches always, in a larger one for
//!   about 100 of the batches.
//! - A list that could not be updated is updated with the next change.
//! - A job becomes final with an exact list, in the same transaction (`finalize`).

use super::call::Call;
use crate::backend::Backend;
use crate::error::{Error, Quoted, Result};
use crate::held_claims::BatchCount;
use crate::model::{BatchIndex, following, mirror_step, mirrors};
use crate::retry::Repeat;
use crate::warnings::{Warning, WarningKind};

impl Call {
    /// Updates the job's list if this change calls for it, or if an earlier update was due and failed.
    ///
    /// The change itself is committed, so a failure here must not fail the call: the worker would believe that it has no claim. The next change
    /// retries the update, and a lasting failure surfaces when the job is finalized, which requires an exact list.
    ///
    /// `last`: the highest index of the job's batches, if known. It shows whether another process has saved the job again with another number of
    /// batches.
    pub(super) async fn update_list_if_due(&self, job_id: &str, index: BatchIndex, last: Option<BatchIndex>) {
        let due =
            self.store.claims.list_is_behind(job_id) || self.count_of_batches(job_id, last).await.is_none_or(|count| mirrors(index, count));
        if due {
            self.update_list_or_remember(job_id).await;
        }
    }

    /// Updates the job's list. If that fails, the next change of a batch retries it.
    pub(super) async fn update_list_or_remember(&self, job_id: &str) {
        let updated = self.update_list(job_id).await;
        self.store.claims.set_list_is_behind(job_id, updated.is_err());
        if let Err(error) = updated {
            let what = format!(
                "could not be brought up to date: {}. The next change of a batch makes up for it",
                error.message
            );
            self.warn_behind(job_id, &what, error);
        }
    }

    fn warn_behind(&self, job_id: &str, what: &str, error: Error) {
        let message = format!("the list of batches of job {} {what}", Quoted(job_id));
        let behind = Warning::new(WarningKind::ListBehind, message).job(job_id);
        self.store.warnings.warn(behind.error(error));
    }

    /// Updates the job's list from the rows.
    pub(super) async fn update_list(&self, job_id: &str) -> Result<()> {
        // Idempotent: it writes the current state of the rows.
        let count = self.write(Repeat::Idempotent, |backend| update_list_once(backend, job_id)).await?;
        self.store.claims.set_batches(job_id, count);
        Ok(())
    }

    /// The highest index of the job's batches; `None` if it is not needed or can't be read.
    pub(super) async fn last_batch_index(&self, job_id: &str) -> Option<BatchIndex> {
        let known = self.store.claims.batches(job_id);
        // In such a small job the list is always updated.
        if known.is_none_or(|batches| mirror_step(batches.count) == 1) {
            return None;
        }
        match self.read(|reads| reads.last_batch_index(job_id)).await {
            Ok(last) => last,
            Err(error) => {
                let what = format!("may stay behind, because its highest index could not be read: {}", error.message);
                self.warn_behind(job_id, &what, error);
                None
            }
        }
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
    let (batches, count) = (following(job_id, &job.batches, &rows)?, BatchCount::of(&rows));
    // The driver makes copies of the text that it sends. What it was made of is not in memory at the same time.
    drop((job, rows));
    match batches {
        Some(batches) => {
            transaction.set_job_batches(job_id, &batches).await?;
            transaction.commit().await?;
        }
        None => transaction.rollback().await?,
    }
    Ok(count)
}
