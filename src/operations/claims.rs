//! `claimBatch` and `releaseBatch`. What the store remembers of its claims is in `crate::held_claims`.

use std::time::{Duration, Instant};

use super::call::{Access, Answer, Call, Entered};
use crate::backend::BatchChange;
use crate::error::{Code, Error, Quoted, Repeatable, Result};
use crate::held_claims::Start;
use crate::model::{BatchIndex, BatchKey, JobStatus, Reservation, Token, WorkerId};
use crate::retry::{LostReplies, Repeat, jittered};

/// How long a claim retries while other transactions have all PENDING batches locked.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// The outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Made(Reservation),
    NotMade(NoClaim),
}

/// Why nothing was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoClaim {
    NoPendingBatches,
    JobNotFound,
    JobNotProcessing,
}

impl NoClaim {
    pub fn as_str(self) -> &'static str {
        match self {
            NoClaim::NoPendingBatches => "NO_PENDING_BATCHES",
            NoClaim::JobNotFound => "JOB_NOT_FOUND",
            NoClaim::JobNotProcessing => "JOB_NOT_PROCESSING",
        }
    }
}

/// The result of checking a job after none of its batches could be claimed.
enum Unclaimed {
    Because(NoClaim),
    /// It has just been given rows.
    Adopted,
    /// It has a PENDING batch that another transaction has locked.
    Locked,
}

impl Entered {
    pub fn claim_batch(self, job_id: String, worker_id: WorkerId) -> impl Answer<Claim> {
        self.accessing(Access::Claims(&job_id))
            .run(|call| async move { call.claim_batch(&job_id, &worker_id).await })
    }

    pub fn release_batch(self, key: BatchKey, worker_id: WorkerId) -> impl Answer<()> {
        let token = self.token(&key, None);
        self.accessing(Access::Claims(&key.job_id))
            .run(move |call| async move { call.release_batch(&key, &worker_id, token).await })
    }

    /// The token that a call made now must pass: the given one, or that of this store's last claim on the batch.
    pub(super) fn token(&self, key: &BatchKey, given: Option<Token>) -> Option<Token> {
        given.or_else(|| self.store.claims.token(key))
    }
}

impl Call {
    async fn claim_batch(&self, job_id: &str, worker_id: &WorkerId) -> Result<Claim> {
        let mut found_locked: Option<Instant> = None;
        loop {
            if let Some(claim) = self.claim_next(job_id, worker_id).await? {
                return Ok(Claim::Made(claim));
            }
            match self.why_unclaimed(job_id).await? {
                Unclaimed::Because(reason) => return Ok(Claim::NotMade(reason)),
                Unclaimed::Adopted => {}
                Unclaimed::Locked => {
                    // Counted from the first check that found it: before, the call may have waited for a connection.
                    if found_locked.get_or_insert_with(Instant::now).elapsed() >= CLAIM_PATIENCE {
                        return Err(all_locked(job_id));
                    }
                    tokio::time::sleep(jittered(CLAIM_PAUSE)).await;
                }
            }
        }
    }

    async fn claim_next(&self, job_id: &str, worker_id: &WorkerId) -> Result<Option<Reservation>> {
        let start = self.store.claims.start(job_id);
        let claim = self.claim_from(job_id, worker_id, start, start.from).await?;
        if claim.is_some() || start.from.is_none() {
            return Ok(claim);
        }
        // No batch is left from there on; another process may have reopened a lower one.
        self.claim_from(job_id, worker_id, start, None).await
    }

    async fn claim_from(&self, job_id: &str, worker_id: &WorkerId, start: Start, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        // Not retried if its reply is lost, because the claim may have been made: `reclaimStaleBatches` returns such a batch.
        let claim = self
            .write(Repeat::RolledBackOnly, |backend| backend.claim(job_id, worker_id, from))
            .await?;
        let Some(claim) = claim else { return Ok(None) };
        if !self.store.claims.made(&claim, start, self.store.leases.for_at_most()) {
            return Ok(None);
        }
        self.store.queue.forget_batch(&claim.key());
        self.store.distributed_jobs.note(job_id, true);
        self.store.leases.start();
        self.update_list_if_due(job_id, claim.batch_index, Some(claim.last_batch_index))
            .await;
        Ok(Some(claim))
    }

    async fn why_unclaimed(&self, job_id: &str) -> Result<Unclaimed> {
        let Some(snapshot) = self.read(|reads| reads.claim_snapshot(job_id)).await? else {
            self.forget_claims(job_id);
            return Ok(Unclaimed::Because(NoClaim::JobNotFound));
        };
        if snapshot.job_status != JobStatus::Processing.as_str() {
            self.forget_claims_if_final(job_id, &snapshot.job_status);
            return Ok(Unclaimed::Because(NoClaim::JobNotProcessing));
        }
        if snapshot.distributed && !snapshot.has_rows && self.adopt(job_id).await? {
            return Ok(Unclaimed::Adopted);
        }
        Ok(if snapshot.has_pending {
            Unclaimed::Locked
        } else {
            Unclaimed::Because(NoClaim::NoPendingBatches)
        })
    }

    async fn release_batch(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<()> {
        let lost_replies = LostReplies::default();
        // With a token it is idempotent: the version guards it. Without one, a worker with the same name may have claimed the batch since the reply
        // was lost.
        let repeat = if token.is_some() {
            Repeat::Idempotent
        } else {
            Repeat::RolledBackOnly
        };
        let change = self
            .write_noting(&lost_replies, repeat, |backend| backend.release(key, worker_id, token))
            .await;
        if change.is_err() {
            // The release may have taken effect all the same.
            self.store.claims.reopened(&key.job_id);
        }
        match change? {
            BatchChange::LeaseLost if !lost_replies.any() => Err(self.lease_lost(key, token)),
            BatchChange::NotFound => Ok(()),
            // After an attempt whose reply was lost, a batch that is no longer held is the result of that attempt.
            BatchChange::Done(_) | BatchChange::LeaseLost => {
                self.batch_was_given_back(key, token).await;
                Ok(())
            }
        }
    }

    /// Updates the store's memory after a batch has become PENDING again.
    pub(super) async fn batch_was_given_back(&self, key: &BatchKey, token: Option<Token>) {
        if let Some(token) = token {
            self.store.claims.ended(key, token);
        }
        self.store.claims.reopened(&key.job_id);
        self.store.queue.forget_batch(key);
        self.update_list_or_remember(&key.job_id).await;
    }

    /// Updates the store's memory after a job has become final or been deleted: its claims no longer count.
    pub(super) fn forget_claims(&self, job_id: &str) {
        self.store.claims.forget(job_id);
        self.store.queue.forget_claims(job_id);
    }

    /// Not of an ABORTED job: its workers may still hold batches, and need their tokens for what is claimed, or was taken from them.
    pub(super) fn forget_claims_if_final(&self, job_id: &str, status: &str) {
        if matches!(JobStatus::from_text(status), Some(JobStatus::Completed | JobStatus::Failed)) {
            self.forget_claims(job_id);
        }
    }
}

fn all_locked(job_id: &str) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "no batch of job {} could be claimed within {} ms: all its PENDING batches are locked by other transactions; claim again",
            Quoted(job_id),
            CLAIM_PATIENCE.as_millis()
        ),
    )
    .repeatable(Repeatable::ByCaller)
}
