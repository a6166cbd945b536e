//! `ConnectionOptions` of `index.d.ts`: the parts of a URL as an object.

use super::database::Database;
use super::errors::invalid_connection;
use super::partial::PartialSettings;
use super::sqlite;
use crate::error::{Code, Error, Result};
use crate::fields::Fields;

pub fn read(json: &str) -> Result<(Database, PartialSettings)> {
    let parts = Fields::read(&"connection", json)?;
    parts
        .only(&["dialect", "host", "port", "database", "user", "password", "socketPath", "storage"])
        .map_err(|error| Error {
            code: Code::InvalidConnection,
            ..error
        })?;
    let dialect = parts
        .part("dialect")?
        .ok_or_else(|| invalid_connection("connection.dialect is missing: it must be postgres, mysql, mariadb or sqlite"))?;
    let database = Database::of_dialect(&dialect)?;
    let mut partial = PartialSettings {
        is_mariadb: dialect == "mariadb",
        ..PartialSettings::default()
    };
    if database == Database::Sqlite {
        partial.file = sqlite::file(&parts.part("storage")?.unwrap_or_default())?;
        return Ok((database, partial));
    }
    partial.host = parts.part("host")?;
    partial.port = parts.port("port")?;
    partial.socket = parts.part("socketPath")?;
    partial.name = parts.part("database")?;
    partial.user = parts.part("user")?;
    partial.password = parts.password("password")?;
    partial.host_may_be_folder(database);
    Ok((database, partial))
}
