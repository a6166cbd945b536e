// Guarantees of `durability: 'batch'`: a save resolves once it is queued, and nothing else is any less certain.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { INDEX } from '../support/run-node.mjs';
import { makeBatch, makeJob, makeLocalJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';

const range = (count) => Array.from({ length: count }, (_, index) => index);

onEveryDatabase((on) => {
  const open = () => on.open({ durability: 'batch' });
  /** What has been written, as another connection sees it. */
  const written = async (jobId) => (await on.query('select count(*) as "n" from "batchactions_records" where "jobId" = ?', [jobId]))[0].n;
  /** Makes the database refuse records with this index. */
  const refuse = (own, index) => on.dialect.refuseRows(own, 'records', `"recordIndex" = ${index}`);
  /** A database that refuses records with the index 13, until `accept`. */
  const refusing = async () => {
    const own = await on.createEmpty();
    const store = new SqlxStateStore(own.url, { durability: 'batch' });
    onTestFinished(() => store.close().catch(() => {}));
    await store.initialize();
    return { own, store, accept: await refuse(own, 13) };
  };
  /** What the database says of that, as it says it. */
  const refused = async (promise) => {
    const error = await promise.then(
      () => expect.fail('it resolved'),
      (reason) => reason,
    );
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error.message).toContain('record 13');
    expect(error.retryable).toBe(false);
    return error;
  };

  describe('a save', () => {
    test('is written soon, without another call', async () => {
      const store = await open();
      const id = newId();
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      if (on.has('raw')) await expect.poll(() => written(id).then(Number), { timeout: 10_000 }).toBe(1);
      expect(await store.getBatchRecords(id, 'b')).toEqual([makeRecord(0)]);
    });

    on.needs('rowLocks')('resolves while the database is busy with another', async () => {
      const store = await open();
      const id = newId();
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await store.getProgress(id);
      const other = await on.lockRows('records', '"jobId" = ?', [id]);
      await store.saveProcessedRecord(id, 'b', makeRecord(0, { status: 'failed' }));
      for (const index of range(500)) await store.saveProcessedRecord(id, 'b', makeRecord(index + 1));
      await other.query('rollback');
      expect(await store.getProgress(id)).toMatchObject({ processedRecords: 500, failedRecords: 1 });
    });

    test('of one save after another leaves the event loop its turns', async () => {
      const store = await open();
      const id = newId();
      const loop = { turns: 0 };
      const timer = setInterval(() => loop.turns++, 1);
      for (let n = 0; loop.turns < 3; n++) {
        await store.saveProcessedRecord(id, 'b', makeRecord(n));
        expect(n).toBeLessThan(100_000);
      }
      clearInterval(timer);
    });

    on.needs('raw')('is written without another call also while another job is busy, or can not be written', async () => {
      const store = await open();
      const [busy, quiet] = [newId(), newId()];
      const ended = new AbortController();
      const producer = (async () => {
        for (let n = 0; !ended.signal.aborted; n++) await store.saveProcessedRecord(busy, 'b', makeRecord(n % 100));
      })();
      await sleep(100);
      await store.saveProcessedRecord(quiet, 'b', makeRecord(0));
      await expect.poll(() => written(quiet).then(Number), { timeout: 10_000 }).toBe(1);
      ended.abort();
      await producer;

      if (!on.has('rowLocks')) return;
      await store.getProgress(busy);
      const other = await on.lockRows('records', '"jobId" = ?', [busy]);
      await store.saveProcessedRecord(busy, 'b', makeRecord(0));
      await store.saveProcessedRecord(quiet, 'b', makeRecord(1));
      await expect.poll(() => written(quiet).then(Number), { timeout: 10_000 }).toBe(2);
      await other.query('rollback');
    });

    test('of one record after another keeps the last', async () => {
      const store = await open();
      const id = newId();
      for (const n of range(300)) await store.saveProcessedRecord(id, 'b', makeRecord(n % 3, { raw: { n } }));
      expect((await store.getBatchRecords(id, 'b')).map(({ raw }) => raw.n)).toEqual([297, 298, 299]);
    });
  });

  describe('what was queued is committed before any other call on the job', () => {
    const job = makeJob(2);
    const batchId = job.batches[0].id;
    const calls = {
      saveJobState: (store, id) => store.saveJobState({ ...job, id, batches: [] }),
      getJobState: (store, id) => store.getJobState(id),
      // Of an unknown job it would be queued itself: the store knows this one as distributed.
      updateBatchState: (store, id) => store.updateBatchState(id, batchId, makeState(batchId, 'PROCESSING')),
      saveBatchRecords: (store, id) => store.saveBatchRecords(id, batchId, [makeRecord(1_000)]),
      getFailedRecords: (store, id) => store.getFailedRecords(id),
      getPendingRecords: (store, id) => store.getPendingRecords(id),
      getProcessedRecords: (store, id) => store.getProcessedRecords(id),
      getBatchRecords: (store, id) => store.getBatchRecords(id, batchId),
      records: (store, id) => collect(store.records(id)),
      getProgress: (store, id) => store.getProgress(id),
      claimBatch: (store, id) => store.claimBatch(id, 'w'),
      releaseBatch: (store, id) => store.releaseBatch(id, batchId, 'w'),
      renewBatch: (store, id) => store.renewBatch(id, batchId, 'w'),
      reclaimStaleBatches: (store, id) => store.reclaimStaleBatches(id, 1_000),
      getDistributedStatus: (store, id) => store.getDistributedStatus(id),
      tryFinalizeJob: (store, id) => store.tryFinalizeJob(id),
    };
    for (const [name, call] of Object.entries(calls)) {
      on.needs('shared')(name, async () => {
        const store = await open();
        const id = newId();
        await store.saveJobState({ ...job, id, batches: [] });
        for (const index of range(150)) await store.saveProcessedRecord(id, batchId, makeRecord(index));
        await call(store, id);
        // Another store sees them: they are committed, and not only seen by the call.
        expect((await on.store.getProgress(id)).processedRecords).toBe(name === 'saveBatchRecords' ? 151 : 150);
      });
    }

    test('deleteJob: nothing comes back after it', async () => {
      const store = await open();
      const id = newId();
      for (const index of range(150)) await store.saveProcessedRecord(id, 'b', makeRecord(index));
      expect(await store.deleteJob(id)).toBe(true);
      await sleep(100);
      expect(await store.getBatchRecords(id, 'b')).toEqual([]);
    });

    on.needs('shared')('and before close() resolves', async () => {
      const store = await open();
      const ids = range(5).map(() => newId());
      for (const id of ids) for (const index of range(100)) await store.saveProcessedRecord(id, 'b', makeRecord(index));
      await store.close();
      for (const id of ids) expect(await on.store.getBatchRecords(id, 'b')).toHaveLength(100);
    });
  });

  describe('a record that can not be stored', () => {
    on.needs('shared')('fails alone, and its failure sticks to its batch until it is saved again', async () => {
      const { store, accept } = await refusing();
      const batches = [makeBatch('x', 0, { id: newId('b') }), makeBatch('x', 1, { id: newId('b') })];
      const job = makeJob(0, { distributed: undefined, batches });
      const [bad, good] = batches.map(({ id }) => id);
      await store.saveJobState(job);
      // The refused one last: once its failure is known, the next save of its batch says so.
      for (const index of [0, 2, 13]) await store.saveProcessedRecord(job.id, bad, makeRecord(index));
      await store.saveProcessedRecord(job.id, good, makeRecord(3));
      // Reads only wait.
      expect((await collect(store.records(job.id))).map(({ index }) => index)).toEqual([0, 2, 3]);

      expect((await refused(store.saveProcessedRecord(job.id, bad, makeRecord(4)))).message).toContain(JSON.stringify(bad));
      await store.saveProcessedRecord(job.id, good, makeRecord(5));
      // The job can't go on: nothing of it is queued.
      await refused(store.updateBatchState(job.id, bad, makeState(bad, 'COMPLETED', 3, 0)));
      await refused(store.updateBatchState(job.id, good, makeState(good, 'COMPLETED', 2, 0)));
      const done = { ...job, batches: batches.map((batch) => ({ ...batch, status: 'COMPLETED', processedCount: 3 })) };
      await refused(store.saveJobState(done));
      expect((await store.getJobState(job.id)).batches).toEqual(batches);

      // It can end: the batch is stored as FAILED, although the engine has marked it as done.
      const stored = () => store.getJobState(job.id);
      for (const status of ['PAUSED', 'FAILED']) {
        await store.saveJobState({ ...done, status });
        expect(await stored()).toMatchObject({ status, batches: [{ ...done.batches[0], status: 'FAILED' }, done.batches[1]] });
      }
      await refused(store.saveJobState({ ...done, status: 'COMPLETED' }));
      expect(await stored()).toMatchObject({ status: 'FAILED', batches: [{ status: 'FAILED' }, { status: 'COMPLETED' }] });

      // It is not the saving that counts, but the record.
      await store.saveProcessedRecord(job.id, bad, makeRecord(13));
      await store.getProgress(job.id);
      await refused(store.saveJobState(done));
      await accept();
      await store.saveProcessedRecord(job.id, bad, makeRecord(13));
      await store.getProgress(job.id);
      await store.updateBatchState(job.id, bad, makeState(bad, 'COMPLETED', 3, 0));
      await store.saveJobState(done);
      expect(await stored()).toMatchObject({ status: 'PROCESSING', batches: done.batches });
    });

    on.needs('shared')('that is queued with the end of its batch stores the batch as FAILED', async () => {
      const { store } = await refusing();
      const job = makeLocalJob(2);
      const [bad, good] = job.batches.map(({ id }) => id);
      const done = job.batches.map((batch) => ({ ...batch, status: 'COMPLETED', processedCount: 1 }));
      await store.saveProcessedRecord(job.id, bad, makeRecord(13));
      await store.updateBatchState(job.id, bad, makeState(bad, 'COMPLETED', 1, 0));
      await store.saveProcessedRecord(job.id, good, makeRecord(14));
      await store.saveJobState({ ...job, batches: done });
      await store.updateBatchState(job.id, bad, makeState(bad, 'COMPLETED', 1, 0));
      expect((await store.getJobState(job.id)).batches.map(({ status }) => status)).toEqual(['FAILED', 'COMPLETED']);
      expect((await store.getBatchRecords(job.id, good)).map(({ index }) => index)).toEqual([14]);
    });

    on.needs('shared')('is mended by saving it first, and then the others, or under another batch', async () => {
      const { own, store, accept } = await refusing();
      const id = newId();
      await store.saveProcessedRecord(id, 'b', makeRecord(13));
      await store.getProgress(id);
      await accept();
      await refused(store.saveProcessedRecord(id, 'b', makeRecord(12)));
      await refused(store.saveBatchRecords(id, 'b', [makeRecord(12)]));
      // No call in between.
      for (const index of [13, 11, 12, 14]) await store.saveProcessedRecord(id, 'b', makeRecord(index));
      expect((await store.getBatchRecords(id, 'b')).map(({ index }) => index)).toEqual([11, 12, 13, 14]);

      await refuse(own, 113);
      await store.saveProcessedRecord(id, 'c', makeRecord(113));
      await store.getProgress(id);
      await accept();
      // As the engine does that takes an import up again: under a new batch.
      await store.saveProcessedRecord(id, 'd', makeRecord(113));
      await store.close();
    });

    on.needs('shared')('is the next holder’s concern once its batch is given back', async () => {
      const { store } = await refusing();
      const job = makeJob(2);
      await store.saveJobState(job);
      const held = await claim(store, job.id);
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(13));
      await rejection(store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED')), expect.any(String));
      await store.releaseBatch(job.id, held.batchId, 'worker');
      await store.close();
    });

    on.needs('shared')('does not let a distributed batch be completed, nor its row be stored as COMPLETED', async () => {
      const { store } = await refusing();
      const job = makeJob(0);
      const batches = [makeBatch(job.id, 0, { status: 'PROCESSING' })];
      await store.saveProcessedRecord(job.id, batches[0].id, makeRecord(13));
      await store.saveJobState({ ...job, batches: [{ ...batches[0], status: 'COMPLETED' }] });
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ failedBatches: 1, completedBatches: 0 });
    });

    on.needs('shared')('is mended by saving the batch in bulk, too', async () => {
      const { store, accept } = await refusing();
      const id = newId();
      await store.saveProcessedRecord(id, 'b', makeRecord(13));
      await store.getProgress(id);
      await refused(store.saveProcessedRecord(id, 'b', makeRecord(0)));
      await accept();
      await store.saveBatchRecords(id, 'b', [makeRecord(0), makeRecord(13)]);
      await store.saveProcessedRecord(id, 'b', makeRecord(2));
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(3);
      await store.close();
    });

    on.needs('shared')('makes close() reject, once everything else is stored and the connections are ended', async () => {
      const { store, own } = await refusing();
      const id = newId();
      for (const index of range(20).toSorted((a, b) => (a === 13) - (b === 13)))
        await store.saveProcessedRecord(id, 'b', makeRecord(index));
      await refused(store.close());
      await refused(store.close());
      expect(await own.query('select "recordIndex" from "batchactions_records"')).toHaveLength(19);
    });

    on.needs('shared')('is forgotten with its job', async () => {
      const { store, own } = await refusing();
      const id = newId();
      await store.saveProcessedRecord(id, 'b', makeRecord(13));
      await store.deleteJob(id);
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await store.close();
      expect(await own.query('select "recordIndex" from "batchactions_records"')).toHaveLength(1);
    });

    on.needs('shared')('fails alone also where each save waits for its commit', async () => {
      const { own } = await refusing();
      const store = new SqlxStateStore(own.url);
      onTestFinished(() => store.close());
      const id = newId();
      const saves = await Promise.allSettled(range(60).map((index) => store.saveProcessedRecord(id, 'b', makeRecord(index))));
      expect(saves.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))).toEqual([13]);
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(59);
      // Nothing sticks: the caller was told.
      await store.saveProcessedRecord(id, 'b', makeRecord(60));
    });
  });

  describe('a claim that is lost while saves of it are queued', () => {
    on.needs('shared')('costs these saves and the completion; the next claim starts without failures', async () => {
      const store = await open();
      const job = makeJob(1);
      await store.saveJobState(job);
      const held = await claim(store, job.id);
      // What another process does to a batch whose worker it takes for dead.
      await on.query(`update "batchactions_batches" set "status" = 'PENDING', "version" = "version" + 1 where "id" = ?`, [held.batchId]);
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await rejection(store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 1, 0)), 'LEASE_LOST');
      await rejection(store.saveProcessedRecord(job.id, held.batchId, makeRecord(1)), 'LEASE_LOST');
      expect(await store.getBatchRecords(job.id, held.batchId)).toEqual([]);
      await claim(store, job.id);
      for (const index of range(10)) await store.saveProcessedRecord(job.id, held.batchId, makeRecord(index));
      await complete(store, job.id, held.batchId);
      expect(await store.tryFinalizeJob(job.id)).toBe(true);
      expect(await store.getBatchRecords(job.id, held.batchId)).toHaveLength(10);
    });
  });

  describe('a queued save of a claim that is past', () => {
    test('costs the present holder nothing, on the same store', async () => {
      const store = await open();
      const job = makeJob(1);
      await store.saveJobState(job);
      const old = await claim(store, job.id, 'old');
      await store.releaseBatch(job.id, old.batchId, 'old');
      const present = await claim(store, job.id, 'present');
      const { batchId } = present;
      await store.saveProcessedRecord(job.id, batchId, makeRecord(0, { status: 'failed' }), { token: old.token });
      await store.saveProcessedRecord(job.id, batchId, makeRecord(1), { token: present.token });
      await store.getProgress(job.id);
      await store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: present.token });
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: old.token }), 'LEASE_LOST');
      await store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 2, 0), { token: present.token });
      expect(await store.getBatchRecords(job.id, batchId)).toEqual([makeRecord(0), makeRecord(1)]);
      await store.close();
    });
  });

  describe('a queued save with a token that no claim had yet', () => {
    on.needs('shared')('is lost, and the token stays refused in this store', async () => {
      const store = await open();
      const job = makeJob(1);
      await store.saveJobState(job);
      const batchId = job.batches[0].id;
      await store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: 1 });
      await store.getProgress(job.id);
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: 1 }), 'LEASE_LOST');
      expect(await store.getBatchRecords(job.id, batchId)).toEqual([]);
      // Through another store, so that this one doesn't know of the claim.
      expect((await claim(on.store, job.id)).token).toBe(1);
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(1), { token: 1 }), 'LEASE_LOST');
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(2), { token: 1 });
      expect(await store.getBatchRecords(job.id, batchId)).toEqual([makeRecord(2)]);
      // So does a lower token that is lost later.
      await on.store.releaseBatch(job.id, batchId, 'worker');
      const { token } = await claim(on.store, job.id);
      expect(token).toBe(3);
      await store.saveProcessedRecord(job.id, batchId, makeRecord(3), { token: 2 });
      await store.getProgress(job.id);
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(3), { token: 2 }), 'LEASE_LOST');
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(3), { token: 1 }), 'LEASE_LOST');
    });
  });

  describe('a producer that is faster than the database', () => {
    on.needs('shared')('is slowed down, not buffered without end', async () => {
      const store = await open();
      const id = newId();
      const text = 'x'.repeat(100_000);
      let resolved = 0;
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await store.getProgress(id);
      // Nothing can be written meanwhile.
      const other = await (on.has('rowLocks') ? on.lockRows('records', '"jobId" = ?', [id]) : on.begin());
      const saves = range(400).map((index) =>
        store.saveProcessedRecord(id, 'b', makeRecord(index, { raw: { text } })).then(() => resolved++),
      );
      await sleep(500);
      // 16 MB are queued at most, and 4 MB under way.
      expect(resolved).toBeGreaterThan(50);
      expect(resolved).toBeLessThan(250);
      await other.query('rollback');
      await Promise.all(saves);
      expect((await store.getProgress(id)).processedRecords).toBe(400);
    });
  });

  describe('the process', () => {
    on.needs('shared')('stays alive until what was queued is written, without close()', async () => {
      const id = newId();
      const script = `
        const { SqlxStateStore } = require(${JSON.stringify(new URL(INDEX).pathname)});
        const store = new SqlxStateStore(${JSON.stringify(on.url)}, { durability: 'batch' });
        (async () => {
          for (let index = 0; index < 250; index++) {
            await store.saveProcessedRecord(${JSON.stringify(id)}, 'b', { index, raw: {}, parsed: {}, status: 'processed', errors: [] });
          }
        })();`;
      await promisify(execFile)(process.execPath, ['-e', script]);
      expect(await on.store.getBatchRecords(id, 'b')).toHaveLength(250);
    });
  });
});
