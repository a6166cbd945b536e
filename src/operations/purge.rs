//! `purge`: deletes finished jobs, and what belongs to no job.
//!
//! What counts as old is decided once, in [`Cutoffs`], by the database's clock. A batch without a job is left over by an interrupted deletion, because
//! a job's row and its batches' rows are written in one transaction. Records are saved before their job's row, so records without one may also belong
//! to an import that is being prepared. Ids grow with each insertion: records whose ids are all lower than that of a record of a job that ended long
//! ago were saved before that.

use std::collections::BTreeSet;

use super::call::{Access, Answer, Call, Entered};
use crate::error::Result;
use crate::model::{Cutoffs, FinishedPage, JobTable, PurgeOptions, Purged};
use crate::order::Turn;
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
        // Read before anything is deleted, because it comes from jobs that may be.
        let records_before = self.read(|reads| reads.record_id_before(cutoffs.abandoned_by)).await?;
        let mut purged = Purged::default();
        self.purge_jobs(options, cutoffs, &mut purged).await?;
        self.purge_orphans(options, records_before, &mut purged).await?;
        Ok(purged)
    }

    async fn purge_jobs(&self, options: &PurgeOptions, cutoffs: Cutoffs, purged: &mut Purged) -> Result<()> {
        let most = options.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut page = FinishedPage {
            statuses: options.status_places(),
            cutoffs,
            after: None,
            limit: PAGE,
        };
        loop {
            let jobs = self.read(|reads| reads.finished_jobs(&page)).await?;
            let Some(last) = jobs.last() else { return Ok(()) };
            page.after = Some((last.ended_at, last.id.clone()));
            for job in jobs {
                if purged.job_ids.len() == most {
                    return Ok(());
                }
                if job.has_live_claim {
                    purged.skipped.push(job.id);
                } else if self.purge_job(options, cutoffs, &job.id, purged).await? {
                    purged.job_ids.push(job.id);
                }
            }
        }
    }

    /// Returns whether the job was, or would be, deleted.
    async fn purge_job(&self, options: &PurgeOptions, cutoffs: Cutoffs, job_id: &str, purged: &mut Purged) -> Result<bool> {
        if options.dry_run {
            let (batches, _) = self.read(|reads| reads.count_batches(job_id)).await?;
            purged.batches += batches as u64;
            purged.records += self.read(|reads| reads.record_extent(job_id)).await?.count as u64;
            return Ok(true);
        }
        let _turn = self.turn_of_job(job_id).await;
        // Idempotent: a job that is emptied stays final, and its end stays as it is.
        let emptied = self
            .write(Repeat::Idempotent, |backend| backend.empty_finished_job(job_id, cutoffs))
            .await?;
        // Otherwise it was started again, claimed or deleted since it was listed.
        if emptied {
            let deleted = self.delete_emptied_job(job_id).await?;
            purged.batches += deleted.batches;
            purged.records += deleted.records;
        }
        Ok(emptied)
    }

    async fn purge_orphans(&self, options: &PurgeOptions, records_before: Option<i64>, purged: &mut Purged) -> Result<()> {
        let mut orphans = self.orphans(JobTable::Batches).await?;
        if records_before.is_some() {
            orphans.append(&mut self.orphans(JobTable::Records).await?);
        }
        for job_id in orphans {
            let turn = if options.dry_run {
                None
            } else {
                Some(self.turn_of_job(&job_id).await)
            };
            if self.purge_orphan(options, records_before, &job_id, purged).await? {
                purged.orphans.push(job_id);
            }
            drop(turn);
        }
        Ok(())
    }

    /// Returns whether anything was, or would be, deleted.
    async fn purge_orphan(&self, options: &PurgeOptions, records_before: Option<i64>, job_id: &str, purged: &mut Purged) -> Result<bool> {
        // It may have been saved since it was found.
        if self.read(|reads| reads.job_times(job_id)).await?.is_some() {
            return Ok(false);
        }
        let (mut batches, _) = self
            .read(|reads| reads.count_batches(job_id))
            .await
            .map(|(count, last)| (count as u64, last))?;
        let extent = self.read(|reads| reads.record_extent(job_id)).await?;
        let are_abandoned = extent.last_id.zip(records_before).is_some_and(|(last, before)| last < before);
        let mut records = if are_abandoned { extent.count as u64 } else { 0 };
        if !options.dry_run {
            if batches > 0 {
                batches = self.delete_batches(job_id).await?;
            }
            if records > 0 {
                records = self.delete_records(job_id).await?;
            }
        }
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
        self.store.writer.flush(job_id).await;
        turn
    }
}
