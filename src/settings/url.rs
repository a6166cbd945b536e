//! URLs, in the form that hosting platforms hand out and libpq reads. The WHATWG's rules don't apply, because they refuse
//! `postgresql://user@/database`.

use std::net::Ipv6Addr;

use super::database::Database;
use super::errors::{invalid_connection, several_hosts};
use super::parameters::Parameters;
use super::partial::PartialSettings;
use super::password::Password;
use super::percent_decoding::decoded;
use super::secret::Secret;
use super::{scheme, sqlite};
use crate::error::{Error, Result};

pub fn read(text: &str) -> Result<(Database, PartialSettings)> {
    let (database, scheme, rest) = scheme::split(text)?;
    if database == Database::Sqlite {
        return Ok((database, sqlite::read(rest)?));
    }
    let url = ServerUrl { scheme: &scheme, database };
    let mut partial = PartialSettings {
        is_mariadb: scheme == "mariadb",
        ..PartialSettings::default()
    };
    let (authority, path, query) = url.split(rest)?;
    let server = match authority.rsplit_once('@') {
        Some((login, server)) => {
            url.take_login(&mut partial, login)?;
            server
        }
        None => authority,
    };
    url.take_server(&mut partial, server)?;
    let name = decoded("database", path.trim_start_matches('/'))?;
    partial.name = Some(name).filter(|name| !name.is_empty());
    url.take_query(&mut partial, query)?;
    Ok((database, partial))
}

/// The URL of a PostgreSQL, MySQL or MariaDB server.
struct ServerUrl<'a> {
    scheme: &'a str,
    database: Database,
}

impl ServerUrl<'_> {
    /// The authority, path and query of the text after `scheme:`.
    fn split<'u>(&self, rest: &'u str) -> Result<(&'u str, &'u str, &'u str)> {
        let rest = rest
            .strip_prefix("//")
            .ok_or_else(|| invalid_connection(format!("the {0} URL must begin with {0}://", self.scheme)))?;
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        // An unescaped `/`, `?` or `#` in a password ends the authority too early. The rest of the password would be read as a name, and shown.
        if path.contains('@') || query.contains('@') || rest.contains('#') {
            return Err(self.unescaped());
        }
        Ok((authority, path, query))
    }

    fn unescaped(&self) -> Error {
        invalid_connection(format!(
            "the {} URL can't be read: an unescaped /, ?, #, @ or & stands in the user, the password or a parameter, where it ends the part. \
             percent-encode it: / is %2F, ? is %3F, # is %23, @ is %40, & is %26 (encodeURIComponent)",
            self.scheme
        ))
    }

    fn take_login(&self, partial: &mut PartialSettings, login: &str) -> Result<()> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if !user.is_empty() {
            partial.user = Some(decoded("user", user)?);
        }
        if let Some(password) = password {
            partial.password = Some(Password::Fixed(Secret::new(decoded("password", password)?)));
        }
        Ok(())
    }

    fn take_server(&self, partial: &mut PartialSettings, server: &str) -> Result<()> {
        if server.contains(',') {
            return Err(several_hosts());
        }
        let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                if address.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                    return Err(invalid_connection(format!(
                        "the {} URL has brackets, and no IPv6 address in them",
                        self.scheme
                    )));
                }
                (address, rest.strip_prefix(':').unwrap_or(""))
            }
            None => server.split_once(':').unwrap_or((server, "")),
        };
        let host = decoded("host", host)?;
        if host.starts_with('/') {
            partial.take_socket(self.database, host);
        } else if !host.is_empty() {
            partial.host = Some(host);
        }
        if !port.is_empty() {
            partial.port = Some(self.port(port)?);
        }
        Ok(())
    }

    /// A port. Anything but a number may be part of a password and is not shown.
    fn port(&self, text: &str) -> Result<u16> {
        match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => {
                let given = text
                    .parse::<u32>()
                    .ok()
                    .filter(|port| *port < 100_000)
                    .map_or_else(|| "something else".to_owned(), |port| port.to_string());
                Err(invalid_connection(format!(
                    "the {} URL's port must be from 1 to 65535, not {given} (an unescaped / in the password looks like that too: write it as %2F)",
                    self.scheme
                )))
            }
        }
    }

    fn take_query(&self, partial: &mut PartialSettings, query: &str) -> Result<()> {
        let mut parameters = Parameters::of_url(self.database);
        let mut has_password = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // The text after an unescaped `&` may be the rest of a password, and messages show the names of ignored parameters.
            let (key, value) = pair.split_once('=').ok_or_else(|| self.unescaped())?;
            let key = decoded("parameter", key)?;
            if !is_parameter_name(&key) {
                return Err(self.unescaped());
            }
            let known = partial.ignored.len();
            parameters.take(partial, &key, &parameter_value(&key, value)?)?;
            if has_password && partial.ignored.len() > known {
                // After the parameter `password`, the name itself may be the rest of a password with an unescaped `&`.
                partial.ignored.truncate(known);
                partial.ignored.push("behind the password".to_owned());
            }
            has_password |= key.eq_ignore_ascii_case("password");
        }
        parameters.end(partial)
    }
}

fn is_parameter_name(key: &str) -> bool {
    (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// A parameter's value. `URLSearchParams` writes a space as a plus; it is read as one only in parameters where a plus means nothing.
fn parameter_value(key: &str, value: &str) -> Result<String> {
    let has_spaces = matches!(key, "options" | "application_name" | "ssl");
    let value = if has_spaces { value.replace('+', " ") } else { value.to_owned() };
    decoded(&format!("parameter {key}"), &value)
}
