// A claim that is kept: renewBatch, and leaseRenewal, by which a store renews its claims itself.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { makeJob, makeState } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const saved = async (batches, store = on.store) => {
    const job = makeJob(batches);
    await store.saveJobState(job);
    return job;
  };
  const batchOfJob = async (store, job, index = 0) => (await store.getJobState(job.id)).batches[index];

  describe('renewBatch', () => {
    on.needs('raw')('moves claimedAt to now while the worker holds the batch, so that it is not stale', async () => {
      const job = await saved(1);
      const { batchId, claimedAt, token } = await claim(on.store, job.id, 'w');
      await on.backdate(job.id);
      expect(await on.store.renewBatch(job.id, batchId, 'w')).toBe(true);
      const row = await on.row(batchId);
      expect(row.claimedAt).toBeGreaterThanOrEqual(claimedAt);
      expect(row).toMatchObject({ status: 'PROCESSING', workerId: 'w', version: token });
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
    });

    test('is true, and moves claimedAt on', async () => {
      const job = await saved(1);
      const { batchId, claimedAt } = await claim(on.store, job.id, 'w');
      await sleep(30);
      expect(await on.store.renewBatch(job.id, batchId, 'w')).toBe(true);
      expect((await batchOfJob(on.store, job)).claimedAt).toBeGreaterThan(claimedAt);
    });

    test('is false where the worker does not hold the batch, and changes nothing: worker ids are compared exactly', async () => {
      const job = await saved(2);
      const { batchId } = await claim(on.store, job.id, 'w');
      const expected = await on.store.getJobState(job.id);
      await sleep(10);
      for (const other of ['W', 'w ', ' w', 'ẃ', 'other']) expect(await on.store.renewBatch(job.id, batchId, other)).toBe(false);
      expect(await on.store.renewBatch(job.id, job.batches[1].id, 'w')).toBe(false);
      expect(await on.store.renewBatch(job.id, `${batchId}?`, 'w')).toBe(false);
      expect(await on.store.renewBatch(`${job.id}?`, batchId, 'w')).toBe(false);
      expect(await on.store.getJobState(job.id)).toStrictEqual(expected);
    });

    test.each(['COMPLETED', 'FAILED', 'PAUSED'])('is false where the batch is %s', async (status) => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'w');
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, status, 1, 0));
      expect(await on.store.renewBatch(job.id, batchId, 'w')).toBe(false);
    });
  });

  describe('leaseRenewal', () => {
    on.needs('raw')('renews every batch that the store holds', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 50, forMs: 60_000 } });
      const job = await saved(3, store);
      const claims = [await claim(store, job.id, 'w1'), await claim(store, job.id, 'w2')];
      await on.backdate(job.id);
      await expect
        .poll(async () => (await on.rows(job.id)).slice(0, 2).every((row, n) => row.claimedAt >= claims[n].claimedAt), { timeout: 10_000 })
        .toBe(true);
      expect(await on.rows(job.id)).toMatchObject([
        { status: 'PROCESSING', workerId: 'w1', version: 1 },
        { status: 'PROCESSING', workerId: 'w2', version: 1 },
        { status: 'PENDING', claimedAt: null },
      ]);
    });

    on.needs('shared')('does so while the event loop is blocked', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 100, forMs: 60_000 } });
      const job = await saved(1, store);
      await claim(store, job.id, 'w');
      // Another process looks on. This one waits for it, and runs nothing.
      const script = fileURLToPath(new URL('../support/renewal-watcher.mjs', import.meta.url));
      const watcher = spawnSync(process.execPath, [script, on.url, job.id], { encoding: 'utf8' });
      expect(watcher.stderr).toBe('');
      expect(JSON.parse(watcher.stdout)).toEqual({ renewals: 5 });
      await complete(store, job.id, job.batches[0].id);
    });

    on.needs('shared')('ends forMs after the claim, so that a hung worker loses its batch', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 50, forMs: 400 } });
      const job = await saved(1, store);
      const { batchId } = await claim(store, job.id, 'hung');
      await expect.poll(() => on.store.reclaimStaleBatches(job.id, 1_000), { timeout: 20_000 }).toBe(1);
      await rejection(store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
    });

    on.needs('raw')('leaves a batch alone that was finished, given back or lost', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 50, forMs: 60_000 } });
      const job = await saved(3, store);
      for (let n = 0; n < 3; n++) await claim(store, job.id, 'w');
      await complete(store, job.id, job.batches[0].id);
      await store.releaseBatch(job.id, job.batches[1].id, 'w');
      await on.query(
        `update "batchactions_batches" set "version" = "version" + 2, "workerId" = 'other', "claimedAt" = 1000 where "id" = ?`,
        [job.batches[2].id],
      );
      await on.query('update "batchactions_batches" set "claimedAt" = 1000 where "id" = ?', [job.batches[0].id]);
      const before = await on.rows(job.id);
      await sleep(400);
      expect(await on.rows(job.id)).toEqual(before);
    });

    on.needs('raw')('goes on while the batch is PAUSED, so that it is not stale once it goes on', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 50, forMs: 60_000 } });
      const job = await saved(1, store);
      const { batchId, claimedAt } = await claim(store, job.id, 'w');
      for (const status of ['PAUSED', 'PROCESSING']) {
        // As another process does it.
        await on.store.updateBatchState(job.id, batchId, makeState(batchId, status));
        await on.backdate(job.id);
        await expect.poll(async () => (await on.row(batchId)).claimedAt >= claimedAt, { timeout: 20_000 }).toBe(true);
        expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      }
      await complete(store, job.id, batchId);
    });

    on.needs('raw')('ends with the store', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 50, forMs: 60_000 } });
      const job = await saved(1, store);
      await claim(store, job.id, 'w');
      await store.close();
      await on.backdate(job.id);
      const before = await on.rows(job.id);
      await sleep(300);
      expect(await on.rows(job.id)).toEqual(before);
    });
  });
});
