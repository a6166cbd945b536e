// MySQL and MariaDB, as the tests know them. MariaDB shares what MySQL has, and what differs stands at the end. The members stand in the same order
// in each file of this folder.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import driver from 'mysql2/promise';
import { both, IDS, JSONS, listOf, NUMBERS, retype, TIMES } from '../column-types.mjs';
import { BATCH_STATUSES, JOB_STATUSES, RECORD_STATUSES } from '../fixtures.mjs';
import { CONNECT_TIMEOUT_MS, groupIndexes, literal } from './shared.mjs';

const run = promisify(execFile);
const script = fileURLToPath(new URL('../../../scripts/mysql', import.meta.url));

/** The tables, as captured from Sequelize 6. */
const TABLES_SQL = `
CREATE TABLE IF NOT EXISTS \`batchactions_jobs\` (\`id\` VARCHAR(36) NOT NULL , \`status\` VARCHAR(20) NOT NULL, \`config\` JSON NOT NULL, \`batches\` JSON NOT NULL, \`totalRecords\` INTEGER NOT NULL DEFAULT 0, \`startedAt\` BIGINT, \`completedAt\` BIGINT, \`distributed\` TINYINT(1) NOT NULL DEFAULT false, PRIMARY KEY (\`id\`)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS \`batchactions_records\` (\`id\` INTEGER auto_increment , \`jobId\` VARCHAR(36) NOT NULL, \`batchId\` VARCHAR(36) NOT NULL, \`recordIndex\` INTEGER NOT NULL, \`status\` VARCHAR(10) NOT NULL, \`raw\` JSON NOT NULL, \`parsed\` JSON NOT NULL, \`errors\` JSON NOT NULL, \`processingError\` TEXT, PRIMARY KEY (\`id\`)) ENGINE=InnoDB;
ALTER TABLE \`batchactions_records\` ADD INDEX \`batchactions_records_job_id_status\` (\`jobId\`, \`status\`);
ALTER TABLE \`batchactions_records\` ADD INDEX \`batchactions_records_job_id_batch_id\` (\`jobId\`, \`batchId\`);
ALTER TABLE \`batchactions_records\` ADD UNIQUE INDEX \`batchactions_records_job_id_record_index\` (\`jobId\`, \`recordIndex\`);
CREATE TABLE IF NOT EXISTS \`batchactions_batches\` (\`id\` VARCHAR(36) NOT NULL , \`jobId\` VARCHAR(36) NOT NULL, \`batchIndex\` INTEGER NOT NULL, \`status\` VARCHAR(20) NOT NULL DEFAULT 'PENDING', \`workerId\` VARCHAR(128), \`claimedAt\` BIGINT, \`recordStartIndex\` INTEGER NOT NULL DEFAULT 0, \`recordEndIndex\` INTEGER NOT NULL DEFAULT 0, \`processedCount\` INTEGER NOT NULL DEFAULT 0, \`failedCount\` INTEGER NOT NULL DEFAULT 0, \`version\` INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (\`id\`)) ENGINE=InnoDB;
ALTER TABLE \`batchactions_batches\` ADD INDEX \`batchactions_batches_job_id_status\` (\`jobId\`, \`status\`);
ALTER TABLE \`batchactions_batches\` ADD UNIQUE INDEX \`batchactions_batches_job_id_batch_index\` (\`jobId\`, \`batchIndex\`);
`;

const quote = (name) => `\`${name.replaceAll('`', '``')}\``;

export const mysql = {
  name: 'mysql',
  label: 'MySQL',
  capabilities: [
    'server',
    'rowLocks',
    'claimSteps',
    'sortedKeys',
    'keyLimit',
    'nestingLimit',
    'packetLimit',
    'nulInText',
    'textLimit',
    'columnCharsets',
    'caseInsensitiveIds',
    'limitedIds',
    'indexPrefixes',
    'indexHints',
    'optionalIndex',
    'disabledIndexes',
    'asksForPasswords',
    'versionProbe',
    'preparedStatementLimit',
  ],
  /** Levels of a JSON value. */
  deepestJson: 100,

  // Connections.

  schemes: ['mysql', 'mariadb'],
  defaultPort: 3306,
  quote,

  async connect(uri) {
    const connection = await driver.createConnection({ uri, connectTimeout: CONNECT_TIMEOUT_MS, jsonStrings: true });
    connection.on('error', () => {});
    await connection.query("set session sql_mode = concat(@@sql_mode, ',ANSI_QUOTES'), lock_wait_timeout = 30");
    return {
      async query(sql, params = []) {
        const [rows] = await connection.query(sql, params);
        return Array.isArray(rows) ? rows : [];
      },
      end: () => connection.end(),
    };
  },

  /** Settings of Sequelize's driver for a busy machine. */
  sequelizeOptions: {},

  // Servers that are there, and databases on them.

  // Both speak the same protocol on the same port: the server says which of them it is.
  usualUrls: ['mysql://root@127.0.0.1:3306/mysql', 'mysql://test:test@127.0.0.1:3307/mysql'],

  async identify(connection) {
    const [{ version }] = await connection.query('select version() as "version"');
    return { dialect: /mariadb/i.test(version) ? 'mariadb' : 'mysql', version: version.split('-')[0] };
  },

  /** The server that `scripts/mysql` downloads and starts. */
  async start() {
    const { stdout } = await run(script, ['start'], { timeout: 600_000 }).catch((error) => {
      throw new Error(error.stderr?.trim().split('\n').at(-1) || error.message, { cause: error });
    });
    const url = new URL(stdout.trim());
    url.pathname = '/mysql';
    return { url: url.href, stop: () => run(script, ['stop'], { timeout: 120_000 }) };
  },

  databaseNames: 'select schema_name as "name" from information_schema.schemata',

  createDatabase: (server, name) => server.query(`create database ${quote(name)} character set utf8mb4`),

  dropDatabase: (server, name) => server.query(`drop database if exists ${quote(name)}`),

  // Users, on a server that others use too.

  async createUser(db, name, password, rights) {
    await db.query(`create user '${name}'@'%' identified by ${literal(password)}`);
    if (rights === 'all') await grant(db, name, ['select', 'insert', 'update', 'delete', 'create', 'drop', 'index', 'alter', 'references']);
    if (rights === 'data') await grant(db, name, ['select', 'insert', 'update', 'delete']);
    return () => db.query(`drop user '${name}'@'%'`);
  },

  // The server does not say whether a database is missing or the user may not use it.
  unknownDatabaseCode: 'PERMISSION_DENIED',

  /** As PostgreSQL's; with a user of its own, because root may be let in by the name of the system's user alone. `user` has to be dropped. */
  async socketOf(db, parts, createUser) {
    const [{ path }] = await db.query('select @@socket as path');
    if (!existsSync(path)) return { reason: 'this server has no socket on this machine' };
    const user = await createUser();
    const { dialect, database } = parts;
    return {
      parts: { dialect, database, user: user.name, password: user.password, socketPath: path },
      sequelize: { dialect, database, username: user.name, password: user.password, dialectOptions: { socketPath: path } },
    };
  },

  // Sessions and locks.

  clock: 'select cast(unix_timestamp(sysdate(3)) * 1000 as signed) as "now"',

  /** Statements that begin a transaction for writing. At the usual level it would lock the gaps between rows too. */
  begin: ['set session transaction isolation level read committed', 'begin'],

  // InnoDB shows its transactions as they were when they were last read, unless that is 100 ms ago.
  async countWaiting(db) {
    const [{ n }] = await db.query(
      `select count(*) as "n" from information_schema.innodb_trx t
       join information_schema.processlist p on p.id = t.trx_mysql_thread_id
       where p.db = database() and t.trx_state = 'LOCK WAIT'`,
    );
    return Number(n);
  },

  /** Takes the lock under which the store makes its tables. */
  lockInitialization: (connection) => connection.query(`select get_lock(concat('batchactions ', left(sha2(database(), 256), 40)), 0)`),

  /** The other sessions in this database, and whether each is in the middle of something. */
  async sessions(db) {
    const rows = await db.query(
      `select id as "id", command <> 'Sleep' as "busy" from information_schema.processlist where db = database() and id <> connection_id()`,
    );
    return rows.map(({ id, busy }) => ({ id, busy: Boolean(Number(busy)) }));
  },

  /** Ends a session. The answer says whether it was there; the server does not say what it was doing, so that `busy` is what the list said. */
  endSession: (db, { id, busy }) =>
    db.query(`kill ${Number(id)}`).then(
      () => ({ ended: true, busy }),
      (error) => {
        if (/unknown thread/i.test(error.message)) return { ended: false };
        throw error;
      },
    ),

  async offersTls(db) {
    const [variable] = await db.query(`show variables where variable_name in ('have_ssl')`);
    if (variable?.Value) return /^(on|yes)$/i.test(variable.Value);
    const [certificate] = await db.query(`show variables like 'ssl_cert'`);
    return Boolean(certificate?.Value);
  },

  /** Whether each of the other sessions in this database is encrypted. */
  async encryptedSessions(db) {
    const rows = await db.query(
      `select s.variable_value <> '' as tls from performance_schema.status_by_thread s
       join performance_schema.threads t on t.thread_id = s.thread_id
       where s.variable_name = 'Ssl_cipher' and t.processlist_db = database() and t.processlist_id <> connection_id()`,
    );
    return rows.map(({ tls }) => Boolean(tls));
  },

  // Tables.

  tables: TABLES_SQL,

  tableNames: 'select table_name as name from information_schema.tables where table_schema = database()',

  /** A table as the catalogue describes it, in a shape that two databases of one kind can be compared in. */
  async readTable(db, table) {
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
    return { columns, indexes: groupIndexes(indexes), engine: engine[0]?.engine };
  },

  dropIndex: (db, table, index) => db.query(`drop index ${index} on ${table}`),

  /** Disables an index of records. Returns the word for it. */
  async disableIndex(db, index) {
    await db.query(`alter table batchactions_records alter index ${index} invisible`);
    return 'invisible';
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

  /** Makes the next id of a record the one after `id`: here it is the one after the highest that is stored. */
  setLastRecordId: async () => {},

  /** Column types that initialize() refuses: table, column, the usual type, another one. */
  refusedTypes: [
    ['batchactions_jobs', 'id', 'VARCHAR(36)', 'BINARY(16)'],
    ['batchactions_jobs', 'startedAt', 'BIGINT', 'DATETIME'],
    ['batchactions_jobs', 'completedAt', 'BIGINT', 'INTEGER'],
    ['batchactions_records', 'raw', 'JSON', 'TEXT'],
    ['batchactions_batches', 'status', 'VARCHAR(20)', 'VARCHAR(8)'],
    ['batchactions_batches', 'claimedAt', 'BIGINT', 'DECIMAL'],
    ['batchactions_batches', 'version', 'INTEGER', 'DOUBLE'],
  ],

  /** A type of these, as the catalogue writes it. */
  writtenType: (type) =>
    type
      .toLowerCase()
      .replace('varchar', 'char')
      .replace('integer', 'int')
      .split(/[ (]|tz/)[0],

  /** What of the tables' text makes the ids of records, and without it; and what makes the key of jobs. */
  generatedId: [' auto_increment', ''],
  primaryKey: /, PRIMARY KEY \(["`]id["`]\)/,

  /** Column types of users' own migrations that the store works on: what is made of the tables' text, by name. */
  foreignTypes: {
    'char and wider varchar': both(retype(IDS, 'CHAR(36)'), retype(['status', 'workerId'], 'VARCHAR(255)')),
    enums: both(
      retype(['status'], `ENUM(${listOf(JOB_STATUSES)})`, 'batchactions_jobs'),
      retype(['status'], `ENUM(${listOf(BATCH_STATUSES)})`, 'batchactions_batches'),
      retype(['status'], `ENUM(${listOf(RECORD_STATUSES)})`, 'batchactions_records'),
    ),
    'bigint numbers': retype(NUMBERS, 'BIGINT'),
    'unsigned numbers and times': both(retype(NUMBERS, 'INTEGER UNSIGNED'), retype(TIMES, 'BIGINT UNSIGNED')),
    'numeric times': retype(TIMES, 'DECIMAL(20, 0)'),
    'longtext for JSON': retype([...JSONS, 'processingError'], 'LONGTEXT'),
  },

  // Plans.

  /** Whether a statement names its values by number, so that one is given once. */
  numbersValues: false,
  /** Calls that are one statement here and several elsewhere. */
  plannedStatements: [
    'set_batch_state',
    'release',
    'renew',
    'claim_snapshot',
    'has_open_batch',
    'claim_select',
    'claim_update',
    'list_snapshot',
    'reclaim_snapshot_next',
    'reclaim_snapshot_rest',
    'reclaim_select',
  ],
  analyze: 'analyze table batchactions_batches',
  scan: /"table":"(?:batchactions_batches|b)"[^\n]*?"type":"(?:ALL|index)"|(?:Table|Index|Covering index) scan on (?:batchactions_batches|b)\b/,
  /** A plan that counts batches by their status in the index, without their rows. */
  readsStatusIndex:
    /"key":"batchactions_batches_job_id_status"[^\n]*Using index|[Cc]overing index (?:\w+ )+on \w+ using batchactions_batches_job_id_status/,

  prepareToExplain: async () => {},

  /** Runs a statement and rolls it back: the text of its plan, and how many rows it read. */
  async explain(connection, sql, values) {
    const text = (await connection.query(`explain ${sql}`, values)).map((row) => JSON.stringify(row)).join('\n');
    await connection.query('begin');
    await connection.query('flush status');
    await connection.query(sql, values);
    const counters = await connection.query(`show session status like 'Handler_read%'`);
    await connection.query('rollback');
    return [{ text, rows: counters.reduce((sum, row) => sum + Number(row.Value), 0) }];
  },

  // Servers that a test starts for itself: see `own-servers.mjs`.

  ownServer: {
    // `scripts/mysql` runs it: what other packages call mysqld may be MariaDB.
    programs: ['mysqld'],
    folders: () => [
      join(process.env.MYSQL_TEST_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'mysql-test'), 'root/usr/sbin'),
    ],
    onPath: false,
    // A run may be required to have a MySQL, and have one that was started elsewhere.
    elsewhere: true,
    user: async () => ({}),
    url: (port) => `mysql://root@127.0.0.1:${port}/mysql`,
    async make(_, data, how) {
      await run(script, ['mysqld', `--datadir=${data}`, '--initialize-insecure'], how);
    },
    start: (_, data, port, tls) => [
      script,
      [
        'mysqld',
        `--datadir=${data}`,
        `--socket=${data}.sock`,
        `--pid-file=${data}.pid`,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        '--mysqlx=OFF',
        '--innodb-buffer-pool-size=32M',
        '--skip-log-bin',
        // Without this it would make certificates of its own.
        ...(tls ? [`--ssl-ca=${tls.ca}`, `--ssl-cert=${tls.cert}`, `--ssl-key=${tls.key}`] : ['--tls-version=']),
      ],
    ],
    reloadTls: (ask) => ask('alter instance reload tls'),
    orderly: ['SIGTERM'],
  },

  /** What a test does to the users and settings of such a server. `admin` runs each statement in the database of `own-accounts.mjs`. */
  accounts: {
    prepare: async () => {},
    /** `method`: one of `passwordMethods`. `connections`: how many the user may have. `demands`: what else the server demands of the user. */
    async create(admin, user, password, { method = 'by ?', connections, demands = '' }) {
      const how = method.replace('?', () => literal(password));
      const limit = connections ? `with max_user_connections ${connections}` : '';
      await admin.query(`create user '${user}'@'%' identified ${how} ${demands} ${limit}`);
      await admin.query(`grant all on "${await currentDatabase(admin)}".* to '${user}'@'%'`);
    },
    setPassword: (admin, user, password) => admin.query(`alter user '${user}'@'%' identified by ${literal(password)}`),
    async endConnections(admin, user) {
      const rows = await admin.query('select id as "id" from information_schema.processlist where user = ?', [user]);
      // One that has just ended by itself is gone all the same.
      for (const { id } of rows) await admin.query(`kill ${Number(id)}`).catch(() => {});
      return rows.length;
    },
    async encrypted(admin, user) {
      const rows = await admin.query(
        `select s.variable_value <> '' as "tls" from performance_schema.status_by_thread s
         join performance_schema.threads t on t.thread_id = s.thread_id
         where s.variable_name = 'Ssl_cipher' and t.processlist_user = ?`,
        [user],
      );
      return rows.map(({ tls }) => Boolean(tls));
    },
    /** The server keeps what it has checked once; without that, it asks for the password itself, under its own key where there is no encryption. */
    forgetLogins: (admin) => admin.query('flush privileges'),
  },

  /** The ways of this server to ask for a password. */
  passwordMethods: ['with caching_sha2_password by ?', 'with sha256_password by ?'],

  /** Whether Sequelize's driver checks the name in a certificate unasked, and whether it takes `ssl: true`. */
  sequelizeTls: { checksName: false, takesTrue: false },

  setReadOnly: (admin, on) => admin.query(`set global read_only = ${on ? 1 : 0}`),

  /** Applies a setting of the whole server to the connections that are made from now on. */
  applySetting: (connection, statement) => connection.query(statement),

  /** Settings of a server that must make no difference to the store. */
  unusualSettings: [
    'set global autocommit = 0',
    `set global completion_type = 'CHAIN'`,
    `set global sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'`,
    `set global transaction_isolation = 'SERIALIZABLE'`,
    `set global time_zone = '+05:30'`,
    'set global sql_select_limit = 2',
    'set global sql_select_limit = 0',
    'set global max_join_size = 1',
    'set global sql_safe_updates = 1',
    'set global sql_auto_is_null = 1',
    'set global group_concat_max_len = 4',
    'set global max_sort_length = 4',
    'set global unique_checks = 0',
  ],
};

/** Its JSON is text with a check: it keeps the order of keys and knows no limit of them. It has the type UUID. */
export const mariadb = {
  ...mysql,
  name: 'mariadb',
  label: 'MariaDB',
  capabilities: [...mysql.capabilities.filter((name) => !['sortedKeys', 'keyLimit', 'optionalIndex'].includes(name)), 'textUuids'],
  deepestJson: 31,

  // Its driver gives a server one second to let a connection in.
  sequelizeOptions: { connectTimeout: 60_000 },

  start: undefined,

  async readTable(db, table) {
    const checks = await db.query(
      `select check_clause as clause
       from information_schema.check_constraints
       where constraint_schema = database() and table_name = ?
       order by check_clause`,
      [table],
    );
    return { ...(await mysql.readTable(db, table)), checks };
  },

  async disableIndex(db, index) {
    await db.query(`alter table batchactions_records alter index ${index} ignored`);
    return 'ignored';
  },

  foreignTypes: { ...mysql.foreignTypes, 'uuid ids': retype(IDS, 'UUID') },

  ownServer: {
    programs: ['mariadbd', 'mariadb-install-db'],
    folders: () => ['/usr/sbin', '/usr/bin', '/usr/local/sbin', '/usr/local/bin', '/opt/homebrew/bin'],
    user: async () => ({}),
    url: (port) => `mysql://root@127.0.0.1:${port}/mysql`,
    async make({ 'mariadb-install-db': install }, data, how) {
      const flags = ['--no-defaults', `--datadir=${data}`, `--user=${userInfo().username}`];
      await run(install, [...flags, '--auth-root-authentication-method=normal', '--skip-test-db'], how);
    },
    start: ({ mariadbd }, data, port, tls) => [
      mariadbd,
      [
        '--no-defaults',
        `--datadir=${data}`,
        // As it starts, a server deletes the temporary tables in that folder, those of other servers too.
        `--tmpdir=${data}`,
        `--user=${userInfo().username}`,
        `--socket=${data}.sock`,
        `--pid-file=${data}.pid`,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        '--innodb-buffer-pool-size=32M',
        '--skip-log-bin',
        // With it on, the server tells which connections are encrypted.
        ...(tls ? ['--performance-schema=ON', `--ssl-ca=${tls.ca}`, `--ssl-cert=${tls.cert}`, `--ssl-key=${tls.key}`] : []),
      ],
    ],
    reloadTls: (ask) => ask('flush ssl'),
    orderly: ['SIGTERM'],
  },

  passwordMethods: ['via mysql_native_password using password(?)'],

  sequelizeTls: { checksName: true, takesTrue: true },

  unusualSettings: [
    'set global autocommit = 0',
    `set global completion_type = 'CHAIN'`,
    `set global completion_type = 'RELEASE'`,
    `set global sql_mode = 'ORACLE'`,
    `set global sql_mode = 'ANSI,PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES'`,
    `set global sql_mode = ''`,
    `set global tx_isolation = 'SERIALIZABLE'`,
    `set global time_zone = '+05:30'`,
    // These cut what is read, refuse what reads much, or refuse an update.
    'set global sql_select_limit = 2',
    'set global sql_select_limit = 0',
    'set global max_join_size = 1',
    'set global sql_safe_updates = 1',
    'set global sql_auto_is_null = 1',
    'set global group_concat_max_len = 4',
    'set global max_sort_length = 8',
    'set global unique_checks = 0',
  ],
};

async function grant(db, name, privileges) {
  try {
    await db.query(`grant ${privileges.join(', ')} on \`${db.name}\`.* to '${name}'@'%'`);
  } catch (error) {
    // A test server's user may do everything except pass it on; then the grant is written where the server keeps it.
    if (!/access denied/i.test(error.message)) throw error;
    const columns = privileges.map((privilege) => `${privilege}_priv`.replace(/^./, (letter) => letter.toUpperCase()));
    await db.query(
      `insert into mysql.db (Host, Db, User, ${columns.join(', ')}) values ('%', ?, ?, ${columns.map(() => `'Y'`).join(', ')})`,
      [db.name, name],
    );
    await db.query('flush privileges');
  }
}

async function currentDatabase(admin) {
  const [{ name }] = await admin.query('select database() as "name"');
  return name;
}
