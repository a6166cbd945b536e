//! The connections that no call uses: which one is used next, which are given up, and when the rest is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::driver::Driver;
use crate::error::lock;
use crate::panics;

/// A connection that was idle for longer is tried before it is used: a server or a firewall may have ended it meanwhile. A busy store never pays for it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long statements aren't kept prepared where the server keeps no more.
const UNPREPARED: Duration = Duration::from_secs(60);

/// How long a goodbye to the server may take.
pub const GOODBYE: Duration = Duration::from_secs(5);

pub struct IdleConnections<D: Driver> {
    state: Mutex<State<D>>,
    /// How many of them stay, however long they are idle.
    min: usize,
    idle_timeout: Option<Duration>,
    /// Whether they are used without a try, because the database is the connection.
    always_trusted: bool,
    closing_expired: AtomicBool,
}

struct State<D: Driver> {
    /// The one that was used last is on top.
    connections: Vec<(D::Connection, Instant)>,
    /// How often all connections were given up. A connection that was made before that is not put back.
    generation: u64,
    /// When a connection was last lost: those that are idle since before are tried before they are used.
    lost: Option<Instant>,
    unprepared_until: Option<Instant>,
}

impl<D: Driver> IdleConnections<D> {
    pub fn new(min: usize, idle_timeout: Option<Duration>, always_trusted: bool) -> Self {
        Self {
            state: Mutex::new(State {
                connections: Vec::new(),
                generation: 0,
                lost: None,
                unprepared_until: None,
            }),
            min,
            idle_timeout,
            always_trusted,
            closing_expired: AtomicBool::new(false),
        }
    }

    pub fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Whether the server has room for prepared statements, as far as is known.
    pub fn may_prepare(&self) -> bool {
        lock(&self.state).unprepared_until.is_none_or(|until| Instant::now() >= until)
    }

    /// The connection that was used last, where one that works is idle.
    pub async fn take(&self) -> Option<D::Connection> {
        loop {
            let (mut connection, trusted) = {
                let mut state = lock(&self.state);
                let (connection, since) = state.connections.pop()?;
                let trusted = since.elapsed() < TRUSTED_IDLE && state.lost.is_none_or(|lost| since > lost);
                (connection, trusted || self.always_trusted)
            };
            if trusted {
                return Some(connection);
            }
            match timeout(TRUSTED_IDLE, D::ping(&mut connection)).await {
                Ok(Ok(())) => return Some(connection),
                Ok(Err(_)) => {}
                // A server that vanished without a word holds the call up once, not for each connection to it.
                Err(_) => drop(self.take_all()),
            }
        }
    }

    pub fn take_all(&self) -> Vec<D::Connection> {
        let idle = std::mem::take(&mut lock(&self.state).connections);
        idle.into_iter().map(|(connection, _)| connection).collect()
    }

    /// Keeps a connection of this generation for the next call.
    pub fn put(self: &Arc<Self>, connection: D::Connection, generation: u64) {
        let mut state = lock(&self.state);
        if state.generation != generation {
            return;
        }
        state.connections.push((connection, Instant::now()));
        panics::fail_point("connections, locked");
        let Some(idle_timeout) = self.idle_timeout else { return };
        if state.connections.len() > self.min && !self.closing_expired.swap(true, Ordering::AcqRel) {
            tokio::spawn(close_expired(Arc::downgrade(self), idle_timeout));
        }
    }

    /// A connection was lost, so the others may be lost too.
    pub fn distrust(&self) {
        lock(&self.state).lost = Some(Instant::now());
    }

    /// The server keeps no more prepared statements.
    pub fn stop_preparing(&self) {
        lock(&self.state).unprepared_until = Some(Instant::now() + UNPREPARED);
    }

    /// Gives up all connections that were made until now: the idle ones at once, the others when they come back.
    pub fn give_up_all(&self) {
        let mut state = lock(&self.state);
        state.generation += 1;
        // Dropped after the lock is released: dropping a connection closes its socket.
        let given_up = std::mem::take(&mut state.connections);
        drop(state);
        drop(given_up);
    }

    /// The connections that have been idle for too long, and whether there are none left that may expire.
    fn take_expired(&self, idle_timeout: Duration) -> (Vec<D::Connection>, bool) {
        let mut state = lock(&self.state);
        let mut expired = Vec::new();
        let connections = &mut state.connections;
        while connections.len() > self.min && connections.first().is_some_and(|(_, since)| since.elapsed() >= idle_timeout) {
            expired.push(connections.remove(0).0);
        }
        let done = connections.len() <= self.min;
        if done {
            // Under the lock, so that the next `put` starts another round.
            self.closing_expired.store(false, Ordering::Release);
        }
        (expired, done)
    }
}

/// Closes what has not been used for long, until nothing is left to close.
async fn close_expired<D: Driver>(idle: Weak<IdleConnections<D>>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(idle) = idle.upgrade() else { return };
        let (expired, done) = idle.take_expired(idle_timeout);
        for connection in expired {
            let _ = timeout(GOODBYE, D::close(connection)).await;
        }
        if done {
            return;
        }
    }
}
