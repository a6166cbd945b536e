// Where the time of one claim, one save and one bulk call goes: what each part costs alone, in ms. (Where the CPU of a whole job goes: cpu.mjs.)
//
// The boundary is measured by a call that needs no database and by JSON.stringify alone; the server, on PostgreSQL, by the store's own statement in
// pgbench, prepared, over the same kind of connection; the server's part of a bulk save, on each server, by an insert of as many rows from one of its
// own tables, so that it receives and parses nothing. The rest of the call's time is the network, the driver, the queue and waking threads.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pgbench, UPSERT } from './limits.mjs';
import { line } from './results.mjs';
import { openStore, OURS } from './sides.mjs';
import { recordOf, newId, jobOf, median, range } from './work.mjs';

async function timed(count, work) {
  const times = [];
  for (const n of range(count)) {
    const began = performance.now();
    await work(n);
    times.push(performance.now() - began);
  }
  return median(times);
}

/** Those of the store's own sessions. */
const SETTINGS = ['enable_sort=off', 'enable_bitmapscan=off', 'enable_seqscan=off', 'jit=off'];

/** The statement of a claim, with the place where it goes on as a store knows it: a client counts for itself. */
const claimScript = (id) => `\\set from :next
update batchactions_batches
set "status" = 'PROCESSING', "workerId" = 'pgbench', "claimedAt" = (extract(epoch from clock_timestamp()) * 1000)::bigint, "version" = "version" + 1
where "id" = (
  select "id" from batchactions_batches
  where "jobId" = '${id}' and "batchIndex" >= :from and "status" || '' = 'PENDING'
    and exists (select from batchactions_jobs where "id" = '${id}' and "status" = 'PROCESSING')
  order by "batchIndex" limit 1 for update skip locked
)
returning "id", "batchIndex", "claimedAt", "recordStartIndex", "recordEndIndex", "version" \\gset
\\set next :batchIndex
`;

/** The time that the server takes for that many rows when it has them already. */
async function serverBulk(own, size) {
  const cast = own.dialect.name === 'postgres' ? '::json' : '';
  await own.query('create table "profile_rows" ("n" int, "raw" text, "parsed" text)');
  for (const n of range(size)) {
    await own.query('insert into "profile_rows" values (?, ?, ?)', [
      n,
      JSON.stringify(recordOf(n).raw),
      JSON.stringify(recordOf(n).parsed),
    ]);
  }
  const columns = '"jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError"';
  const insert = (id) => `insert into "batchactions_records" (${columns})
    select '${id}', 'b', "n", 'processed', "raw"${cast}, "parsed"${cast}, '[]', null from "profile_rows"`;
  const ms = await timed(100, () => own.query(insert(newId())));
  await own.query('drop table "profile_rows"');
  return ms;
}

async function partsOf(store, own, folder, times) {
  const boundary = await timed(times(2_000), () => store.saveBatchRecords('profile', 'b', []));
  const parts = own.dialect.name === 'postgres' ? await singleCalls(store, own, folder, times, boundary) : [];
  for (const size of [100, 1_000]) {
    const id = newId();
    const calls = 100_000 / size / (size < 1_000 ? 4 : 2);
    const bulks = range(calls).map((call) => range(size).map((n) => recordOf(call * size + n)));
    const stringify = await timed(calls, (n) => JSON.stringify(bulks[n]));
    const whole = await timed(calls, (n) => store.saveBatchRecords(id, 'b', bulks[n]));
    parts.push({
      size,
      call: `saveBatchRecords of ${size.toLocaleString('en')}`,
      whole,
      boundary,
      stringify,
      server: await serverBulk(own, size),
    });
  }
  return parts.map((part) => ({ ...part, rest: part.whole - part.boundary - part.stringify - part.server }));
}

async function singleCalls(store, own, folder, times, boundary) {
  const rate = (script, how) => pgbench(own, folder, script, 1, { settings: SETTINGS, ...how });
  const [claimed, other] = [jobOf(newId(), 4_000, { distributed: true }), jobOf(newId(), 4_000, { distributed: true })];
  for (const job of [claimed, other]) await store.saveJobState(job);
  const claim = await timed(times(800), () => store.claimBatch(claimed.id, 'worker'));
  const serverClaim = 1_000 / (await rate(claimScript(other.id), { transactions: times(2_000), define: ['next=0'] }));

  const id = newId();
  const record = recordOf(1);
  const stringify = await timed(2_000, () => JSON.stringify(record));
  const save = await timed(times(2_000), (n) => store.saveProcessedRecord(id, 'b', { ...record, index: n }));
  const serverSave = 1_000 / (await rate(UPSERT));
  return [
    { call: 'claimBatch', whole: claim, boundary, stringify: 0, server: serverClaim },
    { call: 'saveProcessedRecord', whole: save, boundary, stringify, server: serverSave },
  ];
}

/** What the server alone needs of a bulk save's time, at least: with the rest, the store's own work has to fit. */
const SERVERS_PART = {
  100: { postgres: 0.72, mariadb: 0.8, mysql: 0.8 },
  1_000: { postgres: 0.75, mariadb: 0.75, mysql: 0.68 },
};

/**
 * @param {object} database
 * @param {import('./jobs.mjs').Bench} bench
 */
export async function measureParts(database, { scale, results }) {
  const { name, version, dialect } = database;
  const own = await database.create();
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-bench-'));
  const store = await openStore(OURS, { url: own.url, dialect: dialect.name });
  const times = (count) => Math.max(1, Math.round(count * (scale === 'quick' ? 0.2 : 1)));
  try {
    await store.initialize();
    const parts = await partsOf(store, own, folder, times);
    results.profile.push(...parts.map((part) => ({ database: name, version, ...part })));
    console.log('');
    line('where the time goes, ms', 'whole', 'boundary', 'stringify', 'server', 'the rest');
    for (const { call, ...part } of parts)
      line(call, ...['whole', 'boundary', 'stringify', 'server', 'rest'].map((key) => part[key].toFixed(3)));
    for (const { size, call, server, whole } of parts.filter((part) => part.size)) {
      const row = { name: `${call}: the server's own part`, unit: 'of the time', goal: { least: SERVERS_PART[size] } };
      results.add('parts', database, row, { ours: [server / whole] });
    }
  } finally {
    await store.close();
    await Promise.allSettled([own.drop(), rm(folder, { recursive: true, force: true })]);
  }
}
