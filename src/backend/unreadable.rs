//! What a call rejects with where a row holds a value that the store can't read.

use super::driver::{Row, Unreadable};
use crate::error::{Code, Error};

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
