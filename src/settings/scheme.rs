//! Which database a URL's scheme or a dialect means; what to write in place of one that other tools use.

use super::{Database, bad_connection};
use crate::error::{Code, Error, Quoted, Result};

const BEGINNINGS: &str = "postgres://, mysql://, mariadb:// or sqlite:";

/// A dialect, as Sequelize names them.
pub fn database_of_dialect(dialect: &str) -> Result<Database> {
    match dialect {
        "postgres" | "postgresql" => Ok(Database::Postgres),
        "mysql" | "mariadb" => Ok(Database::MySql),
        "sqlite" => Ok(Database::Sqlite),
        other => Err(not_served(other)),
    }
}

fn not_served(what: &str) -> Error {
    // What is no name may be a whole URL, with its password.
    let named = what.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
    let what = match what {
        "mssql" | "sqlserver" => {
            return Error::new(
                Code::UnsupportedDatabase,
                format!(
                    "{} (SQL Server) is not served yet; @batchactions/state-sequelize never worked there either, so there are no tables of it to take \
                     over. Served are postgres, mysql, mariadb and sqlite",
                    Quoted(what)
                ),
            );
        }
        _ if named => Quoted(what).to_string(),
        _ => "what is given as the dialect".to_owned(),
    };
    Error::new(
        Code::UnsupportedDatabase,
        format!("{what} is not a database that this store serves: it serves postgres, mysql, mariadb and sqlite"),
    )
}

/// Takes a URL apart: its database, its scheme in lower case, and what follows the colon. What follows may hold a password, so no message shows it.
pub fn split(text: &str) -> Result<(Database, String, &str)> {
    let text = text.trim();
    if text.starts_with(['"', '\'', '`']) || text.ends_with(['"', '\'', '`']) {
        return Err(bad_connection(
            "the URL stands in quotes, which are part of the value: remove them (in a .env file or a Docker setting they may be kept by mistake)",
        ));
    }
    let no_scheme = || {
        bad_connection(format!(
            "the URL has no scheme: it must begin with {BEGINNINGS}, with nothing in front of that"
        ))
    };
    let (scheme, rest) = text.split_once(':').ok_or_else(no_scheme)?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Err(no_scheme());
    }
    match suggestion(&scheme) {
        Some(write) => Err(bad_connection(format!(
            "{scheme}: is how another tool writes its URLs: {write}, with the rest as it is"
        ))),
        None => Ok((database_of_dialect(&scheme)?, scheme, rest)),
    }
}

/// What to write in place of a scheme that other tools use for these databases.
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
