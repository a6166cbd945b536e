//! Saves records, one by one or in bulk, and reads them.

use super::call::{Access, Answer, Call, Entered};
use crate::backend::RecordWrite;
use crate::error::Result;
use crate::model::{BatchKey, Record, RecordPage, RecordSlices, RecordStatus, Token};
use crate::retry::Repeat;
use crate::write_queue::Saved;

/// One page of `records`, by index.
pub struct PageOfRecords(pub RecordSlices);

impl Entered {
    /// Queues the record, on the caller's thread, and rejects if its batch can't accept it. It does not wait for other calls, because the queue keeps
    /// the order of the calls.
    pub fn save_record(self, key: BatchKey, record: Record, token: Option<Token>) -> Result<Saved<impl Answer<()> + use<>>> {
        let token = self.token(&key, token);
        let Self { store, pass } = self;
        let saved = store.queue.save(RecordWrite {
            job_id: key.job_id,
            batch_id: key.batch_id,
            record,
            token,
            file: store.storage.file(),
        })?;
        Ok(match saved {
            Saved::Answered { writing, keep_alive } => Saved::Answered { writing, keep_alive },
            Saved::Pending(save) => Saved::Pending(async move {
                let answer = save.answer().await;
                drop(pass);
                answer
            }),
        })
    }

    /// Saves records of one batch directly, each index once. It is not fenced, because it is made before the job exists and so before any claim.
    pub fn save_records(self, job_id: String, batch_id: String, records: Vec<Record>) -> impl Answer<()> {
        let indexes = || records.iter().map(|record| record.index);
        let access = match (indexes().min(), indexes().max()) {
            (Some(first), Some(last)) => Access::WritesRecords {
                job_id: &job_id,
                indexes: first..=last,
            },
            _ => Access::Unordered,
        };
        self.accessing(access)
            .run(|call| async move { call.save_records(&job_id, &batch_id, records).await })
    }

    pub fn records_with_status(self, job_id: String, statuses: [RecordStatus; 2]) -> impl Answer<RecordSlices> {
        self.accessing(Access::ReadsJob(&job_id))
            .run(move |call| async move { call.read(|reads| reads.records_with_status(&job_id, statuses)).await })
    }

    pub fn records_of_batch(self, key: BatchKey) -> impl Answer<RecordSlices> {
        self.accessing(Access::ReadsJob(&key.job_id))
            .run(|call| async move { call.read(|reads| reads.records_of_batch(&key)).await })
    }

    pub fn record_page(self, job_id: String, page: RecordPage) -> impl Answer<PageOfRecords> {
        self.accessing(Access::ReadsJob(&job_id))
            .run(|call| async move { call.read(|reads| reads.record_page(&job_id, &page)).await.map(PageOfRecords) })
    }
}

impl Call {
    async fn save_records(&self, job_id: &str, batch_id: &str, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.store.queue.check_bulk(job_id, batch_id, &records)?;
        let limits = self.read(|reads| reads.limits()).await?;
        let mut writes = Vec::with_capacity(records.len());
        for mut record in records {
            limits.fit_record(&mut record)?;
            writes.push(RecordWrite {
                job_id: job_id.to_owned(),
                batch_id: batch_id.to_owned(),
                record,
                token: None,
                file: None,
            });
        }
        // Idempotent: an upsert of the same records.
        self.write(Repeat::Idempotent, |backend| backend.save_records(&writes)).await?;
        self.store
            .queue
            .clear_failures(job_id, writes.iter().map(|write| write.record.index));
        Ok(())
    }
}
