//! Deleting a job's rows slice by slice, each of which begins where the one before it ended.
//!
//! InnoDB only marks a row as deleted, and removes it from its indexes later. A slice that begins at the first row of the job would read and lock
//! all the marked ones again, which took a third of the time of deleting 100,000 records.

use super::connect::Conn;
use crate::backend::Slice;
use crate::backend::driver::{Row, Sql, values};
use crate::error::Result;

/// The statements for one table. All are ordered by both columns of the index: for the second alone, MariaDB would read and lock all rows of the job
/// and sort them.
pub struct SliceStatements {
    /// Deletes up to `?3` rows of job `?1` from index `?2` on.
    pub delete: Sql<'static>,
    /// Deletes up to `?4` rows of job `?1` from index `?2` on, and before `?3`.
    pub delete_before: Sql<'static>,
    /// The index that has `?3` rows of job `?1` from index `?2` on before it.
    pub index_after: Sql<'static>,
}

impl SliceStatements {
    /// Deletes about `most` rows of a job, from this index or from the first one on.
    pub async fn run(&self, session: &mut Conn, job_id: &str, from: Option<i64>, most: i32) -> Result<Slice> {
        let Some(from) = from else {
            return self.run_first(session, job_id, most).await;
        };
        let end = self.index_after(session, job_id, from, most).await?;
        let deleted = match end {
            Some(end) => session.execute(self.delete_before, values![job_id, from, end, most]).await?,
            None => session.execute(self.delete, values![job_id, from, most]).await?,
        };
        Ok(Slice {
            rows: deleted.rows,
            next: end,
        })
    }

    /// Without a look for its end, so that a job of a few rows takes one statement.
    async fn run_first(&self, session: &mut Conn, job_id: &str, most: i32) -> Result<Slice> {
        let rows = session.execute(self.delete, values![job_id, i64::MIN, most]).await?.rows;
        let may_be_all = i64::try_from(rows).is_ok_and(|rows| rows < i64::from(most));
        let next = match may_be_all {
            true => None,
            // The rows are deleted, and have to be counted. Where this fails, the next slice begins at the first row, and meets the same trouble.
            false => self.index_after(session, job_id, i64::MIN, 0).await.unwrap_or_default(),
        };
        Ok(Slice { rows, next })
    }

    async fn index_after(&self, session: &mut Conn, job_id: &str, from: i64, rows: i32) -> Result<Option<i64>> {
        session
            .optional(self.index_after, values![job_id, from, rows], |row| row.number(0))
            .await
    }
}
