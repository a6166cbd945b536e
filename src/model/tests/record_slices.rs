//! Records on their way to JavaScript.

use crate::model::{RecordSlices, RecordText, UnorderedRecords};

#[test]
fn a_record_comes_back_as_it_went() {
    let mut slices = RecordSlices::default();
    for error in [None, Some("a \"b\"\n\u{0}")] {
        slices.push(RecordText {
            index: -1,
            raw: "1e21",
            parsed: "{}",
            status: "failed",
            errors: "[]",
            processing_error: error,
        });
    }
    assert_eq!(
        slices.into_text(),
        concat!(
            r#"[{"index":-1,"raw":1e21,"parsed":{},"status":"failed","errors":[]},"#,
            r#"{"index":-1,"raw":1e21,"parsed":{},"status":"failed","errors":[],"processingError":"a \"b\"\n\u0000"}]"#
        )
    );
}

#[test]
fn large_results_are_cut_into_arrays_and_lose_no_record() {
    let raw = format!("\"{}\"", "x".repeat(500_000));
    for count in [0, 1, 4, 5, 6, 23] {
        let record = |index| RecordText {
            index,
            raw: &raw,
            parsed: "[]",
            status: "valid",
            errors: "[]",
            processing_error: None,
        };
        let mut slices = RecordSlices::default();
        let mut whole = RecordSlices::default();
        let mut backwards = UnorderedRecords::default();
        for index in 0..count {
            slices.push(record(index));
            whole.push(record(index));
            backwards.push(record(count - 1 - index));
        }
        assert_eq!(backwards.into_slices(), slices);
        let read = |text: &str| -> Vec<i64> {
            let records: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
            records.iter().filter_map(|record| record["index"].as_i64()).collect()
        };
        let texts = slices.into_texts();
        assert_eq!(texts.len(), (count as usize).div_ceil(5).max(1));
        assert_eq!(
            texts.iter().flat_map(|text| read(text)).collect::<Vec<_>>(),
            (0..count.into()).collect::<Vec<i64>>()
        );
        assert_eq!(read(&whole.into_text()), (0..count.into()).collect::<Vec<i64>>());
    }
}
