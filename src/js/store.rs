//! The JavaScript surface. Each method reads its arguments and delegates to `Operations`; it decides nothing.
//!
//! No method is an `async fn`: terminating a worker thread during such a call is a use after free. What a call needs is cloned into a future that
//! owns it.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Function, PromiseRaw, Unknown, spawn};
use napi::threadsafe_function::UnknownReturnValue;
use napi_derive::napi;

use super::arguments::{Argument, batch_id, batch_key, duration, job_id, options, token, worker_id};
use super::boundary::{Outcome, Reply, promise, text};
use super::password::{JsPasswordFunction, PasswordRequest};
use super::results::IntoReply;
use super::warnings::JsWarnings;
use crate::model::{
    AbortOptions, BatchPage, BatchState, CapturedList, Job, JobFilter, PurgeOptions, Record, RecordPage, RecordStatus, RetryOptions,
};
use crate::operations::{Answer, Entered, Operations};
use crate::panics::{self, caught};
use crate::settings::{PasswordFunction, Settings, newly_ignored};
use crate::warnings::Warnings;
use crate::write_queue::Saved;

type Promise<'env> = PromiseRaw<'env, Outcome>;

/// See `index.d.ts`, which documents each method.
#[napi]
pub struct SqlxStateStore {
    operations: Arc<Operations>,
    /// Parameters of the connection that have no effect and have not been reported before.
    ignored: Vec<String>,
    /// Where the database is, as JSON text.
    server: String,
}

#[napi]
impl SqlxStateStore {
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: &Env,
        connection: Unknown<'_>,
        store_options: Unknown<'_>,
        password: Option<Function<'_, PasswordRequest, UnknownReturnValue>>,
        warn: Option<Function<'_, String, UnknownReturnValue>>,
    ) -> napi::Result<Self> {
        let made = caught(|| -> Argument<'_, Self> {
            panics::fail_point("constructor");
            let source = text(connection)?;
            let settings = Settings::from_json(&source, &options(store_options)?)?;
            let function = match &password {
                Some(function) => Some(Arc::new(JsPasswordFunction::new(function)?) as Arc<dyn PasswordFunction>),
                None => None,
            };
            let settings = settings.with_password_function(function)?;
            let server = settings.server();
            let text = server.to_string();
            let warnings = match &warn {
                Some(warn) => Warnings::to(Arc::new(JsWarnings::new(warn, server)?)),
                None => Warnings::default(),
            };
            let settings = settings.with_warnings(warnings);
            Ok(Self {
                ignored: newly_ignored(&settings.ignored),
                server: text,
                operations: Operations::new(settings),
            })
        });
        made.map_err(|refusal| refusal.into_thrown(env))
    }

    /// For `index.js`, which emits warnings about them.
    #[napi(js_name = "_ignoredParameters", catch_unwind)]
    pub fn ignored_parameters(&self) -> Vec<String> {
        self.ignored.clone()
    }

    /// For `index.js`, which says with each traced call where it went.
    #[napi(js_name = "_server", catch_unwind)]
    pub fn server(&self) -> String {
        self.server.clone()
    }

    /// For `index.js`: settles in the event loop's next turn.
    #[napi(js_name = "_turn", catch_unwind)]
    pub fn turn<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        promise(env, async { Ok(Reply::Nothing) })
    }

    /// For `batchactions-sqlx doctor`.
    #[napi(catch_unwind, js_name = "_examine")]
    pub fn examine<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.examine()))
    }

    /// Enters the store, reads the arguments and begins the call. An immediate refusal is thrown, so that `index.js` creates the error while its
    /// caller is on the stack.
    fn begin<'env, T>(&self, env: &'env Env, call: impl FnOnce(Entered) -> Argument<'env, T>) -> napi::Result<T> {
        let begun = caught(|| {
            let store = self.operations.enter()?;
            panics::fail_point("arguments");
            call(store)
        });
        begun.map_err(|refusal| refusal.into_thrown(env))
    }

    /// A call that returns a promise.
    fn call<'env, T, F>(&self, env: &'env Env, call: impl FnOnce(Entered) -> Argument<'env, F>) -> napi::Result<Promise<'env>>
    where
        T: IntoReply,
        F: Answer<T>,
    {
        let answer = self.begin(env, call)?;
        promise(env, async move { answer.await?.into_reply() })
    }

    #[napi(catch_unwind)]
    pub fn initialize<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.initialize()))
    }

    /// Returns no promise if the job is queued, because the call is then answered.
    #[napi(catch_unwind)]
    pub fn save_job_state<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Option<Promise<'env>>> {
        self.begin(env, |store| {
            let job = Job::from_json(&text(job)?)?;
            Ok(run_save(env, store.save_job(job)?)?)
        })
    }

    /// As `save_job_state`, for a job whose list is given by what changed in it since it was captured last.
    #[napi(catch_unwind, js_name = "_saveChangedJobState")]
    pub fn save_changed_job_state<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        captured: &mut CapturedBatches,
    ) -> napi::Result<Option<Promise<'env>>> {
        self.begin(env, |store| {
            let job = Job::from_change(&text(job)?, &mut captured.list)?;
            Ok(run_save(env, store.save_job(job)?)?)
        })
    }

    #[napi(catch_unwind)]
    pub fn get_job_state<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.job(job_id(job)?)))
    }

    /// Returns no promise if the state is queued, because the call is then answered.
    #[napi(catch_unwind)]
    pub fn update_batch_state<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        batch: Unknown<'env>,
        state: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Option<Promise<'env>>> {
        self.begin(env, |store| {
            let key = batch_key(job, batch)?;
            let state = BatchState::from_json(&key.batch_id, &text(state)?)?;
            Ok(run_save(env, store.update_batch_state(key, state, token(fence)?)?)?)
        })
    }

    /// Returns no promise if the record is queued, because the save is then answered.
    #[napi(catch_unwind)]
    pub fn save_processed_record<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        batch: Unknown<'env>,
        record: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Option<Promise<'env>>> {
        self.begin(env, |store| {
            let key = batch_key(job, batch)?;
            let record = Record::from_json(&"record", &text(record)?)?;
            Ok(run_save(env, store.save_record(key, record, token(fence)?)?)?)
        })
    }

    #[napi(catch_unwind)]
    pub fn save_batch_records<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        batch: Unknown<'env>,
        records: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let (job_id, batch_id) = (job_id(job)?, batch_id(batch)?);
            Ok(store.save_records(job_id, batch_id, Record::list_from_json("records", &text(records)?)?))
        })
    }

    fn records_with_status<'env>(&self, env: &'env Env, job: Unknown<'env>, statuses: [RecordStatus; 2]) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.records_with_status(job_id(job)?, statuses)))
    }

    #[napi(catch_unwind)]
    pub fn get_failed_records<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job, [RecordStatus::Failed, RecordStatus::Invalid])
    }

    #[napi(catch_unwind)]
    pub fn get_pending_records<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job, [RecordStatus::Pending, RecordStatus::Valid])
    }

    #[napi(catch_unwind)]
    pub fn get_processed_records<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.records_with_status(env, job, [RecordStatus::Processed, RecordStatus::Processed])
    }

    #[napi(catch_unwind)]
    pub fn get_batch_records<'env>(&self, env: &'env Env, job: Unknown<'env>, batch: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.records_of_batch(batch_key(job, batch)?)))
    }

    /// One page of `records`, with its length in bytes: up to `limit` records behind the index `after`, or from the beginning if that is undefined.
    /// It has as many as fit into a page, and at least one.
    #[napi(catch_unwind, js_name = "_recordPage")]
    pub fn record_page<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        page_options: Unknown<'env>,
        after: Option<i32>,
        limit: i32,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = job_id(job)?;
            Ok(store.record_page(job_id, RecordPage::from_json(&options(page_options)?, after, limit)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn get_progress<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.progress(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn claim_batch<'env>(&self, env: &'env Env, job: Unknown<'env>, worker: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.claim_batch(job_id(job)?, worker_id(worker)?)))
    }

    #[napi(catch_unwind)]
    pub fn release_batch<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        batch: Unknown<'env>,
        worker: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.release_batch(batch_key(job, batch)?, worker_id(worker)?)))
    }

    #[napi(catch_unwind)]
    pub fn renew_batch<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        batch: Unknown<'env>,
        worker: Unknown<'env>,
        fence: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            Ok(store.renew_batch(batch_key(job, batch)?, worker_id(worker)?, token(fence)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn reclaim_stale_batches<'env>(
        &self,
        env: &'env Env,
        job: Unknown<'env>,
        timeout_ms: Unknown<'env>,
    ) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            Ok(store.reclaim_stale_batches(job_id(job)?, duration("timeoutMs", timeout_ms)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn get_distributed_status<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.distributed_status(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn try_finalize_job<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.try_finalize_job(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn list_jobs<'env>(&self, env: &'env Env, filter: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.list_jobs(JobFilter::from_json(&options(filter)?)?)))
    }

    #[napi(catch_unwind)]
    pub fn get_job<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.job_row(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn batches<'env>(&self, env: &'env Env, job: Unknown<'env>, page_options: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = job_id(job)?;
            Ok(store.batches(job_id, BatchPage::from_json(&options(page_options)?)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn stats<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.stats()))
    }

    #[napi(catch_unwind)]
    pub fn ping<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.ping()))
    }

    /// For `index.js`, which makes the object: used, idle, pending, max. It does not enter the store, because it works on a closed one.
    #[napi(catch_unwind, js_name = "_poolStats")]
    pub fn pool_stats(&self) -> Vec<u32> {
        let now = self.operations.pool_use();
        vec![now.used, now.idle, now.pending, now.max]
    }

    #[napi(catch_unwind)]
    pub fn delete_job<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.delete_job(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn pause_job<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.pause_job(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn resume_job<'env>(&self, env: &'env Env, job: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.resume_job(job_id(job)?)))
    }

    #[napi(catch_unwind)]
    pub fn abort_job<'env>(&self, env: &'env Env, job: Unknown<'env>, how: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = job_id(job)?;
            Ok(store.abort_job(job_id, AbortOptions::from_json(&options(how)?)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn retry_failed<'env>(&self, env: &'env Env, job: Unknown<'env>, which: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| {
            let job_id = job_id(job)?;
            Ok(store.retry_failed(job_id, RetryOptions::from_json(&options(which)?)?))
        })
    }

    #[napi(catch_unwind)]
    pub fn purge<'env>(&self, env: &'env Env, which: Unknown<'env>) -> napi::Result<Promise<'env>> {
        self.call(env, |store| Ok(store.purge(PurgeOptions::from_json(&options(which)?)?)))
    }

    /// The one call that does not enter the store, because it may be repeated on a closed store.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Promise<'env>> {
        let closed = self.operations.close();
        promise(env, async move { closed.await?.into_reply() })
    }
}

/// The list of a job's batches as it was captured last. `index.js` keeps it beside the values that it has captured.
#[napi]
#[derive(Default)]
pub struct CapturedBatches {
    list: CapturedList,
}

#[napi]
impl CapturedBatches {
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Starts the work that a save leaves behind, and returns the save's promise if it is not answered yet.
fn run_save(env: &Env, saved: Saved<impl Answer<()>>) -> napi::Result<Option<Promise<'_>>> {
    match saved {
        Saved::Pending(answer) => promise(env, async move { answer.await?.into_reply() }).map(Some),
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
