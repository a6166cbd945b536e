//! Connections to a SQLite file or to an in-memory database through sqlx: connecting, binding values and reading rows. Only this file and `errors.rs`
//! name the driver.

use std::borrow::Cow;

use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteQueryResult, SqliteRow, SqliteSynchronous};
use sqlx::{Arguments, Column, ConnectOptions, Row as _, TypeInfo, ValueRef};

use super::errors;
use crate::backend::credentials::Login;
use crate::backend::driver::{Access, Changed, Read, Row, Value};
use crate::backend::errors::Explained;
use crate::backend::pool::{Pool, PoolRules};
use crate::backend::session::Session;
use crate::backend::sqlx_driver::{SqlxDatabase, SqlxDriver, undecodable};
use crate::settings::Settings;

/// The maximum number of reading connections: more would only wait for the disk.
const READERS: u32 = 4;

/// A write that waits for another process times out and is retried this many times within the statement's time limit.
const BUSY_SHARE: u32 = 15;

pub type SqliteDriver = SqlxDriver<SqliteDatabase>;

/// A session of one of the two pools.
pub type Conn = Session<SqliteDriver>;

/// A database, as the store's settings describe it.
pub struct SqliteDatabase {
    options: SqliteConnectOptions,
    /// For a file or folder that is not writable: the journal mode stays as it is. `None` in memory.
    reading_options: Option<SqliteConnectOptions>,
}

impl SqlxDatabase for SqliteDatabase {
    type Database = sqlx::Sqlite;

    /// Streaming would make the driver's thread and this one contend for the allocator, and a large read takes a quarter longer.
    const STREAMS: bool = false;

    fn options(&self, _login: &Login, access: Access) -> SqliteConnectOptions {
        match (access, &self.reading_options) {
            (Access::ReadOnly, Some(reading)) => reading.clone(),
            _ => self.options.clone(),
        }
    }

    fn can_only_read(&self) -> bool {
        self.reading_options.is_some()
    }

    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn bind<'q>(arguments: &mut SqliteArguments<'q>, value: Value<'q>) -> Result<(), BoxDynError> {
        match value {
            Value::Text(text) => arguments.add(text),
            Value::OptionalText(text) => arguments.add(text),
            Value::Int(number) => arguments.add(number),
            Value::BigInt(number) => arguments.add(number),
            Value::Real(number) => arguments.add(number),
            Value::Bool(flag) => arguments.add(flag),
            Value::Bytes(bytes) => arguments.add(bytes.into_owned()),
            Value::Array(_) => Err("SQLite has no arrays".into()),
        }
    }

    fn changed(result: &SqliteQueryResult) -> Changed {
        Changed {
            rows: result.rows_affected(),
            ..Changed::default()
        }
    }
}

/// The connections to one database.
pub struct Pools {
    pub writer: Pool<SqliteDriver>,
    /// `None` in memory, where the one connection is the database.
    pub readers: Option<Pool<SqliteDriver>>,
}

impl Pools {
    pub fn new(settings: &Settings) -> Self {
        let rules = PoolRules::of(settings);
        // The writer's connection stays open; in memory, it is the database.
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
        let pool = |rules| Pool::new(settings, driver(settings), rules);
        Self {
            writer: pool(writer),
            readers: settings.file.is_some().then(|| pool(readers)),
        }
    }

    /// The connection to a new database in memory, with the other settings of a file's.
    pub fn in_memory(settings: &Settings) -> Self {
        Self::new(&Settings {
            file: None,
            ..settings.clone()
        })
    }
}

/// The driver for the database in these settings.
fn driver(settings: &Settings) -> SqliteDriver {
    let reading_options = settings.file.as_ref().map(|file| common_options(settings).filename(file));
    SqlxDriver(SqliteDatabase {
        options: connect_options(settings),
        reading_options,
    })
}

fn connect_options(settings: &Settings) -> SqliteConnectOptions {
    let options = common_options(settings);
    match &settings.file {
        None => options.in_memory(true),
        // In WAL mode, NORMAL loses no transaction if the process dies. FULL would also keep the last ones in a power failure, at the cost of a sync
        // each.
        Some(file) => options
            // `SqliteFile` creates a missing file, and only when the tables are to be created.
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal),
    }
}

fn common_options(settings: &Settings) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .statement_cache_capacity(settings.statement_cache)
        .busy_timeout(settings.statement_timeout / BUSY_SHARE)
        .foreign_keys(false)
        .disable_statement_logging()
}

/// JSON for a column. SQLite would parse a number's digits less exactly than JavaScript does, so a number is bound as such.
pub fn json_value(json: &str) -> Value<'_> {
    if !json.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return json.into();
    }
    match (json.parse::<i64>(), json.parse::<f64>()) {
        (Ok(integer), _) => integer.into(),
        (_, Ok(real)) => real.into(),
        _ => json.into(),
    }
}

impl Row for SqliteRow {
    fn text(&self, column: usize) -> Read<&str> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    fn optional_text(&self, column: usize) -> Read<Option<&str>> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    /// A JSON column has NUMERIC affinity, so a JSON text that is a number is stored as a number.
    fn json(&self, column: usize) -> Read<Cow<'_, str>> {
        let value = self.try_get_raw(column).map_err(|error| undecodable(column, &error))?;
        let json = match value.type_info().name() {
            "INTEGER" => self.try_get_unchecked::<i64, _>(column).map(|number| number.to_string().into()),
            "REAL" => self
                .try_get_unchecked::<f64, _>(column)
                .map(|number| serde_json::Value::from(number).to_string().into()),
            _ => self.try_get_unchecked::<&str, _>(column).map(Cow::Borrowed),
        };
        json.map_err(|error| undecodable(column, &error))
    }

    fn optional_number(&self, column: usize) -> Read<Option<i64>> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    fn boolean(&self, column: usize) -> Read<bool> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    fn column(&self, column: usize) -> (String, Option<String>) {
        match self.try_column(column) {
            Ok(column) => (column.name().to_owned(), Some(column.type_info().name().to_owned())),
            Err(_) => (String::new(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_a_number_is_bound_as_that_number() {
        for (json, bound) in [
            ("7", Value::BigInt(Some(7))),
            ("-7", Value::BigInt(Some(-7))),
            ("1.5", Value::Real(1.5)),
            ("1e3", Value::Real(1_000.0)),
            ("9223372036854775808", Value::Real(9_223_372_036_854_775_808.0)),
            (r#""7""#, r#""7""#.into()),
            ("[7]", "[7]".into()),
            ("null", "null".into()),
            ("-", "-".into()),
        ] {
            assert_eq!(json_value(json), bound, "{json}");
        }
    }
}
