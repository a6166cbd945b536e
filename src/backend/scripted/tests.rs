//! What the pool and the sessions promise whatever the database, shown by failures that come when a test wants them.

use std::sync::Arc;
use std::time::Duration;

use super::driver::{Answer, Script, ScriptedDriver};
use crate::backend::driver::{sql, values};
use crate::backend::pool::{Pool, PoolRules, PoolUse};
use crate::error::{Code, Error, Repeatable};
use crate::settings::Settings;

fn settings(max: u32, options: serde_json::Value) -> Settings {
    let connection = serde_json::json!({ "url": "postgres://user@127.0.0.1:1/db" }).to_string();
    let mut settings = Settings::from_json(&connection, &options.to_string()).unwrap();
    settings.pool_max = max;
    settings
}

fn pool(script: &Arc<Script>, max: u32) -> Pool<ScriptedDriver> {
    let settings = settings(
        max,
        serde_json::json!({ "statementTimeoutMs": 200, "pool": { "acquireTimeoutMs": 1_000 } }),
    );
    Pool::new(&settings, ScriptedDriver::new(script.clone()), PoolRules::of(&settings))
}

#[tokio::test]
async fn a_connection_that_comes_back_is_used_again_without_a_try() {
    let script = Script::new();
    let pool = pool(&script, 2);
    for _ in 0..3 {
        pool.acquire().await.unwrap().execute(sql("one", ""), values![]).await.unwrap();
    }
    assert_eq!(script.asked(), ["1 connect", "1 one", "1 one", "1 one"]);
}

#[tokio::test]
async fn a_connection_with_an_abandoned_statement_is_never_reused() {
    let script = Script::new();
    let pool = pool(&script, 1);
    script.on("slow", Answer::Silence);
    let error = pool.acquire().await.unwrap().execute(sql("slow", ""), values![]).await.unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::Timeout, Repeatable::Unknown));
    pool.acquire().await.unwrap().execute(sql("one", ""), values![]).await.unwrap();
    assert_eq!(script.asked(), ["1 connect", "1 slow", "2 connect", "2 one"]);
}

#[tokio::test]
async fn once_a_connection_was_lost_the_idle_ones_are_tried_before_they_are_used() {
    let script = Script::new();
    let pool = pool(&script, 2);
    let (mut first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(second);
    script.on("one", Answer::ConnectionEnds).on("ping", Answer::ConnectionEnds);
    let error = first.execute(sql("one", ""), values![]).await.unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionLost, Repeatable::Unknown));
    drop(first);
    pool.acquire().await.unwrap();
    assert_eq!(script.asked(), ["1 connect", "2 connect", "1 one", "2 ping", "3 connect"]);
}

#[tokio::test]
async fn a_connection_that_ends_between_two_statements_takes_its_transaction_with_it() {
    let script = Script::new();
    let pool = pool(&script, 1);
    script.on("second", Answer::ConnectionEnds);
    let mut session = pool.acquire().await.unwrap();
    session.begin("begin").await.unwrap();
    session.execute(sql("first", ""), values![]).await.unwrap();
    let error = session.execute(sql("second", ""), values![]).await.unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionLost, Repeatable::RolledBack));
    assert!(error.message.contains("did not take effect"), "{error}");
}

#[tokio::test]
async fn whether_a_commit_took_effect_is_not_known_where_its_reply_is_lost() {
    let script = Script::new();
    let pool = pool(&script, 1);
    script.on("commit", Answer::ConnectionEnds);
    let mut session = pool.acquire().await.unwrap();
    session.begin("begin").await.unwrap();
    let error = session.commit().await.unwrap_err();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionLost, Repeatable::Unknown));
    assert!(error.message.contains("may or may not have taken effect"), "{error}");
}

#[tokio::test]
async fn a_session_that_is_dropped_in_a_transaction_is_rolled_back_before_it_is_used_again() {
    let script = Script::new();
    let pool = pool(&script, 1);
    let mut session = pool.acquire().await.unwrap();
    session.begin("begin").await.unwrap();
    drop(session);
    pool.acquire().await.unwrap().execute(sql("next", ""), values![]).await.unwrap();
    assert_eq!(script.asked(), ["1 connect", "1 begin", "1 rollback", "1 next"]);
}

#[tokio::test]
async fn where_the_server_has_no_connection_left_a_call_waits_for_one_of_the_pool() {
    let script = Script::new();
    let pool = pool(&script, 2);
    let used = pool.acquire().await.unwrap();
    for _ in 0..3 {
        script.on("connect", Answer::HasNoConnectionLeft);
    }
    let waiting = async { pool.acquire().await.unwrap().execute(sql("waited", ""), values![]).await.unwrap() };
    let giving_back = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(used);
    };
    tokio::join!(waiting, giving_back);
    assert_eq!(script.asked().last().map(String::as_str), Some("1 waited"));
}

#[tokio::test]
async fn a_pool_counts_its_connections_and_the_calls_that_wait() {
    let script = Script::new();
    let pool = pool(&script, 2);
    let now = |used, idle, pending| PoolUse {
        used,
        idle,
        pending,
        max: 2,
    };
    assert_eq!(pool.now(), now(0, 0, 0));
    let first = pool.acquire().await.unwrap();
    assert_eq!(pool.now(), now(1, 0, 0));
    let second = pool.acquire().await.unwrap();
    let waiting = async { drop(pool.acquire().await.unwrap()) };
    let giving_back = async {
        tokio::task::yield_now().await;
        assert_eq!(pool.now(), now(2, 0, 1));
        drop(first);
    };
    tokio::join!(waiting, giving_back);
    assert_eq!(pool.now(), now(1, 1, 0));
    drop(second);
    assert_eq!(pool.now(), now(0, 2, 0));
    pool.close().await;
    assert_eq!(pool.now(), now(0, 0, 0));
}

#[tokio::test]
async fn a_slot_that_rests_is_no_connection() {
    let script = Script::new();
    let pool = pool(&script, 1);
    script.on("connect", Answer::HasNoConnectionLeft);
    let waiting = async { drop(pool.acquire().await.unwrap()) };
    let looking = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = pool.now();
        assert_eq!((now.used, now.pending), (0, 1));
    };
    tokio::join!(waiting, looking);
}

#[tokio::test]
async fn where_no_connection_becomes_free_either_the_error_says_what_to_do() {
    let script = Script::new();
    let pool = pool(&script, 1);
    for _ in 0..20 {
        script.on("connect", Answer::HasNoConnectionLeft);
    }
    let error = pool.acquire().await.err().unwrap();
    assert_eq!((error.code, error.repeatable), (Code::ConnectionFailed, Repeatable::ByCaller));
    assert!(error.message.contains("lower pool.max"), "{error}");
}

#[tokio::test]
async fn a_refused_login_is_final_until_a_connection_was_made() {
    let script = Script::new();
    let pool = pool(&script, 1);
    let refused = || Answer::Refuses(Error::new(Code::ConnectionFailed, "no such user").repeatable(Repeatable::Never));
    script.on("connect", refused());
    assert_eq!(pool.acquire().await.err().unwrap().repeatable, Repeatable::Never);
    drop(pool.acquire().await.unwrap());
    script.on("close", Answer::Changed(0)).on("gone", Answer::ConnectionEnds);
    let mut session = pool.acquire().await.unwrap();
    session.execute(sql("gone", ""), values![]).await.unwrap_err();
    drop(session);
    script.on("connect", refused());
    // The settings worked before, so an administrator may be repairing the server.
    assert_eq!(pool.acquire().await.err().unwrap().repeatable, Repeatable::ByCaller);
}

#[tokio::test]
async fn a_value_that_can_not_be_read_leaves_the_connection_in_order() {
    let script = Script::new();
    let pool = pool(&script, 1);
    script.on("job", Answer::Rows(vec![super::driver::row!["text"], super::driver::row![7]]));
    let mut session = pool.acquire().await.unwrap();
    let read = session
        .all(
            sql("job", "select version from batchactions_batches"),
            values![],
            crate::backend::rows::token,
        )
        .await;
    let error = read.unwrap_err();
    assert_eq!(error.code, Code::TablesIncompatible);
    assert!(error.message.contains("the table batchactions_batches"), "{error}");
    assert!(session.is_in_order());
}

#[tokio::test]
async fn closing_says_goodbye_and_refuses_what_comes_later() {
    let script = Script::new();
    let pool = pool(&script, 1);
    drop(pool.acquire().await.unwrap());
    pool.close().await;
    assert_eq!(script.asked(), ["1 connect", "1 close"]);
    assert_eq!(pool.acquire().await.err().unwrap().code, Code::Closed);
}

#[tokio::test]
async fn a_statement_whose_row_can_not_be_read_does_not_take_effect_in_the_transaction_around_it() {
    let script = Script::new();
    let settings = settings(1, serde_json::json!({}));
    let rules = PoolRules {
        begin_each: Some("begin".into()),
        ..PoolRules::of(&settings)
    };
    let pool = Pool::new(&settings, ScriptedDriver::new(script.clone()), rules);
    script.on("claim", Answer::Rows(vec![super::driver::row!["text"]]));
    let mut session = pool.acquire().await.unwrap();
    session
        .optional(sql("claim", ""), values![], crate::backend::rows::token)
        .await
        .unwrap_err();
    drop(session);
    pool.acquire().await.unwrap().execute(sql("next", ""), values![]).await.unwrap();
    assert_eq!(
        script.asked(),
        ["1 connect", "1 begin", "1 claim", "1 rollback", "1 begin", "1 next", "1 commit"]
    );
}
