//! The tables as MySQL's and MariaDB's catalogue has them, and numbers of whatever type their columns have.

use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlRow, MySqlTypeInfo, MySqlValueRef};
use sqlx::{Row, TypeInfo, ValueRef};

use super::super::schema::{Catalogue, Column, Holds, Index, IndexColumn};
use super::super::session::run;
use super::{Conn, Text};
use crate::error::Result;

/// A number of any type that a column of numbers may have: to sqlx, an unsigned one or a decimal is no number like the others.
pub struct Number<T>(pub T);

impl<T> sqlx::Type<sqlx::MySql> for Number<T> {
    fn type_info() -> MySqlTypeInfo {
        <i64 as sqlx::Type<sqlx::MySql>>::type_info()
    }

    fn compatible(_: &MySqlTypeInfo) -> bool {
        true
    }
}

impl<'r, T> sqlx::Decode<'r, sqlx::MySql> for Number<T>
where
    T: TryFrom<i64>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    fn decode(value: MySqlValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        let type_info = value.type_info().into_owned();
        let name = type_info.name();
        let number = if name == "DECIMAL" {
            let digits = <&str as sqlx::Decode<sqlx::MySql>>::decode(value)?;
            digits.split('.').next().unwrap_or(digits).parse()?
        } else if name.ends_with("INT UNSIGNED") {
            <u64 as sqlx::Decode<sqlx::MySql>>::decode(value)?.try_into()?
        } else if name.ends_with("INT") || name == "BOOLEAN" {
            <i64 as sqlx::Decode<sqlx::MySql>>::decode(value)?
        } else {
            return Err(format!("{name} is not a type of whole numbers").into());
        };
        Ok(Self(number.try_into()?))
    }
}

pub fn number<T>(row: &MySqlRow, column: usize) -> sqlx::Result<T>
where
    T: TryFrom<i64>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    row.try_get::<Number<T>, _>(column).map(|Number(number)| number)
}

pub fn optional_number(row: &MySqlRow, column: usize) -> sqlx::Result<Option<i64>> {
    Ok(row.try_get::<Option<Number<i64>>, _>(column)?.map(|Number(number)| number))
}

pub async fn catalogue(session: &mut Conn, is_mariadb: bool) -> Result<Catalogue> {
    Ok(Catalogue {
        columns: columns(session).await?,
        indexes: indexes(session, is_mariadb).await?,
        indexes_are_named: true,
        integers_are_booleans: true,
    })
}

async fn columns(session: &mut Conn) -> Result<Vec<Column>> {
    // MySQL 8 gives the catalogue's names as binary text.
    let query = sqlx::query_as::<_, (Text, Text, Text, Text, Option<i64>, Option<i64>, i64, i64)>(
        "
        select cast(table_name as char), cast(column_name as char), cast(column_type as char), cast(data_type as char),
               cast(character_maximum_length as signed), cast(numeric_precision - numeric_scale as signed),
               is_nullable = 'YES', extra like '%auto_increment%'
        from information_schema.columns
        where table_schema = database()
          and table_name in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
        ",
    );
    let rows = run!(session, query, fetch_all)?;
    Ok(rows
        .into_iter()
        .map(
            |(Text(table), Text(name), Text(type_name), Text(kind), characters, digits, nullable, made)| Column {
                table,
                name,
                type_name,
                holds: holds(&kind, characters, digits),
                nullable: nullable != 0,
                made: made != 0,
            },
        )
        .collect())
}

fn holds(kind: &str, characters: Option<i64>, digits: Option<i64>) -> Holds {
    let limit = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    match kind {
        // MariaDB's JSON is a longtext.
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
    let query = sqlx::query_as::<_, (Text, Text, Option<Text>, Option<i64>, i64, Option<Text>)>(text);
    let mut indexes: Vec<Index> = Vec::new();
    for (Text(table), Text(name), column, prefix, unique, flaw) in run!(session, query, fetch_all)? {
        let column = IndexColumn {
            name: column.map(|Text(name)| name),
            prefix: prefix.and_then(|characters| u32::try_from(characters).ok()),
        };
        match indexes.last_mut() {
            Some(index) if index.table == table && index.name == name => index.columns.push(column),
            _ => indexes.push(Index {
                table,
                name,
                columns: vec![column],
                unique: unique != 0,
                flaw: flaw.map(|Text(flaw)| flaw),
            }),
        }
    }
    Ok(indexes)
}
