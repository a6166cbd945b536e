// Guarantees of `getProgress`.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase } from '../support/suite.mjs';

onEveryDatabase((on) => {
  /** The progress of a job with the given number of records of each status. */
  const progress = async (fields, records = {}) => {
    const job = makeJob(2, fields);
    await on.store.saveJobState(job);
    const statuses = Object.entries(records).flatMap(([status, count]) => Array(count).fill(status));
    await on.store.saveBatchRecords(
      job.id,
      'b',
      statuses.map((status, index) => makeRecord(index, { status })),
    );
    return on.store.getProgress(job.id);
  };

  describe('getProgress', () => {
    test('counts the records by what became of them', async () => {
      const found = await progress(
        { totalRecords: 40, completedAt: 1_700_000_001_500 },
        { processed: 10, failed: 3, invalid: 4, valid: 5, pending: 6 },
      );
      expect(found).toStrictEqual({
        totalRecords: 40,
        processedRecords: 10,
        failedRecords: 7,
        pendingRecords: 23,
        percentage: 43,
        currentBatch: 0,
        totalBatches: 2,
        elapsedMs: 1_500,
        estimatedRemainingMs: expect.any(Number),
      });
    });

    test.each([
      [3, 1, 33],
      [3, 2, 67],
      [8, 1, 13],
      [200, 1, 1],
      [201, 1, 0],
      [1_000, 995, 100],
      [7, 7, 100],
      [7, 0, 0],
    ])('rounds the percentage: of %i records %i done are %i', async (totalRecords, processed, percentage) => {
      expect((await progress({ totalRecords }, { processed })).percentage).toBe(percentage);
    });

    test('is 0 % where the job has no records', async () => {
      expect(await progress({ totalRecords: 0 })).toMatchObject({ totalRecords: 0, percentage: 0, pendingRecords: 0 });
      expect(await progress({ totalRecords: 0 }, { processed: 2 })).toMatchObject({
        percentage: 0,
        processedRecords: 2,
        pendingRecords: 0,
      });
    });

    test('has no fewer than 0 records pending', async () => {
      expect(await progress({ totalRecords: 2 }, { processed: 3, failed: 1 })).toMatchObject({
        pendingRecords: 0,
        processedRecords: 3,
        failedRecords: 1,
      });
    });

    test('counts the batches, and those that are COMPLETED', async () => {
      for (const distributed of [undefined, true]) {
        const id = newId();
        const statuses = ['COMPLETED', 'FAILED', 'COMPLETED', 'PENDING', 'PAUSED'];
        await on.store.saveJobState(
          makeJob(0, { id, distributed, batches: statuses.map((status, index) => makeBatch(id, index, { status })) }),
        );
        expect(await on.store.getProgress(id)).toMatchObject({ currentBatch: 2, totalBatches: 5 });
        await complete(on.store, id, `${id}.b3`);
        expect(await on.store.getProgress(id)).toMatchObject({ currentBatch: 3, totalBatches: 5 });
      }
    });

    test('counts the COMPLETED batches of a job whose JSON copy may be behind', async () => {
      const job = makeJob(250);
      await on.store.saveJobState(job);
      for (let n = 0; n < 5; n++) {
        const { batchId } = await claim(on.store, job.id);
        await complete(on.store, job.id, batchId);
        expect(await on.store.getProgress(job.id)).toMatchObject({ currentBatch: n + 1, totalBatches: 250 });
      }
    });

    test('has the time from startedAt to now while the job runs', async () => {
      const startedAt = Date.now() - 60_000;
      const { elapsedMs } = await progress({ startedAt });
      expect(elapsedMs).toBeGreaterThanOrEqual(59_000);
      expect(elapsedMs).toBeLessThanOrEqual(Date.now() - startedAt + 1_000);
      expect(Number.isInteger(elapsedMs)).toBe(true);
    });

    test('has the time from startedAt to completedAt once the job is done', async () => {
      expect((await progress({ startedAt: 1_700_000_000_000, completedAt: 1_700_000_012_345, status: 'COMPLETED' })).elapsedMs).toBe(
        12_345,
      );
      expect((await progress({ startedAt: 1_700_000_000_000, completedAt: 1_700_000_000_000 })).elapsedMs).toBe(0);
    });

    test('has 0 for a job that has not started', async () => {
      expect((await progress({ startedAt: undefined })).elapsedMs).toBe(0);
      expect((await progress({ startedAt: undefined, completedAt: 1_700_000_000_000 })).elapsedMs).toBe(0);
    });

    test('never has a negative time', async () => {
      expect((await progress({ startedAt: Date.now() + 3_600_000 })).elapsedMs).toBe(0);
      expect((await progress({ startedAt: 1_700_000_000_000, completedAt: 1_600_000_000_000 })).elapsedMs).toBe(0);
    });

    test('estimates the time that remains while something is done and something is pending, and only then', async () => {
      const startedAt = Date.now() - 10_000;
      const cases = [
        [{ processed: 1 }, true],
        [{ failed: 1 }, true],
        [{ invalid: 1, valid: 2 }, true],
        [{}, false],
        [{ valid: 3, pending: 1 }, false],
        [{ processed: 8 }, false],
        [{ processed: 4, failed: 4 }, false],
        [{ processed: 9 }, false],
      ];
      for (const [records, given] of cases) {
        const found = await progress({ totalRecords: 8, startedAt }, records);
        expect('estimatedRemainingMs' in found).toBe(given);
        if (given) {
          expect(Number.isFinite(found.estimatedRemainingMs)).toBe(true);
          expect(found.estimatedRemainingMs).toBeGreaterThanOrEqual(0);
        }
      }
    });

    test('estimates by the pace so far', async () => {
      const { elapsedMs, estimatedRemainingMs } = await progress(
        { totalRecords: 8, startedAt: Date.now() - 100_000 },
        { processed: 1, failed: 1 },
      );
      expect(estimatedRemainingMs / (elapsedMs * 3)).toBeCloseTo(1, 1);
    });

    test('is all zeros for an unknown job', async () => {
      expect(await on.store.getProgress(newId())).toStrictEqual({
        totalRecords: 0,
        processedRecords: 0,
        failedRecords: 0,
        pendingRecords: 0,
        percentage: 0,
        currentBatch: 0,
        totalBatches: 0,
        elapsedMs: 0,
      });
    });

    test('counts the records of a job that is not stored yet', async () => {
      const id = newId();
      await on.store.saveBatchRecords(
        id,
        'b',
        ['processed', 'processed', 'failed', 'invalid', 'valid'].map((status, index) => makeRecord(index, { status })),
      );
      expect(await on.store.getProgress(id)).toStrictEqual({
        totalRecords: 0,
        processedRecords: 2,
        failedRecords: 2,
        pendingRecords: 0,
        percentage: 0,
        currentBatch: 0,
        totalBatches: 0,
        elapsedMs: 0,
      });
    });
  });
});
