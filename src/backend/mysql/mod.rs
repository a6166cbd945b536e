//! Every statement for MySQL and MariaDB. Where the two differ, a comment says so.
//!
//! Neither has `update … returning`. `last_insert_id(expression)` does instead: the server sends the expression's value along with the number of rows
//! (MySQL Reference Manual, "Information Functions").

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode, MySqlTypeInfo, MySqlValueRef};
use sqlx::{ConnectOptions, MySqlConnection, Row};

use self::types::{Number, catalogue, number, optional_number};
use super::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks, key_chunks, size_of};
use super::errors::{Explained, unreadable};
use super::once::Once;
use super::schema::{DDL_LIMIT, wait_for_tables};
use super::session::{BoxFuture, Connections, Dialect, PoolRules, Session, SetUp, run};
use super::tls::Certificates;
use super::{
    Backend, BatchChange, BatchOwner, BatchPlace, ClaimSnapshot, ListSnapshot, LockedJob, Reads, ReclaimSnapshot, RecordWrite, SavedJob,
    StoredJob, Transaction,
};
use crate::error::{Code, Error, Quoted, Result};
use crate::model::{
    BatchCounts, BatchIndex, BatchKey, BatchRow, BatchState, ColumnLimits, Encoding, Job, JobFilter, JobRow, JobStatus, JobTimes,
    ListedBatch, MaxClaims, PAGE_BYTES, RecordCounts, RecordPage, RecordSlices, RecordStatus, RecordText, Repertoire, Reservation, Token,
    UnorderedRecords, WorkerId, in_json,
};
use crate::order::Gate;
use crate::settings::{Secret, Settings, SslMode};

mod errors;
mod types;

pub const MIGRATION: &str = include_str!("../../../migrations/mysql/0001_tables.sql");

/// A statement that waits for a lock is given up and made again so many times within the time that it may take.
const LOCK_WAIT_SHARE: u32 = 15;

impl Dialect for sqlx::MySql {
    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn has_no_connection_left(error: &dyn DatabaseError) -> bool {
        errors::has_no_connection_left(error)
    }

    fn log_in(mut options: MySqlConnectOptions, password: Option<&Secret>, certificates: &Certificates) -> MySqlConnectOptions {
        if let Some(password) = password {
            options = options.password(password.reveal());
        }
        if let Some(ca) = &certificates.ca {
            options = options.ssl_ca_from_pem(ca.clone());
        }
        if let Some((cert, key)) = &certificates.identity {
            options = options.ssl_client_cert_from_pem(cert).ssl_client_key_from_pem(key);
        }
        options
    }

    fn execute<'c>(connection: &'c mut MySqlConnection, text: &'c str) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(async move { sqlx::Executor::execute(connection, text).await.map(drop) })
    }
}

/// Not `begin`, which means something else in MariaDB's Oracle mode.
const BEGIN: &str = "start transaction";

type Conn = Session<sqlx::MySql>;
type Query<'q> = sqlx::query::Query<'q, sqlx::MySql, sqlx::mysql::MySqlArguments>;

/// Text of any collation. To sqlx, a column whose collation is a binary one (`utf8mb4_bin`, say) does not hold text.
struct Text(String);

impl sqlx::Type<sqlx::MySql> for Text {
    fn type_info() -> MySqlTypeInfo {
        <str as sqlx::Type<sqlx::MySql>>::type_info()
    }

    fn compatible(_: &MySqlTypeInfo) -> bool {
        true
    }
}

impl<'r> sqlx::Decode<'r, sqlx::MySql> for Text {
    fn decode(value: MySqlValueRef<'r>) -> std::result::Result<Self, sqlx::error::BoxDynError> {
        Ok(Self(<&str as sqlx::Decode<sqlx::MySql>>::decode(value)?.to_owned()))
    }
}

/// A column of text, or of JSON, which the server sends as text: its type goes unchecked, as that of `Text`.
fn text(row: &MySqlRow, column: usize) -> sqlx::Result<&str> {
    row.try_get_unchecked(column)
}

fn optional_text(row: &MySqlRow, column: usize) -> sqlx::Result<Option<&str>> {
    row.try_get_unchecked(column)
}

/// Which server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    is_mariadb: bool,
    version: (u32, u32),
    /// Bytes in one statement or value.
    max_packet: usize,
}

impl Server {
    fn check(self) -> Result<()> {
        let (name, least) = if self.is_mariadb { ("MariaDB", (10, 6)) } else { ("MySQL", (8, 0)) };
        if self.version < least {
            return Err(Error::new(
                Code::UnsupportedDatabase,
                format!(
                    "this server is {name} {}.{}, which has no SKIP LOCKED: {name} {}.{} is the oldest that works",
                    self.version.0, self.version.1, least.0, least.1
                ),
            ));
        }
        Ok(())
    }

    /// A statement that is larger than the server takes ends the connection in the middle, so it is not sent.
    fn check_size(self, what: &dyn std::fmt::Display, bytes: usize) -> Result<()> {
        // What surrounds the values in a packet.
        const OVERHEAD: usize = 4_096;
        if bytes + OVERHEAD > self.max_packet {
            return Err(Error::new(
                Code::ValueTooLong,
                format!(
                    "{what} has {bytes} bytes, and this server takes {}: raise its setting max_allowed_packet",
                    self.max_packet
                ),
            ));
        }
        Ok(())
    }

    fn check_list(self, job_id: &str, bytes: usize) -> Result<()> {
        self.check_size(&format_args!("the list of the batches of job {}", Quoted(job_id)), bytes)
    }

    /// Refuses a job that could be stored now and not finalized later.
    fn check_job(self, job: &Job) -> Result<()> {
        let what = format_args!(
            "job {}, with its configuration, the list of its batches and room for their states,",
            Quoted(&job.id)
        );
        self.check_size(
            &what,
            job.longest_list() + job.config.len() + self.spaces(&[&job.batches, &job.config]),
        )
    }

    /// The bytes that JSON has more when it is read: MySQL writes a space behind each comma and colon, and cuts a text that becomes larger than
    /// max_allowed_packet without a word. At most; those in strings have none.
    fn spaces(self, texts: &[&str]) -> usize {
        if self.is_mariadb {
            return 0;
        }
        let separators = |text: &str| text.bytes().filter(|byte| matches!(byte, b',' | b':')).count();
        texts.iter().map(|text| separators(text)).sum()
    }

    fn parse(version: &str, max_packet: u64) -> Self {
        // Some servers put a version that old clients understand in front: `5.5.5-10.11.2-MariaDB`.
        let is_mariadb = version.contains("MariaDB");
        let own = version.strip_prefix("5.5.5-").filter(|_| is_mariadb).unwrap_or(version);
        let mut parts = own.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self {
            is_mariadb,
            version,
            max_packet: usize::try_from(max_packet).unwrap_or(usize::MAX),
        }
    }
}

/// The session variables that are set on each connection, whatever the server's defaults are: those that change what a statement does. A server that is
/// read-only by default (`transaction_read_only`) stays so, for it may be one that was demoted. Any user may set these; what takes a privilege
/// (`low_priority_updates`, `binlog_format`) is left as it is.
struct SessionVariables {
    always: String,
    /// Those that not every server has; which this one has is asked once.
    own: OnceLock<&'static str>,
}

/// The assignments that not every server takes. `tx_isolation` is gone from MySQL 8, and MariaDB has had `transaction_isolation` since 11.1 only. The store
/// gives a statement up by its own clock, so that the server needs none.
fn own_variables(version: &str) -> &'static str {
    let server = Server::parse(version, 0);
    match (server.is_mariadb, server.version) {
        (true, (11, 1..) | (12.., _)) => ", transaction_isolation = 'READ-COMMITTED', max_statement_time = 0, check_constraint_checks = 1",
        (true, _) => ", tx_isolation = 'READ-COMMITTED', max_statement_time = 0, check_constraint_checks = 1",
        (false, (8.., _)) => ", transaction_isolation = 'READ-COMMITTED', max_execution_time = 0",
        // Too old, which `Server::check` says.
        (false, _) => ", tx_isolation = 'READ-COMMITTED'",
    }
}

impl SessionVariables {
    fn new(settings: &Settings) -> Self {
        let lock_wait = (settings.statement_timeout / LOCK_WAIT_SHARE).as_secs().max(1);
        let always = format!(
            "names utf8mb4 collate utf8mb4_unicode_ci, \
             time_zone = '+00:00', \
             sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
             autocommit = 1, \
             completion_type = 'NO_CHAIN', \
             innodb_lock_wait_timeout = {lock_wait}, \
             lock_wait_timeout = {}, \
             sql_select_limit = 18446744073709551615, \
             max_join_size = 18446744073709551615, \
             sql_big_selects = 1, \
             sql_safe_updates = 0, \
             sql_auto_is_null = 0, \
             group_concat_max_len = 4294967295, \
             max_sort_length = 1024, \
             unique_checks = 1, \
             foreign_key_checks = 1",
            settings.statement_timeout.as_secs().max(1)
        );
        Self {
            always,
            own: OnceLock::new(),
        }
    }

    /// In one `set` with one assignment after another, which a proxy can follow; `set transaction` is a statement of its own, so the isolation is set by its
    /// variable. The driver is told to set nothing by itself.
    async fn set(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let own = match self.own.get() {
            Some(own) => own,
            None => {
                let version = match ask_version(connection).await? {
                    Some(version) => version,
                    // Where a server's default is to send no rows.
                    None => {
                        sqlx::Executor::execute(&mut *connection, &*format!("set {}", self.always)).await?;
                        ask_version(connection).await?.ok_or(sqlx::Error::RowNotFound)?
                    }
                };
                self.own.get_or_init(|| own_variables(&version))
            }
        };
        sqlx::Executor::execute(connection, &*format!("set {}{own}", self.always))
            .await
            .map(drop)
    }
}

/// Asked without any table, so that no limit of the server's on what is read applies.
async fn ask_version(connection: &mut MySqlConnection) -> sqlx::Result<Option<String>> {
    let row = sqlx::Executor::fetch_optional(connection, sqlx::raw_sql("select version()")).await?;
    row.map(|row| text(&row, 0).map(str::to_owned)).transpose()
}

pub struct MySql {
    connections: Connections<sqlx::MySql>,
    server: Once<Server>,
    /// How many bytes `processingError` holds, and how they are encoded.
    text_column: OnceLock<(usize, Encoding)>,
}

/// What `processingError` holds; `None` where there is no such column.
async fn text_column(session: &mut Conn) -> Result<Option<(usize, Encoding)>> {
    let query = sqlx::query_as::<_, (Text, i64, i64, i64)>(
        "
        select cast(c.character_set_name as char),
               cast(c.character_octet_length as signed),
               cast(c.character_maximum_length as signed),
               cast(s.maxlen as signed)
        from information_schema.columns c
        join information_schema.character_sets s on s.character_set_name = c.character_set_name
        where c.table_schema = database()
          and c.table_name = 'batchactions_records'
          and c.column_name = 'processingError'
        ",
    );
    let Some((Text(name), bytes, characters, widest)) = run!(session, query, fetch_optional)? else {
        return Ok(None);
    };
    let encoding = match &*name {
        "utf8mb4" => Encoding::Utf8,
        "utf8mb3" | "utf8" => Encoding::Utf8Bmp,
        "utf16" | "utf16le" => Encoding::Utf16,
        "ucs2" => Encoding::Ucs2,
        "utf32" => Encoding::Utf32,
        _ => Encoding::Other(Arc::new(repertoire(session, &name, widest as usize).await?)),
    };
    // A `varchar` is limited in characters: as if each were as short as one can be.
    let most = bytes.min(characters.saturating_mul(encoding.narrowest() as i64));
    Ok(Some((most as usize, encoding)))
}

/// The characters that come back from one of the server's character sets as they were.
async fn repertoire(session: &mut Conn, name: &str, widest: usize) -> Result<Repertoire> {
    let all: String = (0x80..=0xffff).filter_map(char::from_u32).collect();
    // A name from the server's own list. The text goes as bytes, because MySQL refuses a parameter of text that it can't convert without loss.
    let text = format!("select convert(convert(convert(? using utf8mb4) using `{name}`) using utf8mb4)");
    let Text(back) = run!(session, sqlx::query_scalar::<_, Text>(&text).bind(all.as_bytes()), fetch_one)?;
    let same = all.chars().zip(back.chars()).filter(|(there, back)| there == back);
    Ok(Repertoire {
        characters: same.map(|(there, _)| there).collect(),
        widest,
    })
}

impl MySql {
    pub fn new(settings: Settings) -> Self {
        let session = Arc::new(SessionVariables::new(&settings));
        let set_up: SetUp<sqlx::MySql> = Arc::new(move |connection| {
            let session = session.clone();
            Box::pin(async move { session.set(connection).await })
        });
        let rules = PoolRules {
            set_up: Some(set_up),
            ..PoolRules::of(&settings)
        };
        Self {
            connections: Connections::new(&settings, connect_options(&settings), rules),
            server: Once::new(),
            text_column: OnceLock::new(),
        }
    }

    async fn server(&self) -> Result<Server> {
        self.server
            .get_or_try_init(|| async {
                let mut session = self.connections.acquire().await?;
                let query = sqlx::query_as::<_, (Text, u64)>("select version(), @@max_allowed_packet");
                let (Text(version), max_packet) = run!(&mut session, query, fetch_one)?;
                Ok(Server::parse(&version, max_packet))
            })
            .await
            .copied()
    }
}

fn connect_options(settings: &Settings) -> MySqlConnectOptions {
    let mut options = MySqlConnectOptions::new()
        .host(&settings.host)
        .port(settings.port)
        .statement_cache_capacity(settings.statement_cache)
        // `SessionVariables` sets them.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        // A login by IAM, PAM or LDAP gets the password itself, so no one else may read it.
        .enable_cleartext_plugin(settings.ssl.mode() >= SslMode::Require)
        .ssl_mode(match settings.ssl.mode() {
            SslMode::Disable => MySqlSslMode::Disabled,
            SslMode::Prefer => MySqlSslMode::Preferred,
            SslMode::Require => MySqlSslMode::Required,
            SslMode::VerifyCa => MySqlSslMode::VerifyCa,
            SslMode::VerifyFull => MySqlSslMode::VerifyIdentity,
        })
        .disable_statement_logging();
    if let Some(socket) = &settings.socket {
        options = options.socket(socket);
    }
    if let Some(user) = &settings.user {
        options = options.username(user);
    }
    if let Some(name) = &settings.name {
        options = options.database(name);
    }
    options
}

async fn batch_rows(session: &mut Conn, job_id: &str) -> Result<Vec<BatchRow>> {
    let query = sqlx::query(
        "
        select id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
        from batchactions_batches
        where jobId = ?
        order by batchIndex
        ",
    )
    .bind(job_id);
    run!(session, query, fetch_all)?
        .iter()
        .map(|row| batch_row(row).map_err(unreadable("batchactions_batches", row)))
        .collect()
}

fn batch_row(row: &MySqlRow) -> sqlx::Result<BatchRow> {
    Ok(BatchRow {
        id: text(row, 0)?.to_owned(),
        index: number(row, 1)?,
        status: text(row, 2)?.to_owned(),
        worker_id: optional_text(row, 3)?.map(str::to_owned),
        claimed_at: optional_number(row, 4)?,
        processed: number(row, 5)?,
        failed: number(row, 6)?,
    })
}

fn job_row(row: &MySqlRow) -> sqlx::Result<JobRow> {
    Ok(JobRow {
        id: text(row, 0)?.to_owned(),
        config: text(row, 1)?.to_owned(),
        status: text(row, 2)?.to_owned(),
        total_records: number(row, 3)?,
        started_at: optional_number(row, 4)?,
        completed_at: optional_number(row, 5)?,
        distributed: row.try_get(6)?,
    })
}

async fn batch_counts(session: &mut Conn, job_id: &str) -> Result<BatchCounts> {
    let query = sqlx::query_as::<_, (Text, i64)>(
        "
        select status, count(*)
        from batchactions_batches
        where jobId = ?
        group by status
        ",
    )
    .bind(job_id);
    let mut counts = BatchCounts::default();
    for (Text(status), count) in run!(session, query, fetch_all)? {
        counts.add(&status, count);
    }
    Ok(counts)
}

/// In the order of their indexes, whatever order the rows come in. A server that sorted them would sort the JSON along with the keys, and refuse where that
/// is more than its sort buffer holds (256 kB on MySQL: error 1038).
async fn read_records(session: &mut Conn, query: Query<'_>) -> Result<RecordSlices> {
    let mut records = UnorderedRecords::default();
    run!(session, query, each | row | push_record(&mut records, row))?;
    Ok(records.into_slices())
}

fn push_record(records: &mut UnorderedRecords, row: &MySqlRow) -> sqlx::Result<()> {
    records.push(RecordText {
        index: number(row, 0)?,
        raw: text(row, 1)?,
        parsed: text(row, 2)?,
        status: text(row, 3)?,
        errors: text(row, 4)?,
        processing_error: optional_text(row, 5)?,
    });
    Ok(())
}

// `values()` is deprecated in MySQL, but its successor is unknown to MariaDB.
//
// The nulls, which the columns refuse, keep a record from being overwritten by another: the collation of `jobId` takes ids that differ in case or accents
// for one, and a new record whose id is taken, which is what MySQL gives where none is left, meets the row that has it.
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

/// What goes into one statement each.
fn record_statements<'a, 'r>(server: Server, records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES.min(server.max_packet / 2)).flat_map(chunks)
}

/// The ids of the records that are there, by job and index. An upsert that gives them takes no new ones, and on MySQL it takes half the time.
#[derive(Default)]
struct KnownIds<'r> {
    by_index: HashMap<(&'r str, i64), i64>,
}

impl<'r> KnownIds<'r> {
    async fn read(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        static BY_INDEX: MultiRow = MultiRow::new(
            "
            select cast(id as signed), cast(recordIndex as signed)
            from batchactions_records force index (batchactions_records_job_id_record_index)
            where jobId = ? and recordIndex in (",
            "?",
            ")",
        );
        let mut known = Self::default();
        for of_job in writes.chunk_by(|a, b| a.job_id == b.job_id) {
            let indexes: Vec<i64> = of_job.iter().map(|write| write.record.index.into()).collect();
            let (Some(first), Some(last)) = (indexes.iter().min(), indexes.iter().max()) else {
                continue;
            };
            // What a batch has is next to each other, as a rule.
            if last - first < 2 * indexes.len() as i64 {
                let query = sqlx::query_as(
                    "
                    select cast(id as signed), cast(recordIndex as signed)
                    from batchactions_records force index (batchactions_records_job_id_record_index)
                    where jobId = ? and recordIndex between ? and ?
                    ",
                )
                .bind(&*of_job[0].job_id)
                .bind(first)
                .bind(last);
                known.add(&of_job[0].job_id, run!(session, query, fetch_all)?);
                continue;
            }
            for chunk in key_chunks(&indexes) {
                let mut query = sqlx::query_as(BY_INDEX.text(chunk.len())).bind(&*of_job[0].job_id);
                for index in chunk {
                    query = query.bind(index);
                }
                known.add(&of_job[0].job_id, run!(session, query, fetch_all)?);
            }
        }
        Ok(known)
    }

    fn add(&mut self, job_id: &'r str, rows: Vec<(i64, i64)>) {
        self.by_index.extend(rows.into_iter().map(|(id, index)| ((job_id, index), id)));
    }

    fn id(&self, write: &RecordWrite) -> Option<i64> {
        self.by_index.get(&(&*write.job_id, write.record.index.into())).copied()
    }
}

/// Records of which each part is written in one statement: those that are there, and those that are new. In one statement, the server would take an id for
/// each of both.
struct Upserts<'r> {
    ids: KnownIds<'r>,
    there: Vec<&'r RecordWrite>,
    new: Vec<&'r RecordWrite>,
}

impl<'r> Upserts<'r> {
    async fn of(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        let ids = KnownIds::read(session, writes).await?;
        let (there, new) = writes.iter().partition(|write| ids.id(write).is_some());
        Ok(Self { ids, there, new })
    }

    fn statements(&self, server: Server) -> impl Iterator<Item = &[&'r RecordWrite]> {
        record_statements(server, &self.there).chain(record_statements(server, &self.new))
    }

    async fn write(&self, session: &mut Conn, server: Server) -> Result<()> {
        for chunk in self.statements(server) {
            let mut query = sqlx::query(UPSERT_RECORDS.text(chunk.len()));
            for write in chunk {
                query = bind_record(query.bind(self.ids.id(write)), write);
            }
            run!(session, query, execute).map_err(|error| explain_upsert(error, chunk))?;
        }
        Ok(())
    }
}

fn bind_record<'q>(query: Query<'q>, write: &'q RecordWrite) -> Query<'q> {
    let record = &write.record;
    query
        .bind(&*write.job_id)
        .bind(&*write.batch_id)
        .bind(record.index)
        .bind(record.status.as_str())
        .bind(&*record.raw)
        .bind(&*record.parsed)
        .bind(&*record.errors)
        .bind(record.processing_error.as_deref())
}

/// One statement where the record is there, one more where it is new.
async fn upsert_record(session: &mut Conn, write: &RecordWrite) -> Result<()> {
    let record = &write.record;
    let query = sqlx::query(
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
    )
    .bind(&*write.job_id)
    .bind(&*write.batch_id)
    .bind(record.status.as_str())
    .bind(&*record.raw)
    .bind(&*record.parsed)
    .bind(&*record.errors)
    .bind(record.processing_error.as_deref())
    .bind(&*write.job_id)
    .bind(record.index);
    let explain = |error| explain_upsert(error, &[write]);
    // The server counts a row that is found, even where nothing in it changes.
    if run!(session, query, execute).map_err(explain)?.rows_affected() == 0 {
        let query = bind_record(sqlx::query(UPSERT_RECORDS.text(1)).bind(None::<i64>), write);
        run!(session, query, execute).map_err(explain)?;
    }
    Ok(())
}

async fn upsert_records(session: &mut Conn, server: Server, writes: &[&RecordWrite]) -> Result<()> {
    match writes {
        [write] => upsert_record(session, write).await,
        _ => Upserts::of(session, writes).await?.write(session, server).await,
    }
}

/// The statements refuse one record in another's place with a null.
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

/// Whether the row was inserted.
async fn upsert_job(session: &mut Conn, job: &Job, keep_final: bool) -> Result<bool> {
    // `last_insert_id(1)` says that a row was there. The assignments see each other's results from left to right, so `status` comes after what looks at it.
    // The collation of `id` takes ids that differ in case or accents for one; the null, which the column refuses, keeps the other job as it is.
    let query = sqlx::query(
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
    )
    .bind(&*job.id)
    .bind(job.status.as_str())
    .bind(&*job.config)
    .bind(&*job.batches)
    .bind(job.total_records)
    .bind(job.started_at)
    .bind(job.completed_at)
    .bind(job.status.is_final())
    .bind(job.distributed)
    .bind(keep_final)
    .bind(job.status.is_final() && job.completed_at.is_none())
    .bind(keep_final);
    let saved = run!(session, query, execute).map_err(|error| explain_job_upsert(error, &job.id))?;
    Ok(saved.last_insert_id() == 0)
}

/// `upsert_job` refuses one job in another's place with a null.
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

/// Whether a batch has another version than the token's: tells a lost lease from a batch that is not held.
async fn lease_is_lost(session: &mut Conn, job_id: &str, batch_id: &str, token: Token) -> Result<bool> {
    let query = sqlx::query_scalar::<_, Number<i32>>("select version from batchactions_batches where id = ? and jobId = ?")
        .bind(batch_id)
        .bind(job_id);
    Ok(run!(session, query, fetch_optional)?.is_none_or(|Number(version)| version != token.0))
}

/// The index of a batch that is COMPLETED or FAILED, with the token's version where one is given.
async fn final_batch(session: &mut Conn, job_id: &str, batch_id: &str, token: Option<Token>) -> Result<Option<i32>> {
    let query = sqlx::query_scalar::<_, Number<i32>>(
        "
        select batchIndex
        from batchactions_batches
        where id = ?
          and jobId = ?
          and (? is null or version = ?)
          and status in ('COMPLETED', 'FAILED')
        ",
    )
    .bind(batch_id)
    .bind(job_id)
    .bind(token.map(|token| token.0))
    .bind(token.map(|token| token.0));
    Ok(run!(session, query, fetch_optional)?.map(|Number(index)| index))
}

async fn not_held(session: &mut Conn, job_id: &str, batch_id: &str, token: Option<Token>) -> Result<BatchChange> {
    match token {
        Some(token) if lease_is_lost(session, job_id, batch_id, token).await? => Ok(BatchChange::LeaseLost),
        _ => Ok(BatchChange::NotFound),
    }
}

impl MySql {
    /// Refuses a record that is larger than the server takes.
    async fn check_records(&self, records: &[RecordWrite]) -> Result<Server> {
        let server = self.server().await?;
        for write in records {
            let (record, mut bytes) = (&write.record, size_of(write));
            // There is not more than a space to a byte.
            if bytes > server.max_packet / 2 {
                bytes += server.spaces(&[&record.raw, &record.parsed, &record.errors]);
            }
            server.check_size(&format_args!("record {}", record.index), bytes)?;
        }
        Ok(server)
    }

    async fn list_snapshot(&self, job_id: &str, text: &str) -> Result<Option<ListSnapshot>> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query_as::<_, (bool, i64, i64)>(
            "
            select distributed,
                   exists (select 1 from batchactions_batches where jobId = ?),
                   -- Null where the text, which the server writes with more spaces, is larger than max_allowed_packet.
                   coalesce(locate(?, cast(batches as char)) > 0, true)
            from batchactions_jobs
            where id = ?
            ",
        )
        .bind(job_id)
        .bind(text)
        .bind(job_id);
        let row = run!(&mut session, query, fetch_optional)?;
        Ok(row.map(|(distributed, has_rows, has_id)| ListSnapshot {
            distributed,
            has_rows: has_rows != 0,
            has_id: has_id != 0,
        }))
    }
}

#[async_trait]
impl Reads for MySql {
    async fn limits(&self) -> Result<ColumnLimits> {
        let deepest = if self.server().await?.is_mariadb { 31 } else { 100 };
        let (text_bytes, encoding) = match self.text_column.get() {
            Some(known) => known.clone(),
            None => match text_column(&mut self.connections.acquire().await?).await? {
                Some(found) => self.text_column.get_or_init(|| found).clone(),
                // There is no table, which the statement that comes next says.
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
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query(
            "
            select id, config, status, totalRecords, startedAt, completedAt, distributed, batches
            from batchactions_jobs
            where id = ?
            ",
        )
        .bind(job_id);
        let Some(row) = run!(&mut session, query, fetch_optional)? else {
            return Ok(None);
        };
        Ok(Some(StoredJob {
            row: job_row(&row).map_err(unreadable("batchactions_jobs", &row))?,
            batches: text(&row, 7).map_err(unreadable("batchactions_jobs", &row))?.to_owned(),
        }))
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        let mut session = self.connections.acquire().await?;
        let status = filter.status.map(JobStatus::as_str);
        let after_id = filter.after.as_ref().map(|(_, id)| &**id);
        let after_time = filter.after.as_ref().and_then(|(started_at, _)| *started_at);
        // Descending order puts missing times last here. Only keys are sorted, not the configurations: see `read_records`.
        let query = sqlx::query(
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
        )
        .bind(status)
        .bind(status)
        .bind(after_id)
        .bind(after_time)
        .bind(after_id)
        .bind(after_time)
        .bind(after_time)
        .bind(after_id)
        .bind(filter.limit);
        run!(&mut session, query, fetch_all)?
            .iter()
            .map(|row| job_row(row).map_err(unreadable("batchactions_jobs", row)))
            .collect()
    }

    async fn job_times(&self, job_id: &str) -> Result<Option<JobTimes>> {
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        let job = sqlx::query_as::<_, (Number<i64>, Option<Number<i64>>, Option<Number<i64>>, bool, i64)>(
            "
            select totalRecords, startedAt, completedAt, distributed, cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            from batchactions_jobs
            where id = ?
            ",
        )
        .bind(job_id);
        let job = run!(session, job, fetch_optional)?;
        Ok(
            job.map(|(Number(total_records), started_at, completed_at, distributed, now)| JobTimes {
                total_records,
                started_at: started_at.map(|Number(time)| time),
                completed_at: completed_at.map(|Number(time)| time),
                distributed,
                now,
            }),
        )
    }

    async fn batch_rows(&self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.connections.acquire().await?, job_id).await
    }

    async fn count_batches(&self, job_id: &str) -> Result<(i64, Option<BatchIndex>)> {
        let mut session = self.connections.acquire().await?;
        let query =
            sqlx::query_as::<_, (i64, Option<Number<i32>>)>("select count(*), max(batchIndex) from batchactions_batches where jobId = ?")
                .bind(job_id);
        let (count, last) = run!(&mut session, query, fetch_one)?;
        Ok((count, last.map(|Number(last)| BatchIndex(last))))
    }

    async fn last_batch_index(&self, job_id: &str) -> Result<Option<BatchIndex>> {
        let mut session = self.connections.acquire().await?;
        let query =
            sqlx::query_scalar::<_, Option<Number<i32>>>("select max(batchIndex) from batchactions_batches where jobId = ?").bind(job_id);
        Ok(run!(&mut session, query, fetch_one)?.map(|Number(last)| BatchIndex(last)))
    }

    async fn has_batch_row(&self, key: &BatchKey) -> Result<bool> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>("select exists (select 1 from batchactions_batches where id = ? and jobId = ?)")
            .bind(batch_id)
            .bind(job_id);
        Ok(run!(&mut session, query, fetch_one)? != 0)
    }

    async fn has_open_batch(&self, job_id: &str, from: Option<BatchIndex>) -> Result<bool> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>(
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
        )
        .bind(job_id)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0)
        .bind(job_id);
        Ok(run!(&mut session, query, fetch_one)? != 0)
    }

    async fn batch_counts(&self, job_id: &str) -> Result<BatchCounts> {
        batch_counts(&mut self.connections.acquire().await?, job_id).await
    }

    async fn record_counts(&self, job_id: &str) -> Result<RecordCounts> {
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        let records = sqlx::query_as::<_, (Text, i64)>(
            "
            select status, count(*)
            from batchactions_records
            where jobId = ?
            group by status
            ",
        )
        .bind(job_id);
        let mut counts = RecordCounts::default();
        for (Text(status), count) in run!(session, records, fetch_all)? {
            counts.add(&status, count);
        }
        Ok(counts)
    }

    async fn claim_snapshot(&self, job_id: &str) -> Result<Option<ClaimSnapshot>> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query_as::<_, (Text, bool, i64, i64)>(
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
        )
        .bind(job_id)
        .bind(job_id)
        .bind(job_id);
        let row = run!(&mut session, query, fetch_optional)?;
        Ok(row.map(|(Text(job_status), distributed, has_rows, has_pending)| ClaimSnapshot {
            job_status,
            distributed,
            has_rows: has_rows != 0,
            has_pending: has_pending != 0,
        }))
    }

    async fn reclaim_snapshot(&self, job_id: &str, older_than: Duration, from: Option<BatchIndex>) -> Result<ReclaimSnapshot> {
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        let query = sqlx::query_as::<_, (i64, Option<i64>)>(
            "
            select exists (
                     select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                     where jobId = ?
                       and status = 'PROCESSING'
                       and (claimedAt is null or claimedAt < cast(floor(unix_timestamp(now(3)) * 1000) as signed) - ?)
                   ),
                   (select status in ('PENDING', 'PROCESSING', 'PAUSED') from batchactions_batches where jobId = ? and batchIndex = ?)
            ",
        )
        .bind(job_id)
        .bind(older_than.as_millis() as i64)
        .bind(job_id)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0);
        let (has_stale, next_is_open) = run!(session, query, fetch_one)?;
        let has_stale = has_stale != 0;
        if next_is_open == Some(1) {
            return Ok(ReclaimSnapshot {
                has_rows: true,
                has_stale,
                has_open: true,
            });
        }
        // A statement of its own: these servers plan each part of one, needed or not, and what that costs grows with the job.
        let query = sqlx::query_as::<_, (i64, i64)>(
            "
            select exists (select 1 from batchactions_batches where jobId = ?),
                   exists (
                     select 1 from batchactions_batches force index (batchactions_batches_job_id_status)
                     where jobId = ? and status in ('PENDING', 'PROCESSING', 'PAUSED')
                   )
            ",
        )
        .bind(job_id)
        .bind(job_id);
        let (has_rows, has_open) = run!(session, query, fetch_one)?;
        Ok(ReclaimSnapshot {
            has_rows: has_rows != 0,
            has_stale,
            has_open: has_open != 0,
        })
    }

    async fn records_with_status(&self, job_id: &str, statuses: [RecordStatus; 2]) -> Result<RecordSlices> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query(
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ? and status in (?, ?)
            ",
        )
        .bind(job_id)
        .bind(statuses[0].as_str())
        .bind(statuses[1].as_str());
        read_records(&mut session, query).await
    }

    async fn records_of_batch(&self, key: &BatchKey) -> Result<RecordSlices> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query(
            "
            select recordIndex, raw, parsed, status, errors, processingError
            from batchactions_records
            where jobId = ? and batchId = ?
            ",
        )
        .bind(job_id)
        .bind(batch_id);
        read_records(&mut session, query).await
    }

    async fn record_page(&self, job_id: &str, page: &RecordPage) -> Result<RecordSlices> {
        let mut session = self.connections.acquire().await?;
        let [s1, s2, s3, s4, s5] = page.status_places();
        let after = page.after.map_or(i64::MIN, i64::from);
        // Only keys and lengths are sorted: see `read_records`. A length that the server does not tell counts as one that fills a page.
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
        let query = match &page.batch_id {
            None => sqlx::query(page!(
                "
                          select id
                          from batchactions_records force index (batchactions_records_job_id_record_index)
                          where jobId = ? and recordIndex > ? and status in (?, ?, ?, ?, ?)
                          order by recordIndex
                          limit ?
                "
            ))
            .bind(job_id)
            .bind(after),
            Some(batch_id) => sqlx::query(page!(
                "
                          select id
                          from batchactions_records force index (batchactions_records_job_id_batch_id)
                          where jobId = ? and recordIndex > ? and batchId = ? and status in (?, ?, ?, ?, ?)
                          order by recordIndex
                          limit ?
                "
            ))
            .bind(job_id)
            .bind(after)
            .bind(&**batch_id),
        };
        let query = query.bind(s1).bind(s2).bind(s3).bind(s4).bind(s5).bind(page.limit).bind(PAGE_BYTES);
        read_records(&mut session, query).await
    }
}

#[async_trait]
impl Backend for MySql {
    async fn initialize(&self, gate: &Gate) -> Result<()> {
        let server = self.server().await?;
        server.check()?;
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        if catalogue(session, server.is_mariadb).await?.missing(MIGRATION)?.is_empty() {
            return Ok(());
        }
        // Asked again and again, and not waited for in the server: a server that falls silent is noticed.
        let deadline = Instant::now() + DDL_LIMIT;
        loop {
            // A lock's name belongs to the whole server and has at most 64 characters.
            let lock = sqlx::query_scalar::<_, Option<i64>>("select get_lock(concat('batchactions ', left(sha2(database(), 256), 40)), 0)");
            if run!(session, lock, fetch_one)? == Some(1) {
                break;
            }
            wait_for_tables(gate, deadline).await?;
        }
        let made = make_tables(session, server).await;
        // A connection that is in doubt is dropped, and the lock with it.
        if session.is_in_order() {
            let unlock = sqlx::query("select release_lock(concat('batchactions ', left(sha2(database(), 256), 40)))");
            let unlocked = run!(session, unlock, execute);
            made?;
            return unlocked.map(drop);
        }
        made
    }

    async fn close(&self) {
        self.connections.close().await;
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let server = self.server().await?;
        let mut session = self.connections.acquire().await?;
        session.begin(BEGIN).await?;
        Ok(Box::new(MySqlTransaction { session, server }))
    }

    async fn save_job(&self, job: &Job, keep_final: bool) -> Result<SavedJob> {
        self.server().await?.check_job(job)?;
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        let inserted = upsert_job(session, job, keep_final).await?;
        let query = sqlx::query_scalar::<_, i64>("select exists (select 1 from batchactions_batches where jobId = ?)").bind(&*job.id);
        let has_rows = run!(session, query, fetch_one)? != 0;
        Ok(SavedJob { inserted, has_rows })
    }

    async fn claim(&self, job_id: &str, worker_id: &WorkerId, from: Option<BatchIndex>) -> Result<Option<Reservation>> {
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        // Without the index's name the servers choose the one of statuses, lock ranges of it, and skip each other's whole ranges. `exists` and not a join,
        // for a join would lock the job's row too.
        let query = sqlx::query_as::<_, (Text, Number<i32>, Number<i32>, Number<i32>, Number<i32>, i64, Option<Number<i32>>)>(
            "
            select id, batchIndex, recordStartIndex, recordEndIndex, version, cast(floor(unix_timestamp(now(3)) * 1000) as signed),
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
        )
        .bind(job_id)
        .bind(job_id)
        .bind(from.unwrap_or(BatchIndex::LOWEST).0)
        .bind(job_id);
        let Some((
            Text(batch_id),
            Number(batch_index),
            Number(record_start_index),
            Number(record_end_index),
            Number(version),
            claimed_at,
            last,
        )) = run!(session, query, fetch_optional)?
        else {
            session.rollback().await?;
            return Ok(None);
        };
        let query = sqlx::query(
            "
            update batchactions_batches
            set status = 'PROCESSING', workerId = ?, claimedAt = ?, version = version + 1
            where id = ?
            ",
        )
        .bind(&worker_id.0)
        .bind(claimed_at)
        .bind(&batch_id);
        run!(session, query, execute)?;
        session.commit().await?;
        Ok(Some(Reservation {
            job_id: job_id.to_owned(),
            batch_id,
            batch_index: BatchIndex(batch_index),
            worker_id: worker_id.clone(),
            claimed_at,
            record_start_index,
            record_end_index,
            token: Token(version + 1),
            last_batch_index: BatchIndex(last.map_or(batch_index, |Number(last)| last)),
        }))
    }

    async fn set_batch_state(&self, key: &BatchKey, state: BatchState, token: Option<Token>, keep_final: bool) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query(
            "
            update batchactions_batches
            set status = ?, processedCount = ?, failedCount = ?, batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and (? is null or version = ?)
              and not (? and status in ('COMPLETED', 'FAILED'))
            ",
        )
        .bind(state.status.as_str())
        .bind(state.processed)
        .bind(state.failed)
        .bind(batch_id)
        .bind(job_id)
        .bind(token.map(|token| token.0))
        .bind(token.map(|token| token.0))
        .bind(keep_final);
        let result = run!(&mut session, query, execute)?;
        let done = match result.rows_affected() {
            0 if keep_final => final_batch(&mut session, job_id, batch_id, token).await?,
            0 => None,
            _ => Some(result.last_insert_id() as i32),
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
        let mut session = self.connections.acquire().await?;
        // Worker ids are compared byte for byte: the columns' collations ignore case, accents or spaces at the end.
        let query = sqlx::query(
            "
            update batchactions_batches
            set status = 'PENDING', workerId = null, claimedAt = null, version = version + 1, batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and status = 'PROCESSING'
              and cast(convert(workerId using utf8mb4) as binary) = cast(? as binary)
              and (? is null or version = ?)
            ",
        )
        .bind(batch_id)
        .bind(job_id)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0))
        .bind(token.map(|token| token.0));
        let result = run!(&mut session, query, execute)?;
        match result.rows_affected() {
            0 => not_held(&mut session, job_id, batch_id, token).await,
            _ => Ok(BatchChange::Done(BatchIndex(result.last_insert_id() as i32))),
        }
    }

    async fn renew(&self, key: &BatchKey, worker_id: &WorkerId, token: Option<Token>, also_paused: bool) -> Result<BatchChange> {
        let BatchKey { job_id, batch_id } = key;
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query(
            "
            update batchactions_batches
            set claimedAt = cast(floor(unix_timestamp(now(3)) * 1000) as signed), batchIndex = last_insert_id(batchIndex)
            where id = ?
              and jobId = ?
              and (status = 'PROCESSING' or ? and status = 'PAUSED')
              and cast(convert(workerId using utf8mb4) as binary) = cast(? as binary)
              and (? is null or version = ?)
            ",
        )
        .bind(batch_id)
        .bind(job_id)
        .bind(also_paused)
        .bind(&worker_id.0)
        .bind(token.map(|token| token.0))
        .bind(token.map(|token| token.0));
        let result = run!(&mut session, query, execute)?;
        match result.rows_affected() {
            0 => not_held(&mut session, job_id, batch_id, token).await,
            _ => Ok(BatchChange::Done(BatchIndex(result.last_insert_id() as i32))),
        }
    }

    async fn reclaim(&self, job_id: &str, older_than: Duration, max_claims: Option<MaxClaims>) -> Result<u32> {
        static RECLAIM: MultiRow = MultiRow::new(
            // The assignments see each other's results from left to right, so `version` comes last. A claim, a release and a reclaim each add 1 to it, so
            // (version + 1) div 2 claims were made. A batch that is given up keeps the name of its last worker.
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
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let query = sqlx::query_scalar::<_, Text>(
            "
            select id
            from batchactions_batches force index (batchactions_batches_job_id_status)
            where jobId = ?
              and status = 'PROCESSING'
              and (claimedAt is null or claimedAt < cast(floor(unix_timestamp(now(3)) * 1000) as signed) - ?)
            order by batchIndex
            for update skip locked
            ",
        )
        .bind(job_id)
        .bind(older_than.as_millis() as i64);
        let stale = run!(session, query, fetch_all)?;
        let most = max_claims.map_or(i32::MAX, |most| most.0);
        for chunk in key_chunks(&stale) {
            let mut query = sqlx::query(RECLAIM.text(chunk.len())).bind(most).bind(most).bind(most);
            for Text(batch_id) in chunk {
                query = query.bind(batch_id);
            }
            run!(session, query, execute)?;
        }
        session.commit().await?;
        Ok(stale.len() as u32)
    }

    async fn save_records(&self, records: &[RecordWrite]) -> Result<()> {
        let server = self.check_records(records).await?;
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        if let [write] = records {
            return upsert_record(session, write).await;
        }
        let upserts = Upserts::of(session, &records.iter().collect::<Vec<_>>()).await?;
        if upserts.statements(server).count() == 1 {
            return upserts.write(session, server).await;
        }
        session.begin(BEGIN).await?;
        upserts.write(session, server).await?;
        session.commit().await
    }

    async fn save_fenced_records(&self, records: &[RecordWrite]) -> Result<Vec<bool>> {
        // MariaDB knows no `for share`.
        static LEASES: MultiRow = MultiRow::new(
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
        let server = self.check_records(records).await?;
        let mut session = self.connections.acquire().await?;
        let session = &mut session;
        session.begin(BEGIN).await?;
        let mut batch_ids: Vec<&str> = records
            .iter()
            .filter(|write| write.token.is_some())
            .map(|write| &*write.batch_id)
            .collect();
        batch_ids.sort_unstable();
        batch_ids.dedup();
        let mut leases = HashMap::new();
        for chunk in key_chunks(&batch_ids) {
            let mut query = sqlx::query_as::<_, (Text, Text, Number<i32>)>(LEASES.text(chunk.len()));
            for batch_id in chunk {
                query = query.bind(*batch_id);
            }
            for (Text(id), Text(job_id), Number(version)) in run!(session, query, fetch_all)? {
                leases.insert(id, (job_id, version));
            }
        }
        let mut held = Vec::with_capacity(records.len());
        let mut others = HashMap::new();
        for write in records {
            let Some(token) = write.token else {
                held.push(true);
                continue;
            };
            let lease = leases.get(&write.batch_id).filter(|(job_id, _)| *job_id == write.job_id);
            held.push(match lease {
                Some((_, version)) => *version == token.0,
                // Ids that are written in another way may be the same to the collation, which only the server knows. The row is locked.
                None => {
                    let key = (&*write.job_id, &*write.batch_id, token);
                    let lost = match others.get(&key) {
                        Some(lost) => *lost,
                        None => lease_is_lost(session, &write.job_id, &write.batch_id, token).await?,
                    };
                    others.insert(key, lost);
                    !lost
                }
            });
        }
        let kept: Vec<&RecordWrite> = records
            .iter()
            .zip(&held)
            .filter(|(_, held)| **held)
            .map(|(write, _)| write)
            .collect();
        upsert_records(session, server, &kept).await?;
        session.commit().await?;
        Ok(held)
    }

    async fn empty_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query("update batchactions_jobs set status = 'ABORTED', batches = '[]' where id = ?").bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }

    async fn delete_batches(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query("delete from batchactions_batches where jobId = ? order by batchIndex limit ?")
            .bind(job_id)
            .bind(most);
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_records(&self, job_id: &str, most: i32) -> Result<u64> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query("delete from batchactions_records where jobId = ? order by recordIndex limit ?")
            .bind(job_id)
            .bind(most);
        Ok(run!(&mut session, query, execute)?.rows_affected())
    }

    async fn delete_job(&self, job_id: &str) -> Result<bool> {
        let mut session = self.connections.acquire().await?;
        let query = sqlx::query("delete from batchactions_jobs where id = ? and status = 'ABORTED'").bind(job_id);
        Ok(run!(&mut session, query, execute)?.rows_affected() > 0)
    }
}

async fn make_tables(session: &mut Conn, server: Server) -> Result<()> {
    // Another process may have made them while this one waited for the lock.
    let found = catalogue(session, server.is_mariadb).await?;
    for statement in found.missing(MIGRATION)? {
        // Nothing takes long on tables that are new.
        if found.is_empty() {
            session.execute(statement).await?;
        } else {
            session.define(statement, DDL_LIMIT).await?;
        }
    }
    Ok(())
}

struct MySqlTransaction {
    session: Conn,
    server: Server,
}

static INSERT_BATCHES: MultiRow = MultiRow::new(
    "
    insert into batchactions_batches
      (jobId, id, batchIndex, status, workerId, claimedAt, recordStartIndex, recordEndIndex, processedCount, failedCount, version)
    values ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
    "
    on duplicate key update version = version
    ",
);

#[async_trait]
impl Transaction for MySqlTransaction {
    async fn insert_batches(&mut self, job_id: &str, batches: &[&ListedBatch]) -> Result<()> {
        // A batch with the longest ids has less than 1,000 bytes.
        let most = (self.server.max_packet / 2_000).max(1);
        for chunk in batches.chunks(most).flat_map(chunks) {
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
        let query = sqlx::query_as::<_, (Text, Text)>("select id, jobId from batchactions_batches where id = ?").bind(batch_id);
        let owner = run!(&mut self.session, query, fetch_optional)?;
        Ok(owner.map(|(Text(batch_id), Text(job_id))| BatchOwner { batch_id, job_id }))
    }

    async fn batch_rows(&mut self, job_id: &str) -> Result<Vec<BatchRow>> {
        batch_rows(&mut self.session, job_id).await
    }

    async fn upsert_job(&mut self, job: &Job, keep_final: bool) -> Result<bool> {
        self.server.check_job(job)?;
        upsert_job(&mut self.session, job, keep_final).await
    }

    async fn lock_job(&mut self, job_id: &str) -> Result<Option<LockedJob>> {
        let query = sqlx::query_as::<_, (Text, bool, Text, Option<Number<i64>>, i64)>(
            "
            select status, distributed, batches, startedAt, cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            from batchactions_jobs
            where id = ?
            for update
            ",
        )
        .bind(job_id);
        let row = run!(&mut self.session, query, fetch_optional)?;
        Ok(row.map(|(Text(status), distributed, Text(batches), started_at, now)| LockedJob {
            status,
            distributed,
            batches,
            started_at: started_at.map(|Number(time)| time),
            now,
        }))
    }

    async fn set_job_batches(&mut self, job_id: &str, batches: &str) -> Result<()> {
        self.server.check_list(job_id, batches.len())?;
        let query = sqlx::query("update batchactions_jobs set batches = ? where id = ?")
            .bind(batches)
            .bind(job_id);
        run!(&mut self.session, query, execute)?;
        Ok(())
    }

    async fn finish_job(&mut self, job_id: &str, status: JobStatus, batches: &str) -> Result<()> {
        self.server.check_list(job_id, batches.len())?;
        let query = sqlx::query(
            "
            update batchactions_jobs
            set status = ?, batches = ?, completedAt = cast(floor(unix_timestamp(now(3)) * 1000) as signed)
            where id = ?
            ",
        )
        .bind(status.as_str())
        .bind(batches)
        .bind(job_id);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_isolation_is_set_by_the_variable_that_the_server_has() {
        for (version, variable) in [
            ("8.0.36", " transaction_isolation"),
            ("9.7.4", " transaction_isolation"),
            ("5.6.51", " tx_isolation"),
            ("10.6.16-MariaDB", " tx_isolation"),
            ("5.5.5-10.11.2-MariaDB-log", " tx_isolation"),
            ("11.0.2-MariaDB", " tx_isolation"),
            ("11.1.2-MariaDB", " transaction_isolation"),
            ("12.0.2-MariaDB", " transaction_isolation"),
        ] {
            let own = super::own_variables(version);
            assert!(own.contains(&format!("{variable} = 'READ-COMMITTED'")), "{version}: {own}");
        }
    }

    #[test]
    fn servers_are_told_apart_and_old_ones_refused() {
        for (version, is_mariadb, served) in [
            ("10.11.19-MariaDB-0+deb12u1", true, true),
            ("5.5.5-10.6.1-MariaDB", true, true),
            ("10.5.28-MariaDB", true, false),
            ("9.1.0", false, true),
            ("8.0.36-0ubuntu0.22.04.1", false, true),
            ("5.7.44-log", false, false),
        ] {
            let server = Server::parse(version, 1 << 24);
            assert_eq!(server.is_mariadb, is_mariadb, "{version}");
            assert_eq!(server.check().is_ok(), served, "{version}");
        }
    }
}
