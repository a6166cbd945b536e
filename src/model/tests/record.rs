//! Which parts of a record's JSON are preserved, and which records are refused.

use super::refused;
use crate::model::{Record, RecordStatus};

const RECORD: &str = r#"{"index":3,"raw":{"b":1,"a":[]},"parsed":null,"status":"valid","errors":[{"field":"x"}],"retryCount":2}"#;

#[test]
fn a_record_keeps_its_json_as_it_was_written() {
    let record = Record::from_json(&"record", RECORD).unwrap();
    assert_eq!((record.index, record.status), (3, RecordStatus::Valid));
    assert_eq!(
        (&*record.raw, &*record.parsed, &*record.errors),
        (r#"{"b":1,"a":[]}"#, "null", r#"[{"field":"x"}]"#)
    );
    assert_eq!(record.processing_error, None);
}

#[test]
fn what_is_wrong_with_a_record_is_named_with_its_value() {
    for (from, to, named) in [
        (
            r#""index":3"#,
            r#""index":1.5"#,
            "records[0].index must be a whole number from -2147483648 to 2147483647, not 1.5",
        ),
        (r#""index":3"#, r#""index":2147483648"#, "not 2147483648"),
        (r#""index":3"#, r#""index":null"#, "records[0].index"),
        (r#""index":3,"#, "", "records[0].index is missing"),
        (
            r#""status":"valid""#,
            r#""status":"done""#,
            r#"one of pending, valid, invalid, processed, failed, not "done""#,
        ),
        (r#""raw":{"b":1,"a":[]},"#, "", "records[0].raw is missing"),
        (
            r#""errors":[{"field":"x"}]"#,
            r#""errors":{}"#,
            "records[0].errors must be an array, not an object",
        ),
        (
            r#""retryCount":2"#,
            r#""processingError":5"#,
            "records[0].processingError must be a string, not 5",
        ),
    ] {
        let json = format!("[{}]", RECORD.replace(from, to));
        let message = refused(Record::list_from_json("records", &json));
        assert!(message.contains(named), "{message} should have {named}");
    }
    assert!(refused(Record::list_from_json("records", "[5]")).contains("records[0] must be an object, not 5"));
}

#[test]
fn of_records_with_one_index_the_last_counts() {
    let json = |index: i32, status: &str| format!(r#"{{"index":{index},"raw":0,"parsed":0,"status":"{status}"}}"#);
    let list = format!("[{},{},{}]", json(1, "valid"), json(2, "valid"), json(1, "failed"));
    let records = Record::list_from_json("records", &list).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.index, r.status)).collect::<Vec<_>>(),
        [(1, RecordStatus::Failed), (2, RecordStatus::Valid)]
    );
}

#[test]
fn a_lone_surrogate_in_text_becomes_the_replacement_character() {
    let json = RECORD.replace(r#""retryCount":2"#, r#""processingError":"a\ud800b\\ud800\u0000""#);
    assert_eq!(
        Record::from_json(&"record", &json).unwrap().processing_error.unwrap(),
        "a\u{fffd}b\\ud800\0"
    );
}
