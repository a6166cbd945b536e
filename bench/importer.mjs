// A distributed import in the manner of the importer: the same calls of the store in the same order, in an orchestrator and in worker processes. Its
// own code; what a worker does beside the store (checking a record's fields, copying it) costs about what it costs in the importer.
//
// The orchestrator: `saveBatchRecords` for each batch, then `saveJobState` with all batches. Each worker, until nothing is left to claim:
// `reclaimStaleBatches`, `claimBatch`, `getBatchRecords`, `getJobState` (of which it reads `totalRecords` alone), `saveProcessedRecord` for each
// record, `updateBatchState` COMPLETED, `tryFinalizeJob`; the worker that finalizes the job reads it once more, and sums up its batches.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { rowsOf } from './engine.mjs';
import { openStore, OURS, SEQUELIZE } from './sides.mjs';
import { callers, range } from './work.mjs';

/** The phase in which workers start. */
export const READY = 'the workers start';
const STALE_AFTER_MS = 15 * 60_000;
const WORKER = fileURLToPath(new URL('importer-worker.mjs', import.meta.url));

/** What a value of a field has to look like. */
const FIELDS = { name: /./, email: /^[^\s@]+@[^\s@]+\.[^\s@]+$/, city: /./, amount: /^-?\d+(\.\d+)?$/, note: /./ };

/** The orchestrator's part. The baseline does not write the rows of the batches by itself. */
export async function prepare(store, rows, { batchSize = 100, onPhase } = {}) {
  const id = randomUUID();
  const batches = [];
  let total = 0;
  const save = async (records) => {
    const batchId = randomUUID();
    const [first, last] = [records[0].index, records.at(-1).index];
    const counts = { processedCount: 0, failedCount: 0, recordStartIndex: first, recordEndIndex: last };
    batches.push({ id: batchId, index: batches.length, status: 'PENDING', records: [], ...counts });
    await store.saveBatchRecords(id, batchId, records);
  };
  let batch = [];
  for (const raw of rows) {
    if (batch.push({ index: total++, raw, parsed: raw, status: 'pending', errors: [] }) < batchSize) continue;
    await save(batch);
    batch = [];
  }
  if (batch.length > 0) await save(batch);
  const config = { schema: { fields: Object.keys(FIELDS).map((name) => ({ name, type: 'string', required: true })) }, batchSize };
  const job = { id, config, status: 'PROCESSING', batches, totalRecords: total, startedAt: Date.now(), distributed: true };
  onPhase?.('the records are saved');
  await store.saveJobState(job);
  onPhase?.('saveJobState has resolved');
  await store.insertBatchRows?.(job);
  return { id, batches, records: total };
}

/** A worker's part, until nothing is left to claim. */
export async function work(store, id, worker, process = async () => {}) {
  const done = { batches: 0, records: 0, finalized: 0 };
  for (;;) {
    await store.reclaimStaleBatches(id, STALE_AFTER_MS);
    const { claimed, reservation } = await store.claimBatch(id, worker);
    if (!claimed) return done;
    const { batchId, batchIndex } = reservation;
    const records = await store.getBatchRecords(id, batchId);
    const { totalRecords } = await store.getJobState(id);
    let processedCount = 0;
    for (const record of records) {
      const parsed = checked(record.raw);
      const context = { jobId: id, batchId, batchIndex, recordIndex: record.index, totalRecords, signal: new AbortController().signal };
      const valid = { ...record, parsed, status: 'valid', errors: [] };
      const { attempts } = await attempt(process, valid, context);
      processedCount++;
      await store.saveProcessedRecord(id, batchId, { ...valid, status: 'processed', retryCount: attempts - 1 });
    }
    await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount, failedCount: 0 });
    done.batches++;
    done.records += processedCount;
    if (!(await store.tryFinalizeJob(id))) continue;
    const job = await store.getJobState(id);
    done.finalized++;
    done.counted = job.batches.reduce((sum, batch) => sum + batch.processedCount, 0);
  }
}

/** Completes the first batches without a worker, so that the end of a large job is reached sooner. */
async function complete(store, { id, batches }, count) {
  await callers(8, count, async (n) => {
    const { id: batchId, recordStartIndex, recordEndIndex } = batches[n];
    const processedCount = recordEndIndex - recordStartIndex + 1;
    await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount, failedCount: 0 });
  });
}

async function attempt(process, { parsed }, context) {
  await process(parsed, context);
  return { attempts: 1 };
}

/** The fields by their names, whatever their case, each of which must look as it should. */
function checked(raw) {
  const parsed = {};
  for (const [key, value] of Object.entries(raw)) parsed[key.toLowerCase()] = value;
  for (const [name, pattern] of Object.entries(FIELDS)) {
    if (!pattern.test(String(parsed[name]))) throw new Error(`${name} is ${parsed[name]}`);
  }
  return { ...parsed };
}

/**
 * A whole job on a database of its own. Rates in records a second, of preparing it and of working on it: from the signal to start, which connected
 * workers wait for, until the last has closed its store. Megabytes: the peak memory of the largest worker. `execArgv`: options of Node for the
 * workers. `skip`: how many batches are completed without a worker. `onPhase` is told how far it is.
 */
export async function runImporter(
  database,
  { side = OURS, records, batchSize = 100, processes = 2, durability = 'batch', execArgv = [], skip = 0, onPhase },
) {
  const own = await database.create();
  const where = { url: own.url, dialect: database.dialect.name };
  const store = await openStore(side, where);
  const workers = [];
  try {
    await store.initialize();
    const began = performance.now();
    const job = await prepare(store, rowsOf(records), { batchSize, onPhase });
    const prepared = performance.now();
    await complete(store, job, skip);
    if (skip > 0) onPhase?.(`${skip} batches are completed`);
    const options = JSON.stringify(side === SEQUELIZE ? {} : { durability });
    const argumentsOf = (n) => [side, where.url, where.dialect, options, job.id, `worker-${n}`];
    for (const n of range(processes)) workers.push(fork(WORKER, argumentsOf(n), { execArgv }));
    await Promise.all(workers.map(nextMessage));
    onPhase?.(READY);
    const started = performance.now();
    for (const worker of workers) worker.send('start');
    const said = await Promise.all(workers.map(nextMessage));
    const ended = performance.now();
    const { status } = await store.getJobState(job.id);
    check(said, { records, batches: job.batches.length, skip, skippedRecords: skip * batchSize }, status, side);
    return {
      prepareRate: records / ((prepared - began) / 1_000),
      rate: (records - skip * batchSize) / ((ended - started) / 1_000),
      megabytes: Math.max(...said.map((each) => each.megabytes)),
      workers: said,
    };
  } finally {
    for (const worker of workers) worker.kill();
    await store.close();
    await own.drop();
  }
}

/** What a worker says next. It rejects where the worker ends instead: 'exit' may come before its last message, 'disconnect' may not. */
async function nextMessage(worker) {
  const over = new AbortController();
  const ended = once(worker, 'disconnect', over).then(() => {
    throw new Error('a worker ended before it was done; what it said stands above');
  });
  try {
    return (await Promise.race([once(worker, 'message', over), ended]))[0];
  } finally {
    ended.catch(() => {});
    over.abort();
  }
}

/** A figure for work that was not done would be worthless. */
function check(said, { records, batches, skip, skippedRecords }, status, side) {
  const total = (key) => said.reduce((sum, each) => sum + (each[key] ?? 0), 0);
  const done = total('batches') === batches - skip && total('records') === records - skippedRecords && status === 'COMPLETED';
  // The baseline's JSON copy loses counts where two workers write at once, as that of the adapter that it stands for.
  if (done && (side === SEQUELIZE || (total('finalized') === 1 && total('counted') === records))) return;
  throw new Error(`the job was not done as it should: ${JSON.stringify(said)}, ${status}`);
}
