// What a worker of the distributed importer does, with every call written down: before it is made, and once it has returned.

import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds by a clock that all processes of this machine share (CLOCK_MONOTONIC), to the microsecond. */
export function now() {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** The record of a batch that fails when it is processed. */
export const isFailing = (index) => index % 9 === 4;

/**
 * Writes down calls.
 *
 * @param {string} process A name that no other process of the history has.
 * @param {(line: object) => void} write Has to keep the line, whatever happens to the process next.
 */
export function recorder(process, write) {
  let sequence = 0;
  /** Makes a call. Resolves with `{ value }` or `{ error }`, and never rejects. `keep` is what the history needs of a value. */
  return async function record(worker, call, details, make, keep = (value) => value) {
    const n = ++sequence;
    write({ process, n, worker, call, ...details, at: now() });
    try {
      const value = await make();
      write({ process, n, at: now(), value: keep(value) });
      return { value };
    } catch (error) {
      const { code = error.name, retryable = false, message } = error;
      write({ process, n, at: now(), error: { code, retryable, message } });
      return { error: { code, retryable } };
    }
  };
}

/**
 * Works on a job until it is final.
 *
 * @param {object} store
 * @param {object} plan
 * @param {string} plan.jobId
 * @param {string} plan.workerId
 * @param {ReturnType<typeof recorder>} plan.record
 * @param {boolean} plan.explicit Hands its token to each fenced call. Else the store's own memory has to do, as for the engine's workers; then no other
 *   worker may use the store.
 * @param {boolean} [plan.queues] The store has `durability: 'batch'`.
 * @param {number} plan.leaseMs
 * @param {number} plan.thinkMs How long the processing of a record takes, on average.
 * @param {boolean} plan.stalls Now and then it keeps silent for longer than its lease.
 * @param {number} plan.failingEvery Every n-th batch fails as a whole; none if 0.
 * @param {boolean} [plan.steered] The job may be paused, so that it is not over where nothing can be claimed of it.
 * @param {number} plan.giveUpAt When (by `now`) the test has failed anyway.
 */
export async function work(store, plan) {
  const { jobId, workerId, record, explicit, queues, leaseMs, thinkMs, stalls, failingEvery, steered, giveUpAt } = plan;
  const totalRecords = (job) => job && { totalRecords: job.totalRecords };
  const once = (call, details, make, keep) => record(workerId, call, details, make, keep);

  /** Makes a call that may be repeated, until it has an answer. */
  const repeated = async (...args) => {
    for (;;) {
      const outcome = await once(...args);
      if (!outcome.error?.retryable || now() > giveUpAt) return outcome;
      await sleep(30 + Math.random() * 100);
    }
  };

  while (now() < giveUpAt) {
    await once('reclaimStaleBatches', {}, () => store.reclaimStaleBatches(jobId, leaseMs));
    const { value: claim } = await once('claimBatch', {}, () => store.claimBatch(jobId, workerId));
    if (claim?.claimed) await processBatch(claim.reservation);
    else if (claim?.reason === 'JOB_NOT_PROCESSING' && (await isOver())) return;
    // Another worker may yet die, and its batches come back.
    else await sleep(50 + Math.random() * 100);
  }
  throw new Error('the job was not done in time');

  async function isOver() {
    if (!steered) return true;
    const { value: job } = await repeated('getJobState', {}, () => store.getJobState(jobId), totalRecords);
    return job !== undefined && job?.status !== 'PAUSED' && job?.status !== 'PROCESSING';
  }

  async function processBatch({ batchId, batchIndex, token }) {
    const details = { batchId, token };
    const fence = explicit ? [{ token }] : [];
    const { value: records } = await repeated('getBatchRecords', { batchId }, () => store.getBatchRecords(jobId, batchId), marks);
    await repeated('getJobState', {}, () => store.getJobState(jobId), totalRecords);
    if (!records) return;

    if (Math.random() < 0.04) {
      await repeated('releaseBatch', details, () => store.releaseBatch(jobId, batchId, workerId));
      return;
    }

    // Where it is, the rest of the batch is late.
    const stall = stalls && Math.random() < 0.03 ? Math.floor(Math.random() * records.length) : -1;
    const counts = { processedCount: 0, failedCount: 0 };
    for (const [place, { index, raw }] of records.entries()) {
      if (place === stall) await sleep(leaseMs * 1.5);
      else if (Math.random() < 0.5) await sleep(Math.random() * 4 * thinkMs);
      if (Math.random() < 0.05) {
        const renewal = await once('renewBatch', details, () => store.renewBatch(jobId, batchId, workerId, ...fence));
        if (renewal.value === false) return;
      }
      const fails = isFailing(index);
      const outcome = fails ? { status: 'failed', processingError: 'as planned' } : { status: 'processed' };
      const saved = { index, raw, parsed: { token, worker: workerId }, errors: [], ...outcome };
      const { error } = await repeated('saveProcessedRecord', { ...details, index, queued: queues || undefined }, () =>
        store.saveProcessedRecord(jobId, batchId, saved, ...fence),
      );
      if (error) {
        // What the engine does once a save was refused. It must not hit the worker that has the batch now.
        const failed = { batchId, status: 'FAILED', processedCount: 0, failedCount: records.length };
        await once('updateBatchState', { ...details, status: 'FAILED' }, () => store.updateBatchState(jobId, batchId, failed, ...fence));
        return;
      }
      counts[fails ? 'failedCount' : 'processedCount']++;
    }

    const status = dueStatus(batchIndex, failingEvery);
    const { error } = await repeated('updateBatchState', { ...details, status }, () =>
      store.updateBatchState(jobId, batchId, { batchId, status, ...counts }, ...fence),
    );
    if (!error) await once('tryFinalizeJob', {}, () => store.tryFinalizeJob(jobId));
  }
}

/** What the history needs of a batch's records: of each, which claim saved it. */
const marks = (records) => records.map(({ index, parsed }) => ({ index, token: parsed.token, worker: parsed.worker }));

/**
 * Looks at a job while others work on it, as any program may: at the states of its batches, and then at the records of those that are COMPLETED.
 *
 * @param {object} store
 * @param {object} plan
 * @param {string} plan.jobId
 * @param {ReturnType<typeof recorder>} plan.record
 * @param {() => boolean} plan.isOver
 */
export async function watch(store, { jobId, record, isOver }) {
  const seen = new Set();
  const completedOf = (job) => [...job.batches.keys()].filter((place) => job.batches[place].status === 'COMPLETED');
  while (!isOver()) {
    let job;
    const read = async () => (job = await store.getJobState(jobId));
    const { value } = await record('watcher', 'getJobState', {}, read, () => ({
      totalRecords: job.totalRecords,
      completed: completedOf(job),
    }));
    for (const place of value?.completed ?? []) {
      const { id } = job.batches[place];
      if (seen.has(id)) continue;
      const { error } = await record('watcher', 'getBatchRecords', { batchId: id }, () => store.getBatchRecords(jobId, id), marks);
      if (!error) seen.add(id);
    }
    await sleep(10);
  }
}

/** The state in which a batch ends. */
export function dueStatus(batchIndex, failingEvery) {
  return failingEvery > 0 && batchIndex % failingEvery === failingEvery - 1 ? 'FAILED' : 'COMPLETED';
}
