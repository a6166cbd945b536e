//! The interface to a database: what each operation guarantees, without SQL and without a driver's types. `postgres/`, `mysql/` (MariaDB too) and
//! `sqlite/` implement the same operations in the same order, so another database is another folder.
//!
//! **Lock order**, the same in every database and in the Sequelize adapter: batch rows by index, then the job row. A transaction that has locked the
//! job row reads batch rows without locks, in a new statement, and so sees everything committed before.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{
    BatchCounts, BatchEnd, BatchIndex, BatchKey, BatchPage, BatchRow, BatchState, BatchSummary, ColumnLimits, Cutoffs, FinishedJob,
    FinishedPage, Job, JobBatches, JobFilter, JobRow, JobStatus, JobTable, JobTimes, ListedBatch, MaxClaims, NamedJob, RecordCopies,
    RecordCounts, RecordPage, RecordRange, RecordSlices, RecordStatus, Reservation, StoreStats, Token, WorkerId,
};
use crate::order::Gate;
use crate::settings::{Database, Settings};

mod bulk;
mod credentials;
mod driver;
mod errors;
mod examination;
mod idle_connections;
mod inserts;
mod mysql;
mod once;
mod ping;
mod pool;
mod postgres;
mod record_write;
mod recorded_statements;
mod rows;
mod schema;
#[cfg(test)]
pub mod scripted;
mod session;
mod sqlite;
mod sqlx_driver;
mod tls;
mod unreadable;
mod verdicts;

#[cfg(any(test, fuzzing))]
pub use bulk::{by_bytes, chunks};
pub use examination::Examination;
pub use ping::Ping;
pub use pool::PoolUse;
pub use record_write::{RecordWrite, size_of};
pub use verdicts::one_claim;

/// Creates the backend. It does not connect; the first operation does.
pub fn open(settings: Settings) -> Box<dyn Backend> {
    match settings.database {
        Database::Postgres => Box::new(postgres::Postgres::new(settings)),
        Database::MySql => Box::new(mysql::MySql::new(settings)),
        Database::Sqlite => Box::new(sqlite::Sqlite::new(settings)),
    }
}

/// The verdict on a guarded update of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchChange {
    /// Updated; the batch's index.
    Done(BatchIndex),
    /// The batch's version is not the token's, or the batch is deleted.
    LeaseLost,
    /// No row matches the update.
    NotFound,
}

/// Why a claim found no batch, as a plain read sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSnapshot {
    pub job_status: String,
    pub distributed: bool,
    pub has_rows: bool,
    pub has_pending: bool,
}

/// Where a batch that this store never claimed is kept, and so whether its row was updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPlace {
    /// It has a row, which was updated; the row's index.
    Row(BatchIndex),
    /// Its job is distributed but has no rows yet, because another adapter prepared it.
    NotAdopted,
    /// It has no row, but may be in the job's list. `may_have_row_now`: the job is distributed and has rows, so the batch may have been given one since.
    List { may_have_row_now: bool },
    /// The job does not exist, or has no such batch.
    Nowhere,
}

/// What a plain read sees of the job of a batch without a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSnapshot {
    pub distributed: bool,
    pub has_rows: bool,
    /// The text of the job's list contains the batch's id, so the list may have the batch.
    pub has_id: bool,
}

impl BatchPlace {
    pub fn of(row: Option<BatchIndex>, job: Option<ListSnapshot>) -> Self {
        match (row, job) {
            (Some(index), _) => Self::Row(index),
            (None, Some(job)) if job.distributed && !job.has_rows => Self::NotAdopted,
            (None, Some(job)) if job.has_id => Self::List {
                may_have_row_now: job.distributed && job.has_rows,
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

/// A batch that was taken from its worker, by a reclaim or because its job was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    pub batch_id: String,
    pub worker_id: Option<String>,
    /// It became FAILED, after `max_claims` claims.
    pub given_up: bool,
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

/// The outcome of upserting a job's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedJob {
    /// The row is new.
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

/// A job's batches, and what the next read of them may build on.
#[derive(Clone)]
pub struct ReadBatches {
    pub batches: JobBatches,
    pub horizon: Option<Horizon>,
}

/// Rows of a job that were deleted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub rows: u64,
    /// Where the next slice begins, if not at the first row that is left.
    pub next: Option<i64>,
}

impl Slice {
    /// The next slice begins at the first row that is left.
    pub fn of(rows: u64) -> Self {
        Self { rows, next: None }
    }
}

/// Which rows an earlier read may not have seen, in a database that can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The server, since its start, and its tables.
    pub tables: String,
    /// The oldest transaction that was under way.
    pub transaction: i64,
}

/// From how many batches on a status is frequent: a page of them is read by index then, past the batches of other statuses.
pub const FREQUENT: i32 = 1_000;

/// In which way a page of batches with certain statuses is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrder {
    /// By index, past the batches of other statuses.
    ByIndex,
    /// All batches of the statuses are sorted.
    ByStatus,
}

/// Plain reads. Each is one statement and may be repeated at will.
#[async_trait]
pub trait Reads: Send + Sync {
    /// The limits of this database's columns.
    async fn limits(&self) -> Result<ColumnLimits>;
    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>>;
    /// The job's row and its batches, in at most three statements. What is equal in `earlier`, an earlier read of the same job, is shared, and not
    /// fetched again where the database can tell that it has not changed.
    async fn job_batches(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>>;
    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>>;
    /// The job's row. Its list of batches, which may be large, is not read.
    async fn job_row(&self, job_id: &str) -> Result<Option<JobRow>>;
    /// Whether more than `FREQUENT` of the job's batches have one of these statuses. It counts no further.
    async fn has_frequent_status(&self, job_id: &str, page: &BatchPage) -> Result<bool>;
    /// A page of the job's batch rows, by index. The order says which index the statement reads, and changes nothing in the result.
    async fn batch_page(&self, job_id: &str, page: &BatchPage, order: PageOrder) -> Result<Vec<BatchSummary>>;
    /// All jobs by status; the batches by status, as far as they are open, of distributed jobs that aren't final; the age of the oldest claim on these.
    async fn stats(&self) -> Result<StoreStats>;
    /// Measures one statement, which needs no tables.
    async fn ping(&self) -> Result<Ping>;
    /// `None` if the job does not exist.
    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>>;
    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>>;
    /// The number of the job's batch rows, and their highest index.
    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)>;
    /// The highest index of the job's batch rows.
    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>>;
    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool>;
    /// Whether a batch is PENDING, PROCESSING or PAUSED. The search looks at `from` first.
    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool>;
    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts>;
    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts>;
    /// `None` if the job does not exist.
    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>>;
    /// `from`: the index of a batch that is probably open, the next one to claim. Looking there first keeps the cost independent of the number of
    /// batches.
    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot>;
    /// Records of these two statuses, by index.
    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices>;
    /// A batch's records, by index.
    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices>;
    /// One page of records, by index.
    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices>;
    /// The database's clock, epoch ms.
    async fn now(&self) -> Result<i64>;
    /// The number and the indexes of a batch's records; `None` if it has none.
    async fn record_range(&self, key: &BatchKey) -> Result<Option<RecordRange>>;
    /// One page of the jobs that are final and ended by the cutoff, the oldest end first.
    async fn finished_jobs(&self, page: &FinishedPage) -> Result<Vec<FinishedJob>>;
    /// The ids of jobs in the rows of a table, up to `most` of them behind `after`, in the order of the table's index.
    async fn named_jobs(&self, table: JobTable, after: Option<&str>, most: i32) -> Result<Vec<NamedJob>>;
    /// The number of a job's records.
    async fn record_count(&self, job_id: &str) -> Result<i64>;
}

/// Operations, each in a transaction of its own.
#[async_trait]
pub trait Backend: Reads {
    /// Creates missing tables and indexes. Safe in many processes at once; runs no DDL if nothing is missing.
    ///
    /// While it waits for another process that creates them, it checks `gate`, and fails with `CLOSED` once the gate is shut.
    async fn initialize(&self, gate: &Gate) -> Result<()>;
    /// Looks at the tables, the user's rights, the ids and the connection, and changes nothing.
    async fn examine(&self) -> Result<Examination>;
    /// Closes the connections once the running operations are done.
    async fn close(&self);
    /// The connections at this moment.
    fn pool_use(&self) -> PoolUse;
    /// A number for the file that the database is in, which changes when the path holds another file. A queued record belongs to the file at the time
    /// of queueing.
    fn file(&self) -> Option<u64> {
        None
    }
    /// Begins a transaction. Dropping it without `commit` rolls it back.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;
    /// Inserts or replaces the job's row. If the status is final and there is no completion time, the stored one stays, or else it becomes now. With
    /// `keep_final`, a final status in the row stays.
    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob>;
    /// If the job is PROCESSING, claims its PENDING batch with the lowest index from `from` on, skipping rows that are locked.
    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>>;
    /// Sets a batch row's state, if its version is `token`, where one is given. With `keep_final`, a COMPLETED or FAILED batch stays as it is, and
    /// the call reports it as done.
    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange>;
    /// As `set_batch_state` without a token. If the batch has no row, the result says where else it may be, as a plain read sees it.
    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace>;
    /// Sets a batch that is PROCESSING and held by this worker back to PENDING.
    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange>;
    /// Sets `claimedAt` to now for a batch that is PROCESSING, or with `also_paused` PAUSED, and held by this worker.
    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange>;
    /// Takes stale batches from their workers: back to PENDING, or to FAILED after `max_claims` claims. Rows that another transaction has locked are
    /// skipped, because they are being changed. Returns the batches taken.
    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<Vec<Reclaimed>>;
    /// Upserts the records, all or none. No two of them may have the same job and index.
    async fn save_records(&self, records: &[RecordWrite]) -> Result<()>;
    /// As `save_records`, but only for records whose batch still has their token: the batch rows are locked against a new claim until the records are
    /// committed. Returns for each record whether it was written.
    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>>;
    /// Upserts a batch's records and sets its final state, in one transaction, if the batch still has the end's token; all records belong to that claim.
    /// Returns the batch's index; `None`: the claim is lost, and nothing was written.
    async fn save_records_and_end_batch(&self, records: &[RecordWrite], end: &BatchEnd) -> Result<Option<BatchIndex>>;
    /// Makes a job ABORTED and empties its list of batches, so that no worker claims or adopts batches of a job that is being deleted. Returns
    /// whether the job existed.
    async fn empty_job(&self, job_id: &str) -> Result<bool>;
    /// Deletes up to `most` of a job's batch rows, from this index or from the first one on. `from` saves the server work; a database that needs no
    /// such help ignores it.
    async fn delete_batches(&self, job_id: &str, from: Option<i64>, most: i32) -> Result<Slice>;
    /// Deletes up to `most` of a job's records, as `delete_batches`.
    async fn delete_records(&self, job_id: &str, from: Option<i64>, most: i32) -> Result<Slice>;
    /// Deletes a job's row if it still has one of the statuses that it can have been left with: a job that was stored again meanwhile stays.
    async fn delete_job(&self, job_id: &str, statuses: [&'static str; 3]) -> Result<bool>;
    /// Makes a distributed job that is PROCESSING PAUSED. Returns whether it did.
    async fn pause_job(&self, job_id: &str) -> Result<bool>;
    /// Waits until no claim is under way that may have seen a job's status as it was before this call, in a database whose claims can't look at it
    /// again after they have locked their batch. It waits for two seconds at most: other transactions may look like claims.
    async fn wait_for_claims(&self) -> Result<()> {
        Ok(())
    }
    /// Copies records of a job into a batch of another one, by index, as pending records of which only `raw` is known. Those that are there stay.
    async fn copy_records(&self, copies: &RecordCopies<'_>) -> Result<()>;
    /// Empties the list of a job that is final, ended by the cutoff, and has no live claim. Returns whether it was one. Its status stays, so that a purge
    /// that is interrupted can be repeated by the same call.
    async fn empty_finished_job(&self, job_id: &str, cutoffs: Cutoffs) -> Result<bool>;
}

/// The steps of a transaction, to be taken in the lock order.
#[async_trait]
pub trait Transaction: Send {
    /// Inserts the missing batch rows in the given order. A batch that already has a row, or whose index is taken, is skipped.
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()>;
    /// The stored id and the job of the batch that this database considers equal to `batch_id`.
    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>>;
    /// A plain read in a new statement.
    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>>;
    /// As `Backend::save_job`; locks the row. Returns whether it was inserted.
    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool>;
    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>>;
    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()>;
    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()>;
    async fn set_job_status(&mut self, job_id: &str, status: JobStatus) -> Result<()>;
    /// Whether a batch is PENDING, PROCESSING or PAUSED. A plain read in a new statement.
    async fn has_open_batch(&mut self, job_id: &str) -> Result<bool>;
    /// Locks the job's open batches, waiting for claims that are being made, and sets those that a worker holds back to PENDING. Returns these.
    async fn take_claims(&mut self, job_id: &str) -> Result<Vec<Reclaimed>>;
    async fn commit(self: Box<Self>) -> Result<()>;
    async fn rollback(self: Box<Self>) -> Result<()>;
}
