//! Reads the tables from the catalogue of MySQL and MariaDB.

use super::connect::Conn;
use crate::backend::driver::{Row, sql, values};
use crate::backend::schema::{Catalogue, Column, Holds, Index, read_indexes};
use crate::error::Result;

pub async fn catalogue(session: &mut Conn, is_mariadb: bool) -> Result<Catalogue> {
    Ok(Catalogue {
        columns: columns(session).await?,
        indexes: indexes(session, is_mariadb).await?,
        indexes_are_named: true,
        integers_are_booleans: true,
    })
}

async fn columns(session: &mut Conn) -> Result<Vec<Column>> {
    // MySQL 8 returns the catalogue's names as binary text.
    let columns = sql(
        "catalogue_columns",
        "
        select cast(table_name as char), cast(column_name as char), cast(column_type as char), cast(data_type as char),
               cast(character_maximum_length as signed), cast(numeric_precision - numeric_scale as signed),
               is_nullable = 'YES', extra like '%auto_increment%'
        from information_schema.columns
        where table_schema = database()
          and table_name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
        ",
    );
    session
        .all(columns, values![], |row| {
            Ok(Column {
                table: row.text(0)?.to_owned(),
                name: row.text(1)?.to_owned(),
                type_name: row.text(2)?.to_owned(),
                holds: holds(row.text(3)?, row.optional_number(4)?, row.optional_number(5)?),
                nullable: row.boolean(6)?,
                made: row.boolean(7)?,
            })
        })
        .await
}

fn holds(kind: &str, characters: Option<i64>, digits: Option<i64>) -> Holds {
    let limit = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    match kind {
        // In MariaDB, JSON is a longtext.
        "mediumtext" | "longtext" => Holds::Text(None),
        "char" | "varchar" | "tinytext" | "text" => Holds::Text(limit(characters)),
        "uuid" => Holds::Uuid,
        "enum" => Holds::Enum,
        "json" => Holds::Json,
        "tinyint" => Holds::Integer(1),
        "smallint" => Holds::Integer(2),
        "mediumint" => Holds::Integer(3),
        "int" => Holds::Integer(4),
        "bigint" => Holds::Integer(8),
        "decimal" => Holds::Decimal(limit(digits)),
        "bit" => Holds::Boolean,
        _ => Holds::Other,
    }
}

async fn indexes(session: &mut Conn, is_mariadb: bool) -> Result<Vec<Index>> {
    let text = if is_mariadb {
        "
        select cast(table_name as char), cast(index_name as char), cast(column_name as char), cast(sub_part as signed),
               non_unique = 0, case when ignored = 'YES' then 'ignored' when index_type <> 'BTREE' then cast(index_type as char) end
        from information_schema.statistics
        where table_schema = database()
          and table_name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
        order by table_name, index_name, seq_in_index
        "
    } else {
        "
        select cast(table_name as char), cast(index_name as char), cast(column_name as char), cast(sub_part as signed),
               non_unique = 0, case when is_visible = 'NO' then 'invisible' when index_type <> 'BTREE' then cast(index_type as char) end
        from information_schema.statistics
        where table_schema = database()
          and table_name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
        order by table_name, index_name, seq_in_index
        "
    };
    read_indexes(session, sql("catalogue_indexes", text)).await
}
