//! A store's gate: calls enter through it; `close()` shuts it and waits for the calls inside.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::error::{Error, Result, lock};

/// Lets calls in until it is closed, and then waits for those inside.
#[derive(Clone, Default)]
pub struct Gate {
    inside: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    state: Mutex<GateState>,
    empty: Notify,
    closed: Notify,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    calls: usize,
}

/// Held by a call inside.
pub struct Pass {
    inside: Arc<Inside>,
}

impl Gate {
    /// Lets one call in, unless the gate is closed.
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
        self.inside.closed.notify_waiters();
    }

    /// Resolves when the gate is closed.
    pub async fn wait_until_closed(&self) {
        loop {
            let closed = self.inside.closed.notified();
            if self.is_closed() {
                return;
            }
            closed.await;
        }
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.inside.state).closed
    }

    /// Resolves when no call is inside.
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
    async fn a_closed_gate_lets_no_call_in_and_waits_for_those_inside() {
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
