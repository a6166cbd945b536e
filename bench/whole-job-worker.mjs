// A worker of the distributed importer, as far as its store is concerned: node whole-job-worker.mjs <url> <job id> <name>
// It claims, loads, saves each record, completes and tries to finalize, until nothing is left; prints what it did and its peak memory.

import { readFileSync } from 'node:fs';
import { SqlxStateStore } from '../index.js';

const [url, id, name] = process.argv.slice(2);
const store = new SqlxStateStore(url);
let [batches, records, finalized] = [0, 0, 0];
for (;;) {
  const result = await store.claimBatch(id, name);
  if (!result.claimed) break;
  const { batchId } = result.reservation;
  const loaded = await store.getBatchRecords(id, batchId);
  for (const record of loaded) await store.saveProcessedRecord(id, batchId, { ...record, status: 'processed' });
  await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount: loaded.length, failedCount: 0 });
  if (await store.tryFinalizeJob(id)) finalized++;
  batches++;
  records += loaded.length;
}
await store.close();
const megabytes = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
console.log(JSON.stringify({ batches, records, finalized, megabytes }));
