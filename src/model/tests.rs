use super::*;

const RECORD: &str = r#"{"index":3,"raw":{"b":1,"a":[]},"parsed":null,"status":"valid","errors":[{"field":"x"}],"retryCount":2}"#;

fn refused(result: Result<impl fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error.code, Code::InvalidArgument | Code::ValueTooLong), "{error:?}");
    error.message
}

fn row(id: &str, index: i32, status: &str) -> BatchRow {
    BatchRow {
        id: id.into(),
        index,
        status: status.into(),
        worker_id: None,
        claimed_at: None,
        processed: 0,
        failed: 0,
    }
}

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
fn json_may_nest_deeper_than_any_stack() {
    // Deeper than V8 writes it; skipping a value takes no stack here, as reading it into a tree would.
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
fn ids_are_measured_in_characters() {
    assert!(check_id(&"id", &"😀".repeat(36), ID_LENGTH).is_ok());
    assert_eq!(check_id(&"id", &"a".repeat(37), ID_LENGTH).unwrap_err().code, Code::ValueTooLong);
    assert_eq!(check_id(&"id", "a\0b", ID_LENGTH).unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn a_lone_surrogate_in_text_becomes_the_replacement_character() {
    let json = RECORD.replace(r#""retryCount":2"#, r#""processingError":"a\ud800b\\ud800\u0000""#);
    assert_eq!(
        Record::from_json(&"record", &json).unwrap().processing_error.unwrap(),
        "a\u{fffd}b\\ud800\0"
    );
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

#[test]
fn a_list_grows_to_what_its_longest_states_take() {
    let job = Job::from_json(JOB).unwrap();
    let mut batches = BatchList::read("j", &job.batches).unwrap();
    for place in 0..batches.len() {
        batches.set_state(place, "PROCESSING", i32::MIN, i32::MIN);
    }
    assert_eq!(
        batches.to_json().replace([' ', '\n'], "").len(),
        job.longest_list() - spaces(&job.batches)
    );
}

/// The white space between the batches of a text, which a list that was rewritten has not.
fn spaces(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_whitespace).count()
}

const JOB: &str = r#"{"id":"j","config":{"batchSize":2},"status":"PROCESSING","batches":[
  {"id":"b0","index":0,"status":"PROCESSING","records":[],"processedCount":1,"failedCount":0},
  {"id":"b1","index":1,"status":"PROCESSING","records":[],"processedCount":0,"failedCount":0,"recordStartIndex":2,"recordEndIndex":3}],
  "holders":[{},{"workerId":"w","claimedAt":5}],"totalRecords":4,"distributed":true}"#;

#[test]
fn a_job_knows_its_batches_and_who_held_them() {
    let job = Job::from_json(JOB).unwrap();
    assert!(job.distributed && job.started_at.is_none() && !job.batches.contains("workerId"));
    assert_eq!(
        job.listed[0].initial_status(),
        "PENDING",
        "a claim that nobody holds could never be taken"
    );
    assert_eq!(
        (job.listed[1].initial_status(), job.listed[1].worker_id.as_deref()),
        ("PROCESSING", Some("w"))
    );
    assert_eq!((job.listed[1].start, job.listed[1].end, job.listed[1].claimed_at), (2, 3, Some(5)));
}

#[test]
fn what_is_wrong_with_a_job_is_named_with_its_value() {
    for (from, to, named) in [
        (
            r#""status":"PROCESSING","batches""#,
            r#""status":"DONE","batches""#,
            "job.status must be one of CREATED",
        ),
        (
            r#""config":{"batchSize":2}"#,
            r#""config":[1]"#,
            "job.config must be an object, not an array",
        ),
        (
            r#""index":1"#,
            r#""index":"1""#,
            r#"job.batches[1].index must be a whole number from -2147483648 to 2147483647, not "1""#,
        ),
        (r#""totalRecords":4"#, r#""totalRecords":null"#, "job.totalRecords"),
        (
            r#""totalRecords":4"#,
            r#""startedAt":1.5"#,
            "job.startedAt must be a time in whole epoch milliseconds, not 1.5",
        ),
        (
            r#""distributed":true"#,
            r#""distributed":1"#,
            "job.distributed must be a boolean, not 1",
        ),
    ] {
        let message = refused(Job::from_json(&JOB.replace(from, to)));
        assert!(message.contains(named), "{message} should have {named}");
    }
}

#[test]
fn the_list_follows_the_rows_and_keeps_everything_else() {
    let json = r#"[{"id":"b0","index":0,"status":"PENDING","records":[],"processedCount":0,"failedCount":0,"x":{"y":1},"workerId":"old"},{"id":"b1","status":"PENDING"}]"#;
    let mut list = BatchList::read("j", json).unwrap();
    assert!(!list.follow(&[]), "no rows, no change");
    let mut claimed = row("b0", 0, "PROCESSING");
    (claimed.worker_id, claimed.claimed_at, claimed.processed) = (Some("w\"".into()), Some(7), 3);
    assert!(list.follow(&[claimed.clone()]));
    assert_eq!(
        list.to_json(),
        r#"[{"id":"b0","index":0,"status":"PROCESSING","records":[],"processedCount":3,"failedCount":0,"x":{"y":1}},{"id":"b1","status":"PENDING"}]"#
    );
    assert!(!list.follow(&[claimed.clone()]), "nothing is left to change");
    list.follow_with_claims(&[claimed]);
    assert!(list.to_json().contains(r#""workerId":"w\"","claimedAt":7"#));
    assert!(BatchList::read("j", "{}").is_err() && BatchList::read("j", "[{}]").is_err());
}

#[test]
fn the_copy_is_brought_up_to_date_once_in_a_hundred_batches() {
    for batches in [0, 1, 99, 100] {
        assert!((0..100).all(|index| mirrors(BatchIndex(index), batches)), "{batches}");
    }
    for batches in [101, 250, 4_000, 100_000] {
        let due = (0..batches as i32).filter(|index| mirrors(BatchIndex(*index), batches)).count();
        assert!((50..=100).contains(&due), "{due} of {batches}");
    }
}

#[test]
fn a_job_ends_when_no_batch_is_open_and_fails_with_any_of_them() {
    assert_eq!(final_status(&[]), None);
    assert_eq!(final_status(&[row("a", 0, "COMPLETED"), row("b", 1, "PENDING")]), None);
    assert_eq!(final_status(&[row("a", 0, "COMPLETED"), row("b", 1, "PROCESSING")]), None);
    assert_eq!(final_status(&[row("a", 0, "COMPLETED"), row("b", 1, "PAUSED")]), None);
    assert_eq!(
        final_status(&[row("a", 0, "FAILED"), row("b", 1, "COMPLETED")]),
        Some(JobStatus::Failed)
    );
}

#[test]
fn progress_adds_up() {
    let job = JobTimes {
        distributed: false,
        total_records: 200,
        started_at: Some(1_000),
        completed_at: None,
        now: 2_000,
    };
    let records = RecordCounts { processed: 40, failed: 10 };
    let progress = Progress::of(job, records, 1, 4);
    assert_eq!(
        (progress.pending_records, progress.percentage, progress.elapsed_ms),
        (150, 25, 1_000)
    );
    assert_eq!(progress.estimated_remaining_ms, Some(3_000));

    let done = JobTimes {
        completed_at: Some(1_500),
        ..job
    };
    assert_eq!(Progress::of(done, records, 1, 4).elapsed_ms, 500);
    assert_eq!(
        Progress::of(JobTimes { now: 0, ..job }, records, 1, 4).elapsed_ms,
        0,
        "a clock that went back"
    );
    let unknown = Progress::of(JobTimes::default(), records, 0, 0);
    assert_eq!(
        (unknown.pending_records, unknown.percentage, unknown.estimated_remaining_ms),
        (0, 0, None)
    );
    assert_eq!(
        Progress::of(job, RecordCounts::default(), 0, 4).estimated_remaining_ms,
        None,
        "nothing done yet"
    );
}

#[test]
fn pages_and_lists_take_what_their_options_say() {
    let page = RecordPage::from_json(r#"{"status":["failed","invalid"],"batchId":"b","from":10}"#, None, 9).unwrap();
    assert_eq!(
        (page.after, page.status_places()),
        (Some(9), ["failed", "invalid", "invalid", "invalid", "invalid"])
    );
    assert_eq!(RecordPage::from_json(r#"{"from":10}"#, Some(50), 9).unwrap().after, Some(50));
    assert!(refused(RecordPage::from_json(r#"{"status":[]}"#, None, 9)).contains("status"));
    assert!(refused(RecordPage::from_json(r#"{"limit":1}"#, None, 9)).contains("options.limit is unknown"));
    let jobs = JobFilter::from_json(r#"{"status":"FAILED","limit":5,"after":{"id":"j","startedAt":3}}"#).unwrap();
    assert_eq!((jobs.limit, jobs.after), (5, Some((Some(3), "j".into()))));
    assert!(refused(JobFilter::from_json(r#"{"limit":0}"#)).contains("options.limit must be from 1 to 1000, not 0"));
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
