// Guarantees of `listJobs`, `deleteJob` and `close`.

import { describe, expect, test } from 'vitest';
import { makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, SqlxStateStore } from '../support/suite.mjs';

/** A job as `listJobs` gives it. */
const summary = (job) => Object.fromEntries(Object.entries(job).filter(([key]) => key !== 'batches'));

onEveryDatabase((on) => {
  describe('listJobs', () => {
    /** A store on a database without any other job. */
    const alone = async (jobs) => {
      const { url } = await on.createEmpty();
      const store = new SqlxStateStore(url);
      await store.initialize();
      for (const job of jobs) await store.saveJobState(job);
      return store;
    };
    const pages = async (store, options) => {
      const all = [];
      for (let page = await store.listJobs(options); page.length > 0; page = await store.listJobs({ ...options, after: page.at(-1) }))
        all.push(page);
      return all;
    };

    test('gives the jobs without their batches, the newest startedAt first and those without one last', async () => {
      const jobs = [3, 1, undefined, 2, 5, 4].map((startedAt, n) => makeJob(n, { startedAt, distributed: n % 2 ? true : undefined }));
      const store = await alone(jobs);
      try {
        const found = await store.listJobs();
        expect(found).toStrictEqual([4, 5, 0, 3, 1, 2].map((n) => summary(jobs[n])));
        for (const job of found) expect(job).not.toHaveProperty('batches');
        expect(found.at(-1)).not.toHaveProperty('startedAt');
        expect(await store.listJobs({})).toStrictEqual(found);
        expect(await store.listJobs({ status: undefined, limit: undefined, after: undefined })).toStrictEqual(found);
      } finally {
        await store.close();
      }
    });

    test('gives an empty list where there are none', async () => {
      const store = await alone([]);
      expect(await store.listJobs()).toEqual([]);
      await store.close();
    });

    test('selects by status', async () => {
      const statuses = ['COMPLETED', 'PROCESSING', 'COMPLETED', 'FAILED'];
      const jobs = statuses.map((status, n) =>
        makeJob(0, { status, startedAt: 1_000 + n, completedAt: status === 'COMPLETED' ? 5_000 : undefined }),
      );
      const store = await alone(jobs);
      expect(await store.listJobs({ status: 'COMPLETED' })).toStrictEqual([summary(jobs[2]), summary(jobs[0])]);
      expect(await store.listJobs({ status: 'PAUSED' })).toEqual([]);
      await store.close();
    });

    test('gives every job once, page by page, where many have one startedAt or none', async () => {
      const times = [7, 7, 7, undefined, undefined, 9, 9, 7, undefined, 3, 7, undefined, 9];
      const jobs = times.map((startedAt, n) => makeJob(0, { startedAt, status: n % 3 ? 'PROCESSING' : 'PAUSED' }));
      const store = await alone(jobs);
      for (const limit of [1, 2, 3, 5, 12, 13, 14]) {
        const found = await pages(store, { limit });
        expect(found.map((page) => page.length).slice(0, -1)).toEqual(Array(found.length - 1).fill(limit));
        expect(
          found
            .flat()
            .map(({ id }) => id)
            .toSorted(),
        ).toEqual(jobs.map(({ id }) => id).toSorted());
        expect(found.flat().map(({ startedAt }) => startedAt)).toEqual([
          9,
          9,
          9,
          7,
          7,
          7,
          7,
          7,
          3,
          undefined,
          undefined,
          undefined,
          undefined,
        ]);
        expect(found.flat()).toEqual(await store.listJobs());
      }
      const paused = (await pages(store, { limit: 2, status: 'PAUSED' })).flat();
      expect(paused.map(({ id }) => id).toSorted()).toEqual(
        jobs
          .filter((_, n) => n % 3 === 0)
          .map(({ id }) => id)
          .toSorted(),
      );
      await store.close();
    });

    test('goes on after a job that does not exist any more', async () => {
      const jobs = Array.from({ length: 6 }, (_, n) => makeJob(0, { startedAt: n < 4 ? 100 - n : undefined }));
      const store = await alone(jobs);
      const all = await store.listJobs();
      for (const n of [1, 4]) {
        await store.deleteJob(all[n].id);
        expect(await store.listJobs({ after: all[n] })).toStrictEqual(all.slice(n + 1).filter(({ id }) => n === 4 || id !== all[n].id));
        const { id, startedAt } = all[n];
        expect((await store.listJobs({ after: { id, startedAt }, limit: 1 })).map((job) => job.id)).toEqual([all[n + 1].id]);
      }
      await store.close();
    });

    test('gives 100 jobs where no limit is given, and up to 1,000', async () => {
      const jobs = Array.from({ length: 130 }, (_, n) => makeJob(0, { startedAt: n }));
      const store = await alone(jobs);
      expect((await store.listJobs()).map(({ startedAt }) => startedAt)).toEqual(Array.from({ length: 100 }, (_, n) => 129 - n));
      expect(await store.listJobs({ limit: 1_000 })).toHaveLength(130);
      await store.close();
    });
  });

  describe('deleteJob', () => {
    const filled = async (batches, records) => {
      const job = makeJob(batches);
      await on.store.saveJobState(job);
      await on.store.saveBatchRecords(
        job.id,
        job.batches[0].id,
        Array.from({ length: records }, (_, index) => makeRecord(index)),
      );
      return job;
    };
    const left = async (id) => [
      await on.store.getJobState(id),
      (await on.store.getDistributedStatus(id)).totalBatches,
      (await collect(on.store.records(id))).length,
    ];

    test('removes the job, its batches and its records, and no other’s', async () => {
      const [job, other] = [await filled(3, 5), await filled(2, 4)];
      expect(await on.store.deleteJob(job.id)).toBe(true);
      expect(await left(job.id)).toEqual([null, 0, 0]);
      expect(await left(other.id)).toStrictEqual([other, 2, 4]);
    });

    test('is false where there was nothing, so also the second time', async () => {
      expect(await on.store.deleteJob(newId())).toBe(false);
      const job = await filled(1, 1);
      expect(await on.store.deleteJob(job.id)).toBe(true);
      expect(await on.store.deleteJob(job.id)).toBe(false);
    });

    test('removes the records of a job that was never stored', async () => {
      const id = newId();
      await on.store.saveProcessedRecord(id, 'b', makeRecord(0));
      expect(await on.store.deleteJob(id)).toBe(true);
      expect(await left(id)).toEqual([null, 0, 0]);
    });

    on.needs('raw')('removes batch rows whose job is gone', async () => {
      const job = await filled(3, 0);
      await on.query('delete from "batchactions_jobs" where "id" = ?', [job.id]);
      expect(await on.store.deleteJob(job.id)).toBe(true);
      expect(await on.rows(job.id)).toEqual([]);
    });

    test('removes a large job', async () => {
      const job = await filled(1_200, 12_000);
      expect(await on.store.deleteJob(job.id)).toBe(true);
      expect(await left(job.id)).toEqual([null, 0, 0]);
    });

    // It deletes slices of 5,000 rows.
    test.each([5_000, 10_001])('removes %d records that are far apart', async (count) => {
      const [job, other] = [await filled(1, 0), await filled(1, 3)];
      const records = Array.from({ length: count }, (_, n) => makeRecord(n * 199_999));
      records.push(makeRecord(2_147_483_647));
      await on.store.saveBatchRecords(job.id, job.batches[0].id, records);
      expect(await on.store.deleteJob(job.id)).toBe(true);
      expect(await left(job.id)).toEqual([null, 0, 0]);
      expect(await left(other.id)).toStrictEqual([other, 1, 3]);
    });

    on.needs('server')('removes what is stored meanwhile among records that are deleted already', async () => {
      const job = await filled(1, 12_000);
      // The second slice waits for it.
      const locked = await on.lockRows('records', '"jobId" = ? and "recordIndex" = 7000', [job.id]);
      const store = await on.open({ statementTimeoutMs: 120_000 });
      const deleted = store.deleteJob(job.id);
      await on.untilOneWaits();
      const late = await on.open();
      await late.saveProcessedRecord(job.id, 'late', makeRecord(17));
      expect(
        await on.query('select "recordIndex" as "n" from "batchactions_records" where "jobId" = ? and "recordIndex" < 5000', [job.id]),
      ).toEqual([{ n: 17 }]);
      await locked.query('rollback');
      expect(await deleted).toBe(true);
      expect(await left(job.id)).toEqual([null, 0, 0]);
    });

    test('leaves the ids free for another job', async () => {
      const job = await filled(2, 2);
      const { batchId } = await claim(on.store, job.id);
      await complete(on.store, job.id, batchId);
      await on.store.deleteJob(job.id);
      await on.store.saveJobState(job);
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
      expect(await claim(on.store, job.id)).toMatchObject({ batchIndex: 0, token: 1 });
      await on.store.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await complete(on.store, job.id, batchId);
    });

    test('called at once by many is safe', async () => {
      const job = await filled(20, 500);
      const verdicts = await Promise.all(Array.from({ length: 6 }, () => on.store.deleteJob(job.id)));
      expect(verdicts).toContain(true);
      expect(await left(job.id)).toEqual([null, 0, 0]);
    });
  });

  describe('jobs with large configurations', () => {
    test('are listed', async () => {
      const ids = [];
      for (let n = 0; n < 3; n++) {
        const job = makeJob(1, { startedAt: 1_900_000_000_000 + n, config: { batchSize: 10, text: 'c'.repeat(900_000) } });
        await on.store.saveJobState(job);
        ids.unshift(job.id);
      }
      expect((await on.store.listJobs({ limit: 3 })).map(({ id }) => id)).toEqual(ids);
      expect((await on.store.listJobs({ limit: 1 }))[0].config.text).toHaveLength(900_000);
    });
  });

  describe('close', () => {
    on.needs('shared')('lets the calls under way end: what was saved before it is stored', async () => {
      const store = await on.open();
      const id = newId();
      const saves = Array.from({ length: 200 }, (_, index) => store.saveProcessedRecord(id, 'b', makeRecord(index)));
      saves.push(store.saveJobState(makeJob(1, { id })));
      await store.close();
      await Promise.all(saves);
      expect(await on.store.getBatchRecords(id, 'b')).toHaveLength(200);
      expect((await on.store.getJobState(id)).id).toBe(id);
    });
  });
});
