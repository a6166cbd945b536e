//! What `stats` counts.

use std::fmt::Write;

use super::status::{BatchStatus, JobStatus};

/// The jobs of one status, with the open batches of those that are distributed and not final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsOfStatus {
    pub status: String,
    pub jobs: i64,
    pub pending: i64,
    pub processing: i64,
    pub paused: i64,
    /// The age of the oldest claim in milliseconds: on a batch that is PROCESSING, and on one that is PAUSED.
    pub oldest_claims_ms: [Option<i64>; 2],
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
    /// A job's status that another program wrote and that is unknown here has no place in the result. It is not final, so its batches are open.
    pub fn of(statuses: impl IntoIterator<Item = StatsOfStatus>) -> Self {
        let mut stats = Self::default();
        for of in statuses {
            if let Some(place) = JobStatus::ALL.iter().position(|known| known.as_str() == of.status) {
                stats.jobs[place] += of.jobs;
            }
            for (place, count) in [of.pending, of.processing, of.paused].into_iter().enumerate() {
                stats.batches[place] += count;
            }
            // The clock may have been set back since the claim.
            let oldest = of.oldest_claims_ms.into_iter().flatten().map(|age| age.max(0)).max();
            stats.oldest_claim_ms = stats.oldest_claim_ms.max(oldest);
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
