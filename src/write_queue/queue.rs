//! One job's queue: single saves that wait to be written, in the order of the calls, the calls on the job and its batches among them (`job_writes`), and
//! the bulk saves that run beside them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use super::done::Done;
use super::ending::{EndingBatch, Endings};
use super::failures::Failures;
use super::job_writes::{DELAY, JobQueue};
use crate::backend::{RecordWrite, size_of};
use crate::error::Result;
use crate::model::{BatchKey, Token};
use crate::settings::Durability;

/// The maximum number of records in one group.
pub const GROUP_RECORDS: usize = 1_000;
/// The approximate maximum size of a group in bytes: below every server's default limit on a statement.
pub const GROUP_BYTES: usize = 4 << 20;

/// With `durability: 'batch'`: while the job's queue exceeds this number of records or bytes, saves are not answered.
const QUEUE_RECORDS: usize = 10_000;
const QUEUE_BYTES: usize = 16 << 20;

/// When a save is answered.
pub enum Reply {
    /// After the commit.
    Committed(oneshot::Sender<Result<()>>),
    /// When the queue has room.
    Queued(oneshot::Sender<Result<()>>),
    /// It is answered already.
    Answered,
}

/// A save of one record that waits to be written.
pub struct Save {
    pub write: RecordWrite,
    pub reply: Reply,
    /// The ends of the bulk saves that must be written before it.
    pub after: Vec<watch::Receiver<()>>,
    since: Instant,
}

/// A running bulk save.
struct Bulk {
    number: u64,
    /// From its lowest index to its highest.
    range: RangeInclusive<i32>,
    ended: watch::Receiver<()>,
}

/// A new bulk save among the others.
pub struct BulkTicket {
    pub number: u64,
    /// Ends of the earlier bulk saves that overlap with it.
    pub before: Vec<watch::Receiver<()>>,
    /// The number of single saves that were made before it.
    pub singles: Option<Done>,
    /// Dropped when it ends; later saves wait for that.
    pub done: watch::Sender<()>,
}

/// Waits until everything that was queued before is written, successfully or not.
pub struct Flushed {
    saves: Option<Done>,
    calls: Option<Done>,
}

impl Flushed {
    pub async fn wait(self) {
        if let Some(saves) = self.saves {
            saves.wait().await;
        }
        if let Some(calls) = self.calls {
            calls.wait().await;
        }
    }
}

#[derive(Default)]
pub struct Queue {
    saves: VecDeque<Save>,
    /// The size of `saves`.
    bytes: usize,
    /// A writer is running for this queue, or is about to.
    writing: bool,
    /// The number of single saves ever made here.
    made: u64,
    /// The number of them that are done. Saves are written in order, so these are the first ones.
    done: watch::Sender<u64>,
    /// Flush target: the writer does not linger until `done` reaches it.
    flush_target: u64,
    /// Wakes a writer that lingers for more saves.
    wake: Arc<Notify>,
    bulks: Vec<Bulk>,
    bulks_made: u64,
    /// Queued calls that write the job or its batches.
    pub job: JobQueue,
    endings: Endings,
    pub failures: Failures,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.saves.is_empty() && self.job.is_empty()
    }

    /// Whether nothing is queued or being written.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && !self.writing
    }

    /// The number of single saves ever made here.
    pub fn saves_made(&self) -> u64 {
        self.made
    }

    /// Whether the first `saves` of them are done.
    pub fn has_written(&self, saves: u64) -> bool {
        *self.done.borrow() >= saves
    }

    /// Whether the queue holds nothing worth keeping.
    pub fn is_unused(&self) -> bool {
        self.is_idle() && self.bulks.is_empty() && self.failures.is_empty()
    }

    fn has_group(&self) -> bool {
        self.saves.len() >= GROUP_RECORDS || self.bytes >= GROUP_BYTES
    }

    fn has_room(&self) -> bool {
        // A record that is larger than the limit goes through alone.
        self.saves.len() <= 1 || (self.saves.len() <= QUEUE_RECORDS && self.bytes <= QUEUE_BYTES)
    }

    /// Adds a save. The receiver delivers its answer; there is none if the save is answered already.
    pub fn push(&mut self, write: RecordWrite, durability: Durability) -> Option<oneshot::Receiver<Result<()>>> {
        let index = write.record.index;
        let after = self
            .bulks
            .iter()
            .filter(|bulk| bulk.range.contains(&index))
            .map(|bulk| bulk.ended.clone())
            .collect();
        self.made += 1;
        self.bytes += size_of(&write);
        self.saves.push_back(Save {
            write,
            reply: Reply::Answered,
            after,
            since: Instant::now(),
        });
        // A writer that lingers for later calls has to count the time of the first save.
        if self.has_group() || self.saves.len() == 1 {
            self.wake.notify_one();
        }
        if durability == Durability::Batch && self.has_room() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        if let Some(save) = self.saves.back_mut() {
            save.reply = match durability {
                Durability::Record => Reply::Committed(reply),
                Durability::Batch => Reply::Queued(reply),
            };
        }
        Some(answer)
    }

    /// Whether the caller has to run a writer: something is queued and there is no writer. After `true`, the writer counts as running.
    pub fn begin_writing(&mut self) -> bool {
        let begins = !self.writing && !self.is_empty();
        self.writing |= begins;
        begins
    }

    /// Whether the writer has nothing left to do, and so ends. What is queued next starts a new one.
    pub fn end_writing(&mut self) -> bool {
        self.writing = !self.is_empty();
        !self.writing
    }

    pub fn next(&self) -> Option<&Save> {
        self.saves.front()
    }

    pub fn pop(&mut self) -> Option<Save> {
        let save = self.saves.pop_front()?;
        self.bytes -= size_of(&save.write);
        Some(save)
    }

    /// Counts taken saves as done, and answers the saves that the queue now has room for.
    pub fn finish(&mut self, saves: u64) {
        self.done.send_modify(|done| *done += saves);
        self.answer_admitted();
    }

    fn answer_admitted(&mut self) {
        let (mut records, mut bytes) = (0, 0);
        for save in &mut self.saves {
            records += 1;
            bytes += size_of(&save.write);
            // A record that is larger than the limit goes through alone.
            if records > 1 && (records > QUEUE_RECORDS || bytes > QUEUE_BYTES) {
                return;
            }
            if matches!(save.reply, Reply::Queued(_))
                && let Reply::Queued(reply) = std::mem::replace(&mut save.reply, Reply::Answered)
            {
                // The caller's thread may have ended.
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// How long the writer may linger for more; `None` if it has to write now.
    pub fn linger(&self) -> Option<(Duration, Arc<Notify>)> {
        let rest = [self.saves_rest(), self.job.rest()].into_iter().flatten().min()?;
        (!rest.is_zero()).then(|| (rest, self.wake.clone()))
    }

    fn saves_rest(&self) -> Option<Duration> {
        let oldest = self.saves.front()?;
        if *self.done.borrow() < self.flush_target || self.has_group() {
            return Some(Duration::ZERO);
        }
        Some(DELAY.saturating_sub(oldest.since.elapsed()))
    }

    /// Flushes everything that is queued. `None` if nothing is.
    pub fn request_flush(&mut self) -> Option<Flushed> {
        let (saves, calls) = (self.flush_saves(), self.request_job_flush());
        (saves.is_some() || calls.is_some()).then_some(Flushed { saves, calls })
    }

    /// Flushes the queued job and states of batches. `None` if there are none.
    pub fn request_job_flush(&mut self) -> Option<Done> {
        let calls = self.job.request_flush();
        self.wake.notify_one();
        calls
    }

    /// Flushes the saves made so far. `None` if they are done.
    fn flush_saves(&mut self) -> Option<Done> {
        if *self.done.borrow() == self.made {
            return None;
        }
        self.flush_target = self.made;
        self.wake.notify_one();
        Some(Done::new(self.made, &self.done))
    }

    /// As `request_flush`, for a call that ends a batch after the saves made so far.
    pub fn request_end(&mut self, batch: &Arc<EndingBatch>) -> Option<Flushed> {
        let flush = self.request_flush()?;
        if let Some(saves) = &flush.saves {
            self.endings.add(saves.target, batch);
        }
        Some(flush)
    }

    /// The end of this claim's batch, if the next `taken` saves, all of that claim, are the last ones made before it.
    pub fn take_end(&mut self, claim: impl FnOnce() -> Option<(BatchKey, Token)>, taken: u64) -> Option<Arc<EndingBatch>> {
        if self.endings.is_empty() {
            return None;
        }
        // An earlier state of the batch that is still queued would be written over its end.
        if !self.job.is_done() {
            return None;
        }
        let saves = *self.done.borrow() + taken;
        self.endings.take(&claim()?, saves, &self.failures)
    }

    /// Adds a bulk save of records in this range.
    pub fn enter_bulk(&mut self, range: RangeInclusive<i32>) -> BulkTicket {
        let singles = self.flush_saves();
        let overlaps = |other: &RangeInclusive<i32>| other.start() <= range.end() && range.start() <= other.end();
        let before = self
            .bulks
            .iter()
            .filter(|bulk| overlaps(&bulk.range))
            .map(|bulk| bulk.ended.clone())
            .collect();
        let (done, ended) = watch::channel(());
        self.bulks_made += 1;
        let number = self.bulks_made;
        self.bulks.push(Bulk { number, range, ended });
        BulkTicket {
            number,
            before,
            singles,
            done,
        }
    }

    pub fn leave_bulk(&mut self, number: u64) {
        self.bulks.retain(|bulk| bulk.number != number);
    }
}
