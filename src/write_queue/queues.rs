//! The queues of all jobs. A job of which nothing is queued and nothing failed has no queue.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::queue::Queue;
use crate::error::lock;
use crate::panics;

#[derive(Default)]
struct Jobs {
    by_id: HashMap<String, Entry>,
    /// The number of queues that are not idle.
    busy: usize,
}

#[derive(Default)]
struct Entry {
    queue: Queue,
    /// Counted in `Jobs::busy`.
    is_busy: bool,
}

#[derive(Default)]
pub struct Queues {
    jobs: Mutex<Jobs>,
    /// Woken when the last queue becomes idle.
    idle: Notify,
    /// A future of `wait_until_idle` is running, or is about to, and keeps the process alive.
    kept_alive: AtomicBool,
}

/// Sets `Queues::kept_alive`. Dropping it clears that, however its future ends, so that the next save starts another one.
struct KeptAlive<'a>(&'a AtomicBool);

impl Drop for KeptAlive<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Queues {
    /// Reads a job's queue, if it has one.
    pub fn read<T>(&self, job_id: &str, read: impl FnOnce(&Queue) -> T) -> Option<T> {
        lock(&self.jobs).by_id.get(job_id).map(|entry| read(&entry.queue))
    }

    /// Changes a job's queue, if it has one.
    pub fn change<T>(&self, job_id: &str, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let mut jobs = lock(&self.jobs);
        let result = change(&mut jobs.by_id.get_mut(job_id)?.queue);
        self.recount(&mut jobs, job_id);
        Some(result)
    }

    /// Changes a job's queue, which is created if the job has none.
    pub fn enter<T>(&self, job_id: &str, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut jobs = lock(&self.jobs);
        panics::fail_point("queues, locked");
        let result = change(&mut jobs.by_id.entry(job_id.to_owned()).or_default().queue);
        self.recount(&mut jobs, job_id);
        result
    }

    /// Counts the busy queues after a change, and drops a queue that is no longer needed.
    fn recount(&self, jobs: &mut Jobs, job_id: &str) {
        let Some(entry) = jobs.by_id.get_mut(job_id) else { return };
        let was_busy = std::mem::replace(&mut entry.is_busy, !entry.queue.is_idle());
        jobs.busy = jobs.busy + usize::from(entry.is_busy) - usize::from(was_busy);
        if entry.queue.is_unused() {
            jobs.by_id.remove(job_id);
        }
        if was_busy && jobs.busy == 0 {
            self.idle.notify_waiters();
        }
    }

    /// The number of jobs with something queued or being written.
    pub fn busy(&self) -> usize {
        lock(&self.jobs).busy
    }

    pub fn job_ids(&self) -> Vec<String> {
        lock(&self.jobs).by_id.keys().cloned().collect()
    }

    /// The first answer that a queue gives.
    pub fn find<T>(&self, answer: impl Fn(&Queue) -> Option<T>) -> Option<T> {
        lock(&self.jobs).by_id.values().find_map(|entry| answer(&entry.queue))
    }

    /// Whether the caller has to run `wait_until_idle`. After `true`, it counts as running until it ends.
    pub fn needs_keep_alive(&self) -> bool {
        !self.kept_alive.swap(true, Ordering::AcqRel)
    }

    /// Resolves when no save is queued or being written, for any job.
    pub async fn wait_until_idle(&self) {
        let kept_alive = KeptAlive(&self.kept_alive);
        panics::fail_point("keep alive");
        loop {
            let idle = self.idle.notified();
            {
                // Under the lock, so that the next save keeps the process alive again.
                let jobs = lock(&self.jobs);
                if jobs.busy == 0 {
                    drop(kept_alive);
                    return;
                }
            }
            idle.await;
        }
    }
}
