//! `saveProcessedRecord`: of each job one write is under way at a time, and what is saved meanwhile goes into the next one (group commit, as databases
//! do it for their logs: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984). So saves of a job take effect in the order
//! of the calls, and a commit is shared by all that wait for one. A job whose rows somebody has locked does not hold up another.
//!
//! A bulk save runs beside the writer, but saves of one record keep their order whichever way they come: a bulk save waits for the job's single saves
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

/// A save of one record that waits to be written.
struct Save {
    write: RecordWrite,
    /// Bulk saves that come first.
    after: Vec<watch::Receiver<()>>,
    reply: oneshot::Sender<Result<()>>,
}

/// A save and who waits for it.
type Waiting = (RecordWrite, oneshot::Sender<Result<()>>);

/// The saves of one job.
#[derive(Default)]
struct Queue {
    saves: VecDeque<Save>,
    /// A group is being written, or is about to be.
    writing: bool,
    /// Single saves that were ever made here.
    made: u64,
    /// How many of them are done: the first ones, for they are written in their order.
    done: watch::Sender<u64>,
    bulks: Vec<Bulk>,
    bulks_made: u64,
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
    /// By job; a job without saves has none.
    queues: Mutex<HashMap<String, Queue>>,
}

/// A single save's place.
pub struct SavePlace {
    job_id: String,
    result: oneshot::Receiver<Result<()>>,
}

/// A bulk save's place among the saves. It ends when it is dropped.
pub struct BulkPlace {
    writer: Arc<RecordWriter>,
    job_id: String,
    number: u64,
    before: Vec<watch::Receiver<()>>,
    /// The single saves that come first: so many must be done.
    singles: Option<(u64, watch::Receiver<u64>)>,
    /// Dropped with the place, which is what later saves wait for.
    _done: watch::Sender<()>,
}

impl RecordWriter {
    pub fn new(backend: Arc<dyn Backend>, retry: Retry) -> Self {
        Self {
            backend,
            retry,
            queues: Mutex::default(),
        }
    }

    /// Takes a place in the queue, on the caller's thread. `wait` brings the result.
    pub fn enqueue(&self, write: RecordWrite) -> SavePlace {
        let (reply, result) = oneshot::channel();
        let job_id = write.job_id.clone();
        let mut queues = lock(&self.queues);
        let queue = queues.entry(job_id.clone()).or_default();
        let after = queue
            .bulks
            .iter()
            .filter(|bulk| bulk.range.contains(&write.record.index))
            .map(|bulk| bulk.ended.clone())
            .collect();
        queue.made += 1;
        queue.saves.push_back(Save { write, after, reply });
        SavePlace { job_id, result }
    }

    /// Waits for a save, and sees to it that somebody writes.
    pub async fn wait(self: Arc<Self>, place: SavePlace) -> Result<()> {
        self.start(&place.job_id);
        place
            .result
            .await
            .unwrap_or_else(|_| Err(Error::internal("a save was dropped before it was written")))
    }

    /// Takes a bulk save's place, on the caller's thread.
    pub fn enter_bulk(self: &Arc<Self>, job_id: &str, range: RangeInclusive<i32>) -> BulkPlace {
        let (done, ended) = watch::channel(());
        let mut queues = lock(&self.queues);
        let queue = queues.entry(job_id.to_owned()).or_default();
        let singles = (*queue.done.borrow() < queue.made).then(|| (queue.made, queue.done.subscribe()));
        queue.bulks_made += 1;
        let number = queue.bulks_made;
        let overlap = |other: &RangeInclusive<i32>| other.start() <= range.end() && range.start() <= other.end();
        let before = queue
            .bulks
            .iter()
            .filter(|bulk| overlap(&bulk.range))
            .map(|bulk| bulk.ended.clone())
            .collect();
        queue.bulks.push(Bulk { number, range, ended });
        drop(queues);
        BulkPlace {
            writer: self.clone(),
            job_id: job_id.to_owned(),
            number,
            before,
            singles,
            _done: done,
        }
    }

    fn start(self: &Arc<Self>, job_id: &str) {
        if let Some(queue) = lock(&self.queues).get_mut(job_id)
            && !queue.writing
            && !queue.saves.is_empty()
        {
            queue.writing = true;
            tokio::spawn(self.clone().write_all(job_id.to_owned()));
        }
    }

    async fn write_all(self: Arc<Self>, job_id: String) {
        let mut group = Group {
            writer: self.clone(),
            job_id,
            taken: 0,
        };
        while let Some(saves) = self.next_group(&mut group).await {
            self.write_group(saves).await;
            group.end();
        }
    }

    /// The next saves that may be written together; `None` where there are none, and then the next save starts the writer again.
    async fn next_group(&self, taken: &mut Group) -> Option<Vec<Waiting>> {
        let mut group: Vec<Waiting> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut bytes = 0;
        loop {
            let Save { write, after, reply } = {
                let mut queues = lock(&self.queues);
                let queue = queues.get_mut(&taken.job_id)?;
                let Some(save) = queue.saves.pop_front() else {
                    if !group.is_empty() {
                        return Some(group);
                    }
                    queue.writing = false;
                    forget_if_idle(&mut queues, &taken.job_id);
                    return None;
                };
                let record = &save.write.record;
                let size = record.raw.len() + record.parsed.len() + record.errors.len();
                let full = group.len() == GROUP_RECORDS || (bytes + size > GROUP_BYTES && !group.is_empty());
                // A record twice in one statement is an error on PostgreSQL; and should the later one's lease be lost, the earlier one counts.
                if full || seen.contains(&record.index) || (!save.after.is_empty() && !group.is_empty()) {
                    queue.saves.push_front(save);
                    return Some(group);
                }
                bytes += size;
                seen.insert(record.index);
                taken.taken += 1;
                save
            };
            for mut bulk in after {
                // Nothing is ever sent: the end of the bulk save closes the channel.
                let _ = bulk.changed().await;
            }
            group.push((write, reply));
        }
    }

    async fn write_group(self: &Arc<Self>, mut group: Vec<Waiting>) {
        // In one order everywhere, so that groups of two processes can't wait for each other.
        group.sort_by_key(|(write, _)| write.record.index);
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

/// The saves that a writer has taken from the queue and not ended.
struct Group {
    writer: Arc<RecordWriter>,
    job_id: String,
    taken: u64,
}

impl Group {
    fn end(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if let Some(queue) = lock(&self.writer.queues).get(&self.job_id) {
            queue.done.send_modify(|done| *done += taken);
        }
    }
}

impl Drop for Group {
    /// Starts a new writer, should this one end in a panic.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end();
            if let Some(queue) = lock(&self.writer.queues).get_mut(&self.job_id) {
                queue.writing = false;
            }
            self.writer.start(&self.job_id);
        }
    }
}

fn forget_if_idle(queues: &mut HashMap<String, Queue>, job_id: &str) {
    if queues
        .get(job_id)
        .is_some_and(|queue| queue.saves.is_empty() && !queue.writing && queue.bulks.is_empty())
    {
        queues.remove(job_id);
    }
}

impl BulkPlace {
    /// Waits until every earlier save of these records is done.
    pub async fn wait(&mut self) {
        self.writer.start(&self.job_id);
        if let Some((made, mut done)) = self.singles.take() {
            // It closes where the queue is gone, and with it every save.
            let _ = done.wait_for(|done| *done >= made).await;
        }
        for mut bulk in self.before.drain(..) {
            // Nothing is ever sent: the end of the bulk save closes the channel.
            let _ = bulk.changed().await;
        }
    }
}

impl Drop for BulkPlace {
    fn drop(&mut self) {
        let mut queues = lock(&self.writer.queues);
        if let Some(queue) = queues.get_mut(&self.job_id) {
            queue.bulks.retain(|bulk| bulk.number != self.number);
            forget_if_idle(&mut queues, &self.job_id);
        }
    }
}
