// What a claim costs, and whether that grows with the job: `npm run bench:claims`
//
//   node bench/claims.mjs [--sizes 100,1000,4000,100000] [--cycles 300] [--callers 1,16] [--database <name>]... [--json <file>]
//
// For each database that is there, jobs of these sizes are prepared, and a worker's cycle is timed in each of them: `reclaimStaleBatches` that finds
// nothing, `claimBatch`, `updateBatchState` COMPLETED, and a `tryFinalizeJob` that is too early. The cycles are run at the beginning, in the middle
// and at the end of each job, by one caller and by 16 callers of one store. What lies between is worked off too, and not timed. The sizes
// take turns, a few cycles each, so that what else the machine does meanwhile meets all of them alike.
//
// The table gives the median of each call in ms and its ratio to that in the job of 1,000; the same ratio for each of the three places alone; and the
// mean and the maximum, which include the upkeep of the job's JSON copy (section "The two copies" of ARCHITECTURE.md).

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { SqlxStateStore } from '../index.js';
import { databasesWith } from '../__test__/support/databases.mjs';
import { makeJob } from '../__test__/support/fixtures.mjs';

const { values: options } = parseArgs({
  options: {
    sizes: { type: 'string', default: '100,1000,4000,100000' },
    cycles: { type: 'string', default: '300' },
    callers: { type: 'string', default: '1,16' },
    database: { type: 'string', multiple: true },
    json: { type: 'string' },
  },
});
const sizes = options.sizes.split(',').map(Number);
const cycles = Number(options.cycles);
const calls = ['reclaim', 'claim', 'update', 'finalize'];
/** The beginning, the middle and the end of a job. */
const places = [0, 0.5, 1];
const minutes = 15 * 60_000;
const results = [];

for (const database of databasesWith('shared').filter(({ name }) => (options.database ?? [name]).includes(name))) {
  const own = await database.create();
  const store = new SqlxStateStore(own.url, { pool: { max: 16 } });
  try {
    await store.initialize();
    await allowLargeLists(database, own);
    for (const callers of options.callers.split(',').map(Number)) report(database, callers, await measure(store, callers));
  } finally {
    await store.close();
    await own.drop();
  }
}
if (options.json) writeFileSync(options.json, JSON.stringify(results, null, 2));

/** The list of 100,000 batches exceeds the default packet size of MySQL and MariaDB. */
async function allowLargeLists({ dialect }, own) {
  if (!['mysql', 'mariadb'].includes(dialect.name)) return;
  const [{ bytes }] = await own.query('select @@global.max_allowed_packet as "bytes"');
  if (Number(bytes) < 64 << 20 && Math.max(...sizes) > 50_000) {
    throw new Error(`the server's max_allowed_packet is ${bytes}: jobs of 100,000 batches need 64 MB`);
  }
}

async function measure(store, callers) {
  const jobs = [];
  for (const size of sizes) {
    const id = `bench-${callers}-${size}-${Date.now()}`;
    await store.saveJobState(makeJob(size, { id, size: 100 }));
    jobs.push({
      id,
      size,
      done: 0,
      window: Math.min(cycles, Math.floor((size - 30) / 3)),
      times: Object.fromEntries(calls.map((call) => [call, places.map(() => [])])),
    });
  }

  // A connection's first statements are not timed, because they are prepared then. The last cycle of a job would finalize it.
  for (const job of jobs) await run(store, job, callers, 20);
  for (const [place, part] of places.entries()) {
    for (const job of jobs) {
      const start = Math.floor((job.size - 10 - job.window) * part);
      if (start > job.done) await run(store, job, 16, start - job.done, undefined, true);
    }
    const slice = Math.max(callers, 25);
    for (let done = 0; done < cycles; done += slice) {
      for (const job of jobs) await run(store, job, callers, Math.min(slice, job.window - done), place);
    }
  }
  return jobs;
}

/** Completes `count` batches. */
async function run(store, job, callers, count, place, quickly = false) {
  if (count <= 0) return;
  job.done += count;
  let left = count;
  const time = async (call, promise) => {
    const began = performance.now();
    const value = await promise();
    if (place !== undefined) job.times[call][place].push(performance.now() - began);
    return value;
  };
  const work = async (name) => {
    while (left-- > 0) {
      if (!quickly) await time('reclaim', () => store.reclaimStaleBatches(job.id, minutes));
      const { claimed, reservation } = await time('claim', () => store.claimBatch(job.id, name));
      if (!claimed) throw new Error(`nothing to claim in a job of ${job.size} batches after ${job.done}`);
      const { batchId } = reservation;
      const state = { batchId, status: 'COMPLETED', processedCount: 100, failedCount: 0 };
      await time('update', () => store.updateBatchState(job.id, batchId, state));
      if (!quickly && (await time('finalize', () => store.tryFinalizeJob(job.id)))) throw new Error('finalized too early');
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, n) => work(`worker ${n}`)));
}

function report({ name, version }, callers, jobs) {
  console.log(`\n${name} (${version}), ${callers} caller${callers > 1 ? 's' : ''}: ms`);
  const line = (first, ...rest) => console.log(first.padEnd(10) + rest.map((cell) => String(cell).padStart(9)).join(''));
  line('call', 'batches', 'median', 'ratio', 'begin', 'middle', 'end', 'mean', 'max');
  for (const call of calls) {
    const base = (jobs.find(({ size }) => size === 1_000) ?? jobs[0]).times[call];
    for (const { size, times } of jobs) {
      const all = times[call].flat();
      const row = {
        database: name,
        callers,
        call,
        batches: size,
        median: median(all),
        ratio: median(all) / median(base.flat()),
        atPlaces: places.map((_, place) => median(times[call][place]) / median(base[place])),
        mean: all.reduce((sum, ms) => sum + ms, 0) / all.length,
        max: Math.max(...all),
      };
      results.push(row);
      const ratios = [row.ratio, ...row.atPlaces].map((ratio) => ratio.toFixed(2));
      line(call, size, row.median.toFixed(3), ...ratios, row.mean.toFixed(3), row.max.toFixed(1));
    }
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
