// A process that watches another one renew its claim: node renewal-watcher.mjs <url> <job id>
// Prints how often it saw the claim of the job's first batch renewed: five times, or fewer where that takes a minute.

import { setTimeout as sleep } from 'node:timers/promises';
import { storeOn } from './store.mjs';

const [url, jobId] = process.argv.slice(2);
const store = storeOn(url);
const claimedAt = async () => (await store.getJobState(jobId)).batches[0].claimedAt;
const deadline = Date.now() + 60_000;
let renewals = 0;
for (let last = await claimedAt(); renewals < 5 && Date.now() < deadline;) {
  await sleep(20);
  const now = await claimedAt();
  if (now > last) renewals++;
  last = now;
}
await store.close();
console.log(JSON.stringify({ renewals }));
