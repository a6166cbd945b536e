// Whole jobs as users run them: imports in the manner of core's engine, and distributed ones in the manner of the importer, in sizes up to a million
// records; and the two things that such jobs spend their time on, `getJobState` and the end of a batch. Each side takes its turn in each round.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MEMORY, rowsOf, runEngineProcess } from './engine.mjs';
import { prepare, runImporter } from './importer.mjs';
import { has, pgbench, UPSERT_EACH } from './limits.mjs';
import { openStore, OURS, SEQUELIZE } from './sides.mjs';
import { fill, jobOf, median, newId, range } from './work.mjs';

const thousands = (count) => count.toLocaleString('en');

/** How much of each part is done. A size beyond `repeated` is run once, because it takes minutes. */
const SCALES = {
  quick: {
    rounds: 1,
    importer: [100],
    engine: [10_000],
    record: [2_000],
    listed: 1_000,
    calls: 10,
    claimed: 4,
    repeated: 10_000,
    sequelize: 1_000,
  },
  usual: {
    rounds: 3,
    importer: [100, 1_000, 2_000],
    engine: [20_000, 100_000],
    record: [20_000],
    listed: 10_000,
    calls: 30,
    claimed: 10,
    repeated: 200_000,
    sequelize: 10_000,
  },
  full: {
    rounds: 3,
    importer: [100, 300, 1_000, 2_000, 5_000, 10_000],
    engine: [10_000, 20_000, 100_000, 300_000, 1_000_000],
    record: [20_000, 400_000],
    listed: 10_000,
    calls: 30,
    claimed: 20,
    repeated: 200_000,
    sequelize: 100_000,
  },
};

/**
 * @typedef {object} Bench
 * @property {'quick' | 'usual' | 'full'} scale
 * @property {Record<string, string>} sides `ours`, and where it is given `before`: what `openStore` takes.
 * @property {import('./results.mjs').Results} results
 * @property {string[]} [parts] The names of those of `PARTS` that are wanted; all if it is missing.
 */

const PARTS = { importer, importerRecord, engineQueued, engineRecord, jobState, claimedBatch };

/** @param {object} database @param {Bench} bench */
export async function measureJobs(database, bench) {
  bench.results.heading(database);
  const context = { ...SCALES[bench.scale], ...bench, database, postgres: database.dialect.name === 'postgres' };
  for (const [name, part] of Object.entries(PARTS)) if ((bench.parts ?? [name]).includes(name)) await part(context);
}

const report = ({ results, database }, row, rates) => results.add('jobs', database, row, rates);

/** The sides in this round's order, so that none is always the first. */
const inTurn = (sides, round) => (round % 2 ? Object.entries(sides).toReversed() : Object.entries(sides));

/** Lists by size and side, to which each round adds. */
class Samples {
  #all = new Map();

  add(size, side, value) {
    const sides = this.#all.get(size) ?? {};
    this.#all.set(size, sides);
    (sides[side] ??= []).push(value);
  }

  /** What was measured of a size, by side: all of it, or one of its numbers. */
  of(size, key) {
    const sides = this.#all.get(size) ?? {};
    return Object.fromEntries(Object.entries(sides).map(([side, values]) => [side, values.map((value) => (key ? value[key] : value))]));
  }

  sizes() {
    return [...this.#all.keys()];
  }
}

/** Runs each size in each round, those that take long in the first one only. */
async function inRounds({ rounds, repeated, sides }, sizes, records, run) {
  for (const round of range(rounds)) {
    for (const size of sizes.filter((each) => round === 0 || records(each) <= repeated)) {
      for (const [side, store] of inTurn(sides, round)) await run(size, side, store, round);
    }
  }
}

/** What the growth curves are drawn from. */
function keepGrowth({ results, database }, mode, samples, records) {
  for (const size of samples.sizes()) {
    for (const [side, rates] of Object.entries(samples.of(size, 'rate'))) {
      results.growth.push({ database: database.name, mode, side, records: records(size), rate: median(rates) });
    }
  }
}

/** `ours`, `before` and `baseline` of a size, and as their limit `ours` of a smaller one. */
const against = (samples, size, base) => ({ ...samples.of(size, 'rate'), limit: samples.of(base, 'rate').ours });

async function importer(context) {
  const { database, postgres, importer: sizes, sequelize, scale } = context;
  if (!postgres) return;
  const samples = new Samples();
  const records = (batches) => batches * 100;
  await inRounds(context, sizes, records, async (batches, side, store, round) => {
    samples.add(batches, side, await runImporter(database, { side: store, records: records(batches) }));
    // Sequelize's rate takes minutes of a large job, and is the same in each round.
    const also = side === 'ours' && round === 0 && scale !== 'quick' && records(batches) <= sequelize;
    if (also) samples.add(batches, 'baseline', await runImporter(database, { side: SEQUELIZE, records: records(batches) }));
  });
  keepGrowth(context, 'importer', samples, records);
  for (const batches of sizes) {
    const name = `distributed importer, 2 processes, 'batch', ${thousands(batches)} batches`;
    const base = batches > 1_000 && sizes.includes(1_000) ? 1_000 : undefined;
    const goal = { 2_000: { before: 1.5 }, 10_000: { limit: 0.7 } }[batches];
    const limit = base && `its rate at ${thousands(base)}`;
    report(context, { name, unit: 'records/s', limit, goal }, base ? against(samples, batches, base) : samples.of(batches, 'rate'));
    const most = batches === 10_000 ? { most: 110 } : undefined;
    report(context, { name: `${name}: memory of a worker`, unit: 'MB', less: true, goal: most }, samples.of(batches, 'megabytes'));
    report(context, { name: `${name}: preparing it`, unit: 'records/s' }, samples.of(batches, 'prepareRate'));
  }
}

/** With a commit for each save, beside pgbench's commits of the same rows: over TCP, with as many clients, each row once. */
async function importerRecord(context) {
  const { database, postgres, record, sides, rounds } = context;
  if (!postgres) return;
  const [records, processes] = [record[0], 2];
  const limits = (await has('pgbench')) ? () => pgbenchUpserts(database, records, processes) : undefined;
  const rates = { ours: [], before: [], limit: [] };
  for (const round of range(rounds)) {
    for (const [side, store] of inTurn(sides, round)) {
      rates[side].push((await runImporter(database, { side: store, records, processes, durability: 'record' })).rate);
    }
    if (limits) rates.limit.push(await limits());
  }
  const name = `distributed importer, 2 processes, 'record', ${thousands(records / 100)} batches`;
  report(context, { name, unit: 'records/s', limit: 'pgbench, 2 clients', goal: { limit: 0.75 } }, rates);
}

async function pgbenchUpserts(database, records, clients) {
  const own = await database.create();
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const store = await openStore(OURS, { url: own.url, dialect: database.dialect.name });
  try {
    await store.initialize();
    await fill(own, 'pgbench', records, 'pending');
    const each = records / clients;
    return await pgbench(own, folder, UPSERT_EACH, clients, { transactions: each, define: ['next=0', `each=${each}`] });
  } finally {
    await store.close();
    await Promise.allSettled([own.drop(), rm(folder, { recursive: true, force: true })]);
  }
}

async function engineQueued(context) {
  const { database, postgres, sequelize, scale } = context;
  // The other servers' growth is told by three points.
  const sizes = context.engine.filter((records) => postgres || [10_000, 100_000, 1_000_000].includes(records));
  const samples = new Samples();
  await inRounds({ ...context, sides: { ...context.sides, limit: MEMORY } }, sizes, Number, async (records, side, store, round) => {
    samples.add(records, side, await runEngineProcess(database, { side: store, records }));
    const also = side === 'ours' && round === 0 && scale !== 'quick' && records <= (postgres ? sequelize : 10_000);
    if (also) samples.add(records, 'baseline', await runEngineProcess(database, { side: SEQUELIZE, records }));
  });
  keepGrowth(context, 'engine', samples, Number);
  const ofMemory = { postgres: 0.4, sqlite: 0.4, mariadb: 0.35, mysql: 0.15 };
  const ofSmaller = { postgres: 0.75, sqlite: 0.75, mariadb: 0.65, mysql: 0.7 };
  for (const records of sizes) {
    const name = `engine, 'batch', ${thousands(records)} records`;
    const goal = records === 100_000 ? { limit: ofMemory } : undefined;
    report(context, { name, unit: 'records/s', limit: 'in memory', goal }, samples.of(records, 'rate'));
    if (records === 1_000_000 && sizes.includes(100_000)) {
      const { ours, before, limit } = against(samples, records, 100_000);
      report(
        context,
        { name: `${name}, against 100,000`, unit: 'records/s', limit: 'its rate at 100,000', goal: { limit: ofSmaller } },
        { ours, before, limit },
      );
    }
    const { ours, before } = samples.of(records, 'late');
    const most = records === 1_000_000 ? { most: 20 } : undefined;
    report(context, { name: `${name}: event loop late, p99.9`, unit: 'ms', less: true, goal: most }, { ours, before });
  }
}

async function engineRecord(context) {
  const { database, postgres, record: sizes, scale, sequelize } = context;
  if (!postgres) return;
  const samples = new Samples();
  await inRounds(context, sizes, Number, async (records, side, store, round) => {
    samples.add(records, side, await runEngineProcess(database, { side: store, records, durability: 'record' }));
    const also = side === 'ours' && round === 0 && scale !== 'quick' && records <= Math.max(sequelize, 20_000);
    if (also) samples.add(records, 'baseline', await runEngineProcess(database, { side: SEQUELIZE, records }));
  });
  for (const records of sizes) {
    const name = `engine, 'record', ${thousands(records)} records`;
    const smaller = records === 400_000 ? 20_000 : undefined;
    const row = { name, unit: 'records/s', limit: smaller && 'its rate at 20,000', goal: smaller && { limit: 0.9 } };
    report(context, row, smaller ? against(samples, records, smaller) : samples.of(records, 'rate'));
  }
}

/**
 * A database and a store for each side. A first store saves the job, and statements change it, before the store that is measured connects: of
 * SQLite, two libraries in one process (another version of the addon, the tests' own driver) can't have one file open.
 */
async function onEachSide({ database, sides }, options, { save, change }, measure) {
  const dialect = database.dialect.name;
  const owns = {};
  const stores = {};
  const ids = {};
  try {
    for (const [side, path] of Object.entries(sides)) {
      const own = (owns[side] = await database.create());
      const first = await openStore(path, { url: own.url, dialect });
      try {
        await first.initialize();
        ids[side] = await save(first);
      } finally {
        await first.close();
      }
      await change?.(own, ids[side]);
      stores[side] = await openStore(path, { url: own.url, dialect }, options);
    }
    await measure(stores, ids, owns);
  } finally {
    await Promise.allSettled(Object.values(stores).map((store) => store.close()));
    await Promise.allSettled(Object.values(owns).map((own) => own.drop()));
  }
}

/** Runs statements on a connection that is closed afterwards. */
async function query(own, sql, params) {
  const connection = await own.connect();
  return connection.query(sql, params).finally(() => connection.end());
}

/**
 * `getJobState` as a worker calls it: in a job of which a part is done, after a batch was claimed and completed. How long it takes where the list
 * isn't looked at and where it is, and how long it holds the event loop.
 */
async function jobState(context) {
  const { listed, calls, scale, postgres } = context;
  const sides = { ...context.sides, ...(scale !== 'quick' && postgres && { baseline: SEQUELIZE }) };
  const times = { unseen: new Samples(), seen: new Samples(), held: new Samples() };
  await onEachSide({ ...context, sides }, {}, halfDoneJob(listed), async (stores, ids) => {
    // The first calls make connections, and what a store keeps of a job.
    for (const call of range(calls + 3)) {
      for (const [side, store] of inTurn(stores, call)) {
        const took = await jobStateCalls(store, ids[side]);
        if (call >= 3) for (const [key, ms] of Object.entries(took)) times[key].add(listed, side, ms);
      }
    }
  });
  const name = `getJobState of ${thousands(listed)} batches`;
  const unseen = { postgres: 0.1, mariadb: 0.25, mysql: 0.25, sqlite: 1 / 7 };
  const row = (what, goal) => ({ name: `${name}, ${what}`, unit: 'ms', less: true, goal: listed === 10_000 ? goal : {} });
  report(context, row('not looked at', { before: unseen }), times.unseen.of(listed));
  report(context, row('looked at', { before: 0.5 }), times.seen.of(listed));
  report(context, row('event loop held', { most: 1 }), times.held.of(listed));
}

/** A distributed job whose first half was done by another worker. */
const halfDoneJob = (batches) => ({
  async save(store) {
    const job = jobOf(newId(), batches, { distributed: true });
    await store.saveJobState(job);
    await store.insertBatchRows?.(job);
    return job.id;
  },
  async change(own, id) {
    const done = `update "batchactions_batches"
      set "status" = 'COMPLETED', "workerId" = 'worker-1', "claimedAt" = ?, "processedCount" = 100, "version" = 1
      where "jobId" = ? and "batchIndex" < ?`;
    await query(own, done, [Date.now(), id, batches / 2]);
  },
});

async function jobStateCalls(store, id) {
  const complete = async () => {
    const { claimed, reservation } = await store.claimBatch(id, 'worker-2');
    if (!claimed) throw new Error('nothing was left to claim');
    const { batchId } = reservation;
    await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount: 100, failedCount: 0 });
  };
  const timed = async (look) => {
    await complete();
    const began = performance.now();
    look(await store.getJobState(id));
    return performance.now() - began;
  };
  const unseen = await timed((job) => job.totalRecords);
  const seen = await timed((job) => job.batches.length);
  await complete();
  const held = await longestHold(() => store.getJobState(id));
  return { unseen, seen, held };
}

/** The longest time between two turns of the event loop while something is done, in ms. */
async function longestHold(action) {
  let [last, longest, over] = [0, 0, false];
  const turn = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (!over) setImmediate(turn);
  };
  const nextTurn = () => new Promise((done) => setImmediate(done));
  await nextTurn();
  last = performance.now();
  setImmediate(turn);
  await action();
  await nextTurn();
  over = true;
  await nextTurn();
  return longest;
}

/**
 * The end of a claimed batch with durability 'batch': 100 saves of records that exist are queued, and COMPLETED waits until all is stored. Timed
 * from the call of COMPLETED to its answer; and the ids that a batch took from the column's 32 bits (which SQLite's has not).
 */
async function claimedBatch(context) {
  const { claimed, rounds, database } = context;
  const limitedIds = database.dialect.name !== 'sqlite';
  const [times, taken] = [new Samples(), new Samples()];
  const batches = (rounds + 1) * claimed;
  const save = async (store) => (await prepare(store, rowsOf(batches * 100))).id;
  await onEachSide(context, { durability: 'batch' }, { save }, async (stores, ids, owns) => {
    for (const round of range(rounds + 1)) {
      for (const [side, store] of inTurn(stores, round)) {
        const before = limitedIds && (await idOfNewRecord(owns[side]));
        const took = [];
        for (let n = 0; n < claimed; n++) took.push(await endOfBatch(store, ids[side]));
        // In the first round statements are prepared.
        if (round === 0) continue;
        for (const ms of took) times.add(100, side, ms);
        if (limitedIds) taken.add(100, side, ((await idOfNewRecord(owns[side])) - before - 1) / claimed);
      }
    }
  });
  const before = { postgres: 0.85, mariadb: 0.75, mysql: 0.5 };
  report(context, { name: '100 saves of a claimed batch, and COMPLETED', unit: 'ms', less: true, goal: { before } }, times.of(100));
  if (limitedIds)
    report(context, { name: '100 saves of a claimed batch: ids taken', unit: 'a batch', less: true, goal: { most: 0 } }, taken.of(100));
}

async function endOfBatch(store, id) {
  const { claimed, reservation } = await store.claimBatch(id, 'worker');
  if (!claimed) throw new Error('nothing was left to claim');
  const { batchId } = reservation;
  const records = await store.getBatchRecords(id, batchId);
  for (const record of records) await store.saveProcessedRecord(id, batchId, { ...record, status: 'processed' });
  const began = performance.now();
  await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount: records.length, failedCount: 0 });
  return performance.now() - began;
}

/** The id that the database gives to the next new record. */
async function idOfNewRecord(own) {
  const id = newId();
  await fill(own, id, 1);
  const [row] = await own.query('select "id" from "batchactions_records" where "jobId" = ?', [id]);
  return Number(row.id);
}
