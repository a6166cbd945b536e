// With `durability: 'batch'` an import's `saveJobState` and `updateBatchState` are queued, beside its records: answered at once, and written together.
// The failures of records are in `durability.test.mjs`, what is written how often in src/operations/tests/queued_calls.rs.

import { describe, expect, onTestFinished, test } from 'vitest';
import { SqlxStateStore } from '../../index.js';
import { makeBatch, makeJob, makeLocalJob, makeRecord, makeState, newId, without } from '../support/fixtures.mjs';
import { runNode } from '../support/run-node.mjs';
import { claim, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';

const range = (count) => Array.from({ length: count }, (_, index) => index);

onEveryDatabase((on) => {
  const open = () => on.open({ durability: 'batch' });
  const statuses = ({ batches }) => batches.map(({ status }) => status);

  /** Core's calls for one batch of one record: the list is one array that grows, and its batches are replaced. */
  async function importBatch(store, job, index) {
    const batch = makeBatch(job.id, index, { size: 1, records: [makeRecord(index)] });
    const { id } = batch;
    job.batches.push({ ...batch, status: 'PROCESSING' });
    await store.updateBatchState(job.id, id, makeState(id, 'PROCESSING'));
    await store.saveProcessedRecord(job.id, id, makeRecord(index));
    job.batches[index] = { ...batch, status: 'COMPLETED', processedCount: 1 };
    await store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 1, 0));
    job.batches[index].records = [];
    await store.saveJobState(job);
  }

  describe('what is queued', () => {
    test('is what the next read shows', async () => {
      const store = await open();
      const job = makeLocalJob(0);
      for (const index of range(30)) {
        await importBatch(store, job, index);
        if (index % 10 === 4) expect(await store.getJobState(job.id)).toEqual(job);
      }
      expect(await store.getJobState(job.id)).toEqual(job);
      expect(await store.getProcessedRecords(job.id)).toHaveLength(30);
    });

    on.needs('shared')('is written soon, without another call', async () => {
      const store = await open();
      const job = makeLocalJob(0);
      for (const index of range(3)) await importBatch(store, job, index);
      await expect.poll(() => on.store.getJobState(job.id), { timeout: 10_000 }).toEqual(job);
      await store.updateBatchState(job.id, job.batches[1].id, makeState(job.batches[1].id, 'FAILED', 0, 1));
      await expect
        .poll(async () => statuses(await on.store.getJobState(job.id)), { timeout: 10_000 })
        .toEqual(['COMPLETED', 'FAILED', 'COMPLETED']);
    });

    on.needs('rowLocks')('is answered while the database is busy with another', async () => {
      const store = await open();
      const job = makeLocalJob(0);
      await importBatch(store, job, 0);
      await store.getProgress(job.id);
      const other = await on.lockRows('jobs', '"id" = ?', [job.id]);
      for (const index of range(100)) await importBatch(store, job, index + 1);
      await other.query('rollback');
      expect(await store.getJobState(job.id)).toEqual(job);
    });

    on.needs('shared')('is committed before a job that pauses or ends is stored, and before close() resolves', async () => {
      const store = await open();
      for (const status of ['PAUSED', 'ABORTED', 'FAILED', 'COMPLETED']) {
        const job = makeLocalJob(0);
        for (const index of range(5)) await importBatch(store, job, index);
        await store.saveJobState({ ...job, status });
        expect(await on.store.getJobState(job.id)).toMatchObject({ ...job, status });
        expect(await on.store.getProcessedRecords(job.id)).toHaveLength(5);
      }
      const job = makeLocalJob(0);
      for (const index of range(5)) await importBatch(store, job, index);
      await store.close();
      expect(await on.store.getJobState(job.id)).toEqual(job);
    });

    test('does not come back after deleteJob', async () => {
      const store = await open();
      const job = makeLocalJob(0);
      for (const index of range(5)) await importBatch(store, job, index);
      await store.deleteJob(job.id);
      await sleep(100);
      expect(await store.getJobState(job.id)).toBeNull();
    });

    test('takes effect in the order of the calls, also of those that are not queued', async () => {
      const store = await open();
      const job = makeLocalJob(2);
      const [first, second] = job.batches.map(({ id }) => id);
      await Promise.all([
        store.saveJobState(job),
        store.updateBatchState(job.id, first, makeState(first, 'FAILED', 0, 1)),
        store.updateBatchState(job.id, second, makeState(second, 'PAUSED')),
        store.saveJobState({ ...job, status: 'PAUSED' }),
        store.updateBatchState(job.id, first, makeState(first, 'COMPLETED', 1, 0)),
        store.saveJobState({ ...job, totalRecords: 7 }),
        store.updateBatchState(job.id, second, makeState(second, 'COMPLETED', 2, 0)),
      ]);
      expect(await store.getJobState(job.id)).toMatchObject({
        status: 'PROCESSING',
        totalRecords: 7,
        batches: [{ status: 'PENDING' }, { status: 'COMPLETED', processedCount: 2 }],
      });
    });

    test('leaves the event loop its turns', async () => {
      const store = await open();
      const job = makeLocalJob(1);
      const { id } = job.batches[0];
      const loop = { turns: 0 };
      const timer = setInterval(() => loop.turns++, 1);
      for (let n = 0; loop.turns < 3; n++) {
        await store.updateBatchState(job.id, id, makeState(id, 'PROCESSING', n));
        await store.saveJobState(job);
        expect(n).toBeLessThan(100_000);
      }
      clearInterval(timer);
    });

    on.needs('shared')('keeps the process alive until it is written, without close()', async () => {
      const job = makeLocalJob(2);
      const { code, stderr } = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(on.url)}, { durability: 'batch' });
        const job = ${JSON.stringify(job)};
        await store.saveJobState(job);
        await store.updateBatchState(job.id, job.batches[1].id, { batchId: job.batches[1].id, status: 'FAILED', processedCount: 0, failedCount: 3 });
      `);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(await on.store.getJobState(job.id)).toMatchObject({ batches: [{ status: 'PENDING' }, { status: 'FAILED', failedCount: 3 }] });
    });

    on.needs('shared')('is not what a distributed job has, nor a job that the store does not know to be an import', async () => {
      const store = await open();
      const job = makeJob(2);
      await on.store.saveJobState(job);
      const held = await claim(store, job.id);
      await store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 1, 0));
      expect(statuses(await on.store.getJobState(job.id))).toEqual(['COMPLETED', 'PENDING']);
      // By another store's claim, and known as distributed since it was read.
      const reader = await open();
      await reader.getJobState(job.id);
      const other = job.batches[1].id;
      await reader.updateBatchState(job.id, other, makeState(other, 'FAILED', 0, 1));
      expect(statuses(await on.store.getJobState(job.id))).toEqual(['COMPLETED', 'FAILED']);
      // Of a job that it never saw, the state is queued, and reaches the row.
      const stranger = await open();
      await stranger.updateBatchState(job.id, other, makeState(other, 'PAUSED', 1, 1));
      await stranger.getProgress(job.id);
      expect(statuses(await on.store.getJobState(job.id))).toEqual(['COMPLETED', 'PAUSED']);
    });

    on.needs('raw')('sets the rows that another program has given the batches', async () => {
      const store = await open();
      const job = makeLocalJob(2);
      await store.saveJobState(job);
      await store.getProgress(job.id);
      await on.query(
        `insert into "batchactions_batches" ("id", "jobId", "batchIndex", "status", "version") values (?, ?, 0, 'PROCESSING', 1)`,
        [job.batches[0].id, job.id],
      );
      const { id } = job.batches[0];
      await store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 4, 5));
      await store.saveJobState(job);
      expect(await store.getJobState(job.id)).toMatchObject({
        batches: [{ status: 'COMPLETED', processedCount: 4 }, { status: 'PENDING' }],
      });
      const [row] = await on.query('select "status", "failedCount" from "batchactions_batches" where "id" = ?', [id]);
      expect(row).toMatchObject({ status: 'COMPLETED', failedCount: 5 });
    });
  });

  describe('the list of batches', () => {
    test('is captured at the call: what the caller changes afterwards is in the next call only', async () => {
      const store = await open();
      const job = makeLocalJob(3);
      const before = structuredClone(job);
      await store.saveJobState(job);
      job.batches[1].status = 'FAILED';
      job.batches[2].id += '!';
      job.batches.push(makeBatch(job.id, 3));
      expect(await store.getJobState(job.id)).toEqual(before);
      await store.saveJobState(job);
      expect(await store.getJobState(job.id)).toEqual(job);
    });

    test.each([
      ['one more', (batches) => [...batches, makeBatch('more', 9)]],
      ['one less at the end', (batches) => batches.slice(0, -1)],
      ['one less in the middle', (batches) => batches.toSpliced(1, 1)],
      ['none', () => []],
      ['another order', (batches) => batches.toReversed()],
      ['the same ones as copies', (batches) => structuredClone(batches)],
      ['other bounds', (batches) => batches.map((batch) => ({ ...batch, recordEndIndex: 77 }))],
      ['no bounds', (batches) => batches.map((batch) => without(batch, 'recordStartIndex', 'recordEndIndex'))],
      ['other counts', (batches) => batches.map((batch) => ({ ...batch, processedCount: batch.index, failedCount: 1 }))],
      ['other indexes', (batches) => batches.map((batch) => ({ ...batch, index: batch.index + 5 }))],
    ])('may change to %s', async (_, change) => {
      const store = await open();
      const job = makeLocalJob(4);
      for (const batches of [job.batches, change(job.batches), job.batches, change(job.batches)]) {
        await store.saveJobState({ ...job, batches });
        expect((await store.getJobState(job.id)).batches).toEqual(batches);
      }
      await store.saveJobState({ ...job, status: 'COMPLETED', batches: change(job.batches) });
      expect((await store.getJobState(job.id)).batches).toEqual(change(job.batches));
    });

    test('that is refused is named by its place, and the next one is stored whole', async () => {
      const store = await open();
      const job = makeLocalJob(4);
      await store.saveJobState(job);
      const wrong = (batch) => ({ ...job, batches: job.batches.with(2, batch) });
      expect((await rejection(store.saveJobState(wrong({ ...job.batches[2], status: 'DONE' })), 'INVALID_ARGUMENT')).message).toContain(
        'job.batches[2].status',
      );
      await rejection(store.saveJobState(wrong(null)), 'INVALID_ARGUMENT');
      await rejection(store.saveJobState(wrong({ ...job.batches[2], index: 1n })), 'INVALID_ARGUMENT');
      const changed = { ...job, batches: job.batches.with(0, { ...job.batches[0], status: 'FAILED' }) };
      await store.saveJobState(changed);
      expect(await store.getJobState(job.id)).toEqual(changed);
    });

    test('of many jobs at a time is the right one', async () => {
      const store = await open();
      const jobs = range(40).map(() => makeLocalJob(0));
      for (const index of range(4)) for (const job of jobs) await importBatch(store, job, index);
      for (const job of jobs) expect(await store.getJobState(job.id)).toEqual(job);
    });

    test('and where each call waits for its commit, too', async () => {
      const store = await on.open({});
      const job = makeLocalJob(0);
      for (const index of range(5)) {
        await importBatch(store, job, index);
        expect(await store.getJobState(job.id)).toEqual(job);
      }
    });
  });

  describe('a job that could not be stored after the call was answered', () => {
    on.needs('shared')('can only end, and then go on', async () => {
      const own = await on.createEmpty();
      const store = new SqlxStateStore(own.url, { durability: 'batch' });
      onTestFinished(() => store.close().catch(() => {}));
      await store.initialize();
      const accept = await on.dialect.refuseRows(own, 'jobs', '"totalRecords" = 13');
      const job = makeLocalJob(1);
      const { id } = job.batches[0];
      await store.saveJobState({ ...job, totalRecords: 13 });
      // Reads only wait.
      expect(await store.getJobState(job.id)).toBeNull();
      const reasons = [
        await rejection(store.saveJobState(job), expect.any(String)),
        await rejection(store.updateBatchState(job.id, id, makeState(id, 'COMPLETED')), expect.any(String)),
        await rejection(store.saveProcessedRecord(job.id, id, makeRecord(0)), expect.any(String)),
      ];
      for (const { message, retryable } of reasons) {
        expect(message).toMatch(/^job .* could not be stored after the call was answered.*refused/s);
        expect(retryable).toBe(false);
      }
      // Another job is not concerned.
      await store.saveJobState({ ...job, id: newId() });
      await accept();
      await rejection(store.saveJobState({ ...job, status: 'COMPLETED' }), expect.any(String));
      expect(await store.getJobState(job.id)).toMatchObject({ status: 'FAILED' });
      await store.saveJobState(job);
      await store.saveProcessedRecord(job.id, id, makeRecord(0));
      expect(await store.getJobState(job.id)).toEqual(job);
      await store.close();
    });
  });

  describe('beside other calls', () => {
    on.needs('shared')('listJobs lists a job whose save has resolved', async () => {
      const store = await open();
      const job = makeLocalJob(1);
      await store.saveJobState(job);
      expect((await store.listJobs({ limit: 1_000 })).map(({ id }) => id)).toContain(job.id);
    });

    on.needs('shared')('a job that was read as distributed is one: its calls are not queued', async () => {
      const store = await open();
      const job = makeJob(1);
      const [{ id }] = job.batches;
      await on.store.saveJobState(job);
      await store.getJobState(job.id);
      await store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 10));
      expect((await on.store.getJobState(job.id)).batches[0].status).toBe('COMPLETED');
    });

    on.needs('shared')('a batch that a queued state opens is the next that the store claims', async () => {
      const store = await open();
      const job = makeJob(3);
      const [first, second] = job.batches.map(({ id }) => id);
      await on.store.saveJobState(job);
      await on.store.updateBatchState(job.id, first, makeState(first, 'FAILED'));
      expect((await claim(store, job.id)).batchId).toBe(second);
      await store.updateBatchState(job.id, first, makeState(first, 'PENDING'));
      expect((await claim(store, job.id)).batchId).toBe(first);
    });

    on.needs('shared')('an older state is not written over the end of a batch that comes with its records', async () => {
      const store = await open();
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const { batchId, token } = await claim(on.store, job.id);
      // By another store, which knows neither the job nor the claim.
      await Promise.all([
        store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token }),
        store.updateBatchState(job.id, batchId, makeState(batchId, 'PROCESSING')),
        store.saveProcessedRecord(job.id, batchId, makeRecord(1), { token }),
        store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 2, 0), { token }),
      ]);
      expect(await store.getJobState(job.id)).toMatchObject({ batches: [{ status: 'COMPLETED', processedCount: 2 }] });
      expect(await store.getBatchRecords(job.id, batchId)).toHaveLength(2);
    });

    on.needs('rowLocks')('they are bounded: with 1,000 states of a job pending, the next call waits', async () => {
      const store = await open();
      const job = makeLocalJob(1);
      await store.saveJobState(job);
      await store.getJobState(job.id);
      const other = await on.lockRows('jobs', '"id" = ?', [job.id]);
      onTestFinished(() => store.deleteJob(job.id));
      await store.saveJobState(job);
      for (let n = 0; n < 1_000; n++) await store.updateBatchState(job.id, `b${n}`, makeState(`b${n}`, 'FAILED'));
      let answered = false;
      const last = store.updateBatchState(job.id, 'last', makeState('last', 'FAILED')).then(() => (answered = true));
      await on.store.listJobs({ limit: 1 });
      expect(answered).toBe(false);
      await other.query('rollback');
      await last;
    });
  });
});
