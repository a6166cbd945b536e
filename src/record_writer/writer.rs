//! The writer of a job's queue: a task that writes one group after another until the queue is empty. A job has at most one, so that its saves take
//! effect in the order of the calls.

use std::sync::Arc;

use tokio::time::timeout;

use super::group::Group;
use super::group_store::GroupStore;
use super::queue::Queue;
use super::queues::Queues;
use crate::error::Result;
use crate::order::Initialization;
use crate::panics::{self, caught_in};

pub struct Writer {
    pub store: GroupStore,
    pub queues: Arc<Queues>,
    pub initialization: Initialization,
    /// Whether it lingers for more saves before it writes a group.
    pub lingers: bool,
}

impl Writer {
    /// Starts the writer of the job's queue, if it has saves and no writer is running.
    pub fn start(self: &Arc<Self>, job_id: &str) {
        if self.queues.change(job_id, Queue::begin_writing) == Some(true) {
            tokio::spawn(self.clone().run(job_id.to_owned()));
        }
    }

    /// Runs the writer of a queue that counts it as running (`Queue::begin_writing`).
    pub async fn run(self: Arc<Self>, job_id: String) {
        // A panic fails the saves of one group. The next iteration writes the saves behind them.
        while caught_in(self.clone().write_all(job_id.clone())).await.is_err() {}
    }

    async fn write_all(self: Arc<Self>, job_id: String) -> Result<()> {
        let mut group = Group::new(self.queues.clone(), job_id.clone());
        loop {
            if self.lingers {
                self.linger(&job_id).await;
            }
            group.fill().await;
            if group.writes().is_empty() {
                return Ok(());
            }
            self.write(&mut group).await;
            group.finish();
        }
    }

    /// Lingers for more saves to be written together.
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
