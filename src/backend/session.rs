//! Connections, shared by the three drivers: made lazily, bounded in time, and thrown away after anything that leaves them in doubt.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{ConnectOptions, Connection, Database, Pool};
use tokio::sync::OnceCell;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::connection::Settings;
use crate::error::{Code, Error, Repeatable, Result};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a driver must say so that its errors mean the same everywhere.
pub trait Dialect: Database {
    /// The error that a database's own error becomes, without the cause.
    fn explain(error: &dyn DatabaseError) -> Error;

    /// Ends a transaction that was given up.
    fn roll_back(connection: &mut Self::Connection) -> BoxFuture<'_, sqlx::Result<()>>;
}

/// A connection that was idle for longer is tried before it is used: a server or a firewall may have ended it meanwhile. A busy store never pays for it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// A lazily made pool.
pub struct Connections<DB: Dialect> {
    options: <DB::Connection as Connection>::Options,
    pool_options: PoolOptions<DB>,
    pool: OnceCell<Pool<DB>>,
    closed: AtomicBool,
    place: String,
    connect_timeout: Duration,
    statement_timeout: Duration,
    acquire_timeout: Duration,
    /// Whether a connection in doubt is kept all the same.
    keep_in_doubt: bool,
}

impl<DB: Dialect> Connections<DB> {
    pub fn new(settings: &Settings, options: <DB::Connection as Connection>::Options, pool_options: PoolOptions<DB>) -> Self {
        Self {
            options,
            pool_options: pool_options
                .min_connections(settings.pool_min)
                .acquire_timeout(settings.acquire_timeout)
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for < TRUSTED_IDLE {
                            return Ok(true);
                        }
                        // A server that vanished without a word must not hold the call up for long.
                        Ok(matches!(timeout(TRUSTED_IDLE, connection.ping()).await, Ok(Ok(()))))
                    })
                }),
            pool: OnceCell::new(),
            closed: AtomicBool::new(false),
            place: settings.place(),
            connect_timeout: settings.connect_timeout,
            statement_timeout: settings.statement_timeout,
            acquire_timeout: settings.acquire_timeout,
            keep_in_doubt: false,
        }
    }

    /// For a database that ends with its connection.
    pub fn keep_in_doubt(&mut self) {
        self.keep_in_doubt = true;
    }

    pub async fn acquire(&self) -> Result<Session<DB>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        let pool = self.pool.get_or_try_init(|| self.open()).await?;
        let connection = match pool.acquire().await {
            Ok(connection) => connection,
            Err(sqlx::Error::PoolClosed) => return Err(Error::closed()),
            Err(sqlx::Error::PoolTimedOut) => return Err(self.why_none_was_free(pool).await),
            Err(error) => return Err(self.connection_failed(error)),
        };
        Ok(Session {
            connection: Some(connection),
            in_doubt: false,
            in_transaction: false,
            keep_in_doubt: self.keep_in_doubt,
            limit: self.statement_timeout,
            place: self.place.clone(),
        })
    }

    /// The pool repeats a refused connection for as long as a caller may wait and then says that it timed out. One plain connection first, so
    /// that a wrong port or password fails at once, with the reason.
    async fn open(&self) -> Result<Pool<DB>> {
        self.try_connection().await?;
        Ok(self.pool_options.clone().connect_lazy_with(self.options.clone()))
    }

    async fn try_connection(&self) -> Result<()> {
        match timeout(self.connect_timeout, self.options.connect()).await {
            Ok(Ok(connection)) => {
                // It has served its purpose; whether the goodbye arrives does not matter.
                let _ = timeout(self.connect_timeout, connection.close()).await;
                Ok(())
            }
            Ok(Err(error)) => Err(self.connection_failed(error)),
            Err(_) => Err(Error::new(
                Code::ConnectionFailed,
                format!("could not connect to {} within {} ms (connectTimeoutMs): no answer", self.place, self.connect_timeout.as_millis()),
            )),
        }
    }

    async fn why_none_was_free(&self, pool: &Pool<DB>) -> Error {
        if let Err(error) = self.try_connection().await {
            return error;
        }
        Error::new(
            Code::Timeout,
            format!(
                "all {} connections to {} were in use for {} ms (pool.acquireTimeoutMs): raise pool.max, or make fewer calls at once",
                pool.size(),
                self.place,
                self.acquire_timeout.as_millis(),
            ),
        )
        // Nothing was sent, so the caller may try again.
        .repeatable(Repeatable::ByCaller)
    }

    fn connection_failed(&self, error: sqlx::Error) -> Error {
        let reason = match &error {
            sqlx::Error::Database(database) => database.message().to_owned(),
            sqlx::Error::Io(io) => io.to_string(),
            other => other.to_string(),
        };
        let failed = Error::new(Code::ConnectionFailed, format!("could not connect to {}: {reason}", self.place));
        match &error {
            sqlx::Error::Database(database) => {
                let explained = DB::explain(&**database);
                // A server that is still starting, or full for the moment, is worth another try by ourselves.
                let repeatable = if explained.repeatable == Repeatable::RolledBack { Repeatable::RolledBack } else { Repeatable::ByCaller };
                failed.repeatable(repeatable).caused_by(database.message(), database.code().map(Into::into))
            }
            other => failed.caused_by(other.to_string(), None),
        }
    }

    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(pool) = self.pool.get() {
            pool.close().await;
            // A connection that was on its way back while the pool closed is idle in the closed pool now: sqlx 0.8 does not look again after it has
            // waited for the last one.
            pool.close().await;
        }
    }
}

/// One connection for one call.
pub struct Session<DB: Dialect> {
    connection: Option<PoolConnection<DB>>,
    /// A statement is under way, or it was given up: an answer may still come.
    in_doubt: bool,
    in_transaction: bool,
    keep_in_doubt: bool,
    pub limit: Duration,
    place: String,
}

impl<DB: Dialect> Session<DB> {
    /// The connection, for one statement, whose outcome goes to `finish`.
    pub fn start(&mut self) -> Result<&mut DB::Connection> {
        self.in_doubt = true;
        match &mut self.connection {
            Some(connection) => Ok(&mut **connection),
            None => Err(Error::internal("a connection was used after its end")),
        }
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
                        "a statement took longer than {} ms (statementTimeoutMs) on {}, and its connection was dropped",
                        self.limit.as_millis(),
                        self.place
                    ),
                ));
            }
            Ok(Err(error)) => error,
        };
        let text = error.to_string();
        match error {
            sqlx::Error::Database(database) => {
                let explained = DB::explain(&*database).caused_by(database.message(), database.code().map(Into::into));
                // The answer has come, so the connection is in order, unless the answer was that it ends.
                self.in_doubt = explained.code == Code::ConnectionLost;
                Err(explained)
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => Err(Error::new(
                Code::ConnectionLost,
                format!("the connection to {} ended in the middle of a call, which may or may not have taken effect: {text}", self.place),
            )
            .caused_by(text, None)),
            _ => Err(Error::internal(format!("the answer of {} made no sense: {text}", self.place)).caused_by(text, None)),
        }
    }

    /// Says that a transaction has begun, or that it has ended.
    pub fn in_transaction(&mut self, open: bool) {
        self.in_transaction = open;
    }
}

impl<DB: Dialect> Drop for Session<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.in_doubt && !self.keep_in_doubt {
            // The socket closes, and the server rolls back what was open.
            drop(connection.detach());
        } else if self.in_transaction {
            let limit = self.limit;
            tokio::spawn(async move {
                if !matches!(timeout(limit, DB::roll_back(&mut connection)).await, Ok(Ok(()))) {
                    drop(connection.detach());
                }
            });
        }
    }
}

/// Runs one statement on a session, no longer than it may take: `run!(session, query, fetch_all)`.
///
/// A macro, because a closure that borrows both the connection and the query's values can't be handed to a function.
macro_rules! run {
    ($session:expr, $query:expr, $how:ident) => {
        $crate::backend::session::run!($session, connection => $query.$how(connection))
    };
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

/// Runs a statement without values, unprepared: `say!(session, "commit")`.
macro_rules! say {
    ($session:expr, $text:expr) => {
        $crate::backend::session::run!($session, connection => sqlx::Executor::execute(connection, $text))
    };
}
pub(super) use say;
