// Guarantees of `purge`. Every test has a database of its own, because it is about all jobs.

import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { makeJob, makeLocalJob, makeRecord, makeRecords } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, openStore, prepare, rejection } from '../support/suite.mjs';

const DAY = 86_400_000;

onEveryDatabase((on) => {
  /** A store on a database without any other job. */
  const alone = async (options) => {
    const db = await on.createEmpty();
    const store = openStore(db, options);
    await store.initialize();
    return Object.assign(store, { db });
  };
  /** A job of 2 batches of 3 records that ended this long ago. */
  const ended = async (store, ms, fields) => {
    const job = makeJob(2, { size: 3, status: 'COMPLETED', completedAt: Date.now() - ms, ...fields });
    await prepare(store, job);
    return job;
  };
  const ids = async (store) => (await store.listJobs({ limit: 1_000 })).map(({ id }) => id).toSorted();
  const left = async (store, id) => [
    await store.getJobState(id),
    (await store.getDistributedStatus(id)).totalBatches,
    (await collect(store.records(id))).length,
  ];
  const nothing = { jobIds: [], batches: 0, records: 0, orphans: [], skipped: [] };
  /** What the call says, after the same call with `dryRun` has said the same and changed nothing. */
  const purged = async (store, options) => {
    const before = await store.listJobs({ limit: 1_000 });
    const dry = await store.purge({ ...options, dryRun: true });
    expect(await store.listJobs({ limit: 1_000 })).toStrictEqual(before);
    const real = await store.purge(options);
    expect(dry).toStrictEqual(real);
    return real;
  };

  test('does nothing where there is nothing', async () => {
    expect(await purged(await alone(), { olderThanMs: 0 })).toStrictEqual(nothing);
  });

  test('deletes finished jobs that ended longer ago, the oldest first, with their batches and records', async () => {
    const store = await alone();
    const young = await ended(store, DAY);
    const old = [await ended(store, 5 * DAY), await ended(store, 9 * DAY, { status: 'FAILED' }), await ended(store, 3 * DAY)];
    const result = await purged(store, { olderThanMs: 2 * DAY });
    expect(result).toStrictEqual({ ...nothing, jobIds: [old[1].id, old[0].id, old[2].id], batches: 6, records: 18 });
    for (const { id } of old) expect(await left(store, id)).toEqual([null, 0, 0]);
    expect(await left(store, young.id)).toStrictEqual([young, 2, 6]);
    expect(await store.purge({ olderThanMs: 2 * DAY })).toStrictEqual(nothing);
  });

  test('takes startedAt where completedAt is missing, and keeps a job with neither', async () => {
    const store = await alone();
    if (!on.has('raw')) {
      // The store itself never leaves a final job without its end.
      expect(await purged(store, { olderThanMs: 0 })).toStrictEqual(nothing);
      return;
    }
    const [started, never] = [await ended(store, 0, { startedAt: Date.now() - 5 * DAY }), await ended(store, 0, { startedAt: undefined })];
    await store.db.query('update "batchactions_jobs" set "completedAt" = null');
    expect(await purged(store, { olderThanMs: 4 * DAY })).toMatchObject({ jobIds: [started.id] });
    expect(await purged(store, { olderThanMs: 0 })).toStrictEqual(nothing);
    expect(await ids(store)).toEqual([never.id]);
  });

  test('with 0 takes every finished job, also one whose end is ahead of the database’s clock', async () => {
    const store = await alone();
    const jobs = [await ended(store, 0), await ended(store, -3_600_000), await ended(store, DAY)];
    expect((await purged(store, { olderThanMs: 0 })).jobIds).toEqual([jobs[2].id, jobs[0].id, jobs[1].id]);
  });

  test('keeps jobs that are not final, whatever their age', async () => {
    const store = await alone();
    for (const status of ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED']) await ended(store, 900 * DAY, { status });
    expect(await purged(store, { olderThanMs: 0 })).toStrictEqual(nothing);
    expect(await ids(store)).toHaveLength(5);
  });

  test('takes the statuses that are asked for only', async () => {
    const store = await alone();
    const jobs = {};
    for (const status of ['COMPLETED', 'ABORTED', 'FAILED']) jobs[status] = await ended(store, DAY, { status });
    expect((await purged(store, { olderThanMs: 0, statuses: ['FAILED'] })).jobIds).toEqual([jobs.FAILED.id]);
    expect((await purged(store, { olderThanMs: 0, statuses: ['ABORTED', 'FAILED'] })).jobIds).toEqual([jobs.ABORTED.id]);
    expect(await ids(store)).toEqual([jobs.COMPLETED.id]);
  });

  test('deletes at most as many jobs as the limit, call after call', async () => {
    const store = await alone();
    const jobs = [];
    for (let age = 7; age > 0; age--) jobs.push(await ended(store, age * DAY));
    const order = jobs.map(({ id }) => id);
    expect((await purged(store, { olderThanMs: 0, limit: 3 })).jobIds).toEqual(order.slice(0, 3));
    expect((await purged(store, { olderThanMs: 0, limit: 3 })).jobIds).toEqual(order.slice(3, 6));
    expect((await purged(store, { olderThanMs: 0, limit: 3 })).jobIds).toEqual(order.slice(6));
  });

  test('deletes more jobs than are read at a time, of which many ended at the same time', async () => {
    const store = await alone();
    const at = Date.now() - DAY;
    for (let n = 0; n < 620; n++) await store.saveJobState(makeLocalJob(0, { status: 'COMPLETED', completedAt: at + (n % 2) }));
    expect((await purged(store, { olderThanMs: 0 })).jobIds).toHaveLength(620);
    expect(await ids(store)).toEqual([]);
  });

  test('deletes a job that is not distributed', async () => {
    const store = await alone();
    const job = await ended(store, DAY, { distributed: undefined });
    expect(await purged(store, { olderThanMs: 0 })).toStrictEqual({ ...nothing, jobIds: [job.id], records: 6 });
  });

  describe('a claim', () => {
    test('keeps its job, which is listed, until it is given back or a day old', async () => {
      const store = await alone();
      const job = makeJob(2, { size: 3 });
      await prepare(store, job);
      const { batchId } = await claim(store, job.id);
      await store.abortJob(job.id);
      const other = await ended(store, DAY);
      expect(await purged(store, { olderThanMs: 0 })).toStrictEqual({
        ...nothing,
        jobIds: [other.id],
        batches: 2,
        records: 6,
        skipped: [job.id],
      });
      // What is claimed can still be saved and completed.
      await store.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await complete(store, job.id, batchId);
      expect((await purged(store, { olderThanMs: 0 })).jobIds).toEqual([job.id]);
    });

    on.needs('raw')('that was not renewed for a day, and for as long as olderThanMs, is dead', async () => {
      const store = await alone();
      const job = await ended(store, 9 * DAY, { status: 'ABORTED' });
      const held = (ms) =>
        store.db.query(
          `update "batchactions_batches" set "status" = 'PROCESSING', "workerId" = 'w', "claimedAt" = ? where "batchIndex" = 0`,
          [Date.now() - ms],
        );
      await held(DAY - 60_000);
      expect((await purged(store, { olderThanMs: 0 })).skipped).toEqual([job.id]);
      await held(2 * DAY);
      expect((await purged(store, { olderThanMs: 3 * DAY })).skipped).toEqual([job.id]);
      expect((await purged(store, { olderThanMs: DAY })).jobIds).toEqual([job.id]);
    });

    on.needs('raw')('without a worker keeps nothing', async () => {
      const store = await alone();
      const job = await ended(store, DAY, { status: 'ABORTED' });
      await store.db.query(`update "batchactions_batches" set "status" = 'PROCESSING', "claimedAt" = ?`, [Date.now()]);
      expect((await purged(store, { olderThanMs: 0 })).jobIds).toEqual([job.id]);
    });
  });

  describe('what belongs to no job', () => {
    /** The id of a job that was made that long ago: a UUID of version 7. */
    const madeAgo = (ms) => {
      const hex = (Date.now() - ms).toString(16).padStart(12, '0');
      return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${randomUUID().slice(-12)}`;
    };

    test('records of an import in preparation stay, whatever other jobs say of their time', async () => {
      const store = await alone();
      const importing = makeJob(2, { size: 3 });
      await store.saveBatchRecords(importing.id, importing.batches[0].id, makeRecords(importing.batches[0]));
      // A history that is copied in, with times of its own; and an old job that is restored and saves records again.
      const old = await ended(store, 30 * DAY);
      await store.saveBatchRecords(old.id, old.batches[0].id, [makeRecord(77)]);
      expect(await purged(store, { olderThanMs: 0, statuses: ['ABORTED'] })).toStrictEqual(nothing);
      expect(await purged(store, { olderThanMs: 25 * DAY })).toMatchObject({ jobIds: [old.id], orphans: [] });
      await store.saveBatchRecords(importing.id, importing.batches[1].id, makeRecords(importing.batches[1]));
      await store.saveJobState(importing);
      expect(await left(store, importing.id)).toStrictEqual([importing, 2, 6]);
    });

    on.needs('raw')('batches stay too: a restored table of jobs may come last', async () => {
      const store = await alone();
      const job = await ended(store, 0, { status: 'PROCESSING' });
      await store.db.query('delete from "batchactions_jobs" where "id" = ?', [job.id]);
      expect(await purged(store, { olderThanMs: 0 })).toStrictEqual(nothing);
      expect(await left(store, job.id)).toEqual([null, 2, 6]);
      expect(await purged(store, { olderThanMs: 0, withoutJob: true })).toStrictEqual({
        ...nothing,
        batches: 2,
        records: 6,
        orphans: [job.id],
      });
    });

    test('records whose job id says that it was made long enough ago are deleted', async () => {
      const store = await alone();
      const [old, older, young] = [madeAgo(DAY + 60_000), madeAgo(3 * DAY), madeAgo(DAY - 60_000)];
      for (const id of [old, older, young, 'unknown']) await store.saveBatchRecords(id, 'b', [makeRecord(0)]);
      expect(await purged(store, { olderThanMs: 2 * DAY })).toStrictEqual({ ...nothing, records: 1, orphans: [older] });
      expect(await purged(store, { olderThanMs: 0 })).toStrictEqual({ ...nothing, records: 1, orphans: [old] });
      for (const id of [young, 'unknown']) expect(await left(store, id)).toEqual([null, 0, 1]);
    });

    test('is found among many jobs, and deleted where the caller says that nothing is being prepared', async () => {
      const store = await alone();
      for (let n = 0; n < 30; n++) await store.saveBatchRecords(`orphan-${n}`, 'b', [makeRecord(0), makeRecord(1)]);
      for (let n = 0; n < 520; n++) {
        const job = makeLocalJob(0, { id: `job-${n}`, status: 'COMPLETED', completedAt: Date.now() - 2 * DAY });
        await store.saveBatchRecords(job.id, 'b', [makeRecord(0)]);
        await store.saveJobState(job);
      }
      const result = await purged(store, { olderThanMs: 0, statuses: ['FAILED'], withoutJob: true });
      expect(result.orphans.toSorted()).toEqual(Array.from({ length: 30 }, (_, n) => `orphan-${n}`).toSorted());
      expect(result.records).toBe(60);
    });

    on.needs('server')('of a retryFailed that was interrupted can’t be claimed, stay for a day, and are deleted then', async () => {
      const store = await alone();
      const source = await ended(store, 3 * DAY);
      await store.saveBatchRecords(source.id, source.batches[0].id, [makeRecord(0, { status: 'failed' })]);
      // It is interrupted between the records and the batches, which no other job may have.
      await store.db.query(`alter table "batchactions_batches" add constraint "no_other" check ("jobId" = '${source.id}')`);
      await expect(store.retryFailed(source.id)).rejects.toThrow('no_other');
      await store.db.query('alter table "batchactions_batches" drop constraint "no_other"');
      const [{ jobId }, ...others] = await store.db.query('select distinct "jobId" from "batchactions_records" where "jobId" <> ?', [
        source.id,
      ]);
      expect(others).toEqual([]);
      expect(await store.claimBatch(jobId, 'w')).toEqual({ claimed: false, reason: 'JOB_NOT_FOUND' });
      expect(await ids(store)).toEqual([source.id]);
      expect(await purged(store, { olderThanMs: 0, statuses: ['FAILED'] })).toStrictEqual(nothing);
      // A day passes: the id says when it was made, in its first 48 bits.
      expect(jobId[14]).toBe('7');
      const made = Number.parseInt(jobId.replaceAll('-', '').slice(0, 12), 16);
      const hex = (made - DAY - 60_000).toString(16).padStart(12, '0');
      const older = `${hex.slice(0, 8)}-${hex.slice(8)}${jobId.slice(13)}`;
      await store.db.query('update "batchactions_records" set "jobId" = ? where "jobId" = ?', [older, jobId]);
      expect(await purged(store, { olderThanMs: 0, statuses: ['FAILED'] })).toStrictEqual({ ...nothing, records: 1, orphans: [older] });
      // The call can be made again.
      expect(await store.retryFailed(source.id)).toMatchObject({ totalRecords: 1 });
    });

    test('are left to the next call by one that reaches its limit', async () => {
      const store = await alone();
      const [first, second] = [await ended(store, 2 * DAY), await ended(store, DAY)];
      const orphan = madeAgo(3 * DAY);
      await store.saveBatchRecords(orphan, 'b', [makeRecord(0)]);
      expect(await purged(store, { olderThanMs: 0, limit: 1 })).toMatchObject({ jobIds: [first.id], orphans: [] });
      expect(await purged(store, { olderThanMs: 0, limit: 2 })).toMatchObject({ jobIds: [second.id], orphans: [orphan] });
    });
  });

  on.needs('raw')('finishes a deleteJob that was interrupted, also of a job that had not begun', async () => {
    const store = await alone();
    const job = makeJob(2, { size: 3, status: 'CREATED', startedAt: undefined });
    await prepare(store, job);
    await store.db.query('alter table "batchactions_records" rename to "batchactions_away"');
    await rejection(store.deleteJob(job.id), 'TABLES_MISSING');
    await store.db.query('alter table "batchactions_away" rename to "batchactions_records"');
    expect(await store.getJob(job.id)).toMatchObject({ status: 'ABORTED', completedAt: expect.any(Number) });
    expect(await purged(store, { olderThanMs: 0 })).toMatchObject({ jobIds: [job.id], records: 6 });
    expect(await left(store, job.id)).toEqual([null, 0, 0]);
  });

  on.needs('raw')('a purge that was interrupted is finished by the same call, whatever its statuses', async () => {
    const store = await alone();
    const job = await ended(store, DAY, { status: 'COMPLETED' });
    // As far as a purge comes before it is killed: the list is empty, the batches and some of the records are gone.
    await store.db.query(`update "batchactions_jobs" set "batches" = '[]' where "id" = ?`, [job.id]);
    await store.db.query('delete from "batchactions_batches" where "jobId" = ?', [job.id]);
    expect(await purged(store, { olderThanMs: 0, statuses: ['COMPLETED'] })).toMatchObject({ jobIds: [job.id], records: 6 });
    expect(await left(store, job.id)).toEqual([null, 0, 0]);
  });

  test('takes a status that is given twice once', async () => {
    const store = await alone();
    const jobs = [await ended(store, 2 * DAY, { status: 'COMPLETED' }), await ended(store, DAY, { status: 'FAILED' })];
    const statuses = ['COMPLETED', 'COMPLETED', 'COMPLETED', 'FAILED'];
    expect(await purged(store, { olderThanMs: 0, statuses })).toMatchObject({ jobIds: jobs.map(({ id }) => id) });
  });

  test('deletes what this store has queued for the job too', async () => {
    const store = await alone({ durability: 'batch' });
    const job = await ended(store, DAY, { distributed: undefined });
    void store.saveProcessedRecord(job.id, job.batches[0].id, makeRecord(50));
    await store.purge({ olderThanMs: 0 });
    expect(await left(store, job.id)).toEqual([null, 0, 0]);
  });

  on.needs('shared')('many at once delete each job once', async () => {
    const store = await alone();
    const stores = [store, openStore(store.db), openStore(store.db)];
    const jobs = [];
    for (let n = 0; n < 12; n++) jobs.push(await ended(store, DAY));
    const results = await Promise.all(stores.map((one) => one.purge({ olderThanMs: 0 })));
    expect(new Set(results.flatMap(({ jobIds }) => jobIds))).toEqual(new Set(jobs.map(({ id }) => id)));
    expect(results.reduce((sum, { records }) => sum + records, 0)).toBe(72);
    for (const { id } of jobs) expect(await left(store, id)).toEqual([null, 0, 0]);
  });

  test('refuses to run without an age', async () => {
    const store = await alone();
    await ended(store, 900 * DAY);
    for (const options of [undefined, {}, { limit: 1 }, { olderThanMs: undefined }]) {
      expect((await rejection(store.purge(options), 'INVALID_ARGUMENT')).message).toContain('options.olderThanMs');
    }
    expect(await ids(store)).toHaveLength(1);
  });
});
