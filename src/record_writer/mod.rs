//! `saveProcessedRecord`: of each job one write is under way at a time, and what is saved meanwhile goes into the next one (group commit, as databases
//! do it for their logs: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984). So saves of a job take effect in the order
//! of the calls, and a commit is shared by all that wait for one. A job whose rows somebody has locked does not hold up another.
//!
//! With `durability: 'batch'` a save is answered when it has its place in the queue, and written with those that come after it: when a group is full, when
//! 50 ms have passed, or when another call on the job wants to see it. What can't be written then has nobody to be told, so it is remembered: the failure
//! sticks to its batch until its records are saved again.
//!
//! A bulk save runs beside the writer, but saves of one record keep their order whichever way they come: a bulk save waits for the job's single saves
//! that were made before it, and single saves of records in its range wait for it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use crate::backend::{Backend, RecordWrite, size_of};
use crate::error::{Code, Error, Quoted, Repeatable, Result, lock};
use crate::model::{BatchKey, ColumnLimits, Record, Token};
use crate::order::Initialization;
use crate::panics;
use crate::retry::{Repeat, Retry};
use crate::settings::Durability;

/// Records in one group, at most.
const GROUP_RECORDS: usize = 1_000;
/// Bytes in one group, about: below every server's default limit on a statement.
const GROUP_BYTES: usize = 4 << 20;

/// With `durability: 'batch'`: how long a save waits for others to be written with it.
const DELAY: Duration = Duration::from_millis(50);
/// With `durability: 'batch'`: saves of a job beyond so many, or so many bytes, are answered when there is room again.
const QUEUE_RECORDS: usize = 10_000;
const QUEUE_BYTES: usize = 16 << 20;

/// Who is told of a save, and when.
enum Reply {
    /// When it is committed.
    Committed(oneshot::Sender<Result<()>>),
    /// When there is room in the queue.
    Queued(oneshot::Sender<Result<()>>),
    /// It has been told already.
    Told,
}

/// A save of one record that waits to be written.
struct Save {
    write: RecordWrite,
    /// Bulk saves that come first.
    after: Vec<watch::Receiver<()>>,
    reply: Reply,
    since: Instant,
}

/// A record that was queued and could not be stored.
struct Failed {
    error: Error,
    /// Saved again since, and not written yet.
    queued_again: bool,
}

/// The records of a batch that were queued and could not be stored, by index.
type Failures = BTreeMap<i32, Failed>;

/// The saves of one job.
#[derive(Default)]
struct Queue {
    saves: VecDeque<Save>,
    /// Of `saves`.
    bytes: usize,
    /// A group is being written, or is about to be.
    writing: bool,
    /// Counted in `Queues::busy`.
    is_busy: bool,
    /// Single saves that were ever made here.
    made: u64,
    /// How many of them are done: the first ones, for they are written in their order.
    done: watch::Sender<u64>,
    bulks: Vec<Bulk>,
    bulks_made: u64,
    /// So many saves somebody wants to be done now.
    wanted: u64,
    /// Wakes the writer before its time.
    wake: Arc<Notify>,
    /// By batch.
    failures: HashMap<String, Failures>,
    /// Of each batch, the last token whose queued saves were refused because the claim was lost. They are not the present holder's concern, so
    /// they are no failures.
    lost: HashMap<String, Token>,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.saves.is_empty() && !self.writing
    }

    fn has_group(&self) -> bool {
        self.saves.len() >= GROUP_RECORDS || self.bytes >= GROUP_BYTES
    }

    fn has_room(&self) -> bool {
        // A record that is larger than the queue goes through alone.
        self.saves.len() <= 1 || (self.saves.len() <= QUEUE_RECORDS && self.bytes <= QUEUE_BYTES)
    }

    /// How long the writer may still wait for more; `None` where it should write now.
    fn patience(&self) -> Option<Duration> {
        let oldest = self.saves.front()?;
        if *self.done.borrow() < self.wanted || self.has_group() {
            return None;
        }
        DELAY.checked_sub(oldest.since.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Tells those for whom there is room now.
    fn admit(&mut self) {
        let (mut records, mut bytes) = (0, 0);
        for save in &mut self.saves {
            records += 1;
            bytes += size_of(&save.write);
            // A record that is larger than the queue goes through alone.
            if records > 1 && (records > QUEUE_RECORDS || bytes > QUEUE_BYTES) {
                return;
            }
            if matches!(save.reply, Reply::Queued(_))
                && let Reply::Queued(reply) = std::mem::replace(&mut save.reply, Reply::Told)
            {
                // Whoever asked may have gone.
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// What became of a record that was queued.
    fn settle(&mut self, write: &RecordWrite, result: Result<()>) {
        match (result, write.token) {
            (Ok(()), _) => self.mend([write.record.index]),
            (Err(error), Some(token)) if error.code == Code::LeaseLost => {
                let lost = self.lost.entry(write.batch_id.clone()).or_insert(token);
                *lost = token.max(*lost);
            }
            (Err(error), _) => {
                let failed = Failed {
                    error,
                    queued_again: false,
                };
                self.failures
                    .entry(write.batch_id.clone())
                    .or_default()
                    .insert(write.record.index, failed);
            }
        }
    }

    /// These records are stored now, in whichever batch: a job has one of each index.
    fn mend(&mut self, records: impl IntoIterator<Item = i32>) {
        if self.failures.is_empty() {
            return;
        }
        for record in records {
            self.failures.retain(|_, failures| {
                failures.remove(&record);
                !failures.is_empty()
            });
        }
    }

    /// Rejects a save to a batch that has failures, unless it is of the records that failed.
    fn check_save(&mut self, write: &RecordWrite) -> Result<()> {
        if let Some(token) = write.token
            && self.lost.get(&write.batch_id) == Some(&token)
        {
            return Err(Error::lease_lost(&BatchKey::new(&*write.job_id, &*write.batch_id), token));
        }
        let Some(failures) = self.failures.get_mut(&write.batch_id) else {
            return Ok(());
        };
        if let Some(failed) = failures.get_mut(&write.record.index) {
            failed.queued_again = true;
        } else if failures.values().any(|failed| !failed.queued_again) {
            return Err(not_stored(&write.batch_id, failures));
        }
        Ok(())
    }
}

/// The queues of all jobs; a job without saves has none.
#[derive(Default)]
struct Queues {
    by_job: HashMap<String, Queue>,
    /// How many of them are not idle.
    busy: usize,
}

impl Queues {
    fn get(&self, job_id: &str) -> Option<&Queue> {
        self.by_job.get(job_id)
    }

    fn get_mut(&mut self, job_id: &str) -> Option<&mut Queue> {
        self.by_job.get_mut(job_id)
    }

    fn of_job(&mut self, job_id: &str) -> &mut Queue {
        self.by_job.entry(job_id.to_owned()).or_default()
    }

    /// Counts a job's queue again after saves came or went, and drops it where nothing of it is of concern. Whether no queue is busy any more.
    fn settle(&mut self, job_id: &str) -> bool {
        if let Some(queue) = self.by_job.get_mut(job_id) {
            let is_busy = !queue.is_idle();
            self.busy = self.busy + usize::from(is_busy) - usize::from(queue.is_busy);
            queue.is_busy = is_busy;
            if !is_busy && queue.bulks.is_empty() && queue.failures.is_empty() && queue.lost.is_empty() {
                self.by_job.remove(job_id);
            }
        }
        self.busy == 0
    }
}

/// What a call on a batch rejects with, where records that were queued before could not be stored.
fn not_stored(batch_id: &str, failures: &Failures) -> Error {
    let Some((first, Failed { error, .. })) = failures.iter().find(|(_, failed)| !failed.queued_again).or(failures.iter().next()) else {
        return Error::internal("a failure was forgotten while it was told");
    };
    let more = match failures.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Error {
        message: format!(
            "record {first}{more} of batch {} could not be stored after it was queued, so the batch can't go on until it is saved again: {}",
            Quoted(batch_id),
            error.message
        ),
        repeatable: Repeatable::Never,
        ..error.clone()
    }
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
    durability: Durability,
    initialization: Initialization,
    queues: Mutex<Queues>,
    /// Woken when the last queue is empty.
    idle: Notify,
    /// Somebody waits until nothing is queued, and so keeps the process alive.
    kept: AtomicBool,
}

/// Who waits until nothing is queued. However that ends, the next save finds that it needs another.
struct Keeper<'a>(&'a AtomicBool);

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A single save's place.
pub struct SavePlace {
    job_id: String,
    /// `None` where there is nothing to wait for.
    result: Option<oneshot::Receiver<Result<()>>>,
    needs_writer: bool,
}

impl SavePlace {
    /// Whether the save is answered already: it is queued, and there is room.
    pub fn is_settled(&self) -> bool {
        self.result.is_none()
    }

    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// Whether somebody has to run `RecordWriter::writer` for it.
    pub fn needs_writer(&self) -> bool {
        self.needs_writer
    }
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
    pub fn new(backend: Arc<dyn Backend>, retry: Retry, durability: Durability, initialization: Initialization) -> Self {
        Self {
            backend,
            retry,
            durability,
            initialization,
            queues: Mutex::default(),
            idle: Notify::new(),
            kept: AtomicBool::new(false),
        }
    }

    /// Takes a place in the queue, on the caller's thread. `wait` brings the result, and sees to it that it is written; who does not wait has to.
    pub fn enqueue(&self, write: RecordWrite) -> Result<SavePlace> {
        let job_id = write.job_id.clone();
        let mut queues = lock(&self.queues);
        panics::fail_point("queues, locked");
        let queue = queues.of_job(&job_id);
        if let Err(error) = queue.check_save(&write) {
            queues.settle(&job_id);
            return Err(error);
        }
        let after = queue
            .bulks
            .iter()
            .filter(|bulk| bulk.range.contains(&write.record.index))
            .map(|bulk| bulk.ended.clone())
            .collect();
        let (reply, result) = oneshot::channel();
        let reply = match self.durability {
            Durability::Record => Reply::Committed(reply),
            Durability::Batch => Reply::Queued(reply),
        };
        queue.made += 1;
        queue.bytes += size_of(&write);
        queue.saves.push_back(Save {
            write,
            after,
            reply,
            since: Instant::now(),
        });
        if queue.has_group() {
            queue.wake.notify_one();
        }
        let told = self.durability == Durability::Batch && queue.has_room();
        if told && let Some(save) = queue.saves.back_mut() {
            save.reply = Reply::Told;
        }
        let needs_writer = !queue.writing;
        queues.settle(&job_id);
        Ok(SavePlace {
            job_id,
            result: (!told).then_some(result),
            needs_writer,
        })
    }

    /// Waits for a save, and sees to it that somebody writes.
    pub async fn wait(self: Arc<Self>, place: SavePlace) -> Result<()> {
        self.start(&place.job_id);
        match place.result {
            None => Ok(()),
            Some(result) => result
                .await
                .unwrap_or_else(|_| Err(Error::internal("a save was dropped before it was written"))),
        }
    }

    /// Waits until what was queued for the job before is written, well or not.
    pub async fn flush(self: &Arc<Self>, job_id: &str) {
        if self.durability == Durability::Record {
            return;
        }
        let waiting = self.hurry(job_id);
        self.start(job_id);
        if let Some((made, mut done)) = waiting {
            // It closes where the queue is gone, and with it every save.
            let _ = done.wait_for(|done| *done >= made).await;
        }
    }

    /// Has what is queued for the job written now: how many saves that are, and how many are done.
    fn hurry(&self, job_id: &str) -> Option<(u64, watch::Receiver<u64>)> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(job_id)?;
        if *queue.done.borrow() == queue.made {
            return None;
        }
        queue.wanted = queue.made;
        queue.wake.notify_one();
        Some((queue.made, queue.done.subscribe()))
    }

    /// Waits until nothing is queued.
    pub async fn flush_all(self: &Arc<Self>) {
        let jobs: Vec<String> = lock(&self.queues).by_job.keys().cloned().collect();
        // All at once: one that takes long does not keep the others.
        for job_id in &jobs {
            self.hurry(job_id);
            self.start(job_id);
        }
        for job_id in &jobs {
            self.flush(job_id).await;
        }
    }

    /// Whether somebody has to call `until_idle`: the answer is yes for one.
    pub fn needs_keeper(&self) -> bool {
        !self.kept.swap(true, Ordering::AcqRel)
    }

    /// Ends when nothing is queued any more.
    pub async fn until_idle(self: Arc<Self>) {
        let keeper = Keeper(&self.kept);
        loop {
            let emptied = self.idle.notified();
            {
                // Under the lock, so that a save that comes next finds that it needs a keeper.
                let queues = lock(&self.queues);
                if queues.busy == 0 {
                    drop(keeper);
                    return;
                }
            }
            emptied.await;
        }
    }

    /// The batches of a job with records that were queued and could not be stored.
    pub fn failed_batches(&self, job_id: &str) -> HashSet<String> {
        let queues = lock(&self.queues);
        queues
            .get(job_id)
            .into_iter()
            .flat_map(|queue| queue.failures.keys().cloned())
            .collect()
    }

    /// Rejects where records of the batch were queued and could not be stored.
    pub fn check(&self, BatchKey { job_id, batch_id }: &BatchKey) -> Result<()> {
        match lock(&self.queues).get(job_id).and_then(|queue| queue.failures.get(batch_id)) {
            Some(failures) => Err(not_stored(batch_id, failures)),
            None => Ok(()),
        }
    }

    /// Rejects a bulk save to a batch that has failures, unless it has some of the records that failed.
    pub fn check_bulk(&self, job_id: &str, batch_id: &str, records: &[Record]) -> Result<()> {
        match lock(&self.queues).get(job_id).and_then(|queue| queue.failures.get(batch_id)) {
            Some(failures) if !records.iter().any(|record| failures.contains_key(&record.index)) => Err(not_stored(batch_id, failures)),
            _ => Ok(()),
        }
    }

    /// Rejects where anything that was queued could not be stored.
    pub fn check_all(&self) -> Result<()> {
        let queues = lock(&self.queues);
        match queues.by_job.values().flat_map(|queue| &queue.failures).next() {
            Some((batch_id, failures)) => Err(not_stored(batch_id, failures)),
            None => Ok(()),
        }
    }

    /// The batch begins anew, here or elsewhere.
    pub fn forget_batch(&self, BatchKey { job_id, batch_id }: &BatchKey) {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(job_id) {
            queue.failures.remove(batch_id);
            queue.lost.remove(batch_id);
            queues.settle(job_id);
        }
    }

    /// No claim on the job's batches is of concern any more.
    pub fn forget_claims(&self, job_id: &str) {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(job_id) {
            queue.lost.clear();
            queues.settle(job_id);
        }
    }

    /// The job is gone.
    pub fn forget_job(&self, job_id: &str) {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(job_id) {
            queue.failures.clear();
            queue.lost.clear();
            queues.settle(job_id);
        }
    }

    /// Records that a bulk save has stored.
    pub fn mend(&self, job_id: &str, records: impl IntoIterator<Item = i32>) {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(job_id) {
            queue.mend(records);
        }
    }

    /// Takes a bulk save's place, on the caller's thread.
    pub fn enter_bulk(self: &Arc<Self>, job_id: &str, range: RangeInclusive<i32>) -> BulkPlace {
        let (done, ended) = watch::channel(());
        let mut queues = lock(&self.queues);
        let queue = queues.of_job(job_id);
        let singles = (*queue.done.borrow() < queue.made).then(|| {
            queue.wanted = queue.made;
            queue.wake.notify_one();
            (queue.made, queue.done.subscribe())
        });
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

    /// Sees to it that somebody writes what is queued for the job.
    pub fn start(self: &Arc<Self>, job_id: &str) {
        if let Some(writing) = self.writer(job_id) {
            tokio::spawn(writing);
        }
    }

    /// Writes what is queued for the job, where nobody does yet. It has to be run.
    pub fn writer(self: &Arc<Self>, job_id: &str) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(job_id)?;
        if queue.writing || queue.saves.is_empty() {
            return None;
        }
        queue.writing = true;
        // It is busy already: it has saves.
        Some(self.clone().write_all(job_id.to_owned()))
    }

    async fn write_all(self: Arc<Self>, job_id: String) {
        let mut group = Group {
            writer: self.clone(),
            job_id,
            writes: Vec::new(),
            replies: Vec::new(),
            taken: 0,
        };
        loop {
            if self.durability == Durability::Batch {
                self.gather(&group.job_id).await;
            }
            self.next_group(&mut group).await;
            if group.writes.is_empty() {
                break;
            }
            self.write_group(&mut group).await;
            group.end();
        }
    }

    /// Waits for more saves to be written together.
    async fn gather(&self, job_id: &str) {
        loop {
            let (wake, patience) = {
                let queues = lock(&self.queues);
                let Some(queue) = queues.get(job_id) else { return };
                match queue.patience() {
                    Some(patience) => (queue.wake.clone(), patience),
                    None => return,
                }
            };
            // Whichever comes first, the queue says what is due.
            let _ = timeout(patience, wake.notified()).await;
        }
    }

    /// Takes the next saves that may be written together; none where there are none, and then the next save starts the writer again.
    async fn next_group(&self, group: &mut Group) {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        loop {
            let after = {
                let mut queues = lock(&self.queues);
                let Some(queue) = queues.get_mut(&group.job_id) else { return };
                let Some(save) = queue.saves.pop_front() else {
                    if group.writes.is_empty() {
                        queue.writing = false;
                        if queues.settle(&group.job_id) {
                            self.idle.notify_waiters();
                        }
                    }
                    return;
                };
                let size = size_of(&save.write);
                let first = group.writes.is_empty();
                let full = group.writes.len() == GROUP_RECORDS || (bytes + size > GROUP_BYTES && !first);
                // A record twice in one statement is an error on PostgreSQL; and should the later one's lease be lost, the earlier one counts.
                if full || seen.contains(&save.write.record.index) || (!save.after.is_empty() && !first) {
                    queue.saves.push_front(save);
                    return;
                }
                queue.bytes -= size;
                bytes += size;
                seen.insert(save.write.record.index);
                group.taken += 1;
                group.writes.push(save.write);
                group.replies.push(save.reply);
                save.after
            };
            for mut bulk in after {
                // Nothing is ever sent: the end of the bulk save closes the channel.
                let _ = bulk.changed().await;
            }
        }
    }

    async fn write_group(self: &Arc<Self>, group: &mut Group) {
        // In one order everywhere, so that groups of two processes can't wait for each other.
        group.sort();
        Initialization::wait(self.initialization.before_call()).await;
        // Idempotent: a read.
        let limits = match self.retry.run(Repeat::Idempotent, || self.backend.limits()).await {
            Ok(limits) => limits,
            Err(error) => return group.fail(&error),
        };
        panics::fail_point("writer");
        group.fit(&limits);
        let writes = &group.writes;
        if writes.is_empty() {
            return;
        }
        let results = match self.write(writes).await {
            Ok(results) => results,
            // A record that somebody has locked must not fail those of other batches.
            Err(error) if matches!(error.code, Code::Timeout | Code::Conflict) && by_batch(writes).count() > 1 => {
                let tasks: Vec<_> = by_batch(writes)
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
                for write in writes {
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
        group.tell(results);
    }

    /// Tells whoever waits what became of a save, or remembers it.
    fn tell(&self, job_id: &str, write: &RecordWrite, reply: Reply, result: Result<()>) {
        // A caller may have gone: a worker thread that was terminated, say.
        match reply {
            Reply::Committed(reply) => {
                let _ = reply.send(result);
                return;
            }
            Reply::Queued(reply) => {
                let _ = reply.send(Ok(()));
            }
            Reply::Told => {}
        }
        if let Some(queue) = lock(&self.queues).get_mut(job_id) {
            queue.settle(write, result);
        }
    }

    async fn write(&self, writes: &[RecordWrite]) -> Result<Vec<Result<()>>> {
        let repeat = match self.durability {
            // Idempotent: the token guards a record whose batch was claimed. Without a claim, one process saves the records of a batch.
            Durability::Record => Repeat::Idempotent,
            // The caller already has its answer, and can't repeat it.
            Durability::Batch => Repeat::AlreadyAnswered,
        };
        if writes.iter().all(|write| write.token.is_none()) {
            self.retry.run(repeat, || self.backend.save_records(writes)).await?;
            return Ok(vec![Ok(()); writes.len()]);
        }
        let held = self.retry.run(repeat, || self.backend.save_fenced_records(writes)).await?;
        Ok(writes
            .iter()
            .zip(held)
            .map(|(write, held)| match (held, write.token) {
                (false, Some(token)) => Err(Error::lease_lost(&BatchKey::new(&*write.job_id, &*write.batch_id), token)),
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
    writes: Vec<RecordWrite>,
    /// Who waits for each of the writes.
    replies: Vec<Reply>,
    taken: u64,
}

impl Group {
    /// By index.
    fn sort(&mut self) {
        let saves = self.writes.drain(..).zip(self.replies.drain(..));
        let mut saves: Vec<(RecordWrite, Reply)> = saves.collect();
        saves.sort_by_key(|(write, _)| write.record.index);
        (self.writes, self.replies) = saves.into_iter().unzip();
    }

    /// Makes the records ones that the database can hold, and tells those that are not.
    fn fit(&mut self, limits: &ColumnLimits) {
        let fits = |write: &mut RecordWrite| limits.fit_record(&mut write.record).err();
        let refused: Vec<_> = self.writes.iter_mut().map(fits).collect();
        for (place, error) in refused.into_iter().enumerate().rev() {
            if let Some(error) = error {
                let (write, reply) = (self.writes.remove(place), self.replies.remove(place));
                self.writer.tell(&self.job_id, &write, reply, Err(error));
            }
        }
    }

    /// Tells what became of each write.
    fn tell(&mut self, results: impl IntoIterator<Item = Result<()>>) {
        for ((write, reply), result) in self.writes.drain(..).zip(self.replies.drain(..)).zip(results) {
            self.writer.tell(&self.job_id, &write, reply, result);
        }
    }

    fn fail(&mut self, error: &Error) {
        self.tell(std::iter::repeat_n(Err(error.clone()), self.writes.len()));
    }

    fn end(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if let Some(queue) = lock(&self.writer.queues).get_mut(&self.job_id) {
            queue.done.send_modify(|done| *done += taken);
            queue.admit();
        }
    }
}

impl Drop for Group {
    /// Should the writer end in a panic, its saves are not stored, and a new one goes on with the others.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(&panics::defect());
            self.end();
            let mut queues = lock(&self.writer.queues);
            if let Some(queue) = queues.get_mut(&self.job_id) {
                queue.writing = false;
            }
            if queues.settle(&self.job_id) {
                self.writer.idle.notify_waiters();
            }
            drop(queues);
            self.writer.start(&self.job_id);
        }
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
            queues.settle(&self.job_id);
        }
    }
}
