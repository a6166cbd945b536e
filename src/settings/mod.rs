//! Where the database is and how to talk to it: a URL, options, a Sequelize instance and the environment become one [`Settings`].
//!
//! Each of `url`, `parts` and `sequelize` reads a [`Place`]: what was said, and no default. `environment` fills in what it leaves open, as libpq does;
//! then come the defaults, and the options go before all of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Code, Error, Quoted, Result};
use crate::fields::Fields;

mod environment;
mod fields;
mod ignored;
mod options;
mod parameters;
mod passfile;
mod scheme;
mod sequelize;
mod session_options;
mod sqlite;
mod tls;
mod unknown;
mod url;

pub use ignored::newly_ignored;
pub use passfile::{Passfile, Wanted};
pub use session_options::{Switch, switches};
pub use tls::{Ssl, SslMode, is_pem};

/// The drivers. MariaDB speaks MySQL's protocol; which of the two answers is known once connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Postgres,
    MySql,
    Sqlite,
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Fixed(Secret),
    /// From [`Settings::password_function`], for each connection that needs a newer one.
    Asked,
    /// From a password file of libpq's, read for each connection.
    InFile(Passfile),
}

impl Password {
    /// The password, where it is known beforehand.
    pub fn fixed(&self) -> Option<&str> {
        match self {
            Password::Fixed(secret) => Some(secret.reveal()),
            Password::Asked | Password::InFile(_) => None,
        }
    }
}

/// What became of a question for a password.
#[derive(Debug)]
pub enum PasswordAnswer {
    Password(Secret),
    /// It is something else than a string: what.
    NoString(String),
    /// The function threw, or its promise was rejected; `thrown` is the value, as `index.js` keeps it.
    Threw {
        message: String,
        thrown: u32,
    },
}

/// A function that gives a password.
pub trait PasswordFunction: Send + Sync {
    /// Calls it. The sender is dropped where no answer can come any more; nothing comes where there is nobody left to ask.
    fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRenewal {
    pub every: Duration,
    pub for_at_most: Duration,
}

/// When a save of one record is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is committed.
    #[default]
    Record,
    /// Once it is queued.
    Batch,
}

/// Which servers a connection may end at: `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAttrs {
    /// One that takes writes.
    ReadWrite,
    /// One that is not in recovery.
    Primary,
}

/// What was said of where the database is, and of how to talk to it: no default is in here.
#[derive(Default)]
struct Place {
    host: Option<String>,
    /// The address to connect to, where it was said beside the host.
    address: Option<String>,
    port: Option<u16>,
    socket: Option<String>,
    name: Option<String>,
    user: Option<String>,
    password: Option<Password>,
    file: Option<String>,
    must_exist: bool,
    application_name: Option<String>,
    session_options: Option<String>,
    target: Option<Target>,
    channel_binding: Option<bool>,
    schema: Option<String>,
    pool_max: Option<u32>,
    pool_min: Option<u32>,
    acquire_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    statement_cache: Option<usize>,
    ssl: Ssl,
    /// Parameters that are not known, and do no harm.
    ignored: Vec<String>,
}

/// What `target_session_attrs` says.
#[derive(Clone, Copy)]
enum Target {
    Any,
    Only(SessionAttrs),
}

/// Everything that a store is made from. It has no `Debug`, so that no message can print it by accident.
#[derive(Clone)]
pub struct Settings {
    pub database: Database,
    pub host: String,
    pub port: u16,
    /// A Unix socket; for PostgreSQL the folder that it is in.
    pub socket: Option<String>,
    pub name: Option<String>,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub password_function: Option<Arc<dyn PasswordFunction>>,
    /// How old an answer of that function may be when a connection is made with it.
    pub password_ttl: Duration,
    /// SQLite's file; `None` is a database in memory.
    pub file: Option<String>,
    /// Whether that file has to be there already.
    pub must_exist: bool,
    pub application_name: Option<String>,
    /// PostgreSQL: what a session begins with, as libpq's `options`.
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
    pub statement_cache: usize,
    pub durability: Durability,
    pub lease_renewal: Option<LeaseRenewal>,
    pub max_claims: Option<crate::model::MaxClaims>,
    /// Parameters that were given and have no effect.
    pub ignored: Vec<String>,
}

const DEFAULT_POOL: u32 = 10;

fn bad_connection(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConnection, message)
}

impl Database {
    fn default_port(self) -> u16 {
        match self {
            Database::Postgres => 5432,
            Database::MySql => 3306,
            Database::Sqlite => 0,
        }
    }
}

impl Settings {
    /// The place, with a default for what was left open.
    fn at(database: Database, place: Place) -> Self {
        let mut ssl = place.ssl;
        ssl.channel_binding = place.channel_binding == Some(true);
        let mut settings = Self {
            database,
            host: place.host.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: place.port.unwrap_or(database.default_port()),
            socket: place.socket,
            name: place.name,
            user: place.user,
            password: place.password,
            password_function: None,
            password_ttl: Duration::from_secs(600),
            file: place.file,
            must_exist: place.must_exist,
            application_name: place.application_name,
            session_options: place.session_options,
            target: match place.target {
                Some(Target::Only(attrs)) => Some(attrs),
                _ => None,
            },
            schema: place.schema,
            pool_max: place.pool_max.unwrap_or(DEFAULT_POOL),
            pool_min: place.pool_min.unwrap_or(0),
            acquire_timeout: place.acquire_timeout.unwrap_or(Duration::from_secs(30)),
            idle_timeout: Duration::from_secs(10),
            connect_timeout: place.connect_timeout.unwrap_or(Duration::from_secs(15)),
            statement_timeout: Duration::from_secs(30),
            ssl,
            statement_cache: place.statement_cache.unwrap_or(100),
            durability: Durability::Record,
            lease_renewal: None,
            max_claims: None,
            ignored: place.ignored,
        };
        if let Some(timeout) = settings.session_options.as_deref().and_then(session_options::statement_timeout) {
            settings.statement_timeout = timeout;
        }
        settings
    }

    /// `source` is what the JavaScript side of the boundary found: `{url}`, `{parts}` or `{sequelize}`, each with the `environment`, and with
    /// `asksForPassword` if a function gives the password, which then is neither in the source nor in the options.
    pub fn from_json(source: &str, options: &str) -> Result<Self> {
        // Whatever it is may hold a password, so no message shows it.
        let unreadable = || bad_connection("the first argument must be a URL, connection options or a Sequelize instance");
        let source = Fields::read(&"connection", source).map_err(|_| unreadable())?;
        let (database, mut place) = if let Some(text) = source.optional_string("url")? {
            url::read(&text)?
        } else if let Some(parts) = source.get("parts").filter(|parts| parts.starts_with('{')) {
            read_parts(parts)?
        } else if let Some(sequelize) = source.get("sequelize").filter(|sequelize| sequelize.starts_with('{')) {
            sequelize::read(sequelize)?
        } else {
            return Err(unreadable());
        };
        if source.get("asksForPassword") == Some("true") {
            place.password = Some(Password::Asked);
        }
        let environment = environment::Environment::read(source.get("environment").unwrap_or("{}"))?;
        if database == Database::Postgres {
            environment.fill(&mut place)?;
        }
        let address = place.address.take();
        let mut settings = Self::at(database, place);
        settings.apply_options(options)?;
        // The options may say another mode of encryption, which decides whether an address can be used.
        if let Some(address) = address.filter(|_| settings.socket.is_none()) {
            settings.connect_to(address)?;
        }
        settings.ssl.system_file = environment.certificate_file();
        let settings = settings.check()?;
        if database == Database::Postgres {
            environment::check_driver(&settings)?;
        }
        Ok(settings)
    }

    /// libpq connects to `hostaddr`, and checks the certificate for `host`; the driver knows one name for both.
    fn connect_to(&mut self, address: String) -> Result<()> {
        let named = self.host != address && self.host.parse::<std::net::IpAddr>().is_err();
        if named && self.ssl.mode() >= SslMode::VerifyCa {
            return Err(bad_connection(
                "hostaddr (PGHOSTADDR) can't go with a certificate that is checked for another host: leave it out, and let host be looked up",
            ));
        }
        self.host = address;
        Ok(())
    }

    /// Adds the function that gives the password, where the settings say that one does.
    pub fn with_password_function(mut self, function: Option<Arc<dyn PasswordFunction>>) -> Result<Self> {
        if self.database == Database::Sqlite {
            self.password = None;
        }
        if self.password == Some(Password::Asked) {
            if function.is_none() {
                return Err(bad_connection("password must be a string, or a function that gives one"));
            }
            self.password_function = function;
        }
        Ok(self)
    }

    /// The database, as messages name it: without user and password.
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

    /// What the parts have to be, wherever each of them came from.
    fn check(self) -> Result<Self> {
        if self.database == Database::Sqlite {
            return self.check_schema();
        }
        if self.database == Database::MySql && self.name.is_none() {
            return Err(bad_connection(
                "the name of the database is missing: mysql://user:password@host:3306/database",
            ));
        }
        // To a server it is the end of the text, and what follows is the next setting.
        let password = self.password.as_ref().and_then(Password::fixed);
        let texts = [&self.name, &self.user, &self.socket, &self.application_name, &self.session_options].map(Option::as_deref);
        if texts
            .into_iter()
            .chain([Some(&*self.host), password])
            .flatten()
            .any(|text| text.contains('\0'))
        {
            return Err(bad_connection(
                "a host, socket, database, user, password, application_name or options must not hold the character U+0000",
            ));
        }
        if self.host.contains(',') {
            return Err(several_hosts());
        }
        // A login before it, or a path behind it, would be shown wherever the place is named.
        if self.host.contains(['@', '/']) || self.host.contains(char::is_whitespace) {
            return Err(bad_connection(
                "the host must be a name or an address and nothing else: user, password, port and database have places of their own",
            ));
        }
        if self.socket.is_some() && self.ssl.channel_binding {
            return Err(bad_connection(
                "channel_binding=require needs TLS, which a Unix socket has none of: leave it out",
            ));
        }
        if self.statement_cache == 0
            && let Some(options) = &self.session_options
            && switches(options)
                .iter()
                .any(|switch| matches!(switch, Switch::Other(text) if !text.contains('=')))
        {
            return Err(bad_connection(
                "options holds more than settings (-c name=value), which a pooler in front of the server (statementCache: 0, pgbouncer=true) takes no part of",
            ));
        }
        // Options and place may each give a part of it.
        self.ssl.check().map_err(bad_connection)?;
        self.check_schema()
    }

    fn check_schema(self) -> Result<Self> {
        if self.schema.is_some() && self.database != Database::Postgres {
            return Err(Error::invalid(
                "options.schema is for PostgreSQL only: the other databases have no schemas inside a database",
            ));
        }
        Ok(self)
    }
}

fn several_hosts() -> Error {
    bad_connection(
        "several hosts are given, and this store connects to one: give the one that takes writes, or an address that follows it (a proxy, or the \
         service's own name for the writer)",
    )
}

/// The connection options of `index.d.ts`.
fn read_parts(json: &str) -> Result<(Database, Place)> {
    let parts = Fields::read(&"connection", json)?;
    parts
        .only(&["dialect", "host", "port", "database", "user", "password", "socketPath", "storage"])
        .map_err(|error| Error {
            code: Code::InvalidConnection,
            ..error
        })?;
    let dialect = parts
        .part("dialect")?
        .ok_or_else(|| bad_connection("connection.dialect is missing: it must be postgres, mysql, mariadb or sqlite"))?;
    let database = scheme::database_of_dialect(&dialect)?;
    let mut place = Place::default();
    if database == Database::Sqlite {
        place.file = sqlite::file(&parts.part("storage")?.unwrap_or_default())?;
        return Ok((database, place));
    }
    place.host = parts.part("host")?;
    place.port = parts.port("port")?;
    place.socket = parts.part("socketPath")?;
    place.name = parts.part("database")?;
    place.user = parts.part("user")?;
    place.password = parts.password("password")?;
    place.host_may_be_folder(database);
    Ok((database, place))
}

impl Place {
    /// A host that begins with `/` is the folder of a socket to PostgreSQL's clients.
    fn host_may_be_folder(&mut self, database: Database) {
        if database == Database::Postgres && self.host.as_ref().is_some_and(|host| host.starts_with('/')) {
            self.socket = self.host.take();
        }
    }

    /// Takes a socket; PostgreSQL's may be named by its file.
    fn take_socket(&mut self, database: Database, path: String) {
        let file = path
            .rsplit_once("/.s.PGSQL.")
            .and_then(|(folder, port)| Some((folder, port.parse().ok()?)));
        match file {
            Some((folder, port)) if database == Database::Postgres => {
                self.socket = Some(folder.to_owned());
                self.port = Some(port);
            }
            _ => self.socket = Some(path),
        }
    }
}

#[cfg(test)]
mod tests;
