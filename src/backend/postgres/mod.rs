//! Every statement for PostgreSQL.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::changed_batches::changed_batches;
use self::compression::Compression;
use self::connect::{PostgresDriver, driver};
use self::copy::RecordCopy;
use self::encoding::encoding;
use self::session_settings::{begin_text, is_pooled, quoted};
use self::types::{ColumnTypes, Conn, KnownTypes, catalogue};
use super::bulk::{STATEMENT_BYTES, by_bytes};
use super::driver::{Row, Sql, Value, sql, values};
use super::once::Once;
use super::pool::{Pool, PoolRules};
use super::schema::{DDL_LIMIT, wait_for_tables};
use super::verdicts::{self, Leases, Verdicts};
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, Examination, FREQUENT, LockedJob, PageOrder, Ping, PoolUse, ReadBatches,
    Reads, ReclaimSnapshot, Reclaimed, RecordWrite, SavedJob, Slice, StoredJob, Transaction, ping, rows,
};
use crate::error::{Code, Error, Result};
use crate::model::{
    BatchCounts, BatchEnd, BatchIndex, BatchKey, BatchPage, BatchRow, BatchState, BatchSummary, ColumnLimits, Cutoffs, Encoding,
    FinishedJob, FinishedPage, Job, JobFilter, JobRow, JobStatus, JobTable, JobTimes, ListedBatch, MaxClaims, NamedJob, PAGE_BYTES,
    RecordCopies, RecordCounts, RecordPage, RecordRange, RecordSlices, RecordStatus, Reservation, StoreStats, Token, WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::Settings;

mod changed_batches;
mod compression;
mod connect;
mod copy;
mod encoding;
mod errors;
mod examine;
mod session_settings;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/postgres/0001_tables.sql");

/// The key of the advisory lock under which tables are created: an arbitrary number of our own.
const INITIALIZE_LOCK: i64 = 0x6261_7463_6861_6374;

/// Rows in one bulk statement: enough to be fast, few enough to keep one message small.
const ROWS_PER_STATEMENT: usize = 1_000;

/// How long `wait_for_claims` waits at most, and how often it looks. A claim takes milliseconds.
const LONGEST_WAIT_FOR_CLAIMS: Duration = Duration::from_secs(2);
const LOOK_FOR_CLAIMS: Duration = Duration::from_millis(5);

pub struct Postgres {
    pool: Pool<PostgresDriver>,
    types: Arc<KnownTypes>,
    /// How a transaction begins.
    begin: Arc<str>,
    schema: Option<String>,
    copy: RecordCopy,
    compression: Arc<Compression>,
    encoding: Once<Encoding>,
    /// The port that the store connects to; none over a socket.
    port: Option<u16>,
    expects_pooler: bool,
}

struct PostgresTransaction {
    session: Conn,
    compression: Arc<Compression>,
}

#[async_trait]
impl Reads for Postgres {
    async fn limits(&self) -> Result<ColumnLimits> {
        let encoding = self
            .encoding
            .get_or_try_init(|| async { encoding(&mut self.session().await?).await })
            .await?;
        Ok(ColumnLimits {
            nul_in_text: false,
            encoding: encoding.clone(),
            ..ColumnLimits::NONE
        })
    }

    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>> {
        let mut session = self.session().await?;
        let job = session.sql(
            "job",
            r#"
            select "id"::text, "config"::text, "status"::text, "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed",
                   "batches"::text
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#,
        );
        session.optional(job, values![job_id], rows::stored_job).await
    }

    async fn job_batches(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>> {
        match self.job_batches_by_transaction(job_id, earlier).await {
            // The rows of a view don't say which transaction wrote them.
            Err(error) if error.cause.as_ref().and_then(|cause| cause.code.as_deref()) == Some("42703") => {
                let Some(job) = self.job(job_id).await? else { return Ok(None) };
                let mut session = self.session().await?;
                let batches = batch_rows_statement(&session);
                let rows = rows::all_batch_rows(&mut session, batches, values![job_id], earlier).await?;
                rows::job_batches(job, rows, earlier).map(Some)
            }
            read => read,
        }
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.session().await?;
        let after = filter.after.as_ref();
        // The table's name before the sort columns keeps them from meaning the select list's casts, for which no index gives an order.
        let jobs = session.sql(
            "list_jobs",
            r#"
            select "id"::text, "config"::text, "status"::text, "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed"
            from batchactions_jobs
            where ($1::text is null or "status" = $1::"jobs.status")
              and ($2::text is null
                or case
                  when $3::int8 is null then "startedAt" is null and "id" < $2::"jobs.id"
                  else "startedAt" is null or "startedAt" < $3 or ("startedAt" = $3 and "id" < $2::"jobs.id")
                end)
            order by batchactions_jobs."startedAt" desc nulls last, batchactions_jobs."id" desc
            limit $4
            "#,
        );
        let values = values![
            filter.status.map(JobStatus::as_str),
            after.map(|(_, id)| &**id),
            after.and_then(|(started_at, _)| *started_at),
            i64::from(filter.limit),
        ];
        session.all(jobs, values, rows::job_row).await
    }

    async fn job_row(&self, job_id: &str) -> Result<Option<JobRow>> {
        let mut session = self.session().await?;
        let job = session.sql(
            "job_row",
            r#"
            select "id"::text, "config"::text, "status"::text, "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed"
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#,
        );
        session.optional(job, values![job_id], rows::job_row).await
    }

    async fn has_frequent_status(&self, job_id: &str, page: &BatchPage) -> Result<bool> {
        let mut session = self.session().await?;
        let frequent = session.sql(
            "has_frequent_status",
            r#"
            select count(*) > $7
            from (
              select
              from batchactions_batches
              where "jobId" = $1::"batches.jobId"
                and "status" in (
                  $2::"batches.status", $3::"batches.status", $4::"batches.status", $5::"batches.status", $6::"batches.status"
                )
              limit $7 + 1
            ) counted
            "#,
        );
        let [s1, s2, s3, s4, s5] = page.status_places();
        let values = values![job_id, s1, s2, s3, s4, s5, i64::from(FREQUENT)];
        session.one(frequent, values, rows::answer).await
    }

    async fn batch_page(&self, job_id: &str, page: &BatchPage, order: PageOrder) -> Result<Vec<BatchSummary>> {
        let mut session = self.session().await?;
        let batches = match order {
            // `"status"::text || ''` keeps the planner off the status index, as in `claim`.
            PageOrder::ByIndex => session.sql(
                "batch_page",
                r#"
                select "id"::text, "batchIndex"::int4, "status"::text, "processedCount"::int4, "failedCount"::int4,
                       "recordStartIndex"::int4, "recordEndIndex"::int4, "workerId"::text, "claimedAt"::int8
                from batchactions_batches
                where "jobId" = $1::"batches.jobId"
                  and "batchIndex" > $2
                  and ($3::text is null or "status"::text || '' in ($3::text, $4::text, $5::text, $6::text, $7::text))
                order by batchactions_batches."batchIndex"
                limit $8
                "#,
            ),
            // The index is an expression here, so that no index gives the order, as in `records_with_status`.
            PageOrder::ByStatus => session.sql(
                "batch_page_by_status",
                r#"
                select "id"::text, "batchIndex"::int4, "status"::text, "processedCount"::int4, "failedCount"::int4,
                       "recordStartIndex"::int4, "recordEndIndex"::int4, "workerId"::text, "claimedAt"::int8
                from batchactions_batches
                where "jobId" = $1::"batches.jobId"
                  and "batchIndex"::int8 + 0 > $2
                  and "status" in (
                    $3::"batches.status", $4::"batches.status", $5::"batches.status", $6::"batches.status", $7::"batches.status"
                  )
                order by "batchIndex"::int8 + 0
                limit $8
                "#,
            ),
        };
        let [s1, s2, s3, s4, s5] = page.status_places();
        let after = page.after.map_or(i64::MIN, i64::from);
        let values = values![job_id, after, s1, s2, s3, s4, s5, i64::from(page.limit)];
        session.all(batches, values, rows::batch_summary).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        let mut session = self.session().await?;
        // One status each, so that an index gives the number of batches without their rows. `case` keeps finished jobs from being looked up.
        let stats = session.sql(
            "stats",
            r#"
            select j."status"::text,
                   count(*),
                   coalesce(sum(case when j."isOpen" then (
                     select count(*) from batchactions_batches where "jobId" = j."id"::"batches.jobId" and "status" = 'PENDING'
                   ) end), 0)::int8,
                   coalesce(sum(case when j."isOpen" then (
                     select count(*) from batchactions_batches where "jobId" = j."id"::"batches.jobId" and "status" = 'PROCESSING'
                   ) end), 0)::int8,
                   coalesce(sum(case when j."isOpen" then (
                     select count(*) from batchactions_batches where "jobId" = j."id"::"batches.jobId" and "status" = 'PAUSED'
                   ) end), 0)::int8,
                   (extract(epoch from clock_timestamp()) * 1000)::bigint - min(case when j."isOpen" then (
                     select min("claimedAt")::int8 from batchactions_batches where "jobId" = j."id"::"batches.jobId" and "status" = 'PROCESSING'
                   ) end),
                   (extract(epoch from clock_timestamp()) * 1000)::bigint - min(case when j."isOpen" then (
                     select min("claimedAt")::int8 from batchactions_batches where "jobId" = j."id"::"batches.jobId" and "status" = 'PAUSED'
                   ) end)
            from (
              select "id"::text, "status", "distributed" and "status"::text not in ('COMPLETED', 'ABORTED', 'FAILED') as "isOpen"
              from batchactions_jobs
            ) j
            group by j."status"
            "#,
        );
        rows::stats(&mut session, stats).await
    }

    async fn ping(&self) -> Result<Ping> {
        // Not `self.session()`, which looks at the tables.
        let mut session = self.pool.acquire().await?;
        let clock = sql(
            "server_clock",
            "select pg_catalog.current_setting('server_version'), (extract(epoch from clock_timestamp()) * 1000)::bigint",
        );
        let pong = ping::ping(&mut session, clock).await?;
        // Debian's, say, adds its own version: `15.20 (Debian 15.20-0+deb12u1)`.
        Ok(pong.of("PostgreSQL", |version| version.split(' ').next().unwrap_or(version)))
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.session().await?;
        let times = session.sql(
            "job_times",
            r#"
            select "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed",
                   (extract(epoch from clock_timestamp()) * 1000)::bigint
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#,
        );
        session.optional(times, values![job_id], rows::job_times).await
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.session().await?;
        let count = session.sql(
            "count_batches",
            r#"
            select count(*), max("batchIndex")::int4
            from batchactions_batches
            where "jobId" = $1::"batches.jobId"
            "#,
        );
        session.one(count, values![job_id], rows::batch_total).await
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.session().await?;
        let last = session.sql(
            "last_batch_index",
            r#"
            select max("batchIndex")::int4
            from batchactions_batches
            where "jobId" = $1::"batches.jobId"
            "#,
        );
        session.one(last, values![job_id], |row| rows::optional_batch_index(row, 0)).await
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let mut session = self.session().await?;
        let has_row = session.sql(
            "has_batch_row",
            r#"
            select exists (
              select
              from batchactions_batches
              where "id" = $2::"batches.id" and "jobId" = $1::"batches.jobId"
            )
            "#,
        );
        session.one(has_row, values![&key.job_id, &key.batch_id], rows::answer).await
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        has_open_batch(&mut self.session().await?, job_id, from).await
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        let mut session = self.session().await?;
        let counts = session.sql(
            "batch_counts",
            r#"
            select "status"::text, count(*)
            from batchactions_batches
            where "jobId" = $1::"batches.jobId"
            group by "status"
            "#,
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::batch_counts)
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.session().await?;
        let counts = session.sql(
            "record_counts",
            r#"
            select "status"::text, count(*)
            from batchactions_records
            where "jobId" = $1::"records.jobId"
            group by "status"
            "#,
        );
        session
            .all(counts, values![job_id], rows::status_count)
            .await
            .map(rows::record_counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.session().await?;
        let snapshot = session.sql(
            "claim_snapshot",
            r#"
            select "status"::text,
                   "distributed",
                   exists (select from batchactions_batches where "jobId" = $1::"batches.jobId"),
                   exists (select from batchactions_batches where "jobId" = $1::"batches.jobId" and "status" = 'PENDING')
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#,
        );
        session.optional(snapshot, values![job_id], rows::claim_snapshot).await
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.session().await?;
        let snapshot = session.sql(
            "reclaim_snapshot",
            r#"
            select exists (select from batchactions_batches where "jobId" = $1::"batches.jobId"),
                   exists (
                     select from batchactions_batches
                     where "jobId" = $1::"batches.jobId"
                       and "status" = 'PROCESSING'
                       and ("claimedAt" is null or "claimedAt" < (extract(epoch from clock_timestamp()) * 1000)::bigint - $2)
                   ),
                   coalesce(
                     (
                       select "status" in ('PENDING', 'PROCESSING', 'PAUSED')
                       from batchactions_batches
                       where "jobId" = $1::"batches.jobId" and "batchIndex" = $3
                     ),
                     false
                   )
                   or exists (
                     select from batchactions_batches
                     where "jobId" = $1::"batches.jobId" and "status" in ('PENDING', 'PROCESSING', 'PAUSED')
                   )
            "#,
        );
        let values = values![job_id, older_than.as_millis() as i64, from.unwrap_or(BatchIndex::LOWEST)];
        session.one(snapshot, values, rows::reclaim_snapshot).await
    }

    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        // Sorted by an expression, so that no index gives the order: with the index of record indexes, the planner would read all of the job's
        // records to find the few with the status.
        let records = session.sql(
            "records_with_status",
            r#"
            select "recordIndex"::int4, "raw"::text, "parsed"::text, "status"::text, "errors"::text, "processingError"::text
            from batchactions_records
            where "jobId" = $1::"records.jobId" and "status" in ($2::"records.status", $3::"records.status")
            order by "recordIndex"::int8 + 0
            "#,
        );
        let values = values![job_id, statuses[0].as_str(), statuses[1].as_str()];
        rows::ordered_records(&mut session, records, values).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        // Sorted by an expression, as in `records_with_status`.
        let records = session.sql(
            "records_of_batch",
            r#"
            select "recordIndex"::int4, "raw"::text, "parsed"::text, "status"::text, "errors"::text, "processingError"::text
            from batchactions_records
            where "jobId" = $1::"records.jobId" and "batchId" = $2::"records.batchId"
            order by "recordIndex"::int8 + 0
            "#,
        );
        rows::ordered_records(&mut session, records, values![&key.job_id, &key.batch_id]).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        // The lengths are computed outside the subquery with the limit, so only for its rows. A value stored out of line is fetched for its length,
        // and again if it is on the page.
        macro_rules! page {
            ($candidates:literal) => {
                concat!(
                    r#"
                    select "recordIndex"::int4, "raw"::text, "parsed"::text, "status"::text, "errors"::text, "processingError"::text
                    from (
                      select *, sum("bytes") over (order by "recordIndex") as "upTo"
                      from (
                        select *, 100 + octet_length("raw"::text)::int8 + octet_length("parsed"::text) + octet_length("errors"::text)
                          + coalesce(octet_length("processingError"), 0) as "bytes"
                        from ("#,
                    $candidates,
                    r#") candidates
                      ) measured
                    ) page
                    where "upTo" <= $9 or "upTo" = "bytes"
                    order by page."recordIndex"
                    "#
                )
            };
        }
        let records = match &page.batch_id {
            None => session.sql(
                "record_page",
                page!(
                    r#"
                          select "recordIndex", "raw", "parsed", "status", "errors", "processingError"
                          from batchactions_records
                          where "jobId" = $1::"records.jobId" and "recordIndex" > $2 and "status" in (
                              $3::"records.status", $4::"records.status", $5::"records.status", $6::"records.status", $7::"records.status"
                            )
                          order by "recordIndex"
                          limit $8
                    "#
                ),
            ),
            // Sorted by an expression, as in `records_with_status`.
            Some(_) => session.sql(
                "record_page_of_batch",
                page!(
                    r#"
                          select "recordIndex", "raw", "parsed", "status", "errors", "processingError"
                          from batchactions_records
                          where "jobId" = $1::"records.jobId" and "batchId" = $10::"records.batchId" and "recordIndex" > $2 and "status" in (
                              $3::"records.status", $4::"records.status", $5::"records.status", $6::"records.status", $7::"records.status"
                            )
                          order by "recordIndex"::int8 + 0
                          limit $8
                    "#
                ),
            ),
        };
        let [s1, s2, s3, s4, s5] = page.status_places();
        let after = page.after.map_or(i64::MIN, i64::from);
        let mut values = values![job_id, after, s1, s2, s3, s4, s5, i64::from(page.limit), PAGE_BYTES];
        values.extend(page.batch_id.as_ref().map(Value::from));
        rows::ordered_records(&mut session, records, values).await
    }

    async fn now(&self) -> Result<i64> {
        let mut session = self.session().await?;
        let now = sql("now", "select (extract(epoch from clock_timestamp()) * 1000)::bigint");
        session.one(now, values![], |row| row.number(0)).await
    }

    async fn record_range(&self, key: &BatchKey) -> Result<Option<RecordRange>> {
        let mut session = self.session().await?;
        let range = session.sql(
            "record_range",
            r#"
            select count(*), min("recordIndex")::int4, max("recordIndex")::int4
            from batchactions_records
            where "jobId" = $1::"records.jobId" and "batchId" = $2::"records.batchId"
            "#,
        );
        session.one(range, values![&key.job_id, &key.batch_id], rows::record_range).await
    }

    async fn finished_jobs(&self, page: &FinishedPage) -> Result<Vec<FinishedJob>> {
        let mut session = self.session().await?;
        let jobs = session.sql(
            "finished_jobs",
            r#"
            select job."id"::text,
                   coalesce(job."completedAt", job."startedAt")::int8,
                   exists (
                     select
                     from batchactions_batches
                     where "jobId" = job."id"::text::"batches.jobId"
                       and "status" in ('PROCESSING', 'PAUSED')
                       and "workerId" is not null
                       and "claimedAt" > $5
                   )
            from batchactions_jobs job
            where job."status" in ($1::"jobs.status", $2::"jobs.status", $3::"jobs.status")
              and coalesce(job."completedAt", job."startedAt") <= $4
              and ($6::int8 is null
                or coalesce(job."completedAt", job."startedAt") > $6
                or coalesce(job."completedAt", job."startedAt") = $6 and job."id" > $7::"jobs.id")
            order by coalesce(job."completedAt", job."startedAt"), job."id"
            limit $8
            "#,
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
            i64::from(page.limit),
        ];
        session.all(jobs, values, rows::finished_job).await
    }

    async fn named_jobs(&self, table: JobTable, after: Option<&str>, most: i32) -> Result<Vec<NamedJob>> {
        // Each step looks up the next job in the index, so that the rows in between are not read. The first step has no condition where there is none:
        // one that might be null would not be looked up.
        macro_rules! named {
            ($table:literal, $type:literal, $first:literal) => {
                concat!(
                    r#"
                    with recursive named ("jobId", number) as (
                      (
                        select "jobId"::text, $1::int4
                        from "#,
                    $table,
                    $first,
                    r#"
                        order by "#,
                    $table,
                    r#"."jobId"
                        limit 1
                      )
                      union all
                      select (
                               select next."jobId"::text
                               from "#,
                    $table,
                    r#" next
                               where next."jobId" > named."jobId"::"#,
                    $type,
                    r#"
                               order by next."jobId"
                               limit 1
                             ),
                             named.number - 1
                      from named
                      where named."jobId" is not null and named.number > 1
                    )
                    select named."jobId", exists (select from batchactions_jobs job where job."id" = named."jobId"::"jobs.id")
                    from named
                    where named."jobId" is not null
                    "#
                )
            };
        }
        let mut session = self.session().await?;
        let named = match (table, after) {
            (JobTable::Batches, None) => session.sql("named_jobs_batches", named!("batchactions_batches", r#""batches.jobId""#, "")),
            (JobTable::Batches, Some(_)) => session.sql(
                "named_jobs_batches_after",
                named!(
                    "batchactions_batches",
                    r#""batches.jobId""#,
                    r#"
                        where "jobId" > $2::"batches.jobId""#
                ),
            ),
            (JobTable::Records, None) => session.sql("named_jobs_records", named!("batchactions_records", r#""records.jobId""#, "")),
            (JobTable::Records, Some(_)) => session.sql(
                "named_jobs_records_after",
                named!(
                    "batchactions_records",
                    r#""records.jobId""#,
                    r#"
                        where "jobId" > $2::"records.jobId""#
                ),
            ),
        };
        let mut values = values![most];
        values.extend(after.map(Value::from));
        session.all(named, values, rows::named_job).await
    }

    async fn record_count(&self, job_id: &str) -> Result<i64> {
        let mut session = self.session().await?;
        let count = session.sql(
            "record_count",
            r#"
            select count(*)
            from batchactions_records
            where "jobId" = $1::"records.jobId"
            "#,
        );
        session.one(count, values![job_id], |row| row.number(0)).await
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn initialize(&self, gate: &Gate) -> Result<()> {
        let mut session = self.session().await?;
        let session = &mut session;
        if catalogue(session).await?.missing(MIGRATION)?.is_empty() {
            return Ok(());
        }
        session.begin(&self.begin).await?;
        lock_initialize(session, gate).await?;
        if let Some(schema) = &self.schema {
            make_schema(session, schema).await?;
        }
        // Another process may have created them while this one waited for the lock.
        let found = catalogue(session).await?;
        // No index takes long to create on new tables.
        let limit = if found.is_empty() { None } else { Some(DDL_LIMIT) };
        if limit.is_some() {
            session.run("set local statement_timeout = 0").await?;
            session.run("set local lock_timeout = 0").await?;
        }
        for statement in found.missing(MIGRATION)? {
            match limit {
                Some(limit) => session.define(statement, limit).await,
                None => session.run(statement).await,
            }
            .map_err(no_schema)?;
        }
        catalogue(session).await?.check_made(MIGRATION)?;
        session.commit().await
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
        let mut session = self.session().await?;
        session.begin(&self.begin).await?;
        Ok(Box::new(PostgresTransaction {
            session,
            compression: self.compression.clone(),
        }))
    }

    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob> {
        let mut session = self.session().await?;
        let inserted = upsert_job(&mut session, &self.compression, job, keep_final).await?;
        let has_rows = session.sql(
            "save_job_has_rows",
            r#"
            select exists (
              select
              from batchactions_batches
              where "jobId" = $1::"batches.jobId"
            )
            "#,
        );
        let has_rows = session.one(has_rows, values![&job.id], rows::answer).await?;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.session().await?;
        // `"status"::text || ''` keeps the planner on the index of batch indexes, which has the next batch first; with the status index, it would
        // sort all pending batches.
        let claim = session.sql(
            "claim",
            r#"
            update batchactions_batches
            set "status" = 'PROCESSING',
                "workerId" = $2::"batches.workerId",
                "claimedAt" = (extract(epoch from clock_timestamp()) * 1000)::bigint,
                "version" = "version" + 1
            where "id" = (
              select "id"
              from batchactions_batches
              where "jobId" = $1::"batches.jobId"
                and "batchIndex" >= $3
                and "status"::text || '' = 'PENDING'
                and exists (select from batchactions_jobs where "id" = $1::"jobs.id" and "status" = 'PROCESSING')
              order by "batchIndex"
              limit 1
              for update skip locked
            )
            returning "id"::text, "batchIndex"::int4, "claimedAt"::int8, "recordStartIndex"::int4, "recordEndIndex"::int4, "version"::int4,
                      (select max("batchIndex")::int4 from batchactions_batches where "jobId" = $1::"batches.jobId")
            "#,
        );
        let values = values![job_id, worker_id, from.unwrap_or(BatchIndex::LOWEST)];
        session
            .optional(claim, values, |row| rows::reservation(row, job_id, worker_id))
            .await
    }

    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let mut session = self.session().await?;
        let set = session.sql(
            "set_batch_state",
            r#"
            update batchactions_batches
            set "status" = $3::"batches.status", "processedCount" = $4, "failedCount" = $5
            where "id" = $2::"batches.id"
              and "jobId" = $1::"batches.jobId"
              and ($6::int4 is null or "version" = $6)
              and not ($7 and "status" in ('COMPLETED', 'FAILED'))
            returning "batchIndex"::int4
            "#,
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

    /// One round trip, because an import that is not distributed has no rows and calls this twice for each batch.
    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        let mut session = self.session().await?;
        // Always returns one row: `(select) one` is a row without columns, and the updated row and the job are joined to it if they exist. The job is
        // read only if no row was updated.
        let set = session.sql(
            "set_unclaimed_batch_state",
            r#"
            with changed as (
              update batchactions_batches
              set "status" = $3::"batches.status", "processedCount" = $4, "failedCount" = $5
              where "id" = $2::"batches.id"
                and "jobId" = $1::"batches.jobId"
                and not ($7 and "status" in ('COMPLETED', 'FAILED'))
              returning "batchIndex"
            )
            select list."distributed", list."hasRows", list."hasId", list."distributed" is not null, changed."batchIndex"::int4
            from (select) one
              left join changed on true
              left join lateral (
                select "distributed",
                       exists (select from batchactions_batches where "jobId" = $1::"batches.jobId") as "hasRows",
                       strpos("batches"::text, $6) > 0 as "hasId"
                from batchactions_jobs
                where "id" = $1::"jobs.id" and not exists (select from changed)
              ) list on true
            "#,
        );
        let values = values![
            &key.job_id,
            &key.batch_id,
            state.status.as_str(),
            state.processed,
            state.failed,
            in_json(&key.batch_id),
            keep_final,
        ];
        let (changed, list) = session
            .one(set, values, |row| {
                let list = row.boolean(3)?.then(|| rows::list_snapshot(row)).transpose()?;
                Ok((rows::optional_batch_index(row, 4)?, list))
            })
            .await?;
        let done = match changed {
            None if keep_final => session.final_batch(key, None).await?,
            changed => changed,
        };
        Ok(BatchPlace::of(done, list))
    }

    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let mut session = self.session().await?;
        let release = session.sql(
            "release",
            r#"
            update batchactions_batches
            set "status" = 'PENDING', "workerId" = null, "claimedAt" = null, "version" = "version" + 1
            where "id" = $2::"batches.id"
              and "jobId" = $1::"batches.jobId"
              and "status" = 'PROCESSING'
              and "workerId" = $3::"batches.workerId"
              and ($4::int4 is null or "version" = $4)
            returning "batchIndex"::int4
            "#,
        );
        let values = values![&key.job_id, &key.batch_id, worker_id, token];
        let changed = session.optional(release, values, rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let mut session = self.session().await?;
        let renew = session.sql(
            "renew",
            r#"
            update batchactions_batches
            set "claimedAt" = (extract(epoch from clock_timestamp()) * 1000)::bigint
            where "id" = $2::"batches.id"
              and "jobId" = $1::"batches.jobId"
              and ("status" = 'PROCESSING' or $5 and "status" = 'PAUSED')
              and "workerId" = $3::"batches.workerId"
              and ($4::int4 is null or "version" = $4)
            returning "batchIndex"::int4
            "#,
        );
        let values = values![&key.job_id, &key.batch_id, worker_id, token, also_paused];
        let changed = session.optional(renew, values, rows::batch_index).await?;
        verdicts::held(&mut session, changed, key, token).await
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<Vec<Reclaimed>> {
        let mut session = self.session().await?;
        // Each claim, release and reclaim adds 1 to `version`, so the number of claims is (version + 1) / 2. A batch that is given up keeps the id of
        // its last worker.
        let reclaim = session.sql(
            "reclaim",
            r#"
            with stale as (
              select "id", "workerId"::text as worker, $3::int4 is not null and ("version"::int8 + 1) / 2 >= $3 as poisoned
              from batchactions_batches
              where "jobId" = $1::"batches.jobId"
                and "status" = 'PROCESSING'
                and ("claimedAt" is null or "claimedAt" < (extract(epoch from clock_timestamp()) * 1000)::bigint - $2)
              -- An expression, which no index can give: the few rows are to be sorted, not all of the job's to be looked at.
              order by "batchIndex"::int8 + 0
              for update skip locked
            )
            update batchactions_batches b
            set "status" = (case when poisoned then 'FAILED' else 'PENDING' end)::"batches.status",
                "workerId" = case when poisoned then "workerId" end,
                "claimedAt" = case when poisoned then "claimedAt" end,
                "version" = "version" + 1
            from stale
            where b."id" = stale."id"
            returning b."id"::text, stale.worker, stale.poisoned
            "#,
        );
        let values = values![job_id, older_than.as_millis() as i64, max_claims];
        session.all(reclaim, values, rows::reclaimed).await
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let mut session = self.session().await?;
        let session = &mut session;
        let records: Vec<&RecordWrite> = records.iter().collect();
        let parts: Vec<&[&RecordWrite]> = parts(&records).collect();
        if self.copy.write(session, &self.begin, &parts).await? {
            return Ok(());
        }
        if let [all] = *parts {
            return upsert_records(session, all).await;
        }
        session.begin(&self.begin).await?;
        for part in parts {
            upsert_records(session, part).await?;
        }
        session.commit().await
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let mut session = self.session().await?;
        let session = &mut session;
        if let Some((_, token)) = verdicts::one_claim(records) {
            let held = upsert_leased_records(session, &records.iter().collect::<Vec<_>>(), token).await?;
            return Ok(vec![held; records.len()]);
        }
        session.begin(&self.begin).await?;
        let held = lock_leases(session, records).await?.held(session, records).await?;
        for part in parts(&verdicts::kept(records, &held)) {
            upsert_records(session, part).await?;
        }
        session.commit().await?;
        Ok(held)
    }

    async fn save_records_and_end_batch(&self, records: &[RecordWrite], end: &BatchEnd) -> Result<Option<BatchIndex>> {
        let mut session = self.session().await?;
        upsert_last_records(&mut session, &records.iter().collect::<Vec<_>>(), end).await
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let empty = session.sql(
            "empty_job",
            r#"
            update batchactions_jobs
            set "status" = 'ABORTED', "batches" = '[]',
                "completedAt" = coalesce("completedAt", (extract(epoch from clock_timestamp()) * 1000)::bigint)
            where "id" = $1::"jobs.id"
            "#,
        );
        Ok(session.execute(empty, values![job_id]).await?.rows > 0)
    }

    async fn delete_batches(&self, job_id: &str, _from: Option<i64>, most: i32) -> Result<Slice> {
        let mut session = self.session().await?;
        let delete = session.sql(
            "delete_batches",
            r#"
            delete from batchactions_batches
            where "id" in (
              select "id"
              from batchactions_batches
              where "jobId" = $1::"batches.jobId"
              order by "batchIndex"
              limit $2
              for update
            )
            "#,
        );
        Ok(Slice::of(session.execute(delete, values![job_id, i64::from(most)]).await?.rows))
    }

    async fn delete_records(&self, job_id: &str, _from: Option<i64>, most: i32) -> Result<Slice> {
        let mut session = self.session().await?;
        let delete = session.sql(
            "delete_records",
            r#"
            delete from batchactions_records
            where "id" in (
              select "id"
              from batchactions_records
              where "jobId" = $1::"records.jobId"
              order by "recordIndex"
              limit $2
              for update
            )
            "#,
        );
        Ok(Slice::of(session.execute(delete, values![job_id, i64::from(most)]).await?.rows))
    }

    async fn delete_job(&self, job_id: &str, statuses: [&'static str; 3]) -> Result<bool> {
        let mut session = self.session().await?;
        let delete = session.sql(
            "delete_job",
            r#"
            delete from batchactions_jobs
            where "id" = $1::"jobs.id" and "status" in ($2::"jobs.status", $3::"jobs.status", $4::"jobs.status")
            "#,
        );
        let [s1, s2, s3] = statuses;
        Ok(session.execute(delete, values![job_id, s1, s2, s3]).await?.rows > 0)
    }

    async fn pause_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let pause = session.sql(
            "pause_job",
            r#"
            update batchactions_jobs
            set "status" = 'PAUSED'
            where "id" = $1::"jobs.id" and "status" = 'PROCESSING' and "distributed"
            "#,
        );
        Ok(session.execute(pause, values![job_id]).await?.rows > 0)
    }

    async fn wait_for_claims(&self) -> Result<()> {
        // A claim locks the table before it takes the snapshot in which it reads the job's status, and until its transaction ends. So one that has not
        // seen what is committed now holds that lock now. `pg_locks` is readable by all.
        let mut before: Option<HashSet<String>> = None;
        let started = Instant::now();
        loop {
            let under_way = self.writers_of_batches().await?;
            let left = match before.take() {
                None => under_way,
                Some(before) => before.intersection(&under_way).cloned().collect(),
            };
            if left.is_empty() || started.elapsed() >= LONGEST_WAIT_FOR_CLAIMS {
                return Ok(());
            }
            before = Some(left);
            tokio::time::sleep(LOOK_FOR_CLAIMS).await;
        }
    }

    async fn copy_records(&self, copies: &RecordCopies<'_>) -> Result<()> {
        let mut session = self.session().await?;
        let copy = session.sql(
            "copy_records",
            r#"
            insert into batchactions_records ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors")
            select $1::"records.jobId", $2::"records.batchId", source."recordIndex", 'pending'::"records.status",
                   source."raw", source."raw"::"records.parsed", '[]'::"records.errors"
            from batchactions_records source
            where source."jobId" = $3::"records.jobId"
              and source."recordIndex" > $4
              and source."status" in ($5::"records.status", $6::"records.status", $7::"records.status", $8::"records.status")
            order by source."recordIndex"
            limit $9
            on conflict ("jobId", "recordIndex") do nothing
            "#,
        );
        let [s1, s2, s3, s4] = copies.statuses;
        let after = copies.after.map_or(i64::MIN, i64::from);
        let BatchKey { job_id, batch_id } = copies.into;
        let values = values![job_id, batch_id, copies.source_id, after, s1, s2, s3, s4, i64::from(copies.limit)];
        session.execute(copy, values).await.map(drop).map_err(explain_upsert)
    }

    async fn empty_finished_job(&self, job_id: &str, cutoffs: Cutoffs) -> Result<bool> {
        let mut session = self.session().await?;
        let empty = session.sql(
            "empty_finished_job",
            r#"
            update batchactions_jobs
            set "batches" = '[]'
            where "id" = $1::"jobs.id"
              and "status" in ('COMPLETED', 'ABORTED', 'FAILED')
              and coalesce("completedAt", "startedAt") <= $2
              and not exists (
                select
                from batchactions_batches
                where "jobId" = $1::"batches.jobId"
                  and "status" in ('PROCESSING', 'PAUSED')
                  and "workerId" is not null
                  and "claimedAt" > $3
              )
            "#,
        );
        let values = values![job_id, cutoffs.ended_by, cutoffs.abandoned_by];
        Ok(session.execute(empty, values).await?.rows > 0)
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        let insert = self.session.sql(
            "insert_batches",
            r#"
            insert into batchactions_batches
              ("id", "jobId", "batchIndex", "status", "workerId", "claimedAt", "recordStartIndex", "recordEndIndex", "processedCount",
               "failedCount", "version")
            select b.id::"batches.id", $1::"batches.jobId", b.batch_index, b.status::"batches.status", b.worker_id::"batches.workerId",
                   b.claimed_at, b.first, b.last, b.processed, b.failed, 0
            from unnest($2::text[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::int4[], $8::int4[], $9::int4[], $10::int4[])
              as b (id, batch_index, status, worker_id, claimed_at, first, last, processed, failed)
            on conflict do nothing
            "#,
        );
        for chunk in batches.chunks(ROWS_PER_STATEMENT) {
            let values = values![
                job_id,
                column(chunk, |batch| &*batch.id),
                column(chunk, |batch| batch.index),
                column(chunk, |batch| batch.initial_status()),
                column(chunk, |batch| batch.worker_id.as_deref()),
                column(chunk, |batch| batch.claimed_at),
                column(chunk, |batch| batch.start),
                column(chunk, |batch| batch.end),
                column(chunk, |batch| batch.processed),
                column(chunk, |batch| batch.failed),
            ];
            self.session.execute(insert, values).await?;
        }
        Ok(())
    }

    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>> {
        let owner = self.session.sql(
            "batch_owner",
            r#"
            select "id"::text, "jobId"::text
            from batchactions_batches
            where "id" = $1::"batches.id"
            "#,
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
        upsert_job(&mut self.session, &self.compression, job, keep_final).await
    }

    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let lock = self.session.sql(
            "lock_job",
            r#"
            select "status"::text, "distributed", "batches"::text, "startedAt"::int8, (extract(epoch from clock_timestamp()) * 1000)::bigint
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            for update
            "#,
        );
        self.session.optional(lock, values![job_id], rows::locked_job).await
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        let lz4 = self.compression.takes_lz4(&mut self.session, batches).await?;
        // `set_config` is in the condition, so that the transaction already compresses with lz4 when the row is stored.
        let set = self.session.sql(
            "set_job_batches",
            r#"
            update batchactions_jobs
            set "batches" = $2::"jobs.batches"
            where "id" = $1::"jobs.id" and (not $3 or pg_catalog.set_config('default_toast_compression', 'lz4', true) is not null)
            "#,
        );
        let batches = self.session.types().json("jobs.batches", batches);
        self.session.execute(set, values![job_id, batches, lz4]).await.map(drop)
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        let lz4 = self.compression.takes_lz4(&mut self.session, batches).await?;
        // `set_config` as in `set_job_batches`.
        let finish = self.session.sql(
            "finish_job",
            r#"
            update batchactions_jobs
            set "status" = $2::"jobs.status",
                "batches" = $3::"jobs.batches",
                "completedAt" = (extract(epoch from clock_timestamp()) * 1000)::bigint
            where "id" = $1::"jobs.id" and (not $4 or pg_catalog.set_config('default_toast_compression', 'lz4', true) is not null)
            "#,
        );
        let batches = self.session.types().json("jobs.batches", batches);
        let values = values![job_id, status.as_str(), batches, lz4];
        self.session.execute(finish, values).await.map(drop)
    }

    async fn set_job_status(&mut self, job_id: &str, status: JobStatus) -> Result<()> {
        let set = self.session.sql(
            "set_job_status",
            r#"
            update batchactions_jobs
            set "status" = $2::"jobs.status"
            where "id" = $1::"jobs.id"
            "#,
        );
        self.session.execute(set, values![job_id, status.as_str()]).await.map(drop)
    }

    async fn take_claims(&mut self, job_id: &str) -> Result<Vec<Reclaimed>> {
        // The order is an expression, as in `reclaim`. A row that a claim has locked is waited for, and then seen as the claim left it. A PENDING row is
        // locked so that no claim that began before skips this transaction and takes it afterwards.
        let lock = self.session.sql(
            "take_claims_lock",
            r#"
            with open as materialized (
              select "id"::text as id, "status"::text as status, "workerId"::text as worker
              from batchactions_batches
              where "jobId" = $1::"batches.jobId" and "status" in ('PENDING', 'PROCESSING', 'PAUSED')
              order by "batchIndex"::int8 + 0
              for update
            )
            select id, worker, false
            from open
            where status = 'PROCESSING' or status = 'PAUSED' and worker is not null
            "#,
        );
        let held = self.session.all(lock, values![job_id], rows::reclaimed).await?;
        let take = self.session.sql(
            "take_claims",
            r#"
            update batchactions_batches
            set "status" = 'PENDING', "workerId" = null, "claimedAt" = null, "version" = "version" + 1
            where "id" = any($1::"batches.id"[])
            "#,
        );
        for ids in held.chunks(ROWS_PER_STATEMENT) {
            let ids: Vec<&str> = ids.iter().map(|batch| &*batch.batch_id).collect();
            self.session.execute(take, values![ids]).await?;
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

impl Postgres {
    /// The transactions that write batches at this moment, or did and have not ended.
    async fn writers_of_batches(&self) -> Result<HashSet<String>> {
        let mut session = self.session().await?;
        let writers = session.sql(
            "writers_of_batches",
            r#"
            select "virtualtransaction"::text
            from pg_catalog.pg_locks
            where "locktype" = 'relation'
              and "database" = (select "oid" from pg_catalog.pg_database where "datname" = pg_catalog.current_database())
              and "relation" = 'batchactions_batches'::pg_catalog.regclass
              and "mode" = 'RowExclusiveLock'
              and "granted"
            "#,
        );
        let writers = session.all(writers, values![], |row| row.text(0).map(str::to_owned)).await?;
        Ok(writers.into_iter().collect())
    }

    pub fn new(settings: Settings) -> Self {
        // The test of the plans explains its statements under the same settings.
        #[cfg(feature = "test-hooks")]
        super::recorded_statements::record(sql("planner_settings", &self::session_settings::planner_statements()));
        let begin: Arc<str> = begin_text(&settings).into();
        let rules = PoolRules {
            begin_each: is_pooled(&settings).then(|| begin.clone()),
            ..PoolRules::of(&settings)
        };
        Self {
            pool: Pool::new(&settings, driver(&settings), rules),
            types: Arc::default(),
            begin,
            port: settings.socket.is_none().then_some(settings.port),
            expects_pooler: is_pooled(&settings),
            schema: settings.schema,
            copy: RecordCopy::default(),
            compression: Arc::default(),
            encoding: Once::new(),
        }
    }

    async fn job_batches_by_transaction(&self, job_id: &str, earlier: Option<&ReadBatches>) -> Result<Option<(JobRow, ReadBatches)>> {
        let mut session = self.session().await?;
        if let Some(earlier) = earlier
            && let Some(horizon) = &earlier.horizon
        {
            let Some(read) = changed_batches(&mut session, job_id, Some(horizon)).await? else {
                return Ok(None);
            };
            if let Some(read) = read.after(earlier, horizon)? {
                return Ok(Some(read));
            }
        }
        // In one transaction, because a pooler may send two to two servers, and what one has seen says nothing about the other's rows.
        session.begin(&self.begin).await?;
        let job = changed_batches(&mut session, job_id, None).await?;
        let batches = batch_rows_statement(&session);
        let rows = rows::all_batch_rows(&mut session, batches, values![job_id], earlier).await?;
        session.commit().await?;
        job.map(|job| job.with_all(rows, earlier)).transpose()
    }

    async fn session(&self) -> Result<Conn> {
        Conn::new(self.pool.acquire().await?, &self.types).await
    }
}

/// Waits for the lock under which one process creates the tables. It polls instead of waiting in the server, so that it notices a server that stops
/// answering.
async fn lock_initialize(session: &mut Conn, gate: &Gate) -> Result<()> {
    let deadline = Instant::now() + DDL_LIMIT;
    let lock = sql("initialize_lock", "select pg_catalog.pg_try_advisory_xact_lock($1)");
    while !session.one(lock, values![INITIALIZE_LOCK], rows::answer).await? {
        wait_for_tables(gate, deadline).await?;
    }
    Ok(())
}

async fn make_schema(session: &mut Conn, schema: &str) -> Result<()> {
    let exists = sql(
        "initialize_schema",
        "
        select exists (
          select
          from pg_catalog.pg_namespace
          where nspname = $1
        )
        ",
    );
    if session.one(exists, values![schema], rows::answer).await? {
        return Ok(());
    }
    session.run(&format!("create schema {}", quoted(schema))).await
}

/// The error of a missing schema, when `initialize` meets it.
fn no_schema(error: Error) -> Error {
    match error.cause.as_ref().and_then(|cause| cause.code.as_deref()) {
        Some("3F000") => Error {
            message:
                "none of the schemas in the search_path of the database user exists, so the tables can't be created: create one of them, or set the option schema"
                    .to_owned(),
            ..error
        },
        _ => error,
    }
}

/// One column of rows as an array. `unnest` turns the arrays back into rows, so one statement text serves any number of rows.
fn column<'r, R, T>(rows: &[&'r R], of: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Jobs

/// Whether the job's row was inserted.
async fn upsert_job(session: &mut Conn, compression: &Compression, job: &Job, keep_final: bool) -> Result<bool> {
    let lz4 = compression.takes_lz4(session, &job.batches).await?;
    // A row that this statement inserted has no `xmax`; one that it updated was locked by it first. `set_config` as in `set_job_batches`.
    let upsert = session.sql(
        "upsert_job",
        r#"
        insert into batchactions_jobs as job
          ("id", "status", "config", "batches", "totalRecords", "startedAt", "completedAt", "distributed")
        select $1::"jobs.id", $2::"jobs.status", $3::"jobs.config", $4::"jobs.batches", $5, $6,
               coalesce($7, case when $10 then (extract(epoch from clock_timestamp()) * 1000)::bigint end),
               $8
        where not $9 or pg_catalog.set_config('default_toast_compression', 'lz4', true) is not null
        on conflict ("id") do update
        set "status" = case
              when $11 and job."status"::text in ('COMPLETED', 'ABORTED', 'FAILED') then job."status"
              else excluded."status"
            end,
            "config" = excluded."config",
            "batches" = excluded."batches",
            "totalRecords" = excluded."totalRecords",
            "startedAt" = excluded."startedAt",
            "completedAt" = case
              when $11 and job."status"::text in ('COMPLETED', 'ABORTED', 'FAILED') or $10 and $7 is null
                then coalesce(job."completedAt", excluded."completedAt")
              else excluded."completedAt"
            end,
            "distributed" = excluded."distributed"
        returning job.xmax = 0
        "#,
    );
    let types = session.types();
    let values = values![
        &job.id,
        job.status.as_str(),
        types.json("jobs.config", &job.config),
        types.json("jobs.batches", &job.batches),
        job.total_records,
        job.started_at,
        job.completed_at,
        job.distributed,
        lz4,
        job.status.is_final(),
        keep_final,
    ];
    session.one(upsert, values, rows::answer).await
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Batches

fn batch_rows_statement(session: &Conn) -> Sql<'static> {
    // The sort column has the table's name before it, as in `list_jobs`.
    session.sql(
        "batch_rows",
        r#"
        select "id"::text, "batchIndex"::int4, "status"::text, "workerId"::text, "claimedAt"::int8, "processedCount"::int4, "failedCount"::int4
        from batchactions_batches
        where "jobId" = $1::"batches.jobId"
        order by batchactions_batches."batchIndex"
        "#,
    )
}

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    let batches = batch_rows_statement(session);
    session.all(batches, values![job_id], rows::batch_row).await
}

async fn has_open_batch(session: &mut Conn, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
    let has_open = session.sql(
        "has_open_batch",
        r#"
        select coalesce(
                 (
                   select "status" in ('PENDING', 'PROCESSING', 'PAUSED')
                   from batchactions_batches
                   where "jobId" = $1::"batches.jobId" and "batchIndex" = $2
                 ),
                 false
               )
               or exists (
                 select from batchactions_batches
                 where "jobId" = $1::"batches.jobId" and "status" in ('PENDING', 'PROCESSING', 'PAUSED')
               )
        "#,
    );
    let values = values![job_id, from.unwrap_or(BatchIndex::LOWEST)];
    session.one(has_open, values, rows::answer).await
}

#[async_trait]
impl Verdicts for Conn {
    async fn version(&mut self, key: &BatchKey) -> Result<Option<Token>> {
        let version = self.sql(
            "version",
            r#"
            select "version"::int4
            from batchactions_batches
            where "id" = $1::"batches.id" and "jobId" = $2::"batches.jobId"
            "#,
        );
        self.optional(version, values![&key.batch_id, &key.job_id], rows::token).await
    }

    async fn final_batch(&mut self, key: &BatchKey, token: Option<Token>) -> Result<Option<BatchIndex>> {
        let batch = self.sql(
            "final_batch",
            r#"
            select "batchIndex"::int4
            from batchactions_batches
            where "id" = $2::"batches.id"
              and "jobId" = $1::"batches.jobId"
              and ($3::int4 is null or "version" = $3)
              and "status" in ('COMPLETED', 'FAILED')
            "#,
        );
        self.optional(batch, values![&key.job_id, &key.batch_id, token], rows::batch_index)
            .await
    }
}

/// Locks the batches of records that have a token against a new claim.
async fn lock_leases(session: &mut Conn, records: &[RecordWrite]) -> Result<Leases> {
    let fenced = records.iter().filter(|write| write.token.is_some());
    let batch_ids: Vec<&str> = fenced.map(|write| &*write.batch_id).collect();
    // In the lock order. `|| ''` makes the order an expression, so that the server sorts these few batches instead of reading all batches of the
    // table in the order of an index.
    let lock = session.sql(
        "save_fenced_records_lock",
        r#"
        select "id"::text, "jobId"::text, "version"::int4
        from batchactions_batches
        where "id" = any($1::"batches.id"[])
        order by "jobId"::text || '', "batchIndex"
        for share
        "#,
    );
    let mut leases = Leases::default();
    session.each(lock, values![batch_ids], |row| leases.add(row)).await?;
    Ok(leases)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Records

/// The records, split into statements.
fn parts<'a, 'r>(records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES).flat_map(|part| part.chunks(ROWS_PER_STATEMENT))
}

/// The statement that writes the records of `$given` if `$lease` returns a row, a batch's index, and returns that. It updates existing records and inserts
/// only missing ones, because an upsert takes an id from the sequence for each row, inserted or not. If another transaction inserts a record
/// meanwhile, the insert's conflict clause updates it.
macro_rules! upsert_text {
    ($lease:literal, $given:expr) => {
        concat!(
            "with lease as (",
            $lease,
            r#"
            ),
            changed as (
              update batchactions_records record
              set "batchId" = given."batchId",
                  "status" = given."status",
                  "raw" = given."raw"::"records.raw",
                  "parsed" = given."parsed"::"records.parsed",
                  "errors" = given."errors"::"records.errors",
                  "processingError" = given."processingError"
              from lease, ("#,
            $given,
            r#"
              ) given
              where record."jobId" = given."jobId" and record."recordIndex" = given."recordIndex"
              returning record."jobId", record."recordIndex"
            ),
            added as (
              insert into batchactions_records
                ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError")
              select given."jobId", given."batchId", given."recordIndex", given."status",
                     given."raw"::"records.raw", given."parsed"::"records.parsed", given."errors"::"records.errors", given."processingError"
              from lease, ("#,
            $given,
            r#"
              ) given
              where not exists (
                select from changed
                where changed."jobId" = given."jobId" and changed."recordIndex" = given."recordIndex"
              )
              on conflict ("jobId", "recordIndex") do update
              set "batchId" = excluded."batchId",
                  "status" = excluded."status",
                  "raw" = excluded."raw",
                  "parsed" = excluded."parsed",
                  "errors" = excluded."errors",
                  "processingError" = excluded."processingError"
            )
            select (select "batchIndex"::int4 from lease)
            "#
        )
    };
}

/// A single record's values as a row, without arrays, which would take a third of the statement's time.
macro_rules! one_record {
    () => {
        r#"
                select $1::text::"records.jobId" as "jobId", $2::text::"records.batchId" as "batchId", $3::int4 as "recordIndex",
                       $4::text::"records.status" as "status", $5::text as "raw", $6::text as "parsed", $7::text as "errors",
                       $8::text as "processingError""#
    };
}

/// Turns arrays of values into rows. `unnest` is in the select list, where the server produces one row at a time; in `from`, it would first
/// materialize all of them.
macro_rules! many_records {
    () => {
        r#"
                select unnest($1::text[])::"records.jobId" as "jobId", unnest($2::text[])::"records.batchId" as "batchId",
                       unnest($3::int4[]) as "recordIndex", unnest($4::text[])::"records.status" as "status",
                       unnest($5::text[]) as "raw", unnest($6::text[]) as "parsed", unnest($7::text[]) as "errors",
                       unnest($8::text[]) as "processingError""#
    };
}

async fn upsert_records(session: &mut Conn, writes: &[&RecordWrite]) -> Result<()> {
    let upsert = match writes {
        [_] => session.sql("upsert_record", upsert_text!(r#"select 0 as "batchIndex""#, one_record!())),
        _ => session.sql("upsert_records", upsert_text!(r#"select 0 as "batchIndex""#, many_records!())),
    };
    let values = record_values(session.types(), writes);
    upserted(session, upsert, values).await.map(drop)
}

/// Writes records of one claim: a single statement locks the lease and writes the rows. `for share` waits for a concurrent claim and then checks the
/// version again, which `exists` would not.
async fn upsert_leased_records(session: &mut Conn, writes: &[&RecordWrite], token: Token) -> Result<bool> {
    let upsert = match writes {
        [_] => session.sql(
            "upsert_leased_record",
            upsert_text!(
                r#"
              select "batchIndex"
              from batchactions_batches
              where "id" = $2::"batches.id" and "jobId" = $1::"batches.jobId" and "version" = $9
              for share"#,
                one_record!()
            ),
        ),
        _ => session.sql(
            "upsert_leased_records",
            // All records have the same batch, so the first one names it.
            upsert_text!(
                r#"
              select "batchIndex"
              from batchactions_batches
              where "id" = $2[1]::"batches.id" and "jobId" = $1[1]::"batches.jobId" and "version" = $9
              for share"#,
                many_records!()
            ),
        ),
    };
    let mut values = record_values(session.types(), writes);
    values.push(token.into());
    upserted(session, upsert, values).await.map(|batch| batch.is_some())
}

/// Writes the last records of a claim and its batch's final state. The update waits for a concurrent claim and then checks the version again.
async fn upsert_last_records(session: &mut Conn, writes: &[&RecordWrite], end: &BatchEnd) -> Result<Option<BatchIndex>> {
    let upsert = match writes {
        [_] => session.sql(
            "upsert_last_record",
            upsert_text!(
                r#"
              update batchactions_batches
              set "status" = $10::"batches.status", "processedCount" = $11, "failedCount" = $12
              where "id" = $2::"batches.id" and "jobId" = $1::"batches.jobId" and "version" = $9
              returning "batchIndex""#,
                one_record!()
            ),
        ),
        _ => session.sql(
            "upsert_last_records",
            upsert_text!(
                r#"
              update batchactions_batches
              set "status" = $10::"batches.status", "processedCount" = $11, "failedCount" = $12
              where "id" = $2[1]::"batches.id" and "jobId" = $1[1]::"batches.jobId" and "version" = $9
              returning "batchIndex""#,
                many_records!()
            ),
        ),
    };
    let mut values = record_values(session.types(), writes);
    let BatchEnd { state, token, .. } = end;
    values.extend(values![*token, state.status.as_str(), state.processed, state.failed]);
    upserted(session, upsert, values).await
}

/// Runs an `upsert_text!`.
async fn upserted(session: &mut Conn, upsert: Sql<'_>, values: Vec<Value<'_>>) -> Result<Option<BatchIndex>> {
    let lease = session.one(upsert, values, |row| rows::optional_batch_index(row, 0)).await;
    lease.map_err(explain_upsert)
}

/// The values of `one_record!` for a single record, of `many_records!` for several.
fn record_values<'r>(types: &ColumnTypes, writes: &[&'r RecordWrite]) -> Vec<Value<'r>> {
    let raw = |write: &'r RecordWrite| types.json("records.raw", &write.record.raw);
    let parsed = |write: &'r RecordWrite| types.json("records.parsed", &write.record.parsed);
    let errors = |write: &'r RecordWrite| types.json("records.errors", &write.record.errors);
    if let [write] = writes {
        return values![
            &write.job_id,
            &write.batch_id,
            write.record.index,
            write.record.status.as_str(),
            raw(write),
            parsed(write),
            errors(write),
            write.record.processing_error.as_deref(),
        ];
    }
    values![
        column(writes, |write| Cow::Borrowed(&*write.job_id)),
        column(writes, |write| Cow::Borrowed(&*write.batch_id)),
        column(writes, |write| write.record.index),
        column(writes, |write| write.record.status.as_str()),
        column(writes, raw),
        column(writes, parsed),
        column(writes, errors),
        column(writes, |write| write.record.processing_error.as_deref()),
    ]
}

/// Says what to do when no id is left for a new record: its sequence is exhausted, or, if that counts to 64 bits, beyond the range of the column.
fn explain_upsert(error: Error) -> Error {
    match error.cause.as_ref().and_then(|cause| cause.code.as_deref()) {
        Some("2200H" | "22003") => Error {
            code: Code::DatabaseError,
            message: "no id is left for new records: the column id of batchactions_records has 32 bits. Nothing was stored. Make it larger: alter \
                      table batchactions_records alter column id type bigint; alter sequence \"batchactions_records_id_seq\" as bigint"
                .to_owned(),
            ..error
        },
        _ => error,
    }
}
