/** What a database's own catalogue says of the tables, in a shape that two databases of one kind can be compared in. */
import { readFileSync } from 'node:fs';

export const TABLES = ['batchactions_jobs', 'batchactions_records', 'batchactions_batches'];

const STATEMENTS = { postgres: 'postgres.sql', mysql: 'mysql_mariadb.sql', mariadb: 'mysql_mariadb.sql', sqlite: 'sqlite.sql' };

/**
 * Makes the tables by statements written by hand, as captured from Sequelize 6. `change` may make others of their text.
 * @param {(text: string) => string} [change]
 */
export async function createTables(db, change = (text) => text) {
  const text = readFileSync(new URL(`./schema/${STATEMENTS[db.dialect]}`, import.meta.url), 'utf8');
  for (const statement of change(text).split(/;\s*\n/)) {
    if (statement.trim()) await db.query(statement);
  }
}

const READERS = { postgres: readPostgres, mysql: readMysql, mariadb: readMysql, sqlite: readSqlite };

/**
 * Each table with its columns in order and its indexes by name, the primary key among them.
 * `schema` is PostgreSQL's; elsewhere it is not looked at.
 */
export async function readCatalogue(db, { schema = 'public' } = {}) {
  const tables = {};
  for (const table of TABLES) tables[table] = await READERS[db.dialect](db, table, schema);
  return tables;
}

/** The names of all tables in the database (PostgreSQL: with their schema). */
export async function listTables(db) {
  const statement = {
    postgres: `select schemaname || '.' || tablename as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`,
    mysql: 'select table_name as name from information_schema.tables where table_schema = database()',
    mariadb: 'select table_name as name from information_schema.tables where table_schema = database()',
    sqlite: `select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\'`,
  }[db.dialect];
  return (await db.query(statement)).map(({ name }) => name).sort();
}

function groupIndexes(rows) {
  const indexes = {};
  for (const { index, unique, column } of rows) {
    indexes[index] ??= { unique: Boolean(Number(unique)), columns: [] };
    indexes[index].columns.push(column);
  }
  return indexes;
}

async function readPostgres(db, table, schema) {
  const columns = await db.query(
    `select a.attname as name,
            format_type(a.atttypid, a.atttypmod) as type,
            not a.attnotnull as nullable,
            replace(pg_get_expr(d.adbin, d.adrelid), replace(quote_ident(n.nspname), '''', '''''') || '.', '') as "default",
            a.attidentity::text as identity,
            a.attgenerated::text as generated
     from pg_attribute a
     join pg_class c on c.oid = a.attrelid
     join pg_namespace n on n.oid = c.relnamespace
     left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where n.nspname = ? and c.relname = ? and a.attnum > 0 and not a.attisdropped
     order by a.attnum`,
    [schema, table],
  );
  const indexes = await db.query(
    `select i.relname as index,
            x.indisunique::int as unique,
            pg_get_indexdef(x.indexrelid, k.position::int, true) as column
     from pg_index x
     join pg_class i on i.oid = x.indexrelid
     join pg_class c on c.oid = x.indrelid
     join pg_namespace n on n.oid = c.relnamespace
     cross join lateral generate_series(1, x.indnkeyatts) as k (position)
     where n.nspname = ? and c.relname = ?
     order by i.relname, k.position`,
    [schema, table],
  );
  return { columns, indexes: groupIndexes(indexes) };
}

async function readMysql(db, table) {
  const columns = await db.query(
    `select column_name as name,
            column_type as type,
            is_nullable as nullable,
            column_default as \`default\`,
            extra as extra,
            collation_name as collation
     from information_schema.columns
     where table_schema = database() and table_name = ?
     order by ordinal_position`,
    [table],
  );
  const indexes = await db.query(
    `select index_name as \`index\`,
            1 - non_unique as \`unique\`,
            concat(column_name, coalesce(concat('(', sub_part, ')'), '')) as \`column\`
     from information_schema.statistics
     where table_schema = database() and table_name = ?
     order by index_name, seq_in_index`,
    [table],
  );
  const engine = await db.query(
    'select engine as engine from information_schema.tables where table_schema = database() and table_name = ?',
    [table],
  );
  // MariaDB's JSON is a text with a check.
  const checks =
    db.dialect === 'mariadb'
      ? await db.query(
          `select check_clause as clause
           from information_schema.check_constraints
           where constraint_schema = database() and table_name = ?
           order by check_clause`,
          [table],
        )
      : [];
  return { columns, indexes: groupIndexes(indexes), engine: engine[0]?.engine, checks };
}

async function readSqlite(db, table) {
  const columns = await db.query(
    'select name, type, "notnull" as "notNull", dflt_value as "default", pk from pragma_table_info(?) order by cid',
    [table],
  );
  const indexes = await db.query(
    `select l.name as "index", l."unique" as "unique", i.name as "column"
     from pragma_index_list(?) l, pragma_index_info(l.name) i
     order by l.name, i.seqno`,
    [table],
  );
  const statement = await db.query(`select sql from sqlite_master where type = 'table' and name = ?`, [table]);
  return { columns, indexes: groupIndexes(indexes), autoincrement: /autoincrement/i.test(statement[0]?.sql ?? '') };
}
