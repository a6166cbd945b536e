//! The SQL state store of `@batchactions`, as a Node addon.
//!
//! # Layers
//!
//! ```text
//! index.js        loads the addon, converts arguments and results, creates StateStoreError
//! js              everything that uses Node-API: arguments in, results out as JSON text, errors to JavaScript
//! operations      what a call does, on any database: each file answers one question; start with `call`
//!   held_claims     what the store remembers of its claims: tokens, where to look for the next batch, leases to renew
//!   write_queue     the writes that are queued of each job: records in groups, the job and the states of its batches
//!   order           which call takes effect first, and when calls may begin
//! backend         the interface to a database, and its guarantees; postgres, mysql, sqlite: every statement
//! settings        URL, options, Sequelize instance and environment -> settings
//! model, fields   jobs, batches, records: validated, and computed with
//! error           the error that a call rejects with
//! lease_lost      what happens when a worker has lost its batch
//! retry           what is retried, and for how long
//! panics          a panic fails a call, and does not end the process
//! warnings        what fails or changes in the background, where no call reports it
//! ```
//!
//! # Guarantees
//!
//! - A batch has at most one live claim, on every database: a claim is one guarded update.
//! - A call with a token takes effect only while the token is the batch's current one.
//! - At most one caller finalizes a job.
//! - Every operation locks batch rows before the job row, so that two calls can't deadlock.
//! - A call took effect or it did not; what is retried inside is idempotent or known to have rolled back.

mod backend;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod held_claims;
mod js;
mod lease_lost;
mod model;
mod operations;
mod order;
mod panics;
mod random_id;
mod retry;
mod settings;
mod warnings;
mod write_queue;

/// One worker thread of the asynchronous runtime for every four cores. A call mostly waits for a server, and each call wakes any idle second worker
/// needlessly, which costs a tenth of the call. `TOKIO_WORKER_THREADS` overrides it, as in any program on tokio.
///
/// napi uses this as its first runtime. If the addon is loaded only in worker threads and the last of them has ended, the next one gets napi's own.
#[cfg(not(test))]
#[napi_derive::module_init]
fn start_runtime() {
    // Parsed here, because tokio panics on an invalid number, and nothing would catch that panic.
    let given = std::env::var("TOKIO_WORKER_THREADS").ok();
    let workers = given
        .and_then(|given| given.parse().ok())
        .filter(|workers| (1..=1_024).contains(workers));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.unwrap_or((cores / 4).clamp(1, 4)))
        .enable_all()
        .build();
    // If this fails, napi creates its own runtime on demand, and reports why that failed.
    if let Ok(runtime) = runtime {
        napi::bindgen_prelude::create_custom_tokio_runtime(runtime);
    }
}
