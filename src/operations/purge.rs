//! `purge`: deletes finished jobs, and what belongs to no job.
//!
//! What counts as old is decided once, in [`Cutoffs`], by the database's clock. Rows that belong to no job may be those of an import that is being prepared,
//! whose records are saved before its row, and nothing in them says when they were saved: times in other jobs come from callers. So they are deleted only
//! where the job's id says when it was made, as the ids of `retryFailed` do, or where the caller says that nothing is being prepared.

use std::collections::BTreeSet;

use super::call::{Access, Answer, Call, Entered};
use crate::error::Result;
use crate::model::{Cutoffs, FinishedPage, JobTable, PurgeOptions, Purged};
use crate::order::Turn;
use crate::random_id::made_at;
use crate::retry::Repeat;

/// Jobs per page.
const PAGE: i32 = 500;

impl Entered {
    pub fn purge(self, options: PurgeOptions) -> impl Answer<Purged> {
        self.accessing(Access::ReadsJobs)
            .run(move |call| async move { call.purge(&options).await })
    }
}

impl Call {
    async fn purge(&self, options: &PurgeOptions) -> Result<Purged> {
        let now = self.read(|reads| reads.now()).await?;
        let cutoffs = Cutoffs::new(now, options.older_than_ms);
        let mut purged = Purged::default();
        let is_last = self.purge_jobs(options, cutoffs, &mut purged).await?;
        // Finding them takes a walk over all jobs that batches and records name. A caller that deletes a few jobs a call would pay for it each time.
        if is_last {
            self.purge_orphans(options, cutoffs, &mut purged).await?;
        }
        Ok(purged)
    }

    /// Returns whether it came to the last of the jobs: not where it reached the limit.
    async fn purge_jobs(&self, options: &PurgeOptions, cutoffs: Cutoffs, purged: &mut Purged) -> Result<bool> {
        let most = options.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut page = FinishedPage {
            statuses: options.status_places(),
            cutoffs,
            after: None,
            limit: PAGE,
        };
        loop {
            let jobs = self.read(|reads| reads.finished_jobs(&page)).await?;
            let Some(last) = jobs.last() else { return Ok(true) };
            page.after = Some((last.ended_at, last.id.clone()));
            for job in jobs {
                if job.has_live_claim {
                    purged.skipped.push(job.id);
                } else if self.purge_job(options, cutoffs, &job.id, purged).await? {
                    purged.job_ids.push(job.id);
                    if purged.job_ids.len() == most {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Returns whether the job was, or would be, deleted.
    async fn purge_job(&self, options: &PurgeOptions, cutoffs: Cutoffs, job_id: &str, purged: &mut Purged) -> Result<bool> {
        if options.dry_run {
            let (batches, _) = self.read(|reads| reads.count_batches(job_id)).await?;
            purged.batches += batches as u64;
            purged.records += self.read(|reads| reads.record_count(job_id)).await? as u64;
            return Ok(true);
        }
        let _turn = self.turn_of_job(job_id).await;
        // Idempotent: a job that is emptied stays final, and its end stays as it is.
        let emptied = self
            .write(Repeat::Idempotent, |backend| backend.empty_finished_job(job_id, cutoffs))
            .await?;
        // Otherwise it was started again, claimed or deleted since it was listed.
        if emptied {
            let deleted = self.delete_emptied_job(job_id, options.status_places()).await?;
            purged.batches += deleted.batches;
            purged.records += deleted.records;
        }
        Ok(emptied)
    }

    async fn purge_orphans(&self, options: &PurgeOptions, cutoffs: Cutoffs, purged: &mut Purged) -> Result<()> {
        let mut orphans = self.orphans(JobTable::Batches).await?;
        orphans.append(&mut self.orphans(JobTable::Records).await?);
        for job_id in orphans {
            let is_old = made_at(&job_id).is_some_and(|time| time <= cutoffs.abandoned_by);
            if (is_old || options.without_job) && self.purge_orphan(options, &job_id, purged).await? {
                purged.orphans.push(job_id);
            }
        }
        Ok(())
    }

    /// Returns whether anything was, or would be, deleted.
    async fn purge_orphan(&self, options: &PurgeOptions, job_id: &str, purged: &mut Purged) -> Result<bool> {
        let _turn = if options.dry_run {
            None
        } else {
            Some(self.turn_of_job(job_id).await)
        };
        // It may have been saved since it was found.
        if self.read(|reads| reads.job_times(job_id)).await?.is_some() {
            return Ok(false);
        }
        let (batches, records) = if options.dry_run {
            let (batches, _) = self.read(|reads| reads.count_batches(job_id)).await?;
            (batches as u64, self.read(|reads| reads.record_count(job_id)).await? as u64)
        } else {
            (self.delete_batches(job_id).await?, self.delete_records(job_id).await?)
        };
        purged.batches += batches;
        purged.records += records;
        Ok(batches + records > 0)
    }

    /// The ids of jobs that rows of this table name, and that have no row of their own.
    async fn orphans(&self, table: JobTable) -> Result<BTreeSet<String>> {
        let mut orphans = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let named = self.read(|reads| reads.named_jobs(table, after.as_deref(), PAGE)).await?;
            let Some(last) = named.last() else { return Ok(orphans) };
            after = Some(last.id.clone());
            let is_last = named.len() < PAGE as usize;
            orphans.extend(named.into_iter().filter(|job| !job.exists).map(|job| job.id));
            if is_last {
                return Ok(orphans);
            }
        }
    }

    /// As a call on the whole job: waits for this store's calls on it and for what is queued for it.
    async fn turn_of_job(&self, job_id: &str) -> Turn {
        let mut turn = self.store.turns.of_job(job_id);
        turn.wait().await;
        self.store.queue.flush(job_id).await;
        turn
    }
}
