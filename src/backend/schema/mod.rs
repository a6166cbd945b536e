//! Which tables, columns and indexes the store needs, and which statements of a migration make the missing ones.
//!
//! `needs.rs` says what there must be, `catalogue.rs` what a database's catalogue says that there is, and `compare.rs` what follows of the two: nothing to do,
//! statements to run, or tables that this store can't use.

use std::time::{Duration, Instant};

use crate::error::{Code, Error, Repeatable, Result};
use crate::order::Gate;

mod catalogue;
mod compare;
mod needs;

pub use catalogue::{Catalogue, Column, Holds, Index, read_indexes};

/// How long an index on a large table of another adapter's may take to make, and a process that waits for another one to make it.
pub const DDL_LIMIT: Duration = Duration::from_secs(3_600);

/// Between two looks whether another process has made the tables.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// One pause in the wait for another process that makes the tables.
pub async fn wait_for_tables(gate: &Gate, deadline: Instant) -> Result<()> {
    if gate.is_closed() {
        return Err(Error::closed());
    }
    if Instant::now() >= deadline {
        return Err(initialize_takes_too_long());
    }
    tokio::time::sleep(LOCK_PAUSE).await;
    Ok(())
}

fn initialize_takes_too_long() -> Error {
    Error::new(
        Code::Timeout,
        format!(
            "another process has been making the tables for {} s: find out what keeps it, and call initialize() again",
            DDL_LIMIT.as_secs()
        ),
    )
    .repeatable(Repeatable::ByCaller)
}
