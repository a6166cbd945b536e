/** No call hangs under fake timers, whether the store was loaded before or after they were installed. (Jest fakes `nextTick` too: see `jest.test.mjs`.) */
import { createRequire } from 'node:module';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { makeRecord } from './support/fixtures.mjs';
import { SqlxStateStore } from './support/suite.mjs';

const FAKED = [
  'setTimeout',
  'clearTimeout',
  'setInterval',
  'clearInterval',
  'setImmediate',
  'clearImmediate',
  'queueMicrotask',
  'Date',
  'performance',
];
const require = createRequire(import.meta.url);

afterEach(() => {
  vi.useRealTimers();
});

async function useEverything(Store) {
  const store = new Store('sqlite::memory:', { durability: 'batch', leaseRenewal: { everyMs: 1_000, forMs: 60_000 } });
  onTestFinished(() => store.close());
  await store.initialize();
  const large = Array.from({ length: 8 }, (_, index) => makeRecord(index, { raw: { text: 'x'.repeat(500_000) } }));
  await store.saveBatchRecords('j', 'b', large);
  for (let index = 0; index < 500; index++) await store.saveProcessedRecord('j', 'c', makeRecord(100 + index));
  expect(await store.getBatchRecords('j', 'b')).toHaveLength(8);
  expect(await store.getProcessedRecords('j')).toHaveLength(508);
  let streamed = 0;
  for await (const record of store.records('j')) streamed += record.index >= 0;
  expect(streamed).toBe(508);
  await store.close();
}

test('loaded before', async () => {
  vi.useFakeTimers({ toFake: FAKED });
  const { setImmediate } = globalThis;
  await useEverything(SqlxStateStore);
  expect(globalThis.setImmediate).toBe(setImmediate);
  expect(vi.getTimerCount()).toBe(0);
});

test('loaded after', async () => {
  vi.useFakeTimers({ toFake: FAKED });
  delete require.cache[require.resolve('../index.js')];
  await useEverything(require('../index.js').SqlxStateStore);
  expect(vi.getTimerCount()).toBe(0);
});

test('the event loop gets a turn between the slices of a large result', async () => {
  const store = new SqlxStateStore('sqlite::memory:');
  onTestFinished(() => store.close());
  await store.initialize();
  const large = Array.from({ length: 12 }, (_, index) => makeRecord(index, { raw: { text: 'x'.repeat(500_000) } }));
  await store.saveBatchRecords('j', 'b', large);
  let turns = 0;
  let reading = true;
  const count = () => {
    turns += 1;
    if (reading) setImmediate(count);
  };
  const read = store.getBatchRecords('j', 'b');
  setImmediate(count);
  expect(await read).toHaveLength(12);
  reading = false;
  expect(turns).toBeGreaterThan(2);
});
