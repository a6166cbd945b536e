// Where the time of one claim, one save and one bulk call goes, on PostgreSQL: what each part costs alone, in ms.
//
// The boundary is measured by a call that needs no database and by JSON.stringify alone; the server by the store's own statement in pgbench, prepared,
// over the same kind of connection; what remains of the whole call is the driver, the queue and the waking of threads.

import { recordOf, newId, jobOf, median, range } from './work.mjs';
import { pgbench } from './limits.mjs';

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

async function timed(count, work) {
  const times = [];
  for (const n of range(count)) {
    const began = performance.now();
    await work(n);
    times.push(performance.now() - began);
  }
  return median(times);
}

/** The statement of the record writer, for one record. */
const SAVE = `\\set n random(1, 1000000000)
insert into batchactions_records ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError")
values ('profile', 'b', :n, 'processed', ${quoted(JSON.stringify(recordOf(1).raw))}::text::json, ${quoted(JSON.stringify(recordOf(1).parsed))}::text::json, '[]'::text::json, null)
on conflict ("jobId", "recordIndex") do update
set "batchId" = excluded."batchId", "status" = excluded."status", "raw" = excluded."raw", "parsed" = excluded."parsed",
    "errors" = excluded."errors", "processingError" = excluded."processingError";
`;

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

/** The statement of a bulk save of 1,000, as the server sees it but for the way there: rows that it has already, copied by itself. */
async function serverBulk(own, size) {
  const rows = range(size).map((n) => [n, JSON.stringify(recordOf(n).raw), JSON.stringify(recordOf(n).parsed)]);
  await own.query('create unlogged table "profile_rows" ("n" int, "raw" text, "parsed" text)');
  for (const row of rows) await own.query('insert into "profile_rows" values (?, ?, ?)', row);
  const columns = '"jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError"';
  const insert = (id) => `insert into "batchactions_records" (${columns})
    select '${id}', 'b', "n", 'processed', "raw"::json, "parsed"::json, '[]'::json, null from "profile_rows"`;
  const ms = await timed(30, () => own.query(insert(newId())));
  await own.query('drop table "profile_rows"');
  return ms;
}

export async function profile(store, own, folder, times) {
  const parts = [];
  const boundary = await timed(times(2_000), () => store.saveBatchRecords('profile', 'b', []));
  const rate = (script, how) => pgbench(own, folder, script, 1, how);

  const claimed = jobOf(newId(), 4_000, { distributed: true });
  await store.saveJobState(claimed);
  const whole = await timed(times(800), () => store.claimBatch(claimed.id, 'worker'));
  const other = jobOf(newId(), 4_000, { distributed: true });
  await store.saveJobState(other);
  const server = 1_000 / (await rate(claimScript(other.id), { transactions: times(2_000), define: ['next=0'], settings: SETTINGS }));
  parts.push({ call: 'claimBatch', whole, boundary, stringify: 0, server });

  const id = newId();
  const record = recordOf(1);
  const stringify = await timed(2_000, () => JSON.stringify(record));
  const save = await timed(times(2_000), (n) => store.saveProcessedRecord(id, 'b', { ...record, index: n }));
  parts.push({ call: 'saveProcessedRecord', whole: save, boundary, stringify, server: 1_000 / (await rate(SAVE)) });

  const bulkId = newId();
  const bulks = range(40).map((call) => range(1_000).map((n) => recordOf(call * 1_000 + n)));
  const stringifyBulk = await timed(40, (n) => JSON.stringify(bulks[n]));
  const bulk = await timed(40, (n) => store.saveBatchRecords(bulkId, 'b', bulks[n]));
  parts.push({
    call: 'saveBatchRecords of 1,000',
    whole: bulk,
    boundary,
    stringify: stringifyBulk,
    server: await serverBulk(own, 1_000),
  });
  return parts.map((part) => ({ ...part, rest: part.whole - part.boundary - part.stringify - part.server }));
}
