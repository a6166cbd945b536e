//! What is queued of each job: saves of single records, which are written in groups, and with `durability: 'batch'` the job and the states of its
//! batches.
//!
//! Each job has a queue and one running write. Saves made meanwhile go into the next write (group commit, as databases do it for their logs: DeWitt
//! et al., "Implementation Techniques for Main Memory Database Systems", 1984). So a job's saves take effect in the order of the calls, and callers
//! that wait share a commit. A job whose rows are locked by another transaction does not delay other jobs.
//!
//! With `durability: 'batch'`, a save is answered when it has its place in the queue. It is written together with later ones: when a group is full,
//! after 50 ms, or when another call on the job has to see it. The caller already has its answer, so a failed write is recorded: the batch's calls
//! are rejected until its records are saved again.
//!
//! ```text
//! queue, queues   waiting saves, of one job and of all jobs
//! writer          the task that writes a job's queue
//! group           saves that are written together
//! group_store     writes a group, and splits it if it fails
//! ending          the end of a claimed batch, written with its last records
//! done            a wait until what was queued is written
//! failures        answered saves that could not be stored
//! job_writes      the queued job and the states of its batches
//! bulk            the order of bulk saves among the single saves
//! ```

mod bulk;
mod done;
mod ending;
mod failures;
mod group;
mod group_store;
mod job_writes;
mod queue;
mod queues;
mod writer;

use std::collections::HashSet;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

pub use bulk::BulkPlace;
pub use ending::EndingBatch;
use failures::Failures;
use group_store::GroupStore;
pub use job_writes::{JobWrites, States, WriteJob};
use queue::Queue;
use queues::Queues;
use writer::Writer;

use crate::backend::{Backend, RecordWrite};
use crate::error::{Error, Result};
use crate::model::{BatchKey, BatchState, Job, Record};
use crate::order::Initialization;
use crate::retry::Retry;
use crate::settings::Durability;
use crate::warnings::Warnings;

/// While more jobs have something queued, jobs and states of batches are not.
const QUEUED_JOBS: usize = 1_000;

/// Work that continues after a call is answered. It does nothing unless it is run.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The outcome of making a save.
pub enum Saved<Pending = PendingSave> {
    /// It is answered: it is queued, and the queue has room for more.
    Answered {
        /// Writes the job's queue, if no writer is running.
        writing: Option<Background>,
        /// Ends when the queue is empty. Until then the process must stay alive.
        keep_alive: Option<Background>,
    },
    /// It is not answered yet.
    Pending(Pending),
}

/// A save that waits for its answer.
pub struct PendingSave {
    writer: Arc<Writer>,
    job_id: String,
    answer: oneshot::Receiver<Result<()>>,
}

impl PendingSave {
    /// Starts the writing, and waits for the save's answer.
    pub async fn answer(self) -> Result<()> {
        self.writer.start(&self.job_id);
        let answer = self.answer.await;
        answer.unwrap_or_else(|_| Err(Error::internal("a save was dropped before it was written")))
    }
}

pub struct WriteQueue {
    writer: Arc<Writer>,
    queues: Arc<Queues>,
    durability: Durability,
}

impl WriteQueue {
    pub fn new(
        backend: Arc<dyn Backend>,
        retry: Retry,
        durability: Durability,
        initialization: Initialization,
        warnings: Warnings,
    ) -> Self {
        let queues = Arc::new(Queues::default());
        let writer = Writer {
            store: GroupStore::new(backend, retry, durability),
            queues: queues.clone(),
            initialization,
            lingers: durability == Durability::Batch,
            warnings,
        };
        Self {
            writer: Arc::new(writer),
            queues,
            durability,
        }
    }

    /// Takes a record's place in the queue of its job, on the caller's thread.
    pub fn save(&self, write: RecordWrite) -> Result<Saved> {
        let job_id = write.job_id.clone();
        let (answer, begins) = self.queues.enter(&job_id, |queue| {
            queue.failures.check_save(&write)?;
            let answer = queue.push(write, self.durability);
            // A pending save starts the writer when it is awaited.
            let begins = answer.is_none() && queue.begin_writing();
            Ok::<_, Error>((answer, begins))
        })?;
        Ok(match answer {
            Some(answer) => Saved::Pending(PendingSave {
                writer: self.writer.clone(),
                job_id,
                answer,
            }),
            None => self.answered(job_id, begins),
        })
    }

    /// A call that is queued. `begins`: no writer is running.
    fn answered<Pending>(&self, job_id: String, begins: bool) -> Saved<Pending> {
        Saved::Answered {
            writing: begins.then(|| Box::pin(self.writer.clone().run(job_id)) as Background),
            keep_alive: self.queues.needs_keep_alive().then(|| self.keep_alive()),
        }
    }

    /// Whether the job and states of its batches may be queued. If not, their calls wait until what is queued is written.
    pub fn queues_job(&self, job_id: &str) -> bool {
        let has_room = || self.queues.read(job_id, |queue| queue.job.has_room()).unwrap_or(true);
        self.durability == Durability::Batch && self.queues.busy() < QUEUED_JOBS && has_room()
    }

    /// Queues a job, on the caller's thread. Rejects if something that was queued for it could not be stored.
    pub fn save_job<Pending>(&self, job: Job, writer: Arc<dyn WriteJob>) -> Result<Saved<Pending>> {
        let job_id = job.id.clone();
        let begins = self.queues.enter(&job_id, |queue| {
            queue.failures.check_queued_call()?;
            let records = queue.saves_made();
            queue.job.save(job, writer, records);
            Ok::<_, Error>(queue.begin_writing())
        })?;
        Ok(self.answered(job_id, begins))
    }

    /// Queues the state of a batch, like `save_job`.
    pub fn set_batch_state<Pending>(
        &self,
        BatchKey { job_id, batch_id }: BatchKey,
        state: BatchState,
        file: Option<u64>,
        writer: Arc<dyn WriteJob>,
    ) -> Result<Saved<Pending>> {
        let begins = self.queues.enter(&job_id, |queue| {
            queue.failures.check_queued_call()?;
            let records = queue.saves_made();
            queue.job.set_state(batch_id, state, file, writer, records);
            Ok::<_, Error>(queue.begin_writing())
        })?;
        Ok(self.answered(job_id, begins))
    }

    /// A job without a queue has no failures.
    fn checked(&self, job_id: &str, check: impl FnOnce(&Failures) -> Result<()>) -> Result<()> {
        self.queues.read(job_id, |queue| check(&queue.failures)).unwrap_or(Ok(()))
    }

    /// Rejects if anything that was queued for the job could not be stored.
    pub fn check_job(&self, job_id: &str) -> Result<()> {
        self.checked(job_id, Failures::check_all)
    }

    /// Rejects if the job, or the state of a batch, was queued and could not be stored.
    pub fn check_job_writes(&self, job_id: &str) -> Result<()> {
        self.checked(job_id, Failures::check_job_writes)
    }

    /// The job was stored as a whole, and with it the states of its batches. Failures of records stay.
    pub fn clear_job_failure(&self, job_id: &str) {
        self.queues.change(job_id, |queue| queue.failures.clear_job());
    }

    fn keep_alive(&self) -> Background {
        let queues = self.queues.clone();
        let idle = async move { queues.wait_until_idle().await };
        // No call waits for it, so a panic in it has no caller to reject.
        let watched = self.writer.warnings.clone().watch("the wait for an empty queue", idle);
        Box::pin(async move {
            watched.await;
        })
    }

    /// Takes the place of a bulk save of records in this range, on the caller's thread.
    pub fn enter_bulk(&self, job_id: &str, range: RangeInclusive<i32>) -> BulkPlace {
        BulkPlace::take(self.writer.clone(), job_id, range)
    }

    /// Waits until what was queued for the job is written, successfully or not.
    pub async fn flush(&self, job_id: &str) {
        if self.durability == Durability::Record {
            return;
        }
        let waiting = self.queues.change(job_id, Queue::request_flush).flatten();
        self.writer.start(job_id);
        if let Some(queued) = waiting {
            queued.wait().await;
        }
    }

    /// Waits until the queued jobs and states of batches are written, and the records that were saved before them.
    pub async fn flush_jobs(&self) {
        let flush = |job_id: &String| self.queues.change(job_id, Queue::request_job_flush).flatten();
        // Requested for all of them at once, so that a slow job does not delay the others.
        let waiting: Vec<_> = self.queues.job_ids().iter().filter_map(flush).collect();
        for calls in waiting {
            calls.wait().await;
        }
    }

    /// As `flush`, for a call that ends a claimed batch. `EndingBatch::written` tells whether its end was written with the batch's last records.
    pub async fn flush_ending(&self, batch: &Arc<EndingBatch>) {
        if self.durability == Durability::Record {
            return;
        }
        let job_id = &batch.end.key.job_id;
        let waiting = self.queues.change(job_id, |queue| queue.request_end(batch)).flatten();
        self.writer.start(job_id);
        if let Some(queued) = waiting {
            queued.wait().await;
        }
    }

    /// Waits until what was queued for all jobs is written.
    pub async fn flush_all(&self) {
        let job_ids = self.queues.job_ids();
        // Concurrently, so that a slow job does not delay the others.
        for job_id in &job_ids {
            self.queues.change(job_id, Queue::request_flush);
            self.writer.start(job_id);
        }
        for job_id in &job_ids {
            self.flush(job_id).await;
        }
    }

    /// The batches of a job with queued records that could not be stored.
    pub fn failed_batches(&self, job_id: &str) -> HashSet<String> {
        let batch_ids = self.queues.read(job_id, |queue| queue.failures.batch_ids());
        batch_ids.unwrap_or_default()
    }

    /// Rejects if queued records of the batch could not be stored.
    pub fn check(&self, key: &BatchKey) -> Result<()> {
        self.checked(&key.job_id, |failures| failures.check_batch(&key.batch_id))
    }

    /// Rejects a bulk save to a batch with failures, unless it repeats some of the failed saves.
    pub fn check_bulk(&self, job_id: &str, batch_id: &str, records: &[Record]) -> Result<()> {
        self.checked(job_id, |failures| failures.check_bulk(batch_id, records))
    }

    /// Rejects if queued records of any batch could not be stored.
    pub fn check_all(&self) -> Result<()> {
        let failed = self.queues.find(|queue| queue.failures.check_all().err());
        failed.map_or(Ok(()), Err)
    }

    /// Clears the failures of records that a bulk save has stored.
    pub fn clear_failures(&self, job_id: &str, records: impl IntoIterator<Item = i32>) {
        self.queues.change(job_id, |queue| queue.failures.clear_failures(records));
    }

    /// Forgets the failures of a batch that is processed again, here or in another process.
    pub fn forget_batch(&self, key: &BatchKey) {
        self.queues.change(&key.job_id, |queue| queue.failures.forget_batch(&key.batch_id));
    }

    /// Forgets the lost claims on the job's batches.
    pub fn forget_claims(&self, job_id: &str) {
        self.queues.change(job_id, |queue| queue.failures.forget_claims());
    }

    /// Forgets all failures of a deleted job.
    pub fn forget_job(&self, job_id: &str) {
        self.queues.change(job_id, |queue| queue.failures.forget_all());
    }
}
