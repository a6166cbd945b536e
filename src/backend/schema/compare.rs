//! Compares the catalogue with what the store needs: which statements of a migration are still to run, and why existing tables are unusable.

use super::catalogue::{Catalogue, Holds, Index, IndexColumn};
use super::needs::{ID_CHARACTERS, INDEXES, Need, NeededColumn, NeededIndex, OBJECTS, TABLES, TIME_DIGITS};
use crate::error::{Code, Error, Result};

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

impl Index {
    fn serves(&self, needed: &NeededIndex) -> bool {
        let as_needed = |(column, name): (&IndexColumn, &&str)| {
            column.name.as_deref() == Some(*name) && column.prefix.is_none_or(|characters| characters >= ID_CHARACTERS)
        };
        // Further columns do no harm, except in a unique index, where they weaken the constraint.
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

impl Catalogue {
    fn has_index(&self, needed: &NeededIndex) -> bool {
        self.indexes
            .iter()
            .any(|index| index.name == needed.name || (!self.indexes_are_named && index.serves(needed)))
    }

    /// The statements that are still to run, in order.
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

    /// What is still missing after its statement ran: another object has its name.
    pub fn check_made(&self, migration: &str) -> Result<()> {
        let [first, ..] = *self.missing(migration)? else { return Ok(()) };
        Err(incompatible(format!(
            "this created nothing, because another object has that name: {first:?}. Rename that object, and call initialize() again"
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
                    "the column {} of {table} ({}) has no default, and this store lets the database number the records: give it an automatic number",
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

    /// With two rows of one id, an update would change both, and an upsert could insert the second.
    fn check_key(&self, table: &str) -> Result<()> {
        if self.indexes.iter().any(|index| index.is_key(table, "id")) {
            return Ok(());
        }
        Err(incompatible(format!(
            "the column id of {table} is not a primary key, and this store needs a primary key or a unique index of it: add one"
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
    use crate::backend::schema::catalogue::Column;

    const MIGRATIONS: [&str; 3] = [
        crate::backend::postgres::MIGRATION,
        crate::backend::mysql::MIGRATION,
        crate::backend::sqlite::MIGRATION,
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
    fn a_missing_column_is_named() {
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
