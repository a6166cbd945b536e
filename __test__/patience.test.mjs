// A transient failure costs time and no call: a server that restarts, is read-only for a while, or has no connection left; and prepared statements that a
// server has dropped or that are out of date.

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { serverDialects } from './support/dialects/index.mjs';
import { databasesWith } from './support/databases.mjs';
import { createOwnDatabase } from './support/own-accounts.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { deadPort } from './support/servers.mjs';
import { storeOn } from './support/store.mjs';
import { makeJob, makeRecord, makeState, newId } from './support/fixtures.mjs';
import { claim, collect, complete, freshDatabase, openStore, rejection } from './support/suite.mjs';

const long = { timeout: 120_000 };

async function ownDatabase(dialect) {
  const server = await startOwnServer(dialect);
  onTestFinished(() => server.end());
  return { server, database: await createOwnDatabase(dialect, server.url) };
}

async function openOn(url, options) {
  const store = storeOn(url, options);
  onTestFinished(() => store.close());
  await store.initialize();
  return store;
}

/** Every method that a running import calls, each on what only it touches. */
async function prepareCalls(store) {
  const jobs = {};
  for (const name of ['plain', 'read', 'claims', 'held', 'stale', 'gone', 'ended']) {
    jobs[name] = makeJob(2, name === 'plain' ? { distributed: undefined } : {});
    await store.saveJobState(jobs[name]);
  }
  const held = await claim(store, jobs.held.id);
  const released = await claim(store, jobs.held.id);
  await claim(store, jobs.stale.id);
  for (let n = 0; n < 2; n++) await complete(store, jobs.ended.id, (await claim(store, jobs.ended.id)).batchId);
  const records = newId();
  await store.saveBatchRecords(records, 'b', [makeRecord(0), makeRecord(1, { status: 'failed' })]);
  const { plain, read, claims, stale, gone, ended } = jobs;
  return {
    initialize: () => store.initialize(),
    saveJobState: () => store.saveJobState(makeJob(3)),
    getJobState: async () => expect(await store.getJobState(read.id)).toStrictEqual(read),
    updateBatchState: () => store.updateBatchState(jobs.held.id, held.batchId, makeState(held.batchId, 'COMPLETED', 10)),
    'updateBatchState of a batch in the list': () => complete(store, plain.id, plain.batches[0].id),
    saveProcessedRecord: () => store.saveProcessedRecord(newId(), 'b', makeRecord(0)),
    'saveProcessedRecord of a claimed batch': () => store.saveProcessedRecord(jobs.held.id, held.batchId, makeRecord(0)),
    saveBatchRecords: () =>
      store.saveBatchRecords(
        newId(),
        'b',
        [0, 1, 2].map((index) => makeRecord(index)),
      ),
    getFailedRecords: async () => expect(await store.getFailedRecords(records)).toHaveLength(1),
    getPendingRecords: () => store.getPendingRecords(records),
    getProcessedRecords: () => store.getProcessedRecords(records),
    getBatchRecords: async () => expect(await store.getBatchRecords(records, 'b')).toHaveLength(2),
    records: async () => expect(await collect(store.records(records))).toHaveLength(2),
    getProgress: () => store.getProgress(plain.id),
    claimBatch: () => claim(store, claims.id),
    releaseBatch: () => store.releaseBatch(jobs.held.id, released.batchId, 'worker'),
    reclaimStaleBatches: () => store.reclaimStaleBatches(stale.id, 0),
    getDistributedStatus: () => store.getDistributedStatus(ended.id),
    tryFinalizeJob: async () => expect(await store.tryFinalizeJob(ended.id)).toBe(true),
    listJobs: () => store.listJobs(),
    deleteJob: async () => expect(await store.deleteJob(gone.id)).toBe(true),
  };
}

describe.each(serverDialects)('$name', (dialect) => {
  const onThisServer = onOwnServer(dialect, long);

  describe('a server that is away for four seconds', () => {
    onThisServer('costs no call that is made meanwhile, of any kind', async () => {
      const { server, database } = await ownDatabase(dialect);
      const store = await openOn(database.url);
      const calls = await prepareCalls(store);
      await server.stop();
      // Idle connections are tried from now on before they are used, so that no claim is sent on one that is dead.
      await sleep(1_100);
      const made = Object.entries(calls).map(async ([name, call]) => [
        name,
        await call().catch((error) => `${error.code}: ${error.message}`),
      ]);
      await sleep(3_000);
      await server.start();
      const failed = (await Promise.all(made)).filter(([, outcome]) => typeof outcome === 'string');
      expect(failed).toEqual([]);
    });

    onThisServer('costs no call that is under way', async () => {
      const { server, database } = await ownDatabase(dialect);
      const store = await openOn(database.url);
      const job = makeJob(2_000);
      await store.saveJobState(job);
      const end = new AbortController();
      const saved = [];
      const lost = [];
      const repeat = async (call) => {
        for (let n = 0; !end.signal.aborted; n++) await call(n);
      };
      const loops = [
        repeat(async (n) => {
          await store.saveProcessedRecord(job.id, 'b', makeRecord(n));
          saved.push(n);
        }),
        repeat(async () => expect(await store.getJobState(job.id)).toMatchObject({ id: job.id })),
        repeat(() => store.getBatchRecords(job.id, 'none')),
        repeat(async () => {
          // A claim whose reply is lost may have been made, so the store does not repeat it.
          const held = await claim(store, job.id).catch((error) => void lost.push(error.code));
          if (held) await complete(store, job.id, held.batchId);
        }),
      ];
      await sleep(300);
      await server.restart(4_000);
      await sleep(300);
      end.abort();
      await Promise.all(loops);
      expect([[], ['CONNECTION_LOST']]).toContainEqual(lost);
      const stored = (await store.getBatchRecords(job.id, 'b')).map(({ index }) => index);
      expect(stored).toEqual(saved);
      const claimed = (await store.getDistributedStatus(job.id)).processingBatches;
      expect(claimed).toBeLessThanOrEqual(lost.length);
    });
  });

  describe('a server that accepts no writes for two seconds', () => {
    /** Resolves once a connection that was open before can't write, or can. */
    const turned = async (database, url, on) => {
      const other = await dialect.connect(url);
      await dialect.setReadOnly(database, on);
      const canWrite = () =>
        other.query('delete from "batchactions_jobs" where "id" = ?', ['none']).then(
          () => true,
          () => false,
        );
      await expect.poll(canWrite, { timeout: 20_000 }).toBe(!on);
      await other.end();
    };

    onThisServer('costs no write; reads go on', async () => {
      const { database } = await ownDatabase(dialect);
      await database.createUser('worker', 'pw');
      const url = database.urlOf('worker', 'pw');
      const store = await openOn(url);
      const job = makeJob(2);
      await store.saveJobState(job);
      await turned(database, url, true);
      const writes = [
        store.saveProcessedRecord(job.id, 'b', makeRecord(0)),
        store.saveBatchRecords(newId(), 'b', [makeRecord(1)]),
        claim(store, job.id),
        store.saveJobState(makeJob(1)),
      ];
      expect(await store.getJobState(job.id)).toMatchObject({ id: job.id });
      await sleep(2_000);
      await turned(database, url, false);
      await Promise.all(writes);
      expect(await store.getProcessedRecords(job.id)).toHaveLength(1);
    });

    onThisServer('is PERMISSION_DENIED and may be tried again where it stays so', async () => {
      const { database } = await ownDatabase(dialect);
      await database.createUser('worker', 'pw');
      const url = database.urlOf('worker', 'pw');
      const store = await openOn(url, { statementTimeoutMs: 1_500 });
      await turned(database, url, true);
      const error = await rejection(store.saveProcessedRecord('j', 'b', makeRecord(0)), 'PERMISSION_DENIED');
      expect(error.retryable).toBe(true);
      await turned(database, url, false);
      await store.saveProcessedRecord('j', 'b', makeRecord(0));
    });
  });

  describe('a user who may have three connections', () => {
    onThisServer('makes a fourth call wait for one of them', async () => {
      const { database } = await ownDatabase(dialect);
      await database.createUser('few', 'pw', { connections: 3 });
      const admin = await dialect.connect(database.url);
      onTestFinished(() => admin.end());
      const store = await openOn(database.urlOf('few', 'pw'));
      const ids = [newId(), newId(), newId()];
      for (const id of ids) await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await admin.query('begin');
      await admin.query('select 1 from "batchactions_records" for update');
      const stuck = ids.map((id) => store.saveProcessedRecord(id, 'b', makeRecord(0, { status: 'failed' })));
      await sleep(500);
      // There are ten places in the pool, and no connection for seven of them.
      const fourth = Promise.all([store.getProcessedRecords(ids[0]), store.getProcessedRecords(ids[1]), store.listJobs()]);
      await sleep(1_000);
      await admin.query('rollback');
      await Promise.all(stuck);
      expect((await fourth).slice(0, 2).flat().length).toBeLessThanOrEqual(2);
      expect(await store.getFailedRecords(ids[2])).toHaveLength(1);
    });

    onThisServer('and has none left: CONNECTION_FAILED after `acquireTimeoutMs`', async () => {
      const { database } = await ownDatabase(dialect);
      await database.createUser('few', 'pw', { connections: 3 });
      const url = database.urlOf('few', 'pw');
      const first = storeOn(url);
      await first.initialize();
      await first.close();
      const others = [];
      // A server may take a moment to forget a connection that was closed.
      const another = () => dialect.connect(url).then((other) => others.push(other));
      while (others.length < 3) await another().catch(() => sleep(50));
      const store = storeOn(url, { pool: { acquireTimeoutMs: 1_000 } });
      onTestFinished(() => store.close());
      const error = await rejection(store.listJobs(), 'CONNECTION_FAILED');
      expect(error).toMatchObject({ retryable: true, message: expect.stringContaining('acquireTimeoutMs') });
      const waiting = storeOn(url, { pool: { acquireTimeoutMs: 20_000 } });
      onTestFinished(() => waiting.close());
      const listed = waiting.listJobs();
      await Promise.all(others.map((other) => other.end()));
      expect(await listed).toEqual([]);
    });
  });

  describe('a server that keeps no more prepared statements', () => {
    onOwnServer(dialect, { ...long, needs: 'preparedStatementLimit' })('costs no call', async () => {
      const { database } = await ownDatabase(dialect);
      const store = await openOn(database.url, { pool: { max: 3 } });
      await database.query('set global max_prepared_stmt_count = 8');
      const calls = Object.entries(await prepareCalls(store)).map(([, call]) => call());
      await Promise.all(calls);
      const [{ Value: prepared }] = await database.query(`show global status like 'Com_stmt_prepare'`);
      expect(Number(prepared)).toBeGreaterThan(20);
    });
  });
});

for (const database of databasesWith('columnTypesChange')) {
  test(`${database.name}: a column that is widened under a busy store costs no call`, async () => {
    const db = await freshDatabase(database);
    const store = openStore(db, { pool: { max: 6 } });
    await store.initialize();
    const job = makeJob(60);
    await store.saveJobState(job);
    await store.saveBatchRecords(job.id, 'b', [makeRecord(0)]);
    const round = () =>
      Promise.all(
        Array.from({ length: 24 }, async () => {
          await store.getJobState(job.id);
          await store.getBatchRecords(job.id, 'b');
          await store.listJobs();
          await claim(store, job.id).then(({ batchId }) => store.releaseBatch(job.id, batchId, 'worker'));
        }),
      );
    for (let n = 0; n < 3; n++) await round();
    for (const [table, column, type] of [
      ['batchactions_records', 'processingError', 'varchar(5000)'],
      ['batchactions_records', 'status', 'varchar(40)'],
      ['batchactions_batches', 'workerId', 'text'],
      ['batchactions_jobs', 'status', 'text'],
    ]) {
      await db.query(`alter table "${table}" alter column "${column}" type ${type}`);
      await round();
    }
  });
}

test('a server that refuses the first connection of a store is CONNECTION_FAILED at once', async () => {
  const store = storeOn(`postgres://u@127.0.0.1:${await deadPort()}/d`);
  onTestFinished(() => store.close());
  const error = await rejection(store.getJobState('j'), 'CONNECTION_FAILED');
  expect(error.retryable).toBe(true);
});
