//! The identifiers of batches, claims and workers, each a type of its own, so that they can't be confused.

use std::fmt;

use serde::Serialize;

/// One batch of one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    pub job_id: String,
    pub batch_id: String,
}

impl BatchKey {
    pub fn new(job_id: impl Into<String>, batch_id: impl Into<String>) -> Self {
        Self {
            job_id: job_id.into(),
            batch_id: batch_id.into(),
        }
    }
}

/// A batch's position in its job, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BatchIndex(pub i32);

impl BatchIndex {
    /// Below every index: a search from here covers all batches.
    pub const LOWEST: Self = Self(i32::MIN);

    /// The next index, if there is one.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// A fencing token: the version that a claim gave its batch. A call with the token takes effect only while the batch still has that version (M.
/// Kleppmann, "How to do distributed locking", 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Token(pub i32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name under which a worker claims batches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

/// The number of claims after which a stale batch is given up as FAILED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxClaims(pub i32);
