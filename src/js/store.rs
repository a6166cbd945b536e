//! The JavaScript surface. Each method checks its arguments, takes its place in the order of the calls, and delegates; it decides nothing.
//!
//! No method is an `async fn`: a worker thread that is terminated in the middle of such a call is a use after free. What a call needs is cloned
//! into a future that owns it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::{Function, PromiseRaw, Unknown, spawn};
use napi::threadsafe_function::UnknownReturnValue;
use napi::{Env, JsValue, ValueType};
use napi_derive::napi;
use tokio::sync::watch::Receiver;

use crate::error::{Error, Result};
use crate::js::boundary::{Outcome, Refusal, Reply, promise, string, text};
use crate::js::password::{JsPasswordFunction, PasswordRequest};
use crate::model::{
    BatchKey, BatchState, ID_LENGTH, Job, JobFilter, Record, RecordPage, RecordStatus, Token, WORKER_ID_LENGTH, WorkerId, check_id,
    token_from_json,
};
use crate::operations::Operations;
use crate::order::{Initialization, Pass};
use crate::panics::{self, caught};
use crate::record_writer::Saved;
use crate::settings::{PasswordFunction, Settings, newly_ignored};

type Promise<'env> = PromiseRaw<'env, Outcome>;
type Prepared<'env, T> = std::result::Result<T, Refusal<'env>>;

/// See `index.d.ts`, which documents each method.
#[napi]
pub struct SqlxStateStore {
    operations: Arc<Operations>,
    /// Parameters of the connection that have no effect and were not warned of before.
    ignored: Vec<String>,
}

fn id<'env>(what: &str, value: Unknown<'env>, longest: usize) -> Prepared<'env, String> {
    let kind = value.get_type()?;
    let Some(id) = string(value)? else {
        return Err(Error::invalid(format!("{what} must be a string, not {}", kind_name(kind))).into());
    };
    check_id(&what, &id, longest)?;
    Ok(id)
}

fn batch_key<'env>(job_id: Unknown<'env>, batch_id: Unknown<'env>) -> Prepared<'env, BatchKey> {
    Ok(BatchKey::new(id("jobId", job_id, ID_LENGTH)?, id("batchId", batch_id, ID_LENGTH)?))
}

fn kind_name(kind: ValueType) -> String {
    match kind {
        ValueType::Object => "an object".to_owned(),
        ValueType::Null | ValueType::Undefined => kind.to_string().to_lowercase(),
        other => format!("a {}", other.to_string().to_lowercase()),
    }
}

/// Durations come as a number of milliseconds, up to what a double counts exactly.
fn duration<'env>(what: &str, value: Unknown<'env>) -> Prepared<'env, Duration> {
    let kind = value.get_type()?;
    if kind != ValueType::Number {
        return Err(Error::invalid(format!("{what} must be a number of milliseconds, not {}", kind_name(kind))).into());
    }
    let ms = value.coerce_to_number()?.get_double()?;
    if !(0.0..=9_007_199_254_740_991.0).contains(&ms) {
        return Err(Error::invalid(format!("{what} must be a number of milliseconds from 0 on, not {ms}")).into());
    }
    Ok(Duration::from_millis(ms as u64))
}

fn is_absent(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::Undefined)
}

fn token(fence: Unknown<'_>) -> Prepared<'_, Option<Token>> {
    if is_absent(&fence)? {
        Ok(None)
    } else {
        Ok(token_from_json(&text(fence)?)?)
    }
}

/// The JSON text of options, where they may be left out.
fn options(value: Unknown<'_>) -> Prepared<'_, String> {
    if is_absent(&value)? { Ok("{}".to_owned()) } else { text(value) }
}

/// The promise of a save; none where it is answered already.
fn save_promise(env: &Env, pass: Pass, saved: Saved) -> napi::Result<Option<Promise<'_>>> {
    match saved {
        Saved::Pending(pending) => promise(env, async move {
            let answer = pending.answer().await;
            drop(pass);
            answer.map(|()| Reply::Nothing)
        })
        .map(Some),
        Saved::Answered { writing, keep_alive } => {
            if let Some(writing) = writing {
                spawn(writing);
            }
            if let Some(keep_alive) = keep_alive {
                // A pending promise keeps the process alive.
                promise(env, async move {
                    keep_alive.await;
                    Ok(Reply::Nothing)
                })?;
            }
            Ok(None)
        }
    }
}

#[napi]
impl SqlxStateStore {
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: &Env,
        connection: Unknown<'_>,
        store_options: Unknown<'_>,
        password: Option<Function<'_, PasswordRequest, UnknownReturnValue>>,
    ) -> napi::Result<Self> {
        let made = caught(|| -> Prepared<'_, Self> {
            panics::fail_point("constructor");
            let source = text(connection)?;
            let settings = Settings::from_json(&source, &options(store_options)?)?;
            let function = match &password {
                Some(function) => Some(Arc::new(JsPasswordFunction::new(function)?) as Arc<dyn PasswordFunction>),
                None => None,
            };
            let settings = settings.with_password_function(function)?;
            Ok(Self {
                ignored: newly_ignored(&settings.ignored),
                operations: Operations::new(settings),
            })
        });
        made.map_err(|refusal| refusal.into_thrown(env))
    }

    /// For `index.js`, which warns of them.
    #[napi(js_name = "_ignoredParameters", catch_unwind)]
    pub fn ignored_parameters(&self) -> Vec<String> {
        self.ignored.clone()
    }

    /// For `index.js`: settles in the event loop's next turn.
    #[napi(js_name = "_turn", catch_unwind)]
    pub fn turn<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        promise(env, async { Ok(Reply::Nothing) })
    }

    /// A call that may begin unless the store is closed, that waits for an `initialize` under way, and that `close` waits for. What refuses it at once is
    /// thrown, so that `index.js` makes the error while its caller is on the stack.
    fn call<'env, F>(&self, env: &'env Env, prepare: impl FnOnce(Arc<Operations>) -> Prepared<'env, F>) -> napi::Result<Promise<'env>>
    where
        F: Future<Output = Result<Reply>> + Send + 'static,
    {
        let initialization = self.operations.initialization.before_call();
        self.call_after(env, initialization, prepare)
    }

    fn call_after<'env, F>(
        &self,
        env: &'env Env,
        initialization: Option<Receiver<usize>>,
        prepare: impl FnOnce(Arc<Operations>) -> Prepared<'env, F>,
    ) -> napi::Result<Promise<'env>>
    where
        F: Future<Output = Result<Reply>> + Send + 'static,
    {
        let call = caught(|| -> Prepared<'env, _> {
            let pass = self.operations.gate.enter()?;
            panics::fail_point("arguments");
            let future = prepare(self.operations.clone())?;
            Ok(async move {
                panics::fail_point("call");
                Initialization::wait(initialization).await;
                let outcome = future.await;
                drop(pass);
                outcome
            })
        });
        match call {
            Ok(call) => promise(env, call),
            Err(refusal) => Err(refusal.into_thrown(env)),
        }
    }

    #[napi(catch_unwind)]
    pub fn initialize<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        // Several may be under way at once: one waits for none of the others.
        self.call_after(env, None, |store| {
            let initializing = store.initialization.begin();
            Ok(async move {
                let initialized = store.initialize().await;
                drop(initializing);
                initialized.map(|()| Reply::Nothing)
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn save_job_state<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job = Job::from_json(&text(job)?)?;
            let mut turn = store.turns.of_job(&job.id);
            Ok(async move {
                turn.wait().await;
                store.save_job(job).await.map(|()| Reply::Nothing)
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_job_state<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { Ok(store.job(&job_id).await?.map_or(Reply::Null, Reply::Json)) })
        })
    }

    #[napi(catch_unwind)]
    pub fn update_batch_state<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        state: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let key = batch_key(job_id, batch_id)?;
            let state = BatchState::from_json(&key.batch_id, &text(state)?)?;
            // The claim that the caller has now: the store may have claimed the batch again by the time that the turn comes.
            let token = store.token(&key, token(fence)?);
            let mut turn = store.turns.of_batch(&key.job_id, &key.batch_id);
            Ok(async move {
                turn.wait().await;
                store.update_batch(&key, state, token).await.map(|()| Reply::Nothing)
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn save_processed_record<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        record: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Option<Promise<'env>>> {
        let saved = caught(|| -> Prepared<'env, _> {
            let pass = self.operations.gate.enter()?;
            panics::fail_point("arguments");
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let record = Record::from_json(&"record", &text(record)?)?;
            let token = token(fence)?;
            let saved = self.operations.save_record(job_id, batch_id, record, token)?;
            Ok(save_promise(env, pass, saved)?)
        });
        saved.map_err(|refusal| refusal.into_thrown(env))
    }

    #[napi(catch_unwind)]
    pub fn save_batch_records<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        records: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let records = Record::list_from_json("records", &text(records)?)?;
            let place = (!records.is_empty()).then(|| store.enter_bulk(&job_id, &records));
            Ok(async move {
                if let Some(place) = place {
                    store.save_records(place, job_id, batch_id, records).await?;
                }
                Ok(Reply::Nothing)
            })
        })
    }

    fn records_with_status<'env>(&self, env: &'env Env, job_id: Unknown<'env>, statuses: [RecordStatus; 2]) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.records_with_status(&job_id, statuses).await.map(Reply::Records) })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_failed_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job_id, [RecordStatus::Failed, RecordStatus::Invalid])
    }

    #[napi(catch_unwind)]
    pub fn get_pending_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job_id, [RecordStatus::Pending, RecordStatus::Valid])
    }

    #[napi(catch_unwind)]
    pub fn get_processed_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job_id, [RecordStatus::Processed, RecordStatus::Processed])
    }

    #[napi(catch_unwind)]
    pub fn get_batch_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>, batch_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let key = batch_key(job_id, batch_id)?;
            Ok(async move { store.records_of_batch(&key).await.map(Reply::Records) })
        })
    }

    /// One page of `records`, with its length in bytes: of the next `limit` records behind the index `after`, or from the beginning where it is undefined, as
    /// many as a page may hold, and one at least.
    #[napi(catch_unwind, js_name = "_recordPage")]
    pub fn record_page<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        page_options: Unknown<'env>,
        after: Option<i32>,
        limit: i32,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let page = RecordPage::from_json(&options(page_options)?, after, limit)?;
            Ok(async move {
                let records = store.record_page(&job_id, page).await?.into_page();
                Ok(Reply::Json(format!("{{\"bytes\":{},\"records\":{records}}}", records.len())))
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_progress<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.progress(&job_id).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn claim_batch<'env>(&self, env: &'env Env, job_id: Unknown<'env>, worker_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let worker_id = WorkerId(id("workerId", worker_id, WORKER_ID_LENGTH)?);
            Ok(async move { store.claim_batch(&job_id, &worker_id).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn release_batch<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        worker_id: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let key = batch_key(job_id, batch_id)?;
            let worker_id = WorkerId(id("workerId", worker_id, WORKER_ID_LENGTH)?);
            let token = store.token(&key, None);
            Ok(async move { store.release_batch(&key, &worker_id, token).await.map(|()| Reply::Nothing) })
        })
    }

    #[napi(catch_unwind)]
    pub fn renew_batch<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        worker_id: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let key = batch_key(job_id, batch_id)?;
            let worker_id = WorkerId(id("workerId", worker_id, WORKER_ID_LENGTH)?);
            let token = store.token(&key, token(fence)?);
            Ok(async move { store.renew_batch(&key, &worker_id, token).await.map(Reply::Boolean) })
        })
    }

    #[napi(catch_unwind)]
    pub fn reclaim_stale_batches<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        timeout_ms: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let older_than = duration("timeoutMs", timeout_ms)?;
            Ok(async move { store.reclaim_stale_batches(&job_id, older_than).await.map(Reply::Number) })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_distributed_status<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.distributed_status(&job_id).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn try_finalize_job<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.try_finalize_job(&job_id).await.map(Reply::Boolean) })
        })
    }

    #[napi(catch_unwind)]
    pub fn list_jobs<'env>(&self, env: &'env Env, filter: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let filter = JobFilter::from_json(&options(filter)?)?;
            Ok(async move { store.list_jobs(filter).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn delete_job<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let mut turn = store.turns.of_job(&job_id);
            Ok(async move {
                turn.wait().await;
                store.delete_job(&job_id).await.map(Reply::Boolean)
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        let closed = caught(|| -> Prepared<'env, _> {
            let store = self.operations.clone();
            // From now on, not from when the future first runs.
            store.gate.close();
            Ok(promise(env, async move { store.close().await.map(|()| Reply::Nothing) })?)
        });
        closed.map_err(|refusal| refusal.into_thrown(env))
    }
}
