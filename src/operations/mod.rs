//! What the store does, on any database: which steps a call takes, in which order, and what is retried when.
//!
//! Each file answers one question:
//!
//! - `call`: what all calls share: the gate, the order, the flush of queued saves, the retries. Start reading here.
//! - `lifecycle`: creating a store, `initialize()`, `close()`.
//! - `jobs`: saving, listing and deleting jobs. `job_state`: reading a job with its batches. `batches`: setting a batch's state. `records`: saving and reading records.
//! - `queued_calls`: which calls on jobs and batches `durability: 'batch'` queues, and how they are written.
//! - `claims`: claiming and releasing batches. `leases`: a worker renews its lease, or has lost it. `lease_renewal`: renewals in the background.
//!   `reclaim`: taking stale batches from their workers. `finalize`: making a job final.
//! - `steering`: pausing, resuming and aborting a job. `retry_job`: a new job of the failed records of another. `purge`: deleting finished jobs.
//! - `progress`: the counts of what is done. `overview`: what an operator looks at: a job's row, a page of its batches, counts, a ping, the pool.
//! - `examination`: what the command's `doctor` looks at.
//! - `batch_list`: the rules that keep the two copies of a batch's state together, its row and its entry in the list of the job's row.
//! - `batch_rows`: inserting rows for listed batches. `adoption`: the same for jobs that another adapter prepared.

mod adoption;
mod batch_list;
mod batch_rows;
mod batches;
mod call;
mod claims;
mod examination;
mod finalize;
mod job_state;
mod jobs;
mod lease_renewal;
mod leases;
mod lifecycle;
mod overview;
mod progress;
mod purge;
mod queued_calls;
mod reclaim;
mod records;
mod retry_job;
mod steering;

pub use call::{Answer, Entered, Operations};
pub use claims::Claim;
pub use job_state::JobState;
pub use overview::PageOfBatches;
pub use progress::DistributedCounts;
pub use records::PageOfRecords;

#[cfg(test)]
mod tests;
