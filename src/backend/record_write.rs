//! A record on its way into the database.

use crate::model::{Record, Token};

/// One record in a group of saves.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    pub job_id: String,
    pub batch_id: String,
    pub record: Record,
    /// The token that the batch's version must equal.
    pub token: Option<Token>,
    /// `Backend::file` when the record was queued; the record is not written to any other file. `None`: any file.
    pub file: Option<u64>,
}

/// The approximate size of a record in a statement, in bytes.
pub fn size_of(write: &RecordWrite) -> usize {
    let record = &write.record;
    record.raw.len() + record.parsed.len() + record.errors.len() + record.processing_error.as_ref().map_or(0, String::len) + 200
}
