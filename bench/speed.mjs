// How fast the store is, compared with the adapter that it replaces and with the database's own tools: `npm run bench`
//
//   node bench/speed.mjs [--quick] [--profile] [--database <name>]... [--json <file>]
//
// Each row is a task that is done by the store, by a baseline on Sequelize 6 (the tests' own adapter, which works like the one that the store
// replaces: find, then update; bulkCreate; JSON rewritten on each claim), and, if there is one, by a tool of the database that knows nothing of jobs:
// psql and pgbench, and better-sqlite3 (limits.mjs). They take turns, round by round, so that other load on the machine affects all of them alike.
// The output is the median rate of the rounds and the store's ratio to the others. Compare figures of one run only.
//
// A full run (about 15 minutes) writes docs/benchmarks/results.json, and draws docs/benchmarks.md from it. --quick takes 3 minutes, does less of each
// task, and writes only to the file in --json. --profile measures only where the time of a call goes, and updates that part of the same files.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { SqlxStateStore } from '../index.js';
import { databasesWith } from '../__test__/support/databases.mjs';
import { connectSequelize, IncumbentLikeStore } from '../__test__/support/sequelize-models.mjs';
import { limitsOf } from './limits.mjs';
import { profile } from './profile.mjs';
import { writeReport } from './report.mjs';
import { wholeJob } from './whole-job.mjs';
import { batchOf, callers, jobOf, median, newId, range, recordOf } from './work.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    profile: { type: 'boolean' },
    database: { type: 'string', multiple: true },
    json: { type: 'string' },
  },
});
const run = promisify(execFile);
const rounds = options.quick ? 3 : 5;
const times = (count) => Math.max(1, Math.round(count * (options.quick ? 0.2 : 1)));
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const results = {
  machine: {
    node: process.version,
    cpus: cpus().length,
    model: cpus()[0]?.model,
    memoryGB: Math.round(totalmem() / 2 ** 30),
    platform: process.platform,
  },
  quick: options.quick ?? false,
  rounds,
  rows: [],
  whole: [],
  profile: [],
};

/** An import in the manner of the engine: one save awaited after another, the batch's state and the whole job once per batch. */
async function engine(store, records) {
  const id = newId();
  const job = jobOf(id, 0, { totalRecords: records });
  for (let first = 0; first < records; first += 100) {
    const batch = batchOf(id, first / 100);
    job.batches.push(batch);
    const state = (status, processedCount) => ({ batchId: batch.id, status, processedCount, failedCount: 0 });
    await store.updateBatchState(id, batch.id, state('PROCESSING', 0));
    for (const offset of range(100)) await store.saveProcessedRecord(id, batch.id, recordOf(first + offset));
    await store.updateBatchState(id, batch.id, state('COMPLETED', 100));
    Object.assign(batch, state('COMPLETED', 100));
    await store.saveJobState(job);
  }
  return records;
}

const bulk = (size, calls) => async (store) => {
  const id = newId();
  for (const call of range(calls)) {
    const records = range(size).map((n) => recordOf(call * size + n));
    await store.saveBatchRecords(id, `${id}.${call}`, records);
  }
  return size * calls;
};

const singles = (many, count) => async (store) => {
  const id = newId();
  await callers(many, count, (index) => store.saveProcessedRecord(id, 'b', recordOf(index)));
  return count;
};

/** Work on a job that is made once for each store, before anything is timed. */
const onJob = (prepare, work) => {
  const jobs = new Map();
  return async (store) => {
    if (!jobs.has(store)) {
      jobs.set(store, await prepare(store));
      return 0;
    }
    return work(store, jobs.get(store));
  };
};

const claims = (batches, count) =>
  onJob(
    async (store) => {
      const job = jobOf(newId(), batches, { distributed: true });
      await store.saveJobState(job);
      await store.insertBatchRows?.(job);
      await store.claimBatch(job.id, 'worker');
      return job.id;
    },
    async (store, id) => {
      for (let n = 0; n < count; n++) await store.claimBatch(id, 'worker');
      return count;
    },
  );

/** Claims, each timed on its own: the rate of the median one, without those that bring the job's JSON up to date. */
const medianClaim = (batches, count) =>
  onJob(
    async (store) => {
      const job = jobOf(newId(), batches, { distributed: true });
      await store.saveJobState(job);
      await store.insertBatchRows?.(job);
      return job.id;
    },
    async (store, id) => {
      const each = [];
      for (let n = 0; n < count; n++) {
        const began = performance.now();
        await store.claimBatch(id, 'worker');
        each.push(performance.now() - began);
      }
      return { rate: 1_000 / median(each) };
    },
  );

const reads = (records, read) =>
  onJob(async (store) => {
    const id = newId();
    for (let from = 0; from < records; from += 100) {
      await store.saveBatchRecords(
        id,
        `${id}.${from / 100}`,
        range(100).map((n) => recordOf(from + n, 'pending')),
      );
    }
    return id;
  }, read);

const imported = options.quick ? 2_000 : 20_000;
const importedAtLength = options.quick ? 10_000 : 100_000;
const counted = options.quick ? 100_000 : 1_000_000;
const thousands = (count) => count.toLocaleString('en');

/**
 * The tasks: each side's function does the work and returns its amount. A first call that returns 0 only prepares. `goal`: what the store must reach,
 * as a ratio to the baseline, or to the limit.
 */
const ROWS = [
  {
    name: 'saveBatchRecords, 1,000 a call',
    work: bulk(1_000, times(10)),
    limit: { postgres: 'psql \\copy', sqlite: 'better-sqlite3, 1,000 a call' },
    goal: { baseline: { mysql: 4, mariadb: 4, sqlite: 4 }, limit: { postgres: 0.6, sqlite: 0.8 } },
  },
  {
    name: 'saveBatchRecords, 100 a call',
    work: bulk(100, times(50)),
    limit: { postgres: 'psql \\copy', sqlite: 'better-sqlite3, 100 a call' },
    goal: { baseline: { postgres: 4, mysql: 4, mariadb: 4, sqlite: 4 }, limit: { sqlite: 0.8 } },
  },
  {
    name: 'saveProcessedRecord, 1 caller',
    work: singles(1, times(1_000)),
    baseline: singles(1, times(300)),
    limit: { postgres: 'pgbench upsert, 1 client' },
    goal: { limit: { postgres: 0.75 } },
  },
  {
    name: 'saveProcessedRecord, 16 callers',
    work: singles(16, times(6_000)),
    baseline: singles(16, times(1_000)),
    limit: { postgres: 'pgbench upsert, 16 clients' },
    goal: { limit: { postgres: 0.9 } },
  },
  {
    name: 'saveProcessedRecord, 64 callers',
    work: singles(64, times(12_000)),
    baseline: singles(64, times(1_000)),
    limit: { postgres: 'pgbench upsert, 16 clients' },
    goal: { limit: { postgres: 1.3 } },
  },
  {
    name: `import of ${thousands(imported)}, durability 'record'`,
    work: (store) => engine(store, imported),
    once: true,
    baselineOf: 'import',
    goal: { baseline: { postgres: 2.5 } },
  },
  {
    name: `import of ${thousands(imported)}, durability 'batch'`,
    work: (store) => engine(store, imported),
    once: true,
    queued: true,
    baselineOf: 'import',
    goal: { baseline: { postgres: 25 } },
  },
  {
    name: `import of ${thousands(importedAtLength)}, durability 'record'`,
    only: 'postgres',
    work: (store) => engine(store, importedAtLength),
    once: true,
    baselineOf: 'import at length',
    goal: { baseline: { postgres: 2.5 } },
  },
  {
    name: `import of ${thousands(importedAtLength)}, durability 'batch'`,
    only: 'postgres',
    work: (store) => engine(store, importedAtLength),
    once: true,
    queued: true,
    baselineOf: 'import at length',
    goal: { baseline: { postgres: 25 } },
  },
  {
    name: 'claimBatch, the median one of 4,000 batches',
    work: medianClaim(4_000, times(200)),
    baseline: medianClaim(4_000, times(20)),
    limit: { postgres: 'pgbench update returning' },
    goal: { limit: { postgres: 1 / 1.4 } },
  },
  {
    name: 'claimBatch, all of them',
    work: claims(4_000, times(400)),
    baseline: claims(4_000, times(20)),
    limit: { postgres: 'pgbench update returning' },
  },
  {
    name: 'getPendingRecords of 20,000',
    work: reads(20_000, async (store, id) => (await store.getPendingRecords(id)).length),
    goal: { baseline: 2 },
  },
  {
    name: 'getBatchRecords of 100',
    work: reads(10_000, async (store, id) => {
      let count = 0;
      for (const n of range(times(100))) count += (await store.getBatchRecords(id, `${id}.${n}`)).length;
      return count;
    }),
    goal: { baseline: 2 },
  },
];

async function rate(work, store) {
  const began = performance.now();
  const count = await work(store);
  // It prepared.
  if (count === 0) return rate(work, store);
  return count.rate ?? count / ((performance.now() - began) / 1_000);
}

async function compare(database) {
  const [own, other, spare] = [await database.create(), await database.create(), await database.create()];
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const store = new SqlxStateStore(own.url);
  const queued = new SqlxStateStore(own.url, { durability: 'batch' });
  const baseline = new IncumbentLikeStore(connectSequelize(other, { pool: { max: 16 } }));
  // Two SQLite libraries in one process would break each other's locks on one file.
  const tables = new SqlxStateStore(spare.url);
  try {
    await store.initialize();
    await baseline.initialize();
    await tables.initialize();
    await tables.close();
    const limits = await limitsOf(database, database.dialect.name === 'sqlite' ? spare : own, folder, times);
    console.log(`\n${database.name} (${database.version})`);
    line('', 'ours', 'Sequelize', 'ratio', 'limit', 'ratio', 'goal');
    const shared = {};
    for (const row of ROWS.filter(({ only }) => (only ?? database.dialect.name) === database.dialect.name)) {
      const rates = { ours: [], baseline: [], limit: [] };
      const limit = limits[row.limit?.[database.dialect.name]];
      for (let round = 0; round < (row.once ? 1 : rounds); round++) {
        rates.ours.push(await rate(row.work, row.queued ? queued : store));
        if (row.baselineOf) rates.baseline.push((shared[row.baselineOf] ??= await rate(row.work, baseline)));
        else rates.baseline.push(await rate(row.baseline ?? row.work, baseline));
        if (limit) rates.limit.push(await limit());
      }
      report(database, { ...row, limit: limit && row.limit[database.dialect.name], unit: 'a second' }, rates);
    }
    await largeJob(database, own, store, other, baseline);
    if (database.dialect.name !== 'sqlite') await profiled(database, store, own, folder);
  } finally {
    await Promise.allSettled([store.close(), queued.close(), baseline.close()]);
    await Promise.allSettled([own.drop(), other.drop(), spare.drop(), rm(folder, { recursive: true, force: true })]);
  }
}

/** Creates a number of records of a job in the database itself: one row, then copies of all existing rows until there are enough. */
async function fill(database, id, count) {
  const columns = '"status", "raw", "parsed", "errors"';
  const { status, raw, parsed, errors } = recordOf(0);
  const values = [id, status, ...[raw, parsed, errors].map((each) => JSON.stringify(each))];
  await database.query(
    `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", ${columns}) values (?, 'b', 0, ?, ?, ?, ?)`,
    values,
  );
  for (let have = 1; have < count; have *= 2) {
    await database.query(
      `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", ${columns})
      select "jobId", "batchId", "recordIndex" + ${have}, ${columns} from "batchactions_records" where "jobId" = ? and "recordIndex" < ?`,
      [id, count - have],
    );
  }
}

async function profiled({ name, version }, store, own, folder) {
  const parts = await profile(store, own, folder, times);
  results.profile.push(...parts.map((part) => ({ database: name, version, ...part })));
  console.log('');
  line('where the time goes, ms', 'whole', 'boundary', 'stringify', 'server', 'the rest');
  for (const { call, ...part } of parts)
    line(call, ...['whole', 'boundary', 'stringify', 'server', 'rest'].map((key) => part[key].toFixed(3)));
}

/** Only where the time goes. */
async function onlyProfile(database) {
  const own = await database.create();
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const store = new SqlxStateStore(own.url);
  try {
    await store.initialize();
    console.log(`\n${database.name} (${database.version})`);
    await profiled(database, store, own, folder);
  } finally {
    await store.close();
    await Promise.allSettled([own.drop(), rm(folder, { recursive: true, force: true })]);
  }
}

/** The cost of counting and of streaming a job of a million records. */
async function largeJob(database, own, store, other, baseline) {
  const id = newId();
  for (const each of [own, other]) await fill(each, id, counted);
  const job = jobOf(id, 0, { totalRecords: counted });
  await store.saveJobState(job);
  await baseline.saveJobState(job);
  if (database.dialect.name === 'postgres') for (const each of [own, other]) await each.query('vacuum analyze batchactions_records');
  const rates = { ours: [], baseline: [], limit: [] };
  const count = 'select "status", count(*) as "count" from "batchactions_records" where "jobId" = ? group by "status"';
  for (let round = 0; round < rounds; round++) {
    rates.ours.push(await rate(async () => Number((await store.getProgress(id)).processedRecords > 0), store));
    rates.baseline.push(await rate(async () => Number((await baseline.getProgress(id)).processedRecords > 0), baseline));
    rates.limit.push(await rate(async () => (await own.query(count, [id])).length, store));
  }
  const name = `getProgress of ${thousands(counted)} records`;
  report(database, { name, unit: 'a second', limit: 'the same count, bare', goal: { limit: 1 / 1.2 } }, rates);

  const { stdout } = await run(process.execPath, [here('stream.mjs'), own.url, id]);
  const streamed = JSON.parse(stdout);
  if (streamed.count !== counted) throw new Error(`${streamed.count} of ${counted} records were streamed`);
  report(
    database,
    { name: `records() of ${thousands(counted)}: memory`, unit: 'MB above the start', goal: { most: 100 } },
    { ours: [streamed.most - streamed.before], baseline: [], limit: [] },
  );
  report(database, { name: `records() of ${thousands(counted)}`, unit: 'a second' }, { ours: [streamed.rate], baseline: [], limit: [] });
}

/** Loading the package, connecting, the first claim: a process each. */
async function startUp(database) {
  const own = await database.create();
  const store = new SqlxStateStore(own.url);
  try {
    await store.initialize();
    await store.saveJobState(jobOf('start', 200, { distributed: true }));
    const measured = { ours: [], baseline: [] };
    for (let round = 0; round < rounds; round++) {
      for (const side of ['ours', 'baseline']) {
        const { stdout } = await run(process.execPath, [here('start-up.mjs'), side, own.dialect.name, own.url]);
        measured[side].push(JSON.parse(stdout));
      }
    }
    for (const [key, unit, name, goal] of [
      ['ms', 'ms', 'start to first claim', 1 / 4],
      ['rss', 'MB', 'memory after the first claim', 0.7],
    ]) {
      const values = { ours: measured.ours.map((each) => each[key]), baseline: measured.baseline.map((each) => each[key]), limit: [] };
      report(database, { name, unit, less: true, goal: { baseline: goal } }, values);
    }
  } finally {
    await store.close();
    await own.drop();
  }
}

async function wholeJobs(database) {
  console.log('');
  line(`a distributed job, 4 processes, s`, 'prepare', 'work', 'in all', 'MB', 'getJobState');
  for (const records of options.quick ? [2_000, 20_000] : [100_000, 1_000_000]) {
    const result = { database: database.name, ...(await wholeJob(database, records, 4)) };
    results.whole.push(result);
    const { prepare, work, megabytes, getJobState } = result;
    const cells = [prepare.toFixed(1), work.toFixed(1), (prepare + work).toFixed(1), megabytes.toFixed(0), `${getJobState.toFixed(0)} ms`];
    line(`${thousands(records)} records`, ...cells);
  }
  const [small, large] = results.whole.slice(-2).map(({ prepare, work }) => prepare + work);
  line('ten times the records: times the time', '', '', (large / small).toFixed(1));
}

function report({ name: database, dialect, version }, { name, unit, limit, less = false, goal = {} }, rates) {
  const [ours, theirs, native] = [rates.ours, rates.baseline, rates.limit].map((values) => (values.length ? median(values) : null));
  const own = (wanted) => (typeof wanted === 'object' ? wanted[dialect.name] : wanted) ?? null;
  const goals = { baseline: own(goal.baseline), limit: own(goal.limit), most: goal.most ?? null };
  results.rows.push({
    database,
    version,
    work: name,
    unit,
    less,
    ours,
    baseline: theirs,
    limit: native,
    limitName: limit ?? null,
    goals,
    rates,
  });
  const shown = (value) => (value === null ? '–' : value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString('en'));
  const ratio = (other) => (other === null ? '–' : (ours / other).toFixed(2));
  const wanted = [
    goals.baseline && `${less ? '≤' : '≥'} ${goals.baseline} of it`,
    goals.limit && `≥ ${goals.limit.toFixed(2)} of limit`,
    goals.most && `≤ ${goals.most}`,
  ];
  line(
    `${name}, ${unit}`,
    shown(ours),
    shown(theirs),
    ratio(theirs),
    shown(native),
    ratio(native),
    wanted.filter(Boolean).join(', ') || '–',
  );
}

function line(first, ...rest) {
  console.log(first.padEnd(58) + rest.map((cell) => cell.padStart(11)).join(' '));
}

const { node, cpus: cores, model = 'an unknown processor' } = results.machine;
console.log(`Node ${node}, ${cores} × ${model}, median of ${rounds} rounds`);
const chosen = databasesWith('shared').filter(({ name }) => (options.database ?? [name]).includes(name));
const file = here('../docs/benchmarks/results.json');
if (options.profile) {
  for (const database of chosen.filter(({ dialect }) => dialect.name !== 'sqlite')) await onlyProfile(database);
} else {
  for (const database of chosen) {
    await compare(database);
    await startUp(database);
    if (database.dialect.name === 'postgres') await wholeJobs(database);
  }
}
const kept = options.profile ? { ...JSON.parse(await readFile(file, 'utf8')), profile: results.profile } : results;
const text = JSON.stringify(kept, null, 2) + '\n';
if (options.json) await writeFile(options.json, text);
if (!options.quick && !options.database) {
  await writeFile(file, text);
  await writeReport(kept, here('../docs/'));
}
