//! What this process holds: the token of each claim that it made, where to look for the next batch, and the renewal of leases.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::lock;
use crate::model::Reservation;
use crate::panics;

/// Where to look for the next batch of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Every batch below was seen claimed, or was locked by a claim under way.
    pub from: Option<i32>,
    epoch: u64,
    /// How many claims had been made through the store.
    made: u64,
}

/// A claim whose lease is to be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub job_id: String,
    pub batch_id: String,
    pub worker_id: String,
    pub token: i32,
}

struct Held {
    token: i32,
    /// The how-manieth of all claims that were made through the store.
    place: u64,
    worker_id: String,
    renew_until: Option<Instant>,
}

#[derive(Default)]
struct HeldJob {
    from: Option<i32>,
    /// Counts reopened batches, so that a claim that was under way meanwhile does not hide them again.
    epoch: u64,
    batches: Option<i64>,
    /// The job's list could not be brought up to date when it was due.
    list_is_behind: bool,
    claims: HashMap<String, Held>,
}

/// Claims made through one store, by job.
#[derive(Default)]
pub struct Claims {
    jobs: Mutex<HashMap<String, HeldJob>>,
    made: AtomicU64,
}

impl Claims {
    pub fn start(&self, job_id: &str) -> Start {
        let jobs = lock(&self.jobs);
        let (from, epoch) = jobs.get(job_id).map_or((None, 0), |job| (job.from, job.epoch));
        Start {
            from,
            epoch,
            made: self.made.load(Ordering::Relaxed),
        }
    }

    /// Remembers a claim: its token fences the calls that follow, and the next claim begins behind it. False where a newer claim on the batch was made
    /// through this store while this one was under way: then that one stays, and this one is lost.
    pub fn made(&self, claim: &Reservation, start: Start, renew_for: Option<Duration>) -> bool {
        let mut jobs = lock(&self.jobs);
        panics::due("claims, locked");
        let job = jobs.entry(claim.job_id.clone()).or_default();
        if job.epoch == start.epoch {
            job.from = claim.batch_index.checked_add(1);
        }
        // Where the other was known before this claim was begun, its lower token is that of a new job of the same id.
        let is_late = |held: &Held| claim.token < held.token && held.place > start.made;
        if job.claims.get(&claim.batch_id).is_some_and(is_late) {
            return false;
        }
        let held = Held {
            token: claim.token,
            place: self.made.fetch_add(1, Ordering::Relaxed) + 1,
            worker_id: claim.worker_id.clone(),
            renew_until: renew_for.and_then(|duration| Instant::now().checked_add(duration)),
        };
        job.claims.insert(claim.batch_id.clone(), held);
        true
    }

    /// The token of the last claim on a batch. It stays after the claim is lost or the batch is done, so that a late call can't hit the batch's next
    /// holder.
    pub fn token(&self, job_id: &str, batch_id: &str) -> Option<i32> {
        lock(&self.jobs).get(job_id)?.claims.get(batch_id).map(|held| held.token)
    }

    /// Batches below the last claim may be pending again.
    pub fn reopened(&self, job_id: &str) {
        if let Some(job) = lock(&self.jobs).get_mut(job_id) {
            job.from = None;
            job.epoch += 1;
        }
    }

    /// How many batches the job had when they were last counted.
    pub fn batches(&self, job_id: &str) -> Option<i64> {
        lock(&self.jobs).get(job_id)?.batches
    }

    pub fn set_batches(&self, job_id: &str, batches: i64) {
        if let Some(job) = lock(&self.jobs).get_mut(job_id) {
            job.batches = Some(batches);
        }
    }

    pub fn list_is_behind(&self, job_id: &str) -> bool {
        lock(&self.jobs).get(job_id).is_some_and(|job| job.list_is_behind)
    }

    pub fn set_list_is_behind(&self, job_id: &str, behind: bool) {
        let mut jobs = lock(&self.jobs);
        match jobs.get_mut(job_id) {
            Some(job) => job.list_is_behind = behind,
            None if behind => {
                jobs.insert(
                    job_id.to_owned(),
                    HeldJob {
                        list_is_behind: true,
                        ..HeldJob::default()
                    },
                );
            }
            None => {}
        }
    }

    /// Ends the renewal of one claim; that of a later one on the same batch goes on.
    pub fn stop_renewing(&self, job_id: &str, batch_id: &str, token: i32) {
        if let Some(held) = lock(&self.jobs).get_mut(job_id).and_then(|job| job.claims.get_mut(batch_id))
            && held.token == token
        {
            held.renew_until = None;
        }
    }

    /// The job is final: nothing of it is held any more.
    pub fn forget(&self, job_id: &str) {
        lock(&self.jobs).remove(job_id);
    }

    /// The claims whose time for renewal is not over.
    pub fn leases(&self, now: Instant) -> Vec<Lease> {
        let jobs = lock(&self.jobs);
        let claims = jobs
            .iter()
            .flat_map(|(job_id, job)| job.claims.iter().map(move |(batch_id, held)| (job_id, batch_id, held)));
        claims
            .filter(|(_, _, held)| held.renew_until.is_some_and(|until| now < until))
            .map(|(job_id, batch_id, held)| Lease {
                job_id: job_id.clone(),
                batch_id: batch_id.clone(),
                worker_id: held.worker_id.clone(),
                token: held.token,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(index: i32, token: i32) -> Reservation {
        Reservation {
            job_id: "job".into(),
            batch_id: format!("batch {index}"),
            batch_index: index,
            worker_id: "worker".into(),
            claimed_at: 0,
            record_start_index: 0,
            record_end_index: 0,
            token,
        }
    }

    #[test]
    fn the_next_claim_begins_behind_the_last_one() {
        let claims = Claims::default();
        assert_eq!(claims.start("job").from, None);
        claims.made(&claim(7, 1), claims.start("job"), None);
        assert_eq!(claims.start("job").from, Some(8));
    }

    #[test]
    fn a_claim_that_was_under_way_does_not_hide_a_reopened_batch() {
        let claims = Claims::default();
        claims.made(&claim(5, 1), claims.start("job"), None);
        let start = claims.start("job");
        claims.reopened("job");
        claims.made(&claim(7, 1), start, None);
        assert_eq!(claims.start("job").from, None);
    }

    #[test]
    fn the_end_of_an_old_claim_does_not_end_the_renewal_of_the_new_one() {
        let claims = Claims::default();
        let hour = Some(Duration::from_secs(3600));
        claims.made(&claim(0, 1), claims.start("job"), hour);
        claims.made(&claim(0, 3), claims.start("job"), hour);
        claims.stop_renewing("job", "batch 0", 1);
        assert_eq!(claims.leases(Instant::now()).len(), 1);
    }

    #[test]
    fn the_token_is_that_of_the_last_claim_until_the_job_is_final() {
        let claims = Claims::default();
        claims.made(&claim(0, 1), claims.start("job"), None);
        claims.made(&claim(0, 3), claims.start("job"), None);
        claims.stop_renewing("job", "batch 0", 3);
        assert_eq!(claims.token("job", "batch 0"), Some(3));
        claims.forget("job");
        assert_eq!(claims.token("job", "batch 0"), None);
    }

    #[test]
    fn the_late_reply_to_an_older_claim_does_not_hide_the_newer_one() {
        let claims = Claims::default();
        let hour = Some(Duration::from_secs(3600));
        let older = claims.start("job");
        assert!(claims.made(&claim(0, 3), claims.start("job"), hour));
        assert!(!claims.made(&claim(0, 1), older, hour));
        assert_eq!(claims.token("job", "batch 0"), Some(3));
        assert_eq!(
            claims.leases(Instant::now()).iter().map(|lease| lease.token).collect::<Vec<_>>(),
            [3]
        );
    }

    #[test]
    fn a_job_made_anew_begins_at_the_first_token() {
        let claims = Claims::default();
        assert!(claims.made(&claim(0, 3), claims.start("job"), None));
        assert!(claims.made(&claim(0, 1), claims.start("job"), None));
        assert_eq!(claims.token("job", "batch 0"), Some(1));
    }

    #[test]
    fn leases_end_with_their_time_or_their_batch() {
        let claims = Claims::default();
        let hour = Duration::from_secs(3600);
        claims.made(&claim(0, 1), claims.start("job"), Some(hour));
        claims.made(&claim(1, 1), claims.start("job"), Some(hour));
        claims.made(&claim(2, 1), claims.start("job"), None);
        claims.stop_renewing("job", "batch 1", 1);
        let now = Instant::now();
        assert_eq!(
            claims.leases(now).iter().map(|lease| &*lease.batch_id).collect::<Vec<_>>(),
            ["batch 0"]
        );
        assert!(claims.leases(now + hour).is_empty());
    }
}
