//! What happens on `LEASE_LOST`: a call showed a token that is not the batch's version any more, because the batch was claimed again or given back.
//!
//! - The call rejects with the error that is made here. It changed nothing: the guard stands in its statement.
//! - The claim ends (`Call::lease_lost` in `operations::leases`), so that its lease is not renewed any more. Its token stays in `held_claims`, so that later
//!   calls of the same worker are refused too, instead of taking effect on the batch's next holder. It goes when the batch is claimed again through this
//!   store, or when its job is final.
//! - Saves that the worker has queued are refused by the same guard, and so are those that it makes after that. They are no failures that the batch's next
//!   holder would have to make good: see `record_writer::failures`.
//! - A call that gives the batch back, and is repeated because a reply was lost, takes it for the success of its first attempt: see `release_batch` in
//!   `operations::claims` and `set_state` in `operations::batches`.
//! - A renewal in the background (`operations::lease_renewal`) has no caller to tell. It ends the claim, and the next call of the worker rejects.

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
