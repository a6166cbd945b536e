//! The rows of a job's batches as one JSON array: `[index,"id","status",processed,failed,claimedAt,"worker"]` for each, by index.
//!
//! Text, because a job may have 100,000 of them, and what an earlier read has in common with this one is shared.

use std::borrow::Cow;
use std::fmt::Write;

use super::batch::BatchRow;
use super::json_string::push_string;
use super::shared_array::{Chunk, SharedArray};

/// An immutable copy of the rows. A clone shares its text.
#[derive(Clone, Debug)]
pub struct BatchRows(SharedArray);

/// A row, whose texts are JSON strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRowText<'a> {
    pub index: i32,
    pub id: &'a str,
    pub status: &'a str,
    pub processed: &'a str,
    pub failed: &'a str,
    pub claimed_at: Option<&'a str>,
    pub worker_id: Option<&'a str>,
}

impl BatchRows {
    /// Reads the array. `None` if it is not one of rows.
    pub fn read(json: &str, earlier: Option<&Self>) -> Option<Self> {
        let earlier = earlier.map(|Self(rows)| rows);
        SharedArray::read(json, earlier, |row| BatchRowText::read(row).is_some()).map(Self)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn iter(&self) -> impl Iterator<Item = BatchRowText<'_>> {
        self.0.items().filter_map(BatchRowText::read)
    }

    /// These rows after some of them changed. `None` if there is one among the changed that is not here.
    pub fn with_changed(&self, changed: &[BatchRow]) -> Option<Self> {
        let mut changed: Vec<&BatchRow> = changed.iter().collect();
        changed.sort_by_key(|row| row.index);
        let mut chunks = Vec::new();
        let mut rest = &changed[..];
        while let Some(row) = rest.first() {
            let at = self.chunk_of(row.index)?;
            let next = self.0.chunks().get(at + 1).and_then(|chunk| first_index(chunk));
            let here = rest.partition_point(|row| next.is_none_or(|next| row.index < next));
            chunks.push((at, changed_chunk(&self.0.chunks()[at], &rest[..here])?));
            rest = &rest[here..];
        }
        Some(Self(self.0.with_chunks(chunks)))
    }

    /// The place of the chunk that has this index, if any has it.
    fn chunk_of(&self, index: i32) -> Option<usize> {
        let behind = self
            .0
            .chunks()
            .partition_point(|chunk| first_index(chunk).is_some_and(|first| first <= index));
        behind.checked_sub(1)
    }

    #[cfg(test)]
    pub fn shared_with(&self, other: &Self) -> usize {
        self.0.shared_with(&other.0)
    }
}

fn first_index(chunk: &Chunk) -> Option<i32> {
    chunk.items().next().and_then(BatchRowText::read).map(|row| row.index)
}

fn changed_chunk(chunk: &Chunk, changed: &[&BatchRow]) -> Option<Chunk> {
    let mut met = 0;
    let items: Vec<Cow<'_, str>> = chunk
        .items()
        .map(|item| {
            let index = BatchRowText::read(item).map(|row| row.index);
            match changed.iter().find(|row| Some(row.index) == index) {
                None => Cow::Borrowed(item),
                Some(row) => {
                    met += 1;
                    let mut text = String::new();
                    push_row(&mut text, (*row).into());
                    Cow::Owned(text)
                }
            }
        })
        .collect();
    (met == changed.len()).then(|| Chunk::of(items.iter().map(|item| &**item)))
}

/// A row, whose texts are as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRowParts<'a> {
    pub index: i32,
    pub id: &'a str,
    pub status: &'a str,
    pub processed: i32,
    pub failed: i32,
    pub claimed_at: Option<i64>,
    pub worker_id: Option<&'a str>,
}

impl<'a> From<&'a BatchRow> for BatchRowParts<'a> {
    fn from(row: &'a BatchRow) -> Self {
        Self {
            index: row.index,
            id: &row.id,
            status: &row.status,
            processed: row.processed,
            failed: row.failed,
            claimed_at: row.claimed_at,
            worker_id: row.worker_id.as_deref(),
        }
    }
}

impl From<BatchRowParts<'_>> for BatchRow {
    fn from(row: BatchRowParts<'_>) -> Self {
        Self {
            id: row.id.to_owned(),
            index: row.index,
            status: row.status.to_owned(),
            worker_id: row.worker_id.map(str::to_owned),
            claimed_at: row.claimed_at,
            processed: row.processed,
            failed: row.failed,
        }
    }
}

/// Collects rows, by index, into the text that `BatchRows::read` reads.
#[derive(Default)]
pub struct BatchRowsText(String);

impl BatchRowsText {
    pub fn push(&mut self, row: BatchRowParts<'_>) {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        push_row(&mut self.0, row);
    }

    pub fn into_text(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('[');
        }
        self.0.push(']');
        self.0
    }
}

fn push_row(into: &mut String, row: BatchRowParts<'_>) {
    into.push('[');
    push_number(into, row.index.into());
    into.push(',');
    push_string(into, row.id);
    into.push(',');
    push_string(into, row.status);
    for count in [row.processed, row.failed] {
        into.push(',');
        push_number(into, count.into());
    }
    into.push(',');
    match row.claimed_at {
        Some(time) => push_number(into, time),
        None => into.push_str("null"),
    }
    into.push(',');
    match row.worker_id {
        Some(worker_id) => push_string(into, worker_id),
        None => into.push_str("null"),
    }
    into.push(']');
}

/// Without an allocation, because there are some of them in each of many rows.
fn push_number(into: &mut String, number: i64) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => into.push(char::from(b'0' + digit)),
        // A string takes any text.
        _ => drop(write!(into, "{number}")),
    }
}

impl<'a> BatchRowText<'a> {
    /// Reads one row of the array. `None` if it has another form than the one that is written here.
    fn read(json: &'a str) -> Option<Self> {
        let mut values = json.strip_prefix('[')?.strip_suffix(']')?;
        let mut next = || {
            let end = end_of_value(values)?;
            let (value, after) = values.split_at(end);
            values = after.strip_prefix(',').unwrap_or(after);
            Some(value)
        };
        let row = Self {
            index: next()?.parse().ok()?,
            id: next().filter(is_string)?,
            status: next().filter(is_string)?,
            processed: next().filter(is_count)?,
            failed: next().filter(is_count)?,
            claimed_at: next().and_then(|value| nullable(value, |time| time.parse::<i64>().is_ok()))?,
            worker_id: next().and_then(|value| nullable(value, is_string))?,
        };
        values.is_empty().then_some(row)
    }
}

fn is_string(value: &&str) -> bool {
    value.starts_with('"')
}

/// `None` if it is neither null nor what it has to be.
fn nullable<'a>(value: &'a str, is_right: impl Fn(&&'a str) -> bool) -> Option<Option<&'a str>> {
    match value {
        "null" => Some(None),
        value => is_right(&value).then_some(Some(value)),
    }
}

fn is_count(value: &&str) -> bool {
    value.parse::<i32>().is_ok()
}

/// The length of the string, the number or the word that the text begins with.
pub(super) fn end_of_value(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        return Some(bytes.iter().position(ends).unwrap_or(bytes.len()));
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
