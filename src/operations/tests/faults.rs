//! What a call does when a reply is lost, a connection ends half-way or the server refuses: on a scripted database, which fails exactly where a test
//! asks for it.

use std::sync::Arc;

use super::*;
use crate::backend::scripted::Scripted;
use crate::backend::scripted::driver::{Answer::*, Cell, Script, row};
use crate::error::Error;
use crate::error::Repeatable;
use crate::model::BatchPage;
use crate::model::JobFilter;
use crate::model::Token;

fn store(script: &Arc<Script>) -> Arc<Operations> {
    store_with(script, r#"{ "statementTimeoutMs": 2000 }"#)
}

fn store_with(script: &Arc<Script>, options: &str) -> Arc<Operations> {
    let connection = serde_json::json!({ "url": "postgres://user@127.0.0.1:1/db" }).to_string();
    let settings = Settings::from_json(&connection, options).unwrap();
    let backend = Arc::new(Scripted::new(&settings, script));
    Operations::over(backend, &settings)
}

fn key() -> BatchKey {
    BatchKey::new("job", "batch")
}

fn worker() -> WorkerId {
    WorkerId("worker".to_owned())
}

const PAUSED: BatchState = BatchState {
    status: BatchStatus::Paused,
    processed: 0,
    failed: 0,
};

/// The row of a claim on the batch.
fn claimed(token: i64) -> crate::backend::scripted::driver::Answer {
    Rows(vec![row!["batch", 0, 1_000, 0, 9, token, 0]])
}

/// A job that is PROCESSING, with this batch in its list, as `lock_job` reads it.
fn locked() -> crate::backend::scripted::driver::Answer {
    Rows(vec![row![
        "PROCESSING",
        true,
        r#"[{"id":"batch","index":0,"status":"PROCESSING"}]"#,
        1_000,
        2_000
    ]])
}

/// The batch's row, COMPLETED.
fn completed() -> crate::backend::scripted::driver::Answer {
    Rows(vec![row!["batch", 0, "COMPLETED", "worker", 1_000, 10, 0]])
}

#[tokio::test]
async fn a_claim_is_not_retried_if_its_reply_is_lost() {
    let script = Script::new();
    script.on("claim", ConnectionEnds);
    let error = enter(&store(&script)).claim_batch("job".into(), worker()).await.unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionLost, Repeatable::Unknown));
    assert_eq!(script.times("claim"), 1);
}

#[tokio::test]
async fn a_claim_is_retried_after_a_conflict() {
    let script = Script::new();
    script
        .on("claim", Refuses(Error::new(Code::Conflict, "deadlock")))
        .on("claim", claimed(1));
    script.on("count_batches", Rows(vec![row![1, 0]]));
    let claim = enter(&store(&script)).claim_batch("job".into(), worker()).await.unwrap();
    assert!(matches!(claim, Claim::Made(reservation) if reservation.token == Token(1)));
    assert_eq!(script.times("claim"), 2);
}

#[tokio::test]
async fn a_finalization_is_retried_if_the_connection_ends_before_the_commit() {
    let script = Script::new();
    script.on("lock_job", locked()).on("batch_rows", ConnectionEnds);
    script
        .on("lock_job", locked())
        .on("batch_rows", completed())
        .on("finish_job", Changed(1));
    assert!(enter(&store(&script)).try_finalize_job("job".into()).await.unwrap());
    assert_eq!((script.times("begin"), script.times("commit")), (2, 1));
    assert!(script.left().is_empty(), "{:?}", script.left());
}

#[tokio::test]
async fn a_finalization_is_not_retried_if_the_commit_has_no_reply() {
    let script = Script::new();
    script
        .on("lock_job", locked())
        .on("batch_rows", completed())
        .on("commit", ConnectionEnds);
    let error = enter(&store(&script)).try_finalize_job("job".into()).await.unwrap_err();
    assert_eq!((error.code, error.retryable()), (Code::ConnectionLost, true));
    assert_eq!(script.times("finish_job"), 1);
}

#[tokio::test]
async fn a_release_succeeds_if_the_retry_after_a_lost_reply_finds_the_batch_released() {
    let script = Script::new();
    script.on("claim", claimed(1)).on("count_batches", Rows(vec![row![1, 0]]));
    let store = store(&script);
    enter(&store).claim_batch("job".into(), worker()).await.unwrap();
    // The first attempt released the batch; the second finds it claimed by another worker, at version 3.
    script.on("release", ConnectionEnds).on("version", Rows(vec![row![3]]));
    enter(&store).release_batch(key(), worker()).await.unwrap();
    assert_eq!(script.times("release"), 2);
}

#[tokio::test]
async fn a_state_of_a_batch_that_another_worker_may_hold_is_not_set_twice() {
    let script = Script::new();
    script
        .on("set_batch_state", ConnectionEnds)
        .on("has_batch_row", Rows(vec![row![true]]));
    let error = enter(&store(&script))
        .update_batch_state(key(), PAUSED, None)
        .answer()
        .await
        .unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionLost, Repeatable::ByCaller));
    assert_eq!(script.times("set_batch_state"), 1);
}

#[tokio::test]
async fn a_final_state_is_set_again_and_found_done() {
    let script = Script::new();
    script.on("set_batch_state", ConnectionEnds).on("final_batch", Rows(vec![row![0]]));
    enter(&store(&script)).update_batch_state(key(), DONE, None).answer().await.unwrap();
    assert_eq!((script.times("set_batch_state"), script.times("final_batch")), (2, 1));
}

#[tokio::test]
async fn a_job_that_is_saved_again_keeps_a_final_status_that_it_got_meanwhile() {
    let script = Script::new();
    let distributed = Job::from_json(r#"{"id":"job","config":{},"status":"PROCESSING","distributed":true,"batches":[]}"#).unwrap();
    script.on("save_job", ConnectionEnds);
    enter(&store(&script)).save_job(distributed).answer().await.unwrap();
    assert_eq!((script.times("save_job"), script.times("save_job keeping a final status")), (1, 1));
}

#[tokio::test]
async fn a_lost_lease_is_not_renewed_by_its_former_holder() {
    let script = Script::new();
    script.on("version", Rows(vec![row![3]]));
    let error = enter(&store(&script))
        .renew_batch(key(), worker(), Some(Token(1)))
        .await
        .unwrap_err();
    assert_eq!((error.code, error.retryable()), (Code::LeaseLost, false));
}

#[tokio::test]
async fn a_call_waits_for_a_pool_connection_if_the_server_has_none_left() {
    let script = Script::new();
    let store = store(&script);
    script.on("connect", HasNoConnectionLeft).on("list_jobs", Rows(Vec::new()));
    // Nothing was sent, so the pool retries once the slot has rested.
    let jobs = enter(&store).list_jobs(JobFilter::from_json("{}").unwrap()).await.unwrap();
    assert!(jobs.is_empty());
    assert_eq!(script.times("connect"), 2);
}

#[tokio::test]
async fn a_page_of_batches_is_read_by_the_index_that_serves_its_status() {
    let batch = || Rows(vec![row!["batch", 0, "FAILED", 3, 1, 0, 9, "worker", 1_000]]);
    let shown = [
        r#"{"id":"batch","index":0,"status":"FAILED","processedCount":3,"failedCount":1,"recordStartIndex":0,"recordEndIndex":9,"workerId":"worker","claimedAt":1000}"#,
    ];
    for (options, frequent, [by_index, by_status]) in [
        ("{}", None, [1, 0]),
        (r#"{"status":"FAILED"}"#, Some(true), [1, 0]),
        (r#"{"status":"FAILED"}"#, Some(false), [0, 1]),
    ] {
        let script = Script::new();
        script.on("claim_snapshot", Rows(vec![row!["PROCESSING", true, true, true]]));
        if let Some(frequent) = frequent {
            script.on("has_frequent_status", Rows(vec![row![frequent]]));
        }
        script.on("batch_page", batch()).on("batch_page_by_status", batch());
        let page = BatchPage::from_json(options).unwrap();
        let PageOfBatches(found) = enter(&store(&script)).batches("job".into(), page).await.unwrap();
        assert_eq!(found, shown);
        let times = ["batch_page", "batch_page_by_status"].map(|name| script.times(name));
        assert_eq!(times, [by_index, by_status], "{options}, {frequent:?}");
    }
}

#[tokio::test]
async fn a_ping_measures_a_statement_on_a_connection_that_has_run_it() {
    let script = Script::new();
    let answer = || Rows(vec![row!["1.2", 0]]);
    script.on("server_clock", answer()).on("server_clock", answer());
    let ping = enter(&store(&script)).ping().await.unwrap();
    assert_eq!(
        (&*ping.version, script.times("connect"), script.times("server_clock")),
        ("1.2", 1, 2)
    );
}

#[tokio::test]
async fn an_unexpected_null_is_reported_with_its_column() {
    let script = Script::new();
    script.on(
        "batch_counts",
        Rows(vec![crate::backend::scripted::driver::ScriptedRow(vec![
            Cell::Null,
            Cell::Number(1),
        ])]),
    );
    let error = enter(&store(&script)).distributed_status("job".into()).await.err().unwrap();
    assert_eq!(error.code, Code::TablesIncompatible);
    assert!(error.message.contains("it is null"), "{error}");
}

#[tokio::test]
async fn the_state_of_a_batch_in_the_list_of_a_local_job_is_set_there_whatever_rows_the_job_has() {
    let script = Script::new();
    // Not distributed, with rows of an earlier life, and the id is in its list.
    script.on("list_snapshot", Rows(vec![row![false, true, true]]));
    script.on(
        "lock_job",
        Rows(vec![row![
            "PROCESSING",
            false,
            r#"[{"id":"batch","index":0,"status":"PENDING"}]"#,
            1_000,
            2_000
        ]]),
    );
    enter(&store(&script))
        .update_batch_state(key(), PAUSED, None)
        .answer()
        .await
        .unwrap();
    assert_eq!((script.times("set_batch_state"), script.times("set_job_batches")), (1, 1));
}

/// A store that has claimed the batch with token 1 and queued a record of it.
async fn with_a_queued_record(script: &Arc<Script>) -> Arc<Operations> {
    script.on("claim", claimed(1)).on("count_batches", Rows(vec![row![1, 0]]));
    let store = store_with(script, r#"{ "statementTimeoutMs": 2000, "durability": "batch" }"#);
    enter(&store).claim_batch("job".into(), worker()).await.unwrap();
    let Saved::Answered { writing, .. } = enter(&store).save_record(key(), record(0), None).unwrap() else {
        panic!("the record is not queued");
    };
    tokio::spawn(writing.unwrap());
    store
}

/// How often the records and the end of the batch were written together, the records alone, and the end alone.
fn writes(script: &Script) -> [usize; 3] {
    ["save_records_and_end_batch", "save_records", "set_batch_state"].map(|name| script.times(name))
}

#[tokio::test]
async fn the_end_of_a_batch_is_written_with_its_last_records() {
    let script = Script::new();
    let store = with_a_queued_record(&script).await;
    script.on("save_records_and_end_batch", Rows(vec![row![0]]));
    enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap();
    assert_eq!(writes(&script), [1, 0, 0]);
    // It counts as finished: a second call finds nothing queued.
    script.on("set_batch_state", Rows(vec![row![0]]));
    enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap();
    assert_eq!(writes(&script), [1, 0, 1]);
}

#[tokio::test]
async fn a_state_that_is_not_final_is_written_after_the_records() {
    let script = Script::new();
    let store = with_a_queued_record(&script).await;
    script.on("version", Rows(vec![row![1]])).on("set_batch_state", Rows(vec![row![0]]));
    enter(&store).update_batch_state(key(), PAUSED, None).answer().await.unwrap();
    assert_eq!(writes(&script), [0, 1, 1]);
}

#[tokio::test]
async fn records_and_end_are_written_one_after_the_other_if_their_common_reply_is_lost() {
    let script = Script::new();
    let store = with_a_queued_record(&script).await;
    // The first attempt took effect, so the batch is found COMPLETED, and stays as it is.
    script
        .on("save_records_and_end_batch", ConnectionEnds)
        .on("version", Rows(vec![row![1]]))
        .on("final_batch", Rows(vec![row![0]]));
    enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap();
    assert_eq!(writes(&script), [1, 1, 1]);
    assert!(script.left().is_empty(), "{:?}", script.left());
}

#[tokio::test]
async fn a_lost_claim_refuses_records_and_end_after_a_lost_reply_too() {
    for first in [Changed(0), ConnectionEnds] {
        let script = Script::new();
        let store = with_a_queued_record(&script).await;
        // Another worker has claimed the batch since.
        script.on("save_records_and_end_batch", first).on("version", Rows(vec![row![3]]));
        let error = enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap_err();
        assert_eq!(error.code, Code::LeaseLost);
        let late = enter(&store).save_record(key(), record(1), None).err().unwrap();
        assert_eq!(late.code, Code::LeaseLost);
    }
}

#[tokio::test]
async fn a_refusal_of_records_and_end_together_is_told_by_the_step_that_meets_it_again() {
    let refused = || Refuses(Error::new(Code::Constraint, "refused"));
    // The batch does not take the state; its record is stored.
    let script = Script::new();
    let store = with_a_queued_record(&script).await;
    script
        .on("save_records_and_end_batch", refused())
        .on("version", Rows(vec![row![1]]));
    script.on("set_batch_state", refused());
    let error = enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::Constraint, "refused"));
    store.queue.check(&key()).unwrap();

    // The record is not taken; the batch stays as it is.
    let script = Script::new();
    let store = with_a_queued_record(&script).await;
    script
        .on("save_records_and_end_batch", refused())
        .on("version", Rows(vec![row![1]]));
    script.on("save_records", refused());
    let error = enter(&store).update_batch_state(key(), DONE, None).answer().await.unwrap_err();
    assert!(error.message.contains("record 0"), "{error}");
    assert_eq!(writes(&script), [1, 1, 0]);
}
