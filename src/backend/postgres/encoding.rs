//! Finds out which characters the database's encoding has; text with any other can't be stored.

use std::sync::Arc;

use super::types::Conn;
use crate::backend::driver::{Row, sql, values};
use crate::error::{Code, Result};
use crate::model::{Encoding, Repertoire};

/// The encoding of the database. The server converts from and to it.
pub async fn encoding(session: &mut Conn) -> Result<Encoding> {
    let encoding = sql(
        "encoding",
        "
        select pg_catalog.current_setting('server_encoding'),
               pg_catalog.pg_encoding_max_length(pg_catalog.pg_char_to_encoding(pg_catalog.current_setting('server_encoding')::name))
        ",
    );
    let (name, widest) = session
        .one(encoding, vec![], |row| Ok((row.text(0)?.to_owned(), row.number::<i32>(1)?)))
        .await?;
    // In SQL_ASCII nothing is converted.
    if name == "UTF8" || name == "SQL_ASCII" {
        return Ok(Encoding::Utf8);
    }
    let mut repertoire = Repertoire {
        widest: widest.max(1) as usize,
        ..Repertoire::default()
    };
    // Of multi-byte encodings only ASCII is used: querying each of their characters would take too long. A single-byte encoding has 128 more, which
    // are queried as one range; a range with an unassigned code is split in halves.
    let mut ranges = if widest == 1 { vec![(128, 255)] } else { Vec::new() };
    while let Some((first, last)) = ranges.pop() {
        match characters(session, first, last).await {
            Ok(characters) => repertoire.characters.extend(characters.chars()),
            Err(error) if session.is_in_order() && error.code == Code::InvalidArgument => {
                if session.is_in_transaction() {
                    session.rollback().await?;
                }
                if first < last {
                    let middle = (first + last) / 2;
                    ranges.extend([(first, middle), (middle + 1, last)]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Encoding::Other(Arc::new(repertoire)))
}

/// The characters of a range of codes. The server refuses an unassigned code.
async fn characters(session: &mut Conn, first: i32, last: i32) -> Result<String> {
    let characters = sql(
        "encoding_characters",
        "select pg_catalog.string_agg(pg_catalog.chr(code), '') from pg_catalog.generate_series($1::int4, $2::int4) code",
    );
    session
        .one(characters, values![first, last], |row| row.text(0).map(str::to_owned))
        .await
}
