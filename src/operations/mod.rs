//! What the store does, on any database: which steps a call takes, in which order, and what is repeated when.
//!
//! A file a question:
//!
//! - `call`: what every call shares: the gate, the order, the flush of what is queued, the retries. Start reading here.
//! - `lifecycle`: a store is made, `initialize()`, `close()`.
//! - `jobs`: a job is saved, read, listed, deleted. `batches`: the state of a batch is set. `records`: records are saved and read.
//! - `claims`: a batch is claimed and given back. `leases`: a lease is renewed by its worker, or lost. `lease_renewal`: leases are renewed in the background.
//!   `reclaim`: stale batches are taken from their workers. `finalize`: a job becomes final.
//! - `progress`: counts of what is done.
//! - `batch_list`: a batch's state has two copies, its row and its place in the list of the job's row; the rule that keeps them together.
//! - `batch_rows`: listed batches get their rows. `adoption`: so do those of a job that another adapter prepared.

mod adoption;
mod batch_list;
mod batch_rows;
mod batches;
mod call;
mod claims;
mod finalize;
mod jobs;
mod lease_renewal;
mod leases;
mod lifecycle;
mod progress;
mod reclaim;
mod records;

pub use call::{Answer, Entered, Operations};
pub use claims::Claim;
pub use jobs::JobState;
pub use progress::DistributedCounts;
pub use records::PageOfRecords;

#[cfg(test)]
mod tests;
