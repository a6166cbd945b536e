// A fleet of processes at work on one job, and what they did.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { newId } from '../support/fixtures.mjs';
import { assemble, check } from './checker.mjs';
import { dueStatus, now, recorder, watch, work } from './importer.mjs';

/** How much of everything: 1 in CI, more for a run that looks for what is rare. */
export const scale = Number(process.env.HISTORY_SCALE ?? 1);
if (!(scale > 0)) throw new Error(`HISTORY_SCALE must be a number above 0, not ${process.env.HISTORY_SCALE}`);

const SCRIPT = fileURLToPath(new URL('./fleet-process.mjs', import.meta.url));
const RECORDS = 5;

/**
 * How long a call may take: what a statement may, and a margin. A call may have to wait for one before it (saves go in groups), and bring the copy in
 * the job's JSON up to date behind its own statement, and each may have to connect first.
 */
export const longest = ({ statementTimeoutMs, connectTimeoutMs }) => statementTimeoutMs + 2 * (statementTimeoutMs + connectTimeoutMs);

/** A job as the importer's orchestrator prepares it. */
async function prepare(store, { batches, failingEvery }) {
  const id = newId('history');
  const indexes = (batch) => Array.from({ length: RECORDS }, (_, n) => batch * RECORDS + n);
  const list = Array.from({ length: batches }, (_, index) => ({
    id: `${id}.b${index}`,
    index,
    indexes: indexes(index),
    due: dueStatus(index, failingEvery),
  }));
  for (const batch of list) {
    const records = batch.indexes.map((index) => ({ index, raw: { line: index }, parsed: {}, status: 'pending', errors: [] }));
    await store.saveBatchRecords(id, batch.id, records);
  }
  await store.saveJobState({
    id,
    config: { batchSize: RECORDS },
    status: 'PROCESSING',
    batches: list.map((batch) => ({
      id: batch.id,
      index: batch.index,
      status: 'PENDING',
      records: [],
      processedCount: 0,
      failedCount: 0,
      recordStartIndex: batch.indexes[0],
      recordEndIndex: batch.indexes.at(-1),
    })),
    totalRecords: batches * RECORDS,
    startedAt: Date.now(),
    distributed: true,
  });
  return { id, batches: list };
}

/** What is stored once everybody is done. `query`, where there is one, reads past the store. */
async function look(store, job, query) {
  const records = {};
  for (const { id } of job.batches) records[id] = await store.getBatchRecords(job.id, id);
  const seen = {
    job: await store.getJobState(job.id),
    progress: await store.getProgress(job.id),
    status: await store.getDistributedStatus(job.id),
    records,
  };
  if (query) {
    seen.rows = await query('select * from "batchactions_batches" where "jobId" = ? order by "batchIndex"', [job.id]);
    const [row] = await query('select "batches" from "batchactions_jobs" where "id" = ?', [job.id]);
    seen.copy = JSON.parse(row.batches);
  }
  return seen;
}

/**
 * Lets a fleet do a job, and checks the history.
 *
 * @param {object} run
 * @param {import('../../index.js').SqlxStateStore} run.store Prepares the job, and reads the outcome. No fault hits it.
 * @param {string} run.url Where the fleet finds the database.
 * @param {Function} [run.query] SQL past the store.
 * @param {(fleet: Fleet) => Promise<void>} [run.fault] Happens while the fleet is at work. It ends when the job is done at the latest.
 * @param {('record' | 'batch')[]} [run.durability] The option of the processes' stores, by turns. Where any is 'batch', `run.store` watches the fleet: a save's
 *   answer doesn't say that it is stored, so what is seen meanwhile has to.
 * @param {boolean} [run.inProcess] The workers are in this process and share one store: `run.store`.
 * @returns {Promise<{ violations: object[], facts: object }>}
 */
export async function observe({ store, url, query, fault, inProcess = false, ...given }) {
  const plan = {
    processes: 4,
    workers: 4,
    batches: Math.ceil(80 * scale),
    leaseMs: 1_500,
    thinkMs: 25,
    stalls: true,
    steered: false,
    failingEvery: 0,
    durability: ['record'],
    runMs: 60_000 * Math.max(1, scale),
    ...given,
    options: { statementTimeoutMs: 5_000, connectTimeoutMs: 2_000, ...given.options },
  };
  const job = await prepare(store, plan);
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-history-'));
  const fleet = new Fleet(job, folder, url, plan);
  try {
    if (inProcess) await fleet.workHere(store);
    else {
      for (let n = 0; n < plan.processes; n++) fleet.start(`p${n}`);
      // The fault may have started another one when the last was gone.
      const working = Promise.all([fault?.(fleet), fleet.done()]).then(() => fleet.done());
      await (plan.durability.includes('batch') ? fleet.watched(store, working) : working);
    }
    const history = {
      calls: fleet.calls(),
      batches: job.batches,
      interruptions: fleet.interruptions,
      crashes: fleet.crashes,
      leaseMs: plan.leaseMs,
      // What hangs is to be found, and not that the machine is busy.
      longestMs: longest(plan.options) + 10_000,
      faultless: plan.faultless,
      pauses: fleet.pauses,
      seen: await look(store, job, query),
    };
    const result = check(history);
    result.facts.kills = fleet.interruptions.filter(({ until }) => until === undefined).length;
    Object.assign(result.facts, fleet.counts);
    await keep(job, history, result);
    return result;
  } finally {
    await fleet.end();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Keeps a history to be read, in the folder that HISTORY_KEEP names. */
async function keep(job, history, result) {
  const { HISTORY_KEEP: folder } = process.env;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${job.id}.json`), JSON.stringify({ ...result, ...history }, null, 1));
}

class Fleet {
  interruptions = [];
  crashes = [];
  /** When the job was paused and resumed: see `checker.mjs`. */
  pauses = [];
  /** What a fault wants to be known of itself. */
  counts = {};
  /** Processes at work. */
  running = new Set();
  #files = [];
  #lines = [];
  #started = new Map();
  #ending = false;

  constructor(job, folder, url, plan) {
    Object.assign(this, { job, folder, url, plan });
  }

  /**
   * Starts a process of workers.
   * @param {string} workerName Its workers' ids begin with it. A process that takes over from a dead one has the same.
   * @param {{ url?: string, workers?: number, shared?: boolean }} [how]
   */
  start(workerName, { url = this.url, ...how } = {}) {
    const count = (this.#started.get(workerName) ?? 0) + 1;
    const total = [...this.#started.values()].reduce((sum, n) => sum + n, 0);
    this.#started.set(workerName, count);
    const name = `${workerName}#${count}`;
    const file = join(this.folder, `${name}.jsonl`);
    const { workers, leaseMs, thinkMs, stalls, steered, failingEvery, runMs } = this.plan;
    // Half of the processes have a store for each worker, half of them renew their leases, and not the same half.
    const leaseRenewal = total % 4 >= 2 ? { everyMs: Math.round(leaseMs / 4), forMs: 10 * leaseMs } : undefined;
    const durability = this.plan.durability[total % this.plan.durability.length];
    const options = { ...this.plan.options, leaseRenewal, durability };
    const shared = total % 2 === 0;
    const plan = {
      jobId: this.job.id,
      url,
      options,
      name,
      workerName,
      file,
      shared,
      workers,
      leaseMs,
      thinkMs,
      stalls,
      steered,
      failingEvery,
      runMs,
    };
    const child = spawn(process.execPath, [SCRIPT, JSON.stringify({ ...plan, ...how })], { stdio: ['ignore', 'ignore', 'pipe'] });
    const member = { name, workerName, child, file, toBeKilled: false, killed: false, errors: '' };
    child.stderr.on('data', (text) => (member.errors += text));
    member.exited = this.#exit(member);
    this.running.add(member);
    this.#files.push(file);
    return member;
  }

  async #exit(member) {
    const [code, signal] = await once(member.child, 'exit');
    this.running.delete(member);
    member.killed = member.toBeKilled && signal === 'SIGKILL';
    // Only now: until it is gone it may make another call, which never returns either.
    if (member.killed) this.interruptions.push({ process: member.name, at: now() });
    if (code === 0 || member.killed || this.#ending) return;
    this.crashes.push(`${member.name} ended with ${code ?? signal}: ${member.errors}`);
  }

  /**
   * Kills a process, and resolves once it is gone: with the calls that it had under way. It is `killed` then, unless it ended by itself before the
   * signal came.
   */
  async kill(member) {
    member.toBeKilled = true;
    member.child.kill('SIGKILL');
    await member.exited;
    if (!member.killed) return [];
    return assemble(read(member.file)).filter(({ returned }) => returned === undefined);
  }

  /** Stops a process for a while, in the middle of whatever it does. */
  async suspend(member, ms) {
    const interruption = { process: member.name, at: now() };
    if (!member.child.kill('SIGSTOP')) return;
    await sleep(ms);
    member.child.kill('SIGCONT');
    // What it does on waking is late too.
    this.interruptions.push({ ...interruption, until: now() + 500 });
  }

  /** Resolves once every process has ended, those too that are started meanwhile. */
  async done() {
    while (this.running.size > 0) await Promise.race([...this.running].map(({ exited }) => exited));
  }

  get isDone() {
    return this.running.size === 0;
  }

  /** One of the processes that have begun to work. */
  random() {
    const members = [...this.running].filter(({ file }) => existsSync(file) && statSync(file).size > 0);
    return members[Math.floor(Math.random() * members.length)];
  }

  /** One that has made this call and has no answer yet, or undefined if none is found within a while: a call is short, and chance hardly ever hits it. */
  async randomDuring(call, ms) {
    for (const until = now() + ms; now() < until && !this.isDone; await sleep(1)) {
      const members = [...this.running].filter(({ file }) => isUnderWay(call, file));
      if (members.length > 0) return members[Math.floor(Math.random() * members.length)];
    }
  }

  /** Lets another store watch the fleet until its work is done, or has failed. */
  async watched(store, working) {
    let isOver = false;
    const record = recorder('watcher', (line) => this.#lines.push(line));
    const ended = working.finally(() => (isOver = true));
    await Promise.all([ended, watch(store, { jobId: this.job.id, record, isOver: () => isOver })]);
  }

  async workHere(store) {
    const { processes, workers, explicit = true, leaseMs, thinkMs, stalls, steered, failingEvery, runMs } = this.plan;
    const record = recorder('here', (line) => this.#lines.push(line));
    const plan = { jobId: this.job.id, record, explicit, leaseMs, thinkMs, stalls, steered, failingEvery, giveUpAt: now() + runMs };
    await Promise.all(Array.from({ length: processes * workers }, (_, n) => work(store, { ...plan, workerId: `w${n}` })));
  }

  calls() {
    return assemble([...this.#lines, ...this.#files.flatMap(read)]);
  }

  /** Ends what still runs, for the test has failed. */
  async end() {
    this.#ending = true;
    for (const { child } of this.running) child.kill('SIGKILL');
    await this.done();
  }
}

function read(file) {
  // A process that is killed before it writes leaves no file, one that is killed while it writes half a line.
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

/** Whether a process has made this call and not written down what came of it, as the end of its file says. */
function isUnderWay(call, file) {
  if (!existsSync(file)) return false;
  const opened = openSync(file);
  try {
    const { size } = fstatSync(opened);
    const tail = Buffer.alloc(Math.min(size, 4_096));
    const length = readSync(opened, tail, 0, tail.length, size - tail.length);
    // The first line may be cut, and the last one too.
    const lines = tail
      .toString('utf8', 0, length)
      .split('\n')
      .slice(1, -1)
      .map((line) => JSON.parse(line));
    const answers = new Set(lines.filter((line) => !('call' in line)).map(({ n }) => n));
    return lines.some((line) => line.call === call && !answers.has(line.n));
  } finally {
    closeSync(opened);
  }
}
