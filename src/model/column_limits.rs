//! Fits values to a database's columns: a value is replaced or cut if that loses little, and refused if it would lose data.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::record::Record;
use crate::error::{Error, Result};
use crate::fields::replace_surrogates;

/// The limits of one database's columns for values that JavaScript can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnLimits {
    /// The maximum nesting depth of JSON.
    pub json_depth: Option<usize>,
    /// Whether JSON may contain lone surrogates (`"\ud800"`).
    pub lone_surrogates: bool,
    /// The size limit of `processingError` in bytes of `encoding`.
    pub text_bytes: Option<usize>,
    /// The character encoding of `processingError`.
    pub encoding: Encoding,
    /// Whether text may contain U+0000.
    pub nul_in_text: bool,
}

impl ColumnLimits {
    pub const NONE: Self = Self {
        json_depth: None,
        lone_surrogates: true,
        text_bytes: None,
        encoding: Encoding::Utf8,
        nul_in_text: true,
    };

    /// Changes the record so that this database can store it, or returns the reason why it can't be stored.
    pub fn fit_record(&self, record: &mut Record) -> Result<()> {
        for json in [&mut record.raw, &mut record.parsed, &mut record.errors] {
            self.fit_json(&format_args!("record {}", record.index), json)?;
        }
        if let Some(error) = &mut record.processing_error {
            if !self.nul_in_text && error.contains('\0') {
                *error = error.replace('\0', "\u{fffd}");
            }
            self.encoding.fit(error, self.text_bytes.unwrap_or(usize::MAX));
        }
        Ok(())
    }

    /// Changes one JSON text so that this database can store it, or returns the reason why it can't be stored.
    pub fn fit_json(&self, what: &dyn fmt::Display, json: &mut String) -> Result<()> {
        if let Some(deepest) = self.json_depth {
            let depth = json_depth(json);
            if depth > deepest {
                return Err(Error::invalid(format!(
                    "{what} nests {depth} levels deep, and this database holds JSON of at most {deepest} levels: flatten it"
                )));
            }
        }
        if !self.lone_surrogates && json.contains("\\ud") {
            *json = replace_surrogates(json);
        }
        Ok(())
    }
}

/// How a text column encodes characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    /// UTF-8 of at most three bytes, which holds characters up to U+FFFF.
    Utf8Bmp,
    Utf16,
    /// UTF-16 without surrogates.
    Ucs2,
    Utf32,
    /// One of many single- and multi-byte encodings: ASCII and these characters.
    Other(Arc<Repertoire>),
}

/// The characters beyond ASCII that an encoding can represent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repertoire {
    pub characters: HashSet<char>,
    /// The longest encoded character, in bytes.
    pub widest: usize,
}

impl Encoding {
    /// The character's length in bytes; `None` if the encoding can't represent it.
    fn width(&self, character: char) -> Option<usize> {
        match self {
            Encoding::Utf8 => Some(character.len_utf8()),
            Encoding::Utf8Bmp => Some(character.len_utf8()).filter(|bytes| *bytes < 4),
            Encoding::Utf16 => Some(2 * character.len_utf16()),
            Encoding::Ucs2 => Some(2).filter(|_| character.len_utf16() == 1),
            Encoding::Utf32 => Some(4),
            Encoding::Other(_) if character.is_ascii() => Some(1),
            Encoding::Other(repertoire) => repertoire.characters.contains(&character).then_some(repertoire.widest),
        }
    }

    /// The shortest encoded character, in bytes.
    pub fn narrowest(&self) -> usize {
        self.width(' ').unwrap_or(1)
    }

    /// Fits the text to a column of `longest` bytes: unsupported characters are replaced, and text that is too long is cut.
    pub(super) fn fit(&self, text: &mut String, longest: usize) {
        if *self == Encoding::Utf8 && text.len() <= longest {
            return;
        }
        self.replace_unrepresentable(text);
        if self.bytes(text) > longest {
            self.cut(text, longest);
        }
    }

    fn bytes(&self, text: &str) -> usize {
        text.chars().map(|character| self.width(character).unwrap_or(1)).sum()
    }

    fn replace_unrepresentable(&self, text: &mut String) {
        let is_representable = |character: char| self.width(character).is_some();
        if text.chars().all(is_representable) {
            return;
        }
        let replacement = if is_representable('\u{fffd}') { '\u{fffd}' } else { '?' };
        *text = text
            .chars()
            .map(|character| if is_representable(character) { character } else { replacement })
            .collect();
    }

    /// Cuts the text at its end, and marks the cut.
    fn cut(&self, text: &mut String, longest: usize) {
        let mark = if self.width('…').is_some() { "… [cut]" } else { "... [cut]" };
        let mut room = longest.saturating_sub(self.bytes(mark));
        let end = text.char_indices().find(|(_, character)| {
            let width = self.width(*character).unwrap_or(1);
            let fits = width <= room;
            room = room.saturating_sub(width);
            !fits
        });
        text.truncate(end.map_or(text.len(), |(at, _)| at));
        text.push_str(mark);
    }
}

/// How many levels of arrays and objects a JSON text nests.
fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0usize, 0usize, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
