//! Every statement for SQLite.
//!
//! One connection writes, so that the calls of one process queue in order instead of polling; a few others read. Among processes, a write takes the
//! write lock at its beginning (`begin immediate`): a read that becomes a write would fail at once instead of waiting.
//!
//! `cast(unixepoch('subsec') * 1000 as integer)` is the clock in milliseconds: `unixepoch` alone would give whole seconds.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use self::connect::{Conn, Pools, json_value};
use self::file::{SqliteFile, Use};
use self::types::catalogue;
use super::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks};
use super::driver::{Row, Sql, Value, sql, values};
use super::schema::{Catalogue, DDL_LIMIT};
use super::verdicts::{self, Leases, Verdicts};
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, Examination, FREQUENT, ListSnapshot, LockedJob, PageOrder, Ping, PoolUse,
    ReadBatches, Reads, ReclaimSnapshot, Reclaimed, RecordWrite, SavedJob, Slice, StoredJob, Transaction, ping, rows,
};
use crate::error::{Code, Error, Repeatable, Result};
use crate::model::{
    BatchCounts, BatchEnd, BatchIndex, BatchKey, BatchPage, BatchRow, BatchRows, BatchState, BatchSummary, ColumnLimits, Cutoffs,
    FinishedJob, FinishedPage, Job, JobFilter, JobRow, JobStatus, JobTable, JobTimes, ListedBatch, MaxClaims, NamedJob, PAGE_BYTES,
    RecordCopies, RecordCounts, RecordPage, RecordRange, RecordSlices, RecordStatus, Reservation, StoreStats, Token, WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::Settings;
use crate::warnings::{Warning, WarningKind, Warnings};

mod connect;
mod errors;
mod examine;
mod file;
mod file_in_use;
mod leftovers;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/sqlite/0001_tables.sql");

/// Takes the write lock at the beginning: a read that becomes a write would fail at once instead of waiting.
const BEGIN: &str = "begin immediate";

pub struct Sqlite {
    file: SqliteFile,
    settings: Settings,
}

struct SqliteTransaction {
    session: Conn,
}

#[async_trait]
impl Reads for Sqlite {
    async fn limits(&self) -> Result<ColumnLimits> {
        Ok(ColumnLimits::NONE)
    }

    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>> {
        let mut session = self.read().await?;
        let job = sql(
            "job",
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed, batches
            from batchactions_jobs
            where id = ?1
            ",
        );
        session.optional(job, values![job_id], rows::stored_job).await
    }

    async fn job_batches(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>> {
        let mut session = self.read().await?;
        // One text, because each row of a result is a message from the thread that reads it.
        let job = sql(
            "job_batches",
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed, batches,
                   (
                     select '[' || coalesce(group_concat(line, ','), '') || ']'
                     from (
                       select json_array(batchIndex, id, status, processedCount, failedCount, claimedAt, workerId) line
                       from batchactions_batches
                       where jobId = ?1
                       order by batchIndex
                     )
                   )
            from batchactions_jobs
            where id = ?1
            ",
        );
        let read = session.optional(job, values![job_id], |row| Ok((rows::stored_job(row)?, row.text(8)?.to_owned())));
        let (job, rows) = match read.await {
            Ok(None) => return Ok(None),
            Ok(Some((job, text))) => (job, BatchRows::read(&text, earlier.map(|earlier| &earlier.batches.rows))),
            // JSON can't hold a value.
            Err(error) if error.code == Code::DatabaseError => {
                // The next statement may need its connection.
                drop(session);
                let Some(job) = self.job(job_id).await? else { return Ok(None) };
                session = self.read().await?;
                (job, None)
            }
            Err(error) => return Err(error),
        };
        let rows = match rows {
            Some(rows) => rows,
            // A value has another type than its column. Read row by row, it is converted, or named.
            None => rows::all_batch_rows(&mut session, BATCH_ROWS, values![job_id], earlier).await?,
        };
        rows::job_batches(job, rows, earlier).map(Some)
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.read().await?;
        let after = filter.after.as_ref();
        // The page is found in `SUMMARY_INDEX`.
        let jobs = sql(
            "list_jobs",
            "
            select j.id, j.config, s.status, s.totalRecords, s.startedAt, s.completedAt, s.distributed
            from (
              select id, status, totalRecords, startedAt, completedAt, distributed
              from batchactions_jobs
              where (?1 is null or status = ?1)
                and (?2 is null
                  or case
                    when ?3 is null then startedAt is null and id < ?2
                    else startedAt is null or startedAt < ?3 or (startedAt = ?3 and id < ?2)
                  end)
              order by startedAt desc nulls last, id desc
              limit ?4
            ) s
            cross join batchactions_jobs j on j.id = s.id
            order by s.startedAt desc nulls last, s.id desc
            ",
        );
        let values = values![
            filter.status.map(JobStatus::as_str),
            after.map(|(_, id)| &**id),
            after.and_then(|(started_at, _)| *started_at),
            filter.limit,
        ];
        session.all(jobs, values, rows::job_row).await
    }

    async fn job_row(&self, job_id: &str) -> Result<Option<JobRow>> {
        let mut session = self.read().await?;
        // A range, so that `SUMMARY_INDEX` is read.
        let job = sql(
            "job_row",
            "
            select j.id, j.config, s.status, s.totalRecords, s.startedAt, s.completedAt, s.distributed
            from (
              select id, status, totalRecords, startedAt, completedAt, distributed
              from batchactions_jobs
              where id between ?1 and ?1
            ) s
            cross join batchactions_jobs j on j.id = s.id
            ",
        );
        session.optional(job, values![job_id], rows::job_row).await
    }

    async fn has_frequent_status(&self, job_id: &str, page: &BatchPage) -> Result<bool> {
        let mut session = self.read().await?;
        let frequent = sql(
            "has_frequent_status",
            "
            select count(*) > ?7
            from (
              select 1
              from batchactions_batches
              where jobId = ?1 and status in (?2, ?3, ?4, ?5, ?6)
              limit ?7 + 1
            )
            ",
        );
        let [s1, s2, s3, s4, s5] = page.status_places();
        let values = values![job_id, s1, s2, s3, s4, s5, FREQUENT];
        session.one(frequent, values, rows::answer).await
    }

    async fn batch_page(&self, job_id: &str, page: &BatchPage, order: PageOrder) -> Result<Vec<BatchSummary>> {
        let mut session = self.read().await?;
        // `+` keeps SQLite off the index of the column.
        let batches = match order {
            PageOrder::ByIndex => sql(
                "batch_page",
                "
                select id, batchIndex, status, processedCount, failedCount, recordStartIndex, recordEndIndex, workerId, claimedAt
                from batchactions_batches
                where jobId = ?1 and batchIndex > ?2 and (?3 is null or +status in (?3, ?4, ?5, ?6, ?7))
                order by batchIndex
                limit ?8
                ",
            ),
            PageOrder::ByStatus => sql(
                "batch_page_by_status",
                "
                select id, batchIndex, status, processedCount, failedCount, recordStartIndex, recordEndIndex, workerId, claimedAt
                from batchactions_batches
                where jobId = ?1 and +batchIndex > ?2 and status in (?3, ?4, ?5, ?6, ?7)
                order by +batchIndex
                limit ?8
                ",
            ),
        };
        let [s1, s2, s3, s4, s5] = page.status_places();
        let after = page.after.map_or(i64::MIN, i64::from);
        let values = values![job_id, after, s1, s2, s3, s4, s5, page.limit];
        session.all(batches, values, rows::batch_summary).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        let mut session = self.read().await?;
        // One status each, so that an index gives the number of batches without their rows. `case` keeps finished jobs from being looked up.
        let stats = sql(
            "stats",
            "
            select j.status,
                   count(*),
                   coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches where jobId = j.id and status = 'PENDING'
                   ) end), 0),
                   coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches where jobId = j.id and status = 'PROCESSING'
                   ) end), 0),
                   coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches where jobId = j.id and status = 'PAUSED'
                   ) end), 0),
                   cast(unixepoch('subsec') * 1000 as integer) - min(case when j.isOpen then (
                     select min(claimedAt) from batchactions_batches where jobId = j.id and status = 'PROCESSING'
                   ) end),
                   cast(unixepoch('subsec') * 1000 as integer) - min(case when j.isOpen then (
                     select min(claimedAt) from batchactions_batches where jobId = j.id and status = 'PAUSED'
                   ) end)
            from (
              select id, status, status not in ('COMPLETED', 'ABORTED', 'FAILED') and distributed as isOpen
              from batchactions_jobs
            ) j
            group by j.status
            ",
        );
        rows::stats(&mut session, stats).await
    }

    async fn ping(&self) -> Result<Ping> {
        let clock = sql(
            "server_clock",
            "select sqlite_version(), cast(unixepoch('subsec') * 1000 as integer)",
        );
        let pong = match self.read().await {
            // A file that `initialize` makes. It is not made here, because a path may be mistyped.
            Err(error) if error.code == Code::TablesMissing && !self.settings.must_exist => {
                let no_file = Pools::in_memory(&self.settings);
                let pong = ping::ping(&mut no_file.writer.acquire().await?, clock).await;
                no_file.writer.close().await;
                pong?
            }
            session => ping::ping(&mut session?, clock).await?,
        };
        Ok(pong.of("SQLite", |version| version))
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.read().await?;
        // A range, so that `SUMMARY_INDEX` is read.
        let times = sql(
            "job_times",
            "
            select totalRecords, startedAt, completedAt, distributed, cast(unixepoch('subsec') * 1000 as integer)
            from batchactions_jobs
            where id between ?1 and ?1
            ",
        );
        session.optional(times, values![job_id], rows::job_times).await
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.read().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.read().await?;
        let count = sql(
            "count_batches",
            "
            select count(*), max(batchIndex)
            from batchactions_batches
            where jobId = ?1
            ",
        );
        session.one(count, values![job_id], rows::batch_total).await
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.read().await?;
        let last = sql(
            "last_batch_index",
            "
            select max(batchIndex)
            from batchactions_batches
            where jobId = ?1
            ",
        );
        session.one(last, values![job_id], |row| rows::optional_batch_index(row, 0)).await
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let mut session = self.read().await?;
        let has_row = sql(
            "has_batch_row",
            "
            select exists (
              select 1
              from batchactions_batches
              where id = ?2 and jobId = ?1
            )
            ",
        );
        session.one(has_row, values![&key.job_id, &key.batch_id], rows::answer).await
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        has_open_batch(&mut self.read().await?, job_id, from).await
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        let mut session = self.read().await?;
        let counts = sql(
            "batch_counts",
            "
            select status, count(*)
            from batchactions_batches
            where jobId = ?1
            group by status
            ",
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::batch_counts)
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.read().await?;
        let counts = sql(
            "record_counts",
            "
            select status, count(*)
            from batchactions_records
            where jobId = ?1
            group by status
            ",
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::record_counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.read().await?;
        let snapshot = sql(
            "claim_snapshot",
            "
            select status,
                   distributed,
                   exists (select 1 from batchactions_batches where jobId = ?1),
                   exists (select 1 from batchactions_batches where jobId = ?1 and status = 'PENDING')
            from batchactions_jobs
            where id = ?1
            ",
        );
        session.optional(snapshot, values![job_id], rows::claim_snapshot).await
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.read().await?;
        let snapshot = sql(
            "reclaim_snapshot",
            "
            select exists (select 1 from batchactions_batches where jobId = ?1),
                   exists (
                     select 1 from batchactions_batches
                     where jobId = ?1
                       and status = 'PROCESSING'
                       and (claimedAt is null or claimedAt < cast(unixepoch('subsec') * 1000 as integer) - ?2)
                   ),
                   coalesce(
                     (
                       select status in ('PENDING', 'PROCESSING', 'PAUSED')
                       from batchactions_batches
                       where jobId = ?1 and batchIndex = ?3
                     ),
                     false
                   )
                   or exists (
                     select 1 from batchactions_batches
                     where jobId = ?1 and status in ('PENDING', 'PROCESSING', 'PAUSED')
                   )
            ",
        );
        let values = values![job_id, older_than.as_millis() as i64, from.unwrap_or(BatchIndex::LOWEST)];
        session.one(snapshot, values, rows::reclaim_snapshot).await
    }

    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        let mut session = self.read().await?;
        let records = sql(
            "records_with_status",
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ?1 and status in (?2, ?3)
            order by recordIndex
            ",
        );
        let values = values![job_id, statuses[0].as_str(), statuses[1].as_str()];
        rows::ordered_records(&mut session, records, values).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let mut session = self.read().await?;
        let records = sql(
            "records_of_batch",
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ?1 and batchId = ?2
            order by recordIndex
            ",
        );
        rows::ordered_records(&mut session, records, values![&key.job_id, &key.batch_id]).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.read().await?;
        // Only keys and lengths go through the window function, which copies its rows; a length is known without reading the value. `cross join`
        // makes SQLite read the page's keys first and then their records, and `+status` keeps it off the status index, with which it would sort all
        // records of the statuses.
        macro_rules! page {
            ($candidates:literal) => {
                concat!(
                    "
                    select r.recordIndex, r.raw, r.parsed, r.status, r.errors, r.processingError
                    from (
                      select id, bytes, sum(bytes) over (order by recordIndex) as upTo
                      from (",
                    $candidates,
                    ") measured
                    ) page
                    cross join batchactions_records r on r.id = page.id
                    where page.upTo <= ?9 or page.upTo = page.bytes
                    order by r.recordIndex
                    "
                )
            };
        }
        let records = match &page.batch_id {
            None => sql(
                "record_page",
                page!(
                    "
                        select id, recordIndex, 100 + octet_length(raw) + octet_length(parsed) + octet_length(errors)
                          + coalesce(octet_length(processingError), 0) as bytes
                        from batchactions_records
                        where jobId = ?1 and recordIndex > ?2 and +status in (?3, ?4, ?5, ?6, ?7)
                        order by recordIndex
                        limit ?8
                    "
                ),
            ),
            Some(_) => sql(
                "record_page_of_batch",
                page!(
                    "
                        select id, recordIndex, 100 + octet_length(raw) + octet_length(parsed) + octet_length(errors)
                          + coalesce(octet_length(processingError), 0) as bytes
                        from batchactions_records
                        where jobId = ?1 and batchId = ?10 and recordIndex > ?2 and +status in (?3, ?4, ?5, ?6, ?7)
                        order by recordIndex
                        limit ?8
                    "
                ),
            ),
        };
        let [s1, s2, s3, s4, s5] = page.status_places();
        let after = page.after.map_or(i64::MIN, i64::from);
        let mut values = values![job_id, after, s1, s2, s3, s4, s5, page.limit, PAGE_BYTES];
        values.extend(page.batch_id.as_ref().map(Value::from));
        rows::ordered_records(&mut session, records, values).await
    }

    async fn now(&self) -> Result<i64> {
        let mut session = self.read().await?;
        let now = sql("now", "select cast(unixepoch('subsec') * 1000 as integer)");
        session.one(now, values![], |row| row.number(0)).await
    }

    async fn record_range(&self, key: &BatchKey) -> Result<Option<RecordRange>> {
        let mut session = self.read().await?;
        let range = sql(
            "record_range",
            "
            select count(*), min(recordIndex), max(recordIndex)
            from batchactions_records
            where jobId = ?1 and batchId = ?2
            ",
        );
        session.one(range, values![&key.job_id, &key.batch_id], rows::record_range).await
    }

    async fn finished_jobs(&self, page: &FinishedPage) -> Result<Vec<FinishedJob>> {
        let mut session = self.read().await?;
        let jobs = sql(
            "finished_jobs",
            "
            select id,
                   coalesce(completedAt, startedAt),
                   exists (
                     select 1
                     from batchactions_batches
                     where jobId = job.id
                       and status in ('PROCESSING', 'PAUSED')
                       and workerId is not null
                       and claimedAt > ?5
                   )
            from batchactions_jobs job
            where status in (?1, ?2, ?3)
              and coalesce(completedAt, startedAt) <= ?4
              and (?6 is null
                or coalesce(completedAt, startedAt) > ?6
                or coalesce(completedAt, startedAt) = ?6 and id > ?7)
            order by coalesce(completedAt, startedAt), id
            limit ?8
            ",
        );
        let [s1, s2, s3] = page.statuses;
        let after = page.after.as_ref();
        let values = values![
            s1,
            s2,
            s3,
            page.cutoffs.ended_by,
            page.cutoffs.abandoned_by,
            after.map(|(ended_at, _)| *ended_at),
            after.map(|(_, id)| &**id),
            page.limit,
        ];
        session.all(jobs, values, rows::finished_job).await
    }

    async fn named_jobs(&self, table: JobTable, after: Option<&str>, most: i32) -> Result<Vec<NamedJob>> {
        // Each step looks up the next job in the index, so that the rows in between are not read.
        macro_rules! named {
            ($table:literal, $first:literal) => {
                concat!(
                    "
                    with recursive named (jobId, number) as (
                      select *
                      from (
                        select jobId, ?1
                        from ",
                    $table,
                    $first,
                    "
                        order by jobId
                        limit 1
                      )
                      union all
                      select (
                               select next.jobId
                               from ",
                    $table,
                    " next
                               where next.jobId > named.jobId
                               order by next.jobId
                               limit 1
                             ),
                             named.number - 1
                      from named
                      where named.jobId is not null and named.number > 1
                    )
                    select named.jobId, exists (select 1 from batchactions_jobs job where job.id = named.jobId)
                    from named
                    where named.jobId is not null
                    "
                )
            };
        }
        let mut session = self.read().await?;
        let named = match (table, after) {
            (JobTable::Batches, None) => sql("named_jobs_batches", named!("batchactions_batches", "")),
            (JobTable::Batches, Some(_)) => sql(
                "named_jobs_batches_after",
                named!(
                    "batchactions_batches",
                    "
                        where jobId > ?2"
                ),
            ),
            (JobTable::Records, None) => sql("named_jobs_records", named!("batchactions_records", "")),
            (JobTable::Records, Some(_)) => sql(
                "named_jobs_records_after",
                named!(
                    "batchactions_records",
                    "
                        where jobId > ?2"
                ),
            ),
        };
        let mut values = values![most];
        values.extend(after.map(Value::from));
        session.all(named, values, rows::named_job).await
    }

    async fn record_count(&self, job_id: &str) -> Result<i64> {
        let mut session = self.read().await?;
        let count = sql(
            "record_count",
            "
            select count(*)
            from batchactions_records
            where jobId = ?1
            ",
        );
        session.one(count, values![job_id], |row| row.number(0)).await
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn initialize(&self, _: &Gate) -> Result<()> {
        let mut session = self.file.acquire(Use::Make).await?;
        let session = &mut session;
        let found = catalogue(session).await?;
        if !found.missing(MIGRATION)?.is_empty() {
            make_tables(session).await?;
        }
        if needs_summary_index(&found) {
            return make_summary_index(session, &self.settings.warnings).await;
        }
        Ok(())
    }

    async fn examine(&self) -> Result<Examination> {
        self.examination().await
    }

    async fn close(&self) {
        self.file.close().await;
    }

    fn pool_use(&self) -> PoolUse {
        self.file.pool_use()
    }

    fn file(&self) -> Option<u64> {
        self.file.number()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let mut session = self.write().await?;
        session.begin(BEGIN).await?;
        Ok(Box::new(SqliteTransaction { session }))
    }

    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob> {
        let mut session = self.file.acquire_of(Use::Write, job.file).await?;
        let inserted = upsert_job(&mut session, job, keep_final).await?;
        let has_rows = sql(
            "save_job_has_rows",
            "
            select exists (
              select 1
              from batchactions_batches
              where jobId = ?1
            )
            ",
        );
        let has_rows = session.one(has_rows, values![&job.id], rows::answer).await?;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.write().await?;
        // `+status` keeps the planner on the index of batch indexes, which has the next batch first; with the status index, it would sort all pending
        // batches.
        let claim = sql(
            "claim",
            // The job's status is a scalar subquery: SQLite 3.51 and newer may join an `exists`, and then sort the batches.
            "
            update batchactions_batches
            set status = 'PROCESSING',
                workerId = ?2,
                claimedAt = cast(unixepoch('subsec') * 1000 as integer),
                version = version + 1
            where id = (
              select id
              from batchactions_batches
              where jobId = ?1
                and batchIndex >= ?3
                and +status = 'PENDING'
                and (select status from batchactions_jobs where id = ?1) = 'PROCESSING'
              order by batchIndex
              limit 1
            )
            returning id, batchIndex, claimedAt, recordStartIndex, recordEndIndex, version,
                      (select max(batchIndex) from batchactions_batches where jobId = ?1)
            ",
        );
        let values = values![job_id, worker_id, from.unwrap_or(BatchIndex::LOWEST)];
        session
            .optional(claim, values, |row| rows::reservation(row, job_id, worker_id))
            .await
    }

    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let mut session = self.write().await?;
        let set = sql(
            "set_batch_state",
            "
            update batchactions_batches
            set status = ?3, processedCount = ?4, failedCount = ?5
            where id = ?2
              and jobId = ?1
              and (?6 is null or version = ?6)
              and not (?7 and status in ('COMPLETED', 'FAILED'))
            returning batchIndex
            ",
        );
        let values = values![
            &key.job_id,
            &key.batch_id,
            state.status.as_str(),
            state.processed,
            state.failed,
            token,
            keep_final,
        ];
        let changed = session.optional(set, values, rows::batch_index).await?;
        verdicts::state_set(&mut session, changed, key, token, keep_final).await
    }

    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        if let BatchChange::Done(index) = self.set_batch_state(key, state, None, keep_final).await? {
            return Ok(BatchPlace::Row(index));
        }
        let job = list_snapshot(&mut self.read().await?, key).await?;
        Ok(BatchPlace::of(None, job))
    }

    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let mut session = self.write().await?;
        let release = sql(
            "release",
            "
            update batchactions_batches
            set status = 'PENDING', workerId = null, claimedAt = null, version = version + 1
            where id = ?2
              and jobId = ?1
              and status = 'PROCESSING'
              and workerId = ?3
              and (?4 is null or version = ?4)
            returning batchIndex
            ",
        );
        let values = values![&key.job_id, &key.batch_id, worker_id, token];
        let changed = session.optional(release, values, rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let mut session = self.write().await?;
        let renew = sql(
            "renew",
            "
            update batchactions_batches
            set claimedAt = cast(unixepoch('subsec') * 1000 as integer)
            where id = ?2
              and jobId = ?1
              and (status = 'PROCESSING' or ?5 and status = 'PAUSED')
              and workerId = ?3
              and (?4 is null or version = ?4)
            returning batchIndex
            ",
        );
        let values = values![&key.job_id, &key.batch_id, worker_id, token, also_paused];
        let changed = session.optional(renew, values, rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<Vec<Reclaimed>> {
        let mut session = self.write().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let select = sql(
            "reclaim_select",
            "
            select id, workerId, ?3 is not null and (version + 1) / 2 >= ?3
            from batchactions_batches
            where jobId = ?1
              and status = 'PROCESSING'
              and (claimedAt is null or claimedAt < cast(unixepoch('subsec') * 1000 as integer) - ?2)
            ",
        );
        let values = values![job_id, older_than.as_millis() as i64, max_claims];
        let stale = session.all(select, values, rows::reclaimed).await?;
        // Each claim, release and reclaim adds 1 to `version`, so the number of claims is (version + 1) / 2. A batch that is given up keeps the id of
        // its last worker.
        let reclaim = sql(
            "reclaim",
            "
            update batchactions_batches
            set status = case when ?2 is not null and (version + 1) / 2 >= ?2 then 'FAILED' else 'PENDING' end,
                workerId = case when ?2 is not null and (version + 1) / 2 >= ?2 then workerId end,
                claimedAt = case when ?2 is not null and (version + 1) / 2 >= ?2 then claimedAt end,
                version = version + 1
            where id in (select value from json_each(?1))
            ",
        );
        let ids: Vec<&str> = stale.iter().map(|batch| &*batch.batch_id).collect();
        let ids = serde_json::Value::from(ids).to_string();
        session.execute(reclaim, values![ids, max_claims]).await?;
        session.commit().await?;
        Ok(stale)
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let mut session = self.write_queued(records).await?;
        let session = &mut session;
        let records: Vec<&RecordWrite> = records.iter().collect();
        let parts: Vec<&[&RecordWrite]> = parts(&records).collect();
        if let [all] = *parts {
            return upsert_records(session, all).await;
        }
        session.begin(BEGIN).await?;
        for part in parts {
            upsert_records(session, part).await?;
        }
        session.commit().await
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let mut session = self.write_queued(records).await?;
        let session = &mut session;
        // The write lock keeps every other process from writing until the commit, so a version that was read stays valid, and no batch needs a lock
        // of its own.
        session.begin(BEGIN).await?;
        let held = Leases::default().held(session, records).await?;
        for part in parts(&verdicts::kept(records, &held)) {
            upsert_records(session, part).await?;
        }
        session.commit().await?;
        Ok(held)
    }

    async fn save_records_and_end_batch(&self, records: &[RecordWrite], end: &BatchEnd) -> Result<Option<BatchIndex>> {
        let mut session = self.write_queued(records).await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let BatchEnd { key, state, token } = end;
        let end = sql(
            "end_batch",
            "
            update batchactions_batches
            set status = ?4, processedCount = ?5, failedCount = ?6
            where id = ?2
              and jobId = ?1
              and version = ?3
            returning batchIndex
            ",
        );
        let values = values![
            &key.job_id,
            &key.batch_id,
            *token,
            state.status.as_str(),
            state.processed,
            state.failed
        ];
        let Some(index) = session.optional(end, values, rows::batch_index).await? else {
            session.rollback().await?;
            return Ok(None);
        };
        for part in parts(&records.iter().collect::<Vec<_>>()) {
            upsert_records(session, part).await?;
        }
        session.commit().await?;
        Ok(Some(index))
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.write().await?;
        let empty = sql(
            "empty_job",
            "
            update batchactions_jobs
            set status = 'ABORTED', batches = '[]',
                completedAt = coalesce(completedAt, cast(unixepoch('subsec') * 1000 as integer))
            where id = ?1
            ",
        );
        Ok(session.execute(empty, values![job_id]).await?.rows > 0)
    }

    async fn delete_batches(&self, job_id: &str, _from: Option<i64>, most: i32) -> Result<Slice> {
        let mut session = self.write().await?;
        let delete = sql(
            "delete_batches",
            "
            delete from batchactions_batches
            where id in (
              select id
              from batchactions_batches
              where jobId = ?1
              limit ?2
            )
            ",
        );
        Ok(Slice::of(session.execute(delete, values![job_id, most]).await?.rows))
    }

    async fn delete_records(&self, job_id: &str, _from: Option<i64>, most: i32) -> Result<Slice> {
        let mut session = self.write().await?;
        let delete = sql(
            "delete_records",
            "
            delete from batchactions_records
            where id in (
              select id
              from batchactions_records
              where jobId = ?1
              limit ?2
            )
            ",
        );
        Ok(Slice::of(session.execute(delete, values![job_id, most]).await?.rows))
    }

    async fn delete_job(&self, job_id: &str, statuses: [&'static str; 3]) -> Result<bool> {
        let mut session = self.write().await?;
        let delete = sql(
            "delete_job",
            "
            delete from batchactions_jobs
            where id = ?1 and status in (?2, ?3, ?4)
            ",
        );
        let [s1, s2, s3] = statuses;
        Ok(session.execute(delete, values![job_id, s1, s2, s3]).await?.rows > 0)
    }

    async fn pause_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.write().await?;
        let pause = sql(
            "pause_job",
            "
            update batchactions_jobs
            set status = 'PAUSED'
            where id = ?1 and status = 'PROCESSING' and distributed
            ",
        );
        Ok(session.execute(pause, values![job_id]).await?.rows > 0)
    }

    async fn copy_records(&self, copies: &RecordCopies<'_>) -> Result<()> {
        let mut session = self.write().await?;
        // `+status` keeps the planner on the index that has the order; with the status index, it would sort all records of the statuses for each batch.
        let copy = sql(
            "copy_records",
            "
            insert into batchactions_records (jobId, batchId, recordIndex, status, raw, parsed, errors)
            select ?1, ?2, recordIndex, 'pending', raw, raw, '[]'
            from batchactions_records
            where jobId = ?3 and recordIndex > ?4 and +status in (?5, ?6, ?7, ?8)
            order by recordIndex
            limit ?9
            on conflict (jobId, recordIndex) do nothing
            ",
        );
        let [s1, s2, s3, s4] = copies.statuses;
        let after = copies.after.map_or(i64::MIN, i64::from);
        let BatchKey { job_id, batch_id } = copies.into;
        let values = values![job_id, batch_id, copies.source_id, after, s1, s2, s3, s4, copies.limit];
        session.execute(copy, values).await.map(drop)
    }

    async fn empty_finished_job(&self, job_id: &str, cutoffs: Cutoffs) -> Result<bool> {
        let mut session = self.write().await?;
        let empty = sql(
            "empty_finished_job",
            "
            update batchactions_jobs
            set batches = '[]'
            where id = ?1
              and status in ('COMPLETED', 'ABORTED', 'FAILED')
              and coalesce(completedAt, startedAt) <= ?2
              and not exists (
                select 1
                from batchactions_batches
                where jobId = ?1
                  and status in ('PROCESSING', 'PAUSED')
                  and workerId is not null
                  and claimedAt > ?3
              )
            ",
        );
        let values = values![job_id, cutoffs.ended_by, cutoffs.abandoned_by];
        Ok(session.execute(empty, values).await?.rows > 0)
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        static INSERT: MultiRow = MultiRow::new(
            "
            insert into batchactions_batches
              (jobId, id, batchIndex, status, workerId, claimedAt, recordStartIndex, recordEndIndex, processedCount, failedCount, version)
            values ",
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            "
            on conflict do nothing
            ",
        );
        for chunk in chunks(batches) {
            let mut values = Vec::with_capacity(chunk.len() * 10);
            for batch in chunk {
                values.extend(values![
                    job_id,
                    &batch.id,
                    batch.index,
                    batch.initial_status(),
                    batch.worker_id.as_deref(),
                    batch.claimed_at,
                    batch.start,
                    batch.end,
                    batch.processed,
                    batch.failed,
                ]);
            }
            self.session
                .execute(sql("insert_batches", INSERT.text(chunk.len())), values)
                .await?;
        }
        Ok(())
    }

    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>> {
        let owner = sql(
            "batch_owner",
            "
            select id, jobId
            from batchactions_batches
            where id = ?1
            ",
        );
        self.session.optional(owner, values![batch_id], rows::batch_owner).await
    }

    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session, job_id).await
    }

    async fn has_open_batch(&mut self, job_id: &str) -> Result<bool> {
        has_open_batch(&mut self.session, job_id, None).await
    }

    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool> {
        upsert_job(&mut self.session, job, keep_final).await
    }

    /// The transaction holds the write lock from its beginning, so a plain read is enough.
    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let lock = sql(
            "lock_job",
            "
            select status, distributed, batches, startedAt, cast(unixepoch('subsec') * 1000 as integer)
            from batchactions_jobs
            where id = ?1
            ",
        );
        self.session.optional(lock, values![job_id], rows::locked_job).await
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        let set = sql(
            "set_job_batches",
            "
            update batchactions_jobs
            set batches = ?2
            where id = ?1
            ",
        );
        self.session.execute(set, values![job_id, batches]).await.map(drop)
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        let finish = sql(
            "finish_job",
            "
            update batchactions_jobs
            set status = ?2,
                batches = ?3,
                completedAt = cast(unixepoch('subsec') * 1000 as integer)
            where id = ?1
            ",
        );
        let values = values![job_id, status.as_str(), batches];
        self.session.execute(finish, values).await.map(drop)
    }

    async fn set_job_status(&mut self, job_id: &str, status: JobStatus) -> Result<()> {
        let set = sql(
            "set_job_status",
            "
            update batchactions_jobs
            set status = ?2
            where id = ?1
            ",
        );
        self.session.execute(set, values![job_id, status.as_str()]).await.map(drop)
    }

    /// The transaction holds the write lock, so no claim is being made.
    async fn take_claims(&mut self, job_id: &str) -> Result<Vec<Reclaimed>> {
        let held = sql(
            "take_claims_select",
            "
            select id, workerId, false
            from batchactions_batches
            where jobId = ?1 and (status = 'PROCESSING' or status = 'PAUSED' and workerId is not null)
            ",
        );
        let held = self.session.all(held, values![job_id], rows::reclaimed).await?;
        let take = sql(
            "take_claims",
            "
            update batchactions_batches
            set status = 'PENDING', workerId = null, claimedAt = null, version = version + 1
            where jobId = ?1 and (status = 'PROCESSING' or status = 'PAUSED' and workerId is not null)
            ",
        );
        if !held.is_empty() {
            self.session.execute(take, values![job_id]).await?;
        }
        Ok(held)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.commit().await
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        self.session.rollback().await
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Connection

impl Sqlite {
    pub fn new(mut settings: Settings) -> Self {
        // An absolute path: all connections open the same file, even if the process changes its working directory.
        if let Some(file) = &mut settings.file
            && let Ok(absolute) = std::path::absolute(&*file)
        {
            *file = absolute.to_string_lossy().into_owned();
        }
        let path = settings.file.clone().map(PathBuf::from);
        Self {
            settings: settings.clone(),
            file: SqliteFile::new(path, !settings.must_exist, move || Pools::new(&settings)),
        }
    }

    async fn read(&self) -> Result<Conn> {
        self.file.acquire(Use::Read).await
    }

    async fn write(&self) -> Result<Conn> {
        self.file.acquire(Use::Write).await
    }

    /// For records that were all queued while the path held the same file.
    async fn write_queued(&self, records: &[RecordWrite]) -> Result<Conn> {
        let mut files = records.iter().filter_map(|write| write.file);
        let file = files.next();
        if files.all(|other| Some(other) == file) {
            return self.file.acquire_of(Use::Write, file).await;
        }
        Err(Error::new(Code::ConnectionLost, "the records were queued for two files, one of which is gone").repeatable(Repeatable::Never))
    }
}

async fn make_tables(session: &mut Conn) -> Result<()> {
    session.begin(BEGIN).await?;
    // Another process may have created them while this one waited for the lock.
    for statement in catalogue(session).await?.missing(MIGRATION)? {
        session.run(statement).await?;
    }
    catalogue(session).await?.check_made(MIGRATION)?;
    session.commit().await
}

/// In a row, the list of the batches comes before totals and times, and SQLite finds what comes after a large value by reading that value's pages one after
/// the other. This index has them without the list. A statement looks for a range of ids where it is to read the index, because for one id alone SQLite
/// prefers the primary key. Without the index, it works and is slower in a job of many batches.
const SUMMARY_INDEX: &str = "batchactions_jobs_id_summary";

fn needs_summary_index(found: &Catalogue) -> bool {
    !found.indexes.iter().any(|index| index.name == SUMMARY_INDEX)
}

async fn make_summary_index(session: &mut Conn, warnings: &Warnings) -> Result<()> {
    let make = format!(
        "create index if not exists {SUMMARY_INDEX} on batchactions_jobs (id, status, distributed, totalRecords, startedAt, completedAt)"
    );
    let made = session.define(&make, DDL_LIMIT).await;
    if !session.is_in_order() {
        return made;
    }
    // It is not needed: the file may be read-only, or another process may write.
    if let Err(error) = made {
        let message = format!(
            "the index {SUMMARY_INDEX} could not be created, so jobs of many batches are read more slowly than they could be: {}",
            error.message
        );
        warnings.warn(Warning::new(WarningKind::IndexMissing, message).error(error));
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Jobs

/// Returns whether the job's row was inserted. The upsert does not report that, so a read looks for the row first. Outside a transaction, another
/// process may insert or delete the row between the two.
async fn upsert_job(session: &mut Conn, job: &Job, keep_final: bool) -> Result<bool> {
    let exists = sql(
        "upsert_job_exists",
        "
        select exists (
          select 1
          from batchactions_jobs
          where id = ?1
        )
        ",
    );
    let existed = session.one(exists, values![&job.id], rows::answer).await?;
    let upsert = sql(
        "upsert_job",
        "
        insert into batchactions_jobs (id, status, config, batches, totalRecords, startedAt, completedAt, distributed)
        values (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?7, case when ?9 then cast(unixepoch('subsec') * 1000 as integer) end), ?8)
        on conflict (id) do update
        set status = case when ?10 and status in ('COMPLETED', 'ABORTED', 'FAILED') then status else excluded.status end,
            config = excluded.config,
            batches = excluded.batches,
            totalRecords = excluded.totalRecords,
            startedAt = excluded.startedAt,
            completedAt = case
              when ?10 and status in ('COMPLETED', 'ABORTED', 'FAILED') or ?9 and ?7 is null
                then coalesce(completedAt, excluded.completedAt)
              else excluded.completedAt
            end,
            distributed = excluded.distributed
        ",
    );
    let values = values![
        &job.id,
        job.status.as_str(),
        &job.config,
        &job.batches,
        job.total_records,
        job.started_at,
        job.completed_at,
        job.distributed,
        job.status.is_final(),
        keep_final,
    ];
    session.execute(upsert, values).await?;
    Ok(!existed)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Batches

const BATCH_ROWS: Sql<'static> = sql(
    "batch_rows",
    "
    select id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
    from batchactions_batches
    where jobId = ?1
    order by batchIndex
    ",
);

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    session.all(BATCH_ROWS, values![job_id], rows::batch_row).await
}

/// Where a batch without a row may be.
async fn list_snapshot(session: &mut Conn, key: &BatchKey) -> Result<Option<ListSnapshot>> {
    let snapshot = sql(
        "list_snapshot",
        "
        select distributed,
               exists (select 1 from batchactions_batches where jobId = ?1),
               instr(batches, ?2) > 0
        from batchactions_jobs
        where id = ?1
        ",
    );
    let values = values![&key.job_id, in_json(&key.batch_id)];
    session.optional(snapshot, values, rows::list_snapshot).await
}

async fn has_open_batch(session: &mut Conn, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
    let has_open = sql(
        "has_open_batch",
        "
        select coalesce(
                 (
                   select status in ('PENDING', 'PROCESSING', 'PAUSED')
                   from batchactions_batches
                   where jobId = ?1 and batchIndex = ?2
                 ),
                 false
               )
               or exists (
                 select 1 from batchactions_batches
                 where jobId = ?1 and status in ('PENDING', 'PROCESSING', 'PAUSED')
               )
        ",
    );
    let values = values![job_id, from.unwrap_or(BatchIndex::LOWEST)];
    session.one(has_open, values, rows::answer).await
}

#[async_trait]
impl Verdicts for Conn {
    async fn version(&mut self, key: &BatchKey) -> Result<Option<Token>> {
        let version = sql(
            "version",
            "
            select version
            from batchactions_batches
            where id = ?2 and jobId = ?1
            ",
        );
        self.optional(version, values![&key.job_id, &key.batch_id], rows::token).await
    }

    async fn final_batch(&mut self, key: &BatchKey, token: Option<Token>) -> Result<Option<BatchIndex>> {
        let batch = sql(
            "final_batch",
            "
            select batchIndex
            from batchactions_batches
            where id = ?2
              and jobId = ?1
              and (?3 is null or version = ?3)
              and status in ('COMPLETED', 'FAILED')
            ",
        );
        self.optional(batch, values![&key.job_id, &key.batch_id, token], rows::batch_index)
            .await
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Records

/// The records, split into statements.
fn parts<'a, 'r>(records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES).flat_map(chunks)
}

async fn upsert_records(session: &mut Conn, writes: &[&RecordWrite]) -> Result<()> {
    static UPSERT: MultiRow = MultiRow::new(
        "
        insert into batchactions_records (jobId, batchId, recordIndex, status, raw, parsed, errors, processingError)
        values ",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
        "
        on conflict (jobId, recordIndex) do update
        set batchId = excluded.batchId,
            status = excluded.status,
            raw = excluded.raw,
            parsed = excluded.parsed,
            errors = excluded.errors,
            processingError = excluded.processingError
        ",
    );
    let mut values = Vec::with_capacity(writes.len() * 8);
    for RecordWrite {
        job_id, batch_id, record, ..
    } in writes
    {
        values.extend(values![
            job_id,
            batch_id,
            record.index,
            record.status.as_str(),
            json_value(&record.raw),
            json_value(&record.parsed),
            json_value(&record.errors),
            record.processing_error.as_deref(),
        ]);
    }
    let upsert = sql("upsert_records", UPSERT.text(writes.len()));
    session.execute(upsert, values).await.map(drop)
}
