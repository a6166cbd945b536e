//! Calls that `durability: 'batch'` queues besides saves of records: `saveJobState` of a job that is under way, and `updateBatchState`, where one
//! process works on the job alone. They are answered when they have their place, and written together with later ones (`crate::write_queue`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::call::{Access, Answer, Call, Entered, Operations};
use crate::error::{Code, Error, Quoted, Repeatable, Result, lock};
use crate::model::{BatchEnd, BatchKey, BatchState, BatchStatus, CapturedList, Job, Token};
use crate::retry::LostReplies;
use crate::write_queue::{EndingBatch, JobWrites, Saved, States, WriteJob};

/// How many distributed jobs are remembered. One that is forgotten counts as unknown, which is right, but answers its calls earlier than need be.
const REMEMBERED_JOBS: usize = 10_000;

/// The distributed jobs that this store has saved or read.
#[derive(Default)]
pub(super) struct DistributedJobs {
    ids: Mutex<HashSet<String>>,
}

impl DistributedJobs {
    /// Notes what a call on the job has shown.
    pub(super) fn note(&self, job_id: &str, distributed: bool) {
        let mut ids = lock(&self.ids);
        if !distributed {
            ids.remove(job_id);
        } else if !ids.contains(job_id) {
            if ids.len() >= REMEMBERED_JOBS {
                ids.clear();
            }
            ids.insert(job_id.to_owned());
        }
    }

    fn has(&self, job_id: &str) -> bool {
        lock(&self.ids).contains(job_id)
    }
}

impl Entered {
    pub fn save_job(self, mut job: Job) -> Result<Saved<impl Answer<()> + use<>>> {
        let Self { store, .. } = &self;
        store.distributed_jobs.note(&job.id, job.distributed);
        if job.is_queueable() && self.may_queue(&job.id) {
            job.file = store.storage.file();
            return store.queue.save_job(job, Arc::new(QueuedCalls(store.clone())));
        }
        let call = self.accessing(Access::WritesJob(&job.id));
        Ok(Saved::Pending(call.run(|call| async move { call.save_job(job).await })))
    }

    /// Rejects with `LEASE_LOST` if the batch was claimed again or released since the claim with `token`. Without a token, the store's last claim on
    /// the batch counts.
    pub fn update_batch_state(self, key: BatchKey, state: BatchState, token: Option<Token>) -> Result<Saved<impl Answer<()> + use<>>> {
        // Reads the caller's claim now, because the store may have claimed the batch again by the time the call's turn comes.
        let token = self.token(&key, token);
        let Self { store, .. } = &self;
        if token.is_none() && !store.distributed_jobs.has(&key.job_id) && self.may_queue(&key.job_id) {
            let file = store.storage.file();
            return store.queue.set_batch_state(key, state, file, Arc::new(QueuedCalls(store.clone())));
        }
        let ending = token.filter(|_| state.status.is_final()).map(|token| {
            let key = key.clone();
            EndingBatch::new(BatchEnd { key, state, token })
        });
        let access = ending.as_ref().map_or(Access::WritesBatch(&key), Access::EndsBatch);
        Ok(Saved::Pending(self.accessing(access).run(move |call| async move {
            call.update_batch_state(&key, state, token, ending.as_deref()).await
        })))
    }

    /// Whether a call may be queued. What is queued is written before a call that waits for its turn, so behind one the next call waits too.
    fn may_queue(&self, job_id: &str) -> bool {
        self.store.queue.queues_job(job_id) && self.store.turns.are_free(job_id)
    }
}

/// Writes what is queued, through the store that queued it.
struct QueuedCalls(Arc<Operations>);

#[async_trait]
impl WriteJob for QueuedCalls {
    async fn write_job(&self, job_id: &str, writes: JobWrites) -> Result<()> {
        let call = Call::of_queue(self.0.clone());
        if writes.file != call.store.storage.file() {
            return Err(file_replaced(job_id));
        }
        call.write_queued(job_id, writes).await
    }
}

impl Call {
    async fn write_queued(&self, job_id: &str, mut writes: JobWrites) -> Result<()> {
        self.fail_states(job_id, &mut writes);
        let JobWrites { before, job, after, .. } = writes;
        let Some(mut job) = job else {
            return self.set_states(job_id, before).await;
        };
        let list = job.captured.clone().unwrap_or_default();
        let (listed, unlisted) = split(before, &list);
        self.set_states(job_id, unlisted).await?;
        let (listed_after, unlisted_after) = split(after, &list);
        if let Some(list) = &mut job.captured {
            for (batch_id, state) in &listed_after {
                list.set_state(job_id, batch_id, *state)?;
            }
        }
        let saved = self.store_job(job).await?;
        if saved.has_rows {
            // Another program has given some of the batches rows, which the list does not change.
            self.set_states_in_rows(job_id, listed).await?;
            self.set_states(job_id, listed_after).await?;
        }
        self.set_states(job_id, unlisted_after).await
    }

    /// Sets states that are older than the job's list: for a batch without a row, the list counts.
    async fn set_states_in_rows(&self, job_id: &str, states: States) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        for (batch_id, state) in states {
            self.set_state_if_row(&BatchKey::new(job_id, batch_id), state).await?;
        }
        // The list was exact when the job was saved.
        self.update_list(job_id).await
    }

    /// A batch with records that could not be stored is FAILED, whatever its import believed when it set the state.
    fn fail_states(&self, job_id: &str, writes: &mut JobWrites) {
        let failed = self.store.queue.failed_batches(job_id);
        for batch_id in &failed {
            for states in [&mut writes.before, &mut writes.after] {
                if let Some(state) = states.get_mut(batch_id).filter(|state| state.status == BatchStatus::Completed) {
                    state.status = BatchStatus::Failed;
                }
            }
        }
    }

    async fn set_states(&self, job_id: &str, states: States) -> Result<()> {
        for (batch_id, state) in states {
            self.set_state(&BatchKey::new(job_id, batch_id), state, None, &LostReplies::default())
                .await?;
        }
        Ok(())
    }
}

/// The states of batches in the list, and those of others.
fn split(states: States, list: &CapturedList) -> (States, States) {
    states.into_iter().partition(|(batch_id, _)| list.contains(batch_id))
}

fn file_replaced(job_id: &str) -> Error {
    Error::new(
        Code::ConnectionLost,
        format!(
            "job {} was queued for a database file that is gone: its path holds another file, or none",
            Quoted(job_id)
        ),
    )
    .repeatable(Repeatable::Never)
}
