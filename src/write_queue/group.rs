//! A group: saves of one job that its writer takes from the queue and writes together.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::ending::EndingBatch;
use super::queue::{GROUP_BYTES, GROUP_RECORDS, Queue, Reply};
use super::queues::Queues;
use crate::backend::{RecordWrite, one_claim, size_of};
use crate::error::{Code, Error, Quoted, Result};
use crate::model::{BatchKey, ColumnLimits};
use crate::panics;
use crate::warnings::{Warning, WarningKind, Warnings};

pub struct Group {
    queues: Arc<Queues>,
    job_id: String,
    saves: Saves,
    warnings: Warnings,
    /// Answered saves that could not be stored, by batch and code.
    failures: Vec<Failure>,
}

/// Saves of one batch that failed alike.
struct Failure {
    batch_id: String,
    /// The index of the first one.
    first: i32,
    error: Error,
    count: usize,
}

/// The saves taken from the queue that are not answered yet.
#[derive(Default)]
struct Saves {
    writes: Vec<RecordWrite>,
    /// The reply to each of the writes.
    replies: Vec<Reply>,
    /// The number taken since `finish`.
    taken: u64,
    /// The size of `writes`.
    bytes: usize,
    indexes: HashSet<i32>,
}

impl Saves {
    /// Takes the queue's next save, if it can be written with these, and returns the ends of the bulk saves to wait for first.
    fn take(&mut self, queue: &mut Queue) -> Option<Vec<watch::Receiver<()>>> {
        let is_first = self.writes.is_empty();
        let save = queue.next()?;
        let (index, size) = (save.write.record.index, size_of(&save.write));
        let is_full = self.writes.len() == GROUP_RECORDS || (self.bytes + size > GROUP_BYTES && !is_first);
        // PostgreSQL refuses a statement that writes a record twice. And if the later save has lost its claim, the earlier one counts.
        if is_full || self.indexes.contains(&index) || (!save.after.is_empty() && !is_first) {
            return None;
        }
        let save = queue.pop()?;
        self.bytes += size;
        self.indexes.insert(index);
        self.taken += 1;
        self.writes.push(save.write);
        self.replies.push(save.reply);
        Some(save.after)
    }
}

impl Group {
    pub fn new(queues: Arc<Queues>, job_id: String, warnings: Warnings) -> Self {
        Self {
            queues,
            job_id,
            saves: Saves::default(),
            warnings,
            failures: Vec::new(),
        }
    }

    /// Takes the next saves that can be written together. If none is queued, the group stays empty.
    pub async fn fill(&mut self) {
        while let Some(bulks) = self.queues.change(&self.job_id, |queue| self.saves.take(queue)).flatten() {
            for mut bulk in bulks {
                // Nothing is ever sent: the channel closes when the bulk save ends.
                let _ = bulk.changed().await;
            }
        }
    }

    pub fn writes(&self) -> &[RecordWrite] {
        &self.saves.writes
    }

    /// Sorts by index. All groups are written in that order, so that the groups of two processes can't deadlock.
    pub fn sort(&mut self) {
        let Saves { writes, replies, .. } = &mut self.saves;
        let mut saves: Vec<(RecordWrite, Reply)> = writes.drain(..).zip(replies.drain(..)).collect();
        saves.sort_by_key(|(write, _)| write.record.index);
        (*writes, *replies) = saves.into_iter().unzip();
    }

    /// Fits the records to the columns, and answers the saves of those that don't fit.
    pub fn fit(&mut self, limits: &ColumnLimits) {
        let fit = |write: &mut RecordWrite| limits.fit_record(&mut write.record).err();
        let refused: Vec<_> = self.saves.writes.iter_mut().map(fit).collect();
        for (place, error) in refused.into_iter().enumerate().rev() {
            if let Some(error) = error {
                let (write, reply) = (self.saves.writes.remove(place), self.saves.replies.remove(place));
                self.answer_save(&write, reply, Err(error));
            }
        }
    }

    /// The end of the batch, if the group holds only records of one claim and its batch ends with them.
    pub fn take_end(&self) -> Option<Arc<EndingBatch>> {
        let claim = || one_claim(&self.saves.writes);
        let take = |queue: &mut Queue| queue.take_end(claim, self.saves.taken);
        self.queues.change(&self.job_id, take).flatten()
    }

    /// Answers each save with the result of its write.
    pub fn answer(&mut self, results: impl IntoIterator<Item = Result<()>>) {
        let (writes, replies) = (std::mem::take(&mut self.saves.writes), std::mem::take(&mut self.saves.replies));
        for ((write, reply), result) in writes.into_iter().zip(replies).zip(results) {
            self.answer_save(&write, reply, result);
        }
    }

    /// Answers every save with this error.
    pub fn fail(&mut self, error: &Error) {
        self.answer(std::iter::repeat_n(Err(error.clone()), self.saves.writes.len()));
    }

    /// Passes the result to the caller, or, if the save is already answered, to the job's failures.
    fn answer_save(&mut self, write: &RecordWrite, reply: Reply, result: Result<()>) {
        // The caller's thread may have ended.
        match reply {
            Reply::Committed(reply) => {
                let _ = reply.send(result);
                return;
            }
            Reply::Queued(reply) => {
                let _ = reply.send(Ok(()));
            }
            Reply::Answered => {}
        }
        if let Err(error) = &result {
            self.note_failure(write, error);
        }
        self.queues.change(&self.job_id, |queue| queue.failures.settle(write, result));
    }

    fn note_failure(&mut self, write: &RecordWrite, error: &Error) {
        let alike = |failure: &&mut Failure| failure.batch_id == write.batch_id && failure.error.code == error.code;
        match self.failures.iter_mut().find(alike) {
            Some(failure) => failure.count += 1,
            None => self.failures.push(Failure {
                batch_id: write.batch_id.clone(),
                first: write.record.index,
                error: error.clone(),
                count: 1,
            }),
        }
    }

    /// Warns of the answered saves that could not be stored.
    fn warn_of_failures(&mut self) {
        for Failure {
            batch_id,
            first,
            error,
            count,
        } in std::mem::take(&mut self.failures)
        {
            // The records of a lost claim are the new holder's to store.
            let (kind, what) = match error.code {
                Code::LeaseLost => (WarningKind::ClaimTaken, "was not stored after it was queued"),
                _ => (WarningKind::QueuedWriteFailed, "could not be stored after it was queued"),
            };
            let more = if count > 1 {
                format!(" and {} more", count - 1)
            } else {
                String::new()
            };
            let message = format!("record {first}{more} of batch {} {what}: {}", Quoted(&batch_id), error.message);
            let count = if kind == WarningKind::ClaimTaken { 1 } else { count };
            let key = BatchKey::new(&*self.job_id, batch_id);
            self.warnings
                .warn(Warning::new(kind, message).batch(&key).count(count).error(error));
        }
    }

    /// Counts the taken saves as done, and begins the next group.
    pub fn finish(&mut self) {
        self.warn_of_failures();
        let Saves { taken, .. } = std::mem::take(&mut self.saves);
        self.queues.change(&self.job_id, |queue| queue.finish(taken));
    }
}

impl Drop for Group {
    /// If the writer panics, its saves are not stored.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(&panics::defect());
            self.finish();
        }
    }
}
