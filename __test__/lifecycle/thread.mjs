// A worker thread that never stops calling: every kind of call is under way whenever it is terminated. With `once`, it checks that a store works, and ends.

import { parentPort, workerData } from 'node:worker_threads';
import { SqlxStateStore } from '../../index.js';

const { url, jobId, once } = workerData;
const record = (index) => ({ index, raw: { text: 'x'.repeat(200) }, parsed: {}, status: 'valid', errors: [] });
const loop = async (step) => {
  for (;;) await step().catch(() => {});
};

if (once) {
  const store = new SqlxStateStore(url);
  await store.saveBatchRecords('once', 'b', [record(0)]);
  parentPort.postMessage((await store.getBatchRecords('once', 'b')).length === 1 ? 'works' : 'lost a record');
  await store.close();
} else {
  const pool = { max: 3 };
  const store = new SqlxStateStore(url, { pool, leaseRenewal: { everyMs: 5, forMs: 60_000 } });
  const queueing = new SqlxStateStore(url, { pool, durability: 'batch' });
  const rows = Array.from({ length: 200 }, (_, index) => record(index));
  let n = 0;
  await store.getJobState(jobId);
  await queueing.getJobState(jobId);
  loop(() => store.saveProcessedRecord(jobId, 'b', record(n++ % 1_000)));
  loop(() => store.saveBatchRecords(jobId, 'b', rows));
  loop(() => store.getBatchRecords(jobId, 'b'));
  // Larger than one slice.
  loop(() => store.getBatchRecords('large', 'b'));
  loop(async () => {
    const { reservation } = await store.claimBatch(jobId, 'w');
    if (reservation && n % 2) await store.releaseBatch(jobId, reservation.batchId, 'w');
    await store.reclaimStaleBatches(jobId, 1);
  });
  loop(async () => {
    for await (const { index } of store.records(jobId)) if (index > 150) break;
  });
  loop(async () => {
    const opened = new SqlxStateStore(url, { pool });
    await opened.getProgress(jobId);
    await opened.close();
  });
  // Answered at once, so it has to let the others have their turn.
  loop(async () => {
    for (let index = 0; index < 20; index++) await queueing.saveProcessedRecord('queued', 'b', record(index));
    await new Promise((resolve) => setImmediate(resolve));
  });
  parentPort.postMessage('at work');
}
