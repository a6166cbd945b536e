//! Which jobs' records are inserted without looking for existing ones first. The engine's and the orchestrator's records are new, and an insert alone
//! takes the server less time. It can't overwrite: if a record exists already, it is refused, and the store looks first for that job from then on.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::error::lock;

/// The number of jobs to remember.
const REMEMBERED_JOBS: usize = 1_000;

/// Jobs with an insert that was refused because of an existing record. Each cost one failed attempt.
#[derive(Default)]
pub struct RefusedInserts(Mutex<HashSet<String>>);

impl RefusedInserts {
    pub fn contains(&self, job_id: &str) -> bool {
        lock(&self.0).contains(job_id)
    }

    pub fn add(&self, job_id: &str) {
        let mut jobs = lock(&self.0);
        if jobs.len() >= REMEMBERED_JOBS {
            jobs.clear();
        }
        jobs.insert(job_id.to_owned());
    }
}
