// Rows that another program filled with what the store never writes. A call takes them as they are or says that they are not the store's: never a crash,
// and never a defect of the package.

import { describe, expect } from 'vitest';
import { makeJob, makeLocalJob, newId } from '../support/fixtures.mjs';
import { collect, onEveryDatabase, prepare, rejection, StateStoreError } from '../support/suite.mjs';

const lists = [
  '42',
  '"text"',
  'null',
  '{}',
  '[1]',
  '[null]',
  '[[]]',
  '[{}]',
  '[{"id":5,"index":"x"}]',
  '[{"id":"b","status":[],"index":-1}]',
];
const objects = ['42', '"text"', 'null', '[]', '[{"a":1}]', '{"__proto__":{"polluted":true}}'];

// Which column, and what it is made to hold.
const cases = [
  ...lists.map((value) => ['batchactions_jobs', 'batches', value]),
  ...objects.map((value) => ['batchactions_jobs', 'config', value]),
  ['batchactions_jobs', 'status', 'NONSENSE'],
  ['batchactions_jobs', 'totalRecords', -7],
  ['batchactions_jobs', 'startedAt', -1],
  ['batchactions_jobs', 'completedAt', '9007199254740993'],
  ...objects.map((value) => ['batchactions_records', 'raw', value]),
  ...objects.map((value) => ['batchactions_records', 'errors', value]),
  ['batchactions_records', 'status', 'strange'],
  ['batchactions_records', 'recordIndex', -1],
  ['batchactions_batches', 'status', 'STRANGE'],
  ['batchactions_batches', 'batchIndex', -1],
  ['batchactions_batches', 'version', -1],
  ['batchactions_batches', 'version', 2_147_483_647],
  ['batchactions_batches', 'processedCount', -1],
  ['batchactions_batches', 'claimedAt', '-9223372036854775808'],
  ['batchactions_batches', 'claimedAt', '9223372036854775807'],
];

/** Each call, one after another, on a job. */
function calls(store, job) {
  const [batch] = job.batches;
  const record = { index: 0, raw: {}, parsed: {}, status: 'processed', errors: [] };
  return {
    getJobState: () => store.getJobState(job.id),
    getProgress: () => store.getProgress(job.id),
    getDistributedStatus: () => store.getDistributedStatus(job.id),
    listJobs: () => store.listJobs(),
    records: () => collect(store.records(job.id)),
    getPendingRecords: () => store.getPendingRecords(job.id),
    getBatchRecords: () => store.getBatchRecords(job.id, batch.id),
    claimBatch: () => store.claimBatch(job.id, 'worker'),
    renewBatch: () => store.renewBatch(job.id, batch.id, 'worker'),
    saveProcessedRecord: () => store.saveProcessedRecord(job.id, batch.id, record),
    updateBatchState: () =>
      store.updateBatchState(job.id, batch.id, { batchId: batch.id, status: 'COMPLETED', processedCount: 2, failedCount: 0 }),
    releaseBatch: () => store.releaseBatch(job.id, batch.id, 'worker'),
    reclaimStaleBatches: () => store.reclaimStaleBatches(job.id, 60_000),
    tryFinalizeJob: () => store.tryFinalizeJob(job.id),
    saveJobState: () => store.saveJobState(job),
    deleteJob: () => store.deleteJob(job.id),
  };
}

async function checkCalls(store, job, what) {
  for (const [name, call] of Object.entries(calls(store, job))) {
    const error = await call().then(
      () => undefined,
      (reason) => reason,
    );
    if (error === undefined) continue;
    const said = `${name} where ${what}: ${error.code} ${error.message}`;
    expect(error, said).toBeInstanceOf(StateStoreError);
    expect(error.message, said).not.toContain('defect of this package');
    expect(error.code, said).not.toBe('INTERNAL');
  }
  expect({}.polluted).toBeUndefined();
}

onEveryDatabase((on) => {
  const onRows = on.needs('raw');

  describe('what another program wrote', () => {
    onRows('is taken or refused by every call', async () => {
      for (const [table, column, value] of cases) {
        const job = makeJob(2, { id: newId(), size: 2 });
        await prepare(on.store, job);
        const where =
          table === 'batchactions_jobs' ? `"id" = ?` : column.endsWith('Index') ? `"jobId" = ? and "${column}" = 0` : `"jobId" = ?`;
        await on.query(`update "${table}" set "${column}" = ? where ${where}`, [value, job.id]);
        await checkCalls(on.store, job, `${table}.${column} is ${value}`);
      }
      // The store is none the worse.
      const job = makeJob(3, { id: newId(), size: 2 });
      await prepare(on.store, job);
      expect(await on.store.claimBatch(job.id, 'worker')).toMatchObject({ claimed: true });
    });

    on.needs('raw', 'uncheckedJson')('is refused where it is not JSON', async () => {
      const job = makeLocalJob(1, { id: newId(), size: 2 });
      await prepare(on.store, job);
      await on.query(`update "batchactions_records" set "raw" = '{not json' where "jobId" = ?`, [job.id]);
      await rejection(on.store.getPendingRecords(job.id), 'TABLES_INCOMPATIBLE');
      await on.query(`update "batchactions_jobs" set "config" = '{not json' where "id" = ?`, [job.id]);
      await rejection(on.store.getJobState(job.id), 'TABLES_INCOMPATIBLE');
    });
  });
});
