//! The order of the calls: what was called first takes effect first, although each call runs as a task of its own.
//!
//! A call takes its place in the synchronous part, on the JavaScript thread, and waits for it in the asynchronous part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use crate::error::{Error, Result, lock};
use crate::panics;

/// The order of a job's calls: one that concerns the whole job waits for all before it, one that concerns a part waits for those that concern the whole
/// job or the same part.
///
/// Only the last call of each kind is kept, for it ends after those that it waits for itself.
#[derive(Clone, Default)]
pub struct Turns {
    queues: Arc<Mutex<Queues>>,
}

#[derive(Default)]
struct Queues {
    number: u64,
    jobs: HashMap<String, JobCalls>,
}

/// The calls of one job that are not done and that nobody stands behind.
#[derive(Default)]
struct JobCalls {
    /// Ends before each of the parts does.
    whole: Option<Call>,
    parts: HashMap<String, Call>,
    /// What calls that were given up had still to wait for.
    inherited: Vec<watch::Receiver<()>>,
}

struct Call {
    number: u64,
    done: watch::Receiver<()>,
}

/// A call's place. The turn of those behind it comes when it is dropped.
pub struct Turn {
    before: Vec<watch::Receiver<()>>,
    job_id: String,
    /// `None` concerns the whole job.
    part: Option<String>,
    number: u64,
    queues: Arc<Mutex<Queues>>,
    /// Dropped with the turn, which is what later calls wait for.
    _done: watch::Sender<()>,
}

impl Turns {
    pub fn of_job(&self, job_id: &str) -> Turn {
        self.take(job_id, None)
    }

    pub fn of_batch(&self, job_id: &str, batch_id: &str) -> Turn {
        self.take(job_id, Some(batch_id))
    }

    fn take(&self, job_id: &str, part: Option<&str>) -> Turn {
        let (sender, done) = watch::channel(());
        let mut queues = lock(&self.queues);
        panics::fail_point("turns, locked");
        queues.number += 1;
        let number = queues.number;
        let calls = queues.jobs.entry(job_id.to_owned()).or_default();
        let call = Call { number, done };
        let mut before: Vec<_> = calls.inherited.clone();
        match part {
            None => {
                before.extend(calls.whole.replace(call).map(|call| call.done));
                before.extend(calls.parts.drain().map(|(_, call)| call.done));
                calls.inherited.clear();
            }
            Some(part) => {
                before.extend(calls.whole.as_ref().map(|call| call.done.clone()));
                before.extend(calls.parts.insert(part.to_owned(), call).map(|call| call.done));
            }
        }
        drop(queues);
        Turn {
            before,
            job_id: job_id.to_owned(),
            part: part.map(str::to_owned),
            number,
            queues: self.queues.clone(),
            _done: sender,
        }
    }
}

impl Turn {
    pub async fn wait(&mut self) {
        while let Some(call) = self.before.last_mut() {
            // Nothing is ever sent: the end of the call closes the channel.
            let _ = call.changed().await;
            self.before.pop();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        let Some(calls) = queues.jobs.get_mut(&self.job_id) else { return };
        // Given up before its turn came: who stands behind it has to wait for what it waited for.
        calls.inherited.append(&mut self.before);
        calls.inherited.retain(|call| call.has_changed().is_ok());
        match &self.part {
            None => drop(calls.whole.take_if(|call| call.number == self.number)),
            Some(part) => {
                if calls.parts.get(part).is_some_and(|call| call.number == self.number) {
                    calls.parts.remove(part);
                }
            }
        }
        if calls.whole.is_none() && calls.parts.is_empty() && calls.inherited.is_empty() {
            queues.jobs.remove(&self.job_id);
        }
    }
}

/// Lets calls in until it is closed, and then waits for those that are inside.
#[derive(Clone, Default)]
pub struct Gate {
    inside: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    state: Mutex<GateState>,
    empty: Notify,
    shut: Notify,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    calls: usize,
}

/// A call that is inside.
pub struct Pass {
    inside: Arc<Inside>,
}

impl Gate {
    pub fn enter(&self) -> Result<Pass> {
        let mut state = lock(&self.inside.state);
        if state.closed {
            return Err(Error::closed());
        }
        state.calls += 1;
        Ok(Pass {
            inside: self.inside.clone(),
        })
    }

    pub fn close(&self) {
        lock(&self.inside.state).closed = true;
        self.inside.shut.notify_waiters();
    }

    /// Ends once the gate is shut.
    pub async fn wait_until_closed(&self) {
        loop {
            let shut = self.inside.shut.notified();
            if self.is_closed() {
                return;
            }
            shut.await;
        }
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.inside.state).closed
    }

    pub async fn wait_until_empty(&self) {
        loop {
            let emptied = self.inside.empty.notified();
            if lock(&self.inside.state).calls == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = lock(&self.inside.state);
        state.calls -= 1;
        if state.calls == 0 {
            self.inside.empty.notify_waiters();
        }
    }
}

/// The `initialize()` calls of a store that are under way. Calls that are made meanwhile wait for them.
#[derive(Clone)]
pub struct Initialization {
    under_way: Arc<watch::Sender<usize>>,
}

/// One `initialize()` that is under way, until it is dropped.
pub struct Initializing {
    under_way: Arc<watch::Sender<usize>>,
}

impl Default for Initialization {
    fn default() -> Self {
        Self {
            under_way: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Initialization {
    pub fn begin(&self) -> Initializing {
        self.under_way.send_modify(|count| *count += 1);
        Initializing {
            under_way: self.under_way.clone(),
        }
    }

    /// What a call that is made now waits for.
    pub fn before_call(&self) -> Option<watch::Receiver<usize>> {
        (*self.under_way.borrow() > 0).then(|| self.under_way.subscribe())
    }

    /// Waits until none is under way.
    pub async fn wait(before: Option<watch::Receiver<usize>>) {
        if let Some(mut under_way) = before {
            // It closes with the store, and then there is none.
            let _ = under_way.wait_for(|count| *count == 0).await;
        }
    }
}

impl Drop for Initializing {
    fn drop(&mut self) {
        self.under_way.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_take_effect_in_the_order_in_which_they_were_made() {
        let turns = Turns::default();
        let effects = Arc::new(Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..100).map(|call| (call, turns.of_job("job"))).collect();
        // Started in the opposite order, as a scheduler may.
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
    async fn calls_wait_for_what_concerns_them_and_for_nothing_else() {
        let turns = Turns::default();
        let waits_for = |turn: &Turn| turn.before.len();
        let first = turns.of_batch("job", "a");
        let other = turns.of_batch("job", "b");
        let second = turns.of_batch("job", "a");
        let whole = turns.of_job("job");
        let third = turns.of_batch("job", "b");
        // The last one waits for the whole job's call, which waits for what came before.
        assert_eq!([&first, &other, &second, &whole, &third].map(waits_for), [0, 0, 1, 2, 1]);
        assert_eq!(waits_for(&turns.of_job("another")), 0);
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_lets_nobody_pass() {
        let turns = Turns::default();
        let first = turns.of_batch("job", "a");
        drop(turns.of_job("job"));
        let mut last = turns.of_batch("job", "b");
        let waiting = tokio::spawn(async move { last.wait().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        drop(turns.of_job("job"));
        assert!(lock(&turns.queues).jobs.is_empty());
    }

    #[tokio::test]
    async fn a_place_costs_the_same_however_many_stand_before_it() {
        let turns = Turns::default();
        let calls: Vec<_> = (0..10_000).map(|_| turns.of_job("job")).collect();
        assert!(calls.iter().all(|turn| turn.before.len() <= 1));
        let batches: Vec<_> = (0..10_000)
            .map(|batch| turns.of_batch("job", &format!("batch {}", batch % 100)))
            .collect();
        assert!(batches.iter().all(|turn| turn.before.len() <= 2));
        assert_eq!(turns.of_job("job").before.len(), 101);
    }

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_waits_for_those_inside() {
        let gate = Gate::default();
        let pass = gate.enter().unwrap();
        gate.close();
        assert!(gate.enter().is_err());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait_until_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(pass);
        waiting.await.unwrap();
    }
}
