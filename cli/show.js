'use strict';

const { Connection } = require('./connection.js');
const { notFound } = require('./exit.js');
const { stateOf } = require('./progress.js');
const { clean, count, duration, plural, quoted, table, time } = require('./text.js');

/** Batches that are listed by name. */
const LISTED = 20;

module.exports = {
  usage: 'show <job>',
  summary: 'Shows a job: its progress, who works on it, and which batches failed',
  words: ['job'],
  help: `
  --json                the job, its progress, and its batches that are PROCESSING or FAILED (up to
                        ${LISTED} each)
`,

  async run({ values, words: [jobId], stdout }) {
    const connection = await Connection.of(values);
    return connection.use(async (store, { clockSkewMs }) => {
      const state = await stateOf(store, jobId);
      if (state === null) throw notFound(`there is no job ${quoted(jobId)}`);
      const listed = async (status) => store.batches(jobId, { status, limit: LISTED });
      const [processing, failed] = [await listed('PROCESSING'), await listed('FAILED')];
      if (values.json) return stdout.json({ ...state, processing, failed });
      const now = Date.now() + clockSkewMs;
      for (const line of [...summary(state, now), ...held(processing, state, now), ...broken(failed, state)]) await stdout.line(line);
      return undefined;
    });
  },
};

function summary({ job, progress, batches }, now) {
  const { id, status, startedAt, completedAt, distributed, config } = job;
  const { totalRecords, processedRecords, failedRecords, pendingRecords, percentage, currentBatch, totalBatches } = progress;
  const lines = [
    ['job', clean(id)],
    ['status', status],
    [
      'records',
      `${count(totalRecords)}: ${count(processedRecords)} processed, ${count(failedRecords)} failed, ${count(pendingRecords)} pending (${percentage} %)`,
    ],
  ];
  if (batches === undefined) lines.push(['batches', `${count(totalBatches)}: ${count(currentBatch)} completed`]);
  else {
    const { total, completed, failed, processing, pending, paused } = batches;
    const rest = paused === 0 ? '' : `, ${count(paused)} paused`;
    lines.push([
      'batches',
      `${count(total)}: ${count(completed)} completed, ${count(failed)} failed, ${count(processing)} processing, ${count(pending)} pending${rest}`,
    ]);
  }
  if (startedAt !== undefined) {
    const end =
      completedAt === undefined ? `for ${duration(now - startedAt)}` : `to ${time(completedAt)}, ${duration(completedAt - startedAt)}`;
    lines.push(['ran', `from ${time(startedAt)} ${end}`]);
  }
  lines.push(['kind', distributed ? 'distributed: workers claim its batches' : 'one process works on it']);
  if (config?.retryOf !== undefined) lines.push(['retry of', clean(config.retryOf)]);
  return lines.map(([name, value]) => `${name.padEnd(9)} ${value}`);
}

function held(batches, { batches: counts }, now) {
  if (batches.length === 0) return [];
  const age = ({ claimedAt }) => (claimedAt === undefined ? '-' : duration(now - claimedAt));
  const rows = batches.map((batch) => [count(batch.index), recordsOf(batch), batch.workerId ?? '-', age(batch), batch.id]);
  return ['', ...table(['BATCH', 'RECORDS', 'HELD BY', 'CLAIMED AGO', 'ID'], rows, [0]), ...more(counts?.processing, batches)];
}

function broken(batches, { batches: counts }) {
  if (batches.length === 0) return [];
  const rows = batches.map((batch) => [count(batch.index), recordsOf(batch), batch.workerId ?? '-', count(batch.failedCount), batch.id]);
  return ['', ...table(['FAILED', 'RECORDS', 'LAST HELD BY', 'RECORDS FAILED', 'ID'], rows, [0, 3]), ...more(counts?.failed, batches)];
}

/** The indexes of a batch's first and last record. */
const recordsOf = ({ recordStartIndex: first, recordEndIndex: last }) => (first === undefined ? '-' : `${first} to ${last ?? '?'}`);
const more = (total, shown) => (total > shown.length ? [`and ${plural(total - shown.length, 'more batch', 'more batches')}`] : []);
