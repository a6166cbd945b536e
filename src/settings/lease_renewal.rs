//! The option `leaseRenewal`.

use std::time::Duration;

use crate::error::Result;
use crate::fields::Fields;

/// The store renews each of its claims itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRenewal {
    pub every: Duration,
    /// How long after the claim the renewal ends, so that the batch of a worker that hangs becomes stale.
    pub for_at_most: Duration,
}

impl LeaseRenewal {
    pub(super) fn from_json(json: &str) -> Result<Self> {
        let renewal = Fields::read(&"options.leaseRenewal", json)?;
        renewal.only(&["everyMs", "forMs"])?;
        Ok(Self {
            every: renewal.must("everyMs", renewal.milliseconds("everyMs")?, "a number of milliseconds")?,
            for_at_most: renewal.must("forMs", renewal.milliseconds("forMs")?, "a number of milliseconds")?,
        })
    }
}
