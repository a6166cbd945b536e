//! `purge`: what it is asked for, what counts as old, and what it did.

use serde::Serialize;

use super::status::JobStatus;
use crate::error::Result;
use crate::fields::Fields;

/// The options of `purge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeOptions {
    pub older_than_ms: i64,
    pub statuses: Vec<JobStatus>,
    pub limit: Option<i32>,
    pub dry_run: bool,
    /// Also what belongs to no job and is of unknown age.
    pub without_job: bool,
}

const FINAL: [JobStatus; 3] = [JobStatus::Completed, JobStatus::Aborted, JobStatus::Failed];

impl PurgeOptions {
    pub fn from_json(json: &str) -> Result<Self> {
        const EXPECTED: &str = "a whole number of milliseconds from 0 to 9007199254740991";
        let fields = Fields::read(&"options", json)?;
        fields.only(&["olderThanMs", "statuses", "limit", "dryRun", "withoutJob"])?;
        let wrong = |value: &str| fields.wrong("olderThanMs", value, EXPECTED);
        let given = fields.must("olderThanMs", fields.get("olderThanMs"), EXPECTED)?;
        let older_than_ms = fields.optional_time("olderThanMs").map_err(|_| wrong(given))?;
        let older_than_ms = older_than_ms.filter(|ms| *ms >= 0).ok_or_else(|| wrong(given))?;
        let names = || "COMPLETED, ABORTED, FAILED".to_owned();
        let is_final = |text: &str| JobStatus::from_text(text).filter(|status| status.is_final());
        let limit = fields.optional_int("limit")?;
        if let Some(limit) = limit.filter(|limit| *limit < 1) {
            return Err(fields.wrong("limit", &limit.to_string(), "a whole number from 1 on"));
        }
        Ok(Self {
            older_than_ms,
            statuses: fields.statuses("statuses", is_final, names)?.unwrap_or_else(|| FINAL.to_vec()),
            limit,
            dry_run: fields.optional_bool("dryRun")?.unwrap_or_default(),
            without_job: fields.optional_bool("withoutJob")?.unwrap_or_default(),
        })
    }

    /// The statuses as exactly three parameters, padded by repeating the last one.
    pub fn status_places(&self) -> [&'static str; 3] {
        std::array::from_fn(|place| self.statuses[place.min(self.statuses.len() - 1)].as_str())
    }
}

/// What counts as old, by the database's clock. These two times decide everything that `purge` deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// A job that ended by then is old.
    pub ended_by: i64,
    /// What was last written by then is abandoned: a claim, and what `retryFailed` wrote for a job that has no row. Never later than a day ago, whatever
    /// `olderThanMs` is.
    pub abandoned_by: i64,
}

/// For how long a worker or an import in preparation may be silent at least.
const GRACE_MS: i64 = 24 * 60 * 60 * 1_000;

impl Cutoffs {
    pub fn new(now: i64, older_than_ms: i64) -> Self {
        Self {
            // 0 takes all, also a job whose end was given by a clock that is ahead of the database's.
            ended_by: if older_than_ms == 0 {
                i64::MAX
            } else {
                now.saturating_sub(older_than_ms)
            },
            abandoned_by: now.saturating_sub(older_than_ms.max(GRACE_MS)),
        }
    }
}

/// A page of finished jobs, the oldest end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedPage {
    pub statuses: [&'static str; 3],
    pub cutoffs: Cutoffs,
    /// The end and the id of the last job of the page before.
    pub after: Option<(i64, String)>,
    pub limit: i32,
}

/// A finished job, as `purge` looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedJob {
    pub id: String,
    pub ended_at: i64,
    /// A worker holds one of its batches, and has claimed or renewed it since `Cutoffs::abandoned_by`.
    pub has_live_claim: bool,
}

/// The tables whose rows name a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobTable {
    Batches,
    Records,
}

/// A job's id in one of these tables, and whether the job has a row of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedJob {
    pub id: String,
    pub exists: bool,
}

/// `PurgeResult` of `index.d.ts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    pub job_ids: Vec<String>,
    pub batches: u64,
    pub records: u64,
    pub orphans: Vec<String>,
    pub skipped: Vec<String>,
}
