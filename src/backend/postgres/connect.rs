//! Connections to a PostgreSQL server through sqlx: connecting, binding values, reading rows, and `copy`. Only this file and `errors.rs` name the
//! driver.

use std::borrow::Cow;

use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgSslMode};
use sqlx::{Arguments, Column, ConnectOptions, PgConnection, Row as _, TypeInfo, ValueRef};

use super::errors;
use super::session_settings::{is_pooled, session_settings, start_up_value};
use crate::backend::credentials::{Login, user_of};
use crate::backend::driver::{Access, Array, BoxFuture, Changed, Failure, Read, Row, Value};
use crate::backend::errors::Explained;
use crate::backend::sqlx_driver::{SqlxDatabase, SqlxDriver, failure, undecodable};
use crate::settings::{Secret, SessionAttrs, Settings, SslMode, Switch, switches};

pub type PostgresDriver = SqlxDriver<PostgresServer>;

/// A server, as the store's settings describe it.
pub struct PostgresServer {
    options: PgConnectOptions,
    /// The kind of server that `target_session_attrs` asks for.
    target: Option<SessionAttrs>,
}

/// The driver for the server in these settings.
pub fn driver(settings: &Settings) -> PostgresDriver {
    SqlxDriver(PostgresServer {
        options: connect_options(settings),
        target: settings.target,
    })
}

impl SqlxDatabase for PostgresServer {
    type Database = sqlx::Postgres;

    fn options(&self, login: &Login, _access: Access) -> PgConnectOptions {
        let password = login.password.as_ref().map_or("", Secret::reveal);
        let ca = login.certificates.ca.clone().unwrap_or_default();
        // The empty password replaces the one that sqlx reads from the environment.
        let options = self.options.clone().password(password).ssl_root_cert_from_pem(ca);
        match &login.certificates.identity {
            Some((cert, key)) => options.ssl_client_cert_from_pem(cert).ssl_client_key_from_pem(key),
            None => options,
        }
    }

    fn set_up<'c>(&'c self, connection: &'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(async move {
            match self.target {
                Some(wanted) => check_target(connection, wanted).await,
                None => Ok(()),
            }
        })
    }

    /// If a SCRAM password has a form by RFC 4013, the server stores that form and libpq sends it; sqlx sends the password as it is.
    fn prepared_password(&self, password: &str) -> Option<String> {
        stringprep::saslprep(password)
            .ok()
            .filter(|prepared| prepared != password)
            .map(Cow::into_owned)
    }

    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn hint(error: &dyn DatabaseError) -> Option<&'static str> {
        errors::hint(error)
    }

    fn bind<'q>(arguments: &mut PgArguments, value: Value<'q>) -> Result<(), BoxDynError> {
        match value {
            Value::Text(text) => arguments.add(text),
            Value::OptionalText(text) => arguments.add(text),
            Value::Int(number) => arguments.add(number),
            Value::BigInt(number) => arguments.add(number),
            Value::Real(number) => arguments.add(number),
            Value::Bool(flag) => arguments.add(flag),
            Value::Bytes(bytes) => arguments.add(&*bytes),
            Value::Array(Array::Texts(texts)) => arguments.add(texts),
            Value::Array(Array::OptionalTexts(texts)) => arguments.add(texts),
            Value::Array(Array::Ints(numbers)) => arguments.add(numbers),
            Value::Array(Array::OptionalBigInts(numbers)) => arguments.add(numbers),
        }
    }

    fn changed(result: &PgQueryResult) -> Changed {
        Changed {
            rows: result.rows_affected(),
            ..Changed::default()
        }
    }
}

/// Sets everything that sqlx would otherwise read from the environment.
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
        // Each transaction begins with the settings; the other switches are for the service in front of the server.
        let others = switches(given).into_iter().filter_map(|switch| match switch {
            Switch::Other(text) => text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
            Switch::Set(..) => None,
        });
        // Poolers don't know this setting, and no column here holds floating-point numbers.
        options = options.extra_float_digits(None);
        let others: Vec<_> = others.collect();
        return if others.is_empty() { options } else { options.options(others) };
    }
    if !given.is_empty() {
        // sqlx writes settings only, so the switches are appended unchanged to the value of one. If a setting is given twice, the last one counts.
        options = options.options([("jit", format!("off {given}"))]);
    }
    let told = session_settings(settings);
    options.options(told.into_iter().map(|(name, value)| (name, start_up_value(&value))))
}

/// Refuses a server of another kind than `target_session_attrs` asks for.
async fn check_target(connection: &mut PgConnection, wanted: SessionAttrs) -> sqlx::Result<()> {
    let question = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";
    let row = sqlx::Executor::fetch_one(connection, sqlx::raw_sql(question)).await?;
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

/// Runs `copy … from stdin` and sends slices of its text. The next slice is sent while the server still processes the previous one.
pub async fn copy_in(connection: &mut PgConnection, statement: &str, slices: impl Iterator<Item = Vec<u8>>) -> Result<(), Failure> {
    let copying = async {
        let mut copy = connection.copy_in_raw(statement).await?;
        for slice in slices {
            copy.send(slice).await?;
        }
        copy.finish().await.map(drop)
    };
    copying.await.map_err(failure::<PostgresServer>)
}

impl Row for PgRow {
    fn text(&self, column: usize) -> Read<&str> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    fn optional_text(&self, column: usize) -> Read<Option<&str>> {
        self.try_get(column).map_err(|error| undecodable(column, &error))
    }

    /// The statements read JSON as text.
    fn json(&self, column: usize) -> Read<Cow<'_, str>> {
        self.text(column).map(Cow::Borrowed)
    }

    fn optional_number(&self, column: usize) -> Read<Option<i64>> {
        let value = self.try_get_raw(column).map_err(|error| undecodable(column, &error))?;
        let number = match value.type_info().name() {
            "INT4" => self.try_get::<Option<i32>, _>(column).map(|number| number.map(i64::from)),
            "INT2" => self.try_get::<Option<i16>, _>(column).map(|number| number.map(i64::from)),
            _ => self.try_get(column),
        };
        number.map_err(|error| undecodable(column, &error))
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
