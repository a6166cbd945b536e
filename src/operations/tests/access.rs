//! What each of the store's methods waits for, in one table.

use std::pin::Pin;

use super::*;
use crate::model::{BatchPage, JobFilter, RecordPage};

/// Which later calls wait for a call, because it takes their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Those on the same job.
    Job,
    /// Those on the same batch.
    Batch,
    None,
}

/// Whether the job's queue is flushed before the call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    Written,
    LeftAlone,
}

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;
type Method = fn(Entered, BatchKey) -> Done;

fn done<T>(answer: impl Answer<T>) -> Done {
    Box::pin(async move { answer.await.map(drop).unwrap() })
}

fn worker() -> WorkerId {
    WorkerId("worker".to_owned())
}

const HOUR: Duration = Duration::from_secs(3600);

/// All methods of [`Entered`] except `save_record`, which queues instead of waiting.
const METHODS: [(&str, Order, Queued, Method); 21] = [
    ("initialize", Order::None, Queued::LeftAlone, |store, _| done(store.initialize())),
    ("list_jobs", Order::None, Queued::LeftAlone, |store, _| {
        done(store.list_jobs(JobFilter::from_json("{}").unwrap()))
    }),
    ("stats", Order::None, Queued::LeftAlone, |store, _| done(store.stats())),
    ("ping", Order::None, Queued::LeftAlone, |store, _| done(store.ping())),
    ("job_row", Order::None, Queued::Written, |store, key| {
        done(store.job_row(key.job_id))
    }),
    ("batches", Order::None, Queued::Written, |store, key| {
        done(store.batches(key.job_id, BatchPage::from_json("{}").unwrap()))
    }),
    ("save_job", Order::Job, Queued::Written, |store, key| {
        done(store.save_job(job(&key.job_id, 1)).answer())
    }),
    ("delete_job", Order::Job, Queued::Written, |store, key| {
        done(store.delete_job(key.job_id))
    }),
    ("update_batch_state", Order::Batch, Queued::Written, |store, key| {
        done(store.update_batch_state(key, DONE, None).answer())
    }),
    // Its own order: see `write_queue`.
    ("save_records", Order::None, Queued::Written, |store, key| {
        done(store.save_records(key.job_id, key.batch_id, vec![record(1)]))
    }),
    ("job", Order::None, Queued::Written, |store, key| done(store.job(key.job_id))),
    ("records_with_status", Order::None, Queued::Written, |store, key| {
        done(store.records_with_status(key.job_id, [RecordStatus::Failed; 2]))
    }),
    ("records_of_batch", Order::None, Queued::Written, |store, key| {
        done(store.records_of_batch(key))
    }),
    ("record_page", Order::None, Queued::Written, |store, key| {
        done(store.record_page(key.job_id, RecordPage::from_json("{}", None, 1).unwrap()))
    }),
    ("progress", Order::None, Queued::Written, |store, key| {
        done(store.progress(key.job_id))
    }),
    ("distributed_status", Order::None, Queued::Written, |store, key| {
        done(store.distributed_status(key.job_id))
    }),
    ("claim_batch", Order::None, Queued::Written, |store, key| {
        done(store.claim_batch(key.job_id, worker()))
    }),
    ("release_batch", Order::None, Queued::Written, |store, key| {
        done(store.release_batch(key, worker()))
    }),
    ("renew_batch", Order::None, Queued::Written, |store, key| {
        done(store.renew_batch(key, worker(), None))
    }),
    ("reclaim_stale_batches", Order::None, Queued::Written, |store, key| {
        done(store.reclaim_stale_batches(key.job_id, HOUR))
    }),
    ("try_finalize_job", Order::None, Queued::Written, |store, key| {
        done(store.try_finalize_job(key.job_id))
    }),
];

async fn open(database: &TestDatabase) -> Arc<Operations> {
    let connection = serde_json::json!({ "url": database.url }).to_string();
    let store = Operations::new(Settings::from_json(&connection, r#"{"durability":"batch"}"#).unwrap());
    enter(&store).initialize().await.unwrap();
    store
}

async fn processed_records(store: &Arc<Operations>, job_id: &str) -> i64 {
    let job_id = job_id.to_owned();
    let counts = enter(store)
        .accessing(Access::Unordered)
        .run(|call| async move { call.read(|reads| reads.record_counts(&job_id)).await });
    counts.await.unwrap().processed
}

fn order_of_calls_behind(store: &Operations, key: &BatchKey) -> Order {
    let same = store.turns.of_batch(key);
    let other = store.turns.of_batch(&BatchKey::new(&*key.job_id, "another batch"));
    match (same.has_to_wait(), other.has_to_wait()) {
        (true, true) => Order::Job,
        (true, false) => Order::Batch,
        (false, _) => Order::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_takes_its_turn_and_has_what_is_queued_written() {
    let database = sqlite("access");
    let store = open(&database).await;
    for (name, order, queued, method) in METHODS {
        let key = BatchKey::new(name, format!("{name} 0"));
        enter(&store).save_job(job(name, 1)).answer().await.unwrap();
        let Saved::Answered { writing, keep_alive } = enter(&store).save_record(key.clone(), record(0), None).unwrap() else {
            panic!("{name}: the record is not queued");
        };
        tokio::spawn(writing.unwrap());
        let all_written = tokio::spawn(keep_alive.unwrap());

        // Before the call is awaited, because it takes its place when it is made.
        let call = method(enter(&store), key.clone());
        assert_eq!(order_of_calls_behind(&store, &key), order, "{name}");
        call.await;
        if queued == Queued::Written && name != "delete_job" {
            assert!(processed_records(&store, name).await > 0, "{name}");
        }
        all_written.await.unwrap();
        if name == "delete_job" {
            assert_eq!(
                processed_records(&store, name).await,
                0,
                "a record was written after its job was deleted"
            );
        }
    }
    store.close().await.unwrap();
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_turn_and_for_an_initialize_under_way() {
    let database = sqlite("waits");
    let store = open(&database).await;
    let waits = async |what: Box<dyn Send>| {
        let (store, ended) = (store.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let saving = tokio::spawn({
            let (answer, ended) = (enter(&store).save_job(job("job", 1)).answer(), ended.clone());
            async move {
                answer.await.unwrap();
                ended.lock().unwrap().push("call");
            }
        });
        // A call that waits for nothing ends meanwhile.
        enter(&store).initialize().await.unwrap();
        ended.lock().unwrap().push("before");
        drop(what);
        saving.await.unwrap();
        assert_eq!(*ended.lock().unwrap(), ["before", "call"]);
    };
    waits(Box::new(store.turns.of_job("job"))).await;
    waits(Box::new(store.turns.of_batch(&BatchKey::new("job", "job 0")))).await;
    waits(Box::new(store.initialization.begin())).await;
    store.close().await.unwrap();
    assert_eq!(store.enter().err().unwrap().code, Code::Closed);
    database.remove().await;
}
