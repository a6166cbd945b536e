//! What the calls that steer jobs do when a reply is lost, or another process comes in between: on a scripted database.

use super::*;
use crate::backend::scripted::Scripted;
use crate::backend::scripted::driver::{Answer, Answer::*, Cell, Script, row};
use crate::model::{AbortOptions, PurgeOptions, RetryOptions};

fn store(script: &Arc<Script>) -> Arc<Operations> {
    let connection = serde_json::json!({ "url": "postgres://user@127.0.0.1:1/db" }).to_string();
    let settings = Settings::from_json(&connection, r#"{ "statementTimeoutMs": 2000 }"#).unwrap();
    Operations::over(Arc::new(Scripted::new(&settings, script)), &settings)
}

/// A distributed job with one batch, as `lock_job` reads it.
fn locked(status: &'static str) -> Answer {
    Rows(vec![row![
        status,
        true,
        r#"[{"id":"batch","index":0,"status":"PROCESSING"}]"#,
        1_000,
        2_000
    ]])
}

/// The batch's row.
fn batch(status: &'static str) -> Answer {
    Rows(vec![row!["batch", 0, status, Cell::Null, Cell::Null, 10, 0]])
}

const NOW: AbortOptions = AbortOptions { now: true, force: false };

/// The statements of a kind, in order.
fn order(script: &Script, of: &[&str]) -> Vec<String> {
    let asked = script.asked();
    let names = asked.iter().filter_map(|asked| asked.split_once(' ').map(|(_, name)| name));
    names.filter(|name| of.contains(name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn no_steering_call_is_retried_if_its_reply_is_lost() {
    let script = Script::new();
    script.on("pause_job", ConnectionEnds);
    let error = enter(&store(&script)).pause_job("job".into()).await.unwrap_err();
    assert_eq!((error.code, script.times("pause_job")), (Code::ConnectionLost, 1));

    script
        .on("lock_job", locked("PAUSED"))
        .on("batch_rows", batch("PENDING"))
        .on("commit", ConnectionEnds);
    let error = enter(&store(&script)).resume_job("job".into()).await.unwrap_err();
    assert_eq!((error.code, script.times("set_job_status")), (Code::ConnectionLost, 1));

    script
        .on("lock_job", locked("PAUSED"))
        .on("batch_rows", batch("PENDING"))
        .on("commit", ConnectionEnds);
    let error = enter(&store(&script)).abort_job("job".into(), NOW).await.unwrap_err();
    assert_eq!((error.code, script.times("finish_job")), (Code::ConnectionLost, 1));
    assert!(script.left().is_empty(), "{:?}", script.left());
}

#[tokio::test]
async fn a_steering_call_is_retried_if_the_connection_ends_before_the_commit() {
    let script = Script::new();
    script.on("lock_job", locked("PROCESSING")).on("batch_rows", ConnectionEnds);
    script.on("lock_job", locked("PROCESSING")).on("batch_rows", batch("PENDING"));
    let aborted = enter(&store(&script)).abort_job("job".into(), AbortOptions::default()).await;
    assert_eq!(aborted, Ok(true));
    assert_eq!((script.times("begin"), script.times("finish_job")), (2, 1));
    assert_eq!(script.times("take_claims"), 0);
}

#[tokio::test]
async fn a_resumed_job_whose_batches_are_done_is_made_final() {
    let script = Script::new();
    script.on("lock_job", locked("PAUSED")).on("batch_rows", batch("COMPLETED"));
    assert_eq!(enter(&store(&script)).resume_job("job".into()).await, Ok(true));
    assert_eq!((script.times("finish_job"), script.times("set_job_status")), (1, 0));
}

#[tokio::test]
async fn abort_now_locks_batches_before_the_job_and_looks_again_until_nothing_is_claimed() {
    let script = Script::new();
    // One batch is claimed, a second one while the job is aborted, and then none.
    for taken in [1, 1, 0] {
        script.on("take_claims", Changed(taken));
    }
    script.on("lock_job", locked("PROCESSING")).on("lock_job", locked("ABORTED"));
    script.on("lock_job", locked("ABORTED"));
    script.on("batch_rows", batch("PENDING")).on("batch_rows", batch("PENDING"));
    assert_eq!(enter(&store(&script)).abort_job("job".into(), NOW).await, Ok(true));
    let steps = [
        "take_claims",
        "lock_job",
        "finish_job",
        "set_job_batches",
        "commit",
        "wait_for_claims",
        "rollback",
    ];
    assert_eq!(
        order(&script, &steps),
        [
            "take_claims",
            "lock_job",
            "finish_job",
            "commit",
            "wait_for_claims",
            "take_claims",
            "lock_job",
            "set_job_batches",
            "commit",
            "take_claims",
            "lock_job",
            "rollback"
        ]
    );
}

#[tokio::test]
async fn abort_now_leaves_the_claims_of_a_job_that_was_started_again() {
    let script = Script::new();
    script.on("take_claims", Changed(0)).on("take_claims", Changed(3));
    script.on("lock_job", locked("PROCESSING")).on("lock_job", locked("PROCESSING"));
    script.on("batch_rows", batch("PENDING"));
    assert_eq!(enter(&store(&script)).abort_job("job".into(), NOW).await, Ok(true));
    assert_eq!((script.times("commit"), script.times("rollback")), (1, 1));
}

#[tokio::test]
async fn abort_now_does_not_go_on_forever_beside_a_program_that_claims_of_any_job() {
    let script = Script::new();
    for _ in 0..100 {
        script.on("take_claims", Changed(1)).on("lock_job", locked("ABORTED"));
    }
    assert_eq!(enter(&store(&script)).abort_job("job".into(), NOW).await, Ok(false));
    assert!(script.times("take_claims") < 50);
}

fn retry() -> RetryOptions {
    RetryOptions::from_json("{}").unwrap()
}

/// A job's row with its list, as `job` reads it.
fn failed_job() -> Answer {
    Rows(vec![row!["job", r#"{"batchSize":10}"#, "FAILED", 20, 1_000, 2_000, true, "[]"]])
}

#[tokio::test]
async fn a_copy_is_retried_into_the_same_batch_and_the_job_is_written_last() {
    let script = Script::new();
    script.on("job", failed_job()).on("copy_records", ConnectionEnds);
    script.on("record_range", Rows(vec![row![10, 3, 17]]));
    script.on("record_range", Rows(vec![row![2, 18, 19]]));
    script.on("now", Rows(vec![row![5_000]]));
    // The rows that the insert left, with ids that are not known here: the job is refused, after everything else.
    let error = enter(&store(&script)).retry_failed("job".into(), retry()).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    let steps = ["copy_records", "record_range", "now", "insert_batches"];
    let copies = [
        "now",
        "copy_records",
        "copy_records",
        "record_range",
        "copy_records",
        "record_range",
    ];
    let asked = order(&script, &steps);
    assert_eq!(asked[..6], copies);
    assert_eq!(asked[6], "insert_batches");
}

#[tokio::test]
async fn nothing_is_written_where_there_is_nothing_to_retry() {
    let script = Script::new();
    script.on("job", failed_job());
    assert_eq!(enter(&store(&script)).retry_failed("job".into(), retry()).await, Ok(None));
    assert_eq!((script.times("begin"), script.times("insert_batches")), (0, 0));
}

#[tokio::test]
async fn purge_leaves_a_job_that_was_claimed_since_it_was_listed() {
    let script = Script::new();
    script.on("now", Rows(vec![row![1_000_000]]));
    script.on("finished_jobs", Rows(vec![row!["job", 1_000, false], row!["held", 1_000, true]]));
    let options = PurgeOptions::from_json(r#"{"olderThanMs":0}"#).unwrap();
    let purged = enter(&store(&script)).purge(options).await.unwrap();
    assert_eq!((purged.job_ids.len(), purged.skipped), (0, vec!["held".to_owned()]));
    assert_eq!(script.times("empty_finished_job"), 1);
    assert_eq!(script.times("delete_records") + script.times("delete_job"), 0);
}

#[tokio::test]
async fn a_dry_run_of_purge_writes_nothing() {
    let script = Script::new();
    script.on("finished_jobs", Rows(vec![row!["job", 1_000, false]]));
    script.on("count_batches", Rows(vec![row![3, 2]]));
    script.on("record_count", Rows(vec![row![30]]));
    let options = PurgeOptions::from_json(r#"{"olderThanMs":0,"dryRun":true}"#).unwrap();
    let purged = enter(&store(&script)).purge(options).await.unwrap();
    assert_eq!((purged.job_ids, purged.batches, purged.records), (vec!["job".to_owned()], 3, 30));
    assert_eq!(
        order(&script, &["empty_finished_job", "delete_batches", "delete_records", "delete_job"]).len(),
        0
    );
}
