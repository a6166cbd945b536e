//! A scripted database for tests of failures that no real server can be made to show on demand. Each operation is one statement named after it, and a
//! script answers it. It needs nothing outside this folder, which shows that the `Backend` trait is complete.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::driver::{Script, ScriptedDriver};
use super::driver::{sql, values};
use super::pool::{Pool, PoolRules};
use super::session::Session;
use super::verdicts::{self, Verdicts};
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, Examination, LockedJob, PageOrder, Ping, PoolUse, ReadBatches, Reads,
    ReclaimSnapshot, Reclaimed, RecordWrite, SavedJob, Slice, StoredJob, Transaction, ping, rows,
};
use crate::error::Result;
use crate::model::{
    BatchCounts, BatchEnd, BatchIndex, BatchKey, BatchPage, BatchRow, BatchState, BatchSummary, ColumnLimits, Cutoffs, FinishedJob,
    FinishedPage, Job, JobFilter, JobRow, JobStatus, JobTable, JobTimes, ListedBatch, MaxClaims, NamedJob, RecordCopies, RecordCounts,
    RecordPage, RecordRange, RecordSlices, RecordStatus, Reservation, StoreStats, Token, WorkerId,
};
use crate::order::Gate;
use crate::settings::Settings;

pub mod driver;
mod tests;

type Conn = Session<ScriptedDriver>;

pub struct Scripted {
    pool: Pool<ScriptedDriver>,
}

impl Scripted {
    pub fn new(settings: &Settings, script: &Arc<Script>) -> Self {
        Self {
            pool: Pool::new(settings, ScriptedDriver::new(script.clone()), PoolRules::of(settings)),
        }
    }

    async fn records(&self, name: &'static str) -> Result<RecordSlices> {
        rows::ordered_records(&mut self.pool.acquire().await?, sql(name, ""), values![]).await
    }

    async fn changed(&self, name: &'static str) -> Result<u64> {
        Ok(self.pool.acquire().await?.execute(sql(name, ""), values![]).await?.rows)
    }

    async fn answer(&self, name: &'static str) -> Result<bool> {
        let answer = self.pool.acquire().await?.optional(sql(name, ""), values![], rows::answer).await?;
        Ok(answer.unwrap_or_default())
    }
}

#[async_trait]
impl Reads for Scripted {
    async fn limits(&self) -> Result<ColumnLimits> {
        Ok(ColumnLimits::NONE)
    }

    async fn job(&self, _: &str) -> Result<Option<StoredJob>> {
        self.pool
            .acquire()
            .await?
            .optional(sql("job", ""), values![], rows::stored_job)
            .await
    }

    async fn job_batches(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>> {
        let Some(job) = self.job(job_id).await? else { return Ok(None) };
        let mut session = self.pool.acquire().await?;
        let rows = rows::all_batch_rows(&mut session, sql("batch_rows", ""), values![], earlier).await?;
        rows::job_batches(job, rows, earlier).map(Some)
    }

    async fn list_jobs(&self, _: &JobFilter) -> Result<Vec<JobRow>> {
        self.pool.acquire().await?.all(sql("list_jobs", ""), values![], rows::job_row).await
    }

    async fn job_row(&self, _: &str) -> Result<Option<JobRow>> {
        self.pool
            .acquire()
            .await?
            .optional(sql("job_row", ""), values![], rows::job_row)
            .await
    }

    async fn has_frequent_status(&self, _: &str, _: &BatchPage) -> Result<bool> {
        self.answer("has_frequent_status").await
    }

    async fn batch_page(&self, _: &str, _: &BatchPage, order: PageOrder) -> Result<Vec<BatchSummary>> {
        let name = match order {
            PageOrder::ByIndex => "batch_page",
            PageOrder::ByStatus => "batch_page_by_status",
        };
        self.pool.acquire().await?.all(sql(name, ""), values![], rows::batch_summary).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        rows::stats(&mut self.pool.acquire().await?, sql("stats", "")).await
    }

    async fn ping(&self) -> Result<Ping> {
        let pong = ping::ping(&mut self.pool.acquire().await?, sql("server_clock", "")).await?;
        Ok(pong.of("PostgreSQL", |version| version))
    }

    async fn job_times(&self, _: &str) -> Result<Option<JobTimes>> {
        self.pool
            .acquire()
            .await?
            .optional(sql("job_times", ""), values![], rows::job_times)
            .await
    }

    async fn batch_rows(&self, _: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.pool.acquire().await?).await
    }

    async fn count_batches(&self, _: &str) -> Result<(i64, Option<BatchIndex>)> {
        let total = self
            .pool
            .acquire()
            .await?
            .optional(sql("count_batches", ""), values![], rows::batch_total)
            .await?;
        Ok(total.unwrap_or((0, None)))
    }

    async fn last_batch_index(&self, _: &str) -> Result<Option<BatchIndex>> {
        self.pool
            .acquire()
            .await?
            .optional(sql("last_batch_index", ""), values![], rows::batch_index)
            .await
    }

    async fn has_batch_row(&self, _: &BatchKey) -> Result<bool> {
        self.answer("has_batch_row").await
    }

    async fn has_open_batch(&self, _: &str, _: Option<BatchIndex>) -> Result<bool> {
        self.answer("has_open_batch").await
    }

    async fn batch_counts(&self, _: &str) -> Result<BatchCounts> {
        let counts = self
            .pool
            .acquire()
            .await?
            .all(sql("batch_counts", ""), values![], rows::status_count)
            .await?;
        Ok(rows::batch_counts(counts))
    }

    async fn record_counts(&self, _: &str) -> Result<RecordCounts> {
        let counts = self
            .pool
            .acquire()
            .await?
            .all(sql("record_counts", ""), values![], rows::status_count)
            .await?;
        Ok(rows::record_counts(counts))
    }

    async fn claim_snapshot(&self, _: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.pool.acquire().await?;
        session.optional(sql("claim_snapshot", ""), values![], rows::claim_snapshot).await
    }

    async fn reclaim_snapshot(&self, _: &str, _: Duration, _: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.pool.acquire().await?;
        session.one(sql("reclaim_snapshot", ""), values![], rows::reclaim_snapshot).await
    }

    async fn records_with_status(&self, _: &str, _: [RecordStatus; 2]) -> Result<RecordSlices> {
        self.records("records_with_status").await
    }

    async fn records_of_batch(&self, _: &BatchKey) -> Result<RecordSlices> {
        self.records("records_of_batch").await
    }

    async fn record_page(&self, _: &str, _: &RecordPage) -> Result<RecordSlices> {
        self.records("record_page").await
    }

    async fn now(&self) -> Result<i64> {
        use super::driver::Row;
        let mut session = self.pool.acquire().await?;
        let now = session.optional(sql("now", ""), values![], |row| row.number(0)).await?;
        Ok(now.unwrap_or_default())
    }

    async fn record_range(&self, _: &BatchKey) -> Result<Option<RecordRange>> {
        let mut session = self.pool.acquire().await?;
        let range = session.optional(sql("record_range", ""), values![], rows::record_range).await?;
        Ok(range.flatten())
    }

    async fn finished_jobs(&self, _: &FinishedPage) -> Result<Vec<FinishedJob>> {
        let mut session = self.pool.acquire().await?;
        session.all(sql("finished_jobs", ""), values![], rows::finished_job).await
    }

    async fn named_jobs(&self, _: JobTable, _: Option<&str>, _: i32) -> Result<Vec<NamedJob>> {
        let mut session = self.pool.acquire().await?;
        session.all(sql("named_jobs", ""), values![], rows::named_job).await
    }

    async fn record_count(&self, _: &str) -> Result<i64> {
        use super::driver::Row;

        let mut session = self.pool.acquire().await?;
        let count = session.optional(sql("record_count", ""), values![], |row| row.number(0)).await?;
        Ok(count.unwrap_or_default())
    }
}

#[async_trait]
impl Backend for Scripted {
    async fn initialize(&self, _: &Gate) -> Result<()> {
        self.changed("initialize").await.map(drop)
    }

    async fn examine(&self) -> Result<Examination> {
        self.changed("examine").await.map(|_| Examination::default())
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn pool_use(&self) -> PoolUse {
        self.pool.now()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let mut session = self.pool.acquire().await?;
        session.begin("begin").await?;
        Ok(Box::new(ScriptedTransaction { session }))
    }

    async fn save_job(&self, _: &Job, keep_final: bool) -> Result<SavedJob> {
        let name = if keep_final {
            "save_job keeping a final status"
        } else {
            "save_job"
        };
        let saved = self
            .pool
            .acquire()
            .await?
            .optional(sql(name, ""), values![], |row| {
                use super::driver::Row;
                Ok(SavedJob {
                    inserted: row.boolean(0)?,
                    has_rows: row.boolean(1)?,
                })
            })
            .await?;
        Ok(saved.unwrap_or(SavedJob {
            inserted: false,
            has_rows: false,
        }))
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, _: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.pool.acquire().await?;
        session
            .optional(sql("claim", ""), values![], |row| rows::reservation(row, job_id, worker_id))
            .await
    }

    async fn set_batch_state(&self, key: &BatchKey, _: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let mut session = self.pool.acquire().await?;
        let changed = session.optional(sql("set_batch_state", ""), values![], rows::batch_index).await?;
        verdicts::state_set(&mut session, changed, key, token, keep_final).await
    }

    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        if let BatchChange::Done(index) = self.set_batch_state(key, state, None, keep_final).await? {
            return Ok(BatchPlace::Row(index));
        }
        let mut session = self.pool.acquire().await?;
        let job = session.optional(sql("list_snapshot", ""), values![], rows::list_snapshot).await?;
        Ok(BatchPlace::of(None, job))
    }

    async fn release(&self, key: &BatchKey, _: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let mut session = self.pool.acquire().await?;
        let changed = session.optional(sql("release", ""), values![], rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn renew(&self, key: &BatchKey, _: &WorkerId, token: Option<Token>, _: bool) -> Result<BatchChange> {
        let mut session = self.pool.acquire().await?;
        let changed = session.optional(sql("renew", ""), values![], rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn reclaim(&self, _: &str, _: Duration, _: Option<MaxClaims>) -> Result<Vec<Reclaimed>> {
        self.changed("reclaim").await.map(taken)
    }

    async fn save_records(&self, _: &[RecordWrite]) -> Result<()> {
        self.changed("save_records").await.map(drop)
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let mut session = self.pool.acquire().await?;
        session.begin("begin").await?;
        let held = verdicts::Leases::default().held(&mut session, records).await?;
        session.execute(sql("save_records", ""), values![]).await?;
        session.commit().await?;
        Ok(held)
    }

    async fn save_records_and_end_batch(&self, _: &[RecordWrite], _: &BatchEnd) -> Result<Option<BatchIndex>> {
        let mut session = self.pool.acquire().await?;
        session
            .optional(sql("save_records_and_end_batch", ""), values![], rows::batch_index)
            .await
    }

    async fn empty_job(&self, _: &str) -> Result<bool> {
        self.changed("empty_job").await.map(|rows| rows > 0)
    }

    async fn delete_batches(&self, _: &str, _: Option<i64>, _: i32) -> Result<Slice> {
        self.changed("delete_batches").await.map(Slice::of)
    }

    async fn delete_records(&self, _: &str, _: Option<i64>, _: i32) -> Result<Slice> {
        self.changed("delete_records").await.map(Slice::of)
    }

    async fn delete_job(&self, _: &str, _: [&'static str; 3]) -> Result<bool> {
        self.changed("delete_job").await.map(|rows| rows > 0)
    }

    async fn pause_job(&self, _: &str) -> Result<bool> {
        self.changed("pause_job").await.map(|rows| rows > 0)
    }

    async fn wait_for_claims(&self) -> Result<()> {
        self.changed("wait_for_claims").await.map(drop)
    }

    async fn copy_records(&self, _: &RecordCopies<'_>) -> Result<()> {
        self.changed("copy_records").await.map(drop)
    }

    async fn empty_finished_job(&self, _: &str, _: Cutoffs) -> Result<bool> {
        self.changed("empty_finished_job").await.map(|rows| rows > 0)
    }
}

#[async_trait]
impl Verdicts for Conn {
    async fn version(&mut self, _: &BatchKey) -> Result<Option<Token>> {
        self.optional(sql("version", ""), values![], rows::token).await
    }

    async fn final_batch(&mut self, _: &BatchKey, _: Option<Token>) -> Result<Option<BatchIndex>> {
        self.optional(sql("final_batch", ""), values![], rows::batch_index).await
    }
}

/// As many batches that were taken.
fn taken(rows: u64) -> Vec<Reclaimed> {
    (0..rows)
        .map(|number| Reclaimed {
            batch_id: format!("batch {number}"),
            worker_id: None,
            given_up: false,
        })
        .collect()
}

struct ScriptedTransaction {
    session: Conn,
}

async fn batch_rows(session: &mut Conn) -> Result<Vec<BatchRow>> {
    session.all(sql("batch_rows", ""), values![], rows::batch_row).await
}

#[async_trait]
impl Transaction for ScriptedTransaction {
    async fn insert_batches(&mut self, _: &str, _: &[&ListedBatch]) -> Result<()> {
        self.session.execute(sql("insert_batches", ""), values![]).await.map(drop)
    }

    async fn batch_owner(&mut self, _: &str) -> Result<Option<BatchOwner>> {
        self.session.optional(sql("batch_owner", ""), values![], rows::batch_owner).await
    }

    async fn batch_rows(&mut self, _: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session).await
    }

    async fn upsert_job(&mut self, _: &Job, keep_final: bool) -> Result<bool> {
        let name = if keep_final {
            "upsert_job keeping a final status"
        } else {
            "upsert_job"
        };
        let inserted = self.session.optional(sql(name, ""), values![], rows::answer).await?;
        Ok(inserted.unwrap_or_default())
    }

    async fn lock_job(&mut self, _: &str) -> Result<Option<LockedJob>> {
        self.session.optional(sql("lock_job", ""), values![], rows::locked_job).await
    }

    async fn set_job_batches(&mut self, _: &str, _: &str) -> Result<()> {
        self.session.execute(sql("set_job_batches", ""), values![]).await.map(drop)
    }

    async fn finish_job(&mut self, _: &str, _: JobStatus, _: &str) -> Result<()> {
        self.session.execute(sql("finish_job", ""), values![]).await.map(drop)
    }

    async fn set_job_status(&mut self, _: &str, _: JobStatus) -> Result<()> {
        self.session.execute(sql("set_job_status", ""), values![]).await.map(drop)
    }

    async fn has_open_batch(&mut self, _: &str) -> Result<bool> {
        let has_open = self.session.optional(sql("has_open_batch", ""), values![], rows::answer).await?;
        Ok(has_open.unwrap_or_default())
    }

    async fn take_claims(&mut self, _: &str) -> Result<Vec<Reclaimed>> {
        Ok(taken(self.session.execute(sql("take_claims", ""), values![]).await?.rows))
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.commit().await
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        self.session.rollback().await
    }
}
