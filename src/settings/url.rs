//! URLs, as hosting platforms hand them out and libpq reads them. Not by the WHATWG's rules, which refuse `postgresql://user@/database`.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::parameters::Parameters;
use super::{Database, Password, Place, Secret, bad_connection, scheme, several_hosts, sqlite};
use crate::error::{Error, Result};

/// What the parts of one URL are called in messages.
pub struct Named<'a> {
    pub scheme: &'a str,
    pub database: Database,
}

pub fn read(text: &str) -> Result<(Database, Place)> {
    let (database, scheme, rest) = scheme::split(text)?;
    if database == Database::Sqlite {
        return Ok((database, sqlite::read(rest)?));
    }
    let named = Named { scheme: &scheme, database };
    let rest = rest
        .strip_prefix("//")
        .ok_or_else(|| bad_connection(format!("the {scheme} URL must begin with {scheme}://")))?;
    // An unescaped `/`, `?` or `#` in a password ends the part before it, and the rest of it would be taken for a name and shown.
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    if path.contains('@') || query.contains('@') || rest.contains('#') {
        return Err(named.unescaped());
    }
    let mut place = Place::default();
    let server = match authority.rsplit_once('@') {
        Some((login, server)) => {
            named.take_login(&mut place, login)?;
            server
        }
        None => authority,
    };
    named.take_server(&mut place, server)?;
    let name = decoded("database", path.trim_start_matches('/'))?;
    place.name = Some(name).filter(|name| !name.is_empty());
    let mut parameters = Parameters::of_url(database);
    let mut has_password = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // What follows an unescaped & may be the rest of a password, and a name that is ignored is shown.
        let (key, value) = pair.split_once('=').ok_or_else(|| named.unescaped())?;
        let key = decoded("parameter", key)?;
        // It may be a part of a password.
        if key.is_empty() || key.len() > 64 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
            return Err(named.unescaped());
        }
        let known = place.ignored.len();
        parameters.take(&mut place, &key, &value_of(&key, value)?)?;
        if has_password && place.ignored.len() > known {
            // An unescaped & in the password looks like that too.
            place.ignored.truncate(known);
            place.ignored.push("behind the password".to_owned());
        }
        has_password |= key.eq_ignore_ascii_case("password");
    }
    parameters.end(&mut place)?;
    Ok((database, place))
}

/// A parameter's value. Only where a plus can't be meant as one, it is the space that `URLSearchParams` writes so.
fn value_of(key: &str, value: &str) -> Result<String> {
    let spaced = matches!(key, "options" | "application_name" | "ssl");
    let value = if spaced { value.replace('+', " ") } else { value.to_owned() };
    decoded(&format!("parameter {key}"), &value)
}

impl Named<'_> {
    fn unescaped(&self) -> Error {
        bad_connection(format!(
            "the {} URL can't be read: an unescaped /, ?, #, @ or & stands in the user, the password or a parameter, where it ends the part. \
             percent-encode it: / is %2F, ? is %3F, # is %23, @ is %40, & is %26 (encodeURIComponent)",
            self.scheme
        ))
    }

    fn take_login(&self, place: &mut Place, login: &str) -> Result<()> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if !user.is_empty() {
            place.user = Some(decoded("user", user)?);
        }
        if let Some(password) = password {
            place.password = Some(Password::Fixed(Secret::new(decoded("password", password)?)));
        }
        Ok(())
    }

    fn take_server(&self, place: &mut Place, server: &str) -> Result<()> {
        if server.contains(',') {
            return Err(several_hosts());
        }
        let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                if address.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                    return Err(bad_connection(format!(
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
            place.take_socket(self.database, host);
        } else if !host.is_empty() {
            place.host = Some(host);
        }
        if !port.is_empty() {
            place.port = Some(self.port(port)?);
        }
        Ok(())
    }

    /// A port. What is no number may be a part of a password, so it is not shown.
    fn port(&self, text: &str) -> Result<u16> {
        match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => {
                let given = text
                    .parse::<u32>()
                    .ok()
                    .filter(|port| *port < 100_000)
                    .map_or_else(|| "something else".to_owned(), |port| port.to_string());
                Err(bad_connection(format!(
                    "the {} URL's port must be from 1 to 65535, not {given} (an unescaped / in the password looks like that too: write it as %2F)",
                    self.scheme
                )))
            }
        }
    }
}

/// Text that may hold percent-encoded bytes.
pub fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| bad_connection(format!("the URL's {what} is not UTF-8")))?;
    if text.contains('\0') {
        return Err(bad_connection(format!("the URL's {what} holds the character U+0000")));
    }
    Ok(text.into_owned())
}
