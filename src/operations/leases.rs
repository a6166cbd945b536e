//! Leases of claims: `renewBatch`, with which a worker keeps its lease, and `LEASE_LOST`, which reports that it has lost it. Background renewals are
//! in `lease_renewal`.

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
        // Idempotent: while the worker holds the batch, its claim time becomes now.
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

    /// Ends the claim of a call that found its lease lost. The other consequences are in [`crate::lease_lost`].
    pub(super) fn lease_lost(&self, key: &BatchKey, token: Option<Token>) -> Error {
        // A call without a token can't lose a lease.
        let Some(token) = token else {
            return Error::internal("a call without a token lost a lease");
        };
        self.store.claims.ended(key, token);
        Error::lease_lost(key, token)
    }
}
