//! What `durability: 'batch'` queues besides records, on a scripted database, which counts statements.

use super::*;
use crate::backend::scripted::Scripted;
use crate::backend::scripted::driver::{Answer::*, Script, row};
use crate::error::{Error, Repeatable};
use crate::model::{CapturedList, Job};

fn store(script: &Arc<Script>) -> Arc<Operations> {
    let connection = serde_json::json!({ "url": "postgres://user@127.0.0.1:1/db" }).to_string();
    let settings = Settings::from_json(&connection, r#"{ "statementTimeoutMs": 1000, "durability": "batch" }"#).unwrap();
    Operations::over(Arc::new(Scripted::new(&settings, script)), &settings)
}

/// An import that is under way, with so many batches.
fn import(batches: usize) -> Job {
    let entry =
        |n: usize| format!(r#"{{"id":"batch {n}","index":{n},"status":"COMPLETED","records":[],"processedCount":1,"failedCount":0}}"#);
    let places: Vec<usize> = (0..batches).collect();
    let entries: Vec<String> = places.iter().map(|n| entry(*n)).collect();
    let json = format!(
        r#"{{"id":"job","config":{{}},"status":"PROCESSING","changes":{{"length":{batches},"places":{places:?},"batches":[{}]}}}}"#,
        entries.join(",")
    );
    Job::from_change(&json, &mut CapturedList::default()).unwrap()
}

fn key(batch: usize) -> BatchKey {
    BatchKey::new("job", format!("batch {batch}"))
}

async fn set(store: &Arc<Operations>, batch: usize) -> Result<()> {
    enter(store).update_batch_state(key(batch), DONE, None).answer().await
}

async fn save(store: &Arc<Operations>, job: Job) -> Result<()> {
    enter(store).save_job(job).answer().await
}

/// Waits until everything is written, as a read does.
async fn flush(store: &Arc<Operations>) {
    store.queue.flush("job").await;
}

fn refusal() -> Error {
    Error::new(Code::DatabaseError, "the disk is full")
}

#[tokio::test]
async fn of_many_saves_and_states_only_the_last_job_is_written() {
    let script = Script::new();
    let store = store(&script);
    for batches in 1..=20 {
        set(&store, batches - 1).await.unwrap();
        save(&store, import(batches)).await.unwrap();
    }
    flush(&store).await;
    assert_eq!((script.times("save_job"), script.times("set_batch_state")), (1, 0));
}

#[tokio::test]
async fn a_state_of_a_listed_batch_is_written_where_the_job_has_rows() {
    let script = Script::new();
    script.on("save_job", Rows(vec![row![false, true]]));
    let store = store(&script);
    set(&store, 0).await.unwrap();
    save(&store, import(1)).await.unwrap();
    set(&store, 0).await.unwrap();
    flush(&store).await;
    assert_eq!((script.times("save_job"), script.times("set_batch_state")), (1, 2));
}

#[tokio::test]
async fn a_state_of_a_batch_that_no_list_has_is_written_when_something_waits_for_it() {
    let script = Script::new();
    let store = store(&script);
    save(&store, import(1)).await.unwrap();
    set(&store, 7).await.unwrap();
    flush(&store).await;
    assert_eq!((script.times("save_job"), script.times("set_batch_state")), (1, 1));
    set(&store, 8).await.unwrap();
    flush(&store).await;
    assert_eq!(script.times("set_batch_state"), 2);
}

#[tokio::test]
async fn a_lost_reply_of_a_queued_job_is_repeated() {
    let script = Script::new();
    script.on("save_job", ConnectionEnds);
    let store = store(&script);
    save(&store, import(1)).await.unwrap();
    flush(&store).await;
    assert_eq!(script.times("save_job"), 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn after_a_queued_job_failed_for_good_the_job_can_only_end() {
    let script = Script::new();
    script.on("save_job", Refuses(refusal()));
    let store = store(&script);
    save(&store, import(1)).await.unwrap();
    flush(&store).await;
    for refused in [
        save(&store, import(2)).await,
        set(&store, 1).await,
        enter(&store).save_record(key(1), record(0), None).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(
            error.code == Code::DatabaseError && error.message.contains("the disk is full"),
            "{error:?}"
        );
        assert_eq!(error.repeatable, Repeatable::Never);
    }
    // Reads only wait.
    enter(&store).distributed_status("job".into()).await.unwrap();
    assert_eq!(store.queue.check_job("job").unwrap_err().code, Code::DatabaseError);

    // COMPLETED is stored as FAILED, and says so. After that the job may be taken up again.
    let completed = Job {
        status: crate::model::JobStatus::Completed,
        ..import(2)
    };
    assert_eq!(save(&store, completed).await.unwrap_err().code, Code::DatabaseError);
    assert_eq!(script.times("save_job"), 2);
    save(&store, import(2)).await.unwrap();
    flush(&store).await;
    assert_eq!(script.times("save_job"), 3);
    store.close().await.unwrap();
}

#[tokio::test]
async fn after_a_queued_job_failed_a_state_behind_a_call_that_is_not_queued_is_refused_too() {
    let script = Script::new();
    script.on("save_job", Refuses(refusal()));
    let store = store(&script);
    save(&store, import(1)).await.unwrap();
    // It waits for its turn, so that the next call is not queued either.
    let fenced = enter(&store).update_batch_state(key(0), DONE, Some(Token(5)));
    let unfenced = enter(&store).update_batch_state(key(1), DONE, None);
    assert!(matches!(unfenced, Ok(Saved::Pending(_))));
    let (_, unfenced) = tokio::join!(fenced.answer(), unfenced.answer());
    let error = unfenced.unwrap_err();
    assert!(error.message.contains("the disk is full"), "{error:?}");
    // The fenced one, which is of a claim.
    assert_eq!(script.times("set_batch_state"), 1);
}

#[tokio::test]
async fn a_claimed_batch_is_not_concerned_by_a_state_that_could_not_be_stored() {
    let script = Script::new();
    script.on("set_batch_state", Refuses(refusal()));
    let store = store(&script);
    set(&store, 0).await.unwrap();
    flush(&store).await;
    assert!(set(&store, 1).await.is_err());
    let saved = enter(&store).save_record(key(1), record(0), Some(Token(1)));
    assert!(matches!(saved, Ok(Saved::Answered { .. })));
}

#[tokio::test]
async fn a_queued_state_that_must_not_be_repeated_fails_at_once() {
    let script = Script::new();
    script
        .on("set_batch_state", ConnectionEnds)
        .on("has_batch_row", Rows(vec![row![true]]));
    let store = store(&script);
    let paused = BatchState {
        status: BatchStatus::Paused,
        processed: 0,
        failed: 0,
    };
    enter(&store).update_batch_state(key(0), paused, None).answer().await.unwrap();
    flush(&store).await;
    assert_eq!((script.times("set_batch_state"), script.times("has_batch_row")), (1, 1));
    assert_eq!(store.queue.check_job("job").unwrap_err().code, Code::ConnectionLost);
}

#[tokio::test]
async fn a_job_that_fails_or_pauses_after_a_failure_is_stored() {
    for status in [
        crate::model::JobStatus::Failed,
        crate::model::JobStatus::Paused,
        crate::model::JobStatus::Aborted,
    ] {
        let script = Script::new();
        script.on("save_job", Refuses(refusal()));
        let store = store(&script);
        save(&store, import(1)).await.unwrap();
        flush(&store).await;
        save(&store, Job { status, ..import(1) }).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn close_writes_what_is_queued_and_rejects_what_could_not_be_stored() {
    let script = Script::new();
    let first = store(&script);
    save(&first, import(1)).await.unwrap();
    first.close().await.unwrap();
    assert_eq!(script.times("save_job"), 1);

    script.on("save_job", Refuses(refusal()));
    let second = store(&script);
    save(&second, import(1)).await.unwrap();
    assert_eq!(second.close().await.unwrap_err().code, Code::DatabaseError);
}

#[tokio::test]
async fn a_call_behind_one_that_is_not_queued_is_not_queued_either() {
    let script = Script::new();
    let store = store(&script);
    let paused = Job {
        status: crate::model::JobStatus::Paused,
        ..import(1)
    };
    let Saved::Pending(pausing) = enter(&store).save_job(paused).unwrap() else {
        panic!("a pause is queued");
    };
    let Saved::Pending(resuming) = enter(&store).save_job(import(1)).unwrap() else {
        panic!("a call overtakes the one before it");
    };
    pausing.await.unwrap();
    resuming.await.unwrap();
    assert!(matches!(enter(&store).save_job(import(1)).unwrap(), Saved::Answered { .. }));
}

#[tokio::test]
async fn calls_on_a_distributed_job_are_not_queued() {
    let script = Script::new();
    let store = store(&script);
    assert!(matches!(enter(&store).save_job(job("job", 0)).unwrap(), Saved::Pending(_)));
    assert!(matches!(
        enter(&store).update_batch_state(key(0), DONE, None).unwrap(),
        Saved::Pending(_)
    ));
    assert!(matches!(
        enter(&store)
            .update_batch_state(BatchKey::new("unknown", "b"), DONE, Some(Token(1)))
            .unwrap(),
        Saved::Pending(_)
    ));
}
