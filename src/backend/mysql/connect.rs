//! Connections to a MySQL or MariaDB server through sqlx: connecting, binding values and reading rows. Only this file and `errors.rs` name the
//! driver.

use std::borrow::Cow;

use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlQueryResult, MySqlRow, MySqlSslMode, MySqlTypeInfo, MySqlValueRef};
use sqlx::{Arguments, Column, ConnectOptions, MySqlConnection, Row as _, TypeInfo, ValueRef};

use super::errors;
use super::session_variables::SessionVariables;
use crate::backend::credentials::Login;
use crate::backend::driver::{Access, BoxFuture, Changed, Read, Row, Value};
use crate::backend::errors::Explained;
use crate::backend::session::Session;
use crate::backend::sqlx_driver::{SqlxDatabase, SqlxDriver, undecodable};
use crate::settings::{Secret, Settings, SslMode};

pub type MySqlDriver = SqlxDriver<MySqlServer>;

pub type Conn = Session<MySqlDriver>;

/// A server, as the store's settings describe it.
pub struct MySqlServer {
    options: MySqlConnectOptions,
    variables: SessionVariables,
}

/// The driver for the server in these settings.
pub fn driver(settings: &Settings) -> MySqlDriver {
    SqlxDriver(MySqlServer {
        options: connect_options(settings),
        variables: SessionVariables::new(settings),
    })
}

impl SqlxDatabase for MySqlServer {
    type Database = sqlx::MySql;

    fn options(&self, login: &Login, _access: Access) -> MySqlConnectOptions {
        let mut options = self.options.clone();
        if let Some(password) = login.password.as_ref().map(Secret::reveal) {
            options = options.password(password);
        }
        if let Some(ca) = &login.certificates.ca {
            options = options.ssl_ca_from_pem(ca.clone());
        }
        if let Some((cert, key)) = &login.certificates.identity {
            options = options.ssl_client_cert_from_pem(cert).ssl_client_key_from_pem(key);
        }
        options
    }

    fn set_up<'c>(&'c self, connection: &'c mut MySqlConnection) -> BoxFuture<'c, sqlx::Result<()>> {
        Box::pin(set_variables(connection, &self.variables))
    }

    fn explain(error: &dyn DatabaseError) -> Explained {
        errors::explain(error)
    }

    fn has_no_connection_left(error: &dyn DatabaseError) -> bool {
        errors::has_no_connection_left(error)
    }

    fn bind<'q>(arguments: &mut MySqlArguments, value: Value<'q>) -> Result<(), BoxDynError> {
        match value {
            Value::Text(text) => arguments.add(&*text),
            Value::OptionalText(text) => arguments.add(text.as_deref()),
            Value::Int(number) => arguments.add(number),
            Value::BigInt(number) => arguments.add(number),
            Value::Real(number) => arguments.add(number),
            Value::Bool(flag) => arguments.add(flag),
            Value::Bytes(bytes) => arguments.add(&*bytes),
            Value::Array(_) => Err("MySQL has no arrays".into()),
        }
    }

    fn changed(result: &MySqlQueryResult) -> Changed {
        Changed {
            rows: result.rows_affected(),
            last_insert_id: result.last_insert_id(),
        }
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
        // A login by IAM, PAM or LDAP sends the password in clear text, so the connection must keep it secret.
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

/// Keeps the driver from setting session variables of its own.
async fn set_variables(connection: &mut MySqlConnection, variables: &SessionVariables) -> sqlx::Result<()> {
    let text = match variables.known_text() {
        Some(text) => text,
        None => {
            let version = match ask_version(connection).await? {
                Some(version) => version,
                // For servers that return no rows by default.
                None => {
                    sqlx::Executor::execute(&mut *connection, variables.text_for_any_server()).await?;
                    ask_version(connection).await?.ok_or(sqlx::Error::RowNotFound)?
                }
            };
            variables.text_for(&version)
        }
    };
    sqlx::Executor::execute(connection, text).await.map(drop)
}

/// Reads no table, so that no limit of the server on rows read applies.
async fn ask_version(connection: &mut MySqlConnection) -> sqlx::Result<Option<String>> {
    let row = sqlx::Executor::fetch_optional(connection, sqlx::raw_sql("select version()")).await?;
    row.map(|row| row.try_get_unchecked(0)).transpose()
}

/// Reads values of any column type and collation. sqlx's type check is skipped, because it does not accept a column with a binary collation
/// (`utf8mb4_bin`, say) as text, nor an unsigned number or a decimal as an ordinary number.
impl Row for MySqlRow {
    fn text(&self, column: usize) -> Read<&str> {
        self.try_get_unchecked(column).map_err(|error| undecodable(column, &error))
    }

    fn optional_text(&self, column: usize) -> Read<Option<&str>> {
        self.try_get_unchecked(column).map_err(|error| undecodable(column, &error))
    }

    /// The server sends JSON as text.
    fn json(&self, column: usize) -> Read<Cow<'_, str>> {
        self.text(column).map(Cow::Borrowed)
    }

    fn optional_number(&self, column: usize) -> Read<Option<i64>> {
        let number = self.try_get::<Option<Number>, _>(column);
        number
            .map(|number| number.map(|Number(number)| number))
            .map_err(|error| undecodable(column, &error))
    }

    /// `exists` and comparisons return numbers; a column may have the type `bit`.
    fn boolean(&self, column: usize) -> Read<bool> {
        let value = self.try_get_raw(column).map_err(|error| undecodable(column, &error))?;
        if value.type_info().name() == "BIT" {
            return self.try_get(column).map_err(|error| undecodable(column, &error));
        }
        self.number::<i64>(column).map(|number| number != 0)
    }

    fn column(&self, column: usize) -> (String, Option<String>) {
        match self.try_column(column) {
            Ok(column) => (column.name().to_owned(), Some(column.type_info().name().to_owned())),
            Err(_) => (String::new(), None),
        }
    }
}

/// An integer of any type that a numeric column may have.
struct Number(i64);

impl sqlx::Type<sqlx::MySql> for Number {
    fn type_info() -> MySqlTypeInfo {
        <i64 as sqlx::Type<sqlx::MySql>>::type_info()
    }

    fn compatible(_: &MySqlTypeInfo) -> bool {
        true
    }
}

impl<'r> sqlx::Decode<'r, sqlx::MySql> for Number {
    fn decode(value: MySqlValueRef<'r>) -> Result<Self, BoxDynError> {
        let type_info = value.type_info().into_owned();
        let name = type_info.name();
        let number = if name == "DECIMAL" {
            let digits = <&str as sqlx::Decode<sqlx::MySql>>::decode(value)?;
            digits.split('.').next().unwrap_or(digits).parse()?
        } else if name.ends_with("INT UNSIGNED") {
            <u64 as sqlx::Decode<sqlx::MySql>>::decode(value)?.try_into()?
        } else if name.ends_with("INT") || name == "BOOLEAN" {
            <i64 as sqlx::Decode<sqlx::MySql>>::decode(value)?
        } else {
            return Err(format!("{name} is not a type of whole numbers").into());
        };
        Ok(Self(number))
    }
}
