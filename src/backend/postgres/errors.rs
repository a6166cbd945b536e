//! PostgreSQL's errors, by SQLSTATE.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::backend::errors::{
    Explained, Fate, Refusal, cancelled, conflict, index_missing, lost, made_by_another, no_resources, no_right, read_only_server, refused,
    tables_incompatible, tables_missing,
};
use crate::error::{Code, Error, Repeatable};

/// The server's function that reports that a prepared statement's result type has changed. Its SQLSTATE, 0A000, has many other meanings.
const STALE_STATEMENT: &str = "RevalidateCachedQuery";

pub fn explain(error: &dyn DatabaseError) -> Explained {
    let code = error.code().unwrap_or_default();
    explain_refusal(Refusal {
        code: &code,
        message: error.message(),
        constraint: error.constraint(),
        table: error.table(),
        routine: error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine),
        ..Refusal::default()
    })
}

/// Advice if the server refuses the start-up message.
pub fn hint(error: &dyn DatabaseError) -> Option<&'static str> {
    (error.code().as_deref() == Some("08P01")).then_some("is a pooler in front of the server? It may need statementCache: 0")
}

fn explain_refusal(refusal: Refusal<'_>) -> Explained {
    let Refusal { code, message, .. } = refusal;
    let error = match code {
        "40001" | "40P01" | "55P03" => conflict(message),
        "57014" => cancelled(message),
        "28000" | "28P01" | "3D000" => Error::new(Code::ConnectionFailed, message).repeatable(Repeatable::Never),
        "53300" => Error::new(Code::ConnectionFailed, message).repeatable(Repeatable::NoConnectionLeft),
        // It is starting up or shutting down.
        "57P03" => Error::new(Code::ConnectionFailed, message).repeatable(Repeatable::RolledBack),
        "57P01" | "57P02" | "57P04" | "57P05" | "25P03" => lost(message),
        "25006" => return read_only_server(message),
        "42P07" | "42710" => made_by_another(message),
        "23505" if refusal.constraint.is_some_and(|name| name.starts_with("pg_")) => made_by_another(message),
        "23505" if is_record_id(refusal) => Error::new(Code::Constraint, sequence_is_behind(message)),
        "42P10" => index_missing(message),
        // A column of the tables has changed its type. Prepared statements stay with their connections, so all connections made before are affected.
        "0A000" if refusal.routine == Some(STALE_STATEMENT) => {
            return Error::new(Code::TablesIncompatible, message)
                .repeatable(Repeatable::RolledBack)
                .and(Fate::AllDropped);
        }
        "26000" | "42P05" => Error::new(
            Code::DatabaseError,
            format!("prepared statements don't stay with the connection (a pooler?): give statementCache: 0: {message}"),
        ),
        "42P01" | "3F000" => tables_missing(message),
        "42703" => tables_incompatible(message),
        "42804" | "42846" | "42883" | "42704" => Error::new(
            Code::TablesIncompatible,
            format!("a column of the tables is of a type that this store can't use: {message}: call initialize(), which says which"),
        ),
        "42501" => no_right(message),
        "22001" | "54000" | "54023" => Error::new(Code::ValueTooLong, message),
        "54001" => Error::invalid(format!("JSON nests too deeply for this server (max_stack_depth): {message}")),
        "42939" => Error::invalid(format!("options.schema is a name that the server keeps for itself: {message}")),
        "22021" | "22P05" => Error::invalid(format!("a value holds a character that the database can't store: {message}")),
        "22P02" => wrong_for_type(message, refusal.routine),
        "22003" => Error::new(Code::DatabaseError, format!("a number is larger than its column takes: {message}")),
        _ if code.starts_with("08") => Error::new(Code::ConnectionLost, message),
        _ if code.starts_with("23") => Error::new(Code::Constraint, message),
        _ if code.starts_with("53") || code.starts_with("58") => no_resources(message),
        _ => refused(message),
    };
    error.into()
}

/// Told apart by the server's function, because its texts may be in any language.
fn wrong_for_type(message: &str, routine: Option<&str>) -> Error {
    match routine {
        Some("enum_in") => Error::new(
            Code::TablesIncompatible,
            format!("the enum of a status column lacks a value: {message}: add it (alter type … add value)"),
        ),
        Some("string_to_uuid") => Error::invalid(format!("an id has to be a UUID, because the tables' columns are: {message}")),
        _ => Error::invalid(format!("a value is not one of its column's type: {message}")),
    }
}

/// The one key of a record that no upsert names: its id, from the sequence.
fn is_record_id(refusal: Refusal<'_>) -> bool {
    let names_other = |name: &str| name != "batchactions_records_job_id_record_index";
    refusal.table == Some("batchactions_records") && refusal.constraint.is_some_and(names_other)
}

fn sequence_is_behind(message: &str) -> String {
    format!(
        "the sequence of batchactions_records.id gave an id that is taken, for it is behind the table (rows were copied into it?): run \
         select setval(pg_get_serial_sequence('batchactions_records', 'id'), (select max(id) from batchactions_records)): {message}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server with German messages reports it.
    fn german(code: &'static str) -> Refusal<'static> {
        Refusal {
            code,
            message: "das geht so nicht",
            ..Refusal::default()
        }
    }

    #[test]
    fn errors_are_told_apart_by_their_code_in_any_language() {
        use Repeatable::{ByCaller, Never, NoConnectionLeft, RolledBack, Unknown};
        for (code, kind, repeatable, fate) in [
            ("40P01", Code::Conflict, RolledBack, Fate::Kept),
            ("40001", Code::Conflict, RolledBack, Fate::Kept),
            ("55P03", Code::Conflict, RolledBack, Fate::Kept),
            ("57014", Code::Timeout, ByCaller, Fate::Kept),
            ("53300", Code::ConnectionFailed, NoConnectionLeft, Fate::Dropped),
            ("57P03", Code::ConnectionFailed, RolledBack, Fate::Dropped),
            ("57P01", Code::ConnectionLost, RolledBack, Fate::Dropped),
            ("25006", Code::PermissionDenied, RolledBack, Fate::AllDropped),
            ("42501", Code::PermissionDenied, Never, Fate::Kept),
            ("0A000", Code::DatabaseError, Never, Fate::Kept),
            ("08006", Code::ConnectionLost, Unknown, Fate::Dropped),
            ("53100", Code::DatabaseError, ByCaller, Fate::Kept),
            ("2200H", Code::DatabaseError, Never, Fate::Kept),
            ("42P01", Code::TablesMissing, Never, Fate::Kept),
            ("42703", Code::TablesIncompatible, Never, Fate::Kept),
            ("XX000", Code::DatabaseError, Never, Fate::Kept),
            ("42601", Code::DatabaseError, Never, Fate::Kept),
        ] {
            let explained = explain_refusal(german(code));
            assert_eq!(
                (explained.error.code, explained.error.repeatable, explained.fate),
                (kind, repeatable, fate),
                "{code}"
            );
            assert!(explained.error.message.contains("das geht so nicht"), "{code}");
        }
    }

    #[test]
    fn a_stale_statement_ends_the_connections_that_have_it() {
        let explained = explain_refusal(Refusal {
            routine: Some("RevalidateCachedQuery"),
            ..german("0A000")
        });
        assert_eq!(
            (explained.error.repeatable, explained.fate),
            (Repeatable::RolledBack, Fate::AllDropped)
        );
    }

    #[test]
    fn a_sequence_that_is_behind_is_told_from_a_key_that_is_taken() {
        let duplicate = |table, constraint| {
            explain_refusal(Refusal {
                table: Some(table),
                constraint: Some(constraint),
                ..german("23505")
            })
            .error
        };
        let behind = duplicate("batchactions_records", "batchactions_records_pkey");
        assert!(
            behind.code == Code::Constraint && behind.message.contains("select setval("),
            "{behind}"
        );
        let taken = duplicate("batchactions_batches", "batchactions_batches_pkey");
        assert!(taken.code == Code::Constraint && !taken.message.contains("setval"), "{taken}");
        assert_eq!(
            duplicate("pg_class", "pg_class_relname_nsp_index").repeatable,
            Repeatable::RolledBack
        );
    }
}
