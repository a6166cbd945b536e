// Guarantees of `pauseJob`, `resumeJob` and `abortJob`, alone and at once with workers and each other.

import { describe, expect, test } from 'vitest';
import { makeJob, makeLocalJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, prepare, rejection } from '../support/suite.mjs';

const FINAL = ['COMPLETED', 'ABORTED', 'FAILED'];

onEveryDatabase((on) => {
  const saved = async (batches = 3, fields) => {
    const job = makeJob(batches, fields);
    await on.store.saveJobState(job);
    return job;
  };
  const status = async (job) => (await on.store.getJobState(job.id)).status;
  const states = async (job) => (await on.store.getJobState(job.id)).batches.map((batch) => batch.status);
  /** A job that one process works on, as the engine stores it. */
  const local = (fields) => saved(2, { distributed: undefined, ...fields });
  const isRecent = (time) => expect(Math.abs(Date.now() - time)).toBeLessThan(60_000);

  describe('pauseJob', () => {
    test('keeps batches from being claimed until resumeJob, each true once', async () => {
      const job = await saved();
      expect(await on.store.pauseJob(job.id)).toBe(true);
      expect(await on.store.pauseJob(job.id)).toBe(false);
      expect(await status(job)).toBe('PAUSED');
      expect(await on.store.claimBatch(job.id, 'w')).toEqual({ claimed: false, reason: 'JOB_NOT_PROCESSING' });
      expect(await on.store.resumeJob(job.id)).toBe(true);
      expect(await on.store.resumeJob(job.id)).toBe(false);
      await claim(on.store, job.id);
    });

    test('changes the status and nothing else', async () => {
      const job = await saved(3, { completedAt: 1_800_000_000_000 });
      await on.store.pauseJob(job.id);
      expect(await on.store.getJobState(job.id)).toStrictEqual({ ...job, status: 'PAUSED' });
    });

    test('lets what is claimed be saved and completed', async () => {
      const job = await saved();
      const { batchId, token } = await claim(on.store, job.id);
      await on.store.pauseJob(job.id);
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token });
      expect(await on.store.renewBatch(job.id, batchId, 'worker', { token })).toBe(true);
      await complete(on.store, job.id, batchId);
      expect(await states(job)).toEqual(['COMPLETED', 'PENDING', 'PENDING']);
      expect(await on.store.getBatchRecords(job.id, batchId)).toHaveLength(1);
    });

    test.each([...FINAL, 'PAUSED', 'CREATED', 'PREVIEWING', 'PREVIEWED'])('leaves a job that is %s as it is', async (before) => {
      const job = await saved(2, { status: before, completedAt: 1_800_000_000_000 });
      const stored = await on.store.getJobState(job.id);
      expect(await on.store.pauseJob(job.id)).toBe(false);
      expect(await on.store.getJobState(job.id)).toStrictEqual(stored);
    });

    test('is false for an unknown job', async () => {
      expect(await on.store.pauseJob(newId())).toBe(false);
    });
  });

  describe('resumeJob', () => {
    test.each([
      ['COMPLETED', 'COMPLETED'],
      ['FAILED', 'FAILED'],
    ])('makes a job whose last batch became %s meanwhile %s, with an exact list', async (last, end) => {
      const job = await saved(2);
      const [first, second] = [await claim(on.store, job.id), await claim(on.store, job.id)];
      await complete(on.store, job.id, first.batchId);
      await on.store.pauseJob(job.id);
      await complete(on.store, job.id, second.batchId, last);
      // The worker can't finalize a job that is paused.
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect(await on.store.resumeJob(job.id)).toBe(true);
      const { completedAt, ...state } = await on.store.getJobState(job.id);
      expect(state.status).toBe(end);
      isRecent(completedAt);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
    });

    test('makes a large job that became complete final with an exact list', async () => {
      const job = await saved(300);
      await on.store.pauseJob(job.id);
      for (const { id } of job.batches) await complete(on.store, job.id, id);
      expect(await on.store.resumeJob(job.id)).toBe(true);
      expect(await status(job)).toBe('COMPLETED');
      if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
    });

    test('makes a job without batches COMPLETED', async () => {
      const job = await saved(0);
      await on.store.pauseJob(job.id);
      expect(await on.store.resumeJob(job.id)).toBe(true);
      expect(await status(job)).toBe('COMPLETED');
    });

    test.each([...FINAL, 'PROCESSING', 'CREATED'])('leaves a job that is %s as it is', async (before) => {
      const job = await saved(2, { status: before, completedAt: 1_800_000_000_000 });
      const stored = await on.store.getJobState(job.id);
      expect(await on.store.resumeJob(job.id)).toBe(false);
      expect(await on.store.getJobState(job.id)).toStrictEqual(stored);
    });

    test('is false for an unknown job', async () => {
      expect(await on.store.resumeJob(newId())).toBe(false);
    });
  });

  describe('abortJob', () => {
    test.each(['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED'])('makes a job that is %s ABORTED, now', async (before) => {
      const job = await saved(2, { status: before });
      expect(await on.store.abortJob(job.id)).toBe(true);
      const { completedAt, ...state } = await on.store.getJobState(job.id);
      expect(state).toStrictEqual({ ...job, status: 'ABORTED' });
      isRecent(completedAt);
      expect(await on.store.claimBatch(job.id, 'w')).toEqual({ claimed: false, reason: 'JOB_NOT_PROCESSING' });
      expect(await on.store.resumeJob(job.id)).toBe(false);
    });

    test.each(FINAL)('leaves a job that is %s as it is', async (before) => {
      const job = await saved(2, { status: before, completedAt: 1_800_000_000_000 });
      for (const options of [undefined, {}, { now: true }, { force: true }]) {
        expect(await on.store.abortJob(job.id, options)).toBe(false);
      }
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });

    test('is false for an unknown job', async () => {
      expect(await on.store.abortJob(newId(), { now: true, force: true })).toBe(false);
    });

    test('lets what is claimed be saved and completed', async () => {
      const job = await saved();
      const { batchId, token } = await claim(on.store, job.id);
      await on.store.abortJob(job.id);
      // Another worker of the store hears that the job is aborted; the first one's claim stays fenced.
      expect((await on.store.claimBatch(job.id, 'other')).claimed).toBe(false);
      expect(await states(job)).toEqual(['PROCESSING', 'PENDING', 'PENDING']);
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0), { token });
      await complete(on.store, job.id, batchId);
      expect(await states(job)).toEqual(['COMPLETED', 'PENDING', 'PENDING']);
      expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      expect(await status(job)).toBe('ABORTED');
    });

    describe('with now', () => {
      test('takes the claimed batches from their workers, whose next calls reject with LEASE_LOST', async () => {
        const job = await saved(4);
        const [first, second, paused] = [await claim(on.store, job.id), await claim(on.store, job.id), await claim(on.store, job.id)];
        await complete(on.store, job.id, first.batchId);
        await on.store.updateBatchState(job.id, paused.batchId, makeState(paused.batchId, 'PAUSED'));
        expect(await on.store.abortJob(job.id, { now: true })).toBe(true);

        const { batches } = await on.store.getJobState(job.id);
        expect(batches.map((batch) => batch.status)).toEqual(['COMPLETED', 'PENDING', 'PENDING', 'PENDING']);
        for (const batch of batches.slice(1)) {
          expect(batch).not.toHaveProperty('workerId');
          expect(batch).not.toHaveProperty('claimedAt');
        }
        if (on.has('raw')) {
          expect(await on.behind(job.id)).toEqual([]);
          expect((await on.rows(job.id)).map(({ version }) => version)).toEqual([1, 2, 2, 0]);
        }
        // Also after the store has heard that the job is final.
        expect((await on.store.claimBatch(job.id, 'other')).claimed).toBe(false);
        for (const { batchId, token } of [second, paused]) {
          await rejection(on.store.saveProcessedRecord(job.id, batchId, makeRecord(batchId === second.batchId ? 10 : 20)), 'LEASE_LOST');
          await rejection(on.store.renewBatch(job.id, batchId, 'worker', { token }), 'LEASE_LOST');
          await rejection(complete(on.store, job.id, batchId), 'LEASE_LOST');
          await rejection(on.store.releaseBatch(job.id, batchId, 'worker'), 'LEASE_LOST');
        }
        expect((await states(job)).slice(1)).toEqual(['PENDING', 'PENDING', 'PENDING']);
        expect(await on.store.getBatchRecords(job.id, second.batchId)).toEqual([]);
      });

      test('takes what is still claimed of a job that was aborted without it, and is false', async () => {
        const job = await saved(2);
        const { batchId } = await claim(on.store, job.id);
        await on.store.abortJob(job.id);
        const { completedAt } = await on.store.getJobState(job.id);
        expect(await on.store.abortJob(job.id, { now: true })).toBe(false);
        expect(await states(job)).toEqual(['PENDING', 'PENDING']);
        expect((await on.store.getJobState(job.id)).completedAt).toBe(completedAt);
        await rejection(complete(on.store, job.id, batchId), 'LEASE_LOST');
      });

      test('takes nothing of a job that is final otherwise', async () => {
        const job = await saved(2);
        await claim(on.store, job.id);
        await on.store.saveJobState({ ...job, status: 'FAILED', completedAt: 1_800_000_000_000 });
        expect(await on.store.abortJob(job.id, { now: true })).toBe(false);
        expect(await states(job)).toEqual(['PROCESSING', 'PENDING']);
      });

      test('leaves other jobs alone', async () => {
        const [job, other] = [await saved(2), await saved(2)];
        const { batchId } = await claim(on.store, other.id);
        await on.store.abortJob(job.id, { now: true });
        await complete(on.store, other.id, batchId);
        expect(await states(other)).toEqual(['COMPLETED', 'PENDING']);
      });

      on.needs('rowLocks')('waits for a claim that is being made, and takes it', async () => {
        const job = await saved(3);
        // A claim that looked at the job before it is aborted, and commits afterwards.
        const worker = await on.begin();
        await worker.query(
          `update "batchactions_batches" set "status" = 'PROCESSING', "workerId" = 'slow', "claimedAt" = 1, "version" = "version" + 1 where "id" = ?`,
          [job.batches[1].id],
        );
        const aborting = on.store.abortJob(job.id, { now: true });
        await on.untilOneWaits();
        await worker.query('commit');
        expect(await aborting).toBe(true);
        expect(await states(job)).toEqual(['PENDING', 'PENDING', 'PENDING']);
        expect((await on.row(job.batches[1].id)).version).toBe(2);
      });

      on.needs('rowLocks', '!claimSteps')('waits for a claim that has looked at the job and has not locked its batch yet', async () => {
        const job = await saved(3);
        const worker = await on.begin();
        await worker.query('lock table "batchactions_batches" in row exclusive mode');
        const aborting = on.store.abortJob(job.id, { now: true });
        const another = await on.open();
        while ((await another.getJobState(job.id)).status !== 'ABORTED');
        await worker.query(
          `update "batchactions_batches" set "status" = 'PROCESSING', "workerId" = 'slow', "claimedAt" = 1, "version" = "version" + 1 where "id" = ?`,
          [job.batches[1].id],
        );
        await worker.query('commit');
        expect(await aborting).toBe(true);
        expect(await states(job)).toEqual(['PENDING', 'PENDING', 'PENDING']);
        expect((await on.row(job.batches[1].id)).version).toBe(2);
      });
    });

    describe('of a job that is not distributed', () => {
      test('ends it with force, at the database’s now', async () => {
        const job = await local();
        expect(await on.store.abortJob(job.id, { force: true })).toBe(true);
        const { completedAt, ...state } = await on.store.getJobState(job.id);
        expect(state).toStrictEqual({ ...job, status: 'ABORTED' });
        isRecent(completedAt);
      });

      test('ends what is queued by this store too', async () => {
        const store = await on.open({ durability: 'batch' });
        const job = makeLocalJob(2);
        await store.saveJobState(job);
        expect(await store.abortJob(job.id, { force: true, now: true })).toBe(true);
        expect(await store.getJobState(job.id)).toMatchObject({ status: 'ABORTED', completedAt: expect.any(Number) });
      });
    });
  });

  describe('a job that is not distributed', () => {
    test.each([
      ['pauseJob', 'PROCESSING'],
      ['resumeJob', 'PAUSED'],
      ['abortJob', 'PROCESSING'],
    ])('is refused by %s, which says that its process would overwrite the status', async (method, before) => {
      const job = await local({ status: before });
      const error = await rejection(on.store[method](job.id), 'INVALID_ARGUMENT');
      expect(error.message).toMatch(/not distributed/);
      expect(error.message).toMatch(/overwrite/);
      expect(error.message).toContain(job.id);
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });
  });

  describe('at once', () => {
    /** A store each, where the database can have several. */
    const stores = async (number) =>
      on.has('shared') ? Promise.all(Array.from({ length: number }, () => on.open())) : Array(number).fill(on.store);

    test.each(['pauseJob', 'abortJob'])('%s is true for one of many callers', async (method) => {
      const job = await saved();
      const answers = await Promise.all((await stores(6)).map((store) => store[method](job.id)));
      expect(answers.filter(Boolean)).toHaveLength(1);
    });

    test('resumeJob is true for one of many callers, and no batch is lost', async () => {
      const job = await saved();
      await on.store.pauseJob(job.id);
      const answers = await Promise.all((await stores(6)).map((store) => store.resumeJob(job.id)));
      expect(answers.filter(Boolean)).toHaveLength(1);
      expect(await status(job)).toBe('PROCESSING');
    });

    test('of pauseJob and abortJob the abort stays', async () => {
      for (let round = 0; round < 10; round++) {
        const job = await saved();
        const [a, b] = await stores(2);
        const [, aborted] = await Promise.all([a.pauseJob(job.id), b.abortJob(job.id)]);
        expect(aborted).toBe(true);
        expect(await status(job)).toBe('ABORTED');
      }
    });

    test('abortJob and tryFinalizeJob: one of them ends the job, and its status is that one’s', async () => {
      for (let round = 0; round < 10; round++) {
        const job = await saved(2);
        for (const { id } of job.batches) await complete(on.store, job.id, id);
        const [a, b] = await stores(2);
        const [aborted, finalized] = await Promise.all([a.abortJob(job.id), b.tryFinalizeJob(job.id)]);
        expect([aborted, finalized].filter(Boolean)).toHaveLength(1);
        expect(await status(job)).toBe(aborted ? 'ABORTED' : 'COMPLETED');
      }
    });

    test('the last batch completes while the job is paused and resumed: the job becomes final', async () => {
      for (let round = 0; round < 15; round++) {
        const job = await saved(1);
        const [worker, operator] = await stores(2);
        const { batchId } = await claim(worker, job.id);
        await operator.pauseJob(job.id);
        const work = async () => {
          await complete(worker, job.id, batchId);
          return worker.tryFinalizeJob(job.id);
        };
        const [finalized, resumed] = await Promise.all([work(), operator.resumeJob(job.id)]);
        expect(resumed).toBe(true);
        const end = await on.store.getJobState(job.id);
        // Either the resume found the job complete, or the worker found it PROCESSING.
        expect(end).toMatchObject({ status: 'COMPLETED', completedAt: expect.any(Number) });
        expect(typeof finalized).toBe('boolean');
        expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      }
    });

    test('abortJob with now and claims: no batch is claimed once it has returned', async () => {
      for (let round = 0; round < 10; round++) {
        const job = await saved(40);
        const [operator, ...workers] = await stores(5);
        // Until the job is aborted.
        const work = async (store, name) => {
          const held = [];
          for (;;) {
            const { claimed, reservation } = await store.claimBatch(job.id, name);
            if (!claimed) return held;
            held.push(reservation);
          }
        };
        const working = workers.map((store, number) => work(store, `w${number}`));
        // Somewhere in the middle, or at the end where the workers were faster.
        await on.store.claimBatch(job.id, 'worker');
        expect(await operator.abortJob(job.id, { now: true })).toBe(true);
        const after = await on.store.getDistributedStatus(job.id);
        const held = (await Promise.all(working)).flat();
        expect(after.processingBatches).toBe(0);
        expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 0, pendingBatches: 40 });
        for (const { batchId, token } of held.slice(0, 3)) {
          const update = on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED'), { token });
          await rejection(update, 'LEASE_LOST');
        }
        if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
      }
    });

    on.needs('raw')('abortJob with now and claims that walk over many finished batches: no claim survives it', async () => {
      const [number, open] = [5_000, 60];
      // By the abort, for longer than a claim waits.
      const allLocked = (error) => {
        expect(error).toMatchObject({ code: 'CONFLICT' });
        return { claimed: false };
      };
      const job = await saved(number);
      const finish = `update "batchactions_batches" set "status" = 'COMPLETED' where "jobId" = ? and "batchIndex" < ?`;
      await on.query(finish, [job.id, number - open]);
      for (let round = 0; round < 4; round++) {
        await on.query(`update "batchactions_jobs" set "status" = 'PROCESSING', "completedAt" = null where "id" = ?`, [job.id]);
        // New stores, which look for the first PENDING batch from the beginning.
        const [operator, ...workers] = await stores(7);
        const work = async (store, name) => {
          const claims = [];
          for (let n = 0; n < 4; n++) claims.push(await store.claimBatch(job.id, name).catch(allLocked));
          return claims;
        };
        const working = workers.map((store, n) => work(store, `w${n}`));
        await new Promise((resolve) => setTimeout(resolve, round * 4));
        expect(await operator.abortJob(job.id, { now: true })).toBe(true);
        const made = (await Promise.all(working)).flat().filter(({ claimed }) => claimed);
        expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ processingBatches: 0, pendingBatches: open });
        for (const { reservation } of made) {
          const renewal = on.store.renewBatch(job.id, reservation.batchId, reservation.workerId, { token: reservation.token });
          await rejection(renewal, 'LEASE_LOST');
        }
        for (const store of on.has('shared') ? [operator, ...workers] : []) await store.close();
      }
    });

    test('workers process a job once while it is paused and resumed all the time', async () => {
      const job = makeJob(40, { size: 1 });
      await prepare(on.store, job);
      const [operator, ...workers] = await stores(4);
      const processed = [];
      let finalized = 0;
      const isOver = async () => FINAL.includes(await status(job));
      const work = async (store, name) => {
        while (!(await isOver())) {
          const { claimed, reservation } = await store.claimBatch(job.id, name);
          if (!claimed) continue;
          const { batchId, recordStartIndex } = reservation;
          await store.saveProcessedRecord(job.id, batchId, makeRecord(recordStartIndex));
          await store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 1));
          processed.push(batchId);
          if (await store.tryFinalizeJob(job.id)) finalized++;
        }
      };
      const steer = async () => {
        while (!(await isOver())) {
          await operator.pauseJob(job.id);
          await operator.resumeJob(job.id);
        }
      };
      await Promise.all([...workers.map((store, number) => work(store, `w${number}`)), steer()]);
      expect(processed.toSorted()).toEqual(job.batches.map(({ id }) => id).toSorted());
      expect(finalized).toBeLessThanOrEqual(1);
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'COMPLETED', completedAt: expect.any(Number) });
      expect(await on.store.getProgress(job.id)).toMatchObject({ processedRecords: 40 });
    });
  });
});
