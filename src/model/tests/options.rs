//! The options of `records`, `listJobs` and `batches`.

use super::refused;
use crate::model::{BatchPage, BatchStatus, JobFilter, RecordPage};

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
fn pages_of_batches_take_what_their_options_say() {
    let page = BatchPage::from_json(r#"{"status":["FAILED","PENDING"],"limit":7,"after":-1}"#).unwrap();
    assert_eq!(
        page,
        BatchPage {
            statuses: Some(vec![BatchStatus::Failed, BatchStatus::Pending]),
            limit: 7,
            after: Some(-1),
        }
    );
    assert_eq!(
        page.status_places(),
        ["FAILED", "PENDING", "PENDING", "PENDING", "PENDING"].map(Some)
    );
    let all = BatchPage::from_json("{}").unwrap();
    assert_eq!((all.limit, all.after, all.status_places()), (100, None, [None; 5]));
    for (options, why) in [
        (r#"{"limit":0}"#, "options.limit must be from 1 to 1000, not 0"),
        (r#"{"limit":1001}"#, "options.limit must be from 1 to 1000, not 1001"),
        (r#"{"after":"x"}"#, "options.after must be a whole number"),
        (r#"{"after":null}"#, "options.after must be a whole number"),
        (r#"{"status":"ABORTED"}"#, "options.status must be one of PENDING,"),
        (r#"{"status":[]}"#, "options.status must be an array of at least one of PENDING,"),
        (r#"{"state":"FAILED"}"#, "options.state is unknown"),
    ] {
        let refusal = refused(BatchPage::from_json(options));
        assert!(refusal.contains(why), "{options}: {refusal}");
    }
}
