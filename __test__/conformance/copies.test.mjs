// Guarantees about the second copy of a batch's state, in the job's JSON: how far it may be behind the rows, and after which calls it may not.

import { describe, expect, test } from 'vitest';
import { makeJob, makeState } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const copied = on.needs('raw');
  const saved = async (batches) => {
    const job = makeJob(batches);
    await on.store.saveJobState(job);
    return job;
  };

  describe('the JSON of a job of up to 100 batches', () => {
    for (const size of [1, 7, 100]) {
      copied(`agrees with the rows after every claim, update and release (${size} batches)`, async () => {
        const job = await saved(size);
        expect(await on.behind(job.id)).toEqual([]);
        for (const { id, index } of job.batches) {
          await claim(on.store, job.id, 'w');
          expect(await on.behind(job.id)).toEqual([]);
          if (index % 10 === 3) {
            await on.store.releaseBatch(job.id, id, 'w');
            expect(await on.behind(job.id)).toEqual([]);
            expect(await claim(on.store, job.id, 'w')).toMatchObject({ batchId: id });
          }
          await on.store.updateBatchState(job.id, id, makeState(id, index % 7 === 2 ? 'FAILED' : 'COMPLETED', 9, 1));
          expect(await on.behind(job.id)).toEqual([]);
        }
        expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
        expect(await on.behind(job.id)).toEqual([]);
      });
    }

    copied('agrees with the rows after a reclaim', async () => {
      const job = await saved(100);
      for (let n = 0; n < 50; n++) await claim(on.store, job.id, 'w');
      await on.backdate(job.id);
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(50);
      expect(await on.behind(job.id)).toEqual([]);
    });

    copied('agrees with the rows after calls that were made at once', async () => {
      const job = await saved(100);
      await Promise.all(job.batches.map((_, n) => claim(on.store, job.id, `w${n % 16}`)));
      expect(await on.behind(job.id)).toEqual([]);
      await Promise.all(job.batches.map(({ id }) => complete(on.store, job.id, id)));
      expect(await on.behind(job.id)).toEqual([]);
    });

    copied('agrees with the rows after calls that several stores made at once', async () => {
      const stores = await Promise.all(Array.from({ length: 6 }, () => on.open({ pool: { max: 2 } })));
      const job = await saved(96);
      await Promise.all(
        stores.map(async (store, n) => {
          for (let round = 0; round < 16; round++) {
            const { batchId } = await claim(store, job.id, `w${n}`);
            if (round % 4 === 1) await store.releaseBatch(job.id, batchId, `w${n}`);
            else await complete(store, job.id, batchId, round % 4 ? 'COMPLETED' : 'FAILED');
          }
        }),
      );
      expect(await on.behind(job.id)).toEqual([]);
    });

    copied('agrees with the rows after an update of any batch, alone', async () => {
      const job = await saved(100);
      for (const index of [99, 1, 50, 0]) {
        await complete(on.store, job.id, job.batches[index].id);
        expect(await on.behind(job.id)).toEqual([]);
      }
    });
  });

  describe('the JSON of a job of more than 100 batches', () => {
    copied(
      'is at most about 1% behind, is brought up to date with every third batch of 250, and is exact once the job is finalized',
      async () => {
        const job = await saved(250);
        let exact = 0;
        for (const { id, index } of job.batches) {
          await claim(on.store, job.id, 'w');
          const afterClaim = await on.behind(job.id);
          await complete(on.store, job.id, id);
          const afterUpdate = await on.behind(job.id);
          for (const behind of [afterClaim, afterUpdate]) {
            expect(behind.length).toBeLessThanOrEqual(3);
            if (behind.length === 0) exact++;
            // ⌈250 ÷ 100⌉ = 3
            if (index % 3 === 0) expect(behind).toEqual([]);
          }
        }
        expect(exact).toBeGreaterThanOrEqual(2 * 84);
        expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
        expect(await on.behind(job.id)).toEqual([]);
      },
    );

    copied('is exact after saveJobState, releaseBatch and a reclaim that changed something', async () => {
      const job = await saved(250);
      const claims = [];
      for (let n = 0; n < 9; n++) claims.push(await claim(on.store, job.id, 'w'));
      expect(await on.behind(job.id)).not.toEqual([]);
      await on.store.saveJobState(job);
      expect(await on.behind(job.id)).toEqual([]);

      await complete(on.store, job.id, claims[1].batchId);
      expect(await on.behind(job.id)).toEqual([1]);
      await on.store.releaseBatch(job.id, claims[2].batchId, 'w');
      expect(await on.behind(job.id)).toEqual([]);

      await complete(on.store, job.id, claims[4].batchId);
      expect(await on.behind(job.id)).toEqual([4]);
      await on.backdate(job.id);
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(6);
      expect(await on.behind(job.id)).toEqual([]);
    });

    copied('follows the number of batches of now, after another process made the job again with fewer', async () => {
      const other = await on.open();
      const job = await saved(1_000);
      await claim(on.store, job.id, 'w');
      await other.deleteJob(job.id);
      await other.saveJobState({ ...job, batches: job.batches.slice(0, 50) });
      for (let n = 0; n < 50; n++) {
        const { batchId } = await claim(on.store, job.id, 'w');
        expect(await on.behind(job.id)).toEqual([]);
        await complete(on.store, job.id, batchId);
        expect(await on.behind(job.id)).toEqual([]);
      }
    });

    copied('follows the number of batches of now where this store updates batches that it did not claim', async () => {
      const other = await on.open();
      const job = await saved(1_000);
      await claim(on.store, job.id, 'w');
      await other.deleteJob(job.id);
      await other.saveJobState({ ...job, batches: job.batches.slice(0, 50) });
      for (const { id } of job.batches.slice(1, 50)) {
        await complete(on.store, job.id, id);
        expect(await on.behind(job.id)).toEqual([]);
      }
    });

    copied('does not show in getJobState, which takes the state from the rows', async () => {
      const job = await saved(250);
      for (let n = 0; n < 3; n++) await claim(on.store, job.id, 'w');
      expect(await on.behind(job.id)).toEqual([1, 2]);
      const { batches } = await on.store.getJobState(job.id);
      expect(batches.slice(0, 4).map(({ status }) => status)).toEqual(['PROCESSING', 'PROCESSING', 'PROCESSING', 'PENDING']);
    });
  });

  test('the JSON of a job that is not distributed is the only copy, and has every update', async () => {
    const job = makeJob(250, { distributed: undefined });
    await on.store.saveJobState(job);
    for (const { id, index } of job.batches.slice(0, 10)) await on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', index, 0));
    const { batches } = await on.store.getJobState(job.id);
    expect(batches.slice(0, 10).map(({ processedCount }) => processedCount)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    if (on.has('raw')) expect((await on.copy(job.id)).slice(0, 10)).toMatchObject(batches.slice(0, 10).map(({ status }) => ({ status })));
  });
});
