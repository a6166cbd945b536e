//! Writes a group's records to the database, and splits the group if the write fails as a whole: a record that can't be stored, or that another
//! transaction has locked, must not fail the others.

use std::sync::Arc;

use super::ending::EndingBatch;
use crate::backend::{Backend, RecordWrite};
use crate::error::{Code, Error, Repeatable, Result};
use crate::model::{BatchKey, ColumnLimits};
use crate::panics;
use crate::retry::{Repeat, Retry};
use crate::settings::Durability;

#[derive(Clone)]
pub struct GroupStore {
    backend: Arc<dyn Backend>,
    retry: Retry,
    repeat: Repeat,
}

impl GroupStore {
    pub fn new(backend: Arc<dyn Backend>, retry: Retry, durability: Durability) -> Self {
        let repeat = match durability {
            // Idempotent: the token guards a record whose batch was claimed. Without a claim, only one process saves a batch's records.
            Durability::Record => Repeat::Idempotent,
            // The caller already has its answer, and can't repeat the call.
            Durability::Batch => Repeat::AlreadyAnswered,
        };
        Self { backend, retry, repeat }
    }

    pub async fn limits(&self) -> Result<ColumnLimits> {
        self.retry.run(self.repeat, || self.backend.limits()).await
    }

    /// Writes the records and returns the result of each.
    pub async fn write_group(&self, writes: &[RecordWrite]) -> Vec<Result<()>> {
        match self.write(writes).await {
            Ok(results) => results,
            Err(error) if matches!(error.code, Code::Timeout | Code::Conflict) && by_batch(writes).count() > 1 => {
                self.write_each_batch(writes).await
            }
            Err(error) if error.repeatable == Repeatable::Never && writes.len() > 1 => self.write_each_record(writes).await,
            Err(error) => vec![Err(error); writes.len()],
        }
    }

    /// Writes a batch's last records and its end in one transaction. One attempt: whatever stands in its way, the records are written without it, with
    /// all retries, and the call that ends the batch goes on by itself and meets the same trouble.
    pub async fn write_group_and_end(&self, writes: &[RecordWrite], batch: &EndingBatch) -> Vec<Result<()>> {
        let attempt = self.backend.save_records_and_end_batch(writes, &batch.end);
        match batch.lost_replies.note(attempt).await {
            Ok(Some(index)) => {
                panics::fail_point("batch end, written");
                batch.set_written(index);
                vec![Ok(()); writes.len()]
            }
            Ok(None) | Err(_) => self.write_group(writes).await,
        }
    }

    /// Writes the records of each batch separately, all batches concurrently, because one batch's records may be locked.
    async fn write_each_batch(&self, writes: &[RecordWrite]) -> Vec<Result<()>> {
        let tasks: Vec<_> = by_batch(writes)
            .map(|part| {
                let (store, part, count) = (self.clone(), part.to_vec(), part.len());
                (count, tokio::spawn(async move { store.write(&part).await }))
            })
            .collect();
        let mut results = Vec::with_capacity(writes.len());
        for (count, task) in tasks {
            let ended = task
                .await
                .unwrap_or_else(|_| Err(Error::internal("a defect of this package ended a save")));
            results.extend(ended.unwrap_or_else(|error| vec![Err(error); count]));
        }
        results
    }

    /// Writes the records one by one, because one of them can't be stored.
    async fn write_each_record(&self, writes: &[RecordWrite]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let written = self.write(std::slice::from_ref(write)).await;
            results.push(written.and_then(|mut results| results.remove(0)));
        }
        results
    }

    /// Writes the records in one transaction, except those whose batch is no longer held.
    async fn write(&self, writes: &[RecordWrite]) -> Result<Vec<Result<()>>> {
        if writes.iter().all(|write| write.token.is_none()) {
            self.retry.run(self.repeat, || self.backend.save_records(writes)).await?;
            return Ok(vec![Ok(()); writes.len()]);
        }
        let held = self.retry.run(self.repeat, || self.backend.save_fenced_records(writes)).await?;
        Ok(writes
            .iter()
            .zip(held)
            .map(|(write, held)| match (held, write.token) {
                (false, Some(token)) => Err(Error::lease_lost(&BatchKey::new(&*write.job_id, &*write.batch_id), token)),
                _ => Ok(()),
            })
            .collect())
    }
}

/// Runs of writes of one batch.
fn by_batch(writes: &[RecordWrite]) -> impl Iterator<Item = &[RecordWrite]> {
    writes.chunk_by(|a, b| (&a.job_id, &a.batch_id) == (&b.job_id, &b.batch_id))
}
