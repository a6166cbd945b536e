//! The tables as SQLite's catalogue has them.

use super::super::schema::{Catalogue, Column, Holds, Index, IndexColumn};
use super::super::session::run;
use super::Conn;
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
    // An `integer primary key` takes the row's number.
    let query = sqlx::query_as::<_, (String, String, String, bool, bool)>(
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
    let rows = run!(session, query, fetch_all)?;
    Ok(rows
        .into_iter()
        .map(|(table, name, type_name, nullable, made)| Column {
            table,
            name,
            holds: holds(&type_name),
            type_name,
            nullable,
            made,
        })
        .collect())
}

/// What a column does to a value, by the rules that SQLite has for the name of its type (sqlite.org/datatype3.html, "Determination Of Column Affinity").
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
        // As it is, or a text that looks like a number as one.
        Holds::Any
    }
}

async fn indexes(session: &mut Conn) -> Result<Vec<Index>> {
    // Also indexes of other tables that have our names: `create index if not exists` would make nothing, and say nothing.
    let query = sqlx::query_as::<_, (String, String, Option<String>, bool, Option<String>)>(
        "
        select m.name, l.name, i.name, l.\"unique\", case when l.partial then 'leaves out rows' end
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
    let mut indexes: Vec<Index> = Vec::new();
    for (table, name, column, unique, flaw) in run!(session, query, fetch_all)? {
        let column = IndexColumn {
            name: column,
            prefix: None,
        };
        match indexes.last_mut() {
            Some(index) if index.table == table && index.name == name => index.columns.push(column),
            _ => indexes.push(Index {
                table,
                name,
                columns: vec![column],
                unique,
                flaw,
            }),
        }
    }
    Ok(indexes)
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
