'use strict';

// pause, resume and abort: each changes a job's status where that is still possible.

const { Connection } = require('./connection.js');
const { refused } = require('./exit.js');
const { FINAL } = require('./arguments.js');
const { jobOf } = require('./progress.js');
const { confirm } = require('./terminal.js');
const { clean, count, plural } = require('./text.js');

/** A store refuses with INVALID_ARGUMENT what is wrong with the job, and not with the words. */
const ofJob = (error) => {
  throw error.code === 'INVALID_ARGUMENT' ? refused(error.message) : error;
};

/** `change` is the store's call, `wanted` the status that it is to lead to. */
async function steer({ values, words: [jobId], stdout }, { change, wanted, before, done }) {
  const connection = await Connection.of(values);
  return connection.use(async (store) => {
    const job = await jobOf(store, jobId);
    if (!FINAL.includes(job.status)) await before?.(store, job);
    const changed = await change(store, jobId).catch(ofJob);
    const { status } = await jobOf(store, jobId);
    if (values.json) await stdout.json({ jobId, changed, status });
    if (!changed && !wanted.includes(status)) {
      throw refused(`job ${clean(jobId)} is ${status}, so nothing was changed`);
    }
    if (!values.json) await stdout.line(changed ? done(jobId, status) : `Job ${clean(jobId)} is ${status} already.`);
    return undefined;
  });
}

const pause = {
  usage: 'pause <job>',
  summary: 'Pauses a distributed job: nothing more is claimed, and what is claimed goes on',
  words: ['job'],
  help: `
Workers that end on JOB_NOT_PROCESSING don't come back by themselves: their loop has to poll until
the job is final.

  --json                { jobId, changed, status }
`,
  run: (call) =>
    steer(call, {
      change: (store, jobId) => store.pauseJob(jobId),
      wanted: ['PAUSED'],
      done: (jobId) => `Job ${clean(jobId)} is PAUSED. What is claimed is still worked on.`,
    }),
};

const resume = {
  usage: 'resume <job>',
  summary: 'Lets a paused job go on; one whose batches are all done is finalized',
  words: ['job'],
  help: `
  --json                { jobId, changed, status }
`,
  run: (call) =>
    steer(call, {
      change: (store, jobId) => store.resumeJob(jobId),
      wanted: ['PROCESSING'],
      done: (jobId, status) => `Job ${clean(jobId)} is ${status}.`,
    }),
};

const abort = {
  usage: 'abort <job> [--now] [--force] [--yes]',
  summary: 'Ends a job that is not final',
  words: ['job'],
  options: { now: { type: 'boolean' }, force: { type: 'boolean' }, yes: { type: 'boolean', short: 'y' } },
  help: `
  --now                 takes the claimed batches from their workers at once; without it they may be
                        saved and completed
  --force               also ends a job that one process works on. Only where that process is gone: a
                        living one overwrites it
  --yes                 doesn't ask. Without a terminal it is needed
  --json                { jobId, changed, status }
`,
  run: (call) => {
    const { values } = call;
    return steer(call, {
      change: (store, jobId) => store.abortJob(jobId, { now: values.now ?? false, force: values.force ?? false }),
      wanted: ['ABORTED'],
      before: async (store, job) => {
        // Otherwise the store refuses it, and there is nothing to ask.
        if (!job.distributed && !values.force) return;
        process.stderr.write(`${(await consequences(store, job, values)).join('\n')}\n`);
        await confirm(values, { what: 'aborting a job', expected: job.id });
      },
      done: (jobId) => `Job ${clean(jobId)} is ABORTED.`,
    });
  },
};

/** What an abort does to this job, now. */
async function consequences(store, { id, status, distributed }, { now }) {
  const { totalRecords, pendingRecords } = await store.getProgress(id);
  const lines = [
    `Job ${clean(id)} is ${status}: ${count(pendingRecords)} of ${plural(totalRecords, 'record')} ${pendingRecords === 1 ? 'is' : 'are'} pending, and will not be processed.`,
  ];
  if (distributed) {
    const { processingBatches } = await store.getDistributedStatus(id);
    if (processingBatches > 0) {
      const held = plural(processingBatches, 'batch is held by a worker', 'batches are held by workers');
      lines.push(
        now
          ? `${held}: taken away at once, and the work on them is lost.`
          : `${held}: their work may still be saved. (--now takes them away.)`,
      );
    }
  } else {
    lines.push('One process works on it. If it still runs, it overwrites the status with its next batch.');
  }
  lines.push("An aborted job can't go on.");
  return lines;
}

module.exports = { pause, resume, abort };
