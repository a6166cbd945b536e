// How fast the store is, beside what it replaces and beside the database's own tools: `npm run bench`
//
//   node bench/speed.mjs [--quick] [--database <name>]... [--json <file>]
//
// Each row is a piece of work that is done by the store, by a baseline on Sequelize 6 (the tests' own adapter in the manner of the one that the store
// replaces: find, then update; bulkCreate; JSON rewritten on each claim), and where there is one by a tool of the database that knows nothing of jobs: psql and
// pgbench. They take turns, round by round, each on a database of its own, so that what else the machine does meets all of them alike. What
// is printed is the median rate of the rounds and the store's ratio to the others. A figure is worth something beside the others of its run only.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { SqlxStateStore } from '../index.js';
import { databases } from '../__test__/support/databases.mjs';
import { makeBatch, makeJob } from '../__test__/support/jobs.mjs';
import { connectSequelize, IncumbentLikeStore } from '../__test__/support/sequelize-models.mjs';

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean' }, database: { type: 'string', multiple: true }, json: { type: 'string' } },
});
const run = promisify(execFile);
const rounds = options.quick ? 3 : 7;
const scale = options.quick ? 0.25 : 1;
const times = (count) => Math.max(1, Math.round(count * scale));
const range = (count) => Array.from({ length: count }, (_, index) => index);
const results = [];
let sequence = 0;
const newId = () => `bench-${process.pid}-${++sequence}`;

/** About 340 bytes, as a row of an import is. */
const recordOf = (index, status = 'processed') => {
  const row = {
    name: `Customer ${index}`,
    email: `customer.${index}@example.com`,
    city: 'Springfield',
    amount: '1234.50',
    note: 'delivered on time',
  };
  return { index, raw: row, parsed: { ...row, amount: 1234.5 }, status, errors: [] };
};
/** Batches of 100 records. */
const batchOf = (id, index) => makeBatch(id, index, { size: 100 });
const jobOf = (id, batches, more) => makeJob(id, { batches, size: 100, ...more });

/** Does `work` `count` times, by so many callers, each awaiting one after the other. */
async function callers(many, count, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(range(many).map(caller));
}

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
}

const bulk = (size, calls) => async (store) => {
  const id = newId();
  for (const call of range(calls))
    await store.saveBatchRecords(
      id,
      `${id}.${call}`,
      range(size).map((n) => recordOf(call * size + n)),
    );
  return size * calls;
};
const singles = (many, count) => async (store) => {
  const id = newId();
  await callers(many, count, (index) => store.saveProcessedRecord(id, 'b', recordOf(index)));
  return count;
};
const claims = (batches, count) => {
  const prepared = new Map();
  return async (store) => {
    if (!prepared.has(store)) {
      const job = jobOf(newId(), batches, { distributed: true });
      await store.saveJobState(job);
      await store.insertBatchRows?.(job);
      prepared.set(store, job.id);
      await store.claimBatch(job.id, 'worker');
      return 0;
    }
    for (let n = 0; n < count; n++) await store.claimBatch(prepared.get(store), 'worker');
    return count;
  };
};
const reads = (records, read) => {
  const prepared = new Map();
  return async (store) => {
    if (!prepared.has(store)) {
      const id = newId();
      for (let from = 0; from < records; from += 100) {
        await store.saveBatchRecords(
          id,
          `${id}.${from / 100}`,
          range(100).map((n) => recordOf(from + n, 'pending')),
        );
      }
      prepared.set(store, id);
      return 0;
    }
    return read(store, prepared.get(store));
  };
};

/** What is measured: what each side does, and returns how much of it that was. A first call that returns 0 only prepares. */
const ROWS = [
  { name: 'saveBatchRecords, 1,000 a call', unit: 'records/s', work: bulk(1_000, times(10)), limit: 'copy' },
  { name: 'saveBatchRecords, 100 a call', unit: 'records/s', work: bulk(100, times(50)), limit: 'copy' },
  {
    name: 'saveProcessedRecord, 1 caller',
    unit: 'records/s',
    work: singles(1, times(1_000)),
    baseline: singles(1, times(300)),
    limit: 'upsert-1',
  },
  {
    name: 'saveProcessedRecord, 16 callers',
    unit: 'records/s',
    work: singles(16, times(6_000)),
    baseline: singles(16, times(1_000)),
    limit: 'upsert-16',
  },
  {
    name: 'saveProcessedRecord, 64 callers',
    unit: 'records/s',
    work: singles(64, times(12_000)),
    baseline: singles(64, times(1_000)),
    limit: 'upsert-16',
  },
  { name: "import, durability 'record'", unit: 'records/s', work: engineOf(times(4_000)), baseline: engineOf(times(1_000)) },
  { name: "import, durability 'batch'", unit: 'records/s', queued: true, work: engineOf(times(40_000)), baseline: engineOf(times(1_000)) },
  {
    name: 'claimBatch, 1 caller, 4,000 batches',
    unit: 'claims/s',
    work: claims(4_000, times(200)),
    baseline: claims(4_000, times(20)),
    limit: 'claim',
  },
  {
    name: 'getPendingRecords of 20,000',
    unit: 'records/s',
    work: reads(20_000, async (store, id) => (await store.getPendingRecords(id)).length),
  },
  {
    name: 'getBatchRecords of 100',
    unit: 'records/s',
    work: reads(10_000, async (store, id) => {
      let count = 0;
      for (const n of range(times(100))) count += (await store.getBatchRecords(id, `${id}.${n}`)).length;
      return count;
    }),
  },
];

function engineOf(records) {
  return async (store) => {
    await engine(store, records);
    return records;
  };
}

/** The database's own tools. Each returns a rate. */
async function limitsOf({ dialect }, own, folder) {
  if (dialect !== 'postgres') return {};
  const has = async (program) =>
    run(program, ['--version']).then(
      () => true,
      () => false,
    );
  const limits = {};
  if (await has('psql')) {
    const file = join(folder, 'rows.tsv');
    let copies = 0;
    limits.copy = async () => {
      const id = `copy-${++copies}`;
      const count = times(10_000);
      const row = (n) =>
        [id, 'b', n, 'processed', JSON.stringify(recordOf(n).raw), JSON.stringify(recordOf(n).parsed), '[]', '\\N'].join('\t');
      await writeFile(file, range(count).map(row).join('\n') + '\n');
      const columns = '"jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError"';
      const { stdout } = await run('psql', [
        own.url,
        '-X',
        '-c',
        '\\timing on',
        '-c',
        `\\copy batchactions_records (${columns}) from '${file}'`,
      ]);
      return count / (Number(/Time: ([\d.]+) ms/.exec(stdout)[1]) / 1_000);
    };
  }
  if (await has('pgbench')) {
    const { hostname, port, username, pathname } = new URL(own.url);
    const pgbench = async (name, script, clients) => {
      const file = join(folder, `${name}.sql`);
      await writeFile(file, script);
      const seconds = options.quick ? 1 : 2;
      const args = [
        '-n',
        '-M',
        'prepared',
        '-h',
        hostname,
        '-p',
        port || '5432',
        '-U',
        username,
        '-c',
        clients,
        '-j',
        2,
        '-T',
        seconds,
        '-f',
        file,
        pathname.slice(1),
      ];
      const { stdout } = await run('pgbench', args.map(String));
      return Number(/tps = ([\d.]+)/.exec(stdout)[1]);
    };
    const { raw, parsed } = recordOf(1);
    const upsert = `\\set n random(1, 1000000000)
insert into batchactions_records ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError")
values ('pgbench', 'b', :n, 'processed', '${JSON.stringify(raw)}', '${JSON.stringify(parsed)}', '[]', null)
on conflict ("jobId", "recordIndex") do update set "status" = excluded."status", "raw" = excluded."raw", "parsed" = excluded."parsed";
`;
    limits['upsert-1'] = () => pgbench('upsert', upsert, 1);
    limits['upsert-16'] = () => pgbench('upsert', upsert, 16);
    await own.query(
      `insert into "batchactions_batches" ("id", "jobId", "batchIndex") select 'p' || n, 'pgbench', n from generate_series(1, 4000) n`,
    );
    const update = `\\set n random(1, 4000)
update batchactions_batches set "status" = 'PROCESSING', "version" = "version" + 1 where "id" = 'p' || :n returning "batchIndex";
`;
    limits.claim = () => pgbench('claim', update, 1);
  }
  return limits;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

async function rate(work, store) {
  const began = performance.now();
  const count = await work(store);
  // It prepared.
  return count === 0 ? rate(work, store) : count / ((performance.now() - began) / 1_000);
}

async function compare(database) {
  const [own, other] = [await database.create(), await database.create()];
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const store = new SqlxStateStore(own.url);
  const queued = new SqlxStateStore(own.url, { durability: 'batch' });
  const baseline = new IncumbentLikeStore(connectSequelize(other, { pool: { max: 16 } }));
  try {
    await store.initialize();
    await baseline.initialize();
    const limits = await limitsOf(database, own, folder);
    console.log(`\n${database.name} (${database.version})`);
    line('', 'ours', 'Sequelize', 'ratio', 'limit', 'ratio');
    for (const row of ROWS) {
      const rates = { ours: [], baseline: [], limit: [] };
      for (let round = 0; round < rounds; round++) {
        rates.ours.push(await rate(row.work, row.queued ? queued : store));
        rates.baseline.push(await rate(row.baseline ?? row.work, baseline));
        if (limits[row.limit]) rates.limit.push(await limits[row.limit]());
      }
      const [ours, theirs, limit] = [rates.ours, rates.baseline, rates.limit].map((values) => (values.length ? median(values) : undefined));
      results.push({
        database: database.name,
        version: database.version,
        work: row.name,
        unit: row.unit,
        ours,
        baseline: theirs,
        limit,
        rates,
      });
      const shown = (value) => (value === undefined ? '–' : Math.round(value).toLocaleString('en'));
      line(row.name, shown(ours), shown(theirs), `${(ours / theirs).toFixed(1)}×`, shown(limit), limit ? (ours / limit).toFixed(2) : '–');
    }
  } finally {
    await Promise.allSettled([store.close(), queued.close(), baseline.close()]);
    await Promise.allSettled([own.drop(), other.drop(), rm(folder, { recursive: true, force: true })]);
  }
}

/** Loading the package, connecting, the first claim: a process each. */
async function startUp(database) {
  const own = await database.create();
  const store = new SqlxStateStore(own.url);
  try {
    await store.initialize();
    await store.saveJobState(jobOf('start', 200, { distributed: true }));
    const child = fileURLToPath(new URL('start-up.mjs', import.meta.url));
    const measured = { ours: [], baseline: [] };
    for (let round = 0; round < rounds; round++) {
      for (const side of ['ours', 'baseline']) {
        const { stdout } = await run(process.execPath, [child, side, own.dialect, own.url]);
        measured[side].push(JSON.parse(stdout));
      }
    }
    for (const [key, unit] of [
      ['ms', 'ms'],
      ['rss', 'MB'],
    ]) {
      const [ours, theirs] = ['ours', 'baseline'].map((side) => median(measured[side].map((each) => each[key])));
      results.push({
        database: database.name,
        version: database.version,
        work: `start to first claim, ${unit}`,
        unit,
        ours,
        baseline: theirs,
      });
      line(`start to first claim, ${unit}`, ours.toFixed(0), theirs.toFixed(0), `1/${(theirs / ours).toFixed(1)}`, '–', '–');
    }
  } finally {
    await store.close();
    await own.drop();
  }
}

function line(first, ...rest) {
  console.log(first.padEnd(38) + rest.map((cell) => cell.padStart(11)).join(''));
}

console.log(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'an unknown processor'}, median of ${rounds} rounds`);
for (const database of databases.filter(({ name, shared }) => shared && (options.database ?? [name]).includes(name))) {
  await compare(database);
  await startUp(database);
}
if (options.json) writeFileSync(options.json, JSON.stringify(results, null, 2));
