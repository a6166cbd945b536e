//! The rows of a job's batches as one text, which the server and the driver pass on several times as fast as as many rows.
//!
//! The values of a row are joined by one control character, and the rows by another. Ids may contain these. A text with as many rows as were counted,
//! each of as many values as there are columns and an empty one at its end, has none of them inside a value, and was not cut. Zero is written as nothing, because most counts are zero and the
//! server takes long to write numbers.

use super::connect::Conn;
use crate::backend::driver::{Row, Sql, sql, values};
use crate::backend::{ReadBatches, rows};
use crate::error::Result;
use crate::model::{BatchRowParts, BatchRows, BatchRowsText};

const BETWEEN_ROWS: char = '\u{1e}';
const BETWEEN_VALUES: char = '\u{1f}';

/// MySQL reads from the index of the hint alone, several times as fast as through another one. It reports a hint whose index is missing with a warning
/// only. MariaDB knows no such hints; it reads the rows as fast.
const JOINED_ROWS: Sql<'static> = sql(
    "joined_rows",
    "
    select /*+ index(batchactions_batches batchactions_batches_job_id_state) */
           count(*),
           group_concat(
             concat_ws(
               '\u{1f}',
               batchIndex, id, status, if(processedCount = 0, '', processedCount), if(failedCount = 0, '', failedCount), ifnull(claimedAt, ''),
               ifnull(concat('=', workerId), ''), ''
             )
             separator '\u{1e}'
           )
    from batchactions_batches
    where jobId = ?
    ",
);

const ROWS: Sql<'static> = sql(
    "batch_rows_by_state",
    "
    select /*+ index(batchactions_batches batchactions_batches_job_id_state) */
           id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
    from batchactions_batches
    where jobId = ?
    order by batchIndex
    ",
);

pub async fn joined_rows(session: &mut Conn, job_id: &str, earlier: Option<&ReadBatches>) -> Result<BatchRows> {
    let joined = session.one(JOINED_ROWS, values![job_id], |row| {
        let total: usize = row.number(0)?;
        Ok(row_texts(total, row.optional_text(1)?.unwrap_or_default()))
    });
    let rows = joined.await?;
    match rows.and_then(|text| BatchRows::read(&text, earlier.map(|earlier| &earlier.batches.rows))) {
        Some(rows) => Ok(rows),
        // An id contains such a character, the text exceeds what the server allows, or a value has an unusual form.
        None => rows::all_batch_rows(session, ROWS, values![job_id], earlier).await,
    }
}

fn row_texts(total: usize, joined: &str) -> Option<String> {
    let mut rows = Vec::with_capacity(total);
    if !joined.is_empty() {
        for row in joined.split(BETWEEN_ROWS) {
            rows.push(row_parts(row)?);
        }
    }
    if rows.len() != total {
        return None;
    }
    // Unordered by the server, which would collect and sort the texts for it.
    rows.sort_by_key(|row| row.index);
    let mut text = BatchRowsText::default();
    rows.iter().for_each(|row| text.push(*row));
    Some(text.into_text())
}

fn row_parts(row: &str) -> Option<BatchRowParts<'_>> {
    let mut values = row.split(BETWEEN_VALUES);
    let mut next = || values.next();
    let parts = BatchRowParts {
        index: next()?.parse().ok()?,
        id: next()?,
        status: next()?,
        processed: count(next()?)?,
        failed: count(next()?)?,
        claimed_at: match next()? {
            "" => None,
            time => Some(time.parse().ok()?),
        },
        worker_id: match next()? {
            "" => None,
            worker_id => Some(worker_id.strip_prefix('=')?),
        },
    };
    (next()?.is_empty() && next().is_none()).then_some(parts)
}

fn count(value: &str) -> Option<i32> {
    if value.is_empty() { Some(0) } else { value.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_only_if_no_value_contains_a_separator() {
        let row = |index: i32, id: &str, worker: &str| format!("{index}\u{1f}{id}\u{1f}PENDING\u{1f}\u{1f}1\u{1f}\u{1f}{worker}\u{1f}");
        let joined = |rows: &[String]| rows.join("\u{1e}");
        assert_eq!(row_texts(0, "").as_deref(), Some("[]"));
        assert_eq!(
            row_texts(2, &joined(&[row(7, "b", "=w"), row(0, "a\"", "")])).as_deref(),
            Some(r#"[[0,"a\"","PENDING",0,1,null,null],[7,"b","PENDING",0,1,null,"w"]]"#)
        );
        for (total, joined) in [
            (2, row(0, "a", "")),
            (1, row(0, "a\u{1f}", "")),
            (1, row(0, "a\u{1e}", "")),
            (1, row(0, "a", "w")),
            (1, row(0, "a", &format!("={}", joined(&["".to_owned(), row(1, "b", "")])))),
            (1, String::new()),
            // Cut in the worker's id.
            (1, row(0, "a", "=worker").trim_end_matches("er\u{1f}").to_owned()),
            (1, "0\u{1f}a\u{1f}PENDING\u{1f}0\u{1f}1\u{1f}".to_owned()),
            (1, "0\u{1f}a\u{1f}PENDING\u{1f}0\u{1f}1.5\u{1f}\u{1f}".to_owned()),
        ] {
            assert_eq!(row_texts(total, &joined), None, "{joined:?}");
        }
    }
}
