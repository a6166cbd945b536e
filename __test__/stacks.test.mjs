/** The stack of a rejection leads to the caller of the method, and not into the package. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { makeJob, makeRecord, makeState } from './support/fixtures.mjs';
import { collect, SqlxStateStore } from './support/suite.mjs';

const PASSWORD = 'hunter2-and-the-rest';

/** Each method, with arguments that are right where `id` is. */
const CALLS = {
  initialize: (store) => store.initialize(),
  saveJobState: (store, id) => store.saveJobState(makeJob(0, { id })),
  getJobState: (store, id) => store.getJobState(id),
  updateBatchState: (store, id) => store.updateBatchState(id, 'b', makeState('b', 'FAILED')),
  saveProcessedRecord: (store, id) => store.saveProcessedRecord(id, 'b', makeRecord(0)),
  saveBatchRecords: (store, id) => store.saveBatchRecords(id, 'b', [makeRecord(0)]),
  getFailedRecords: (store, id) => store.getFailedRecords(id),
  getPendingRecords: (store, id) => store.getPendingRecords(id),
  getProcessedRecords: (store, id) => store.getProcessedRecords(id),
  getBatchRecords: (store, id) => store.getBatchRecords(id, 'b'),
  getProgress: (store, id) => store.getProgress(id),
  claimBatch: (store, id) => store.claimBatch(id, 'w'),
  releaseBatch: (store, id) => store.releaseBatch(id, 'b', 'w'),
  renewBatch: (store, id) => store.renewBatch(id, 'b', 'w'),
  reclaimStaleBatches: (store, id) => store.reclaimStaleBatches(id, 1_000),
  getDistributedStatus: (store, id) => store.getDistributedStatus(id),
  tryFinalizeJob: (store, id) => store.tryFinalizeJob(id),
  listJobs: (store, id) => store.listJobs(typeof id === 'string' ? {} : { limit: id }),
  deleteJob: (store, id) => store.deleteJob(id),
  getJob: (store, id) => store.getJob(id),
  batches: (store, id) => store.batches(id),
  pauseJob: (store, id) => store.pauseJob(id),
  resumeJob: (store, id) => store.resumeJob(id),
  abortJob: (store, id) => store.abortJob(id),
  retryFailed: (store, id) => store.retryFailed(id),
  purge: (store, id) => store.purge({ olderThanMs: typeof id === 'string' ? 0 : id }),
  stats: (store) => store.stats(),
  ping: (store) => store.ping(),
};
const STREAM = { records: (store, id) => collect(store.records(id)) };
const WITHOUT_ARGUMENTS = ['initialize', 'stats', 'ping'];
const withId = (calls) => Object.fromEntries(Object.entries(calls).filter(([name]) => !WITHOUT_ARGUMENTS.includes(name)));

test('each method that gives a promise or a stream is called here', () => {
  const methods = Object.getOwnPropertyNames(SqlxStateStore.prototype);
  expect([...Object.keys({ ...CALLS, ...STREAM }), 'constructor', 'poolStats', 'close'].sort()).toEqual(methods.sort());
});

/** What each method is called by. */
async function importOrders(call) {
  return await call();
}
function importOrdersWithoutAwait(call) {
  return call();
}

/** The error, and what stands in its stack between the message and the frames. */
async function errorOf(promise) {
  const error = await promise.then(
    () => expect.unreachable('it resolved'),
    (reason) => reason,
  );
  expect(error.name).toBe('StateStoreError');
  expect(error.stack.startsWith(`StateStoreError: ${error.message}\n    at `)).toBe(true);
  expect(error.stack).not.toContain(PASSWORD);
  // Of the package there is the method at most.
  const inside = error.stack.split('\n    at ').filter((frame) => frame.includes('/index.js:'));
  expect(inside.filter((frame) => !/^(async )?(SqlxStateStore\.|recordPage )/.test(frame))).toEqual([]);
  return error;
}

describe('of what a server refuses', () => {
  let store;
  beforeAll(() => {
    store = new SqlxStateStore(`postgres://u:${PASSWORD}@127.0.0.1:1/d`);
  });
  afterAll(() => store.close());

  test.each(Object.entries({ ...CALLS, ...STREAM }))('%s, awaited', async (_, call) => {
    const error = await errorOf(importOrders(() => call(store, 'j')));
    expect(error.code).toBe('CONNECTION_FAILED');
    expect(error.stack).toContain('importOrders');
  });

  // The calls that are made for each record and each batch have no stack of their own.
  const { saveProcessedRecord: _, claimBatch: __, ...others } = CALLS;
  test.each(Object.entries(others))('%s, not awaited by its caller', async (name, call) => {
    const promise = importOrdersWithoutAwait(() => call(store, 'j'));
    const handled = promise.catch((reason) => reason);
    await new Promise((resolve) => setTimeout(resolve, 1));
    expect(await handled).toMatchObject({ code: 'CONNECTION_FAILED', stack: expect.stringContaining('importOrdersWithoutAwait') });
    expect((await errorOf(promise)).stack).toMatch(new RegExp(`^StateStoreError: .*\\n    at SqlxStateStore\\.${name} `));
  });

  test.each(Object.entries(CALLS))('%s, one of several at a time', async (_, call) => {
    const several = async () => {
      await Promise.all([call(store, 'j'), call(store, 'k')]);
    };
    expect((await errorOf(several())).stack).toContain('several');
  });

  test('close()', async () => {
    const own = new SqlxStateStore('sqlite:///no/such/folder/at/all.db', { durability: 'batch' });
    await own.saveProcessedRecord('j', 'b', makeRecord(0));
    expect((await errorOf(importOrdersWithoutAwait(() => own.close()))).stack).toContain('importOrdersWithoutAwait');
  });
});

describe('of what is refused at once', () => {
  test.each(Object.entries({ ...withId(CALLS), ...STREAM }))('%s', async (_, call) => {
    const store = new SqlxStateStore('sqlite::memory:');
    onTestFinished(() => store.close());
    const error = await errorOf(importOrdersWithoutAwait(() => call(store, 7.5)));
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect(error.stack).toContain('importOrdersWithoutAwait');
  });

  test.each(Object.entries(CALLS))('%s of a closed store', async (_, call) => {
    const store = new SqlxStateStore('sqlite::memory:');
    await store.close();
    const error = await errorOf(importOrdersWithoutAwait(() => call(store, 'j')));
    expect(error.code).toBe('CLOSED');
    expect(error.stack).toContain('importOrdersWithoutAwait');
  });

  test('the constructor', () => {
    const makesStore = () => new SqlxStateStore(`postgres://u:${PASSWORD}@h/d`, { unknown: 1 });
    expect(makesStore).toThrow(expect.objectContaining({ stack: expect.stringMatching(/^StateStoreError: .*\n    at makesStore /) }));
  });
});

test('where the user’s program has a say about stacks, it has it here', async () => {
  const { prepareStackTrace, stackTraceLimit } = Error;
  onTestFinished(() => Object.assign(Error, { prepareStackTrace, stackTraceLimit }));
  const store = new SqlxStateStore('postgres://u@127.0.0.1:1/d');
  onTestFinished(() => store.close());
  for (const settings of [
    { stackTraceLimit: 0 },
    { stackTraceLimit: undefined },
    { prepareStackTrace: () => 5 },
    { prepareStackTrace: (_, sites) => sites },
  ]) {
    Object.assign(Error, { prepareStackTrace, stackTraceLimit }, settings);
    const error = await store.getProgress('j').catch((reason) => reason);
    Object.assign(Error, { prepareStackTrace, stackTraceLimit });
    expect(error).toMatchObject({ name: 'StateStoreError', code: 'CONNECTION_FAILED', message: expect.any(String) });
  }
});
