//! Reads the JSON objects that callers pass. A missing or invalid field is refused with its name and its value.

use std::borrow::Cow;
use std::fmt;
use std::mem;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// The fields of one JSON object. The values stay JSON text and are not copied.
pub struct Fields<'w, 'a> {
    /// The object's name in messages.
    pub what: &'w dyn fmt::Display,
    pub entries: Entries<'a>,
}

pub type Entries<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Reads objects one after another into the same allocation of entries.
struct Object<'e, 'de>(&'e mut Entries<'de>);

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        #[derive(serde::Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        self.0.clear();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            self.0.push((key, value));
        }
        Ok(())
    }
}

/// Calls the function with each object of an array, and stops at the first one that it refuses.
struct Objects<F>(F);

impl<'de, F: FnMut(&mut Entries<'de>) -> Result<()>> Visitor<'de> for Objects<F> {
    type Value = Result<()>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let mut entries = Entries::with_capacity(16);
        let mut outcome = Ok(());
        while outcome.is_ok() && items.next_element_seed(Object(&mut entries))?.is_some() {
            outcome = (self.0)(&mut entries);
        }
        // serde requires that the whole array is read.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(outcome)
    }
}

/// Reads an array of objects in one pass, one object at a time. `None` if the text is anything else.
pub fn each_object<'a>(json: &'a str, each: impl FnMut(&mut Entries<'a>) -> Result<()>) -> Option<Result<()>> {
    let mut text = serde_json::Deserializer::from_str(json);
    let outcome = text.deserialize_seq(Objects(each)).ok()?;
    text.end().ok()?;
    Some(outcome)
}

/// A JSON value for a message: shortened if it is long, and only its kind if it may contain a password.
pub fn shown(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'{') => return "an object".to_owned(),
        Some(b'[') => return "an array".to_owned(),
        _ if json.contains("://") => return "a URL".to_owned(),
        _ => {}
    }
    match json.char_indices().nth(80) {
        None => json.to_owned(),
        Some((end, _)) => format!("{}… ({} characters)", &json[..end], json.chars().count()),
    }
}

impl<'w, 'a> Fields<'w, 'a> {
    pub fn read(what: &'w dyn fmt::Display, json: &'a str) -> Result<Self> {
        let mut entries = Entries::with_capacity(8);
        let mut text = serde_json::Deserializer::from_str(json);
        match Object(&mut entries).deserialize(&mut text).and_then(|()| text.end()) {
            Ok(()) => Ok(Self { what, entries }),
            Err(_) => Err(Error::invalid(format!("{what} must be an object, not {}", shown(json)))),
        }
    }

    /// Reads the fields from one object's entries and hands their allocation back for the next object.
    fn read_entries<T>(what: &dyn fmt::Display, entries: &mut Entries<'_>, read: impl Fn(&Fields<'_, '_>) -> Result<T>) -> Result<T> {
        let fields = Fields {
            what,
            entries: mem::take(entries),
        };
        let item = read(&fields)?;
        *entries = fields.entries;
        Ok(item)
    }

    /// Reads an array of objects, in one pass if every item is an object.
    pub fn read_list<T>(what: &dyn fmt::Display, json: &str, read: impl Fn(&Fields<'_, '_>) -> Result<T>) -> Result<Vec<T>> {
        let mut list = Vec::new();
        let outcome = each_object(json, |entries| {
            let item = Fields::read_entries(&format_args!("{what}[{}]", list.len()), entries, &read)?;
            list.push(item);
            Ok(())
        });
        if let Some(outcome) = outcome {
            return outcome.map(|()| list);
        }
        // Some item is not an object. Reading them one by one finds it for the message.
        let items: Vec<&RawValue> =
            serde_json::from_str(json).map_err(|_| Error::invalid(format!("{what} must be an array, not {}", shown(json))))?;
        items
            .iter()
            .enumerate()
            .map(|(place, item)| read(&Fields::read(&format_args!("{what}[{place}]"), item.get())?))
            .collect()
    }

    /// The value of a key, `null` included. If a key occurs twice, the last value counts, as in JavaScript.
    fn present(&self, key: &str) -> Option<&'a str> {
        self.entries
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.get())
    }

    /// The value of a key; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.present(key).filter(|value| *value != "null")
    }

    /// Refuses every key except these.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.entries.iter().find(|(key, _)| !known.contains(&key.as_ref())) {
            None => Ok(()),
            Some((key, _)) => Err(Error::invalid(format!(
                "{}.{} is unknown; known are {}",
                self.what,
                shown(key),
                known.join(", ")
            ))),
        }
    }

    /// The value, or the error that the key is missing.
    pub fn must<T>(&self, key: &str, value: Option<T>, expected: &str) -> Result<T> {
        value.ok_or_else(|| Error::invalid(format!("{}.{key} is missing: it must be {expected}", self.what)))
    }

    /// The error that a key's value has the wrong type or is out of range.
    pub fn wrong(&self, key: &str, value: &str, expected: impl fmt::Display) -> Error {
        Error::invalid(format!("{}.{key} must be {expected}, not {}", self.what, shown(value)))
    }

    pub fn optional_string(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = serde_json::from_str(value).or_else(|error| match value.contains("\\ud") {
            // UTF-8 can't encode a lone surrogate, so no text column could hold it.
            true => serde_json::from_str(&replace_surrogates(value)),
            false => Err(error),
        });
        text.map(Some).map_err(|_| self.wrong(key, value, "a string"))
    }

    pub fn optional_int(&self, key: &str) -> Result<Option<i32>> {
        const EXPECTED: &str = "a whole number from -2147483648 to 2147483647";
        // `NaN` and the infinities arrive as null, so null is an invalid number, not an absent one.
        let Some(value) = self.present(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| self.wrong(key, value, EXPECTED))
    }

    pub fn int(&self, key: &str) -> Result<i32> {
        self.must(key, self.optional_int(key)?, "a whole number")
    }

    pub fn optional_time(&self, key: &str) -> Result<Option<i64>> {
        const SAFE: i64 = (1 << 53) - 1;
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.parse() {
            Ok(time) if (-SAFE..=SAFE).contains(&time) => Ok(Some(time)),
            _ => Err(self.wrong(key, value, "a time in whole epoch milliseconds")),
        }
    }

    pub fn status<T>(&self, key: &str, from_text: fn(&str) -> Option<T>, names: fn() -> String) -> Result<T> {
        let expected = || format!("one of {}", names());
        let value = self.get(key);
        let value = value.ok_or_else(|| Error::invalid(format!("{}.{key} is missing: it must be {}", self.what, expected())))?;
        let text: Option<Cow<'_, str>> = serde_json::from_str(value).ok();
        text.and_then(|text| from_text(&text))
            .ok_or_else(|| self.wrong(key, value, expected()))
    }

    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(value) => Err(self.wrong(key, value, "a boolean")),
        }
    }

    /// An array of at least one status, each once. `None` if the key is absent.
    pub fn statuses<T: PartialEq>(
        &self,
        key: &str,
        from_text: impl Fn(&str) -> Option<T>,
        names: fn() -> String,
    ) -> Result<Option<Vec<T>>> {
        let Some(list) = self.get(key) else { return Ok(None) };
        let expected = || format!("an array of at least one of {}", names());
        let items: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| self.wrong(key, list, expected()))?;
        if items.is_empty() {
            return Err(Error::invalid(format!(
                "{}.{key} must be {}, not an empty array",
                self.what,
                expected()
            )));
        }
        let mut statuses = Vec::with_capacity(items.len());
        for item in items {
            let text: Option<Cow<'_, str>> = serde_json::from_str(item.get()).ok();
            let status = text
                .and_then(|text| from_text(&text))
                .ok_or_else(|| self.wrong(key, item.get(), expected()))?;
            if !statuses.contains(&status) {
                statuses.push(status);
            }
        }
        Ok(Some(statuses))
    }

    /// One status, or an array of at least one. `None` if the key is absent.
    pub fn status_or_statuses<T: PartialEq>(
        &self,
        key: &str,
        from_text: fn(&str) -> Option<T>,
        names: fn() -> String,
    ) -> Result<Option<Vec<T>>> {
        match self.get(key) {
            Some(one) if !one.starts_with('[') => Ok(Some(vec![self.status(key, from_text, names)?])),
            _ => self.statuses(key, from_text, names),
        }
    }

    /// How many items a page has.
    pub fn page_limit(&self, key: &str) -> Result<i32> {
        const MOST: i32 = 1_000;
        let limit = self.optional_int(key)?.unwrap_or(100);
        match limit {
            1..=MOST => Ok(limit),
            _ => Err(self.wrong(key, &limit.to_string(), format!("from 1 to {MOST}"))),
        }
    }

    /// Any JSON value, `null` included, as text.
    pub fn json(&self, key: &str) -> Result<String> {
        self.must(key, self.present(key).map(str::to_owned), "a value that JSON can hold")
    }

    pub fn array(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            Some(value) if !value.starts_with('[') => Err(self.wrong(key, value, "an array")),
            value => Ok(value),
        }
    }
}

/// Replaces lone surrogates by U+FFFD. `JSON.stringify` escapes only lone surrogates, so every surrogate escape is replaced.
pub fn replace_surrogates(json: &str) -> String {
    replace_escapes(json, is_surrogate)
}

/// Replaces lone surrogates and U+0000 by U+FFFD.
pub fn replace_surrogates_and_nul(json: &str) -> String {
    replace_escapes(json, |escape| is_surrogate(escape) || escape == b"\\u0000")
}

fn is_surrogate(escape: &[u8]) -> bool {
    matches!(escape, [b'\\', b'u', b'd', b'8'..=b'9' | b'a'..=b'f', _, _])
}

fn replace_escapes(json: &str, is_refused: impl Fn(&[u8]) -> bool) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let length = if escape.as_bytes().get(1) == Some(&b'u') { 6 } else { 2 }.min(escape.len());
        let (escape, after) = escape.split_at(length);
        out.push_str(if is_refused(escape.as_bytes()) { "\u{fffd}" } else { escape });
        rest = after;
    }
    out.push_str(rest);
    out
}
