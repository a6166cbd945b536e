//! One connection for one call: runs its statements within their time, keeps its transaction, and decides what becomes of the connection afterwards. A
//! connection that is in doubt, because a statement on it was given up or failed in an unknown way, never goes back to the pool.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::driver::{Changed, Driver, Failure, Read, Refused, Sql, Statement, Value};
use super::errors::{Explained, Fate, unreadable};
use super::idle_connections::IdleConnections;
use crate::error::{Code, Error, Repeatable, Result};

/// What all sessions of a pool have in common.
pub struct SessionRules {
    /// The database, as messages name it.
    pub place: Arc<str>,
    pub statement_timeout: Duration,
    pub keep_in_doubt: bool,
    pub begin_each: Option<Arc<str>>,
}

/// A look at a failed call, by which a database makes more of the error.
type OnFailure = Box<dyn Fn(Error) -> Error + Send + Sync>;

pub struct Session<D: Driver> {
    connection: Option<D::Connection>,
    slot: Option<OwnedSemaphorePermit>,
    idle: Arc<IdleConnections<D>>,
    /// Of the idle connections, when this one was had.
    generation: u64,
    /// A statement is under way, or was given up: its answer may still come.
    in_doubt: bool,
    in_transaction: bool,
    /// The commit has been sent, so only the answer says whether the transaction took effect.
    committing: bool,
    limit: Duration,
    /// Whether the server keeps statements prepared. A driver that is told to keep none would still leave each of them on the server.
    persistent: bool,
    rules: Arc<SessionRules>,
    on_failure: Option<OnFailure>,
}

impl<D: Driver> Session<D> {
    pub fn new(
        connection: D::Connection,
        slot: OwnedSemaphorePermit,
        idle: Arc<IdleConnections<D>>,
        generation: u64,
        persistent: bool,
        rules: Arc<SessionRules>,
    ) -> Self {
        Self {
            connection: Some(connection),
            slot: Some(slot),
            idle,
            generation,
            in_doubt: false,
            in_transaction: false,
            committing: false,
            limit: rules.statement_timeout,
            persistent,
            rules,
            on_failure: None,
        }
    }

    /// Has every failure of this session looked at before it is reported.
    pub fn set_on_failure(&mut self, look: impl Fn(Error) -> Error + Send + Sync + 'static) {
        self.on_failure = Some(Box::new(look));
    }

    /// How long one statement may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether the last statement was answered, so that another may follow.
    pub fn is_in_order(&self) -> bool {
        !self.in_doubt
    }

    pub fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Runs a statement that gives no rows.
    pub async fn execute(&mut self, sql: Sql<'_>, values: Vec<Value<'_>>) -> Result<Changed> {
        let wrapped = self.wrap_in_transaction().await?;
        let statement = self.statement(sql, values);
        let limit = self.limit;
        let outcome = timeout(limit, D::execute(self.start()?, statement)).await;
        let changed = self.finish(outcome)?;
        self.end_wrapping(wrapped).await?;
        Ok(changed)
    }

    /// Runs a statement and gives each row to `take` as it comes.
    pub async fn each(&mut self, sql: Sql<'_>, values: Vec<Value<'_>>, mut take: impl FnMut(&D::Row) -> Read<()> + Send) -> Result<()> {
        let wrapped = self.wrap_in_transaction().await?;
        let statement = self.statement(sql, values);
        let limit = self.limit;
        let mut failed: Option<Error> = None;
        // The rows after one that can't be read are read all the same, which leaves the connection in order.
        let mut each = |row: D::Row| {
            if failed.is_none() {
                failed = take(&row).err().map(|error| unreadable(sql.text, &row, &error));
            }
        };
        let outcome = timeout(limit, D::fetch(self.start()?, statement, &mut each)).await;
        self.finish(outcome)?;
        self.end_wrapping(wrapped).await?;
        failed.map_or(Ok(()), Err)
    }

    /// All rows of a statement.
    pub async fn all<T: Send>(
        &mut self,
        sql: Sql<'_>,
        values: Vec<Value<'_>>,
        mut read: impl FnMut(&D::Row) -> Read<T> + Send,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.each(sql, values, |row| {
            rows.push(read(row)?);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// The first row of a statement, where it gives one.
    pub async fn optional<T: Send>(
        &mut self,
        sql: Sql<'_>,
        values: Vec<Value<'_>>,
        mut read: impl FnMut(&D::Row) -> Read<T> + Send,
    ) -> Result<Option<T>> {
        let mut first = None;
        self.each(sql, values, |row| {
            if first.is_none() {
                first = Some(read(row)?);
            }
            Ok(())
        })
        .await?;
        Ok(first)
    }

    /// The row of a statement that always gives one.
    pub async fn one<T: Send>(&mut self, sql: Sql<'_>, values: Vec<Value<'_>>, read: impl FnMut(&D::Row) -> Read<T> + Send) -> Result<T> {
        let row = self.optional(sql, values, read).await?;
        row.ok_or_else(|| Error::internal(format!("the statement {} gave no row on {}", sql.name, self.rules.place)))
    }

    /// Runs text without values, unprepared.
    pub async fn run(&mut self, text: &str) -> Result<()> {
        let limit = self.limit;
        let outcome = timeout(limit, D::run(self.start()?, text)).await;
        self.finish(outcome)
    }

    /// Runs DDL, which may take longer than a statement where it is made on rows that are there already.
    pub async fn define(&mut self, text: &str, limit: Duration) -> Result<()> {
        let usual = std::mem::replace(&mut self.limit, limit);
        let made = self.run(text).await;
        self.limit = usual;
        made
    }

    /// Begins a transaction in the database's own words. Dropped without `commit`, the session rolls it back.
    pub async fn begin(&mut self, how: &str) -> Result<()> {
        // Set before the answer, which may not come in time: a transaction that the session does not know of would swallow what follows.
        self.in_transaction = true;
        let begun = self.run(how).await;
        self.in_transaction = begun.is_ok() || self.in_doubt;
        begun
    }

    pub async fn commit(&mut self) -> Result<()> {
        self.committing = true;
        let committed = self.run("commit").await;
        self.committing = false;
        committed?;
        self.in_transaction = false;
        Ok(())
    }

    pub async fn rollback(&mut self) -> Result<()> {
        self.run("rollback").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Keeps a pooler from changing the server in the middle of a statement that is in no transaction. Whether a transaction was begun for it, which
    /// `end_wrapping` commits; a statement that fails leaves it to be rolled back when the session is dropped.
    pub async fn wrap_in_transaction(&mut self) -> Result<bool> {
        match self.rules.begin_each.clone() {
            Some(begin) if !self.in_transaction => self.begin(&begin).await.map(|()| true),
            _ => Ok(false),
        }
    }

    pub async fn end_wrapping(&mut self, wrapped: bool) -> Result<()> {
        if wrapped { self.commit().await } else { Ok(()) }
    }

    fn statement<'s>(&self, sql: Sql<'s>, values: Vec<Value<'s>>) -> Statement<'s> {
        super::recorded_statements::record(sql);
        Statement {
            sql,
            values,
            persistent: self.persistent,
        }
    }

    /// The connection, for one exchange with the server, whose outcome goes to `finish`.
    pub fn start(&mut self) -> Result<&mut D::Connection> {
        self.in_doubt = true;
        self.connection
            .as_mut()
            .ok_or_else(|| Error::internal("a connection was used after its end"))
    }

    /// What became of an exchange with the server.
    pub fn finish<T>(&mut self, outcome: std::result::Result<std::result::Result<T, Failure>, Elapsed>) -> Result<T> {
        let error = match outcome {
            Ok(Ok(value)) => {
                self.in_doubt = false;
                return Ok(value);
            }
            Ok(Err(failure)) => self.failed(failure),
            Err(_) => self.timed_out(),
        };
        Err(match &self.on_failure {
            Some(look) => look(error),
            None => error,
        })
    }

    fn timed_out(&self) -> Error {
        let connection = if self.rules.keep_in_doubt {
            "was given up"
        } else {
            "its connection was dropped"
        };
        Error::new(
            Code::Timeout,
            format!(
                "a statement took longer than {} ms (statementTimeoutMs) on {}, and {connection}",
                self.limit.as_millis(),
                self.rules.place,
            ),
        )
    }

    /// A connection that ends before the commit is sent takes its transaction with it.
    fn failed(&mut self, failure: Failure) -> Error {
        let is_rolled_back = self.in_transaction && !self.committing;
        let error = match failure {
            Failure::Refused(refused) => self.refused(*refused),
            Failure::Lost(reason) | Failure::Tls { message: reason, .. } | Failure::Impossible { message: reason, .. } => {
                self.lost(&reason, is_rolled_back)
            }
            Failure::Defect(message) => {
                Error::internal(format!("the answer of {} made no sense: {message}", self.rules.place)).caused_by(message, None)
            }
        };
        if error.code == Code::ConnectionLost && is_rolled_back {
            return error.repeatable(Repeatable::RolledBack);
        }
        error
    }

    fn lost(&self, reason: &str, is_rolled_back: bool) -> Error {
        self.idle.distrust();
        let outcome = if is_rolled_back {
            "did not take effect"
        } else {
            "may or may not have taken effect"
        };
        Error::new(
            Code::ConnectionLost,
            format!(
                "the connection to {} ended in the middle of a call, which {outcome}: {reason}",
                self.rules.place
            ),
        )
        .caused_by(reason, None)
    }

    fn refused(&mut self, refused: Refused) -> Error {
        let Explained { mut error, fate } = refused.explained;
        if matches!(error.code, Code::PermissionDenied | Code::DatabaseError) {
            error.message = format!("{}: {}", self.rules.place, error.message);
        }
        // The answer has come, so the connection is in order, unless the answer was that it ends or is of no use.
        self.in_doubt = fate != Fate::Kept;
        match fate {
            Fate::Kept | Fate::Dropped => {}
            Fate::AllDropped => self.idle.give_up_all(),
            Fate::AllDroppedUnprepared => {
                self.idle.stop_preparing();
                self.idle.give_up_all();
            }
        }
        if error.code == Code::ConnectionLost {
            self.idle.distrust();
        }
        error.caused_by(refused.message, refused.code)
    }
}

impl<D: Driver> Drop for Session<D> {
    fn drop(&mut self) {
        let (Some(connection), Some(slot)) = (self.connection.take(), self.slot.take()) else {
            return;
        };
        let keep = self.rules.keep_in_doubt;
        if self.in_doubt && !keep {
            // The socket closes, and the server rolls back what was open.
            return;
        }
        if !self.in_transaction && !self.in_doubt {
            self.idle.put(connection, self.generation);
            return;
        }
        tokio::spawn(roll_back(
            connection,
            slot,
            self.idle.clone(),
            self.generation,
            (!keep).then_some(self.limit),
        ));
    }
}

/// Rolls back a connection's transaction and gives the connection back. Where that takes longer than `limit` or fails, the connection is dropped. Without a
/// limit, the database ends with its connection: the rollback waits for whatever is still running, and where no transaction is open the refusal says so and
/// nothing else.
async fn roll_back<D: Driver>(
    mut connection: D::Connection,
    slot: OwnedSemaphorePermit,
    idle: Arc<IdleConnections<D>>,
    generation: u64,
    limit: Option<Duration>,
) {
    let rollback = D::run(&mut connection, "rollback");
    let sound = match limit {
        Some(limit) => matches!(timeout(limit, rollback).await, Ok(Ok(()))),
        None => {
            let _ = rollback.await;
            true
        }
    };
    if sound {
        idle.put(connection, generation);
    }
    drop(slot);
}
