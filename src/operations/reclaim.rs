//! `reclaimStaleBatches`: takes batches from workers that have not renewed their leases, and finalizes a job whose last worker died.

use std::time::Duration;

use super::adoption::Adoption;
use super::call::{Access, Answer, Call, Entered};
use crate::backend::{ReclaimSnapshot, Reclaimed};
use crate::error::{Quoted, Result};
use crate::model::BatchKey;
use crate::retry::{LostReplies, Repeat};
use crate::warnings::{Warning, WarningKind};

/// How many batches of one reclaim are warned of one by one. One more warning stands for the others.
const NAMED: usize = 50;

impl Entered {
    /// Returns the number of batches taken.
    pub fn reclaim_stale_batches(self, job_id: String, older_than: Duration) -> impl Answer<u32> {
        self.accessing(Access::Claims(&job_id))
            .run(move |call| async move { call.reclaim_stale_batches(&job_id, older_than).await })
    }
}

impl Call {
    async fn reclaim_stale_batches(&self, job_id: &str, older_than: Duration) -> Result<u32> {
        let mut snapshot = self.reclaim_snapshot(job_id, older_than).await?;
        if !snapshot.has_rows {
            match self.adopt_if_needed(job_id).await? {
                Adoption::NotNeeded => return Ok(0),
                // No batch will ever be claimed, so this is the last call on the job.
                Adoption::NoBatches => {
                    self.finalize_unattended(job_id, None).await?;
                    return Ok(0);
                }
                Adoption::Adopted => snapshot = self.reclaim_snapshot(job_id, older_than).await?,
            }
        }
        let reclaimed = if snapshot.has_stale {
            self.take_stale_batches(job_id, older_than).await?
        } else {
            0
        };
        let open = snapshot.has_open && (reclaimed == 0 || self.has_open_batch(job_id).await?);
        if !open {
            // Either this call gave up the last open batch, so that no worker is left to finalize the job; or the job's last worker may have died
            // before finalizing it.
            let abandoned_for = (reclaimed == 0).then_some(older_than);
            self.finalize_unattended(job_id, abandoned_for).await?;
        }
        Ok(reclaimed)
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration) -> Result<ReclaimSnapshot> {
        let from = self.store.claims.start(job_id).from;
        self.read(|reads| reads.reclaim_snapshot(job_id, older_than, from)).await
    }

    async fn take_stale_batches(&self, job_id: &str, older_than: Duration) -> Result<u32> {
        let lost_replies = LostReplies::default();
        // Idempotent: each attempt takes the batches that are stale at that time.
        let taken = self
            .write_noting(&lost_replies, Repeat::Idempotent, |backend| {
                backend.reclaim(job_id, older_than, self.store.max_claims)
            })
            .await;
        // An attempt whose reply was lost may have taken batches that this one no longer found.
        if lost_replies.any() || taken.as_ref().is_ok_and(|taken| !taken.is_empty()) {
            self.store.claims.reopened(job_id);
            self.update_list_or_remember(job_id).await;
        }
        if lost_replies.any() {
            self.warn_maybe_taken(job_id, "a reclaim");
        }
        let taken = taken?;
        let (given_up, returned): (Vec<_>, Vec<_>) = taken.iter().partition(|batch| batch.given_up);
        let stale = "taken from its worker, because its claim was stale";
        self.warn_taken(job_id, WarningKind::ClaimTaken, stale, returned);
        let last = "given up: its claim was stale, and was the last one that maxClaims allows";
        self.warn_taken(job_id, WarningKind::BatchGivenUp, last, given_up);
        Ok(taken.len() as u32)
    }

    pub(super) fn warn_maybe_taken(&self, job_id: &str, by: &str) {
        let message = format!(
            "batches of job {} may have been taken from their workers by {by} whose reply was lost",
            Quoted(job_id)
        );
        self.store.warnings.warn(Warning::new(WarningKind::ClaimTaken, message).job(job_id));
    }

    pub(super) fn warn_taken<'t>(&self, job_id: &str, kind: WarningKind, what: &str, taken: impl IntoIterator<Item = &'t Reclaimed>) {
        let mut taken = taken.into_iter();
        for batch in taken.by_ref().take(NAMED) {
            let worker = batch.worker_id.as_deref();
            let held = worker.map(|worker| format!(" (held by {})", Quoted(worker))).unwrap_or_default();
            let message = format!("batch {} of job {}{held} was {what}", Quoted(&batch.batch_id), Quoted(job_id));
            let key = BatchKey::new(job_id, &*batch.batch_id);
            self.store.warnings.warn(Warning::new(kind, message).batch(&key).worker(worker));
        }
        let others = taken.count();
        if others > 0 {
            let message = format!("{others} more batches of job {} were each {what}", Quoted(job_id));
            self.store.warnings.warn(Warning::new(kind, message).job(job_id).count(others));
        }
    }
}
