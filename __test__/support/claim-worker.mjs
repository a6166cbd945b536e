// A process that works on one job until no batch is left: node claim-worker.mjs <url> <job id> <workers> <name>
// It says 'ready', waits for any message, and then reports what it claimed and what it saw at the end.

import { storeOn } from './store.mjs';
import { work } from './work.mjs';

const [url, jobId, workers, name] = process.argv.slice(2);
const store = storeOn(url, { pool: { max: 4 } });
await store.getJobState(jobId);
process.once('message', async () => {
  const results = await Promise.all(Array.from({ length: Number(workers) }, (_, n) => work(store, jobId, `${name}.${n}`)));
  await store.close();
  process.send(results, () => process.disconnect());
});
process.send('ready');
