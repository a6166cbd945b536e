// Imports a CSV file with one orchestrator and four worker processes, kills a worker in the middle of a batch, and checks that no row is lost
// and none counted twice.
//
//   npm run demo                           100,000 rows, on a SQLite file in a temporary folder
//   npm run demo -- --url <database URL>   on a server: the tables are created where they are missing, and the job is deleted at the end
//   npm run demo -- --rows <number>        at least 5,000
//   npm run demo -- --quick                10,000 rows
//   npm run demo -- --watch                serves the dashboard meanwhile, at an address of this machine that it prints; on a terminal until Ctrl-C

import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SqlxStateStore } from '@batchactions/state-sqlx';
import { createDashboard } from '../../dashboard/index.js';
import { writeCsv } from './csv.mjs';
import { isBad, madeUpOrders } from './orders.mjs';
import { endProgress, number, say, seconds, showProgress } from './screen.mjs';

const { values: options } = parseArgs({
  options: { url: { type: 'string' }, rows: { type: 'string' }, quick: { type: 'boolean' }, watch: { type: 'boolean' } },
});
const rows = Number(options.rows ?? (options.quick ? 10_000 : 100_000));
if (!Number.isInteger(rows) || rows < 5_000) throw new Error(`--rows must be a whole number of at least 5,000, not ${options.rows}`);
if (options.url?.includes(':memory:')) throw new Error('--url: a database in memory is that of one process, and this takes six');
const batchSize = Math.min(500, Math.ceil(rows / 20));

const jobId = randomUUID();
const folder = await mkdtemp(join(tmpdir(), 'import-csv-'));
const csv = join(folder, 'orders.csv');
const url = options.url ?? `sqlite://${join(folder, 'state.db')}`;
const store = new SqlxStateStore(url);
const children = new Set();
const interrupted = new Promise((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => reject(new Error(`ended by ${signal}`)));
});

let page;
try {
  if (options.watch) page = await servePage();
  await Promise.race([demo(), interrupted]);
  if (page && process.stdout.isTTY) {
    say(`\nThe page is still at ${addressOf(page)}: Ctrl-C ends it.`);
    await interrupted.catch(() => {});
  }
} catch (error) {
  endProgress();
  console.error(error);
  process.exitCode = 1;
} finally {
  for (const child of children) child.kill('SIGKILL');
  page?.closeAllConnections();
  page?.close();
  if (options.url && (await store.deleteJob(jobId))) console.log('\nThe job is deleted from the database, the tables stay.');
  await store.close();
  await rm(folder, { recursive: true, force: true });
}

/** The dashboard, for this machine only. */
async function servePage() {
  // The page may be asked for something before the orchestrator has made the tables.
  await store.initialize();
  const server = createServer(createDashboard(store, { actions: true, showRecords: true, staleAfterMs: 5_000 }));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  say(`The page: ${addressOf(server)}\n`);
  return server;
}

function addressOf(server) {
  return `http://127.0.0.1:${server.address().port}/job?id=${jobId}`;
}

async function demo() {
  await writeCsv(csv, madeUpOrders(rows));
  say(`${number(rows)} rows in a CSV file, ${url.startsWith('sqlite') ? 'a SQLite file' : new URL(url).host} for the state.\n`);

  const began = performance.now();
  const orchestrator = start('orchestrator.mjs', [jobId, csv, String(batchSize)]);
  await orchestrator.ended;
  if (orchestrator.child.exitCode !== 0) throw new Error('the orchestrator failed');
  const prepared = performance.now();
  say(
    `The orchestrator has prepared the job in ${seconds(prepared - began)}: ${Math.ceil(rows / batchSize)} batches of ${batchSize} rows.`,
  );

  const events = [];
  const workers = new Map();
  for (const workerId of ['worker-1', 'worker-2', 'worker-3', 'worker-4'])
    workers.set(workerId, start('worker.mjs', [jobId, workerId], follow));
  say('Four workers claim them.');

  function follow(event) {
    events.push({ ...event, at: performance.now() });
    if (event.type === 'reclaimed') say(`  ${event.workerId} reclaims ${event.count} stale batch`);
    if (event.type === 'claimed' && event.token > 1) say(`  ${event.workerId} claims batch ${event.batchIndex} again`);
    if (event.type === 'lost') say(`  ${event.workerId} was presumed dead and has lost batch ${event.batchIndex}`);
    if (event.type === 'finalized') say(`  ${event.workerId} finalizes the job`);
  }

  let killed;
  const working = new AbortController();
  const ended = Promise.all([...workers.values()].map((worker) => worker.ended)).finally(() => working.abort());
  const watch = async () => {
    while (!working.signal.aborted) {
      const progress = await store.getProgress(jobId);
      showProgress(progress);
      if (!killed && progress.percentage >= 15) killed = await killInTheMiddle(workers);
      await sleep(100, undefined, { signal: working.signal }).catch(() => {});
    }
  };
  await Promise.all([ended, watch()]);
  const done = performance.now();
  showProgress(await store.getProgress(jobId));
  endProgress();
  await summarize({ events, workers, killed, began, prepared, done });
}

/**
 * Kills a worker that has saved some records of its batch, but not all. It stops the worker first, to look at what is saved. `undefined`
 * where no worker is in the middle of a batch.
 */
async function killInTheMiddle(workers) {
  for (const [workerId, { child }] of workers) {
    child.kill('SIGSTOP');
    const { batches } = await store.getJobState(jobId);
    const batch = batches.find((candidate) => candidate.status === 'PROCESSING' && candidate.workerId === workerId);
    const records = batch ? await store.getBatchRecords(jobId, batch.id) : [];
    const saved = records.filter((record) => record.status !== 'pending').length;
    if (saved > 0 && saved < records.length) {
      child.kill('SIGKILL');
      say(`  ${workerId} is killed (SIGKILL) in the middle of batch ${batch.index}: ${saved} of its ${records.length} records are saved`);
      return { workerId, batchIndex: batch.index, at: performance.now() };
    }
    child.kill('SIGCONT');
  }
}

async function summarize({ events, workers, killed, began, prepared, done }) {
  const progress = await store.getProgress(jobId);
  const { processedRecords: processed, failedRecords: failed } = progress;
  const job = await store.getJobState(jobId);
  const sum = (key) => job.batches.reduce((total, batch) => total + batch[key], 0);
  const of = (type) => events.filter((event) => event.type === type);
  const rate = (ms) => `${seconds(ms).padStart(7)}  ${number(rows / (ms / 1000)).padStart(7)} rows/s`;

  // Reads every record, in the order of the file: however many there are, only a page of them is in memory.
  const seen = { rows: 0, processed: 0, bad: [] };
  for await (const record of store.records(jobId)) {
    if (record.index === seen.rows) seen.rows++;
    if (record.status === 'processed') seen.processed++;
    else if (seen.bad.length < 5) seen.bad.push(record);
  }

  const [finalized] = of('finalized');
  const again = of('claimed').find(({ token }) => token > 1);
  const completed = of('completed').filter(({ batchIndex }) => batchIndex === killed?.batchIndex);

  const recovery = killed
    ? `batch ${killed.batchIndex} was recovered from ${killed.workerId}, which was killed, by ${again?.workerId}, ${seconds(again?.at - killed.at)} later`
    : 'no worker was killed: none was seen in the middle of a batch';

  console.log(`
                    rows
  processed   ${number(processed).padStart(10)}
  failed      ${number(failed).padStart(10)}
  total       ${number(progress.totalRecords).padStart(10)}

  preparing   ${rate(prepared - began)}   one process
  processing  ${rate(done - prepared)}   four processes, one of them killed
  all in all  ${rate(done - began)}

  ${recovery}
  the job was finalized by ${finalized?.workerId}

  The first of the ${number(failed)} bad rows:`);
  for (const { index, status, errors, processingError } of seen.bad) {
    console.log(
      `  ${String(index).padStart(6)}  ${status.padEnd(7)}  ${processingError ?? errors.map((error) => error.message).join('; ')}`,
    );
  }

  let planted = 0;
  for (let i = 0; i < rows; i++) if (isBad(i)) planted++;
  const reclaimed = of('reclaimed').reduce((total, { count }) => total + count, 0);
  const live = [...workers].filter(([workerId]) => workerId !== killed?.workerId);
  const checks = {
    'processed + failed = total = rows of the file': processed + failed === progress.totalRecords && progress.totalRecords === rows,
    'failed = bad rows of the file': failed === planted,
    "the batches' counts add up to the same": sum('processedCount') === processed && sum('failedCount') === failed,
    'each row is there once, in its place': seen.rows === rows && seen.processed === processed,
    'the job is COMPLETED, and exactly one worker finalized it': job.status === 'COMPLETED' && of('finalized').length === 1,
    'the batch of the killed worker was completed once, by another': completed.length === 1 && completed[0].workerId !== killed.workerId,
    'no batch was claimed twice that was not taken from a worker': of('claimed').length <= job.batches.length + reclaimed,
    'the other workers ended without an error': live.length === 3 && live.every(([, { child }]) => child.exitCode === 0),
  };
  console.log('');
  for (const [what, holds] of Object.entries(checks)) console.log(`  ${holds ? 'yes' : 'NO '}  ${what}`);
  if (Object.values(checks).includes(false)) process.exitCode = 1;
}

/** Starts a script of this folder as a process of its own. */
function start(script, args, onEvent) {
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), args, { env: { ...process.env, DATABASE_URL: url } });
  children.add(child);
  if (onEvent) child.on('message', onEvent);
  const ended = once(child, 'close').then(() => children.delete(child));
  return { child, ended };
}
