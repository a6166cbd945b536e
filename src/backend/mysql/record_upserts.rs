//! The upsert of records, without spending an id on a record that exists: their ids are read first, or a single record is updated before it is inserted.

use std::collections::HashMap;

use super::server::Server;
use super::{Conn, errors};
use crate::backend::RecordWrite;
use crate::backend::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks, key_chunks};
use crate::backend::driver::{Read, Row, Value, sql, values};
use crate::error::{Code, Error, Quoted, Result};

// `values()` is deprecated in MySQL, but its successor is unknown to MariaDB.
//
// The nulls, which the columns refuse, keep a record from being overwritten by another: the collation of `jobId` takes ids that differ in case or accents
// for one, and a new record whose id is taken, which is what MySQL gives where none is left, meets the row that has it.
static UPSERT_RECORDS: MultiRow = MultiRow::new(
    "
    insert into batchactions_records (id, jobId, batchId, recordIndex, status, raw, parsed, errors, processingError)
    values ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "
    on duplicate key update
      batchId = if(jobId = values(jobId) and cast(jobId as binary) <> cast(values(jobId) as binary), null, values(batchId)),
      status = if(jobId = values(jobId) and recordIndex = values(recordIndex), values(status), null),
      raw = values(raw),
      parsed = values(parsed),
      errors = values(errors),
      processingError = values(processingError)
    ",
);

/// What goes into one statement each.
fn record_statements<'a, 'r>(server: Server, records: &'a [&'r RecordWrite]) -> impl Iterator<Item = &'a [&'r RecordWrite]> {
    by_bytes(records, STATEMENT_BYTES.min(server.max_packet / 2)).flat_map(chunks)
}

/// The ids of the records that are there, by job and index. An upsert that gives them takes no new ones, and on MySQL it takes half the time.
#[derive(Default)]
struct KnownIds<'r> {
    by_index: HashMap<(&'r str, i64), i64>,
}

impl<'r> KnownIds<'r> {
    async fn read(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        static BY_INDEX: MultiRow = MultiRow::new(
            "
            select cast(id as signed), cast(recordIndex as signed)
            from batchactions_records force index (batchactions_records_job_id_record_index)
            where jobId = ? and recordIndex in (",
            "?",
            ")",
        );
        let mut known = Self::default();
        for of_job in writes.chunk_by(|a, b| a.job_id == b.job_id) {
            let job_id = &*of_job[0].job_id;
            let indexes: Vec<i64> = of_job.iter().map(|write| write.record.index.into()).collect();
            let (Some(first), Some(last)) = (indexes.iter().min(), indexes.iter().max()) else {
                continue;
            };
            // A batch's indexes are next to each other, as a rule.
            if last - first < 2 * indexes.len() as i64 {
                let between = sql(
                    "record_ids_between",
                    "
                    select cast(id as signed), cast(recordIndex as signed)
                    from batchactions_records force index (batchactions_records_job_id_record_index)
                    where jobId = ? and recordIndex between ? and ?
                    ",
                );
                known.add(job_id, session.all(between, values![job_id, *first, *last], id_and_index).await?);
                continue;
            }
            for chunk in key_chunks(&indexes) {
                let mut values = values![job_id];
                values.extend(chunk.iter().map(|index| Value::from(*index)));
                let ids = session.all(sql("record_ids", BY_INDEX.text(chunk.len())), values, id_and_index);
                known.add(job_id, ids.await?);
            }
        }
        Ok(known)
    }

    fn add(&mut self, job_id: &'r str, rows: Vec<(i64, i64)>) {
        self.by_index.extend(rows.into_iter().map(|(id, index)| ((job_id, index), id)));
    }

    fn id(&self, write: &RecordWrite) -> Option<i64> {
        self.by_index.get(&(&*write.job_id, write.record.index.into())).copied()
    }
}

fn id_and_index(row: &impl Row) -> Read<(i64, i64)> {
    Ok((row.number(0)?, row.number(1)?))
}

/// Records of which each part is written in one statement: those that are there, and those that are new. In one statement, the server would take an id for
/// each of both.
pub struct Upserts<'r> {
    ids: KnownIds<'r>,
    there: Vec<&'r RecordWrite>,
    new: Vec<&'r RecordWrite>,
}

impl<'r> Upserts<'r> {
    pub async fn of(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        let ids = KnownIds::read(session, writes).await?;
        let (there, new) = writes.iter().partition(|write| ids.id(write).is_some());
        Ok(Self { ids, there, new })
    }

    pub fn statements(&self, server: Server) -> impl Iterator<Item = &[&'r RecordWrite]> {
        record_statements(server, &self.there).chain(record_statements(server, &self.new))
    }

    pub async fn write(&self, session: &mut Conn, server: Server) -> Result<()> {
        for chunk in self.statements(server) {
            let mut values = Vec::with_capacity(chunk.len() * 9);
            for write in chunk {
                values.push(Value::BigInt(self.ids.id(write)));
                values.extend(record_values(write));
            }
            let upsert = sql("upsert_records", UPSERT_RECORDS.text(chunk.len()));
            session
                .execute(upsert, values)
                .await
                .map_err(|error| explain_upsert(error, chunk))?;
        }
        Ok(())
    }
}

fn record_values(write: &RecordWrite) -> [Value<'_>; 8] {
    let record = &write.record;
    [
        (&*write.job_id).into(),
        (&*write.batch_id).into(),
        record.index.into(),
        record.status.as_str().into(),
        (&*record.raw).into(),
        (&*record.parsed).into(),
        (&*record.errors).into(),
        record.processing_error.as_deref().into(),
    ]
}

/// One statement where the record is there, one more where it is new.
pub async fn upsert_record(session: &mut Conn, write: &RecordWrite) -> Result<()> {
    let record = &write.record;
    let query = sql(
        "upsert_record",
        "
        update batchactions_records
        set batchId = if(cast(convert(jobId using utf8mb4) as binary) = cast(? as binary), ?, null),
            status = ?,
            raw = ?,
            parsed = ?,
            errors = ?,
            processingError = ?
        where jobId = ? and recordIndex = ?
        ",
    );
    let explain = |error| explain_upsert(error, &[write]);
    // The server counts a row that is found, even where nothing in it changes.
    let updated = session.execute(
        query,
        values![
            &*write.job_id,
            &*write.batch_id,
            record.status.as_str(),
            &*record.raw,
            &*record.parsed,
            &*record.errors,
            record.processing_error.as_deref(),
            &*write.job_id,
            record.index
        ],
    );
    if updated.await.map_err(explain)?.rows == 0 {
        let mut values = values![None::<i64>];
        values.extend(record_values(write));
        let insert = sql("upsert_records", UPSERT_RECORDS.text(1));
        session.execute(insert, values).await.map_err(explain)?;
    }
    Ok(())
}

pub async fn upsert_records(session: &mut Conn, server: Server, writes: &[&RecordWrite]) -> Result<()> {
    match writes {
        [write] => upsert_record(session, write).await,
        _ => Upserts::of(session, writes).await?.write(session, server).await,
    }
}

/// The statements refuse one record in another's place with a null.
fn explain_upsert(error: Error, writes: &[&RecordWrite]) -> Error {
    match writes {
        [first, ..] if error.code == Code::Constraint && error.message.contains("'batchId'") => Error {
            message: format!(
                "records of job {} can't be stored beside those of another job, whose id this database takes for the same: it differs only in case, \
                 accents or spaces at the end. Nothing was stored",
                Quoted(&first.job_id)
            ),
            ..error
        },
        _ if error.code == Code::Constraint && error.message.contains("'status'") => Error {
            code: Code::DatabaseError,
            message: errors::NO_IDS_LEFT.to_owned(),
            ..error
        },
        _ => error,
    }
}
