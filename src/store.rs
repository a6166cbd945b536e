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

use crate::connection::{PasswordFunction, Settings};
use crate::error::{Error, Result};
use crate::json::{JsPasswordFunction, Outcome, PasswordRequest, Refusal, Reply, encode, promise, refused, resolved, string};
use crate::model::{BatchState, ID_LENGTH, Job, JobFilter, Record, RecordPage, RecordStatus, WORKER_ID_LENGTH, check_id, token_from_json};
use crate::operations::Operations;
use crate::order::Pass;
use crate::panics::{self, caught, caught_in};
use crate::record_writer::SavePlace;

type Promise<'env> = napi::Result<PromiseRaw<'env, Outcome>>;
type Prepared<'env, T> = std::result::Result<T, Refusal<'env>>;

/// See `index.d.ts`, which documents each method.
#[napi]
pub struct SqlxStateStore {
    operations: Arc<Operations>,
}

fn id<'env>(what: &str, value: Unknown<'env>, longest: usize) -> Prepared<'env, String> {
    let kind = value.get_type()?;
    let Some(id) = string(value)? else {
        return Err(Error::invalid(format!("{what} must be a string, not {}", kind_name(kind))).into());
    };
    check_id(&what, &id, longest)?;
    Ok(id)
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

fn token<'env>(env: &'env Env, fence: Unknown<'env>) -> Prepared<'env, Option<i32>> {
    if is_absent(&fence)? {
        Ok(None)
    } else {
        Ok(token_from_json(&encode(env, "options", "fence", fence)?)?)
    }
}

/// `options`, where they may be left out.
fn options<'env>(env: &'env Env, value: Unknown<'env>) -> Prepared<'env, String> {
    if is_absent(&value)? {
        Ok("{}".to_owned())
    } else {
        encode(env, "options", "options", value)
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
        let operations = caught(|| -> Prepared<'_, Arc<Operations>> {
            panics::due("constructor");
            let source = encode(env, "connection", "connection", connection)?;
            let settings = Settings::from_json(&source, &options(env, store_options)?)?;
            let function = match &password {
                Some(function) => Some(Arc::new(JsPasswordFunction::new(function)?) as Arc<dyn PasswordFunction>),
                None => None,
            };
            Ok(Operations::new(settings.with_password_function(function)?))
        });
        Ok(Self {
            operations: operations.map_err(|refusal| refusal.into_thrown(env))?,
        })
    }

    /// A call that may begin unless the store is closed, and that `close` waits for.
    fn call<'env, F>(&self, env: &'env Env, prepare: impl FnOnce(Arc<Operations>) -> Prepared<'env, F>) -> Promise<'env>
    where
        F: Future<Output = Result<Reply>> + Send + 'static,
    {
        let call = caught(|| -> Prepared<'env, _> {
            let pass = self.operations.gate.enter()?;
            panics::due("arguments");
            let future = prepare(self.operations.clone())?;
            Ok(async move {
                panics::due("call");
                let outcome = future.await;
                drop(pass);
                outcome
            })
        });
        match call {
            Ok(call) => promise(env, call),
            Err(refusal) => refused(env, refusal),
        }
    }

    #[napi(catch_unwind)]
    pub fn initialize<'env>(&self, env: &'env Env) -> Promise<'env> {
        self.call(env, |store| Ok(async move { store.initialize().await.map(|()| Reply::Nothing) }))
    }

    #[napi(catch_unwind)]
    pub fn save_job_state<'env>(&self, env: &'env Env, job: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job = Job::from_json(&encode(env, "job", "job", job)?)?;
            let mut turn = store.turns.of_job(&job.id);
            Ok(async move {
                turn.wait().await;
                store.save_job(job).await.map(|()| Reply::Nothing)
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_job_state<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
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
    ) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let state = BatchState::from_json(&batch_id, &encode(env, "state", "state", state)?)?;
            let token = token(env, fence)?;
            let mut turn = store.turns.of_batch(&job_id, &batch_id);
            Ok(async move {
                turn.wait().await;
                store.update_batch(&job_id, &batch_id, state, token).await.map(|()| Reply::Nothing)
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
    ) -> Promise<'env> {
        let saved = caught(|| -> Prepared<'env, _> {
            let pass = self.operations.gate.enter()?;
            panics::due("arguments");
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let record = Record::from_json(&"record", &encode(env, "record", "record", record)?)?;
            let token = token(env, fence)?;
            let place = self.operations.save_record(job_id, batch_id, record, token)?;
            Ok(self.saved(env, pass, place)?)
        });
        saved.or_else(|refusal| refused(env, refusal))
    }

    /// The promise of a save that has its place.
    fn saved<'env>(&self, env: &'env Env, pass: Pass, place: SavePlace) -> Promise<'env> {
        if !place.is_settled() {
            let saved = self.operations.saved(place);
            return promise(env, async move {
                let outcome = saved.await;
                drop(pass);
                outcome.map(|()| Reply::Nothing)
            });
        }
        if place.needs_writer()
            && let Some(writing) = self.operations.writer(&place)
        {
            spawn(writing);
        }
        // A queue that is not empty keeps the process alive: as this promise does, which nobody sees.
        if self.operations.needs_keeper() {
            let written = self.operations.until_written();
            promise(env, async move {
                // It must not reject, for nobody would catch that.
                let _ = caught_in(async move {
                    written.await;
                    Ok(())
                })
                .await;
                Ok(Reply::Nothing)
            })?;
        }
        resolved(env)
    }

    #[napi(catch_unwind)]
    pub fn save_batch_records<'env>(
        &self,
        env: &'env Env,
        job_id: Unknown<'env>,
        batch_id: Unknown<'env>,
        records: Unknown<'env>,
    ) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let records = Record::list_from_json("records", &encode(env, "records", "records", records)?)?;
            let place = (!records.is_empty()).then(|| store.enter_bulk(&job_id, &records));
            Ok(async move {
                if let Some(place) = place {
                    store.save_records(place, job_id, batch_id, records).await?;
                }
                Ok(Reply::Nothing)
            })
        })
    }

    fn records_with_status<'env>(&self, env: &'env Env, job_id: Unknown<'env>, statuses: [RecordStatus; 2]) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.records_with_status(&job_id, statuses).await.map(Reply::Records) })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_failed_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.records_with_status(env, job_id, [RecordStatus::Failed, RecordStatus::Invalid])
    }

    #[napi(catch_unwind)]
    pub fn get_pending_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.records_with_status(env, job_id, [RecordStatus::Pending, RecordStatus::Valid])
    }

    #[napi(catch_unwind)]
    pub fn get_processed_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.records_with_status(env, job_id, [RecordStatus::Processed, RecordStatus::Processed])
    }

    #[napi(catch_unwind)]
    pub fn get_batch_records<'env>(&self, env: &'env Env, job_id: Unknown<'env>, batch_id: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            Ok(async move { store.records_of_batch(&job_id, &batch_id).await.map(Reply::Records) })
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
    ) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let page = RecordPage::from_json(&options(env, page_options)?, after, limit)?;
            Ok(async move {
                let records = store.record_page(&job_id, page).await?.into_page();
                Ok(Reply::Json(format!("{{\"bytes\":{},\"records\":{records}}}", records.len())))
            })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_progress<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.progress(&job_id).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn claim_batch<'env>(&self, env: &'env Env, job_id: Unknown<'env>, worker_id: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let worker_id = id("workerId", worker_id, WORKER_ID_LENGTH)?;
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
    ) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let worker_id = id("workerId", worker_id, WORKER_ID_LENGTH)?;
            Ok(async move { store.release_batch(&job_id, &batch_id, &worker_id).await.map(|()| Reply::Nothing) })
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
    ) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let batch_id = id("batchId", batch_id, ID_LENGTH)?;
            let worker_id = id("workerId", worker_id, WORKER_ID_LENGTH)?;
            let token = token(env, fence)?;
            Ok(async move { store.renew_batch(&job_id, &batch_id, &worker_id, token).await.map(Reply::Boolean) })
        })
    }

    #[napi(catch_unwind)]
    pub fn reclaim_stale_batches<'env>(&self, env: &'env Env, job_id: Unknown<'env>, timeout_ms: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            let older_than = duration("timeoutMs", timeout_ms)?;
            Ok(async move { store.reclaim_stale_batches(&job_id, older_than).await.map(Reply::Number) })
        })
    }

    #[napi(catch_unwind)]
    pub fn get_distributed_status<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.distributed_status(&job_id).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn try_finalize_job<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let job_id = id("jobId", job_id, ID_LENGTH)?;
            Ok(async move { store.try_finalize_job(&job_id).await.map(Reply::Boolean) })
        })
    }

    #[napi(catch_unwind)]
    pub fn list_jobs<'env>(&self, env: &'env Env, filter: Unknown<'env>) -> Promise<'env> {
        self.call(env, |store| {
            let filter = JobFilter::from_json(&options(env, filter)?)?;
            Ok(async move { store.list_jobs(filter).await.map(Reply::Json) })
        })
    }

    #[napi(catch_unwind)]
    pub fn delete_job<'env>(&self, env: &'env Env, job_id: Unknown<'env>) -> Promise<'env> {
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
    pub fn close<'env>(&self, env: &'env Env) -> Promise<'env> {
        let closed = caught(|| -> Prepared<'env, _> {
            let store = self.operations.clone();
            // From now on, not from when the future first runs.
            store.gate.close();
            Ok(promise(env, async move { store.close().await.map(|()| Reply::Nothing) })?)
        });
        closed.or_else(|refusal| refused(env, refusal))
    }
}
