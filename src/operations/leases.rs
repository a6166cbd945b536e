//! The lease of a claim: `renewBatch`, by which its worker keeps it, and `LEASE_LOST`, which a worker is told that has lost it. The renewals in the
//! background are in `lease_renewal`.

use super::call::{Access, Answer, Call, Entered};
use crate::backend::BatchChange;
use crate::error::{Error, Result};
use crate::model::{BatchKey, Token, WorkerId};
use crate::retry::Repeat;

impl Entered {
    /// Whether the worker holds the batch.
    pub fn renew_batch(self, key: BatchKey, worker_id: WorkerId, token: Option<Token>) -> impl Answer<bool> {
        let token = self.token(&key, token);
        self.accessing(Access::Claims(&key.job_id))
            .run(move |call| async move { call.renew_batch(&key, &worker_id, token).await })
    }
}

impl Call {
    async fn renew_batch(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<bool> {
        // Idempotent: while the worker holds the batch, its time of claim is now.
        let renewed = self
            .write(Repeat::Idempotent, |backend| {
                backend.renew(key, worker_id, token, /* also_paused: */ false)
            })
            .await?;
        match renewed {
            BatchChange::Done(_) => Ok(true),
            BatchChange::NotFound => Ok(false),
            BatchChange::LeaseLost => Err(self.lease_lost(key, token)),
        }
    }

    /// What happens on `LEASE_LOST`: a call showed a token that is not the batch's version any more, because the batch was claimed again or given back.
    ///
    /// - The call rejects with the error that this makes. It changed nothing: the guard is in its statement.
    /// - The claim ends here, so that its lease is not renewed any more. Its token stays, so that later calls of the same worker are refused too, instead
    ///   of taking effect on the batch's next holder. It goes when the batch is claimed again through this store, or its job is final.
    /// - Saves that the worker has queued are refused by the same guard, and so are those that it makes after that: see `record_writer`, which tells
    ///   them from the saves of the next holder by their token.
    /// - A call that gives the batch back, and is repeated because a reply was lost, takes it for the success of its first attempt: see `release_batch`
    ///   in `claims` and `update_batch_state` in `batches`.
    /// - A renewal in the background (`lease_renewal`) has no caller: it ends the claim, and the next call of the worker rejects.
    pub(super) fn lease_lost(&self, key: &BatchKey, token: Option<Token>) -> Error {
        // A call without a token can't lose a lease.
        let Some(token) = token else {
            return Error::internal("a call without a token lost a lease");
        };
        self.store.claims.ended(key, token);
        Error::lease_lost(key, token)
    }
}
