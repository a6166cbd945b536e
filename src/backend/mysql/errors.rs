//! The errors of MySQL and MariaDB, by number.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::backend::errors::{
    Explained, Fate, Refusal, cancelled, conflict, index_missing, lost, made_by_another, no_resources, no_right, read_only_server, refused,
    tables_incompatible, tables_missing,
};
use crate::error::{Code, Error, Repeatable};

fn number(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number)
}

pub fn explain(error: &dyn DatabaseError) -> Explained {
    let code = error.code().unwrap_or_default();
    explain_refusal(Refusal {
        code: &code,
        number: number(error),
        message: error.message(),
        ..Refusal::default()
    })
}

/// A limit of this user alone: on its connections, or on its work per hour.
const USER_LIMIT: u16 = 1226;

/// Whether a refused connection means that the server has no connection left for this user.
pub fn has_no_connection_left(error: &dyn DatabaseError) -> bool {
    matches!(number(error), 1040 | 1203 | USER_LIMIT)
}

/// MariaDB reports this itself; MySQL gives a new record an id that another record has.
pub const NO_IDS_LEFT: &str = "no id is left for new records: the column id of batchactions_records is as large as its type allows, 32 bits as a rule. Nothing was stored. \
     Make it larger: alter table batchactions_records modify id bigint auto_increment";

fn explain_refusal(refusal: Refusal<'_>) -> Explained {
    let Refusal { code, number, message, .. } = refusal;
    let error = match number {
        // Deadlock, lock wait timeout, a `nowait` lock that was taken, and MariaDB's refusal to update a row that has changed since it was read.
        1213 | 1205 | 3572 | 1020 => conflict(message),
        1317 | 1969 | 3024 => cancelled(message),
        1045 | 1049 | 1698 => Error::new(Code::ConnectionFailed, message).repeatable(Repeatable::Never),
        1040 | 1203 => Error::new(Code::ConnectionFailed, message).repeatable(Repeatable::NoConnectionLeft),
        USER_LIMIT => Error::new(
            Code::DatabaseError,
            format!("the database user has reached a limit that its administrator set: {message}"),
        )
        .repeatable(Repeatable::ByCaller),
        1053 | 1927 | 4031 => lost(message),
        // A Galera node that has not caught up. Another node may serve the call, or the same one a little later.
        1047 => Error::new(Code::ConnectionFailed, format!("the server is not ready: {message}")).repeatable(Repeatable::RolledBack),
        1290 | 1792 | 1836 => return read_only_server(message),
        1050 | 1061 => made_by_another(message),
        1176 => index_missing(message),
        // Closing this pool's connections frees their statements.
        1461 => {
            return Error::new(
                Code::DatabaseError,
                format!(
                    "the server keeps no more prepared statements: lower statementCache, or raise its setting max_prepared_stmt_count: {message}"
                ),
            )
            .repeatable(Repeatable::RolledBack)
            .and(Fate::AllDroppedUnprepared);
        }
        // The tables have changed, and the server could not prepare the statement again by itself.
        1615 => return refused(message).repeatable(Repeatable::RolledBack).and(Fate::Dropped),
        1243 => Error::new(
            Code::DatabaseError,
            format!("prepared statements don't stay with the connection (a proxy?): give statementCache: 0: {message}"),
        ),
        1665 => Error::new(
            Code::UnsupportedDatabase,
            format!("the server's binlog_format must be ROW or MIXED, for transactions are READ COMMITTED here: {message}"),
        ),
        1146 => tables_missing(message),
        1054 => tables_incompatible(message),
        // The server reports an enum without this value in the same way.
        1265 => Error::new(
            Code::TablesIncompatible,
            format!("a column's type does not take a value (if it is an enum, add the value to it): {message}"),
        ),
        1292 => Error::invalid(format!(
            "a column's type does not take a value (an id has to be a UUID where the column is one): {message}"
        )),
        1044 => Error::new(
            Code::PermissionDenied,
            format!("the database user may not use the database, or there is no database of that name: {message}"),
        ),
        1142 | 1143 | 1227 | 1370 => no_right(message),
        1153 => Error::new(Code::ValueTooLong, format!("{message}: raise the server's max_allowed_packet")),
        1406 | 3150 | 3151 => Error::new(Code::ValueTooLong, message),
        1062 | 1048 | 1451 | 1452 | 3819 => Error::new(Code::Constraint, message),
        1267 | 1270 | 1271 | 1366 | 3854 | 3988 => Error::invalid(convert(message)),
        3140 | 3141 | 3157 | 4025 => Error::invalid(format!("the database can't store a value: {message}")),
        1021 | 1037 | 1038 | 1041 | 1114 | 1135 => no_resources(message),
        167 | 1467 => Error::new(Code::DatabaseError, format!("{message}: {NO_IDS_LEFT}")),
        _ if code == "40001" => conflict(message),
        _ => refused(message),
    };
    error.into()
}

fn convert(message: &str) -> String {
    format!(
        "a value holds a character that its column can't store, for the column's character set is not utf8mb4: run alter table \
         batchactions_records convert to character set utf8mb4, and the same for batchactions_jobs and batchactions_batches: {message}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_number_in_any_language() {
        use Repeatable::{ByCaller, Never, NoConnectionLeft, RolledBack};
        for (number, kind, repeatable, fate) in [
            (1213, Code::Conflict, RolledBack, Fate::Kept),
            (1205, Code::Conflict, RolledBack, Fate::Kept),
            (3024, Code::Timeout, ByCaller, Fate::Kept),
            (1040, Code::ConnectionFailed, NoConnectionLeft, Fate::Dropped),
            (1203, Code::ConnectionFailed, NoConnectionLeft, Fate::Dropped),
            (1226, Code::DatabaseError, ByCaller, Fate::Kept),
            (1045, Code::ConnectionFailed, Never, Fate::Dropped),
            (1047, Code::ConnectionFailed, RolledBack, Fate::Dropped),
            (1053, Code::ConnectionLost, RolledBack, Fate::Dropped),
            (1290, Code::PermissionDenied, RolledBack, Fate::AllDropped),
            (1836, Code::PermissionDenied, RolledBack, Fate::AllDropped),
            (1142, Code::PermissionDenied, Never, Fate::Kept),
            (1461, Code::DatabaseError, RolledBack, Fate::AllDroppedUnprepared),
            (1615, Code::DatabaseError, RolledBack, Fate::Dropped),
            (1114, Code::DatabaseError, ByCaller, Fate::Kept),
            (1467, Code::DatabaseError, Never, Fate::Kept),
            (1064, Code::DatabaseError, Never, Fate::Kept),
        ] {
            let explained = explain_refusal(Refusal {
                code: "HY000",
                number,
                message: "so geht das nicht",
                ..Refusal::default()
            });
            assert_eq!(
                (explained.error.code, explained.error.repeatable, explained.fate),
                (kind, repeatable, fate),
                "{number}"
            );
            assert!(explained.error.message.contains("so geht das nicht"), "{number}");
        }
    }
}
