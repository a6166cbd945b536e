//! Multi-row statements, for the databases that have no arrays.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::record_write::{RecordWrite, size_of};
use crate::error::lock;

/// Numbers of rows that a statement may have. There are few, so that each statement text is prepared once, and they are the usual batch sizes, so
/// that a batch of that size takes one statement. The largest stays within SQLite's limit of 32,766 values per statement and MySQL's of 65,535.
const SIZES: [usize; 10] = [1_000, 500, 200, 100, 50, 20, 10, 5, 2, 1];

/// The target size of a statement in bytes, where the server accepts that much.
pub const STATEMENT_BYTES: usize = 4 << 20;

/// Splits records so that no statement is much larger than `limit`, which also bounds the memory in use at a time.
pub fn by_bytes<'a, 'r>(mut records: &'a [&'r RecordWrite], most: usize) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = records.iter().take_while(|write| {
            bytes += size_of(write);
            bytes <= most
        });
        let count = fits.count().max(1).min(records.len());
        let (part, rest) = records.split_at(count);
        records = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// The maximum number of keys in one statement. With more, MySQL relies on a rough cost estimate and may read the whole
/// table.
const KEYS: usize = 200;

/// Splits rows into chunks of the prepared sizes.
pub fn chunks<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    chunks_of(rows, SIZES[0])
}

/// Splits lookup keys into chunks of the prepared sizes.
pub fn key_chunks<T>(keys: &[T]) -> impl Iterator<Item = &[T]> {
    chunks_of(keys, KEYS)
}

fn chunks_of<T>(mut rows: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len().min(most))?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// A statement for any number of rows of values. Each text is built once.
pub struct MultiRow {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    texts: Mutex<BTreeMap<usize, &'static str>>,
}

impl MultiRow {
    pub const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self {
            head,
            row,
            tail,
            texts: Mutex::new(BTreeMap::new()),
        }
    }

    /// The text for one chunk size. It lives as long as the program; there are only as many texts as chunk sizes.
    pub fn text(&self, rows: usize) -> &'static str {
        lock(&self.texts).entry(rows).or_insert_with(|| {
            let values = vec![self.row; rows].join(", ");
            Box::leak(format!("{}{values}{}", self.head, self.tail).into_boxed_str())
        })
    }
}

/// A statement with lists of any number of values, each written `$values`. Each text is built once.
pub struct MultiValue {
    text: &'static str,
    texts: Mutex<BTreeMap<usize, &'static str>>,
}

impl MultiValue {
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            texts: Mutex::new(BTreeMap::new()),
        }
    }

    /// The text for one chunk size, as in `MultiRow`.
    pub fn text(&self, values: usize) -> &'static str {
        lock(&self.texts).entry(values).or_insert_with(|| {
            let list = vec!["?"; values].join(", ");
            Box::leak(self.text.replace("$values", &list).into_boxed_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_prepared_sizes_and_lose_no_row() {
        for length in [0, 1, 9, 10, 61, 199, 200, 461, 1_000, 3_777] {
            let rows: Vec<usize> = (0..length).collect();
            let chunks: Vec<&[usize]> = chunks(&rows).collect();
            assert!(chunks.iter().all(|chunk| SIZES.contains(&chunk.len())));
            assert_eq!(chunks.concat(), rows);
        }
    }

    #[test]
    fn a_statement_has_its_rows() {
        let insert = MultiRow::new("insert values ", "(?, ?)", " end");
        assert_eq!(insert.text(2), "insert values (?, ?), (?, ?) end");
    }
}
