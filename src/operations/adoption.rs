//! Adoption: a distributed job that another adapter prepared has a list of batches but no rows, so its batches get rows.

use super::batch_rows::insert_absent_batches;
use super::call::Call;
use crate::backend::Backend;
use crate::error::{Code, Error, Quoted, Repeatable, Result};
use crate::model::BatchList;
use crate::retry::Repeat;

/// Whether a distributed job had to be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adoption {
    Adopted,
    /// It has an empty list.
    NoBatches,
    /// It has rows, is not distributed, or does not exist.
    NotNeeded,
}

impl Call {
    pub(super) async fn adopt_if_needed(&self, job_id: &str) -> Result<Adoption> {
        let snapshot = self.read(|reads| reads.claim_snapshot(job_id)).await?;
        match snapshot {
            Some(snapshot) if snapshot.distributed && !snapshot.has_rows => Ok(match self.adopt(job_id).await? {
                true => Adoption::Adopted,
                false => Adoption::NoBatches,
            }),
            _ => Ok(Adoption::NotNeeded),
        }
    }

    /// Inserts rows for the job's batches. Returns false if the job does not exist or has an empty list.
    pub(super) async fn adopt(&self, job_id: &str) -> Result<bool> {
        // Idempotent: existing rows stay as they are.
        let adopted = self.write(Repeat::Idempotent, |backend| adopt_once(backend, job_id)).await?;
        if adopted {
            self.update_list_or_remember(job_id).await;
        }
        Ok(adopted)
    }
}

async fn adopt_once(backend: &dyn Backend, job_id: &str) -> Result<bool> {
    let Some(job) = backend.job(job_id).await? else {
        return Ok(false);
    };
    let batches = BatchList::read(job_id, &job.batches)?;
    if batches.is_empty() {
        return Ok(false);
    }
    let listed = batches.listed(job_id)?;
    let mut transaction = backend.begin().await?;
    insert_absent_batches(&mut *transaction, job_id, &listed).await?;
    // A job that is being deleted has an empty list and must get no rows. A job that was stored again meanwhile may list other batches.
    let listed_now = transaction.lock_job(job_id).await?.map(|job| job.batches);
    if listed_now.as_ref() == Some(&job.batches) {
        transaction.commit().await?;
        return Ok(true);
    }
    transaction.rollback().await?;
    match listed_now {
        Some(batches) if !BatchList::read(job_id, &batches)?.is_empty() => Err(Error::new(
            Code::Conflict,
            format!("job {} was stored again while its batches were given rows", Quoted(job_id)),
        )
        .repeatable(Repeatable::RolledBack)),
        _ => Ok(false),
    }
}
