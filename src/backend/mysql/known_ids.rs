//! The ids of records that exist, read before an upsert so that it spends none on them.

use std::collections::HashMap;

use super::connect::Conn;
use super::server::Server;
use crate::backend::RecordWrite;
use crate::backend::bulk::{MultiRow, STATEMENT_BYTES, by_bytes, chunks, key_chunks};
use crate::backend::driver::{Read, Row, Value, sql, values};
use crate::error::Result;

/// The ids of the records that are there, by job and index. An upsert that gives them takes no new ones, and on MySQL it takes half the time.
#[derive(Default)]
struct KnownIds<'r> {
    by_index: HashMap<(&'r str, i64), i64>,
}

impl<'r> KnownIds<'r> {
    async fn read(session: &mut Conn, writes: &[&'r RecordWrite]) -> Result<Self> {
        // The ids are cast because the column may have any type of numbers.
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

    /// What goes into one statement each.
    pub fn parts(&self, server: Server) -> impl Iterator<Item = &[&'r RecordWrite]> {
        let most = STATEMENT_BYTES.min(server.max_packet / 2);
        let parts = move |writes| by_bytes(writes, most).flat_map(chunks);
        parts(&self.there).chain(parts(&self.new))
    }

    pub fn id(&self, write: &RecordWrite) -> Option<i64> {
        self.ids.id(write)
    }
}
