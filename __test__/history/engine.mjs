// What core's engine does with a store, with every call written down: in its order, with its list of batches, which is one array that it changes and saves
// again and again.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect } from '../support/suite.mjs';
import { isFailing } from './importer.mjs';

const range = (count) => Array.from({ length: count }, (_, n) => n);

/** What the history needs of a list: a copy, because the list changes. */
const copy = (batches) =>
  batches.map(({ id, index, status, processedCount, failedCount }) => ({ id, index, status, processedCount, failedCount }));

/**
 * Takes up a job as core's `restore` does, and does what is left of it: batches that are not COMPLETED run again from the start, under new ids.
 *
 * @param {object} store
 * @param {object} plan
 * @param {string} plan.jobId
 * @param {number} plan.batches
 * @param {number} plan.batchSize
 * @param {number} plan.concurrent How many batches run at once.
 * @param {number} plan.thinkMs How long the processing of a record takes, on average. 0: it awaits the store and nothing else.
 * @param {ReturnType<import('./importer.mjs').recorder>} plan.record
 */
export async function runImport(store, { jobId, batches: count, batchSize, concurrent, thinkMs, record }) {
  const call = async (name, details, make, keep) => {
    const { value, error } = await record('engine', name, details, make, keep);
    // As in the engine: the job fails. What the store said is in the history.
    if (error) throw new Error(`${name}: ${error.code}`);
    return value;
  };
  const savedBy = ({ index, parsed }) => ({ index, ...parsed });

  const job = await call(
    'getJobState',
    {},
    () => store.getJobState(jobId),
    (found) => found && { ...found, batches: copy(found.batches) },
  );
  await call(
    'records',
    {},
    () => collect(store.records(jobId)),
    (records) => records.map(savedBy),
  );
  if (job?.status === 'COMPLETED') return;
  const restored = job?.batches ?? [];
  const completed = new Set(restored.filter(({ status }) => status === 'COMPLETED').map(({ index }) => index));
  // Where nothing is completed, the engine begins anew.
  const batches = completed.size > 0 ? [...restored] : [];
  const startedAt = job?.startedAt ?? Date.now();
  let totalRecords = 0;
  let saves = 0;

  const save = (status) => {
    const state = { id: jobId, config: { batchSize, maxConcurrentBatches: concurrent }, status, batches, totalRecords, startedAt };
    return call('saveJobState', { status, totalRecords, batches: copy(batches) }, () => store.saveJobState(state));
  };
  const setState = (at, status, processedCount = 0, failedCount = 0) => {
    const state = { batchId: batches[at].id, status, processedCount, failedCount };
    batches[at] = { ...batches[at], status, processedCount, failedCount };
    return call('updateBatchState', state, () => store.updateBatchState(jobId, state.batchId, state));
  };

  const runBatch = async (index) => {
    const indexes = range(batchSize).map((n) => index * batchSize + n);
    const id = randomUUID();
    const at = batches.length;
    batches.push({ id, index, status: 'PENDING', records: indexes.map((n) => ({ index: n })), processedCount: 0, failedCount: 0 });
    await setState(at, 'PROCESSING');
    let failedCount = 0;
    for (const n of indexes) {
      if (thinkMs > 0) await sleep(Math.random() * 2 * thinkMs);
      const fails = isFailing(n);
      if (fails) failedCount++;
      const parsed = { batchId: id, save: `${id} ${++saves}` };
      const saved = { index: n, raw: { line: n }, parsed, status: fails ? 'failed' : 'processed', errors: [] };
      await call('saveProcessedRecord', { batchId: id, index: n, save: parsed.save }, () => store.saveProcessedRecord(jobId, id, saved));
    }
    await setState(at, 'COMPLETED', batchSize - failedCount, failedCount);
    batches[at] = { ...batches[at], records: [] };
    await save('PROCESSING');
  };

  const running = new Set();
  for (const index of range(count)) {
    totalRecords += batchSize;
    if (completed.has(index)) continue;
    while (running.size >= concurrent) await Promise.race(running);
    const batch = runBatch(index).then(() => running.delete(batch));
    running.add(batch);
    if (concurrent === 1) await batch;
    // Somebody looks how far it is, or pauses it for a moment.
    if (Math.random() < 0.04) await call('getProgress', {}, () => store.getProgress(jobId));
    if (Math.random() < 0.02) await save('PAUSED');
  }
  await Promise.all(running);
  await save('COMPLETED');
}
