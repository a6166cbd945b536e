// A worker thread that never stops calling: every kind of call is under way whenever it is terminated. With `full`, a queue of saves is as
// full as it gets. With `once`, it checks that a store works, and ends.

import { parentPort, workerData } from 'node:worker_threads';
import { SqlxStateStore } from '../../index.js';

const { url, jobId, once, full } = workerData;
// How long a busy machine takes to let a server answer is not what is looked at here.
const connectTimeoutMs = 60_000;
const record = (index) => ({ index, raw: { text: 'x'.repeat(200) }, parsed: {}, status: 'valid', errors: [] });
const loop = async (step) => {
  for (;;) await step().catch(() => {});
};

if (once) {
  const store = new SqlxStateStore(url, { connectTimeoutMs });
  await store.saveBatchRecords('once', 'b', [record(0)]);
  parentPort.postMessage((await store.getBatchRecords('once', 'b')).length === 1 ? 'works' : 'lost a record');
  await store.close();
} else {
  const settings = { connectTimeoutMs, pool: { max: 3 } };
  const store = new SqlxStateStore(url, { ...settings, leaseRenewal: { everyMs: 5, forMs: 60_000 } });
  const queueing = new SqlxStateStore(url, { ...settings, durability: 'batch' });
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
    const opened = new SqlxStateStore(url, settings);
    await opened.getProgress(jobId);
    await opened.close();
  });
  // Answered at once, so it has to let the others have their turn. Where the queue is to be full, the database has work for long after the thread: of
  // 10,000 records at most, in statements of 1,000, which they would not be if some of them were the same.
  let queued = 0;
  loop(async () => {
    for (let count = 0; count < 20; count++) await queueing.saveProcessedRecord('queued', 'b', record(queued++ % 10_000));
    await new Promise((resolve) => (full ? setImmediate(resolve) : setTimeout(resolve, 5)));
  });
  parentPort.postMessage('at work');
}
