//! Every statement for MySQL and MariaDB. Where the two differ, a comment says so.
//!
//! Neither has `update … returning`. `last_insert_id(expression)` replaces it: the server returns the expression's value with the number of rows
//! (MySQL Reference Manual, "Information Functions").
//!
//! `cast(floor(unix_timestamp(now(3)) * 1000) as signed)` is the clock in milliseconds: `now` alone would give whole seconds, and without the cast the
//! result would be a decimal.
//!
//! `force index` overrides the planner: the indexes that it chooses by its estimates cost more with each batch or record of a job, and a locking
//! statement would lock ranges of the wrong index.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::connect::{Conn, MySqlDriver, driver};
use self::joined_rows::joined_rows;
use self::known_ids::Upserts;
use self::server::{Server, is_mariadb, own_version};
use self::slices::SliceStatements;
use self::text_column::text_column;
use self::types::catalogue;
use super::bulk::{MultiRow, MultiValue, STATEMENT_BYTES, by_bytes, chunks, key_chunks};
use super::driver::{Changed, Row, Sql, Value, sql, values};
use super::inserts::RefusedInserts;
use super::once::Once;
use super::pool::{Pool, PoolRules};
use super::record_write::size_of;
use super::schema::{Catalogue, DDL_LIMIT, wait_for_tables};
use super::verdicts::{self, Leases, Verdicts};
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, Examination, FREQUENT, ListSnapshot, LockedJob, PageOrder, Ping, PoolUse,
    ReadBatches, Reads, ReclaimSnapshot, Reclaimed, RecordWrite, SavedJob, Slice, StoredJob, Transaction, ping, rows,
};
use crate::error::{Code, Error, Quoted, Result};
use crate::model::{
    BatchCounts, BatchEnd, BatchIndex, BatchKey, BatchPage, BatchRow, BatchState, BatchSummary, ColumnLimits, Cutoffs, Encoding,
    FinishedJob, FinishedPage, Job, JobFilter, JobRow, JobStatus, JobTable, JobTimes, ListedBatch, MaxClaims, NamedJob, PAGE_BYTES,
    RecordCopies, RecordCounts, RecordPage, RecordRange, RecordSlices, RecordStatus, Reservation, StoreStats, Token, UnorderedRecords,
    WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::Settings;
use crate::warnings::{Warning, WarningKind, Warnings};

mod connect;
mod errors;
mod examine;
mod joined_rows;
mod known_ids;
mod server;
mod session_variables;
mod slices;
mod text_column;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/mysql/0001_tables.sql");

/// Not `begin`, which has another meaning in MariaDB's Oracle mode.
const BEGIN: &str = "start transaction";

pub struct MySql {
    pool: Pool<MySqlDriver>,
    server: Once<Server>,
    /// The capacity of `processingError` in bytes, and its encoding.
    text_column: OnceLock<(usize, Encoding)>,
    refused_inserts: RefusedInserts,
    warnings: Warnings,
    /// The port that the store connects to; none over a socket.
    port: Option<u16>,
}

struct MySqlTransaction {
    session: Conn,
    server: Server,
}

#[async_trait]
impl Reads for MySql {
    async fn limits(&self) -> Result<ColumnLimits> {
        let deepest = if self.server().await?.is_mariadb { 31 } else { 100 };
        let (text_bytes, encoding) = match self.text_column.get() {
            Some(known) => known.clone(),
            None => match text_column(&mut self.session().await?).await? {
                Some(found) => self.text_column.get_or_init(|| found).clone(),
                // The table does not exist; the next statement reports that.
                None => (65_535, Encoding::Utf8),
            },
        };
        Ok(ColumnLimits {
            json_depth: Some(deepest),
            lone_surrogates: false,
            text_bytes: Some(text_bytes),
            encoding,
            nul_in_text: true,
        })
    }

    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>> {
        let mut session = self.session().await?;
        let job = sql(
            "job",
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed, batches
            from batchactions_jobs
            where id = ?
            ",
        );
        session.optional(job, values![job_id], rows::stored_job).await
    }

    async fn job_batches(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>> {
        let Some(job) = self.job(job_id).await? else { return Ok(None) };
        let mut session = self.session().await?;
        let rows = joined_rows(&mut session, job_id, earlier).await?;
        rows::job_batches(job, rows, earlier).map(Some)
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.session().await?;
        let status = filter.status.map(JobStatus::as_str);
        let after_id = filter.after.as_ref().map(|(_, id)| &**id);
        let after_time = filter.after.as_ref().and_then(|(started_at, _)| *started_at);
        // In descending order, nulls come last here. Only keys are sorted, not the configurations: see `read_records`. `straight_join` makes the
        // servers read the page's keys first and then their jobs.
        let jobs = sql(
            "list_jobs",
            "
            select j.id, j.config, j.status, j.totalRecords, j.startedAt, j.completedAt, j.distributed
            from (
              select id, startedAt
              from batchactions_jobs
              where (? is null or status = ?)
                and (? is null
                  or case
                    when ? is null then startedAt is null and id < ?
                    else startedAt is null or startedAt < ? or (startedAt = ? and id < ?)
                  end)
              order by startedAt desc, id desc
              limit ?
            ) page
            straight_join batchactions_jobs j on j.id = page.id
            order by page.startedAt desc, page.id desc
            ",
        );
        let values = values![
            status,
            status,
            after_id,
            after_time,
            after_id,
            after_time,
            after_time,
            after_id,
            filter.limit,
        ];
        session.all(jobs, values, rows::job_row).await
    }

    async fn job_row(&self, job_id: &str) -> Result<Option<JobRow>> {
        let mut session = self.session().await?;
        let job = sql(
            "job_row",
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed
            from batchactions_jobs
            where id = ?
            ",
        );
        session.optional(job, values![job_id], rows::job_row).await
    }

    async fn has_frequent_status(&self, job_id: &str, page: &BatchPage) -> Result<bool> {
        let mut session = self.session().await?;
        let frequent = sql(
            "has_frequent_status",
            "
            select count(*) > ?
            from (
              select 1
              from batchactions_batches force index (batchactions_batches_job_id_status)
              where jobId = ? and status in (?, ?, ?, ?, ?)
              limit ?
            ) counted
            ",
        );
        let [s1, s2, s3, s4, s5] = page.status_places();
        let values = values![FREQUENT, job_id, s1, s2, s3, s4, s5, FREQUENT + 1];
        session.one(frequent, values, rows::answer).await
    }

    async fn batch_page(&self, job_id: &str, page: &BatchPage, order: PageOrder) -> Result<Vec<BatchSummary>> {
        let mut session = self.session().await?;
        let batches = match order {
            PageOrder::ByIndex => sql(
                "batch_page",
                "
                select id, batchIndex, status, processedCount, failedCount, recordStartIndex, recordEndIndex, workerId, claimedAt
                from batchactions_batches force index (batchactions_batches_job_id_batch_index)
                where jobId = ? and batchIndex > ? and (? is null or status in (?, ?, ?, ?, ?))
                order by batchIndex
                limit ?
                ",
            ),
            PageOrder::ByStatus => sql(
                "batch_page_by_status",
                "
                select id, batchIndex, status, processedCount, failedCount, recordStartIndex, recordEndIndex, workerId, claimedAt
                from batchactions_batches force index (batchactions_batches_job_id_status)
                where jobId = ? and batchIndex > ? and status in (?, ?, ?, ?, ?)
                order by batchIndex
                limit ?
                ",
            ),
        };
        let statuses = page.status_places();
        let mut values = values![job_id, page.after.map_or(i64::MIN, i64::from)];
        if order == PageOrder::ByIndex {
            values.push(statuses[0].into());
        }
        values.extend(statuses.map(Value::from));
        values.push(page.limit.into());
        session.all(batches, values, rows::batch_summary).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        let mut session = self.session().await?;
        // One status each: for several, these servers would read all batches of a job. The index gives the number of batches without their rows. `case` keeps
        // finished jobs from being looked up.
        let stats = sql(
            "stats",
            "
            select j.status,
                   count(*),
                   cast(coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches b force index (batchactions_batches_job_id_status)
                     where b.jobId = j.id and b.status = 'PENDING'
                   ) end), 0) as signed),
                   cast(coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches b force index (batchactions_batches_job_id_status)
                     where b.jobId = j.id and b.status = 'PROCESSING'
                   ) end), 0) as signed),
                   cast(coalesce(sum(case when j.isOpen then (
                     select count(*) from batchactions_batches b force index (batchactions_batches_job_id_status)
                     where b.jobId = j.id and b.status = 'PAUSED'
                   ) end), 0) as signed),
                   cast(floor(unix_timestamp(now(3)) * 1000) as signed) - cast(min(case when j.isOpen then (
                     select min(b.claimedAt) from batchactions_batches b force index (batchactions_batches_job_id_status)
                     where b.jobId = j.id and b.status = 'PROCESSING'
                   ) end) as signed),
                   cast(floor(unix_timestamp(now(3)) * 1000) as signed) - cast(min(case when j.isOpen then (
                     select min(b.claimedAt) from batchactions_batches b force index (batchactions_batches_job_id_status)
                     where b.jobId = j.id and b.status = 'PAUSED'
                   ) end) as signed)
            from (
              select id, status, distributed and status not in ('COMPLETED', 'ABORTED', 'FAILED') as isOpen
              from batchactions_jobs
            ) j
            group by j.status
            ",
        );
        rows::stats(&mut session, stats).await
    }

    async fn ping(&self) -> Result<Ping> {
        let mut session = self.session().await?;
        let clock = sql(
            "server_clock",
            "select version(), cast(floor(unix_timestamp(now(3)) * 1000) as signed)",
        );
        let pong = ping::ping(&mut session, clock).await?;
        let database = if is_mariadb(&pong.version) { "MariaDB" } else { "MySQL" };
        Ok(pong.of(database, own_version))
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.session().await?;
        let times = sql(
            "job_times",
            "
            select totalRecords, startedAt, completedAt, distributed, cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            from batchactions_jobs
            where id = ?
            ",
        );
        session.optional(times, values![job_id], rows::job_times).await
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.session().await?;
        let count = sql(
            "count_batches",
            "
            select count(*), max(batchIndex)
            from batchactions_batches
            where jobId = ?
            ",
        );
        session.one(count, values![job_id], rows::batch_total).await
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.session().await?;
        let last = sql(
            "last_batch_index",
            "
            select max(batchIndex)
            from batchactions_batches
            where jobId = ?
            ",
        );
        session.one(last, values![job_id], |row| rows::optional_batch_index(row, 0)).await
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let mut session = self.session().await?;
        let has_row = sql(
            "has_batch_row",
            "
            select exists (
              select 1
              from batchactions_batches
              where id = ? and jobId = ?
            )
            ",
        );
        session.one(has_row, values![&key.batch_id, &key.job_id], rows::answer).await
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        has_open_batch(&mut self.session().await?, job_id, from).await
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        let mut session = self.session().await?;
        let counts = sql(
            "batch_counts",
            "
            select status, count(*)
            from batchactions_batches
            where jobId = ?
            group by status
            ",
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::batch_counts)
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.session().await?;
        let counts = sql(
            "record_counts",
            "
            select status, count(*)
            from batchactions_records
            where jobId = ?
            group by status
            ",
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::record_counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.session().await?;
        let snapshot = sql(
            "claim_snapshot",
            "
            select status,
                   distributed,
                   exists (select 1 from batchactions_batches where jobId = ?),
                   exists (
                     select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                     where jobId = ? and status = 'PENDING'
                   )
            from batchactions_jobs
            where id = ?
            ",
        );
        session
            .optional(snapshot, values![job_id, job_id, job_id], rows::claim_snapshot)
            .await
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.session().await?;
        let next = sql(
            "reclaim_snapshot_next",
            "
            select exists (
                     select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                     where jobId = ?
                       and status = 'PROCESSING'
                       and (claimedAt is null or claimedAt < cast(floor(unix_timestamp(now(3)) * 1000) as signed) - ?)
                   ),
                   (
                     select status in ('PENDING', 'PROCESSING', 'PAUSED')
                     from batchactions_batches
                     where jobId = ? and batchIndex = ?
                   )
            ",
        );
        let values = values![job_id, older_than.as_millis() as i64, job_id, from.unwrap_or(BatchIndex::LOWEST)];
        let next = session.one(next, values, |row| Ok((row.boolean(0)?, row.optional_number(1)? == Some(1))));
        let (has_stale, next_is_open) = next.await?;
        if next_is_open {
            return Ok(ReclaimSnapshot {
                has_rows: true,
                has_stale,
                has_open: true,
            });
        }
        // A separate statement: these servers plan every part of a statement, needed or not, at a cost that grows with the job.
        let rest = sql(
            "reclaim_snapshot_rest",
            "
            select exists (select 1 from batchactions_batches where jobId = ?),
                   exists (
                     select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                     where jobId = ? and status in ('PENDING', 'PROCESSING', 'PAUSED')
                   )
            ",
        );
        let rest = session.one(rest, values![job_id, job_id], |row| Ok((row.boolean(0)?, row.boolean(1)?)));
        let (has_rows, has_open) = rest.await?;
        Ok(ReclaimSnapshot {
            has_rows,
            has_stale,
            has_open,
        })
    }

    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        let records = sql(
            "records_with_status",
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ? and status in (?, ?)
            ",
        );
        let values = values![job_id, statuses[0].as_str(), statuses[1].as_str()];
        read_records(&mut session, records, values).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        let records = sql(
            "records_of_batch",
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ? and batchId = ?
            ",
        );
        read_records(&mut session, records, values![&key.job_id, &key.batch_id]).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        // Only keys and lengths are sorted: see `read_records`. A length that the server does not report counts as a full page. `straight_join` makes
        // the servers read the keys first and then their records.
        macro_rules! page {
            ($candidates:literal) => {
                concat!(
                    "
                    select r.recordIndex, r.raw, r.parsed, r.status, r.errors, r.processingError
                    from (
                      select id, bytes, sum(bytes) over (order by recordIndex) as upTo
                      from (
                        select r.id, r.recordIndex, coalesce(
                          100 + length(r.raw) + length(r.parsed) + length(r.errors) + coalesce(length(r.processingError), 0),
                          1073741824
                        ) as bytes
                        from (",
                    $candidates,
                    ") candidates
                        straight_join batchactions_records r on r.id = candidates.id
                      ) measured
                    ) page
                    straight_join batchactions_records r on r.id = page.id
                    where page.upTo <= ? or page.upTo = page.bytes
                    "
                )
            };
        }
        let records = match &page.batch_id {
            None => sql(
                "record_page",
                page!(
                    "
                          select id
                          from batchactions_records force index (batchactions_records_job_id_record_index)
                          where jobId = ? and recordIndex > ? and status in (?, ?, ?, ?, ?)
                          order by recordIndex
                          limit ?
                    "
                ),
            ),
            Some(_) => sql(
                "record_page_of_batch",
                page!(
                    "
                          select id
                          from batchactions_records force index (batchactions_records_job_id_batch_id)
                          where jobId = ? and recordIndex > ? and batchId = ? and status in (?, ?, ?, ?, ?)
                          order by recordIndex
                          limit ?
                    "
                ),
            ),
        };
        let mut values = values![job_id, page.after.map_or(i64::MIN, i64::from)];
        values.extend(page.batch_id.as_deref().map(Value::from));
        values.extend(page.status_places().map(Value::from));
        values.extend(values![page.limit, PAGE_BYTES]);
        read_records(&mut session, records, values).await
    }

    async fn now(&self) -> Result<i64> {
        let mut session = self.session().await?;
        let now = sql("now", "select cast(floor(unix_timestamp(now(3)) * 1000) as signed)");
        session.one(now, values![], |row| row.number(0)).await
    }

    async fn record_range(&self, key: &BatchKey) -> Result<Option<RecordRange>> {
        let mut session = self.session().await?;
        let range = sql(
            "record_range",
            "
            select count(*), min(recordIndex), max(recordIndex)
            from batchactions_records force index (batchactions_records_job_id_batch_id)
            where jobId = ? and batchId = ?
            ",
        );
        session.one(range, values![&key.job_id, &key.batch_id], rows::record_range).await
    }

    async fn finished_jobs(&self, page: &FinishedPage) -> Result<Vec<FinishedJob>> {
        let mut session = self.session().await?;
        // Only keys are sorted, not the configurations: see `read_records`.
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
                       and claimedAt > ?
                   )
            from batchactions_jobs job
            where status in (?, ?, ?)
              and coalesce(completedAt, startedAt) <= ?
              and (? is null
                or coalesce(completedAt, startedAt) > ?
                or coalesce(completedAt, startedAt) = ? and id > ?)
            order by coalesce(completedAt, startedAt), id
            limit ?
            ",
        );
        let [s1, s2, s3] = page.statuses;
        let ended_at = page.after.as_ref().map(|(ended_at, _)| *ended_at);
        let values = values![
            page.cutoffs.abandoned_by,
            s1,
            s2,
            s3,
            page.cutoffs.ended_by,
            ended_at,
            ended_at,
            ended_at,
            page.after.as_ref().map(|(_, id)| &**id),
            page.limit,
        ];
        session.all(jobs, values, rows::finished_job).await
    }

    async fn named_jobs(&self, table: JobTable, after: Option<&str>, most: i32) -> Result<Vec<NamedJob>> {
        // One statement for each job: these servers look up a constant in the index, but not a value of another row.
        macro_rules! named {
            ($from:literal, $after:literal) => {
                concat!(
                    "
                    select jobId, exists (select 1 from batchactions_jobs job where job.id = named.jobId)
                    from ",
                    $from,
                    $after,
                    "
                    order by jobId
                    limit 1
                    "
                )
            };
        }
        let (first, next) = match table {
            JobTable::Batches => (
                sql(
                    "named_jobs_batches",
                    named!(
                        "batchactions_batches named force index (batchactions_batches_job_id_batch_index)",
                        ""
                    ),
                ),
                sql(
                    "named_jobs_batches_after",
                    named!(
                        "batchactions_batches named force index (batchactions_batches_job_id_batch_index)",
                        "
                    where jobId > ?"
                    ),
                ),
            ),
            JobTable::Records => (
                sql(
                    "named_jobs_records",
                    named!(
                        "batchactions_records named force index (batchactions_records_job_id_record_index)",
                        ""
                    ),
                ),
                sql(
                    "named_jobs_records_after",
                    named!(
                        "batchactions_records named force index (batchactions_records_job_id_record_index)",
                        "
                    where jobId > ?"
                    ),
                ),
            ),
        };
        let mut session = self.session().await?;
        let mut found: Vec<NamedJob> = Vec::new();
        for _ in 0..most {
            let last = found.last().map(|job| &*job.id).or(after);
            let job = match last {
                None => session.optional(first, values![], rows::named_job).await?,
                Some(last) => session.optional(next, values![last], rows::named_job).await?,
            };
            match job {
                Some(job) => found.push(job),
                None => break,
            }
        }
        Ok(found)
    }

    async fn record_count(&self, job_id: &str) -> Result<i64> {
        let mut session = self.session().await?;
        let count = sql(
            "record_count",
            "
            select count(*)
            from batchactions_records force index (batchactions_records_job_id_record_index)
            where jobId = ?
            ",
        );
        session.one(count, values![job_id], |row| row.number(0)).await
    }
}

#[async_trait]
impl Backend for MySql {
    async fn initialize(&self, gate: &Gate) -> Result<()> {
        let server = self.server().await?;
        server.check()?;
        let mut session = self.session().await?;
        let session = &mut session;
        let found = catalogue(session, server.is_mariadb).await?;
        if found.missing(MIGRATION)?.is_empty() && !needs_states_index(&found, server) {
            return Ok(());
        }
        lock_initialize(session, gate).await?;
        let made = make_tables(session, server, &self.warnings).await;
        // A connection in doubt is dropped, which releases the lock.
        let unlocked = match session.is_in_order() {
            true => unlock_initialize(session).await,
            false => Ok(()),
        };
        made.and(unlocked)
    }

    async fn examine(&self) -> Result<Examination> {
        self.examination().await
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn pool_use(&self) -> PoolUse {
        self.pool.now()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let server = self.server().await?;
        let mut session = self.session().await?;
        session.begin(BEGIN).await?;
        Ok(Box::new(MySqlTransaction { session, server }))
    }

    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob> {
        self.server().await?.check_job(job)?;
        let mut session = self.session().await?;
        let inserted = upsert_job(&mut session, job, keep_final).await?;
        let has_rows = sql(
            "save_job_has_rows",
            "
            select exists (
              select 1
              from batchactions_batches
              where jobId = ?
            )
            ",
        );
        let has_rows = session.one(has_rows, values![&job.id], rows::answer).await?;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.session().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        // Without the forced index, the servers choose the status index, lock ranges of it, and skip each other's ranges as a whole. `exists` instead
        // of a join, because a join would lock the job's row too.
        let select = sql(
            "claim_select",
            "
            select id, batchIndex, cast(floor(unix_timestamp(now(3)) * 1000) as signed), recordStartIndex, recordEndIndex, version + 1,
                   (select max(batchIndex) from batchactions_batches where jobId = ?)
            from batchactions_batches force index (batchactions_batches_job_id_batch_index)
            where jobId = ?
              and batchIndex >= ?
              and status = 'PENDING'
              and exists (select 1 from batchactions_jobs where id = ? and status = 'PROCESSING')
            order by batchIndex
            limit 1
            for update skip locked
            ",
        );
        let values = values![job_id, job_id, from.unwrap_or(BatchIndex::LOWEST), job_id];
        let claim = session.optional(select, values, |row| rows::reservation(row, job_id, worker_id));
        let Some(claim) = claim.await? else {
            session.rollback().await?;
            return Ok(None);
        };
        // The job's status again, now that the batch is locked: an abort that was committed after the first look has not waited for this claim, and is
        // seen here. The update does not lock the job's row: transactions are READ COMMITTED.
        let update = sql(
            "claim_update",
            "
            update batchactions_batches
            set status = 'PROCESSING', workerId = ?, claimedAt = ?, version = version + 1
            where id = ?
              and exists (select 1 from batchactions_jobs where id = ? and status = 'PROCESSING')
            ",
        );
        let values = values![worker_id, claim.claimed_at, &claim.batch_id, job_id];
        if session.execute(update, values).await?.rows == 0 {
            session.rollback().await?;
            return Ok(None);
        }
        session.commit().await?;
        Ok(Some(claim))
    }

    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let mut session = self.session().await?;
        let set = sql(
            "set_batch_state",
            "
            update batchactions_batches
            set status = ?, processedCount = ?, failedCount = ?, batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and (? is null or version = ?)
              and not (? and status in ('COMPLETED', 'FAILED'))
            ",
        );
        let values = values![
            state.status.as_str(),
            state.processed,
            state.failed,
            &key.batch_id,
            &key.job_id,
            token,
            token,
            keep_final,
        ];
        let changed = changed_index(session.execute(set, values).await?);
        verdicts::state_set(&mut session, changed, key, token, keep_final).await
    }

    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        Ok(match self.set_batch_state(key, state, None, keep_final).await? {
            BatchChange::Done(index) => BatchPlace::Row(index),
            BatchChange::NotFound | BatchChange::LeaseLost => BatchPlace::of(None, list_snapshot(&mut self.session().await?, key).await?),
        })
    }

    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let mut session = self.session().await?;
        // Worker ids are compared as bytes, because the columns' collations ignore case, accents or trailing spaces. They are converted first,
        // because the column may have another character set.
        let release = sql(
            "release",
            "
            update batchactions_batches
            set status = 'PENDING', workerId = null, claimedAt = null, version = version + 1, batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and status = 'PROCESSING'
              and cast(convert(workerId using utf8mb4) as binary) = cast(? as binary)
              and (? is null or version = ?)
            ",
        );
        let values = values![&key.batch_id, &key.job_id, worker_id, token, token];
        let changed = changed_index(session.execute(release, values).await?);
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let mut session = self.session().await?;
        // Worker ids are compared as in `release`.
        let renew = sql(
            "renew",
            "
            update batchactions_batches
            set claimedAt = cast(floor(unix_timestamp(now(3)) * 1000) as signed), batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and (status = 'PROCESSING' or ? and status = 'PAUSED')
              and cast(convert(workerId using utf8mb4) as binary) = cast(? as binary)
              and (? is null or version = ?)
            ",
        );
        let values = values![&key.batch_id, &key.job_id, also_paused, worker_id, token, token];
        let changed = changed_index(session.execute(renew, values).await?);
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<Vec<Reclaimed>> {
        static RECLAIM: MultiRow = MultiRow::new(
            // Assignments see each other's results from left to right, so `version` comes last. Each claim, release and reclaim adds 1 to it, so the
            // number of claims is (version + 1) div 2. A batch that is given up keeps the id of its last worker.
            "
            update batchactions_batches
            set status = if((version + 1) div 2 >= ?, 'FAILED', 'PENDING'),
                workerId = if((version + 1) div 2 >= ?, workerId, null),
                claimedAt = if((version + 1) div 2 >= ?, claimedAt, null),
                version = version + 1
            where id in (",
            "?",
            ")",
        );
        let mut session = self.session().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let select = sql(
            "reclaim_select",
            "
            select id, workerId, (version + 1) div 2 >= ?
            from batchactions_batches force index (batchactions_batches_job_id_status)
            where jobId = ?
              and status = 'PROCESSING'
              and (claimedAt is null or claimedAt < cast(floor(unix_timestamp(now(3)) * 1000) as signed) - ?)
            order by batchIndex
            for update skip locked
            ",
        );
        let most = max_claims.map_or(i32::MAX, |most| most.0);
        let values = values![most, job_id, older_than.as_millis() as i64];
        let stale = session.all(select, values, rows::reclaimed).await?;
        let ids: Vec<String> = stale.iter().map(|batch| batch.batch_id.clone()).collect();
        for chunk in key_chunks(&ids) {
            let mut values = values![most, most, most];
            values.extend(chunk.iter().map(Value::from));
            session.execute(sql("reclaim_update", RECLAIM.text(chunk.len())), values).await?;
        }
        session.commit().await?;
        Ok(stale)
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let server = self.check_records(records).await?;
        let mut session = self.session().await?;
        let session = &mut session;
        let records: Vec<&RecordWrite> = records.iter().collect();
        if self.insert(session, server, &records).await? {
            return Ok(());
        }
        if let [write] = *records {
            return upsert_record(session, write).await;
        }
        session.begin(BEGIN).await?;
        upsert_records(session, server, &records).await?;
        session.commit().await
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let server = self.check_records(records).await?;
        let mut session = self.session().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let held = lock_leases(session, records).await?.held(session, records).await?;
        upsert_records(session, server, &verdicts::kept(records, &held)).await?;
        session.commit().await?;
        Ok(held)
    }

    async fn save_records_and_end_batch(&self, records: &[RecordWrite], end: &BatchEnd) -> Result<Option<BatchIndex>> {
        let server = self.check_records(records).await?;
        let mut session = self.session().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let BatchEnd { key, state, token } = end;
        // Comes first: it locks the batch against a new claim, in the lock order.
        let end = sql(
            "end_batch",
            "
            update batchactions_batches
            set status = ?, processedCount = ?, failedCount = ?, batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and version = ?
            ",
        );
        let values = values![
            state.status.as_str(),
            state.processed,
            state.failed,
            &key.batch_id,
            &key.job_id,
            *token
        ];
        let Some(index) = changed_index(session.execute(end, values).await?) else {
            session.rollback().await?;
            return Ok(None);
        };
        upsert_records(session, server, &records.iter().collect::<Vec<_>>()).await?;
        session.commit().await?;
        Ok(Some(index))
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let empty = sql(
            "empty_job",
            "
            update batchactions_jobs
            set status = 'ABORTED', batches = '[]',
                completedAt = coalesce(completedAt, cast(floor(unix_timestamp(now(3)) * 1000) as signed))
            where id = ?
            ",
        );
        Ok(session.execute(empty, values![job_id]).await?.rows > 0)
    }

    async fn delete_batches(&self, job_id: &str, from: Option<i64>, most: i32) -> Result<Slice> {
        let statements = SliceStatements {
            delete: sql(
                "delete_batches",
                "
                delete from batchactions_batches
                where jobId = ? and batchIndex >= ?
                order by jobId, batchIndex
                limit ?
                ",
            ),
            delete_before: sql(
                "delete_batches_before",
                "
                delete from batchactions_batches
                where jobId = ? and batchIndex >= ? and batchIndex < ?
                order by jobId, batchIndex
                limit ?
                ",
            ),
            index_after: sql(
                "batch_index_after",
                "
                select batchIndex
                from batchactions_batches
                where jobId = ? and batchIndex >= ?
                order by jobId, batchIndex
                limit 1 offset ?
                ",
            ),
        };
        statements.run(&mut self.session().await?, job_id, from, most).await
    }

    async fn delete_records(&self, job_id: &str, from: Option<i64>, most: i32) -> Result<Slice> {
        let statements = SliceStatements {
            delete: sql(
                "delete_records",
                "
                delete from batchactions_records
                where jobId = ? and recordIndex >= ?
                order by jobId, recordIndex
                limit ?
                ",
            ),
            delete_before: sql(
                "delete_records_before",
                "
                delete from batchactions_records
                where jobId = ? and recordIndex >= ? and recordIndex < ?
                order by jobId, recordIndex
                limit ?
                ",
            ),
            index_after: sql(
                "record_index_after",
                "
                select recordIndex
                from batchactions_records
                where jobId = ? and recordIndex >= ?
                order by jobId, recordIndex
                limit 1 offset ?
                ",
            ),
        };
        statements.run(&mut self.session().await?, job_id, from, most).await
    }

    async fn delete_job(&self, job_id: &str, statuses: [&'static str; 3]) -> Result<bool> {
        let mut session = self.session().await?;
        let delete = sql(
            "delete_job",
            "
            delete from batchactions_jobs
            where id = ? and status in (?, ?, ?)
            ",
        );
        let [s1, s2, s3] = statuses;
        Ok(session.execute(delete, values![job_id, s1, s2, s3]).await?.rows > 0)
    }

    async fn pause_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let pause = sql(
            "pause_job",
            "
            update batchactions_jobs
            set status = 'PAUSED'
            where id = ? and status = 'PROCESSING' and distributed
            ",
        );
        Ok(session.execute(pause, values![job_id]).await?.rows > 0)
    }

    async fn copy_records(&self, copies: &RecordCopies<'_>) -> Result<()> {
        let mut session = self.session().await?;
        // With the status index, the servers would sort all records of the statuses for each batch. `insert ignore` would also accept values that the
        // columns refuse; the assignment leaves an existing record as it is.
        let copy = sql(
            "copy_records",
            "
            insert into batchactions_records (jobId, batchId, recordIndex, status, raw, parsed, errors)
            select ?, ?, source.recordIndex, 'pending', source.raw, source.raw, '[]'
            from batchactions_records source force index (batchactions_records_job_id_record_index)
            where source.jobId = ? and source.recordIndex > ? and source.status in (?, ?, ?, ?)
            order by source.recordIndex
            limit ?
            on duplicate key update batchactions_records.recordIndex = batchactions_records.recordIndex
            ",
        );
        let [s1, s2, s3, s4] = copies.statuses;
        let after = copies.after.map_or(i64::MIN, i64::from);
        let BatchKey { job_id, batch_id } = copies.into;
        let values = values![job_id, batch_id, copies.source_id, after, s1, s2, s3, s4, copies.limit];
        session.execute(copy, values).await.map(drop)
    }

    async fn empty_finished_job(&self, job_id: &str, cutoffs: Cutoffs) -> Result<bool> {
        let mut session = self.session().await?;
        let empty = sql(
            "empty_finished_job",
            "
            update batchactions_jobs
            set batches = '[]'
            where id = ?
              and status in ('COMPLETED', 'ABORTED', 'FAILED')
              and coalesce(completedAt, startedAt) <= ?
              and not exists (
                select 1
                from batchactions_batches
                where jobId = ?
                  and batchactions_batches.status in ('PROCESSING', 'PAUSED')
                  and workerId is not null
                  and claimedAt > ?
              )
            ",
        );
        let values = values![job_id, cutoffs.ended_by, job_id, cutoffs.abandoned_by];
        Ok(session.execute(empty, values).await?.rows > 0)
    }
}

#[async_trait]
impl Transaction for MySqlTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        // `version = version` leaves an existing row as it is; `insert ignore` would also accept values that the columns refuse.
        static INSERT: MultiRow = MultiRow::new(
            "
            insert into batchactions_batches
              (jobId, id, batchIndex, status, workerId, claimedAt, recordStartIndex, recordEndIndex, processedCount, failedCount, version)
            values ",
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            "
            on duplicate key update version = version
            ",
        );
        // A batch with the longest ids takes less than 1,000 bytes.
        let most = (self.server.max_packet / 2_000).max(1);
        for chunk in batches.chunks(most).flat_map(chunks) {
            let mut values = Vec::with_capacity(chunk.len() * 10);
            for batch in chunk {
                values.extend(values![
                    job_id,
                    &*batch.id,
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
            let insert = sql("insert_batches", INSERT.text(chunk.len()));
            self.session.execute(insert, values).await?;
        }
        Ok(())
    }

    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>> {
        let owner = sql(
            "batch_owner",
            "
            select id, jobId
            from batchactions_batches
            where id = ?
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
        self.server.check_job(job)?;
        upsert_job(&mut self.session, job, keep_final).await
    }

    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let lock = sql(
            "lock_job",
            "
            select status, distributed, batches, startedAt, cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            from batchactions_jobs
            where id = ?
            for update
            ",
        );
        self.session.optional(lock, values![job_id], rows::locked_job).await
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        self.server.check_list(job_id, batches.len())?;
        let set = sql(
            "set_job_batches",
            "
            update batchactions_jobs
            set batches = ?
            where id = ?
            ",
        );
        self.session.execute(set, values![batches, job_id]).await.map(drop)
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        self.server.check_list(job_id, batches.len())?;
        let finish = sql(
            "finish_job",
            "
            update batchactions_jobs
            set status = ?, batches = ?, completedAt = cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            where id = ?
            ",
        );
        let values = values![status.as_str(), batches, job_id];
        self.session.execute(finish, values).await.map(drop)
    }

    async fn set_job_status(&mut self, job_id: &str, status: JobStatus) -> Result<()> {
        let set = sql(
            "set_job_status",
            "
            update batchactions_jobs
            set status = ?
            where id = ?
            ",
        );
        self.session.execute(set, values![status.as_str(), job_id]).await.map(drop)
    }

    async fn take_claims(&mut self, job_id: &str) -> Result<Vec<Reclaimed>> {
        static TAKE: MultiRow = MultiRow::new(
            "
            update batchactions_batches
            set status = 'PENDING', workerId = null, claimedAt = null, version = version + 1
            where id in (",
            "?",
            ")",
        );
        // A row that a claim has locked is waited for, and then seen as the claim left it. PENDING rows are locked so that a claim finds none of them
        // meanwhile.
        let lock = sql(
            "take_claims_lock",
            "
            select id, workerId, false, status = 'PROCESSING' or status = 'PAUSED' and workerId is not null
            from batchactions_batches force index (batchactions_batches_job_id_batch_index)
            where jobId = ? and status in ('PENDING', 'PROCESSING', 'PAUSED')
            order by batchIndex
            for update
            ",
        );
        let mut held = Vec::new();
        self.session
            .each(lock, values![job_id], |row| {
                if row.boolean(3)? {
                    held.push(rows::reclaimed(row)?);
                }
                Ok(())
            })
            .await?;
        let ids: Vec<&str> = held.iter().map(|batch| &*batch.batch_id).collect();
        for ids in key_chunks(&ids) {
            let take = sql("take_claims", TAKE.text(ids.len()));
            self.session.execute(take, ids.iter().copied().map(Value::from).collect()).await?;
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

impl MySql {
    pub fn new(settings: Settings) -> Self {
        Self {
            pool: Pool::new(&settings, driver(&settings), PoolRules::of(&settings)),
            server: Once::new(),
            text_column: OnceLock::new(),
            refused_inserts: RefusedInserts::default(),
            warnings: settings.warnings,
            port: settings.socket.is_none().then_some(settings.port),
        }
    }

    async fn session(&self) -> Result<Conn> {
        self.pool.acquire().await
    }

    async fn server(&self) -> Result<Server> {
        let ask = || async {
            let mut session = self.session().await?;
            let server = sql("server", "select version(), @@max_allowed_packet");
            session
                .one(server, values![], |row| Ok(Server::parse(row.text(0)?, row.number(1)?)))
                .await
        };
        self.server.get_or_try_init(ask).await.copied()
    }

    /// Inserts records that are probably new. Returns whether it did: if a record exists, none was written, and the job's next records are not tried.
    async fn insert(&self, session: &mut Conn, server: Server, records: &[&RecordWrite]) -> Result<bool> {
        let Some(first) = records.first().filter(|first| !self.refused_inserts.contains(&first.job_id)) else {
            return Ok(false);
        };
        match insert_records(session, &statements(records, server).collect::<Vec<_>>()).await {
            Ok(()) => Ok(true),
            // The upsert that follows writes them, or fails with a better error.
            Err(error) if session.is_in_order() && !matches!(error.code, Code::Timeout | Code::Conflict) => {
                if session.is_in_transaction() {
                    session.rollback().await?;
                }
                if error.code == Code::Constraint {
                    self.refused_inserts.add(&first.job_id);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a record that is larger than the server accepts.
    async fn check_records(&self, records: &[RecordWrite]) -> Result<Server> {
        let server = self.server().await?;
        for write in records {
            let (record, mut bytes) = (&write.record, size_of(write));
            // The server adds at most one space per byte.
            if bytes > server.max_packet / 2 {
                bytes += server.spaces(&[&record.raw, &record.parsed, &record.errors]);
            }
            server.check_size(&format_args!("record {}", record.index), bytes)?;
        }
        Ok(server)
    }
}

/// Waits for the lock under which one process creates the tables. It polls instead of waiting in the server, so that it notices a server that stops
/// answering.
async fn lock_initialize(session: &mut Conn, gate: &Gate) -> Result<()> {
    let deadline = Instant::now() + DDL_LIMIT;
    // Lock names are shared by the whole server and have at most 64 characters.
    let lock = sql(
        "initialize_lock",
        "select get_lock(concat('batchactions ', left(sha2(database(), 256), 40)), 0)",
    );
    while session.one(lock, values![], |row| row.optional_number(0)).await? != Some(1) {
        wait_for_tables(gate, deadline).await?;
    }
    Ok(())
}

async fn unlock_initialize(session: &mut Conn) -> Result<()> {
    let unlock = sql(
        "initialize_unlock",
        "select release_lock(concat('batchactions ', left(sha2(database(), 256), 40)))",
    );
    session.execute(unlock, values![]).await.map(drop)
}

async fn make_tables(session: &mut Conn, server: Server, warnings: &Warnings) -> Result<()> {
    // Another process may have created them while this one waited for the lock.
    let found = catalogue(session, server.is_mariadb).await?;
    for statement in found.missing(MIGRATION)? {
        // No index takes long to create on new tables.
        if found.is_empty() {
            session.run(statement).await?;
        } else {
            session.define(statement, DDL_LIMIT).await?;
        }
    }
    if needs_states_index(&found, server) {
        make_states_index(session, warnings).await?;
    }
    Ok(())
}

/// The index from which `job_batches` reads. A statement that needs it is slower without it, and works.
const STATES_INDEX: &str = "batchactions_batches_job_id_state";

fn needs_states_index(found: &Catalogue, server: Server) -> bool {
    !server.is_mariadb && !found.indexes.iter().any(|index| index.name == STATES_INDEX)
}

async fn make_states_index(session: &mut Conn, warnings: &Warnings) -> Result<()> {
    let make = format!(
        "create index {STATES_INDEX} on batchactions_batches (jobId, batchIndex, status, processedCount, failedCount, claimedAt, workerId)"
    );
    // Everybody who uses the table would wait behind this statement while it waits for a transaction that has used it.
    session
        .run("set @lock_wait_timeout = @@lock_wait_timeout, lock_wait_timeout = 1")
        .await?;
    let made = session.define(&make, DDL_LIMIT).await;
    if !session.is_in_order() {
        return made;
    }
    session.run("set lock_wait_timeout = @lock_wait_timeout").await?;
    // It is not needed: the user may have no right to create it, another transaction the table, or the columns types that an index does not take whole.
    if let Err(error) = made {
        let message = format!(
            "the index {STATES_INDEX} could not be created, so getJobState is slower than it could be: {}",
            error.message
        );
        warnings.warn(Warning::new(WarningKind::IndexMissing, message).error(error));
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Jobs

/// Whether the job's row was inserted.
async fn upsert_job(session: &mut Conn, job: &Job, keep_final: bool) -> Result<bool> {
    // `last_insert_id(1)` reports an existing row. Assignments see each other's results from left to right, so `status` comes after the expressions
    // that read it. The collation of `id` treats ids that differ in case or accents as equal; the null, which the column refuses, keeps the statement
    // from overwriting the other job.
    let upsert = sql(
        "upsert_job",
        "
        insert into batchactions_jobs (id, status, config, batches, totalRecords, startedAt, completedAt, distributed)
        values (?, ?, ?, ?, ?, ?, coalesce(?, if(?, cast(floor(unix_timestamp(now(3)) * 1000) as signed), null)), ?)
        on duplicate key update
          completedAt = if(
            ? and status in ('COMPLETED', 'ABORTED', 'FAILED') or ?,
            coalesce(completedAt, values(completedAt)),
            values(completedAt)
          ),
          status = if(
            cast(id as binary) = cast(values(id) as binary),
            if(? and status in ('COMPLETED', 'ABORTED', 'FAILED'), status, values(status)),
            null
          ),
          config = values(config),
          batches = values(batches),
          totalRecords = if(last_insert_id(1), values(totalRecords), totalRecords),
          startedAt = values(startedAt),
          distributed = values(distributed)
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
        job.status.is_final(),
        job.distributed,
        keep_final,
        job.status.is_final() && job.completed_at.is_none(),
        keep_final,
    ];
    let saved = session.execute(upsert, values).await;
    Ok(saved.map_err(|error| explain_job_upsert(error, &job.id))?.last_insert_id == 0)
}

/// `upsert_job` writes a null to refuse overwriting another job.
fn explain_job_upsert(error: Error, job_id: &str) -> Error {
    if error.code == Code::Constraint && error.message.contains("'status'") {
        return Error {
            message: format!(
                "job {} can't be stored beside another job, whose id this database takes for the same: it differs only in case, accents or spaces at \
                 the end. Nothing was stored",
                Quoted(job_id)
            ),
            ..error
        };
    }
    error
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Batches

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    let batches = sql(
        "batch_rows",
        "
        select id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
        from batchactions_batches
        where jobId = ?
        order by batchIndex
        ",
    );
    session.all(batches, values![job_id], rows::batch_row).await
}

/// Where a batch without a row may be.
async fn list_snapshot(session: &mut Conn, key: &BatchKey) -> Result<Option<ListSnapshot>> {
    let snapshot = sql(
        "list_snapshot",
        "
        select distributed,
               exists (select 1 from batchactions_batches where jobId = ?),
               -- Null where the text, which the server writes with more spaces, is larger than max_allowed_packet.
               coalesce(locate(?, cast(batches as char)) > 0, true)
        from batchactions_jobs
        where id = ?
        ",
    );
    let values = values![&key.job_id, in_json(&key.batch_id), &key.job_id];
    session.optional(snapshot, values, rows::list_snapshot).await
}

/// The index of the updated batch, which the update reports by `batchIndex = last_insert_id(batchIndex)`.
fn changed_index(changed: Changed) -> Option<BatchIndex> {
    (changed.rows > 0).then_some(BatchIndex(changed.last_insert_id as i32))
}

async fn has_open_batch(session: &mut Conn, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
    let has_open = sql(
        "has_open_batch",
        "
        select coalesce(
                 (
                   select status in ('PENDING', 'PROCESSING', 'PAUSED')
                   from batchactions_batches
                   where jobId = ? and batchIndex = ?
                 ),
                 0
               )
               or exists (
                 select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                 where jobId = ? and status in ('PENDING', 'PROCESSING', 'PAUSED')
               )
        ",
    );
    let values = values![job_id, from.unwrap_or(BatchIndex::LOWEST), job_id];
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
            where id = ? and jobId = ?
            ",
        );
        self.optional(version, values![&key.batch_id, &key.job_id], rows::token).await
    }

    async fn final_batch(&mut self, key: &BatchKey, token: Option<Token>) -> Result<Option<BatchIndex>> {
        let batch = sql(
            "final_batch",
            "
            select batchIndex
            from batchactions_batches
            where id = ?
              and jobId = ?
              and (? is null or version = ?)
              and status in ('COMPLETED', 'FAILED')
            ",
        );
        let values = values![&key.batch_id, &key.job_id, token, token];
        self.optional(batch, values, rows::batch_index).await
    }
}

/// Locks the batches of records that have a token against a new claim, in the lock order.
async fn lock_leases(session: &mut Conn, records: &[RecordWrite]) -> Result<Leases> {
    // MariaDB has no `for share`.
    static LOCK: MultiRow = MultiRow::new(
        "
        select id, jobId, version
        from batchactions_batches
        where id in (",
        "?",
        ")
        order by jobId, batchIndex
        lock in share mode
        ",
    );
    let fenced = records.iter().filter(|write| write.token.is_some());
    let mut batch_ids: Vec<&str> = fenced.map(|write| &*write.batch_id).collect();
    batch_ids.sort_unstable();
    batch_ids.dedup();
    let mut leases = Leases::default();
    for chunk in key_chunks(&batch_ids) {
        let lock = sql("save_fenced_records_lock", LOCK.text(chunk.len()));
        let values = chunk.iter().copied().map(Value::from).collect();
        session.each(lock, values, |row| leases.add(row)).await?;
    }
    Ok(leases)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Records

/// Sorts rows, which arrive in any order, by index. A server would sort the JSON along with the keys, and fail if that exceeds its sort buffer (256
/// kB on MySQL: error 1038).
async fn read_records(session: &mut Conn, sql: Sql<'_>, values: Vec<Value<'_>>) -> Result<RecordSlices> {
    let mut records = UnorderedRecords::default();
    session
        .each(sql, values, |row| rows::record(row, |record| records.push(record)))
        .await?;
    Ok(records.into_slices())
}

// `values()` is deprecated in MySQL, but MariaDB does not support its successor.
//
// The nulls, which the columns refuse, keep the statement from overwriting another record: the collation of `jobId` treats ids that differ in case or
// accents as equal, and when MySQL has no id left, it gives a new record an id that another row has.
static UPSERT_RECORDS: MultiRow = MultiRow::new(
    "
    insert into batchactions_records (id, jobId, batchId, recordIndex, status, raw, parsed, errors, processingError)
    values ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "
    on duplicate key update
      batchId = if(jobId = values(jobId) and cast(jobId as binary) <> cast(values(jobId) as binary), null, values(batchId)),
      status = if(jobId = values(jobId) and recordIndex = values(recordIndex), values(status), null),
      raw = values(raw),
      parsed = values(parsed),
      errors = values(errors),
      processingError = values(processingError)
    ",
);

/// The values of one row of `UPSERT_RECORDS`.
const RECORD_VALUES: usize = 9;

/// Writes records that probably exist: updates them first, and inserts those that are missing.
async fn upsert_records(session: &mut Conn, server: Server, writes: &[&RecordWrite]) -> Result<()> {
    if let [write] = writes {
        return upsert_record(session, write).await;
    }
    let runs: Vec<&[&RecordWrite]> = runs(writes).collect();
    if runs.len() * SHORTEST_RUNS > writes.len() {
        return upsert_by_id(session, server, writes).await;
    }
    for chunk in runs.into_iter().flat_map(|run| statements(run, server)) {
        if update_run(session, chunk).await? < chunk.len() as u64 {
            upsert_by_id(session, server, chunk).await?;
        }
    }
    Ok(())
}

/// The average length from which runs are updated run by run.
const SHORTEST_RUNS: usize = 10;

/// Records of one batch whose indexes follow each other, as a batch's usually do.
fn runs<'a, 'r>(writes: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    writes.chunk_by(|a, b| a.record.index.checked_add(1) == Some(b.record.index) && (&a.batch_id, &a.job_id) == (&b.batch_id, &b.job_id))
}

/// The records, split into statements.
fn statements<'a, 'r>(writes: &'a [&'r RecordWrite], server: Server) -> impl Iterator<Item = &'a [&'r RecordWrite]> + use<'a, 'r> {
    by_bytes(writes, STATEMENT_BYTES.min(server.max_packet / 2)).flat_map(chunks)
}

/// Updates the existing records of a run and returns their number. `elt` picks each row's values by its place in the run, which takes MySQL two thirds
/// of the time of an upsert that names the ids.
async fn update_run(session: &mut Conn, run: &[&RecordWrite]) -> Result<u64> {
    // The null has the same purpose as in `UPSERT_RECORDS`. The index is forced, because one that `status` is part of can't be read while it changes.
    static UPDATE: MultiValue = MultiValue::new(
        "
        update batchactions_records force index (batchactions_records_job_id_record_index)
        set batchId = if(cast(convert(jobId using utf8mb4) as binary) = cast(? as binary), ?, null),
            status = elt(recordIndex - ?, $values),
            raw = elt(recordIndex - ?, $values),
            parsed = elt(recordIndex - ?, $values),
            errors = elt(recordIndex - ?, $values),
            processingError = elt(recordIndex - ?, $values)
        where jobId = ? and recordIndex between ? and ?
        ",
    );
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(0);
    };
    let before = i64::from(first.record.index) - 1;
    let mut values = Vec::with_capacity(run.len() * 5 + 10);
    values.extend(values![&first.job_id, &first.batch_id, before]);
    values.extend(run.iter().map(|write| Value::from(write.record.status.as_str())));
    values.push(before.into());
    values.extend(run.iter().map(|write| Value::from(&write.record.raw)));
    values.push(before.into());
    values.extend(run.iter().map(|write| Value::from(&write.record.parsed)));
    values.push(before.into());
    values.extend(run.iter().map(|write| Value::from(&write.record.errors)));
    values.push(before.into());
    values.extend(run.iter().map(|write| Value::from(write.record.processing_error.as_deref())));
    values.extend(values![&first.job_id, first.record.index, last.record.index]);
    let update = sql("update_run", UPDATE.text(run.len()));
    // The server counts a matching row even if nothing in it changes.
    let changed = session.execute(update, values).await;
    Ok(changed.map_err(|error| explain_upsert(error, run))?.rows)
}

async fn upsert_by_id(session: &mut Conn, server: Server, writes: &[&RecordWrite]) -> Result<()> {
    let upserts = Upserts::of(session, writes).await?;
    for part in upserts.parts(server) {
        let upsert = sql("upsert_records", UPSERT_RECORDS.text(part.len()));
        let mut values = Vec::with_capacity(part.len() * RECORD_VALUES);
        for write in part {
            push_record(&mut values, upserts.id(write), write);
        }
        let written = session.execute(upsert, values).await;
        written.map_err(|error| explain_upsert(error, part))?;
    }
    Ok(())
}

/// Inserts records, or none if one of them exists.
async fn insert_records(session: &mut Conn, statements: &[&[&RecordWrite]]) -> Result<()> {
    static INSERT: MultiRow = MultiRow::new(
        "
        insert into batchactions_records (id, jobId, batchId, recordIndex, status, raw, parsed, errors, processingError)
        values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    );
    if statements.len() > 1 {
        session.begin(BEGIN).await?;
    }
    for writes in statements {
        let mut values = Vec::with_capacity(writes.len() * RECORD_VALUES);
        for write in *writes {
            push_record(&mut values, None, write);
        }
        session.execute(sql("insert_records", INSERT.text(writes.len())), values).await?;
    }
    if statements.len() > 1 { session.commit().await } else { Ok(()) }
}

/// One statement if the record exists, and a second one if it is new.
async fn upsert_record(session: &mut Conn, write: &RecordWrite) -> Result<()> {
    let record = &write.record;
    // The null has the same purpose as in `UPSERT_RECORDS`. The column's text is compared as bytes, and converted first because the column may have
    // another character set.
    let update = sql(
        "upsert_record_update",
        "
        update batchactions_records
        set batchId = if(cast(convert(jobId using utf8mb4) as binary) = cast(? as binary), ?, null),
            status = ?,
            raw = ?,
            parsed = ?,
            errors = ?,
            processingError = ?
        where jobId = ? and recordIndex = ?
        ",
    );
    let values = values![
        &write.job_id,
        &write.batch_id,
        record.status.as_str(),
        &record.raw,
        &record.parsed,
        &record.errors,
        record.processing_error.as_deref(),
        &write.job_id,
        record.index,
    ];
    let explain = |error| explain_upsert(error, &[write]);
    // The server counts a matching row even if nothing in it changes.
    if session.execute(update, values).await.map_err(explain)?.rows > 0 {
        return Ok(());
    }
    let insert = sql("upsert_record_insert", UPSERT_RECORDS.text(1));
    let mut values = Vec::with_capacity(RECORD_VALUES);
    push_record(&mut values, None, write);
    session.execute(insert, values).await.map(drop).map_err(explain)
}

/// One row of `UPSERT_RECORDS`.
fn push_record<'r>(values: &mut Vec<Value<'r>>, id: Option<i64>, write: &'r RecordWrite) {
    let record = &write.record;
    values.extend([
        Value::BigInt(id),
        Value::from(&write.job_id),
        Value::from(&write.batch_id),
        Value::from(record.index),
        Value::from(record.status.as_str()),
        Value::from(&record.raw),
        Value::from(&record.parsed),
        Value::from(&record.errors),
        Value::from(record.processing_error.as_deref()),
    ]);
}

/// `UPSERT_RECORDS` and `upsert_record` write a null to refuse overwriting another record.
fn explain_upsert(error: Error, writes: &[&RecordWrite]) -> Error {
    match writes {
        [first, ..] if error.code == Code::Constraint && error.message.contains("'batchId'") => Error {
            message: format!(
                "records of job {} can't be stored beside those of another job, whose id this database takes for the same: it differs only in case, \
                 accents or spaces at the end. Nothing was stored",
                Quoted(&first.job_id)
            ),
            ..error
        },
        _ if error.code == Code::Constraint && error.message.contains("'status'") => Error {
            code: Code::DatabaseError,
            message: errors::NO_IDS_LEFT.to_owned(),
            ..error
        },
        _ => error,
    }
}
