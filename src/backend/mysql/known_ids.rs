//! Reads the ids of existing records before an upsert, so that the upsert uses up no ids for them.

use std::collections::HashMap;

use super::connect::Conn;
use super::server::Server;
use crate::backend::RecordWrite;
use crate::backend::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks, key_chunks};
use crate::backend::driver::{Read, Row, Value, sql, values};
use crate::error::Result;

/// The ids of existing records, by job and index. An upsert that names them takes no new ids, and on MySQL it takes half the time.
#[derive(Default)]
struct KnownIds<'r> {
    by_index: HashMap<(&'r str, i64), i64>,
}

impl<'r> KnownIds<'r> {
    async fn read(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        // Cast, because the column may have any numeric type.
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
            // The indexes of a batch are usually consecutive.
            if last - first < 2 * indexes.len() as i64 {
                let between = sql(
                    "known_ids_between",
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
                let by_index = sql("known_ids", BY_INDEX.text(chunk.len()));
                let mut values = values![job_id];
                values.extend(chunk.iter().copied().map(Value::from));
                known.add(job_id, session.all(by_index, values, id_and_index).await?);
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

/// Records split into existing and new ones, each part for a statement of its own. In one statement, the server would reserve an id for every record.
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

    /// The parts, split into statements.
    pub fn parts(&self, server: Server) -> impl Iterator<Item = &[&'r RecordWrite]> {
        let most = STATEMENT_BYTES.min(server.max_packet / 2);
        let parts = move |writes| by_bytes(writes, most).flat_map(chunks);
        parts(&self.there).chain(parts(&self.new))
    }

    pub fn id(&self, write: &RecordWrite) -> Option<i64> {
        self.ids.id(write)
    }
}
