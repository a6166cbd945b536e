// How a store ends: by close(), and with its process or thread.

import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { StateStoreError } from '../../index.js';
import { open, rejectionOf } from '../support/connections.mjs';
import { databases } from '../support/databases.mjs';
import { makeJob, makeLocalJob, makeRecord } from '../support/fixtures.mjs';
import { INDEX, runNode } from '../support/run-node.mjs';
import { freshDatabase, prepare, onDatabasesWith } from '../support/suite.mjs';

for (const database of databases) {
  describe(database.name, () => {
    describe('the end of a store', () => {
      async function openFresh() {
        const store = open((await freshDatabase(database)).url);
        await store.initialize();
        return store;
      }

      it('close() may be called again, and at the same time', async () => {
        const store = await openFresh();
        await Promise.all([store.close(), store.close()]);
        expect(await store.close()).toBeUndefined();
      });

      it('close() of a store that never connected resolves, and closes it', async () => {
        const db = await freshDatabase(database);
        const store = open(db.url);
        expect(await store.close()).toBeUndefined();
        await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
      });

      it('Symbol.asyncDispose closes it', async () => {
        const store = await openFresh();
        expect(typeof store[Symbol.asyncDispose]).toBe('function');
        expect(await store[Symbol.asyncDispose]()).toBeUndefined();
        await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
        await store[Symbol.asyncDispose]();
      });

      it('calls under way are done first', async () => {
        const store = await openFresh();
        const saves = Array.from({ length: 20 }, (_, n) => store.saveProcessedRecord('j', 'b', makeRecord(n, { status: 'pending' })));
        const closed = store.close();
        await expect(Promise.all(saves)).resolves.toHaveLength(20);
        await closed;
      });

      it('every further call rejects with CLOSED', async () => {
        const store = await openFresh();
        await store.close();
        const calls = [
          () => store.initialize(),
          () => store.saveJobState(makeLocalJob(3, { id: 'j', size: 2 })),
          () => store.getJobState('j'),
          () => store.updateBatchState('j', 'b', { batchId: 'b', status: 'COMPLETED', processedCount: 0, failedCount: 0 }),
          () => store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' })),
          () => store.saveBatchRecords('j', 'b', [makeRecord(0, { status: 'pending' })]),
          () => store.getFailedRecords('j'),
          () => store.getPendingRecords('j'),
          () => store.getProcessedRecords('j'),
          () => store.getBatchRecords('j', 'b'),
          () => store.records('j').next(),
          () => store.getProgress('j'),
          () => store.claimBatch('j', 'w'),
          () => store.releaseBatch('j', 'b', 'w'),
          () => store.renewBatch('j', 'b', 'w'),
          () => store.reclaimStaleBatches('j', 1_000),
          () => store.getDistributedStatus('j'),
          () => store.tryFinalizeJob('j'),
          () => store.listJobs(),
          () => store.deleteJob('j'),
          () => store.pauseJob('j'),
          () => store.resumeJob('j'),
          () => store.abortJob('j'),
          () => store.retryFailed('j'),
          () => store.purge({ olderThanMs: 0 }),
          () => store.getJob('j'),
          () => store.batches('j'),
          () => store.stats(),
          () => store.ping(),
        ];
        for (const call of calls) {
          const error = await rejectionOf(call());
          expect(error).toBeInstanceOf(StateStoreError);
          expect(error, String(call)).toMatchObject({ code: 'CLOSED', retryable: false });
        }
      });
    });
  });
}

onDatabasesWith('shared', (database) => {
  describe('the end of its process', () => {
    it('an open store keeps no process alive', async () => {
      const file = await freshDatabase(database);
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        console.log(await store.getJobState('missing'));`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'null\n', stderr: '' });
    });

    it('a claim that is renewed keeps no process alive', async () => {
      const file = await freshDatabase(database);
      const store = open(file.url);
      await store.initialize();
      await prepare(store, makeJob(3, { id: 'j', size: 2 }));
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)}, { leaseRenewal: { everyMs: 20, forMs: 600_000 }, pool: { min: 2 } });
        const { claimed } = await store.claimBatch('j', 'w');
        await new Promise((resolve) => setTimeout(resolve, 100));
        console.log(claimed);`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'true\n', stderr: '' });
    });

    it('process.exit() in the middle of calls ends the process without an error', async () => {
      const file = await freshDatabase(database);
      const result = await runNode(`
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        for (let n = 0; n < 100; n++) store.saveProcessedRecord('j', 'b', { index: n, raw: {}, parsed: {}, status: 'valid', errors: [] });
        setTimeout(() => process.exit(0), 5);`);
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: '', stderr: '' });
    });

    it('a worker thread that is terminated in the middle of calls leaves the process intact', async () => {
      const file = await freshDatabase(database);
      const worker = `
        const { SqlxStateStore } = require(${JSON.stringify(fileURLToPath(INDEX))});
        const { parentPort } = require('node:worker_threads');
        const record = (n) => ({ index: n, raw: { text: 'x'.repeat(200) }, parsed: {}, status: 'valid', errors: [] });
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        const rows = Array.from({ length: 200 }, (_, n) => record(n));
        const loop = async (step) => { for (;;) await step().catch(() => {}); };
        store.getJobState('missing').then(() => {
          parentPort.postMessage('at work');
          loop(() => store.saveProcessedRecord('j', 'b', record(0)));
          loop(() => store.saveBatchRecords('j', 'b', rows));
          loop(() => store.getBatchRecords('j', 'b'));
          loop(() => store.claimBatch('j', 'w'));
          loop(async () => { for await (const each of store.records('j')) if (each.index > 150) break; });
        });`;
      const result = await runNode(
        `
        import { once } from 'node:events';
        import { Worker } from 'node:worker_threads';
        const store = new SqlxStateStore(${JSON.stringify(file.url)});
        await store.initialize();
        for (let round = 0; round < 8; round++) {
          const worker = new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: [] });
          await once(worker, 'message');
          await new Promise((resolve) => setTimeout(resolve, 10 + 7 * round));
          await worker.terminate();
        }
        console.log(await store.getJobState('missing'));
        await store.close();`,
        { timeout: 170_000 },
      );
      expect(result).toStrictEqual({ code: 0, signal: null, stdout: 'null\n', stderr: '' });
    });
  });
});
