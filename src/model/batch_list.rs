//! The column `batches` of a job's row: a JSON copy of the batches that follows the states in the batches' own rows.
//!
//! Programs that use `@batchactions/state-sequelize` on the same tables read the copy, so it keeps the form that they write: the order of the keys,
//! and keys that are unknown here.

use std::borrow::Cow;
use std::collections::HashMap;

use super::batch::{BatchRow, ListedBatch};
use super::ids::BatchIndex;
use super::json_string::push_string;
use super::status::BatchStatus;
use crate::error::{Code, Error, Quoted, Result};
use crate::fields::{Entries, Fields, each_object};

/// The batches as the column lists them.
pub struct BatchList<'a> {
    batches: Vec<Entry<'a>>,
    ids: Vec<String>,
}

/// One batch of the list: its keys and their values as JSON text.
struct Entry<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Entry<'a> {
    /// Takes the object's keys and values out of `entries`, and returns them with the batch's id.
    fn take(job_id: &str, entries: &mut Entries<'a>) -> Result<(String, Self)> {
        let id = entries
            .iter()
            .rfind(|(key, _)| key == "id")
            .and_then(|(_, value)| serde_json::from_str(value.get()).ok())
            .ok_or_else(|| unreadable(job_id))?;
        let keys = entries.drain(..).map(|(key, value)| (key, Cow::Borrowed(value.get()))).collect();
        Ok((id, Self(keys)))
    }

    /// Sets a key to a JSON value, or removes it. Returns whether that changed anything.
    fn set(&mut self, key: &'static str, value: Option<Cow<'a, str>>) -> bool {
        let Self(batch) = self;
        let Some(at) = batch.iter().position(|(name, _)| name == key) else {
            let is_new = value.is_some();
            batch.extend(value.map(|value| (Cow::Borrowed(key), value)));
            return is_new;
        };
        let length = batch.len();
        // Another program may have written a key twice. Readers use the last one, so only one is kept.
        let mut seen = 0;
        batch.retain(|(name, _)| {
            seen += 1;
            seen <= at + 1 || name != key
        });
        match value {
            Some(value) if batch[at].1 == value => batch.len() < length,
            Some(value) => {
                batch[at].1 = value;
                true
            }
            None => {
                batch.remove(at);
                true
            }
        }
    }

    fn set_state(&mut self, status: &str, processed: i32, failed: i32) -> bool {
        let status = self.set("status", Some(serde_json::Value::from(status).to_string().into()));
        let processed = self.set("processedCount", Some(processed.to_string().into()));
        let failed = self.set("failedCount", Some(failed.to_string().into()));
        status | processed | failed
    }

    /// Copies the status and counts from the batch's row. Returns whether that changed anything. Claims are removed, because only the rows hold them.
    fn follow(&mut self, row: &BatchRow) -> bool {
        let worker = self.set("workerId", None);
        let claimed = self.set("claimedAt", None);
        self.set_state(&row.status, row.processed, row.failed) | worker | claimed
    }

    fn write(&self, out: &mut String) {
        out.push('{');
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_string(out, key);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
    }
}

/// The rows by the ids of their batches.
fn by_id(rows: &[BatchRow]) -> HashMap<&str, &BatchRow> {
    rows.iter().map(|row| (row.id.as_str(), row)).collect()
}

/// The list with the state of each batch that has a row; `None` where that changes nothing. It holds one batch at a time, because a list may have
/// 100,000.
pub fn following(job_id: &str, json: &str, rows: &[BatchRow]) -> Result<Option<String>> {
    let rows = by_id(rows);
    let mut changed = false;
    let mut out = String::with_capacity(json.len() + json.len() / 8 + 2);
    let read = each_object(json, |entries| {
        let (id, mut batch) = Entry::take(job_id, entries)?;
        changed |= rows.get(id.as_str()).is_some_and(|row| batch.follow(row));
        out.push(if out.is_empty() { '[' } else { ',' });
        batch.write(&mut out);
        Ok(())
    });
    read.unwrap_or_else(|| Err(unreadable(job_id)))?;
    out.push_str(if out.is_empty() { "[]" } else { "]" });
    Ok(changed.then_some(out))
}

impl<'a> BatchList<'a> {
    pub fn read(job_id: &str, json: &'a str) -> Result<Self> {
        let mut ids = Vec::new();
        let mut batches = Vec::new();
        let read = each_object(json, |entries| {
            let (id, batch) = Entry::take(job_id, entries)?;
            ids.push(id);
            batches.push(batch);
            Ok(())
        });
        read.unwrap_or_else(|| Err(unreadable(job_id)))?;
        Ok(Self { batches, ids })
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn position(&self, batch_id: &str) -> Option<usize> {
        self.ids.iter().position(|id| id == batch_id)
    }

    /// How many batches are COMPLETED.
    pub fn completed(&self) -> usize {
        let completed = format!("\"{}\"", BatchStatus::Completed.as_str());
        self.batches
            .iter()
            .filter(|Entry(batch)| {
                batch
                    .iter()
                    .rfind(|(key, _)| key == "status")
                    .is_some_and(|(_, value)| *value == completed)
            })
            .count()
    }

    /// Sets one batch's status and counts. Returns whether that changed anything.
    pub fn set_state(&mut self, position: usize, status: &str, processed: i32, failed: i32) -> bool {
        self.batches[position].set_state(status, processed, failed)
    }

    /// Copies the state of every batch from its row. Returns whether that changed anything.
    pub fn follow(&mut self, rows: &[BatchRow]) -> bool {
        if rows.is_empty() {
            return false;
        }
        let rows = by_id(rows);
        let mut changed = false;
        for (id, batch) in self.ids.iter().zip(&mut self.batches) {
            changed |= rows.get(id.as_str()).is_some_and(|row| batch.follow(row));
        }
        changed
    }

    /// The batches as typed values, for a job of another program whose batches have no rows yet.
    pub fn listed(&self, job_id: &str) -> Result<Vec<ListedBatch>> {
        Fields::read_list(
            &format_args!("batches of job {}", Quoted(job_id)),
            &self.to_json(),
            ListedBatch::from_fields,
        )
        .map_err(|error| Error {
            code: Code::TablesIncompatible,
            ..error
        })
    }

    /// The text for the column.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.batches.len() * 160 + 2);
        out.push('[');
        for (position, batch) in self.batches.iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            batch.write(&mut out);
        }
        out.push(']');
        out
    }
}

/// A change of a batch's state updates the JSON copy if the batch's index is a multiple of this step: in a job of up to 100 batches every change, in
/// a larger one about 100 changes, so that the cost of a call does not grow with the job.
pub fn mirror_step(batches: i64) -> i64 {
    (batches.max(1) + 99) / 100
}

/// Whether a state change of the batch with this index updates the JSON copy.
pub fn mirrors(index: BatchIndex, batches: i64) -> bool {
    i64::from(index.0) % mirror_step(batches) == 0
}

pub(super) fn unreadable(job_id: &str) -> Error {
    Error::new(
        Code::TablesIncompatible,
        format!(
            "the column batches of job {} does not hold a list of batches: another program wrote it",
            Quoted(job_id)
        ),
    )
}

/// The text to search for in a list to find out whether it may contain the id: the id itself, or, if the id has characters that may be escaped in
/// JSON, the empty text, which every list contains.
pub fn in_json(id: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if id.bytes().all(plain) { id } else { "" }
}
