// Starts threads that call stores all the time, and terminates them in the middle of it, round after round.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { resources, settle } from './resources.mjs';

const { url, jobId, rounds, threads, loaded } = JSON.parse(process.argv[2]);
const THREAD = new URL('./thread.mjs', import.meta.url);

const start = async (workerData) => {
  const worker = new Worker(THREAD, { workerData, execArgv: [] });
  // Both may come in one turn, and a listener that is added for the second after the first waits for ever.
  const exited = once(worker, 'exit');
  const [message] = await once(worker, 'message');
  return { worker, message, exited };
};

// With the addon in the main thread, or in the workers only, in which case each round's is the first to load it.
const store = loaded ? new (await import('../../index.js')).SqlxStateStore(url) : undefined;
await store?.getJobState(jobId);

let first;
for (let round = 0; round < rounds; round++) {
  const full = round % 10 === 4;
  const workers = await Promise.all(Array.from({ length: threads }, () => start({ url, jobId, full })));
  await new Promise((resolve) => setTimeout(resolve, full ? 300 : (round * 13) % 60));
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  // The runtime's own threads are there from now on.
  if (round === 0) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    first = resources();
  }
}
const tooMuch = await settle(first);
await store?.getJobState(jobId);
const { message, exited } = await start({ url, once: true });
await exited;
await store?.close();
console.log(JSON.stringify({ message, tooMuch }));
