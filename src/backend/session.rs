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
use tokio::time::{timeout, timeout_at};

use super::credentials::{self, Login, Logins};
use super::errors::{Explained, Fate, unreadable_by};
use super::tls::{self, Certificates};
use crate::error::{Code, Error, Repeatable, Result, lock};
use crate::panics;
use crate::retry::jittered;
use crate::settings::{Secret, Settings};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a driver must say so that its connections and errors mean the same everywhere.
pub trait Dialect: Database {
    /// What a database's own error means. The error is without its cause.
    fn explain(error: &dyn DatabaseError) -> Explained;

    /// Whether it says, as a connection is made, that the server has none left.
    fn has_no_connection_left(error: &dyn DatabaseError) -> bool {
        Self::explain(error).error.repeatable == Repeatable::NoConnectionLeft
    }

    /// What to do where a connection is refused, beside what the server says.
    fn hint(_error: &dyn DatabaseError) -> Option<&'static str> {
        None
    }

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
                let query = $query.persistent($session.persistent);
                let text = sqlx::Execute::sql(&query);
                let outcome = $crate::backend::session::run!($session, connection => query.$how(connection), text);
                $session.unpin(pinned, outcome).await
            }
            Err(error) => Err(error),
        }
    };
    ($session:expr, $query:expr, each $take:expr) => {{
        let mut failed = None;
        let query = $query.persistent($session.persistent);
        let text = sqlx::Execute::sql(&query);
        let table = || $crate::backend::errors::tables(text);
        // The rows after one that can't be read are read all the same, which leaves the connection in order.
        let each = |row| {
            if failed.is_none() {
                failed = $take(&row)
                    .err()
                    .map(|error| $crate::backend::errors::unreadable(&table(), &row)(error));
            }
        };
        let outcome = match $session.pin().await {
            Ok(pinned) => {
                let query = query.map(each);
                let outcome = $crate::backend::session::run!($session, connection => query.fetch_all(connection));
                $session.unpin(pinned, outcome).await
            }
            Err(error) => Err(error),
        };
        outcome.and_then(|_| failed.map_or(Ok(()), Err))
    }};
    ($session:expr, $connection:ident => $statement:expr) => {
        $crate::backend::session::run!($session, $connection => $statement, "")
    };
    ($session:expr, $connection:ident => $statement:expr, $text:expr) => {{
        let session = &mut *$session;
        let limit = session.limit;
        let outcome = match session.start() {
            Ok($connection) => Ok(tokio::time::timeout(limit, $statement).await),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(outcome) => session.finish(outcome, $text),
            Err(error) => Err(error),
        }
    }};
}
pub(super) use run;

/// A connection that was idle for longer is tried before it is used: a server or a firewall may have ended it meanwhile. A busy store never pays for it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Callers that need a connection within this time after an attempt to make one failed share its failure, so that many of them don't besiege a server
/// that starts.
const FAILURE_SHARED: Duration = Duration::from_millis(20);

/// Where the server has no connection left, how long the pool makes do without one of its places.
const PLACE_RESTS: Duration = Duration::from_millis(500);

/// How long statements aren't kept prepared where the server keeps no more.
const UNPREPARED: Duration = Duration::from_secs(60);

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
    /// Those of a connection that only reads, for where one that writes can't be made.
    reading: Option<<DB::Connection as Connection>::Options>,
    settings: Settings,
    logins: Logins,
    /// `settings.place()`, for the messages of every session.
    place: Arc<str>,
    rules: PoolRules<DB>,
    slots: Arc<Semaphore>,
    /// Whether a connection was ever made: then the settings are right, and a refusal is a server that restarts.
    connected: AtomicBool,
    /// The last attempt to connect that failed, where another may succeed.
    failure: Mutex<Option<(Instant, Error)>>,
    shelf: Arc<Shelf<DB>>,
}

/// Idle connections.
struct Shelf<DB: Dialect> {
    idle: Mutex<Idle<DB>>,
    min: usize,
    idle_timeout: Option<Duration>,
    reaping: AtomicBool,
}

struct Idle<DB: Dialect> {
    /// The one used last on top.
    connections: Vec<(DB::Connection, Instant)>,
    /// How often all connections were given up. One that was made in an earlier time is not put back.
    generation: u64,
    /// A connection was lost then: those that are idle since before are tried before they are used.
    lost: Option<Instant>,
    unprepared_until: Option<Instant>,
}

impl<DB: Dialect> Default for Idle<DB> {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            generation: 0,
            lost: None,
            unprepared_until: None,
        }
    }
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
            reading: None,
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
            failure: Mutex::default(),
            shelf: Arc::new(shelf),
        }
    }

    pub fn or_only_reading(mut self, options: Option<<DB::Connection as Connection>::Options>) -> Self {
        self.reading = options;
        self
    }

    pub async fn acquire(&self) -> Result<Session<DB>> {
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

    fn all_in_use(&self) -> Error {
        Error::new(
            Code::Timeout,
            format!(
                "all {} connections to {} were in use for {} ms (pool.acquireTimeoutMs): raise pool.max, or make fewer calls at once",
                self.rules.max,
                self.place,
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

    /// Where it can't be had, the place is given back.
    async fn session(&self, slot: OwnedSemaphorePermit) -> std::result::Result<Session<DB>, (Error, OwnedSemaphorePermit)> {
        let (generation, prepares) = {
            let idle = lock(&self.shelf.idle);
            (idle.generation, idle.unprepared_until.is_none_or(|until| Instant::now() >= until))
        };
        let connection = match self.reuse().await {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(connection) => connection,
                Err(error) => return Err((error, slot)),
            },
        };
        Ok(Session {
            connection: Some(connection),
            slot: Some(slot),
            shelf: self.shelf.clone(),
            generation,
            in_doubt: false,
            in_transaction: false,
            committing: false,
            keep_in_doubt: self.rules.keep_in_doubt,
            limit: self.settings.statement_timeout,
            persistent: prepares && self.settings.statement_cache > 0,
            pin: self.rules.pin.clone(),
            place: self.place.clone(),
        })
    }

    async fn reuse(&self) -> Option<DB::Connection> {
        loop {
            let (mut connection, trusted) = {
                let mut idle = lock(&self.shelf.idle);
                let (connection, since) = idle.connections.pop()?;
                let trusted = since.elapsed() < TRUSTED_IDLE && idle.lost.is_none_or(|lost| since > lost);
                (connection, trusted || self.rules.keep_in_doubt)
            };
            if trusted {
                return Some(connection);
            }
            match timeout(TRUSTED_IDLE, connection.ping()).await {
                Ok(Ok(())) => return Some(connection),
                Ok(Err(_)) => {}
                // A server that vanished without a word holds the call up once, not for each connection to it.
                Err(_) => drop(std::mem::take(&mut lock(&self.shelf.idle).connections)),
            }
        }
    }

    async fn connect(&self) -> Result<DB::Connection> {
        if let Some((at, error)) = &*lock(&self.failure)
            && at.elapsed() < FAILURE_SHARED
        {
            return Err(error.clone());
        }
        let outcome = self.connect_anew().await;
        if let Err(error) = &outcome
            && error.repeatable == Repeatable::RolledBack
        {
            *lock(&self.failure) = Some((Instant::now(), error.clone()));
        }
        outcome
    }

    async fn connect_anew(&self) -> Result<DB::Connection> {
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
        match (self.open(options(given.cloned())).await, &self.reading) {
            (Err(error), Some(reading)) if error.code == Code::PermissionDenied => self.open(reading.clone()).await,
            (outcome, _) => outcome,
        }
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

    fn connection_failed(&self, error: sqlx::Error) -> Error {
        if let Some(reason) = tls::refusal(&error, &self.settings.ssl).or_else(|| credentials::impossible(&error)) {
            return Error::new(Code::ConnectionFailed, format!("could not connect to {}: {reason}", self.place))
                .repeatable(Repeatable::Never)
                .caused_by(error.to_string(), None);
        }
        let (kind, repeatable, reason, code) = match &error {
            sqlx::Error::Database(database) => {
                let (kind, repeatable, reason) = self.refused(&**database);
                (kind, repeatable, reason, database.code().map(Into::into))
            }
            sqlx::Error::Configuration(_) => (Code::ConnectionFailed, Repeatable::Never, error.to_string(), None),
            other => (
                Code::ConnectionFailed,
                self.if_connected(Repeatable::RolledBack),
                plain(other),
                None,
            ),
        };
        Error::new(kind, format!("could not connect to {}: {reason}", self.place))
            .repeatable(repeatable)
            .caused_by(reason, code)
    }

    /// What it means that the server itself refuses a connection.
    fn refused(&self, error: &dyn DatabaseError) -> (Code, Repeatable, String) {
        let explained = DB::explain(error).error;
        let repeatable = match (explained.code, explained.repeatable) {
            _ if DB::has_no_connection_left(error) => Repeatable::NoConnectionLeft,
            // A server that is still starting, or ends.
            (_, Repeatable::RolledBack) => Repeatable::RolledBack,
            (Code::PermissionDenied, Repeatable::Never) => Repeatable::Never,
            // A login that is refused, a database or a folder that is not there. Where it worked before, an administrator may be repairing it.
            (Code::ConnectionFailed, Repeatable::Never) if !self.connected.load(Ordering::Acquire) => Repeatable::Never,
            (Code::ConnectionLost, Repeatable::Unknown) => self.if_connected(Repeatable::RolledBack),
            _ => Repeatable::ByCaller,
        };
        let (kind, mut reason) = match explained.code {
            kind @ (Code::ConnectionFailed | Code::PermissionDenied | Code::Conflict) => (kind, explained.message),
            _ => (Code::ConnectionFailed, error.message().to_owned()),
        };
        if let Some(hint) = DB::hint(error) {
            reason = format!("{reason} ({hint})");
        }
        (kind, repeatable, reason)
    }

    /// Waits for the connections that are in use, then ends all.
    pub async fn close(&self) {
        // Should one not come back in the time that its statement may take, it is given up.
        let all = timeout(self.settings.statement_timeout, self.slots.acquire_many(self.rules.max)).await;
        self.slots.close();
        let idle = std::mem::take(&mut lock(&self.shelf.idle).connections);
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
    fn put(self: &Arc<Self>, connection: DB::Connection, generation: u64) {
        let mut idle = lock(&self.idle);
        if idle.generation != generation {
            return;
        }
        idle.connections.push((connection, Instant::now()));
        panics::fail_point("connections, locked");
        let Some(idle_timeout) = self.idle_timeout else { return };
        if idle.connections.len() > self.min && !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self), idle_timeout));
        }
    }

    /// Gives up all connections that were made until now: the idle ones at once, the others when they come back.
    fn give_up_all(&self) {
        let mut idle = lock(&self.idle);
        idle.generation += 1;
        // Dropped behind the lock: the sockets close.
        let given_up = std::mem::take(&mut idle.connections);
        drop(idle);
        drop(given_up);
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
            let connections = &mut idle.connections;
            while connections.len() > shelf.min && connections.first().is_some_and(|(_, since)| since.elapsed() >= idle_timeout) {
                expired.push(connections.remove(0).0);
            }
            let done = connections.len() <= shelf.min;
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
    /// Of the shelf, when the connection was had.
    generation: u64,
    /// A statement is under way, or it was given up: an answer may still come.
    in_doubt: bool,
    in_transaction: bool,
    /// The commit has been sent, so whether the transaction took effect shows by the answer only.
    committing: bool,
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

    /// What became of a statement, which has this text.
    pub fn finish<T>(&mut self, outcome: std::result::Result<sqlx::Result<T>, Elapsed>, text: &str) -> Result<T> {
        match outcome {
            Ok(Ok(value)) => {
                self.in_doubt = false;
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(error, text)),
            Err(_) => Err(Error::new(
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
            )),
        }
    }

    /// A connection that ends before the commit is sent takes its transaction with it.
    fn failed(&mut self, error: sqlx::Error, text: &str) -> Error {
        let is_rolled_back = self.in_transaction && !self.committing;
        let error = self.explained(error, text, is_rolled_back);
        if error.code == Code::ConnectionLost && is_rolled_back {
            return error.repeatable(Repeatable::RolledBack);
        }
        error
    }

    fn explained(&mut self, error: sqlx::Error, text: &str, is_rolled_back: bool) -> Error {
        match &error {
            sqlx::Error::Database(database) => {
                let Explained { mut error, fate } = DB::explain(&**database);
                if matches!(error.code, Code::PermissionDenied | Code::DatabaseError) {
                    error.message = format!("{}: {}", self.place, error.message);
                }
                // The answer has come, so the connection is in order, unless the answer was that it ends or is of no use.
                self.in_doubt = fate != Fate::Kept;
                match fate {
                    Fate::Kept | Fate::Dropped => {}
                    Fate::AllDropped => self.shelf.give_up_all(),
                    Fate::AllDroppedUnprepared => {
                        lock(&self.shelf.idle).unprepared_until = Some(Instant::now() + UNPREPARED);
                        self.shelf.give_up_all();
                    }
                }
                if error.code == Code::ConnectionLost {
                    lock(&self.shelf.idle).lost = Some(Instant::now());
                }
                error.caused_by(database.message(), database.code().map(Into::into))
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
                lock(&self.shelf.idle).lost = Some(Instant::now());
                let reason = plain(&error);
                let outcome = if is_rolled_back {
                    "did not take effect"
                } else {
                    "may or may not have taken effect"
                };
                Error::new(
                    Code::ConnectionLost,
                    format!(
                        "the connection to {} ended in the middle of a call, which {outcome}: {reason}",
                        self.place
                    ),
                )
                .caused_by(reason, None)
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => unreadable_by(text, &error),
            _ => Error::internal(format!("the answer of {} made no sense: {error}", self.place)).caused_by(error.to_string(), None),
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
        self.committing = true;
        let committed = self.execute("commit").await;
        self.committing = false;
        committed?;
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
        let (shelf, generation) = (self.shelf.clone(), self.generation);
        if !self.in_transaction && !self.in_doubt {
            shelf.put(connection, generation);
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
                shelf.put(connection, generation);
            }
            drop(slot);
        });
    }
}

/// What a driver says of a connection that failed, in words that are of use to the reader.
fn plain(error: &sqlx::Error) -> String {
    match error {
        // The TLS library's own text leads to its documentation, and is about something that most servers do.
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        sqlx::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    }
}
