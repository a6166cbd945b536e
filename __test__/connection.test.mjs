/** What a store is made from, when it connects, what it says when it can't, and how it ends. */
import { createRequire } from 'node:module';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Sequelize, Transaction } from 'sequelize';
import { beforeAll, afterAll, describe, expect, it, onTestFinished } from 'vitest';
import * as esm from '../index.js';
import { createTables, listTables, TABLES } from './support/catalogue.mjs';
import { databases } from './support/databases.mjs';
import { connect } from './support/raw.mjs';
import { INDEX, runNode } from './support/run-node.mjs';
import { IncumbentLikeStore } from './support/sequelize-models.mjs';
import { expectNoSecret } from './support/secrets.mjs';
import { deadPort, startProxy, startServer, untilFree } from './support/servers.mjs';
import { makeJob, makeLocalJob, makeRecord, without } from './support/fixtures.mjs';
import { freshDatabase, prepare } from './support/suite.mjs';
import { createUser } from './support/users.mjs';

const { SequelizeStateStore, SqlxStateStore, StateStoreError } = esm;

const require = createRequire(import.meta.url);

const DEFAULT_PORTS = { postgres: 5432, mysql: 3306, mariadb: 3306 };
const servers = databases.filter(({ dialect }) => dialect !== 'sqlite');

function open(connection, options) {
  const store = new SqlxStateStore(connection, options);
  onTestFinished(() => store.close());
  return store;
}

function sequelizeOf(...args) {
  const sequelize = new Sequelize(...args);
  onTestFinished(() => sequelize.close());
  return sequelize;
}

function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'batchactions-connection-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A database's URL in parts, as `ConnectionOptions` names them. */
function partsOf(db) {
  if (db.dialect === 'sqlite') return { dialect: 'sqlite', storage: db.url.replace(/^sqlite:(\/\/)?/, '') };
  const url = new URL(db.url);
  const parts = {
    dialect: db.dialect,
    host: url.hostname,
    port: Number(url.port || DEFAULT_PORTS[db.dialect]),
    database: url.pathname.slice(1),
    user: decodeURIComponent(url.username),
  };
  return url.password ? { ...parts, password: decodeURIComponent(url.password) } : parts;
}

/** The same, as Sequelize names them. */
function sequelizePartsOf(db) {
  const { user: username, ...parts } = partsOf(db);
  return { ...parts, ...(username && { username }), logging: false };
}

function withUrl(db, change) {
  const url = new URL(db.url);
  change(url);
  return url.href;
}

/** The store works, and on the database that it should: what it saved is there for a look from outside. */
async function expectToWork(store, db) {
  await store.initialize();
  const job = makeJob(3, { id: `works-${Math.random().toString(36).slice(2)}`, size: 2 });
  await prepare(store, job);
  expect(await store.getJobState(job.id)).toStrictEqual(job);
  expect((await store.claimBatch(job.id, 'w')).claimed).toBe(true);
  if (db) expect(await db.query('select "id" as "id" from batchactions_jobs where "id" = ?', [job.id])).toHaveLength(1);
  return job;
}

/** The store works where this Sequelize instance looks; which it does afterwards, for a SQLite file is never open in both. */
async function expectToShare(store, sequelize) {
  const job = await expectToWork(store);
  await store.close();
  expect(await new IncumbentLikeStore(sequelize).getJobState(job.id)).toMatchObject({ id: job.id, status: 'PROCESSING' });
}

const rejectionOf = (promise) =>
  promise.then(
    () => expect.unreachable('it resolved'),
    (error) => error,
  );

const thrownBy = (action) => {
  try {
    action();
  } catch (error) {
    return error;
  }
  return expect.unreachable('it did not throw');
};

/** Far less than the 30 s of a pool that tries again and again, and more than a name server takes that drops a question. */
const SOON = 20_000;

/** The database can't be had: known soon, with the reason, and whether it may come by itself. */
async function expectConnectionFailed(store, reason, secrets = [], { retryable = true } = {}) {
  for (const call of [
    () => store.getJobState('j'),
    () => store.initialize(),
    () => store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' })),
  ]) {
    const started = performance.now();
    const error = await rejectionOf(call());
    expect(performance.now() - started).toBeLessThan(SOON);
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ name: 'StateStoreError', code: 'CONNECTION_FAILED', retryable });
    expect(error.message).toMatch(reason);
    expect(error.message).not.toMatch(/pool timed out/i);
    expectNoSecret(error, secrets);
    expectNoSecret(store, secrets);
  }
}

describe('the exports', () => {
  it('are the same by import and by require', () => {
    const cjs = require('../index.js');
    expect(cjs.SqlxStateStore).toBe(SqlxStateStore);
    expect(cjs.SequelizeStateStore).toBe(SqlxStateStore);
    expect(cjs.StateStoreError).toBe(StateStoreError);
  });

  it('have the class under the name of the adapter that it replaces', () => {
    expect(SequelizeStateStore).toBe(SqlxStateStore);
  });

  it('are named exports for an ES module of somebody else', async () => {
    const source = `import * as all from ${JSON.stringify(INDEX.href)};
      import { SequelizeStateStore } from ${JSON.stringify(INDEX.href)};
      console.log(all.SqlxStateStore === SequelizeStateStore, typeof all.StateStoreError, new SqlxStateStore('sqlite::memory:') instanceof SequelizeStateStore);`;
    expect(await runNode(source)).toMatchObject({ code: 0, stdout: 'true function true\n' });
  });

  it('StateStoreError is an Error that anybody can make', () => {
    const cause = new TypeError('why');
    const error = new StateStoreError('what', { code: 'CONSTRAINT', retryable: true, cause });
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: 'StateStoreError', message: 'what', code: 'CONSTRAINT', retryable: true, cause });
    expect(new StateStoreError('what', { code: 'INTERNAL' }).retryable).toBe(false);
  });

  it.each(['claimBatch', 'releaseBatch', 'getBatchRecords', 'getDistributedStatus', 'tryFinalizeJob', 'reclaimStaleBatches'])(
    '`%s` is in a store, as the engine asks',
    (method) => {
      const store = open('sqlite::memory:');
      expect(method in store).toBe(true);
      expect(typeof store[method]).toBe('function');
    },
  );

  it('a subclass is a store', async () => {
    class Mine extends SqlxStateStore {
      async getJobState(jobId) {
        return (await super.getJobState(jobId)) ?? 'none';
      }
    }
    const store = new Mine('sqlite::memory:');
    onTestFinished(() => store.close());
    await store.initialize();
    expect(store).toBeInstanceOf(Mine);
    expect(await store.getJobState('j')).toBe('none');
  });
});

for (const database of databases) {
  describe(database.name, () => {
    it('`tablePrefix` and `statementCache: 0` change nothing', async () => {
      const fresh = await freshDatabase(database);
      await expectToWork(open(fresh.url, { tablePrefix: 'my_', statementCache: 0 }), database.raw ? fresh : undefined);
    });

    if (database.name === 'sqlite-memory') {
      it.each([
        ['a URL', () => 'sqlite::memory:'],
        ['parts', () => ({ dialect: 'sqlite', storage: ':memory:' })],
        ['a Sequelize instance made from a URL', () => sequelizeOf('sqlite::memory:', { logging: false })],
        ['a Sequelize instance made from options', () => sequelizeOf({ dialect: 'sqlite', storage: ':memory:', logging: false })],
        ['a Sequelize instance that says no more than the dialect', () => sequelizeOf({ dialect: 'sqlite', logging: false })],
      ])('from %s: a database of its own', async (form, connection) => {
        const before = readdirSync('.');
        const store = open(connection());
        const job = await expectToWork(store);
        const other = open(connection());
        await other.initialize();
        expect(await other.getJobState(job.id)).toBeNull();
        expect(await store.getJobState(job.id)).not.toBeNull();
        expect(readdirSync('.')).toStrictEqual(before);
      });

      it('keeps its data however long it is idle, and whatever the pool is told', async () => {
        const store = open('sqlite::memory:', { pool: { max: 5, min: 0, idleTimeoutMs: 20 } });
        const job = await expectToWork(store);
        await new Promise((resolve) => setTimeout(resolve, 300));
        expect(await store.getJobState(job.id)).not.toBeNull();
        const states = await Promise.all(Array.from({ length: 50 }, () => store.getJobState(job.id)));
        expect(states.every((state) => state?.id === job.id)).toBe(true);
      });
      return;
    }

    let db;
    beforeAll(async () => {
      db = await database.create();
    });
    afterAll(() => db?.drop());

    it('from a URL', () => expectToWork(open(db.url), db));

    it('from the URL in parts', () => expectToWork(open(partsOf(db)), db));

    it('from a Sequelize instance made from options', async () => {
      const sequelize = sequelizeOf(sequelizePartsOf(db));
      await expectToShare(open(sequelize), sequelize);
    });

    it('from a Sequelize instance whose pool says nothing', async () => {
      const sequelize = sequelizeOf({ ...sequelizePartsOf(db), pool: {} });
      await expectToShare(open(sequelize), sequelize);
    });

    it('from a Sequelize instance, which it does not need afterwards', async () => {
      const sequelize = new Sequelize(sequelizePartsOf(db));
      const store = open(sequelize);
      await sequelize.close();
      await expectToWork(store, db);
    });

    it('from a Sequelize instance, beside whose transactions and connections it has its own', async () => {
      const sequelize = sequelizeOf(sequelizePartsOf(db));
      const incumbent = new IncumbentLikeStore(sequelize);
      const store = open(sequelize);
      await store.initialize();
      const job = makeLocalJob(3, { id: `beside-${database.name}`, size: 2 });
      if (database.dialect !== 'sqlite') {
        // Not at MySQL's REPEATABLE READ: there an update that finds no row locks the gap where it would be, and with it every insert.
        await sequelize
          .transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.READ_COMMITTED }, async (transaction) => {
            await incumbent.Job.update({ status: 'PAUSED' }, { where: { id: 'nobody' }, transaction });
            await store.saveJobState(job);
            throw new Error('rolled back');
          })
          .catch((error) => expect(error.message).toBe('rolled back'));
      } else {
        // A SQLite file has one writer, and in one process only one of the two may have it open.
        await store.saveJobState(job);
      }
      await store.close();
      expect(await incumbent.getJobState(job.id)).toMatchObject({ id: job.id });
    });

    it('`define.underscored` is refused, in words that help', () => {
      const sequelize = sequelizeOf({ ...sequelizePartsOf(db), define: { underscored: true } });
      const error = thrownBy(() => new SqlxStateStore(sequelize));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT', 'UNSUPPORTED_DATABASE']).toContain(error.code);
      expect(error.message).toMatch(/underscored/);
      expect(error.message).toMatch(/column/i);
      open(sequelizeOf({ ...sequelizePartsOf(db), define: { underscored: false } }));
    });

    it('making one does not connect, and does not create anything', async () => {
      const empty = await freshDatabase(database);
      if (database.dialect === 'sqlite') {
        const file = partsOf(empty).storage;
        const stores = [open(empty.url), open(partsOf(empty)), open(sequelizeOf(sequelizePartsOf(empty)))];
        await new Promise((resolve) => setTimeout(resolve, 100));
        expect(existsSync(file)).toBe(false);
        for (const store of stores) await store.close();
        expect(existsSync(file)).toBe(false);
        return;
      }
      const server = await startServer();
      onTestFinished(() => server.close());
      const place = { ...empty, url: withUrl(empty, (url) => (url.port = String(server.port))) };
      const stores = [
        open(place.url),
        open(partsOf(place)),
        open(sequelizeOf(sequelizePartsOf(place))),
        open(place.url, { pool: { min: 2 }, leaseRenewal: { everyMs: 10, forMs: 1_000 } }),
      ];
      await new Promise((resolve) => setTimeout(resolve, 100));
      for (const store of stores) await store.close();
      expect(server.connections).toBe(0);
    });

    it('exits by itself: an open store keeps no process alive', async () => {
      const file = await freshDatabase(database);
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        console.log(await store.getJobState('nobody'));`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'null\n', stderr: '' });
    });

    it('exits by itself while it holds a claim and renews it', async () => {
      const file = await freshDatabase(database);
      const store = open(file.url);
      await store.initialize();
      await prepare(store, makeJob(3, { id: 'j', size: 2 }));
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)}, { leaseRenewal: { everyMs: 20, forMs: 600_000 }, pool: { min: 2 } });
        const { claimed } = await store.claimBatch('j', 'w');
        await new Promise((resolve) => setTimeout(resolve, 100));
        console.log(claimed);`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'true\n', stderr: '' });
    });

    it('process.exit() in the middle of calls ends in peace', async () => {
      const file = await freshDatabase(database);
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        for (let n = 0; n < 100; n++) store.saveProcessedRecord('j', 'b', { index: n, raw: {}, parsed: {}, status: 'valid', errors: [] });
        setTimeout(() => process.exit(0), 5);`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: '', stderr: '' });
    });

    it('a worker thread that is terminated in the middle of calls takes nothing down', async () => {
      const file = await freshDatabase(database);
      const worker = `
        const { SqlxStateStore } = require(${JSON.stringify(fileURLToPath(INDEX))});
        const { parentPort } = require('node:worker_threads');
        const record = (n) => ({ index: n, raw: { text: 'x'.repeat(200) }, parsed: {}, status: 'valid', errors: [] });
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        const rows = Array.from({ length: 200 }, (_, n) => record(n));
        const loop = async (step) => { for (;;) await step().catch(() => {}); };
        store.getJobState('nobody').then(() => {
          parentPort.postMessage('at work');
          loop(() => store.saveProcessedRecord('j', 'b', record(0)));
          loop(() => store.saveBatchRecords('j', 'b', rows));
          loop(() => store.getBatchRecords('j', 'b'));
          loop(() => store.claimBatch('j', 'w'));
          loop(async () => { for await (const each of store.records('j')) if (each.index > 150) break; });
        });`;
      const result = await runNode(
        `
        import { once } from 'node:events';
        import { Worker } from 'node:worker_threads';
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        for (let round = 0; round < 8; round++) {
          const worker = new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: [] });
          await once(worker, 'message');
          await new Promise((resolve) => setTimeout(resolve, 10 + 7 * round));
          await worker.terminate();
        }
        console.log(await store.getJobState('nobody'));
        await store.close();`,
        { timeout: 170_000 },
      );
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'null\n', stderr: '' });
    });
  });
}

for (const database of servers)
  describe(database.name, () => {
    const mysqlLike = database.dialect !== 'postgres';

    describe('a store on a server', () => {
      let db;
      beforeAll(async () => {
        db = await database.create();
      });
      afterAll(() => db?.drop());

      const schemes = { postgres: ['postgres', 'postgresql'], mysql: ['mysql', 'mariadb'], mariadb: ['mysql', 'mariadb'] }[
        database.dialect
      ];
      it.each(schemes)('from a %s:// URL', (scheme) => expectToWork(open(db.url.replace(/^\w+:/, `${scheme}:`)), db));

      it('from a Sequelize instance made from a URL, whose port is a string', async () => {
        const sequelize = sequelizeOf(db.url.replace(/^\w+:/, `${database.dialect}:`), { logging: false });
        await expectToShare(open(sequelize), sequelize);
      });

      it('from a Sequelize instance made from database, user and password', async () => {
        const { database: name, username, password, ...rest } = sequelizePartsOf(db);
        const sequelize = sequelizeOf(name, username, password ?? null, rest);
        await expectToShare(open(sequelize), sequelize);
      });

      it('from a Sequelize instance made from options, whose port is a string', async () => {
        const parts = sequelizePartsOf(db);
        const sequelize = sequelizeOf({ ...parts, port: String(parts.port) });
        await expectToShare(open(sequelize), sequelize);
      });

      it('from a Sequelize instance with replication: the writer counts', async () => {
        const { dialect, database: name, username, password, host, port } = sequelizePartsOf(db);
        const dead = { host: '127.0.0.1', port: await deadPort() };
        const whole = sequelizeOf({
          dialect,
          logging: false,
          replication: { write: { host, port: String(port), database: name, username, password }, read: [{ ...dead, database: name }] },
        });
        await expectToWork(open(whole), db);
        const inherited = sequelizeOf(name, username, password ?? null, {
          dialect,
          logging: false,
          ...dead,
          replication: { write: { host, port }, read: [dead] },
        });
        await expectToWork(open(inherited), db);
      });

      it('by the socket of the server, in parts and from a Sequelize instance', async (context) => {
        const parts = partsOf(db);
        const rest = without(parts, 'host', 'port');
        if (!mysqlLike) {
          const [{ folders }] = await db.query(`select current_setting('unix_socket_directories') as folders`);
          const folder = folders.split(',')[0].trim();
          if (!folder || !existsSync(join(folder, `.s.PGSQL.${parts.port}`)))
            return context.skip('this server has no socket on this machine');
          const target = `postgres://${encodeURIComponent(parts.user)}@/${parts.database}?host=${encodeURIComponent(folder)}&port=${parts.port}`;
          const login = await connect('postgres', target).catch((error) => error);
          if (login instanceof Error) return context.skip(`nobody may come in by the socket: ${login.message}`);
          await login.end();
          await expectToWork(open({ ...rest, port: parts.port, socketPath: folder }), db);
          const sequelize = sequelizeOf({ ...sequelizePartsOf(db), host: folder });
          return expectToShare(open(sequelize), sequelize);
        }
        const [{ path }] = await db.query('select makesocket as path');
        if (!existsSync(path)) return context.skip('this server has no socket on this machine');
        const user = await createUser(db, { rights: 'all' });
        onTestFinished(() => user.drop());
        const login = { user: user.name, password: user.password };
        await expectToWork(open({ ...rest, ...login, socketPath: path }), db);
        const sequelize = sequelizeOf({
          dialect: database.dialect,
          database: db.name,
          username: user.name,
          password: user.password,
          dialectOptions: { socketPath: path },
          logging: false,
        });
        await expectToShare(open(sequelize), sequelize);
      });

      it('an empty password is none, however it is given', async (context) => {
        const url = new URL(db.url);
        if (url.password) return context.skip('the user of the tests has a password here');
        const { password: _, ...parts } = partsOf(db);
        for (const [connection, options] of [
          [db.url, { password: '' }],
          [db.url, { password: () => '' }],
          [{ ...parts, password: '' }],
          [parts, { password: async () => '' }],
        ]) {
          await expectToWork(open(connection, options), db);
        }
      });

      it('with a password that a URL has to escape', async () => {
        const user = await createUser(db, { rights: 'all', password: `p@s:s/w\\'"rd#?%25 &ü` });
        onTestFinished(() => user.drop());
        // Where the server asks for no password, any will do; that this one was read well, the failures below show.
        const place = { ...db, url: user.url };
        const own = mysqlLike ? {} : { schema: user.name };
        if (!mysqlLike) await db.query(`create schema "${user.name}" authorization "${user.name}"`);
        await open(user.url, own).initialize();
        await open(partsOf(place), own).initialize();
        await open(sequelizeOf(sequelizePartsOf(place)), own).initialize();
        await open(sequelizeOf(user.url.replace(/^\w+:/, `${database.dialect}:`), { logging: false }), own).initialize();
      });

      it('connects at most as often as the pool allows: the option, and what a Sequelize instance says', async () => {
        const fresh = await freshDatabase(database);
        await createTables(fresh);
        const count = mysqlLike
          ? 'select count(*) as n from information_schema.processlist where db = database() and id <> connection_id()'
          : 'select count(*)::int as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()';
        for (const [connection, options] of [
          [fresh.url, { pool: { max: 2 } }],
          [sequelizeOf({ ...sequelizePartsOf(fresh), pool: { max: 2 } }), undefined],
          [sequelizeOf({ ...sequelizePartsOf(fresh), pool: { max: 9 } }), { pool: { max: 2 } }],
        ]) {
          const store = new SqlxStateStore(connection, options);
          const calls = Array.from({ length: 40 }, (_, n) => store.saveJobState(makeLocalJob(3, { id: `j${n}`, size: 2 })));
          await Promise.all(calls);
          const sessions = async () => Number((await fresh.query(count))[0].n);
          const most = await sessions();
          await store.close();
          expect(most).toBeGreaterThan(0);
          expect(most).toBeLessThanOrEqual(2);
          // The server needs a moment to see the end of a connection.
          await expect.poll(sessions, { timeout: 20_000 }).toBe(0);
        }
      });

      it('close() ends the connections', async () => {
        const fresh = await freshDatabase(database);
        const count = mysqlLike
          ? 'select count(*) as n from information_schema.processlist where db = database() and id <> connection_id()'
          : 'select count(*)::int as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()';
        await createTables(fresh);
        // Many stores, for what a store leaves behind is what comes back to its pool while it closes.
        for (let round = 0; round < 20; round++) {
          const store = open(fresh.url);
          await Promise.all(Array.from({ length: 20 }, () => store.getJobState('j')));
          await store.close();
        }
        // The server needs a moment to see the end of a connection.
        await expect.poll(async () => Number((await fresh.query(count))[0].n), { timeout: 10_000 }).toBe(0);
      });

      if (mysqlLike) {
        it('`define.schema` of a Sequelize instance is refused: it would be a part of the names of the tables', () => {
          const error = thrownBy(() => new SqlxStateStore(sequelizeOf({ ...sequelizePartsOf(db), define: { schema: 'imports' } })));
          expect(error).toBeInstanceOf(StateStoreError);
          expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT', 'UNSUPPORTED_DATABASE']).toContain(error.code);
          expect(error.message).toMatch(/schema/);
        });
      } else {
        it('`define.schema` of a Sequelize instance is the schema of the tables', async () => {
          const fresh = await freshDatabase(database);
          const sequelize = sequelizeOf({ ...sequelizePartsOf(fresh), define: { schema: 'imports' } });
          const store = open(sequelize);
          await expectToShare(store, sequelize);
          expect(await listTables(fresh)).toEqual(expect.arrayContaining(TABLES.map((table) => `imports.${table}`)));
          expect((await listTables(fresh)).filter((name) => name.startsWith('public.'))).toStrictEqual([]);
        });

        it('the option `schema` goes before `define.schema`', async () => {
          const fresh = await freshDatabase(database);
          const store = open(sequelizeOf({ ...sequelizePartsOf(fresh), define: { schema: 'theirs' } }), { schema: 'ours' });
          await store.initialize();
          expect((await listTables(fresh)).every((name) => name.startsWith('ours.'))).toBe(true);
        });
      }
    });

    describe('a server that can not be had', () => {
      const SECRET = 's3cret/pass@wörd';
      let db;
      beforeAll(async () => {
        db = await database.create();
      });
      afterAll(() => db?.drop());

      /** The same database, as `url` is after the change, in every form that a store is made from. */
      function inEveryForm(change) {
        const place = { ...db, url: withUrl(db, change) };
        return [
          ['URL', place.url],
          ['parts', partsOf(place)],
          ['Sequelize', sequelizeOf(sequelizePartsOf(place))],
        ];
      }

      it('nobody listens on the port', async () => {
        const port = await deadPort();
        for (const [, connection] of inEveryForm((url) => {
          url.port = String(port);
          url.password = encodeURIComponent(SECRET);
        })) {
          await expectConnectionFailed(open(connection), /refused/i, [SECRET]);
        }
      });

      it('there is no such host', async () => {
        for (const [, connection] of inEveryForm((url) => {
          url.hostname = 'no-such-host.invalid';
          url.password = encodeURIComponent(SECRET);
        })) {
          await expectConnectionFailed(open(connection), /no-such-host\.invalid|lookup|resolve|not known/i, [SECRET]);
        }
      });

      it('there is no such user', async () => {
        for (const [, connection] of inEveryForm((url) => {
          url.username = 'no_such_user';
          url.password = encodeURIComponent(SECRET);
        })) {
          await expectConnectionFailed(open(connection), /no_such_user/, [SECRET], { retryable: false });
        }
      });

      it('the password is wrong', async (context) => {
        const user = await createUser(db, { rights: 'none', password: 'the-right-one' });
        onTestFinished(() => user.drop());
        const wrong = (url) => {
          url.username = user.name;
          url.password = encodeURIComponent(SECRET);
        };
        const login = await connect(database.dialect, withUrl(db, wrong)).catch((error) => error);
        if (!(login instanceof Error)) {
          await login.end();
          return context.skip('this server asks for no password');
        }
        for (const [, connection] of inEveryForm(wrong)) {
          await expectConnectionFailed(open(connection), /password|denied/i, [SECRET, 'the-right-one'], { retryable: false });
        }
      });

      it('there is no such database', async () => {
        for (const [, connection] of inEveryForm((url) => (url.pathname = '/no_such_database'))) {
          await expectConnectionFailed(open(connection), /no_such_database/, [], { retryable: false });
        }
      });

      it('somebody listens and says nothing', async () => {
        const server = await startServer();
        onTestFinished(() => server.close());
        const url = withUrl(db, (each) => {
          each.port = String(server.port);
          each.password = encodeURIComponent(SECRET);
        });
        await expectConnectionFailed(open(url, { connectTimeoutMs: 500 }), /time|500 ?ms/i, [SECRET]);
      });

      it('somebody listens and says nothing: saves of many jobs wait for one answer, and not one after the other', async () => {
        const server = await startServer();
        onTestFinished(() => server.close());
        const options = { connectTimeoutMs: 500, pool: { max: 100 } };
        const store = open(
          withUrl(db, (each) => (each.port = String(server.port))),
          options,
        );
        const record = { index: 0, raw: {}, parsed: {}, status: 'processed', errors: [] };
        const saves = Array.from({ length: 60 }, (_, n) => rejectionOf(store.saveProcessedRecord(`job ${n}`, 'b', record)));
        for (const error of await Promise.all(saves)) expect(error).toMatchObject({ code: 'CONNECTION_FAILED' });
        // MySQL and MariaDB are asked for their version first, in one call; no call tries twice.
        // Which a call that begins after the first answer asks again.
        expect(server.connections).toBeLessThanOrEqual(database.dialect === 'postgres' ? 60 : 5);
      });

      it('somebody listens and hangs up', async () => {
        const server = await startServer((socket) => socket.destroy());
        onTestFinished(() => server.close());
        await expectConnectionFailed(open(withUrl(db, (url) => (url.port = String(server.port)))), /\w/);
      });

      it('somebody listens who is no database', async () => {
        const server = await startServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'));
        onTestFinished(() => server.close());
        await expectConnectionFailed(open(withUrl(db, (url) => (url.port = String(server.port)))), /\w/);
      });

      it('many calls at once all get the reason', async () => {
        const store = open(withUrl(db, (url) => (url.pathname = '/no_such_database')));
        const started = performance.now();
        const errors = await Promise.all(Array.from({ length: 50 }, () => rejectionOf(store.getJobState('j'))));
        expect(performance.now() - started).toBeLessThan(SOON);
        for (const error of errors) {
          expect(error).toMatchObject({ code: 'CONNECTION_FAILED', message: expect.stringContaining('no_such_database') });
        }
      });

      it('and then it comes: the same store works', async () => {
        const fresh = await freshDatabase(database);
        const { host, port } = partsOf(fresh);
        const { store, proxy } = await untilFree(async (door) => {
          const store = open(withUrl(fresh, (url) => (url.port = String(door))));
          await expectConnectionFailed(store, /refused/i);
          return { store, proxy: await startProxy({ host, port }, door) };
        });
        onTestFinished(() => proxy.close());
        await expectToWork(store, fresh);
      });

      it('close() resolves all the same', async () => {
        const port = await deadPort();
        const store = open(withUrl(db, (url) => (url.port = String(port))));
        await rejectionOf(store.getJobState('j'));
        await store.close();
        await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
      });
    });

    describe('encryption', () => {
      let db;
      let offered;
      const forGood = { retryable: false };
      beforeAll(async () => {
        db = await database.create();
        await createTables(db);
        const [row] = mysqlLike ? await db.query(`show variables where variable_name in ('have_ssl')`) : await db.query('show ssl');
        const said = mysqlLike ? row?.Value : row.ssl;
        const [certificate] = mysqlLike ? await db.query(`show variables like 'ssl_cert'`) : [{ Value: 'of the server' }];
        offered = said ? /^(on|yes)$/i.test(said) : Boolean(certificate?.Value);
      });
      afterAll(() => db?.drop());

      /** Whether each connection of a store is encrypted, as the server sees it. */
      async function encrypted(connection, options) {
        const store = new SqlxStateStore(connection, options);
        try {
          await store.getJobState('j');
          const sessions = () =>
            db.query(
              mysqlLike
                ? `select s.variable_value <> '' as tls from performance_schema.status_by_thread s
               join performance_schema.threads t on t.thread_id = s.thread_id
               where s.variable_name = 'Ssl_cipher' and t.processlist_db = database() and t.processlist_id <> connection_id()`
                : `select s.ssl as tls from pg_stat_ssl s join pg_stat_activity a on a.pid = s.pid
               where a.datname = current_database() and a.pid <> pg_backend_pid()`,
            );
          const rows = await sessions();
          expect(rows.length).toBeGreaterThan(0);
          await store.close();
          // The server needs a moment to see the end of a connection, which is not to be taken for one of the next store.
          await expect.poll(async () => (await sessions()).length, { timeout: 20_000 }).toBe(0);
          return rows.every(({ tls }) => Boolean(tls));
        } finally {
          await store.close();
        }
      }

      it('where the server has none, `require` fails with the reason, and `prefer` connects', async (context) => {
        if (offered) return context.skip('this server offers it');
        await expectConnectionFailed(open(db.url, { ssl: { mode: 'require' } }), /tls|ssl/i, [], forGood);
        await expectConnectionFailed(
          open(sequelizeOf({ ...sequelizePartsOf(db), dialectOptions: { ssl: { rejectUnauthorized: false } } })),
          /tls|ssl/i,
          [],
          forGood,
        );
        expect(await open(db.url, { ssl: { mode: 'prefer' } }).getJobState('j')).toBeNull();
        expect(await open(db.url).getJobState('j')).toBeNull();
      });

      it('`disable`, `prefer` and `require` do what they say', async (context) => {
        if (!offered) return context.skip('this server has none');
        expect(await encrypted(db.url, { ssl: { mode: 'disable' } })).toBe(false);
        expect(await encrypted(db.url, { ssl: { mode: 'prefer' } })).toBe(true);
        expect(await encrypted(db.url, { ssl: { mode: 'require' } })).toBe(true);
        expect(await encrypted(db.url)).toBe(true);
      });

      it('`verify-full` refuses a certificate that nobody known has signed', async (context) => {
        if (!offered) return context.skip('this server has none');
        await expectConnectionFailed(open(db.url, { ssl: { mode: 'verify-full' } }), /certificate|issuer/i, [], forGood);
      });

      it('what a Sequelize instance says in `dialectOptions.ssl` counts', async (context) => {
        if (!offered) return context.skip('this server has none');
        const withSsl = (ssl) => sequelizeOf({ ...sequelizePartsOf(db), dialectOptions: { ssl } });
        expect(await encrypted(withSsl({ require: true, rejectUnauthorized: false }))).toBe(true);
        expect(await encrypted(withSsl({ rejectUnauthorized: false }))).toBe(true);
        await expectConnectionFailed(open(withSsl({ rejectUnauthorized: true })), /certificate|issuer/i, [], forGood);
      });
    });
  });

describe('a SQLite file', () => {
  it('sqlite:relative.db is in the working folder', async () => {
    const folder = temporaryFolder();
    const source = `
      const store = new SqlxStateStore('sqlite:relative.db');
      await store.initialize();
      await store.close();`;
    expect(await runNode(source, { cwd: folder })).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(folder)).toContain('relative.db');
  });

  it('sqlite:///absolute.db is where it says', async () => {
    const file = join(temporaryFolder(), 'absolute.db');
    await open(`sqlite://${file}`).initialize();
    expect(existsSync(file)).toBe(true);
  });

  it('a file name is taken as it is where it is not a URL', async () => {
    const folder = temporaryFolder();
    const name = 'a b?mode=memory%20ü#1.db';
    await open({ dialect: 'sqlite', storage: join(folder, name) }).initialize();
    expect(readdirSync(folder)).toContain(name);
    const sequelize = sequelizeOf({ dialect: 'sqlite', storage: join(folder, 's q?mode=memory%20ü#2.db'), logging: false });
    await expectToShare(open(sequelize), sequelize);
  });

  it('a Sequelize instance made from a URL names the file that Sequelize itself opens', async () => {
    const folder = temporaryFolder();
    for (const url of [`sqlite:${folder}/one.db`, `sqlite://${folder}/two.db`]) {
      const sequelize = sequelizeOf(url, { logging: false });
      await expectToShare(open(sequelize), sequelize);
    }
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(['one.db', 'two.db']));
  });

  it('a relative one too', async () => {
    const folder = temporaryFolder();
    const source = `
      import { createRequire } from 'node:module';
      const { Sequelize } = createRequire(${JSON.stringify(import.meta.url)})('sequelize');
      for (const url of ['sqlite:relative.db', 'sqlite:./dotted.db']) {
        const sequelize = new Sequelize(url, { logging: false });
        const store = new SqlxStateStore(sequelize);
        await store.initialize();
        await store.close();
        const [rows] = await sequelize.query('select count(*) as n from batchactions_jobs');
        console.log(rows[0].n);
        await sequelize.close();
      }`;
    expect(await runNode(source, { cwd: folder, env: { NODE_NO_WARNINGS: '1' } })).toMatchObject({ code: 0, stdout: '0\n0\n', stderr: '' });
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(['relative.db', 'dotted.db']));
  });

  const twice = 'that another SQLite library in this process has open is refused, and works once it is closed there';
  if (process.platform !== 'linux') {
    it.skip(`${twice}: exempt, which files a process has open can be seen on Linux only`);
  } else {
    it(twice, async () => {
      const file = join(temporaryFolder(), 'twice.db');
      const sequelize = new Sequelize({ dialect: 'sqlite', storage: file, logging: false });
      onTestFinished(() => sequelize.close().catch(() => {}));
      await new IncumbentLikeStore(sequelize).initialize();
      const link = `${file}-link`;
      symlinkSync(file, link);
      const stores = [`sqlite://${file}`, { dialect: 'sqlite', storage: link }, sequelize].map((connection) => open(connection));
      const reason = /another SQLite library in this process has .*twice\.db.* open/i;
      await Promise.all(stores.map((store) => expectConnectionFailed(store, reason)));
      await sequelize.close();
      for (const store of stores) await expectToWork(store);
    });
  }

  it('in a folder that does not exist: rejects with the reason, in every form', async () => {
    const file = join(temporaryFolder(), 'no-such-folder', 'x.db');
    const sequelize = new Sequelize({ dialect: 'sqlite', storage: file, logging: false });
    for (const connection of [`sqlite://${file}`, { dialect: 'sqlite', storage: file }, sequelize]) {
      await expectConnectionFailed(open(connection), /no-such-folder.*does not exist/i, [], { retryable: false });
    }
    expect(existsSync(file)).toBe(false);
  });

  it('that is a folder: rejects with the reason', async () => {
    await expectConnectionFailed(open({ dialect: 'sqlite', storage: temporaryFolder() }), /unable to open|directory/i, [], {
      retryable: false,
    });
  });
});

describe('what no store is made from', () => {
  it.each([
    '',
    'nonsense',
    '//host/db',
    'postgres',
    'postgres://host:notaport/db',
    'mysql://host:99999/db',
    'sqlite',
    // Which of the two is meant, nobody can tell.
    'postgres://u@host/db?ssl=true&sslmode=prefer',
    'postgres://u@host/db?sslmode=verify-full&sslmode=disable',
    'mysql://u@host/db?ssl-mode=disable&ssl=1',
  ])('the URL %j: INVALID_CONNECTION', (url) => {
    const error = thrownBy(() => new SqlxStateStore(url));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ code: 'INVALID_CONNECTION', retryable: false });
  });

  it.each(['mssql://sa@localhost/db', 'oracle://localhost/db', 'mongodb://localhost/db', 'http://localhost/'])(
    'the URL %s: UNSUPPORTED_DATABASE, and the message names the kind',
    (url) => {
      const error = thrownBy(() => new SqlxStateStore(url));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', retryable: false, message: expect.stringContaining(url.split(':')[0]) });
    },
  );

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['a number', 42],
    ['an empty object', {}],
    ['a list', ['postgres://localhost/db']],
    ['a function', () => 'postgres://localhost/db'],
    ['parts without a dialect', { host: 'localhost', database: 'db' }],
  ])('%s', (name, connection) => {
    const error = thrownBy(() => new SqlxStateStore(connection));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT']).toContain(error.code);
  });

  it.each([
    ['prot', { dialect: 'postgres', prot: 5432 }],
    ['port', { dialect: 'postgres', port: 70_000 }],
    ['port', { dialect: 'postgres', port: 0 }],
    ['host', { dialect: 'mysql', host: 5 }],
    ['database', { dialect: 'mysql', database: {} }],
    ['user', { dialect: 'mariadb', user: 5 }],
    ['password', { dialect: 'mariadb', password: 5 }],
    ['storage', { dialect: 'sqlite', storage: 5 }],
  ])('parts of which `%s` is not right are refused, and it is named: %j', (name, connection) => {
    const error = thrownBy(() => new SqlxStateStore(connection));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT']).toContain(error.code);
    expect(error.message).toContain(name);
  });

  it('parts of a foreign dialect: UNSUPPORTED_DATABASE', () => {
    const error = thrownBy(() => new SqlxStateStore({ dialect: 'mssql', host: 'localhost' }));
    expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', message: expect.stringContaining('mssql') });
  });

  // Their drivers are not installed here, so that Sequelize itself refuses: the shape is what counts.
  it.each(['mssql', 'oracle', 'db2', 'snowflake', 'ibmi'])('a Sequelize instance for %s: UNSUPPORTED_DATABASE', (dialect) => {
    const config = { host: 'localhost', port: 1433, database: 'db', username: 'sa', password: 'x', pool: {} };
    const foreign = { config, options: { dialect, define: {}, dialectOptions: {} }, getDialect: () => dialect };
    const error = thrownBy(() => new SqlxStateStore(foreign));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', retryable: false, message: expect.stringContaining(dialect) });
  });

  it.each([
    'postgres://u:SECRET@host:notaport/db',
    'mysql://u:SECRET@host:99999/db',
    'mssql://u:SECRET@host/db',
    'postgres//u:SECRET@host/db',
    'u:SECRET@host',
  ])('the error for %s does not hold the password', (url) => {
    const error = thrownBy(() => new SqlxStateStore(url.replace('SECRET', 'hunter2%21')));
    expect(error).toBeInstanceOf(StateStoreError);
    expectNoSecret(error, ['hunter2']);
  });

  it('the class is called without `new`', () => {
    expect(() => SqlxStateStore('sqlite::memory:')).toThrow();
  });
});

describe('the options', () => {
  const REFUSED = [
    ['unknown', { unknown: 1 }],
    ['Pool', { Pool: {} }],
    ['maximum', { pool: { maximum: 3 } }],
    ['every', { leaseRenewal: { every: 5, forMs: 10 } }],
    ['rejectUnauthorized', { ssl: { rejectUnauthorized: false } }],
    ['schema', { schema: 5 }],
    ['schema', { schema: '' }],
    ['pool', { pool: 5 }],
    ['pool', { pool: [] }],
    ['max', { pool: { max: 0 } }],
    ['max', { pool: { max: 1_001 } }],
    ['max', { pool: { max: 1.5 } }],
    ['max', { pool: { max: '3' } }],
    ['max', { pool: { max: NaN } }],
    ['min', { pool: { min: -1 } }],
    ['min', { pool: { max: 2, min: 3 } }],
    ['acquireTimeoutMs', { pool: { acquireTimeoutMs: -1 } }],
    ['acquireTimeoutMs', { pool: { acquireTimeoutMs: '5' } }],
    ['idleTimeoutMs', { pool: { idleTimeoutMs: -1 } }],
    ['connectTimeoutMs', { connectTimeoutMs: -1 }],
    ['connectTimeoutMs', { connectTimeoutMs: '5000' }],
    ['statementTimeoutMs', { statementTimeoutMs: -1 }],
    ['statementTimeoutMs', { statementTimeoutMs: NaN }],
    ['statementTimeoutMs', { statementTimeoutMs: true }],
    ['ssl', { ssl: true }],
    ['mode', { ssl: { mode: 'sometimes' } }],
    ['ca', { ssl: { ca: 5 } }],
    ['statementCache', { statementCache: -1 }],
    ['statementCache', { statementCache: 10_001 }],
    ['statementCache', { statementCache: 0.5 }],
    ['statementCache', { statementCache: '0' }],
    ['durability', { durability: 'sometimes' }],
    ['durability', { durability: 1 }],
    ['leaseRenewal', { leaseRenewal: true }],
    ['leaseRenewal', { leaseRenewal: 5_000 }],
    ['everyMs', { leaseRenewal: { everyMs: 0, forMs: 10 } }],
    ['everyMs', { leaseRenewal: { everyMs: '5', forMs: 10 } }],
    ['everyMs', { leaseRenewal: { forMs: 10 } }],
    ['forMs', { leaseRenewal: { everyMs: 5 } }],
    ['forMs', { leaseRenewal: { everyMs: 5, forMs: -10 } }],
    ['maxClaims', { maxClaims: 0 }],
    ['maxClaims', { maxClaims: -1 }],
    ['maxClaims', { maxClaims: 1.5 }],
    ['maxClaims', { maxClaims: '3' }],
    ['tablePrefix', { tablePrefix: 5 }],
  ];

  it.each(REFUSED)('`%s` is not right in %o: INVALID_ARGUMENT that names it', (name, options) => {
    for (const url of ['postgres://localhost/db', 'mysql://localhost/db']) {
      const error = thrownBy(() => new SqlxStateStore(url, options));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', retryable: false });
      expect(error.message).toContain(name);
    }
  });

  it.each([
    ['a number', 5],
    ['a text', 'x'],
    ['a list', []],
    ['a function', () => {}],
  ])('%s instead of options: INVALID_ARGUMENT', (name, options) => {
    expect(thrownBy(() => new SqlxStateStore('postgres://localhost/db', options))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it.each([
    [undefined],
    [{}],
    [{ schema: undefined, pool: undefined, ssl: undefined, leaseRenewal: undefined, maxClaims: undefined, durability: undefined }],
    [{ pool: {} }],
    [{ pool: { max: 1 } }],
    [{ pool: { max: 1_000, min: 0, acquireTimeoutMs: 1, idleTimeoutMs: 1 } }],
    [{ pool: { max: undefined } }],
    [{ schema: 'imports' }],
    [{ connectTimeoutMs: 1, statementTimeoutMs: 1 }],
    [{ ssl: {} }],
    [{ ssl: { mode: 'disable' } }],
    [{ ssl: { mode: 'prefer' } }],
    [{ ssl: { mode: 'require' } }],
    [{ statementCache: 0 }],
    [{ statementCache: 10_000 }],
    [{ durability: 'record' }],
    [{ durability: 'batch' }],
    [{ leaseRenewal: { everyMs: 1_000, forMs: 60_000 } }],
    [{ maxClaims: 1 }],
    [{ tablePrefix: 'my_' }],
  ])('%o are accepted', (options) => {
    open('postgres://localhost/db', options);
  });

  it('the object is read once: changing it later changes nothing', async () => {
    const options = { pool: { max: 1 }, tablePrefix: 'x_' };
    const store = open('sqlite::memory:', options);
    options.pool.max = 'nonsense';
    options.unknown = true;
    await store.initialize();
    expect(await store.getJobState('j')).toBeNull();
  });
});

for (const database of databases)
  describe(database.name, () => {
    describe('the end of a store', () => {
      async function openFresh() {
        const store = open((await freshDatabase(database)).url);
        await store.initialize();
        return store;
      }

      it('close() may be called again, and at the same time', async () => {
        const store = await openFresh();
        await Promise.all([store.close(), store.close()]);
        expect(await store.close()).toBeUndefined();
      });

      it('close() of a store that never connected', async () => {
        const db = await freshDatabase(database);
        await open(db.url).close();
      });

      it('Symbol.asyncDispose closes it', async () => {
        const store = await openFresh();
        expect(typeof store[Symbol.asyncDispose]).toBe('function');
        expect(await store[Symbol.asyncDispose]()).toBeUndefined();
        await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
        await store[Symbol.asyncDispose]();
      });

      it('calls under way are done first', async () => {
        const store = await openFresh();
        const saves = Array.from({ length: 20 }, (_, n) => store.saveProcessedRecord('j', 'b', makeRecord(n, { status: 'pending' })));
        const closed = store.close();
        await expect(Promise.all(saves)).resolves.toHaveLength(20);
        await closed;
      });

      it('every further call rejects with CLOSED', async () => {
        const store = await openFresh();
        await store.close();
        const calls = [
          () => store.initialize(),
          () => store.saveJobState(makeLocalJob(3, { id: 'j', size: 2 })),
          () => store.getJobState('j'),
          () => store.updateBatchState('j', 'b', { batchId: 'b', status: 'COMPLETED', processedCount: 0, failedCount: 0 }),
          () => store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' })),
          () => store.saveBatchRecords('j', 'b', [makeRecord(0, { status: 'pending' })]),
          () => store.getFailedRecords('j'),
          () => store.getPendingRecords('j'),
          () => store.getProcessedRecords('j'),
          () => store.getBatchRecords('j', 'b'),
          () => store.records('j').next(),
          () => store.getProgress('j'),
          () => store.claimBatch('j', 'w'),
          () => store.releaseBatch('j', 'b', 'w'),
          () => store.renewBatch('j', 'b', 'w'),
          () => store.reclaimStaleBatches('j', 1_000),
          () => store.getDistributedStatus('j'),
          () => store.tryFinalizeJob('j'),
          () => store.listJobs(),
          () => store.deleteJob('j'),
        ];
        for (const call of calls) {
          const error = await rejectionOf(call());
          expect(error).toBeInstanceOf(StateStoreError);
          expect(error, String(call)).toMatchObject({ code: 'CLOSED', retryable: false });
        }
      });
    });
  });

describe('what a store shows of itself', () => {
  it.each([
    ['a URL', 'postgres://somebody:hunter2%21x@127.0.0.1:1/db'],
    ['parts', { dialect: 'mysql', host: '127.0.0.1', port: 1, user: 'somebody', password: 'hunter2!x', database: 'db' }],
    ['a Sequelize instance', new Sequelize('mariadb://somebody:hunter2%21x@127.0.0.1:1/db', { logging: false })],
  ])('made from %s: no password', async (form, connection) => {
    const store = open(connection);
    expectNoSecret(store, ['hunter2!x', 'hunter2']);
    expect(await rejectionOf(store.getJobState('j'))).toMatchObject({ code: 'CONNECTION_FAILED' });
    expectNoSecret(store, ['hunter2!x', 'hunter2']);
  });
});
