// Encryption on the servers that are there. `tls.test.mjs` has servers with certificates of its own.

import { beforeAll, afterAll, describe, expect, it } from 'vitest';
import { SqlxStateStore } from '../../index.js';
import { createTables } from '../support/catalogue.mjs';
import { open, sequelizeOf, sequelizePartsOf, expectConnectionFailed } from '../support/connections.mjs';
import { onDatabasesWith } from '../support/suite.mjs';

onDatabasesWith('server', (database) => {
  describe('encryption', () => {
    let db;
    let offered;
    const forGood = { retryable: false };
    beforeAll(async () => {
      db = await database.create();
      await createTables(db);
      offered = await database.dialect.offersTls(db);
    });
    afterAll(() => db?.drop());

    /** Whether each connection of a store is encrypted, as the server sees it. */
    async function encrypted(connection, options) {
      const store = new SqlxStateStore(connection, options);
      try {
        await store.getJobState('j');
        const sessions = () => database.dialect.encryptedSessions(db);
        const rows = await sessions();
        expect(rows.length).toBeGreaterThan(0);
        await store.close();
        // The server needs a moment to see the end of a connection, which is not to be taken for one of the next store.
        await expect.poll(async () => (await sessions()).length, { timeout: 20_000 }).toBe(0);
        return rows.every(Boolean);
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

    it('`verify-full` refuses a certificate that no known authority has signed', async (context) => {
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
