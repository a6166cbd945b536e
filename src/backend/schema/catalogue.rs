//! What a database's catalogue reports: the columns and indexes of the store's tables.

use std::fmt::{self, Display};

use crate::backend::driver::{Driver, Row, Sql};
use crate::backend::session::Session;
use crate::error::Result;

/// What a column's type can hold, as far as the store needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Text, of at most this many characters if there is a limit.
    Text(Option<u32>),
    Uuid,
    Enum,
    Json,
    /// Integers of this many bytes.
    Integer(u32),
    /// Decimals with this many digits before the point, if there is a limit.
    Decimal(Option<u32>),
    Boolean,
    /// Any value, unchanged.
    Any,
    Other,
}

/// An existing column.
#[derive(Clone, Debug)]
pub struct Column {
    pub table: String,
    pub name: String,
    /// Its type, as the database names it.
    pub type_name: String,
    pub holds: Holds,
    pub nullable: bool,
    /// Whether it has a default or is numbered by the database.
    pub made: bool,
}

/// A column of an index; `name` is `None` for an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    pub name: Option<String>,
    /// The length of the indexed prefix in characters, if not the whole column is indexed.
    pub prefix: Option<u32>,
}

/// An existing index.
#[derive(Clone, Debug)]
pub struct Index {
    pub table: String,
    pub name: String,
    pub columns: Vec<IndexColumn>,
    pub unique: bool,
    /// Why statements can't rely on it: it is partial, say, or its creation failed.
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

/// What a database's catalogue reports.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub columns: Vec<Column>,
    /// The indexes of our tables, and those of other tables that have our indexes' names.
    pub indexes: Vec<Index>,
    /// Whether statements name the index that they use, so that another index on the same columns does not serve.
    pub indexes_are_named: bool,
    /// Whether a boolean is an integer.
    pub integers_are_booleans: bool,
}

impl Catalogue {
    /// Whether none of our tables exists.
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

/// Reads indexes from a statement that returns one row for each column of each index, in order: table, name, column, prefix, unique, flaw.
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
