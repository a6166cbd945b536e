//! `saveProcessedRecord`: one write is under way at a time, and what is saved meanwhile goes into the next one (group commit, as databases do it
//! for their logs: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984). So saves take effect in the order of the
//! calls, and a commit is shared by all that wait for one.
//!
//! A bulk save runs beside the writer, but saves of one record keep their order whichever way they come: a bulk save waits for the single saves
//! that were made before it, and single saves of records in its range wait for it.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use tokio::sync::{oneshot, watch};

use crate::backend::{Backend, RecordWrite};
use crate::error::{Code, Error, Repeat, Repeatable, Result, Retry, lock};

/// Records in one group, at most.
const GROUP_RECORDS: usize = 1_000;
/// Bytes in one group, about: below every server's default limit on a statement.
const GROUP_BYTES: usize = 4 << 20;

enum Item {
    Save {
        write: RecordWrite,
        after: Vec<watch::Receiver<()>>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Answered when all saves before it are done.
    Barrier(oneshot::Sender<()>),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// A group is being written, or is about to be.
    writing: bool,
    bulks: HashMap<String, Vec<Bulk>>,
    number: u64,
}

/// A bulk save that is under way.
struct Bulk {
    number: u64,
    range: RangeInclusive<i32>,
    ended: watch::Receiver<()>,
}

/// Writes single records in groups.
pub struct RecordWriter {
    backend: Arc<dyn Backend>,
    retry: Retry,
    queue: Mutex<Queue>,
}

/// A bulk save's place among the saves. It ends when it is dropped.
pub struct BulkPlace {
    writer: Arc<RecordWriter>,
    job_id: String,
    number: u64,
    before: Vec<watch::Receiver<()>>,
    barrier: Option<oneshot::Receiver<()>>,
    /// Dropped with the place, which is what later saves wait for.
    _done: watch::Sender<()>,
}

impl RecordWriter {
    pub fn new(backend: Arc<dyn Backend>, retry: Retry) -> Self {
        Self {
            backend,
            retry,
            queue: Mutex::default(),
        }
    }

    /// Takes a place in the queue, on the caller's thread. `wait` brings the result.
    pub fn enqueue(&self, write: RecordWrite) -> oneshot::Receiver<Result<()>> {
        let (reply, result) = oneshot::channel();
        let mut queue = lock(&self.queue);
        let bulks = queue.bulks.get(&write.job_id).into_iter().flatten();
        let after = bulks
            .filter(|bulk| bulk.range.contains(&write.record.index))
            .map(|bulk| bulk.ended.clone())
            .collect();
        queue.items.push_back(Item::Save { write, after, reply });
        result
    }

    /// Waits for a save, and sees to it that somebody writes.
    pub async fn wait(self: Arc<Self>, result: oneshot::Receiver<Result<()>>) -> Result<()> {
        self.start();
        result
            .await
            .unwrap_or_else(|_| Err(Error::internal("a save was dropped before it was written")))
    }

    /// Takes a bulk save's place, on the caller's thread.
    pub fn enter_bulk(self: &Arc<Self>, job_id: &str, range: RangeInclusive<i32>) -> BulkPlace {
        let (done, ended) = watch::channel(());
        let mut queue = lock(&self.queue);
        let barrier = (queue.writing || !queue.items.is_empty()).then(|| {
            let (reply, passed) = oneshot::channel();
            queue.items.push_back(Item::Barrier(reply));
            passed
        });
        queue.number += 1;
        let number = queue.number;
        let bulks = queue.bulks.entry(job_id.to_owned()).or_default();
        let overlap = |other: &RangeInclusive<i32>| other.start() <= range.end() && range.start() <= other.end();
        let before = bulks
            .iter()
            .filter(|bulk| overlap(&bulk.range))
            .map(|bulk| bulk.ended.clone())
            .collect();
        bulks.push(Bulk { number, range, ended });
        drop(queue);
        BulkPlace {
            writer: self.clone(),
            job_id: job_id.to_owned(),
            number,
            before,
            barrier,
            _done: done,
        }
    }

    fn start(self: &Arc<Self>) {
        let mut queue = lock(&self.queue);
        if !queue.writing && !queue.items.is_empty() {
            queue.writing = true;
            tokio::spawn(self.clone().write_all());
        }
    }

    async fn write_all(self: Arc<Self>) {
        let _unblock = UnblockOnPanic(self.clone());
        while let Some(group) = self.next_group().await {
            self.write_group(group).await;
        }
    }

    /// The next saves that may be written together; `None` where there are none, and then the next save starts the writer again.
    async fn next_group(&self) -> Option<Vec<(RecordWrite, oneshot::Sender<Result<()>>)>> {
        let mut group: Vec<(RecordWrite, oneshot::Sender<Result<()>>)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut bytes = 0;
        loop {
            let (item, waiting) = {
                let mut queue = lock(&self.queue);
                match queue.items.pop_front() {
                    Some(Item::Barrier(reply)) if group.is_empty() => {
                        // Whoever asked may have gone.
                        let _ = reply.send(());
                        continue;
                    }
                    Some(Item::Save { write, after, reply }) => {
                        let size = write.record.raw.len() + write.record.parsed.len() + write.record.errors.len();
                        let full = group.len() == GROUP_RECORDS || (bytes + size > GROUP_BYTES && !group.is_empty());
                        // A record twice in one statement is an error on PostgreSQL; and should the later one's lease be lost, the earlier one counts.
                        let record = (write.job_id.clone(), write.record.index);
                        if full || seen.contains(&record) || (!after.is_empty() && !group.is_empty()) {
                            queue.items.push_front(Item::Save { write, after, reply });
                            return Some(group);
                        }
                        bytes += size;
                        seen.insert(record);
                        ((write, reply), after)
                    }
                    Some(barrier) => {
                        queue.items.push_front(barrier);
                        return Some(group);
                    }
                    None if group.is_empty() => {
                        queue.writing = false;
                        return None;
                    }
                    None => return Some(group),
                }
            };
            for mut bulk in waiting {
                // Nothing is ever sent: the end of the bulk save closes the channel.
                let _ = bulk.changed().await;
            }
            group.push(item);
        }
    }

    async fn write_group(self: &Arc<Self>, mut group: Vec<(RecordWrite, oneshot::Sender<Result<()>>)>) {
        // In one order everywhere, so that groups of two processes can't wait for each other.
        group.sort_by(|(a, _), (b, _)| (&a.job_id, a.record.index).cmp(&(&b.job_id, b.record.index)));
        let limits = match self.retry.run(Repeat::Idempotent, || self.backend.limits()).await {
            Ok(limits) => limits,
            Err(error) => {
                for (_, reply) in group {
                    let _ = reply.send(Err(error.clone()));
                }
                return;
            }
        };
        let (mut writes, mut replies) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for (write, reply) in group {
            match limits.fit_record(write.record) {
                Ok(record) => {
                    writes.push(RecordWrite { record, ..write });
                    replies.push(reply);
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        if writes.is_empty() {
            return;
        }
        let results = match self.write(&writes).await {
            Ok(results) => results,
            // A record that somebody has locked must not fail those of other batches.
            Err(error) if error.code == Code::Timeout && by_batch(&writes).count() > 1 => {
                let tasks: Vec<_> = by_batch(&writes)
                    .map(|part| {
                        let (writer, part, count) = (self.clone(), part.to_vec(), part.len());
                        (count, tokio::spawn(async move { writer.write(&part).await }))
                    })
                    .collect();
                let mut results = Vec::with_capacity(writes.len());
                for (count, task) in tasks {
                    let ended = task
                        .await
                        .unwrap_or_else(|_| Err(Error::internal("a defect of this package ended a save")));
                    results.extend(ended.unwrap_or_else(|error| vec![Err(error); count]));
                }
                results
            }
            // One record that can't be stored must not fail those beside it.
            Err(error) if error.repeatable == Repeatable::Never && writes.len() > 1 => {
                let mut results = Vec::with_capacity(writes.len());
                for write in &writes {
                    results.push(
                        self.write(std::slice::from_ref(write))
                            .await
                            .and_then(|mut results| results.remove(0)),
                    );
                }
                results
            }
            Err(error) => vec![Err(error); writes.len()],
        };
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller may have gone: a worker thread that was terminated, say.
            let _ = reply.send(result);
        }
    }

    async fn write(&self, writes: &[RecordWrite]) -> Result<Vec<Result<()>>> {
        if writes.iter().all(|write| write.token.is_none()) {
            self.retry.run(Repeat::Idempotent, || self.backend.save_records(writes)).await?;
            return Ok(vec![Ok(()); writes.len()]);
        }
        let held = self
            .retry
            .run(Repeat::Idempotent, || self.backend.save_fenced_records(writes))
            .await?;
        Ok(writes
            .iter()
            .zip(held)
            .map(|(write, held)| match (held, write.token) {
                (false, Some(token)) => Err(Error::lease_lost(&write.job_id, &write.batch_id, token)),
                _ => Ok(()),
            })
            .collect())
    }
}

/// Runs of writes of one batch.
fn by_batch(writes: &[RecordWrite]) -> impl Iterator<Item = &[RecordWrite]> {
    writes.chunk_by(|a, b| (&a.job_id, &a.batch_id) == (&b.job_id, &b.batch_id))
}

/// Starts a new writer, should this one end in a panic.
struct UnblockOnPanic(Arc<RecordWriter>);

impl Drop for UnblockOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.queue).writing = false;
            self.0.start();
        }
    }
}

impl BulkPlace {
    /// Waits until every earlier save of these records is done.
    pub async fn wait(&mut self) {
        self.writer.start();
        if let Some(barrier) = self.barrier.take() {
            let _ = barrier.await;
        }
        for mut bulk in self.before.drain(..) {
            let _ = bulk.changed().await;
        }
    }
}

impl Drop for BulkPlace {
    fn drop(&mut self) {
        let mut queue = lock(&self.writer.queue);
        if let Some(bulks) = queue.bulks.get_mut(&self.job_id) {
            bulks.retain(|bulk| bulk.number != self.number);
            if bulks.is_empty() {
                queue.bulks.remove(&self.job_id);
            }
        }
    }
}
