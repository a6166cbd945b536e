//! Every statement for PostgreSQL.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{ConnectOptions, PgConnection, Row};

use self::types::{ColumnTypes, Conn, KnownTypes, catalogue};
use super::bulk::{STATEMENT_BYTES, by_bytes};
use super::credentials::user_of;
use super::errors::{Explained, unreadable};
use super::once::Once;
use super::schema::{DDL_LIMIT, wait_for_tables};
use super::session::{BoxFuture, Connections, Dialect, PoolRules, SetUp, run};
use super::tls::Certificates;
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, ListSnapshot, LockedJob, Reads, ReclaimSnapshot, RecordWrite, SavedJob,
    StoredJob, Transaction,
};
use crate::error::{Code, Error, Result, lock};
use crate::model::{
    BatchCounts, BatchIndex, BatchKey, BatchRow, BatchState, ColumnLimits, Encoding, Job, JobFilter, JobRow, JobStatus, JobTimes,
    ListedBatch, MaxClaims, PAGE_BYTES, RecordCounts, RecordPage, RecordSlices, RecordStatus, RecordText, Repertoire, Reservation, Token,
    WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::{Secret, SessionAttrs, Settings, SslMode, Switch, switches};

mod errors;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/postgres/0001_tables.sql");

/// The key of the advisory lock under which tables are made: an arbitrary number of our own.
const INITIALIZE_LOCK: i64 = 0x6261_7463_6861_6374;

/// A statement that waits for a lock is given up and made again so many times within the time that it may take.
const LOCK_WAIT_SHARE: u32 = 15;

/// Rows in one bulk statement: large enough to be fast, small enough to keep one message small.
const ROWS_PER_STATEMENT: usize = 1_000;

/// From how many records on a copy, which is two round trips, is faster than an upsert, which is one.
const COPIED_FROM: usize = 50;

/// How many jobs are remembered that can't be copied.
const UNCOPIED_JOBS: usize = 1_000;

/// Bytes of a copy that are sent at a time, about: the server takes them in while the next are written.
const COPY_SLICE: usize = 64 << 10;

impl Dialect for sqlx::Postgres {
    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn hint(error: &dyn DatabaseError) -> Option<&'static str> {
        errors::hint(error)
    }

    /// The server keeps a SCRAM password in the form of RFC 4013, where it has one, and libpq sends it so; the driver does not.
    fn prepared(password: &str) -> Option<String> {
        stringprep::saslprep(password)
            .ok()
            .filter(|prepared| prepared != password)
            .map(Cow::into_owned)
    }

    fn log_in(mut options: PgConnectOptions, password: Option<&Secret>, certificates: &Certificates) -> PgConnectOptions {
        options = options.password(password.map_or("", Secret::reveal));
        // An empty one takes the place of what the driver read from the environment by itself.
        options = options.ssl_root_cert_from_pem(certificates.ca.clone().unwrap_or_default());
        if let Some((cert, key)) = &certificates.identity {
            options = options.ssl_client_cert_from_pem(cert).ssl_client_key_from_pem(key);
        }
        options
    }

    fn execute<'c>(connection: &'c mut PgConnection, text: &'c str) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(async move { sqlx::Executor::execute(connection, text).await.map(drop) })
    }
}

/// Whatever the default of the server or the user is: a statement after a lock must see what was committed before it.
const BEGIN: &str = "begin isolation level read committed";

/// What the server is told of each session: with the start-up message, or where there is a transaction pooler, which refuses such and may send each
/// transaction to another server, at the beginning of each transaction.
fn session_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
        ("lock_timeout", lock_timeout(settings.statement_timeout).as_millis().to_string()),
        // What a claim, a slice or a page wants next stands first in an index. A planner without statistics of the job takes its rows for few, and would
        // collect and sort all of them for each claim; one with statistics of a table that is mostly one job expects a pending batch anywhere, and would
        // read past all that are done to find it.
        ("enable_sort", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        // What is off costs so much in the planner's eyes that where there is no other way it would compile the statement first: 100 ms and more.
        ("jit", "off".to_owned()),
    ];
    if let Some(schema) = &settings.schema {
        all.push(("search_path", quoted(schema)));
    }
    all
}

/// So that a lock that is not had in time is told from a statement that takes too long.
fn lock_timeout(statement_timeout: Duration) -> Duration {
    // None, to the server, is no limit.
    (statement_timeout / LOCK_WAIT_SHARE).max(Duration::from_millis(10))
}

/// `statementCache: 0` says that there may be a transaction pooler.
fn is_pooled(settings: &Settings) -> bool {
    settings.statement_cache == 0
}

/// How a transaction begins.
fn begin_text(settings: &Settings) -> String {
    if !is_pooled(settings) {
        return BEGIN.to_owned();
    }
    let mut text = BEGIN.to_owned();
    for switch in switches(settings.session_options.as_deref().unwrap_or_default()) {
        // As a call and not by `set`, which would take a list of schemas for one name.
        if let Switch::Set(name, value) = switch {
            text.push_str(&format!(
                "; select pg_catalog.set_config({}, {}, true)",
                literal(&name),
                literal(&value)
            ));
        }
    }
    for (name, value) in session_settings(settings) {
        // A schema is quoted already, as the name that it is.
        let value = if name == "search_path" { value } else { format!("'{value}'") };
        text.push_str(&format!("; set local {name} = {value}"));
    }
    text
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

pub struct Postgres {
    connections: Connections<sqlx::Postgres>,
    types: Arc<KnownTypes>,
    begin: Arc<str>,
    schema: Option<String>,
    /// Jobs whose records can't be copied, because some of them are there already.
    uncopied: Mutex<HashSet<String>>,
    /// Whether the table can't be copied to at all, for it has row-level security.
    never_copied: AtomicBool,
    compression: Arc<Compression>,
    encoding: Once<Encoding>,
}

/// The encoding of the database, from which and to which the server translates.
async fn encoding(session: &mut Conn) -> Result<Encoding> {
    let query = sqlx::query_as::<_, (String, i32)>(
        "
        select pg_catalog.current_setting('server_encoding'),
               pg_catalog.pg_encoding_max_length(pg_catalog.pg_char_to_encoding(pg_catalog.current_setting('server_encoding')::name))
        ",
    );
    let (name, widest) = run!(session, query, fetch_one)?;
    // In SQL_ASCII nothing is translated.
    if name == "UTF8" || name == "SQL_ASCII" {
        return Ok(Encoding::Utf8);
    }
    let mut repertoire = Repertoire {
        widest: widest.max(1) as usize,
        ..Repertoire::default()
    };
    // Of encodings with several bytes a character only ASCII is used: to ask for each of their characters would take too long. Where there are 128 more, a range
    // is asked for at once, and in halves where it has one that means nothing.
    let mut ranges = if widest == 1 { vec![(128, 255)] } else { Vec::new() };
    while let Some((first, last)) = ranges.pop() {
        let query = sqlx::query_scalar::<_, String>(
            "select pg_catalog.string_agg(pg_catalog.chr(code), '') from pg_catalog.generate_series($1::int4, $2::int4) code",
        )
        .bind(first)
        .bind(last);
        match run!(session, query, fetch_one) {
            Ok(characters) => repertoire.characters.extend(characters.chars()),
            Err(error) if session.is_in_order() && error.code == Code::InvalidArgument => {
                if session.is_in_transaction() {
                    session.rollback().await?;
                }
                if first < last {
                    let middle = (first + last) / 2;
                    ranges.extend([(first, middle), (middle + 1, last)]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Encoding::Other(Arc::new(repertoire)))
}

/// Whether the server can compress by lz4 and has not been told what to compress by, once somebody wanted to know.
type Compression = OnceLock<bool>;

/// Bytes from which on a list of batches is worth a better compression. The list of a job is written anew each time that the engine finishes a batch, and
/// with PostgreSQL's own pglz that is most of the time which the server takes for it.
const LARGE_LIST: usize = 8_000;

impl Postgres {
    pub fn new(settings: Settings) -> Self {
        let begin: Arc<str> = begin_text(&settings).into();
        let rules = PoolRules {
            pin: is_pooled(&settings).then(|| begin.clone()),
            set_up: settings
                .target
                .map(|wanted| -> SetUp<sqlx::Postgres> { Arc::new(move |connection| Box::pin(check_target(connection, wanted))) }),
            ..PoolRules::of(&settings)
        };
        Self {
            connections: Connections::new(&settings, connect_options(&settings), rules),
            types: Arc::default(),
            begin,
            schema: settings.schema,
            uncopied: Mutex::default(),
            never_copied: AtomicBool::new(false),
            compression: Arc::default(),
            encoding: Once::new(),
        }
    }

    async fn session(&self) -> Result<Conn> {
        Conn::new(self.connections.acquire().await?, &self.types).await
    }
}

/// Whether a list is to be compressed by lz4, which any client of the server can read.
async fn takes_lz4(session: &mut Conn, compression: &Compression, list: &str) -> Result<bool> {
    if list.len() < LARGE_LIST {
        return Ok(false);
    }
    if let Some(takes) = compression.get() {
        return Ok(*takes);
    }
    // Asked first: that somebody has taken away the right to the view, or to the function behind it, must not make a save fail.
    let may_ask = sqlx::query_scalar(
        "
        select pg_catalog.has_table_privilege('pg_catalog.pg_settings', 'select')
          and coalesce(
            pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('pg_catalog.pg_show_all_settings()'), 'execute'),
            false
          )
        ",
    );
    let mut takes: bool = run!(session, may_ask, fetch_one)?;
    if takes {
        let query = sqlx::query_scalar(
            "
            select exists (
              select
              from pg_catalog.pg_settings
              where name = 'default_toast_compression' and source = 'default' and 'lz4' = any (enumvals)
            )
            ",
        );
        takes = run!(session, query, fetch_one)?;
    }
    Ok(*compression.get_or_init(|| takes))
}

/// Sets everything that the driver would else read from the environment by itself.
fn connect_options(settings: &Settings) -> PgConnectOptions {
    let user = user_of(settings);
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&settings.host)
        .port(settings.port)
        .database(settings.name.as_deref().unwrap_or(&user))
        .username(&user)
        .statement_cache_capacity(settings.statement_cache)
        .application_name(settings.application_name.as_deref().unwrap_or("batchactions"))
        .ssl_mode(match settings.ssl.mode() {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        })
        .disable_statement_logging();
    if let Some(socket) = &settings.socket {
        options = options.socket(socket);
    }
    let given = settings.session_options.as_deref().unwrap_or_default();
    if is_pooled(settings) {
        // Settings are made with each transaction; what else there is, is for the service in front of the server.
        let others = switches(given).into_iter().filter_map(|switch| match switch {
            Switch::Other(text) => text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
            Switch::Set(..) => None,
        });
        // Not known to poolers either, and no column here holds such numbers.
        options = options.extra_float_digits(None);
        let others: Vec<_> = others.collect();
        return if others.is_empty() { options } else { options.options(others) };
    }
    if !given.is_empty() {
        // The driver writes settings only, so the switches follow the value of one, as they are. Of two settings with a name the last one counts.
        options = options.options([("jit", format!("off {given}"))]);
    }
    let told = session_settings(settings);
    options.options(told.into_iter().map(|(name, value)| (name, start_up_value(&value))))
}

/// Text in SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Refuses a server of another kind than `target_session_attrs` asks for.
async fn check_target(connection: &mut PgConnection, wanted: SessionAttrs) -> sqlx::Result<()> {
    let question = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let row = sqlx::Executor::fetch_one(connection, sqlx::raw_sql(question)).await?;
    // As text it is the letter, in the protocol that raw text has.
    let (in_recovery, read_only): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let refused = match wanted {
        SessionAttrs::Primary if in_recovery => "is in recovery (a standby), and target_session_attrs asks for a primary",
        SessionAttrs::ReadWrite if in_recovery || read_only => {
            "takes no writes, and target_session_attrs asks for one that does (read-write)"
        }
        _ => return Ok(()),
    };
    Err(sqlx::Error::Io(std::io::Error::other(format!("the server {refused}"))))
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A value among the start-up options, where a space ends one and a backslash takes the meaning from what follows.
fn start_up_value(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_whitespace() || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A missing schema, where it is `initialize` that misses it.
fn no_schema(error: Error) -> Error {
    match error.cause.as_ref().and_then(|cause| cause.code.as_deref()) {
        Some("3F000") => Error {
            message:
                "no schema of the user's search_path exists, so there is nowhere to make the tables: create one, or give the option schema"
                    .to_owned(),
            ..error
        },
        _ => error,
    }
}

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    let query = sqlx::query(
        session.sql(r#"
        select "id"::text, "batchIndex"::int4, "status"::text, "workerId"::text, "claimedAt"::int8, "processedCount"::int4, "failedCount"::int4
        from batchactions_batches
        where "jobId" = $1::"batches.jobId"
        order by batchactions_batches."batchIndex"
        "#),
    )
    .bind(job_id);
    run!(session, query, fetch_all)?
        .iter()
        .map(|row| batch_row(row).map_err(unreadable("batchactions_batches", row)))
        .collect()
}

fn batch_row(row: &PgRow) -> sqlx::Result<BatchRow> {
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

fn job_row(row: &PgRow) -> sqlx::Result<JobRow> {
    Ok(JobRow {
        id: row.try_get(0)?,
        config: row.try_get(1)?,
        status: row.try_get(2)?,
        total_records: row.try_get::<i32, _>(3)?.into(),
        started_at: row.try_get(4)?,
        completed_at: row.try_get(5)?,
        distributed: row.try_get(6)?,
    })
}

async fn batch_counts(session: &mut Conn, job_id: &str) -> Result<BatchCounts> {
    let query = sqlx::query_as::<_, (String, i64)>(session.sql(
        r#"
        select "status"::text, count(*)
        from batchactions_batches
        where "jobId" = $1::"batches.jobId"
        group by "status"
        "#,
    ))
    .bind(job_id);
    let mut counts = BatchCounts::default();
    for (status, count) in run!(session, query, fetch_all)? {
        counts.add(&status, count);
    }
    Ok(counts)
}

/// In the order of the rows.
async fn read_records(session: &mut Conn, query: Query<'_>) -> Result<RecordSlices> {
    let mut slices = RecordSlices::default();
    run!(session, query, each | row | record_text(row).map(|record| slices.push(record)))?;
    Ok(slices)
}

fn record_text(row: &PgRow) -> sqlx::Result<RecordText<'_>> {
    Ok(RecordText {
        index: row.try_get(0)?,
        raw: row.try_get(1)?,
        parsed: row.try_get(2)?,
        status: row.try_get(3)?,
        errors: row.try_get(4)?,
        processing_error: row.try_get(5)?,
    })
}

/// What goes into one statement each.
fn parts<'a, 'r>(records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES).flat_map(|part| part.chunks(ROWS_PER_STATEMENT))
}

/// Columns of records as arrays: `unnest` makes rows of them again, so that one statement text serves any number of rows.
#[derive(Default)]
struct RecordColumns<'a> {
    job_ids: Vec<&'a str>,
    batch_ids: Vec<&'a str>,
    indexes: Vec<i32>,
    statuses: Vec<&'a str>,
    raws: Vec<Cow<'a, str>>,
    parsed: Vec<Cow<'a, str>>,
    errors: Vec<Cow<'a, str>>,
    processing_errors: Vec<Option<&'a str>>,
}

impl<'a> RecordColumns<'a> {
    fn of(types: &ColumnTypes, writes: &[&'a RecordWrite]) -> Self {
        let mut columns = Self::default();
        for write in writes {
            columns.job_ids.push(&write.job_id);
            columns.batch_ids.push(&write.batch_id);
            columns.indexes.push(write.record.index);
            columns.statuses.push(write.record.status.as_str());
            columns.raws.push(types.json("records.raw", &write.record.raw));
            columns.parsed.push(types.json("records.parsed", &write.record.parsed));
            columns.errors.push(types.json("records.errors", &write.record.errors));
            columns.processing_errors.push(write.record.processing_error.as_deref());
        }
        columns
    }
}

/// The statement that writes the records of `$given` if `$lease` gives a row, and says whether it did. What is there is changed and only what is not is
/// inserted, because an upsert takes an id from the sequence for each row, whether it inserts it or not.
///
/// A record that another transaction inserts meanwhile is found by the insert. In `$given`, `unnest` stands in the select list, where the server makes a row at a
/// time: in `from`, it would first write all of them to a store of its own. A single record has a statement without arrays, which take a third of its time.
macro_rules! upsert_records {
    ($session:ident, $lease:literal, $given:literal) => {
        sqlx::query_scalar::<_, bool>($session.sql(concat!(
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
            select exists (select from lease)
            "#
        )))
    };
}

async fn upsert_records(session: &mut Conn, writes: &[&RecordWrite]) -> Result<()> {
    let written = if let [write] = writes {
        let query = upsert_records!(
            session,
            "select 1",
            r#"
            select $1::text::"records.jobId" as "jobId", $2::text::"records.batchId" as "batchId", $3::int4 as "recordIndex",
                   $4::text::"records.status" as "status", $5::text as "raw", $6::text as "parsed", $7::text as "errors", $8::text as "processingError"
            "#
        );
        let query = bind_record(query, session.types(), write);
        run!(session, query, fetch_one)
    } else {
        let query = upsert_records!(
            session,
            "select 1",
            r#"
            select unnest($1::text[])::"records.jobId" as "jobId", unnest($2::text[])::"records.batchId" as "batchId",
                   unnest($3::int4[]) as "recordIndex", unnest($4::text[])::"records.status" as "status",
                   unnest($5::text[]) as "raw", unnest($6::text[]) as "parsed", unnest($7::text[]) as "errors", unnest($8::text[]) as "processingError"
            "#
        );
        let columns = RecordColumns::of(session.types(), writes);
        run!(session, bind_records(query, &columns), fetch_one)
    };
    written.map(drop).map_err(explain_upsert)
}

/// Records of one claim: the lease is locked and the rows are written in one statement. `for share` waits for a claim that is under way and
/// then looks at the version again, which `exists` would not.
async fn upsert_leased_records(session: &mut Conn, writes: &[&RecordWrite], token: Token) -> Result<bool> {
    let held = if let [write] = writes {
        let query = upsert_records!(
            session,
            r#"
            select 1
            from batchactions_batches
            where "id" = $2::"batches.id" and "jobId" = $1::"batches.jobId" and "version" = $9
            for share
            "#,
            r#"
            select $1::text::"records.jobId" as "jobId", $2::text::"records.batchId" as "batchId", $3::int4 as "recordIndex",
                   $4::text::"records.status" as "status", $5::text as "raw", $6::text as "parsed", $7::text as "errors", $8::text as "processingError"
            "#
        );
        let query = bind_record(query, session.types(), write).bind(token.0);
        run!(session, query, fetch_one)
    } else {
        let query = upsert_records!(
            session,
            r#"
            select 1
            from batchactions_batches
            where "id" = $2[1]::"batches.id" and "jobId" = $1[1]::"batches.jobId" and "version" = $9
            for share
            "#,
            r#"
            select unnest($1::text[])::"records.jobId" as "jobId", unnest($2::text[])::"records.batchId" as "batchId",
                   unnest($3::int4[]) as "recordIndex", unnest($4::text[])::"records.status" as "status",
                   unnest($5::text[]) as "raw", unnest($6::text[]) as "parsed", unnest($7::text[]) as "errors", unnest($8::text[]) as "processingError"
            "#
        );
        let columns = RecordColumns::of(session.types(), writes);
        run!(session, bind_records(query, &columns).bind(token.0), fetch_one)
    };
    held.map_err(explain_upsert)
}

/// Says what to do where no id is left for a new record: its sequence is at its end, or, where that counts to 64 bits, beyond what the column holds.
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

impl Postgres {
    /// Writes records by `copy`, which takes the server a third less time than an upsert and only knows how to insert. Where it can't, it changes
    /// nothing and gives false: the upsert does it, or says better what is wrong. Whether a record is there already shows by trying, once for a job.
    async fn copy_records(&self, session: &mut Conn, parts: &[&[&RecordWrite]]) -> Result<bool> {
        let [[first, ..], ..] = parts else { return Ok(false) };
        let few = parts.iter().map(|part| part.len()).sum::<usize>() < COPIED_FROM;
        if few || self.never_copied.load(Ordering::Relaxed) || lock(&self.uncopied).contains(&first.job_id) {
            return Ok(false);
        }
        match copy_parts(session, &self.begin, parts).await {
            Ok(()) => Ok(true),
            Err(error) if session.is_in_order() && !matches!(error.code, Code::Timeout | Code::Conflict) => {
                if session.is_in_transaction() {
                    session.rollback().await?;
                }
                if error.cause.is_some_and(|cause| cause.code.as_deref() == Some("0A000")) {
                    self.never_copied.store(true, Ordering::Relaxed);
                } else if error.code == Code::Constraint {
                    let mut uncopied = lock(&self.uncopied);
                    if uncopied.len() >= UNCOPIED_JOBS {
                        uncopied.clear();
                    }
                    uncopied.insert(first.job_id.clone());
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

async fn copy_parts(session: &mut Conn, begin: &str, parts: &[&[&RecordWrite]]) -> Result<()> {
    let begun = match parts {
        [_] => session.pin().await?,
        _ => session.begin(begin).await.map(|()| true)?,
    };
    for part in parts {
        let types = session.types();
        run!(session, connection => copy_part(connection, types, part))?;
    }
    session.unpin(begun, Ok(())).await
}

async fn copy_part(connection: &mut PgConnection, types: &ColumnTypes, writes: &[&RecordWrite]) -> sqlx::Result<()> {
    let mut copy = connection
        .copy_in_raw(
            r#"
            copy batchactions_records
              ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError")
            from stdin
            "#,
        )
        .await?;
    let mut lines = Vec::with_capacity(COPY_SLICE);
    for write in writes {
        copy_line(&mut lines, types, write);
        if lines.len() >= COPY_SLICE {
            copy.send(&*lines).await?;
            lines.clear();
        }
    }
    copy.send(&*lines).await?;
    copy.finish().await.map(drop)
}

/// A record in the text format of `copy`, in which any type of column can be written.
fn copy_line(lines: &mut Vec<u8>, types: &ColumnTypes, write: &RecordWrite) {
    let record = &write.record;
    let index = record.index.to_string();
    let columns = [
        &*write.job_id,
        &*write.batch_id,
        &*index,
        record.status.as_str(),
        &*types.json("records.raw", &record.raw),
        &*types.json("records.parsed", &record.parsed),
        &*types.json("records.errors", &record.errors),
    ];
    for column in columns {
        copy_text(lines, column);
        lines.push(b'\t');
    }
    match &record.processing_error {
        Some(text) => copy_text(lines, text),
        None => lines.extend_from_slice(b"\\N"),
    }
    lines.push(b'\n');
}

fn copy_text(lines: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        lines.extend_from_slice(&bytes[from..at]);
        lines.extend_from_slice(&[b'\\', escaped]);
        from = at + 1;
    }
    lines.extend_from_slice(&bytes[from..]);
}

type Verdict<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, bool, sqlx::postgres::PgArguments>;

fn bind_record<'q>(query: Verdict<'q>, types: &ColumnTypes, write: &'q RecordWrite) -> Verdict<'q> {
    let record = &write.record;
    query
        .bind(&write.job_id)
        .bind(&write.batch_id)
        .bind(record.index)
        .bind(record.status.as_str())
        .bind(types.json("records.raw", &record.raw))
        .bind(types.json("records.parsed", &record.parsed))
        .bind(types.json("records.errors", &record.errors))
        .bind(record.processing_error.as_deref())
}

fn bind_records<'q>(query: Verdict<'q>, columns: &'q RecordColumns<'_>) -> Verdict<'q> {
    query
        .bind(&columns.job_ids)
        .bind(&columns.batch_ids)
        .bind(&columns.indexes)
        .bind(&columns.statuses)
        .bind(&columns.raws)
        .bind(&columns.parsed)
        .bind(&columns.errors)
        .bind(&columns.processing_errors)
}

async fn upsert_job(session: &mut Conn, compression: &Compression, job: &Job, keep_final: bool) -> Result<bool> {
    let lz4 = takes_lz4(session, compression, &job.batches).await?;
    // A row that this statement inserted has no `xmax`; one that it updated was locked by it first.
    let query = sqlx::query_scalar(session.sql(
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
    ))
    .bind(&job.id)
    .bind(job.status.as_str())
    .bind(session.types().json("jobs.config", &job.config))
    .bind(session.types().json("jobs.batches", &job.batches))
    .bind(job.total_records)
    .bind(job.started_at)
    .bind(job.completed_at)
    .bind(job.distributed)
    .bind(lz4)
    .bind(job.status.is_final())
    .bind(keep_final);
    run!(session, query, fetch_one)
}

/// Whether a batch has another version than the token's: tells a lost lease from a batch that is not held.
async fn lease_is_lost(session: &mut Conn, job_id: &str, batch_id: &str, token: Token) -> Result<bool> {
    let query = sqlx::query_scalar::<_, i32>(
        session.sql(r#"select "version"::int4 from batchactions_batches where "id" = $1::"batches.id" and "jobId" = $2::"batches.jobId""#),
    )
    .bind(batch_id)
    .bind(job_id);
    Ok(run!(session, query, fetch_optional)? != Some(token.0))
}

/// The index of a batch that is COMPLETED or FAILED, with the token's version where one is given.
async fn final_batch(session: &mut Conn, job_id: &str, batch_id: &str, token: Option<Token>) -> Result<Option<i32>> {
    let query = sqlx::query_scalar(session.sql(
        r#"
        select "batchIndex"::int4
        from batchactions_batches
        where "id" = $2::"batches.id"
          and "jobId" = $1::"batches.jobId"
          and ($3::int4 is null or "version" = $3)
          and "status" in ('COMPLETED', 'FAILED')
        "#,
    ))
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
        let query = sqlx::query(
            session.sql(r#"
            select "id"::text, "config"::text, "status"::text, "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed", "batches"::text
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#),
        )
        .bind(job_id);
        let Some(row) = run!(&mut session, query, fetch_optional)? else {
            return Ok(None);
        };
        Ok(Some(StoredJob {
            row: job_row(&row).map_err(unreadable("batchactions_jobs", &row))?,
            batches: row.try_get(7).map_err(unreadable("batchactions_jobs", &row))?,
        }))
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.session().await?;
        let after = filter.after.as_ref();
        let query = sqlx::query(session.sql(
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
        ))
        .bind(filter.status.map(JobStatus::as_str))
        .bind(after.map(|(_, id)| id))
        .bind(after.and_then(|(started_at, _)| *started_at))
        .bind(i64::from(filter.limit));
        run!(&mut session, query, fetch_all)?
            .iter()
            .map(|row| job_row(row).map_err(unreadable("batchactions_jobs", row)))
            .collect()
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.session().await?;
        let session = &mut session;
        let job = sqlx::query_as::<_, (i32, Option<i64>, Option<i64>, bool, i64)>(
            session.sql(r#"
            select "totalRecords"::int4, "startedAt"::int8, "completedAt"::int8, "distributed", (extract(epoch from clock_timestamp()) * 1000)::bigint
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#),
        )
        .bind(job_id);
        let job = run!(session, job, fetch_optional)?;
        Ok(job.map(|(total, started_at, completed_at, distributed, now)| JobTimes {
            total_records: total.into(),
            started_at,
            completed_at,
            distributed,
            now,
        }))
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.session().await?;
        let query = sqlx::query_as(
            session.sql(r#"select count(*), max("batchIndex")::int4 from batchactions_batches where "jobId" = $1::"batches.jobId""#),
        )
        .bind(job_id);
        let (count, last): (i64, Option<i32>) = run!(&mut session, query, fetch_one)?;
        Ok((count, last.map(BatchIndex)))
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(
            session.sql(r#"select max("batchIndex")::int4 from batchactions_batches where "jobId" = $1::"batches.jobId""#),
        )
        .bind(job_id);
        let last: Option<i32> = run!(&mut session, query, fetch_one)?;
        Ok(last.map(BatchIndex))
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(
            session
                .sql(r#"select exists (select from batchactions_batches where "id" = $2::"batches.id" and "jobId" = $1::"batches.jobId")"#),
        )
        .bind(job_id)
        .bind(batch_id);
        run!(&mut session, query, fetch_one)
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(session.sql(
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
        ))
        .bind(job_id)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        run!(&mut session, query, fetch_one)
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        batch_counts(&mut self.session().await?, job_id).await
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.session().await?;
        let session = &mut session;
        let records = sqlx::query_as::<_, (String, i64)>(session.sql(
            r#"
            select "status"::text, count(*)
            from batchactions_records
            where "jobId" = $1::"records.jobId"
            group by "status"
            "#,
        ))
        .bind(job_id);
        let mut counts = RecordCounts::default();
        for (status, count) in run!(session, records, fetch_all)? {
            counts.add(&status, count);
        }
        Ok(counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.session().await?;
        let query = sqlx::query_as::<_, (String, bool, bool, bool)>(session.sql(
            r#"
            select "status"::text,
                   "distributed",
                   exists (select from batchactions_batches where "jobId" = $1::"batches.jobId"),
                   exists (select from batchactions_batches where "jobId" = $1::"batches.jobId" and "status" = 'PENDING')
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            "#,
        ))
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
        let mut session = self.session().await?;
        let query = sqlx::query_as::<_, (bool, bool, bool)>(session.sql(
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
        ))
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
        let mut session = self.session().await?;
        let query = sqlx::query(session.sql(
            r#"
            select "recordIndex"::int4, "raw"::text, "parsed"::text, "status"::text, "errors"::text, "processingError"::text
            from batchactions_records
            where "jobId" = $1::"records.jobId" and "status" in ($2::"records.status", $3::"records.status")
            order by "recordIndex"::int8 + 0
            "#,
        ))
        .bind(job_id)
        .bind(statuses[0].as_str())
        .bind(statuses[1].as_str());
        read_records(&mut session, query).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.session().await?;
        let query = sqlx::query(session.sql(
            r#"
            select "recordIndex"::int4, "raw"::text, "parsed"::text, "status"::text, "errors"::text, "processingError"::text
            from batchactions_records
            where "jobId" = $1::"records.jobId" and "batchId" = $2::"records.batchId"
            order by "recordIndex"::int8 + 0
            "#,
        ))
        .bind(job_id)
        .bind(batch_id);
        read_records(&mut session, query).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.session().await?;
        let [s1, s2, s3, s4, s5] = page.status_places();
        // The lengths stand above the limit, so that no others are reckoned. What is stored in another place is fetched for its length, and again if it is on the
        // page.
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
        let text = match &page.batch_id {
            None => page!(
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
            Some(_) => page!(
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
        };
        let mut query = sqlx::query(session.sql(text))
            .bind(job_id)
            .bind(page.after.map_or(i64::MIN, i64::from))
            .bind(s1)
            .bind(s2)
            .bind(s3)
            .bind(s4)
            .bind(s5)
            .bind(i64::from(page.limit))
            .bind(PAGE_BYTES);
        if let Some(batch_id) = &page.batch_id {
            query = query.bind(batch_id);
        }
        read_records(&mut session, query).await
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
        // Asked again and again, and not waited for in the server: a server that falls silent is noticed.
        let deadline = Instant::now() + DDL_LIMIT;
        loop {
            let lock = sqlx::query_scalar("select pg_catalog.pg_try_advisory_xact_lock($1)").bind(INITIALIZE_LOCK);
            if run!(session, lock, fetch_one)? {
                break;
            }
            wait_for_tables(gate, deadline).await?;
        }
        if let Some(schema) = &self.schema {
            let exists =
                sqlx::query_scalar::<_, bool>("select exists (select from pg_catalog.pg_namespace where nspname = $1)").bind(schema);
            if !run!(session, exists, fetch_one)? {
                let create = format!("create schema {}", quoted(schema));
                session.execute(&create).await?;
            }
        }
        // Another process may have made them while this one waited for the lock.
        let found = catalogue(session).await?;
        // Nothing takes long on tables that are new.
        let limit = if found.is_empty() { None } else { Some(DDL_LIMIT) };
        if limit.is_some() {
            session.execute("set local statement_timeout = 0").await?;
            session.execute("set local lock_timeout = 0").await?;
        }
        for statement in found.missing(MIGRATION)? {
            match limit {
                Some(limit) => session.define(statement, limit).await,
                None => session.execute(statement).await,
            }
            .map_err(no_schema)?;
        }
        catalogue(session).await?.check_made(MIGRATION)?;
        session.commit().await
    }

    async fn close(&self) {
        self.connections.close().await;
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
        let session = &mut session;
        let inserted = upsert_job(session, &self.compression, job, keep_final).await?;
        let query =
            sqlx::query_scalar(session.sql(r#"select exists (select from batchactions_batches where "jobId" = $1::"batches.jobId")"#))
                .bind(&job.id);
        let has_rows = run!(session, query, fetch_one)?;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.session().await?;
        // `"status"::text || ''` keeps the planner on the index of batch indexes, which has the next batch first; the one of statuses would have it
        // sort all that are pending.
        let query = sqlx::query_as::<_, (String, i32, i64, i32, i32, i32, Option<i32>)>(session.sql(
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
        ))
        .bind(job_id)
        .bind(&worker_id.0)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        let row = run!(&mut session, query, fetch_optional)?;
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
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(session.sql(
            r#"
            update batchactions_batches
            set "status" = $3::"batches.status", "processedCount" = $4, "failedCount" = $5
            where "id" = $2::"batches.id"
              and "jobId" = $1::"batches.jobId"
              and ($6::int4 is null or "version" = $6)
              and not ($7 and "status" in ('COMPLETED', 'FAILED'))
            returning "batchIndex"::int4
            "#,
        ))
        .bind(job_id)
        .bind(batch_id)
        .bind(state.status.as_str())
        .bind(state.processed)
        .bind(state.failed)
        .bind(token.map(|token| token.0))
        .bind(keep_final);
        let changed = run!(&mut session, query, fetch_optional)?;
        let done = match changed {
            None if keep_final => final_batch(&mut session, job_id, batch_id, token).await?,
            changed => changed,
        };
        Ok(match (done, token) {
            (Some(index), _) => BatchChange::Done(BatchIndex(index)),
            (None, Some(_)) => BatchChange::LeaseLost,
            (None, None) => BatchChange::NotFound,
        })
    }

    /// One round trip: an import that is not distributed has no rows, and asks this twice for each batch.
    async fn set_unclaimed_batch_state(&self, key: &BatchKey, state: BatchState, keep_final: bool) -> Result<BatchPlace> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.session().await?;
        let query = sqlx::query_as::<_, (Option<i32>, Option<bool>, Option<bool>, Option<bool>)>(session.sql(
            r#"
            with changed as (
              update batchactions_batches
              set "status" = $3::"batches.status", "processedCount" = $4, "failedCount" = $5
              where "id" = $2::"batches.id"
                and "jobId" = $1::"batches.jobId"
                and not ($7 and "status" in ('COMPLETED', 'FAILED'))
              returning "batchIndex"
            )
            select changed."batchIndex"::int4, list."distributed", list."hasRows", list."hasId"
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
        ))
        .bind(job_id)
        .bind(batch_id)
        .bind(state.status.as_str())
        .bind(state.processed)
        .bind(state.failed)
        .bind(in_json(batch_id))
        .bind(keep_final);
        let (index, distributed, has_rows, has_id) = run!(&mut session, query, fetch_one)?;
        let index = match index {
            None if keep_final => final_batch(&mut session, job_id, batch_id, None).await?,
            index => index,
        };
        let job = match (distributed, has_rows, has_id) {
            (Some(distributed), Some(has_rows), Some(has_id)) => Some(ListSnapshot {
                distributed,
                has_rows,
                has_id,
            }),
            _ => None,
        };
        Ok(BatchPlace::of(index.map(BatchIndex), job))
    }

    async fn release(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(session.sql(
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
        ))
        .bind(job_id)
        .bind(batch_id)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0));
        match run!(&mut session, query, fetch_optional)? {
            Some(index) => Ok(BatchChange::Done(BatchIndex(index))),
            None => not_held(&mut session, job_id, batch_id, token).await,
        }
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.session().await?;
        let query = sqlx::query_scalar(session.sql(
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
        ))
        .bind(job_id)
        .bind(batch_id)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0))
        .bind(also_paused);
        match run!(&mut session, query, fetch_optional)? {
            Some(index) => Ok(BatchChange::Done(BatchIndex(index))),
            None => not_held(&mut session, job_id, batch_id, token).await,
        }
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<u32> {
        let mut session = self.session().await?;
        // A claim, a release and a reclaim each add 1 to `version`, so (version + 1) / 2 claims were made. A batch that is given up keeps the name of
        // its last worker.
        let query = sqlx::query(session.sql(
            r#"
            with stale as (
              select "id", $3::int4 is not null and ("version"::int8 + 1) / 2 >= $3 as poisoned
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
            "#,
        ))
        .bind(job_id)
        .bind(older_than.as_millis() as i64)
        .bind(max_claims.map(|most| most.0));
        Ok(run!(&mut session, query, execute)?.rows_affected() as u32)
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let mut session = self.session().await?;
        let session = &mut session;
        let records: Vec<&RecordWrite> = records.iter().collect();
        let parts: Vec<&[&RecordWrite]> = parts(&records).collect();
        if self.copy_records(session, &parts).await? {
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
        if let [first, rest @ ..] = records
            && let Some(token) = first.token
            && rest
                .iter()
                .all(|write| (write.token, &write.batch_id, &write.job_id) == (first.token, &first.batch_id, &first.job_id))
        {
            let held = upsert_leased_records(session, &records.iter().collect::<Vec<_>>(), token).await?;
            return Ok(vec![held; records.len()]);
        }
        session.begin(&self.begin).await?;
        let batch_ids: Vec<&str> = records
            .iter()
            .filter(|write| write.token.is_some())
            .map(|write| &*write.batch_id)
            .collect();
        let leases = sqlx::query_as::<_, (String, String, i32)>(session.sql(
            r#"
            select "id"::text, "jobId"::text, "version"::int4
            from batchactions_batches
            where "id" = any($1::"batches.id"[])
            order by "jobId"::text || '', "batchIndex"
            for share
            "#,
        ))
        .bind(&batch_ids);
        let leases = run!(session, leases, fetch_all)?;
        let leases: HashMap<&str, (&str, i32)> = leases.iter().map(|(id, job, version)| (&**id, (&**job, *version))).collect();
        let held: Vec<bool> = records
            .iter()
            .map(|write| {
                write
                    .token
                    .is_none_or(|token| leases.get(&*write.batch_id) == Some(&(&*write.job_id, token.0)))
            })
            .collect();
        let kept: Vec<&RecordWrite> = records
            .iter()
            .zip(&held)
            .filter(|(_, held)| **held)
            .map(|(write, _)| write)
            .collect();
        for part in parts(&kept) {
            upsert_records(session, part).await?;
        }
        session.commit().await?;
        Ok(held)
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let query =
            sqlx::query(session.sql(r#"update batchactions_jobs set "status" = 'ABORTED', "batches" = '[]' where "id" = $1::"jobs.id""#))
                .bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }

    async fn delete_batches(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.session().await?;
        let query = sqlx::query(
            session.sql(r#"
            delete from batchactions_batches
            where "id" in (select "id" from batchactions_batches where "jobId" = $1::"batches.jobId" order by "batchIndex" limit $2 for update)
            "#),
        )
        .bind(job_id)
        .bind(i64::from(most));
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_records(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.session().await?;
        let query = sqlx::query(
            session.sql(r#"
            delete from batchactions_records
            where "id" in (select "id" from batchactions_records where "jobId" = $1::"records.jobId" order by "recordIndex" limit $2 for update)
            "#),
        )
        .bind(job_id)
        .bind(i64::from(most));
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.session().await?;
        let query =
            sqlx::query(session.sql(r#"delete from batchactions_jobs where "id" = $1::"jobs.id" and "status" = 'ABORTED'"#)).bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }
}

struct PostgresTransaction {
    session: Conn,
    compression: Arc<Compression>,
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        for chunk in batches.chunks(ROWS_PER_STATEMENT) {
            let ids: Vec<&str> = chunk.iter().map(|batch| &*batch.id).collect();
            let indexes: Vec<i32> = chunk.iter().map(|batch| batch.index).collect();
            let statuses: Vec<&str> = chunk.iter().map(|batch| batch.initial_status()).collect();
            let workers: Vec<Option<&str>> = chunk.iter().map(|batch| batch.worker_id.as_deref()).collect();
            let claimed: Vec<Option<i64>> = chunk.iter().map(|batch| batch.claimed_at).collect();
            let starts: Vec<i32> = chunk.iter().map(|batch| batch.start).collect();
            let ends: Vec<i32> = chunk.iter().map(|batch| batch.end).collect();
            let processed: Vec<i32> = chunk.iter().map(|batch| batch.processed).collect();
            let failed: Vec<i32> = chunk.iter().map(|batch| batch.failed).collect();
            let query = sqlx::query(
                self.session.sql(r#"
                insert into batchactions_batches
                  ("id", "jobId", "batchIndex", "status", "workerId", "claimedAt", "recordStartIndex", "recordEndIndex", "processedCount",
                   "failedCount", "version")
                select b.id::"batches.id", $1::"batches.jobId", b.batch_index, b.status::"batches.status", b.worker_id::"batches.workerId", b.claimed_at,
                       b.first, b.last, b.processed, b.failed, 0
                from unnest($2::text[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::int4[], $8::int4[], $9::int4[], $10::int4[])
                  as b (id, batch_index, status, worker_id, claimed_at, first, last, processed, failed)
                on conflict do nothing
                "#),
            )
            .bind(job_id)
            .bind(ids)
            .bind(indexes)
            .bind(statuses)
            .bind(workers)
            .bind(claimed)
            .bind(starts)
            .bind(ends)
            .bind(processed)
            .bind(failed);
            run!(&mut self.session, query, execute)?;
        }
        Ok(())
    }

    async fn batch_owner(&mut self, batch_id: &str) -> Result<Option<BatchOwner>> {
        let query = sqlx::query_as::<_, (String, String)>(
            self.session
                .sql(r#"select "id"::text, "jobId"::text from batchactions_batches where "id" = $1::"batches.id""#),
        )
        .bind(batch_id);
        let owner = run!(&mut self.session, query, fetch_optional)?;
        Ok(owner.map(|(batch_id, job_id)| BatchOwner { batch_id, job_id }))
    }

    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session, job_id).await
    }

    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool> {
        upsert_job(&mut self.session, &self.compression, job, keep_final).await
    }

    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let query = sqlx::query_as::<_, (String, bool, String, Option<i64>, i64)>(self.session.sql(
            r#"
            select "status"::text, "distributed", "batches"::text, "startedAt"::int8, (extract(epoch from clock_timestamp()) * 1000)::bigint
            from batchactions_jobs
            where "id" = $1::"jobs.id"
            for update
            "#,
        ))
        .bind(job_id);
        let row = run!(&mut self.session, query, fetch_optional)?;
        Ok(row.map(|(status, distributed, batches, started_at, now)| LockedJob {
            status,
            distributed,
            batches,
            started_at,
            now,
        }))
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        let lz4 = takes_lz4(&mut self.session, &self.compression, batches).await?;
        let query = sqlx::query(self.session.sql(
            r#"
            update batchactions_jobs
            set "batches" = $2::"jobs.batches"
            where "id" = $1::"jobs.id" and (not $3 or pg_catalog.set_config('default_toast_compression', 'lz4', true) is not null)
            "#,
        ))
        .bind(job_id)
        .bind(self.session.types().json("jobs.batches", batches))
        .bind(lz4);
        run!(&mut self.session, query, execute)?;
        Ok(())
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        let lz4 = takes_lz4(&mut self.session, &self.compression, batches).await?;
        let query = sqlx::query(
            self.session.sql(r#"
            update batchactions_jobs
            set "status" = $2::"jobs.status", "batches" = $3::"jobs.batches", "completedAt" = (extract(epoch from clock_timestamp()) * 1000)::bigint
            where "id" = $1::"jobs.id" and (not $4 or pg_catalog.set_config('default_toast_compression', 'lz4', true) is not null)
            "#),
        )
        .bind(job_id)
        .bind(status.as_str())
        .bind(self.session.types().json("jobs.batches", batches))
        .bind(lz4);
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
