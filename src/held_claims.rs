//! What a store remembers of its claims: each claim's token, where to look for a job's next batch, and which leases to renew. This is a cache; the
//! batch rows are authoritative.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::lock;
use crate::model::{BatchIndex, BatchKey, BatchRow, Reservation, Token, WorkerId};
use crate::panics;

/// How many jobs and claims are remembered of jobs in which this store has no batch under way. Other processes may have finished those jobs without
/// the store noticing.
const MOST_IDLE: usize = 10_000;

/// How long a count of batches is trusted.
const COUNT_LIFETIME: Duration = Duration::from_secs(60);

/// Where to start looking for a job's next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Every batch below this index was seen claimed, or was locked by a concurrent claim.
    pub from: Option<BatchIndex>,
    epoch: u64,
    /// The number of claims that had been made through the store.
    made: u64,
}

/// A claim whose lease is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub key: BatchKey,
    pub worker_id: Arc<WorkerId>,
    pub token: Token,
}

/// The number of a job's batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchCount {
    pub count: i64,
    /// The highest index. If it changes, another process has saved the job again.
    last: Option<BatchIndex>,
    counted: Instant,
}

impl BatchCount {
    pub fn new(count: i64, last: Option<BatchIndex>) -> Self {
        Self {
            count,
            last,
            counted: Instant::now(),
        }
    }

    /// `rows`: in the order of their indexes.
    pub fn of(rows: &[BatchRow]) -> Self {
        Self::new(rows.len() as i64, rows.last().map(|row| BatchIndex(row.index)))
    }

    /// Whether the count is valid for a job whose highest index is now `last`, if that is known.
    pub fn holds(&self, last: Option<BatchIndex>) -> bool {
        (last.is_none() || last == self.last) && self.counted.elapsed() < COUNT_LIFETIME
    }
}

struct Renewal {
    worker_id: Arc<WorkerId>,
    until: Instant,
}

struct Held {
    token: Token,
    /// The sequence number of this claim among all claims made through the store.
    number: u64,
    /// As far as this store knows, the claim has not been finished, released or lost.
    under_way: bool,
    renewal: Option<Renewal>,
}

#[derive(Default)]
struct HeldJob {
    from: Option<BatchIndex>,
    /// Counts reopened batches, so that a claim that ran concurrently does not move the start past them.
    epoch: u64,
    batches: Option<BatchCount>,
    /// An update of the job's list was due and failed.
    list_is_behind: bool,
    claims: HashMap<String, Held>,
    /// The number of `claims` under way.
    under_way: usize,
    /// The sequence number of the store's last claim on the job.
    last_claim: u64,
}

impl HeldJob {
    /// What it contributes to `MOST_IDLE`.
    fn idle_size(&self) -> usize {
        if self.under_way == 0 { self.claims.len() + 1 } else { 0 }
    }
}

#[derive(Default)]
struct HeldJobs {
    by_id: HashMap<String, HeldJob>,
    /// The sum of their `idle_size`.
    idle: usize,
}

impl HeldJobs {
    fn get(&self, job_id: &str) -> Option<&HeldJob> {
        self.by_id.get(job_id)
    }

    /// Changes what is remembered of a job, if anything is.
    fn change<T>(&mut self, job_id: &str, change: impl FnOnce(&mut HeldJob) -> T) -> Option<T> {
        let job = self.by_id.get_mut(job_id)?;
        let before = job.idle_size();
        let result = change(job);
        self.idle = self.idle - before + job.idle_size();
        Some(result)
    }

    fn insert(&mut self, job_id: &str) {
        if !self.by_id.contains_key(job_id) {
            let job = HeldJob::default();
            self.idle += job.idle_size();
            self.by_id.insert(job_id.to_owned(), job);
        }
    }

    fn remove(&mut self, job_id: &str) {
        if let Some(job) = self.by_id.remove(job_id) {
            self.idle -= job.idle_size();
        }
    }

    /// When idle jobs exceed the limit, drops half of them, those with the oldest claims first, so that this happens rarely.
    fn bound(&mut self) {
        if self.idle <= MOST_IDLE {
            return;
        }
        let idle = self.by_id.iter().filter(|(_, job)| job.under_way == 0);
        let mut idle: Vec<(u64, String)> = idle.map(|(id, job)| (job.last_claim, id.clone())).collect();
        idle.sort_unstable();
        for (_, job_id) in idle {
            if self.idle <= MOST_IDLE / 2 {
                return;
            }
            self.remove(&job_id);
        }
    }
}

/// Claims made through one store, by job.
#[derive(Default)]
pub struct Claims {
    jobs: Mutex<HeldJobs>,
    made: AtomicU64,
}

impl Claims {
    pub fn start(&self, job_id: &str) -> Start {
        let jobs = lock(&self.jobs);
        let (from, epoch) = jobs.get(job_id).map_or((None, 0), |job| (job.from, job.epoch));
        Start {
            from,
            epoch,
            made: self.made_so_far(),
        }
    }

    /// The number of claims made through the store.
    pub fn made_so_far(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Remembers a claim: its token fences the calls that follow, and the next claim starts behind it. Returns false if this store made a newer claim
    /// on the batch while this one ran: the newer one stays, and this one is lost.
    pub fn made(&self, claim: &Reservation, start: Start, renew_for: Option<Duration>) -> bool {
        let mut jobs = lock(&self.jobs);
        panics::fail_point("claims, locked");
        jobs.insert(&claim.job_id);
        let until = renew_for.and_then(|duration| Instant::now().checked_add(duration));
        let remember = |job: &mut HeldJob| {
            if job.epoch == start.epoch {
                job.from = claim.batch_index.next();
            }
            // If the held claim was known before this one began, its higher token belongs to an earlier job with the same id.
            let is_late = |held: &Held| claim.token < held.token && held.number > start.made;
            if job.claims.get(&claim.batch_id).is_some_and(is_late) {
                return false;
            }
            let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
            job.last_claim = number;
            let held = Held {
                token: claim.token,
                number,
                under_way: true,
                renewal: until.map(|until| Renewal {
                    worker_id: Arc::new(claim.worker_id.clone()),
                    until,
                }),
            };
            job.under_way += 1;
            if job
                .claims
                .insert(claim.batch_id.clone(), held)
                .is_some_and(|before| before.under_way)
            {
                job.under_way -= 1;
            }
            true
        };
        let made = jobs.change(&claim.job_id, remember).unwrap_or(false);
        jobs.bound();
        made
    }

    /// The token of the last claim on a batch. It stays after the claim is lost or the batch is finished, so that a late call can't affect the
    /// batch's next holder.
    pub fn token(&self, key: &BatchKey) -> Option<Token> {
        lock(&self.jobs).get(&key.job_id)?.claims.get(&key.batch_id).map(|held| held.token)
    }

    /// Batches below the last claim may be PENDING again.
    pub fn reopened(&self, job_id: &str) {
        lock(&self.jobs).change(job_id, |job| {
            job.from = None;
            job.epoch += 1;
        });
    }

    /// The number of the job's batches when they were last counted.
    pub fn batches(&self, job_id: &str) -> Option<BatchCount> {
        lock(&self.jobs).get(job_id)?.batches
    }

    /// Remembers the count even where this store has no claim on the job. A program may set the states of batches that another store claimed; without the
    /// count, each of its calls would count the job's batches again.
    pub fn set_batches(&self, job_id: &str, batches: BatchCount) {
        let mut jobs = lock(&self.jobs);
        jobs.insert(job_id);
        jobs.change(job_id, |job| job.batches = Some(batches));
        jobs.bound();
    }

    pub fn list_is_behind(&self, job_id: &str) -> bool {
        lock(&self.jobs).get(job_id).is_some_and(|job| job.list_is_behind)
    }

    pub fn set_list_is_behind(&self, job_id: &str, behind: bool) {
        let mut jobs = lock(&self.jobs);
        if behind {
            jobs.insert(job_id);
        }
        jobs.change(job_id, |job| job.list_is_behind = behind);
        jobs.bound();
    }

    /// The batch was finished or released, or the claim was lost, so its lease is no longer renewed. A later claim on the same batch is not affected.
    /// Returns whether the claim was under way.
    pub fn ended(&self, key: &BatchKey, token: Token) -> bool {
        let end = |job: &mut HeldJob| {
            if let Some(held) = job.claims.get_mut(&key.batch_id).filter(|held| held.token == token) {
                held.renewal = None;
                let under_way = std::mem::take(&mut held.under_way);
                job.under_way -= usize::from(under_way);
                return under_way;
            }
            false
        };
        lock(&self.jobs).change(&key.job_id, end) == Some(true)
    }

    /// The job is final: forgets everything about it.
    pub fn forget(&self, job_id: &str) {
        lock(&self.jobs).remove(job_id);
    }

    /// The job was deleted and saved again. Forgets the claims up to this sequence number, because they belong to the deleted job.
    pub fn forget_made_before(&self, job_id: &str, made: u64) {
        let forget = |job: &mut HeldJob| {
            job.claims.retain(|_, held| held.number > made);
            job.under_way = job.claims.values().filter(|held| held.under_way).count();
            job.from = None;
            job.epoch += 1;
            job.list_is_behind = false;
        };
        lock(&self.jobs).change(job_id, forget);
    }

    /// The leases to renew at this time.
    pub fn leases(&self, now: Instant) -> Vec<Lease> {
        let jobs = lock(&self.jobs);
        let claims = jobs
            .by_id
            .iter()
            .filter(|(_, job)| job.under_way > 0)
            .flat_map(|(job_id, job)| job.claims.iter().map(move |(batch_id, held)| (job_id, batch_id, held)));
        claims
            .filter_map(|(job_id, batch_id, held)| {
                let renewal = held.renewal.as_ref().filter(|renewal| now < renewal.until)?;
                Some(Lease {
                    key: BatchKey::new(job_id, batch_id),
                    worker_id: renewal.worker_id.clone(),
                    token: held.token,
                })
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
            batch_index: BatchIndex(index),
            worker_id: WorkerId("worker".into()),
            claimed_at: 0,
            record_start_index: 0,
            record_end_index: 0,
            token: Token(token),
            last_batch_index: BatchIndex(index),
        }
    }

    #[test]
    fn the_next_claim_begins_behind_the_last_one() {
        let claims = Claims::default();
        assert_eq!(claims.start("job").from, None);
        claims.made(&claim(7, 1), claims.start("job"), None);
        assert_eq!(claims.start("job").from, Some(BatchIndex(8)));
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
    fn ending_an_old_claim_keeps_the_renewal_of_the_new_one() {
        let claims = Claims::default();
        let hour = Some(Duration::from_secs(3600));
        claims.made(&claim(0, 1), claims.start("job"), hour);
        claims.made(&claim(0, 3), claims.start("job"), hour);
        claims.ended(&BatchKey::new("job", "batch 0"), Token(1));
        assert_eq!(claims.leases(Instant::now()).len(), 1);
    }

    #[test]
    fn the_token_is_that_of_the_last_claim_until_the_job_is_final() {
        let claims = Claims::default();
        claims.made(&claim(0, 1), claims.start("job"), None);
        claims.made(&claim(0, 3), claims.start("job"), None);
        claims.ended(&BatchKey::new("job", "batch 0"), Token(3));
        assert_eq!(claims.token(&BatchKey::new("job", "batch 0")), Some(Token(3)));
        claims.forget("job");
        assert_eq!(claims.token(&BatchKey::new("job", "batch 0")), None);
    }

    #[test]
    fn the_late_reply_to_an_older_claim_does_not_hide_the_newer_one() {
        let claims = Claims::default();
        let hour = Some(Duration::from_secs(3600));
        let older = claims.start("job");
        assert!(claims.made(&claim(0, 3), claims.start("job"), hour));
        assert!(!claims.made(&claim(0, 1), older, hour));
        assert_eq!(claims.token(&BatchKey::new("job", "batch 0")), Some(Token(3)));
        assert_eq!(
            claims.leases(Instant::now()).iter().map(|lease| lease.token).collect::<Vec<_>>(),
            [Token(3)]
        );
    }

    #[test]
    fn a_job_of_the_same_id_begins_at_the_first_token() {
        let claims = Claims::default();
        assert!(claims.made(&claim(0, 3), claims.start("job"), None));
        assert!(claims.made(&claim(0, 1), claims.start("job"), None));
        assert_eq!(claims.token(&BatchKey::new("job", "batch 0")), Some(Token(1)));
    }

    #[test]
    fn leases_end_with_their_time_or_their_batch() {
        let claims = Claims::default();
        let hour = Duration::from_secs(3600);
        claims.made(&claim(0, 1), claims.start("job"), Some(hour));
        claims.made(&claim(1, 1), claims.start("job"), Some(hour));
        claims.made(&claim(2, 1), claims.start("job"), None);
        claims.ended(&BatchKey::new("job", "batch 1"), Token(1));
        let now = Instant::now();
        assert_eq!(
            claims.leases(now).iter().map(|lease| &*lease.key.batch_id).collect::<Vec<_>>(),
            ["batch 0"]
        );
        assert!(claims.leases(now + hour).is_empty());
    }

    #[test]
    fn the_count_of_batches_is_remembered_without_a_claim() {
        let claims = Claims::default();
        claims.set_batches("job", BatchCount::new(100_000, Some(BatchIndex(99_999))));
        assert_eq!(claims.batches("job").map(|batches| batches.count), Some(100_000));
        for job in 0..3 * MOST_IDLE {
            claims.set_batches(&format!("job {job}"), BatchCount::new(1, None));
        }
        assert!(lock(&claims.jobs).by_id.len() <= MOST_IDLE);
    }

    #[test]
    fn memory_of_jobs_without_a_batch_under_way_is_bounded() {
        let claims = Claims::default();
        let of_job = |job: usize, batch: i32| Reservation {
            job_id: format!("job {job}"),
            ..claim(batch, 1)
        };
        claims.made(&of_job(0, 0), claims.start("job 0"), None);
        for job in 1..3 * MOST_IDLE {
            let claim = of_job(job, 0);
            claims.made(&claim, claims.start(&claim.job_id), None);
            claims.ended(&claim.key(), claim.token);
        }
        let jobs = lock(&claims.jobs);
        assert!(jobs.by_id.len() <= MOST_IDLE, "{} jobs", jobs.by_id.len());
        assert!(jobs.by_id.contains_key("job 0"), "its batch is under way");
        assert!(jobs.by_id.contains_key(&format!("job {}", 3 * MOST_IDLE - 1)), "the latest");
        let idle: usize = jobs.by_id.values().map(HeldJob::idle_size).sum();
        assert_eq!(jobs.idle, idle);
    }

    #[test]
    fn a_job_of_the_same_id_forgets_the_claims_before_it_and_keeps_those_since() {
        let claims = Claims::default();
        claims.made(&claim(0, 3), claims.start("job"), None);
        let before = claims.made_so_far();
        claims.made(&claim(1, 1), claims.start("job"), None);
        claims.forget_made_before("job", before);
        assert_eq!(claims.token(&BatchKey::new("job", "batch 0")), None);
        assert_eq!(claims.token(&BatchKey::new("job", "batch 1")), Some(Token(1)));
        assert_eq!(claims.start("job").from, None);
    }

    #[test]
    fn a_count_of_batches_holds_while_the_highest_index_is_the_same() {
        let count = BatchCount::new(200, Some(BatchIndex(199)));
        assert!(count.holds(Some(BatchIndex(199))) && count.holds(None));
        assert!(!count.holds(Some(BatchIndex(99))));
    }
}
