//! Writes records by `copy`, which takes the server a third less time than an upsert but can only insert. If it can't, it changes nothing, and an
//! upsert follows.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;

use super::connect::copy_in;
use super::types::{ColumnTypes, Conn};
use crate::backend::RecordWrite;
use crate::backend::inserts::RefusedInserts;
use crate::error::{Code, Error, Result};

/// The number of records from which a copy (two round trips) is faster than an upsert (one).
const COPIED_FROM: usize = 50;

/// The approximate size in bytes of a slice of a copy: the server processes one while the next is written.
const SLICE_BYTES: usize = 64 << 10;

const COPY: &str = r#"
    copy batchactions_records
      ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError")
    from stdin
"#;

/// What the store's attempts have shown about where `copy` works.
#[derive(Default)]
pub struct RecordCopy {
    refused: RefusedInserts,
    /// Whether `copy` into the table is impossible: it has row-level security.
    never: AtomicBool,
}

impl RecordCopy {
    /// Returns whether the records were written. If the server refuses the `copy`, they were not: the upsert that follows writes them, or fails with
    /// a better error. An attempt, one per job, shows whether a record exists already.
    pub async fn write(&self, session: &mut Conn, begin: &str, parts: &[&[&RecordWrite]]) -> Result<bool> {
        let [[first, ..], ..] = parts else { return Ok(false) };
        let few = parts.iter().map(|part| part.len()).sum::<usize>() < COPIED_FROM;
        if few || self.never.load(Ordering::Relaxed) || self.refused.contains(&first.job_id) {
            return Ok(false);
        }
        match copy_parts(session, begin, parts).await {
            Ok(()) => Ok(true),
            Err(error) if session.is_in_order() && !matches!(error.code, Code::Timeout | Code::Conflict) => {
                if session.is_in_transaction() {
                    session.rollback().await?;
                }
                self.remember(&first.job_id, &error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn remember(&self, job_id: &str, refusal: &Error) {
        let code = refusal.cause.as_ref().and_then(|cause| cause.code.as_deref());
        if code == Some("0A000") {
            self.never.store(true, Ordering::Relaxed);
        } else if refusal.code == Code::Constraint {
            self.refused.add(job_id);
        }
    }
}

async fn copy_parts(session: &mut Conn, begin: &str, parts: &[&[&RecordWrite]]) -> Result<()> {
    let begun = match parts {
        [_] => session.wrap_in_transaction().await?,
        _ => session.begin(begin).await.map(|()| true)?,
    };
    for part in parts {
        let slices = slices(session.types(), part);
        let limit = session.limit();
        let outcome = timeout(limit, copy_in(session.start()?, COPY, slices)).await;
        session.finish(outcome)?;
    }
    session.end_wrapping(begun).await
}

/// The text of records for `copy`, in slices.
fn slices(types: &ColumnTypes, writes: &[&RecordWrite]) -> impl Iterator<Item = Vec<u8>> {
    let mut writes = writes.iter().peekable();
    std::iter::from_fn(move || {
        writes.peek()?;
        let mut lines = Vec::with_capacity(SLICE_BYTES + SLICE_BYTES / 8);
        while lines.len() < SLICE_BYTES
            && let Some(write) = writes.next()
        {
            push_line(&mut lines, types, write);
        }
        Some(lines)
    })
}

/// A record in the text format of `copy`, which suits any column type.
fn push_line(lines: &mut Vec<u8>, types: &ColumnTypes, write: &RecordWrite) {
    let record = &write.record;
    let index = record.index.to_string();
    let columns = [
        &*write.job_id,
        &*write.batch_id,
        &*index,
        record.status.as_str(),
        &*types.json("records.raw", &record.raw),
        &*types.json("records.parsed", &record.parsed),
        &*types.json("records.errors", &record.errors),
    ];
    for column in columns {
        push_text(lines, column);
        lines.push(b'\t');
    }
    match &record.processing_error {
        Some(text) => push_text(lines, text),
        None => lines.extend_from_slice(b"\\N"),
    }
    lines.push(b'\n');
}

fn push_text(lines: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        lines.extend_from_slice(&bytes[from..at]);
        lines.extend_from_slice(&[b'\\', escaped]);
        from = at + 1;
    }
    lines.extend_from_slice(&bytes[from..]);
}
