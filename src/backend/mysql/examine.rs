//! What `batchactions-sqlx doctor` asks of MySQL and MariaDB.

use super::connect::Conn;
use super::types::catalogue;
use super::{MIGRATION, MySql};
use crate::backend::driver::{Row, sql, values};
use crate::backend::examination::{Examination, Ids, SessionFacts, denied};
use crate::backend::schema::Catalogue;
use crate::error::Result;

impl MySql {
    pub(super) async fn examination(&self) -> Result<Examination> {
        let server = self.server().await?;
        let mut session = self.session().await?;
        let found = catalogue(&mut session, server.is_mariadb).await?;
        let mut examination = Examination::of(&found, MIGRATION);
        examination.max_packet = u64::try_from(server.max_packet).ok();
        examination.session = session_facts(&mut session, self.port).await?;
        // All columns: a strict server misses a value for one without a default, also where there is no row.
        examination.denied = denied(&mut session, &found, |table| {
            format!("insert into {table} select * from {table} where 1 = 0")
        })
        .await?;
        // The server may have ended the other one.
        drop(session);
        if examination.reads_records(&found) {
            examination.ids = ids(&mut self.session().await?, &found).await?;
        }
        Ok(examination)
    }
}

async fn session_facts(session: &mut Conn, port: Option<u16>) -> Result<SessionFacts> {
    let server_port = session
        .one(sql("examine_session", "select cast(@@port as signed)"), values![], |row| {
            row.optional_number(0)
        })
        .await?;
    Ok(SessionFacts {
        port,
        server_port: server_port.and_then(|port| u16::try_from(port).ok()),
        ..SessionFacts::default()
    })
}

async fn ids(session: &mut Conn, found: &Catalogue) -> Result<Option<Ids>> {
    // MySQL keeps the second for a day, so both count.
    let ids = sql(
        "examine_ids",
        "
        select (select cast(max(id) as signed) from batchactions_records),
               (
                 select cast(auto_increment as signed) - 1
                 from information_schema.tables
                 where table_schema = database() and table_name = 'batchactions_records'
               )
        ",
    );
    session
        .one(ids, values![], |row| {
            let highest = [row.optional_number(0)?, row.optional_number(1)?];
            Ok(Ids::of(found, &highest, None))
        })
        .await
}
