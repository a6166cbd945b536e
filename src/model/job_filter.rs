//! Which jobs `listJobs` returns.

use super::status::JobStatus;
use crate::error::Result;
use crate::fields::Fields;

/// The options of `listJobs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    pub limit: i32,
    /// Only jobs after this `startedAt` and `id` in the list's order: newest first, jobs without `startedAt` last, ties by `id`.
    pub after: Option<(Option<i64>, String)>,
}

impl JobFilter {
    pub fn from_json(json: &str) -> Result<Self> {
        let fields = Fields::read(&"options", json)?;
        fields.only(&["status", "limit", "after"])?;
        let limit = fields.page_limit("limit")?;
        let after = match fields.get("after") {
            None => None,
            Some(value) => {
                let key = Fields::read(&"options.after", value)?;
                Some((key.optional_time("startedAt")?, key.id("id")?))
            }
        };
        let status = fields
            .get("status")
            .map(|_| fields.status("status", JobStatus::from_text, JobStatus::names))
            .transpose()?;
        Ok(Self { status, limit, after })
    }
}
