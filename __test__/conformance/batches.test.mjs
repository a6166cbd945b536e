// The batches of a job: how saveJobState, updateBatchState and getJobState keep the list in the job’s row and the rows of the batches together.

import { describe, expect, test } from 'vitest';
import { BATCH_STATUSES, makeBatch, makeJob, makeLocalJob, makeRows, makeState, newId } from '../support/fixtures.mjs';
import { claim, onEveryDatabase, rejection } from '../support/suite.mjs';

onEveryDatabase((on) => {
  describe('saveJobState with distributed: true', () => {
    on.needs('raw')('writes a row for each batch', async () => {
      const job = makeJob(2);
      await on.store.saveJobState(job);
      expect(await on.rows(job.id)).toEqual(makeRows(job));
    });

    test('lets workers claim the batches', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      expect(await claim(on.store, job.id)).toMatchObject({
        batchId: job.batches[0].id,
        batchIndex: 0,
        recordStartIndex: 0,
        recordEndIndex: 9,
      });
    });

    test('takes a batch that is PROCESSING without a worker as PENDING, or no worker could ever claim it', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(0, { id, batches: [makeBatch(id, 0, { status: 'PROCESSING' })] }));
      expect((await on.store.getJobState(id)).batches[0].status).toBe('PENDING');
      if (on.has('raw')) expect(await on.behind(id)).toEqual([]);
      expect(await claim(on.store, id)).toMatchObject({ batchIndex: 0 });
    });

    test('keeps the state of the batches that it inserts', async () => {
      const id = newId();
      const batches = [
        makeBatch(id, 0, { status: 'COMPLETED', processedCount: 9, failedCount: 1 }),
        makeBatch(id, 1, { status: 'FAILED', processedCount: 2, failedCount: 8 }),
        makeBatch(id, 2, { status: 'PAUSED' }),
        makeBatch(id, 3, { status: 'PROCESSING', workerId: 'w' }),
      ];
      await on.store.saveJobState(makeJob(0, { id, batches }));
      expect((await on.store.getJobState(id)).batches).toMatchObject(batches);
      expect(await on.store.getDistributedStatus(id)).toMatchObject({ completedBatches: 1, failedBatches: 1, processingBatches: 1 });
      expect(await on.store.claimBatch(id, 'w')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
    });

    test('leaves rows that exist as they are: a stale snapshot undoes no claim and no result', async () => {
      const job = makeJob(4);
      await on.store.saveJobState(job);
      const first = await claim(on.store, job.id, 'w1');
      await claim(on.store, job.id, 'w2');
      await on.store.updateBatchState(job.id, first.batchId, makeState(first.batchId, 'COMPLETED', 9, 1));

      await on.store.saveJobState({ ...job, totalRecords: 41 });
      const found = await on.store.getJobState(job.id);
      expect(found.totalRecords).toBe(41);
      expect(found.batches.map(({ status }) => status)).toEqual(['COMPLETED', 'PROCESSING', 'PENDING', 'PENDING']);
      expect(found.batches[0]).toMatchObject({ processedCount: 9, failedCount: 1 });
      expect(found.batches[1]).toMatchObject({ workerId: 'w2' });
      if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 2 });
    });

    test('adds the batches that are new', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(1, { id }));
      await claim(on.store, id);
      await on.store.saveJobState(makeJob(3, { id }));
      expect((await on.store.getJobState(id)).batches.map(({ status }) => status)).toEqual(['PROCESSING', 'PENDING', 'PENDING']);
      expect(await on.store.getDistributedStatus(id)).toMatchObject({ totalBatches: 3, processingBatches: 1, pendingBatches: 2 });
    });

    test('rejects with CONSTRAINT where another batch has the index, and changes nothing', async () => {
      const id = newId();
      const job = makeJob(2, { id });
      await on.store.saveJobState(job);
      const taken = makeJob(0, { id, status: 'PAUSED', batches: [makeBatch(id, 5), makeBatch(id, 1, { id: `${id}.other` })] });
      const error = await rejection(on.store.saveJobState(taken), 'CONSTRAINT');
      expect(error.retryable).toBe(false);
      expect(await on.store.getJobState(id)).toStrictEqual(job);
      expect((await on.store.getDistributedStatus(id)).totalBatches).toBe(2);
    });

    test('rejects with CONSTRAINT where two of its batches have one index, and stores nothing', async () => {
      const id = newId();
      const job = makeJob(0, { id, batches: [makeBatch(id, 0), makeBatch(id, 1), makeBatch(id, 1, { id: `${id}.other` })] });
      await rejection(on.store.saveJobState(job), 'CONSTRAINT');
      expect(await on.store.getJobState(id)).toBeNull();
      expect((await on.store.getDistributedStatus(id)).totalBatches).toBe(0);
    });

    test('rejects with CONSTRAINT where a batch id belongs to another job, and stores nothing', async () => {
      const owner = makeJob(2);
      await on.store.saveJobState(owner);
      const id = newId();
      const thief = makeJob(0, { id, batches: [makeBatch(id, 0), { ...makeBatch(id, 1), id: owner.batches[1].id }] });
      await rejection(on.store.saveJobState(thief), 'CONSTRAINT');
      expect(await on.store.getJobState(id)).toBeNull();
      expect((await on.store.getDistributedStatus(id)).totalBatches).toBe(0);
      expect(await on.store.getJobState(owner.id)).toStrictEqual(owner);
    });
  });

  describe('saveJobState without distributed', () => {
    test('writes no batch rows', async () => {
      const job = makeLocalJob(2);
      await on.store.saveJobState(job);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 0, isComplete: false });
      expect(await on.store.claimBatch(job.id, 'w')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
    });

    test('sets the state of the batches to what it says, as often as it is called', async () => {
      const job = makeLocalJob(2);
      for (const status of ['PROCESSING', 'COMPLETED', 'PENDING']) {
        const batches = job.batches.map((batch) => ({ ...batch, status }));
        await on.store.saveJobState({ ...job, batches });
        expect((await on.store.getJobState(job.id)).batches).toStrictEqual(batches);
      }
    });
  });

  describe('updateBatchState', () => {
    test('resolves and changes nothing where there is no such job', async () => {
      const id = newId();
      expect(await on.store.updateBatchState(id, 'b', makeState('b', 'COMPLETED', 1, 1))).toBeUndefined();
      expect(await on.store.getJobState(id)).toBeNull();
    });

    test.each([
      ['distributed', true],
      ['not distributed', undefined],
    ])('resolves and changes nothing where a job that is %s has no such batch', async (_, distributed) => {
      const [job, other] = [makeJob(1, { distributed }), makeJob(1, { distributed })];
      await on.store.saveJobState(job);
      await on.store.saveJobState(other);
      for (const batchId of [newId('batch'), other.batches[0].id]) {
        await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 1, 1));
      }
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
      expect(await on.store.getJobState(other.id)).toStrictEqual(other);
    });

    test.each([
      ['distributed', true],
      ['not distributed', undefined],
    ])('sets status and counts, of a job that is %s', async (_, distributed) => {
      const job = makeJob(3, { distributed });
      await on.store.saveJobState(job);
      const [, { id: batchId }] = job.batches;
      for (const status of BATCH_STATUSES) {
        await on.store.updateBatchState(job.id, batchId, makeState(batchId, status, 6, 4));
        const expected = job.batches.map((batch) =>
          batch.id === batchId ? { ...batch, status, processedCount: 6, failedCount: 4 } : batch,
        );
        expect((await on.store.getJobState(job.id)).batches).toStrictEqual(expected);
      }
    });

    on.needs('raw')('sets them in the row and in the JSON', async () => {
      const job = makeJob(3);
      await on.store.saveJobState(job);
      const [, { id: batchId }] = job.batches;
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED', 6, 4));
      expect(await on.row(batchId)).toMatchObject({ status: 'FAILED', processedCount: 6, failedCount: 4, batchIndex: 1 });
      expect((await on.copy(job.id))[1]).toMatchObject({ status: 'FAILED', processedCount: 6, failedCount: 4, index: 1 });
    });

    test('reopens a COMPLETED batch: it is explicit', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const [{ id: batchId }] = job.batches;
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10));
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'PENDING'));
      expect(await claim(on.store, job.id)).toMatchObject({ batchId });
    });

    test('leaves the status of a finalized job alone', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const [{ id: batchId }] = job.batches;
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10));
      expect(await on.store.tryFinalizeJob(job.id)).toBe(true);
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED', 0, 10));
      expect((await on.store.getJobState(job.id)).status).toBe('COMPLETED');
    });
  });

  describe('getJobState where a batch has a row', () => {
    on.needs('raw')('takes status and counts from the row, and adds its worker and the time of its claim', async () => {
      const job = makeJob(2);
      await on.store.saveJobState(job);
      await on.query(
        `update "batchactions_batches"
        set "status" = 'PROCESSING', "processedCount" = 3, "failedCount" = 2, "workerId" = 'outside', "claimedAt" = 1700000000123
        where "id" = ?`,
        [job.batches[1].id],
      );
      expect((await on.store.getJobState(job.id)).batches).toStrictEqual([
        job.batches[0],
        { ...job.batches[1], status: 'PROCESSING', processedCount: 3, failedCount: 2, workerId: 'outside', claimedAt: 1_700_000_000_123 },
      ]);
    });

    on.needs('raw')('lists the batches that the JSON lists, and no other', async () => {
      const job = makeJob(3);
      await on.store.saveJobState(job);
      await on.query('update "batchactions_jobs" set "batches" = ? where "id" = ?', [
        JSON.stringify([job.batches[2], job.batches[0]]),
        job.id,
      ]);
      expect((await on.store.getJobState(job.id)).batches).toStrictEqual([job.batches[2], job.batches[0]]);
    });
  });

  describe('a finalized job', () => {
    test('is opened again by an explicit saveJobState', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const [{ id }] = job.batches;
      await on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 10));
      await on.store.tryFinalizeJob(job.id);
      await on.store.saveJobState(job);
      const found = await on.store.getJobState(job.id);
      expect(found).toMatchObject({ status: 'PROCESSING', batches: [{ status: 'COMPLETED' }] });
      expect(found).not.toHaveProperty('completedAt');
    });
  });

  describe('a job that the Sequelize adapter prepared: distributed, with batches in its JSON and without rows', () => {
    const prepare = async (statuses = ['PENDING', 'PENDING', 'PENDING']) => {
      const id = newId();
      const batches = statuses.map((status, index) => makeBatch(id, index, { status, processedCount: status === 'COMPLETED' ? 10 : 0 }));
      await on.query(
        `insert into "batchactions_jobs" ("id", "status", "config", "batches", "totalRecords", "startedAt", "completedAt", "distributed")
        values (?, 'PROCESSING', '{"batchSize":10}', ?, 30, 1700000000000, null, ?)`,
        [id, JSON.stringify(batches), true],
      );
      return { id, batches };
    };

    on.needs('raw')('has its batches claimed', async () => {
      const { id, batches } = await prepare();
      for (const batch of batches)
        expect(await claim(on.store, id)).toMatchObject({ batchId: batch.id, recordEndIndex: batch.recordEndIndex });
      expect(await on.store.claimBatch(id, 'w')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
      expect(await on.behind(id)).toEqual([]);
    });

    on.needs('raw')('keeps what is done of it, and reopens what was PROCESSING', async () => {
      const { id } = await prepare(['COMPLETED', 'PROCESSING', 'FAILED']);
      expect(await claim(on.store, id)).toMatchObject({ batchIndex: 1 });
      expect(await on.store.claimBatch(id, 'w')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
      expect((await on.store.getJobState(id)).batches).toMatchObject([
        { status: 'COMPLETED', processedCount: 10 },
        { status: 'PROCESSING' },
        { status: 'FAILED' },
      ]);
    });

    on.needs('raw')('is counted by getDistributedStatus', async () => {
      const { id } = await prepare(['COMPLETED', 'PENDING', 'PENDING']);
      expect(await on.store.getDistributedStatus(id)).toMatchObject({ totalBatches: 3, completedBatches: 1, pendingBatches: 2 });
    });

    on.needs('raw')('is finalized where all of it is done', async () => {
      const { id } = await prepare(['COMPLETED', 'COMPLETED', 'COMPLETED']);
      expect(await on.store.tryFinalizeJob(id)).toBe(true);
      expect((await on.store.getJobState(id)).status).toBe('COMPLETED');
    });

    on.needs('raw')('gets its rows once, whichever call is first: 8 stores that claim at once share the batches', async () => {
      const { id } = await prepare(Array(8).fill('PENDING'));
      const stores = await Promise.all(Array.from({ length: 8 }, () => on.open({ pool: { max: 2 } })));
      const claims = await Promise.all(stores.map((store, n) => claim(store, id, `w${n}`)));
      expect(claims.map(({ batchIndex }) => batchIndex).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      expect(await on.behind(id)).toEqual([]);
    });
  });
});
