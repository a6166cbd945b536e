//! SQLite's errors, by its result codes (sqlite.org/rescode.html).

use sqlx::error::DatabaseError;

use crate::backend::errors::{Explained, Fate, Refusal, cancelled, conflict, index_missing, refused, tables_incompatible, tables_missing};
use crate::error::{Code, Error, Repeatable};

/// The file has been renamed or removed.
const READONLY_DBMOVED: i32 = 1032;

pub fn explain(error: &dyn DatabaseError) -> Explained {
    let code = error.code().unwrap_or_default();
    explain_refusal(Refusal {
        code: &code,
        message: error.message(),
        ..Refusal::default()
    })
}

fn explain_refusal(Refusal { code, message, .. }: Refusal<'_>) -> Explained {
    let extended: i32 = code.parse().unwrap_or_default();
    let failed = |code, what: &str| Error::new(code, format!("{what}: {message}")).repeatable(Repeatable::Never);
    // The low byte of an extended result code is the primary one.
    match extended & 0xff {
        5 | 6 | 15 => conflict(&format!("another connection holds the file: {message}")).into(),
        8 if extended == READONLY_DBMOVED => Error::new(Code::ConnectionLost, format!("the file was moved or removed: {message}"))
            .repeatable(Repeatable::RolledBack)
            .into(),
        3 | 8 | 23 => failed(Code::PermissionDenied, "the file may not be written").and(Fate::Dropped),
        // The database has been opened, or its file checked, before.
        14 => failed(
            Code::PermissionDenied,
            "the file can't be opened, or its folder may not be written, where SQLite keeps a journal beside it (-wal, -shm, -journal)",
        )
        .and(Fate::Dropped),
        9 => cancelled(message).into(),
        7 | 10 | 13 => Error::new(Code::DatabaseError, format!("the disk failed, or is full: {message}"))
            .repeatable(Repeatable::ByCaller)
            .into(),
        11 | 26 => failed(Code::ConnectionFailed, "the file is not a sound SQLite database").into(),
        18 => Error::new(Code::ValueTooLong, message).into(),
        19 => Error::new(Code::Constraint, message).into(),
        1 => explain_plain(message).into(),
        _ => refused(message).into(),
    }
}

/// SQLite has one code for everything that is wrong with a statement. Its texts don't depend on a server: they are compiled into the library, in one
/// language.
fn explain_plain(message: &str) -> Error {
    if message.contains("ON CONFLICT clause does not match") {
        index_missing(message)
    } else if message.contains("no such table") {
        tables_missing(message)
    } else if message.contains("no such column") || message.contains("has no column") {
        tables_incompatible(message)
    } else {
        refused(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_code() {
        use Repeatable::{ByCaller, Never, RolledBack};
        for (code, kind, repeatable, fate) in [
            ("5", Code::Conflict, RolledBack, Fate::Kept),
            ("517", Code::Conflict, RolledBack, Fate::Kept),
            ("8", Code::PermissionDenied, Never, Fate::Dropped),
            ("1544", Code::PermissionDenied, Never, Fate::Dropped),
            ("1032", Code::ConnectionLost, RolledBack, Fate::Dropped),
            ("13", Code::DatabaseError, ByCaller, Fate::Kept),
            ("26", Code::ConnectionFailed, Never, Fate::Dropped),
            ("2067", Code::Constraint, Never, Fate::Kept),
            ("1", Code::DatabaseError, Never, Fate::Kept),
        ] {
            let explained = explain_refusal(Refusal {
                code,
                message: "x",
                ..Refusal::default()
            });
            assert_eq!(
                (explained.error.code, explained.error.repeatable, explained.fate),
                (kind, repeatable, fate),
                "{code}"
            );
        }
    }
}
