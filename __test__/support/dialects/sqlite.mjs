// SQLite, as the tests know it: in a file, and in the memory of one store. The members stand in the same order in each file of this folder; what only
// servers have is missing here.

import { both, IDS, JSONS, NUMBERS, retype, TIMES } from '../column-types.mjs';
import { startRemote } from '../remote.mjs';
import { groupIndexes } from './shared.mjs';

/** The tables, as captured from Sequelize 6. */
const TABLES_SQL = `
CREATE TABLE IF NOT EXISTS \`batchactions_jobs\` (\`id\` VARCHAR(36) NOT NULL PRIMARY KEY, \`status\` VARCHAR(20) NOT NULL, \`config\` JSON NOT NULL, \`batches\` JSON NOT NULL DEFAULT '[]', \`totalRecords\` INTEGER NOT NULL DEFAULT 0, \`startedAt\` BIGINT, \`completedAt\` BIGINT, \`distributed\` TINYINT(1) NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS \`batchactions_records\` (\`id\` INTEGER PRIMARY KEY AUTOINCREMENT, \`jobId\` VARCHAR(36) NOT NULL, \`batchId\` VARCHAR(36) NOT NULL, \`recordIndex\` INTEGER NOT NULL, \`status\` VARCHAR(10) NOT NULL, \`raw\` JSON NOT NULL, \`parsed\` JSON NOT NULL, \`errors\` JSON NOT NULL DEFAULT '[]', \`processingError\` TEXT);
CREATE INDEX \`batchactions_records_job_id_status\` ON \`batchactions_records\` (\`jobId\`, \`status\`);
CREATE INDEX \`batchactions_records_job_id_batch_id\` ON \`batchactions_records\` (\`jobId\`, \`batchId\`);
CREATE UNIQUE INDEX \`batchactions_records_job_id_record_index\` ON \`batchactions_records\` (\`jobId\`, \`recordIndex\`);
CREATE TABLE IF NOT EXISTS \`batchactions_batches\` (\`id\` VARCHAR(36) NOT NULL PRIMARY KEY, \`jobId\` VARCHAR(36) NOT NULL, \`batchIndex\` INTEGER NOT NULL, \`status\` VARCHAR(20) NOT NULL DEFAULT 'PENDING', \`workerId\` VARCHAR(128), \`claimedAt\` BIGINT, \`recordStartIndex\` INTEGER NOT NULL DEFAULT 0, \`recordEndIndex\` INTEGER NOT NULL DEFAULT 0, \`processedCount\` INTEGER NOT NULL DEFAULT 0, \`failedCount\` INTEGER NOT NULL DEFAULT 0, \`version\` INTEGER NOT NULL DEFAULT 0);
CREATE INDEX \`batchactions_batches_job_id_status\` ON \`batchactions_batches\` (\`jobId\`, \`status\`);
CREATE UNIQUE INDEX \`batchactions_batches_job_id_batch_index\` ON \`batchactions_batches\` (\`jobId\`, \`batchIndex\`);
`;

export const sqlite = {
  name: 'sqlite',
  label: 'SQLite',
  capabilities: ['loneSurrogates', 'uncheckedJson', 'nulInText', 'partialIndexes', 'rowTypeErrors'],

  /** Its databases, each with what only it has. */
  places: { 'sqlite-file': ['raw', 'shared', 'file'], 'sqlite-memory': ['memory'] },

  // Connections.

  schemes: ['sqlite'],
  quote: (name) => `\`${name.replaceAll('`', '``')}\``,

  /** In another process, so that a file may be open in a store of this one: see `remote.mjs`. */
  async connect(file) {
    const { call, end } = await startRemote(new URL('../sqlite-child.mjs', import.meta.url), file);
    return {
      query: (sql, params = []) => call('query', sql, params),
      end: () => call('close').finally(end),
    };
  },

  // Sessions and locks.

  clock: `select cast((julianday('now') - 2440587.5) * 86400000 as integer) as "now"`,

  /** Statements that begin a transaction for writing: it holds the one place of a writer from here on. */
  begin: ['begin immediate'],

  // Tables.

  tables: TABLES_SQL,

  tableNames: `select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' escape '\\'`,

  /** A table as the catalogue describes it, in a shape that two databases of one kind can be compared in. */
  async readTable(db, table) {
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
  },

  dropIndex: (db, table, index) => db.query(`drop index ${index}`),

  /** Makes the database refuse new records of which `condition` holds. Returns what undoes that. A table gets no constraint once it is there. */
  async refuseRows(db, table, condition) {
    await db.query(
      `create trigger "refused" before insert on "batchactions_${table}" when ${condition.replace(/"\w+"/g, 'new.$&')}
       begin select raise(abort, 'refused by the trigger'); end`,
    );
    return () => db.query('drop trigger "refused"');
  },

  /** As `refuseRows`, for states of batches. */
  async refuseBatches(db, condition) {
    await db.query(
      `create trigger "refused_batch" before update on "batchactions_batches" when ${condition.replace(/"\w+"/g, 'new.$&')}
       begin select raise(abort, 'refused by the trigger'); end`,
    );
    return () => db.query('drop trigger "refused_batch"');
  },

  /** Stores a value that the store can't read. Returns the words for its column. */
  async storeUnreadable(db) {
    await db.query(`update "batchactions_batches" set "workerId" = x'ff00'`);
    return 'column workerId of the table batchactions_batches';
  },

  /** Column types that initialize() refuses: table, column, the usual type, another one. */
  refusedTypes: [
    ['batchactions_jobs', 'startedAt', 'BIGINT', 'REAL'],
    ['batchactions_jobs', 'distributed', 'TINYINT(1)', 'TEXT'],
    ['batchactions_records', 'recordIndex', 'INTEGER', 'TEXT'],
    ['batchactions_batches', 'jobId', 'VARCHAR(36)', 'BIGINT'],
  ],

  /** A type of these, as the catalogue writes it. */
  writtenType: (type) => type,

  /** What of the tables' text makes the ids of records, and without it; and what makes the key of jobs. */
  generatedId: ['INTEGER PRIMARY KEY AUTOINCREMENT', 'BIGINT PRIMARY KEY'],
  primaryKey: / PRIMARY KEY/,

  /** Column types of users' own migrations that the store works on: what is made of the tables' text, by name. */
  foreignTypes: {
    'uuid ids': retype(IDS, 'UUID'),
    'text and enums': both(retype([...IDS, 'workerId'], 'TEXT'), retype(['status'], `TEXT CHECK ("status" <> '')`)),
    'bigint numbers and numeric times': both(retype(NUMBERS, 'BIGINT'), retype(TIMES, 'NUMERIC')),
    'text for JSON': retype(JSONS, 'TEXT'),
    booleans: retype(['distributed'], 'BOOLEAN'),
  },

  // Plans.

  /** Whether a statement names its values by number, so that one is given once. */
  numbersValues: true,
  /** Calls that are one statement here and several elsewhere. */
  plannedStatements: [
    'set_batch_state',
    'release',
    'renew',
    'claim_snapshot',
    'has_open_batch',
    'claim',
    'list_snapshot',
    'reclaim_snapshot',
    'reclaim_select',
  ],
  analyze: 'analyze',
  scan: /SCAN (?:TABLE )?batchactions_batches/,
  /** A plan that counts batches by their status in the index, without their rows. */
  readsStatusIndex: /COVERING INDEX batchactions_batches_job_id_status/,

  prepareToExplain: async () => {},

  /** The text of a statement's plan. SQLite does not count the rows that it reads. */
  async explain(connection, sql, values) {
    const positional = [...sql.matchAll(/\?(\d)/g)].map(([, place]) => values[place - 1]);
    const rows = await connection.query(`explain query plan ${sql.replace(/\?\d/g, '?')}`, positional);
    return [{ text: rows.map(({ detail }) => detail).join('\n'), rows: 0 }];
  },
};
