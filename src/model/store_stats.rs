//! What `stats` counts.

use std::fmt::Write;

use super::status::{BatchStatus, JobStatus};

/// A line of the statement that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsLine {
    /// So many jobs have this status.
    Jobs(String, i64),
    /// So many batches have this status.
    Batches(String, i64),
    /// The age of the oldest claim in milliseconds, if there is a claim.
    OldestClaim(Option<i64>),
}

/// Jobs by status, open batches by status, and the age of the oldest claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    jobs: [i64; JobStatus::ALL.len()],
    batches: [i64; OPEN.len()],
    oldest_claim_ms: Option<i64>,
}

const OPEN: [BatchStatus; 3] = [BatchStatus::Pending, BatchStatus::Processing, BatchStatus::Paused];

impl StoreStats {
    /// A status that another program wrote and that is unknown here has no place in the result.
    pub fn of(lines: impl IntoIterator<Item = StatsLine>) -> Self {
        let mut stats = Self::default();
        for line in lines {
            match line {
                StatsLine::Jobs(status, count) => {
                    if let Some(place) = JobStatus::ALL.iter().position(|known| known.as_str() == status) {
                        stats.jobs[place] += count;
                    }
                }
                StatsLine::Batches(status, count) => {
                    if let Some(place) = OPEN.iter().position(|open| open.as_str() == status) {
                        stats.batches[place] += count;
                    }
                }
                // The clock may have been set back since the claim.
                StatsLine::OldestClaim(age) => stats.oldest_claim_ms = age.map(|age| age.max(0)),
            }
        }
        stats
    }

    /// `StoreStats` of `index.d.ts`.
    pub fn to_json(&self) -> String {
        let counts = |names: &[&str], counts: &[i64]| {
            let pairs = names.iter().zip(counts).map(|(name, count)| format!("\"{name}\":{count}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let jobs = counts(&JobStatus::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>(), &self.jobs);
        let batches = counts(&OPEN.map(BatchStatus::as_str), &self.batches);
        let mut out = format!("{{\"jobs\":{{{jobs}}},\"batches\":{{{batches}}}");
        if let Some(age) = self.oldest_claim_ms {
            // A string takes any text.
            let _ = write!(out, ",\"oldestClaimMs\":{age}");
        }
        out.push('}');
        out
    }
}
