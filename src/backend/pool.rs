//! The connection pool. It opens connections on demand, limits their number and the wait for one, and closes those that have been idle for too long.
//!
//! It replaces sqlx's pool for four properties that the one of sqlx 0.8 lacks: a refused connection fails at once with its reason, instead of being
//! retried until the caller's timeout; returning a connection costs no round trip (sqlx pings it each time); a connection that is returned while the
//! pool closes is closed too; and a connection with an abandoned statement is never reused.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{timeout, timeout_at};

use super::credentials::{Login, Logins};
use super::driver::{Access, Driver, Failure, Refused};
use super::idle_connections::{GOODBYE, IdleConnections};
use super::session::{Session, SessionRules};
use super::tls;
use crate::error::{Code, Error, Repeatable, Result, lock};
use crate::retry::jittered;
use crate::settings::{Secret, Settings};
use crate::warnings::{Warning, WarningKind};

/// Callers that need a connection within this time after a failed attempt share its failure, so that they don't flood a server that is starting.
const FAILURE_SHARED: Duration = Duration::from_millis(20);

/// After the server reports that it has no connection left, the pool works with one slot fewer for this long.
const PLACE_RESTS: Duration = Duration::from_millis(500);

/// The limits of a pool.
pub struct PoolRules {
    pub max: u32,
    /// The number of idle connections to keep.
    pub min: u32,
    /// How long the others may be idle before they are closed; `None`: forever.
    pub idle_timeout: Option<Duration>,
    /// Whether a connection in doubt is kept, because the database lives in the connection.
    pub keep_in_doubt: bool,
    /// Begins a transaction around each statement outside of one, where a pooler may route the parts of a statement to different servers.
    pub begin_each: Option<Arc<str>>,
}

impl PoolRules {
    pub fn of(settings: &Settings) -> Self {
        Self {
            max: settings.pool_max,
            min: settings.pool_min,
            idle_timeout: Some(settings.idle_timeout),
            keep_in_doubt: false,
            begin_each: None,
        }
    }
}

/// The connections of a pool at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// A call uses them, or they are being made for one.
    pub used: u32,
    /// Open, without a call that uses them.
    pub idle: u32,
    /// Calls that wait for a connection.
    pub pending: u32,
    pub max: u32,
}

impl std::ops::Add for PoolUse {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            used: self.used + other.used,
            idle: self.idle + other.idle,
            pending: self.pending + other.pending,
            max: self.max + other.max,
        }
    }
}

/// Counts what exists of something.
#[derive(Default)]
struct Tally(Arc<AtomicU32>);

/// One of the things that a tally counts, until it is dropped.
struct Counted(Arc<AtomicU32>);

impl Tally {
    fn one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::AcqRel);
        Counted(self.0.clone())
    }

    fn now(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The right to one connection.
pub struct Slot {
    permit: OwnedSemaphorePermit,
    _used: Counted,
}

/// A pool that starts empty.
pub struct Pool<D: Driver> {
    driver: D,
    settings: Settings,
    logins: Logins,
    session_rules: Arc<SessionRules>,
    max: u32,
    slots: Arc<Semaphore>,
    used: Tally,
    pending: Tally,
    /// Whether a connection has ever succeeded: then the settings are right, and a refusal means that the server restarts.
    connected: AtomicBool,
    /// The last failed attempt to connect, if a later one may succeed.
    failure: Mutex<Option<(Instant, Error)>>,
    idle: Arc<IdleConnections<D>>,
}

impl<D: Driver> Pool<D> {
    pub fn new(settings: &Settings, driver: D, rules: PoolRules) -> Self {
        // `settings.place()`, for the messages of every session.
        let place: Arc<str> = settings.place().into();
        Self {
            driver,
            // Only `logins` holds the password, so that it can drop it.
            settings: Settings {
                password: None,
                password_function: None,
                ..settings.clone()
            },
            logins: Logins::new(settings, place.clone()),
            max: rules.max,
            slots: Arc::new(Semaphore::new(rules.max as usize)),
            used: Tally::default(),
            pending: Tally::default(),
            connected: AtomicBool::new(false),
            failure: Mutex::default(),
            idle: Arc::new(IdleConnections::new(
                rules.min as usize,
                rules.idle_timeout,
                rules.keep_in_doubt,
                settings.warnings.clone(),
                place.clone(),
            )),
            session_rules: Arc::new(SessionRules {
                place,
                warnings: settings.warnings.clone(),
                statement_timeout: settings.statement_timeout,
                keep_in_doubt: rules.keep_in_doubt,
                begin_each: rules.begin_each,
            }),
        }
    }

    /// A session on an idle connection or a new one. Waits for at most `pool.acquireTimeoutMs`.
    pub async fn acquire(&self) -> Result<Session<D>> {
        let deadline = tokio::time::Instant::now() + self.settings.acquire_timeout;
        let mut refused = None;
        loop {
            let Some(slot) = self.slot(deadline).await? else {
                return Err(refused.unwrap_or_else(|| self.all_in_use()));
            };
            match self.session(slot).await {
                Ok(session) => return Ok(session),
                Err((error, slot)) if error.repeatable == Repeatable::NoConnectionLeft => {
                    self.warn_refused(&error);
                    refused = Some(self.no_connection_left(error));
                    // The pool has one slot fewer for a while, and this call queues for a connection of the others.
                    let Slot { permit, .. } = slot;
                    tokio::spawn(async move {
                        tokio::time::sleep(PLACE_RESTS / 2 + jittered(PLACE_RESTS / 2)).await;
                        drop(permit);
                    });
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// `None` if none becomes free until the deadline.
    async fn slot(&self, deadline: tokio::time::Instant) -> Result<Option<Slot>> {
        let permit = match self.slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(Error::closed()),
            Err(TryAcquireError::NoPermits) => {
                let _pending = self.pending.one();
                match timeout_at(deadline, self.slots.clone().acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(Error::closed()),
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(Some(Slot {
            permit,
            _used: self.used.one(),
        }))
    }

    /// The connections at this moment.
    pub fn now(&self) -> PoolUse {
        let used = self.used.now();
        PoolUse {
            used,
            // A connection may be on its way from one to the other.
            idle: u32::try_from(self.idle.len())
                .unwrap_or(u32::MAX)
                .min(self.max.saturating_sub(used)),
            pending: self.pending.now(),
            max: self.max,
        }
    }

    fn place(&self) -> &str {
        &self.session_rules.place
    }

    fn all_in_use(&self) -> Error {
        Error::new(
            Code::Timeout,
            format!(
                "all {} connections to {} were in use for {} ms (pool.acquireTimeoutMs): raise pool.max, or make fewer calls at once",
                self.max,
                self.place(),
                self.settings.acquire_timeout.as_millis(),
            ),
        )
        // Nothing was sent, so the caller may retry.
        .repeatable(Repeatable::ByCaller)
    }

    /// The call goes on once another connection of the store is free.
    fn warn_refused(&self, error: &Error) {
        let message = format!("{}: the call waits for another connection of this store", error.message);
        let refused = Warning::new(WarningKind::ConnectionRefused, message);
        self.settings.warnings.warn(refused.error(error.clone()));
    }

    fn no_connection_left(&self, error: Error) -> Error {
        Error {
            message: format!(
                "{}. No connection of this store became free within {} ms (pool.acquireTimeoutMs) either: lower pool.max, here or in other processes, \
                 or raise the server's limit",
                error.message,
                self.settings.acquire_timeout.as_millis()
            ),
            repeatable: Repeatable::ByCaller,
            ..error
        }
    }

    /// Returns the slot if no connection can be had.
    async fn session(&self, slot: Slot) -> std::result::Result<Session<D>, (Error, Slot)> {
        let generation = self.idle.generation();
        let persistent = self.settings.statement_cache > 0 && self.idle.may_prepare();
        let connection = match self.idle.take().await {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(connection) => connection,
                Err(error) => return Err((error, slot)),
            },
        };
        Ok(Session::new(
            connection,
            slot,
            self.idle.clone(),
            generation,
            persistent,
            self.session_rules.clone(),
        ))
    }

    async fn connect(&self) -> Result<D::Connection> {
        if let Some((at, error)) = &*lock(&self.failure)
            && at.elapsed() < FAILURE_SHARED
        {
            return Err(error.clone());
        }
        let outcome = self.log_in().await;
        if let Err(error) = &outcome
            && error.repeatable == Repeatable::RolledBack
        {
            *lock(&self.failure) = Some((Instant::now(), error.clone()));
        }
        outcome
    }

    async fn log_in(&self) -> Result<D::Connection> {
        let login = self.logins.next().await?;
        match self.connect_as(login.clone()).await {
            // The password may have changed since the function returned it.
            Err(error) if refuses_login(&error) && self.logins.refused(&login) => self.connect_as(self.logins.next().await?).await,
            outcome => outcome,
        }
    }

    async fn connect_as(&self, login: Login) -> Result<D::Connection> {
        let given = login.password.as_ref().map(Secret::reveal);
        if let Some(prepared) = given.and_then(|given| self.driver.prepared_password(given)) {
            match self.open(&login.with_password(prepared), Access::ReadAndWrite).await {
                // Another login method, perhaps, which needs the password as it was given.
                Err(error) if refuses_login(&error) => {}
                outcome => return outcome,
            }
        }
        match self.open(&login, Access::ReadAndWrite).await {
            Err(error) if error.code == Code::PermissionDenied && self.driver.can_only_read() => self.open(&login, Access::ReadOnly).await,
            outcome => outcome,
        }
    }

    async fn open(&self, login: &Login, access: Access) -> Result<D::Connection> {
        match timeout(self.settings.connect_timeout, self.driver.connect(login, access)).await {
            Ok(Ok(connection)) => {
                self.connected.store(true, Ordering::Release);
                Ok(connection)
            }
            Ok(Err(failure)) => Err(self.connection_failed(failure)),
            Err(_) => Err(Error::new(
                Code::ConnectionFailed,
                format!(
                    "could not connect to {} within {} ms (connectTimeoutMs): no answer",
                    self.place(),
                    self.settings.connect_timeout.as_millis()
                ),
            )
            .repeatable(self.if_connected(Repeatable::RolledBack))),
        }
    }

    /// Nothing was sent, so a retry is safe. It is worthwhile if the same settings worked before.
    fn if_connected(&self, repeatable: Repeatable) -> Repeatable {
        if self.connected.load(Ordering::Acquire) {
            repeatable
        } else {
            Repeatable::ByCaller
        }
    }

    fn connection_failed(&self, failure: Failure) -> Error {
        let could_not = |code: Code, reason: &str| Error::new(code, format!("could not connect to {}: {reason}", self.place()));
        match failure {
            Failure::Refused(refused) => {
                let (code, repeatable, reason) = self.meaning(&refused);
                could_not(code, &reason).repeatable(repeatable).caused_by(reason, refused.code)
            }
            Failure::Tls { failure, message } => match tls::refusal(&failure, &self.settings.ssl) {
                Some(reason) => could_not(Code::ConnectionFailed, &reason)
                    .repeatable(Repeatable::Never)
                    .caused_by(message, None),
                None => could_not(Code::ConnectionFailed, &message)
                    .repeatable(self.if_connected(Repeatable::RolledBack))
                    .caused_by(message, None),
            },
            Failure::Impossible { reason, message } => could_not(Code::ConnectionFailed, &reason)
                .repeatable(Repeatable::Never)
                .caused_by(message, None),
            Failure::Lost(reason) | Failure::Defect(reason) => could_not(Code::ConnectionFailed, &reason)
                .repeatable(self.if_connected(Repeatable::RolledBack))
                .caused_by(reason, None),
        }
    }

    /// The meaning of a refused connection.
    fn meaning(&self, refused: &Refused) -> (Code, Repeatable, String) {
        let explained = &refused.explained.error;
        let repeatable = match (explained.code, explained.repeatable) {
            _ if refused.no_connection_left => Repeatable::NoConnectionLeft,
            // A server that is starting or shutting down.
            (_, Repeatable::RolledBack) => Repeatable::RolledBack,
            (Code::PermissionDenied, Repeatable::Never) => Repeatable::Never,
            // A refused login, a missing database or folder. If it worked before, an administrator may be repairing it.
            (Code::ConnectionFailed, Repeatable::Never) if !self.connected.load(Ordering::Acquire) => Repeatable::Never,
            (Code::ConnectionLost, Repeatable::Unknown) => self.if_connected(Repeatable::RolledBack),
            _ => Repeatable::ByCaller,
        };
        let (code, mut reason) = match explained.code {
            code @ (Code::ConnectionFailed | Code::PermissionDenied | Code::Conflict) => (code, explained.message.clone()),
            _ => (Code::ConnectionFailed, refused.message.clone()),
        };
        if let Some(hint) = refused.hint {
            reason = format!("{reason} ({hint})");
        }
        (code, repeatable, reason)
    }

    /// Waits for the connections in use, then closes all.
    pub async fn close(&self) {
        // A connection that is not returned within the time limit of a statement is given up.
        let all = timeout(self.settings.statement_timeout, self.slots.acquire_many(self.max)).await;
        self.slots.close();
        if all.is_err() {
            let message = format!(
                "close() gave up connections to {} that calls still used after {} ms (statementTimeoutMs)",
                self.place(),
                self.settings.statement_timeout.as_millis()
            );
            self.settings.warnings.warn(Warning::new(WarningKind::ConnectionLost, message));
        }
        // Concurrently, because a silent server makes each of them wait.
        let mut goodbyes = tokio::task::JoinSet::new();
        for connection in self.idle.take_all() {
            goodbyes.spawn(timeout(GOODBYE.min(self.settings.statement_timeout), D::close(connection)));
        }
        while goodbyes.join_next().await.is_some() {}
        self.logins.end();
        drop(all);
    }
}

/// Whether the server refused the password itself: PostgreSQL by the first code, or by the second if it asked an external service; MySQL and MariaDB
/// by the second.
fn refuses_login(error: &Error) -> bool {
    let code = error.cause.as_ref().and_then(|cause| cause.code.as_deref());
    error.code == Code::ConnectionFailed && matches!(code, Some("28P01" | "28000"))
}
