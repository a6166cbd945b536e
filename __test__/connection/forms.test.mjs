// What a store is made from: URLs, parts and Sequelize instances. Each connects where it says, and not before the first call.

import { existsSync, readdirSync } from 'node:fs';
import { Sequelize, Transaction } from 'sequelize';
import { beforeAll, afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { createTables, listTables, TABLES } from '../support/catalogue.mjs';
import { open, sequelizeOf, partsOf, sequelizePartsOf, withUrl, expectToWork, expectToShare, thrownBy } from '../support/connections.mjs';
import { databases } from '../support/databases.mjs';
import { makeLocalJob } from '../support/fixtures.mjs';
import { IncumbentLikeStore } from '../support/sequelize-models.mjs';
import { deadPort, startServer } from '../support/servers.mjs';
import { freshDatabase, needs, onDatabasesWith } from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';

for (const database of databases) {
  describe(database.name, () => {
    it('`tablePrefix` and `statementCache: 0` change nothing', async () => {
      const fresh = await freshDatabase(database);
      await expectToWork(open(fresh.url, { tablePrefix: 'my_', statementCache: 0 }), database.has('raw') ? fresh : undefined);
    });

    if (database.has('memory')) {
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

      it('keeps its data however long it is idle, and whatever the options of the pool are', async () => {
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
      if (database.has('server')) {
        // Not at MySQL's REPEATABLE READ: there an update that finds no row locks the gap where it would be, and with it every insert.
        await sequelize
          .transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.READ_COMMITTED }, async (transaction) => {
            await incumbent.Job.update({ status: 'PAUSED' }, { where: { id: 'missing' }, transaction });
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
      if (database.has('file')) {
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
  });
}

onDatabasesWith('server', (database) => {
  describe('a store on a server', () => {
    let db;
    beforeAll(async () => {
      db = await database.create();
    });
    afterAll(() => db?.drop());

    it.each(database.dialect.schemes)('from a %s:// URL', (scheme) => expectToWork(open(db.url.replace(/^\w+:/, `${scheme}:`)), db));

    it('from a Sequelize instance made from a URL, whose port is a string', async () => {
      const sequelize = sequelizeOf(db.url.replace(/^\w+:/, `${database.dialect.name}:`), { logging: false });
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
      let user;
      const newUser = async () => {
        user = await createUser(db, { rights: 'all' });
        onTestFinished(() => user.drop());
        return user;
      };
      const socket = await database.dialect.socketOf(db, partsOf(db), newUser);
      if (socket.reason) return context.skip(socket.reason);
      await expectToWork(open(socket.parts), db);
      const sequelize = sequelizeOf({ ...socket.sequelize, logging: false });
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
      // Where the server asks for no password, any will do; `password.test.mjs` has servers that ask for it.
      const place = { ...db, url: user.url };
      // Each user has tables of its own where there is a place for them.
      const own = database.has('schemas') ? { schema: user.name } : {};
      if (database.has('schemas')) await db.query(`create schema "${user.name}" authorization "${user.name}"`);
      const bySequelizeUrl = sequelizeOf(user.url.replace(/^\w+:/, `${database.dialect.name}:`), { logging: false });
      for (const connection of [user.url, partsOf(place), sequelizeOf(sequelizePartsOf(place)), bySequelizeUrl]) {
        await expectToWork(open(connection, own));
      }
    });

    it('connects at most as often as the pool allows: the option, and what a Sequelize instance says', async () => {
      const fresh = await freshDatabase(database);
      await createTables(fresh);
      for (const [connection, options] of [
        [fresh.url, { pool: { max: 2 } }],
        [sequelizeOf({ ...sequelizePartsOf(fresh), pool: { max: 2 } }), undefined],
        [sequelizeOf({ ...sequelizePartsOf(fresh), pool: { max: 9 } }), { pool: { max: 2 } }],
      ]) {
        const store = new SqlxStateStore(connection, options);
        const calls = Array.from({ length: 40 }, (_, n) => store.saveJobState(makeLocalJob(3, { id: `j${n}`, size: 2 })));
        await Promise.all(calls);
        const sessions = async () => (await database.dialect.sessions(fresh)).length;
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
      await createTables(fresh);
      // Many stores, for what a store leaves behind is what comes back to its pool while it closes.
      for (let round = 0; round < 20; round++) {
        const store = open(fresh.url);
        await Promise.all(Array.from({ length: 20 }, () => store.getJobState('j')));
        await store.close();
      }
      // The server needs a moment to see the end of a connection.
      await expect.poll(async () => (await database.dialect.sessions(fresh)).length, { timeout: 10_000 }).toBe(0);
    });

    needs(database, '!schemas')('`define.schema` of a Sequelize instance is refused: it would be a part of the names of the tables', () => {
      const error = thrownBy(() => new SqlxStateStore(sequelizeOf({ ...sequelizePartsOf(db), define: { schema: 'imports' } })));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT', 'UNSUPPORTED_DATABASE']).toContain(error.code);
      expect(error.message).toMatch(/schema/);
    });

    needs(database, 'schemas')('`define.schema` of a Sequelize instance is the schema of the tables', async () => {
      const fresh = await freshDatabase(database);
      const sequelize = sequelizeOf({ ...sequelizePartsOf(fresh), define: { schema: 'imports' } });
      const store = open(sequelize);
      await expectToShare(store, sequelize);
      expect(await listTables(fresh)).toEqual(expect.arrayContaining(TABLES.map((table) => `imports.${table}`)));
      expect((await listTables(fresh)).filter((name) => name.startsWith('public.'))).toStrictEqual([]);
    });

    needs(database, 'schemas')('the option `schema` goes before `define.schema`', async () => {
      const fresh = await freshDatabase(database);
      const store = open(sequelizeOf({ ...sequelizePartsOf(fresh), define: { schema: 'theirs' } }), { schema: 'ours' });
      await store.initialize();
      expect((await listTables(fresh)).every((name) => name.startsWith('ours.'))).toBe(true);
    });
  });
});
