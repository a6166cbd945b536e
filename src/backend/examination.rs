//! What `batchactions-sqlx doctor` asks of a database, and no call of the store needs: whether the tables fit, what the user may do with them, how many
//! ids are used, and what is between the store and the server. Nothing is changed.

use serde::Serialize;

use super::driver::{Driver, sql, values};
use super::schema::{Catalogue, Holds, TABLE_NAMES};
use super::session::Session;
use crate::error::{Code, Result};

/// The table whose ids may run out.
pub const RECORDS: &str = "batchactions_records";

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// The statements that `initialize()` would run.
    pub missing: Vec<String>,
    /// Why the store can't use the tables.
    pub incompatible: Option<String>,
    pub denied: Vec<Denied>,
    /// Absent where there are no records, or where the user can't read them.
    pub ids: Option<Ids>,
    /// MySQL and MariaDB: `max_allowed_packet`.
    pub max_packet: Option<u64>,
    pub session: SessionFacts,
}

/// Something that the store does and the user may not.
#[derive(Debug, Serialize)]
pub struct Denied {
    pub right: &'static str,
    pub on: String,
    pub message: String,
}

/// The ids of records.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// The highest one that a record has, or that was given out.
    pub highest: i64,
    /// The highest that the column and its sequence can give.
    pub limit: i64,
    /// PostgreSQL: the sequence would give ids that records have already.
    pub behind: Option<Behind>,
}

/// A sequence behind its table, as a restore by rows leaves it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Behind {
    pub given: i64,
    pub highest: i64,
    /// What corrects it.
    pub statement: String,
}

/// What tells whether something stands between the store and the server.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionFacts {
    /// The port that the store connects to. Absent over a socket.
    pub port: Option<u16>,
    /// The port that the server itself says that it is connected by.
    pub server_port: Option<u16>,
    /// How long ago the server began the session. A pooler's sessions are older than the store.
    pub age_ms: Option<i64>,
    /// The store is set for a transaction pooler.
    pub expects_pooler: bool,
}

impl Examination {
    pub fn of(found: &Catalogue, migration: &str) -> Self {
        let mut examination = Self::default();
        match found.missing(migration) {
            Ok(missing) => examination.missing = missing.into_iter().map(str::to_owned).collect(),
            Err(error) => examination.incompatible = Some(error.message),
        }
        examination
    }

    /// Whether the records can be read, to look at their ids.
    pub fn reads_records(&self, found: &Catalogue) -> bool {
        found.has_table(RECORDS) && !self.denied.iter().any(|denied| denied.right == "select" && denied.on == RECORDS)
    }
}

impl Ids {
    /// `highest` are the candidates, as far as they are known.
    pub fn of(found: &Catalogue, highest: &[Option<i64>], limit: Option<i64>) -> Option<Self> {
        let column = found.column(RECORDS, "id")?;
        let of_type = match column.holds {
            Holds::Integer(bytes @ 1..=7) => {
                let bits = if column.type_name.contains("unsigned") {
                    bytes * 8
                } else {
                    bytes * 8 - 1
                };
                (1 << bits) - 1
            }
            _ => i64::MAX,
        };
        Some(Self {
            highest: highest.iter().flatten().copied().max().unwrap_or(0),
            limit: limit.map_or(of_type, |limit| limit.min(of_type)),
            behind: None,
        })
    }
}

/// What the user may not do with the tables that exist, found out by statements that concern no row. `insert` is the text of one that inserts no row.
pub async fn denied<D: Driver>(session: &mut Session<D>, found: &Catalogue, insert: impl Fn(&str) -> String) -> Result<Vec<Denied>> {
    let mut denied = Vec::new();
    for table in TABLE_NAMES.into_iter().filter(|table| found.has_table(table)) {
        let statements = [
            ("select", format!("select 1 from {table} where 1 = 0")),
            ("insert", insert(table)),
            ("update", format!("update {table} set status = status where 1 = 0")),
            ("delete", format!("delete from {table} where 1 = 0")),
        ];
        for (right, statement) in statements {
            match session.execute(sql("examine_right", &statement), values![]).await {
                Err(error) if error.code == Code::PermissionDenied => denied.push(Denied {
                    right,
                    on: table.to_owned(),
                    message: error.message,
                }),
                tried => drop(tried?),
            }
            if !session.is_in_order() {
                // A server that is read-only ends its connections, and says the same of each statement.
                return Ok(denied);
            }
            if session.is_in_transaction() {
                session.rollback().await?;
            }
        }
    }
    Ok(denied)
}
