'use strict';

const { JOB_STATUSES, choiceOption, numberOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { clean, count, duration, table, time } = require('./text.js');

const PAGE = 1_000;

module.exports = {
  usage: 'jobs [--status S] [--limit N]',
  summary: 'Lists jobs, the newest first',
  options: { status: { type: 'string' }, limit: { type: 'string' } },
  help: `
  --status STATUS       only jobs with this status: PROCESSING, say
  --limit N             at most this many, 20 by default
  --json                an array of the jobs, as listJobs returns them
`,

  async run({ values, stdout }) {
    const status = choiceOption(values, 'status', JOB_STATUSES);
    const limit = numberOption(values, 'limit', 1, 1_000_000) ?? 20;
    const connection = await Connection.of(values);
    return connection.use(async (store, { clockSkewMs }) => {
      // One more than is shown, to know whether there are more.
      const jobs = await list(store, status, limit + 1);
      const shown = jobs.slice(0, limit);
      if (values.json) return stdout.json(shown);
      if (shown.length === 0) return stdout.line(status === undefined ? 'There are no jobs.' : `There are no jobs that are ${status}.`);
      const now = Date.now() + clockSkewMs;
      for (const line of table(
        ['JOB', 'STATUS', 'RECORDS', 'STARTED', 'TOOK', 'KIND'],
        shown.map((job) => row(job, now)),
        [2],
      )) {
        await stdout.line(line);
      }
      if (jobs.length > limit) await stdout.line(`There are more: --limit ${limit * 10} shows up to ${count(limit * 10)}.`);
      return undefined;
    });
  },
};

function row({ id, status, totalRecords, startedAt, completedAt, distributed, config }, now) {
  const retryOf = config?.retryOf === undefined ? '' : `, retry of ${clean(config.retryOf)}`;
  const took = startedAt === undefined ? '-' : duration((completedAt ?? now) - startedAt);
  return [
    id,
    status,
    count(totalRecords),
    startedAt === undefined ? '-' : time(startedAt),
    took,
    `${distributed ? 'distributed' : 'one process'}${retryOf}`,
  ];
}

async function list(store, status, most) {
  const jobs = [];
  let after;
  while (jobs.length < most) {
    const limit = Math.min(most - jobs.length, PAGE);
    const page = await store.listJobs({ status, limit, after });
    jobs.push(...page);
    if (page.length < limit) break;
    after = page.at(-1);
  }
  return jobs;
}
