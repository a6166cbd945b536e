//! The connection pool: connections are made when they are needed, bounded in number and time, and closed once they have been idle for long.
//!
//! The pool is our own, for four properties that sqlx 0.8's lacks: a refused connection fails at once, with its reason, instead of being tried until the
//! caller's patience ends; a connection that comes back costs no round trip (theirs is pinged each time); a connection that comes back while the pool closes
//! is closed too; and a connection whose statement was given up never comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use super::credentials::{Login, Logins};
use super::driver::{Access, Driver, Failure, Refused};
use super::idle_connections::{GOODBYE, IdleConnections};
use super::session::{Session, SessionRules};
use super::tls;
use crate::error::{Code, Error, Repeatable, Result, lock};
use crate::retry::jittered;
use crate::settings::{Secret, Settings};

/// Callers that need a connection within this time after an attempt to make one failed share its failure, so that many of them don't besiege a server
/// that starts.
const FAILURE_SHARED: Duration = Duration::from_millis(20);

/// Where the server has no connection left, how long the pool makes do without one of its places.
const PLACE_RESTS: Duration = Duration::from_millis(500);

/// How a pool's connections are kept.
pub struct PoolRules {
    pub max: u32,
    /// Idle connections that are kept.
    pub min: u32,
    /// After how long without use the others are closed; never where it is `None`.
    pub idle_timeout: Option<Duration>,
    /// Whether a connection in doubt is kept all the same, for a database that ends with its connection.
    pub keep_in_doubt: bool,
    /// What begins a transaction around each statement that is in none, where a pooler may send the parts of a statement to different servers.
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

/// A pool that is filled as it is used.
pub struct Pool<D: Driver> {
    driver: D,
    settings: Settings,
    logins: Logins,
    session_rules: Arc<SessionRules>,
    max: u32,
    slots: Arc<Semaphore>,
    /// Whether a connection was ever made: then the settings are right, and a refusal is a server that restarts.
    connected: AtomicBool,
    /// The last attempt to connect that failed, where another may succeed.
    failure: Mutex<Option<(Instant, Error)>>,
    idle: Arc<IdleConnections<D>>,
}

impl<D: Driver> Pool<D> {
    pub fn new(settings: &Settings, driver: D, rules: PoolRules) -> Self {
        // `settings.place()`, for the messages of every session.
        let place: Arc<str> = settings.place().into();
        Self {
            driver,
            // The password is the logins' alone, which let go of it.
            settings: Settings {
                password: None,
                password_function: None,
                ..settings.clone()
            },
            logins: Logins::new(settings, place.clone()),
            max: rules.max,
            slots: Arc::new(Semaphore::new(rules.max as usize)),
            connected: AtomicBool::new(false),
            failure: Mutex::default(),
            idle: Arc::new(IdleConnections::new(rules.min as usize, rules.idle_timeout, rules.keep_in_doubt)),
            session_rules: Arc::new(SessionRules {
                place,
                statement_timeout: settings.statement_timeout,
                keep_in_doubt: rules.keep_in_doubt,
                begin_each: rules.begin_each,
            }),
        }
    }

    /// A session on a connection of the pool: an idle one, or a new one. Waits for at most `pool.acquireTimeoutMs`.
    pub async fn acquire(&self) -> Result<Session<D>> {
        let deadline = tokio::time::Instant::now() + self.settings.acquire_timeout;
        let mut refused = None;
        loop {
            let slot = match timeout_at(deadline, self.slots.clone().acquire_owned()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) => return Err(Error::closed()),
                Err(_) => return Err(refused.unwrap_or_else(|| self.all_in_use())),
            };
            match self.session(slot).await {
                Ok(session) => return Ok(session),
                Err((error, slot)) if error.repeatable == Repeatable::NoConnectionLeft => {
                    refused = Some(self.no_connection_left(error));
                    // The pool is smaller for a while, and this call waits in its turn for one of the others' connections.
                    tokio::spawn(async move {
                        tokio::time::sleep(PLACE_RESTS / 2 + jittered(PLACE_RESTS / 2)).await;
                        drop(slot);
                    });
                }
                Err((error, _)) => return Err(error),
            }
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
        // Nothing was sent, so the caller may try again.
        .repeatable(Repeatable::ByCaller)
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

    /// Where there is no connection to be had, the slot is given back.
    async fn session(&self, slot: OwnedSemaphorePermit) -> std::result::Result<Session<D>, (Error, OwnedSemaphorePermit)> {
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
            // The password may have been changed since the function gave it.
            Err(error) if refuses_login(&error) && self.logins.refused(&login) => self.connect_as(self.logins.next().await?).await,
            outcome => outcome,
        }
    }

    async fn connect_as(&self, login: Login) -> Result<D::Connection> {
        let given = login.password.as_ref().map(Secret::reveal);
        if let Some(prepared) = given.and_then(|given| self.driver.prepared_password(given)) {
            match self.open(&login.with_password(prepared), Access::ReadAndWrite).await {
                // Another kind of login, perhaps, for which the password is sent as it was given.
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

    /// Nothing was sent, so repeating is safe; it is of use where the same settings worked before.
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

    /// What it means that the server itself refuses a connection.
    fn meaning(&self, refused: &Refused) -> (Code, Repeatable, String) {
        let explained = &refused.explained.error;
        let repeatable = match (explained.code, explained.repeatable) {
            _ if refused.no_connection_left => Repeatable::NoConnectionLeft,
            // A server that is still starting, or ends.
            (_, Repeatable::RolledBack) => Repeatable::RolledBack,
            (Code::PermissionDenied, Repeatable::Never) => Repeatable::Never,
            // A login that is refused, a database or a folder that is not there. Where it worked before, an administrator may be repairing it.
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

    /// Waits for the connections that are in use, then ends all.
    pub async fn close(&self) {
        // A connection that does not come back in the time that its statement may take is given up.
        let all = timeout(self.settings.statement_timeout, self.slots.acquire_many(self.max)).await;
        self.slots.close();
        // All at once, because a server that says nothing lets each of them wait.
        let mut goodbyes = tokio::task::JoinSet::new();
        for connection in self.idle.take_all() {
            goodbyes.spawn(timeout(GOODBYE.min(self.settings.statement_timeout), D::close(connection)));
        }
        while goodbyes.join_next().await.is_some() {}
        self.logins.end();
        drop(all);
    }
}

/// Whether the server took the user's password for a wrong one: PostgreSQL by the first, or by the second where it asked others; MySQL and MariaDB
/// by the second.
fn refuses_login(error: &Error) -> bool {
    let code = error.cause.as_ref().and_then(|cause| cause.code.as_deref());
    error.code == Code::ConnectionFailed && matches!(code, Some("28P01" | "28000"))
}
