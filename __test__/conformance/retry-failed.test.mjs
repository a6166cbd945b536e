// Guarantees of `retryFailed`.

import { describe, expect, test } from 'vitest';
import { DIFFICULT, makeJob, makeLocalJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, rejection } from '../support/suite.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

onEveryDatabase((on) => {
  /** A job that has ended, whose records have these statuses, by index. */
  const ended = async (statuses, fields) => {
    const job = makeJob(2, { size: 10, status: 'COMPLETED', completedAt: 1_700_000_100_000, totalRecords: statuses.length, ...fields });
    const records = statuses.map((status, index) =>
      makeRecord(index, {
        status,
        raw: { n: index, [status]: true },
        parsed: { changed: index },
        errors: status === 'invalid' ? [{ field: 'n', message: 'wrong', code: 'REQUIRED' }] : [],
        ...(status === 'failed' && { processingError: 'the reason' }),
      }),
    );
    await on.store.saveBatchRecords(job.id, job.batches[0].id, records);
    await on.store.saveJobState(job);
    return { job, records };
  };
  const all = (jobId) => collect(on.store.records(jobId));
  /** A record as the importer prepares it. */
  const pending = ({ index, raw }) => ({ index, raw, parsed: raw, status: 'pending', errors: [] });

  const STATUSES = ['processed', 'failed', 'invalid', 'failed', 'pending', 'processed', 'failed', 'valid', 'failed', 'failed'];
  const failedIndexes = [1, 3, 6, 8, 9];

  test('makes a distributed job of the failed records, which workers can claim', async () => {
    const { job, records } = await ended(STATUSES, { config: { batchSize: 2, schema: { fields: [] }, extra: [1, { a: null }] } });
    const retried = await on.store.retryFailed(job.id);
    expect(retried).toStrictEqual({ jobId: expect.stringMatching(UUID), totalRecords: 5, totalBatches: 3 });

    const made = await on.store.getJobState(retried.jobId);
    expect(made).toStrictEqual({
      id: retried.jobId,
      config: { batchSize: 2, schema: { fields: [] }, extra: [1, { a: null }], retryOf: job.id },
      status: 'PROCESSING',
      batches: [
        [1, 3],
        [6, 8],
        [9, 9],
      ].map(([recordStartIndex, recordEndIndex], index) => ({
        id: expect.stringMatching(UUID),
        index,
        status: 'PENDING',
        records: [],
        processedCount: 0,
        failedCount: 0,
        recordStartIndex,
        recordEndIndex,
      })),
      totalRecords: 5,
      startedAt: expect.any(Number),
      distributed: true,
    });
    expect(Math.abs(Date.now() - made.startedAt)).toBeLessThan(60_000);
    expect(new Set(made.batches.map(({ id }) => id)).size).toBe(3);

    expect(await all(retried.jobId)).toStrictEqual(failedIndexes.map((index) => pending(records[index])));
    const first = await claim(on.store, retried.jobId);
    expect(first).toMatchObject({ batchId: made.batches[0].id, recordStartIndex: 1, recordEndIndex: 3, token: 1 });
    expect((await on.store.getBatchRecords(retried.jobId, first.batchId)).map(({ index }) => index)).toEqual([1, 3]);
    for (const { id } of made.batches) await complete(on.store, retried.jobId, id);
    expect(await on.store.tryFinalizeJob(retried.jobId)).toBe(true);
  });

  test('leaves the source as it is', async () => {
    const { job, records } = await ended(STATUSES);
    await on.store.retryFailed(job.id, { statuses: ['failed', 'invalid', 'pending', 'valid'] });
    expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    expect(await all(job.id)).toStrictEqual(records);
  });

  test.each([
    [['invalid'], [2]],
    [
      ['failed', 'invalid'],
      [1, 2, 3, 6, 8, 9],
    ],
    [
      ['pending', 'valid'],
      [4, 7],
    ],
    [
      ['valid', 'failed', 'pending', 'invalid'],
      [1, 2, 3, 4, 6, 7, 8, 9],
    ],
  ])('takes the records that are %j', async (statuses, indexes) => {
    const { job, records } = await ended(STATUSES);
    const { jobId, totalRecords } = await on.store.retryFailed(job.id, { statuses });
    expect(totalRecords).toBe(indexes.length);
    expect(await all(jobId)).toStrictEqual(indexes.map((index) => pending(records[index])));
  });

  test.each([1, 2, 5, 100_000])('packs %d records into a batch, and stores that as config.batchSize', async (batchSize) => {
    const { job } = await ended(STATUSES, { config: { batchSize: 3, z: 1 } });
    const { jobId, totalBatches } = await on.store.retryFailed(job.id, { batchSize });
    expect(totalBatches).toBe(Math.ceil(failedIndexes.length / batchSize));
    const { config, batches } = await on.store.getJobState(jobId);
    expect(config).toEqual({ batchSize, z: 1, retryOf: job.id });
    const sizes = await Promise.all(batches.map(({ id }) => on.store.getBatchRecords(jobId, id)));
    expect(sizes.flat().map(({ index }) => index)).toEqual(failedIndexes);
    expect(sizes.every((records) => records.length <= batchSize)).toBe(true);
  });

  test('is null where there are no such records, and makes nothing', async () => {
    const { job } = await ended(['processed', 'invalid']);
    const before = await on.store.listJobs({ limit: 1_000 });
    expect(await on.store.retryFailed(job.id)).toBeNull();
    expect(await on.store.listJobs({ limit: 1_000 })).toStrictEqual(before);
  });

  test.each(['COMPLETED', 'ABORTED', 'FAILED'])('takes a job that is %s, also one that is not distributed', async (status) => {
    const { job } = await ended(['failed'], { status, distributed: undefined });
    const { jobId } = await on.store.retryFailed(job.id);
    expect(await on.store.getJobState(jobId)).toMatchObject({ distributed: true, status: 'PROCESSING' });
  });

  test.each(['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED'])(
    'refuses a job that is %s: it is being worked on',
    async (status) => {
      const { job } = await ended(['failed'], { status });
      const error = await rejection(on.store.retryFailed(job.id), 'INVALID_ARGUMENT');
      expect(error.message).toMatch(/being worked on/);
      expect(error.message).toContain(job.id);
      expect(error.message).toContain(status);
    },
  );

  test('refuses an aborted job of which a worker still holds a batch, until it is taken away', async () => {
    const { job } = await ended(['failed'], { status: 'PROCESSING', completedAt: undefined });
    const { batchId } = await claim(on.store, job.id, 'the worker');
    expect(await on.store.abortJob(job.id)).toBe(true);
    const { message } = await rejection(on.store.retryFailed(job.id), 'INVALID_ARGUMENT');
    expect(message).toContain('the worker');
    expect(message).toContain(batchId);
    await on.store.abortJob(job.id, { now: true });
    expect(await on.store.retryFailed(job.id)).toMatchObject({ totalRecords: 1 });
  });

  test('refuses another final job of which a worker still holds a batch, until the batch is ended', async () => {
    const { job } = await ended(['failed'], { status: 'PROCESSING', completedAt: undefined });
    const { batchId } = await claim(on.store, job.id, 'the worker');
    await on.store.saveJobState({ ...job, status: 'FAILED' });
    expect((await rejection(on.store.retryFailed(job.id), 'INVALID_ARGUMENT')).message).toMatch(/the worker.*updateBatchState/);
    await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'FAILED'));
    expect(await on.store.retryFailed(job.id)).toMatchObject({ totalRecords: 1 });
  });

  test('refuses a job that does not exist', async () => {
    const id = newId();
    await on.store.saveBatchRecords(id, 'b', [makeRecord(0, { status: 'failed' })]);
    expect((await rejection(on.store.retryFailed(id), 'INVALID_ARGUMENT')).message).toMatch(/doesn't exist/);
    expect(await all(id)).toHaveLength(1);
  });

  test.each([[{}], [{ batchSize: 0 }], [{ batchSize: 'many' }], [{ batchSize: 100_001 }]])(
    'asks for batchSize where the source’s configuration is %j',
    async (config) => {
      const { job } = await ended(['failed'], { config });
      expect((await rejection(on.store.retryFailed(job.id), 'INVALID_ARGUMENT')).message).toMatch(/options\.batchSize/);
      expect(await on.store.retryFailed(job.id, { batchSize: 7 })).toMatchObject({ totalRecords: 1 });
    },
  );

  test('a retry can be retried: retryOf is the job before', async () => {
    const { job } = await ended(['failed', 'failed']);
    const first = await on.store.retryFailed(job.id);
    const [batch] = (await on.store.getJobState(first.jobId)).batches;
    await on.store.saveProcessedRecord(first.jobId, batch.id, makeRecord(1, { raw: { n: 1 }, status: 'failed' }));
    await complete(on.store, first.jobId, batch.id);
    await on.store.tryFinalizeJob(first.jobId);
    const second = await on.store.retryFailed(first.jobId);
    expect((await on.store.getJobState(second.jobId)).config).toEqual({ batchSize: 10, retryOf: first.jobId });
    expect((await all(second.jobId)).map(({ index }) => index)).toEqual([1]);
  });

  test('two retries at once make two jobs, each whole', async () => {
    const { job } = await ended(Array(50).fill('failed'), { config: { batchSize: 7 } });
    const made = await Promise.all([1, 2, 3].map(() => on.store.retryFailed(job.id)));
    expect(new Set(made.map(({ jobId }) => jobId)).size).toBe(3);
    for (const { jobId } of made) expect((await all(jobId)).map(({ index }) => index)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  });

  test('also takes what this store has only queued', async () => {
    const store = await on.open({ durability: 'batch' });
    const job = makeLocalJob(1, { status: 'FAILED', completedAt: 1 });
    await store.saveJobState(job);
    for (let index = 0; index < 20; index++)
      void store.saveProcessedRecord(job.id, job.batches[0].id, makeRecord(index, { status: 'failed' }));
    expect(await store.retryFailed(job.id)).toMatchObject({ totalRecords: 20 });
  });

  test('makes a job of many batches', async () => {
    const { job } = await ended(Array(1_200).fill('failed'));
    const { jobId, totalBatches } = await on.store.retryFailed(job.id, { batchSize: 5 });
    expect(totalBatches).toBe(240);
    expect(await on.store.getDistributedStatus(jobId)).toMatchObject({ totalBatches: 240, pendingBatches: 240 });
  });

  describe('raw', () => {
    test('comes as it was saved, whatever it is', async () => {
      const raws = [DIFFICULT, {}, [], 'text', '', '7', 7, -0.5, 1e300, true, false, null, { deep: [[[{ a: 'é' }]]] }];
      const { job } = await ended([]);
      const records = raws.map((raw, index) => makeRecord(index, { raw, status: 'failed' }));
      await on.store.saveBatchRecords(job.id, job.batches[0].id, records);
      const before = await all(job.id);
      const { jobId } = await on.store.retryFailed(job.id);
      const after = await all(jobId);
      expect(after.map(({ raw }) => raw)).toStrictEqual(before.map(({ raw }) => raw));
      expect(after.map(({ parsed }) => parsed)).toStrictEqual(before.map(({ raw }) => raw));
    });

    on.needs('raw', '!sortedKeys')('is the same text to the byte', async () => {
      const { job } = await ended(['failed']);
      const text = '{ "z" : 1.50,\n"a":"\\u00e9", "z2":[1 , 2] }';
      await on.query('update "batchactions_records" set "raw" = ? where "jobId" = ?', [text, job.id]);
      const { jobId } = await on.store.retryFailed(job.id);
      const [row] = await on.query('select * from "batchactions_records" where "jobId" = ?', [jobId]);
      expect([row.raw, row.parsed, row.errors, row.processingError]).toEqual([text, text, '[]', null]);
    });

    test('may be large', async () => {
      const { job } = await ended(['failed', 'failed']);
      const raw = { text: 'é'.repeat(400_000) };
      await on.store.saveBatchRecords(job.id, job.batches[0].id, [makeRecord(0, { raw, status: 'failed' })]);
      const { jobId } = await on.store.retryFailed(job.id);
      expect((await all(jobId))[0].raw).toEqual(raw);
    });
  });
});
