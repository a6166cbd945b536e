//! What a database's own errors mean: by their code, never by their text, which servers write in many languages.
//!
//! Each database has a file with one table of its codes. A code that stands in none of them is `DATABASE_ERROR`: the server refused, and its text says why.

use sqlx::{Column, Row, TypeInfo};

use crate::error::{Code, Error, Repeatable};

/// An error as the database gave it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusal<'a> {
    /// SQLSTATE, or SQLite's extended result code.
    pub code: &'a str,
    /// MySQL's and MariaDB's number of it.
    pub number: u16,
    pub message: &'a str,
    /// The constraint that was violated, and its table, where the server names them.
    pub constraint: Option<&'a str>,
    pub table: Option<&'a str>,
    /// PostgreSQL's function that raised it: a name in its source, the same in every language.
    pub routine: Option<&'a str>,
}

/// What becomes of the connections after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    /// The one that it came on is of no use any more.
    Dropped,
    /// Those made before are of no use any more, wherever they are.
    AllDropped,
    /// As `AllDropped`, and for a while statements aren't kept prepared.
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
    // An answer of this kind stands in place of success.
    Error::new(Code::ConnectionLost, format!("the server ended the connection: {message}")).repeatable(Repeatable::RolledBack)
}

pub fn cancelled(message: &str) -> Error {
    // The statement took no effect; whether to wait for it again is the caller's to say.
    Error::new(Code::Timeout, format!("the server cancelled a statement: {message}")).repeatable(Repeatable::ByCaller)
}

/// The next connection may reach the server that took this one's place.
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

/// Another process makes the tables at the same time.
pub fn made_by_another(message: &str) -> Error {
    Error::new(Code::Constraint, message).repeatable(Repeatable::RolledBack)
}

pub fn no_resources(message: &str) -> Error {
    Error::new(Code::DatabaseError, format!("the server is out of resources: {message}")).repeatable(Repeatable::ByCaller)
}

pub fn refused(message: &str) -> Error {
    Error::new(Code::DatabaseError, format!("the server refused a statement: {message}"))
}

/// A value of a row that is not what this store expects there, with the names of its table and column and the column's type.
pub fn unreadable<R>(table: &str, row: &R) -> impl Fn(sqlx::Error) -> Error
where
    R: Row,
    usize: sqlx::ColumnIndex<R>,
{
    move |error| {
        let column = position(&error).and_then(|position| row.try_column(position).ok());
        let (name, kind) = match &column {
            Some(column) => (column.name().to_owned(), Some(column.type_info().name().to_owned())),
            None => (String::new(), None),
        };
        unreadable_column(table, &name, kind.as_deref(), &error)
    }
}

/// As `unreadable`, for a row that is gone: the statement says what it read.
pub fn unreadable_by(statement: &str, error: &sqlx::Error) -> Error {
    let column = position(error).and_then(|position| columns(statement).into_iter().nth(position));
    unreadable_column(&tables(statement), &column.unwrap_or_default(), None, error)
}

fn unreadable_column(table: &str, column: &str, kind: Option<&str>, error: &sqlx::Error) -> Error {
    let why = match error {
        sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => source.to_string(),
        other => other.to_string(),
    };
    let column = if column.is_empty() {
        "a column".to_owned()
    } else {
        format!("the column {column}")
    };
    let kind = kind.map_or_else(String::new, |kind| format!(", of type {kind},"));
    Error::new(
        Code::TablesIncompatible,
        format!("{column} of the table {table}{kind} does not hold what this store expects: {why}"),
    )
    .caused_by(why, None)
}

fn position(error: &sqlx::Error) -> Option<usize> {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => index.trim_matches('"').parse().ok(),
        _ => None,
    }
}

/// The tables of this store that a statement names.
pub fn tables(statement: &str) -> String {
    let mut found: Vec<&str> = Vec::new();
    for word in statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if matches!(word, "batchactions_jobs" | "batchactions_records" | "batchactions_batches") && !found.contains(&word) {
            found.push(word);
        }
    }
    found.join(" or ")
}

/// What a statement's rows consist of: the list after `returning`, or after its first `select`.
fn columns(statement: &str) -> Vec<String> {
    let list = match (statement.rfind("returning "), statement.find("select ")) {
        (Some(at), _) => &statement[at + "returning ".len()..],
        (None, Some(at)) => &statement[at + "select ".len()..],
        (None, None) => return Vec::new(),
    };
    let (mut depth, mut items, mut item) = (0usize, Vec::new(), String::new());
    for word in list.split_inclusive(|c: char| c.is_whitespace() || ",()".contains(c)) {
        if depth == 0 && word.trim() == "from" {
            break;
        }
        depth = (depth + word.matches('(').count()).saturating_sub(word.matches(')').count());
        match word.strip_suffix(',') {
            Some(last) if depth == 0 => {
                item.push_str(last);
                items.push(std::mem::take(&mut item));
            }
            _ => item.push_str(word),
        }
    }
    items.push(item);
    items
        .iter()
        .map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_which_column_stands_at_a_place() {
        let claim = r#"
            update batchactions_batches b set "version" = "version" + 1
            where "id" = (select "id" from batchactions_batches limit 1)
            returning "id", "batchIndex", ("claimedAt")::int8, "version"
        "#;
        assert_eq!(columns(claim), ["\"id\"", "\"batchIndex\"", "(\"claimedAt\")::int8", "\"version\""]);
        let counts =
            "select status, exists (select 1 from batchactions_batches where jobId = ?), count(*) from batchactions_jobs where id = ?";
        assert_eq!(
            columns(counts),
            ["status", "exists (select 1 from batchactions_batches where jobId = ?)", "count(*)"]
        );
        assert_eq!(tables(counts), "batchactions_batches or batchactions_jobs");
        assert!(columns("begin").is_empty());
    }

    #[test]
    fn a_value_that_can_not_be_read_is_named_with_its_table() {
        let error = sqlx::Error::ColumnDecode {
            index: "1".to_owned(),
            source: "mismatched types".into(),
        };
        let explained = unreadable_by("select status, totalRecords from batchactions_jobs where id = ?", &error);
        assert_eq!(explained.code, Code::TablesIncompatible);
        for part in ["totalRecords", "batchactions_jobs", "mismatched types"] {
            assert!(explained.message.contains(part), "{explained}");
        }
    }
}
