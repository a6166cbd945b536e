//! The batches of a job as `getJobState` returns them: the list in the job's row, each entry with the state and the claim in the batch's own row.
//!
//! They are captured as text when the job is read, and become one JSON text when they are looked at, which most callers never do.

use std::borrow::Cow;
use std::collections::HashMap;

use super::batch_list::unreadable;
use super::batch_page::BatchPage;
use super::batch_rows::{BatchRowText, BatchRows, end_of_value};
use super::json_string::push_string;
use super::shared_array::SharedArray;
use crate::error::Result;
use crate::fields::Fields;

/// An immutable copy of a job's batches. A clone shares its text.
#[derive(Clone, Debug)]
pub struct JobBatches {
    list: SharedArray,
    pub rows: BatchRows,
}

/// The keys and values of a batch in the list. Values are JSON text.
type Entry<'a> = Vec<(Cow<'a, str>, &'a str)>;

impl JobBatches {
    /// `earlier`: an earlier copy, with which this one shares what is equal.
    pub fn read(job_id: &str, list: &str, rows: BatchRows, earlier: Option<&Self>) -> Result<Self> {
        let earlier = earlier.map(|batches| &batches.list);
        let list = SharedArray::read(list, earlier, |entry| id_of(entry).is_some()).ok_or_else(|| unreadable(job_id))?;
        Ok(Self { list, rows })
    }

    /// The same list with other rows.
    pub fn with_rows(&self, rows: BatchRows) -> Self {
        Self {
            list: self.list.clone(),
            rows,
        }
    }

    /// The length of the text that this copy holds.
    pub fn bytes(&self) -> usize {
        self.list.bytes() + self.rows.bytes()
    }

    /// No less than the length of the result of `to_json`.
    pub fn longest_json(&self) -> usize {
        self.bytes() + ADDED.iter().map(|key| key.len() + 6).sum::<usize>() * self.list.len()
    }

    /// `JobState['batches']` of `index.d.ts`.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.bytes());
        let mut rows = MatchingRows::new(&self.rows);
        let mut entry = Entry::with_capacity(12);
        for text in self.list.items() {
            out.push(if out.is_empty() { '[' } else { ',' });
            read_entry(text, &mut entry);
            push_entry(&mut out, &entry, rows.of(&entry).as_ref(), Records::Empty);
        }
        if out.is_empty() {
            out.push('[');
        }
        out.push(']');
        out
    }

    /// A page of the batches by index, each as `BatchSummary` of `index.d.ts`. It looks at all of them.
    pub fn page(&self, page: &BatchPage) -> Vec<String> {
        let mut rows = MatchingRows::new(&self.rows);
        let mut entry = Entry::with_capacity(12);
        let mut found = Vec::new();
        for (place, text) in self.list.items().enumerate() {
            read_entry(text, &mut entry);
            let row = rows.of(&entry);
            let index = value_of(&entry, "index").and_then(|index| index.parse().ok());
            // Without an index of its own, a batch has that of its place.
            let index = index.unwrap_or(i32::try_from(place).unwrap_or(i32::MAX));
            let status = row.map(|row| row.status).or(value_of(&entry, "status")).and_then(decoded);
            if page.is_after(index) && page.takes(&status.unwrap_or_default()) {
                found.push((index, text, row));
            }
        }
        found.sort_by_key(|(index, ..)| *index);
        let most = usize::try_from(page.limit).unwrap_or_default();
        let to_json = |(_, text, row): (i32, &str, Option<BatchRowText<'_>>)| {
            let mut entry = Entry::with_capacity(12);
            read_entry(text, &mut entry);
            let mut out = String::with_capacity(200);
            push_entry(&mut out, &entry, row.as_ref(), Records::LeftOut);
            out
        };
        found.into_iter().take(most).map(to_json).collect()
    }

    #[cfg(test)]
    pub fn shared_with(&self, other: &Self) -> (usize, usize) {
        (self.list.shared_with(&other.list), self.rows.shared_with(&other.rows))
    }
}

/// Finds the row of each entry. The list and the rows have the same order as a rule, so the next entry's row is the next row.
struct MatchingRows<'a> {
    rows: &'a BatchRows,
    next: Box<dyn Iterator<Item = BatchRowText<'a>> + 'a>,
    /// All rows, once an entry's row was not the next one.
    by_id: Option<HashMap<Cow<'a, str>, BatchRowText<'a>>>,
}

impl<'a> MatchingRows<'a> {
    fn new(rows: &'a BatchRows) -> Self {
        Self {
            rows,
            next: Box::new(rows.iter()),
            by_id: None,
        }
    }

    fn of(&mut self, entry: &Entry<'_>) -> Option<BatchRowText<'a>> {
        let id = value_of(entry, "id")?;
        if self.by_id.is_none() {
            let next = self.next.next();
            // Equal JSON strings are equal texts. Different ones may be, too, if one of them has escapes.
            if next.is_some_and(|row| row.id == id) {
                return next;
            }
        }
        let by_id = self.by_id.get_or_insert_with(|| {
            let by_id = |row: BatchRowText<'a>| Some((decoded(row.id)?, row));
            self.rows.iter().filter_map(by_id).collect()
        });
        by_id.get(&*decoded(id)?).copied()
    }
}

/// The text of a JSON string.
fn decoded(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"')?.strip_suffix('"')? {
        plain if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

/// If a key occurs twice, the last value counts, as in JavaScript.
fn value_of<'a>(entry: &Entry<'a>, key: &str) -> Option<&'a str> {
    entry.iter().rfind(|(name, _)| name == key).map(|(_, value)| *value)
}

fn id_of(text: &str) -> Option<String> {
    let mut entry = Entry::with_capacity(12);
    read_entry(text, &mut entry);
    value_of(&entry, "id").and_then(decoded).map(Cow::into_owned)
}

/// Reads the keys and values of a JSON object. The entry is empty if the text is something else.
fn read_entry<'a>(text: &'a str, entry: &mut Entry<'a>) {
    entry.clear();
    if read_plain_entry(text, entry).is_some() {
        return;
    }
    entry.clear();
    if let Ok(fields) = Fields::read(&"a batch", text) {
        entry.extend(fields.entries.into_iter().map(|(key, value)| (key, value.get())));
    }
}

/// Several times as fast as the general way, for what all known programs write: keys without escapes, and values that are neither objects nor arrays
/// with items. `None` if there is anything else. The text is known to be JSON.
fn read_plain_entry<'a>(text: &'a str, entry: &mut Entry<'a>) -> Option<()> {
    let mut rest = text.strip_prefix('{')?.trim_ascii_start();
    while rest != "}" {
        let (key, after) = rest.strip_prefix('"')?.split_once('"')?;
        if key.contains('\\') {
            return None;
        }
        let value = after.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let end = match value.as_bytes() {
            [b'[', b']', ..] => 2,
            [b'[' | b'{', ..] => return None,
            _ => end_of_value(value)?,
        };
        let (value, after) = value.split_at(end);
        entry.push((Cow::Borrowed(key), value));
        let after = after.trim_ascii_start();
        rest = after.strip_prefix(',').map_or(after, str::trim_ascii_start);
    }
    Some(())
}

/// What a batch shows of its records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Records {
    /// An empty array.
    Empty,
    /// Not even the key.
    LeftOut,
}

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate<'a> {
    /// It keeps its value.
    Kept,
    Removed,
    Set(&'a str),
}

/// The keys that a row may add, in the order in which they are added.
const ADDED: [&str; 6] = ["records", "workerId", "claimedAt", "status", "processedCount", "failedCount"];

fn fate<'a>(key: &str, entry: &Entry<'_>, row: Option<&BatchRowText<'a>>, records: Records) -> Fate<'a> {
    let has_null = || entry.iter().any(|(name, value)| name == key && *value == "null");
    let set = |value: Option<&'a str>| value.map_or(Fate::Removed, Fate::Set);
    match (key, row) {
        ("records", _) if records == Records::LeftOut => Fate::Removed,
        // No known program stores records there. If one did, `getBatchRecords` has the current ones.
        ("records", _) => Fate::Set("[]"),
        ("status", Some(row)) => Fate::Set(row.status),
        ("processedCount", Some(row)) => Fate::Set(row.processed),
        ("failedCount", Some(row)) => Fate::Set(row.failed),
        ("workerId", Some(row)) => set(row.worker_id),
        ("claimedAt", Some(row)) => set(row.claimed_at),
        ("workerId" | "claimedAt" | "recordStartIndex" | "recordEndIndex", _) if has_null() => Fate::Removed,
        _ => Fate::Kept,
    }
}

fn push_entry(out: &mut String, entry: &Entry<'_>, row: Option<&BatchRowText<'_>>, records: Records) {
    let has = |entry: &[(Cow<'_, str>, &str)], key: &str| entry.iter().any(|(name, _)| name == key);
    let start = out.len();
    let mut push = |key: &str, value: &str| {
        out.push(if out.len() == start { '{' } else { ',' });
        push_string(out, key);
        out.push(':');
        out.push_str(value);
    };
    for (at, (key, value)) in entry.iter().enumerate() {
        match fate(key, entry, row, records) {
            Fate::Kept => push(key, value),
            // Another program may have written a key twice.
            Fate::Set(value) if !has(&entry[..at], key) => push(key, value),
            Fate::Set(_) | Fate::Removed => {}
        }
    }
    for key in ADDED {
        if let Fate::Set(value) = fate(key, entry, row, records)
            && !has(entry, key)
        {
            push(key, value);
        }
    }
    // Every entry has an id.
    out.push('}');
}
