//! The scheme of a URL: which database it means, and what to write instead of another tool's scheme.

use super::database::Database;
use super::errors::invalid_connection;
use crate::error::Result;

const BEGINNINGS: &str = "postgres://, mysql://, mariadb:// or sqlite:";

/// Splits a URL into its database, its scheme in lower case, and the text after the colon. That text may contain a password, so no message shows it.
pub fn split(text: &str) -> Result<(Database, String, &str)> {
    let text = text.trim();
    if text.starts_with(['"', '\'', '`']) || text.ends_with(['"', '\'', '`']) {
        return Err(invalid_connection(
            "the URL stands in quotes, which are part of the value: remove them (in a .env file or a Docker setting they may be kept by mistake)",
        ));
    }
    let no_scheme = || {
        invalid_connection(format!(
            "the URL has no scheme: it must begin with {BEGINNINGS}, with nothing in front of that"
        ))
    };
    let (scheme, rest) = text.split_once(':').ok_or_else(no_scheme)?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Err(no_scheme());
    }
    match suggestion(&scheme) {
        Some(instead) => Err(invalid_connection(format!(
            "{scheme}: is how another tool writes its URLs: {instead}, with the rest as it is"
        ))),
        None => Ok((Database::of_dialect(&scheme)?, scheme, rest)),
    }
}

/// What to write instead of a scheme that other tools use for these databases.
fn suggestion(scheme: &str) -> Option<String> {
    let (base, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
    let served = match base {
        "prisma" => {
            return Some(
                "it names Prisma's proxy and no database, so give the URL of the database itself (directUrl), postgres:// or mysql://"
                    .to_owned(),
            );
        }
        "jdbc" => {
            return Some(
                "leave out jdbc: and write user and password in front of the host, postgresql://user:password@host/database".to_owned(),
            );
        }
        "postgres" | "postgresql" | "mysql" | "mariadb" | "sqlite" if !driver.is_empty() => base,
        "pg" | "pgsql" | "psql" | "postgis" | "pq" => "postgres",
        "mysql2" | "mysqlx" | "mysqls" => "mysql",
        "sqlite3" | "file" | "better-sqlite3" => "sqlite",
        _ => return None,
    };
    Some(match served {
        "sqlite" => "write sqlite:".to_owned(),
        served => format!("write {served}://"),
    })
}
