// Every argument that is not what it must be: the call rejects with INVALID_ARGUMENT, names what was wrong, and changes nothing. It never
// throws where it is called.

import { describe, expect, test } from 'vitest';
import { collect, jobOf, newId, onEveryDatabase, recordOf, rejection, stateOf } from '../support/suite.mjs';

/** What a value looks like in a test's name. */
const show = (value) => {
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'symbol' || typeof value === 'function' || Number.isNaN(value)) return String(value);
  return JSON.stringify(value) ?? 'undefined';
};

const notText = [undefined, null, 42, true, {}, ['x'], 1n, Symbol('s')];
const notObject = [undefined, null, 42, 'x', true, 1n];
const notInt32 = [undefined, null, '1', 1.5, NaN, Infinity, 2 ** 31, -(2 ** 31) - 1, 1n, {}];
const notStatus = [undefined, null, 'DONE', '', 7, {}, 'completed'];
const notRecordStatus = [undefined, null, 'DONE', '', 7, {}, 'PROCESSED'];

/**
 * `[method, what the message names, wrong value, call(store, job, value)]`. The job is stored, with two batches, the first of which has
 * one record. What the value is in place of is right in every other respect.
 */
const cases = [];
const refuse = (method, name, values, call) => values.forEach((value) => cases.push([method, name, value, call]));

// Ids.
refuse('getJobState', 'jobId', notText, (store, job, value) => store.getJobState(value));
refuse('updateBatchState', 'jobId', notText, (store, job, value) => store.updateBatchState(value, 'b', stateOf('b', 'COMPLETED')));
refuse('updateBatchState', 'batchId', notText, (store, job, value) => store.updateBatchState(job.id, value, stateOf('b', 'COMPLETED')));
refuse('saveProcessedRecord', 'jobId', notText, (store, job, value) => store.saveProcessedRecord(value, 'b', recordOf(9)));
refuse('saveProcessedRecord', 'batchId', notText, (store, job, value) => store.saveProcessedRecord(job.id, value, recordOf(9)));
refuse('saveBatchRecords', 'jobId', notText, (store, job, value) => store.saveBatchRecords(value, 'b', [recordOf(9)]));
refuse('saveBatchRecords', 'batchId', notText, (store, job, value) => store.saveBatchRecords(job.id, value, [recordOf(9)]));
refuse('getFailedRecords', 'jobId', notText, (store, job, value) => store.getFailedRecords(value));
refuse('getPendingRecords', 'jobId', notText, (store, job, value) => store.getPendingRecords(value));
refuse('getProcessedRecords', 'jobId', notText, (store, job, value) => store.getProcessedRecords(value));
refuse('getBatchRecords', 'jobId', notText, (store, job, value) => store.getBatchRecords(value, 'b'));
refuse('getBatchRecords', 'batchId', notText, (store, job, value) => store.getBatchRecords(job.id, value));
refuse('records', 'jobId', notText, (store, job, value) => store.records(value).next());
refuse('getProgress', 'jobId', notText, (store, job, value) => store.getProgress(value));
refuse('claimBatch', 'jobId', notText, (store, job, value) => store.claimBatch(value, 'w'));
refuse('claimBatch', 'workerId', notText, (store, job, value) => store.claimBatch(job.id, value));
refuse('releaseBatch', 'jobId', notText, (store, job, value) => store.releaseBatch(value, job.batches[0].id, 'w'));
refuse('releaseBatch', 'batchId', notText, (store, job, value) => store.releaseBatch(job.id, value, 'w'));
refuse('releaseBatch', 'workerId', notText, (store, job, value) => store.releaseBatch(job.id, job.batches[0].id, value));
refuse('renewBatch', 'jobId', notText, (store, job, value) => store.renewBatch(value, job.batches[0].id, 'w'));
refuse('renewBatch', 'batchId', notText, (store, job, value) => store.renewBatch(job.id, value, 'w'));
refuse('renewBatch', 'workerId', notText, (store, job, value) => store.renewBatch(job.id, job.batches[0].id, value));
refuse('reclaimStaleBatches', 'jobId', notText, (store, job, value) => store.reclaimStaleBatches(value, 1_000));
refuse('getDistributedStatus', 'jobId', notText, (store, job, value) => store.getDistributedStatus(value));
refuse('tryFinalizeJob', 'jobId', notText, (store, job, value) => store.tryFinalizeJob(value));
refuse('deleteJob', 'jobId', notText, (store, job, value) => store.deleteJob(value));

// Jobs.
const withJob = (fields) => (store, job, value) => store.saveJobState({ ...job, status: 'PAUSED', ...fields(value, job) });
const withBatch = (fields) => withJob((value, job) => ({ batches: [job.batches[0], { ...job.batches[1], ...fields(value) }] }));
refuse('saveJobState', 'job', notObject, (store, job, value) => store.saveJobState(value));
refuse(
  'saveJobState',
  'id',
  notText,
  withJob((id) => ({ id })),
);
refuse(
  'saveJobState',
  'status',
  notStatus,
  withJob((status) => ({ status })),
);
refuse(
  'saveJobState',
  'config',
  notObject,
  withJob((config) => ({ config })),
);
refuse(
  'saveJobState',
  'batches',
  [undefined, null, {}, 'x', 3],
  withJob((batches) => ({ batches })),
);
refuse(
  'saveJobState',
  'batches',
  [null, 'x', 3],
  withJob((batch, job) => ({ batches: [job.batches[0], batch] })),
);
refuse(
  'saveJobState',
  'totalRecords',
  ['1', 1.5, NaN, 2 ** 31, 1n, {}],
  withJob((totalRecords) => ({ totalRecords })),
);
refuse(
  'saveJobState',
  'startedAt',
  ['1', NaN, Infinity, 1n, {}],
  withJob((startedAt) => ({ startedAt })),
);
refuse(
  'saveJobState',
  'completedAt',
  ['1', NaN, Infinity, 1n, {}],
  withJob((completedAt) => ({ completedAt })),
);
refuse(
  'saveJobState',
  'id',
  notText,
  withBatch((id) => ({ id })),
);
refuse(
  'saveJobState',
  'index',
  notInt32,
  withBatch((index) => ({ index })),
);
refuse(
  'saveJobState',
  'status',
  notStatus,
  withBatch((status) => ({ status })),
);
refuse(
  'saveJobState',
  'processedCount',
  ['1', 1.5, NaN, 2 ** 31, 1n],
  withBatch((processedCount) => ({ processedCount })),
);
refuse(
  'saveJobState',
  'failedCount',
  ['1', 1.5, NaN, 2 ** 31, 1n],
  withBatch((failedCount) => ({ failedCount })),
);
refuse(
  'saveJobState',
  'recordStartIndex',
  ['1', 1.5, NaN, 2 ** 31, 1n],
  withBatch((recordStartIndex) => ({ recordStartIndex })),
);
refuse(
  'saveJobState',
  'recordEndIndex',
  ['1', 1.5, NaN, 2 ** 31, 1n],
  withBatch((recordEndIndex) => ({ recordEndIndex })),
);

// The states of batches, and fences.
const update = (fields) => (store, job, value) =>
  store.updateBatchState(job.id, job.batches[0].id, { ...stateOf(job.batches[0].id, 'COMPLETED'), ...fields(value) });
refuse('updateBatchState', 'state', notObject, (store, job, value) => store.updateBatchState(job.id, job.batches[0].id, value));
refuse(
  'updateBatchState',
  'status',
  notStatus,
  update((status) => ({ status })),
);
refuse(
  'updateBatchState',
  'processedCount',
  notInt32,
  update((processedCount) => ({ processedCount })),
);
refuse(
  'updateBatchState',
  'failedCount',
  notInt32,
  update((failedCount) => ({ failedCount })),
);
const notToken = ['1', 1.5, NaN, Infinity, 1n, {}];
refuse('updateBatchState', 'token', notToken, (store, job, token) =>
  store.updateBatchState(job.id, job.batches[0].id, stateOf(job.batches[0].id, 'COMPLETED'), { token }),
);
refuse('saveProcessedRecord', 'token', notToken, (store, job, token) =>
  store.saveProcessedRecord(job.id, job.batches[0].id, recordOf(9), { token }),
);
refuse('renewBatch', 'token', notToken, (store, job, token) => store.renewBatch(job.id, job.batches[0].id, 'w', { token }));
refuse('saveProcessedRecord', 'fence', [42, 'x', true], (store, job, value) =>
  store.saveProcessedRecord(job.id, job.batches[0].id, recordOf(9), value),
);
refuse('updateBatchState', 'fence', [42, 'x', true], (store, job, value) =>
  store.updateBatchState(job.id, job.batches[0].id, stateOf(job.batches[0].id, 'COMPLETED'), value),
);
refuse('renewBatch', 'fence', [42, 'x', true], (store, job, value) => store.renewBatch(job.id, job.batches[0].id, 'w', value));

// Records.
const single = (fields) => (store, job, value) =>
  store.saveProcessedRecord(job.id, job.batches[0].id, { ...recordOf(0, { raw: 'new' }), ...fields(value) });
const bulk = (fields) => (store, job, value) =>
  store.saveBatchRecords(job.id, job.batches[0].id, [recordOf(0, { raw: 'new' }), { ...recordOf(1), ...fields(value) }]);
const nothing = [undefined, () => 1, Symbol('s')];
refuse('saveProcessedRecord', 'record', notObject, (store, job, value) => store.saveProcessedRecord(job.id, job.batches[0].id, value));
refuse('saveBatchRecords', 'records', [undefined, null, {}, 'x', 3], (store, job, value) =>
  store.saveBatchRecords(job.id, job.batches[0].id, value),
);
refuse('saveBatchRecords', 'records', [null, 'x', 3, undefined], (store, job, value) =>
  store.saveBatchRecords(job.id, job.batches[0].id, [recordOf(0, { raw: 'new' }), value]),
);
for (const [method, save] of [
  ['saveProcessedRecord', single],
  ['saveBatchRecords', bulk],
]) {
  refuse(
    method,
    'index',
    notInt32,
    save((index) => ({ index })),
  );
  refuse(
    method,
    'status',
    notRecordStatus,
    save((status) => ({ status })),
  );
  refuse(
    method,
    'raw',
    nothing,
    save((raw) => ({ raw })),
  );
  refuse(
    method,
    'parsed',
    nothing,
    save((parsed) => ({ parsed })),
  );
  refuse(
    method,
    'errors',
    ['x', 3, {}, true],
    save((errors) => ({ errors })),
  );
  refuse(
    method,
    'processingError',
    [42, {}, true],
    save((processingError) => ({ processingError })),
  );
}
refuse('records', 'options', [42, 'x', true], (store, job, value) => store.records(job.id, value).next());
refuse('records', 'status', ['DONE', 7, ['valid', 'DONE'], [7], {}], (store, job, status) => store.records(job.id, { status }).next());
refuse('records', 'batchId', [42, {}, ['b']], (store, job, batchId) => store.records(job.id, { batchId }).next());
refuse('records', 'from', ['1', 1.5, NaN, {}, 1n], (store, job, from) => store.records(job.id, { from }).next());

// Times and pages.
refuse('reclaimStaleBatches', 'timeoutMs', [undefined, null, '1', NaN, -1, {}, 1n], (store, job, value) =>
  store.reclaimStaleBatches(job.id, value),
);
refuse('listJobs', 'options', [42, 'x', true], (store, job, value) => store.listJobs(value));
refuse('listJobs', 'status', ['DONE', 7, {}], (store, job, status) => store.listJobs({ status }));
refuse('listJobs', 'limit', [0, -1, 1_001, 1.5, NaN, '10', {}, 1n], (store, job, limit) => store.listJobs({ limit }));
refuse('listJobs', 'after', [42, 'x', true, {}, { id: 7 }, { startedAt: 1 }], (store, job, after) => store.listJobs({ after }));
refuse('listJobs', 'startedAt', ['x', NaN, {}], (store, job, startedAt) => store.listJobs({ after: { id: 'j', startedAt } }));

onEveryDatabase((on) => {
  describe('a wrong argument', () => {
    test.each(cases.map(([method, name, value, call]) => [method, name, show(value), value, call]))(
      'of %s is refused, named and without effect (%s: %s)',
      async (method, name, _, value, call) => {
        const job = jobOf(2, { id: newId() });
        await on.store.saveJobState(job);
        await on.store.saveProcessedRecord(job.id, job.batches[0].id, recordOf(0, { raw: 'old' }));
        const state = async () => [
          await on.store.getJobState(job.id),
          await collect(on.store.records(job.id)),
          await on.store.getDistributedStatus(job.id),
        ];
        const before = await state();

        // It does not throw here: `rejection` is given a promise.
        const error = await rejection(call(on.store, job, value), 'INVALID_ARGUMENT');
        expect(error.message).toContain(name);
        expect(error.retryable).toBe(false);
        expect(await state()).toStrictEqual(before);
      },
    );

    test('is refused where all are missing', async () => {
      const methods = [
        'saveJobState',
        'getJobState',
        'updateBatchState',
        'saveProcessedRecord',
        'saveBatchRecords',
        'getFailedRecords',
        'getPendingRecords',
        'getProcessedRecords',
        'getBatchRecords',
        'getProgress',
        'claimBatch',
        'releaseBatch',
        'renewBatch',
        'reclaimStaleBatches',
        'getDistributedStatus',
        'tryFinalizeJob',
        'deleteJob',
      ];
      for (const method of methods) await rejection(on.store[method](), 'INVALID_ARGUMENT');
      await rejection(on.store.records().next(), 'INVALID_ARGUMENT');
    });

    test('with a getter or a toJSON that throws is refused with what it threw as cause, and the store goes on', async () => {
      const thrown = new Error('not today');
      const trap = {
        get raw() {
          throw thrown;
        },
      };
      const error = await rejection(
        on.store.saveProcessedRecord(newId(), 'b', Object.defineProperties(recordOf(0), Object.getOwnPropertyDescriptors(trap))),
        'INVALID_ARGUMENT',
      );
      expect(error.cause).toBe(thrown);
      const viaToJson = { toJSON: () => trap.raw };
      expect((await rejection(on.store.saveProcessedRecord(newId(), 'b', recordOf(0, { raw: viaToJson })), 'INVALID_ARGUMENT')).cause).toBe(
        thrown,
      );
      expect(await on.store.getJobState(newId())).toBeNull();
    });
  });
});
