// What Jest runs in each of two test files of one process: see `jest.test.mjs`.

/* global jest, test, expect, afterEach */
const { SqlxStateStore, StateStoreError } = require('../../index.js');

const record = (index) => ({ index, raw: { text: 'x'.repeat(500_000) }, parsed: {}, status: 'valid', errors: [] });

const batch = (id) => ({ id, index: 0, status: 'PENDING', records: [], processedCount: 0, failedCount: 0 });

async function use(Store) {
  const store = new Store('sqlite::memory:');
  await store.initialize();
  await store.saveBatchRecords(
    'j',
    'b',
    Array.from({ length: 8 }, (_, index) => record(index)),
  );
  const records = await store.getBatchRecords('j', 'b');
  expect(records).toHaveLength(8);
  expect(records).toBeInstanceOf(Array);
  expect(records[0]).toEqual(record(0));
  const job = { id: 'k', config: {}, status: 'CREATED', batches: [batch('a'), batch('b')], totalRecords: 0 };
  await store.saveJobState(job);
  expect(await store.getJobState('k')).toEqual(job);
  expect(await store.getJobState('k')).toStrictEqual(job);
  expect(await store.getJobState('k')).not.toEqual({ ...job, batches: [] });
  expect((await store.getJobState('k')).batches).toBeInstanceOf(Array);
  const error = await store.getProgress(5).catch((reason) => reason);
  expect(error).toBeInstanceOf(Error);
  expect(error.code).toBe('INVALID_ARGUMENT');
  await expect(store.claimBatch('j')).rejects.toThrow('workerId');
  await store.close();
  await expect(store.getProgress('j')).rejects.toThrow(Error);
  return error;
}

afterEach(() => jest.useRealTimers());

test('errors are errors, and lists are lists', async () => {
  expect(await use(SqlxStateStore)).toBeInstanceOf(StateStoreError);
});

test('with fake timers, as Jest makes them: nextTick and queueMicrotask too', async () => {
  jest.useFakeTimers();
  await use(SqlxStateStore);
  expect(jest.getTimerCount()).toBe(0);
});

test('loaded again, after the fake timers', async () => {
  jest.useFakeTimers();
  jest.resetModules();
  const again = require('../../index.js');
  expect(await use(again.SqlxStateStore)).toBeInstanceOf(StateStoreError);
});
