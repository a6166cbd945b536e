//! Converts the statements' rows into the model. Every database selects the same columns in the same order, so each kind of row is read in one place.

use super::driver::{Driver, Read, Row, Sql, Value};
use super::session::Session;
use super::{BatchOwner, ClaimSnapshot, ListSnapshot, LockedJob, ReadBatches, ReclaimSnapshot, Reclaimed, StoredJob};
use crate::error::{Error, Result};
use crate::model::{
    BatchCounts, BatchIndex, BatchRow, BatchRowParts, BatchRows, BatchRowsText, BatchSummary, FinishedJob, JobBatches, JobRow, JobTimes,
    NamedJob, RecordCounts, RecordRange, RecordSlices, RecordText, Reservation, StatsOfStatus, StoreStats, Token, WorkerId,
};

/// id, config, status, totalRecords, startedAt, completedAt, distributed
pub fn job_row(row: &impl Row) -> Read<JobRow> {
    Ok(JobRow {
        id: row.text(0)?.to_owned(),
        config: row.json(1)?.into_owned(),
        status: row.text(2)?.to_owned(),
        total_records: row.number(3)?,
        started_at: row.optional_number(4)?,
        completed_at: row.optional_number(5)?,
        distributed: row.boolean(6)?,
    })
}

/// As `job_row`, and batches.
pub fn stored_job(row: &impl Row) -> Read<StoredJob> {
    Ok(StoredJob {
        row: job_row(row)?,
        batches: row.json(7)?.into_owned(),
    })
}

/// status, distributed, batches, startedAt, the database's clock
pub fn locked_job(row: &impl Row) -> Read<LockedJob> {
    Ok(LockedJob {
        status: row.text(0)?.to_owned(),
        distributed: row.boolean(1)?,
        batches: row.json(2)?.into_owned(),
        started_at: row.optional_number(3)?,
        now: row.number(4)?,
    })
}

/// totalRecords, startedAt, completedAt, distributed, the database's clock
pub fn job_times(row: &impl Row) -> Read<JobTimes> {
    Ok(JobTimes {
        total_records: row.number(0)?,
        started_at: row.optional_number(1)?,
        completed_at: row.optional_number(2)?,
        distributed: row.boolean(3)?,
        now: row.number(4)?,
    })
}

/// id, batchIndex, status, workerId, claimedAt, processedCount, failedCount
fn batch_row_parts(row: &impl Row) -> Read<BatchRowParts<'_>> {
    Ok(BatchRowParts {
        id: row.text(0)?,
        index: row.number(1)?,
        status: row.text(2)?,
        worker_id: row.optional_text(3)?,
        claimed_at: row.optional_number(4)?,
        processed: row.number(5)?,
        failed: row.number(6)?,
    })
}

/// As `batch_row_parts`.
pub fn batch_row(row: &impl Row) -> Read<BatchRow> {
    batch_row_parts(row).map(BatchRow::from)
}

/// id, batchIndex, status, processedCount, failedCount, recordStartIndex, recordEndIndex, workerId, claimedAt
pub fn batch_summary(row: &impl Row) -> Read<BatchSummary> {
    Ok(BatchSummary {
        id: row.text(0)?.to_owned(),
        index: row.number(1)?,
        status: row.text(2)?.to_owned(),
        processed: row.number(3)?,
        failed: row.number(4)?,
        start: row.number(5)?,
        end: row.number(6)?,
        worker_id: row.optional_text(7)?.map(str::to_owned),
        claimed_at: row.optional_number(8)?,
    })
}

/// For each status of jobs: status, count of the jobs, PENDING, PROCESSING and PAUSED batches, the age of the oldest claim on a PROCESSING one and on a PAUSED one
pub async fn stats<D: Driver>(session: &mut Session<D>, sql: Sql<'_>) -> Result<StoreStats> {
    let statuses = session.all(sql, vec![], |row| {
        Ok(StatsOfStatus {
            status: row.text(0)?.to_owned(),
            jobs: row.number(1)?,
            pending: row.number(2)?,
            processing: row.number(3)?,
            paused: row.number(4)?,
            oldest_claims_ms: [row.optional_number(5)?, row.optional_number(6)?],
        })
    });
    statuses.await.map(StoreStats::of)
}

/// The rows of a statement that gives a job's batches by index, each as `batch_row` reads it.
pub async fn all_batch_rows<D: Driver>(
    session: &mut Session<D>,
    sql: Sql<'_>,
    values: Vec<Value<'_>>,
    earlier: Option<&ReadBatches>,
) -> Result<BatchRows> {
    let mut text = BatchRowsText::default();
    session
        .each(sql, values, |row| {
            text.push(batch_row_parts(row)?);
            Ok(())
        })
        .await?;
    BatchRows::read(&text.into_text(), earlier.map(|earlier| &earlier.batches.rows))
        .ok_or_else(|| Error::internal("the rows of the batches could not be read as they were written"))
}

/// The job with its batches, in a database that can't tell what has changed.
pub fn job_batches(job: StoredJob, rows: BatchRows, earlier: Option<&ReadBatches>) -> Result<(JobRow, ReadBatches)> {
    let earlier = earlier.map(|earlier| &earlier.batches);
    let batches = JobBatches::read(&job.row.id, &job.batches, rows, earlier)?;
    Ok((job.row, ReadBatches { batches, horizon: None }))
}

/// The batch index in the first column, if there is a row.
pub fn batch_index(row: &impl Row) -> Read<BatchIndex> {
    row.number(0).map(BatchIndex)
}

/// A batch index that may be null.
pub fn optional_batch_index(row: &impl Row, column: usize) -> Read<Option<BatchIndex>> {
    match row.optional_number(column)? {
        None => Ok(None),
        Some(_) => row.number(column).map(|index| Some(BatchIndex(index))),
    }
}

/// count, the highest batchIndex
pub fn batch_total(row: &impl Row) -> Read<(i64, Option<BatchIndex>)> {
    Ok((row.number(0)?, optional_batch_index(row, 1)?))
}

/// id, jobId
pub fn batch_owner(row: &impl Row) -> Read<BatchOwner> {
    Ok(BatchOwner {
        batch_id: row.text(0)?.to_owned(),
        job_id: row.text(1)?.to_owned(),
    })
}

/// version
pub fn token(row: &impl Row) -> Read<Token> {
    row.number(0).map(Token)
}

/// id, batchIndex, claimedAt, recordStartIndex, recordEndIndex, version, the job's highest batchIndex
pub fn reservation(row: &impl Row, job_id: &str, worker_id: &WorkerId) -> Read<Reservation> {
    let batch_index = BatchIndex(row.number(1)?);
    Ok(Reservation {
        job_id: job_id.to_owned(),
        batch_id: row.text(0)?.to_owned(),
        batch_index,
        worker_id: worker_id.clone(),
        claimed_at: row.number(2)?,
        record_start_index: row.number(3)?,
        record_end_index: row.number(4)?,
        token: Token(row.number(5)?),
        last_batch_index: optional_batch_index(row, 6)?.unwrap_or(batch_index),
    })
}

/// status, distributed, whether there are batch rows, whether one is PENDING
pub fn claim_snapshot(row: &impl Row) -> Read<ClaimSnapshot> {
    Ok(ClaimSnapshot {
        job_status: row.text(0)?.to_owned(),
        distributed: row.boolean(1)?,
        has_rows: row.boolean(2)?,
        has_pending: row.boolean(3)?,
    })
}

/// distributed, whether there are batch rows, whether the list's text holds the id
pub fn list_snapshot(row: &impl Row) -> Read<ListSnapshot> {
    Ok(ListSnapshot {
        distributed: row.boolean(0)?,
        has_rows: row.boolean(1)?,
        has_id: row.boolean(2)?,
    })
}

/// whether there are batch rows, whether one is stale, whether one is open
pub fn reclaim_snapshot(row: &impl Row) -> Read<ReclaimSnapshot> {
    Ok(ReclaimSnapshot {
        has_rows: row.boolean(0)?,
        has_stale: row.boolean(1)?,
        has_open: row.boolean(2)?,
    })
}

/// id, workerId, whether it is given up. A worker id that is no text doesn't keep its batch from being reclaimed.
pub fn reclaimed(row: &impl Row) -> Read<Reclaimed> {
    Ok(Reclaimed {
        batch_id: row.text(0)?.to_owned(),
        worker_id: row.optional_text(1).ok().flatten().map(str::to_owned),
        given_up: row.boolean(2)?,
    })
}

/// The first column, as the answer to a yes-or-no question.
pub fn answer(row: &impl Row) -> Read<bool> {
    row.boolean(0)
}

/// status, count
pub fn status_count(row: &impl Row) -> Read<(String, i64)> {
    Ok((row.text(0)?.to_owned(), row.number(1)?))
}

pub fn batch_counts(rows: Vec<(String, i64)>) -> BatchCounts {
    let mut counts = BatchCounts::default();
    for (status, count) in rows {
        counts.add(&status, count);
    }
    counts
}

pub fn record_counts(rows: Vec<(String, i64)>) -> RecordCounts {
    let mut counts = RecordCounts::default();
    for (status, count) in rows {
        counts.add(&status, count);
    }
    counts
}

/// recordIndex, raw, parsed, status, errors, processingError. The record is passed to `take`, because its texts may be borrowed from the row.
pub fn record(row: &impl Row, take: impl FnOnce(RecordText<'_>)) -> Read<()> {
    let (raw, parsed, errors) = (row.json(1)?, row.json(2)?, row.json(4)?);
    take(RecordText {
        index: row.number(0)?,
        raw: &raw,
        parsed: &parsed,
        status: row.text(3)?,
        errors: &errors,
        processing_error: row.optional_text(5)?,
    });
    Ok(())
}

/// The records of a statement that gives them in order, each as `record` reads it.
pub async fn ordered_records<D: Driver>(session: &mut Session<D>, sql: Sql<'_>, values: Vec<Value<'_>>) -> Result<RecordSlices> {
    let mut records = RecordSlices::default();
    session.each(sql, values, |row| record(row, |record| records.push(record))).await?;
    Ok(records)
}

/// The number of records, the lowest and the highest recordIndex, which are null if there are none
pub fn record_range(row: &impl Row) -> Read<Option<RecordRange>> {
    let count = row.number(0)?;
    if count == 0 {
        return Ok(None);
    }
    Ok(Some(RecordRange {
        count,
        first: row.number(1)?,
        last: row.number(2)?,
    }))
}

/// id, the end, whether a worker holds a batch
pub fn finished_job(row: &impl Row) -> Read<FinishedJob> {
    Ok(FinishedJob {
        id: row.text(0)?.to_owned(),
        ended_at: row.number(1)?,
        has_live_claim: row.boolean(2)?,
    })
}

/// jobId, whether the job has a row
pub fn named_job(row: &impl Row) -> Read<NamedJob> {
    Ok(NamedJob {
        id: row.text(0)?.to_owned(),
        exists: row.boolean(1)?,
    })
}
