'use strict';

// pause, resume and abort: each changes a job's status where that is still possible.

const { Connection } = require('./connection.js');
const { ofJob, refused } = require('./exit.js');
const { FINAL } = require('./arguments.js');
const { jobOf } = require('./progress.js');
const { confirm } = require('./terminal.js');
const { clean, count, plural } = require('./text.js');

/**
 * `change` is the store's call, `wanted` the status that it is to lead to. `before` asks, where there is something to ask. `also` says what the call did
 * to a job that had the status already: words, and fields for `--json`.
 */
async function steer({ values, words: [jobId], stdout }, { change, wanted, before, done, also }) {
  const connection = await Connection.of(values);
  return connection.use(async (store) => {
    const job = await jobOf(store, jobId);
    await before?.(store, job);
    const changed = await change(store, jobId).catch(ofJob);
    const { status } = await jobOf(store, jobId);
    const more = !changed && wanted.includes(status) ? await also?.(store, jobId) : undefined;
    if (values.json) await stdout.json({ jobId, changed, status, ...more?.fields });
    if (!changed && !wanted.includes(status)) {
      throw refused(`job ${clean(jobId)} is ${status}, so nothing was changed`);
    }
    if (!values.json) await stdout.line(changed ? done(jobId, status) : `Job ${clean(jobId)} is ${status} already.${more?.words ?? ''}`);
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
                        saved and completed. Also of a job that is ABORTED already
  --force               also ends a job that one process works on. Only where that process is gone: a
                        living one overwrites it
  --yes                 doesn't ask. Without a terminal it is needed
  --json                { jobId, changed, status }; with --now, of a job that is ABORTED already, also
                        taken: the number of batches
`,
  run: (call) => {
    const { values } = call;
    const { now = false, force = false } = values;
    let pendingBefore;
    return steer(call, {
      change: async (store, jobId) => {
        if (now) pendingBefore = await pendingBatches(store, jobId);
        return store.abortJob(jobId, { now, force });
      },
      wanted: ['ABORTED'],
      before: async (store, job) => {
        const asked = await question(store, job, { now, force });
        if (asked === undefined) return;
        process.stderr.write(`${asked.lines.join('\n')}\n`);
        await confirm(values, { what: asked.what, expected: job.id });
      },
      done: (jobId) => `Job ${clean(jobId)} is ABORTED.`,
      also: async (store, jobId) => {
        if (!now) return undefined;
        // Nothing is claimed of an ABORTED job, so what is PENDING since was taken.
        const taken = Math.max((await pendingBatches(store, jobId)) - pendingBefore, 0);
        return { words: taken === 0 ? '' : ` ${plural(taken, 'batch was', 'batches were')} taken from workers.`, fields: { taken } };
      },
    });
  },
};

const pendingBatches = async (store, jobId) => (await store.getDistributedStatus(jobId)).pendingBatches;

/** What an abort does to this job, now, and what that is called. `undefined` where there is nothing to ask. */
async function question(store, job, { now, force }) {
  const { id, status, distributed } = job;
  // Otherwise the store refuses it.
  if (!distributed && !force) return undefined;
  if (!FINAL.includes(status)) return { what: 'aborting a job', lines: await consequences(store, job, now) };
  if (status !== 'ABORTED' || !now || !distributed) return undefined;
  const held = await heldBatches(store, id);
  return held === 0
    ? undefined
    : { what: 'taking batches from workers', lines: [`Job ${clean(id)} is ABORTED already.`, fateOf(held, now)] };
}

async function consequences(store, { id, status, distributed }, now) {
  const { totalRecords, pendingRecords } = await store.getProgress(id);
  const lines = [
    `Job ${clean(id)} is ${status}: ${count(pendingRecords)} of ${plural(totalRecords, 'record')} ${pendingRecords === 1 ? 'is' : 'are'} pending, and will not be processed.`,
  ];
  if (distributed) {
    const held = await heldBatches(store, id);
    if (held > 0) lines.push(fateOf(held, now));
  } else {
    lines.push('One process works on it. If it still runs, it overwrites the status with its next batch.');
  }
  lines.push("An aborted job can't go on.");
  return lines;
}

function fateOf(batches, now) {
  const held = plural(batches, 'batch is held by a worker', 'batches are held by workers');
  return now
    ? `${held}: taken away at once, and the work on them is lost.`
    : `${held}: their work may still be saved. (--now takes them away.)`;
}

/** The batches that `--now` takes. A PAUSED one that has a worker is still held by it. */
async function heldBatches(store, jobId) {
  let held = 0;
  for (let after; ;) {
    const page = await store.batches(jobId, { status: ['PROCESSING', 'PAUSED'], limit: 1_000, after });
    held += page.filter(({ status, workerId }) => status === 'PROCESSING' || workerId !== undefined).length;
    if (page.length < 1_000) return held;
    after = page.at(-1).index;
  }
}

module.exports = { pause, resume, abort };
