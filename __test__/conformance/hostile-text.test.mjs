// Text that looks like SQL stays text: in ids, worker ids, JSON, errors and options, on the way in, in every statement that looks for it, and on the way
// back. What stands beside it stays as it was.

import { describe, expect, onTestFinished, test } from 'vitest';
import { TABLES } from '../support/catalogue.mjs';
import { makeBatch, makeJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, collect, onEveryDatabase, rejection, SqlxStateStore } from '../support/suite.mjs';

/** At most 16 characters each, so that they fit into an id behind one that is unique. */
const HOSTILE = [
  `'; drop table x`,
  `'); delete from`,
  `" or 1=1 --`,
  `' or ''='`,
  `'||(select 1)||'`,
  '/*',
  '*/',
  '-- ',
  '#',
  ';',
  '`',
  `\\'`,
  '\\',
  `\\\\"`,
  '$$',
  '$1',
  '?',
  '?1',
  ':x',
  '@a',
  '%',
  '_',
  '%s%n',
  '${1}',
  '{}',
  '[0]',
  `''`,
  `'`,
  '"',
  `E'\\x27'`,
  '\x1a\b\t\n',
  ' lead',
  'é/ß',
  '＇；',
  'null',
  'NULL--',
];

onEveryDatabase((on) => {
  describe('text that looks like SQL', () => {
    test.each(HOSTILE)('%j stays text in every call, and what stands beside it stays as it was', async (text) => {
      const bystander = makeJob(1);
      await on.store.saveJobState(bystander);
      await on.store.saveBatchRecords(bystander.id, bystander.batches[0].id, [makeRecord(0)]);
      const beside = async () => [await on.store.getJobState(bystander.id), await collect(on.store.records(bystander.id))];
      const before = await beside();

      const [id, batchId] = [`${newId('')}${text}`, `${newId('')}${text}`];
      const config = { batchSize: 10, [text]: text, schema: { fields: [{ name: text, type: text, required: true }] } };
      const job = makeJob(0, { id, config, batches: [makeBatch(id, 0, { id: batchId }), makeBatch(id, 1, { id: `${batchId}2` })] });
      await on.store.saveJobState(job);
      expect(await on.store.getJobState(id)).toEqual(job);
      expect((await on.store.listJobs({ limit: 1, after: { id: `${text}~`, startedAt: job.startedAt + 1 } }))[0]).toBeDefined();

      const record = (index, status = 'valid') =>
        makeRecord(index, {
          raw: { [text]: text },
          parsed: [text],
          status,
          errors: [{ field: text, message: text, code: text, value: text }],
          processingError: text,
        });
      await on.store.saveProcessedRecord(id, batchId, record(0));
      await on.store.saveBatchRecords(id, batchId, [record(1), record(2, 'failed')]);
      expect(await on.store.getBatchRecords(id, batchId)).toEqual([record(0), record(1), record(2, 'failed')]);
      expect(await on.store.getPendingRecords(id)).toEqual([record(0), record(1)]);
      expect(await on.store.getFailedRecords(id)).toEqual([record(2, 'failed')]);
      expect(await on.store.getProcessedRecords(id)).toEqual([]);
      expect(await collect(on.store.records(id, { batchId, from: 1, status: ['failed'] }))).toEqual([record(2, 'failed')]);
      for (const status of [text, [text]]) await rejection(on.store.records(id, { status }).next(), 'INVALID_ARGUMENT');
      expect(await on.store.getProgress(id)).toMatchObject({ failedRecords: 1, totalBatches: 2 });

      expect(await claim(on.store, id, text)).toMatchObject({ jobId: id, batchId, workerId: text });
      expect(await on.store.renewBatch(id, batchId, text)).toBe(true);
      expect(await on.store.renewBatch(id, batchId, `${text}'`)).toBe(false);
      expect(await on.store.reclaimStaleBatches(id, 3_600_000)).toBe(0);
      await on.store.releaseBatch(id, batchId, text);
      const { token } = await claim(on.store, id, text);
      await on.store.saveProcessedRecord(id, batchId, record(0, 'processed'), { token });
      await rejection(on.store.updateBatchState(id, batchId, makeState(batchId, text)), 'INVALID_ARGUMENT');
      await on.store.updateBatchState(id, batchId, makeState(batchId, 'COMPLETED', 1, 0));
      await on.store.updateBatchState(id, `${batchId}2`, makeState(`${batchId}2`, 'COMPLETED', 1, 0));
      expect((await on.store.getJobState(id)).batches[0]).toMatchObject({ status: 'COMPLETED', workerId: text });
      expect(await on.store.getDistributedStatus(id)).toMatchObject({ jobId: id, completedBatches: 2 });
      expect(await on.store.tryFinalizeJob(id)).toBe(true);
      await rejection(on.store.saveJobState({ ...job, status: text }), 'INVALID_ARGUMENT');
      expect(await on.store.deleteJob(id)).toBe(true);
      expect(await on.store.getJobState(id)).toBeNull();
      expect(await collect(on.store.records(id))).toEqual([]);
      expect(await beside()).toEqual(before);
    });

    const serverOnly = on.needs('server');

    serverOnly('stays text in the name of the database, in a URL and in parts', async () => {
      const name = `${on.own.name}_'";--/*$1?:x \\\``;
      // In double quotes, in which a ? is no parameter.
      await on.query(`create database "${name.replaceAll('"', '""')}"`);
      onTestFinished(() => on.dialect.dropDatabase(on, name));
      const url = new URL(on.url);
      url.pathname = `/${encodeURIComponent(name)}`;
      const { hostname: host, port } = url;
      const login = { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
      const parts = { dialect: on.dialect.name, host, ...(port && { port: Number(port) }), ...login, database: name };
      for (const connection of [url.href, parts]) {
        const store = new SqlxStateStore(connection);
        try {
          await store.initialize();
          const job = makeJob(1);
          await store.saveJobState(job);
          expect(await store.getJobState(job.id)).toEqual(job);
        } finally {
          await store.close();
        }
      }
    });

    on.needs('schemas')('stays text in the option schema', async () => {
      const own = await on.createEmpty();
      for (const schema of [...HOSTILE, `public"."x`, 'a.b', 'Public', `s"; drop schema public cascade; --`, 'x'.repeat(63)]) {
        const store = new SqlxStateStore(own.url, { schema });
        try {
          await store.initialize();
          await store.initialize();
          const job = makeJob(1);
          await store.saveJobState(job);
          expect(await store.getJobState(job.id)).toEqual(job);
          const tables = await own.query('select tablename as name from pg_tables where schemaname = ? order by 1', [schema]);
          expect(tables.map(({ name }) => name)).toEqual(TABLES.toSorted());
        } finally {
          await store.close();
        }
      }
      expect(await own.query(`select 1 from pg_tables where schemaname = 'public'`)).toEqual([]);
      expect(await own.query(`select 1 from pg_namespace where nspname = 'public'`)).toHaveLength(1);
    });

    on.needs('applicationName')('stays text in the parameter application_name', async () => {
      for (const text of HOSTILE.filter((each) => /^[ -~]+$/.test(each))) {
        const url = new URL(on.url);
        url.searchParams.set('application_name', text);
        const store = new SqlxStateStore(url.href);
        try {
          await store.getJobState('j');
          const found = await on.query('select 1 from pg_stat_activity where datname = current_database() and application_name = ?', [
            text,
          ]);
          expect(found, text).toHaveLength(1);
        } finally {
          await store.close();
        }
      }
    });
  });
});
