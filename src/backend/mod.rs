//! What a database does for the store, and what each operation guarantees. No SQL here, and no type of a driver: the same operations in the
//! same order stand in `postgres.rs`, `mysql.rs` (MariaDB too) and `sqlite.rs`, so that a fourth database is a fourth file.
//!
//! **Lock order**, the same everywhere and the same as the Sequelize adapter's: batch rows by index, then the job row. What reads batch rows
//! after it has locked the job row reads them without locks, in a new statement, and so sees everything that was committed before.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{
    BatchCounts, BatchIndex, BatchKey, BatchRow, BatchState, ColumnLimits, Job, JobFilter, JobRow, JobStatus, JobTimes, ListedBatch,
    MaxClaims, Record, RecordCounts, RecordPage, RecordSlices, RecordStatus, Reservation, Token, WorkerId,
};
use crate::order::Gate;
use crate::settings::{Database, Settings};

mod bulk;
mod credentials;
mod driver;
mod errors;
mod idle_connections;
mod mysql;
mod once;
mod pool;
mod postgres;
mod recorded_statements;
mod rows;
mod schema;
#[cfg(test)]
pub mod scripted;
mod session;
mod sqlite;
mod sqlx_driver;
mod tls;
mod verdicts;

pub use bulk::size_of;
#[cfg(any(test, fuzzing))]
pub use bulk::{by_bytes, chunks};

/// Opens nothing: the first operation connects.
pub fn open(settings: Settings) -> Box<dyn Backend> {
    match settings.database {
        Database::Postgres => Box::new(postgres::Postgres::new(settings)),
        Database::MySql => Box::new(mysql::MySql::new(settings)),
        Database::Sqlite => Box::new(sqlite::Sqlite::new(settings)),
    }
}

/// The verdict on a guarded change of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchChange {
    /// Changed; the index of the batch.
    Done(BatchIndex),
    /// The batch's version is not the token's, or the batch is gone.
    LeaseLost,
    /// No row that the change applies to.
    NotFound,
}

/// Why there was nothing to claim, as a plain read sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSnapshot {
    pub job_status: String,
    pub distributed: bool,
    pub has_rows: bool,
    pub has_pending: bool,
}

/// Where a batch stands that this store never claimed, and so whether its row was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPlace {
    /// It has a row, which has this index and was changed.
    Row(BatchIndex),
    /// Its job is distributed and has no rows yet, because another adapter prepared it.
    NotAdopted,
    /// The job's list may have it, and it has no row.
    List { job_has_rows: bool },
    /// There is no such job, or no such batch in it.
    Nowhere,
}

/// What a plain read sees of the job of a batch that has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSnapshot {
    pub distributed: bool,
    pub has_rows: bool,
    /// The text of the job's list holds the batch's id, so the list may have the batch.
    pub has_id: bool,
}

impl BatchPlace {
    pub fn of(row: Option<BatchIndex>, job: Option<ListSnapshot>) -> Self {
        match (row, job) {
            (Some(index), _) => Self::Row(index),
            (None, Some(job)) if job.distributed && !job.has_rows => Self::NotAdopted,
            (None, Some(job)) if job.has_id => Self::List {
                job_has_rows: job.has_rows,
            },
            _ => Self::Nowhere,
        }
    }
}

/// What a reclaim may find to do, as a plain read sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimSnapshot {
    pub has_rows: bool,
    pub has_stale: bool,
    pub has_open: bool,
}

/// The job that a batch belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOwner {
    pub batch_id: String,
    pub job_id: String,
}

/// The job row, locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedJob {
    pub status: String,
    pub distributed: bool,
    pub batches: String,
    pub started_at: Option<i64>,
    /// The database's clock, epoch ms.
    pub now: i64,
}

/// What became of a job's row that was upserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedJob {
    /// There was no row before.
    pub inserted: bool,
    /// The job has batch rows, as a new statement sees it.
    pub has_rows: bool,
}

/// A job's row with its list of batches, unlocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    pub row: JobRow,
    pub batches: String,
}

/// One record of a group of saves.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    pub job_id: String,
    pub batch_id: String,
    pub record: Record,
    /// The token that the batch must still have.
    pub token: Option<Token>,
    /// `Backend::file` when the record was queued; it is not written into another file. `None`: into any.
    pub file: Option<u64>,
}

/// What is stored, each as one statement sees it: plain reads, which may be repeated at will.
#[async_trait]
pub trait Reads: Send + Sync {
    /// What the columns of this database can't hold.
    async fn limits(&self) -> Result<ColumnLimits>;
    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>>;
    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>>;
    /// `None` where there is no such job.
    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>>;
    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>>;
    /// How many batch rows the job has, and their highest index.
    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)>;
    /// The highest index of the job's batch rows.
    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>>;
    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool>;
    /// Whether a batch is PENDING, PROCESSING or PAUSED, looked for at `from` first.
    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool>;
    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts>;
    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts>;
    /// `None` where there is no such job.
    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>>;
    /// `from`: the index of a batch that is likely open, the next one to claim. Looking at that one first costs the same however many there are.
    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot>;
    /// Records of these two statuses, by index.
    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices>;
    /// A batch's records, by index.
    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices>;
    /// One page of records, by index.
    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices>;
}

/// Operations that are one transaction each.
#[async_trait]
pub trait Backend: Reads {
    /// Creates what is missing; safe in many processes at once; no DDL where nothing is missing.
    ///
    /// While it waits for another process that creates them, it looks at `gate`, and ends with `CLOSED` once that is shut.
    async fn initialize(&self, gate: &Gate) -> Result<()>;
    /// Ends the connections once the operations under way are done.
    async fn close(&self);
    /// Which file the database is in, where its path may come to hold another: a number that changes then. What was queued before belongs to the file
    /// of that time.
    fn file(&self) -> Option<u64> {
        None
    }
    /// Begins a transaction. Dropped without `commit`, it is rolled back.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;
    /// Inserts or replaces the job's row. A final status without a time of completion gets the one that the row has, or else now.
    /// With `keep_final`, a final status that the row has stays.
    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob>;
    /// Claims the PENDING batch with the lowest index from `from` on that nobody has locked, if the job is PROCESSING.
    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>>;
    /// Sets a batch row's state, where `token`, if given, is its version. With `keep_final`, a batch that is COMPLETED or FAILED stays as it is, and that
    /// counts as done.
    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange>;
    /// As `set_batch_state` without a token; where the batch has no row, where else it may be, as a plain read sees it.
    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace>;
    /// PROCESSING and held by this worker: back to PENDING.
    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange>;
    /// PROCESSING, or with `also_paused` PAUSED, and held by this worker: `claimedAt` becomes now.
    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange>;
    /// Takes stale batches from their workers: PENDING, or FAILED where they were claimed `max_claims` times. Rows that somebody else has locked are
    /// left alone, for they are just being changed. How many were taken.
    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<u32>;
    /// Upserts the records, all or none. No two of them have the same job and index.
    async fn save_records(&self, records: &[RecordWrite]) -> Result<()>;
    /// As `save_records`, but only those whose batch still has their token: the batch rows are locked against a new claim until the records are
    /// committed. The result says of each record whether it was written.
    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>>;
    /// Makes a job ABORTED and its list of batches empty, so that nobody claims or adopts what is being deleted. Whether there was one.
    async fn empty_job(&self, job_id: &str) -> Result<bool>;
    /// Deletes up to `most` of a job's batch rows; how many.
    async fn delete_batches(&self, job_id: &str, most: i32) -> Result<u64>;
    /// Deletes up to `most` of a job's records; how many.
    async fn delete_records(&self, job_id: &str, most: i32) -> Result<u64>;
    /// Deletes a job's row as `empty_job` left it: one that was stored again since stays.
    async fn delete_job(&self, job_id: &str) -> Result<bool>;
}

/// Steps of a transaction, to be made in the lock order.
#[async_trait]
pub trait Transaction: Send {
    /// Inserts the batch rows that are absent, in the order given. One that exists, or whose index is taken, is left as it is.
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()>;
    /// The id, as it is stored, and the job of the batch that this database takes for the one with this id.
    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>>;
    /// A plain read in a new statement.
    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>>;
    /// As `Backend::save_job`, and so locks the row; whether it was inserted.
    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool>;
    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>>;
    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()>;
    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()>;
    async fn commit(self: Box<Self>) -> Result<()>;
    async fn rollback(self: Box<Self>) -> Result<()>;
}
