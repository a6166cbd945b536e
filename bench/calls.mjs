// Single calls: saves, reads and claims, each in turn with the Sequelize baseline and with the database's own tools; counting and streaming a million
// records; and how long a process takes from its start to its first claim.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { limitsOf } from './limits.mjs';
import { openStore, OURS, SEQUELIZE } from './sides.mjs';
import { callers, fill, jobOf, median, newId, range, recordOf } from './work.mjs';

const run = promisify(execFile);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const thousands = (count) => count.toLocaleString('en');

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

/**
 * The tasks: each side's function does the work and returns its amount. A first call that returns 0 only prepares. `goal`: what the store must reach,
 * as a ratio to the baseline, or to the limit.
 */
const tasksOf = (times) => [
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

/**
 * @param {object} database
 * @param {import('./jobs.mjs').Bench} bench
 */
export async function measureCalls(database, { scale, sides, results }) {
  const [own, older, other, spare] = await Promise.all(range(4).map(() => database.create()));
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const on = (side, { url }) => openStore(side, { url, dialect: database.dialect.name });
  const stores = {
    ours: await on(sides.ours, own),
    ...(sides.before && { before: await on(sides.before, older) }),
    baseline: await on(SEQUELIZE, other),
  };
  // Two SQLite libraries in one process would break each other's locks on one file.
  const tables = await on(OURS, spare);
  const quick = scale === 'quick';
  const times = (count) => Math.max(1, Math.round(count * (quick ? 0.2 : 1)));
  const rounds = quick ? 3 : 5;
  try {
    for (const store of [...Object.values(stores), tables]) await store.initialize();
    await tables.close();
    const limits = await limitsOf(database, database.dialect.name === 'sqlite' ? spare : own, folder, times);
    results.heading(database);
    for (const task of tasksOf(times)) {
      const rates = { ours: [], before: [], baseline: [], limit: [] };
      const limitName = task.limit?.[database.dialect.name];
      const limit = limits[limitName];
      for (let round = 0; round < rounds; round++) {
        for (const [side, store] of Object.entries(stores)) {
          rates[side].push(await rate((side === 'baseline' && task.baseline) || task.work, store));
        }
        if (limit) rates.limit.push(await limit());
      }
      results.add('calls', database, { ...task, limit: limit && limitName, unit: 'a second' }, rates);
    }
    await largeJob(database, {
      owns: { ours: own, before: older, baseline: other },
      stores,
      rounds,
      counted: quick ? 100_000 : 1_000_000,
      results,
    });
    await deletions(database, { owns: { ours: own, before: older }, stores, rounds, count: quick ? 20_000 : 100_000, results });
  } finally {
    await Promise.allSettled(Object.values(stores).map((store) => store.close()));
    await Promise.allSettled([own, older, other, spare].map((each) => each.drop()));
    await rm(folder, { recursive: true, force: true });
  }
}

/** The cost of counting and of streaming the records of a large job. */
async function largeJob(database, { owns, stores, rounds, counted, results }) {
  const id = newId();
  for (const [side, store] of Object.entries(stores)) {
    await fill(owns[side], id, counted);
    await store.saveJobState(jobOf(id, 0, { totalRecords: counted }));
    if (database.dialect.name === 'postgres') await owns[side].query('vacuum analyze batchactions_records');
  }
  const rates = { ours: [], before: [], baseline: [], limit: [] };
  const count = 'select "status", count(*) as "count" from "batchactions_records" where "jobId" = ? group by "status"';
  for (let round = 0; round < rounds; round++) {
    for (const [side, store] of Object.entries(stores)) {
      rates[side].push(await rate(async () => Number((await store.getProgress(id)).processedRecords > 0), store));
    }
    rates.limit.push(await rate(async () => (await owns.ours.query(count, [id])).length, stores.ours));
  }
  const name = `getProgress of ${thousands(counted)} records`;
  results.add('calls', database, { name, unit: 'a second', limit: 'the same count, bare', goal: { limit: 1 / 1.2 } }, rates);

  const { stdout } = await run(process.execPath, [here('stream.mjs'), owns.ours.url, id]);
  const streamed = JSON.parse(stdout);
  if (streamed.count !== counted) throw new Error(`${streamed.count} of ${counted} records were streamed`);
  const memory = { name: `records() of ${thousands(counted)}: memory`, unit: 'MB above the start', less: true, goal: { most: 100 } };
  results.add('calls', database, memory, { ours: [streamed.most - streamed.before] });
  results.add('calls', database, { name: `records() of ${thousands(counted)}`, unit: 'a second' }, { ours: [streamed.rate] });
}

/** The records that a slice of `deleteJob` has. */
const SLICE = 5_000;

/** `deleteJob`, and the server's own deletion of the same rows in slices of the same size, through a connection of their own. */
async function deletions(database, { owns, stores, rounds, count, results }) {
  const slice = ['mysql', 'mariadb'].includes(database.dialect.name)
    ? `delete from "batchactions_records" where "jobId" = ? limit ${SLICE}`
    : `delete from "batchactions_records" where "id" in (select "id" from "batchactions_records" where "jobId" = ? limit ${SLICE})`;
  const rates = { ours: [], before: [], limit: [] };
  const filled = async (own) => {
    const id = newId();
    await fill(own, id, count);
    return id;
  };
  for (let round = 0; round < rounds; round++) {
    for (const [side, own] of Object.entries(owns)) {
      const store = stores[side];
      if (store === undefined) continue;
      const id = await filled(own);
      await store.saveJobState(jobOf(id, 0, { totalRecords: count }));
      rates[side].push(await rate(async () => ((await store.deleteJob(id)) ? count : 0), store));
    }
    const id = await filled(owns.ours);
    const bare = async () => {
      // And once more, as the store does, to find that nothing is left.
      for (let deleted = 0; deleted <= count; deleted += SLICE) await owns.ours.query(slice, [id]);
      return count;
    };
    rates.limit.push(await rate(bare));
  }
  const name = `deleteJob of ${thousands(count)} records`;
  results.add('calls', database, { name, unit: 'a second', limit: 'the same rows in slices, bare', goal: { limit: 1 / 1.5 } }, rates);
}

/**
 * Loading the package, connecting, the first claim: a process each.
 *
 * @param {object} database
 * @param {import('./jobs.mjs').Bench} bench
 */
export async function measureStart(database, { scale, sides, results }) {
  const own = await database.create();
  const store = await openStore(OURS, { url: own.url, dialect: database.dialect.name });
  const paths = { ...sides, baseline: SEQUELIZE };
  try {
    await store.initialize();
    await store.saveJobState(jobOf('start', 200, { distributed: true }));
    const measured = {};
    for (let round = 0; round < (scale === 'quick' ? 3 : 5); round++) {
      for (const [side, path] of Object.entries(paths)) {
        const { stdout } = await run(process.execPath, [here('start-up.mjs'), path, own.dialect.name, own.url]);
        (measured[side] ??= []).push(JSON.parse(stdout));
      }
    }
    for (const [key, unit, name, goal] of [
      ['ms', 'ms', 'start to first claim', 1 / 4],
      ['rss', 'MB', 'memory after the first claim', 0.7],
    ]) {
      const values = Object.fromEntries(Object.entries(measured).map(([side, each]) => [side, each.map((one) => one[key])]));
      results.add('calls', database, { name, unit, less: true, goal: { baseline: goal } }, values);
    }
  } finally {
    await store.close();
    await own.drop();
  }
}
