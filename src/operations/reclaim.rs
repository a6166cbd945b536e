//! `reclaimStaleBatches`: takes batches from workers that have not renewed their leases, and finalizes a job whose last worker died.

use std::time::Duration;

use super::adoption::Adoption;
use super::call::{Access, Answer, Call, Entered};
use crate::backend::ReclaimSnapshot;
use crate::error::Result;
use crate::retry::{LostReplies, Repeat};

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
        if lost_replies.any() || taken.as_ref().is_ok_and(|taken| *taken > 0) {
            self.store.claims.reopened(job_id);
            self.update_list_or_remember(job_id).await;
        }
        taken
    }
}
