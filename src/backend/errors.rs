//! What a database's own errors mean. They are told apart by their codes, never by their texts, which servers write in many languages.
//!
//! Each database has one table of codes, in its folder's `errors.rs`. A code that is in none of them becomes `DATABASE_ERROR`: the server refused,
//! and its text says why.

use super::driver::{Row, Unreadable};
use crate::error::{Code, Error, Repeatable};

/// An error as the database reports it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusal<'a> {
    /// SQLSTATE, or SQLite's extended result code.
    pub code: &'a str,
    /// The error number of MySQL and MariaDB.
    pub number: u16,
    pub message: &'a str,
    /// The violated constraint and its table, if the server names them.
    pub constraint: Option<&'a str>,
    pub table: Option<&'a str>,
    /// The PostgreSQL function that raised the error: a name in its source, the same in every language.
    pub routine: Option<&'a str>,
}

/// What happens to the pool's connections after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    /// The connection that returned the error is unusable.
    Dropped,
    /// All connections made before the error are unusable.
    AllDropped,
    /// As `AllDropped`, and for a while statements are not kept prepared.
    AllDroppedUnprepared,
}

/// What an error means.
#[derive(Clone, Debug)]
pub struct Explained {
    pub error: Error,
    pub fate: Fate,
}

impl From<Error> for Explained {
    fn from(error: Error) -> Self {
        let fate = match error.code {
            Code::ConnectionFailed | Code::ConnectionLost => Fate::Dropped,
            _ => Fate::Kept,
        };
        Self { error, fate }
    }
}

impl Error {
    pub fn and(self, fate: Fate) -> Explained {
        Explained { error: self, fate }
    }
}

pub fn conflict(message: &str) -> Error {
    Error::new(Code::Conflict, format!("another transaction was in the way: {message}"))
}

pub fn lost(message: &str) -> Error {
    // The server sends this instead of a success reply.
    Error::new(Code::ConnectionLost, format!("the server ended the connection: {message}")).repeatable(Repeatable::RolledBack)
}

pub fn cancelled(message: &str) -> Error {
    // The statement took no effect. The caller decides whether to wait for it again.
    Error::new(Code::Timeout, format!("the server cancelled a statement: {message}")).repeatable(Repeatable::ByCaller)
}

/// The next connection may reach the new primary.
pub fn read_only_server(message: &str) -> Explained {
    Error::new(
        Code::PermissionDenied,
        format!("the server accepts no writes (a replica, or a failover that is under way?): {message}"),
    )
    .repeatable(Repeatable::RolledBack)
    .and(Fate::AllDropped)
}

pub fn no_right(message: &str) -> Error {
    Error::new(
        Code::PermissionDenied,
        format!("the database user lacks a right, which its administrator has to grant: {message}"),
    )
}

pub fn tables_missing(message: &str) -> Error {
    Error::new(Code::TablesMissing, format!("{message}: call initialize() first"))
}

pub fn index_missing(message: &str) -> Error {
    Error::new(
        Code::TablesMissing,
        format!("an index of the tables is missing: {message}: call initialize() first"),
    )
}

pub fn tables_incompatible(message: &str) -> Error {
    Error::new(
        Code::TablesIncompatible,
        format!("the tables are not the ones that this store knows: {message}"),
    )
}

/// Another process is creating the tables at the same time.
pub fn made_by_another(message: &str) -> Error {
    Error::new(Code::Constraint, message).repeatable(Repeatable::RolledBack)
}

pub fn no_resources(message: &str) -> Error {
    Error::new(Code::DatabaseError, format!("the server is out of resources: {message}")).repeatable(Repeatable::ByCaller)
}

pub fn refused(message: &str) -> Error {
    Error::new(Code::DatabaseError, format!("the server refused a statement: {message}"))
}

/// A stored value that is not what this store expects, with the statement's table, the column and its type.
pub fn unreadable(statement: &str, row: &impl Row, unreadable: &Unreadable) -> Error {
    let (name, kind) = row.column(unreadable.column);
    let column = if name.is_empty() {
        "a column".to_owned()
    } else {
        format!("the column {name}")
    };
    let kind = kind.map_or_else(String::new, |kind| format!(", of type {kind},"));
    let why = &unreadable.why;
    Error::new(
        Code::TablesIncompatible,
        format!(
            "{column} of the table {}{kind} does not hold what this store expects: {why}",
            tables(statement)
        ),
    )
    .caused_by(why, None)
}

/// The store's tables that a statement names.
fn tables(statement: &str) -> String {
    let mut found: Vec<&str> = Vec::new();
    for word in statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if matches!(word, "batchactions_jobs" | "batchactions_records" | "batchactions_batches") && !found.contains(&word) {
            found.push(word);
        }
    }
    found.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_which_tables_it_reads() {
        let counts =
            "select status, exists (select 1 from batchactions_batches where jobId = ?), count(*) from batchactions_jobs where id = ?";
        assert_eq!(tables(counts), "batchactions_batches or batchactions_jobs");
        assert_eq!(tables("begin"), "");
    }
}
