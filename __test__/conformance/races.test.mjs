// Races between a worker that was taken for dead and the one that replaced it. Each test makes the order happen: another transaction holds a row until
// the call under test waits for it.

import { describe, expect, test } from 'vitest';
import { makeJob, makeRecord, makeState } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const claimed = async (store, workerId = 'old') => {
    const job = makeJob(1);
    await store.saveJobState(job);
    return { job, held: await claim(store, job.id, workerId) };
  };

  describe('a fenced save', () => {
    on.needs('rowLocks')('that waits for a record keeps its batch from being claimed again until it is done', async () => {
      // With its limit for statements the time grows that it waits for a lock before it tries again.
      const [old, young] = [await on.open({ statementTimeoutMs: 600_000 }), await on.open()];
      const { job, held } = await claimed(old);
      await old.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await on.backdate(job.id);
      const other = await on.lockRows('records', '"jobId" = ?', [job.id]);

      const late = old.saveProcessedRecord(job.id, held.batchId, makeRecord(0, { status: 'failed', processingError: 'late' }));
      await on.untilOneWaits();
      expect(await young.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      await other.query('rollback');
      // It came before the new claim, and so it counts.
      await late;
      expect(await on.store.getFailedRecords(job.id)).toMatchObject([{ processingError: 'late' }]);

      expect(await young.reclaimStaleBatches(job.id, 60_000)).toBe(1);
      await claim(young, job.id, 'young');
      await young.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await rejection(old.saveProcessedRecord(job.id, held.batchId, makeRecord(0, { status: 'failed' })), 'LEASE_LOST');
      expect(await on.store.getFailedRecords(job.id)).toEqual([]);
    });

    on.needs('shared')('that waits while its batch is claimed again is refused, and writes nothing', async () => {
      const old = await on.open();
      const { job, held } = await claimed(old);
      const other = await on.begin();
      // What a reclaim and a claim do.
      await other.query('update "batchactions_batches" set "version" = "version" + 2, "workerId" = ? where "id" = ?', [
        'young',
        held.batchId,
      ]);

      const saves = [
        old.saveProcessedRecord(job.id, held.batchId, makeRecord(0)),
        old.saveProcessedRecord(job.id, held.batchId, makeRecord(1), { token: held.token }),
      ].map((save) => rejection(save, 'LEASE_LOST'));
      const done = rejection(old.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
      if (on.has('rowLocks')) await on.untilOneWaits();
      await other.query('commit');
      await Promise.all([...saves, done]);
      expect(await on.store.getBatchRecords(job.id, held.batchId)).toEqual([]);
      expect(await on.row(held.batchId)).toMatchObject({ status: 'PROCESSING', workerId: 'young', processedCount: 0 });
    });
  });

  describe('two workers on one store', () => {
    test('are told apart by the tokens that they pass', async () => {
      const { job, held } = await claimed(on.store);
      const timeout = await on.expire(job.id);
      expect(await on.store.reclaimStaleBatches(job.id, timeout)).toBe(1);
      const young = await claim(on.store, job.id, 'young');
      expect(young.batchId).toBe(held.batchId);
      const late = { token: held.token };
      await rejection(on.store.saveProcessedRecord(job.id, held.batchId, makeRecord(0), late), 'LEASE_LOST');
      await rejection(on.store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'FAILED'), late), 'LEASE_LOST');
      await rejection(on.store.renewBatch(job.id, held.batchId, 'old', late), 'LEASE_LOST');
      await on.store.saveProcessedRecord(job.id, held.batchId, makeRecord(0), { token: young.token });
      await on.store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 10, 0), { token: young.token });
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1, failedBatches: 0 });
    });

    test('without tokens share the last claim of their store', async () => {
      const { job, held } = await claimed(on.store);
      await on.store.releaseBatch(job.id, held.batchId, 'old');
      await claim(on.store, job.id, 'young');
      // Nothing tells it from a call of the other one: one store per worker does.
      await on.store.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await complete(on.store, job.id, held.batchId);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
    });
  });

  describe('a worker that is restarted under its old id', () => {
    on.needs('shared')('can give back what it held before, and its first life is fenced off', async () => {
      const [first, second] = [await on.open(), await on.open()];
      const { job, held } = await claimed(first, 'worker');
      await second.releaseBatch(job.id, held.batchId, 'worker');
      const again = await claim(second, job.id, 'worker');
      expect(again.token).toBeGreaterThan(held.token);
      await rejection(first.saveProcessedRecord(job.id, held.batchId, makeRecord(0)), 'LEASE_LOST');
      await rejection(first.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'FAILED')), 'LEASE_LOST');
      await rejection(first.releaseBatch(job.id, held.batchId, 'worker'), 'LEASE_LOST');
      await rejection(first.renewBatch(job.id, held.batchId, 'worker'), 'LEASE_LOST');
      await second.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await complete(second, job.id, held.batchId);
      expect(await second.tryFinalizeJob(job.id)).toBe(true);
    });

    on.needs('shared')('does not take its old claim for its own: the batch waits until it is stale', async () => {
      const [first, second] = [await on.open(), await on.open()];
      const { job, held } = await claimed(first, 'worker');
      expect(await second.claimBatch(job.id, 'worker')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
      expect(await second.reclaimStaleBatches(job.id, await on.expire(job.id))).toBe(1);
      const again = await claim(second, job.id, 'worker');
      expect(again).toMatchObject({ batchId: held.batchId, token: held.token + 2 });
      await rejection(first.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
    });
  });

  describe('two stores that save the same new records at once', () => {
    on.needs('shared')('both succeed, and each record is there once', async () => {
      const stores = [await on.open(), await on.open()];
      const { id, batches } = makeJob(1, { size: 500 });
      const records = Array.from({ length: 500 }, (_, index) => makeRecord(index));
      // In opposite orders, so that each comes upon what the other has inserted, and singly and in bulk.
      const single = (store, all) => Promise.all(all.map((record) => store.saveProcessedRecord(id, batches[0].id, record)));
      const bulk = async (store, all) => {
        for (let at = 0; at < all.length; at += 50) await store.saveBatchRecords(id, batches[0].id, all.slice(at, at + 50));
      };
      for (const [first, second] of [
        [single, single],
        [single, bulk],
        [bulk, bulk],
      ]) {
        await on.store.deleteJob(id);
        await Promise.all([first(stores[0], records), second(stores[1], records.toReversed())]);
        const found = await on.store.getBatchRecords(id, batches[0].id);
        expect(found.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(records.map(({ index }) => index));
      }
    });
  });
});
