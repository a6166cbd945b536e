//! Which values are fitted to the columns of a database, and which are refused.

use std::collections::HashSet;
use std::sync::Arc;

use super::refused;
use crate::fields::Fields;
use crate::model::{ColumnLimits, Encoding, Job, Record, RecordStatus, Repertoire};

#[test]
fn json_may_nest_deeper_than_any_stack() {
    // Deeper than V8 can write. Skipping a value uses no stack here, unlike parsing it into a tree.
    let nested = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let json = format!(r#"{{"index":0,"status":"valid","raw":{nested},"parsed":{{"a":{nested}}},"errors":{nested}}}"#);
    let mut record = Record::from_json(&"record", &json).unwrap();
    assert_eq!((record.raw.len(), record.errors.len()), (nested.len(), nested.len()));
    assert!(ColumnLimits::NONE.fit_record(&mut record).is_ok());
    let shallow = ColumnLimits {
        json_depth: Some(31),
        ..ColumnLimits::NONE
    };
    assert!(refused(shallow.fit_record(&mut record)).contains("nests 1000000 levels deep"));
    let job = format!(r#"{{"id":"j","status":"CREATED","config":{{"deep":{nested}}},"batches":[]}}"#);
    assert_eq!(Job::from_json(&job).unwrap().config.len(), nested.len() + 9);
    assert!(refused(Fields::read(&"options", &nested).map(|_| ())).starts_with("options must be an object"));
}

#[test]
fn columns_hold_what_they_can() {
    let mysql = ColumnLimits {
        json_depth: Some(3),
        lone_surrogates: false,
        text_bytes: Some(40),
        encoding: Encoding::Utf8,
        nul_in_text: true,
    };
    let record = |raw: &str, error: Option<&str>| Record {
        index: 0,
        status: RecordStatus::Failed,
        raw: raw.into(),
        parsed: "0".into(),
        errors: "[]".into(),
        processing_error: error.map(Into::into),
    };
    let fit = |limits: &ColumnLimits, mut record: Record| limits.fit_record(&mut record).map(|()| record);
    assert!(refused(fit(&mysql, record("[[[[]]]]", None))).contains("4 levels"));
    assert!(fit(&mysql, record(r#"[[["[[[[\"[["]]]"#, None)).is_ok());
    let fitted = fit(&mysql, record(r#"["\udfff","\\ud800","\u00e9"]"#, Some(&"é".repeat(30)))).unwrap();
    assert_eq!(fitted.raw, "[\"\u{fffd}\",\"\\\\ud800\",\"\\u00e9\"]");
    let cut = fitted.processing_error.unwrap();
    assert!(cut.len() <= 40 && cut.starts_with("éé") && cut.ends_with("é… [cut]"), "{cut}");
    let postgres = ColumnLimits {
        nul_in_text: false,
        ..ColumnLimits::NONE
    };
    assert_eq!(
        fit(&postgres, record("0", Some("a\0"))).unwrap().processing_error.unwrap(),
        "a\u{fffd}"
    );
}

#[test]
fn a_text_is_cut_by_the_bytes_of_its_encoding_and_loses_only_what_that_has_not() {
    let latin = Encoding::Other(Arc::new(Repertoire {
        characters: HashSet::from(['é']),
        widest: 1,
    }));
    for (encoding, text, longest, fitted) in [
        (Encoding::Utf8, "é😀", 6, "é😀"),
        (Encoding::Utf8Bmp, "é😀", 99, "é\u{fffd}"),
        (Encoding::Utf16, "é😀", 6, "é😀"),
        (Encoding::Utf16, "é😀xyz0123456789", 19, "é… [cut]"),
        (Encoding::Ucs2, "é😀", 4, "é\u{fffd}"),
        (Encoding::Utf32, "é😀", 8, "é😀"),
        (latin.clone(), "é😀", 2, "é?"),
        (latin, "éé0123456789", 11, "éé... [cut]"),
    ] {
        let mut given = text.to_owned();
        encoding.fit(&mut given, longest);
        assert_eq!(given, fitted, "{encoding:?}");
    }
}
