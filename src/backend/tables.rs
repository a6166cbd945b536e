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

const TABLES: [(&str, &[&str]); 3] = [
    (
        "batchactions_jobs",
        &[
            "id",
            "status",
            "config",
            "batches",
            "totalRecords",
            "startedAt",
            "completedAt",
            "distributed",
        ],
    ),
    (
        "batchactions_records",
        &[
            "id",
            "jobId",
            "batchId",
            "recordIndex",
            "status",
            "raw",
            "parsed",
            "errors",
            "processingError",
        ],
    ),
    (
        "batchactions_batches",
        &[
            "id",
            "jobId",
            "batchIndex",
            "status",
            "workerId",
            "claimedAt",
            "recordStartIndex",
            "recordEndIndex",
            "processedCount",
            "failedCount",
            "version",
        ],
    ),
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

/// What a database's catalogue says that there is.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Table and column.
    pub columns: Vec<(String, String)>,
    /// Names of indexes on our tables.
    pub indexes: Vec<String>,
}

impl Catalogue {
    /// Whether there is none of our tables.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    fn has_table(&self, table: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == table)
    }

    /// The statements that are still to be run, in order.
    pub fn missing<'m>(&self, migration: &'m str) -> Result<Vec<&'m str>> {
        for (table, columns) in TABLES.iter().filter(|(table, _)| self.has_table(table)) {
            let lacks: Vec<&str> = columns
                .iter()
                .copied()
                .filter(|column| !self.columns.iter().any(|(t, c)| t == table && c == column))
                .collect();
            if !lacks.is_empty() {
                return Err(Error::new(
                    Code::TablesIncompatible,
                    format!(
                        "the table {table} exists and lacks the column {}: another program made it, so rename it or use another database",
                        lacks.join(", ")
                    ),
                ));
            }
        }
        let statements = statements(migration);
        Ok(OBJECTS
            .iter()
            .zip(statements)
            .filter(|(object, _)| !self.has_table(object) && !self.indexes.iter().any(|index| index == *object))
            .map(|(_, statement)| statement)
            .collect())
    }
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

    #[test]
    fn an_empty_database_needs_every_statement_and_a_whole_one_none() {
        let columns = TABLES
            .iter()
            .flat_map(|(table, columns)| columns.iter().map(|column| (table.to_string(), column.to_string())));
        let whole = Catalogue {
            columns: columns.collect(),
            indexes: OBJECTS.iter().map(|name| name.to_string()).collect(),
        };
        for migration in MIGRATIONS {
            assert_eq!(Catalogue::default().missing(migration).unwrap().len(), OBJECTS.len());
            assert!(whole.missing(migration).unwrap().is_empty());
        }
    }

    #[test]
    fn a_lacking_column_is_named() {
        let catalogue = Catalogue {
            columns: vec![("batchactions_jobs".into(), "id".into())],
            indexes: Vec::new(),
        };
        let error = catalogue.missing(MIGRATIONS[0]).unwrap_err();
        assert_eq!(error.code, Code::TablesIncompatible);
        assert!(
            error.message.contains("batchactions_jobs") && error.message.contains("distributed"),
            "{error}"
        );
    }
}
