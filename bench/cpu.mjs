// Where the CPU of a whole job goes: an import by the engine, and a worker of a distributed import, in jobs of 10,000 batches, with durability
// 'batch' on PostgreSQL. `npm run bench:cpu`
//
//   node bench/cpu.mjs [--column before|after] [--store <index.js>] [--batches 10000] [--worked 2000] [--keep <folder>]
//
// The JavaScript thread by Node's sampling profiler (`--cpu-prof`), the others by the time that the system counts for each thread, the server by
// that of the processes of its connections. What is measured becomes one column of docs/benchmarks/cpu.json, and the table of docs/benchmarks.md is
// made anew from it; the other column stays. A store before a change: `--column before --store <that version's index.js>`. --worked: how many
// batches of the distributed job the workers do; those before are completed already, because a batch costs the same wherever it is. --keep: where
// the profiles are left, for a viewer.

import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { databasesWith } from '../__test__/support/databases.mjs';
import { runEngineProcess } from './engine.mjs';
import { READY, runImporter } from './importer.mjs';
import { replaceBetween, table, writeFormatted } from './report.mjs';
import { OURS } from './sides.mjs';
import { clockOf } from './work.mjs';

const { values: options } = parseArgs({
  options: {
    column: { type: 'string', default: 'after' },
    store: { type: 'string', default: OURS },
    batches: { type: 'string', default: '10000' },
    worked: { type: 'string', default: '2000' },
    keep: { type: 'string' },
  },
});
if (!['before', 'after'].includes(options.column)) throw new Error('--column is before or after');
const [batches, worked] = [options.batches, options.worked].map(Number);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The parts of a job's time, in the order of the table. A profile's functions are told apart by their file, and in this package's file by name. */
const PARTS = {
  idle: 'JavaScript thread: waiting, for the store or for a free core',
  job: 'JavaScript thread: the engine or importer itself',
  calls: 'JavaScript thread: calls into the addon, with its work on this thread',
  encode: 'JavaScript thread: index.js, values made text and text made values',
  program: 'JavaScript thread: Node, and native code outside a function',
  garbage: 'JavaScript thread: garbage collection',
  addon: "the addon's threads",
  others: "Node's other threads",
  server: "the server's processes",
};

/** What a function's own samples count as. */
function partOf({ functionName, url }) {
  if (functionName === '(idle)') return 'idle';
  if (functionName === '(garbage collector)') return 'garbage';
  if (functionName === '(program)') return 'program';
  if (/\/bench\/[\w-]+\.mjs$/.test(url)) return 'job';
  if (!url.endsWith('index.js')) return 'program';
  return ['start', ''].includes(functionName) ? 'calls' : 'encode';
}

/** The seconds of a profile, by part, and of this package's own functions by name. */
async function readProfile(file) {
  const { nodes, samples, timeDeltas } = JSON.parse(await readFile(file, 'utf8'));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const parts = {};
  const functions = {};
  for (const [n, id] of samples.entries()) {
    const frame = frames.get(id);
    const seconds = timeDeltas[n] / 1e6;
    const part = partOf(frame);
    parts[part] = (parts[part] ?? 0) + seconds;
    if (!['calls', 'encode'].includes(part)) continue;
    const name = frame.functionName || 'functions without a name';
    functions[name] = (functions[name] ?? 0) + seconds;
  }
  return { parts, functions };
}

/**
 * Watches the processes that serve a database's connections. What it returns says the CPU seconds that they used since, those of connections that
 * were there before counted from now; null where the server runs on another machine.
 */
async function watchServer(own) {
  const [first, last] = [new Map(), new Map()];
  const look = async () => {
    const rows = await own.query('select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()');
    for (const { pid } of rows) {
      const seconds = secondsOf(pid);
      if (seconds !== null) last.set(pid, seconds);
    }
  };
  await look();
  for (const [pid, seconds] of last) first.set(pid, seconds);
  let looking = Promise.resolve();
  const timer = setInterval(() => (looking = looking.then(look)), 200);
  return async () => {
    clearInterval(timer);
    await looking;
    return last.size ? [...last].reduce((sum, [pid, seconds]) => sum + seconds - (first.get(pid) ?? 0), 0) : null;
  };
}

/** The CPU seconds of a process so far, or null where it has ended or runs elsewhere. */
function secondsOf(pid) {
  try {
    return clockOf(`/proc/${pid}/stat`).seconds;
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(error.code)) return null;
    throw error;
  }
}

/**
 * A profile's seconds pass while its thread waits for a free core, too. So what the thread did is scaled to the CPU time that it had, and the rest
 * of the time is idle.
 */
function onClock({ idle = 0, ...busy }, main) {
  const profiled = Object.values(busy).reduce((sum, each) => sum + each, 0);
  const scaled = Object.entries(busy).map(([part, seconds]) => [part, (seconds * main) / profiled]);
  return { ...Object.fromEntries(scaled), idle: idle + profiled - main };
}

/** The milliseconds of a batch, by part. */
async function perBatch(folder, { done, threads, server, processes, pid }) {
  // Its name has the process's id.
  const file = (await readdir(folder)).find((name) => pid === undefined || name.split('.').includes(`${pid}`));
  const { parts, functions } = await readProfile(join(folder, file));
  const { main, 'tokio-rt-worker': addon = 0, ...others } = threads;
  // The profiler's own thread is no part of a user's process.
  delete others['v8:ProfEvntProc'];
  const sum = Object.values(others).reduce((total, each) => total + each, 0);
  const ms = (seconds) => (seconds * 1_000) / done;
  const clocked = onClock(parts, main);
  const share = clocked.calls / parts.calls;
  const all = { ...clocked, addon, others: sum, ...(server !== null && { server: server / processes }) };
  return {
    parts: Object.fromEntries(Object.entries(all).map(([part, seconds]) => [part, ms(seconds)])),
    functions: Object.fromEntries(
      Object.entries(functions)
        .map(([name, seconds]) => [name, ms(seconds * share)])
        .toSorted(([, a], [, b]) => b - a)
        .slice(0, 8),
    ),
  };
}

/** `watched` makes a database whose server is watched from `start` until it is dropped; `seconds` says what that took. */
function watching(database) {
  let [own, begun, seconds] = [];
  const create = async () => {
    own = await database.create();
    const drop = async () => {
      seconds = await (await begun)?.();
      await own.drop();
    };
    return { ...own, drop };
  };
  return { watched: { ...database, create }, start: () => (begun = watchServer(own)), seconds: () => seconds };
}

async function engine(database, folder) {
  const { watched, start, seconds } = watching(database);
  const created = async () => {
    const own = await watched.create();
    await start();
    return own;
  };
  const job = { side: options.store, records: batches * 100, execArgv: profiling(folder) };
  const { rate, threads } = await runEngineProcess({ ...watched, create: created }, job);
  return { rate, ...(await perBatch(folder, { done: batches, threads, server: seconds(), processes: 1 })) };
}

/** One of two workers, and half of the server's time for both. */
async function worker(database, folder) {
  const { watched, start, seconds } = watching(database);
  const skip = Math.max(0, batches - worked);
  const onPhase = (phase) => {
    if (phase === READY) start();
  };
  const job = { side: options.store, records: batches * 100, processes: 2, skip, execArgv: profiling(folder), onPhase };
  const { rate, workers } = await runImporter(watched, job);
  const [{ batches: done, threads, pid }] = workers;
  return { rate, ...(await perBatch(folder, { done, threads, server: seconds(), processes: 2, pid })) };
}

const profiling = (folder) => ['--cpu-prof', `--cpu-prof-dir=${folder}`];

async function inFolder(name, measure, database) {
  const folder = options.keep ? join(options.keep, `${options.column}-${name}`) : await mkdtemp(join(tmpdir(), 'batchactions-cpu-'));
  try {
    return await measure(database, folder);
  } finally {
    if (!options.keep) await rm(folder, { recursive: true, force: true });
  }
}

/** Columns for each job and each version; the parts, then the functions of this package that take most. */
function cpuTable({ columns }) {
  const known = ['engine', 'worker'].flatMap((job) => ['before', 'after'].map((column) => [job, column, columns[column]?.[job]]));
  const cells = (of) => known.map(([, , measured]) => (measured ? of(measured) : '–'));
  const ms = (value) => (value === undefined ? '–' : value.toFixed(2));
  const functions = new Set(known.flatMap(([, , measured]) => Object.keys(measured?.functions ?? {})));
  return table(
    ['ms a batch', ...known.map(([job, column]) => `${job}, ${column}`)],
    [
      ...Object.entries(PARTS).map(([part, name]) => [name, ...cells(({ parts }) => ms(parts[part]))]),
      ...[...functions].map((name) => [`of index.js: ${name}`, ...cells(({ functions: own }) => ms(own[name]))]),
      ['records a second, under the profiler', ...cells(({ rate }) => Math.round(rate).toLocaleString('en'))],
    ],
  );
}

const [database] = databasesWith('shared').filter(({ dialect }) => dialect.name === 'postgres');
if (!database) throw new Error('PostgreSQL is not there');
const measured = { engine: await inFolder('engine', engine, database), worker: await inFolder('worker', worker, database) };
const file = here('../docs/benchmarks/cpu.json');
const { columns = {} } = existsSync(file) ? JSON.parse(await readFile(file, 'utf8')) : {};
const machine = { node: process.version, cpus: cpus().length, model: cpus()[0]?.model };
const kept = { columns: { ...columns, [options.column]: { machine, batches, ...measured } } };
console.log(cpuTable(kept));
if (batches >= 10_000) {
  await writeFormatted(file, JSON.stringify(kept));
  await replaceBetween(here('../docs/benchmarks.md'), 'cpu', cpuTable(kept));
}
