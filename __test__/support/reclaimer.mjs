// A process that reclaims stale batches of one job for some time: node reclaimer.mjs <url> <job id> <timeout, ms> <for how long, ms>
// Prints how many it took.

import { setTimeout as sleep } from 'node:timers/promises';
import { SqlxStateStore } from '../../index.js';

const [url, jobId, timeoutMs, forMs] = process.argv.slice(2);
const store = new SqlxStateStore(url);
const end = Date.now() + Number(forMs);
let reclaimed = 0;
while (Date.now() < end) {
  reclaimed += await store.reclaimStaleBatches(jobId, Number(timeoutMs));
  await sleep(50);
}
await store.close();
console.log(JSON.stringify({ reclaimed }));
