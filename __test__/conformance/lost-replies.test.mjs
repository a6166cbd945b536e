// What a call does whose reply is lost, while another process goes on with the same job: it is repeated only where that undoes nothing.

import { describe, expect, onTestFinished, test } from 'vitest';
import { startLossyProxy } from '../support/servers.mjs';
import { storeOn } from '../support/store.mjs';
import { makeBatch, makeJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection, urlThrough } from '../support/suite.mjs';

/** The request that ends a transaction. */
const COMMIT = /commit\0?$/;

onEveryDatabase((on) => {
  if (!on.has('server')) {
    on.needs('server')('calls whose replies are lost');
    return;
  }

  /** A store with one connection, whose replies can be lost. */
  const openLossy = async () => {
    const proxy = await startLossyProxy(on.address);
    onTestFinished(() => proxy.close());
    // What the store sends has to be readable.
    const store = storeOn(urlThrough(proxy.port, on.url, '?sslmode=disable'), { pool: { max: 1 } });
    onTestFinished(() => store.close());
    return { proxy, store };
  };

  const saved = async (fields, batches = 2) => {
    const job = makeJob(batches, fields);
    await on.store.saveJobState(job);
    return job;
  };

  /** Makes a call whose reply is lost, lets `meanwhile` happen, and gives what becomes of the call. */
  const losing = async ({ proxy, to }, call, meanwhile) => {
    const lost = proxy.loseReply(to);
    const outcome = call().then(
      (value) => ({ value }),
      (error) => ({ error }),
    );
    await lost;
    await meanwhile();
    proxy.resume();
    return outcome;
  };

  describe('saveJobState', () => {
    test.each([2, 0])(
      'of a distributed job of %d batches keeps the end of the job that another process found, and writes the rest',
      async (batches) => {
        const { store, proxy } = await openLossy();
        const job = await saved({}, batches);
        for (const { id } of job.batches) await complete(on.store, job.id, id);
        // The statements are prepared, so that the next reply is that of the write.
        await store.saveJobState(job);
        const to = batches > 0 ? COMMIT : undefined;
        const outcome = await losing(
          { proxy, to },
          () => store.saveJobState({ ...job, totalRecords: 77 }),
          async () => expect(await on.store.tryFinalizeJob(job.id)).toBe(true),
        );
        expect(outcome).toEqual({ value: undefined });
        expect(await on.store.getJobState(job.id)).toMatchObject({
          status: 'COMPLETED',
          completedAt: expect.any(Number),
          totalRecords: 77,
        });
        expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
      },
    );

    test('of a job that is not distributed is written again as it is', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved({ distributed: undefined });
      await store.saveJobState(job);
      const outcome = await losing(
        { proxy },
        () => store.saveJobState(job),
        () => on.store.saveJobState({ ...job, status: 'FAILED' }),
      );
      expect(outcome).toEqual({ value: undefined });
      expect(await on.store.getJobState(job.id)).toMatchObject({ status: 'PROCESSING' });
    });
  });

  describe('updateBatchState', () => {
    test.each(['PENDING', 'PROCESSING', 'PAUSED'])(
      'to %s of a batch with a row is not repeated: another worker may have it by now',
      async (status) => {
        const { store, proxy } = await openLossy();
        const job = await saved();
        const batchId = job.batches[0].id;
        await store.updateBatchState(job.id, batchId, makeState(batchId, status));
        let held;
        const outcome = await losing(
          { proxy },
          () => store.updateBatchState(job.id, batchId, makeState(batchId, status)),
          async () => {
            await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'PENDING'));
            held = await claim(on.store, job.id, 'other');
          },
        );
        expect(outcome.error).toMatchObject({ name: 'StateStoreError', code: 'CONNECTION_LOST', retryable: true });
        expect(outcome.error.message).toContain(batchId);
        expect(held.batchId).toBe(batchId);
        expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status: 'PROCESSING', workerId: 'other' });
      },
    );

    test('to a final state is repeated, and leaves a batch alone that another process finished', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved();
      const [first, second] = job.batches.map(({ id }) => id);
      await store.updateBatchState(job.id, first, makeState(first, 'PENDING'));
      const update = (id) => () => store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 10, 0));
      expect(await losing({ proxy }, update(first), () => complete(on.store, job.id, first, 'FAILED'))).toEqual({ value: undefined });
      expect(await losing({ proxy }, update(second), () => {})).toEqual({ value: undefined });
      expect((await on.store.getJobState(job.id)).batches).toMatchObject([
        { status: 'FAILED' },
        { status: 'COMPLETED', processedCount: 10 },
      ]);
    });

    test('of a batch that the store holds is repeated', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved();
      for (const status of ['PROCESSING', 'COMPLETED']) {
        const { batchId } = await claim(store, job.id, 'w');
        await store.updateBatchState(job.id, batchId, makeState(batchId, 'PROCESSING', 1, 0));
        const outcome = await losing(
          { proxy },
          () => store.updateBatchState(job.id, batchId, makeState(batchId, status, 9, 1)),
          () => {},
        );
        expect(outcome).toEqual({ value: undefined });
        const { batches } = await on.store.getJobState(job.id);
        expect(batches.find(({ id }) => id === batchId)).toMatchObject({ status, processedCount: 9, failedCount: 1 });
      }
    });

    test('of a batch without a row, as the engine makes it, is repeated', async () => {
      const { store, proxy } = await openLossy();
      const id = newId();
      const job = await saved({ id, distributed: undefined, batches: [makeBatch(id, 0)] });
      const batchId = job.batches[0].id;
      await store.updateBatchState(job.id, batchId, makeState(batchId, 'PENDING'));
      for (const status of ['PROCESSING', 'COMPLETED']) {
        const outcome = await losing(
          { proxy },
          () => store.updateBatchState(job.id, batchId, makeState(batchId, status, 3, 0)),
          () => {},
        );
        expect(outcome).toEqual({ value: undefined });
        expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status, processedCount: 3 });
      }
    });
  });

  describe('releaseBatch', () => {
    test('of a batch that the store holds is repeated, and leaves the claim of the next worker alone', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved();
      const first = await claim(store, job.id, 'w');
      await store.releaseBatch(job.id, first.batchId, 'w');
      const { batchId } = await claim(store, job.id, 'w');
      const outcome = await losing(
        { proxy },
        () => store.releaseBatch(job.id, batchId, 'w'),
        () => claim(on.store, job.id, 'w'),
      );
      expect(outcome).toEqual({ value: undefined });
      expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status: 'PROCESSING', workerId: 'w' });
    });

    test('of a batch that the store did not claim is not repeated: a worker of the same name may have it by now', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved();
      const { batchId } = await claim(on.store, job.id, 'w');
      await store.releaseBatch(job.id, batchId, 'other');
      const other = await on.open();
      const outcome = await losing(
        { proxy },
        () => store.releaseBatch(job.id, batchId, 'w'),
        () => claim(other, job.id, 'w'),
      );
      expect(outcome.error).toMatchObject({ code: 'CONNECTION_LOST', retryable: true });
      expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status: 'PROCESSING', workerId: 'w' });
      await rejection(complete(on.store, job.id, batchId), 'LEASE_LOST');
    });
  });

  // What was not committed was rolled back with the connection, so even these are repeated.
  test.each([
    ['begins', /^.{0,5}(start transaction|begin isolation)/s],
    ['locks the job', /from batchactions_jobs\s+where .*\s+for update/s],
  ])('tryFinalizeJob is repeated where the connection ends as it %s', async (_, to) => {
    const { store, proxy } = await openLossy();
    const job = await saved();
    for (const { id } of job.batches) await complete(on.store, job.id, id);
    await store.getDistributedStatus(job.id);
    expect(
      await losing(
        { proxy, to },
        () => store.tryFinalizeJob(job.id),
        () => {},
      ),
    ).toEqual({ value: true });
    expect((await on.store.getJobState(job.id)).status).toBe('COMPLETED');
  });

  on.needs('claimSteps')('claimBatch is repeated where the connection ends before it is committed', async () => {
    for (const to of [/start transaction/, /for update skip locked/]) {
      const { store, proxy } = await openLossy();
      const job = await saved();
      await store.getDistributedStatus(job.id);
      const claiming = () => store.claimBatch(job.id, 'w');
      const outcome = await losing({ proxy, to }, claiming, () => {});
      expect(outcome).toMatchObject({ value: { claimed: true, reservation: { token: 1 } } });
    }
  });

  describe('steering', () => {
    // A repeat would undo what another caller has done since.
    test('pauseJob whose reply is lost rejects with CONNECTION_LOST, and a job that was resumed since goes on', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved();
      await store.pauseJob(newId());
      const outcome = await losing(
        { proxy },
        () => store.pauseJob(job.id),
        async () => expect(await on.store.resumeJob(job.id)).toBe(true),
      );
      expect(outcome.error).toMatchObject({ code: 'CONNECTION_LOST', retryable: true });
      expect((await on.store.getJobState(job.id)).status).toBe('PROCESSING');
    });

    test('resumeJob whose reply is lost rejects with CONNECTION_LOST, and a job that was paused since stays so', async () => {
      const { store, proxy } = await openLossy();
      const job = await saved({ status: 'PAUSED' });
      await store.resumeJob(newId());
      const outcome = await losing(
        { proxy, to: COMMIT },
        () => store.resumeJob(job.id),
        async () => expect(await on.store.pauseJob(job.id)).toBe(true),
      );
      expect(outcome.error).toMatchObject({ code: 'CONNECTION_LOST', retryable: true });
      expect((await on.store.getJobState(job.id)).status).toBe('PAUSED');
    });

    test.each([undefined, { now: true }])(
      'abortJob (%j) whose reply is lost rejects with CONNECTION_LOST, and the job is ABORTED',
      async (options) => {
        const { store, proxy } = await openLossy();
        const job = await saved();
        const { batchId } = await claim(on.store, job.id);
        const outcome = await losing(
          { proxy, to: COMMIT },
          () => store.abortJob(job.id, options),
          () => {},
        );
        expect(outcome.error).toMatchObject({ code: 'CONNECTION_LOST', retryable: true });
        expect((await on.store.getJobState(job.id)).status).toBe('ABORTED');
        // The call again takes what may have been claimed in between.
        expect(await store.abortJob(job.id, options)).toBe(false);
        const held = (await on.store.getJobState(job.id)).batches.find(({ id }) => id === batchId).status;
        expect(held).toBe(options?.now ? 'PENDING' : 'PROCESSING');
      },
    );

    test.each([
      ['resumeJob', { status: 'PAUSED' }, 'PROCESSING'],
      ['abortJob', {}, 'ABORTED'],
    ])('%s is repeated where the connection ends before its commit', async (method, fields, status) => {
      const { store, proxy } = await openLossy();
      const job = await saved(fields);
      await store.getDistributedStatus(job.id);
      const outcome = await losing(
        { proxy, to: /from batchactions_jobs\s+where .*\s+for update/s },
        () => store[method](job.id),
        () => {},
      );
      expect(outcome).toEqual({ value: true });
      expect((await on.store.getJobState(job.id)).status).toBe(status);
    });
  });

  describe('retryFailed', () => {
    test.each([
      ['a copy', /insert into batchactions_records/],
      ['the new job', COMMIT],
    ])('is repeated where the reply to %s is lost, and each record is copied once', async (_, to) => {
      const { store, proxy } = await openLossy();
      const job = await saved({ status: 'FAILED' });
      const records = Array.from({ length: 25 }, (_record, index) => makeRecord(index, { status: 'failed' }));
      await on.store.saveBatchRecords(job.id, job.batches[0].id, records);
      const outcome = await losing(
        { proxy, to },
        () => store.retryFailed(job.id),
        () => {},
      );
      expect(outcome).toMatchObject({ value: { totalRecords: 25, totalBatches: 3 } });
      const { jobId } = outcome.value;
      expect((await on.store.getPendingRecords(jobId)).map(({ index }) => index)).toEqual(records.map(({ index }) => index));
      expect(await on.store.getDistributedStatus(jobId)).toMatchObject({ totalBatches: 3, pendingBatches: 3 });
    });
  });

  describe('purge', () => {
    test.each([/set "?batches"? = '\[\]'/, /delete from batchactions_records/, /delete from batchactions_jobs/])(
      'is repeated where the reply to %s is lost, and says which job it deleted',
      async (to) => {
        const { store, proxy } = await openLossy();
        const job = await saved({ status: 'COMPLETED', completedAt: 1_000_000_000_000 });
        await on.store.saveBatchRecords(job.id, job.batches[0].id, [makeRecord(0)]);
        const outcome = await losing(
          { proxy, to },
          () => store.purge({ olderThanMs: 86_400_000_000 }),
          () => {},
        );
        expect(outcome.value.jobIds).toContain(job.id);
        expect(await on.store.getJobState(job.id)).toBeNull();
        expect(await on.store.getPendingRecords(job.id)).toEqual([]);
      },
    );
  });

  test('tryFinalizeJob whose reply is lost rejects with CONNECTION_LOST, and the job is final', async () => {
    const { store, proxy } = await openLossy();
    const job = await saved();
    for (const { id } of job.batches) await complete(on.store, job.id, id);
    const outcome = await losing(
      { proxy, to: COMMIT },
      () => store.tryFinalizeJob(job.id),
      () => {},
    );
    expect(outcome.error).toMatchObject({ code: 'CONNECTION_LOST' });
    expect((await on.store.getJobState(job.id)).status).toBe('COMPLETED');
  });
});
