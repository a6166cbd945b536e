// Guarantees about who holds a batch: fencing, `renewBatch`, the options `leaseRenewal` and `maxClaims`.

import { describe, expect, test } from 'vitest';
import { makeJob, makeRecord, makeState } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, rejection } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const saved = async (batches, store = on.store) => {
    const job = makeJob(batches);
    await store.saveJobState(job);
    return job;
  };
  const batchOfJob = async (store, job, index = 0) => (await store.getJobState(job.id)).batches[index];
  /** A batch that the store `late` claimed, lost, and that the store `present` claimed then. */
  const lost = async (late, present) => {
    const job = await saved(3);
    const before = await claim(late, job.id, 'late');
    await on.backdate(job.id);
    expect(await present.reclaimStaleBatches(job.id, 60_000)).toBe(1);
    const now = await claim(present, job.id, 'present');
    expect(now.batchId).toBe(before.batchId);
    return { job, batchId: before.batchId, before: before.token, now: now.token };
  };

  describe('a store that lost its claim', () => {
    on.needs('shared')('can neither finish nor save, renew or give back the batch: LEASE_LOST, and nothing changes', async () => {
      const [late, present] = [await on.open(), await on.open()];
      const { job, batchId } = await lost(late, present);
      await present.saveProcessedRecord(job.id, batchId, makeRecord(0, { raw: 'present' }));
      const expected = [await present.getJobState(job.id), await collect(present.records(job.id))];

      const calls = [
        () => late.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)),
        () => late.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED', 0, 10)),
        () => late.saveProcessedRecord(job.id, batchId, makeRecord(0, { raw: 'late' })),
        () => late.saveProcessedRecord(job.id, batchId, makeRecord(1, { raw: 'late' })),
        () => late.renewBatch(job.id, batchId, 'late'),
        () => late.renewBatch(job.id, batchId, 'present'),
        () => late.releaseBatch(job.id, batchId, 'late'),
        () => late.releaseBatch(job.id, batchId, 'present'),
      ];
      // Twice: having been told changes nothing. Core reports FAILED after a save that was rejected.
      for (const call of [...calls, ...calls]) {
        const error = await rejection(call(), 'LEASE_LOST');
        expect(error.retryable).toBe(false);
        expect([await present.getJobState(job.id), await collect(present.records(job.id))]).toStrictEqual(expected);
      }
      await present.saveProcessedRecord(job.id, batchId, makeRecord(2));
      await complete(present, job.id, batchId);
      expect((await batchOfJob(present, job)).status).toBe('COMPLETED');
    });

    on.needs('shared')('learns so as soon as the batch was taken back, claimed again or not', async () => {
      const [late, other] = [await on.open(), await on.open()];
      const job = await saved(1);
      const { batchId } = await claim(late, job.id, 'late');
      await on.backdate(job.id);
      await other.reclaimStaleBatches(job.id, 60_000);
      await rejection(late.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
      await rejection(late.saveProcessedRecord(job.id, batchId, makeRecord(0)), 'LEASE_LOST');
      expect((await batchOfJob(late, job)).status).toBe('PENDING');
      expect(await collect(late.records(job.id))).toEqual([]);
    });

    on.needs('shared')('learns so after it gave the batch back itself', async () => {
      const store = await on.open();
      const job = await saved(1);
      const { batchId } = await claim(store, job.id, 'w');
      await store.releaseBatch(job.id, batchId, 'w');
      await rejection(store.saveProcessedRecord(job.id, batchId, makeRecord(0)), 'LEASE_LOST');
      await rejection(store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
      expect((await batchOfJob(store, job)).status).toBe('PENDING');
    });

    on.needs('shared')(
      'can’t finish the batch that its replacement already finished, and the job is not finalized under a worker',
      async () => {
        const [late, present] = [await on.open(), await on.open()];
        const { job, batchId } = await lost(late, present);
        for (const { id } of job.batches.slice(1)) await complete(present, job.id, id);
        await rejection(late.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
        expect(await late.tryFinalizeJob(job.id)).toBe(false);
        await present.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 9, 1));
        await rejection(late.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED', 0, 10)), 'LEASE_LOST');
        expect(await batchOfJob(present, job)).toMatchObject({ status: 'COMPLETED', processedCount: 9, failedCount: 1 });
        expect(await present.tryFinalizeJob(job.id)).toBe(true);
      },
    );

    on.needs('shared')('gets the batch again by claiming it again', async () => {
      const [late, present] = [await on.open(), await on.open()];
      const { job, batchId } = await lost(late, present);
      await present.releaseBatch(job.id, batchId, 'present');
      // Behind the batches that it has not seen yet, at the latest.
      const claimed = [];
      while (!claimed.includes(batchId)) claimed.push((await claim(late, job.id, 'late')).batchId);
      await late.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await complete(late, job.id, batchId);
      expect((await batchOfJob(late, job)).status).toBe('COMPLETED');
    });

    on.needs('shared')('is fenced off one batch, not off the others', async () => {
      const [late, present] = [await on.open(), await on.open()];
      const { job, batchId } = await lost(late, present);
      const held = await claim(late, job.id, 'late');
      const saves = Array.from({ length: 40 }, (_, n) =>
        n % 2
          ? late.saveProcessedRecord(job.id, held.batchId, makeRecord(n))
          : rejection(late.saveProcessedRecord(job.id, batchId, makeRecord(n)), 'LEASE_LOST'),
      );
      await Promise.all(saves);
      expect((await collect(on.store.records(job.id))).map(({ index }) => index)).toEqual(Array.from({ length: 20 }, (_, n) => 2 * n + 1));
    });

    on.needs('shared')('is fenced after it finished the batch, where that was opened again', async () => {
      const [early, present] = [await on.open(), await on.open()];
      const job = await saved(2);
      const { batchId } = await claim(early, job.id, 'early');
      await complete(early, job.id, batchId);
      await present.updateBatchState(job.id, batchId, makeState(batchId, 'PENDING'));
      expect(await claim(present, job.id, 'present')).toMatchObject({ batchId });
      await rejection(early.saveProcessedRecord(job.id, batchId, makeRecord(0)), 'LEASE_LOST');
      await rejection(early.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED', 0, 10)), 'LEASE_LOST');
      expect(await batchOfJob(present, job)).toMatchObject({ status: 'PROCESSING', workerId: 'present' });
    });

    on.needs('shared')('is fenced also where a second worker on it has the worker id of the first', async () => {
      const [late, present] = [await on.open(), await on.open()];
      const job = await saved(1);
      const { batchId } = await claim(late, job.id, 'same');
      await on.backdate(job.id);
      await present.reclaimStaleBatches(job.id, 60_000);
      await claim(present, job.id, 'same');
      await rejection(late.releaseBatch(job.id, batchId, 'same'), 'LEASE_LOST');
      await rejection(late.renewBatch(job.id, batchId, 'same'), 'LEASE_LOST');
      expect(await batchOfJob(present, job)).toMatchObject({ status: 'PROCESSING' });
    });
  });

  describe('a store that holds its claim', () => {
    test('saves, renews and finishes the batch', async () => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'w');
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'PROCESSING', 5, 0));
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0));
      expect(await on.store.renewBatch(job.id, batchId, 'w')).toBe(true);
      await complete(on.store, job.id, batchId);
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(1));
      expect((await batchOfJob(on.store, job)).status).toBe('COMPLETED');
      expect(await on.store.getBatchRecords(job.id, batchId)).toHaveLength(2);
    });

    test('keeps it through a saveJobState', async () => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'w');
      await on.store.saveJobState(job);
      await complete(on.store, job.id, batchId);
      expect((await batchOfJob(on.store, job)).status).toBe('COMPLETED');
    });
  });

  describe('a store that never claimed a batch', () => {
    on.needs('shared')('is not fenced', async () => {
      const [holder, other] = [await on.open(), await on.open()];
      const job = await saved(1);
      const { batchId } = await claim(holder, job.id, 'w');
      await other.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await other.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0));
      expect((await batchOfJob(holder, job)).status).toBe('COMPLETED');
    });
  });

  describe('an explicit token', () => {
    /** One store, two claims of one batch: the store's own last token is that of the second. */
    const twice = async () => {
      const job = await saved(1);
      const first = await claim(on.store, job.id, 'w1');
      await on.store.reclaimStaleBatches(job.id, await on.expire(job.id));
      const second = await claim(on.store, job.id, 'w2');
      return { job, batchId: first.batchId, first: { token: first.token }, second: { token: second.token } };
    };

    test('of a claim that is past is refused with LEASE_LOST, and nothing changes', async () => {
      const { job, batchId, first } = await twice();
      const expected = await on.store.getJobState(job.id);
      const calls = [
        () => on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0), first),
        () => on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), first),
        () => on.store.renewBatch(job.id, batchId, 'w1', first),
        () => on.store.renewBatch(job.id, batchId, 'w2', first),
      ];
      for (const call of calls) await rejection(call(), 'LEASE_LOST');
      expect(await on.store.getJobState(job.id)).toStrictEqual(expected);
      expect(await collect(on.store.records(job.id))).toEqual([]);
    });

    test('of the present claim is let through', async () => {
      const { job, batchId, second } = await twice();
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), second);
      expect(await on.store.renewBatch(job.id, batchId, 'w2', second)).toBe(true);
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0), second);
      expect((await batchOfJob(on.store, job)).status).toBe('COMPLETED');
      expect(await on.store.getBatchRecords(job.id, batchId)).toHaveLength(1);
    });

    test('of a claim that never was is refused', async () => {
      const { job, batchId, second } = await twice();
      for (const token of [second.token + 1, second.token + 2]) {
        await rejection(on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token }), 'LEASE_LOST');
      }
    });

    test('that is undefined is none', async () => {
      const { job, batchId } = await twice();
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: undefined });
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(1), {});
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(2), undefined);
      expect(await on.store.getBatchRecords(job.id, batchId)).toHaveLength(3);
    });

    on.needs('shared')('counts for a store that did not make the claim, and in place of its own', async () => {
      const [one, two] = [await on.open(), await on.open()];
      const { job, batchId, before, now } = await lost(one, two);
      await rejection(on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: before }), 'LEASE_LOST');
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token: now });
      await one.saveProcessedRecord(job.id, batchId, makeRecord(1), { token: now });
      await rejection(two.saveProcessedRecord(job.id, batchId, makeRecord(2), { token: before }), 'LEASE_LOST');
      expect(await two.getBatchRecords(job.id, batchId)).toHaveLength(2);
    });

    test('in saves that are written together rejects only its own', async () => {
      const { job, batchId, first, second } = await twice();
      await Promise.all(
        Array.from({ length: 60 }, (_, n) => {
          const save = on.store.saveProcessedRecord(job.id, batchId, makeRecord(n), n % 3 ? second : first);
          return n % 3 ? save : rejection(save, 'LEASE_LOST');
        }),
      );
      expect(await on.store.getBatchRecords(job.id, batchId)).toHaveLength(40);
    });
  });

  describe('ids that are written in another way, and that the collation takes for the same', () => {
    on.needs('caseInsensitiveIds')('belong to the same claim', async () => {
      const store = await on.open();
      const job = await saved(1, store);
      const jobId = job.id.toUpperCase();
      const { batchId } = await claim(store, jobId, 'w');
      await store.saveProcessedRecord(jobId, batchId, makeRecord(0));
      await store.saveProcessedRecord(jobId, batchId.toUpperCase(), makeRecord(1), { token: 1 });
      await rejection(store.saveProcessedRecord(jobId, batchId.toUpperCase(), makeRecord(2), { token: 3 }), 'LEASE_LOST');
      await complete(store, jobId, batchId);
      expect((await batchOfJob(store, job)).status).toBe('COMPLETED');
    });
  });

  describe('a call that waits for its turn', () => {
    on.needs('raw')('carries the claim of the moment at which it was made, not one that the store made since', async () => {
      const store = await on.open();
      const job = await saved(2, store);
      const { batchId } = await claim(store, job.id, 'w');
      const other = await on.begin();
      await other.query('update "batchactions_jobs" set "totalRecords" = 1 where "id" = ?', [job.id]);
      const saving = store.saveJobState(job);
      const updating = rejection(store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0)), 'LEASE_LOST');
      await other.query(
        `update "batchactions_batches" set "status" = 'PENDING', "workerId" = null, "version" = "version" + 1 where "id" = ?`,
        [batchId],
      );
      await other.query('commit');
      await saving;
      await updating;
      const found = await batchOfJob(store, job);
      expect(found.status).not.toBe('COMPLETED');
    });

    on.needs('raw')('does not complete a batch that the store claimed again meanwhile', async () => {
      const store = await on.open();
      // Nothing but its second batch is left to do.
      const job = makeJob(101);
      for (const batch of job.batches) batch.status = batch.index === 1 ? 'PENDING' : 'COMPLETED';
      await store.saveJobState(job);
      const held = await claim(store, job.id, 'w');
      // The job's row is locked, so that the save of the job waits, and with it the update. A claim waits for nothing: its list is not due.
      const other = on.has('rowLocks') ? await on.lockRows('jobs', '"id" = ?', [job.id]) : undefined;
      const saving = store.saveJobState(job);
      const updating = store.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'COMPLETED', 10, 0)).catch((error) => error);
      const taken = await on.connect();
      await taken.query(
        `update "batchactions_batches" set "status" = 'PENDING', "workerId" = null, "version" = "version" + 1
         where "id" = ? and "status" = 'PROCESSING'`,
        [held.batchId],
      );
      const [row] = await on.query('select "version", "status" from "batchactions_batches" where "id" = ?', [held.batchId]);
      const again = row.status === 'PENDING' ? await claim(store, job.id, 'w') : undefined;
      await other?.query('commit');
      await saving;
      const outcome = await updating;
      // On SQLite the update may have been first: there is one writer, and no row to lock.
      if (again === undefined) expect(outcome).toBeUndefined();
      else {
        expect(again).toMatchObject({ batchId: held.batchId, token: held.token + 2 });
        expect(outcome).toMatchObject({ code: 'LEASE_LOST' });
        expect(await on.row(held.batchId)).toMatchObject({ status: 'PROCESSING', version: again.token });
      }
    });
  });

  describe('a job that is made again under the id of an earlier one', () => {
    on.needs('raw')('is not fenced by the claims on that one, after the tables were emptied', async () => {
      for (const distributed of [true, undefined]) {
        const store = await on.open();
        const job = await saved(2, store);
        for (let round = 0; round < 2; round++) {
          const { batchId } = await claim(store, job.id, 'w');
          await store.releaseBatch(job.id, batchId, 'w');
        }
        await claim(store, job.id, 'w');
        for (const table of ['jobs', 'batches', 'records']) await on.query(`delete from "batchactions_${table}"`);

        await store.saveJobState({ ...job, distributed });
        await store.updateBatchState(job.id, job.batches[0].id, makeState(job.batches[0].id, 'PROCESSING'));
        await store.saveProcessedRecord(job.id, job.batches[0].id, makeRecord(0));
        await complete(store, job.id, job.batches[0].id);
        expect(await batchOfJob(store, job)).toMatchObject({ status: 'COMPLETED' });
        expect(await store.getBatchRecords(job.id, job.batches[0].id)).toHaveLength(1);
        if (distributed) expect(await claim(store, job.id, 'w')).toMatchObject({ batchIndex: 1, token: 1 });
      }
    });
  });

  describe('a claim made while saveJobState adds lower batches', () => {
    on.needs('rowLocks')('does not hide them from the store’s next claim', async () => {
      const store = await on.open();
      const job = makeJob(6);
      await store.saveJobState({ ...job, batches: job.batches.slice(4) });
      const other = await on.lockRows('jobs', '"id" = ?', [job.id]);
      const saving = store.saveJobState(job);
      // The rows are inserted, and not committed, once the save waits for the job's row.
      await on.untilOneWaits();
      const claiming = claim(store, job.id, 'w');
      await expect.poll(async () => (await on.row(job.batches[4].id)).status, { timeout: 60_000 }).toBe('PROCESSING');
      await other.query('commit');
      await saving;
      expect(await claiming).toMatchObject({ batchIndex: 4 });
      expect(await claim(store, job.id, 'w')).toMatchObject({ batchIndex: 0 });
    });
  });

  describe('maxClaims', () => {
    /** Claims the job's only batch, lets the claim go stale, and reclaims it. */
    const poison = async (store, job) => {
      await claim(store, job.id, 'w');
      const timeout = await on.expire(job.id);
      return store.reclaimStaleBatches(job.id, timeout);
    };

    test('makes a batch that went stale `maxClaims` times FAILED, and counts it as taken', async () => {
      const store = await on.open({ maxClaims: 3 });
      const job = await saved(1, store);
      expect(await poison(store, job)).toBe(1);
      expect((await batchOfJob(store, job)).status).toBe('PENDING');
      expect(await poison(store, job)).toBe(1);
      expect((await batchOfJob(store, job)).status).toBe('PENDING');
      expect(await poison(store, job)).toBe(1);
      expect((await batchOfJob(store, job)).status).toBe('FAILED');
    });

    test('of 1 allows one claim', async () => {
      const store = await on.open({ maxClaims: 1 });
      const job = await saved(2, store);
      expect(await poison(store, job)).toBe(1);
      expect((await batchOfJob(store, job)).status).toBe('FAILED');
      expect(await claim(store, job.id, 'w')).toMatchObject({ batchIndex: 1 });
    });

    test('does not keep the job open: with nothing else to do it is finalized as FAILED', async () => {
      const store = await on.open({ maxClaims: 1 });
      const job = await saved(2, store);
      await claim(store, job.id, 'w');
      await complete(store, job.id, job.batches[0].id);
      await poison(store, job);
      await store.reclaimStaleBatches(job.id, await on.expire(job.id));
      expect((await store.getJobState(job.id)).status).toBe('FAILED');
    });

    test('counts a claim that was given back, too', async () => {
      const store = await on.open({ maxClaims: 2 });
      const job = await saved(1, store);
      const { batchId } = await claim(store, job.id, 'w');
      await store.releaseBatch(job.id, batchId, 'w');
      expect((await batchOfJob(store, job)).status).toBe('PENDING');
      await poison(store, job);
      expect((await batchOfJob(store, job)).status).toBe('FAILED');
    });

    test('leaves a batch alone whose worker finishes it, or is still at it, whatever the number of claims', async () => {
      const store = await on.open({ maxClaims: 2 });
      const job = await saved(1, store);
      await poison(store, job);
      const { batchId } = await claim(store, job.id, 'w');
      expect(await store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      expect((await batchOfJob(store, job)).status).toBe('PROCESSING');
      await complete(store, job.id, batchId);
      expect((await batchOfJob(store, job)).status).toBe('COMPLETED');
    });

    test('is without limit where it is not given', async () => {
      const job = await saved(1);
      for (let n = 0; n < 6; n++) expect(await poison(on.store, job)).toBe(1);
      expect((await batchOfJob(on.store, job)).status).toBe('PENDING');
    });
  });
});
