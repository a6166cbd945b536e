/** A panic of the addon, wherever it happens, costs one call, which rejects with INTERNAL, and neither the process nor the store. */
import { readdirSync, readFileSync } from 'node:fs';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { databases } from './support/databases.mjs';
import { makeBatch, makeJob, makeLocalJob, makeRecord, makeState, newId } from './support/fixtures.mjs';
import { claim, collect, complete, sleep } from './support/suite.mjs';
import { SqlxStateStore, StateStoreError, folder, hooks as addon } from './support/test-hooks.mjs';

/** Stands for what a panic may say: a piece of a URL, or of a record. */
const SECRET = 'hunter2-and-the-rest';

/** The next one who comes to this place panics. */
function panicAt(place) {
  addon.panicAt(place, `it went wrong with ${SECRET}`);
}

/** `promise` rejects as a call does that a panic ended. */
async function expectInternal(promise) {
  expect(promise).toBeInstanceOf(Promise);
  const error = await promise.then(
    (value) => expect.unreachable(`it resolved with ${JSON.stringify(value)}`),
    (reason) => reason,
  );
  expectDefect(error);
  return error;
}

function expectDefect(error) {
  expect(error).toBeInstanceOf(StateStoreError);
  expect(error).toMatchObject({ code: 'INTERNAL', retryable: false });
  expect(error.message).toMatch(/a defect of this package at src\/\S+\.rs:\d+:\d+ .*please report it/);
  expect(JSON.stringify([error.message, error.stack, error.cause ?? ''])).not.toContain(SECRET);
  expect(addon.panicsToCome()).toEqual([]);
}

/** A job that is final. */
const OVER = 'over';
const CALLS = {
  initialize: (store) => store.initialize(),
  saveJobState: (store, id) => store.saveJobState(makeJob(0, { id })),
  getJobState: (store, id) => store.getJobState(id),
  updateBatchState: (store, id) => store.updateBatchState(id, 'b', { batchId: 'b', status: 'FAILED', processedCount: 0, failedCount: 0 }),
  saveBatchRecords: (store, id) => store.saveBatchRecords(id, 'b', [makeRecord(0)]),
  getFailedRecords: (store, id) => store.getFailedRecords(id),
  getPendingRecords: (store, id) => store.getPendingRecords(id),
  getProcessedRecords: (store, id) => store.getProcessedRecords(id),
  getBatchRecords: (store, id) => store.getBatchRecords(id, 'b'),
  records: (store, id) => collect(store.records(id)),
  getProgress: (store, id) => store.getProgress(id),
  claimBatch: (store, id) => store.claimBatch(id, 'w'),
  releaseBatch: (store, id) => store.releaseBatch(id, 'b', 'w'),
  renewBatch: (store, id) => store.renewBatch(id, 'b', 'w'),
  reclaimStaleBatches: (store, id) => store.reclaimStaleBatches(id, 1_000),
  getDistributedStatus: (store, id) => store.getDistributedStatus(id),
  tryFinalizeJob: (store, id) => store.tryFinalizeJob(id),
  listJobs: (store) => store.listJobs(),
  deleteJob: (store, id) => store.deleteJob(id),
  pauseJob: (store, id) => store.pauseJob(id),
  resumeJob: (store, id) => store.resumeJob(id),
  abortJob: (store, id) => store.abortJob(id),
  retryFailed: (store) => store.retryFailed(OVER),
  purge: (store) => store.purge({ olderThanMs: 0, dryRun: true }),
  getJob: (store, id) => store.getJob(id),
  batches: (store, id) => store.batches(id),
  stats: (store) => store.stats(),
  ping: (store) => store.ping(),
};
const saveRecord = (store, id) => store.saveProcessedRecord(id, 'b', makeRecord(0));

test('each method that gives a promise or a stream is called here', () => {
  const methods = Object.getOwnPropertyNames(SqlxStateStore.prototype);
  expect([...Object.keys(CALLS), 'saveProcessedRecord', 'constructor', 'poolStats', 'close'].sort()).toEqual(methods.sort());
});

for (const database of databases) {
  describe(database.name, () => {
    let own;
    let store;
    beforeAll(async () => {
      own = await database.create();
      store = new SqlxStateStore(own.url);
      await store.initialize();
      await store.saveJobState(makeJob(0, { id: OVER, status: 'FAILED' }));
    });
    afterAll(async () => {
      await store?.close();
      await own?.drop();
    });

    async function open(options) {
      const opened = new SqlxStateStore(own.url, options);
      onTestFinished(() => opened.close());
      await opened.initialize();
      return opened;
    }

    /** The store goes on as if nothing had happened. */
    async function expectToWork(each = store) {
      const job = makeJob(1);
      await each.saveBatchRecords(job.id, job.batches[0].id, [makeRecord(0), makeRecord(1)]);
      await each.saveJobState(job);
      const { batchId } = await claim(each, job.id);
      await each.saveProcessedRecord(job.id, batchId, makeRecord(1, { status: 'failed' }));
      await complete(each, job.id, batchId);
      expect(await each.tryFinalizeJob(job.id)).toBe(true);
      expect(await each.getFailedRecords(job.id)).toHaveLength(1);
    }

    describe.each([
      ['while the arguments are read', 'arguments'],
      ['in the middle of the call', 'call'],
      ['as the result is handed over', 'result'],
    ])('%s', (_, place) => {
      const calls = place === 'call' ? CALLS : { ...CALLS, saveProcessedRecord: saveRecord };
      test.each(Object.keys(calls))('%s rejects', async (name) => {
        const id = newId();
        panicAt(place);
        await expectInternal(calls[name](store, id));
        await calls[name](store, id);
      });
    });

    test('in the constructor: it throws', async () => {
      panicAt('constructor');
      let thrown;
      try {
        new SqlxStateStore(own.url);
      } catch (error) {
        thrown = error;
      }
      expectDefect(thrown);
      await expectToWork();
    });

    test('between two slices of a large result', async () => {
      const id = newId();
      const text = 'x'.repeat(500_000);
      for (let index = 0; index < 8; index++) await store.saveBatchRecords(id, 'b', [makeRecord(index, { raw: { text } })]);
      panicAt('reader');
      await expectInternal(store.getBatchRecords(id, 'b'));
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(8);
    });

    test.each([
      ['the places of the calls', 'turns, locked', (each, job) => each.saveJobState(job)],
      ['the queues', 'queues, locked', (each, job) => saveRecord(each, job.id)],
      ['the claims', 'claims, locked', (each, job) => each.claimBatch(job.id, 'w')],
      ['the idle connections', 'connections, locked', (each, job) => each.getProgress(job.id)],
    ])('with %s locked', async (_, place, call) => {
      const job = makeJob(2);
      await store.saveJobState(job);
      panicAt(place);
      await expectInternal(call(store, job));
      for (let n = 0; n < 20; n++) await expectToWork();
    });

    test('in a transaction, which is rolled back', async () => {
      const job = makeJob(3);
      panicAt('transaction');
      await expectInternal(store.saveJobState(job));
      expect(await store.getJobState(job.id)).toBeNull();
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 0 });
      await store.saveJobState(job);
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 3 });
    });

    test('in the writer of single saves: those of its group reject, and the others are stored', async () => {
      const id = newId();
      panicAt('writer');
      const saves = Array.from({ length: 50 }, (_, index) => store.saveProcessedRecord(id, 'b', makeRecord(index)));
      const outcomes = await Promise.allSettled(saves);
      const failed = outcomes.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []));
      expect(failed.length).toBeGreaterThan(0);
      for (const index of failed) expectDefect(outcomes[index].reason);
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(50 - failed.length);
      await Promise.all(failed.map((index) => store.saveProcessedRecord(id, 'b', makeRecord(index))));
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(50);
      await expectToWork();
    });

    test("in the writer with durability 'batch': the failure sticks to the batch until its records are saved again", async () => {
      const each = await open({ durability: 'batch' });
      const job = makeJob(0, { distributed: undefined });
      const batches = [makeBatch(job.id, 0), makeBatch(job.id, 1)];
      await each.saveJobState({ ...job, batches });
      const [bad, good] = batches.map(({ id }) => id);
      panicAt('writer');
      // In one turn, so that most are queued before the writer takes any; how many it takes is up to the machine.
      const indexes = Array.from({ length: 20 }, (_, index) => index);
      const queued = await Promise.allSettled(indexes.map((index) => each.saveProcessedRecord(job.id, bad, makeRecord(index))));
      expect(queued[0].status).toBe('fulfilled');
      // Reads only wait.
      expect((await each.getBatchRecords(job.id, bad)).map(({ index }) => index)).not.toContain(0);
      const completed = { batchId: bad, status: 'COMPLETED', processedCount: 20, failedCount: 0 };
      const error = await each.updateBatchState(job.id, bad, completed).catch((reason) => reason);
      expect(error).toMatchObject({ code: 'INTERNAL' });
      expect(error.message).toMatch(/record 0( and \d+ more)? /);
      await each.saveProcessedRecord(job.id, good, makeRecord(20));
      for (const index of indexes) await each.saveProcessedRecord(job.id, bad, makeRecord(index));
      await each.updateBatchState(job.id, bad, completed);
      expect(await each.getBatchRecords(job.id, bad)).toHaveLength(20);
      expect(await each.getBatchRecords(job.id, good)).toHaveLength(1);
      await expectToWork(each);
    });

    test('in the writer of a queued job: the failure sticks to the job until saveJobState ends or pauses it', async () => {
      const each = await open({ durability: 'batch' });
      const [job, other] = [makeLocalJob(1), makeLocalJob(1)];
      const [{ id: batchId }] = job.batches;
      panicAt('job writer');
      await each.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await each.saveJobState(job);
      await each.updateBatchState(job.id, batchId, makeState(batchId, 'PROCESSING'));
      // Reads only wait. The record was written before the job.
      expect(await each.getJobState(job.id)).toBeNull();
      expect(await each.getBatchRecords(job.id, batchId)).toHaveLength(1);
      const writes = [
        () => each.saveJobState(job),
        () => each.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 1)),
        () => each.saveProcessedRecord(job.id, batchId, makeRecord(1)),
      ];
      for (const write of writes)
        expect((await expectInternal(write())).message).toMatch(/^job .* could not be stored after the call was answered/);
      expect(await each.getJobState(job.id)).toBeNull();

      // Another job goes on.
      await each.saveJobState(other);
      expect((await each.getJobState(other.id)).status).toBe('PROCESSING');
      await expectToWork(each);

      await each.saveJobState({ ...job, status: 'PAUSED' });
      for (const write of writes) await write();
      expect(await each.getJobState(job.id)).toMatchObject({ status: 'PROCESSING', batches: [{ status: 'COMPLETED', processedCount: 1 }] });

      panicAt('job writer');
      await each.saveJobState(job);
      await each.getProgress(job.id);
      await expectInternal(each.saveJobState({ ...job, status: 'COMPLETED' }));
      expect((await each.getJobState(job.id)).status).toBe('FAILED');
      // That has ended it: close() after this test has nothing to reject.
      await each.saveJobState(job);
    });

    test('in the writer of a queued job that nothing waits for: close() rejects', async () => {
      const each = new SqlxStateStore(own.url, { durability: 'batch' });
      await each.initialize();
      panicAt('job writer');
      await each.saveJobState(makeLocalJob(1));
      await expectInternal(each.close());
    });

    test("after a batch's end was written with its last records: the call rejects, and saving and completing again succeeds", async () => {
      const each = await open({ durability: 'batch' });
      const job = makeJob(1);
      await each.saveJobState(job);
      const { batchId } = await claim(each, job.id);
      const saveAll = async () => {
        for (let index = 0; index < 10; index++) await each.saveProcessedRecord(job.id, batchId, makeRecord(index));
      };
      panicAt('batch end, written');
      await saveAll();
      expect(await complete(each, job.id, batchId).catch((reason) => reason)).toMatchObject({ code: 'INTERNAL' });
      // It was written, which the call could not know.
      expect(await each.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
      expect(await each.getBatchRecords(job.id, batchId)).toHaveLength(10);
      await saveAll();
      await complete(each, job.id, batchId);
      expect(await each.tryFinalizeJob(job.id)).toBe(true);
      expect(addon.panicsToCome()).toEqual([]);
    });

    test('in a renewal of leases: the next round makes up for it', async () => {
      const each = await open({ leaseRenewal: { everyMs: 20, forMs: 60_000 } });
      const job = makeJob(1);
      await each.saveJobState(job);
      const { batchId, claimedAt } = await claim(each, job.id);
      panicAt('renewal');
      await expect.poll(() => addon.panicsToCome(), { timeout: 10_000 }).toEqual([]);
      const renewed = async () => (await each.getJobState(job.id)).batches[0].claimedAt;
      const before = await renewed();
      expect(before).toBeGreaterThanOrEqual(claimedAt);
      await expect.poll(renewed, { timeout: 10_000 }).toBeGreaterThan(before);
      await complete(each, job.id, batchId);
    });

    test('in close(): it may be called again', async () => {
      const each = await open();
      panicAt('close');
      await expectInternal(each.close());
      await each.close();
      await expect(each.getProgress('j')).rejects.toMatchObject({ code: 'CLOSED' });
    });

    test('again and again', async () => {
      const places = ['arguments', 'call', 'result', 'queues, locked', 'connections, locked', 'writer'];
      for (let n = 0; n < 300; n++) {
        panicAt(places[n % places.length]);
        const id = newId();
        await Promise.allSettled([store.getProgress(id), saveRecord(store, id), store.getBatchRecords(id, 'b')]);
      }
      while (addon.panicsToCome().length > 0) {
        await Promise.allSettled([store.getProgress('j'), saveRecord(store, 'j')]);
        await sleep(1);
      }
      await expectToWork();
    });
  });
}

test('the addon that is released has no fail points', () => {
  const addonIn = (folder) => {
    const name = readdirSync(folder).find((file) => file.endsWith('.node'));
    return readFileSync(join(folder, name));
  };
  expect(addonIn(folder).includes('panicAt')).toBe(true);
  expect(addonIn(fileURLToPath(new URL('../', import.meta.url))).includes('panicAt')).toBe(false);
});

test('what the process writes of a panic is its place in the sources, and not what it says', async () => {
  const script = `
    const { SqlxStateStore } = require(${JSON.stringify(`${folder}index.js`)});
    const addon = require.cache[Object.keys(require.cache).find((file) => file.endsWith('.node'))].exports;
    (async () => {
      const store = new SqlxStateStore('sqlite::memory:', { durability: 'batch' });
      await store.initialize();
      for (const place of ['arguments', 'call', 'result']) {
        addon.panicAt(place, '${SECRET}');
        await store.getProgress('j').catch(() => {});
      }
      addon.panicAt('writer', '${SECRET}');
      await store.saveProcessedRecord('j', 'b', { index: 0, raw: {}, parsed: {}, status: 'valid' });
      console.log(await store.close().catch((error) => error.code));
    })();`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['-e', script], {
    env: { ...process.env, RUST_BACKTRACE: 'full' },
    timeout: 20_000,
  });
  expect(stdout).toBe('INTERNAL\n');
  const lines = stderr.trim().split('\n');
  expect(lines).toHaveLength(4);
  for (const line of lines) expect(line).toMatch(/^@batchactions\/state-sqlx has a defect at src\/\S+\.rs:\d+:\d+: please report it$/);
});
