// claimBatch and releaseBatch: who gets which batch, and when.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';
import { claimPatiently } from '../support/work.mjs';

const none = (reason) => ({ claimed: false, reason });

onEveryDatabase((on) => {
  const saved = async (batches, fields) => {
    const job = makeJob(batches, fields);
    await on.store.saveJobState(job);
    return job;
  };
  const statusOf = async (store, jobId) => (await store.getJobState(jobId)).batches.map(({ status }) => status);

  describe('claimBatch', () => {
    test('gives a reservation of the batch, and no other key', async () => {
      const job = await saved(2);
      const before = Date.now();
      const result = await on.store.claimBatch(job.id, 'worker-1');
      expect(result).toStrictEqual({
        claimed: true,
        reservation: {
          jobId: job.id,
          batchId: job.batches[0].id,
          batchIndex: 0,
          workerId: 'worker-1',
          claimedAt: expect.any(Number),
          recordStartIndex: 0,
          recordEndIndex: 9,
          token: 1,
        },
      });
      // The database's clock, which here is that of this machine.
      expect(result.reservation.claimedAt).toBeGreaterThanOrEqual(before - 1_000);
      expect(result.reservation.claimedAt).toBeLessThanOrEqual(Date.now() + 1_000);
      expect(Number.isInteger(result.reservation.claimedAt)).toBe(true);
    });

    test('makes the batch PROCESSING, with its worker and the time', async () => {
      const job = await saved(2);
      const { claimedAt } = await claim(on.store, job.id, 'worker-1');
      expect((await on.store.getJobState(job.id)).batches).toStrictEqual([
        { ...job.batches[0], status: 'PROCESSING', workerId: 'worker-1', claimedAt },
        job.batches[1],
      ]);
    });

    on.needs('raw')('writes worker, time and version to the row; the token is the version', async () => {
      const job = await saved(1);
      const reservation = await claim(on.store, job.id, 'worker-1');
      expect(await on.row(reservation.batchId)).toMatchObject({
        status: 'PROCESSING',
        workerId: 'worker-1',
        claimedAt: reservation.claimedAt,
        version: reservation.token,
      });
    });

    on.needs('raw')('takes the time from the database’s clock', async () => {
      const now = async () => (await on.query(on.dialect.clock))[0].now;
      const job = await saved(1);
      const before = await now();
      const { claimedAt } = await claim(on.store, job.id);
      expect(claimedAt).toBeGreaterThanOrEqual(before - 1);
      expect(claimedAt).toBeLessThanOrEqual((await now()) + 1);
    });

    test('gives the lowest index first, whatever the order in which the batches were saved', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(0, { id, batches: [3, 1, 4, 0, 2].map((index) => makeBatch(id, index)) }));
      const order = [];
      for (let n = 0; n < 5; n++) order.push((await claim(on.store, id)).batchIndex);
      expect(order).toEqual([0, 1, 2, 3, 4]);
    });

    test('gives the lowest index first, also where a lower one was given back', async () => {
      const job = await saved(5);
      for (let n = 0; n < 3; n++) await claim(on.store, job.id, 'w');
      await on.store.releaseBatch(job.id, job.batches[1].id, 'w');
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 1 });
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 3 });
    });

    test('gives the lowest index first, also where a lower one was reopened or reclaimed', async () => {
      const job = await saved(5);
      for (let n = 0; n < 3; n++) await claim(on.store, job.id, 'w');
      for (const { id } of job.batches.slice(1, 3)) await complete(on.store, job.id, id);
      await on.store.updateBatchState(job.id, job.batches[2].id, makeState(job.batches[2].id, 'PENDING'));
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 2 });
      await on.store.reclaimStaleBatches(job.id, await on.expire(job.id));
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 0 });
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 2 });
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 3 });
    });

    test('finds indexes of any sign, with gaps', async () => {
      const id = newId();
      await on.store.saveJobState(
        makeJob(0, {
          id,
          batches: [-7, 0, 90, 2147483647].map((index) => makeBatch(id, index, { recordStartIndex: 0, recordEndIndex: 9 })),
        }),
      );
      const order = [];
      for (let n = 0; n < 4; n++) order.push((await claim(on.store, id)).batchIndex);
      expect(order).toEqual([-7, 0, 90, 2147483647]);
      expect(await on.store.claimBatch(id, 'w')).toEqual(none('NO_PENDING_BATCHES'));
    });

    on.needs('shared')('finds a batch that another store gave back, at the latest when nothing higher is left', async () => {
      const other = await on.open();
      const job = await saved(4);
      const first = await claim(other, job.id, 'other');
      await claim(on.store, job.id, 'w');
      await claim(on.store, job.id, 'w');
      await other.releaseBatch(job.id, first.batchId, 'other');
      const rest = [(await claim(on.store, job.id, 'w')).batchIndex, (await claim(on.store, job.id, 'w')).batchIndex];
      expect(rest.sort()).toEqual([0, 3]);
      expect(await on.store.claimBatch(job.id, 'w')).toEqual(none('NO_PENDING_BATCHES'));
    });

    on.needs('raw')('finds a batch that was reopened past the store', async () => {
      const job = await saved(2);
      for (const { id } of job.batches) {
        await claim(on.store, job.id);
        await complete(on.store, job.id, id);
      }
      expect(await on.store.claimBatch(job.id, 'w')).toEqual(none('NO_PENDING_BATCHES'));
      await on.query(`update "batchactions_batches" set "status" = 'PENDING' where "id" = ?`, [job.batches[0].id]);
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 0 });
    });

    test('says JOB_NOT_FOUND where there is no such job', async () => {
      expect(await on.store.claimBatch(newId(), 'w')).toStrictEqual(none('JOB_NOT_FOUND'));
    });

    test.each(['CREATED', 'PREVIEWING', 'PREVIEWED', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'])(
      'says JOB_NOT_PROCESSING where the job is %s, and takes nothing',
      async (status) => {
        const job = await saved(1, { status });
        expect(await on.store.claimBatch(job.id, 'w')).toStrictEqual(none('JOB_NOT_PROCESSING'));
        expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ pendingBatches: 1 });
        await on.store.saveJobState({ ...job, status: 'PROCESSING' });
        await claim(on.store, job.id);
      },
    );

    test('says NO_PENDING_BATCHES where none is PENDING', async () => {
      const id = newId();
      await on.store.saveJobState(
        makeJob(0, { id, batches: ['PAUSED', 'COMPLETED', 'FAILED'].map((status, index) => makeBatch(id, index, { status })) }),
      );
      expect(await on.store.claimBatch(id, 'w')).toStrictEqual(none('NO_PENDING_BATCHES'));
      const empty = await saved(0);
      expect(await on.store.claimBatch(empty.id, 'w')).toStrictEqual(none('NO_PENDING_BATCHES'));
    });

    test('gives the batches of the job that was named', async () => {
      const [one, two] = [await saved(1), await saved(1)];
      expect(await claim(on.store, two.id)).toMatchObject({ jobId: two.id, batchId: two.batches[0].id });
      expect(await on.store.claimBatch(two.id, 'w')).toEqual(none('NO_PENDING_BATCHES'));
      expect(await claim(on.store, one.id)).toMatchObject({ jobId: one.id, batchId: one.batches[0].id });
    });

    test('gives each of many calls that are not awaited a batch of its own', async () => {
      const job = await saved(60);
      const results = await Promise.all(Array.from({ length: 70 }, (_, n) => claimPatiently(on.store, job.id, `w${n}`)));
      const taken = results.filter(({ claimed }) => claimed).map(({ reservation }) => reservation.batchIndex);
      expect(taken.toSorted((a, b) => a - b)).toEqual(job.batches.map(({ index }) => index));
      expect(results.filter(({ claimed }) => !claimed)).toEqual(Array(10).fill(none('NO_PENDING_BATCHES')));
    });

    test.each([
      ['ASCII', 'w'],
      ['emoji', '😀'],
    ])('takes worker ids of up to 128 characters of %s, and refuses a longer one with VALUE_TOO_LONG', async (_, unit) => {
      const job = await saved(1);
      await rejection(on.store.claimBatch(job.id, unit.repeat(129)), 'VALUE_TOO_LONG');
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ pendingBatches: 1 });
      const workerId = unit.repeat(128);
      expect(await claim(on.store, job.id, workerId)).toMatchObject({ workerId });
      expect((await on.store.getJobState(job.id)).batches[0].workerId).toBe(workerId);
      await on.store.releaseBatch(job.id, job.batches[0].id, workerId);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ pendingBatches: 1 });
    });

    const rowLock = on.needs('rowLocks');
    const locked = (job) => on.lockRows('batches', '"jobId" = ?', [job.id]);

    rowLock('waits for the only PENDING batch while another transaction has it locked, and claims it', async () => {
      // It waits for a second, in which a busy machine may not get to the end of the lock.
      for (let attempt = 0, waited = false; !waited; attempt++) {
        const job = await saved(1);
        const holder = await locked(job);
        const began = performance.now();
        const claiming = on.store.claimBatch(job.id, 'w').catch((error) => error);
        await sleep(300);
        await holder.query('rollback');
        // Known to be in time only once it is over, and only where enough of the second was left for another try.
        const late = performance.now() - began >= 500;
        const result = await claiming;
        waited = result.claimed === true;
        if (waited) expect(result.reservation).toMatchObject({ batchIndex: 0 });
        else
          expect({ late, attempt, code: result.code }).toEqual({ late: true, attempt: expect.toSatisfy((n) => n < 20), code: 'CONFLICT' });
      }
    });

    rowLock('does not say NO_PENDING_BATCHES while the only PENDING batch is locked: after a second it rejects with CONFLICT', async () => {
      const job = await saved(1);
      const holder = await locked(job);
      const error = await rejection(on.store.claimBatch(job.id, 'w'), 'CONFLICT');
      expect(error.retryable).toBe(true);
      await holder.query('rollback');
      await claim(on.store, job.id);
    });

    rowLock('passes over a batch that another transaction has locked', async () => {
      const job = await saved(2);
      const holder = await on.lockRows('batches', '"id" = ?', [job.batches[0].id]);
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 1 });
      await holder.query('rollback');
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 0 });
    });

    on.needs('raw', '!rowLocks')('waits while another connection writes', async () => {
      const job = await saved(1);
      const holder = await on.begin();
      const claiming = claim(on.store, job.id);
      await sleep(300);
      await holder.query('rollback');
      expect(await claiming).toMatchObject({ batchIndex: 0 });
    });
  });

  describe('releaseBatch', () => {
    test('gives a batch back where the worker holds it', async () => {
      const job = await saved(2);
      const { batchId, token } = await claim(on.store, job.id, 'w1');
      expect(await on.store.releaseBatch(job.id, batchId, 'w1')).toBeUndefined();
      expect(await statusOf(on.store, job.id)).toEqual(['PENDING', 'PENDING']);
      const again = await claim(on.store, job.id, 'w2');
      expect(again).toMatchObject({ batchId, workerId: 'w2' });
      expect(again.token).toBeGreaterThan(token);
    });

    on.needs('raw')('adds 1 to the version', async () => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'w');
      await on.store.releaseBatch(job.id, batchId, 'w');
      expect(await on.row(batchId)).toMatchObject({ status: 'PENDING', version: 2 });
    });

    test('changes nothing where another worker holds the batch: worker ids are compared exactly', async () => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'worker');
      for (const other of ['Worker', 'worker ', ' worker', 'wörker', 'worker\u0301', 'WORKER', 'other', '']) {
        // Whether an empty worker id is an error is not this test's matter.
        await on.store.releaseBatch(job.id, batchId, other).catch(() => {});
        expect(await statusOf(on.store, job.id)).toEqual(['PROCESSING']);
      }
      await on.store.releaseBatch(job.id, batchId, 'worker');
      expect(await statusOf(on.store, job.id)).toEqual(['PENDING']);
    });

    test.each(['COMPLETED', 'FAILED', 'PAUSED'])('does not reopen a batch that is %s', async (status) => {
      const job = await saved(1);
      const { batchId } = await claim(on.store, job.id, 'w');
      await on.store.updateBatchState(job.id, batchId, makeState(batchId, status, 3, 1));
      await on.store.releaseBatch(job.id, batchId, 'w');
      expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status, processedCount: 3, failedCount: 1 });
    });

    test('resolves where there is no such job or batch, or the batch is not claimed, and changes nothing', async () => {
      const [job, other] = [await saved(1), await saved(1)];
      const { batchId } = await claim(on.store, other.id, 'w');
      await on.store.releaseBatch(newId(), batchId, 'w');
      await on.store.releaseBatch(job.id, newId('batch'), 'w');
      await on.store.releaseBatch(job.id, batchId, 'w');
      await on.store.releaseBatch(job.id, job.batches[0].id, 'w');
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
      expect(await statusOf(on.store, other.id)).toEqual(['PROCESSING']);
    });
  });
});
