//! Every statement for SQLite.
//!
//! One connection writes, so that calls of one process wait for each other in order and not by polling; a few others read. Between processes, a write
//! takes the write lock at its beginning (`begin immediate`): a read that turned into a write would fail at once instead of waiting.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Row, SqliteConnection, TypeInfo, ValueRef};

use self::file::{Pools, SqliteFile, Use};
use self::types::catalogue;
use super::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks};
use super::errors::{Explained, unreadable};
use super::session::{BoxFuture, Connections, Dialect, PoolRules, Session, run};
use super::tls::Certificates;
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, ListSnapshot, LockedJob, Reads, ReclaimSnapshot, RecordWrite, SavedJob,
    StoredJob, Transaction,
};
use crate::error::{Code, Error, Repeatable, Result};
use crate::model::{
    BatchCounts, BatchIndex, BatchKey, BatchRow, BatchState, ColumnLimits, Job, JobFilter, JobRow, JobStatus, JobTimes, ListedBatch,
    MaxClaims, PAGE_BYTES, RecordCounts, RecordPage, RecordSlices, RecordStatus, RecordText, Reservation, Token, WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::{Secret, Settings};

mod errors;
mod file;
mod file_in_use;
mod leftovers;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/sqlite/0001_tables.sql");

/// Connections that read, at most: more would only wait for the disk.
const READERS: u32 = 4;

/// A write that waits for another process is given up and made again so many times within the time that a statement may take.
const BUSY_SHARE: u32 = 15;

impl Dialect for sqlx::Sqlite {
    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn log_in(options: SqliteConnectOptions, _: Option<&Secret>, _: &Certificates) -> SqliteConnectOptions {
        options
    }

    fn execute<'c>(connection: &'c mut SqliteConnection, text: &'c str) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(async move { sqlx::Executor::execute(connection, text).await.map(drop) })
    }
}

/// The write lock at the beginning: a read that turned into a write would fail at once instead of waiting.
const BEGIN: &str = "begin immediate";

type Conn = Session<sqlx::Sqlite>;

pub struct Sqlite {
    file: SqliteFile,
}

impl Sqlite {
    pub fn new(mut settings: Settings) -> Self {
        // All connections mean the same file, wherever the process goes later.
        if let Some(file) = &mut settings.file
            && let Ok(absolute) = std::path::absolute(&*file)
        {
            *file = absolute.to_string_lossy().into_owned();
        }
        Self {
            file: SqliteFile::new(settings.file.clone().map(PathBuf::from), !settings.must_exist, move || {
                pools(&settings)
            }),
        }
    }

    async fn write(&self) -> Result<Conn> {
        self.file.acquire(Use::Write).await
    }

    async fn read(&self) -> Result<Conn> {
        self.file.acquire(Use::Read).await
    }

    /// For records that were queued while the path held one and the same file.
    async fn write_queued(&self, records: &[RecordWrite]) -> Result<Conn> {
        let mut files = records.iter().filter_map(|write| write.file);
        let file = files.next();
        if files.all(|other| Some(other) == file) {
            return self.file.acquire_of(Use::Write, file).await;
        }
        Err(Error::new(Code::ConnectionLost, "the records were queued for two files, of which one is gone").repeatable(Repeatable::Never))
    }

    async fn list_snapshot(&self, job_id: &str, text: &str) -> Result<Option<ListSnapshot>> {
        let mut session = self.read().await?;
        let query = sqlx::query_as::<_, (bool, bool, bool)>(
            "
            select distributed,
                   exists (select 1 from batchactions_batches where jobId = ?1),
                   instr(batches, ?2) > 0
            from batchactions_jobs
            where id = ?1
            ",
        )
        .bind(job_id)
        .bind(text);
        let row = run!(&mut session, query, fetch_optional)?;
        Ok(row.map(|(distributed, has_rows, has_id)| ListSnapshot {
            distributed,
            has_rows,
            has_id,
        }))
    }
}

fn pools(settings: &Settings) -> Pools {
    let options = connect_options(settings);
    let rules = PoolRules::of(settings);
    // The writer's connection stays, and in memory it is the database.
    let writer = PoolRules {
        max: 1,
        min: 1,
        idle_timeout: None,
        keep_in_doubt: settings.file.is_none(),
        ..PoolRules::of(settings)
    };
    let readers = PoolRules {
        max: rules.max.min(READERS),
        min: rules.min.min(READERS),
        ..rules
    };
    let pool = |rules| Connections::new(settings, options.clone(), rules).or_only_reading(reading_options(settings));
    Pools {
        writer: pool(writer),
        readers: settings.file.is_some().then(|| pool(readers)),
    }
}

/// Where the file or its folder may not be written, its journal stays as it is.
fn reading_options(settings: &Settings) -> Option<SqliteConnectOptions> {
    let file = settings.file.as_ref()?;
    Some(common_options(settings).filename(file))
}

fn common_options(settings: &Settings) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .statement_cache_capacity(settings.statement_cache)
        .busy_timeout(settings.statement_timeout / BUSY_SHARE)
        .foreign_keys(false)
        .disable_statement_logging()
}

fn connect_options(settings: &Settings) -> SqliteConnectOptions {
    let options = common_options(settings);
    match &settings.file {
        None => options.in_memory(true),
        // In WAL, NORMAL loses no transaction when the process dies; FULL would also keep the last ones when the power fails, for a sync each.
        Some(file) => options
            // Not made where it is missing: `SqliteFile` does that, where the tables are to be made.
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal),
    }
}

/// The row of an `update … returning`. Such a statement is read to its end, never with `fetch_optional`: the driver would stop at the row, and what the
/// commit behind it says would be lost.
fn returned<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    let query = sqlx::query(
        "
        select id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
        from batchactions_batches
        where jobId = ?1
        order by batchIndex
        ",
    )
    .bind(job_id);
    run!(session, query, fetch_all)?
        .iter()
        .map(|row| batch_row(row).map_err(unreadable("batchactions_batches", row)))
        .collect()
}

fn batch_row(row: &SqliteRow) -> sqlx::Result<BatchRow> {
    Ok(BatchRow {
        id: row.try_get(0)?,
        index: row.try_get(1)?,
        status: row.try_get(2)?,
        worker_id: row.try_get(3)?,
        claimed_at: row.try_get(4)?,
        processed: row.try_get(5)?,
        failed: row.try_get(6)?,
    })
}

/// A JSON column has NUMERIC affinity, so a JSON text that is a number is stored as one.
fn json_text(row: &SqliteRow, column: usize) -> sqlx::Result<String> {
    match row.try_get_raw(column)?.type_info().name() {
        "INTEGER" => Ok(row.try_get_unchecked::<i64, _>(column)?.to_string()),
        "REAL" => Ok(serde_json::Value::from(row.try_get_unchecked::<f64, _>(column)?).to_string()),
        _ => row.try_get_unchecked(column),
    }
}

/// SQLite would read the digits of a number less exactly than JavaScript does, so it gets the number itself.
fn bind_json<'q>(query: Query<'q, sqlx::Sqlite, SqliteArguments<'q>>, json: &'q str) -> Query<'q, sqlx::Sqlite, SqliteArguments<'q>> {
    if !json.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return query.bind(json);
    }
    match (json.parse::<i64>(), json.parse::<f64>()) {
        (Ok(integer), _) => query.bind(integer),
        (_, Ok(real)) => query.bind(real),
        _ => query.bind(json),
    }
}

fn job_row(row: &SqliteRow) -> sqlx::Result<JobRow> {
    Ok(JobRow {
        id: row.try_get(0)?,
        config: json_text(row, 1)?,
        status: row.try_get(2)?,
        total_records: row.try_get(3)?,
        started_at: row.try_get(4)?,
        completed_at: row.try_get(5)?,
        distributed: row.try_get(6)?,
    })
}

async fn batch_counts(session: &mut Conn, job_id: &str) -> Result<BatchCounts> {
    let query = sqlx::query_as::<_, (String, i64)>(
        "
        select status, count(*)
        from batchactions_batches
        where jobId = ?1
        group by status
        ",
    )
    .bind(job_id);
    let mut counts = BatchCounts::default();
    for (status, count) in run!(session, query, fetch_all)? {
        counts.add(&status, count);
    }
    Ok(counts)
}

/// In the order of the rows. Not as they arrive: the driver's thread and this one would wait for each other at each allocation, and a large read takes
/// a quarter longer.
async fn read_records<'q>(session: &mut Conn, query: Query<'q, sqlx::Sqlite, SqliteArguments<'q>>) -> Result<RecordSlices> {
    let mut slices = RecordSlices::default();
    for row in run!(session, query, fetch_all)? {
        push_record(&mut slices, &row).map_err(unreadable("batchactions_records", &row))?;
    }
    Ok(slices)
}

fn push_record(slices: &mut RecordSlices, row: &SqliteRow) -> sqlx::Result<()> {
    let (raw, parsed, errors) = (json_text(row, 1)?, json_text(row, 2)?, json_text(row, 4)?);
    let record = RecordText {
        index: row.try_get(0)?,
        raw: &raw,
        parsed: &parsed,
        status: row.try_get(3)?,
        errors: &errors,
        processing_error: row.try_get(5)?,
    };
    slices.push(record);
    Ok(())
}

static UPSERT_RECORDS: MultiRow = MultiRow::new(
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

/// What goes into one statement each.
fn record_statements<'a, 'r>(records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES).flat_map(chunks)
}

async fn upsert_records(session: &mut Conn, records: &[&RecordWrite]) -> Result<()> {
    for chunk in record_statements(records) {
        let mut query = sqlx::query(UPSERT_RECORDS.text(chunk.len()));
        for write in chunk {
            let record = &write.record;
            query = query
                .bind(&*write.job_id)
                .bind(&*write.batch_id)
                .bind(record.index)
                .bind(record.status.as_str());
            query = bind_json(bind_json(bind_json(query, &record.raw), &record.parsed), &record.errors);
            query = query.bind(record.processing_error.as_deref());
        }
        run!(session, query, execute)?;
    }
    Ok(())
}

/// Whether the row was inserted. The statement does not say that itself; between the two, another process may have made or deleted the row, unless this is in
/// a transaction.
async fn upsert_job(session: &mut Conn, job: &Job, keep_final: bool) -> Result<bool> {
    let exists = sqlx::query_scalar("select exists (select 1 from batchactions_jobs where id = ?1)").bind(&*job.id);
    let existed: bool = run!(session, exists, fetch_one)?;
    let query = sqlx::query(
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
    )
    .bind(&*job.id)
    .bind(job.status.as_str())
    .bind(&*job.config)
    .bind(&*job.batches)
    .bind(job.total_records)
    .bind(job.started_at)
    .bind(job.completed_at)
    .bind(job.distributed)
    .bind(job.status.is_final())
    .bind(keep_final);
    run!(session, query, execute)?;
    Ok(!existed)
}

/// Whether a batch has another version than the token's: tells a lost lease from a batch that is not held.
async fn lease_is_lost(session: &mut Conn, job_id: &str, batch_id: &str, token: Token) -> Result<bool> {
    let query = sqlx::query_scalar::<_, i32>("select version from batchactions_batches where id = ?1 and jobId = ?2")
        .bind(batch_id)
        .bind(job_id);
    Ok(run!(session, query, fetch_optional)? != Some(token.0))
}

/// The index of a batch that is COMPLETED or FAILED, with the token's version where one is given.
async fn final_batch(session: &mut Conn, job_id: &str, batch_id: &str, token: Option<Token>) -> Result<Option<i32>> {
    let query = sqlx::query_scalar(
        "
        select batchIndex
        from batchactions_batches
        where id = ?2
          and jobId = ?1
          and (?3 is null or version = ?3)
          and status in ('COMPLETED', 'FAILED')
        ",
    )
    .bind(job_id)
    .bind(batch_id)
    .bind(token.map(|token| token.0));
    run!(session, query, fetch_optional)
}

async fn not_held(session: &mut Conn, job_id: &str, batch_id: &str, token: Option<Token>) -> Result<BatchChange> {
    match token {
        Some(token) if lease_is_lost(session, job_id, batch_id, token).await? => Ok(BatchChange::LeaseLost),
        _ => Ok(BatchChange::NotFound),
    }
}

#[async_trait]
impl Reads for Sqlite {
    async fn limits(&self) -> Result<ColumnLimits> {
        Ok(ColumnLimits::NONE)
    }

    async fn job(&self, job_id: &str) -> Result<Option<StoredJob>> {
        let mut session = self.read().await?;
        let query = sqlx::query(
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed, batches
            from batchactions_jobs
            where id = ?1
            ",
        )
        .bind(job_id);
        let Some(row) = run!(&mut session, query, fetch_optional)? else {
            return Ok(None);
        };
        Ok(Some(StoredJob {
            row: job_row(&row).map_err(unreadable("batchactions_jobs", &row))?,
            batches: json_text(&row, 7).map_err(unreadable("batchactions_jobs", &row))?,
        }))
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.read().await?;
        let after = filter.after.as_ref();
        let query = sqlx::query(
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed
            from batchactions_jobs
            where (?1 is null or status = ?1)
              and (?2 is null
                or case
                  when ?3 is null then startedAt is null and id < ?2
                  else startedAt is null or startedAt < ?3 or (startedAt = ?3 and id < ?2)
                end)
            order by startedAt desc nulls last, id desc
            limit ?4
            ",
        )
        .bind(filter.status.map(JobStatus::as_str))
        .bind(after.map(|(_, id)| id))
        .bind(after.and_then(|(started_at, _)| *started_at))
        .bind(filter.limit);
        run!(&mut session, query, fetch_all)?
            .iter()
            .map(|row| job_row(row).map_err(unreadable("batchactions_jobs", row)))
            .collect()
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.read().await?;
        let session = &mut session;
        let job = sqlx::query_as::<_, (i64, Option<i64>, Option<i64>, bool, i64)>(
            "
            select totalRecords, startedAt, completedAt, distributed, cast(unixepoch('subsec') * 1000 as integer)
            from batchactions_jobs
            where id = ?1
            ",
        )
        .bind(job_id);
        let job = run!(session, job, fetch_optional)?;
        Ok(job.map(|(total_records, started_at, completed_at, distributed, now)| JobTimes {
            total_records,
            started_at,
            completed_at,
            distributed,
            now,
        }))
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.read().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.read().await?;
        let query = sqlx::query_as("select count(*), max(batchIndex) from batchactions_batches where jobId = ?1").bind(job_id);
        let (count, last): (i64, Option<i32>) = run!(&mut session, query, fetch_one)?;
        Ok((count, last.map(BatchIndex)))
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.read().await?;
        let query = sqlx::query_scalar("select max(batchIndex) from batchactions_batches where jobId = ?1").bind(job_id);
        let last: Option<i32> = run!(&mut session, query, fetch_one)?;
        Ok(last.map(BatchIndex))
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.read().await?;
        let query = sqlx::query_scalar("select exists (select 1 from batchactions_batches where id = ?2 and jobId = ?1)")
            .bind(job_id)
            .bind(batch_id);
        run!(&mut session, query, fetch_one)
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        let mut session = self.read().await?;
        let query = sqlx::query_scalar(
            "
            select coalesce(
                     (
                       select status in ('PENDING', 'PROCESSING', 'PAUSED')
                       from batchactions_batches
                       where jobId = ?1 and batchIndex = ?2
                     ),
                     false
                   )
                   or exists (select 1 from batchactions_batches where jobId = ?1 and status in ('PENDING', 'PROCESSING', 'PAUSED'))
            ",
        )
        .bind(job_id)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        run!(&mut session, query, fetch_one)
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        batch_counts(&mut self.read().await?, job_id).await
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.read().await?;
        let session = &mut session;
        let records = sqlx::query_as::<_, (String, i64)>(
            "
            select status, count(*)
            from batchactions_records
            where jobId = ?1
            group by status
            ",
        )
        .bind(job_id);
        let mut counts = RecordCounts::default();
        for (status, count) in run!(session, records, fetch_all)? {
            counts.add(&status, count);
        }
        Ok(counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.read().await?;
        let query = sqlx::query_as::<_, (String, bool, bool, bool)>(
            "
            select status,
                   distributed,
                   exists (select 1 from batchactions_batches where jobId = ?1),
                   exists (select 1 from batchactions_batches where jobId = ?1 and status = 'PENDING')
            from batchactions_jobs
            where id = ?1
            ",
        )
        .bind(job_id);
        let row = run!(&mut session, query, fetch_optional)?;
        Ok(row.map(|(job_status, distributed, has_rows, has_pending)| ClaimSnapshot {
            job_status,
            distributed,
            has_rows,
            has_pending,
        }))
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.read().await?;
        let query = sqlx::query_as::<_, (bool, bool, bool)>(
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
                   or exists (select 1 from batchactions_batches where jobId = ?1 and status in ('PENDING', 'PROCESSING', 'PAUSED'))
            ",
        )
        .bind(job_id)
        .bind(older_than.as_millis() as i64)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        let (has_rows, has_stale, has_open) = run!(&mut session, query, fetch_one)?;
        Ok(ReclaimSnapshot {
            has_rows,
            has_stale,
            has_open,
        })
    }

    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        let mut session = self.read().await?;
        let query = sqlx::query(
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ?1 and status in (?2, ?3)
            order by recordIndex
            ",
        )
        .bind(job_id)
        .bind(statuses[0].as_str())
        .bind(statuses[1].as_str());
        read_records(&mut session, query).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.read().await?;
        let query = sqlx::query(
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ?1 and batchId = ?2
            order by recordIndex
            ",
        )
        .bind(job_id)
        .bind(batch_id);
        read_records(&mut session, query).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.read().await?;
        let [s1, s2, s3, s4, s5] = page.status_places();
        // Only keys and lengths go through the window, which copies its rows; a length is known without reading the value.
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
        let text = match &page.batch_id {
            None => page!(
                "
                        select id, recordIndex, 100 + octet_length(raw) + octet_length(parsed) + octet_length(errors)
                          + coalesce(octet_length(processingError), 0) as bytes
                        from batchactions_records
                        where jobId = ?1 and recordIndex > ?2 and +status in (?3, ?4, ?5, ?6, ?7)
                        order by recordIndex
                        limit ?8
                "
            ),
            Some(_) => page!(
                "
                        select id, recordIndex, 100 + octet_length(raw) + octet_length(parsed) + octet_length(errors)
                          + coalesce(octet_length(processingError), 0) as bytes
                        from batchactions_records
                        where jobId = ?1 and batchId = ?10 and recordIndex > ?2 and +status in (?3, ?4, ?5, ?6, ?7)
                        order by recordIndex
                        limit ?8
                "
            ),
        };
        let mut query = sqlx::query(text)
            .bind(job_id)
            .bind(page.after.map_or(i64::MIN, i64::from))
            .bind(s1)
            .bind(s2)
            .bind(s3)
            .bind(s4)
            .bind(s5)
            .bind(page.limit)
            .bind(PAGE_BYTES);
        if let Some(batch_id) = &page.batch_id {
            query = query.bind(&**batch_id);
        }
        read_records(&mut session, query).await
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn initialize(&self, _: &Gate) -> Result<()> {
        let mut session = self.file.acquire(Use::Make).await?;
        let session = &mut session;
        if catalogue(session).await?.missing(MIGRATION)?.is_empty() {
            return Ok(());
        }
        session.begin(BEGIN).await?;
        // Another process may have made them while this one waited for the lock.
        for statement in catalogue(session).await?.missing(MIGRATION)? {
            session.execute(statement).await?;
        }
        catalogue(session).await?.check_made(MIGRATION)?;
        session.commit().await
    }

    async fn close(&self) {
        self.file.close().await;
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
        let mut session = self.write().await?;
        let session = &mut session;
        let inserted = upsert_job(session, job, keep_final).await?;
        let query = sqlx::query_scalar("select exists (select 1 from batchactions_batches where jobId = ?1)").bind(&*job.id);
        let has_rows = run!(session, query, fetch_one)?;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.write().await?;
        // `+status` keeps the planner on the index of batch indexes, which has the next batch first; the one of statuses would have it sort all that
        // are pending.
        let query = sqlx::query_as::<_, (String, i32, i64, i32, i32, i32, Option<i32>)>(
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
                and exists (select 1 from batchactions_jobs where id = ?1 and status = 'PROCESSING')
              order by batchIndex
              limit 1
            )
            returning id, batchIndex, claimedAt, recordStartIndex, recordEndIndex, version,
                      (select max(batchIndex) from batchactions_batches where jobId = ?1)
            ",
        )
        .bind(job_id)
        .bind(&worker_id.0)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        let row = returned(run!(&mut session, query, fetch_all)?);
        Ok(row.map(
            |(batch_id, batch_index, claimed_at, record_start_index, record_end_index, token, last)| Reservation {
                job_id: job_id.to_owned(),
                batch_id,
                batch_index: BatchIndex(batch_index),
                worker_id: worker_id.clone(),
                claimed_at,
                record_start_index,
                record_end_index,
                token: Token(token),
                last_batch_index: BatchIndex(last.unwrap_or(batch_index)),
            },
        ))
    }

    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.write().await?;
        let query = sqlx::query_scalar(
            "
            update batchactions_batches
            set status = ?3, processedCount = ?4, failedCount = ?5
            where id = ?2
              and jobId = ?1
              and (?6 is null or version = ?6)
              and not (?7 and status in ('COMPLETED', 'FAILED'))
            returning batchIndex
            ",
        )
        .bind(job_id)
        .bind(batch_id)
        .bind(state.status.as_str())
        .bind(state.processed)
        .bind(state.failed)
        .bind(token.map(|token| token.0))
        .bind(keep_final);
        let done = match returned(run!(&mut session, query, fetch_all)?) {
            None if keep_final => final_batch(&mut session, job_id, batch_id, token).await?,
            changed => changed,
        };
        Ok(match (done, token) {
            (Some(index), _) => BatchChange::Done(BatchIndex(index)),
            (None, Some(_)) => BatchChange::LeaseLost,
            (None, None) => BatchChange::NotFound,
        })
    }

    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        let BatchKey { job_id, batch_id } = key;
        Ok(match self.set_batch_state(key, state, None, keep_final).await? {
            BatchChange::Done(index) => BatchPlace::Row(index),
            BatchChange::NotFound | BatchChange::LeaseLost => BatchPlace::of(None, self.list_snapshot(job_id, in_json(batch_id)).await?),
        })
    }

    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.write().await?;
        let query = sqlx::query_scalar(
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
        )
        .bind(job_id)
        .bind(batch_id)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0));
        match returned(run!(&mut session, query, fetch_all)?) {
            Some(index) => Ok(BatchChange::Done(BatchIndex(index))),
            None => not_held(&mut session, job_id, batch_id, token).await,
        }
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.write().await?;
        let query = sqlx::query_scalar(
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
        )
        .bind(job_id)
        .bind(batch_id)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0))
        .bind(also_paused);
        match returned(run!(&mut session, query, fetch_all)?) {
            Some(index) => Ok(BatchChange::Done(BatchIndex(index))),
            None => not_held(&mut session, job_id, batch_id, token).await,
        }
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<u32> {
        let mut session = self.write().await?;
        // A claim, a release and a reclaim each add 1 to `version`, so (version + 1) / 2 claims were made. A batch that is given up keeps the name of
        // its last worker.
        let query = sqlx::query(
            "
            update batchactions_batches
            set status = case when ?3 is not null and (version + 1) / 2 >= ?3 then 'FAILED' else 'PENDING' end,
                workerId = case when ?3 is not null and (version + 1) / 2 >= ?3 then workerId end,
                claimedAt = case when ?3 is not null and (version + 1) / 2 >= ?3 then claimedAt end,
                version = version + 1
            where jobId = ?1
              and status = 'PROCESSING'
              and (claimedAt is null or claimedAt < cast(unixepoch('subsec') * 1000 as integer) - ?2)
            ",
        )
        .bind(job_id)
        .bind(older_than.as_millis() as i64)
        .bind(max_claims.map(|most| most.0));
        Ok(run!(&mut session, query, execute)?.rows_affected() as u32)
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let mut session = self.write_queued(records).await?;
        let session = &mut session;
        let records: Vec<&RecordWrite> = records.iter().collect();
        if let [all] = *record_statements(&records).collect::<Vec<_>>() {
            return upsert_records(session, all).await;
        }
        session.begin(BEGIN).await?;
        upsert_records(session, &records).await?;
        session.commit().await
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        let mut session = self.write_queued(records).await?;
        let session = &mut session;
        // Nobody else writes until the commit, so a version that was read holds.
        session.begin(BEGIN).await?;
        let mut leases = std::collections::HashMap::new();
        let mut held = Vec::with_capacity(records.len());
        for write in records {
            let Some(token) = write.token else {
                held.push(true);
                continue;
            };
            let key = (&*write.job_id, &*write.batch_id, token);
            let lost = match leases.get(&key) {
                Some(lost) => *lost,
                None => lease_is_lost(session, &write.job_id, &write.batch_id, token).await?,
            };
            leases.insert(key, lost);
            held.push(!lost);
        }
        let kept: Vec<&RecordWrite> = records
            .iter()
            .zip(&held)
            .filter(|(_, held)| **held)
            .map(|(write, _)| write)
            .collect();
        upsert_records(session, &kept).await?;
        session.commit().await?;
        Ok(held)
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.write().await?;
        let query = sqlx::query("update batchactions_jobs set status = 'ABORTED', batches = '[]' where id = ?1").bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }

    async fn delete_batches(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.write().await?;
        let query = sqlx::query(
            "
            delete from batchactions_batches
            where id in (select id from batchactions_batches where jobId = ?1 limit ?2)
            ",
        )
        .bind(job_id)
        .bind(most);
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_records(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.write().await?;
        let query = sqlx::query(
            "
            delete from batchactions_records
            where id in (select id from batchactions_records where jobId = ?1 limit ?2)
            ",
        )
        .bind(job_id)
        .bind(most);
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.write().await?;
        let query = sqlx::query("delete from batchactions_jobs where id = ?1 and status = 'ABORTED'").bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }
}

struct SqliteTransaction {
    session: Conn,
}

static INSERT_BATCHES: MultiRow = MultiRow::new(
    "
    insert into batchactions_batches
      (jobId, id, batchIndex, status, workerId, claimedAt, recordStartIndex, recordEndIndex, processedCount, failedCount, version)
    values ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
    "
    on conflict do nothing
    ",
);

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        for chunk in chunks(batches) {
            let mut query = sqlx::query(INSERT_BATCHES.text(chunk.len()));
            for batch in chunk {
                query = query
                    .bind(job_id)
                    .bind(&*batch.id)
                    .bind(batch.index)
                    .bind(batch.initial_status())
                    .bind(batch.worker_id.as_deref())
                    .bind(batch.claimed_at)
                    .bind(batch.start)
                    .bind(batch.end)
                    .bind(batch.processed)
                    .bind(batch.failed);
            }
            run!(&mut self.session, query, execute)?;
        }
        Ok(())
    }

    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>> {
        let query = sqlx::query_as::<_, (String, String)>("select id, jobId from batchactions_batches where id = ?1").bind(batch_id);
        let owner = run!(&mut self.session, query, fetch_optional)?;
        Ok(owner.map(|(batch_id, job_id)| BatchOwner { batch_id, job_id }))
    }

    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session, job_id).await
    }

    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool> {
        upsert_job(&mut self.session, job, keep_final).await
    }

    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let query = sqlx::query(
            "
            select status, distributed, batches, startedAt, cast(unixepoch('subsec') * 1000 as integer)
            from batchactions_jobs
            where id = ?1
            ",
        )
        .bind(job_id);
        let row = run!(&mut self.session, query, fetch_optional)?;
        let locked = |row: &SqliteRow| {
            Ok(LockedJob {
                status: row.try_get(0)?,
                distributed: row.try_get(1)?,
                batches: json_text(row, 2)?,
                started_at: row.try_get(3)?,
                now: row.try_get(4)?,
            })
        };
        row.map(|row| locked(&row).map_err(unreadable("batchactions_jobs", &row)))
            .transpose()
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        let query = sqlx::query("update batchactions_jobs set batches = ?2 where id = ?1")
            .bind(job_id)
            .bind(batches);
        run!(&mut self.session, query, execute)?;
        Ok(())
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        let query = sqlx::query(
            "
            update batchactions_jobs
            set status = ?2, batches = ?3, completedAt = cast(unixepoch('subsec') * 1000 as integer)
            where id = ?1
            ",
        )
        .bind(job_id)
        .bind(status.as_str())
        .bind(batches);
        run!(&mut self.session, query, execute)?;
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.session.commit().await
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        self.session.rollback().await
    }
}
