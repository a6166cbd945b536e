//! The parameters of a URL, of `dialectOptions` and of the environment that have an effect, under the names that libpq, Prisma, `pg` and `mysql2` give
//! them. All others go to `unsupported`.

use std::time::Duration;

use super::database::Database;
use super::errors::{invalid_connection, several_hosts};
use super::partial::PartialSettings;
use super::password::Password;
use super::schema_name::check_schema;
use super::secret::Secret;
use super::target_session_attrs::Target;
use super::tls_parameters::SslParameters;
use super::unsupported;
use crate::error::{Quoted, Result};

/// The longest duration that an option may have. It stands for "no limit", which other clients write as 0.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

pub struct Parameters {
    database: Database,
    /// What messages put in front of a parameter's name to say where it stands.
    prefix: &'static str,
    ssl: SslParameters,
}

impl Parameters {
    pub fn of_url(database: Database) -> Self {
        Self::of("the URL's ", database)
    }

    pub fn of(prefix: &'static str, database: Database) -> Self {
        Self {
            database,
            prefix,
            ssl: SslParameters::default(),
        }
    }

    /// Takes or refuses one parameter, or notes that it has no effect.
    pub fn take(&mut self, partial: &mut PartialSettings, key: &str, value: &str) -> Result<()> {
        self.take_named(partial, key, key, value)
    }

    /// As `take`, for a parameter that messages call `key` and not by its `name`.
    pub fn take_named(&mut self, partial: &mut PartialSettings, name: &str, key: &str, value: &str) -> Result<()> {
        let name = name.to_ascii_lowercase().replace(['-', '_'], "");
        let shown = format!("{}{key}", self.prefix);
        // mysql2 and the MariaDB driver spell their timeout like this, in milliseconds; libpq's `connect_timeout` is in seconds.
        if key == "connectTimeout" {
            partial.connect_timeout = Some(milliseconds(&shown, value)?);
            return Ok(());
        }
        if self.ssl.take(&mut partial.ssl, &name, &shown, value)?
            || self.take_server(partial, &name, &shown, value)?
            || take_limits(partial, &name, &shown, value)?
            || self.take_session(partial, &name, &shown, value)?
            || unsupported::is_met_anyway(&name, &shown, value)?
        {
            return Ok(());
        }
        partial.ignored.push(key.to_owned());
        Ok(())
    }

    /// Takes what the TLS options of Node say.
    pub fn take_node(&mut self, verify: bool, by_name: bool) -> Result<()> {
        self.ssl.take_node(verify, by_name)
    }

    /// To be called once all parameters are taken, because several of them may say together how to use TLS.
    pub fn end(self, partial: &mut PartialSettings) -> Result<()> {
        self.ssl.resolve(&mut partial.ssl)
    }

    /// Server, user and password. As with libpq, a parameter overrules what stands in front of the `?`.
    fn take_server(&self, partial: &mut PartialSettings, name: &str, shown: &str, value: &str) -> Result<bool> {
        if !matches!(
            name,
            "host" | "hostaddr" | "port" | "user" | "password" | "dbname" | "socket" | "socketpath" | "unixsocket"
        ) {
            return Ok(false);
        }
        if name != "password" && value.contains("://") {
            return Err(invalid_connection(format!("{shown} is a URL itself, and must be one part of it")));
        }
        if value.is_empty() {
            return Ok(true);
        }
        let text = value.to_owned();
        match name {
            "host" if value.starts_with('/') => partial.take_socket(self.database, text),
            "host" | "hostaddr" | "port" if value.contains(',') => return Err(several_hosts()),
            "host" => {
                partial.host = Some(text);
                partial.socket = None;
            }
            "hostaddr" => partial.address = Some(address(shown, text)?),
            "port" => partial.port = Some(port(shown, value)?),
            "user" => partial.user = Some(text),
            "password" => partial.password = Some(Password::Fixed(Secret::new(text))),
            "dbname" => partial.name = Some(text),
            _ => partial.take_socket(self.database, text),
        }
        Ok(true)
    }

    /// The settings of a session. Most exist on PostgreSQL only, and are refused elsewhere if they ask for something.
    fn take_session(&self, partial: &mut PartialSettings, name: &str, shown: &str, value: &str) -> Result<bool> {
        let is_postgres = self.database == Database::Postgres;
        match name {
            "applicationname" => partial.application_name = Some(value.to_owned()),
            "fallbackapplicationname" if is_postgres => {
                partial.application_name.get_or_insert_with(|| value.to_owned());
            }
            "options" if is_postgres => partial.session_options = Some(value.to_owned()),
            "schema" | "targetsessionattrs" | "channelbinding" if !is_postgres => {
                if !matches!(value, "" | "any" | "disable" | "prefer") {
                    return Err(invalid_connection(format!(
                        "{shown} is for PostgreSQL only: leave it out for MySQL and MariaDB"
                    )));
                }
            }
            "schema" => {
                check_schema(shown, value).map_err(invalid_connection)?;
                partial.schema = Some(value.to_owned());
            }
            "targetsessionattrs" => partial.target = Some(Target::from_text(shown, value)?),
            "channelbinding" => partial.channel_binding = Some(requires_channel_binding(shown, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Timeouts, and the numbers of connections and of prepared statements.
fn take_limits(partial: &mut PartialSettings, name: &str, shown: &str, value: &str) -> Result<bool> {
    match name {
        "connecttimeout" => partial.connect_timeout = Some(seconds(shown, value)?),
        "pooltimeout" => partial.acquire_timeout = Some(seconds(shown, value)?),
        "connectionlimit" => match value.parse::<u32>() {
            Ok(limit) if limit > 0 => partial.pool_max = Some(limit.min(1_000)),
            _ => {
                return Err(invalid_connection(format!(
                    "{shown} must be a number of connections, at least 1, not {}",
                    Quoted(value)
                )));
            }
        },
        "pgbouncer" => match value {
            "true" | "1" => partial.statement_cache = Some(0),
            "false" | "0" => {}
            _ => return Err(invalid_connection(format!("{shown} must be true or false, not {}", Quoted(value)))),
        },
        _ => return Ok(false),
    }
    Ok(true)
}

/// libpq and Prisma count whole seconds. 0 is no limit; for libpq, so is a negative number.
fn seconds(shown: &str, value: &str) -> Result<Duration> {
    match value.trim().parse::<i64>() {
        Ok(..=0) => Ok(NO_LIMIT),
        Ok(seconds) => Ok(Duration::from_secs(seconds.unsigned_abs()).min(NO_LIMIT)),
        Err(_) => Err(invalid_connection(format!(
            "{shown} must be a whole number of seconds, not {}",
            Quoted(value)
        ))),
    }
}

fn milliseconds(shown: &str, value: &str) -> Result<Duration> {
    match value.trim().parse::<u64>() {
        Ok(0) => Ok(NO_LIMIT),
        Ok(count) => Ok(Duration::from_millis(count).min(NO_LIMIT)),
        Err(_) => Err(invalid_connection(format!(
            "{shown} must be a whole number of milliseconds, not {}",
            Quoted(value)
        ))),
    }
}

fn port(shown: &str, value: &str) -> Result<u16> {
    match value.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid_connection(format!(
            "{shown} must be a port from 1 to 65535, not {}",
            Quoted(value)
        ))),
    }
}

fn address(shown: &str, value: String) -> Result<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(value),
        Err(_) => Err(invalid_connection(format!(
            "{shown} must be an IP address (a name goes into host), not {}",
            Quoted(&value)
        ))),
    }
}

fn requires_channel_binding(shown: &str, value: &str) -> Result<bool> {
    match value {
        "require" => Ok(true),
        "prefer" | "disable" => Ok(false),
        other => Err(invalid_connection(format!(
            "{shown} must be require, prefer or disable, not {}",
            Quoted(other)
        ))),
    }
}
