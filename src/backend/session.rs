//! One connection for one call. A session runs statements within their time limit, owns the call's transaction, and decides whether the connection
//! returns to the pool. A connection in doubt, because a statement on it was abandoned or failed in an unknown way, never returns.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::driver::{Changed, Driver, Failure, Read, Refused, Sql, Statement, Value};
use super::errors::{Explained, Fate};
use super::idle_connections::IdleConnections;
use super::pool::Slot;
use super::unreadable::unreadable;
use crate::error::{Code, Error, Repeatable, Result};
use crate::panics;
use crate::warnings::{Warning, WarningKind, Warnings};

/// What all sessions of a pool share.
pub struct SessionRules {
    /// The database's name in messages.
    pub place: Arc<str>,
    pub statement_timeout: Duration,
    pub keep_in_doubt: bool,
    pub begin_each: Option<Arc<str>>,
    pub warnings: Warnings,
}

/// Refines the error of a failed call.
type OnFailure = Box<dyn Fn(Error) -> Error + Send + Sync>;

pub struct Session<D: Driver> {
    connection: Option<D::Connection>,
    slot: Option<Slot>,
    idle: Arc<IdleConnections<D>>,
    /// The pool's generation when the session took the connection.
    generation: u64,
    /// A statement is running or was abandoned: its answer may still arrive.
    in_doubt: bool,
    in_transaction: bool,
    /// The commit has been sent, so only its reply tells whether the transaction took effect.
    committing: bool,
    limit: Duration,
    /// Whether the server keeps statements prepared. Telling the driver to keep none would still leave each of them on the server.
    persistent: bool,
    rules: Arc<SessionRules>,
    on_failure: Option<OnFailure>,
}

impl<D: Driver> Session<D> {
    pub fn new(
        connection: D::Connection,
        slot: Slot,
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

    /// Passes every failure of this session through `look` before it is reported.
    pub fn set_on_failure(&mut self, look: impl Fn(Error) -> Error + Send + Sync + 'static) {
        self.on_failure = Some(Box::new(look));
    }

    /// The time limit of a statement.
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

    /// Runs a statement that returns no rows.
    pub async fn execute(&mut self, sql: Sql<'_>, values: Vec<Value<'_>>) -> Result<Changed> {
        let wrapped = self.wrap_in_transaction().await?;
        let statement = self.statement(sql, values);
        let limit = self.limit;
        let outcome = timeout(limit, D::execute(self.start()?, statement)).await;
        let changed = self.finish(outcome)?;
        self.end_wrapping(wrapped).await?;
        Ok(changed)
    }

    /// Runs a statement and passes each row to `take` as it arrives.
    pub async fn each(&mut self, sql: Sql<'_>, values: Vec<Value<'_>>, mut take: impl FnMut(&D::Row) -> Read<()> + Send) -> Result<()> {
        let wrapped = self.wrap_in_transaction().await?;
        let statement = self.statement(sql, values);
        let limit = self.limit;
        let mut failed: Option<Error> = None;
        // After a row that can't be read, the remaining rows are still consumed, so that the connection stays usable.
        let mut each = |row: D::Row| {
            if failed.is_none() {
                failed = take(&row).err().map(|error| unreadable(sql.text, &row, &error));
            }
        };
        let outcome = timeout(limit, D::fetch(self.start()?, statement, &mut each)).await;
        self.finish(outcome)?;
        match failed {
            // The wrapping transaction is rolled back when the session is dropped: the call did not take effect.
            Some(error) => Err(error),
            None => self.end_wrapping(wrapped).await,
        }
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

    /// The first row of a statement, if there is one.
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

    /// The row of a statement that always returns one.
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

    /// Runs DDL, whose time limit is longer because existing rows may make it slow.
    pub async fn define(&mut self, text: &str, limit: Duration) -> Result<()> {
        let usual = std::mem::replace(&mut self.limit, limit);
        let made = self.run(text).await;
        self.limit = usual;
        made
    }

    /// Begins a transaction by the database's own statement. If the session is dropped without `commit`, it rolls back.
    pub async fn begin(&mut self, how: &str) -> Result<()> {
        // Set before the reply, which may time out: later statements would otherwise run in a transaction that the session does not know of.
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

    /// Begins a transaction, if the session has none, so that a pooler can't switch servers in the middle of a statement. Returns whether it began
    /// one, which `end_wrapping` commits; if the statement fails, dropping the session rolls it back.
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

    /// The connection, for one exchange with the server. The exchange's outcome goes to `finish`.
    pub fn start(&mut self) -> Result<&mut D::Connection> {
        self.in_doubt = true;
        self.connection
            .as_mut()
            .ok_or_else(|| Error::internal("a connection was used after its end"))
    }

    /// Handles the outcome of an exchange with the server.
    pub fn finish<T>(&mut self, outcome: std::result::Result<std::result::Result<T, Failure>, Elapsed>) -> Result<T> {
        let error = match outcome {
            Ok(Ok(value)) => {
                self.in_doubt = false;
                return Ok(value);
            }
            Ok(Err(failure)) => self.failed(failure),
            Err(_) => self.timed_out(),
        };
        if self.in_doubt && !self.rules.keep_in_doubt {
            // The call may be repeated and succeed, or no caller waits for it.
            let lost = Warning::new(WarningKind::ConnectionLost, error.message.clone());
            self.rules.warnings.warn(lost.error(error.clone()));
        }
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

    /// A connection that ends before the commit is sent rolls its transaction back.
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
        // The server has answered, so the connection is in order, unless the answer says that it is ending or unusable.
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
            // The socket closes, and the server rolls back the open transaction.
            return;
        }
        if !self.in_transaction && !self.in_doubt {
            self.idle.put(connection, self.generation);
            return;
        }
        let rollback = roll_back(
            connection,
            slot,
            self.idle.clone(),
            self.generation,
            (!keep).then_some(self.limit),
            self.rules.clone(),
        );
        tokio::spawn(self.rules.warnings.clone().watch("the rollback of an unfinished call", rollback));
    }
}

/// Rolls back a connection's transaction and returns the connection to the pool. If that fails or takes longer than `limit`, the connection is
/// dropped. No limit means that the database lives in the connection: the rollback waits for the statement that is still running, and if no
/// transaction is open, the error is harmless.
async fn roll_back<D: Driver>(
    mut connection: D::Connection,
    slot: Slot,
    idle: Arc<IdleConnections<D>>,
    generation: u64,
    limit: Option<Duration>,
    rules: Arc<SessionRules>,
) {
    panics::fail_point("rollback");
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
    } else {
        let message = format!("a connection to {} ended in the rollback of an unfinished call", rules.place);
        rules.warnings.warn(Warning::new(WarningKind::ConnectionLost, message));
    }
    drop(slot);
}
