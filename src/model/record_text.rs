//! A record as the database stores it, and its JSON text.

use super::json_string::push_string;

/// A row of the records table, its JSON columns as text.
pub struct RecordText<'a> {
    pub index: i32,
    pub raw: &'a str,
    pub parsed: &'a str,
    pub status: &'a str,
    pub errors: &'a str,
    pub processing_error: Option<&'a str>,
}

impl RecordText<'_> {
    /// Appends the record as JavaScript sees it, `ProcessedRecord` of `index.d.ts`.
    pub(super) fn push_json(self, into: &mut String) {
        into.push_str("{\"index\":");
        into.push_str(&self.index.to_string());
        for (key, value) in [(",\"raw\":", self.raw), (",\"parsed\":", self.parsed)] {
            into.push_str(key);
            into.push_str(value);
        }
        into.push_str(",\"status\":");
        push_string(into, self.status);
        into.push_str(",\"errors\":");
        into.push_str(self.errors);
        if let Some(error) = self.processing_error {
            into.push_str(",\"processingError\":");
            push_string(into, error);
        }
        into.push('}');
    }
}
