//! What happens on `LEASE_LOST`: a call passed a token that is no longer the batch's version, because the batch was claimed again or released.
//!
//! - The call rejects with the error that this module creates. It changed nothing, because the statement itself checks the version.
//! - The claim ends (`Call::lease_lost` in `operations::leases`), so its lease is no longer renewed. Its token stays in `held_claims`, so that later
//!   calls of the same worker are refused too instead of affecting the batch's next holder. It is removed when this store claims the batch again, or
//!   when the job is final.
//! - The same guard refuses saves that the worker has queued or makes afterwards. They don't count as failures, because the batch's next holder
//!   writes those records itself: see `write_queue::failures`.
//! - If a call that releases the batch is repeated after a lost reply, it treats this as the success of its first attempt: see `release_batch` in
//!   `operations::claims` and `set_state` in `operations::batches`.
//! - A background renewal (`operations::lease_renewal`) has no caller to reject. It ends the claim, and the worker's next call rejects.

use crate::error::{Code, Error, Quoted};
use crate::model::{BatchKey, Token};

impl Error {
    pub fn lease_lost(key: &BatchKey, token: Token) -> Self {
        Self::new(
            Code::LeaseLost,
            format!(
                "the claim on batch {} of job {} with token {token} is no longer the last one: the batch was claimed again or given back, \
                 so stop working on it",
                Quoted(&key.batch_id),
                Quoted(&key.job_id),
            ),
        )
    }
}
