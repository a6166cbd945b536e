//! Jobs, batches and records: what crosses the boundary, checked, and the arithmetic on it. Nothing here knows a database.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Code, Error, Quoted, Result};
use crate::fields::{Fields, each_object, replace_surrogates};

mod ids;

pub use ids::{BatchIndex, BatchKey, MaxClaims, Token, WorkerId};

/// Characters in a job's and a batch's id.
pub const ID_LENGTH: usize = 36;
/// Characters in a worker's id.
pub const WORKER_ID_LENGTH: usize = 128;

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            pub fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|status| status.as_str() == text)
            }

            fn names() -> String {
                Self::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ")
            }
        }
    };
}

status! {
    /// The state of a job.
    JobStatus {
        Created = "CREATED", Previewing = "PREVIEWING", Previewed = "PREVIEWED", Processing = "PROCESSING",
        Paused = "PAUSED", Completed = "COMPLETED", Aborted = "ABORTED", Failed = "FAILED",
    }
}

status! {
    /// The state of a batch.
    BatchStatus {
        Pending = "PENDING", Processing = "PROCESSING", Paused = "PAUSED", Completed = "COMPLETED", Failed = "FAILED",
    }
}

status! {
    /// The state of a record.
    RecordStatus {
        Pending = "pending", Valid = "valid", Invalid = "invalid", Processed = "processed", Failed = "failed",
    }
}

impl BatchStatus {
    pub fn is_final(self) -> bool {
        matches!(self, BatchStatus::Completed | BatchStatus::Failed)
    }
}

impl JobStatus {
    pub fn is_final(self) -> bool {
        matches!(self, JobStatus::Completed | JobStatus::Aborted | JobStatus::Failed)
    }
}

/// A status as the database has it. Another adapter may have written one that we do not know; it is passed on as it is.
pub fn batch_is_open(status: &str) -> bool {
    [BatchStatus::Pending, BatchStatus::Processing, BatchStatus::Paused]
        .iter()
        .any(|open| open.as_str() == status)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Reading what the user gave

/// Checks an id before a database sees it, so that all of them refuse the same ones.
pub fn check_id(what: &dyn fmt::Display, id: &str, longest: usize) -> Result<()> {
    if id.len() > longest && id.chars().count() > longest {
        return Err(Error::new(
            Code::ValueTooLong,
            format!(
                "{what} must have at most {longest} characters, and {} has {}",
                Quoted(id),
                id.chars().count()
            ),
        ));
    }
    if id.contains('\0') {
        return Err(Error::invalid(format!("{what} must not hold the character U+0000: {}", Quoted(id))));
    }
    Ok(())
}

/// One record, its JSON columns as text.
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

    /// The records of one bulk save. Where an index comes twice the later record counts, as if they had been saved one by one; a single
    /// statement can't write one row twice.
    pub fn list_from_json(what: &str, json: &str) -> Result<Vec<Self>> {
        let mut records = Fields::read_list(&what, json, Self::from_fields)?;
        keep_last_by(&mut records, |record| record.index);
        // In one order everywhere, so that two bulk saves of the same records can't wait for each other.
        records.sort_by_key(|record| record.index);
        Ok(records)
    }

    fn push_json(into: &mut String, record: RecordText<'_>) {
        into.push_str("{\"index\":");
        into.push_str(&record.index.to_string());
        for (key, value) in [(",\"raw\":", record.raw), (",\"parsed\":", record.parsed)] {
            into.push_str(key);
            into.push_str(value);
        }
        into.push_str(",\"status\":");
        push_string(into, record.status);
        into.push_str(",\"errors\":");
        into.push_str(record.errors);
        if let Some(error) = record.processing_error {
            into.push_str(",\"processingError\":");
            push_string(into, error);
        }
        into.push('}');
    }
}

/// A record as a row of the database gives it.
pub struct RecordText<'a> {
    pub index: i32,
    pub raw: &'a str,
    pub parsed: &'a str,
    pub status: &'a str,
    pub errors: &'a str,
    pub processing_error: Option<&'a str>,
}

/// Bytes in one slice of a result, about: read by JavaScript in a fraction of the 50 ms for which an event loop may be held.
const SLICE_BYTES: usize = 2 << 20;

/// Records on their way to JavaScript, as JSON arrays that are read one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordSlices {
    /// Without their closing brackets.
    texts: Vec<String>,
}

impl RecordSlices {
    pub fn push(&mut self, record: RecordText<'_>) {
        self.append(|text| Record::push_json(text, record));
    }

    /// Has the next record appended.
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

    /// The arrays, in order; there is at least one.
    pub fn into_texts(mut self) -> Vec<String> {
        for text in &mut self.texts {
            text.push(']');
        }
        if self.texts.is_empty() {
            self.texts.push("[]".to_owned());
        }
        self.texts
    }

    /// The first ones in one array: what a page of `records` holds. What is left out is on the next page.
    pub fn into_page(mut self) -> String {
        self.texts.truncate(1);
        self.into_text()
    }

    /// All in one array.
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

/// Records that come in any order.
#[derive(Default)]
pub struct UnorderedRecords {
    text: String,
    /// By index, where its JSON stands.
    places: Vec<(i32, std::ops::Range<usize>)>,
}

impl UnorderedRecords {
    pub fn push(&mut self, record: RecordText<'_>) {
        let (index, start) = (record.index, self.text.len());
        Record::push_json(&mut self.text, record);
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

/// Keeps the last item of each key, in the order of the keys' last appearance.
pub fn keep_last_by<T, K: std::hash::Hash + Eq>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut last = HashMap::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        last.insert(key(item), place);
    }
    if last.len() < items.len() {
        let mut place = 0;
        items.retain(|item| {
            let keep = last[&key(item)] == place;
            place += 1;
            keep
        });
    }
}

fn push_string(into: &mut String, text: &str) {
    if !text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        into.push('"');
        into.push_str(text);
        into.push('"');
        return;
    }
    // Writing a string as JSON can't fail: there is no I/O in it and no key to refuse.
    into.push_str(&serde_json::Value::from(text).to_string());
}

/// A batch as `saveJobState` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBatch {
    pub id: String,
    pub index: i32,
    pub status: String,
    pub processed: i32,
    pub failed: i32,
    pub worker_id: Option<String>,
    pub claimed_at: Option<i64>,
    pub start: i32,
    pub end: i32,
}

impl ListedBatch {
    fn from_fields(fields: &Fields<'_, '_>) -> Result<Self> {
        Ok(Self {
            id: fields.id("id")?,
            index: fields.int("index")?,
            status: fields
                .status("status", BatchStatus::from_text, BatchStatus::names)?
                .as_str()
                .to_owned(),
            processed: fields.int("processedCount")?,
            failed: fields.int("failedCount")?,
            worker_id: fields.optional_string("workerId")?,
            claimed_at: fields.optional_time("claimedAt")?,
            start: fields.optional_int("recordStartIndex")?.unwrap_or(0),
            end: fields.optional_int("recordEndIndex")?.unwrap_or(0),
        })
    }

    /// The status that its row begins with. PROCESSING without a worker is a claim that nobody holds: nobody could ever take it.
    pub fn initial_status(&self) -> &str {
        if self.status == BatchStatus::Processing.as_str() && self.worker_id.is_none() {
            BatchStatus::Pending.as_str()
        } else {
            &self.status
        }
    }
}

/// What `saveJobState` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: String,
    pub config: String,
    pub status: JobStatus,
    /// The text for the `batches` column: an array, in the user's order.
    pub batches: String,
    /// The same batches, and who held them.
    pub listed: Vec<ListedBatch>,
    pub total_records: i32,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
}

impl Job {
    /// The bytes that `batches` may grow to as its batches change their states.
    pub fn longest_list(&self) -> usize {
        let status = BatchStatus::ALL
            .iter()
            .map(|status| status.as_str().len())
            .max()
            .unwrap_or_default();
        let count = i32::MIN.to_string().len();
        let room = |batch: &ListedBatch| {
            let now = batch.status.len() + batch.processed.to_string().len() + batch.failed.to_string().len();
            (status + 2 * count).saturating_sub(now)
        };
        self.batches.len() + self.listed.iter().map(room).sum::<usize>()
    }

    /// Lists these batches as FAILED where they are listed as COMPLETED.
    pub fn fail_completed(&mut self, batch_ids: &HashSet<String>) -> Result<()> {
        let mut batches = BatchList::read(&self.id, &self.batches)?;
        let mut changed = false;
        for (place, listed) in self.listed.iter_mut().enumerate() {
            if batch_ids.contains(&listed.id) && listed.status == BatchStatus::Completed.as_str() {
                listed.status = BatchStatus::Failed.as_str().to_owned();
                changed |= batches.set_state(place, &listed.status, listed.processed, listed.failed);
            }
        }
        if changed {
            self.batches = batches.to_json();
        }
        Ok(())
    }

    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"job", json)?;
        let batches = fields.must("batches", fields.array("batches")?, "an array")?;
        let config = fields.must("config", fields.get("config"), "an object")?;
        if !config.starts_with('{') {
            return Err(fields.wrong("config", config, "an object"));
        }
        let distributed = match fields.get("distributed") {
            None | Some("false") => false,
            Some("true") => true,
            Some(value) => return Err(fields.wrong("distributed", value, "a boolean")),
        };
        let mut listed = Fields::read_list(&"job.batches", batches, ListedBatch::from_fields)?;
        if let Some(holders) = fields.array("holders")? {
            read_holders(&mut listed, holders)?;
        }
        Ok(Self {
            id: fields.id("id")?,
            config: config.to_owned(),
            status: fields.status("status", JobStatus::from_text, JobStatus::names)?,
            listed,
            batches: batches.to_owned(),
            total_records: fields.optional_int("totalRecords")?.unwrap_or(0),
            started_at: fields.optional_time("startedAt")?,
            completed_at: fields.optional_time("completedAt")?,
            distributed,
        })
    }
}

/// Who held each batch in the user's snapshot. It stands beside the list, for the list is stored and the claims are not: they belong to the rows.
fn read_holders(listed: &mut [ListedBatch], json: &str) -> Result<()> {
    let holders: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| Error::invalid("job.batches must be an array"))?;
    for (place, (batch, holder)) in listed.iter_mut().zip(holders).enumerate() {
        let what = format_args!("job.batches[{place}]").to_string();
        let holder = Fields::read(&what, holder.get())?;
        batch.worker_id = holder.optional_string("workerId")?;
        if let Some(worker_id) = &batch.worker_id {
            check_id(&format_args!("{what}.workerId"), worker_id, WORKER_ID_LENGTH)?;
        }
        batch.claimed_at = holder.optional_time("claimedAt")?;
    }
    Ok(())
}

/// What `updateBatchState` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchState {
    pub status: BatchStatus,
    pub processed: i32,
    pub failed: i32,
}

impl BatchState {
    pub fn from_json(batch_id: &str, json: &str) -> Result<Self> {
        let fields = Fields::read(&"state", json)?;
        let named = fields.id("batchId")?;
        if named != batch_id {
            return Err(Error::invalid(format!(
                "state.batchId is {}, but the call is for batch {}",
                Quoted(&named),
                Quoted(batch_id)
            )));
        }
        Ok(Self {
            status: fields.status("status", BatchStatus::from_text, BatchStatus::names)?,
            processed: fields.int("processedCount")?,
            failed: fields.int("failedCount")?,
        })
    }
}

/// `{ token }`, the optional last argument of a fenced call.
pub fn token_from_json(json: &str) -> Result<Option<Token>> {
    let fields = Fields::read(&"fence", json)?;
    fields.only(&["token"])?;
    Ok(fields.optional_int("token")?.map(Token))
}

/// What `listJobs` looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    pub limit: i32,
    /// Only jobs behind this key: `startedAt`, newest first and missing ones last, then `id`.
    pub after: Option<(Option<i64>, String)>,
}

impl JobFilter {
    const MOST: i32 = 1_000;

    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["status", "limit", "after"])?;
        let limit = fields.optional_int("limit")?.unwrap_or(100);
        if !(1..=Self::MOST).contains(&limit) {
            return Err(fields.wrong("limit", &limit.to_string(), format!("from 1 to {}", Self::MOST)));
        }
        let after = match fields.get("after") {
            None => None,
            Some(value) => {
                let key = Fields::read(&"options.after", value)?;
                Some((key.optional_time("startedAt")?, key.id("id")?))
            }
        };
        let status = fields
            .get("status")
            .map(|_| fields.status("status", JobStatus::from_text, JobStatus::names))
            .transpose()?;
        Ok(Self { status, limit, after })
    }
}

/// Bytes in one page of `records`, about, unless it is one record. No server sends more of it: how large the records are that come next shows only there.
pub const PAGE_BYTES: i64 = SLICE_BYTES as i64;

/// One page of `records`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    pub statuses: Vec<RecordStatus>,
    pub batch_id: Option<String>,
    /// Only records with a higher index.
    pub after: Option<i32>,
    /// How many records are looked at, of which the page has as many as `PAGE_BYTES` allows.
    pub limit: i32,
}

impl RecordPage {
    pub fn from_json(json: &str, after: Option<i32>, limit: i32) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["status", "batchId", "from"])?;
        let from = fields.optional_int("from")?;
        let batch_id = fields.get("batchId").map(|_| fields.id("batchId")).transpose()?;
        let statuses = match fields.get("status") {
            None => RecordStatus::ALL.to_vec(),
            Some(list) if list.starts_with('[') => {
                let items: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| fields.wrong("status", list, "an array"))?;
                let mut statuses = Vec::with_capacity(items.len());
                for item in items {
                    let text: Option<Cow<'_, str>> = serde_json::from_str(item.get()).ok();
                    let status = text.and_then(|text| RecordStatus::from_text(&text));
                    statuses.push(status.ok_or_else(|| fields.wrong("status", item.get(), format!("one of {}", RecordStatus::names())))?);
                }
                if statuses.is_empty() {
                    return Err(fields.wrong("status", list, "a status, or an array of at least one"));
                }
                statuses
            }
            Some(_) => vec![fields.status("status", RecordStatus::from_text, RecordStatus::names)?],
        };
        let from = from.and_then(|from| from.checked_sub(1));
        Ok(Self {
            statuses,
            batch_id,
            after: after.or(from),
            limit,
        })
    }

    /// The statuses in as many places as there are statuses, so that one statement serves any choice.
    pub fn status_places(&self) -> [&'static str; 5] {
        std::array::from_fn(|place| self.statuses[place.min(self.statuses.len() - 1)].as_str())
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// What a database's columns can't hold

/// How one database's columns differ from what JavaScript can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnLimits {
    /// How deep JSON may nest.
    pub json_depth: Option<usize>,
    /// Whether JSON may hold lone surrogates (`"\ud800"`).
    pub lone_surrogates: bool,
    /// Bytes in `processingError`, as it is encoded there.
    pub text_bytes: Option<usize>,
    /// Which characters `processingError` may hold.
    pub encoding: Encoding,
    /// Whether text may hold U+0000.
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

    /// Makes the record one that this database can hold, or says why it is not.
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

    /// Makes one JSON text storable, or says why it is not.
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

/// How a column of text encodes characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    /// UTF-8 of at most three bytes, which holds characters up to U+FFFF.
    Utf8Bmp,
    Utf16,
    /// UTF-16 without surrogates.
    Ucs2,
    Utf32,
    /// ASCII and these characters.
    Other(Arc<Repertoire>),
}

/// The characters beyond ASCII that an encoding has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repertoire {
    pub characters: HashSet<char>,
    /// Bytes of the longest.
    pub widest: usize,
}

impl Encoding {
    /// The bytes of a character; `None` where it can't be held.
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

    /// The bytes of the shortest character.
    pub fn narrowest(&self) -> usize {
        self.width(' ').unwrap_or(1)
    }

    /// Makes a text one that a column of so many bytes holds.
    fn fit(&self, text: &mut String, longest: usize) {
        if *self == Encoding::Utf8 && text.len() <= longest {
            return;
        }
        if text.chars().any(|character| self.width(character).is_none()) {
            let other = ['\u{fffd}', '?']
                .into_iter()
                .find(|other| self.width(*other).is_some())
                .unwrap_or('?');
            *text = text
                .chars()
                .map(|character| if self.width(character).is_some() { character } else { other })
                .collect();
        }
        let bytes = |text: &str| text.chars().map(|character| self.width(character).unwrap_or(1)).sum::<usize>();
        if bytes(text) <= longest {
            return;
        }
        let mark = if self.width('…').is_some() { "… [cut]" } else { "... [cut]" };
        let mut room = longest.saturating_sub(bytes(mark));
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

// ---------------------------------------------------------------------------------------------------------------------------------
// Two copies of a batch's state

/// A row of the batches table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    pub id: String,
    pub index: i32,
    pub status: String,
    pub worker_id: Option<String>,
    pub claimed_at: Option<i64>,
    pub processed: i32,
    pub failed: i32,
}

/// The batches of a job as its `batches` column lists them, key order and unknown keys kept.
pub struct BatchList<'a> {
    batches: Vec<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
    ids: Vec<String>,
}

fn unreadable(job_id: &str) -> Error {
    Error::new(
        Code::TablesIncompatible,
        format!(
            "the column batches of job {} does not hold a list of batches: another program wrote it",
            Quoted(job_id)
        ),
    )
}

impl<'a> BatchList<'a> {
    pub fn read(job_id: &str, json: &'a str) -> Result<Self> {
        let mut ids = Vec::new();
        let mut batches = Vec::new();
        let read = each_object(json, |entry| {
            let id = entry
                .iter()
                .rfind(|(key, _)| key == "id")
                .and_then(|(_, value)| serde_json::from_str(value.get()).ok());
            ids.push(id.ok_or_else(|| unreadable(job_id))?);
            batches.push(entry.drain(..).map(|(key, value)| (key, Cow::Borrowed(value.get()))).collect());
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

    /// How many are COMPLETED.
    pub fn completed(&self) -> usize {
        let completed = format!("\"{}\"", BatchStatus::Completed.as_str());
        self.batches
            .iter()
            .filter(|batch| {
                batch
                    .iter()
                    .rfind(|(key, _)| key == "status")
                    .is_some_and(|(_, value)| *value == completed)
            })
            .count()
    }

    fn set(&mut self, place: usize, key: &'static str, value: Option<String>) -> bool {
        let batch = &mut self.batches[place];
        let Some(at) = batch.iter().position(|(name, _)| name == key) else {
            let is_new = value.is_some();
            batch.extend(value.map(|value| (Cow::Borrowed(key), Cow::Owned(value))));
            return is_new;
        };
        let length = batch.len();
        // Another program may have written a key twice, and then the last counts to whoever reads it.
        let mut seen = 0;
        batch.retain(|(name, _)| {
            seen += 1;
            seen <= at + 1 || name != key
        });
        match value {
            Some(value) if batch[at].1 == value => batch.len() < length,
            Some(value) => {
                batch[at].1 = Cow::Owned(value);
                true
            }
            None => {
                batch.remove(at);
                true
            }
        }
    }

    /// Sets one batch's status and counts; whether that changed anything.
    pub fn set_state(&mut self, place: usize, status: &str, processed: i32, failed: i32) -> bool {
        let status = self.set(place, "status", Some(serde_json::Value::from(status).to_string()));
        let processed = self.set(place, "processedCount", Some(processed.to_string()));
        let failed = self.set(place, "failedCount", Some(failed.to_string()));
        status | processed | failed
    }

    /// Takes the state of every batch that has a row from its row; whether that changed anything. The claim itself stays in the row.
    pub fn follow(&mut self, rows: &[BatchRow]) -> bool {
        self.follow_each(rows, |list, place, row| {
            let worker = list.set(place, "workerId", None);
            let claimed = list.set(place, "claimedAt", None);
            list.set_state(place, &row.status, row.processed, row.failed) | worker | claimed
        })
    }

    /// As `follow`, and with the claims: what `getJobState` shows.
    pub fn follow_with_claims(&mut self, rows: &[BatchRow]) {
        for place in 0..self.batches.len() {
            // Nobody stores records there; should somebody have, `getBatchRecords` has the true ones.
            self.set(place, "records", Some("[]".to_owned()));
            for key in ["workerId", "claimedAt", "recordStartIndex", "recordEndIndex"] {
                let absent = self.batches[place].iter().any(|(name, value)| name == key && value == "null");
                if absent {
                    self.set(place, key, None);
                }
            }
        }
        self.follow_each(rows, |list, place, row| {
            list.set(
                place,
                "workerId",
                row.worker_id.as_deref().map(|id| serde_json::Value::from(id).to_string()),
            );
            list.set(place, "claimedAt", row.claimed_at.map(|time| time.to_string()));
            list.set_state(place, &row.status, row.processed, row.failed)
        });
    }

    fn follow_each(&mut self, rows: &[BatchRow], mut take: impl FnMut(&mut Self, usize, &BatchRow) -> bool) -> bool {
        if rows.is_empty() {
            return false;
        }
        let by_id: HashMap<&str, &BatchRow> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
        let mut changed = false;
        for place in 0..self.ids.len() {
            if let Some(row) = by_id.get(self.ids[place].as_str()) {
                changed |= take(self, place, row);
            }
        }
        changed
    }

    /// The batches as typed values: what adoption makes rows of.
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

    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.batches.len() * 160 + 2);
        out.push('[');
        for (place, batch) in self.batches.iter().enumerate() {
            out.push_str(if place == 0 { "{" } else { ",{" });
            for (at, (key, value)) in batch.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_string(&mut out, key);
                out.push(':');
                out.push_str(value);
            }
            out.push('}');
        }
        out.push(']');
        out
    }
}

/// Every how many indexes a change of state brings the JSON copy up to date: a job of up to 100 batches always, a larger one for one batch in
/// a hundred, so that the cost of a call does not grow with the job.
pub fn mirror_step(batches: i64) -> i64 {
    (batches.max(1) + 99) / 100
}

pub fn mirrors(index: BatchIndex, batches: i64) -> bool {
    i64::from(index.0) % mirror_step(batches) == 0
}

/// Counts of a job's batch rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    pub total: i64,
    pub pending: i64,
    pub processing: i64,
    pub paused: i64,
    pub completed: i64,
    pub failed: i64,
}

impl BatchCounts {
    pub fn add(&mut self, status: &str, count: i64) {
        self.total += count;
        match BatchStatus::from_text(status) {
            Some(BatchStatus::Pending) => self.pending += count,
            Some(BatchStatus::Processing) => self.processing += count,
            Some(BatchStatus::Completed) => self.completed += count,
            Some(BatchStatus::Failed) => self.failed += count,
            Some(BatchStatus::Paused) => self.paused += count,
            None => {}
        }
    }

    pub fn is_complete(&self) -> bool {
        self.total > 0 && self.pending == 0 && self.processing == 0 && self.paused == 0
    }
}

/// The status that a job ends with, if its batches are all done.
pub fn final_status(rows: &[BatchRow]) -> Option<JobStatus> {
    if rows.is_empty() || rows.iter().any(|row| batch_is_open(&row.status)) {
        return None;
    }
    let failed = rows.iter().any(|row| row.status == BatchStatus::Failed.as_str());
    Some(if failed { JobStatus::Failed } else { JobStatus::Completed })
}

/// Counts of a job's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    pub processed: i64,
    /// `failed` and `invalid`.
    pub failed: i64,
}

impl RecordCounts {
    pub fn add(&mut self, status: &str, count: i64) {
        match RecordStatus::from_text(status) {
            Some(RecordStatus::Processed) => self.processed += count,
            Some(RecordStatus::Failed | RecordStatus::Invalid) => self.failed += count,
            Some(RecordStatus::Pending | RecordStatus::Valid) | None => {}
        }
    }
}

/// What progress is reckoned from, where the job exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTimes {
    pub total_records: i64,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
    /// The database's clock.
    pub now: i64,
}

/// How far a job is, as the user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub total_records: i64,
    pub processed_records: i64,
    pub failed_records: i64,
    pub pending_records: i64,
    pub percentage: i64,
    pub current_batch: i64,
    pub total_batches: i64,
    pub elapsed_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_remaining_ms: Option<i64>,
}

impl Progress {
    pub fn of(job: JobTimes, records: RecordCounts, completed_batches: i64, total_batches: i64) -> Self {
        let done = records.processed + records.failed;
        let pending = (job.total_records - done).max(0);
        let elapsed = job
            .started_at
            .map_or(0, |started| (job.completed_at.unwrap_or(job.now) - started).max(0));
        let percentage = if job.total_records > 0 {
            (done as f64 / job.total_records as f64 * 100.0).round() as i64
        } else {
            0
        };
        Self {
            total_records: job.total_records,
            processed_records: records.processed,
            failed_records: records.failed,
            pending_records: pending,
            percentage,
            current_batch: completed_batches,
            total_batches,
            elapsed_ms: elapsed,
            estimated_remaining_ms: (pending > 0 && done > 0).then(|| (elapsed as f64 / done as f64 * pending as f64).round() as i64),
        }
    }
}

/// The row of a job, its JSON columns as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    pub id: String,
    pub config: String,
    pub status: String,
    pub total_records: i64,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub distributed: bool,
}

impl JobRow {
    /// `JobState` as JSON, or without `batches` what `listJobs` gives.
    pub fn to_json(&self, batches: Option<&str>) -> String {
        let mut out = String::with_capacity(self.config.len() + batches.map_or(0, str::len) + 200);
        out.push_str("{\"id\":");
        push_string(&mut out, &self.id);
        out.push_str(",\"config\":");
        out.push_str(&self.config);
        out.push_str(",\"status\":");
        push_string(&mut out, &self.status);
        if let Some(batches) = batches {
            out.push_str(",\"batches\":");
            out.push_str(batches);
        }
        out.push_str(",\"totalRecords\":");
        out.push_str(&self.total_records.to_string());
        for (key, time) in [(",\"startedAt\":", self.started_at), (",\"completedAt\":", self.completed_at)] {
            if let Some(time) = time {
                out.push_str(key);
                out.push_str(&time.to_string());
            }
        }
        if self.distributed {
            out.push_str(",\"distributed\":true");
        }
        out.push('}');
        out
    }
}

/// A claim, as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    pub job_id: String,
    pub batch_id: String,
    pub batch_index: BatchIndex,
    pub worker_id: WorkerId,
    pub claimed_at: i64,
    pub record_start_index: i32,
    pub record_end_index: i32,
    pub token: Token,
    /// The highest index of the job's batches at that time.
    #[serde(skip)]
    pub last_batch_index: BatchIndex,
}

impl Reservation {
    pub fn key(&self) -> BatchKey {
        BatchKey::new(&*self.job_id, &*self.batch_id)
    }
}

/// Counts as `getDistributedStatus` gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DistributedStatus<'a> {
    pub job_id: &'a str,
    pub total_batches: i64,
    pub completed_batches: i64,
    pub failed_batches: i64,
    pub processing_batches: i64,
    pub pending_batches: i64,
    pub is_complete: bool,
}

impl<'a> DistributedStatus<'a> {
    /// `lists_none`: the job is distributed and has no batch at all, so nothing is left to do.
    pub fn of(job_id: &'a str, counts: BatchCounts, lists_none: bool) -> Self {
        Self {
            job_id,
            total_batches: counts.total,
            completed_batches: counts.completed,
            failed_batches: counts.failed,
            processing_batches: counts.processing,
            pending_batches: counts.pending,
            is_complete: counts.is_complete() || lists_none,
        }
    }
}

/// What of an id is found in a JSON text that holds it: the id itself, unless it has characters that may be escaped there, and then anything.
pub fn in_json(id: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if id.bytes().all(plain) { id } else { "" }
}

#[cfg(test)]
mod tests;
