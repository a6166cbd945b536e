// A message says who did what to which thing, and what to do about it, whatever the database itself says.

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished } from 'vitest';
import { startQuietableProxy } from '../support/servers.mjs';
import { storeOn } from '../support/store.mjs';
import { createUser } from '../support/users.mjs';
import { makeBatch, makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { onEveryDatabase, openStore, rejection, urlThrough } from '../support/suite.mjs';

onEveryDatabase((on) => {
  /** A database of the test's own with tables, and a store on it. */
  const fresh = async () => {
    const db = await on.createEmpty();
    const store = storeOn(db.url);
    await store.initialize();
    return { db, store };
  };

  describe('ids of records', () => {
    on.needs('sequences')('that a sequence gives twice: the message says how to set the sequence', async () => {
      const { db, store } = await fresh();
      await db.query(
        `insert into batchactions_records ("id", "jobId", "batchId", "recordIndex", "status", "raw", "parsed")
         select n, 'j', 'b', n, 'pending', '{}', '{}' from generate_series(1, 3) n`,
      );
      for (const save of [
        () => store.saveProcessedRecord('k', 'b', makeRecord(0)),
        () => store.saveBatchRecords('k', 'b', [makeRecord(0), makeRecord(1)]),
      ]) {
        await db.query(`select setval(pg_get_serial_sequence('batchactions_records', 'id'), 1, false)`);
        const error = await rejection(save(), 'CONSTRAINT');
        const statement = /run (select setval\(.*\)\)): /.exec(error.message)?.[1];
        expect(statement, error.message).toBeDefined();
        await db.query(statement);
        await save();
      }
      await store.close();
    });

    on.needs('sequences')('that are used up: the message says so', async () => {
      const { db, store } = await fresh();
      await db.query(`select setval(pg_get_serial_sequence('batchactions_records', 'id'), 2147483647)`);
      const error = await rejection(store.saveProcessedRecord('k', 'b', makeRecord(0)), 'DATABASE_ERROR');
      expect(error.message).toContain('bigint');
      await store.close();
    });
  });

  describe('a right that the user lacks', () => {
    /** A store of a user who may do less than its `call` needs: it is refused with the database and the table. */
    const refused = async (limit, call) => {
      const { db, store } = await fresh();
      await store.close();
      const user = await createUser(db, { rights: 'data' });
      onTestFinished(() => user.drop());
      await limit(db, user);
      const limited = openStore({ url: user.url });
      const error = await rejection(call(limited), 'PERMISSION_DENIED');
      expect(error.retryable).toBe(false);
      expect(error.message).toContain(db.name);
      return error;
    };

    on.needs('tableRights')('to a table is PERMISSION_DENIED, with the database and the table', async () => {
      const error = await refused(
        (db, user) => db.query(`revoke all on batchactions_jobs from "${user.name}"`),
        (store) => store.getJobState('j'),
      );
      expect(error.message).toMatch(/batchactions_/);
    });

    on.needs('server')('to make tables is PERMISSION_DENIED, with the database', async () => {
      const error = await refused(
        (db) => db.query('drop table "batchactions_batches"'),
        (store) => store.initialize(),
      );
      if (!on.has('tableRights')) expect(error.message).toMatch(/batchactions_/);
    });
  });

  describe('text in a table of another character set', () => {
    on.needs('columnCharsets')('is refused with the statement that converts the table', async () => {
      const { db, store } = await fresh();
      await db.query('alter table batchactions_records convert to character set latin1');
      await db.query('alter table batchactions_records modify raw text character set latin1 not null');
      const error = await rejection(store.saveProcessedRecord('j', 'b', makeRecord(0, { raw: { text: '漢😀' } })), 'INVALID_ARGUMENT');
      expect(error.message).toMatch(/alter table\s+batchactions_records convert to character set utf8mb4/);
      expect(error.retryable).toBe(false);
      await store.close();
    });
  });

  describe('a value that can not be read', () => {
    on.needs('raw', 'rowTypeErrors')('is named with its table, its column and its type', async () => {
      const { db, store } = await fresh();
      const job = makeJob(1);
      await store.saveJobState(job);
      const column = await on.dialect.storeUnreadable(db);
      const error = await rejection(store.getJobState(job.id), 'TABLES_INCOMPATIBLE');
      expect(error.message).toContain(column);
      expect(error.message).toMatch(/of type (BLOB|TEXT)/);
      expect(error.message).not.toContain('column 0');
      await store.close();
    });
  });

  describe('ids of batches that differ only in case', () => {
    on.needs('caseInsensitiveIds')('are one id to the database, and the message says so', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(1, { id, batches: [makeBatch(id, 0, { id: `${id}-a` })] }));
      for (const index of [0, 1]) {
        const error = await rejection(
          on.store.saveJobState(makeJob(1, { id, batches: [makeBatch(id, index, { id: `${id}-A` })] })),
          'CONSTRAINT',
        );
        expect(error.message).toContain('collation');
        expect(error.message).toContain(`${id}-a`);
        expect(error.message).not.toContain('has that index');
      }
    });
  });

  describe('a connection that is lost', () => {
    on.needs('server')('is reported in words about the server, not about a library', async () => {
      const proxy = await startQuietableProxy(on.address);
      onTestFinished(() => proxy.close());
      const store = storeOn(urlThrough(proxy.port, on.url), { pool: { max: 1 } });
      onTestFinished(() => store.close());
      const job = makeJob(4);
      await store.saveJobState(job);
      proxy.silence({ replies: true });
      // Nothing comes back of it, so that it is lost in the middle. Of a batch that the store did not claim, it is not repeated.
      const releasing = rejection(store.releaseBatch(job.id, job.batches[0].id, 'w'), 'CONNECTION_LOST');
      await sleep(200);
      proxy.cut();
      const error = await releasing;
      expect(error.message).toContain(on.own.name);
      expect(error.message).not.toMatch(/https?:|docs\.rs|close_notify|rustls/);
    });
  });
});
