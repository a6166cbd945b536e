//! The parameters of a URL, of `dialectOptions` and of the environment that have an effect, under the names that libpq, Prisma, `pg` and `mysql2`
//! give them. All others go to `unsupported`.

use super::database::Database;
use super::errors::{invalid_connection, several_hosts};
use super::parameter::Parameter;
use super::partial::PartialSettings;
use super::password::Password;
use super::schema_name::check_schema;
use super::secret::Secret;
use super::target_session_attrs::Target;
use super::tls_parameters::SslParameters;
use super::unsupported;
use crate::error::Result;

/// Reads parameters one after the other into settings.
pub struct Parameters {
    database: Database,
    /// The text before a parameter's name in messages, which says where it is given.
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

    /// Accepts or refuses one parameter, or records that it has no effect.
    pub fn take(&mut self, partial: &mut PartialSettings, key: &str, value: &str) -> Result<()> {
        self.take_named(partial, key, key, value)
    }

    /// As `take`, for a parameter that messages call `key` instead of its `name`.
    pub fn take_named(&mut self, partial: &mut PartialSettings, name: &str, key: &str, value: &str) -> Result<()> {
        let parameter = Parameter::new(name, format!("{}{key}", self.prefix), value);
        // mysql2 and the MariaDB driver spell their timeout like this, in milliseconds; libpq's `connect_timeout` is in seconds.
        if key == "connectTimeout" {
            partial.connect_timeout = Some(parameter.milliseconds()?);
            return Ok(());
        }
        if self.ssl.take(&mut partial.ssl, &parameter)?
            || self.take_server(partial, &parameter)?
            || take_limits(partial, &parameter)?
            || self.take_session(partial, &parameter)?
            || unsupported::is_met_anyway(&parameter)?
        {
            return Ok(());
        }
        partial.ignored.push(key.to_owned());
        Ok(())
    }

    /// Applies Node's TLS options.
    pub fn take_node(&mut self, verify: bool, by_name: bool) -> Result<()> {
        self.ssl.take_node(verify, by_name)
    }

    /// Must be called after all parameters, because several of them together may determine how TLS is used.
    pub fn end(self, partial: &mut PartialSettings) -> Result<()> {
        self.ssl.resolve(&mut partial.ssl)
    }

    /// Server, user and password. As in libpq, a parameter overrides what precedes the `?`.
    fn take_server(&self, partial: &mut PartialSettings, parameter: &Parameter<'_>) -> Result<bool> {
        let (name, value) = (&*parameter.name, parameter.value);
        if !matches!(
            name,
            "host" | "hostaddr" | "port" | "user" | "password" | "dbname" | "socket" | "socketpath" | "unixsocket"
        ) {
            return Ok(false);
        }
        if name != "password" && value.contains("://") {
            return Err(invalid_connection(format!(
                "{} is a URL itself, and must be one part of it",
                parameter.shown
            )));
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
            "hostaddr" => partial.address = Some(parameter.address()?),
            "port" => partial.port = Some(parameter.port()?),
            "user" => partial.user = Some(text),
            "password" => partial.password = Some(Password::Fixed(Secret::new(text))),
            "dbname" => partial.name = Some(text),
            _ => partial.take_socket(self.database, text),
        }
        Ok(true)
    }

    /// The settings of a session. Most exist on PostgreSQL only, and are refused elsewhere if they ask for something.
    fn take_session(&self, partial: &mut PartialSettings, parameter: &Parameter<'_>) -> Result<bool> {
        let is_postgres = self.database == Database::Postgres;
        let value = parameter.value;
        match &*parameter.name {
            "applicationname" => partial.application_name = Some(value.to_owned()),
            "fallbackapplicationname" if is_postgres => {
                partial.application_name.get_or_insert_with(|| value.to_owned());
            }
            "options" if is_postgres => partial.session_options = Some(value.to_owned()),
            "schema" | "targetsessionattrs" | "channelbinding" if !is_postgres => {
                if !matches!(value, "" | "any" | "disable" | "prefer") {
                    return Err(invalid_connection(format!(
                        "{} is for PostgreSQL only: leave it out for MySQL and MariaDB",
                        parameter.shown
                    )));
                }
            }
            "schema" => {
                check_schema(&parameter.shown, value).map_err(invalid_connection)?;
                partial.schema = Some(value.to_owned());
            }
            "targetsessionattrs" => partial.target = Some(Target::of(parameter)?),
            "channelbinding" => partial.channel_binding = Some(requires_channel_binding(parameter)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Timeouts, and the numbers of connections and of prepared statements.
fn take_limits(partial: &mut PartialSettings, parameter: &Parameter<'_>) -> Result<bool> {
    match &*parameter.name {
        "connecttimeout" => partial.connect_timeout = Some(parameter.seconds()?),
        "pooltimeout" => partial.acquire_timeout = Some(parameter.seconds()?),
        "connectionlimit" => partial.pool_max = Some(parameter.connections()?),
        "pgbouncer" if parameter.boolean()? => partial.statement_cache = Some(0),
        "pgbouncer" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn requires_channel_binding(parameter: &Parameter<'_>) -> Result<bool> {
    match parameter.value {
        "require" => Ok(true),
        "prefer" | "disable" => Ok(false),
        _ => Err(parameter.wrong("require, prefer or disable")),
    }
}
