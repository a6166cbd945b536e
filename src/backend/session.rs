//! Connections, shared by the three drivers: made when they are needed, bounded in number and time, and thrown away after anything that leaves them in
//! doubt.
//!
//! The pool is our own, for four properties that sqlx 0.8's lacks: a refused connection fails at once, with its reason, instead of being tried until
//! the caller's patience ends; a connection that comes back costs no round trip (theirs is pinged each time); what was on its way back while the pool
//! closed is closed too; and a connection whose statement was given up never comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::{ConnectOptions, Connection, Database};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::login::{self, Login, Logins};
use super::tls::{self, Certificates};
use crate::error::{Code, Error, Repeatable, Result, lock};
use crate::panics;
use crate::settings::{Secret, Settings};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a driver must say so that its connections and errors mean the same everywhere.
pub trait Dialect: Database {
    /// The error that a database's own error becomes, without the cause.
    fn explain(error: &dyn DatabaseError) -> Error;

    /// The options of a connection with what may be another for each: the password, and the certificates.
    fn log_in(
        options: <Self::Connection as Connection>::Options,
        password: Option<&Secret>,
        certificates: &Certificates,
    ) -> <Self::Connection as Connection>::Options;

    /// A password as the database's own clients would send it, where that is not as it was given.
    fn prepared(_password: &str) -> Option<String> {
        None
    }

    /// Runs text without values, unprepared.
    fn execute<'c>(connection: &'c mut Self::Connection, text: &'c str) -> BoxFuture<'c, sqlx::Result<()>>;
}

/// Runs one statement on a session, no longer than it may take: `run!(session, query, fetch_all)`. With `each take`, every row is given to `take` as it
/// comes.
///
/// A macro, because a closure that borrows both the connection and the query's values can't be handed to a function.
macro_rules! run {
    ($session:expr, $query:expr, $how:ident) => {
        match $session.pin().await {
            Ok(pinned) => {
                let persistent = $session.persistent;
                let outcome = $crate::backend::session::run!($session, connection => $query.persistent(persistent).$how(connection));
                $session.unpin(pinned, outcome).await
            }
            Err(error) => Err(error),
        }
    };
    ($session:expr, $query:expr, each $take:expr) => {{
        let mut failed = None;
        // The rows after one that can't be read are read all the same, which leaves the connection in order.
        let each = |row| {
            if failed.is_none() {
                failed = $take(&row).err();
            }
        };
        let outcome = match $session.pin().await {
            Ok(pinned) => {
                let query = $query.persistent($session.persistent).map(each);
                let outcome = $crate::backend::session::run!($session, connection => query.fetch_all(connection));
                $session.unpin(pinned, outcome).await
            }
            Err(error) => Err(error),
        };
        outcome.and_then(|_| failed.map_or(Ok(()), |error| Err($crate::backend::session::unreadable(error))))
    }};
    ($session:expr, $connection:ident => $statement:expr) => {{
        let session = &mut *$session;
        let limit = session.limit;
        let outcome = match session.start() {
            Ok($connection) => Ok(tokio::time::timeout(limit, $statement).await),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(outcome) => session.finish(outcome),
            Err(error) => Err(error),
        }
    }};
}
pub(super) use run;

/// A connection that was idle for longer is tried before it is used: a server or a firewall may have ended it meanwhile. A busy store never pays for it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long a goodbye to the server may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is said and asked on each new connection.
pub type SetUp<DB> = Arc<dyn for<'c> Fn(&'c mut <DB as Database>::Connection) -> BoxFuture<'c, sqlx::Result<()>> + Send + Sync>;

/// How a pool's connections are made and kept.
pub struct PoolRules<DB: Dialect> {
    pub max: u32,
    /// Idle connections that are kept.
    pub min: u32,
    /// After how long without use the others are closed; never where it is `None`.
    pub idle_timeout: Option<Duration>,
    pub set_up: Option<SetUp<DB>>,
    /// Whether a connection in doubt is kept all the same, for a database that ends with its connection.
    pub keep_in_doubt: bool,
    /// What begins a transaction around each statement that is in none, where a pooler may send the parts of a statement to different servers.
    pub pin: Option<Arc<str>>,
}

impl<DB: Dialect> PoolRules<DB> {
    pub fn of(settings: &Settings) -> Self {
        Self {
            max: settings.pool_max,
            min: settings.pool_min,
            idle_timeout: Some(settings.idle_timeout),
            set_up: None,
            keep_in_doubt: false,
            pin: None,
        }
    }
}

/// A pool that is filled as it is used.
pub struct Connections<DB: Dialect> {
    options: <DB::Connection as Connection>::Options,
    settings: Settings,
    logins: Logins,
    /// `settings.place()`, for the messages of every session.
    place: Arc<str>,
    rules: PoolRules<DB>,
    slots: Arc<Semaphore>,
    /// Whether a connection was ever made: then the settings are right, and a refusal is a server that restarts.
    connected: AtomicBool,
    shelf: Arc<Shelf<DB>>,
}

/// Idle connections, the one used last on top.
struct Shelf<DB: Dialect> {
    idle: Mutex<Vec<(DB::Connection, Instant)>>,
    min: usize,
    idle_timeout: Option<Duration>,
    reaping: AtomicBool,
}

impl<DB: Dialect> Connections<DB> {
    pub fn new(settings: &Settings, options: <DB::Connection as Connection>::Options, rules: PoolRules<DB>) -> Self {
        let shelf = Shelf {
            idle: Mutex::default(),
            min: rules.min as usize,
            idle_timeout: rules.idle_timeout,
            reaping: AtomicBool::new(false),
        };
        let place: Arc<str> = settings.place().into();
        Self {
            options,
            // The password is the logins' alone, which let go of it.
            settings: Settings {
                password: None,
                password_function: None,
                ..settings.clone()
            },
            logins: Logins::new(settings, place.clone()),
            place,
            slots: Arc::new(Semaphore::new(rules.max as usize)),
            rules,
            connected: AtomicBool::new(false),
            shelf: Arc::new(shelf),
        }
    }

    pub async fn acquire(&self) -> Result<Session<DB>> {
        let slot = match timeout(self.settings.acquire_timeout, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(Error::closed()),
            Err(_) => {
                return Err(Error::new(
                    Code::Timeout,
                    format!(
                        "all {} connections to {} were in use for {} ms (pool.acquireTimeoutMs): raise pool.max, or make fewer calls at once",
                        self.rules.max,
                        self.place,
                        self.settings.acquire_timeout.as_millis(),
                    ),
                )
                // Nothing was sent, so the caller may try again.
                .repeatable(Repeatable::ByCaller));
            }
        };
        let connection = match self.reuse().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Session {
            connection: Some(connection),
            slot: Some(slot),
            shelf: self.shelf.clone(),
            in_doubt: false,
            in_transaction: false,
            keep_in_doubt: self.rules.keep_in_doubt,
            limit: self.settings.statement_timeout,
            persistent: self.settings.statement_cache > 0,
            pin: self.rules.pin.clone(),
            place: self.place.clone(),
        })
    }

    async fn reuse(&self) -> Option<DB::Connection> {
        loop {
            let (mut connection, since) = lock(&self.shelf.idle).pop()?;
            if self.rules.keep_in_doubt || since.elapsed() < TRUSTED_IDLE {
                return Some(connection);
            }
            match timeout(TRUSTED_IDLE, connection.ping()).await {
                Ok(Ok(())) => return Some(connection),
                Ok(Err(_)) => {}
                // A server that vanished without a word holds the call up once, not for each connection to it.
                Err(_) => drop(std::mem::take(&mut *lock(&self.shelf.idle))),
            }
        }
    }

    async fn connect(&self) -> Result<DB::Connection> {
        let login = self.logins.next().await?;
        match self.connect_as(&login).await {
            // It may have been changed since the last answer.
            Err(error) if refuses_login(&error) && self.logins.refused(&login) => self.connect_as(&self.logins.next().await?).await,
            outcome => outcome,
        }
    }

    async fn connect_as(&self, login: &Login) -> Result<DB::Connection> {
        let options = |password: Option<Secret>| DB::log_in(self.options.clone(), password.as_ref(), &login.certificates);
        let given = login.password.as_ref();
        if let Some(prepared) = given.and_then(|given| DB::prepared(given.reveal())).map(Secret::new) {
            match self.open(options(Some(prepared))).await {
                // Another kind of login, perhaps, for which it is sent as it was given.
                Err(error) if refuses_login(&error) => {}
                outcome => return outcome,
            }
        }
        self.open(options(given.cloned())).await
    }

    async fn open(&self, options: <DB::Connection as Connection>::Options) -> Result<DB::Connection> {
        let connecting = async {
            let mut connection = options.connect().await?;
            if let Some(set_up) = &self.rules.set_up {
                set_up(&mut connection).await?;
            }
            Ok(connection)
        };
        match timeout(self.settings.connect_timeout, connecting).await {
            Ok(Ok(connection)) => {
                self.connected.store(true, Ordering::Release);
                Ok(connection)
            }
            Ok(Err(error)) => Err(self.connection_failed(error)),
            Err(_) => Err(Error::new(
                Code::ConnectionFailed,
                format!(
                    "could not connect to {} within {} ms (connectTimeoutMs): no answer",
                    self.place,
                    self.settings.connect_timeout.as_millis()
                ),
            )),
        }
    }

    fn connection_failed(&self, error: sqlx::Error) -> Error {
        let connected = self.connected.load(Ordering::Acquire);
        // Nothing was sent, so repeating is safe; it is of use where the same settings worked before.
        if let Some(reason) = tls::refusal(&error, &self.settings.ssl).or_else(|| login::impossible(&error)) {
            return Error::new(Code::ConnectionFailed, format!("could not connect to {}: {reason}", self.place))
                .repeatable(Repeatable::Never)
                .caused_by(error.to_string(), None);
        }
        let (reason, code, repeatable) = match &error {
            sqlx::Error::Database(database) => {
                let explained = DB::explain(&**database);
                let repeatable = match (explained.code, explained.repeatable) {
                    // A server that is still starting, or full for the moment.
                    (_, Repeatable::RolledBack) => Repeatable::RolledBack,
                    // A login that is refused, a database or a folder that is not there. Where it worked before, somebody may be repairing it.
                    (Code::ConnectionFailed, Repeatable::Never) if !connected => Repeatable::Never,
                    _ => Repeatable::ByCaller,
                };
                let reason = match explained.code {
                    Code::ConnectionFailed => explained.message,
                    _ => database.message().to_owned(),
                };
                (reason, database.code().map(Into::into), repeatable)
            }
            sqlx::Error::Io(io) if connected => (io.to_string(), None, Repeatable::RolledBack),
            sqlx::Error::Io(io) => (io.to_string(), None, Repeatable::ByCaller),
            sqlx::Error::Configuration(_) => (error.to_string(), None, Repeatable::Never),
            other => (other.to_string(), None, Repeatable::ByCaller),
        };
        Error::new(Code::ConnectionFailed, format!("could not connect to {}: {reason}", self.place))
            .repeatable(repeatable)
            .caused_by(reason, code)
    }

    /// Waits for the connections that are in use, then ends all.
    pub async fn close(&self) {
        // Should one not come back in the time that its statement may take, it is given up.
        let all = timeout(self.settings.statement_timeout, self.slots.acquire_many(self.rules.max)).await;
        self.slots.close();
        let idle = std::mem::take(&mut *lock(&self.shelf.idle));
        // At once, for a server that says nothing lets each of them wait.
        let mut goodbyes = tokio::task::JoinSet::new();
        for (connection, _) in idle {
            // Whether the goodbye arrives does not matter: the socket closes either way.
            goodbyes.spawn(timeout(GOODBYE.min(self.settings.statement_timeout), connection.close()));
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

impl<DB: Dialect> Shelf<DB> {
    fn put(self: &Arc<Self>, connection: DB::Connection) {
        let mut idle = lock(&self.idle);
        idle.push((connection, Instant::now()));
        panics::due("connections, locked");
        let Some(idle_timeout) = self.idle_timeout else { return };
        if idle.len() > self.min && !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self), idle_timeout));
        }
    }
}

/// Closes what has not been used for long, until nothing is left to close.
async fn reap<DB: Dialect>(shelf: std::sync::Weak<Shelf<DB>>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let (expired, done) = {
            let mut idle = lock(&shelf.idle);
            let mut expired = Vec::new();
            while idle.len() > shelf.min && idle.first().is_some_and(|(_, since)| since.elapsed() >= idle_timeout) {
                expired.push(idle.remove(0).0);
            }
            let done = idle.len() <= shelf.min;
            if done {
                // Under the lock, so that what is put there next starts another round.
                shelf.reaping.store(false, Ordering::Release);
            }
            (expired, done)
        };
        for connection in expired {
            let _ = timeout(GOODBYE, connection.close()).await;
        }
        if done {
            return;
        }
    }
}

/// One connection for one call.
pub struct Session<DB: Dialect> {
    connection: Option<DB::Connection>,
    slot: Option<OwnedSemaphorePermit>,
    shelf: Arc<Shelf<DB>>,
    /// A statement is under way, or it was given up: an answer may still come.
    in_doubt: bool,
    in_transaction: bool,
    keep_in_doubt: bool,
    pub(super) limit: Duration,
    /// Whether statements are kept prepared. A driver that is told to keep none would still leave each on the server.
    pub(super) persistent: bool,
    pin: Option<Arc<str>>,
    place: Arc<str>,
}

impl<DB: Dialect> Session<DB> {
    /// The connection, for one statement, whose outcome goes to `finish`.
    pub fn start(&mut self) -> Result<&mut DB::Connection> {
        self.in_doubt = true;
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(Error::internal("a connection was used after its end")),
        }
    }

    /// Whether the last statement was answered, so that another may follow.
    pub fn is_in_order(&self) -> bool {
        !self.in_doubt
    }

    pub fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// What became of a statement.
    pub fn finish<T>(&mut self, outcome: std::result::Result<sqlx::Result<T>, Elapsed>) -> Result<T> {
        let error = match outcome {
            Ok(Ok(value)) => {
                self.in_doubt = false;
                return Ok(value);
            }
            Err(_) => {
                return Err(Error::new(
                    Code::Timeout,
                    format!(
                        "a statement took longer than {} ms (statementTimeoutMs) on {}, and {}",
                        self.limit.as_millis(),
                        self.place,
                        if self.keep_in_doubt {
                            "was given up"
                        } else {
                            "its connection was dropped"
                        }
                    ),
                ));
            }
            Ok(Err(error)) => error,
        };
        let text = error.to_string();
        match error {
            sqlx::Error::Database(database) => {
                let explained = DB::explain(&*database).caused_by(database.message(), database.code().map(Into::into));
                // The answer has come, so the connection is in order, unless the answer was that it ends or is of no use.
                self.in_doubt = matches!(explained.code, Code::ConnectionLost | Code::ConnectionFailed);
                Err(explained)
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Err(Error::new(
                Code::ConnectionLost,
                format!(
                    "the connection to {} ended in the middle of a call, which may or may not have taken effect: {text}",
                    self.place
                ),
            )
            .caused_by(text, None)),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Err(unreadable(error)),
            _ => Err(Error::internal(format!("the answer of {} made no sense: {text}", self.place)).caused_by(text, None)),
        }
    }

    /// Runs a statement without values, unprepared.
    pub async fn execute(&mut self, text: &str) -> Result<()> {
        run!(self, connection => DB::execute(connection, text))
    }

    /// Keeps a pooler from changing the server in the middle of a statement. Whether `unpin` has to end that.
    pub(super) async fn pin(&mut self) -> Result<bool> {
        match self.pin.clone() {
            Some(begin) if !self.in_transaction => self.begin(&begin).await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// A statement that failed leaves its transaction to be rolled back when the session is dropped.
    pub(super) async fn unpin<T>(&mut self, pinned: bool, outcome: Result<T>) -> Result<T> {
        if pinned && outcome.is_ok() {
            self.commit().await?;
        }
        outcome
    }

    /// Runs DDL, which may take longer than a statement where it is made on rows that are there already.
    pub async fn define(&mut self, text: &str, limit: Duration) -> Result<()> {
        let usual = std::mem::replace(&mut self.limit, limit);
        let made = self.execute(text).await;
        self.limit = usual;
        made
    }

    /// Begins a transaction in the database's own words. Dropped without `commit`, the session rolls it back.
    pub async fn begin(&mut self, how: &str) -> Result<()> {
        // Before the answer, which may not come in time: a transaction that nobody knows of would swallow what follows.
        self.in_transaction = true;
        let begun = self.execute(how).await;
        self.in_transaction = begun.is_ok() || self.in_doubt;
        begun
    }

    pub async fn commit(&mut self) -> Result<()> {
        self.execute("commit").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub async fn rollback(&mut self) -> Result<()> {
        self.execute("rollback").await?;
        self.in_transaction = false;
        Ok(())
    }
}

impl<DB: Dialect> Drop for Session<DB> {
    fn drop(&mut self) {
        let (Some(mut connection), Some(slot)) = (self.connection.take(), self.slot.take()) else {
            return;
        };
        if self.in_doubt && !self.keep_in_doubt {
            // The socket closes, and the server rolls back what was open.
            return;
        }
        let shelf = self.shelf.clone();
        if !self.in_transaction && !self.in_doubt {
            shelf.put(connection);
            return;
        }
        let (limit, keep) = (self.limit, self.keep_in_doubt);
        tokio::spawn(async move {
            let rollback = DB::execute(&mut connection, "rollback");
            let sound = if keep {
                // A database that ends with its connection: it is waited for, whatever is still running, and where no transaction is open the refusal
                // says so and nothing else.
                let _ = rollback.await;
                true
            } else {
                matches!(timeout(limit, rollback).await, Ok(Ok(())))
            };
            if sound {
                shelf.put(connection);
            }
            drop(slot);
        });
    }
}

/// What a column holds that this store did not write.
pub fn unreadable(error: sqlx::Error) -> Error {
    Error::new(
        Code::TablesIncompatible,
        format!("a column does not hold what this store expects: {error}"),
    )
}
