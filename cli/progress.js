'use strict';

// What `show` and `watch` say of a job.

const { notFound } = require('./exit.js');
const { quoted } = require('./text.js');

/** The job without its batches. One that doesn't exist ends the command. */
async function jobOf(store, jobId) {
  const job = await store.getJob(jobId);
  if (job === null) throw notFound(`there is no job ${quoted(jobId)}`);
  return job;
}

/** The job with its progress, as it is now; `null` where it does not exist. */
async function stateOf(store, jobId) {
  const job = await store.getJob(jobId);
  if (job === null) return null;
  const progress = await store.getProgress(jobId);
  const batches = job.distributed ? countsOf(await store.getDistributedStatus(jobId)) : undefined;
  return { job, progress, batches };
}

function countsOf({ totalBatches, completedBatches, failedBatches, processingBatches, pendingBatches }) {
  const known = completedBatches + failedBatches + processingBatches + pendingBatches;
  return {
    total: totalBatches,
    completed: completedBatches,
    failed: failedBatches,
    processing: processingBatches,
    pending: pendingBatches,
    paused: Math.max(totalBatches - known, 0),
  };
}

module.exports = { jobOf, stateOf };
