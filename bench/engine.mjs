// An import in the manner of core's engine: the same calls of the store in the same order, each awaited before the next, with objects of the same
// shape and the same life. Its own code; what it does beside the store (reading, copying, counting, telling listeners) costs about what it costs in
// core, so that a rate here is near the rate that a user of core's engine sees. `node bench/engine.mjs` prints its rate in memory.
//
// For each batch: `updateBatchState` PROCESSING (before the job's row lists the batch, and for the first batch before there is one),
// `saveProcessedRecord` for each record, `updateBatchState` COMPLETED, and `saveJobState` with all batches so far; at the end `saveJobState` with the
// final status. The list is one array, to which batches are added and in which a batch that changes is replaced by a changed copy; the batch under
// way carries its records, which are taken out once it is done, before the list is saved.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { OURS, SEQUELIZE } from './sides.mjs';
import { range, rowOf } from './work.mjs';

const run = promisify(execFile);
const PROCESS = fileURLToPath(new URL('engine-process.mjs', import.meta.url));

/** In place of a store's side: the store in memory. */
export const MEMORY = 'memory';

/** Where one import is: what the engine keeps of it, and what its listeners are told. */
class Import {
  constructor(store, { batchSize, id = randomUUID(), listeners = new Map(), process = async () => {} }) {
    Object.assign(this, { store, id, batchSize, listeners, process });
    this.status = 'CREATED';
    this.batches = [];
    this.places = new Map();
    this.total = 0;
    this.processed = 0;
    this.paused = null;
    this.stop = new AbortController();
  }

  tell(event) {
    const listeners = this.listeners.get(event.type);
    if (listeners) for (const listener of listeners) listener(event);
  }

  async resumed() {
    if (this.paused) await this.paused;
  }

  /** The records as they come, each with its index. */
  async *records(rows) {
    for await (const raw of rows) {
      await this.resumed();
      yield { index: this.total++, raw, parsed: raw, status: 'pending', errors: [] };
    }
  }

  async *inBatches(records) {
    let batch = [];
    for await (const record of records) {
      if (batch.push(record) < this.batchSize) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0) yield batch;
  }

  /** Puts a changed copy of a batch in its place of the list. */
  change(id, fields) {
    const place = this.places.get(id);
    this.batches[place] = { ...this.batches[place], ...fields };
  }

  progress() {
    const completed = this.batches.filter(({ status }) => status === 'COMPLETED').length;
    const pending = Math.max(0, this.total - this.processed);
    const percentage = Math.round((this.processed / this.total) * 100);
    return { totalRecords: this.total, processedRecords: this.processed, pendingRecords: pending, percentage, currentBatch: completed };
  }

  async save() {
    const config = { batchSize: this.batchSize, maxConcurrentBatches: 1, continueOnError: true, maxRetries: 0, retryDelayMs: 1_000 };
    const { id, status, batches, total: totalRecords, startedAt } = this;
    await this.store.saveJobState({ id, config: { ...config, skipEmptyRows: false }, status, batches, totalRecords, startedAt });
  }

  /** Gives a record to the user's function; the record as it is saved, or throws. */
  async attempt(record, context) {
    await this.process(record.parsed, context);
    return { attempts: 1 };
  }

  async batch(records, index) {
    const id = randomUUID();
    this.places.set(id, this.batches.length);
    this.batches.push({ id, index, status: 'PENDING', records, processedCount: 0, failedCount: 0 });
    this.change(id, { status: 'PROCESSING' });
    await this.store.updateBatchState(this.id, id, { batchId: id, status: 'PROCESSING', processedCount: 0, failedCount: 0 });
    this.tell({
      type: 'batch:started',
      jobId: this.id,
      batchId: id,
      batchIndex: index,
      recordCount: records.length,
      timestamp: Date.now(),
    });
    for (const record of records) {
      if (this.stop.signal.aborted) break;
      await this.resumed();
      const valid = { ...record, parsed: record.raw, status: 'valid', errors: [] };
      const context = {
        jobId: this.id,
        batchId: id,
        batchIndex: index,
        recordIndex: record.index,
        totalRecords: this.total,
        signal: this.stop.signal,
      };
      const ready = { ...valid, parsed: valid.parsed };
      const { attempts } = await this.attempt(ready, context);
      this.processed++;
      await this.store.saveProcessedRecord(this.id, id, { ...ready, status: 'processed', retryCount: attempts - 1 });
      this.tell({ type: 'record:processed', jobId: this.id, batchId: id, recordIndex: record.index, timestamp: Date.now() });
    }
    const counts = { processedCount: records.length, failedCount: 0 };
    this.change(id, { status: 'COMPLETED', ...counts });
    await this.store.updateBatchState(this.id, id, { batchId: id, status: 'COMPLETED', ...counts });
    this.change(id, { records: [] });
    this.tell({ type: 'batch:completed', jobId: this.id, batchId: id, batchIndex: index, ...counts, timestamp: Date.now() });
    this.tell({ type: 'job:progress', jobId: this.id, progress: this.progress(), timestamp: Date.now() });
    await this.save();
  }

  async run(rows) {
    this.status = 'PROCESSING';
    this.startedAt = Date.now();
    let index = 0;
    for await (const records of this.inBatches(this.records(rows))) await this.batch(records, index++);
    this.status = 'COMPLETED';
    await this.save();
    return { id: this.id, records: this.total, batches: this.batches.length };
  }
}

/** Imports the rows into the store; says the job's id, and how much it was. */
export function runEngine(store, rows, { batchSize = 100, ...options } = {}) {
  return new Import(store, { batchSize, ...options }).run(rows);
}

export function* rowsOf(count) {
  for (let index = 0; index < count; index++) yield rowOf(index);
}

/** What core's engine has where no store is given: the same work for each call, and nothing else. */
export class MemoryStore {
  #jobs = new Map();
  #records = new Map();

  async initialize() {}

  async close() {}

  saveJobState(job) {
    this.#jobs.set(job.id, job);
    return Promise.resolve();
  }

  getJobState(id) {
    return Promise.resolve(this.#jobs.get(id) ?? null);
  }

  updateBatchState(id, batchId, { status, processedCount, failedCount }) {
    const job = this.#jobs.get(id);
    if (!job) return Promise.resolve();
    const changed = (batch) => (batch.id === batchId ? { ...batch, status, processedCount, failedCount } : batch);
    this.#jobs.set(id, { ...job, batches: job.batches.map(changed) });
    return Promise.resolve();
  }

  saveProcessedRecord(id, _batchId, record) {
    let records = this.#records.get(id);
    if (!records) this.#records.set(id, (records = new Map()));
    records.set(record.index, record);
    return Promise.resolve();
  }
}

/** An import in a process of its own, as a user's is, on a database of its own. `execArgv`: options of Node for it. */
export async function runEngineProcess(database, { side = OURS, records, durability = 'batch', execArgv = [] }) {
  const own = side === MEMORY ? { url: '', drop: async () => {} } : await database.create();
  try {
    const options = JSON.stringify([MEMORY, SEQUELIZE].includes(side) ? {} : { durability });
    const { stdout } = await run(process.execPath, [...execArgv, PROCESS, side, own.url, database.dialect.name, options, `${records}`]);
    return JSON.parse(stdout);
  } finally {
    await own.drop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const count of [20_000, 100_000, 1_000_000]) {
    for (const round of range(3)) {
      const began = performance.now();
      await runEngine(new MemoryStore(), rowsOf(count));
      const rate = count / ((performance.now() - began) / 1_000);
      console.log(`${count.toLocaleString('en')} records in memory, round ${round + 1}: ${Math.round(rate).toLocaleString('en')} a second`);
    }
  }
}
