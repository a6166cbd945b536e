/** Stores in terminated threads, at the end of a process, and over a long time. Each test runs a process of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { StateStoreError } from '../index.js';
import { databases } from './support/databases.mjs';
import { runFile, runNode } from './support/run-node.mjs';
import { storeOn } from './support/store.mjs';
import { makeJob, makeRecord, makeState, newId } from './support/fixtures.mjs';
import { collect } from './support/suite.mjs';

/** How many calls, and how many stores, are made where growth is looked for. CONTRIBUTING.md has the longer runs. */
const CALLS = Number(process.env.LIFECYCLE_CALLS ?? 20_000);
const STORES = Number(process.env.LIFECYCLE_STORES ?? 10_000);
/** Those that connect to a server, which starts a process for each. */
const SERVER_STORES = Number(process.env.LIFECYCLE_STORES ?? 2_000);

const file = (name) => new URL(`./lifecycle/${name}.mjs`, import.meta.url);
const record = `(index) => ({ index, raw: { text: 'x'.repeat(100) }, parsed: {}, status: 'valid', errors: [] })`;

const served = databases.filter(({ name }) => ['sqlite-file', 'postgres'].includes(name));

describe.each(served.map((database) => [database.name, database]))('%s', (_, database) => {
  /** An empty database with tables, and a store on it. */
  async function fresh(options) {
    const own = await database.create();
    onTestFinished(() => own.drop());
    const store = storeOn(own.url, options);
    onTestFinished(() => store.close().catch(() => {}));
    await store.initialize();
    return { own, store, url: own.url };
  }

  /** No row is half there, and the file is sound. */
  async function expectSound({ own, store }, jobId) {
    if (database.has('file')) {
      expect(await own.query('pragma integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    }
    const status = await store.getDistributedStatus(jobId);
    expect(status.pendingBatches + status.processingBatches).toBe(status.totalBatches);
    for await (const { raw } of store.records(jobId)) expect(raw).toEqual({ text: 'x'.repeat(200) });
  }

  describe('worker threads that are terminated in the middle of calls', () => {
    test.each([
      ['with the addon in the main thread', true],
      ['without', false],
    ])('%s: nothing goes down, and nothing is left behind', { timeout: 600_000 }, async (__, loaded) => {
      const context = await fresh();
      const { store, url } = context;
      const job = makeJob(50);
      await store.saveJobState(job);
      const text = 'x'.repeat(50_000);
      for (let index = 0; index < 60; index++) await store.saveBatchRecords('large', 'b', [makeRecord(index, { raw: { text } })]);
      const result = await runFile(file('threads'), { url, jobId: job.id, rounds: 20, threads: 4, loaded }, { timeout: 590_000 });
      expect(result).toEqual({ code: 0, signal: null, stdout: '{"message":"works"}\n', stderr: '' });
      await expectSound(context, job.id);
    });

    test('the main thread goes on working meanwhile', async () => {
      const { store, url } = await fresh();
      const result = await runNode(
        `
        import { once } from 'node:events';
        import { Worker } from 'node:worker_threads';
        const record = ${record};
        const store = new SqlxStateStore(${JSON.stringify(url)});
        let ended = false;
        const main = (async () => {
          let n = 0;
          for (; !ended; n++) await store.saveProcessedRecord('main', 'b', record(n));
          return n;
        })();
        for (let round = 0; round < 10; round++) {
          const workerData = { url: ${JSON.stringify(url)}, jobId: 'j' };
          const worker = new Worker(new URL(${JSON.stringify(file('thread').href)}), { workerData, execArgv: [] });
          await once(worker, 'message');
          await worker.terminate();
        }
        ended = true;
        console.log(await main === (await store.getBatchRecords('main', 'b')).length);
        await store.close();`,
        { timeout: 170_000 },
      );
      expect(result).toEqual({ code: 0, signal: null, stdout: 'true\n', stderr: '' });
      // The store that was there before them sees what it saved.
      expect((await collect(store.records('main'))).length).toBeGreaterThan(0);
    });
  });

  describe('a process whose environment sets the number of tokio’s threads', () => {
    test.each(['2', '0', '-1', 'many', '99999999999999999999', ''])('to "%s" works', async (threads) => {
      const { url } = await fresh();
      const source = `
        const store = new SqlxStateStore(${JSON.stringify(url)});
        console.log(await store.getJobState('j'));
        await store.close();`;
      const result = await runNode(source, { env: { TOKIO_WORKER_THREADS: threads } });
      expect(result).toEqual({ code: 0, signal: null, stdout: 'null\n', stderr: '' });
    });
  });

  describe('the end of the process', () => {
    test('waits for calls that are not awaited', async () => {
      const { store, url } = await fresh();
      const result = await runNode(`
        const record = ${record};
        const store = new SqlxStateStore(${JSON.stringify(url)});
        for (let n = 0; n < 200; n++) store.saveProcessedRecord('j', 'b', record(n));
        store.saveBatchRecords('j', 'c', Array.from({ length: 500 }, (_, n) => record(1_000 + n)));`);
      expect(result).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
      expect(await collect(store.records('j'))).toHaveLength(700);
    });

    test.each([
      ['in a callback, beside calls under way', `store.getProgress('j').then(() => process.exit(3));`],
      ['in the same turn as the calls', `process.exit(3);`],
      ['once a queued save is answered', `queueing.saveProcessedRecord('j', 'b', record(0)).then(() => process.exit(3));`],
      ['while it is being closed', `store.close(); queueing.close(); setTimeout(() => process.exit(3), 1);`],
      ['in a loop over records', `(async () => { for await (const each of store.records('j')) process.exit(3); })();`],
      [
        'which makes calls as it ends',
        `process.on('exit', () => { for (let n = 0; n < 50; n++) store.getProgress('j'); }); process.exit(3);`,
      ],
    ])('by process.exit() %s', async (__, how) => {
      const { store, url } = await fresh();
      await store.saveBatchRecords('j', 'b', [makeRecord(0), makeRecord(1)]);
      for (let round = 0; round < 5; round++) {
        const result = await runNode(`
          const record = ${record};
          const patient = { connectTimeoutMs: 60_000 };
          const store = new SqlxStateStore(${JSON.stringify(url)}, { ...patient, leaseRenewal: { everyMs: 1, forMs: 60_000 } });
          const queueing = new SqlxStateStore(${JSON.stringify(url)}, { ...patient, durability: 'batch' });
          await store.getJobState('j');
          for (let n = 0; n < 100; n++) {
            store.saveProcessedRecord('j', 'b', record(n));
            store.getBatchRecords('j', 'b');
            queueing.saveProcessedRecord('k', 'b', record(n));
          }
          ${how}`);
        expect(result).toEqual({ code: 3, signal: null, stdout: '', stderr: '' });
      }
      // Nothing of what was there is lost, and nothing of what was on its way is there in part.
      const kept = await store.getBatchRecords('j', 'b');
      expect(kept.slice(0, 2).map(({ index }) => index)).toEqual([0, 1]);
      for (const { raw, parsed } of kept) expect([typeof raw, typeof parsed]).toEqual(['object', 'object']);
    });

    test.each([
      ['an uncaught exception', `setTimeout(() => { throw new Error('mine'); }, 3);`, /Error: mine/],
      ['a rejection that is not caught', `store.getJobState(5);`, /StateStoreError: jobId must be a string/],
    ])('by %s, beside calls under way', async (__, how, says) => {
      const { url } = await fresh();
      const result = await runNode(`
        const record = ${record};
        const store = new SqlxStateStore(${JSON.stringify(url)});
        await store.getJobState('j');
        const loop = async (step) => { for (;;) await step(); };
        for (let n = 0; n < 10; n++) loop(() => store.saveProcessedRecord('j', 'b', record(n)));
        loop(() => store.getBatchRecords('j', 'b'));
        ${how}`);
      expect(result).toMatchObject({ code: 1, signal: null });
      expect(result.stderr).toMatch(says);
      expect(result.stderr).not.toMatch(/panicked|defect/);
    });

    test('by a signal, beside calls under way: what was answered is stored', async () => {
      const { store, url } = await fresh();
      const result = await runNode(`
        const record = ${record};
        const store = new SqlxStateStore(${JSON.stringify(url)});
        for (let n = 0; ; n++) {
          await store.saveProcessedRecord('j', 'b', record(n));
          console.log(n);
          if (n === 100) setTimeout(() => process.kill(process.pid, 'SIGTERM'), 2);
        }`);
      expect(result).toMatchObject({ code: null, signal: 'SIGTERM', stderr: '' });
      const answered = Number(result.stdout.trim().split('\n').at(-1));
      expect(answered).toBeGreaterThanOrEqual(100);
      expect((await store.getBatchRecords('j', 'b')).length).toBeGreaterThan(answered);
    });
  });

  describe('close() with calls of every kind under way', () => {
    const calls = {
      initialize: (store) => store.initialize(),
      saveJobState: (store, job) => store.saveJobState(job),
      getJobState: (store, job) => store.getJobState(job.id),
      updateBatchState: (store, job) => store.updateBatchState(job.id, job.batches[0].id, makeState(job.batches[0].id, 'FAILED')),
      saveProcessedRecord: (store, job) => store.saveProcessedRecord(job.id, 'b', makeRecord(1)),
      saveBatchRecords: (store, job) => store.saveBatchRecords(job.id, 'b', [makeRecord(2), makeRecord(3)]),
      getFailedRecords: (store, job) => store.getFailedRecords(job.id),
      getPendingRecords: (store, job) => store.getPendingRecords(job.id),
      getProcessedRecords: (store, job) => store.getProcessedRecords(job.id),
      getBatchRecords: (store, job) => store.getBatchRecords(job.id, 'b'),
      records: (store, job) => collect(store.records(job.id)),
      getProgress: (store, job) => store.getProgress(job.id),
      claimBatch: (store, job) => store.claimBatch(job.id, 'w'),
      releaseBatch: (store, job) => store.releaseBatch(job.id, job.batches[1].id, 'w'),
      renewBatch: (store, job) => store.renewBatch(job.id, job.batches[1].id, 'w'),
      reclaimStaleBatches: (store, job) => store.reclaimStaleBatches(job.id, 60_000),
      getDistributedStatus: (store, job) => store.getDistributedStatus(job.id),
      tryFinalizeJob: (store, job) => store.tryFinalizeJob(job.id),
      listJobs: (store) => store.listJobs(),
      deleteJob: (store) => store.deleteJob('missing'),
    };

    /** The name of a call, and why it rejected, if it did. */
    const settled = (name, promise) =>
      promise.then(
        () => ({ name }),
        (reason) => ({ name, reason }),
      );

    /** Where the claim hits the batch that is given back, the calls on that batch that come after it are fenced. */
    const mayComeAfterTheRelease = ['releaseBatch', 'renewBatch'];

    test.each([
      ["durability 'record'", { durability: 'record' }],
      ["durability 'batch'", { durability: 'batch', leaseRenewal: { everyMs: 1, forMs: 60_000 } }],
      ['one connection', { pool: { max: 1 } }],
    ])('%s: each finishes or rejects with CLOSED', async (__, options) => {
      const { store, url } = await fresh();
      let closed = 0;
      let finished = 0;
      for (let round = 0; round < 20; round++) {
        const each = storeOn(url, options);
        const job = makeJob(2);
        if (round % 2) await each.getJobState('missing');
        const outcomes = [];
        const callAll = () => {
          for (const [name, call] of Object.entries(calls)) outcomes.push(settled(name, call(each, job)));
        };
        callAll();
        // Before, in between, and after, so that the end meets calls in all their stages.
        if (round % 4 > 1) await sleep(round % 5);
        const ends = [each.close(), each.close()];
        callAll();
        await Promise.all(ends);
        for (const { name, reason } of await Promise.all(outcomes)) {
          if (reason === undefined) {
            finished++;
          } else if (mayComeAfterTheRelease.includes(name) && reason.code === 'LEASE_LOST') {
            expect(reason.message).toContain(`the claim on batch "${job.batches[1].id}"`);
            finished++;
          } else {
            expect(reason).toBeInstanceOf(StateStoreError);
            expect({ name, code: reason.code, message: reason.message }).toEqual({ name, code: 'CLOSED', message: expect.any(String) });
            closed++;
          }
        }
        // What was made before the end is done.
        expect(await store.getBatchRecords(job.id, 'b')).toHaveLength(3);
      }
      expect(finished).toBeGreaterThanOrEqual(20 * (Object.keys(calls).length - 1));
      expect(closed).toBeGreaterThanOrEqual(20 * Object.keys(calls).length);
    });

    test('a loop over records ends with CLOSED', async () => {
      const { store } = await fresh();
      const id = newId();
      const rows = Array.from({ length: 500 }, (_, index) => makeRecord(index));
      await store.saveBatchRecords(id, 'b', rows);
      const seen = [];
      const loop = (async () => {
        for await (const { index } of store.records(id)) {
          seen.push(index);
          if (index === 10) await store.close();
        }
      })();
      await expect(loop).rejects.toMatchObject({ code: 'CLOSED' });
      expect(seen.length).toBeLessThan(500);
    });
  });

  describe('a long life', () => {
    /** After the first quarter of the work, memory grows by no more than this, which is how an allocator breathes. */
    const expectNoGrowth = (result, most) => {
      expect(result).toMatchObject({ code: 0, signal: null, stderr: '' });
      const { done, grown, tooMuch } = JSON.parse(result.stdout);
      console.log(`${database.name}: ${done}, ${grown} bytes more`);
      expect(tooMuch).toBeUndefined();
      expect(grown).toBeLessThan(most);
    };

    // A store that is kept costs 8 KB, with a connection 40 KB or more; so 7,500 would cost 60 MB, or 1,500 with connections.
    test.each([
      ['that are opened, used and closed', 'closed'],
      ['that never connect', 'unused'],
      ['that are never closed, and are garbage', 'dropped'],
    ])('of stores %s: memory, threads, sockets and files do not grow', { timeout: 600_000 }, async (__, work) => {
      const { url } = await fresh();
      const count = work === 'unused' || database.has('file') ? STORES : SERVER_STORES;
      expectNoGrowth(await runFile(file('growth'), { url, work, count }, { timeout: 590_000 }), 16 << 20);
    });

    // In the long run: 22 bytes of each call that are kept would be too much.
    test(`of ${CALLS} calls: memory does not grow`, { timeout: 3_600_000 }, async () => {
      const { url } = await fresh();
      expectNoGrowth(await runFile(file('growth'), { url, work: 'calls', count: CALLS }, { timeout: 3_590_000 }), 8 << 20);
    });
  });
});
