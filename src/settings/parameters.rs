//! The parameters of a URL, of `dialectOptions` and of the environment: those that are honoured, by the name that libpq, Prisma, `pg` or `mysql2` gives
//! them. What is not honoured goes to `unknown`.

use std::time::Duration;

use super::options::check_schema;
use super::tls::SslParameters;
use super::{Database, Password, Place, Secret, SessionAttrs, Target, bad_connection, several_hosts, unknown};
use crate::error::{Quoted, Result};

/// As long as an option may be: what other clients take for "no limit" ends here too.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

pub struct Parameters {
    database: Database,
    /// Where they stand, in messages.
    place: &'static str,
    ssl: SslParameters,
}

impl Parameters {
    pub fn of_url(database: Database) -> Self {
        Self::of("the URL's ", database)
    }

    pub fn of(place: &'static str, database: Database) -> Self {
        Self {
            database,
            place,
            ssl: SslParameters::default(),
        }
    }

    /// Takes one parameter, or refuses it, or notes that it has no effect.
    pub fn take(&mut self, place: &mut Place, key: &str, value: &str) -> Result<()> {
        self.take_named(place, key, key, value)
    }

    /// As `take`; `key` is how messages call it.
    pub fn take_named(&mut self, place: &mut Place, name: &str, key: &str, value: &str) -> Result<()> {
        let name = name.to_ascii_lowercase().replace(['-', '_'], "");
        let shown = format!("{}{key}", self.place);
        // To mysql2 and the driver of MariaDB this spelling counts milliseconds, and not the seconds of libpq.
        if key == "connectTimeout" {
            place.connect_timeout = Some(milliseconds(&shown, value)?);
            return Ok(());
        }
        if self.ssl.take(&mut place.ssl, &name, &shown, value)?
            || self.take_place(place, &name, &shown, value)?
            || take_limits(place, &name, &shown, value)?
            || self.take_session(place, &name, &shown, value)?
            || unknown::asks_for_nothing(&name, &shown, value)?
        {
            return Ok(());
        }
        place.ignored.push(key.to_owned());
        Ok(())
    }

    /// Takes what an object of Node's TLS says.
    pub fn take_node(&mut self, verify: bool, by_name: bool) -> Result<()> {
        self.ssl.take_node(verify, by_name)
    }

    pub fn end(self, place: &mut Place) -> Result<()> {
        self.ssl.resolve(&mut place.ssl)
    }

    /// Where the server is, and who comes. libpq lets a parameter go before what stands in front of the `?`.
    fn take_place(&self, place: &mut Place, name: &str, shown: &str, value: &str) -> Result<bool> {
        if !matches!(
            name,
            "host" | "hostaddr" | "port" | "user" | "password" | "dbname" | "socket" | "socketpath" | "unixsocket"
        ) {
            return Ok(false);
        }
        if name != "password" && value.contains("://") {
            return Err(bad_connection(format!("{shown} is a URL itself, and must be one part of it")));
        }
        if value.is_empty() {
            return Ok(true);
        }
        let text = value.to_owned();
        match name {
            "host" if value.starts_with('/') => place.take_socket(self.database, text),
            "host" | "hostaddr" | "port" if value.contains(',') => return Err(several_hosts()),
            "host" => {
                place.host = Some(text);
                place.socket = None;
            }
            "hostaddr" => place.address = Some(address(shown, text)?),
            "port" => place.port = Some(port(shown, value)?),
            "user" => place.user = Some(text),
            "password" => place.password = Some(Password::Fixed(Secret::new(text))),
            "dbname" => place.name = Some(text),
            _ => place.take_socket(self.database, text),
        }
        Ok(true)
    }

    /// What a session begins with. PostgreSQL only: elsewhere, what asks for something is refused.
    fn take_session(&self, place: &mut Place, name: &str, shown: &str, value: &str) -> Result<bool> {
        let is_postgres = self.database == Database::Postgres;
        match name {
            "applicationname" => place.application_name = Some(value.to_owned()),
            "fallbackapplicationname" if is_postgres => {
                place.application_name.get_or_insert_with(|| value.to_owned());
            }
            "options" if is_postgres => place.session_options = Some(value.to_owned()),
            "schema" | "targetsessionattrs" | "channelbinding" if !is_postgres => {
                if !matches!(value, "" | "any" | "disable" | "prefer") {
                    return Err(bad_connection(format!(
                        "{shown} is for PostgreSQL only: leave it out for MySQL and MariaDB"
                    )));
                }
            }
            "schema" => {
                check_schema(shown, value).map_err(bad_connection)?;
                place.schema = Some(value.to_owned());
            }
            "targetsessionattrs" => place.target = Some(target(shown, value)?),
            "channelbinding" => {
                place.channel_binding = Some(match value {
                    "require" => true,
                    "prefer" | "disable" => false,
                    other => {
                        return Err(bad_connection(format!(
                            "{shown} must be require, prefer or disable, not {}",
                            Quoted(other)
                        )));
                    }
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// How long, and how many.
fn take_limits(place: &mut Place, name: &str, shown: &str, value: &str) -> Result<bool> {
    match name {
        "connecttimeout" => place.connect_timeout = Some(seconds(shown, value)?),
        "pooltimeout" => place.acquire_timeout = Some(seconds(shown, value)?),
        "connectionlimit" => match value.parse::<u32>() {
            Ok(limit) if limit > 0 => place.pool_max = Some(limit.min(1_000)),
            _ => {
                return Err(bad_connection(format!(
                    "{shown} must be a number of connections from 1 on, not {}",
                    Quoted(value)
                )));
            }
        },
        "pgbouncer" => match value {
            "true" | "1" => place.statement_cache = Some(0),
            "false" | "0" => {}
            _ => return Err(bad_connection(format!("{shown} must be true or false, not {}", Quoted(value)))),
        },
        _ => return Ok(false),
    }
    Ok(true)
}

/// libpq and Prisma count whole seconds; 0, and to libpq less too, is no limit.
fn seconds(shown: &str, value: &str) -> Result<Duration> {
    match value.trim().parse::<i64>() {
        Ok(..=0) => Ok(NO_LIMIT),
        Ok(seconds) => Ok(Duration::from_secs(seconds.unsigned_abs()).min(NO_LIMIT)),
        Err(_) => Err(bad_connection(format!(
            "{shown} must be a whole number of seconds, not {}",
            Quoted(value)
        ))),
    }
}

fn milliseconds(shown: &str, value: &str) -> Result<Duration> {
    match value.trim().parse::<u64>() {
        Ok(0) => Ok(NO_LIMIT),
        Ok(count) => Ok(Duration::from_millis(count).min(NO_LIMIT)),
        Err(_) => Err(bad_connection(format!(
            "{shown} must be a whole number of milliseconds, not {}",
            Quoted(value)
        ))),
    }
}

fn port(shown: &str, value: &str) -> Result<u16> {
    match value.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(bad_connection(format!(
            "{shown} must be a port from 1 to 65535, not {}",
            Quoted(value)
        ))),
    }
}

fn address(shown: &str, value: String) -> Result<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(value),
        Err(_) => Err(bad_connection(format!(
            "{shown} must be an IP address (a name goes into host), not {}",
            Quoted(&value)
        ))),
    }
}

fn target(shown: &str, value: &str) -> Result<Target> {
    match value {
        "any" => Ok(Target::Any),
        "read-write" => Ok(Target::Only(SessionAttrs::ReadWrite)),
        "primary" => Ok(Target::Only(SessionAttrs::Primary)),
        "read-only" | "standby" | "prefer-standby" => Err(bad_connection(format!(
            "{shown} asks for a server that takes no writes, and this store writes: say read-write, primary or any"
        ))),
        other => Err(bad_connection(format!(
            "{shown} must be any, read-write or primary, not {}",
            Quoted(other)
        ))),
    }
}
