'use strict';

const { FINAL, listOption, numberOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { ofJob, refused } = require('./exit.js');
const { jobOf } = require('./progress.js');
const { clean, plural } = require('./text.js');

const STATUSES = ['failed', 'invalid', 'pending', 'valid'];

module.exports = {
  usage: 'retry <job> [--statuses S,S] [--batch-size N]',
  summary: 'Makes a new distributed job of the failed records of a final job',
  words: ['job'],
  options: { statuses: { type: 'string' }, 'batch-size': { type: 'string' } },
  help: `
The job stays as it is; the new one gets its records' raw data, with their indexes. Workers of
@batchactions/distributed run it, with the schema that they are given.

  --statuses S,S        which records: failed (the default), invalid, pending, valid
  --batch-size N        records per batch; by default as in the job
  --json                { jobId, totalRecords, totalBatches }, or null where there are no such records
`,

  async run({ values, words: [jobId], stdout }) {
    const statuses = listOption(values, 'statuses', STATUSES) ?? ['failed'];
    const batchSize = numberOption(values, 'batch-size', 1, 100_000);
    const connection = await Connection.of(values);
    return connection.use(async (store) => {
      const { status } = await jobOf(store, jobId);
      if (!FINAL.includes(status))
        throw refused(`job ${clean(jobId)} is ${status}: a job is retried once it is COMPLETED, FAILED or ABORTED`);
      const options = { statuses, ...(batchSize === undefined ? {} : { batchSize }) };
      const made = await store.retryFailed(jobId, options).catch(ofJob);
      if (values.json) return stdout.json(made);
      if (made === null)
        return stdout.line(`Job ${clean(jobId)} has no records that are ${statuses.join(' or ')}: there is nothing to retry.`);
      const { totalRecords, totalBatches } = made;
      return stdout.line(
        `Job ${made.jobId} has ${plural(totalRecords, 'record')} of ${clean(jobId)} in ${plural(totalBatches, 'batch', 'batches')}, and waits for workers.`,
      );
    });
  },
};
