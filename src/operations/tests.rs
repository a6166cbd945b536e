//! The operations on real databases. The methods' guarantees are tested from JavaScript, on all databases; these tests cover orders of events that
//! only a transaction held open from outside can produce.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;

use super::call::Access;
use super::*;
use crate::error::{Code, Result};
use crate::model::{BatchKey, BatchList, BatchState, BatchStatus, Job, Record, RecordStatus, Reservation, Token, WorkerId};
use crate::settings::{Database, Settings};
use crate::write_queue::Saved;

mod access;
mod faults;
mod queued_calls;
mod steering;
mod warnings;

/// A server's address in `TEST_…_URL`, or on its default port. The name is its entry in `REQUIRE_DATABASES`.
const SERVERS: [(&str, &str, &str); 3] = [
    ("postgres", "TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres"),
    ("mariadb", "TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/mysql"),
    ("mysql", "TEST_MYSQL_URL", "mysql://test:test@127.0.0.1:3307/test"),
];

/// A database for one test.
struct TestDatabase {
    name: &'static str,
    url: String,
    /// The server, and the statements that drop the database there, in order; a file is removed.
    remove: Option<(String, Vec<String>)>,
}

async fn execute(server: &str, statement: &str) -> sqlx::Result<()> {
    if server.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(server).await?;
        sqlx::Executor::execute(&mut connection, statement).await?;
        connection.close().await
    } else {
        let mut connection = sqlx::MySqlConnection::connect(server).await?;
        sqlx::Executor::execute(&mut connection, statement).await?;
        connection.close().await
    }
}

/// A failed test may have left its database behind, and a later process may get the same id.
fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}_{:x}", std::process::id(), now.as_micros())
}

fn enter(store: &Arc<Operations>) -> Entered {
    store.enter().unwrap()
}

/// The answer of a call that may be queued.
trait Answered {
    async fn answer(self) -> Result<()>;
}

impl<F: Future<Output = Result<()>>> Answered for Result<Saved<F>> {
    /// What is queued is written, as Node would see to it.
    async fn answer(self) -> Result<()> {
        match self? {
            Saved::Pending(answer) => answer.await,
            Saved::Answered { writing, keep_alive } => {
                for background in writing.into_iter().chain(keep_alive) {
                    tokio::spawn(background);
                }
                Ok(())
            }
        }
    }
}

fn made(claim: Claim) -> Option<Reservation> {
    match claim {
        Claim::Made(reservation) => Some(reservation),
        Claim::NotMade(_) => None,
    }
}

/// A claim may find the last batches locked by other claims for longer than it waits, and then claims nothing.
async fn claim_patiently(store: &Arc<Operations>, worker: &str) -> Option<Reservation> {
    loop {
        match enter(store).claim_batch("job".into(), WorkerId(worker.to_owned())).await {
            Err(error) if error.code == Code::Conflict && error.message.contains("could be claimed") => {}
            claim => return made(claim.unwrap()),
        }
    }
}

impl TestDatabase {
    async fn make(name: &'static str, server: &str, test: &str) -> sqlx::Result<Self> {
        let database = format!("batchactions_cargo_{test}_{}", unique());
        execute(server, &format!("create database {database}")).await?;
        let end = server.rfind('/').unwrap();
        let url = format!("{}/{database}", &server[..end]);
        let drop = format!("drop database {database}");
        let disconnect = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'");
        let remove = if name == "postgres" { vec![disconnect, drop] } else { vec![drop] };
        Ok(Self {
            name,
            url,
            remove: Some((server.to_owned(), remove)),
        })
    }

    fn store(&self) -> Arc<Operations> {
        let settings = Settings::from_json(&serde_json::json!({ "url": self.url }).to_string(), "{}").unwrap();
        Operations::new(settings)
    }

    async fn remove(self) {
        match self.remove {
            Some((server, statements)) => {
                for statement in statements {
                    execute(&server, &statement).await.unwrap();
                }
            }
            None => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", self.url.trim_start_matches("sqlite://")));
                }
            }
        }
    }
}

/// A database in a file, which works on every machine.
fn sqlite(test: &str) -> TestDatabase {
    let file = std::env::temp_dir().join(format!("batchactions-cargo-{test}-{}.db", unique()));
    TestDatabase {
        name: "sqlite",
        url: format!("sqlite://{}", file.display()),
        remove: None,
    }
}

/// The databases that are available. A missing one is reported, and fails the test if it is required.
async fn databases(test: &str) -> Vec<TestDatabase> {
    let required = std::env::var("REQUIRE_DATABASES").unwrap_or_default();
    let mut found = vec![sqlite(test)];
    for (name, variable, default) in SERVERS {
        let server = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
        match TestDatabase::make(name, &server, test).await {
            Ok(database) => found.push(database),
            Err(error) => {
                assert!(
                    !required.split(',').any(|required| required == name),
                    "{name} is required, and can't be had: {error}"
                );
                eprintln!("{test}: not run on {name}, which can't be had: {error}");
            }
        }
    }
    found
}

fn job(id: &str, batches: usize) -> Job {
    let batch = |index: usize| {
        format!(r#"{{"id":"{id} {index}","index":{index},"status":"PENDING","records":[],"processedCount":0,"failedCount":0}}"#)
    };
    let batches: Vec<String> = (0..batches).map(batch).collect();
    let json = format!(
        r#"{{"id":"{id}","config":{{}},"status":"PROCESSING","distributed":true,"batches":[{}]}}"#,
        batches.join(",")
    );
    Job::from_json(&json).unwrap()
}

const DONE: BatchState = BatchState {
    status: BatchStatus::Completed,
    processed: 1,
    failed: 0,
};

fn record(index: i32) -> Record {
    Record {
        index,
        status: RecordStatus::Processed,
        raw: "{}".into(),
        parsed: "{}".into(),
        errors: "[]".into(),
        processing_error: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_callers_claim_each_batch_once_and_one_finalizes() {
    for database in databases("claims").await {
        let first = database.store();
        enter(&first).initialize().await.unwrap();
        enter(&first).save_job(job("job", 120)).answer().await.unwrap();
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                // Half of the callers share a store, and half have one of their own.
                let shared = worker % 2 == 0;
                let store = if shared { first.clone() } else { database.store() };
                tokio::spawn(async move {
                    let (mut claimed, mut finalized) = (Vec::new(), 0);
                    while let Some(claim) = claim_patiently(&store, &format!("worker {worker}")).await {
                        enter(&store).update_batch_state(claim.key(), DONE, None).answer().await.unwrap();
                        finalized += u32::from(enter(&store).try_finalize_job("job".into()).await.unwrap());
                        claimed.push(claim.batch_index.0);
                    }
                    if !shared {
                        store.close().await.unwrap();
                    }
                    (claimed, finalized)
                })
            })
            .collect();
        let (mut claimed, mut finalized) = (Vec::new(), 0);
        for worker in workers {
            let (indexes, times) = worker.await.unwrap();
            claimed.extend(indexes);
            finalized += times;
        }
        first.close().await.unwrap();
        claimed.sort_unstable();
        assert_eq!(claimed, (0..120).collect::<Vec<_>>(), "{}", database.name);
        assert_eq!(finalized, 1, "{}", database.name);
        database.remove().await;
    }
}

fn save(store: &Arc<Operations>, record: Record) -> impl Answer<()> + use<> {
    match enter(store).save_record(BatchKey::new("job", "job 0"), record, None).unwrap() {
        Saved::Pending(save) => save,
        Saved::Answered { .. } => panic!("a save without `durability: 'batch'` is answered before it is committed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_save_that_waits_for_its_record_is_lost_with_the_claim() {
    for database in databases("fence").await {
        if database.url.starts_with("sqlite") {
            // A file has one writer, so nothing can come between a save's look at the claim and its write.
            database.remove().await;
            continue;
        }
        let (late, present) = (database.store(), database.store());
        enter(&late).initialize().await.unwrap();
        enter(&late).save_job(job("job", 1)).answer().await.unwrap();
        save(&late, record(0)).await.unwrap();
        made(enter(&late).claim_batch("job".into(), WorkerId("late".to_owned())).await.unwrap()).unwrap();

        // Another transaction holds the record's lock, so that the late worker's save must wait while its claim is still valid.
        let held = hold_record(&database.url).await;
        let saving = tokio::spawn(save(
            &late,
            Record {
                raw: "\"late\"".into(),
                ..record(0)
            },
        ));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!saving.is_finished(), "{}", database.name);

        // The batch is reclaimed and claimed again, if the database allows it.
        let taking = tokio::spawn({
            let present = present.clone();
            async move {
                loop {
                    enter(&present).reclaim_stale_batches("job".into(), Duration::ZERO).await.unwrap();
                    let claim = enter(&present).claim_batch("job".into(), WorkerId("present".to_owned()));
                    if let Some(claim) = made(claim.await.unwrap()) {
                        return claim;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let taken_before_the_write = taking.is_finished();
        held.release().await;
        let saved = saving.await.unwrap();
        let claim = taking.await.unwrap();
        assert_eq!(claim.token, Token(3));
        // Either the save kept the batch from being claimed until it was written, or it was refused.
        let raw = enter(&late)
            .records_of_batch(BatchKey::new("job", "job 0"))
            .await
            .unwrap()
            .into_text();
        assert_eq!(saved.is_ok(), raw.contains("late"), "{}: {saved:?}", database.name);
        assert!(
            !(taken_before_the_write && saved.is_ok()),
            "{}: a stale worker wrote over the present one's batch",
            database.name
        );
        for store in [late, present] {
            store.close().await.unwrap();
        }
        database.remove().await;
    }
}

/// A transaction outside the store that has locked record 0.
enum HeldRecord {
    Postgres(sqlx::PgConnection),
    MySql(sqlx::MySqlConnection),
}

async fn hold_record(url: &str) -> HeldRecord {
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::Executor::execute(
            &mut connection,
            r#"begin; select from batchactions_records where "recordIndex" = 0 for update"#,
        )
        .await
        .unwrap();
        HeldRecord::Postgres(connection)
    } else {
        let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
        sqlx::Executor::execute(
            &mut connection,
            "begin; select 1 from batchactions_records where recordIndex = 0 for update",
        )
        .await
        .unwrap();
        HeldRecord::MySql(connection)
    }
}

impl HeldRecord {
    async fn release(self) {
        match self {
            HeldRecord::Postgres(connection) => connection.close().await.unwrap(),
            HeldRecord::MySql(connection) => connection.close().await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_agrees_after_every_call_of_sixteen_callers_at_once() {
    for database in databases("copy").await {
        let store = database.store();
        enter(&store).initialize().await.unwrap();
        enter(&store).save_job(job("job", 64)).answer().await.unwrap();
        let workers = (0..16).map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                while let Some(claim) = claim_patiently(&store, &format!("worker {worker}")).await {
                    enter(&store).update_batch_state(claim.key(), DONE, None).answer().await.unwrap();
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        let stored = enter(&store)
            .accessing(Access::Unordered)
            .run(|call| async move { call.read(|reads| reads.job("job")).await });
        let stored = stored.await.unwrap().unwrap();
        let list = BatchList::read("job", &stored.batches).unwrap();
        assert_eq!(list.completed(), 64, "{}", database.name);
        store.close().await.unwrap();
        database.remove().await;
    }
}

#[tokio::test]
async fn creating_a_store_does_not_connect() {
    let settings = Settings::from_json(r#"{"url":"postgres://127.0.0.1:1/none"}"#, "{}").unwrap();
    assert_eq!(settings.database, Database::Postgres);
    let store = Operations::new(settings);
    let error = enter(&store).initialize().await.unwrap_err();
    assert_eq!(error.code, Code::ConnectionFailed);
    assert!(error.message.contains("127.0.0.1:1") && error.retryable(), "{error:?}");
    store.close().await.unwrap();
}
