'use strict';

const { FINAL, durationOption, listOption, numberOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { UsageError } = require('./exit.js');
const { interruptible } = require('./interrupt.js');
const { confirm } = require('./terminal.js');
const { clean, count, plural } = require('./text.js');

/** Jobs that are listed by name. */
const LISTED = 10;

module.exports = {
  usage: 'purge --older-than 30d [--without-job] [--dry-run] [--yes]',
  summary: 'Deletes jobs that ended long ago',
  options: {
    'older-than': { type: 'string' },
    statuses: { type: 'string' },
    limit: { type: 'string' },
    'without-job': { type: 'boolean' },
    'dry-run': { type: 'boolean' },
    yes: { type: 'boolean', short: 'y' },
  },
  help: `
  --older-than DURATION  jobs that ended longer ago than this
  --statuses S,S        only these: COMPLETED, ABORTED, FAILED (all three by default)
  --limit N             at most this many jobs, the oldest first
  --without-job         also batches and records that belong to no job: only while no import is being prepared
  --dry-run             deletes nothing, and shows what would be deleted
  --yes                 doesn't ask. Without a terminal it is needed
  --json                { jobIds, batches, records, orphans, skipped }
`,

  async run({ values, stdout }) {
    const olderThanMs = durationOption(values, 'older-than');
    if (olderThanMs === undefined) throw new UsageError('--older-than is missing: how long ago a job must have ended, 30d say');
    const statuses = listOption(values, 'statuses', FINAL);
    const limit = numberOption(values, 'limit', 1, 1_000_000);
    const options = { olderThanMs, ...(statuses === undefined ? {} : { statuses }), ...(limit === undefined ? {} : { limit }) };
    if (values['without-job']) options.withoutJob = true;
    const connection = await Connection.of(values);
    return connection.use(async (store) => {
      if (values['dry-run'] || !values.yes) {
        const found = await store.purge({ ...options, dryRun: true });
        const isEmpty = found.jobIds.length + found.orphans.length + found.batches + found.records === 0;
        if (values['dry-run'] || isEmpty) {
          return values.json ? stdout.json(found) : stdout.write(`${describe(found, 'would be deleted').join('\n')}\n`);
        }
        process.stderr.write(`${describe(found, 'will be deleted').join('\n')}\n`);
        await confirm(values, { what: 'deleting', expected: String(found.jobIds.length) });
      }
      const stopped = () => 'batchactions-sqlx: stopped in the middle: each job is whole, or is deleted by the next purge';
      const deleted = await interruptible(stopped, () => store.purge(options));
      return values.json ? stdout.json(deleted) : stdout.write(`${describe(deleted, 'deleted').join('\n')}\n`);
    });
  },
};

function describe({ jobIds, batches, records, orphans, skipped }, fate) {
  const named = (ids) =>
    `${ids.slice(0, LISTED).map(clean).join(', ')}${ids.length > LISTED ? `, and ${count(ids.length - LISTED)} more` : ''}`;
  const lines = [`${plural(jobIds.length, 'job')}, ${plural(batches, 'batch', 'batches')} and ${plural(records, 'record')} ${fate}.`];
  if (jobIds.length > 0) lines.push(`  jobs: ${named(jobIds)}`);
  if (orphans.length > 0) lines.push(`  without a job: what is left of ${named(orphans)}`);
  if (skipped.length > 0) lines.push(`  kept, because a worker holds a batch: ${named(skipped)}`);
  return lines;
}
