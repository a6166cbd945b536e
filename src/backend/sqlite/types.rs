//! Reads the tables from SQLite's catalogue.

use super::connect::Conn;
use crate::backend::driver::{Read, Row, sql};
use crate::backend::schema::{Catalogue, Column, Holds, Index, read_indexes};
use crate::error::Result;

pub async fn catalogue(session: &mut Conn) -> Result<Catalogue> {
    Ok(Catalogue {
        columns: columns(session).await?,
        indexes: indexes(session).await?,
        indexes_are_named: false,
        integers_are_booleans: true,
    })
}

async fn columns(session: &mut Conn) -> Result<Vec<Column>> {
    // An `integer primary key` is numbered by SQLite.
    let columns = sql(
        "catalogue_columns",
        "
        select m.name, p.name, p.type, not p.\"notnull\",
               p.dflt_value is not null
                 or (
                   upper(p.type) = 'INTEGER' and p.pk = 1
                   and (select count(*) from pragma_table_info(m.name) k where k.pk > 0) = 1
                 )
        from sqlite_master m
        join pragma_table_info(m.name) p
        where m.type = 'table'
          and m.name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
        ",
    );
    session.all(columns, vec![], column).await
}

/// A row of `catalogue_columns`.
fn column(row: &impl Row) -> Read<Column> {
    let type_name = row.text(2)?;
    Ok(Column {
        table: row.text(0)?.to_owned(),
        name: row.text(1)?.to_owned(),
        type_name: type_name.to_owned(),
        holds: holds(type_name),
        nullable: row.boolean(3)?,
        made: row.boolean(4)?,
    })
}

/// How a column converts values, by SQLite's rules for the name of its type (sqlite.org/datatype3.html, "Determination Of Column Affinity").
fn holds(type_name: &str) -> Holds {
    let name = type_name.to_ascii_uppercase();
    let has = |part: &str| name.contains(part);
    if has("INT") {
        Holds::Integer(8)
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Holds::Text(None)
    } else if !has("BLOB") && (has("REAL") || has("FLOA") || has("DOUB")) {
        Holds::Other
    } else {
        // Stores values as they are, except that text that looks like a number becomes one.
        Holds::Any
    }
}

async fn indexes(session: &mut Conn) -> Result<Vec<Index>> {
    // Includes indexes of other tables with our names: `create index if not exists` would then silently create nothing.
    let indexes = sql(
        "catalogue_indexes",
        "
        select m.name, l.name, i.name, null, l.\"unique\", case when l.partial then 'leaves out rows' end
        from sqlite_master m
        join pragma_index_list(m.name) l
        join pragma_index_info(l.name) i
        where m.type = 'table'
          and (
            m.name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
            or l.name in (
              'batchactions_records_job_id_status', 'batchactions_records_job_id_batch_id', 'batchactions_records_job_id_record_index',
              'batchactions_batches_job_id_status', 'batchactions_batches_job_id_batch_index'
            )
          )
        order by m.name, l.name, i.seqno
        ",
    );
    read_indexes(session, indexes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_its_affinity() {
        for (name, expected) in [
            ("VARCHAR(36)", Holds::Text(None)),
            ("text", Holds::Text(None)),
            ("BIGINT", Holds::Integer(8)),
            ("TINYINT(1)", Holds::Integer(8)),
            ("UUID", Holds::Any),
            ("JSON", Holds::Any),
            ("NUMERIC", Holds::Any),
            ("", Holds::Any),
            ("BLOB", Holds::Any),
            ("DOUBLE PRECISION", Holds::Other),
        ] {
            assert_eq!(holds(name), expected, "{name}");
        }
    }
}
