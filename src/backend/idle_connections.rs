//! The pool's idle connections: which one is reused next, which are dropped, and when surplus ones are closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::driver::Driver;
use crate::error::lock;
use crate::panics;
use crate::warnings::{Warning, WarningKind, Warnings};

/// A connection that has been idle for longer is pinged before it is reused: a server or a firewall may have ended it. In a busy store no connection
/// is idle that long.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long statements are not kept prepared after the server ran out of prepared statements.
const UNPREPARED: Duration = Duration::from_secs(60);

/// How long closing a connection may take.
pub const GOODBYE: Duration = Duration::from_secs(5);

pub struct IdleConnections<D: Driver> {
    state: Mutex<State<D>>,
    /// The number of connections that are kept however long they are idle.
    min: usize,
    idle_timeout: Option<Duration>,
    /// Whether connections are reused without a ping, because the database lives in the connection.
    always_trusted: bool,
    closing_expired: AtomicBool,
    warnings: Warnings,
    /// The database's name in messages.
    place: Arc<str>,
}

struct State<D: Driver> {
    /// The most recently used connection is last.
    connections: Vec<(D::Connection, Instant)>,
    /// Counts how often all connections were given up. A connection of an earlier generation is not put back.
    generation: u64,
    /// When a connection was last lost: connections that have been idle since before then are pinged before they are reused.
    lost: Option<Instant>,
    unprepared_until: Option<Instant>,
}

impl<D: Driver> IdleConnections<D> {
    pub fn new(min: usize, idle_timeout: Option<Duration>, always_trusted: bool, warnings: Warnings, place: Arc<str>) -> Self {
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
            warnings,
            place,
        }
    }

    pub fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Whether the server has room for prepared statements, as far as the pool knows.
    pub fn may_prepare(&self) -> bool {
        lock(&self.state).unprepared_until.is_none_or(|until| Instant::now() >= until)
    }

    /// The most recently used connection that still works.
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
                Ok(Err(_)) => self.warn_lost(1),
                // A server that vanished silently delays the call once, not once per connection.
                Err(_) => self.warn_lost(self.take_all().len() + 1),
            }
        }
    }

    /// The call goes on with another connection.
    fn warn_lost(&self, count: usize) {
        let message = match count {
            1 => format!("an idle connection to {} no longer answered, and was given up", self.place),
            _ => format!("{count} idle connections to {} no longer answered, and were given up", self.place),
        };
        self.warnings.warn(Warning::new(WarningKind::ConnectionLost, message).count(count));
    }

    pub fn len(&self) -> usize {
        lock(&self.state).connections.len()
    }

    pub fn take_all(&self) -> Vec<D::Connection> {
        let idle = std::mem::take(&mut lock(&self.state).connections);
        idle.into_iter().map(|(connection, _)| connection).collect()
    }

    /// Keeps a connection of this generation for the next call.
    pub fn put(self: &Arc<Self>, mut connection: D::Connection, generation: u64) {
        D::shrink(&mut connection);
        let mut state = lock(&self.state);
        if state.generation != generation {
            return;
        }
        state.connections.push((connection, Instant::now()));
        panics::fail_point("connections, locked");
        let Some(idle_timeout) = self.idle_timeout else { return };
        if state.connections.len() > self.min && !self.closing_expired.swap(true, Ordering::AcqRel) {
            let idle = Arc::downgrade(self);
            // Of a store that is closed meanwhile it keeps a weak reference only, because it sleeps for as long as a connection may be idle.
            tokio::spawn(async move {
                let closing = panics::caught_in({
                    let idle = idle.clone();
                    async move {
                        close_expired(idle, idle_timeout).await;
                        Ok(())
                    }
                });
                if let Err(error) = closing.await
                    && let Some(idle) = idle.upgrade()
                {
                    idle.warnings.panicked("closing idle connections", error);
                    // The next `put` starts another round.
                    idle.closing_expired.store(false, Ordering::Release);
                }
            });
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

    /// Gives up all connections made so far: idle ones at once, the others when they are returned.
    pub fn give_up_all(&self) {
        let mut state = lock(&self.state);
        state.generation += 1;
        // Dropped after the lock is released: dropping a connection closes its socket.
        let given_up = std::mem::take(&mut state.connections);
        drop(state);
        drop(given_up);
    }

    /// Connections that have been idle for too long, and whether none is left that can expire.
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

/// Closes connections that have been idle for too long, until none is left that can expire.
async fn close_expired<D: Driver>(idle: Weak<IdleConnections<D>>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(idle) = idle.upgrade() else { return };
        panics::fail_point("idle connections");
        let (expired, done) = idle.take_expired(idle_timeout);
        for connection in expired {
            let _ = timeout(GOODBYE, D::close(connection)).await;
        }
        if done {
            return;
        }
    }
}
