//! What a fuzzer may give to the code that reads what users and other programs wrote, and what has to hold then. The targets in `fuzz/` call these
//! functions with inputs of their own, and a test calls them with the inputs in `fuzz/seeds/`. It is in no build but these two.

#![allow(
    clippy::panic,
    reason = "a property that does not hold is told by a panic, to the fuzzer and to the test"
)]

use std::collections::{BTreeSet, HashSet};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::backend::{self, RecordWrite, by_bytes, chunks, size_of};
use crate::error::{Error, Result};
use crate::model::{
    BatchList, BatchRow, BatchState, BatchStatus, ColumnLimits, Encoding, ID_LENGTH, Job, JobFilter, Record, RecordPage, RecordSlices,
    RecordText, token_from_json,
};
use crate::settings::{Database, Password, Settings};

/// What stands for a password in the inputs: long enough not to stand in a message by chance.
const PASSWORD: &str = "hunter2hunter2";

/// No message shows more of a value than its beginning.
const LONGEST_MESSAGE: usize = 4_000;

/// PostgreSQL, MySQL, MariaDB, SQLite.
const LIMITS: [ColumnLimits; 4] = [
    ColumnLimits {
        nul_in_text: false,
        ..ColumnLimits::NONE
    },
    ColumnLimits {
        json_depth: Some(100),
        lone_surrogates: false,
        text_bytes: Some(65_535),
        encoding: Encoding::Utf8,
        nul_in_text: true,
    },
    ColumnLimits {
        json_depth: Some(31),
        lone_surrogates: false,
        // Less than the server's, so that small inputs reach it.
        text_bytes: Some(40),
        encoding: Encoding::Utf8,
        nul_in_text: true,
    },
    ColumnLimits::NONE,
];

fn check_message(error: &Error) {
    assert!(
        error.message.len() <= LONGEST_MESSAGE,
        "a message of {} bytes: {}",
        error.message.len(),
        error.message
    );
}

/// The value where there is one; a refusal is one too, if its message is as it should be.
fn checked<T>(outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(check_message).ok()
}

/// What `JSON.parse` would make of it; `None` where it holds what serde_json refuses and JavaScript does not (lone surrogates, numbers beyond a double,
/// deep nesting).
fn value(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// The text that crosses the boundary

/// One JSON text, as each of the arguments of the methods and as each of the columns that hold JSON.
pub fn boundary(input: &str) {
    record(input);
    records(input);
    job(input);
    list(input);
    checked(BatchState::from_json("b", input));
    checked(token_from_json(input));
    if let Some(filter) = checked(JobFilter::from_json(input)) {
        assert!((1..=1_000).contains(&filter.limit));
    }
    for after in [None, Some(7)] {
        if let Some(page) = checked(RecordPage::from_json(input, after, 20)) {
            let places: HashSet<&str> = page.status_places().into_iter().collect();
            let asked: HashSet<&str> = page.statuses.iter().map(|status| status.as_str()).collect();
            assert!(page.statuses.len() > 5 || places == asked);
        }
    }
}

fn record(input: &str) {
    let Some(record) = checked(Record::from_json(&"record", input)) else {
        return;
    };
    if let Some(given) = value(input) {
        check_record(&record, &given);
    }
    for limits in LIMITS {
        let mut fitted = record.clone();
        if checked(limits.fit_record(&mut fitted)).is_some() {
            check_fitted(&limits, &record, &fitted);
        }
    }
}

/// What was read is what serde_json reads there.
fn check_record(record: &Record, given: &Value) {
    assert_eq!(given["index"].as_f64(), Some(record.index.into()));
    assert_eq!(given["status"], record.status.as_str());
    assert_eq!(value(&record.raw).as_ref(), Some(&given["raw"]));
    assert_eq!(value(&record.parsed).as_ref(), Some(&given["parsed"]));
    let errors = Some(&given["errors"]).filter(|errors| !errors.is_null());
    assert_eq!(value(&record.errors).as_ref(), errors.or(Some(&Value::Array(Vec::new()))));
    assert_eq!(record.processing_error.as_deref(), given["processingError"].as_str());
}

fn check_fitted(limits: &ColumnLimits, record: &Record, fitted: &Record) {
    for (before, after) in [
        (&record.raw, &fitted.raw),
        (&record.parsed, &fitted.parsed),
        (&record.errors, &fitted.errors),
    ] {
        if limits.lone_surrogates || !before.contains("\\ud") {
            assert_eq!(before, after);
        }
        if let (Some(deepest), Some(value)) = (limits.json_depth, value(after)) {
            assert!(depth(&value) <= deepest);
        }
        assert!(
            serde_json::from_str::<&serde_json::value::RawValue>(after).is_ok(),
            "no JSON any more: {after}"
        );
    }
    if let Some(error) = &fitted.processing_error {
        assert!(limits.nul_in_text || !error.contains('\0'));
        assert!(limits.text_bytes.is_none_or(|most| error.len() <= most));
    }
}

fn records(input: &str) {
    let Some(records) = checked(Record::list_from_json("records", input)) else {
        return;
    };
    assert!(
        records.is_sorted_by(|a, b| a.index < b.index),
        "an index stands twice, or out of order"
    );
    let given = value(input);
    if let Some(given) = given.as_ref().and_then(Value::as_array) {
        let indexes: BTreeSet<i64> = given
            .iter()
            .filter_map(|record| record["index"].as_f64())
            .map(|index| index as i64)
            .collect();
        assert_eq!(records.len(), indexes.len());
        for record in &records {
            let last = given.iter().rfind(|given| given["index"].as_f64() == Some(record.index.into()));
            check_record(record, last.unwrap_or(&Value::Null));
        }
    }
    check_slices(&records, given.is_some());
    check_parts(records);
}

/// As they come back from a database.
fn check_slices(records: &[Record], readable: bool) {
    let slices = || {
        let mut slices = RecordSlices::default();
        for record in records {
            slices.push(RecordText {
                index: record.index,
                raw: &record.raw,
                parsed: &record.parsed,
                status: record.status.as_str(),
                errors: &record.errors,
                processing_error: record.processing_error.as_deref(),
            });
        }
        slices
    };
    if !readable {
        return;
    }
    let read = |text: &str| match value(text) {
        Some(Value::Array(items)) => items,
        _ => panic!("not an array: {text}"),
    };
    let whole = read(&slices().into_text());
    let parts: Vec<Value> = slices().into_texts().iter().flat_map(|text| read(text)).collect();
    assert_eq!(whole, parts);
    assert_eq!(whole.len(), records.len());
    for (record, given) in records.iter().zip(&whole) {
        check_record(record, given);
    }
}

/// As they go into a database, in statements of some bytes and rows.
fn check_parts(records: Vec<Record>) {
    let write = |record| RecordWrite {
        job_id: "j".to_owned(),
        batch_id: "b".to_owned(),
        record,
        token: None,
        file: None,
    };
    let writes: Vec<RecordWrite> = records.into_iter().map(write).collect();
    let writes: Vec<&RecordWrite> = writes.iter().collect();
    for most in [0, 500, 1 << 20] {
        let mut indexes = Vec::with_capacity(writes.len());
        for part in by_bytes(&writes, most) {
            let bytes: usize = part.iter().map(|write| size_of(write)).sum();
            assert!(part.len() == 1 || bytes <= most);
            for chunk in chunks(part) {
                indexes.extend(chunk.iter().map(|write| write.record.index));
            }
        }
        assert_eq!(indexes, writes.iter().map(|write| write.record.index).collect::<Vec<_>>());
    }
}

fn job(input: &str) {
    let Some(mut job) = checked(Job::from_json(input)) else { return };
    assert!(job.id.chars().count() <= ID_LENGTH && !job.id.contains('\0'));
    if let Some(given) = value(input) {
        assert_eq!(given["id"], job.id);
        assert_eq!(given["status"], job.status.as_str());
        assert_eq!(value(&job.config).as_ref(), Some(&given["config"]));
        assert_eq!(value(&job.batches).as_ref(), Some(&given["batches"]));
        assert_eq!(given["batches"].as_array().map(Vec::len), Some(job.listed.len()));
        assert_eq!(given["totalRecords"].as_f64().unwrap_or(0.0), f64::from(job.total_records));
    }
    for limits in LIMITS {
        checked(limits.fit_json(&"job.config", &mut job.config.clone()));
        checked(limits.fit_json(&"job.batches", &mut job.batches.clone()));
    }
    let all: HashSet<String> = job.listed.iter().map(|batch| batch.id.clone()).collect();
    if checked(job.fail_completed(&all)).is_some() {
        let completed = BatchStatus::Completed.as_str();
        assert!(
            job.listed
                .iter()
                .all(|batch| batch.status != completed && batch.initial_status() != completed)
        );
        list(&job.batches);
    }
}

/// The column `batches` of a job, which another program may have written.
fn list(input: &str) {
    let Some(mut list) = checked(BatchList::read("j", input)) else {
        return;
    };
    let given = value(input);
    if let Some(given) = &given {
        assert_eq!(given.as_array().map(Vec::len), Some(list.len()));
        assert_eq!(value(&list.to_json()).as_ref(), Some(given));
    }
    let listed = checked(list.listed("j"));
    let rows: Vec<BatchRow> = listed
        .unwrap_or_default()
        .into_iter()
        .map(|batch| BatchRow {
            id: batch.id,
            index: batch.index,
            status: BatchStatus::Completed.as_str().to_owned(),
            worker_id: Some("\"w\"".to_owned()),
            claimed_at: Some(-1),
            processed: batch.processed.wrapping_add(1),
            failed: batch.failed,
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    list.follow(&rows);
    assert!(!list.follow(&rows), "the same rows change the list twice");
    assert_eq!(list.completed(), list.len());
    list.follow_with_claims(&rows);
    let written = list.to_json();
    if given.is_some() {
        let Some(Value::Array(batches)) = value(&written) else {
            panic!("not a list any more: {written}");
        };
        assert_eq!(batches.len(), list.len());
        assert!(batches.iter().all(|batch| batch["workerId"] == "\"w\"" && batch["claimedAt"] == -1));
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Where the database is

/// Two lines: a URL, or the URL's parts as an object; and options, which may be left out.
pub fn connection(input: &str) {
    let (connection, options) = input.split_once('\n').unwrap_or((input, "{}"));
    let is_url = !connection.starts_with('{');
    let source = match value(connection) {
        Some(parts) if !is_url => serde_json::json!({ "parts": parts }),
        _ => serde_json::json!({ "url": connection }),
    };
    let secret = if is_url {
        hides_in_url(connection)
    } else {
        hides_in_json(connection)
    } && !options.contains(PASSWORD);
    let settings = check_settings(Settings::from_json(&source.to_string(), options), secret);
    if let Some(settings) = settings
        && is_url
    {
        check_again(&settings);
    }
}

/// Whether the password stands nowhere but where a URL may have one.
fn hides_in_url(url: &str) -> bool {
    let is_file = url.split(':').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("sqlite"));
    let Some((scheme, rest)) = url.split_once("://").filter(|_| !is_file) else {
        return false;
    };
    match (rest.find(':'), rest.rfind('@')) {
        (Some(begin), Some(end)) if begin < end => {
            rest[begin..end].contains(PASSWORD) && ![scheme, &rest[..begin], &rest[end..]].iter().any(|part| part.contains(PASSWORD))
        }
        _ => false,
    }
}

/// Where secrets stand in a URL's parts and in what is read of a Sequelize instance.
const SECRETS: [&str; 5] = [
    "/password",
    "/config/password",
    "/options/dialectOptions/ssl/key",
    "/options/replication/write/password",
    "/options/replication/write/dialectOptions/ssl/key",
];

/// Whether the password stands nowhere but where secrets stand.
fn hides_in_json(json: &str) -> bool {
    let Some(mut value) = value(json) else { return false };
    for place in SECRETS {
        if let Some(secret) = value.pointer_mut(place) {
            *secret = Value::Null;
        }
    }
    if let Some(url) = value.pointer_mut("/options/replication/write")
        && url.as_str().is_some_and(hides_in_url)
    {
        *url = Value::Null;
    }
    !value.to_string().contains(PASSWORD)
}

fn check_settings(settings: Result<Settings>, secret: bool) -> Option<Settings> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            check_message(&error);
            assert!(
                !secret || !error.message.contains(PASSWORD),
                "it shows the password: {}",
                error.message
            );
            assert!(error.cause.is_none());
            return None;
        }
    };
    assert!(
        !secret || !settings.place().contains(PASSWORD),
        "it shows the password: {}",
        settings.place()
    );
    assert!((1..=1_000).contains(&settings.pool_max) && settings.pool_min <= settings.pool_max);
    assert!(settings.schema.is_none() || settings.database == Database::Postgres);
    assert!(settings.database == Database::Sqlite || settings.port > 0);
    let texts = [
        Some(&settings.host),
        settings.socket.as_ref(),
        settings.name.as_ref(),
        settings.user.as_ref(),
        settings.file.as_ref(),
        settings.schema.as_ref(),
    ];
    assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')));
    // The drivers read some of it once more, without connecting.
    backend::open(settings.clone());
    Some(settings)
}

/// A URL made of what was read says the same.
fn check_again(settings: &Settings) {
    let simple = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if settings.database == Database::Sqlite || settings.socket.is_some() || !simple(&settings.host) {
        return;
    }
    let scheme = match settings.database {
        Database::Postgres => "postgres",
        _ => "mysql",
    };
    let encoded = |text: Option<&str>| utf8_percent_encode(text.unwrap_or_default(), NON_ALPHANUMERIC).to_string();
    let url = format!(
        "{scheme}://{}:{}@{}:{}/{}",
        encoded(settings.user.as_deref()),
        encoded(settings.password.as_ref().and_then(Password::fixed)),
        settings.host,
        settings.port,
        encoded(settings.name.as_deref()),
    );
    let Ok(again) = Settings::from_json(&serde_json::json!({ "url": url }).to_string(), "{}") else {
        panic!("{url} is refused");
    };
    let parts = |settings: &Settings| {
        let given = |text: Option<&str>| text.unwrap_or_default().to_owned();
        (
            given(settings.user.as_deref()),
            given(settings.password.as_ref().and_then(Password::fixed)),
            settings.host.clone(),
            settings.port,
            given(settings.name.as_deref()),
        )
    };
    assert_eq!(parts(&again), parts(settings), "{url}");
}

/// What `index.js` reads of a Sequelize instance.
pub fn sequelize(input: &str) {
    let Some(settings) = value(input) else { return };
    // It makes objects of these, whatever they are.
    let shaped = settings["config"].is_object() && settings["options"].is_object();
    let source = serde_json::json!({ "sequelize": settings }).to_string();
    check_settings(Settings::from_json(&source, "{}"), shaped && hides_in_json(input));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, check: fn(&str)) {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read_to_string(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 8, "{folder} has {inputs} inputs");
    }

    #[test]
    fn what_holds_for_text_that_crosses_the_boundary() {
        replay("boundary", boundary);
    }

    #[test]
    fn what_holds_for_connections() {
        replay("connection", connection);
    }

    #[test]
    fn what_holds_for_settings_of_sequelize() {
        replay("sequelize", sequelize);
    }

    #[test]
    fn a_password_is_known_where_it_may_stand() {
        assert!(hides_in_url("postgres://u:hunter2hunter2@h/db"));
        assert!(!hides_in_url("postgres://u@h/hunter2hunter2"));
        assert!(!hides_in_url("sqlite://u:hunter2hunter2@h"));
        assert!(hides_in_json(r#"{"config":{"password":"hunter2hunter2"}}"#));
        assert!(!hides_in_json(r#"{"config":{"host":"hunter2hunter2"}}"#));
    }
}
