// Claims batches of a job and processes them, until the job is done. Start as many as you like, on as many machines as you like.
//
//   DATABASE_URL=… node worker.mjs <job id> <worker id>

import { setTimeout as sleep } from 'node:timers/promises';
import { SqlxStateStore } from '@batchactions/state-sqlx';
import { processOrder, validate } from './orders.mjs';

const [jobId, workerId] = process.argv.slice(2);

// A worker that has not renewed its claim for this long is presumed dead, and its batch goes to another one. Several times the interval of
// renewal. (It is short because this is a demo; minutes are a good choice.)
const staleAfterMs = 5_000;

const store = new SqlxStateStore(process.env.DATABASE_URL, {
  // A thread of the store renews the claim, even while this script's event loop is blocked; but for a minute at most, so that a worker that
  // hangs loses its batch.
  leaseRenewal: { everyMs: 500, forMs: 60_000 },
  // A batch that has killed three workers becomes FAILED, so that it can't kill the others too.
  maxClaims: 3,
  // A worker writes through one connection at a time; the others are for its reads.
  pool: { max: 3 },
});

// Tells the parent process, if there is one, what this worker does (see demo.mjs).
const report = (event) => process.send?.({ workerId, ...event });

for (;;) {
  const reclaimed = await store.reclaimStaleBatches(jobId, staleAfterMs);
  if (reclaimed > 0) report({ type: 'reclaimed', count: reclaimed });

  const claim = await store.claimBatch(jobId, workerId).catch((error) => {
    // The database is busy. A claim that took effect although its reply was lost becomes stale like any other.
    if (!error.retryable) throw error;
    return { claimed: false, reason: 'NO_PENDING_BATCHES' };
  });
  if (!claim.claimed) {
    // Nothing to claim doesn't mean that the job is done: the batch of a worker that dies comes back, and a paused job goes on.
    if (claim.reason === 'JOB_NOT_FOUND') break;
    if (claim.reason === 'JOB_NOT_PROCESSING' && (await isFinal(jobId))) break;
    await sleep(200);
    continue;
  }

  const { batchId, batchIndex, token } = claim.reservation;
  report({ type: 'claimed', batchIndex, token });
  try {
    const { processed, failed } = await processBatch(batchId);
    await store.updateBatchState(jobId, batchId, { batchId, status: 'COMPLETED', processedCount: processed, failedCount: failed });
    report({ type: 'completed', batchIndex, token });
  } catch (error) {
    // This worker was presumed dead, and another one has the batch. The store refused what this one wrote since then.
    if (error.code !== 'LEASE_LOST') throw error;
    report({ type: 'lost', batchIndex });
  }

  // True for the one worker that finalizes the job: the place to send the e-mail.
  if (await store.tryFinalizeJob(jobId)) report({ type: 'finalized' });
}

await store.close();
process.disconnect?.();

/** Whether no batch of the job can be claimed any more. */
async function isFinal(jobId) {
  const job = await store.getJobState(jobId);
  return job === null || ['COMPLETED', 'FAILED', 'ABORTED'].includes(job.status);
}

async function processBatch(batchId) {
  let failed = 0;
  const records = await store.getBatchRecords(jobId, batchId);
  // With 100 records in flight, the saves made while a write is under way go into the next one together. That is several times as fast as one
  // record after the other, and each `await` still ends when its record is committed.
  await forEach(records, 100, async (record) => {
    const done = processRecord(record);
    if (done.status !== 'processed') failed++;
    await store.saveProcessedRecord(jobId, batchId, done);
  });
  return { processed: records.length - failed, failed };
}

function processRecord({ index, raw }) {
  const errors = validate(raw);
  if (errors.length > 0) return { index, raw, parsed: {}, status: 'invalid', errors };
  try {
    return { index, raw, parsed: processOrder(raw), status: 'processed', errors };
  } catch (error) {
    return { index, raw, parsed: {}, status: 'failed', errors, processingError: error.message };
  }
}

/** Runs `work` on each item, on `limit` of them at a time. */
async function forEach(items, limit, work) {
  const rest = items.values();
  const lane = async () => {
    for (const item of rest) await work(item);
  };
  await Promise.all(Array.from({ length: limit }, lane));
}
