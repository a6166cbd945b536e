//! How a job is parsed, and its final status.

use super::{refused, row};
use crate::model::{BatchList, Job, JobStatus, final_status};

const JOB: &str = r#"{"id":"j","config":{"batchSize":2},"status":"PROCESSING","batches":[
  {"id":"b0","index":0,"status":"PROCESSING","records":[],"processedCount":1,"failedCount":0},
  {"id":"b1","index":1,"status":"PROCESSING","records":[],"processedCount":0,"failedCount":0,"recordStartIndex":2,"recordEndIndex":3}],
  "holders":[{},{"workerId":"w","claimedAt":5}],"totalRecords":4,"distributed":true}"#;

/// White space between the batches of the original text; a rewritten list has none.
fn spaces(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_whitespace).count()
}

#[test]
fn a_job_knows_its_batches_and_who_held_them() {
    let job = Job::from_json(JOB).unwrap();
    assert!(job.distributed && job.started_at.is_none() && !job.batches.contains("workerId"));
    assert_eq!(
        job.listed[0].initial_status(),
        "PENDING",
        "a claim without a holder could never be claimed"
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
