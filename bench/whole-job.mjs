// Runs a whole distributed job with several worker processes, in two sizes: does the time grow with the records, or faster?

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { SqlxStateStore } from '../index.js';
import { jobOf, newId, range, recordOf } from './work.mjs';

const run = promisify(execFile);
const worker = fileURLToPath(new URL('whole-job-worker.mjs', import.meta.url));

/** Seconds of the two phases, memory of the largest worker, and ms of one `getJobState`, which core calls once per batch and which lists all. */
export async function wholeJob(database, records, processes) {
  const own = await database.create();
  const store = new SqlxStateStore(own.url);
  try {
    await store.initialize();
    const id = newId();
    const batches = records / 100;
    const began = performance.now();
    const job = jobOf(id, batches, { distributed: true, totalRecords: records });
    for (const [index, batch] of job.batches.entries()) {
      await store.saveBatchRecords(
        id,
        batch.id,
        range(100).map((n) => recordOf(index * 100 + n, 'pending')),
      );
    }
    await store.saveJobState(job);
    const prepared = performance.now();
    const workers = await Promise.all(range(processes).map((n) => run(process.execPath, [worker, own.url, id, `worker-${n}`])));
    const done = performance.now();
    const said = workers.map(({ stdout }) => JSON.parse(stdout));
    const total = (key) => said.reduce((sum, each) => sum + each[key], 0);
    const state = await store.getJobState(id);
    const listing = performance.now() - done;
    // A figure for work that was not done would be worthless.
    if (total('batches') !== batches || total('records') !== records || total('finalized') !== 1 || state.status !== 'COMPLETED') {
      throw new Error(`the job was not done as it should: ${JSON.stringify(said)}, ${state.status}`);
    }
    return {
      records,
      processes,
      prepare: (prepared - began) / 1_000,
      work: (done - prepared) / 1_000,
      megabytes: Math.max(...said.map((each) => each.megabytes)),
      getJobState: listing,
    };
  } finally {
    await store.close();
    await own.drop();
  }
}
