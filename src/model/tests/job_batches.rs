//! The batches of a job as `getJobState` returns them.

use serde_json::{Value, json};

use super::row;
use crate::model::{BatchPage, BatchRow, BatchRows, BatchRowsText, JobBatches};

fn rows(rows: &[BatchRow], earlier: Option<&BatchRows>) -> BatchRows {
    let mut text = BatchRowsText::default();
    rows.iter().for_each(|row| text.push(row.into()));
    BatchRows::read(&text.into_text(), earlier).unwrap()
}

fn batches(list: &str, of: &[BatchRow]) -> JobBatches {
    JobBatches::read("j", list, rows(of, None), None).unwrap()
}

/// A row that a worker holds.
fn held(id: &str, index: i32) -> BatchRow {
    BatchRow {
        worker_id: Some("w\"\u{1}é".to_owned()),
        claimed_at: Some(7),
        processed: 3,
        ..row(id, index, "PROCESSING")
    }
}

#[test]
fn a_row_decides_the_state_and_adds_the_claim() {
    for (entry, with_row, without) in [
        (
            r#"{"id":"a","index":0,"status":"PENDING","records":[],"processedCount":0,"failedCount":0,"recordStartIndex":0}"#,
            r#"{"id":"a","index":0,"status":"PROCESSING","records":[],"processedCount":3,"failedCount":0,"recordStartIndex":0,"workerId":"w\"\u0001é","claimedAt":7}"#,
            r#"{"id":"a","index":0,"status":"PENDING","records":[],"processedCount":0,"failedCount":0,"recordStartIndex":0}"#,
        ),
        (
            // As MySQL writes it, and with what the adapter leaves in it.
            r#"{"id": "a", "index": 0, "status": "X", "records": [ ], "workerId": null, "claimedAt": 1, "failedCount": 0 , "recordEndIndex": null}"#,
            r#"{"id":"a","index":0,"status":"PROCESSING","records":[],"workerId":"w\"\u0001é","claimedAt":7,"failedCount":0,"processedCount":3}"#,
            r#"{"id":"a","index":0,"status":"X","records":[],"claimedAt":1,"failedCount":0}"#,
        ),
        (
            r#"{"id":"a"}"#,
            r#"{"id":"a","records":[],"workerId":"w\"\u0001é","claimedAt":7,"status":"PROCESSING","processedCount":3,"failedCount":0}"#,
            r#"{"id":"a","records":[]}"#,
        ),
        (
            // Keys that are written twice, or with escapes; values that are objects; records that are stored.
            r#"{"id":"b","id":"\u0061","x\"":{"y":[1]},"status":"A","status":"B","records":[{"index":0}],"workerId":"v","workerId":null}"#,
            r#"{"id":"b","id":"\u0061","x\"":{"y":[1]},"status":"PROCESSING","records":[],"workerId":"w\"\u0001é","claimedAt":7,"processedCount":3,"failedCount":0}"#,
            r#"{"id":"b","id":"\u0061","x\"":{"y":[1]},"status":"A","status":"B","records":[]}"#,
        ),
    ] {
        let list = format!(" [ {entry} ] ");
        assert_eq!(batches(&list, &[held("a", 0)]).to_json(), format!("[{with_row}]"));
        assert_eq!(batches(&list, &[held("other", 0)]).to_json(), format!("[{without}]"));
        assert_eq!(batches(&list, &[]).to_json(), format!("[{without}]"));
    }
    assert_eq!(batches("[]", &[]).to_json(), "[]");
}

#[test]
fn rows_are_found_in_any_order_of_the_list() {
    let ids: Vec<String> = (0..300).map(|batch| format!("batch {batch} \"é\\")).collect();
    let all: Vec<BatchRow> = ids
        .iter()
        .zip(0..)
        .map(|(id, index)| BatchRow {
            processed: index,
            ..row(id, index, "COMPLETED")
        })
        .collect();
    let mut orders: Vec<Vec<usize>> = vec![
        (0..300).collect(),
        (0..300).rev().collect(),
        (0..300).filter(|batch| batch % 7 > 0).collect(),
    ];
    orders.push([5, 5, 5, 0].to_vec());
    for order in orders {
        let list: Vec<Value> = order.iter().map(|batch| json!({ "id": ids[*batch], "index": batch })).collect();
        let shown: Vec<Value> = serde_json::from_str(&batches(&Value::from(list).to_string(), &all[10..]).to_json()).unwrap();
        let counts: Vec<Option<u64>> = shown.iter().map(|batch| batch["processedCount"].as_u64()).collect();
        let expected: Vec<Option<u64>> = order.iter().map(|batch| (*batch >= 10).then_some(*batch as u64)).collect();
        assert_eq!(counts, expected);
    }
}

#[test]
fn what_is_no_list_of_batches_is_refused() {
    for list in [
        "",
        "{}",
        "null",
        "[{}]",
        "[1]",
        "[[]]",
        r#"[{"id":1}]"#,
        r#"[{"id":"\ud800"}]"#,
        r#"[{"id":"a"},{"index":1}]"#,
        r#"[{"id":"a"}"#,
    ] {
        assert!(JobBatches::read("j", list, rows(&[], None), None).is_err(), "{list}");
    }
    for text in [
        "[[1]]",
        r#"[["0","a","b",0,0,null,null]]"#,
        r#"[[0,"a","b",0.5,0,null,null]]"#,
        r#"[[0,"a","b",0,0,"1",null]]"#,
        r#"[[0,"a","b",0,0,1,2]]"#,
    ] {
        assert!(BatchRows::read(text, None).is_none(), "{text}");
    }
}

#[test]
fn copies_share_what_is_equal_and_each_keeps_its_own_state() {
    let list = |changed: usize| {
        let entry = |batch: usize| json!({ "id": format!("b{batch}"), "index": batch, "status": if batch < changed { "COMPLETED" } else { "PENDING" } });
        Value::Array((0..1_000).map(entry).collect()).to_string()
    };
    let mut all: Vec<BatchRow> = (0..1_000).map(|index| row(&format!("b{index}"), index, "PENDING")).collect();
    let first = JobBatches::read("j", &list(0), rows(&all, None), None).unwrap();
    let before = first.to_json();
    (all[500], all[999]) = (held("b500", 500), held("b999", 999));
    let second = JobBatches::read("j", &list(1), rows(&all, Some(&first.rows)), Some(&first)).unwrap();
    assert_eq!(second.shared_with(&first), (15, 14));

    let changed = first
        .rows
        .with_changed(&[all[999].clone(), all[3].clone(), all[500].clone()])
        .unwrap();
    assert_eq!(changed.shared_with(&first.rows), 14);
    assert_eq!(first.with_rows(changed).to_json(), batches(&list(0), &all).to_json());
    assert_eq!(first.to_json(), before);
    assert!(first.rows.with_changed(&[row("new", 1_000, "PENDING")]).is_none());
    assert!(first.rows.with_changed(&[row("new", -1, "PENDING")]).is_none());
    assert!(rows(&[], None).with_changed(&[row("new", 0, "PENDING")]).is_none());
}

#[test]
fn a_page_is_by_index_and_shows_each_batch_without_its_records() {
    // The second one has the state of its row, the third one no index of its own, the fourth one a status of another program's.
    let list = r#"[{"id":"a","index":7,"status":"PENDING","records":[],"x":1},{"id":"b","index":3,"status":"PENDING","recordEndIndex":null},
        {"id":"c","status":"FAILED","records":[{"index":0}]},{"id":"d","index":5,"status":"SKIPPED"}]"#;
    let batches = batches(list, &[held("b", 3)]);
    let page = |options: &str| batches.page(&BatchPage::from_json(options).unwrap());
    let (a, c, d) = (
        r#"{"id":"a","index":7,"status":"PENDING","x":1}"#,
        r#"{"id":"c","status":"FAILED"}"#,
        r#"{"id":"d","index":5,"status":"SKIPPED"}"#,
    );
    let b = r#"{"id":"b","index":3,"status":"PROCESSING","workerId":"w\"\u0001é","claimedAt":7,"processedCount":3,"failedCount":0}"#;
    for (options, expected) in [
        ("{}", &[c, b, d, a] as &[&str]),
        (r#"{"limit":1}"#, &[c]),
        (r#"{"after":3,"limit":1}"#, &[d]),
        (r#"{"after":7}"#, &[]),
        (r#"{"status":"PENDING"}"#, &[a]),
        (r#"{"status":["FAILED","PROCESSING"]}"#, &[c, b]),
        (r#"{"status":["FAILED","PROCESSING"],"after":2}"#, &[b]),
    ] {
        assert_eq!(page(options), expected, "{options}");
    }
}
