//! The store's tables: what they must have, and which statements of a migration create what is missing.
//!
//! `needs.rs` lists the requirements, `catalogue.rs` reads what exists, and `compare.rs` compares the two. The result is nothing to do, statements to
//! run, or tables that this store can't use.

use std::time::{Duration, Instant};

use crate::error::{Code, Error, Repeatable, Result};
use crate::order::Gate;

mod catalogue;
mod compare;
mod needs;

pub use needs::TABLE_NAMES;

pub use catalogue::{Catalogue, Column, Holds, Index, read_indexes};

/// The time limit for creating an index on a large table that another adapter created, and for waiting for another process to do so.
pub const DDL_LIMIT: Duration = Duration::from_secs(3_600);

/// The pause between two checks whether another process has created the tables.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Pauses once while another process creates the tables.
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
            "another process has been creating the tables for {} s: find out what blocks it, and call initialize() again",
            DDL_LIMIT.as_secs()
        ),
    )
    .repeatable(Repeatable::ByCaller)
}
