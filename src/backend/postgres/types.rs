//! Adapts the statements to tables with other column types than those that `initialize()` creates: `uuid`, an enum, `jsonb`.
//!
//! In a statement, a cast names the column that a value is for: `$1::"batches.id"`. On the usual types that cast is left out, and the server gets
//! text and numbers as they are; on others it becomes a cast to the column's type (`$1::text::uuid`). The value is cast and never the column, so that
//! the column's index can be used. Columns are cast where they are read (`"id"::text`), which costs nothing if they have that type already.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, Mutex, RwLock};

use super::connect::PostgresDriver;
use crate::backend::driver::{Read, Row, Sql, sql};
use crate::backend::schema::{Catalogue, Column, Holds, read_indexes};
use crate::backend::session::Session;
use crate::error::{Error, Repeatable, Result, lock};
use crate::fields::replace_surrogates_and_nul;

/// The casts for our columns. There are few kinds of tables, so each is built once and kept, with its statements.
pub struct ColumnTypes {
    /// By column (`batches.id`), for columns whose type needs a cast from text or a number.
    casts: BTreeMap<String, Cast>,
    /// By the address of the statement's text in the program.
    texts: RwLock<HashMap<usize, &'static str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cast {
    type_name: String,
    is_jsonb: bool,
}

/// Every kind of tables seen so far.
static MET: LazyLock<Mutex<BTreeMap<BTreeMap<String, Cast>, &'static ColumnTypes>>> = LazyLock::new(Mutex::default);

const PREFIX: &str = "batchactions_";

impl ColumnTypes {
    fn of(columns: &[PgColumn]) -> &'static Self {
        let mut casts = json_casts();
        for PgColumn { column, cast } in columns {
            let table = column.table.strip_prefix(PREFIX).unwrap_or(&column.table);
            let name = format!("{table}.{}", column.name);
            match cast {
                Some(cast) => casts.insert(name, cast.clone()),
                None => casts.remove(&name),
            };
        }
        Self::interned(casts)
    }

    fn interned(casts: BTreeMap<String, Cast>) -> &'static Self {
        lock(&MET).entry(casts.clone()).or_insert_with(|| {
            Box::leak(Box::new(Self {
                casts,
                texts: RwLock::default(),
            }))
        })
    }

    /// The statement for these tables.
    pub fn sql(&self, text: &'static str) -> &'static str {
        let address = text.as_ptr() as usize;
        let known = self.texts.read().ok().and_then(|texts| texts.get(&address).copied());
        known.unwrap_or_else(|| {
            let made: &'static str = Box::leak(self.cast(text).into_boxed_str());
            if let Ok(mut texts) = self.texts.write() {
                return texts.entry(address).or_insert(made);
            }
            made
        })
    }

    /// Replaces each `::"table.column"` by the cast that the column's type needs, and each `::"table.column"[]` by the cast of an array.
    fn cast(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("::\"") {
            out.push_str(before);
            let Some((column, after)) = after.split_once('"') else {
                out.push_str("::\"");
                rest = after;
                continue;
            };
            let (array, after) = match after.strip_prefix("[]") {
                Some(after) => ("[]", after),
                None => ("", after),
            };
            if let Some(type_name) = self.cast_of(column) {
                out.push_str(&format!("::text{array}::{type_name}{array}"));
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn cast_of(&self, column: &str) -> Option<&str> {
        self.casts.get(column).map(|cast| &*cast.type_name)
    }

    /// JSON that the column accepts: `jsonb` refuses U+0000 and lone surrogates.
    pub fn json<'a>(&self, column: &str, json: &'a str) -> Cow<'a, str> {
        // Checked first, because every table that `initialize()` creates has this type.
        if self.casts.get(column).is_none_or(|cast| !cast.is_jsonb) || !(json.contains("\\u0000") || json.contains("\\ud")) {
            return Cow::Borrowed(json);
        }
        Cow::Owned(replace_surrogates_and_nul(json))
    }
}

fn json_casts() -> BTreeMap<String, Cast> {
    ["jobs.config", "jobs.batches", "records.raw", "records.parsed", "records.errors"]
        .map(|column| {
            let json = Cast {
                type_name: "json".to_owned(),
                is_jsonb: false,
            };
            (column.to_owned(), json)
        })
        .into()
}

/// What a store knows of its tables' types.
#[derive(Default)]
pub struct KnownTypes(Mutex<Option<&'static ColumnTypes>>);

impl KnownTypes {
    fn get(&self) -> Option<&'static ColumnTypes> {
        *lock(&self.0)
    }

    fn forget(&self) {
        *lock(&self.0) = None;
    }

    /// Nothing is remembered while a table is missing.
    fn learn(&self, columns: &[PgColumn]) -> &'static ColumnTypes {
        let types = ColumnTypes::of(columns);
        let has = |table: &str| columns.iter().any(|column| column.column.table == table);
        if ["batchactions_jobs", "batchactions_records", "batchactions_batches"]
            .into_iter()
            .all(has)
        {
            *lock(&self.0) = Some(types);
        }
        types
    }
}

/// A session that knows the column types.
pub struct Conn {
    session: Session<PostgresDriver>,
    types: &'static ColumnTypes,
    known: Arc<KnownTypes>,
}

impl Deref for Conn {
    type Target = Session<PostgresDriver>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

impl Conn {
    pub async fn new(mut session: Session<PostgresDriver>, known: &Arc<KnownTypes>) -> Result<Self> {
        let types = match known.get() {
            Some(types) => {
                // The column types may have changed. A statement whose error suggests that looks them up again in its next attempt.
                let remembered = known.clone();
                session.set_on_failure(move |error| {
                    if !is_of_types(&error) {
                        return error;
                    }
                    remembered.forget();
                    error.repeatable(Repeatable::RolledBack)
                });
                types
            }
            None => known.learn(&columns(&mut session).await?),
        };
        Ok(Self {
            session,
            types,
            known: known.clone(),
        })
    }

    pub fn types(&self) -> &'static ColumnTypes {
        self.types
    }

    /// The statement for these tables.
    pub fn sql(&self, name: &'static str, text: &'static str) -> Sql<'static> {
        sql(name, self.types.sql(text))
    }
}

/// Whether an error may come from outdated column types.
fn is_of_types(error: &Error) -> bool {
    let code = error.cause.as_ref().and_then(|cause| cause.code.as_deref());
    // A missing operator, conversion or type; a value that the type does not accept; a plan whose result has changed.
    matches!(code, Some("42883" | "42804" | "42846" | "42704" | "22P02" | "22P05" | "0A000"))
}

struct PgColumn {
    column: Column,
    /// The type that a value must be cast to, if it is not converted by itself.
    cast: Option<Cast>,
}

async fn columns(session: &mut Session<PostgresDriver>) -> Result<Vec<PgColumn>> {
    // For a domain, the base type says what it holds.
    let columns = sql(
        "catalogue_columns",
        r#"
        select c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
               pg_catalog.format_type(a.atttypid, null), t.typtype = 'd',
               b.typname::text, b.typcategory::text, b.typtype::text,
               case when t.typtype = 'd' then t.typtypmod else a.atttypmod end,
               a.attnotnull or t.typnotnull, a.atthasdef or a.attidentity <> '' or t.typdefault is not null
        from pg_catalog.pg_class c
        join pg_catalog.pg_attribute a on a.attrelid = c.oid
        join pg_catalog.pg_type t on t.oid = a.atttypid
        join pg_catalog.pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
        where c.relname in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
          and c.relkind in ('r', 'p')
          and pg_catalog.pg_table_is_visible(c.oid)
          and a.attnum > 0
          and not a.attisdropped
        "#,
    );
    session.all(columns, vec![], column).await
}

/// A row of `catalogue_columns`.
fn column(row: &impl Row) -> Read<PgColumn> {
    let text = |column| row.text(column).map(str::to_owned);
    let (base, category, kind) = (row.text(5)?, row.text(6)?, row.text(7)?);
    Ok(PgColumn {
        column: Column {
            table: text(0)?,
            name: text(1)?,
            type_name: text(2)?,
            holds: holds(base, category, kind, row.number(8)?),
            nullable: !row.boolean(9)?,
            made: row.boolean(10)?,
        },
        cast: cast(base, category, kind, row.boolean(4)?, text(3)?),
    })
}

/// What a type holds, by the name, the category and the kind that the catalogue has for it.
fn holds(name: &str, category: &str, kind: &str, modifier: i32) -> Holds {
    // A length, or a precision and a scale, follows a header of four bytes.
    let size = u32::try_from(modifier - 4).ok();
    match (name, category) {
        _ if kind == "e" => Holds::Enum,
        ("uuid", _) => Holds::Uuid,
        ("json" | "jsonb", _) => Holds::Json,
        ("bool", _) => Holds::Boolean,
        ("int2", _) => Holds::Integer(2),
        ("int4", _) => Holds::Integer(4),
        ("int8", _) => Holds::Integer(8),
        ("numeric", _) => Holds::Decimal(size.map(|size| (size >> 16).saturating_sub(size & 0x7ff))),
        ("name", _) => Holds::Text(Some(63)),
        ("char", _) => Holds::Text(Some(1)),
        (_, "S") => Holds::Text(size),
        _ => Holds::Other,
    }
}

fn cast(name: &str, category: &str, kind: &str, is_domain: bool, cast_name: String) -> Option<Cast> {
    let becomes_it = matches!(name, "varchar" | "text") && !is_domain;
    let is_cast = kind == "e" || category == "S" || matches!(name, "uuid" | "json" | "jsonb");
    (is_cast && !becomes_it).then(|| Cast {
        // Its SQL name, `character`, means a single character.
        type_name: if name == "bpchar" && !is_domain {
            "bpchar".to_owned()
        } else {
            cast_name
        },
        is_jsonb: name == "jsonb",
    })
}

pub async fn catalogue(session: &mut Conn) -> Result<Catalogue> {
    let columns = columns(session).await?;
    // Includes indexes of other tables with our names: `create index if not exists` would then silently create nothing.
    let indexes = sql(
        "catalogue_indexes",
        r#"
        select c.relname::text, i.relname::text, a.attname::text, null::int4,
               x.indisunique,
               case
                 when not x.indisvalid then 'invalid, for its making failed'
                 when x.indpred is not null then 'leaves out rows'
                 when not x.indimmediate then 'deferrable'
                 when m.amname <> 'btree' then 'of the method ' || m.amname
               end
        from pg_catalog.pg_index x
        join pg_catalog.pg_class i on i.oid = x.indexrelid
        join pg_catalog.pg_am m on m.oid = i.relam
        join pg_catalog.pg_class c on c.oid = x.indrelid
        cross join lateral pg_catalog.generate_series(0, x.indnkeyatts - 1) k (place)
        -- A part of an index that is an expression has no column's name.
        left join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[k.place] and a.attnum <> 0
        where (
            c.relname in ('batchactions_jobs', 'batchactions_records', 'batchactions_batches')
            and pg_catalog.pg_table_is_visible(c.oid)
          )
          or (
            i.relname in (
              'batchactions_records_job_id_status', 'batchactions_records_job_id_batch_id', 'batchactions_records_job_id_record_index',
              'batchactions_batches_job_id_status', 'batchactions_batches_job_id_batch_index'
            )
            and i.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(pg_catalog.current_schema()))
          )
        order by i.oid, k.place
        "#,
    );
    let indexes = read_indexes(session, indexes).await?;
    session.known.learn(&columns);
    Ok(Catalogue {
        columns: columns.into_iter().map(|column| column.column).collect(),
        indexes,
        indexes_are_named: false,
        integers_are_booleans: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(casts: &[(&str, &str)]) -> &'static ColumnTypes {
        let cast = |type_name: &str| Cast {
            type_name: type_name.to_owned(),
            is_jsonb: type_name == "jsonb",
        };
        ColumnTypes::interned(casts.iter().map(|(column, name)| (column.to_string(), cast(name))).collect())
    }

    #[test]
    fn a_cast_is_the_columns_type_or_none() {
        const SQL: &str =
            r#"select "id"::text from jobs where "id" = $1::"jobs.id" or x = any($2::"batches.id"[]) or j = $3::"jobs.config""#;
        assert_eq!(
            types(&[("jobs.config", "json")]).cast(SQL),
            r#"select "id"::text from jobs where "id" = $1 or x = any($2) or j = $3::text::json"#
        );
        assert_eq!(
            types(&[("jobs.id", "uuid"), ("batches.id", "app.\"Id\"")]).cast(SQL),
            r#"select "id"::text from jobs where "id" = $1::text::uuid or x = any($2::text[]::app."Id"[]) or j = $3"#
        );
    }

    #[test]
    fn tables_of_one_kind_share_their_statements() {
        const SQL: &str = r#"$1::"jobs.id""#;
        let (one, other) = (types(&[("jobs.id", "uuid")]), types(&[("jobs.id", "uuid")]));
        assert!(std::ptr::eq(one, other));
        assert!(std::ptr::eq(one.sql(SQL), other.sql(SQL)));
        assert_eq!(one.sql(SQL), "$1::text::uuid");
    }

    #[test]
    fn jsonb_gets_no_character_that_it_refuses() {
        let jsonb = types(&[("records.raw", "jsonb"), ("records.parsed", "json")]);
        let difficult = r#"["\u0000","\\u0000","\ud800","é"]"#;
        assert_eq!(
            jsonb.json("records.raw", difficult),
            "[\"\u{fffd}\",\"\\\\u0000\",\"\u{fffd}\",\"é\"]"
        );
        assert_eq!(jsonb.json("records.parsed", difficult), difficult);
        assert_eq!(jsonb.json("records.raw", r#""plain""#), r#""plain""#);
    }
}
