//! What all calls share. A call enters the gate, takes its place in the order of the calls, waits for a running `initialize()`, flushes the saves
//! that are queued for its job, and retries what may be retried. Each step returns the type that the next one needs, so that no method can leave one
//! out:
//!
//! ```text
//! Operations::enter() -> Entered::accessing(Access) -> Placed::run(body) -> Call::read, Call::write
//! ```
//!
//! The store's methods are methods of [`Entered`]. Each states what it touches ([`Access`]) and runs the method of [`Call`] that does the work. Only
//! a `Call` reaches the database. Everything except the body of `run` happens synchronously, on the JavaScript thread, in the order in which the
//! methods are called.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::{OnceCell, watch};

use super::job_state::JobCopies;
use super::lease_renewal::LeaseRenewals;
use super::queued_calls::DistributedJobs;
use crate::backend::{Backend, PoolUse, Reads};
use crate::error::Result;
use crate::held_claims::Claims;
use crate::model::{BatchKey, MaxClaims};
use crate::order::{Gate, Initialization, Initializing, Pass, Turn, Turns};
use crate::panics;
use crate::retry::{LostReplies, Repeat, Retry};
use crate::warnings::Warnings;
use crate::write_queue::{BulkPlace, EndingBatch, WriteQueue};

/// The result of a call, later.
pub trait Answer<T>: Future<Output = Result<T>> + Send + 'static {}

impl<T, F: Future<Output = Result<T>> + Send + 'static> Answer<T> for F {}

/// The inner state of a store.
pub struct Operations {
    pub(super) storage: Storage,
    pub(super) claims: Arc<Claims>,
    pub(super) queue: WriteQueue,
    pub(super) leases: Arc<LeaseRenewals>,
    pub(super) copies: JobCopies,
    pub(super) max_claims: Option<MaxClaims>,
    pub(super) turns: Turns,
    pub(super) distributed_jobs: DistributedJobs,
    pub(super) gate: Gate,
    pub(super) initialization: Initialization,
    pub(super) warnings: Warnings,
    /// Set when the connections are being closed: a second `close()` waits for the first.
    pub(super) closing: OnceCell<()>,
}

/// A store's database. Its fields are private to this file: methods reach the database through their [`Call`].
pub(super) struct Storage {
    backend: Arc<dyn Backend>,
    retry: Retry,
}

impl Storage {
    pub(super) fn new(backend: Arc<dyn Backend>, retry: Retry) -> Self {
        Self { backend, retry }
    }

    /// See [`Backend::file`].
    pub(super) fn file(&self) -> Option<u64> {
        self.backend.file()
    }

    pub(super) fn pool_use(&self) -> PoolUse {
        self.backend.pool_use()
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        self.backend.close().await;
    }
}

impl Operations {
    /// Begins a call. Rejects if the store is closed; `close` waits for the calls that were let in.
    pub fn enter(self: &Arc<Self>) -> Result<Entered> {
        Ok(Entered {
            pass: self.gate.enter()?,
            store: self.clone(),
        })
    }
}

/// A call that has entered the gate. Its methods are the store's methods.
pub struct Entered {
    pub(super) store: Arc<Operations>,
    pub(super) pass: Pass,
}

/// What a call touches, and so what it waits for.
#[derive(Clone, Debug)]
pub(super) enum Access<'a> {
    /// Creates the tables. It waits for nothing, not even another `initialize()`; calls made meanwhile wait for it.
    Tables,
    /// Nothing that is queued or ordered.
    Unordered,
    /// Reads what is stored of a job, including every earlier save.
    ReadsJob(&'a str),
    /// Reads the rows of all jobs, as their last saves leave them.
    ReadsJobs,
    /// Changes who holds a job's batches, or what depends on that. Such calls are not ordered: the guards of their statements decide. Earlier saves
    /// are written first, under the claim that they were made with.
    Claims(&'a str),
    /// Sets the state of a batch: ordered with the calls on the same batch and those on the whole job.
    WritesBatch(&'a BatchKey),
    /// As `WritesBatch`, for a claim's holder that ends its batch: the end may be written together with the batch's last records.
    EndsBatch(&'a Arc<EndingBatch>),
    /// Replaces or deletes a job: ordered with all calls on it.
    WritesJob(&'a str),
    /// Saves the records with these indexes directly: ordered with the saves of the same records. It does not wait for saves of other records.
    WritesRecords { job_id: &'a str, indexes: RangeInclusive<i32> },
}

impl Access<'_> {
    fn flush(&self) -> Flush {
        match self {
            Access::ReadsJob(job_id) | Access::Claims(job_id) | Access::WritesJob(job_id) => Flush::Job((*job_id).to_owned()),
            Access::WritesBatch(key) => Flush::Job(key.job_id.clone()),
            Access::ReadsJobs => Flush::RowsOfJobs,
            Access::EndsBatch(batch) => Flush::Ending(Arc::clone(batch)),
            Access::Tables | Access::Unordered | Access::WritesRecords { .. } => Flush::Nothing,
        }
    }
}

/// What is flushed before a call begins.
enum Flush {
    Nothing,
    /// The job's queue.
    Job(String),
    /// The queue of the batch's job, which may take the batch's end along.
    Ending(Arc<EndingBatch>),
    /// What is queued of all jobs but their records.
    RowsOfJobs,
}

impl Flush {
    async fn run(&self, queue: &WriteQueue) {
        match self {
            Flush::Nothing => {}
            Flush::Job(job_id) => queue.flush(job_id).await,
            Flush::Ending(batch) => queue.flush_ending(batch).await,
            Flush::RowsOfJobs => queue.flush_jobs().await,
        }
    }
}

/// What a call holds while it runs, and what it must wait for.
enum Place {
    Initializing { _until_dropped: Initializing },
    Anywhere,
    Turn(Turn),
    Bulk(BulkPlace),
}

impl Place {
    async fn wait(&mut self) {
        match self {
            Place::Initializing { .. } | Place::Anywhere => {}
            Place::Turn(turn) => turn.wait().await,
            Place::Bulk(place) => place.wait().await,
        }
    }
}

impl Entered {
    /// Takes the call's place among the others.
    pub(super) fn accessing(self, access: Access<'_>) -> Placed {
        let Self { store, pass } = self;
        let initialization = match access {
            Access::Tables => None,
            _ => store.initialization.before_call(),
        };
        let place = match &access {
            Access::Tables => Place::Initializing {
                _until_dropped: store.initialization.begin(),
            },
            Access::Unordered | Access::ReadsJob(_) | Access::ReadsJobs | Access::Claims(_) => Place::Anywhere,
            Access::WritesBatch(key) => Place::Turn(store.turns.of_batch(key)),
            Access::EndsBatch(batch) => Place::Turn(store.turns.of_batch(&batch.end.key)),
            Access::WritesJob(job_id) => Place::Turn(store.turns.of_job(job_id)),
            Access::WritesRecords { job_id, indexes } => Place::Bulk(store.queue.enter_bulk(job_id, indexes.clone())),
        };
        Placed {
            flush: access.flush(),
            initialization,
            place,
            store,
            pass,
        }
    }
}

/// A call that has its place.
pub(super) struct Placed {
    store: Arc<Operations>,
    pass: Pass,
    place: Place,
    initialization: Option<watch::Receiver<usize>>,
    flush: Flush,
}

impl Placed {
    /// Waits for everything that precedes the call, and then runs its body.
    pub(super) fn run<T, F>(self, body: impl FnOnce(Call) -> F + Send + 'static) -> impl Answer<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Self {
            store,
            pass,
            mut place,
            initialization,
            flush,
        } = self;
        async move {
            panics::fail_point("call");
            Initialization::wait(initialization).await;
            place.wait().await;
            flush.run(&store.queue).await;
            let call = Call {
                _place: place,
                store,
                _pass: Some(pass),
                is_answered: false,
            };
            body(call).await
        }
    }
}

/// A call whose turn has come, with access to the database. It keeps its turn and its gate pass until it is dropped.
pub(super) struct Call {
    _place: Place,
    pub(super) store: Arc<Operations>,
    /// `None` for what is queued: its call has left the gate.
    _pass: Option<Pass>,
    /// The caller has its answer and can't repeat the call, so everything that may still succeed is repeated.
    is_answered: bool,
}

impl Call {
    /// A call that was queued and is written now. `close()` waits for the queue.
    pub(super) fn of_queue(store: Arc<Operations>) -> Self {
        Self {
            _place: Place::Anywhere,
            store,
            _pass: None,
            is_answered: true,
        }
    }

    /// Whether the caller has its answer already.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    fn repeat(&self, repeat: Repeat) -> Repeat {
        match repeat {
            Repeat::Idempotent if self.is_answered => Repeat::AlreadyAnswered,
            repeat => repeat,
        }
    }

    /// Reads, and retries without restriction, because a read changes nothing.
    pub(super) async fn read<'a, T, F>(&'a self, read: impl Fn(&'a dyn Reads) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let Storage { backend, retry } = &self.store.storage;
        retry.run(self.repeat(Repeat::Idempotent), || read(&**backend)).await
    }

    /// Writes, and retries as `repeat` allows.
    pub(super) async fn write<'a, T, F>(&'a self, repeat: Repeat, write: impl Fn(&'a dyn Backend) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let Storage { backend, retry } = &self.store.storage;
        retry.run(self.repeat(repeat), || write(&**backend)).await
    }

    /// As `write`, but reports attempts whose replies were lost.
    pub(super) async fn write_noting<'a, T, F>(
        &'a self,
        lost_replies: &LostReplies,
        repeat: Repeat,
        write: impl Fn(&'a dyn Backend) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let Storage { backend, retry } = &self.store.storage;
        retry.run(self.repeat(repeat), || lost_replies.note(write(&**backend))).await
    }
}
