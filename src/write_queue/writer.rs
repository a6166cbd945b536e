//! The writer of a job's queue: a task that writes what is queued until the queue is empty. A job has at most one, so that what is queued takes effect
//! in the order of the calls: the records in groups, and the job after the records that were saved before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::group::Group;
use super::group_store::GroupStore;
use super::job_writes::TakenWrites;
use super::queue::Queue;
use super::queues::Queues;
use crate::error::{Quoted, Result};
use crate::order::Initialization;
use crate::panics::{self, caught_in};
use crate::warnings::{Warning, WarningKind, Warnings};

pub struct Writer {
    pub store: GroupStore,
    pub queues: Arc<Queues>,
    pub initialization: Initialization,
    /// Whether it lingers for more saves before it writes a group.
    pub lingers: bool,
    pub warnings: Warnings,
}

impl Writer {
    /// Starts the writer of the job's queue, if something is queued and no writer is running.
    pub fn start(self: &Arc<Self>, job_id: &str) {
        if self.queues.change(job_id, Queue::begin_writing) == Some(true) {
            tokio::spawn(self.clone().run(job_id.to_owned()));
        }
    }

    /// Runs the writer of a queue that counts it as running (`Queue::begin_writing`).
    pub async fn run(self: Arc<Self>, job_id: String) {
        // A panic fails the saves of one group. The next iteration writes the saves behind them.
        while let Err(error) = caught_in(self.clone().write_all(job_id.clone())).await {
            self.warnings.panicked("writing what is queued", error);
        }
    }

    async fn write_all(self: Arc<Self>, job_id: String) -> Result<()> {
        let mut group = Group::new(self.queues.clone(), job_id.clone(), self.warnings.clone());
        loop {
            if self.lingers {
                self.linger(&job_id).await;
            }
            match self.queues.change(&job_id, |queue| queue.job.take_due()).flatten() {
                Some(taken) => self.write_job(&mut group, taken, &job_id).await,
                None => {
                    self.write_group(&mut group).await;
                }
            }
            if self.queues.change(&job_id, Queue::end_writing) != Some(false) {
                return Ok(());
            }
        }
    }

    /// Writes the next group. Returns whether there was one.
    async fn write_group(&self, group: &mut Group) -> bool {
        group.fill().await;
        let has_saves = !group.writes().is_empty();
        if has_saves {
            self.write(group).await;
            group.finish();
        }
        has_saves
    }

    /// Writes the job, after the records that were saved before it.
    async fn write_job(&self, group: &mut Group, taken: TakenWrites, job_id: &str) {
        let TakenWrites {
            writes,
            writer,
            records,
            calls,
        } = taken;
        let mut writing = JobWriting::new(self.queues.clone(), job_id, calls, self.warnings.clone());
        while self.queues.read(job_id, |queue| queue.has_written(records)) == Some(false) && self.write_group(group).await {}
        Initialization::wait(self.initialization.before_call()).await;
        panics::fail_point("job writer");
        let has_job = writes.job.is_some();
        let began = Instant::now();
        let written = writer.write_job(job_id, writes).await;
        writing.end(written, has_job.then(|| began.elapsed()));
    }

    /// Lingers for more to be written together.
    async fn linger(&self, job_id: &str) {
        while let Some((rest, wake)) = self.queues.read(job_id, Queue::linger).flatten() {
            // However the wait ends, the queue decides whether to linger on.
            let _ = timeout(rest, wake.notified()).await;
        }
    }

    async fn write(&self, group: &mut Group) {
        group.sort();
        Initialization::wait(self.initialization.before_call()).await;
        let limits = match self.store.limits().await {
            Ok(limits) => limits,
            Err(error) => return group.fail(&error),
        };
        panics::fail_point("writer");
        group.fit(&limits);
        if !group.writes().is_empty() {
            let results = match group.take_end() {
                Some(batch) => self.store.write_group_and_end(group.writes(), &batch).await,
                None => self.store.write_group(group.writes()).await,
            };
            group.answer(results);
        }
    }
}

/// Ends the writing of calls that were taken from the queue, also if it panics: they are not written then.
struct JobWriting<'a> {
    queues: Arc<Queues>,
    job_id: &'a str,
    calls: u64,
    warnings: Warnings,
}

impl<'a> JobWriting<'a> {
    fn new(queues: Arc<Queues>, job_id: &'a str, calls: u64, warnings: Warnings) -> Self {
        Self {
            queues,
            job_id,
            calls,
            warnings,
        }
    }

    fn end(&mut self, written: Result<()>, took: Option<Duration>) {
        if let Err(error) = &written {
            let message = format!(
                "job {} could not be stored after the call was answered: {}",
                Quoted(self.job_id),
                error.message
            );
            let failed = Warning::new(WarningKind::QueuedWriteFailed, message).job(self.job_id);
            self.warnings.warn(failed.error(error.clone()));
        }
        self.queues.change(self.job_id, |queue| {
            queue.failures.settle_job(self.job_id, written);
            queue.job.finish(self.calls, took);
        });
    }
}

impl Drop for JobWriting<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(Err(panics::defect()), None);
        }
    }
}
