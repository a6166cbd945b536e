//! What a database's own errors mean. They are told apart by their codes, never by their texts, which servers write in many languages.
//!
//! Each database has one table of codes, in its folder's `errors.rs`. A code that is in none of them becomes `DATABASE_ERROR`: the server refused,
//! and its text says why.

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
