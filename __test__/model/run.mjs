// One sequence of calls, made on a database and on the model: after each step both have to agree.

import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { newId } from '../support/fixtures.mjs';
import { collect, sleep } from '../support/suite.mjs';
import { FRESH, Model, STALE } from './model.mjs';
import { jobIds, perform, print, renamed, resolved } from './operations.mjs';

/** What a run that found one rejects with. */
export class Difference extends Error {}

export class Run {
  /**
   * @param database What the stores are on.
   * @param raw Whether it can be read and written past them.
   * @param stores Runs may share them, one after the other: each has ids of its own.
   * @param options The options of the stores. If they queue calls, there is one store, because what another one sees of such calls is not determined.
   */
  constructor(database, raw, stores, options) {
    this.database = database;
    this.raw = raw;
    this.stores = stores;
    this.model = new Model(options);
    this.queue = new Queue(this.model, options);
    this.prefix = `${newId('m')}.`;
    this.steps = [];
    this.last = new Map(); // by store: its last reservation
    this.lists = new Map(); // by job: the list that `saveList` changes and saves
    this.kept = []; // jobs that were read, with what the model showed then
  }

  /** @param {(what: string) => void} met Is told of each call what kind of answer it had. */
  async run(operations, met) {
    try {
      for (const operation of operations) met(await this.step(operation));
      this.agree('What the methods show after', await this.readings(jobIds), this.modelReadings(jobIds));
      if (this.raw) this.agree('What the tables hold after', await this.tables(jobIds), this.modelTables(jobIds));
      const looked = this.kept.map(([job, expected]) => [this.shared(job), expected]);
      for (const [job, expected] of looked) this.agree('What an earlier getJobState shows after', job, expected);
    } finally {
      for (const id of jobIds) await this.stores[0].deleteJob(this.unique(id));
    }
  }

  async step(generated) {
    const [store, method, job] = generated;
    if (method === 'atOnce') return this.stepAtOnce(generated);
    if (method === 'race') return this.stepRace(generated);
    const operation = this.resolved(generated);
    // The incumbent prepares a job where there is none.
    if (method === 'prepareAsIncumbent' && (this.model.jobs.has(job.id) || this.model.rowsOf(job.id).length > 0)) return 'nothing';
    if (store === null) await this.flush(jobIds);

    const got = this.shared(await this.perform(operation));
    if (method === 'listJobs') got.value &&= this.own(got.value);
    this.steps.push(print(operation, got));
    if (got.value?.claimed) this.last.set(store, got.value.reservation);
    const before = this.modelTables(jobIds);
    const queued = this.answered(operation, got);
    const after = await this.observe();
    return `${queued ? 'queued ' : ''}${operation[1]}: ${kind(got, before, after, job?.id ?? job)}`;
  }

  /** Calls that are made without waiting for any of them. Those of one job take effect in the order in which they are made. */
  async stepAtOnce([store, , generated]) {
    const operations = [];
    const pending = [];
    for (const one of generated) {
      const operation = this.resolved(one);
      // A copy, because a later call changes the list of this one.
      operations.push(structuredClone(operation));
      pending.push(this.perform(operation));
    }
    const got = this.shared(await Promise.all(pending));
    this.steps.push(print([store, 'atOnce', operations], got));
    const queued = this.answeredAtOnce(operations, got);
    await this.observe();
    return `atOnce: ${queued.length === 0 ? 'none' : queued.length < operations.length ? 'some' : 'all'} queued`;
  }

  /** Takes the first order of the calls that explains their answers. Returns the calls that may be queued. */
  answeredAtOnce(operations, got) {
    const { model, queue } = this;
    const jobOf = ([, , job]) => job.id ?? job;
    const keepsJobs = (order) =>
      order.every((at, n) => order.slice(0, n).every((before) => before < at || jobOf(operations[before]) !== jobOf(operations[at])));
    const places = operations.map((_, at) => at);
    const inOneJob = new Set(operations.map(jobOf)).size === 1;
    let first;
    for (const order of inOneJob ? [places] : orders(places).filter(keepsJobs)) {
      this.model = model.copy();
      this.queue = queue.copy(this.model);
      try {
        const queued = [];
        this.model.atOnce(operations[0][0], () => {
          for (const at of order) queued[at] = this.answered(operations[at], got[at]);
        });
        return operations.filter((_, at) => queued[at]);
      } catch (error) {
        if (!(error instanceof Difference)) throw error;
        first ??= error;
      }
    }
    throw first;
  }

  /** Calls that different stores make at once: there has to be an order in which the model gives the same answers and comes to the same state. */
  async stepRace([, , generated, delays]) {
    const operations = generated.map((one) => this.resolved(one));
    const made = async (operation, at) => {
      await sleep(delays[at]);
      return this.perform(operation);
    };
    const got = this.shared(await Promise.all(operations.map(made)));
    this.steps.push(print([null, 'race', operations], got));
    for (const [at, { value }] of got.entries()) if (value?.claimed) this.last.set(operations[at][0], value.reservation);
    const observed = this.raw ? await this.tables(jobIds) : await this.readings(jobIds);

    const { model } = this;
    const outcomes = orders(operations.map((_, at) => at)).map((order) => {
      this.model = model.copy();
      const answers = [];
      for (const at of order) answers[at] = this.model.answer(operations[at], got[at]);
      return { model: this.model, answers, shown: this.raw ? this.modelTables(jobIds) : this.modelReadings(jobIds) };
    });
    const agrees = ({ answers, shown }) => isDeepStrictEqual(answers, got) && isDeepStrictEqual(shown, observed);
    const outcome = outcomes.find(agrees) ?? outcomes[0];
    this.model = this.queue.model = outcome.model;
    this.agree('In no order of the calls the answers and the tables after', [got, observed], [outcome.answers, outcome.shown]);
    await this.keep();
    const effects = got.filter(({ value }) => value === true || value?.claimed === true).length;
    return `race: ${effects} of ${got.length} took effect`;
  }

  resolved(generated) {
    return resolved(generated, this.last.get(generated[0]), this.lists);
  }

  perform(operation) {
    return perform(this.unique(operation), this.stores, this.outside);
  }

  /** Compares an answer with the model's. Returns whether the call may be queued. */
  answered(operation, got) {
    const queued = this.queue.note(operation, got);
    const expected = this.model.answer(operation, got);
    // A queued save is answered before the store finds that its claim is lost.
    const answeredEarly = queued && operation[1] === 'saveProcessedRecord' && expected.code === 'LEASE_LOST' && got.code === undefined;
    if (answeredEarly) {
      const [store, , job, batchId, , fence] = operation;
      this.model.refuseLater(store, job, batchId, fence);
    } else this.agree('The answer to', got, expected);
    return queued;
  }

  /** Compares what can be seen of the jobs of which nothing is queued. Returns the model's tables. */
  async observe() {
    for (const id of jobIds) {
      // A later list could replace the queued state before it is written, and the job would not get its rows.
      if (this.model.wasAdopted(id)) await this.flush([id]);
    }
    const ids = jobIds.filter((id) => !this.queue.jobs.has(id));
    const observed = this.raw ? await this.tables(ids) : await this.readings(ids);
    for (const id of ids) {
      // Some calls may give a job of the incumbent's its rows, and need not.
      if (this.model.needsRows(id) && observed.rows?.some((row) => row.jobId === id)) this.model.adopt(0, id);
    }
    const what = this.raw ? 'What the tables hold after' : 'What the methods show after';
    this.agree(what, observed, this.raw ? this.modelTables(ids) : this.modelReadings(ids));
    await this.keep();
    return this.modelTables(jobIds);
  }

  /** Waits until what is queued of these jobs is written. */
  async flush(ids) {
    for (const id of ids.filter((queued) => this.queue.jobs.delete(queued))) await this.stores[0].getProgress(this.unique(id));
  }

  /** Reads a job whose batches are looked at when the sequence has ended. */
  async keep() {
    const { length } = this.steps;
    const [store, id] = [this.stores[length % this.stores.length], jobIds[(length >> 2) % jobIds.length]];
    // Reading a job has what is queued of it written, which is left to the calls of the sequence.
    if (this.queue.jobs.has(id)) return;
    this.kept.push([await store.getJobState(this.unique(id)), this.model.getJobState(0, id)]);
  }

  agree(what, got, expected) {
    if (isDeepStrictEqual(got, expected)) return;
    const steps = this.steps.map((step) => `  ${step}\n`).join('');
    // The message that it makes has what differs, and not much else.
    const { message } = new assert.AssertionError({ actual: got, expected, operator: 'deepStrictEqual' });
    throw new Difference(`${what} the last of these calls is not the model's:\n${steps}${message.split('\n').slice(1).join('\n')}`);
  }

  /** With the ids that this run has in the database. */
  unique(value) {
    return renamed(value, '#', this.prefix);
  }

  /** With the ids and the times that the model has. */
  shared(value) {
    return times(renamed(value, this.prefix, '#'));
  }

  /** The jobs of this run. Those that have not been started come last, in an order that is not said: here by id. */
  own(jobs) {
    const own = jobs.filter(({ id }) => jobIds.includes(id));
    const first = own.findIndex(({ startedAt }) => startedAt === undefined);
    return first < 0 ? own : [...own.slice(0, first), ...own.slice(first).sort((a, b) => (a.id < b.id ? -1 : 1))];
  }

  get outside() {
    return {
      backdate: async (jobId) => {
        await this.database.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 172800000 where "jobId" = ?', [jobId]);
      },
      prepareAsIncumbent: async ({ id, config, status, batches, totalRecords, startedAt }) => {
        await this.database.query(
          `insert into "batchactions_jobs" ("id", "status", "config", "batches", "totalRecords", "startedAt", "completedAt", "distributed")
          values (?, ?, ?, ?, ?, ?, null, ?)`,
          [id, status, JSON.stringify(config), JSON.stringify(batches), totalRecords, startedAt, true],
        );
      },
    };
  }

  /** What is in the tables. */
  async tables(jobIds) {
    const ids = jobIds.map((id) => this.unique(id));
    if (ids.length === 0) return sorted({ jobs: [], rows: [], records: [] });
    const select = (table, column) =>
      this.database.query(`select * from "batchactions_${table}" where "${column}" in (${ids.map(() => '?').join(', ')})`, ids);
    const [jobs, batches, records] = [await select('jobs', 'id'), await select('batches', 'jobId'), await select('records', 'jobId')];
    return sorted(
      this.shared({
        jobs: jobs.map(({ config, batches: list, distributed, ...job }) => ({
          ...present(job),
          config: JSON.parse(config),
          batches: JSON.parse(list),
          distributed: Boolean(distributed),
        })),
        rows: batches.map(({ batchIndex: index, ...row }) => ({ index, ...present(row) })),
        records: records.map(({ recordIndex: index, raw, parsed, errors, ...record }) => ({
          index,
          raw: JSON.parse(raw),
          parsed: JSON.parse(parsed),
          errors: JSON.parse(errors),
          // The id is the database's own.
          ...present({ ...record, id: null }),
        })),
      }),
    );
  }

  modelTables(ids) {
    const { jobs, rows, records } = this.model;
    return sorted({
      jobs: [...jobs.values()]
        .filter(({ id }) => ids.includes(id))
        .map((job) => ({ distributed: false, ...this.model.summary(job), batches: this.model.listOf(job) })),
      rows: [...rows.values()].filter(({ jobId }) => ids.includes(jobId)).map((row) => present({ ...row, lateFor: undefined })),
      records: [...records.keys()]
        .filter((jobId) => ids.includes(jobId))
        .flatMap((jobId) => this.model.recordsOf(jobId).map(({ batchId, record }) => ({ jobId, batchId, ...record }))),
    });
  }

  /** What the methods show: after each call where there is no way past the store, else at the end. */
  async readings(ids) {
    const [store] = this.stores;
    const readings = [];
    for (const id of ids.map((job) => this.unique(job)))
      readings.push([await store.getJobState(id), await collect(store.records(id)), await store.getDistributedStatus(id)]);
    for (const id of ids) this.queue.wasRead(this.model.jobs.get(id));
    return this.shared(readings);
  }

  modelReadings(ids) {
    const { model } = this;
    return ids.map((id) => [model.getJobState(0, id), model.readRecords(0, id, {}), model.getDistributedStatus(0, id)]);
  }
}

/** Every order of some things. */
const orders = (all) => (all.length < 2 ? [all] : all.flatMap((one, at) => orders(all.toSpliced(at, 1)).map((others) => [one, ...others])));

/** The jobs of which calls may be queued, by the contract. */
class Queue {
  /** Their ids. */
  jobs = new Set();
  /** The jobs that the store has last saved or read as distributed. */
  distributed = new Set();

  constructor(model, [{ durability }]) {
    this.model = model;
    this.queues = durability === 'batch';
  }

  copy(model) {
    const { queues, jobs, distributed } = this;
    return Object.assign(new Queue(model, [{}]), { queues, jobs: new Set(jobs), distributed: new Set(distributed) });
  }

  wasRead(job) {
    if (job?.distributed) this.distributed.add(job.id);
    else this.distributed.delete(job?.id);
  }

  /** Notes a call, before the model makes it. Returns whether it may be queued. */
  note([store, method, job, ...args], { value }) {
    if (!this.queues || store === null || ['listJobs', 'stats', 'purge'].includes(method)) return false;
    const id = job.id ?? job;
    const queued = this.isQueued(store, method, job, args, value);
    if (queued) this.jobs.add(id);
    // A bulk save waits only for saves of records.
    else if (method !== 'saveBatchRecords') this.jobs.delete(id);
    if (method === 'saveJobState') this.wasRead(job);
    if ((method === 'getJobState' || method === 'readAndSave') && value) this.wasRead({ id, ...value });
    return queued;
  }

  isQueued(store, method, job, [batchId, , fence], value) {
    const goesOn = (saved) => saved.status === 'PROCESSING' && !saved.distributed;
    if (method === 'saveProcessedRecord') return true;
    if (method === 'saveJobState') return goesOn(job);
    if (method === 'readAndSave') return Boolean(value) && goesOn({ ...value, status: batchId });
    const isFenced = fence !== undefined || this.model.tokenAtCall(store, job, batchId) !== undefined;
    return method === 'updateBatchState' && !isFenced && !this.distributed.has(job);
  }
}

/** A row without what is not set. */
const present = (row) => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null && value !== undefined));

function sorted({ jobs, rows, records }) {
  const by =
    (...keys) =>
    (a, b) => {
      const key = keys.find((candidate) => a[candidate] !== b[candidate]);
      return a[key] < b[key] ? -1 : 1;
    };
  return { jobs: jobs.sort(by('id')), rows: rows.sort(by('id')), records: records.sort(by('jobId', 'index')) };
}

const MINUTE = 60_000;
const isRecent = (time) => Math.abs(Date.now() - time) < 5 * MINUTE;
const readTime = {
  claimedAt: (time) => (isRecent(time) ? FRESH : STALE),
  completedAt: (time) => (isRecent(time) ? FRESH : time),
  oldestClaimMs: (time) => (time < 5 * MINUTE ? FRESH : STALE),
  // The jobs began years ago.
  elapsedMs: (time) => (time > 1_000_000 * MINUTE ? FRESH : time),
  estimatedRemainingMs: (time) => (time >= 0 ? FRESH : time),
};

/** A value with its times as the model has them. */
function times(value) {
  if (Array.isArray(value)) return value.map(times);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [
    key,
    typeof item === 'number' && readTime[key] ? readTime[key](item) : times(item),
  ]);
  return Object.fromEntries(entries);
}

/** The kind of an answer: the code of a rejection, the reason why nothing was claimed, and so on; and the most that the call did to its job. */
function kind({ code, value }, before, after, jobId) {
  if (code) return code;
  if (value?.claimed !== undefined) return value.reason ?? 'claimed';
  const status = ({ jobs }) => jobs.find(({ id }) => id === jobId)?.status;
  const failed = ({ rows }) => rows.filter((row) => row.status === 'FAILED').length;
  const effects = [
    failed(after) > failed(before) ? ', a batch FAILED' : '',
    status(after) !== status(before) ? `, the job ${status(after) ?? 'gone'}` : '',
  ].join('');
  if (typeof value === 'number') return Math.min(value, 1) + effects;
  if (typeof value === 'boolean' || value === null) return value + effects;
  return (isDeepStrictEqual(before, after) ? 'nothing done' : 'done') + effects;
}
