//! Warnings of what a real server can't be made to do on demand: on a scripted database.

use super::*;
use crate::backend::Backend;
use crate::backend::scripted::Scripted;
use crate::backend::scripted::driver::{Answer::*, Script, row};
use crate::error::Error;
use crate::held_claims::BatchCount;
use crate::model::BatchIndex;
use crate::warnings::{Noted, WarningKind, Warnings};

fn store(script: &Arc<Script>) -> (Arc<Operations>, Arc<Scripted>, Arc<Noted>) {
    let connection = serde_json::json!({ "url": "postgres://user:hunter2@127.0.0.1:1/db" }).to_string();
    let noted = Arc::new(Noted::default());
    let settings = Settings::from_json(&connection, r#"{ "statementTimeoutMs": 300 }"#)
        .unwrap()
        .with_warnings(Warnings::to(noted.clone()));
    let backend = Arc::new(Scripted::new(&settings, script));
    (Operations::over(backend.clone(), &settings), backend, noted)
}

/// The kinds and messages of the warnings so far, of which there is at least one.
async fn warned(noted: &Noted) -> Vec<(WarningKind, String)> {
    let mut all = Vec::new();
    while all.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        all = noted.take();
    }
    all.into_iter().map(|warning| (warning.kind, warning.message)).collect()
}

#[tokio::test]
async fn a_highest_index_that_cannot_be_read_may_leave_the_list_behind() {
    let script = Script::new();
    let (store, _, noted) = store(&script);
    store.claims.set_batches("job", BatchCount::new(1_000, Some(BatchIndex(999))));
    script.on("set_batch_state", Rows(vec![row![0]]));
    script.on("last_batch_index", Refuses(Error::new(Code::PermissionDenied, "no right to read")));
    let state = enter(&store).update_batch_state(BatchKey::new("job", "batch"), DONE, None);
    state.answer().await.unwrap();
    let all = warned(&noted).await;
    let [(kind, message)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(*kind, WarningKind::ListBehind);
    assert!(
        message.contains("highest index") && message.contains("no right to read"),
        "{message}"
    );
}

#[tokio::test]
async fn a_connection_that_ends_in_a_rollback_is_lost() {
    let script = Script::new();
    let (store, _, noted) = store(&script);
    script.on("lock_job", Refuses(Error::new(Code::PermissionDenied, "no right to read")));
    script.on("rollback", ConnectionEnds);
    let error = enter(&store).try_finalize_job("job".into()).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    let all = warned(&noted).await;
    let [(kind, message)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(*kind, WarningKind::ConnectionLost);
    assert!(message.contains("rollback") && !message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn connections_that_calls_still_use_are_given_up_by_close() {
    let script = Script::new();
    let (store, backend, noted) = store(&script);
    // Held for longer than close() waits.
    let transaction = backend.begin().await.unwrap();
    store.close().await.unwrap();
    drop(transaction);
    let all = warned(&noted).await;
    assert!(
        all.iter()
            .any(|(kind, message)| *kind == WarningKind::ConnectionLost && message.contains("close() gave up connections")),
        "{all:?}"
    );
    assert!(all.iter().all(|(_, message)| !message.contains("hunter2")), "{all:?}");
}
