//! What the store does, on any database: which steps a call takes, in which order, and what is repeated when. The rule of the two copies of a
//! batch's state is kept here and nowhere else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};

use crate::backend::{self, Backend, BatchChange, BatchPlace, LockedJob, RecordWrite, StoredJob, Transaction};
use crate::error::{Code, Error, Quoted, Repeat, Repeatable, Result, Retry, jittered};
use crate::held_claims::{BatchCount, Claims, Lease, Start};
use crate::model::{
    BatchIndex, BatchKey, BatchList, BatchRow, BatchState, BatchStatus, DistributedStatus, Job, JobFilter, JobStatus, JobTimes,
    ListedBatch, MaxClaims, Progress, Record, RecordPage, RecordSlices, RecordStatus, Reservation, Token, WorkerId, final_status,
    mirror_step, mirrors,
};
use crate::order::{Gate, Initialization, Turns};
use crate::panics::{self, caught};
use crate::record_writer::{BulkPlace, RecordWriter, Saved};
use crate::settings::{LeaseRenewal, Settings};

/// How long a claim tries again while a batch is PENDING that somebody has locked.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
/// How long `initialize` may go on once the store is closed: tables are made in less, unless they are locked by another process.
const INITIALIZE_GRACE: Duration = Duration::from_secs(2);
/// Rows that one statement of `deleteJob` deletes, so that a large job does not lock its tables for long.
const DELETE_SLICE: i32 = 5_000;

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

/// Whether a distributed job had to be given the rows of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adoption {
    Adopted,
    /// It lists no batches.
    NoBatches,
    /// It has rows, or is not distributed, or unknown.
    NotNeeded,
}

/// What became of an attempt to finalize a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finalized {
    Now,
    NotYet,
    /// Final before, or not PROCESSING, or unknown.
    Not,
}

/// One store.
pub struct Operations {
    backend: Arc<dyn Backend>,
    claims: Claims,
    writer: RecordWriter,
    retry: Retry,
    lease_renewal: Option<LeaseRenewal>,
    connect_timeout: Duration,
    renewing: AtomicBool,
    max_claims: Option<MaxClaims>,
    /// The order of `saveJobState` and `updateBatchState`, by job.
    pub turns: Turns,
    pub gate: Gate,
    pub initialization: Initialization,
    /// Set once the connections are ended; who closes twice waits for the first.
    closing: OnceCell<()>,
}

/// How long a renewal may take: it ends before the next round, which begins it anew, unless a round is shorter than a new connection and a statement may take.
fn renewal_limit(every: Duration, connect_timeout: Duration) -> Duration {
    (every - every / 10).max(connect_timeout + Duration::from_secs(1))
}

/// The renewals that are under way, of each lease one. They end with it.
#[derive(Default)]
struct Renewals {
    tasks: JoinSet<()>,
    leases: HashMap<Lease, AbortHandle>,
}

impl Renewals {
    fn begin(&mut self, lease: Lease, renewal: impl Future<Output = ()> + Send + 'static) {
        self.leases.insert(lease, self.tasks.spawn(renewal));
    }

    fn is_under_way(&self, lease: &Lease) -> bool {
        self.leases.contains_key(lease)
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.leases.retain(|_, task| !task.is_finished());
    }
}

impl Operations {
    /// Opens nothing: the first call connects.
    pub fn new(settings: Settings) -> Arc<Self> {
        let (lease_renewal, max_claims, durability) = (settings.lease_renewal, settings.max_claims, settings.durability);
        let connect_timeout = settings.connect_timeout;
        let retry = Retry {
            patience: settings.statement_timeout,
        };
        let backend: Arc<dyn Backend> = Arc::from(backend::open(settings));
        let initialization = Initialization::default();
        Arc::new(Self {
            writer: RecordWriter::new(backend.clone(), retry, durability, initialization.clone()),
            initialization,
            backend,
            claims: Claims::default(),
            retry,
            lease_renewal,
            connect_timeout,
            renewing: AtomicBool::new(false),
            max_claims,
            turns: Turns::default(),
            gate: Gate::default(),
            closing: OnceCell::new(),
        })
    }

    /// Ends with `CLOSED` where it waits for another process while the store is closed: `close` must not wait for that.
    pub async fn initialize(&self) -> Result<()> {
        // Idempotent: it creates what is missing, and looks again first.
        let initialized = self.retry.run(Repeat::Idempotent, || self.backend.initialize(&self.gate));
        let closed = async {
            self.gate.wait_until_closed().await;
            tokio::time::sleep(INITIALIZE_GRACE).await;
        };
        tokio::select! {
            initialized = initialized => initialized,
            () = closed => Err(Error::closed()),
        }
    }

    /// The token that a call made now has to show: the one that it was given, or that of this store's last claim on the batch.
    pub fn token(&self, key: &BatchKey, given: Option<Token>) -> Option<Token> {
        given.or_else(|| self.claims.token(key))
    }

    /// Lets the calls under way finish and what is queued be written, then ends the connections. Rejects where something that was queued could not be
    /// stored.
    pub async fn close(&self) -> Result<()> {
        self.gate.close();
        self.closing
            .get_or_init(|| async {
                self.gate.wait_until_empty().await;
                panics::fail_point("close");
                self.writer.flush_all().await;
                self.backend.close().await;
            })
            .await;
        self.writer.check_all()
    }

    // -----------------------------------------------------------------------------------------------------------------------------
    // Jobs

    pub async fn save_job(&self, mut job: Job) -> Result<()> {
        self.writer.flush(&job.id).await;
        // The engine marks a batch as done before it asks for that to be stored.
        let failed = self.writer.failed_batches(&job.id);
        if !failed.is_empty() {
            job.fail_completed(&failed)?;
        }
        let limits = self.retry.run(Repeat::Idempotent, || self.backend.limits()).await?;
        limits.fit_json(&"job.config", &mut job.config)?;
        limits.fit_json(&"job.batches", &mut job.batches)?;
        let claims_before = self.claims.made_so_far();
        let uncertain = AtomicBool::new(false);
        // Idempotent with `keep_final`: a job that was finalized since an attempt whose reply was lost stays final. A job that is not distributed is
        // written again as it is: one process works on it.
        let attempt = || {
            let keep_final = job.distributed && !job.status.is_final() && uncertain.load(Ordering::Relaxed);
            noting(&uncertain, self.save_job_once(&job, keep_final))
        };
        let saved = self.retry.run(Repeat::Idempotent, attempt).await;
        if job.distributed {
            // Batches below the last claim may be there now, also where the outcome is not known. Not before the commit: a claim made meanwhile would not
            // find them, and move the pointer past them.
            self.claims.reopened(&job.id);
        }
        if saved? {
            // A new job: claims on an earlier one of the same id say nothing about it.
            self.claims.forget_made_before(&job.id, claims_before);
            self.writer.forget_claims(&job.id);
        }
        if job.status.is_final() {
            self.forget_claims(&job.id);
        }
        Ok(())
    }

    /// Whether the job's row was inserted.
    async fn save_job_once(&self, job: &Job, keep_final: bool) -> Result<bool> {
        if !job.distributed || job.listed.is_empty() {
            // One statement; a job that has rows all the same gets their state into its list then.
            let saved = self.backend.save_job(job, keep_final).await?;
            if saved.has_rows {
                self.mirror(&job.id).await?;
            }
            return Ok(saved.inserted);
        }
        let mut transaction = self.backend.begin().await?;
        if let Err(error) = insert_absent_batches(&mut *transaction, &job.id, &job.listed).await {
            return Err(refuse(transaction, error).await?);
        }
        let inserted = match transaction.upsert_job(job, keep_final).await {
            Ok(inserted) => inserted,
            Err(error) => return Err(refuse(transaction, error).await?),
        };
        panics::fail_point("transaction");
        // The job is locked now, so a new statement sees every batch that was changed before.
        let rows = transaction.batch_rows(&job.id).await?;
        let mut batches = BatchList::read(&job.id, &job.batches)?;
        if batches.follow(&rows) {
            transaction.set_job_batches(&job.id, &batches.to_json()).await?;
        }
        transaction.commit().await?;
        self.claims.set_batches(&job.id, BatchCount::of(&rows));
        Ok(inserted)
    }

    /// `JobState` as JSON.
    pub async fn job(&self, job_id: &str) -> Result<Option<String>> {
        self.writer.flush(job_id).await;
        self.retry
            .run(Repeat::Idempotent, || async {
                let Some(StoredJob { row, batches }) = self.backend.job(job_id).await? else {
                    return Ok(None);
                };
                let mut batches = BatchList::read(job_id, &batches)?;
                let rows = if batches.is_empty() {
                    Vec::new()
                } else {
                    self.backend.batch_rows(job_id).await?
                };
                batches.follow_with_claims(&rows);
                Ok(Some(row.to_json(Some(&batches.to_json()))))
            })
            .await
    }

    /// Jobs as a JSON array.
    pub async fn list_jobs(&self, filter: JobFilter) -> Result<String> {
        let jobs = self.retry.run(Repeat::Idempotent, || self.backend.list_jobs(&filter)).await?;
        let jobs: Vec<String> = jobs.iter().map(|job| job.to_json(None)).collect();
        Ok(format!("[{}]", jobs.join(",")))
    }

    pub async fn delete_job(&self, job_id: &str) -> Result<bool> {
        self.writer.flush(job_id).await;
        // The job's row goes last, so that a deletion that was interrupted can be found and made again.
        //
        // Idempotent: what is deleted stays so. The row of a job that was stored again since stays, but not all of its batches and records, so a new job needs
        // a new id.
        let mut found = self.retry.run(Repeat::Idempotent, || self.backend.empty_job(job_id)).await?;
        found |= self.delete_slices(|| self.backend.delete_batches(job_id, DELETE_SLICE)).await?;
        found |= self.delete_slices(|| self.backend.delete_records(job_id, DELETE_SLICE)).await?;
        found |= self.retry.run(Repeat::Idempotent, || self.backend.delete_job(job_id)).await?;
        self.forget_claims(job_id);
        self.writer.forget_job(job_id);
        Ok(found)
    }

    /// Deletes slice after slice until nothing is left; whether there was anything.
    async fn delete_slices<F: Future<Output = Result<u64>>>(&self, slice: impl Fn() -> F) -> Result<bool> {
        let mut found = false;
        while self.retry.run(Repeat::Idempotent, &slice).await? > 0 {
            found = true;
        }
        Ok(found)
    }

    // -----------------------------------------------------------------------------------------------------------------------------
    // Batches

    pub async fn update_batch(&self, key: &BatchKey, state: BatchState, token: Option<Token>) -> Result<()> {
        self.writer.flush(&key.job_id).await;
        if state.status == BatchStatus::Completed {
            self.writer.check(key)?;
        }
        let outcome = self.update_batch_now(key, state, token).await;
        if state.status == BatchStatus::Pending {
            // Also where the outcome is not known.
            self.claims.reopened(&key.job_id);
        }
        outcome
    }

    async fn update_batch_now(&self, key: &BatchKey, state: BatchState, token: Option<Token>) -> Result<()> {
        let job_id = &*key.job_id;
        // Whether the outcome of an attempt is not known.
        let uncertain = AtomicBool::new(false);
        let change = match token {
            Some(_) => self.change_batch(key, state, token, &uncertain).await?,
            None => match self.update_unclaimed_batch(key, state, &uncertain).await? {
                BatchPlace::Row(index) => BatchChange::Done(index),
                BatchPlace::NotAdopted if !self.adopt(job_id).await? => BatchChange::NotFound,
                // It has a row now: of this adoption, or of another process's since the look.
                BatchPlace::NotAdopted | BatchPlace::List { job_has_rows: true } => self.change_batch(key, state, None, &uncertain).await?,
                BatchPlace::List { job_has_rows: false } => BatchChange::NotFound,
                // The engine says that a batch begins and ends before it stores the job with it.
                BatchPlace::Nowhere => return Ok(()),
            },
        };
        match change {
            BatchChange::Done(index) => {
                match (state.status, token) {
                    (BatchStatus::Completed | BatchStatus::Failed, Some(token)) => self.claims.ended(key, token),
                    (BatchStatus::Pending, _) => self.writer.forget_batch(key),
                    _ => {}
                }
                // A batch with a token was claimed through this store, which looked at the number of batches then.
                let last = if token.is_none() {
                    self.last_batch_index(job_id).await
                } else {
                    None
                };
                self.mirror_if_due(job_id, index, last).await;
                Ok(())
            }
            // An attempt whose reply was lost gave the batch up, and another worker has it by now: as in `release_batch`.
            BatchChange::LeaseLost if state.status == BatchStatus::Pending && uncertain.load(Ordering::Relaxed) => {
                if let Some(token) = token {
                    self.claims.ended(key, token);
                }
                self.writer.forget_batch(key);
                self.mirror_or_remember(job_id).await;
                Ok(())
            }
            BatchChange::LeaseLost => Err(self.lease_lost(key, token)),
            BatchChange::NotFound => {
                // Idempotent: of a job without rows, one process changes the list, and each job's calls of a store take turns.
                self.retry.run(Repeat::Idempotent, || self.update_listed_batch(key, state)).await
            }
        }
    }

    async fn change_batch(&self, key: &BatchKey, state: BatchState, token: Option<Token>, uncertain: &AtomicBool) -> Result<BatchChange> {
        // With a token it is idempotent: the version guards it, and a repeat leaves a batch alone that is COMPLETED or FAILED by now. Without one, only a
        // final state may be set again: another worker may have claimed the batch since the reply was lost.
        let repeat = if token.is_some() || state.status.is_final() {
            Repeat::Idempotent
        } else {
            Repeat::RolledBackOnly
        };
        let attempt = || {
            let keep_final = uncertain.load(Ordering::Relaxed);
            noting(uncertain, self.backend.set_batch_state(key, state, token, keep_final))
        };
        self.retry.run(repeat, attempt).await
    }

    /// A batch that this store never claimed.
    async fn update_unclaimed_batch(&self, key: &BatchKey, state: BatchState, uncertain: &AtomicBool) -> Result<BatchPlace> {
        // Idempotent where the batch has no row: it stands in the list of a job that one process works on. Where it has one, another worker may have
        // claimed it since the reply was lost, so only a final state is set again, and none over a final one.
        let attempt = || {
            let repeated = uncertain.load(Ordering::Relaxed);
            noting(uncertain, async move {
                if repeated && !state.status.is_final() && self.backend.has_batch_row(key).await? {
                    return Err(update_in_doubt(key, state.status));
                }
                self.backend.set_unclaimed_batch_state(key, state, repeated).await
            })
        };
        self.retry.run(Repeat::Idempotent, attempt).await
    }

    /// `None` where it is of no use, or can't be had.
    async fn last_batch_index(&self, job_id: &str) -> Option<BatchIndex> {
        // The list of so few batches is always brought up to date.
        if self.claims.batches(job_id).is_none_or(|batches| mirror_step(batches.count) == 1) {
            return None;
        }
        // Idempotent: a read.
        let last = self.retry.run(Repeat::Idempotent, || self.backend.last_batch_index(job_id)).await;
        last.ok().flatten()
    }

    /// A batch without a row stands in the job's list only.
    async fn update_listed_batch(&self, key: &BatchKey, state: BatchState) -> Result<()> {
        let BatchKey { job_id, batch_id } = key;
        let mut transaction = self.backend.begin().await?;
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

    /// A call without a token can't lose a lease, so there always is one.
    fn lease_lost(&self, key: &BatchKey, token: Option<Token>) -> Error {
        let Some(token) = token else {
            return Error::internal("a call without a token lost a lease");
        };
        self.claims.ended(key, token);
        Error::lease_lost(key, token)
    }

    /// Brings the job's list up to date where the change of this batch calls for it, or where an earlier one did and failed.
    ///
    /// The change itself is committed, so a failure here is not the call's: it would tell a worker that it has no claim which it has. The rows are the
    /// truth; the list is made up with the next change, and the job can't become final without it, which is where a lasting failure comes to light.
    ///
    /// `last`: the highest index of the job's batches, where it was seen. It tells whether another process has made the job again, with another number of
    /// batches.
    async fn mirror_if_due(&self, job_id: &str, index: BatchIndex, last: Option<BatchIndex>) {
        let due = self.claims.list_is_behind(job_id) || self.count_of_batches(job_id, last).await.is_none_or(|count| mirrors(index, count));
        if due {
            self.mirror_or_remember(job_id).await;
        }
    }

    async fn mirror_or_remember(&self, job_id: &str) {
        let behind = self.mirror(job_id).await.is_err();
        self.claims.set_list_is_behind(job_id, behind);
    }

    async fn count_of_batches(&self, job_id: &str, last: Option<BatchIndex>) -> Option<i64> {
        if let Some(batches) = self.claims.batches(job_id).filter(|batches| batches.holds(last)) {
            return Some(batches.count);
        }
        // Idempotent: a read.
        let counted = self.retry.run(Repeat::Idempotent, || self.backend.count_batches(job_id)).await;
        let (count, last) = counted.ok()?;
        self.claims.set_batches(job_id, BatchCount::new(count, last));
        Some(count)
    }

    /// Brings the job's list up to date: idempotent, for the rows are the truth.
    async fn mirror(&self, job_id: &str) -> Result<()> {
        // Idempotent: what is written is what the rows say then.
        let rows = self
            .retry
            .run(Repeat::Idempotent, || async {
                let mut transaction = self.backend.begin().await?;
                let Some(job) = transaction.lock_job(job_id).await? else {
                    transaction.rollback().await?;
                    return Ok(BatchCount::of(&[]));
                };
                let rows = transaction.batch_rows(job_id).await?;
                let mut batches = BatchList::read(job_id, &job.batches)?;
                if batches.follow(&rows) {
                    transaction.set_job_batches(job_id, &batches.to_json()).await?;
                    transaction.commit().await?;
                } else {
                    transaction.rollback().await?;
                }
                Ok(BatchCount::of(&rows))
            })
            .await?;
        self.claims.set_batches(job_id, rows);
        Ok(())
    }

    /// Gives a distributed job that another adapter prepared the rows of its batches.
    async fn adopt_if_needed(&self, job_id: &str) -> Result<Adoption> {
        // Idempotent: a read.
        let snapshot = self.retry.run(Repeat::Idempotent, || self.backend.claim_snapshot(job_id)).await?;
        match snapshot {
            Some(snapshot) if snapshot.distributed && !snapshot.has_rows => Ok(match self.adopt(job_id).await? {
                true => Adoption::Adopted,
                false => Adoption::NoBatches,
            }),
            _ => Ok(Adoption::NotNeeded),
        }
    }

    async fn adopt(&self, job_id: &str) -> Result<bool> {
        // Idempotent: rows that are there stay as they are.
        let adopted = self
            .retry
            .run(Repeat::Idempotent, || async {
                let Some(job) = self.backend.job(job_id).await? else {
                    return Ok(false);
                };
                let batches = BatchList::read(job_id, &job.batches)?;
                if batches.is_empty() {
                    return Ok(false);
                }
                let listed = batches.listed(job_id)?;
                let mut transaction = self.backend.begin().await?;
                insert_absent_batches(&mut *transaction, job_id, &listed).await?;
                // A job that is being deleted has no list any more, and must get no rows. One that was stored again meanwhile may list others.
                let listed_now = transaction.lock_job(job_id).await?.map(|job| job.batches);
                if listed_now.as_ref() == Some(&job.batches) {
                    transaction.commit().await?;
                    return Ok(true);
                }
                transaction.rollback().await?;
                match listed_now {
                    Some(batches) if !BatchList::read(job_id, &batches)?.is_empty() => Err(Error::new(
                        Code::Conflict,
                        format!("job {} was stored again while its batches were given rows", Quoted(job_id)),
                    )
                    .repeatable(Repeatable::RolledBack)),
                    _ => Ok(false),
                }
            })
            .await?;
        if adopted {
            self.mirror_or_remember(job_id).await;
        }
        Ok(adopted)
    }

    pub async fn distributed_status(&self, job_id: &str) -> Result<String> {
        self.writer.flush(job_id).await;
        // Idempotent: reads.
        let counts = || self.retry.run(Repeat::Idempotent, || self.backend.batch_counts(job_id));
        let mut found = counts().await?;
        let mut lists_none = false;
        if found.total == 0 {
            match self.adopt_if_needed(job_id).await? {
                Adoption::Adopted => found = counts().await?,
                Adoption::NoBatches => lists_none = true,
                Adoption::NotNeeded => {}
            }
        }
        to_json(&DistributedStatus::of(job_id, found, lists_none))
    }

    // -----------------------------------------------------------------------------------------------------------------------------
    // Claims

    /// `ClaimBatchResult` as JSON.
    pub async fn claim_batch(self: &Arc<Self>, job_id: &str, worker_id: &WorkerId) -> Result<String> {
        self.writer.flush(job_id).await;
        Ok(match self.try_claim(job_id, worker_id).await? {
            Ok(reservation) => format!("{{\"claimed\":true,\"reservation\":{}}}", to_json(&reservation)?),
            Err(reason) => format!("{{\"claimed\":false,\"reason\":\"{}\"}}", reason.as_str()),
        })
    }

    async fn try_claim(self: &Arc<Self>, job_id: &str, worker_id: &WorkerId) -> Result<std::result::Result<Reservation, NoClaim>> {
        let mut found_locked: Option<Instant> = None;
        loop {
            let start = self.claims.start(job_id);
            if let Some(claim) = self.claim_from(job_id, worker_id, start, start.from).await? {
                return Ok(Ok(claim));
            }
            // Nothing is left from there on; a batch further down may have been reopened by another process.
            if start.from.is_some()
                && let Some(claim) = self.claim_from(job_id, worker_id, start, None).await?
            {
                return Ok(Ok(claim));
            }
            let snapshot = self.retry.run(Repeat::Idempotent, || self.backend.claim_snapshot(job_id)).await?;
            let Some(snapshot) = snapshot else {
                self.forget_claims(job_id);
                return Ok(Err(NoClaim::JobNotFound));
            };
            if snapshot.job_status != JobStatus::Processing.as_str() {
                self.forget_if_final(job_id, &snapshot.job_status);
                return Ok(Err(NoClaim::JobNotProcessing));
            }
            if snapshot.distributed && !snapshot.has_rows && self.adopt(job_id).await? {
                continue;
            }
            if !snapshot.has_pending {
                return Ok(Err(NoClaim::NoPendingBatches));
            }
            // Counted from the first look that met it: before, the call may have waited for a connection.
            if found_locked.get_or_insert_with(Instant::now).elapsed() >= CLAIM_PATIENCE {
                return Err(Error::new(
                    Code::Conflict,
                    format!(
                        "no batch of job {} could be claimed within {} ms: all its PENDING batches are locked by other transactions; claim again",
                        Quoted(job_id),
                        CLAIM_PATIENCE.as_millis()
                    ),
                )
                .repeatable(Repeatable::ByCaller));
            }
            tokio::time::sleep(jittered(CLAIM_PAUSE)).await;
        }
    }

    async fn claim_from(
        self: &Arc<Self>,
        job_id: &str,
        worker_id: &WorkerId,
        start: Start,
        from: Option<BatchIndex>,
    ) -> Result<Option<Reservation>> {
        // A claim whose reply is lost may have been made, so it is not repeated: `reclaimStaleBatches` brings it back.
        let claim = self
            .retry
            .run(Repeat::RolledBackOnly, || self.backend.claim(job_id, worker_id, from))
            .await?;
        let Some(claim) = claim else { return Ok(None) };
        let renew_for = self.lease_renewal.map(|renewal| renewal.for_at_most);
        if !self.claims.made(&claim, start, renew_for) {
            return Ok(None);
        }
        self.writer.forget_batch(&claim.key());
        self.renew_leases();
        self.mirror_if_due(job_id, claim.batch_index, Some(claim.last_batch_index)).await;
        Ok(Some(claim))
    }

    pub async fn release_batch(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<()> {
        let job_id = &*key.job_id;
        self.writer.flush(job_id).await;
        let uncertain = AtomicBool::new(false);
        // With a token it is idempotent: the version guards it. Without one, a worker of the same name may have claimed the batch since the reply was lost.
        let repeat = if token.is_some() {
            Repeat::Idempotent
        } else {
            Repeat::RolledBackOnly
        };
        let change = self
            .retry
            .run(repeat, || noting(&uncertain, self.backend.release(key, worker_id, token)))
            .await;
        if change.is_err() {
            // It may be given back all the same.
            self.claims.reopened(job_id);
        }
        match change? {
            BatchChange::LeaseLost if !uncertain.into_inner() => Err(self.lease_lost(key, token)),
            BatchChange::NotFound => Ok(()),
            // After an attempt whose reply was lost, a batch that is not held any more is what that attempt left.
            BatchChange::Done(_) | BatchChange::LeaseLost => {
                if let Some(token) = token {
                    self.claims.ended(key, token);
                }
                self.claims.reopened(job_id);
                self.writer.forget_batch(key);
                self.mirror_or_remember(job_id).await;
                Ok(())
            }
        }
    }

    pub async fn renew_batch(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<bool> {
        let job_id = &*key.job_id;
        self.writer.flush(job_id).await;
        // Idempotent: while the worker holds the batch, its time of claim is now.
        match self
            .retry
            .run(Repeat::Idempotent, || self.backend.renew(key, worker_id, token, false))
            .await?
        {
            BatchChange::Done(_) => Ok(true),
            BatchChange::NotFound => Ok(false),
            BatchChange::LeaseLost => Err(self.lease_lost(key, token)),
        }
    }

    /// Keeps the leases of this store alive, where the options ask for it, until none is left. It runs on the runtime's own threads, which a blocked
    /// event loop does not stop.
    fn renew_leases(self: &Arc<Self>) {
        let Some(renewal) = self.lease_renewal else { return };
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let store = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut rounds = tokio::time::interval(renewal.every);
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            rounds.tick().await;
            let mut renewals = Renewals::default();
            loop {
                rounds.tick().await;
                let Some(store) = store.upgrade() else { return };
                // A panic costs one round.
                if !caught(|| Ok::<_, Error>(store.renew_once(renewal.every, &mut renewals))).unwrap_or(true) {
                    return;
                }
            }
        });
    }

    /// Begins one round of renewals. Whether there is to be another.
    fn renew_once(self: &Arc<Self>, every: Duration, renewals: &mut Renewals) -> bool {
        let leases = self.claims.leases(Instant::now());
        if self.gate.is_closed() {
            return false;
        }
        panics::fail_point("renewal");
        if leases.is_empty() {
            self.renewing.store(false, Ordering::Release);
            // A claim may have been made between the look and the flag.
            if self.claims.leases(Instant::now()).is_empty() || self.renewing.swap(true, Ordering::AcqRel) {
                return false;
            }
        }
        renewals.forget_ended();
        for lease in leases {
            if renewals.is_under_way(&lease) {
                continue;
            }
            // Neither the round nor the other leases wait for it, should somebody have locked the row, as long as the pool has connections left. It
            // does not hold the store, which may be dropped meanwhile. Given up with a round that is shorter than the way to the server, it would come
            // to nothing, again and again, and keep the server busy with connections.
            let (backend, store) = (self.backend.clone(), Arc::downgrade(self));
            let limit = renewal_limit(every, self.connect_timeout);
            renewals.begin(lease.clone(), async move {
                // A batch that is PAUSED is renewed too, so that it is not stale by the time that it goes on.
                let renewed = backend.renew(&lease.key, &lease.worker_id, Some(lease.token), true);
                match tokio::time::timeout(limit, renewed).await {
                    Ok(Ok(BatchChange::LeaseLost | BatchChange::NotFound)) => {
                        if let Some(store) = store.upgrade() {
                            store.claims.ended(&lease.key, lease.token);
                        }
                    }
                    Ok(Ok(BatchChange::Done(_))) => {}
                    // The next round tries again; a lease that can't be renewed for long is lost, which the worker's next call says.
                    Ok(Err(_)) | Err(_) => {}
                }
            });
        }
        true
    }

    pub async fn reclaim_stale_batches(&self, job_id: &str, older_than: Duration) -> Result<u32> {
        self.writer.flush(job_id).await;
        let from = self.claims.start(job_id).from;
        // Idempotent: a read.
        let look = || {
            self.retry
                .run(Repeat::Idempotent, || self.backend.reclaim_snapshot(job_id, older_than, from))
        };
        let mut snapshot = look().await?;
        if !snapshot.has_rows {
            match self.adopt_if_needed(job_id).await? {
                Adoption::NotNeeded => return Ok(0),
                // Nothing will ever be claimed, so this is the last call on the job.
                Adoption::NoBatches => {
                    self.finalize_unattended(job_id, None).await?;
                    return Ok(0);
                }
                Adoption::Adopted => snapshot = look().await?,
            }
        }
        let mut reclaimed = 0;
        if snapshot.has_stale {
            let uncertain = AtomicBool::new(false);
            // Idempotent: each attempt takes what is stale then.
            let attempt = || noting(&uncertain, self.backend.reclaim(job_id, older_than, self.max_claims));
            let taken = self.retry.run(Repeat::Idempotent, attempt).await;
            let uncertain = uncertain.into_inner();
            // An attempt whose reply was lost may have taken what this one did not find any more.
            if uncertain || taken.as_ref().is_ok_and(|taken| *taken > 0) {
                self.claims.reopened(job_id);
                self.mirror_or_remember(job_id).await;
            }
            reclaimed = taken?;
        }
        let open = snapshot.has_open
            && (reclaimed == 0
                || self
                    .retry
                    .run(Repeat::Idempotent, || {
                        self.backend.has_open_batch(job_id, self.claims.start(job_id).from)
                    })
                    .await?);
        if !open {
            // Nothing is open. Either this very call gave the last open batch up, and there is nobody else to finalize the job; or its last worker
            // may have died before it could.
            let abandoned_for = (reclaimed == 0).then_some(older_than);
            self.finalize_unattended(job_id, abandoned_for).await?;
        }
        Ok(reclaimed)
    }

    /// Finalizes a job where no caller waits for the verdict.
    async fn finalize_unattended(&self, job_id: &str, abandoned_for: Option<Duration>) -> Result<()> {
        // Idempotent: only a job that is PROCESSING and complete is finalized, and nothing depends on who did it.
        self.retry
            .run(Repeat::Idempotent, || self.finalize(job_id, abandoned_for))
            .await
            .map(drop)
    }

    pub async fn try_finalize_job(&self, job_id: &str) -> Result<bool> {
        self.writer.flush(job_id).await;
        if self
            .retry
            .run(Repeat::Idempotent, || {
                self.backend.has_open_batch(job_id, self.claims.start(job_id).from)
            })
            .await?
        {
            return Ok(false);
        }
        // `true` must reach its one caller, so a reply that is lost is not asked for again.
        let mut finalized = self.retry.run(Repeat::RolledBackOnly, || self.finalize(job_id, None)).await?;
        if finalized == Finalized::NotYet && self.adopt_if_needed(job_id).await? == Adoption::Adopted {
            finalized = self.retry.run(Repeat::RolledBackOnly, || self.finalize(job_id, None)).await?;
        }
        Ok(finalized == Finalized::Now)
    }

    fn forget_claims(&self, job_id: &str) {
        self.claims.forget(job_id);
        self.writer.forget_claims(job_id);
    }

    fn forget_if_final(&self, job_id: &str, status: &str) {
        if JobStatus::from_text(status).is_some_and(JobStatus::is_final) {
            self.forget_claims(job_id);
        }
    }

    /// `abandoned_for`: only where the newest claim is older than that.
    async fn finalize(&self, job_id: &str, abandoned_for: Option<Duration>) -> Result<Finalized> {
        let mut transaction = self.backend.begin().await?;
        let Some(job) = transaction.lock_job(job_id).await? else {
            transaction.rollback().await?;
            return Ok(Finalized::Not);
        };
        if job.status != JobStatus::Processing.as_str() {
            transaction.rollback().await?;
            self.forget_if_final(job_id, &job.status);
            return Ok(Finalized::Not);
        }
        let rows = transaction.batch_rows(job_id).await?;
        let mut batches = BatchList::read(job_id, &job.batches)?;
        let has_none = job.distributed && rows.is_empty() && batches.is_empty();
        let status = if has_none {
            Some(JobStatus::Completed)
        } else {
            final_status(&rows)
        };
        let abandoned = abandoned_for.is_none_or(|age| is_abandoned(&rows, &job, age));
        let Some(status) = status.filter(|_| abandoned) else {
            transaction.rollback().await?;
            return Ok(Finalized::NotYet);
        };
        batches.follow(&rows);
        transaction.finish_job(job_id, status, &batches.to_json()).await?;
        transaction.commit().await?;
        self.forget_claims(job_id);
        Ok(Finalized::Now)
    }

    // -----------------------------------------------------------------------------------------------------------------------------
    // Records

    /// Takes the record's place among the saves, on the caller's thread, and rejects where its batch can't take it.
    pub fn save_record(&self, job_id: String, batch_id: String, record: Record, token: Option<Token>) -> Result<Saved> {
        let token = self.token(&BatchKey::new(&*job_id, &*batch_id), token);
        self.writer.save(RecordWrite {
            job_id,
            batch_id,
            record,
            token,
            file: self.backend.file(),
        })
    }

    /// Takes the records' place among the saves, on the caller's thread.
    pub fn enter_bulk(&self, job_id: &str, records: &[Record]) -> BulkPlace {
        let indexes = || records.iter().map(|record| record.index);
        let range = indexes().min().unwrap_or_default()..=indexes().max().unwrap_or_default();
        self.writer.enter_bulk(job_id, range)
    }

    pub async fn save_records(&self, mut place: BulkPlace, job_id: String, batch_id: String, records: Vec<Record>) -> Result<()> {
        place.wait().await;
        self.writer.check_bulk(&job_id, &batch_id, &records)?;
        let limits = self.retry.run(Repeat::Idempotent, || self.backend.limits()).await?;
        let mut writes = Vec::with_capacity(records.len());
        for mut record in records {
            limits.fit_record(&mut record)?;
            writes.push(RecordWrite {
                job_id: job_id.clone(),
                batch_id: batch_id.clone(),
                record,
                token: None,
                file: None,
            });
        }
        // Idempotent: an upsert of the same records. It is no call of a worker's: it comes before the job's row, and so before any claim.
        self.retry.run(Repeat::Idempotent, || self.backend.save_records(&writes)).await?;
        self.writer.clear_failures(&job_id, writes.iter().map(|write| write.record.index));
        Ok(())
    }

    pub async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        self.writer.flush(job_id).await;
        self.retry
            .run(Repeat::Idempotent, || self.backend.records_with_status(job_id, statuses))
            .await
    }

    pub async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        self.writer.flush(&key.job_id).await;
        self.retry.run(Repeat::Idempotent, || self.backend.records_of_batch(key)).await
    }

    pub async fn record_page(&self, job_id: &str, page: RecordPage) -> Result<RecordSlices> {
        self.writer.flush(job_id).await;
        self.retry.run(Repeat::Idempotent, || self.backend.record_page(job_id, &page)).await
    }

    pub async fn progress(&self, job_id: &str) -> Result<String> {
        self.writer.flush(job_id).await;
        let (job, batches, records) = self
            .retry
            .run(Repeat::Idempotent, || async {
                let job = self.backend.job_times(job_id).await?;
                // Batches before records, so that there are never fewer records than the finished batches have.
                let batches = self.backend.batch_counts(job_id).await?;
                Ok((job, batches, self.backend.record_counts(job_id).await?))
            })
            .await?;
        let Some(job) = job else {
            return to_json(&Progress::of(JobTimes::default(), records, 0, 0));
        };
        let (mut completed, mut total) = (batches.completed, batches.total);
        if !(job.distributed && total > 0) {
            // The list says which batches there are, unless workers claim them from the rows.
            let stored = self.retry.run(Repeat::Idempotent, || self.backend.job(job_id)).await?;
            let rows = if total > 0 {
                self.retry.run(Repeat::Idempotent, || self.backend.batch_rows(job_id)).await?
            } else {
                Vec::new()
            };
            let json = stored.map_or_else(|| "[]".to_owned(), |job| job.batches);
            let mut batches = BatchList::read(job_id, &json)?;
            batches.follow(&rows);
            (completed, total) = (batches.completed() as i64, batches.len() as i64);
        }
        to_json(&Progress::of(job, records, completed, total))
    }
}

/// Remembers whether an attempt ended without its outcome being known.
async fn noting<T>(uncertain: &AtomicBool, attempt: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = attempt.await;
    if outcome.as_ref().is_err_and(|error| error.repeatable == Repeatable::Unknown) {
        uncertain.store(true, Ordering::Relaxed);
    }
    outcome
}

/// Whether no worker of a complete job is left: its newest claim is that old, or its start where no claim is recorded. A job without either was stored
/// complete, and had no worker.
fn is_abandoned(rows: &[BatchRow], job: &LockedJob, age: Duration) -> bool {
    let newest = rows.iter().filter_map(|row| row.claimed_at).max().or(job.started_at);
    newest.is_none_or(|time| time < job.now.saturating_sub_unsigned(age.as_millis() as u64))
}

/// A reply that was lost leaves open whether the batch was changed, and another worker may have claimed it since.
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

async fn insert_absent_batches(transaction: &mut dyn Transaction, job_id: &str, listed: &[ListedBatch]) -> Result<()> {
    let mut by_index: Vec<&ListedBatch> = listed.iter().collect();
    by_index.sort_by_key(|batch| batch.index);
    let mut ids = std::collections::HashSet::with_capacity(by_index.len());
    if let Some(twice) = by_index.iter().find(|batch| !ids.insert(&*batch.id)) {
        return Err(taken(job_id, twice.index, &twice.id, "its id stands twice in the same call"));
    }
    for pair in by_index.windows(2) {
        if pair[0].index == pair[1].index {
            return Err(taken(
                job_id,
                pair[1].index,
                &pair[1].id,
                &format!("batch {} of the same call has that index", Quoted(&pair[0].id)),
            ));
        }
    }
    let before = transaction.batch_rows(job_id).await?;
    let known: std::collections::HashSet<&str> = before.iter().map(|row| &*row.id).collect();
    let absent: Vec<_> = by_index.iter().copied().filter(|batch| !known.contains(&*batch.id)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    transaction.insert_batches(job_id, &absent).await?;
    let rows = transaction.batch_rows(job_id).await?;
    let by_id: HashMap<&str, &BatchRow> = rows.iter().map(|row| (&*row.id, row)).collect();
    for batch in absent {
        if !by_id.contains_key(&*batch.id) {
            let owner = transaction.batch_owner(&batch.id).await?;
            let why = match (owner, rows.iter().find(|row| row.index == batch.index)) {
                (Some(owner), _) if owner.batch_id == batch.id => format!("its id belongs to job {}", Quoted(&owner.job_id)),
                (Some(owner), _) => format!(
                    "this database takes its id for that of batch {}, by the collation of the column: give ids that differ in more than case, accents \
                     or spaces at the end",
                    Quoted(&owner.batch_id)
                ),
                (None, Some(row)) => format!("batch {} has that index", Quoted(&row.id)),
                // What was in the way is gone: its job was being deleted.
                (None, None) => {
                    return Err(Error::new(
                        Code::Conflict,
                        format!("job {} was being deleted while it was stored", Quoted(job_id)),
                    ));
                }
            };
            return Err(taken(job_id, batch.index, &batch.id, &why));
        }
    }
    Ok(())
}

/// Ends a transaction that a taken id or index refused. Other failures end it by themselves, when it is dropped.
async fn refuse(transaction: Box<dyn Transaction>, error: Error) -> Result<Error> {
    if error.code == Code::Constraint {
        transaction.rollback().await?;
    }
    Ok(error)
}

fn taken(job_id: &str, index: i32, batch_id: &str, why: &str) -> Error {
    Error::new(
        Code::Constraint,
        format!(
            "batch {} of job {} with index {index} is refused: {why}. Nothing was stored",
            Quoted(batch_id),
            Quoted(job_id)
        ),
    )
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("a result could not be written: {error}")))
}

#[cfg(test)]
mod tests;
