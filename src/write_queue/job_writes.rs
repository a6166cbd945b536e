//! What is queued of a job besides its records: the job as `saveJobState` gave it last, and states of batches. Only with `durability: 'batch'`.
//!
//! An import that is not distributed saves the whole job once a batch and sets each batch's state twice. Of these calls only what the last one leaves
//! is written: a job replaces the one that was queued before it, a state the earlier one of its batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::done::Done;
use crate::error::Result;
use crate::model::{BatchState, Job};

/// How long what is queued may wait to be written with more.
pub const DELAY: Duration = Duration::from_millis(50);
/// A long list takes long to write, so it is written less often: it may take a tenth of the time, but waits no longer than this.
const LONGEST_DELAY: Duration = Duration::from_millis(500);
const SHARE: u32 = 10;
/// While more states of batches are pending, calls on the job are not queued.
const QUEUE_STATES: usize = 1_000;

/// Writes to the database what is queued of a job.
#[async_trait]
pub trait WriteJob: Send + Sync {
    async fn write_job(&self, job_id: &str, writes: JobWrites) -> Result<()>;
}

/// The states of batches, by id.
pub type States = BTreeMap<String, BatchState>;

/// Calls that are written together.
#[derive(Default)]
pub struct JobWrites {
    /// States that were set before the job was saved, or without a job.
    pub before: States,
    pub job: Option<Job>,
    /// States that were set after the job was saved.
    pub after: States,
    /// `Backend::file` when the first of the calls was queued.
    pub file: Option<u64>,
}

impl JobWrites {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.job.is_none() && self.after.is_empty()
    }

    fn has_room(&self) -> bool {
        self.before.len() + self.after.len() < QUEUE_STATES
    }

    fn save(&mut self, job: Job) {
        self.before.append(&mut self.after);
        self.job = Some(job);
    }

    fn set_state(&mut self, batch_id: String, state: BatchState) {
        let states = if self.job.is_some() { &mut self.after } else { &mut self.before };
        states.insert(batch_id, state);
    }

    /// Removes the states of batches that the job does not list yet: the next job will, and then they need no statement of their own.
    fn split_off_unlisted(&mut self) -> States {
        let Some(list) = self.job.as_ref().and_then(|job| job.captured.as_ref()) else {
            return States::new();
        };
        let (listed, unlisted) = std::mem::take(&mut self.after)
            .into_iter()
            .partition(|(batch_id, _)| list.contains(batch_id));
        self.after = listed;
        unlisted
    }
}

/// What the writer has taken.
pub struct TakenWrites {
    pub writes: JobWrites,
    pub writer: Arc<dyn WriteJob>,
    /// The number of records that were saved before the last of the calls, and must be written before them.
    pub records: u64,
    /// The number of calls made up to the last one.
    pub calls: u64,
}

/// The queued calls of one job.
#[derive(Default)]
pub struct JobQueue {
    pending: JobWrites,
    /// Who writes them. Kept only while something is pending, because it holds the store.
    writer: Option<Arc<dyn WriteJob>>,
    /// The number of records that were saved before the last call.
    records: u64,
    /// When the first of the pending calls was made.
    since: Option<Instant>,
    /// When the first of the states after the job was set.
    after_since: Option<Instant>,
    /// The number of calls ever made here.
    made: u64,
    /// The number of them that are done. They are written in order, so these are the first ones.
    done: watch::Sender<u64>,
    flush_target: u64,
    /// How long writing the job took last.
    last_writing: Duration,
}

impl JobQueue {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.pending.has_room()
    }

    fn note(&mut self, writer: Arc<dyn WriteJob>, file: Option<u64>, records: u64) {
        if self.pending.is_empty() {
            self.pending.file = file;
            self.since = Some(Instant::now());
        }
        self.writer = Some(writer);
        self.records = records;
        self.made += 1;
    }

    /// `records`: the number of records saved before.
    pub fn save(&mut self, job: Job, writer: Arc<dyn WriteJob>, records: u64) {
        self.note(writer, job.file, records);
        self.after_since = None;
        self.pending.save(job);
    }

    pub fn set_state(&mut self, batch_id: String, state: BatchState, file: Option<u64>, writer: Arc<dyn WriteJob>, records: u64) {
        self.note(writer, file, records);
        self.pending.set_state(batch_id, state);
        if !self.pending.after.is_empty() {
            self.after_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether all calls made here are written.
    pub fn is_done(&self) -> bool {
        *self.done.borrow() == self.made
    }

    fn is_flushed(&self) -> bool {
        *self.done.borrow() < self.flush_target
    }

    /// How long the pending calls may still wait. Zero: they are due. `None`: nothing is pending.
    pub fn rest(&self) -> Option<Duration> {
        let since = self.since?;
        if self.is_flushed() {
            return Some(Duration::ZERO);
        }
        Some(self.delay().saturating_sub(since.elapsed()))
    }

    fn delay(&self) -> Duration {
        match self.pending.job {
            Some(_) => (self.last_writing * SHARE).clamp(DELAY, LONGEST_DELAY),
            None => DELAY,
        }
    }

    /// Takes the pending calls, if they are due.
    pub fn take_due(&mut self) -> Option<TakenWrites> {
        if !self.rest()?.is_zero() {
            return None;
        }
        let writer = self.writer.take()?;
        let mut writes = std::mem::take(&mut self.pending);
        let unlisted = if self.is_flushed() {
            States::new()
        } else {
            writes.split_off_unlisted()
        };
        // The calls that stay count as made again.
        let calls = self.made;
        self.since = None;
        let after_since = self.after_since.take();
        if !unlisted.is_empty() {
            self.pending.before = unlisted;
            self.pending.file = writes.file;
            self.since = after_since.or_else(|| Some(Instant::now()));
            self.writer = Some(writer.clone());
            self.made += 1;
        }
        Some(TakenWrites {
            writes,
            writer,
            records: self.records,
            calls,
        })
    }

    /// Counts taken calls as done. `took`: how long writing the job took, if there was one.
    pub fn finish(&mut self, calls: u64, took: Option<Duration>) {
        self.last_writing = took.unwrap_or(self.last_writing);
        self.done.send_replace(calls);
    }

    /// Flushes the calls made so far. `None` if they are done.
    pub fn request_flush(&mut self) -> Option<Done> {
        if self.is_done() {
            return None;
        }
        self.flush_target = self.made;
        Some(Done::new(self.made, &self.done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CapturedList;

    #[test]
    fn a_job_waits_ten_times_as_long_as_its_last_writing_took_within_bounds() {
        let milliseconds = Duration::from_millis;
        let job = r#"{"id":"job","config":{},"status":"PROCESSING","changes":{"length":0,"places":[],"batches":[]}}"#;
        let job = Job::from_change(job, &mut CapturedList::default()).unwrap();
        let mut queue = JobQueue::default();
        for (took, delay) in [(0, 50), (5, 50), (6, 60), (20, 200), (50, 500), (10_000, 500)] {
            queue.finish(0, Some(milliseconds(took)));
            queue.pending.job = Some(job.clone());
            assert_eq!(queue.delay(), milliseconds(delay), "after {took} ms");
            // States alone take one short statement each.
            queue.pending.job = None;
            assert_eq!(queue.delay(), milliseconds(50));
        }
    }
}
