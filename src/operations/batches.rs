//! `updateBatchState`: sets the state of a batch, in its row if it has one, or else in the job's list.

use super::call::Call;
use crate::backend::{Backend, BatchChange, BatchPlace};
use crate::error::{Code, Error, Quoted, Repeatable, Result};
use crate::model::{BatchIndex, BatchKey, BatchList, BatchState, BatchStatus, Token};
use crate::retry::{LostReplies, Repeat};
use crate::write_queue::EndingBatch;

impl Call {
    /// `ending`: the end of a claimed batch, which the flush of the queue may have written.
    pub(super) async fn update_batch_state(
        &self,
        key: &BatchKey,
        state: BatchState,
        token: Option<Token>,
        ending: Option<&EndingBatch>,
    ) -> Result<()> {
        if let Some(index) = ending.and_then(EndingBatch::written) {
            self.state_was_set(key, state, token, index).await;
            return Ok(());
        }
        // As if it had been queued. A claim is of a distributed job, whose list is not what failed.
        if token.is_none() {
            self.store.queue.check_job_writes(&key.job_id)?;
        }
        if state.status == BatchStatus::Completed {
            self.store.queue.check(key)?;
        }
        let none = LostReplies::default();
        let lost_replies = ending.map_or(&none, |batch| &batch.lost_replies);
        self.set_state(key, state, token, lost_replies).await
    }

    /// Sets the state of a batch that this store never claimed, unless it has no row.
    pub(super) async fn set_state_if_row(&self, key: &BatchKey, state: BatchState) -> Result<()> {
        let change = self.set_state_in_row(key, state, None, &LostReplies::default()).await?;
        if let BatchChange::Done(index) = change {
            self.state_was_set(key, state, None, index).await;
        }
        if state.status == BatchStatus::Pending {
            self.store.claims.reopened(&key.job_id);
        }
        Ok(())
    }

    pub(super) async fn set_state(
        &self,
        key: &BatchKey,
        state: BatchState,
        token: Option<Token>,
        lost_replies: &LostReplies,
    ) -> Result<()> {
        let outcome = self.change_state(key, state, token, lost_replies).await;
        if state.status == BatchStatus::Pending {
            // Also if the outcome is unknown.
            self.store.claims.reopened(&key.job_id);
        }
        outcome
    }

    async fn change_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, lost_replies: &LostReplies) -> Result<()> {
        let change = match token {
            Some(_) => self.set_state_in_row(key, state, token, lost_replies).await?,
            None => match self.set_state_unclaimed(key, state, lost_replies).await? {
                Some(change) => change,
                // The engine reports that a batch begins or ends before it stores the job with it.
                None => return Ok(()),
            },
        };
        match change {
            BatchChange::Done(index) => {
                self.state_was_set(key, state, token, index).await;
                Ok(())
            }
            // An attempt whose reply was lost released the batch, and another worker has claimed it since: as in `release_batch`.
            BatchChange::LeaseLost if state.status == BatchStatus::Pending && lost_replies.any() => {
                self.batch_was_given_back(key, token).await;
                Ok(())
            }
            BatchChange::LeaseLost => Err(self.lease_lost(key, token)),
            // Idempotent: only one process changes the list of a job without rows, and the store's calls on a job take turns.
            BatchChange::NotFound => {
                self.write(Repeat::Idempotent, |backend| set_state_in_list(backend, key, state))
                    .await
            }
        }
    }

    /// Sets the state of a batch that has a row.
    async fn set_state_in_row(
        &self,
        key: &BatchKey,
        state: BatchState,
        token: Option<Token>,
        lost_replies: &LostReplies,
    ) -> Result<BatchChange> {
        // With a token it is idempotent: the version guards it, and a retry does not change a batch that is already COMPLETED or FAILED. Without a
        // token, only a final state may be set again, because another worker may have claimed the batch since the reply was lost.
        let repeat = if token.is_some() || state.status.is_final() {
            Repeat::Idempotent
        } else {
            Repeat::RolledBackOnly
        };
        self.write_noting(lost_replies, repeat, |backend| {
            backend.set_batch_state(key, state, token, /* keep_final: */ lost_replies.any())
        })
        .await
    }

    /// Sets the state of a batch that this store never claimed, if it has a row. `NotFound`: it may be in its job's list; `None`: it is in neither.
    async fn set_state_unclaimed(&self, key: &BatchKey, state: BatchState, lost_replies: &LostReplies) -> Result<Option<BatchChange>> {
        // Idempotent for a batch without a row: it is in the list of a job that only one process works on. If it has a row, another worker may have
        // claimed it since the reply was lost, so only a final state is set again, and never over another final state.
        let place = self
            .write_noting(lost_replies, Repeat::Idempotent, |backend| {
                let repeated = lost_replies.any();
                async move {
                    if repeated && !state.status.is_final() && backend.has_batch_row(key).await? {
                        let error = update_in_doubt(key, state.status);
                        // A queued call would be repeated all the same, and find the same.
                        return Err(if self.is_answered() {
                            error.repeatable(Repeatable::Never)
                        } else {
                            error
                        });
                    }
                    backend.set_unclaimed_batch_state(key, state, repeated).await
                }
            })
            .await?;
        Ok(match place {
            BatchPlace::Row(index) => Some(BatchChange::Done(index)),
            BatchPlace::NotAdopted if !self.adopt(&key.job_id).await? => Some(BatchChange::NotFound),
            // It now has a row, from this adoption or from another process since the snapshot.
            BatchPlace::NotAdopted | BatchPlace::List { may_have_row_now: true } => {
                Some(self.set_state_in_row(key, state, None, lost_replies).await?)
            }
            BatchPlace::List { may_have_row_now: false } => Some(BatchChange::NotFound),
            BatchPlace::Nowhere => None,
        })
    }

    /// Updates what depends on a batch's state after its row has changed.
    async fn state_was_set(&self, key: &BatchKey, state: BatchState, token: Option<Token>, index: BatchIndex) {
        match (state.status, token) {
            (BatchStatus::Completed | BatchStatus::Failed, Some(token)) => drop(self.store.claims.ended(key, token)),
            (BatchStatus::Pending, _) => self.store.queue.forget_batch(key),
            _ => {}
        }
        // A batch with a token was claimed through this store, which counted the batches then.
        let last = if token.is_none() {
            self.last_batch_index(&key.job_id).await
        } else {
            None
        };
        self.update_list_if_due(&key.job_id, index, last).await;
    }
}

/// Sets the state of a batch without a row, in the list of its job.
async fn set_state_in_list(backend: &dyn Backend, BatchKey { job_id, batch_id }: &BatchKey, state: BatchState) -> Result<()> {
    let mut transaction = backend.begin().await?;
    let Some(job) = transaction.lock_job(job_id).await? else {
        return transaction.rollback().await;
    };
    let mut batches = BatchList::read(job_id, &job.batches)?;
    match batches.position(batch_id) {
        Some(place) if batches.set_state(place, state.status.as_str(), state.processed, state.failed) => {
            transaction.set_job_batches(job_id, &batches.to_json()).await?;
            transaction.commit().await
        }
        _ => transaction.rollback().await,
    }
}

/// If a reply was lost, the batch may have been changed, and another worker may have claimed it since.
fn update_in_doubt(key: &BatchKey, status: BatchStatus) -> Error {
    Error::new(
        Code::ConnectionLost,
        format!(
            "the connection ended while batch {} of job {} was set to {}, which may or may not have taken effect. It is not repeated, because another \
             worker may have claimed the batch since: read its state, and make the call again if it is still needed",
            Quoted(&key.batch_id),
            Quoted(&key.job_id),
            status.as_str()
        ),
    )
    .repeatable(Repeatable::ByCaller)
}
