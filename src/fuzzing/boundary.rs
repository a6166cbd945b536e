//! The text that crosses the boundary: arguments of the methods, and columns that hold JSON.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::inputs::{checked, value};
use crate::backend::{RecordWrite, by_bytes, chunks, size_of};
use crate::model::{
    BatchList, BatchRow, BatchRows, BatchRowsText, BatchState, BatchStatus, ColumnLimits, Encoding, ID_LENGTH, Job, JobBatches, JobFilter,
    Record, RecordPage, RecordSlices, RecordText, following, token_from_json,
};

/// The limits of PostgreSQL, MySQL, MariaDB and SQLite.
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
        // Less than the server's limit, so that small inputs reach it.
        text_bytes: Some(40),
        encoding: Encoding::Utf8,
        nul_in_text: true,
    },
    ColumnLimits::NONE,
];

/// How many levels the value nests.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Reads one text as each JSON argument of the methods, and as each column that holds JSON.
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

/// Compares what was read with what serde_json reads.
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

/// The records as a database returns them.
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

/// The records as they are split into statements of limited bytes and rows.
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

/// The text as the column `batches` of a job, which another program may have written.
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
    let followed = checked(following("j", input, &rows)).flatten();
    assert_eq!(list.follow(&rows).then(|| list.to_json()), followed, "both ways give the same list");
    assert!(!list.follow(&rows), "the same rows change the list twice");
    assert_eq!(list.completed(), list.len());
    let mut text = BatchRowsText::default();
    rows.iter().for_each(|row| text.push(row.into()));
    let read = BatchRows::read(&text.into_text(), None).and_then(|rows| checked(JobBatches::read("j", input, rows, None)));
    let written = read.map(|batches| batches.to_json()).unwrap_or_default();
    if given.is_some() {
        let Some(Value::Array(batches)) = value(&written) else {
            panic!("not a list any more: {written}");
        };
        assert_eq!(batches.len(), list.len());
        assert!(batches.iter().all(|batch| batch["workerId"] == "\"w\"" && batch["claimedAt"] == -1));
    }
}
