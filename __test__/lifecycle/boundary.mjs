// Has everything cross the boundary that can, in both directions and in a thread that is terminated: a run for valgrind (see CONTRIBUTING.md).

import { once } from 'node:events';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { SqlxStateStore } from '../../index.js';

const record = (index) => ({ index, raw: { text: 'x'.repeat(4_000), odd: '\ud800é🚴\u0000' }, parsed: {}, status: 'valid', errors: [] });
const codes = [];
const refused = (promise) => promise.catch(({ code }) => codes.push(code));

/** Each kind of argument and of result, in one store. */
async function crossAll(options) {
  const store = new SqlxStateStore('sqlite::memory:', options);
  await store.initialize();
  const batches = [{ id: 'b', index: 0, status: 'PENDING', records: [], processedCount: 0, failedCount: 0 }];
  const job = { id: 'j', config: { batchSize: 1 }, status: 'PROCESSING', batches, totalRecords: 1, distributed: true };
  // Two slices and more.
  for (let n = 0; n < 3; n++)
    await store.saveBatchRecords(
      'j',
      'b',
      Array.from({ length: 600 }, (_, index) => record(n * 600 + index)),
    );
  await Promise.all(Array.from({ length: 50 }, (_, index) => store.saveProcessedRecord('j', 'b', record(index))));
  await store.saveJobState(job);
  const { reservation } = await store.claimBatch('j', 'w');
  await store.renewBatch('j', reservation.batchId, 'w');
  await store.getBatchRecords('j', 'b');
  await store.getPendingRecords('j');
  for await (const { index } of store.records('j')) if (index > 900) break;
  await store.getJobState('j');
  await store.getProgress('j');
  await store.listJobs();
  await store.updateBatchState('j', 'b', { batchId: 'b', status: 'COMPLETED', processedCount: 1, failedCount: 0 });
  await store.getDistributedStatus('j');
  await store.tryFinalizeJob('j');
  await store.deleteJob('j');
  await refused(store.getJobState(5));
  await refused(store.saveProcessedRecord('j', 'b', { index: 1n }));
  await refused(store.saveProcessedRecord('j', 'b', { index: 1.5 }));
  await refused(store.saveBatchRecords('j', 'b', undefined));
  await store.close();
  await refused(store.getProgress('j'));
}

if (isMainThread) {
  await crossAll();
  await crossAll({ durability: 'batch', leaseRenewal: { everyMs: 5, forMs: 60_000 } });
  for (const wrong of [[], ['nonsense'], ['sqlite::memory:', { unknown: 1 }]]) {
    try {
      new SqlxStateStore(...wrong);
    } catch ({ code }) {
      codes.push(code);
    }
  }
  for (let round = 0; round < 3; round++) {
    const worker = new Worker(new URL(import.meta.url), { execArgv: [] });
    await once(worker, 'message');
    await worker.terminate();
  }
  console.log(codes.join(' '));
} else {
  const store = new SqlxStateStore('sqlite::memory:', { leaseRenewal: { everyMs: 1, forMs: 60_000 } });
  await store.initialize();
  const rows = Array.from({ length: 600 }, (_, index) => record(index));
  await store.saveBatchRecords('j', 'b', rows);
  const loop = async (step) => {
    for (;;) await step();
  };
  loop(() => store.saveBatchRecords('j', 'b', rows));
  loop(() => store.getBatchRecords('j', 'b'));
  loop(() => store.saveProcessedRecord('j', 'b', record(1)));
  parentPort.postMessage('at work');
}
