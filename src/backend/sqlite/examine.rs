//! What `batchactions-sqlx doctor` asks of SQLite.

use super::types::catalogue;
use super::{MIGRATION, Sqlite};
use crate::backend::driver::{Row, sql, values};
use crate::backend::examination::{Examination, Ids, denied};
use crate::error::Result;

impl Sqlite {
    pub(super) async fn examination(&self) -> Result<Examination> {
        let found = catalogue(&mut self.read().await?).await?;
        let mut examination = Examination::of(&found, MIGRATION);
        examination.denied = denied(&mut self.write().await?, &found, |table| {
            format!("insert into {table} (status) select status from {table} where 1 = 0")
        })
        .await?;
        if examination.reads_records(&found) {
            let highest = sql("examine_ids", "select max(id) from batchactions_records");
            let highest = self.read().await?.one(highest, values![], |row| row.optional_number(0)).await?;
            examination.ids = Ids::of(&found, &[highest], None);
        }
        Ok(examination)
    }
}
