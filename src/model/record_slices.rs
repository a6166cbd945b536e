//! Records on their way to JavaScript, in slices small enough that parsing one does not block the event loop.

use super::record_text::RecordText;

/// A slice ends with the record that takes it beyond this many bytes. JavaScript parses that amount in a fraction of the 50 ms for which the event
/// loop may be blocked.
pub(super) const SLICE_BYTES: usize = 2 << 20;

/// Records in order, as JSON arrays that JavaScript parses one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordSlices {
    /// The arrays, without their closing brackets.
    texts: Vec<String>,
}

impl RecordSlices {
    pub fn push(&mut self, record: RecordText<'_>) {
        self.append(|text| record.push_json(text));
    }

    /// Makes room for the next record, in the last slice or in a new one; `push` appends the record there.
    fn append(&mut self, push: impl FnOnce(&mut String)) {
        match self.texts.last_mut() {
            Some(text) if text.len() < SLICE_BYTES => {
                text.push(',');
                push(text);
            }
            _ => {
                let mut text = String::from('[');
                push(&mut text);
                self.texts.push(text);
            }
        }
    }

    /// The arrays, in order. There is always at least one; it is empty if there are no records.
    pub fn into_texts(mut self) -> Vec<String> {
        for text in &mut self.texts {
            text.push(']');
        }
        if self.texts.is_empty() {
            self.texts.push("[]".to_owned());
        }
        self.texts
    }

    /// The first slice, which is the content of a page of `records`. The next page begins behind it.
    pub fn into_page(mut self) -> String {
        self.texts.truncate(1);
        self.into_text()
    }

    /// All records in one array.
    pub fn into_text(self) -> String {
        let mut texts = self.texts.into_iter();
        let mut all = texts.next().unwrap_or_else(|| "[".to_owned());
        for text in texts {
            all.push(',');
            all.push_str(&text[1..]);
        }
        all.push(']');
        all
    }
}

/// Collects records that a database returns in any order, and sorts them by index.
#[derive(Default)]
pub struct UnorderedRecords {
    text: String,
    /// The index of each record, and the position of its JSON in `text`.
    places: Vec<(i32, std::ops::Range<usize>)>,
}

impl UnorderedRecords {
    pub fn push(&mut self, record: RecordText<'_>) {
        let (index, start) = (record.index, self.text.len());
        record.push_json(&mut self.text);
        self.places.push((index, start..self.text.len()));
    }

    pub fn into_slices(mut self) -> RecordSlices {
        self.places.sort_unstable_by_key(|(index, _)| *index);
        let mut slices = RecordSlices::default();
        for (_, place) in self.places {
            slices.append(|text| text.push_str(&self.text[place]));
        }
        slices
    }
}
