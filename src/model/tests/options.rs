//! The options of `records` and `listJobs`.

use super::refused;
use crate::model::{JobFilter, RecordPage};

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
