//! The order of the calls: what was called first takes effect first, although each call runs as a task of its own.
//!
//! A call takes its place in the synchronous part, on the JavaScript thread, and waits for it in the asynchronous part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use crate::error::{Error, Result, lock};

/// One queue for each key.
#[derive(Clone, Default)]
pub struct Turns {
    /// The last call of each key, by number, and what tells its end.
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    number: u64,
    calls: HashMap<String, (u64, oneshot::Receiver<()>)>,
}

/// A call's place in its queue. The next one's turn comes when it is dropped.
pub struct Turn {
    before: Option<oneshot::Receiver<()>>,
    /// Dropped with the turn, which is what the next call waits for.
    _done: oneshot::Sender<()>,
    key: String,
    number: u64,
    last: Arc<Mutex<Last>>,
}

impl Turns {
    pub fn take(&self, key: &str) -> Turn {
        let (done, next) = oneshot::channel();
        let mut last = lock(&self.last);
        last.number += 1;
        let number = last.number;
        let before = last.calls.insert(key.to_owned(), (number, next)).map(|(_, before)| before);
        drop(last);
        Turn {
            before,
            _done: done,
            key: key.to_owned(),
            number,
            last: self.last.clone(),
        }
    }
}

impl Turn {
    pub async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the end of the call before closes the channel.
            let _ = before.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut last = lock(&self.last);
        if last.calls.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            last.calls.remove(&self.key);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_take_effect_in_the_order_in_which_they_were_made() {
        let turns = Turns::default();
        let effects = Arc::new(Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..100).map(|call| (call, turns.take("job"))).collect();
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
        assert!(lock(&turns.last).calls.is_empty());
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
