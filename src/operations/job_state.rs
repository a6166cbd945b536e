//! Reads a job with its batches. The copies that were read last are kept, because a worker reads its job before each batch: the next read takes from
//! the server only what may have changed, where the database can tell, and shares what is equal.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::call::{Access, Answer, Call, Entered};
use crate::backend::ReadBatches;
use crate::error::{Result, lock};
use crate::model::{JobBatches, JobRow, JobStatus};

/// The jobs that are kept, and how many bytes they may have together.
const MOST_JOBS: usize = 8;
const MOST_BYTES: usize = 32 << 20;

/// A stored job.
pub struct JobState {
    pub row: JobRow,
    pub batches: JobBatches,
}

/// The jobs that were read last, the last one first. A copy is never an answer by itself: each call reads what the database has now.
#[derive(Default)]
pub struct JobCopies(Mutex<VecDeque<(String, ReadBatches)>>);

impl JobCopies {
    fn of(&self, job_id: &str) -> Option<ReadBatches> {
        let jobs = lock(&self.0);
        jobs.iter().find(|(id, _)| id == job_id).map(|(_, read)| read.clone())
    }

    fn keep(&self, job_id: &str, read: ReadBatches) {
        let mut jobs = lock(&self.0);
        jobs.retain(|(id, _)| id != job_id);
        jobs.push_front((job_id.to_owned(), read));
        jobs.truncate(MOST_JOBS);
        let mut bytes = 0;
        // A copy that is too large by itself is dropped alone.
        jobs.retain(|(_, read)| {
            let more = bytes + read.batches.bytes();
            let fits = more <= MOST_BYTES;
            if fits {
                bytes = more;
            }
            fits
        });
    }

    pub fn forget(&self, job_id: &str) {
        lock(&self.0).retain(|(id, _)| id != job_id);
    }

    pub fn forget_all(&self) {
        lock(&self.0).clear();
    }
}

impl Entered {
    pub fn job(self, job_id: String) -> impl Answer<Option<JobState>> {
        self.accessing(Access::ReadsJob(&job_id)).run(|call| async move {
            let found = call.job(&job_id).await?;
            // Not the opposite, because the job may have been saved as distributed since this read began.
            if found.as_ref().is_some_and(|job| job.row.distributed) {
                call.store.distributed_jobs.note(&job_id, true);
            }
            Ok(found)
        })
    }
}

impl Call {
    pub(super) async fn job(&self, job_id: &str) -> Result<Option<JobState>> {
        let copies = &self.store.copies;
        let earlier = copies.of(job_id);
        let Some((row, read)) = self.read(|reads| reads.job_batches(job_id, earlier.as_ref())).await? else {
            copies.forget(job_id);
            return Ok(None);
        };
        let batches = read.batches.clone();
        // A final job is not worked on any more.
        if JobStatus::from_text(&row.status).is_some_and(JobStatus::is_final) {
            copies.forget(job_id);
        } else {
            copies.keep(job_id, read);
        }
        Ok(Some(JobState { row, batches }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BatchRows;

    fn read(bytes: usize) -> ReadBatches {
        let list = format!(r#"[{{"id":"{}"}}]"#, "x".repeat(bytes));
        let rows = BatchRows::read("[]", None).unwrap();
        ReadBatches {
            batches: JobBatches::read("job", &list, rows, None).unwrap(),
            horizon: None,
        }
    }

    #[test]
    fn few_jobs_and_few_bytes_are_kept() {
        let copies = JobCopies::default();
        let kept = || lock(&copies.0).iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        for job in 0..20 {
            copies.keep(&format!("job {job}"), read(10));
        }
        assert_eq!(kept().len(), MOST_JOBS);
        assert_eq!(kept()[0], "job 19");
        copies.keep("job 15", read(10));
        assert_eq!((kept().len(), &*kept()[0]), (MOST_JOBS, "job 15"));
        copies.keep("large", read(MOST_BYTES - 1_000));
        assert_eq!((kept().len(), &*kept()[0]), (MOST_JOBS, "large"));
        copies.keep("larger", read(MOST_BYTES - 100));
        assert_eq!(kept()[0], "larger");
        assert!(copies.of("large").is_none());
        let before = kept();
        copies.keep("too large", read(MOST_BYTES));
        assert_eq!(kept(), before);
    }
}
