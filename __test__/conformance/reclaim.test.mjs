// reclaimStaleBatches: which claims are stale, by the database’s clock, and what it makes of them.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const saved = async (batches, fields) => {
    const job = makeJob(batches, fields);
    await on.store.saveJobState(job);
    return job;
  };
  const statusOf = async (store, jobId) => (await store.getJobState(jobId)).batches.map(({ status }) => status);

  describe('reclaimStaleBatches', () => {
    test('takes back what was claimed longer ago than the timeout, and says how many', async () => {
      const job = await saved(4);
      for (let n = 0; n < 3; n++) await claim(on.store, job.id, `w${n}`);
      await complete(on.store, job.id, job.batches[1].id);
      expect(await on.store.reclaimStaleBatches(job.id, await on.expire(job.id))).toBe(2);
      expect(await statusOf(on.store, job.id)).toEqual(['PENDING', 'COMPLETED', 'PENDING', 'PENDING']);
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
    });

    test('leaves what was claimed since', async () => {
      const job = await saved(2);
      await claim(on.store, job.id);
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      expect(await statusOf(on.store, job.id)).toEqual(['PROCESSING', 'PENDING']);
    });

    on.needs('raw')('tells stale from fresh claims of one job, by the database’s clock', async () => {
      const job = await saved(6);
      for (let n = 0; n < 6; n++) await claim(on.store, job.id, `w${n}`);
      for (const [index, age] of [2_400_000, 3_540_000, 3_660_000, 216_000_000, 0, 60_000_000].entries()) {
        await on.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - ? where "id" = ?', [age, job.batches[index].id]);
      }
      expect(await on.store.reclaimStaleBatches(job.id, 3_600_000)).toBe(3);
      expect(await statusOf(on.store, job.id)).toEqual(['PROCESSING', 'PROCESSING', 'PENDING', 'PENDING', 'PROCESSING', 'PENDING']);
    });

    on.needs('raw')('takes back a batch that is PROCESSING without the time of its claim', async () => {
      const job = await saved(1);
      await claim(on.store, job.id);
      await on.query('update "batchactions_batches" set "claimedAt" = null where "jobId" = ?', [job.id]);
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(1);
      expect(await statusOf(on.store, job.id)).toEqual(['PENDING']);
    });

    on.needs('raw')('adds 1 to the version of what it takes, and leaves the others’', async () => {
      const job = await saved(2);
      await claim(on.store, job.id);
      await on.backdate(job.id);
      await on.store.reclaimStaleBatches(job.id, 60_000);
      expect((await on.rows(job.id)).map(({ version }) => version)).toEqual([2, 0]);
    });

    test('leaves batches that are PENDING, PAUSED, COMPLETED or FAILED, however long ago they were claimed', async () => {
      const job = await saved(4);
      for (const { id, index } of job.batches.slice(0, 3)) {
        await claim(on.store, job.id);
        await on.store.updateBatchState(job.id, id, makeState(id, ['COMPLETED', 'FAILED', 'PAUSED'][index], 5, 5));
      }
      expect(await on.store.reclaimStaleBatches(job.id, await on.expire(job.id))).toBe(0);
      expect(await statusOf(on.store, job.id)).toEqual(['COMPLETED', 'FAILED', 'PAUSED', 'PENDING']);
    });

    test('is 0 for an unknown job, and touches no other job', async () => {
      const job = await saved(1);
      await claim(on.store, job.id);
      const timeout = await on.expire(job.id);
      expect(await on.store.reclaimStaleBatches(newId(), timeout)).toBe(0);
      expect(await statusOf(on.store, job.id)).toEqual(['PROCESSING']);
    });

    test('lets the batch be claimed again, with a higher token', async () => {
      const job = await saved(1);
      const first = await claim(on.store, job.id, 'w1');
      await on.store.reclaimStaleBatches(job.id, await on.expire(job.id));
      const second = await claim(on.store, job.id, 'w2');
      expect(second).toMatchObject({ batchId: first.batchId, workerId: 'w2' });
      expect(second.token).toBeGreaterThan(first.token);
      expect((await on.store.getJobState(job.id)).batches[0].workerId).toBe('w2');
    });

    on.needs('shared')('called at once by many counts each batch once', async () => {
      const stores = [on.store, await on.open(), await on.open(), await on.open()];
      for (let round = 0; round < 5; round++) {
        const job = await saved(40);
        await Promise.all(job.batches.map(() => claim(on.store, job.id)));
        await on.backdate(job.id);
        const counts = await Promise.all([...stores, ...stores].map((store) => store.reclaimStaleBatches(job.id, 60_000)));
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(40);
        expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ pendingBatches: 40, processingBatches: 0 });
        expect((await on.rows(job.id)).every(({ version }) => version === 2)).toBe(true);
      }
    });

    on.needs('shared')('beside claims takes no fresh claim from its worker', async () => {
      const other = await on.open();
      const job = await saved(30);
      for (let n = 0; n < 15; n++) await claim(on.store, job.id);
      await on.backdate(job.id);
      const [taken, ...claims] = await Promise.all([
        other.reclaimStaleBatches(job.id, 60_000),
        ...Array.from({ length: 10 }, (_, n) => claim(on.store, job.id, `fresh${n}`)),
      ]);
      expect(taken).toBe(15);
      const { batches } = await on.store.getJobState(job.id);
      for (const { batchIndex, workerId } of claims) expect(batches[batchIndex]).toMatchObject({ status: 'PROCESSING', workerId });
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 10, pendingBatches: 20 });
    });

    test.each([
      ['COMPLETED', ['COMPLETED', 'COMPLETED']],
      ['FAILED', ['COMPLETED', 'FAILED']],
    ])('finalizes a job as %s whose last worker died before it could', async (status, results) => {
      const job = await saved(2);
      for (const { id, index } of job.batches) {
        await claim(on.store, job.id);
        await complete(on.store, job.id, id, results[index]);
      }
      expect(await on.store.reclaimStaleBatches(job.id, await on.expire(job.id))).toBe(0);
      const found = await on.store.getJobState(job.id);
      expect(found.status).toBe(status);
      expect(found.completedAt).toEqual(expect.any(Number));
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
    });

    test('leaves the finalizing of a complete job to its worker while the last claim is fresh', async () => {
      const job = await saved(2);
      for (const { id } of job.batches) {
        await claim(on.store, job.id);
        await complete(on.store, job.id, id);
      }
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      expect((await on.store.getJobState(job.id)).status).toBe('PROCESSING');
      expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
    });

    on.needs('raw')('goes by the newest claim of the job', async () => {
      const job = await saved(2);
      for (const { id } of job.batches) {
        await claim(on.store, job.id);
        await complete(on.store, job.id, id);
      }
      await on.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 3600000 where "id" = ?', [job.batches[0].id]);
      await on.store.reclaimStaleBatches(job.id, 60_000);
      expect((await on.store.getJobState(job.id)).status).toBe('PROCESSING');
    });

    test('finalizes a distributed job that lists no batches at once', async () => {
      const job = await saved(0, { startedAt: Date.now() });
      expect(await on.store.reclaimStaleBatches(job.id, 3_600_000)).toBe(0);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'COMPLETED', completedAt: expect.any(Number) });
    });

    test('finalizes a complete job without a recorded claim once it was started longer ago than the timeout', async () => {
      const complete = (id) => [makeBatch(id, 0, { status: 'COMPLETED', processedCount: 10 })];
      const [early, late] = [newId(), newId()];
      await on.store.saveJobState(makeJob(0, { id: early, batches: complete(early), startedAt: Date.now() - 7_200_000 }));
      await on.store.saveJobState(makeJob(0, { id: late, batches: complete(late), startedAt: Date.now() + 60_000 }));
      await on.store.reclaimStaleBatches(early, 3_600_000);
      await on.store.reclaimStaleBatches(late, 3_600_000);
      expect((await on.store.getJobState(early)).status).toBe('COMPLETED');
      expect((await on.store.getJobState(late)).status).toBe('PROCESSING');
    });

    test('does not finalize a job that is incomplete, or not PROCESSING', async () => {
      const incomplete = await saved(2);
      await claim(on.store, incomplete.id);
      await complete(on.store, incomplete.id, incomplete.batches[0].id);
      await on.store.reclaimStaleBatches(incomplete.id, await on.expire(incomplete.id));
      expect((await on.store.getJobState(incomplete.id)).status).toBe('PROCESSING');

      const aborted = await saved(1);
      await claim(on.store, aborted.id);
      await complete(on.store, aborted.id, aborted.batches[0].id);
      await on.store.saveJobState({ ...aborted, status: 'ABORTED' });
      await on.store.reclaimStaleBatches(aborted.id, await on.expire(aborted.id));
      const found = await on.store.getJobState(aborted.id);
      expect(found.status).toBe('ABORTED');
    });
  });
});
