//! Where the database is and how to talk to it: a URL, options, or a Sequelize instance become one settings struct.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;
use url::Url;

use crate::error::{Code, Error, Quoted, Result};
use crate::fields::Fields;

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
}

impl Password {
    /// The password, where it is known beforehand.
    pub fn fixed(&self) -> Option<&str> {
        match self {
            Password::Fixed(secret) => Some(secret.reveal()),
            Password::Asked => None,
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

/// A function of the user's that gives a password.
pub trait PasswordFunction: Send + Sync {
    /// Calls it. The sender is dropped where no answer can come any more; nothing comes where there is nobody left to ask.
    fn ask(&self) -> Option<oneshot::Receiver<PasswordAnswer>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    const ALL: [(&'static str, SslMode); 5] = [
        ("disable", SslMode::Disable),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];

    /// The names of libpq; MySQL's own (`VERIFY_IDENTITY`, `PREFERRED`, …) mean the same things.
    fn from_text(text: &str) -> Option<Self> {
        let text = match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disabled" => "disable".to_owned(),
            "preferred" | "allow" => "prefer".to_owned(),
            "required" => "require".to_owned(),
            "verify-identity" => "verify-full".to_owned(),
            other => other.to_owned(),
        };
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode)
    }

    fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

/// Encryption. `ca`, `cert` and `key` are PEM text or the path of a PEM file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ssl {
    /// What was said; see [`Ssl::mode`].
    said: Option<SslMode>,
    pub ca: Option<String>,
    pub cert: Option<String>,
    pub key: Option<Secret>,
}

impl Ssl {
    /// Who gives an authority wants the server's certificate checked: that is so where no mode is said, and where it is `require` (as with libpq).
    pub fn mode(&self) -> SslMode {
        match (self.said, &self.ca) {
            (None, None) => SslMode::Prefer,
            (None, Some(_)) => SslMode::VerifyFull,
            (Some(SslMode::Require), Some(_)) => SslMode::VerifyCa,
            (Some(mode), _) => mode,
        }
    }

    /// Takes the mode that a URL says, once: of two, one would be weaker than was asked for.
    fn say(&mut self, mode: SslMode) -> Result<()> {
        match self.said.replace(mode) {
            Some(other) if other != mode => Err(bad_connection(
                "the URL says by two parameters whether to use TLS, and not the same: leave one",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what does not fit together.
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.said == Some(SslMode::Prefer) && self.ca.is_some() {
            return Err("ssl.mode \"prefer\" checks no certificate, so it can't go with ssl.ca: say verify-full");
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => Err("ssl.cert needs ssl.key, the key that belongs to it"),
            (None, Some(_)) => Err("ssl.key needs ssl.cert, the certificate that it belongs to"),
            _ => Ok(()),
        }
    }
}

/// Whether a certificate or key is given itself; else it is the path of a file.
pub fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
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
    pub application_name: Option<String>,
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
    pub max_claims: Option<i32>,
}

const DEFAULT_POOL: u32 = 10;
/// What PostgreSQL keeps of a name (`NAMEDATALEN`, less one).
const SCHEMA_BYTES: usize = 63;

fn bad_connection(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConnection, message)
}

fn not_served(what: &str) -> Error {
    // What is no name may be a whole URL, with its password.
    let named = what.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
    let what = if named {
        Quoted(what).to_string()
    } else {
        "what is given as the dialect".to_owned()
    };
    Error::new(
        Code::UnsupportedDatabase,
        format!("{what} is not a database that this store serves: it serves postgres, mysql, mariadb and sqlite"),
    )
}

impl Database {
    fn from_dialect(dialect: &str) -> Result<Self> {
        match dialect {
            "postgres" | "postgresql" => Ok(Database::Postgres),
            "mysql" | "mariadb" => Ok(Database::MySql),
            "sqlite" => Ok(Database::Sqlite),
            other => Err(not_served(other)),
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Database::Postgres => 5432,
            Database::MySql => 3306,
            Database::Sqlite => 0,
        }
    }
}

impl Settings {
    fn defaults(database: Database) -> Self {
        Self {
            database,
            host: "127.0.0.1".to_owned(),
            port: database.default_port(),
            socket: None,
            name: None,
            user: None,
            password: None,
            password_function: None,
            password_ttl: Duration::from_secs(600),
            file: None,
            application_name: None,
            schema: None,
            pool_max: DEFAULT_POOL,
            pool_min: 0,
            acquire_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            ssl: Ssl::default(),
            statement_cache: 100,
            durability: Durability::Record,
            lease_renewal: None,
            max_claims: None,
        }
    }

    /// `source` is what the JavaScript side of the boundary found: `{url}`, `{parts}` or `{sequelize}`.
    pub fn from_json(source: &str, options: &str) -> Result<Self> {
        // Whatever it is may hold a password, so no message shows it.
        let unreadable = || bad_connection("the first argument must be a URL, connection options or a Sequelize instance");
        let source = Fields::read(&"connection", source).map_err(|_| unreadable())?;
        let mut settings = if let Some(url) = source.optional_string("url")? {
            from_url(&url)?
        } else if let Some(parts) = source.get("parts").filter(|parts| parts.starts_with('{')) {
            from_parts(parts)?
        } else if let Some(sequelize) = source.get("sequelize").filter(|sequelize| sequelize.starts_with('{')) {
            from_sequelize(sequelize)?
        } else {
            return Err(unreadable());
        };
        settings.apply_options(options)?;
        // Options and place may each give a part of it.
        settings.ssl.check().map_err(bad_connection)?;
        if settings.schema.is_some() && settings.database != Database::Postgres {
            return Err(Error::invalid(
                "options.schema is for PostgreSQL only: the other databases have no schemas inside a database",
            ));
        }
        Ok(settings)
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

    fn apply_options(&mut self, json: &str) -> Result<()> {
        let options = Fields::read(&"options", json)?;
        options.only(&[
            "schema",
            "password",
            "passwordTtlMs",
            "pool",
            "connectTimeoutMs",
            "statementTimeoutMs",
            "ssl",
            "statementCache",
            "durability",
            "leaseRenewal",
            "maxClaims",
            "tablePrefix",
        ])?;
        options.no_nulls()?;
        if let Some(password) = options.password("password").map_err(|error| Error {
            code: Code::InvalidArgument,
            ..error
        })? {
            self.password = Some(password);
        }
        if let Some(ms) = options.milliseconds("passwordTtlMs")? {
            if self.password != Some(Password::Asked) {
                return Err(Error::invalid(
                    "options.passwordTtlMs says how long an answer of the function password is good for, and password is no function",
                ));
            }
            self.password_ttl = ms;
        }
        if let Some(schema) = options.optional_string("schema")? {
            self.schema = Some(schema);
        }
        if self
            .schema
            .as_ref()
            .is_some_and(|schema| schema.is_empty() || schema.contains('\0') || schema == "$user" || schema.len() > SCHEMA_BYTES)
        {
            return Err(Error::invalid(format!(
                "options.schema must be the name of a schema, of at most {SCHEMA_BYTES} bytes, for the server cuts off the rest; \"$user\" is \
                 none to the server, which puts the user's name in its place"
            )));
        }
        options.optional_string("tablePrefix")?;
        if let Some(pool) = options.get("pool") {
            let pool = Fields::read(&"options.pool", pool)?;
            pool.only(&["max", "min", "acquireTimeoutMs", "idleTimeoutMs"])?;
            pool.no_nulls()?;
            if let Some(max) = pool.count("max", 1, 1_000)? {
                self.pool_max = max;
                self.pool_min = self.pool_min.min(max);
            }
            if let Some(min) = pool.count("min", 0, self.pool_max)? {
                self.pool_min = min;
            }
            if let Some(ms) = pool.milliseconds("acquireTimeoutMs")? {
                self.acquire_timeout = ms;
            }
            if let Some(ms) = pool.milliseconds("idleTimeoutMs")? {
                self.idle_timeout = ms;
            }
        }
        if let Some(ms) = options.milliseconds("connectTimeoutMs")? {
            self.connect_timeout = ms;
        }
        if let Some(ms) = options.milliseconds("statementTimeoutMs")? {
            self.statement_timeout = ms;
        }
        if let Some(count) = options.count("statementCache", 0, 10_000)? {
            self.statement_cache = count as usize;
        }
        match options.optional_string("durability")?.as_deref() {
            None => {}
            Some("record") => self.durability = Durability::Record,
            Some("batch") => self.durability = Durability::Batch,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "options.durability must be \"record\" or \"batch\", not {}",
                    Quoted(other)
                )));
            }
        }
        if let Some(renewal) = options.get("leaseRenewal") {
            let renewal = Fields::read(&"options.leaseRenewal", renewal)?;
            renewal.only(&["everyMs", "forMs"])?;
            let every = renewal.must("everyMs", renewal.milliseconds("everyMs")?, "a number of milliseconds")?;
            let for_at_most = renewal.must("forMs", renewal.milliseconds("forMs")?, "a number of milliseconds")?;
            self.lease_renewal = Some(LeaseRenewal { every, for_at_most });
        }
        if let Some(most) = options.count("maxClaims", 1, i32::MAX as u32 / 2)? {
            self.max_claims = i32::try_from(most).ok();
        }
        if let Some(ssl) = options.get("ssl") {
            if !ssl.starts_with('{') {
                return Err(Error::invalid("options.ssl must be an object: { mode, ca, cert, key }"));
            }
            let ssl = Fields::read(&"options.ssl", ssl)?;
            ssl.only(&["mode", "ca", "cert", "key"])?;
            ssl.no_nulls()?;
            if let Some(mode) = ssl.optional_string("mode")? {
                self.ssl.said = Some(SslMode::from_text(&mode).ok_or_else(|| {
                    Error::invalid(format!(
                        "options.ssl.mode must be one of {}, not {}",
                        SslMode::names(),
                        Quoted(&mode)
                    ))
                })?);
            }
            self.take_pem(&ssl)?;
            self.ssl.check().map_err(|why| Error::invalid(format!("options.{why}")))?;
        }
        Ok(())
    }

    fn take_pem(&mut self, ssl: &Fields<'_, '_>) -> Result<()> {
        self.ssl.ca = ssl.optional_string("ca")?.or(self.ssl.ca.take());
        self.ssl.cert = ssl.optional_string("cert")?.or(self.ssl.cert.take());
        // A wrong key is a secret too, so nothing of it is shown.
        let key = ssl
            .optional_string("key")
            .map_err(|_| Error::invalid(format!("{}.key must be a string", ssl.what)))?;
        self.ssl.key = key.map(Secret).or(self.ssl.key.take());
        Ok(())
    }
}

impl Fields<'_, '_> {
    fn no_nulls(&self) -> Result<()> {
        match self.entries.iter().find(|(_, value)| value.get() == "null") {
            None => Ok(()),
            Some((key, _)) => Err(Error::invalid(format!(
                "{}.{key} is null: leave it out, or give it a value",
                self.what
            ))),
        }
    }

    fn count(&self, key: &str, least: u32, most: u32) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.parse() {
            Ok(count) if (least..=most).contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(key, value, format!("a whole number from {least} to {most}"))),
        }
    }

    /// A day at most: longer is a mistake in the unit.
    fn milliseconds(&self, key: &str) -> Result<Option<Duration>> {
        Ok(self.count(key, 1, 86_400_000)?.map(|ms| Duration::from_millis(ms.into())))
    }

    /// One part of where the database is. What is wrong with it may hold a password, so no message shows it.
    fn part(&self, key: &str) -> Result<Option<String>> {
        let Ok(part) = self.optional_string(key) else {
            return Err(bad_connection(format!("{}.{key} must be a string", self.what)));
        };
        if part.as_ref().is_some_and(|part| part.contains("://")) {
            return Err(bad_connection(format!(
                "{}.{key} is a URL, and must be one part of it: give the URL alone",
                self.what
            )));
        }
        Ok(part)
    }

    /// A secret, and so without its value in any message.
    fn secret(&self, key: &str) -> Result<Option<Secret>> {
        match self.optional_string(key) {
            Ok(secret) => Ok(secret.map(Secret)),
            Err(_) => Err(bad_connection(format!("{}.{key} must be a string", self.what))),
        }
    }

    /// A password, or what stands for a function that gives one (see `visible` in `index.js`).
    fn password(&self, key: &str) -> Result<Option<Password>> {
        if self.get(key).is_some_and(|value| value.starts_with("{\"a function\"")) {
            return Ok(Some(Password::Asked));
        }
        match self.secret(key) {
            Ok(Some(Secret(text))) if text.contains('\0') => Err(bad_connection(format!("{}.{key} holds the character U+0000", self.what))),
            Ok(password) => Ok(password.map(Password::Fixed)),
            Err(_) => Err(bad_connection(format!(
                "{}.{key} must be a string, or a function that gives one",
                self.what
            ))),
        }
    }

    /// A port, as a number or, as Sequelize has it when it came from a URL, as a string.
    fn port(&self, key: &str) -> Result<Option<u16>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let given = match value.parse::<f64>() {
            Ok(number) => number.to_string(),
            Err(_) => "what is given".to_owned(),
        };
        match value.trim_matches('"').parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(bad_connection(format!(
                "{}.{key} must be a port from 1 to 65535, not {given}",
                self.what
            ))),
        }
    }
}

fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| bad_connection(format!("the URL's {what} is not UTF-8")))?;
    if text.contains('\0') {
        return Err(bad_connection(format!("the URL's {what} holds the character U+0000")));
    }
    Ok(text.into_owned())
}

fn from_url(text: &str) -> Result<Settings> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(bad_connection(
            "the URL has no scheme: it must begin with postgres://, mysql://, mariadb:// or sqlite:".to_owned(),
        ));
    };
    // Everything after the scheme may hold a password, so no message shows it.
    let scheme = scheme.to_ascii_lowercase();
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Err(bad_connection(
            "the URL has no scheme: it must begin with postgres://, mysql://, mariadb:// or sqlite:",
        ));
    }
    let database = Database::from_dialect(&scheme)?;
    if database == Database::Sqlite {
        return from_sqlite_url(rest);
    }
    let url = Url::parse(text).map_err(|error| bad_connection(format!("the {scheme} URL can't be read: {error}")))?;
    if url.cannot_be_a_base() {
        return Err(bad_connection(format!("the {scheme} URL must begin with {scheme}://")));
    }
    // An unescaped `/`, `?` or `#` in a password ends the part before it, and the rest of it would be taken for a name and shown.
    if url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) || url.fragment().is_some() {
        return Err(bad_connection(format!(
            "the {scheme} URL has an @ behind its host, or a #: percent-encode the user and the password (encodeURIComponent)"
        )));
    }
    let mut settings = Settings::defaults(database);
    if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
        let host = decoded("host", host)?;
        if host.starts_with('/') {
            settings.socket = Some(host)
        } else {
            settings.host = host.trim_matches(['[', ']']).to_owned()
        }
    }
    match url.port() {
        Some(0) => return Err(bad_connection(format!("the {scheme} URL's port must be from 1 to 65535, not 0"))),
        Some(port) => settings.port = port,
        None => {}
    }
    if !url.username().is_empty() {
        settings.user = Some(decoded("user", url.username())?);
    }
    if let Some(password) = url.password() {
        settings.password = Some(Password::Fixed(Secret(decoded("password", password)?)));
    }
    let name = decoded("database", url.path().trim_start_matches('/'))?;
    if !name.is_empty() {
        settings.name = Some(name);
    }
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "sslmode" | "ssl-mode" | "ssl_mode" => {
                settings.ssl.say(SslMode::from_text(&value).ok_or_else(|| {
                    bad_connection(format!(
                        "the URL's {key} must be one of {}, not {}",
                        SslMode::names(),
                        Quoted(&value)
                    ))
                })?)?;
            }
            "ssl" => match &*value {
                "true" | "1" => settings.ssl.say(SslMode::VerifyFull)?,
                "false" | "0" => settings.ssl.say(SslMode::Disable)?,
                _ => {
                    return Err(bad_connection(format!(
                        "the URL's ssl must be true or false, not {}",
                        Quoted(&value)
                    )));
                }
            },
            "sslrootcert" | "ssl-ca" => settings.ssl.ca = Some(value),
            "sslcert" | "ssl-cert" => settings.ssl.cert = Some(value),
            "sslkey" | "ssl-key" => settings.ssl.key = Some(Secret(value)),
            "host" | "socket" | "socketPath" if value.contains("://") => {
                return Err(bad_connection(format!("the URL's {key} is a URL itself, and must be a path")));
            }
            "host" | "socket" | "socketPath" => settings.socket = Some(value),
            "application_name" => settings.application_name = Some(value),
            _ => {
                return Err(bad_connection(format!(
                    "the URL's parameter {} is unknown; known are sslmode, ssl, sslrootcert, sslcert, sslkey, socket, application_name",
                    Quoted(&key)
                )));
            }
        }
    }
    settings.check()
}

fn from_sqlite_url(rest: &str) -> Result<Settings> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    // Shown as the file's name, it would show the password.
    let login = |part: &str| part.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'));
    if path.split('/').any(login) || decoded("path", path)?.contains("://") {
        return Err(bad_connection(
            "a sqlite URL names a file and has no host and no login: sqlite:file.db or sqlite:///absolute/file.db",
        ));
    }
    if path.contains('?') {
        return Err(bad_connection(
            "a sqlite URL takes no parameters: write a ? in the file's name as %3F",
        ));
    }
    let mut settings = Settings::defaults(Database::Sqlite);
    settings.file = sqlite_file(&decoded("path", path)?)?;
    Ok(settings)
}

fn sqlite_file(storage: &str) -> Result<Option<String>> {
    match storage {
        ":memory:" => Ok(None),
        "" => Err(bad_connection(
            "SQLite needs a file: sqlite:file.db, sqlite:///absolute/file.db or sqlite::memory:",
        )),
        file if file.contains('\0') => Err(bad_connection("SQLite's file name holds the character U+0000")),
        file => Ok(Some(file.to_owned())),
    }
}

fn from_parts(json: &str) -> Result<Settings> {
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
    let mut settings = Settings::defaults(Database::from_dialect(&dialect)?);
    if settings.database == Database::Sqlite {
        settings.file = sqlite_file(&parts.part("storage")?.unwrap_or_default())?;
        return Ok(settings);
    }
    settings.host = parts.part("host")?.unwrap_or(settings.host);
    settings.port = parts.port("port")?.unwrap_or(settings.port);
    settings.socket = parts.part("socketPath")?;
    settings.name = parts.part("database")?;
    settings.user = parts.part("user")?;
    settings.password = parts.password("password")?;
    settings.check()
}

fn from_sequelize(json: &str) -> Result<Settings> {
    let sequelize = Fields::read(&"sequelize", json)?;
    let dialect = sequelize.optional_string("dialect")?.unwrap_or_default();
    let database = Database::from_dialect(&dialect)?;
    let section = |key: &str| Fields::read(&"sequelize", sequelize.get(key).unwrap_or("{}"));
    let (config, options) = (section("config")?, section("options")?);
    let define = Fields::read(&"sequelize.options.define", options.get("define").unwrap_or("{}"))?;
    if define.get("underscored") == Some("true") {
        return Err(bad_connection(
            "the Sequelize instance has define.underscored, which gives its tables other column names than this store uses (jobId, not \
             job_id): pass an instance without it, or a URL",
        ));
    }
    let mut settings = Settings::defaults(database);
    // A model's schema is that of `define`, else that of the instance.
    let schema = match define.optional_string("schema")? {
        Some(schema) => Some(schema),
        None => options.optional_string("schema")?,
    };
    if let Some(schema) = schema {
        if database != Database::Postgres {
            return Err(bad_connection(format!(
                "the Sequelize instance has a schema (define.schema), {}, which {dialect} makes part of the tables' names: pass an instance without it, or \
                 a URL",
                Quoted(&schema)
            )));
        }
        settings.schema = Some(schema);
    }
    // With replication, Sequelize writes through `write` and falls back to its own settings for what that leaves out.
    let replication = Fields::read(
        &"sequelize.options.replication",
        options.get("replication").filter(|it| it.starts_with('{')).unwrap_or("{}"),
    )?;
    let write = replication.get("write").unwrap_or("{}");
    if let Ok(url) = serde_json::from_str::<String>(write) {
        let schema = settings.schema.take();
        return Ok(Settings { schema, ..from_url(&url)? });
    }
    let write = Fields::read(&"sequelize.options.replication.write", write)?;
    let text = |key: &str| -> Result<Option<String>> {
        match write.part(key)? {
            Some(value) => Ok(Some(value)),
            None => config.part(key),
        }
    };
    if let Some(pool) = config.get("pool").filter(|pool| pool.starts_with('{')) {
        let pool = Fields::read(&"sequelize.config.pool", pool)?;
        let max = pool.count("max", 0, u32::MAX)?.unwrap_or(DEFAULT_POOL);
        settings.pool_max = max.clamp(1, 1_000);
        settings.pool_min = pool.count("min", 0, u32::MAX)?.unwrap_or(0).min(settings.pool_max);
    }
    if database == Database::Sqlite {
        let storage = match options.part("storage")? {
            Some(storage) => storage,
            // Made from a URL, it has the file's name as the host, or nothing for `sqlite::memory:`; made from options, it has its default host.
            None => text("host")?
                .filter(|host| !host.is_empty() && host != "localhost")
                .unwrap_or_else(|| ":memory:".to_owned()),
        };
        settings.file = sqlite_file(&storage)?;
        return Ok(settings);
    }
    settings.host = text("host")?.unwrap_or(settings.host);
    settings.port = match write.port("port")? {
        Some(port) => port,
        None => config.port("port")?.unwrap_or(settings.port),
    };
    settings.name = text("database")?;
    settings.user = text("username")?;
    settings.password = match write.password("password")? {
        Some(password) => Some(password),
        None => config.password("password")?,
    };
    let dialect_options = match write.get("dialectOptions").or(options.get("dialectOptions")) {
        Some(given) => Fields::read(&"sequelize.options.dialectOptions", given)?,
        None => Fields::read(&"sequelize.options.dialectOptions", "{}")?,
    };
    settings.socket = dialect_options.part("socketPath")?;
    settings.application_name = dialect_options.optional_string("application_name")?;
    // `pg` takes a folder as the host for a Unix socket.
    if settings.host.starts_with('/') {
        settings.socket = Some(std::mem::take(&mut settings.host));
    }
    if let Some(ssl) = dialect_options.get("ssl") {
        settings.take_sequelize_ssl(&dialect, ssl)?;
    }
    settings.check()
}

impl Settings {
    /// `dialectOptions.ssl`, as the driver that Sequelize uses for the dialect understands it: Node's TLS verifies unless told otherwise, and
    /// `mysql2` verifies the host name only with `verifyIdentity`.
    fn take_sequelize_ssl(&mut self, dialect: &str, ssl: &str) -> Result<()> {
        let ssl = match ssl {
            // From a URL's `?ssl=`, they are strings.
            "false" | "\"false\"" => {
                self.ssl.said = Some(SslMode::Disable);
                return Ok(());
            }
            "true" | "\"true\"" => "{}",
            "\"no-verify\"" if self.database == Database::Postgres => r#"{"rejectUnauthorized":false}"#,
            object if object.starts_with('{') => object,
            _ => {
                return Err(bad_connection(
                    "sequelize.options.dialectOptions.ssl must be true, false or an object: give the certificates themselves",
                ));
            }
        };
        let ssl = Fields::read(&"sequelize.options.dialectOptions.ssl", ssl)?;
        self.take_pem(&ssl)?;
        self.ssl.said = Some(if ssl.get("rejectUnauthorized") == Some("false") {
            // Whoever answers, the drivers talk to it.
            self.ssl.ca = None;
            SslMode::Require
        } else if dialect == "mysql" && ssl.get("verifyIdentity") != Some("true") {
            SslMode::VerifyCa
        } else {
            SslMode::VerifyFull
        });
        Ok(())
    }

    fn check(self) -> Result<Self> {
        if self.database == Database::MySql && self.name.is_none() {
            return Err(bad_connection(
                "the name of the database is missing: mysql://user:password@host:3306/database",
            ));
        }
        // To a server it is the end of the text, and what follows is the next setting.
        let password = self.password.as_ref().and_then(Password::fixed);
        let texts = [&self.name, &self.user, &self.socket, &self.application_name].map(Option::as_deref);
        if texts
            .into_iter()
            .chain([Some(&*self.host), password])
            .flatten()
            .any(|text| text.contains('\0'))
        {
            return Err(bad_connection(
                "a host, socket, database, user, password or application_name must not hold the character U+0000",
            ));
        }
        // A login before it, or a path behind it, would be shown wherever the place is named.
        if self.host.contains(['@', '/']) || self.host.contains(char::is_whitespace) {
            return Err(bad_connection(
                "the host must be a name or an address and nothing else: user, password, port and database have places of their own",
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
