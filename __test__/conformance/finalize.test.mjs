// The end of a distributed job: tryFinalizeJob, the final states, and the counts of getDistributedStatus.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase } from '../support/suite.mjs';

const none = (reason) => ({ claimed: false, reason });

onEveryDatabase((on) => {
  const saved = async (batches, fields) => {
    const job = makeJob(batches, fields);
    await on.store.saveJobState(job);
    return job;
  };

  describe('tryFinalizeJob', () => {
    test('sets COMPLETED and completedAt where all batches are COMPLETED', async () => {
      const job = await saved(3);
      const before = Date.now();
      for (const { id } of job.batches) {
        expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
        expect((await on.store.getJobState(job.id)).status).toBe('PROCESSING');
        await complete(on.store, job.id, id);
      }
      expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
      const found = await on.store.getJobState(job.id);
      expect(found.status).toBe('COMPLETED');
      expect(Number.isInteger(found.completedAt)).toBe(true);
      expect(found.completedAt).toBeGreaterThanOrEqual(before - 1_000);
      expect(found.completedAt).toBeLessThanOrEqual(Date.now() + 1_000);
      expect(found).toMatchObject({ startedAt: job.startedAt, totalRecords: 30, config: job.config, distributed: true });
    });

    test('sets FAILED where any batch is FAILED', async () => {
      const job = await saved(3);
      for (const { id, index } of job.batches) await complete(on.store, job.id, id, index === 1 ? 'FAILED' : 'COMPLETED');
      expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'FAILED', completedAt: expect.any(Number) });
    });

    test('is false, and changes nothing, while a batch is PENDING, PROCESSING or PAUSED', async () => {
      const job = await saved(2);
      await complete(on.store, job.id, job.batches[0].id);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      const { batchId } = await claim(on.store, job.id);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'PAUSED'));
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ isComplete: false });
      expect(await on.store.reclaimStaleBatches(job.id, await on.expire(job.id))).toBe(0);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'PROCESSING' });
      expect(await on.store.getJobState(job.id)).not.toHaveProperty('completedAt');
    });

    test('finalizes a distributed job that lists no batches', async () => {
      const job = await saved(0);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 0, isComplete: true });
      expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'COMPLETED', completedAt: expect.any(Number) });
    });

    test('is false for an unknown job, and for one that is not distributed', async () => {
      expect(await on.store.tryFinalizeJob(newId())).toBe(false);
      const empty = await saved(0, { distributed: undefined });
      expect(await on.store.tryFinalizeJob(empty.id)).toBe(false);
      const plain = await saved(1, { distributed: undefined });
      await complete(on.store, plain.id, plain.batches[0].id);
      expect(await on.store.tryFinalizeJob(plain.id)).toBe(false);
      expect((await on.store.getJobState(plain.id)).status).toBe('PROCESSING');
    });

    test.each(['CREATED', 'PAUSED', 'ABORTED', 'FAILED', 'COMPLETED'])('is false where the job is %s', async (status) => {
      const job = await saved(1, { status });
      await complete(on.store, job.id, job.batches[0].id);
      const before = await on.store.getJobState(job.id);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      const found = await on.store.getJobState(job.id);
      expect(found).toEqual(before);
      expect(found.status).toBe(status);
    });

    test('is true for one of 16 concurrent callers, and for none after them', async () => {
      const job = await saved(3);
      for (const { id } of job.batches) await complete(on.store, job.id, id);
      const verdicts = await Promise.all(Array.from({ length: 16 }, () => on.store.tryFinalizeJob(job.id)));
      expect(verdicts.filter(Boolean)).toHaveLength(1);
      const { completedAt } = await on.store.getJobState(job.id);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect((await on.store.getJobState(job.id)).completedAt).toBe(completedAt);
    });

    on.needs('shared')('is true for one of 16 stores that call it at once', async () => {
      const stores = await Promise.all(Array.from({ length: 16 }, () => on.open({ pool: { max: 1 } })));
      for (let round = 0; round < 5; round++) {
        const job = await saved(3);
        for (const { id } of job.batches) await complete(on.store, job.id, id);
        const verdicts = await Promise.all(stores.map((store) => store.tryFinalizeJob(job.id)));
        expect(verdicts.filter(Boolean)).toHaveLength(1);
      }
    });

    on.needs('shared')('is true for exactly one of the workers that finish the last batches at once', async () => {
      const stores = await Promise.all(Array.from({ length: 8 }, () => on.open({ pool: { max: 1 } })));
      for (let round = 0; round < 5; round++) {
        const job = await saved(8);
        const verdicts = await Promise.all(
          stores.map(async (store, n) => {
            const { batchId } = await claim(store, job.id, `w${n}`);
            await complete(store, job.id, batchId);
            return store.tryFinalizeJob(job.id);
          }),
        );
        expect(verdicts.filter(Boolean)).toHaveLength(1);
        expect((await on.store.getJobState(job.id)).status).toBe('COMPLETED');
      }
    });
  });

  describe('a final state stays', () => {
    test('of a batch: release, reclaim, a stale snapshot and a claim leave COMPLETED and FAILED as they are', async () => {
      const job = await saved(2);
      for (const { id, index } of job.batches) {
        await claim(on.store, job.id, 'w');
        await on.store.updateBatchState(job.id, id, makeState(id, ['COMPLETED', 'FAILED'][index], 8, 2));
      }
      for (const { id } of job.batches) await on.store.releaseBatch(job.id, id, 'w');
      await on.store.saveJobState(job);
      expect(await on.store.claimBatch(job.id, 'w')).toEqual(none('NO_PENDING_BATCHES'));
      await on.store.reclaimStaleBatches(job.id, await on.expire(job.id));
      expect((await on.store.getJobState(job.id)).batches).toMatchObject([
        { status: 'COMPLETED', processedCount: 8, failedCount: 2 },
        { status: 'FAILED', processedCount: 8, failedCount: 2 },
      ]);
    });

    test('of a job: nothing but saveJobState changes its status', async () => {
      const job = await saved(2);
      const [{ id }] = job.batches;
      for (const batch of job.batches) await complete(on.store, job.id, batch.id);
      await on.store.tryFinalizeJob(job.id);
      const { completedAt } = await on.store.getJobState(job.id);

      expect(await on.store.claimBatch(job.id, 'w')).toEqual(none('JOB_NOT_PROCESSING'));
      await on.store.releaseBatch(job.id, id, 'w');
      await on.store.updateBatchState(job.id, id, makeState(id, 'PENDING'));
      expect(await on.store.claimBatch(job.id, 'w')).toEqual(none('JOB_NOT_PROCESSING'));
      await on.store.updateBatchState(job.id, id, makeState(id, 'FAILED', 0, 10));
      await on.store.reclaimStaleBatches(job.id, await on.expire(job.id));
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'COMPLETED', completedAt });
    });
  });

  describe('getDistributedStatus', () => {
    test('counts the batches by status', async () => {
      const id = newId();
      const statuses = ['PENDING', 'PENDING', 'PENDING', 'COMPLETED', 'COMPLETED', 'FAILED', 'PENDING'];
      await on.store.saveJobState(makeJob(0, { id, batches: statuses.map((status, index) => makeBatch(id, index, { status })) }));
      await claim(on.store, id);
      await claim(on.store, id);
      expect(await on.store.getDistributedStatus(id)).toStrictEqual({
        jobId: id,
        totalBatches: 7,
        completedBatches: 2,
        failedBatches: 1,
        processingBatches: 2,
        pendingBatches: 2,
        isComplete: false,
      });
    });

    test('is complete where there are batches and none is PENDING or PROCESSING', async () => {
      const job = await saved(2);
      await complete(on.store, job.id, job.batches[0].id);
      expect((await on.store.getDistributedStatus(job.id)).isComplete).toBe(false);
      await on.store.updateBatchState(job.id, job.batches[1].id, makeState(job.batches[1].id, 'PROCESSING'));
      expect((await on.store.getDistributedStatus(job.id)).isComplete).toBe(false);
      await complete(on.store, job.id, job.batches[1].id, 'FAILED');
      expect((await on.store.getDistributedStatus(job.id)).isComplete).toBe(true);
    });

    test('is all zeros and not complete for an unknown job', async () => {
      const jobId = newId();
      expect(await on.store.getDistributedStatus(jobId)).toStrictEqual({
        jobId,
        totalBatches: 0,
        completedBatches: 0,
        failedBatches: 0,
        processingBatches: 0,
        pendingBatches: 0,
        isComplete: false,
      });
    });
  });
});
