//! What `batchactions-sqlx doctor` asks of PostgreSQL.

use super::types::{Conn, catalogue};
use super::{MIGRATION, Postgres};
use crate::backend::driver::{Row, sql, values};
use crate::backend::examination::{Behind, Denied, Examination, Ids, SessionFacts, denied};
use crate::backend::schema::Catalogue;
use crate::error::Result;

impl Postgres {
    pub(super) async fn examination(&self) -> Result<Examination> {
        let mut session = self.session().await?;
        let found = catalogue(&mut session).await?;
        let mut examination = Examination::of(&found, MIGRATION);
        examination.session = session_facts(&mut session, self.port, self.expects_pooler).await?;
        // Without `id`, which may be an identity that takes no value.
        examination.denied = denied(&mut session, &found, |table| {
            format!("insert into {table} (status) select status from {table} where 1 = 0")
        })
        .await?;
        // The server may have ended the other one.
        drop(session);
        if examination.reads_records(&found) {
            let mut session = self.session().await?;
            examination.denied.extend(denied_sequence(&mut session).await?);
            examination.ids = ids(&mut session, &found).await?;
        }
        Ok(examination)
    }
}

async fn session_facts(session: &mut Conn, port: Option<u16>, expects_pooler: bool) -> Result<SessionFacts> {
    let facts = sql(
        "examine_session",
        "
        select pg_catalog.inet_server_port(), (extract(epoch from clock_timestamp() - backend_start) * 1000)::int8
        from pg_catalog.pg_stat_activity
        where pid = pg_catalog.pg_backend_pid()
        ",
    );
    let known = session
        .optional(facts, values![], |row| Ok((row.optional_number(0)?, row.optional_number(1)?)))
        .await?;
    let (server_port, age_ms) = known.unwrap_or((None, None));
    Ok(SessionFacts {
        port,
        server_port: server_port.and_then(|port| u16::try_from(port).ok()),
        age_ms,
        expects_pooler,
    })
}

/// A serial column takes its numbers from a sequence, which has rights of its own. An identity's is the table's.
async fn denied_sequence(session: &mut Conn) -> Result<Option<Denied>> {
    let sequence = sql(
        "examine_sequence",
        "
        select s.name, a.attidentity <> '' or pg_catalog.has_sequence_privilege(s.name, 'usage, update')
        from pg_catalog.pg_attribute a
        cross join (select pg_catalog.pg_get_serial_sequence('batchactions_records', 'id') as name) s
        where a.attrelid = 'batchactions_records'::pg_catalog.regclass
          and a.attname = 'id'
          and s.name is not null
        ",
    );
    let found = session
        .optional(sequence, values![], |row| Ok((row.text(0)?.to_owned(), row.boolean(1)?)))
        .await?;
    Ok(match found {
        Some((name, false)) => Some(Denied {
            right: "usage",
            message: format!("permission denied for sequence {name}"),
            on: name,
        }),
        _ => None,
    })
}

async fn ids(session: &mut Conn, found: &Catalogue) -> Result<Option<Ids>> {
    let ids = sql(
        "examine_ids",
        r#"
        select (select max("id")::int8 from batchactions_records),
               case when pg_catalog.has_sequence_privilege(s.name, 'select, usage') then pg_catalog.pg_sequence_last_value(s.name::pg_catalog.regclass) end,
               (select seqmax from pg_catalog.pg_sequence where seqrelid = s.name::pg_catalog.regclass)
        from (select pg_catalog.pg_get_serial_sequence('batchactions_records', 'id') as name) s
        "#,
    );
    let (highest, given, limit) = session
        .one(ids, values![], |row| {
            Ok((row.optional_number(0)?, row.optional_number(1)?, row.optional_number(2)?))
        })
        .await?;
    let mut ids = Ids::of(found, &[highest, given], limit);
    if let (Some(ids), Some(highest)) = (&mut ids, highest) {
        ids.behind = behind(session, highest, given).await?;
    }
    Ok(ids)
}

/// Whether the sequence would give ids that records have. It is read after the records: numbers that are given out meanwhile don't look like it.
async fn behind(session: &mut Conn, highest: i64, given: Option<i64>) -> Result<Option<Behind>> {
    if given.is_some_and(|given| given >= highest) {
        return Ok(None);
    }
    let names = sql(
        "examine_sequence_name",
        "
        select s.name, pg_catalog.has_sequence_privilege(s.name, 'select'),
               pg_catalog.format('select setval(%L, (select max(id) from %I.batchactions_records))', s.name, n.nspname)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        cross join (select pg_catalog.pg_get_serial_sequence('batchactions_records', 'id') as name) s
        where c.oid = 'batchactions_records'::pg_catalog.regclass
          and s.name is not null
        ",
    );
    let found = session
        .optional(names, values![], |row| {
            Ok((row.text(0)?.to_owned(), row.boolean(1)?, row.text(2)?.to_owned()))
        })
        .await?;
    let Some((name, is_readable, statement)) = found else {
        return Ok(None);
    };
    let given = match given {
        Some(given) => given,
        // It has given none, or was set to the number that it gives next: only the sequence itself tells which. The name comes quoted.
        None if is_readable => {
            let text = format!("select last_value, is_called from {name}");
            session
                .one(sql("examine_sequence_value", &text), values![], |row| {
                    let next: i64 = row.number(0)?;
                    Ok(if row.boolean(1)? { next } else { next.saturating_sub(1) })
                })
                .await?
        }
        None => return Ok(None),
    };
    Ok((given < highest).then_some(Behind { given, highest, statement }))
}
