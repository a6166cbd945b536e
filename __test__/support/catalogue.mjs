/** The tables, as statements written by hand make them, and as a database's own catalogue describes them. */

export const TABLES = ['batchactions_jobs', 'batchactions_records', 'batchactions_batches'];

/**
 * Makes the tables by statements written by hand, as captured from Sequelize 6. `change` may make others of their text.
 * @param {(text: string) => string} [change]
 */
export async function createTables(db, change = (text) => text) {
  for (const statement of change(db.dialect.tables).split(/;\s*\n/)) {
    if (statement.trim()) await db.query(statement);
  }
}

/** The indexes that initialize() makes where it may, on MySQL and on SQLite. No statement needs one. */
export const OPTIONAL_INDEX = 'batchactions_batches_job_id_state';
export const SUMMARY_INDEX = 'batchactions_jobs_id_summary';

/**
 * Each table with its columns in order and its indexes by name, the primary key among them, and not those that are optional. `schema`: for a dialect that
 * has them.
 */
export async function readCatalogue(db, { schema } = {}) {
  const tables = {};
  for (const table of TABLES) tables[table] = await db.dialect.readTable(db, table, schema);
  delete tables.batchactions_batches?.indexes?.[OPTIONAL_INDEX];
  delete tables.batchactions_jobs?.indexes?.[SUMMARY_INDEX];
  return tables;
}

/** Whether the database has the index that is optional. */
export async function hasOptionalIndex(db) {
  const { indexes } = await db.dialect.readTable(db, 'batchactions_batches');
  return OPTIONAL_INDEX in indexes;
}

/** The names of all tables in the database; with their schema, where a database has several. */
export async function listTables(db) {
  return (await db.query(db.dialect.tableNames)).map(({ name }) => name).sort();
}
