// Does the same work many times, and says what the process holds more of in the end.

import { storeOn } from '../support/store.mjs';
import { collectGarbage, growth, resources, settle } from './resources.mjs';

const { url, work, count } = JSON.parse(process.argv[2]);
/** At a time. */
const STORES = 20;
const CALLERS = 16;

const record = (index) => ({ index, raw: { text: 'x'.repeat(100) }, parsed: {}, status: 'processed', errors: [] });
const batch = (id, index) => ({ id, index, status: 'PENDING', records: [], processedCount: 0, failedCount: 0 });
const all = (length, make) => Promise.all(Array.from({ length }, (_, n) => make(n)));

/** Each returns how much it did. */
const kinds = {
  /** Stores that are opened, used and closed. */
  async closed() {
    await all(STORES, async () => {
      const store = storeOn(url);
      await store.getJobState('missing');
      await store.close();
    });
    return STORES;
  },
  /** Stores that are neither closed nor kept. */
  async dropped() {
    await all(STORES, async () => {
      const store = storeOn(url, { durability: 'batch', leaseRenewal: { everyMs: 10, forMs: 60_000 } });
      await store.getJobState('missing');
      await store.saveProcessedRecord('dropped', 'b', record(0));
      await store.getJobState('dropped');
    });
    await collectGarbage();
    return STORES;
  },
  /** Stores that never connect. */
  async unused() {
    for (let n = 0; n < STORES; n++) await storeOn(url).close();
    return STORES;
  },
  /** One job from its beginning to its end, and then it is deleted. */
  async calls() {
    const id = `job-${job++}`;
    const batches = Array.from({ length: 4 }, (_, index) => batch(`${id}-${index}`, index));
    let calls = 0;
    const call = (promise) => {
      calls++;
      return promise;
    };
    for (const { id: batchId, index } of batches) {
      const records = Array.from({ length: 20 }, (_, n) => record(index * 20 + n));
      await call(store.saveBatchRecords(id, batchId, records));
    }
    await call(store.saveJobState({ id, config: { batchSize: 20 }, status: 'PROCESSING', distributed: true, batches, totalRecords: 80 }));
    for (;;) {
      const { reservation } = await call(store.claimBatch(id, 'w'));
      if (!reservation) break;
      const { batchId, batchIndex } = reservation;
      await call(store.getBatchRecords(id, batchId));
      await all(20, (n) => call(store.saveProcessedRecord(id, batchId, record(batchIndex * 20 + n))));
      await call(store.renewBatch(id, batchId, 'w'));
      await call(store.getProgress(id));
      await call(store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount: 20, failedCount: 0 }));
      await call(store.reclaimStaleBatches(id, 60_000));
      // What is wrong is part of every hour.
      await call(store.saveProcessedRecord(id, batchId, {})).catch(() => {});
      await call(
        store.updateBatchState(id, batchId, { batchId, status: 'FAILED', processedCount: 0, failedCount: 0 }, { token: 99 }),
      ).catch(() => {});
    }
    for await (const each of store.records(id)) if (each.index > 60) break;
    await call(store.getFailedRecords(id));
    await call(store.getDistributedStatus(id));
    await call(store.tryFinalizeJob(id));
    await call(store.getJobState(id));
    await call(store.listJobs({ limit: 5 }));
    await call(store.deleteJob(id));
    await call(store.deleteJob(id));
    return calls + 1;
  },
};

let job = 0;
const stores =
  work === 'calls'
    ? ['record', 'batch'].map((durability) => storeOn(url, { durability, leaseRenewal: { everyMs: 50, forMs: 60_000 } }))
    : [undefined];
/** One at a time: two that write to one SQLite file mostly wait for each other. */
let [store] = stores;

let done = 0;
const until = async (most) => {
  const began = done;
  for (const [n, each] of stores.entries()) {
    store = each;
    const enough = began + ((most - began) * (n + 1)) / stores.length;
    await all(work === 'calls' ? CALLERS : 1, async () => {
      while (done < enough) {
        const more = await kinds[work]();
        done += more;
      }
    });
  }
  await collectGarbage();
};

// The first quarter warms up: threads start, caches fill, the allocators find their size.
await until(count / 4);
const first = resources();
const samples = [[done, first.memory]];
for (let part = 1; part <= 9; part++) {
  await until(((3 + part) * count) / 12);
  samples.push([done, resources().memory]);
}
const tooMuch = await settle(first);
await Promise.all(stores.map((each) => each?.close()));
const grown = Math.round(growth(samples));
console.log(JSON.stringify({ done, grown, perUnit: grown / (done - samples[0][0]), memory: samples.map(([, memory]) => memory), tooMuch }));
