// A server that can’t be reached, or that refuses the login: known soon, with the reason, and whether another try may help.

import { beforeAll, afterAll, describe, expect, it, onTestFinished } from 'vitest';
import {
  open,
  sequelizeOf,
  partsOf,
  sequelizePartsOf,
  withUrl,
  expectToWork,
  rejectionOf,
  SOON,
  expectConnectionFailed,
} from '../support/connections.mjs';
import { deadPort, startProxy, startServer, untilFree } from '../support/servers.mjs';
import { freshDatabase, onDatabasesWith } from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';

onDatabasesWith('server', (database) => {
  describe('a server that can not be reached', () => {
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

    it('no server listens on the port: CONNECTION_FAILED, refused', async () => {
      const port = await deadPort();
      for (const [, connection] of inEveryForm((url) => {
        url.port = String(port);
        url.password = encodeURIComponent(SECRET);
      })) {
        await expectConnectionFailed(open(connection), /refused/i, [SECRET]);
      }
    });

    it('there is no such host: CONNECTION_FAILED that names it', async () => {
      for (const [, connection] of inEveryForm((url) => {
        url.hostname = 'no-such-host.invalid';
        url.password = encodeURIComponent(SECRET);
      })) {
        await expectConnectionFailed(open(connection), /no-such-host\.invalid|lookup|resolve|not known/i, [SECRET]);
      }
    });

    it('there is no such user: CONNECTION_FAILED that names it, and is not retryable', async () => {
      for (const [, connection] of inEveryForm((url) => {
        url.username = 'no_such_user';
        url.password = encodeURIComponent(SECRET);
      })) {
        await expectConnectionFailed(open(connection), /no_such_user/, [SECRET], { retryable: false });
      }
    });

    it('the password is wrong: CONNECTION_FAILED that shows no password, and is not retryable', async (context) => {
      const user = await createUser(db, { rights: 'none', password: 'the-right-one' });
      onTestFinished(() => user.drop());
      const wrong = (url) => {
        url.username = user.name;
        url.password = encodeURIComponent(SECRET);
      };
      const login = await database.dialect.connect(withUrl(db, wrong)).catch((error) => error);
      if (!(login instanceof Error)) {
        await login.end();
        return context.skip('this server asks for no password');
      }
      for (const [, connection] of inEveryForm(wrong)) {
        await expectConnectionFailed(open(connection), /password|denied/i, [SECRET, 'the-right-one'], { retryable: false });
      }
    });

    it('there is no such database: CONNECTION_FAILED that names it, and is not retryable', async () => {
      for (const [, connection] of inEveryForm((url) => (url.pathname = '/no_such_database'))) {
        await expectConnectionFailed(open(connection), /no_such_database/, [], { retryable: false });
      }
    });

    it('a server that says nothing: CONNECTION_FAILED after connectTimeoutMs', async () => {
      const server = await startServer();
      onTestFinished(() => server.close());
      const url = withUrl(db, (each) => {
        each.port = String(server.port);
        each.password = encodeURIComponent(SECRET);
      });
      await expectConnectionFailed(open(url, { connectTimeoutMs: 500 }), /time|500 ?ms/i, [SECRET]);
    });

    it('a server that says nothing: saves of many jobs wait for one answer, and not one after the other', async () => {
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
      // No call tries twice. A server that is asked for its version first is asked in one call, which a call that begins after the first answer
      // makes again.
      expect(server.connections).toBeLessThanOrEqual(database.has('versionProbe') ? 5 : 60);
    });

    it('a server that hangs up: CONNECTION_FAILED', async () => {
      const server = await startServer((socket) => socket.destroy());
      onTestFinished(() => server.close());
      await expectConnectionFailed(open(withUrl(db, (url) => (url.port = String(server.port)))), /\w/);
    });

    it('a server that is no database: CONNECTION_FAILED', async () => {
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

    it('once the server is there, the same store works', async () => {
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

    it('close() resolves without a server', async () => {
      const port = await deadPort();
      const store = open(withUrl(db, (url) => (url.port = String(port))));
      await rejectionOf(store.getJobState('j'));
      await store.close();
      await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
    });
  });
});
