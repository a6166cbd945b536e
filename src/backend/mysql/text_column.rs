//! The capacity of the column `processingError` in bytes, and its character set.

use std::sync::Arc;

use super::connect::Conn;
use crate::backend::driver::{Row, sql, values};
use crate::error::Result;
use crate::model::{Encoding, Repertoire};

/// `None` if the column does not exist.
pub async fn text_column(session: &mut Conn) -> Result<Option<(usize, Encoding)>> {
    let column = sql(
        "text_column",
        "
        select cast(c.character_set_name as char),
               cast(c.character_octet_length as signed),
               cast(c.character_maximum_length as signed),
               cast(s.maxlen as signed)
        from information_schema.columns c
        join information_schema.character_sets s on s.character_set_name = c.character_set_name
        where c.table_schema = database()
          and c.table_name = 'batchactions_records'
          and c.column_name = 'processingError'
        ",
    );
    let found = session.optional(column, values![], |row| {
        Ok((
            row.text(0)?.to_owned(),
            row.number::<i64>(1)?,
            row.number::<i64>(2)?,
            row.number::<usize>(3)?,
        ))
    });
    let Some((name, bytes, characters, widest)) = found.await? else {
        return Ok(None);
    };
    let encoding = match &*name {
        "utf8mb4" => Encoding::Utf8,
        "utf8mb3" | "utf8" => Encoding::Utf8Bmp,
        "utf16" | "utf16le" => Encoding::Utf16,
        "ucs2" => Encoding::Ucs2,
        "utf32" => Encoding::Utf32,
        _ => Encoding::Other(Arc::new(repertoire(session, &name, widest).await?)),
    };
    // A `varchar` is limited in characters; this counts each as the shortest possible one.
    let most = bytes.min(characters.saturating_mul(encoding.narrowest() as i64));
    Ok(Some((most as usize, encoding)))
}

/// The characters that survive a round trip through one of the server's character sets.
async fn repertoire(session: &mut Conn, name: &str, widest: usize) -> Result<Repertoire> {
    let all: String = (0x80..=0xffff).filter_map(char::from_u32).collect();
    // A name from the server's own list. The text is sent as bytes, because MySQL refuses a text parameter that it can't convert without loss.
    let text = format!("select convert(convert(convert(? using utf8mb4) using `{name}`) using utf8mb4)");
    let back = session
        .one(sql("repertoire", &text), values![all.as_bytes()], |row| {
            row.text(0).map(str::to_owned)
        })
        .await?;
    let same = all.chars().zip(back.chars()).filter(|(there, back)| there == back);
    Ok(Repertoire {
        characters: same.map(|(there, _)| there).collect(),
        widest,
    })
}
