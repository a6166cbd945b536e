// `updateBatchState` COMPLETED or FAILED by the holder of a claim, with `durability: 'batch'`: the state is written together with the batch's last records,
// and nothing that is promised of either changes.

import { describe, expect, onTestFinished, test } from 'vitest';
import { makeJob, makeRecord, makeRecords, makeState } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, openStore, prepare, rejection, sleep, SqlxStateStore } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const open = (options) => on.open({ durability: 'batch', ...options });
  /** A job whose batches have their records, and the claim on its first one. */
  const claimed = async (store, { batches = 1, size } = {}) => {
    const job = makeJob(batches, size ? { size } : undefined);
    await prepare(store, job);
    return { job, held: await claim(store, job.id) };
  };
  /** Saves all of a batch's records, and does not wait for anything to be written. */
  const saveAll = async (store, job, { batchIndex, batchId }, fields, fence) => {
    for (const { index } of makeRecords(job.batches[batchIndex])) {
      const record = makeRecord(index, { status: 'processed', ...fields });
      await (fence ? store.saveProcessedRecord(job.id, batchId, record, fence) : store.saveProcessedRecord(job.id, batchId, record));
    }
  };
  const statuses = async (store, job, { batchId }) => new Set((await store.getBatchRecords(job.id, batchId)).map(({ status }) => status));

  describe('the end of a batch', () => {
    test.each(['COMPLETED', 'FAILED'])('%s is there with the records saved before it', async (status) => {
      const store = await open();
      const { job, held } = await claimed(store, { batches: 3 });
      await saveAll(store, job, held);
      await complete(store, job.id, held.batchId, status);
      const count = status === 'COMPLETED' ? { completedBatches: 1 } : { failedBatches: 1 };
      expect(await store.getDistributedStatus(job.id)).toMatchObject(count);
      expect(await statuses(store, job, held)).toEqual(new Set(['processed']));
      const [first] = (await store.getJobState(job.id)).batches;
      expect(first).toMatchObject({ status, processedCount: status === 'COMPLETED' ? 10 : 7 });
      if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
    });

    on.needs('transactionIds')('is one transaction with the last records', async () => {
      const store = await open();
      const { job, held } = await claimed(store);
      await saveAll(store, job, held);
      await complete(store, job.id, held.batchId);
      const [batch] = await on.query('select xmin::text as "by" from "batchactions_batches" where "id" = ?', [held.batchId]);
      const records = await on.query('select distinct xmin::text as "by" from "batchactions_records" where "jobId" = ?', [job.id]);
      expect(records).toEqual([batch]);
    });

    on.needs('rowLocks')('is not there before the last record is, nor the other way round', async () => {
      const store = await open({ statementTimeoutMs: 600_000 });
      const { job, held } = await claimed(store);
      for (const [table, condition, id] of [
        ['records', '"recordIndex" = 9 and "jobId" = ?', job.id],
        ['batches', '"id" = ?', held.batchId],
      ]) {
        const other = await on.lockRows(table, condition, [id]);
        await saveAll(store, job, held, { status: 'failed', processingError: table });
        const done = complete(store, job.id, held.batchId);
        await on.untilOneWaits();
        const before = { batch: await on.row(held.batchId), records: await on.store.getFailedRecords(job.id) };
        await other.query('rollback');
        await done;
        const inBatches = table === 'batches';
        expect(before.batch.status).toBe(inBatches ? 'COMPLETED' : 'PROCESSING');
        expect(before.records.map(({ processingError }) => processingError)).toEqual(inBatches ? Array(10).fill('records') : []);
        expect(await on.row(held.batchId)).toMatchObject({ status: 'COMPLETED' });
        expect((await on.store.getFailedRecords(job.id)).map(({ processingError }) => processingError)).toEqual(Array(10).fill(table));
      }
    });

    on.needs('server')('is written again where its connection ends in the middle of it', async () => {
      const own = await on.createEmpty();
      const store = openStore(own, { durability: 'batch', statementTimeoutMs: 600_000 });
      await store.initialize();
      const { job, held } = await claimed(store);
      const sessions = await on.dialect.sessions(own);
      const other = await own.connect();
      onTestFinished(() => other.end().catch(() => {}));
      for (const statement of on.dialect.begin) await other.query(statement);
      await other.query('select 1 from "batchactions_records" where "recordIndex" = 9 for update');

      await saveAll(store, job, held);
      const done = complete(store, job.id, held.batchId);
      await expect.poll(() => on.dialect.countWaiting(own), { timeout: 60_000, interval: 250 }).toBeGreaterThan(0);
      for (const session of sessions) await on.dialect.endSession(own, session);
      await other.query('rollback');
      await done;
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
      expect(await statuses(store, job, held)).toEqual(new Set(['processed']));
    });

    test('takes records along that are new, or only some of which exist', async () => {
      const store = await open();
      const job = makeJob(2);
      await store.saveJobState(job);
      await store.saveBatchRecords(job.id, job.batches[1].id, makeRecords(job.batches[1]).slice(3, 6));
      for (const { id } of job.batches) {
        const held = await claim(store, job.id);
        expect(held.batchId).toBe(id);
        await saveAll(store, job, held);
        await complete(store, job.id, id);
        expect(await store.getBatchRecords(job.id, id)).toHaveLength(10);
        expect(await statuses(store, job, held)).toEqual(new Set(['processed']));
      }
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 2 });
    });

    test('of a batch of one record, and of one that takes several groups', async () => {
      const store = await open();
      for (const size of [1, 2_345]) {
        const { job, held } = await claimed(store, { size });
        await saveAll(store, job, held);
        await complete(store, job.id, held.batchId);
        expect(await store.getProgress(job.id)).toMatchObject({ processedRecords: size, pendingRecords: 0 });
        expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
      }
    });

    test('comes after its own records only, among those of another worker on the same store', async () => {
      const store = await open();
      const job = makeJob(20);
      await prepare(store, job);
      const work = async (worker) => {
        for (;;) {
          const { claimed: found, reservation } = await store.claimBatch(job.id, worker);
          if (!found) return;
          const fence = { token: reservation.token };
          await saveAll(store, job, reservation, {}, fence);
          await sleep(Math.random() * 3);
          await store.updateBatchState(job.id, reservation.batchId, makeState(reservation.batchId, 'COMPLETED', 10, 0), fence);
          expect(await statuses(store, job, reservation)).toEqual(new Set(['processed']));
        }
      };
      await Promise.all(['a', 'b', 'c'].map(work));
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 20 });
      expect(await store.tryFinalizeJob(job.id)).toBe(true);
    });

    on.needs('limitedIds')('takes no id for records that exist', async () => {
      const store = await open();
      const { job, held } = await claimed(store, { size: 200 });
      const idOf = async () => {
        const other = makeJob(0);
        await store.saveProcessedRecord(other.id, 'b', makeRecord(0));
        await store.getProgress(other.id);
        return Number((await on.query('select "id" from "batchactions_records" where "jobId" = ?', [other.id]))[0].id);
      };
      const before = await idOf();
      await saveAll(store, job, held);
      await complete(store, job.id, held.batchId);
      expect(await idOf()).toBe(before + 1);
    });
  });

  describe('a claim that was lost', () => {
    test('leaves neither the records nor the end', async () => {
      const store = await open();
      const { job, held } = await claimed(store);
      await saveAll(store, job, held);
      const timeout = await on.expire(job.id);
      await store.reclaimStaleBatches(job.id, timeout);
      await claim(store, job.id, 'young');
      const late = { token: held.token };
      for (const state of [makeState(held.batchId, 'COMPLETED', 10, 0), makeState(held.batchId, 'FAILED', 0, 10)]) {
        await saveAll(store, job, held, { status: 'failed' }, late).catch((error) => expect(error.code).toBe('LEASE_LOST'));
        await rejection(store.updateBatchState(job.id, held.batchId, state, late), 'LEASE_LOST');
      }
      expect(await store.getFailedRecords(job.id)).toEqual([]);
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 1 });
    });

    on.needs('shared')('while the end waits for its batch leaves neither', async () => {
      const store = await open();
      const { job, held } = await claimed(store);
      const other = await on.begin();
      // What a reclaim and a claim do.
      await other.query('update "batchactions_batches" set "version" = "version" + 2, "workerId" = ? where "id" = ?', [
        'young',
        held.batchId,
      ]);
      await saveAll(store, job, held, { status: 'failed' });
      const done = rejection(complete(store, job.id, held.batchId), 'LEASE_LOST');
      if (on.has('rowLocks')) await on.untilOneWaits();
      await other.query('commit');
      await done;
      expect(await on.store.getFailedRecords(job.id)).toEqual([]);
      expect(await on.row(held.batchId)).toMatchObject({ status: 'PROCESSING', workerId: 'young', processedCount: 0 });
    });

    on.needs('rowLocks')('is not taken while the end waits for a record', async () => {
      const store = await open({ statementTimeoutMs: 600_000 });
      const { job, held } = await claimed(store);
      await on.backdate(job.id);
      const other = await on.lockRows('records', '"jobId" = ?', [job.id]);
      await saveAll(store, job, held);
      const done = complete(store, job.id, held.batchId);
      await on.untilOneWaits();
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      await other.query('rollback');
      await done;
      expect(await on.row(held.batchId)).toMatchObject({ status: 'COMPLETED', version: held.token });
      expect(await on.store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
    });
  });

  describe('a record that can not be stored', () => {
    const refusing = async () => {
      const own = await on.createEmpty();
      const store = new SqlxStateStore(own.url, { durability: 'batch' });
      onTestFinished(() => store.close().catch(() => {}));
      await store.initialize();
      const { job, held } = await claimed(store);
      return { store, job, held, accept: await on.dialect.refuseRows(own, 'records', `"recordIndex" = 3 and "status" = 'processed'`) };
    };

    on.needs('raw')('fails alone, and its batch is not COMPLETED until it is saved', async () => {
      const { store, job, held, accept } = await refusing();
      await saveAll(store, job, held);
      const error = await complete(store, job.id, held.batchId).then(
        () => expect.fail('it resolved'),
        (reason) => reason,
      );
      expect(error.message).toContain('record 3');
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 1 });
      expect(await store.getProcessedRecords(job.id)).toHaveLength(9);
      await accept();
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(3, { status: 'processed' }));
      await complete(store, job.id, held.batchId);
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
      expect(await store.getProcessedRecords(job.id)).toHaveLength(10);
    });

    on.needs('raw')('lets its batch be FAILED', async () => {
      const { store, job, held } = await refusing();
      await saveAll(store, job, held);
      await complete(store, job.id, held.batchId, 'FAILED');
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ failedBatches: 1 });
      expect(await store.getProcessedRecords(job.id)).toHaveLength(9);
    });
  });

  on.needs('raw')('a batch that can not take the state rejects the call that sets it, and its records are stored', async () => {
    const own = await on.createEmpty();
    const store = new SqlxStateStore(own.url, { durability: 'batch' });
    onTestFinished(() => store.close().catch(() => {}));
    await store.initialize();
    const { job, held } = await claimed(store);
    const accept = await on.dialect.refuseBatches(own, `"status" = 'COMPLETED'`);
    await saveAll(store, job, held);
    await expect(complete(store, job.id, held.batchId)).rejects.toMatchObject({ retryable: false });
    expect(await store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 1 });
    expect(await store.getProcessedRecords(job.id)).toHaveLength(10);
    await accept();
    await complete(store, job.id, held.batchId);
    expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1 });
  });
});
