'use strict';

const { durationOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { UsageError } = require('./exit.js');
const { jobOf } = require('./progress.js');
const { clean, duration, plural } = require('./text.js');

module.exports = {
  usage: 'reclaim <job> --timeout 15m',
  summary: 'Takes batches from workers that are silent for longer than the timeout',
  words: ['job'],
  options: { timeout: { type: 'string' } },
  help: `
They are PENDING again, for other workers. A job that is complete, and that no worker finalized,
is finalized. Workers do the same by themselves, with their own timeout: this is for a job that
none works on.

  --timeout DURATION    since the claim, or since it was renewed: longer than a batch takes, or
                        living workers lose theirs
  --json                { jobId, reclaimed, status }
`,

  async run({ values, words: [jobId], stdout }) {
    const timeoutMs = durationOption(values, 'timeout');
    if (timeoutMs === undefined) throw new UsageError('--timeout is missing: after how long a silent worker counts as dead, 15m say');
    if (timeoutMs < 1_000) throw new UsageError('--timeout must be 1s or more: living workers would lose their batches');
    const connection = await Connection.of(values);
    return connection.use(async (store) => {
      const before = await jobOf(store, jobId);
      const reclaimed = await store.reclaimStaleBatches(jobId, timeoutMs);
      const { status } = await jobOf(store, jobId);
      if (values.json) return stdout.json({ jobId, reclaimed, status });
      const silent = `silent for ${duration(timeoutMs)}`;
      await stdout.line(
        reclaimed === 0
          ? `No batch of job ${clean(jobId)} is held by a worker that was ${silent}.`
          : `${plural(reclaimed, 'batch was', 'batches were')} taken from workers that were ${silent}.`,
      );
      return before.status === status ? undefined : stdout.line(`Job ${clean(jobId)} was complete, and is ${status} now.`);
    });
  },
};
