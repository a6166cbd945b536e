//! The supported databases and their names.

use crate::error::{Code, Error, Quoted, Result};

/// One variant per driver. MariaDB speaks MySQL's protocol; the server's answer to the connection tells which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Postgres,
    MySql,
    Sqlite,
}

impl Database {
    pub(super) fn default_port(self) -> u16 {
        match self {
            Database::Postgres => 5432,
            Database::MySql => 3306,
            Database::Sqlite => 0,
        }
    }

    /// The database of a Sequelize dialect; URLs use the same names as schemes.
    pub(super) fn of_dialect(dialect: &str) -> Result<Self> {
        match dialect {
            "postgres" | "postgresql" => Ok(Database::Postgres),
            "mysql" | "mariadb" => Ok(Database::MySql),
            "sqlite" => Ok(Database::Sqlite),
            other => Err(not_served(other)),
        }
    }
}

fn not_served(dialect: &str) -> Error {
    // Anything but a plain name may be a whole URL with its password, so it is not shown.
    let is_name = dialect.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
    let message = match dialect {
        "mssql" | "sqlserver" => format!(
            "{} (SQL Server) is not served yet; @batchactions/state-sequelize never worked there either, so there are no tables of it to take over. \
             Served are postgres, mysql, mariadb and sqlite",
            Quoted(dialect)
        ),
        _ => {
            let what = if is_name {
                Quoted(dialect).to_string()
            } else {
                "what is given as the dialect".to_owned()
            };
            format!("{what} is not a database that this store serves: it serves postgres, mysql, mariadb and sqlite")
        }
    };
    Error::new(Code::UnsupportedDatabase, message)
}
