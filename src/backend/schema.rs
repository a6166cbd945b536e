//! Which tables, columns and indexes there must be, and which of a migration's statements make the missing ones.

use std::time::{Duration, Instant};

use crate::error::{Code, Error, Repeatable, Result};
use crate::order::Gate;

/// How long making an index on a large table of another adapter's may take, and who waits for that.
pub const DDL_LIMIT: Duration = Duration::from_secs(3_600);

/// Between two looks whether another process has made the tables.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// One pause in the wait for another process that makes the tables.
pub async fn wait_for_tables(gate: &Gate, deadline: Instant) -> Result<()> {
    if gate.is_closed() {
        return Err(Error::closed());
    }
    if Instant::now() >= deadline {
        return Err(initialize_takes_too_long());
    }
    tokio::time::sleep(LOCK_PAUSE).await;
    Ok(())
}

fn initialize_takes_too_long() -> Error {
    Error::new(
        Code::Timeout,
        format!(
            "another process has been making the tables for {} s: find out what keeps it, and call initialize() again",
            DDL_LIMIT.as_secs()
        ),
    )
    .repeatable(Repeatable::ByCaller)
}

/// What a column has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The id of a record, which the database makes.
    Made,
    Id,
    /// A word of at most so many characters.
    Word(u32),
    Text,
    Json,
    Integer,
    /// Milliseconds since 1970.
    Time,
    Boolean,
}

/// Digits of a time in milliseconds: enough until the year 2286.
const TIME_DIGITS: u32 = 13;

/// Characters of the longest status of a job or a batch, and of a record.
const LONGEST_STATUS: u32 = 10;
const LONGEST_RECORD_STATUS: u32 = 9;

/// Of a key, an index on its first characters is as good where it has all that an id may have.
const ID_CHARACTERS: u32 = 36;

struct NeededColumn {
    name: &'static str,
    need: Need,
    /// Whether the store writes null into it.
    nullable: bool,
}

const fn needed(name: &'static str, need: Need) -> NeededColumn {
    NeededColumn {
        name,
        need,
        nullable: false,
    }
}

const fn nullable(name: &'static str, need: Need) -> NeededColumn {
    NeededColumn {
        name,
        need,
        nullable: true,
    }
}

const TABLES: [(&str, &[NeededColumn]); 3] = [
    (
        "batchactions_jobs",
        &[
            needed("id", Need::Id),
            needed("status", Need::Word(LONGEST_STATUS)),
            needed("config", Need::Json),
            needed("batches", Need::Json),
            needed("totalRecords", Need::Integer),
            nullable("startedAt", Need::Time),
            nullable("completedAt", Need::Time),
            needed("distributed", Need::Boolean),
        ],
    ),
    (
        "batchactions_records",
        &[
            needed("id", Need::Made),
            needed("jobId", Need::Id),
            needed("batchId", Need::Id),
            needed("recordIndex", Need::Integer),
            needed("status", Need::Word(LONGEST_RECORD_STATUS)),
            needed("raw", Need::Json),
            needed("parsed", Need::Json),
            needed("errors", Need::Json),
            nullable("processingError", Need::Text),
        ],
    ),
    (
        "batchactions_batches",
        &[
            needed("id", Need::Id),
            needed("jobId", Need::Id),
            needed("batchIndex", Need::Integer),
            needed("status", Need::Word(LONGEST_STATUS)),
            nullable("workerId", Need::Id),
            nullable("claimedAt", Need::Time),
            needed("recordStartIndex", Need::Integer),
            needed("recordEndIndex", Need::Integer),
            needed("processedCount", Need::Integer),
            needed("failedCount", Need::Integer),
            needed("version", Need::Integer),
        ],
    ),
];

struct NeededIndex {
    name: &'static str,
    table: &'static str,
    columns: &'static [&'static str],
    unique: bool,
}

const INDEXES: [NeededIndex; 5] = [
    NeededIndex {
        name: "batchactions_records_job_id_status",
        table: "batchactions_records",
        columns: &["jobId", "status"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_records_job_id_batch_id",
        table: "batchactions_records",
        columns: &["jobId", "batchId"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_records_job_id_record_index",
        table: "batchactions_records",
        columns: &["jobId", "recordIndex"],
        unique: true,
    },
    NeededIndex {
        name: "batchactions_batches_job_id_status",
        table: "batchactions_batches",
        columns: &["jobId", "status"],
        unique: false,
    },
    NeededIndex {
        name: "batchactions_batches_job_id_batch_index",
        table: "batchactions_batches",
        columns: &["jobId", "batchIndex"],
        unique: true,
    },
];

/// What each statement of a migration makes, in their order: it is the same for every database.
const OBJECTS: [&str; 8] = [
    "batchactions_jobs",
    "batchactions_records",
    "batchactions_records_job_id_status",
    "batchactions_records_job_id_batch_id",
    "batchactions_records_job_id_record_index",
    "batchactions_batches",
    "batchactions_batches_job_id_status",
    "batchactions_batches_job_id_batch_index",
];

/// What a column's type can hold, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Characters, at most so many where there is a limit.
    Text(Option<u32>),
    Uuid,
    Enum,
    Json,
    /// Of so many bytes.
    Integer(u32),
    /// Of so many digits before the point, where there is a limit.
    Decimal(Option<u32>),
    Boolean,
    /// Anything, unchanged.
    Any,
    Other,
}

impl Holds {
    fn serves(self, need: Need) -> bool {
        match (need, self) {
            (Need::Made, _) | (_, Holds::Any) => true,
            (_, Holds::Other) => false,
            (Need::Id, Holds::Text(_) | Holds::Uuid) => true,
            (Need::Word(_), Holds::Enum) => true,
            (Need::Word(longest), Holds::Text(length)) => length.is_none_or(|length| length >= longest),
            (Need::Text, Holds::Text(_)) => true,
            (Need::Json, Holds::Json | Holds::Text(None)) => true,
            (Need::Integer, Holds::Integer(_) | Holds::Decimal(_)) => true,
            (Need::Time, Holds::Integer(bytes)) => bytes >= 8,
            (Need::Time, Holds::Decimal(digits)) => digits.is_none_or(|digits| digits >= TIME_DIGITS),
            (Need::Boolean, Holds::Boolean) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::Made => f.write_str("an integer that the database makes"),
            Need::Id => f.write_str("a varchar or a uuid"),
            Need::Word(longest) => write!(f, "a varchar of at least {longest} characters or an enum"),
            Need::Text => f.write_str("a text"),
            Need::Json => f.write_str("a json"),
            Need::Integer => f.write_str("an integer or a bigint"),
            Need::Time => write!(f, "a bigint, or a numeric of at least {TIME_DIGITS} digits"),
            Need::Boolean => f.write_str("a boolean"),
        }
    }
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

impl Index {
    fn serves(&self, needed: &NeededIndex) -> bool {
        let as_needed = |(column, name): (&IndexColumn, &&str)| {
            column.name.as_deref() == Some(*name) && column.prefix.is_none_or(|characters| characters >= ID_CHARACTERS)
        };
        // More columns do no harm, but where they make unique what without them is not.
        let length = if needed.unique {
            self.columns.len() == needed.columns.len()
        } else {
            self.columns.len() >= needed.columns.len()
        };
        self.flaw.is_none()
            && self.table == needed.table
            && length
            && self.columns.iter().zip(needed.columns).all(as_needed)
            && (self.unique || !needed.unique)
    }

    fn is_key(&self, table: &str, column: &str) -> bool {
        let is_whole = |found: &IndexColumn| {
            found.name.as_deref() == Some(column) && found.prefix.is_none_or(|characters| characters >= ID_CHARACTERS)
        };
        self.table == table && self.unique && self.flaw.is_none() && matches!(&*self.columns, [one] if is_whole(one))
    }
}

impl std::fmt::Display for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

impl std::fmt::Display for NeededIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} ({})", uniqueness(self.unique), self.table, self.columns.join(", "))
    }
}

fn uniqueness(unique: bool) -> &'static str {
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

    fn has_table(&self, table: &str) -> bool {
        self.columns.iter().any(|column| column.table == table)
    }

    fn column(&self, table: &str, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.table == table && column.name == name)
    }

    fn has_index(&self, needed: &NeededIndex) -> bool {
        self.indexes
            .iter()
            .any(|index| index.name == needed.name || (!self.indexes_are_named && index.serves(needed)))
    }

    /// The statements that are still to be run, in order.
    pub fn missing<'m>(&self, migration: &'m str) -> Result<Vec<&'m str>> {
        for (table, columns) in TABLES.iter().filter(|(table, _)| self.has_table(table)) {
            self.check_columns(table, columns)?;
            if columns.iter().any(|needed| needed.name == "id" && needed.need == Need::Id) {
                self.check_key(table)?;
            }
        }
        self.check_indexes()?;
        let is_there = |object: &str| {
            let index = INDEXES.iter().find(|index| index.name == object);
            index.map_or_else(|| self.has_table(object), |index| self.has_index(index))
        };
        let statements = statements(migration);
        Ok(OBJECTS
            .iter()
            .zip(statements)
            .filter(|(object, _)| !is_there(object))
            .map(|(_, statement)| statement)
            .collect())
    }

    /// What still is not there after it was made: something else has its name.
    pub fn check_made(&self, migration: &str) -> Result<()> {
        let [first, ..] = *self.missing(migration)? else { return Ok(()) };
        Err(incompatible(format!(
            "this made nothing, because something else has that name: {first:?}. Rename that, and call initialize() again"
        )))
    }

    fn check_columns(&self, table: &str, columns: &[NeededColumn]) -> Result<()> {
        let lacks: Vec<&str> = columns
            .iter()
            .map(|needed| needed.name)
            .filter(|name| self.column(table, name).is_none())
            .collect();
        if !lacks.is_empty() {
            return Err(incompatible(format!(
                "the table {table} exists and lacks the column {}: another program made it, so rename it or use another database",
                lacks.join(", ")
            )));
        }
        for needed in columns {
            let Some(found) = self.column(table, needed.name) else { continue };
            let is_boolean = needed.need == Need::Boolean && self.integers_are_booleans && matches!(found.holds, Holds::Integer(_));
            if !is_boolean && !found.holds.serves(needed.need) {
                return Err(incompatible(format!(
                    "the column {} of {table} is of the type {}, and this store needs {} there: change its type",
                    needed.name, found.type_name, needed.need
                )));
            }
            if needed.need == Need::Made && !found.made {
                return Err(incompatible(format!(
                    "the column {} of {table} ({}) has no default, and this store lets the database number the records: make it count by itself",
                    needed.name, found.type_name
                )));
            }
            if needed.nullable && !found.nullable {
                return Err(incompatible(format!(
                    "the column {} of {table} ({}) is not null, and this store writes null there: drop that constraint",
                    needed.name, found.type_name
                )));
            }
        }
        Ok(())
    }

    /// Two rows of one id would be changed as one, and an upsert would make them.
    fn check_key(&self, table: &str) -> Result<()> {
        if self.indexes.iter().any(|index| index.is_key(table, "id")) {
            return Ok(());
        }
        Err(incompatible(format!(
            "the column id of {table} is no primary key, and this store needs a primary key or a unique index of it: add one"
        )))
    }

    fn check_indexes(&self) -> Result<()> {
        for needed in &INDEXES {
            let Some(found) = self.indexes.iter().find(|index| index.name == needed.name) else {
                continue;
            };
            if !found.serves(needed) {
                return Err(incompatible(format!(
                    "{} is {found}, and this store needs {needed} by that name: drop it, and initialize() makes the right one",
                    needed.name
                )));
            }
        }
        Ok(())
    }
}

fn incompatible(message: String) -> Error {
    Error::new(Code::TablesIncompatible, message)
}

fn statements(migration: &str) -> impl Iterator<Item = &str> {
    migration.split(';').map(str::trim).filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIGRATIONS: [&str; 3] = [
        super::super::postgres::MIGRATION,
        super::super::mysql::MIGRATION,
        super::super::sqlite::MIGRATION,
    ];

    #[test]
    fn each_statement_makes_its_object() {
        for migration in MIGRATIONS {
            let statements: Vec<&str> = statements(migration).collect();
            assert_eq!(statements.len(), OBJECTS.len());
            for (object, statement) in OBJECTS.iter().zip(statements) {
                let made = statement.lines().find(|line| line.starts_with("create ")).unwrap();
                let named = made
                    .split(|c: char| c.is_whitespace() || c == '`' || c == '"')
                    .any(|word| word == *object);
                assert!(named, "{made} should make {object}");
            }
        }
    }

    fn whole() -> Catalogue {
        let columns = TABLES.iter().flat_map(|(table, columns)| {
            columns.iter().map(|needed| Column {
                table: table.to_string(),
                name: needed.name.to_owned(),
                type_name: "anything".to_owned(),
                holds: Holds::Any,
                nullable: true,
                made: true,
            })
        });
        let keys = TABLES.iter().map(|(table, _)| index(table, "", &["id"], true));
        let indexes = INDEXES
            .iter()
            .map(|needed| index(needed.table, needed.name, needed.columns, needed.unique));
        Catalogue {
            columns: columns.collect(),
            indexes: keys.chain(indexes).collect(),
            ..Catalogue::default()
        }
    }

    fn index(table: &str, name: &str, columns: &[&str], unique: bool) -> Index {
        let column = |name: &&str| IndexColumn {
            name: Some(name.to_string()),
            prefix: None,
        };
        Index {
            table: table.to_owned(),
            name: name.to_owned(),
            columns: columns.iter().map(column).collect(),
            unique,
            flaw: None,
        }
    }

    #[test]
    fn an_empty_database_needs_every_statement_and_a_whole_one_none() {
        for migration in MIGRATIONS {
            assert_eq!(Catalogue::default().missing(migration).unwrap().len(), OBJECTS.len());
            assert!(whole().missing(migration).unwrap().is_empty());
        }
    }

    #[test]
    fn a_lacking_column_is_named() {
        let mut catalogue = whole();
        catalogue
            .columns
            .retain(|column| column.table != "batchactions_jobs" || column.name == "id");
        let error = catalogue.missing(MIGRATIONS[0]).unwrap_err();
        assert_eq!(error.code, Code::TablesIncompatible);
        assert!(
            error.message.contains("batchactions_jobs") && error.message.contains("distributed"),
            "{error}"
        );
    }

    #[test]
    fn an_index_serves_by_its_columns_and_not_by_its_name() {
        const NAME: &str = "batchactions_records_job_id_record_index";
        const TABLE: &str = "batchactions_records";
        let verdict = |found: Vec<Index>, indexes_are_named| {
            let mut catalogue = Catalogue {
                indexes_are_named,
                ..whole()
            };
            catalogue.indexes.retain(|index| index.name != NAME);
            catalogue.indexes.extend(found);
            catalogue.missing(MIGRATIONS[0]).map(|missing| missing.len())
        };
        let right = index(TABLE, NAME, &["jobId", "recordIndex"], true);
        assert_eq!(verdict(vec![right.clone()], true), Ok(0));
        assert_eq!(verdict(vec![], true), Ok(1));
        let renamed = Index {
            name: "by_hand".to_owned(),
            ..right.clone()
        };
        assert_eq!(verdict(vec![renamed.clone()], false), Ok(0));
        assert_eq!(verdict(vec![renamed], true), Ok(1));

        let shortened = |characters| {
            let mut index = right.clone();
            index.columns[0].prefix = Some(characters);
            index
        };
        assert_eq!(verdict(vec![shortened(36)], true), Ok(0));
        for wrong in [
            index(TABLE, NAME, &["jobId", "recordIndex"], false),
            index(TABLE, NAME, &["recordIndex", "jobId"], true),
            index(TABLE, NAME, &["jobId", "recordIndex", "batchId"], true),
            index(TABLE, NAME, &["jobId"], true),
            index("elsewhere", NAME, &["jobId", "recordIndex"], true),
            Index {
                flaw: Some("leaves out rows".to_owned()),
                ..right.clone()
            },
            shortened(10),
        ] {
            let error = verdict(vec![wrong.clone()], false).unwrap_err();
            assert_eq!(error.code, Code::TablesIncompatible);
            assert!(
                error.message.contains(NAME) && error.message.contains(&wrong.to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn types_that_lose_nothing_serve_and_others_do_not() {
        for (need, holds, serves) in [
            (Need::Id, Holds::Uuid, true),
            (Need::Id, Holds::Integer(8), false),
            (Need::Word(10), Holds::Text(Some(20)), true),
            (Need::Word(10), Holds::Text(Some(9)), false),
            (Need::Word(10), Holds::Enum, true),
            (Need::Json, Holds::Text(Some(4_000)), false),
            (Need::Time, Holds::Integer(4), false),
            (Need::Time, Holds::Decimal(Some(10)), false),
            (Need::Time, Holds::Decimal(None), true),
            (Need::Integer, Holds::Text(None), false),
            (Need::Boolean, Holds::Text(None), false),
        ] {
            assert_eq!(holds.serves(need), serves, "{need:?} in {holds:?}");
        }
    }
}
