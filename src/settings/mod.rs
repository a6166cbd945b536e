//! Where the database is and how to talk to it. A URL, connection options or a Sequelize instance, the environment and the store's options become one
//! [`Settings`].
//!
//! [`Settings::from_json`] applies them in order. One source (`url`, `connection_options` or `sequelize`) is read into [`PartialSettings`], without
//! defaults. For PostgreSQL, `environment` fills in what the source leaves open, as libpq does. The `options` override both. What is still open then
//! gets its default.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Quoted, Result};
use crate::fields::Fields;
use crate::model::MaxClaims;
use crate::warnings::Warnings;

mod check;
mod connection_options;
mod database;
mod dialect_options;
mod durability;
mod environment;
mod errors;
mod field_types;
mod ignored;
mod lease_renewal;
mod options;
mod parameter;
mod parameters;
mod partial;
mod passfile;
mod password;
mod percent_decoding;
mod schema_name;
mod scheme;
mod secret;
mod sequelize;
mod session_options;
mod sqlite;
mod target_session_attrs;
mod tls;
mod tls_parameters;
mod unsupported;
mod url;

pub use database::Database;
pub use durability::Durability;
pub use ignored::newly_ignored;
pub use lease_renewal::LeaseRenewal;
pub use passfile::{Passfile, Wanted};
pub use password::{Password, PasswordAnswer, PasswordFunction};
pub use secret::Secret;
pub use session_options::{Switch, switches};
pub use target_session_attrs::SessionAttrs;
pub use tls::{Ssl, SslMode, is_pem};

use environment::Environment;
use errors::invalid_connection;
use partial::{DEFAULT_POOL_MAX, PartialSettings};

/// Everything that a store is created from. It has no `Debug`, so that no message can print a password by accident.
#[derive(Clone)]
pub struct Settings {
    pub database: Database,
    /// Whether the scheme or dialect says `mariadb`. What the server is, only a connection tells.
    pub is_mariadb: bool,
    pub host: String,
    pub port: u16,
    /// A Unix socket; for PostgreSQL the folder that contains it.
    pub socket: Option<String>,
    /// The name of the database.
    pub name: Option<String>,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub password_function: Option<Arc<dyn PasswordFunction>>,
    /// The maximum age of that function's answer when a connection uses it.
    pub password_ttl: Duration,
    /// SQLite's file; `None` is a database in memory.
    pub file: Option<String>,
    /// Whether that file must exist already.
    pub must_exist: bool,
    pub application_name: Option<String>,
    /// PostgreSQL: the initial settings of a session, as libpq's `options`.
    pub session_options: Option<String>,
    pub target: Option<SessionAttrs>,
    pub schema: Option<String>,
    pub pool_max: u32,
    pub pool_min: u32,
    pub acquire_timeout: Duration,
    pub idle_timeout: Duration,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub ssl: Ssl,
    /// The number of prepared statements that a connection keeps.
    pub statement_cache: usize,
    pub durability: Durability,
    pub lease_renewal: Option<LeaseRenewal>,
    pub max_claims: Option<MaxClaims>,
    /// The names of parameters that were given but have no effect.
    pub ignored: Vec<String>,
    /// Where the store's warnings go.
    pub warnings: Warnings,
}

impl Settings {
    /// `source` is what `index.js` makes of the constructor's first argument: `{url}`, `{parts}` or `{sequelize}`, each with the `environment`,
    /// and with `asksForPassword` if a function gives the password, which then is neither in the source nor in the options. `options` is the second argument.
    pub fn from_json(source: &str, options: &str) -> Result<Self> {
        let source = Fields::read(&"connection", source).map_err(|_| unreadable())?;
        let (database, mut partial) = read_source(&source)?;
        if source.get("asksForPassword") == Some("true") {
            partial.password = Some(Password::Asked);
        }
        let environment = Environment::read(source.get("environment").unwrap_or("{}"))?;
        if database == Database::Postgres {
            environment.fill(&mut partial)?;
        }
        partial.ssl.channel_binding = partial.channel_binding == Some(true);
        options::apply(options, &mut partial)?;
        // Only now, because the options may change the TLS mode, which decides whether an address can be used.
        partial.use_address()?;
        partial.ssl.system_file = environment.certificate_file();
        check::check(database, &partial)?;
        if database == Database::Postgres {
            environment::check_driver(&partial)?;
        }
        Ok(Self::with_defaults(database, partial))
    }

    fn with_defaults(database: Database, partial: PartialSettings) -> Self {
        let by_session_options = partial.session_options.as_deref().and_then(session_options::statement_timeout);
        Self {
            database,
            is_mariadb: partial.is_mariadb,
            host: partial.host.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string()),
            port: partial.port.unwrap_or(database.default_port()),
            socket: partial.socket,
            name: partial.name,
            user: partial.user,
            password: partial.password,
            password_function: None,
            password_ttl: partial.password_ttl.unwrap_or(Duration::from_secs(600)),
            file: partial.file,
            must_exist: partial.must_exist,
            application_name: partial.application_name,
            session_options: partial.session_options,
            target: partial.target.and_then(|target| target.attrs()),
            schema: partial.schema,
            pool_max: partial.pool_max.unwrap_or(DEFAULT_POOL_MAX),
            pool_min: partial.pool_min.unwrap_or(0),
            acquire_timeout: partial.acquire_timeout.unwrap_or(Duration::from_secs(30)),
            idle_timeout: partial.idle_timeout.unwrap_or(Duration::from_secs(10)),
            connect_timeout: partial.connect_timeout.unwrap_or(Duration::from_secs(15)),
            statement_timeout: partial.statement_timeout.or(by_session_options).unwrap_or(Duration::from_secs(30)),
            ssl: partial.ssl,
            statement_cache: partial.statement_cache.unwrap_or(100),
            durability: partial.durability.unwrap_or_default(),
            lease_renewal: partial.lease_renewal,
            max_claims: partial.max_claims,
            ignored: partial.ignored,
            warnings: Warnings::default(),
        }
    }

    /// Adds the password function, if the settings ask for one.
    pub fn with_password_function(mut self, function: Option<Arc<dyn PasswordFunction>>) -> Result<Self> {
        if self.database == Database::Sqlite {
            self.password = None;
        }
        if self.password == Some(Password::Asked) {
            if function.is_none() {
                return Err(invalid_connection("password must be a string, or a function that gives one"));
            }
            self.password_function = function;
        }
        Ok(self)
    }

    pub fn with_warnings(mut self, warnings: Warnings) -> Self {
        self.warnings = warnings;
        self
    }

    /// Where the database is, for telemetry: without user and password, by the names of OpenTelemetry for the system.
    pub fn server(&self) -> serde_json::Value {
        let mut server = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| server.insert(name.to_owned(), value);
        let system = match self.database {
            Database::Postgres => "postgresql",
            Database::MySql if self.is_mariadb => "mariadb",
            Database::MySql => "mysql",
            Database::Sqlite => "sqlite",
        };
        put("system", system.into());
        match (self.database, &self.socket) {
            (Database::Sqlite, _) => {
                put("database", self.file.as_deref().unwrap_or(":memory:").into());
                return server.into();
            }
            (_, Some(socket)) => put("host", socket.as_str().into()),
            (_, None) => {
                put("port", self.port.into());
                put("host", self.host.as_str().into())
            }
        };
        if let Some(name) = &self.name {
            put("database", name.as_str().into());
        }
        // Without it, two stores in one database could not be told apart.
        if let Some(schema) = &self.schema {
            put("schema", schema.as_str().into());
        }
        server.into()
    }

    /// The database's name in messages, without user and password.
    pub fn place(&self) -> String {
        let name = self.name.as_deref().unwrap_or("");
        match (self.database, &self.socket) {
            (Database::Sqlite, _) => match &self.file {
                Some(file) => format!("SQLite file {}", Quoted(file)),
                None => "SQLite in memory".to_owned(),
            },
            (Database::Postgres, Some(socket)) => format!("PostgreSQL database {} at {socket}", Quoted(name)),
            (Database::Postgres, None) => format!("PostgreSQL database {} at {}:{}", Quoted(name), self.host, self.port),
            (Database::MySql, Some(socket)) => format!("MySQL database {} at {socket}", Quoted(name)),
            (Database::MySql, None) => format!("MySQL database {} at {}:{}", Quoted(name), self.host, self.port),
        }
    }
}

fn read_source(source: &Fields<'_, '_>) -> Result<(Database, PartialSettings)> {
    if let Some(text) = source.optional_string("url")? {
        url::read(&text)
    } else if let Some(parts) = source.get("parts").filter(|parts| parts.starts_with('{')) {
        connection_options::read(parts)
    } else if let Some(sequelize) = source.get("sequelize").filter(|sequelize| sequelize.starts_with('{')) {
        sequelize::read(sequelize)
    } else {
        Err(unreadable())
    }
}

/// The argument itself is not shown, because it may contain a password.
fn unreadable() -> Error {
    invalid_connection("the first argument must be a URL, connection options or a Sequelize instance")
}

#[cfg(test)]
mod tests;
