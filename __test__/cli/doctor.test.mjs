/** `doctor` and `init`: what they see of a database, and what they say to do. */
import { createRequire } from 'node:module';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { databasesWith } from '../support/databases.mjs';
import { serverDialects } from '../support/dialects/index.mjs';
import { makeJob, newId, without } from '../support/fixtures.mjs';
import { onOwnServer, startOwnServer } from '../support/own-servers.mjs';
import { startLossyProxy, startProxy } from '../support/servers.mjs';
import {
  addressOf,
  claim,
  complete,
  freshDatabase,
  needs,
  onDatabasesWith,
  onEveryDatabase,
  openStore,
  prepare,
  urlThrough,
} from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';
import { command, json, shell } from '../support/command.mjs';

const { checkClock, checkPacket, checkPooler, checkVersion } = createRequire(import.meta.url)('../../cli/doctor.js');

/** The checks by name. */
async function doctor(url, words = []) {
  const { code, value, stderr } = await json(['doctor', ...words], { url });
  expect(stderr).toBe('');
  for (const { mark, saw, todo } of value.checks) {
    expect(saw).not.toBe('');
    // What does not hold says what to do.
    if (mark !== 'ok') expect(todo).toEqual(expect.any(String));
  }
  const checks = Object.fromEntries(value.checks.map(({ name, ...check }) => [name, check]));
  expect(value.ok).toBe(Object.values(checks).every(({ mark }) => mark !== 'fail'));
  return { code, checks, marks: Object.fromEntries(Object.entries(checks).map(([name, { mark }]) => [name, mark])) };
}

const WELL = {
  reachable: 'ok',
  version: 'ok',
  clock: 'ok',
  pooler: 'ok',
  tables: 'ok',
  rights: 'ok',
  'ids of records': 'ok',
  'stale batches': 'ok',
  'unfinished jobs': 'ok',
};

onDatabasesWith('shared', (database) => {
  test('a database that is well: every check is ok and says what it saw', async () => {
    const db = await freshDatabase(database);
    expect(await command(['init'], { url: db.url })).toMatchObject({ code: 0, stdout: 'The tables and indexes are there.\n', stderr: '' });
    const { code, marks, checks } = await doctor(db.url);
    const { max_allowed_packet: packet, ...others } = marks;
    expect({ code, others }).toEqual({ code: 0, others: WELL });
    if (packet !== undefined) expect(checks.max_allowed_packet.saw).toMatch(/MiB: jobs of up to about [\d,]+ batches/);
    expect(checks.reachable.saw).toContain(database.dialect.label);
    const { code: same, stdout } = await command(['doctor'], { url: db.url });
    expect(same).toBe(0);
    for (const name of Object.keys(marks)) expect(stdout).toMatch(new RegExp(`^(ok|warn) +${name} `, 'm'));
  });

  test('missing tables and indexes fail, by name, and init makes them', async () => {
    const db = await freshDatabase(database);
    if (!database.has('file')) {
      const { code, checks } = await doctor(db.url);
      expect({ code, tables: checks.tables }).toMatchObject({
        code: 1,
        tables: { mark: 'fail', saw: expect.stringMatching(/there are none/) },
      });
      expect(checks.tables.todo).toContain('batchactions-sqlx init');
    }
    await command(['init'], { url: db.url });
    await database.dialect.dropIndex(db, 'batchactions_records', 'batchactions_records_job_id_status');
    const { code, checks } = await doctor(db.url);
    expect({ code, mark: checks.tables.mark }).toEqual({ code: 1, mark: 'fail' });
    expect(checks.tables.saw).toBe('1 table or index is missing: batchactions_records_job_id_status');
    await command(['init'], { url: db.url });
    expect((await doctor(db.url)).code).toBe(0);
  });

  test('a table that another program made fails with the store’s words', async () => {
    const db = await freshDatabase(database);
    await command(['init'], { url: db.url });
    await db.query('alter table "batchactions_jobs" rename column "config" to "other"');
    const { code, checks } = await doctor(db.url);
    expect({ code, mark: checks.tables.mark }).toEqual({ code: 1, mark: 'fail' });
    expect(checks.tables.saw).toMatch(/batchactions_jobs exists and lacks the column config/);
  });

  test('what init --print prints makes the tables that init makes, and connects to nothing', async () => {
    const [printed, made] = [await freshDatabase(database), await freshDatabase(database)];
    const { code, value } = await json(['init', '--print'], { url: unreachable(printed.url) });
    expect(code).toBe(0);
    // Of a URL with mysql:, it can't know that the server is MariaDB.
    const needed = value.statements.filter(
      (statement) => database.has('optionalIndex') || !statement.includes('batchactions_batches_job_id_state'),
    );
    for (const statement of needed) {
      if (database.has('file')) await command(['init'], { url: printed.url });
      else await printed.query(statement);
    }
    await command(['init'], { url: made.url });
    const { dialect } = database;
    for (const table of ['batchactions_jobs', 'batchactions_records', 'batchactions_batches']) {
      expect(await dialect.readTable(printed, table)).toEqual(await dialect.readTable(made, table));
    }
    expect((await doctor(printed.url)).code).toBe(0);
    const { stdout } = await command(['init', '--print'], { url: unreachable(printed.url) });
    for (const statement of value.statements) expect(stdout.replace(/^--.*$/gm, '')).toContain(statement);
  });

  test('stale batches, and jobs that are complete and not final, are named with the command that helps', async () => {
    const db = await freshDatabase(database);
    const store = openStore(db);
    await store.initialize();
    const [stale, done] = [makeJob(2), makeJob(1)];
    for (const job of [stale, done]) await prepare(store, job);
    await claim(store, stale.id);
    await complete(store, done.id, (await claim(store, done.id)).batchId);
    await db.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 1200000');
    const { code, checks } = await doctor(db.url);
    expect(code).toBe(0);
    expect(checks['stale batches']).toMatchObject({ mark: 'warn', saw: expect.stringContaining(`1 batch of ${stale.id}`) });
    expect(checks['unfinished jobs']).toMatchObject({ mark: 'warn', saw: expect.stringContaining(done.id) });
    expect((await doctor(db.url, ['--stale-after', '1h'])).checks['stale batches'].mark).toBe('ok');
    // What it says to do is done.
    for (const name of ['stale batches', 'unfinished jobs']) {
      const words = /batchactions-sqlx (.*)$/.exec(checks[name].todo)[1].split(' ');
      expect(await command(words, { url: db.url })).toMatchObject({ code: 0, stderr: '' });
    }
    expect((await doctor(db.url)).marks).toMatchObject({ 'stale batches': 'ok', 'unfinished jobs': 'ok' });
    expect((await store.getJob(done.id)).status).toBe('COMPLETED');
  });

  needs(database, 'limitedIds')('ids that run out are a warning from the half on and a failure from nine tenths on', async () => {
    const db = await freshDatabase(database);
    const store = openStore(db);
    await store.initialize();
    const insert = async (id) => {
      await db.query(
        `insert into "batchactions_records" ("id", "jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors") values (?, 'job', 'batch', ?, 'failed', '{}', '{}', '[]')`,
        [id, id],
      );
      if (database.has('schemas')) await db.query(`select setval('batchactions_records_id_seq', ?)`, [id]);
    };
    await insert(1_200_000_000);
    expect((await doctor(db.url)).checks['ids of records']).toMatchObject({
      mark: 'warn',
      saw: '1,200,000,000 of 2,147,483,647 used (55.9 %)',
      todo: expect.stringMatching(/alter table batchactions_records .*bigint/),
    });
    await insert(2_147_483_646);
    const { code, checks } = await doctor(db.url);
    expect({ code, mark: checks['ids of records'].mark }).toEqual({ code: 1, mark: 'fail' });
    const [larger] = /alter table.*/.exec(checks['ids of records'].todo);
    for (const statement of larger.split(';')) await db.query(statement);
    expect((await doctor(db.url)).marks['ids of records']).toBe('ok');
  });
});

/** The URL of a server that is not there, of the same kind. */
function unreachable(url) {
  if (url.startsWith('sqlite')) return url;
  const gone = new URL(url);
  gone.port = '1';
  return gone.href;
}

onDatabasesWith('server', (database) => {
  test('a user without rights to the data fails, with each right that is missing', async () => {
    const db = await freshDatabase(database);
    await command(['init'], { url: db.url });
    const user = await createUser(db, { rights: 'none' });
    onTestFinished(() => user.drop());
    const { code, stdout, stderr } = await command(['doctor', '--json'], { url: user.url });
    expect(stderr).toBe('');
    const { checks } = JSON.parse(stdout);
    const failed = checks.find(({ mark }) => mark === 'fail');
    expect(code).toBe(1);
    // MySQL and MariaDB refuse the login to a database without a right, PostgreSQL each statement.
    if (failed.name === 'reachable') expect(failed.saw).toMatch(/denied/);
    else {
      expect(failed.name).toBe('rights');
      expect(failed.saw).toMatch(
        /select on batchactions_jobs, insert on batchactions_jobs, update on batchactions_jobs, delete on batchactions_jobs/,
      );
    }
    const jobs = await command(['jobs'], { url: user.url });
    expect(jobs.code).toBe(code);
    expect(jobs.stderr).toMatch(/denied/);
    expect(jobs.stderr.trim().split('\n')).toHaveLength(1);
  });

  needs(database, 'tableRights')('a user who may only read fails by the rights that are missing, the sequence’s among them', async () => {
    const db = await freshDatabase(database);
    await command(['init'], { url: db.url });
    const user = await createUser(db, { rights: 'none' });
    onTestFinished(() => user.drop());
    await db.query(`grant select on all tables in schema public to "${user.name}"`);
    const { code, checks } = await doctor(user.url);
    expect({ code, mark: checks.rights.mark }).toEqual({ code: 1, mark: 'fail' });
    expect(checks.rights.saw).toMatch(
      /^denied: insert on batchactions_jobs, update on batchactions_jobs, .*usage on public\.batchactions_records_id_seq/,
    );
    expect(checks.rights.saw).not.toContain('select');
    // What it may read, it still checks.
    expect(checks['stale batches'].mark).toBe('ok');
  });

  test('a user with the rights that init --print names is well', async () => {
    const db = await freshDatabase(database);
    await command(['init'], { url: db.url });
    const user = await createUser(db, { rights: 'data' });
    onTestFinished(() => user.drop());
    expect((await doctor(user.url)).code).toBe(0);
  });

  test('a wrong password and a server that is not there are exit 4, with the store’s own message', async () => {
    const db = await freshDatabase(database);
    const user = await createUser(db, { rights: 'all' });
    onTestFinished(() => user.drop());
    const gone = await command(['doctor'], { url: unreachable(user.url) });
    expect(gone).toMatchObject({ code: 4, stderr: '' });
    expect(gone.stdout).toMatch(/^fail +reachable .*refused/);
    expect(gone.stdout).not.toContain(user.password);
    const { code, value } = await json(['doctor'], { url: unreachable(user.url) });
    expect({ code, ok: value.ok, names: value.checks.map(({ name }) => name) }).toEqual({ code: 4, ok: false, names: ['reachable'] });
  });
});

/** What a check says of facts that no server at hand has. */
const said = Object.fromEntries(['ok', 'warn', 'fail'].map((mark) => [mark, (name, saw, todo) => ({ mark, name, saw, todo })]));

describe('a check of given facts', () => {
  test.each([
    ['PostgreSQL', '11.22', '12.0'],
    ['PostgreSQL', '9.6.24', '12.0'],
    ['MySQL', '5.7.44-log', '8.0'],
    ['MariaDB', '10.5.29-MariaDB', '10.6'],
    ['MariaDB', '5.5.68', '10.6'],
    ['SQLite', '3.37.2', '3.38'],
  ])('%s %s is too old, and the version that works is named', (database, version, oldest) => {
    expect(checkVersion(said, { database, version })).toEqual({
      mark: 'fail',
      name: 'version',
      saw: `${database} ${version} is too old`,
      todo: `use ${database} ${oldest} or newer`,
    });
  });

  test.each([
    ['PostgreSQL', '12.0'],
    ['PostgreSQL', '18.1'],
    ['PostgreSQL', '19beta1'],
    ['MySQL', '8.0.11'],
    ['MySQL', '9.5.0'],
    ['MariaDB', '10.6.0-MariaDB-log'],
    ['MariaDB', '11.0.2'],
    ['SQLite', '3.38.0'],
  ])('%s %s is new enough', (database, version) => {
    expect(checkVersion(said, { database, version })).toMatchObject({ mark: 'ok', name: 'version' });
  });

  test.each([
    [2_001, 'the database is 2.0 s ahead of this machine'],
    [-2_001, 'the database is 2.0 s behind this machine'],
    [3_600_000, 'the database is 1 h ahead of this machine'],
    [-90_000, 'the database is 1 min 30 s behind this machine'],
  ])('clocks that are %i ms apart are a warning that says which is ahead, and to synchronise both', (clockSkewMs, saw) => {
    expect(checkClock(said, { clockSkewMs })).toEqual({
      mark: 'warn',
      name: 'clock',
      saw,
      todo: expect.stringMatching(/synchronise both by NTP$/),
    });
  });

  test.each([2_000, -2_000, 0])('clocks that are %i ms apart are ok', (clockSkewMs) => {
    expect(checkClock(said, { clockSkewMs })).toMatchObject({ mark: 'ok', name: 'clock' });
  });

  const direct = { port: 5432, serverPort: 5432, ageMs: 5, expectsPooler: false };
  test.each([
    [
      'a session that is older than the command',
      { ageMs: 3_600_000_000 },
      /^the server began this session 41 d 16 h ago, before this command/,
    ],
    ['a server at another port', { port: 6432 }, /^this machine connects to port 6432, and the server is at 5432/],
  ])('%s is a warning of a pooler, and ok where the URL says so', (_, facts, saw) => {
    expect(checkPooler(said, { ...direct, ...facts })).toEqual({
      mark: 'warn',
      name: 'pooler',
      saw: expect.stringMatching(saw),
      todo: expect.stringContaining('put pgbouncer=true into the URL'),
    });
    expect(checkPooler(said, { ...direct, ...facts, expectsPooler: true })).toMatchObject({ mark: 'ok', name: 'pooler' });
  });

  test.each([
    ['the same port and a young session', direct],
    ['a socket', { ...direct, port: null }],
    ['a server that does not say', { ...direct, serverPort: null, ageMs: null }],
  ])('%s is no pooler', (_, facts) => {
    expect(checkPooler(said, facts)).toMatchObject({ mark: 'ok', name: 'pooler' });
  });

  test('a max_allowed_packet below 16 MiB is a warning with the jobs that fit and the size to set', () => {
    expect(checkPacket(said, { maxPacket: (16 << 20) - 1_024 })).toMatchObject({ mark: 'warn', name: 'max_allowed_packet' });
    expect(checkPacket(said, { maxPacket: 1 << 20 })).toEqual({
      mark: 'warn',
      name: 'max_allowed_packet',
      saw: '1 MiB: jobs of up to about 5,000 batches',
      todo: expect.stringMatching(/^raise it to 64M/),
    });
    expect(checkPacket(said, { maxPacket: 16 << 20 })).toMatchObject({ mark: 'ok', saw: '16 MiB: jobs of up to about 88,000 batches' });
    // PostgreSQL and SQLite have none.
    expect(checkPacket(said, { maxPacket: null })).toBe(undefined);
  });
});

describe.each(serverDialects)('$name', (dialect) => {
  onOwnServer(dialect, { needs: 'packetLimit' })('a server with a small max_allowed_packet is warned of, and exit 0', async () => {
    const server = await startOwnServer(dialect);
    onTestFinished(() => server.end());
    const admin = await dialect.connect(server.url);
    await admin.query(`set global max_allowed_packet = ${4 << 20}`);
    await admin.end();
    await command(['init'], { url: server.url });
    const { code, checks } = await doctor(server.url);
    expect({ code, packet: checks.max_allowed_packet }).toEqual({
      code: 0,
      packet: {
        mark: 'warn',
        saw: '4 MiB: jobs of up to about 22,000 batches',
        todo: expect.stringMatching(/^raise it to 64M/),
      },
    });
  });
});

onDatabasesWith('server', (database) => {
  test('what stands between this machine and the server is warned of', async () => {
    const db = await freshDatabase(database);
    await command(['init'], { url: db.url });
    const target = addressOf(db);
    const proxy = await startProxy(target);
    onTestFinished(() => proxy.close());
    const { code, checks } = await doctor(urlThrough(proxy.port, db.url));
    expect({ code, pooler: checks.pooler }).toEqual({
      code: 0,
      pooler: {
        mark: 'warn',
        saw: `this machine connects to port ${proxy.port}, and the server is at ${target.port}: a pooler, a proxy or a mapped port`,
        todo: expect.stringContaining('put pgbouncer=true into the URL'),
      },
    });
  });
});

describe('PostgreSQL', () => {
  const postgres = databasesWith('schemas')[0];
  const run = postgres ? test : test.skip;

  run('--schema has the tables in a schema, and init --print makes it', async () => {
    const db = await freshDatabase(postgres);
    const schema = newId('s');
    const { value } = await json(['init', '--print', '--schema', schema], { url: db.url });
    await db.query(value.statements.join(';\n'));
    const { code, checks } = await doctor(db.url, ['--schema', schema]);
    expect({ code, tables: checks.tables.mark }).toEqual({ code: 0, tables: 'ok' });
    expect((await doctor(db.url)).marks.tables).toBe('fail');
    expect((await command(['jobs', '--schema', schema], { url: db.url })).code).toBe(0);
  });

  run('a sequence behind its table, as a restore by rows leaves it, fails with the statement that corrects it', async () => {
    for (const schema of [undefined, newId('S "quoted" ')]) {
      const db = await freshDatabase(postgres);
      const words = schema === undefined ? [] : ['--schema', schema];
      const at = schema === undefined ? 'public' : `"${schema.replaceAll('"', '""')}"`;
      expect((await command(['init', ...words], { url: db.url })).code).toBe(0);
      const ids = async () => (await doctor(db.url, words)).checks['ids of records'];
      expect((await ids()).mark).toBe('ok');
      const connection = await db.connect();
      onTestFinished(() => connection.end());
      await connection.query(`set search_path to ${at}`);
      await connection.query(
        `insert into batchactions_records (id, "jobId", "batchId", "recordIndex", status, raw, parsed, errors) values (500, 'job', 'batch', 0, 'failed', '{}', '{}', '[]')`,
      );
      // It gives 501 next.
      await connection.query(`select setval('batchactions_records_id_seq', 501, false)`);
      expect((await ids()).mark).toBe('ok');
      for (const set of [`1, false`, `12`]) {
        await connection.query(`select setval('batchactions_records_id_seq', ${set})`);
        const { mark, saw, todo } = await ids();
        expect(mark).toBe('fail');
        expect(saw).toMatch(/^the sequence is at (0|12), and records have ids up to 500/);
        const [statement] = /select setval.*/.exec(todo);
        await db.query(statement);
        expect((await ids()).mark).toBe('ok');
      }
    }
  });

  run('a database that goes away halfway fails as interrupted, beside what was found before', async () => {
    const db = await freshDatabase(postgres);
    await command(['init'], { url: db.url });
    const first = ['reachable', 'version', 'clock'];
    for (const [request, found] of [
      // The look at the tables, and the list of jobs.
      [/pg_class/, first],
      [/"completedAt"::int8/, [...first, 'pooler', 'tables', 'rights', 'ids of records']],
    ]) {
      for (const words of [['doctor', '--json'], ['doctor']]) {
        const proxy = await startLossyProxy(addressOf(db));
        const lost = proxy.loseReply(request).then(() => proxy.close());
        // What it sends has to be readable, and it gives up after a second.
        const url = urlThrough(proxy.port, db.url, '?sslmode=disable&options=-c%20statement_timeout%3D1000');
        const { code, stdout, stderr } = await command(words, { url });
        await lost;
        expect({ code, stderr }).toEqual({ code: 4, stderr: '' });
        if (!words.includes('--json')) {
          for (const name of found) expect(stdout).toMatch(new RegExp(`^(ok|warn) +${name} `, 'm'));
          expect(stdout).toMatch(/^fail {2}interrupted +.*PostgreSQL database .* at 127\.0\.0\.1/m);
          continue;
        }
        const { ok, checks } = JSON.parse(stdout);
        expect({ ok, names: checks.map(({ name }) => name) }).toEqual({ ok: false, names: [...found, 'interrupted'] });
        expect(checks.at(-1)).toMatchObject({
          mark: 'fail',
          saw: expect.stringMatching(/PostgreSQL database .* at 127\.0\.0\.1/),
          todo: expect.stringMatching(/run doctor again/),
        });
      }
    }
  });

  run('a server that only reads fails, and says so', async () => {
    const db = await freshDatabase(postgres);
    await command(['init'], { url: db.url });
    const url = `${db.url}${db.url.includes('?') ? '&' : '?'}options=-c%20default_transaction_read_only%3Don`;
    const { code, stdout } = await command(['doctor', '--json'], { url });
    expect(code).toBe(1);
    const { checks } = JSON.parse(stdout);
    expect(checks.find(({ name }) => name === 'rights')).toMatchObject({ mark: 'fail', saw: expect.stringMatching(/read-only/) });
  });
});

describe('on a SQLite file', () => {
  const database = databasesWith('file')[0];

  test('the line for a shell that doctor prints names any job id as one word', async () => {
    for (const id of ['it\'s; $(touch here) `x` "y"', '-dash', '--url', 'two words', 'a\\b']) {
      const db = await freshDatabase(database);
      const store = openStore(db);
      await store.initialize();
      const job = makeJob(1, { id });
      await prepare(store, job);
      await complete(store, id, (await claim(store, id)).batchId);
      await db.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 1200000');
      const { checks } = await doctor(db.url);
      const line = /batchactions-sqlx (reclaim .*)$/.exec(checks['unfinished jobs'].todo)[1];
      const ended = await shell(`$cli ${line}`, { url: db.url });
      expect(ended, line).toMatchObject({ code: 0, stderr: '' });
      expect((await store.getJob(id)).status, `${line}: ${ended.stdout}`).toBe('COMPLETED');
    }
  });

  test('jobs that can’t be read fail as interrupted, beside what was found before, and are exit 1', async () => {
    const db = await freshDatabase(database);
    const store = openStore(db);
    await store.initialize();
    await store.saveJobState(makeJob(1));
    await db.query(`update "batchactions_jobs" set "config" = '{'`);
    const { code, marks, checks } = await doctor(db.url);
    const before = without(WELL, 'stale batches', 'unfinished jobs');
    expect({ code, marks }).toEqual({ code: 1, marks: { ...before, interrupted: 'fail' } });
    expect(checks.interrupted.saw).toMatch(/does not hold JSON/);
    const text = await command(['doctor'], { url: db.url });
    expect(text).toMatchObject({
      code: 1,
      stderr: '',
      stdout: expect.stringMatching(/^fail {2}interrupted +a column does not hold JSON/m),
    });
  });

  test('an id that no shell can be given is not part of the line', async () => {
    const db = await freshDatabase(database);
    const store = openStore(db);
    await store.initialize();
    const id = 'a\u001b]0;x\u0007\nrm';
    await prepare(store, makeJob(1, { id }));
    await complete(store, id, (await claim(store, id)).batchId);
    const { checks } = await doctor(db.url);
    expect(checks['unfinished jobs'].todo).toMatch(/batchactions-sqlx reclaim <job> --timeout 1m$/);
  });

  test('init --print --json keeps a schema whose name has a semicolon whole, and skips no statement', async () => {
    const { value } = await json(['init', '--print', '--schema', 'we;x'], { url: 'postgres://user@127.0.0.1:1/app' });
    expect(value.statements.slice(0, 2)).toEqual(['create schema if not exists "we;x"', 'set search_path to "we;x"']);
    expect(value.statements.slice(2).every((statement) => statement.startsWith('create '))).toBe(true);
  });
});

onEveryDatabase((on) => {
  let url;
  beforeAll(() => {
    url = on.url;
  });
  on.needs('memory')('a database in memory has no tables of its own to see, and doctor says so', async () => {
    const { code, checks } = await doctor(url);
    expect({ code, tables: checks.tables.mark }).toEqual({ code: 1, tables: 'fail' });
  });
});
