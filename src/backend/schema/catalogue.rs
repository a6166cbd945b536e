//! What a database's catalogue says that there is: the columns of the store's tables, and their indexes.

use std::fmt::{self, Display};

use crate::backend::driver::{Driver, Row, Sql};
use crate::backend::session::Session;
use crate::error::Result;

/// What a column's type can hold, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Characters, at most this number where there is a limit.
    Text(Option<u32>),
    Uuid,
    Enum,
    Json,
    /// Of this number of bytes.
    Integer(u32),
    /// Of this number of digits before the point, where there is a limit.
    Decimal(Option<u32>),
    Boolean,
    /// Anything, unchanged.
    Any,
    Other,
}

/// A column that is there.
#[derive(Clone, Debug)]
pub struct Column {
    pub table: String,
    pub name: String,
    /// Its type, as the database writes it.
    pub type_name: String,
    pub holds: Holds,
    pub nullable: bool,
    /// Whether it has a default, or takes a number of its own.
    pub made: bool,
}

/// A column of an index: `None` where an expression stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    pub name: Option<String>,
    /// How many of its first characters are in the index, where that is not all of it.
    pub prefix: Option<u32>,
}

/// An index that is there.
#[derive(Clone, Debug)]
pub struct Index {
    pub table: String,
    pub name: String,
    pub columns: Vec<IndexColumn>,
    pub unique: bool,
    /// Why statements can't rely on it: it leaves out rows, say, or its making failed.
    pub flaw: Option<String>,
}

impl Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| match (&column.name, column.prefix) {
                (None, _) => "an expression".to_owned(),
                (Some(name), None) => name.clone(),
                (Some(name), Some(characters)) => format!("{name}({characters})"),
            })
            .collect();
        write!(f, "{} of {} ({})", uniqueness(self.unique), self.table, columns.join(", "))?;
        match &self.flaw {
            Some(flaw) => write!(f, ", and {flaw}"),
            None => Ok(()),
        }
    }
}

pub fn uniqueness(unique: bool) -> &'static str {
    if unique { "a unique index" } else { "an index" }
}

/// What a database's catalogue says that there is.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub columns: Vec<Column>,
    /// Those on our tables, and those of other tables that have the names of ours.
    pub indexes: Vec<Index>,
    /// Whether statements say which index they use, so that another one of the same columns is none of theirs.
    pub indexes_are_named: bool,
    /// Whether a boolean is an integer.
    pub integers_are_booleans: bool,
}

impl Catalogue {
    /// Whether there is none of our tables.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn has_table(&self, table: &str) -> bool {
        self.columns.iter().any(|column| column.table == table)
    }

    pub fn column(&self, table: &str, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.table == table && column.name == name)
    }
}

/// The indexes that a statement gives, which has a row for each column of each index, in their order: table, name, column, prefix, unique, flaw.
pub async fn read_indexes<D: Driver>(session: &mut Session<D>, statement: Sql<'_>) -> Result<Vec<Index>> {
    let mut indexes: Vec<Index> = Vec::new();
    session
        .each(statement, vec![], |row| {
            let column = IndexColumn {
                name: row.optional_text(2)?.map(str::to_owned),
                prefix: row.optional_number(3)?.and_then(|characters| u32::try_from(characters).ok()),
            };
            let (table, name) = (row.text(0)?, row.text(1)?);
            match indexes.last_mut() {
                Some(index) if index.table == table && index.name == name => index.columns.push(column),
                _ => indexes.push(Index {
                    table: table.to_owned(),
                    name: name.to_owned(),
                    columns: vec![column],
                    unique: row.boolean(4)?,
                    flaw: row.optional_text(5)?.map(str::to_owned),
                }),
            }
            Ok(())
        })
        .await?;
    Ok(indexes)
}
