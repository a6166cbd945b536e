// What the calls of an overview cost, and whether that grows with the job: `npm run bench:overview`
//
//   node bench/overview.mjs [--sizes 100,100000] [--jobs 1000] [--calls 200] [--database <name>]...
//
// For each database that is there, jobs of these sizes are prepared, distributed and PROCESSING, beside finished ones without batches. `getJob` and `batches`
// are timed in each of the sizes, which take turns; their ratio is to the first size. `stats` is timed in turn with a bare count of the same, made by a
// database client in two statements; its ratio is to that. SQLite's client runs in another process, because two SQLite libraries in one must not open one
// file, so its bare count includes two messages between processes.

import { parseArgs } from 'node:util';
import { SqlxStateStore } from '../index.js';
import { databasesWith } from '../__test__/support/databases.mjs';
import { makeJob } from '../__test__/support/fixtures.mjs';
import { median } from './work.mjs';

const { values: options } = parseArgs({
  options: {
    sizes: { type: 'string', default: '100,100000' },
    jobs: { type: 'string', default: '1000' },
    calls: { type: 'string', default: '200' },
    database: { type: 'string', multiple: true },
  },
});
const sizes = options.sizes.split(',').map(Number);
const calls = Number(options.calls);

const BARE = [
  'select "status", count(*) from "batchactions_jobs" group by "status"',
  `select b."status", count(*)
   from "batchactions_jobs" j
   join "batchactions_batches" b on b."jobId" = j."id"
   where j."distributed" and j."status" not in ('COMPLETED', 'ABORTED', 'FAILED') and b."status" in ('PENDING', 'PROCESSING', 'PAUSED')
   group by b."status"`,
];

for (const database of databasesWith('shared').filter(({ name }) => (options.database ?? [name]).includes(name))) {
  const own = await database.create();
  const store = new SqlxStateStore(own.url);
  try {
    await store.initialize();
    console.log(`\n${database.name} (${database.version}): median of ${calls} calls`);
    await measure(store, await own.connect(), database.dialect);
  } finally {
    await store.close();
    await own.drop();
  }
}

async function measure(store, bare, dialect) {
  const jobs = sizes.map((size) => makeJob(size, { id: `job-${size}`, size: 100 }));
  for (const job of jobs) {
    await store.saveJobState(job);
    for (let n = 0; n < 16; n++) await store.claimBatch(job.id, `worker ${n}`);
  }
  for (let n = 0; n < Number(options.jobs); n++)
    await store.saveJobState(makeJob(0, { status: 'COMPLETED', completedAt: 1_700_000_000_000 + n }));
  // As a server does by itself after a while.
  for (const table of ['jobs', 'batches']) {
    if (dialect.name === 'postgres') await bare.query(`vacuum analyze batchactions_${table}`);
    else await bare.query(dialect.name === 'sqlite' ? 'analyze' : `analyze table batchactions_${table}`);
  }

  const ofJob = {
    getJob: ({ id }) => store.getJob(id),
    'batches, the first 100': ({ id }) => store.batches(id),
    'batches, 40 in the middle': ({ id, batches }) => store.batches(id, { after: batches.length >> 1, limit: 40 }),
    'batches that are PROCESSING': ({ id }) => store.batches(id, { status: 'PROCESSING' }),
    'batches that are PENDING': ({ id }) => store.batches(id, { status: 'PENDING' }),
  };
  for (const [name, call] of Object.entries(ofJob)) {
    const times = await inTurn(jobs.map((job) => () => call(job)));
    for (const [n, time] of times.entries()) line(name, `${sizes[n]} batches`, time, time / times[0]);
  }
  const count = async () => {
    for (const statement of BARE) await bare.query(statement);
  };
  const [counted, found] = await inTurn([count, () => store.stats()]);
  line('a bare count', '', counted, 1);
  line('stats', '', found, found / counted);
  line('ping', '', (await inTurn([() => store.ping()]))[0], '');
  await bare.end();
}

/** The median time of each, in ms. */
async function inTurn(works) {
  const times = works.map(() => []);
  for (let n = -5; n < calls; n++) {
    for (const [place, work] of works.entries()) {
      const began = performance.now();
      await work();
      if (n >= 0) times[place].push(performance.now() - began);
    }
  }
  return times.map(median);
}

function line(name, what, ms, ratio) {
  console.log(
    name.padEnd(30) + what.padEnd(18) + ms.toFixed(3).padStart(9) + (typeof ratio === 'number' ? ratio.toFixed(2) : ratio).padStart(8),
  );
}
