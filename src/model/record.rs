//! A record as a user saves it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use super::status::RecordStatus;
use crate::error::Result;
use crate::fields::Fields;

/// One record, with its JSON values in their original text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub index: i32,
    pub status: RecordStatus,
    pub raw: String,
    pub parsed: String,
    pub errors: String,
    pub processing_error: Option<String>,
}

impl Record {
    pub fn from_json(what: &dyn fmt::Display, json: &str) -> Result<Self> {
        Self::from_fields(&Fields::read(what, json)?)
    }

    fn from_fields(fields: &Fields<'_, '_>) -> Result<Self> {
        Ok(Self {
            index: fields.int("index")?,
            status: fields.status("status", RecordStatus::from_text, RecordStatus::names)?,
            raw: fields.json("raw")?,
            parsed: fields.json("parsed")?,
            errors: fields.array("errors")?.unwrap_or("[]").to_owned(),
            processing_error: fields.optional_string("processingError")?,
        })
    }

    /// The records of one bulk save, sorted by index. Of two records with the same index the later one counts, as if they were saved one by one,
    /// because a single statement can't write a row twice.
    pub fn list_from_json(what: &str, json: &str) -> Result<Vec<Self>> {
        let mut records = Fields::read_list(&what, json, Self::from_fields)?;
        keep_last_by(&mut records, |record| record.index);
        // Every bulk save locks its rows in this order, so that two of them can't deadlock.
        records.sort_by_key(|record| record.index);
        Ok(records)
    }
}

/// Keeps the last item of each key, and the order of the items that remain.
fn keep_last_by<T, K: Hash + Eq>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut last = HashMap::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        last.insert(key(item), position);
    }
    if last.len() < items.len() {
        let mut position = 0;
        items.retain(|item| {
            let keep = last[&key(item)] == position;
            position += 1;
            keep
        });
    }
}
