//! The order of a job's calls: they take effect in the order in which they are made, although each runs as a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::error::lock;
use crate::model::BatchKey;
use crate::panics;

/// Hands out turns. A call on the whole job waits for all earlier calls; a call on one batch waits for earlier ones on the whole job or on the same
/// batch.
///
/// Only the last call of each kind is kept, because it ends after the calls that it waits for.
#[derive(Clone, Default)]
pub struct Turns {
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    number: u64,
    jobs: HashMap<String, JobCalls>,
}

/// A job's last calls, for which the next call has to wait.
#[derive(Default)]
struct JobCalls {
    /// On the whole job. It ends before each of `on_batches` does.
    on_job: Option<Call>,
    /// By the id of the batch.
    on_batches: HashMap<String, Call>,
    /// What calls that were dropped before their turn were still waiting for.
    inherited: Vec<watch::Receiver<()>>,
}

struct Call {
    number: u64,
    done: watch::Receiver<()>,
}

/// A call's place in the order. It is held from when the call is made until it is dropped.
pub struct Turn {
    /// The calls that it is still waiting for.
    before: Vec<watch::Receiver<()>>,
    job_id: String,
    /// `None`: the whole job.
    batch_id: Option<String>,
    number: u64,
    queues: Arc<Mutex<Queues>>,
    /// Closes when the turn is dropped; later calls wait for that.
    _done: watch::Sender<()>,
}

impl Turns {
    pub fn of_job(&self, job_id: &str) -> Turn {
        self.take(job_id, None)
    }

    pub fn of_batch(&self, BatchKey { job_id, batch_id }: &BatchKey) -> Turn {
        self.take(job_id, Some(batch_id))
    }

    /// Whether no call on the job has a turn or waits for one.
    pub fn are_free(&self, job_id: &str) -> bool {
        !lock(&self.queues).jobs.contains_key(job_id)
    }

    fn take(&self, job_id: &str, batch_id: Option<&str>) -> Turn {
        let (sender, done) = watch::channel(());
        let mut queues = lock(&self.queues);
        panics::fail_point("turns, locked");
        queues.number += 1;
        let number = queues.number;
        let calls = queues.jobs.entry(job_id.to_owned()).or_default();
        let call = Call { number, done };
        let mut before: Vec<_> = calls.inherited.clone();
        match batch_id {
            None => {
                before.extend(calls.on_job.replace(call).map(|call| call.done));
                before.extend(calls.on_batches.drain().map(|(_, call)| call.done));
                calls.inherited.clear();
            }
            Some(batch_id) => {
                before.extend(calls.on_job.as_ref().map(|call| call.done.clone()));
                before.extend(calls.on_batches.insert(batch_id.to_owned(), call).map(|call| call.done));
            }
        }
        drop(queues);
        Turn {
            before,
            job_id: job_id.to_owned(),
            batch_id: batch_id.map(str::to_owned),
            number,
            queues: self.queues.clone(),
            _done: sender,
        }
    }
}

impl Turn {
    /// Resolves when the earlier calls have ended.
    pub async fn wait(&mut self) {
        while let Some(call) = self.before.last_mut() {
            // Nothing is ever sent: the end of the call closes the channel.
            let _ = call.changed().await;
            self.before.pop();
        }
    }
}

#[cfg(test)]
impl Turn {
    pub fn has_to_wait(&self) -> bool {
        !self.before.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        let Some(calls) = queues.jobs.get_mut(&self.job_id) else { return };
        // If it is dropped before its turn, the calls behind it still have to wait for what it waited for.
        calls.inherited.append(&mut self.before);
        calls.inherited.retain(|call| call.has_changed().is_ok());
        match &self.batch_id {
            None => drop(calls.on_job.take_if(|call| call.number == self.number)),
            Some(batch_id) => {
                if calls.on_batches.get(batch_id).is_some_and(|call| call.number == self.number) {
                    calls.on_batches.remove(batch_id);
                }
            }
        }
        if calls.on_job.is_none() && calls.on_batches.is_empty() && calls.inherited.is_empty() {
            queues.jobs.remove(&self.job_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: &str) -> BatchKey {
        BatchKey::new("job", id)
    }

    #[tokio::test]
    async fn calls_take_effect_in_the_order_in_which_they_were_made() {
        let turns = Turns::default();
        let effects = Arc::new(Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..100).map(|call| (call, turns.of_job("job"))).collect();
        // Started in reverse order, as a scheduler may.
        let tasks: Vec<_> = calls
            .into_iter()
            .rev()
            .map(|(call, mut turn)| {
                let effects = effects.clone();
                tokio::spawn(async move {
                    turn.wait().await;
                    tokio::task::yield_now().await;
                    lock(&effects).push(call);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*lock(&effects), (0..100).collect::<Vec<_>>());
        assert!(lock(&turns.queues).jobs.is_empty());
    }

    #[tokio::test]
    async fn calls_wait_only_for_calls_on_the_same_batch_or_job() {
        let turns = Turns::default();
        let waits_for = |turn: &Turn| turn.before.len();
        let first = turns.of_batch(&batch("a"));
        let other = turns.of_batch(&batch("b"));
        let second = turns.of_batch(&batch("a"));
        let whole = turns.of_job("job");
        let third = turns.of_batch(&batch("b"));
        // The last one waits for the whole job's call, which waits for the earlier ones.
        assert_eq!([&first, &other, &second, &whole, &third].map(waits_for), [0, 0, 1, 2, 1]);
        assert_eq!(waits_for(&turns.of_job("another")), 0);
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_lets_no_later_one_pass() {
        let turns = Turns::default();
        let first = turns.of_batch(&batch("a"));
        drop(turns.of_job("job"));
        let mut last = turns.of_batch(&batch("b"));
        let waiting = tokio::spawn(async move { last.wait().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        drop(turns.of_job("job"));
        assert!(lock(&turns.queues).jobs.is_empty());
    }

    #[tokio::test]
    async fn a_turn_costs_the_same_however_many_calls_stand_before_it() {
        let turns = Turns::default();
        let calls: Vec<_> = (0..10_000).map(|_| turns.of_job("job")).collect();
        assert!(calls.iter().all(|turn| turn.before.len() <= 1));
        let batches: Vec<_> = (0..10_000)
            .map(|number| turns.of_batch(&batch(&format!("batch {}", number % 100))))
            .collect();
        assert!(batches.iter().all(|turn| turn.before.len() <= 2));
        assert_eq!(turns.of_job("job").before.len(), 101);
    }
}
