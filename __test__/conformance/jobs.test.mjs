// What a job comes back as: its fields, its batches, its config, and what calls that are not awaited make of it.

import { describe, expect, test } from 'vitest';
import { BATCH_STATUSES, JOB_STATUSES, makeBatch, makeJob, makeLocalJob, makeState, newId } from '../support/fixtures.mjs';
import { claim, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';

onEveryDatabase((on) => {
  describe('a stored job', () => {
    test('is null where there is none', async () => {
      expect(await on.store.getJobState(newId())).toBeNull();
    });

    test('comes back as it was saved', async () => {
      const job = makeLocalJob(3, {
        completedAt: 1_700_000_009_999,
        config: { id: 'c', batchSize: 10, maxRetries: 3, continueOnError: true },
      });
      expect(await on.store.saveJobState(job)).toBeUndefined();
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });

    test('comes back as it was saved where it is distributed', async () => {
      const job = makeJob(3);
      await on.store.saveJobState(job);
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });

    test('has no key for what it was saved without', async () => {
      const id = newId();
      const batch = makeBatch(id, 0, { recordStartIndex: undefined, recordEndIndex: undefined });
      await on.store.saveJobState({ ...makeLocalJob(0, { id, startedAt: undefined }), batches: [batch] });
      const found = await on.store.getJobState(id);
      expect(Object.keys(found).sort()).toEqual(['batches', 'config', 'id', 'status', 'totalRecords']);
      expect(Object.keys(found.batches[0]).sort()).toEqual(['failedCount', 'id', 'index', 'processedCount', 'records', 'status']);
    });

    test('has no key for what was undefined, or distributed: false', async () => {
      const job = { ...makeLocalJob(1), startedAt: undefined, completedAt: undefined, distributed: false };
      await on.store.saveJobState(job);
      expect(Object.keys(await on.store.getJobState(job.id)).sort()).toEqual(['batches', 'config', 'id', 'status', 'totalRecords']);
    });

    test('is replaced as a whole by the next save: what that one lacks is gone', async () => {
      const id = newId();
      await on.store.saveJobState(makeLocalJob(3, { id, completedAt: 1_700_000_000_001, config: { batchSize: 10, note: 'first' } }));
      const second = makeLocalJob(1, { id, startedAt: undefined, status: 'PAUSED', totalRecords: 7, config: { batchSize: 20 } });
      await on.store.saveJobState(second);
      expect(await on.store.getJobState(id)).toStrictEqual(second);
    });

    on.needs('raw')('has null for absent times and false for an absent distributed in its row', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(0, { id, completedAt: 5 }));
      await on.store.saveJobState(makeLocalJob(0, { id, startedAt: undefined }));
      const row = await on.jobRow(id);
      expect(row).toMatchObject({ startedAt: null, completedAt: null });
      expect(Boolean(row.distributed)).toBe(false);
    });

    test.each(['COMPLETED', 'ABORTED', 'FAILED'])(
      'that is %s without a completedAt gets the time of the database, and keeps it',
      async (status) => {
        for (const distributed of [undefined, true]) {
          const job = makeJob(1, { status, distributed });
          const before = Date.now();
          await on.store.saveJobState(job);
          const { completedAt } = await on.store.getJobState(job.id);
          expect(completedAt).toBeGreaterThanOrEqual(before - 1_000);
          expect(completedAt).toBeLessThanOrEqual(Date.now() + 1_000);
          await sleep(5);
          await on.store.saveJobState({ ...job, status: 'FAILED' });
          expect((await on.store.getJobState(job.id)).completedAt).toBe(completedAt);
          await on.store.saveJobState({ ...job, completedAt: 7 });
          expect((await on.store.getJobState(job.id)).completedAt).toBe(7);
        }
      },
    );

    test('that is not final any more has no completedAt', async () => {
      for (const distributed of [undefined, true]) {
        const job = makeJob(1, { status: 'FAILED', distributed });
        await on.store.saveJobState(job);
        await on.store.saveJobState({ ...job, status: 'PROCESSING' });
        expect(await on.store.getJobState(job.id)).not.toHaveProperty('completedAt');
      }
    });

    test('without totalRecords has 0', async () => {
      const job = makeLocalJob(0, { totalRecords: undefined });
      expect(job).not.toHaveProperty('totalRecords');
      await on.store.saveJobState(job);
      expect((await on.store.getJobState(job.id)).totalRecords).toBe(0);
    });

    test.each(JOB_STATUSES)('keeps the status %s', async (status) => {
      const job = makeLocalJob(1, { status });
      await on.store.saveJobState(job);
      expect((await on.store.getJobState(job.id)).status).toBe(status);
    });

    test.each(BATCH_STATUSES)('keeps a batch that is %s', async (status) => {
      const id = newId();
      const job = makeLocalJob(0, { id, batches: [makeBatch(id, 0, { status, processedCount: 4, failedCount: 2 })] });
      await on.store.saveJobState(job);
      expect(await on.store.getJobState(id)).toStrictEqual(job);
    });

    test('lists its batches in the order in which they were saved', async () => {
      for (const distributed of [undefined, true]) {
        const id = newId();
        const batches = [2, 0, 3, 1].map((index) => makeBatch(id, index));
        await on.store.saveJobState(makeJob(0, { id, batches, distributed }));
        expect((await on.store.getJobState(id)).batches.map(({ index }) => index)).toEqual([2, 0, 3, 1]);
      }
    });

    test('may have two batches of one index where it is not distributed, as after a restore', async () => {
      const id = newId();
      const job = makeLocalJob(0, { id, batches: [makeBatch(id, 0, { status: 'FAILED' }), makeBatch(id, 0, { id: `${id}.again` })] });
      await on.store.saveJobState(job);
      expect(await on.store.getJobState(id)).toStrictEqual(job);
    });

    test('may have 5,000 batches', async () => {
      const job = makeJob(5_000);
      await on.store.saveJobState(job);
      expect((await on.store.getJobState(job.id)).batches).toStrictEqual(job.batches);
      expect((await on.store.getDistributedStatus(job.id)).pendingBatches).toBe(5_000);
    });
  });

  describe('what is stored of a batch', () => {
    const live = (id) =>
      makeBatch(id, 0, {
        records: [{ index: 0, raw: { big: 1n }, parsed: {}, status: 'valid', errors: [] }],
        workerId: 'another',
        claimedAt: 17,
        surprise: true,
      });

    test('excludes its live records, whatever they hold: a BigInt or a cycle in them harms nothing', async () => {
      const id = newId();
      const batch = live(id);
      const cycle = {};
      cycle.self = cycle;
      batch.records.push({ index: 1, raw: cycle, parsed: {}, status: 'valid', errors: [] });
      for (const distributed of [undefined, true]) {
        await on.store.saveJobState(makeJob(0, { id, batches: [batch], distributed }));
        expect((await on.store.getJobState(id)).batches[0].records).toEqual([]);
      }
    });

    test('excludes keys that are not a batch’s', async () => {
      const id = newId();
      await on.store.saveJobState(makeLocalJob(0, { id, batches: [live(id)] }));
      expect((await on.store.getJobState(id)).batches).toStrictEqual([makeBatch(id, 0)]);
    });

    on.needs('!sortedKeys')('is written with its keys in one order, whatever order they came in', async () => {
      const id = newId();
      const shuffled = Object.fromEntries(Object.entries(makeBatch(id, 0)).reverse());
      const short = makeBatch(id, 1, { recordStartIndex: undefined, recordEndIndex: undefined });
      for (const distributed of [undefined, true]) {
        await on.store.saveJobState(makeJob(0, { id, batches: [shuffled, short], distributed }));
        const { batches } = await on.store.getJobState(id);
        const keys = ['id', 'index', 'status', 'records', 'processedCount', 'failedCount', 'recordStartIndex', 'recordEndIndex'];
        expect(Object.keys(batches[0])).toEqual(keys);
        expect(Object.keys(batches[1]).slice(0, 6)).toEqual(keys.slice(0, 6));
        if (on.has('raw')) expect(Object.keys((await on.copy(id))[0])).toEqual(keys);
      }
    });
  });

  describe('a stored config', () => {
    const stored = async (config) => {
      const job = makeLocalJob(0, { config });
      await on.store.saveJobState(job);
      return (await on.store.getJobState(job.id)).config;
    };

    test('keeps of each schema field what can be stored, and everything else', async () => {
      const fields = [
        { name: 'full', type: 'string', required: true, defaultValue: 0, separator: ';', aliases: ['a', 'b'], validators: [() => true] },
        { name: 'bare' },
        { name: 7, type: null, required: 'yes', transform: (value) => value, label: 'dropped', pattern: /x/ },
        { name: 'nulls', type: 'string', required: false, defaultValue: null, separator: null, aliases: null },
        { name: 'gone', type: 'string', required: false, defaultValue: undefined, separator: undefined, aliases: undefined },
      ];
      const config = {
        batchSize: 10,
        schema: { fields, strict: true, name: 'people', skip: () => 1 },
        unknown: { a: [1, { b: 2 }] },
        fn: () => 1,
      };
      expect(await stored(config)).toStrictEqual({
        batchSize: 10,
        schema: {
          fields: [
            { name: 'full', type: 'string', required: true, defaultValue: 0, separator: ';', aliases: ['a', 'b'] },
            { name: 'bare', type: '', required: false },
            { name: '', type: '', required: false },
            { name: 'nulls', type: 'string', required: false, defaultValue: null, separator: null, aliases: null },
            { name: 'gone', type: 'string', required: false },
          ],
          strict: true,
          name: 'people',
        },
        unknown: { a: [1, { b: 2 }] },
      });
    });

    test('keeps a schema whose fields are not an array as it is', async () => {
      for (const schema of [{ fields: { a: { validators: 1 } } }, { fields: 'x' }, { other: [{ label: 1 }] }, {}]) {
        expect(await stored({ batchSize: 1, schema })).toStrictEqual({ batchSize: 1, schema });
      }
    });

    test('is what JSON.stringify makes of it', async () => {
      const config = {
        batchSize: 10,
        date: new Date(1_700_000_000_000),
        custom: { toJSON: () => ({ made: 'by toJSON' }) },
        nan: NaN,
        infinite: -Infinity,
        gone: undefined,
        list: [undefined, () => 1, NaN, Symbol('s')],
        schema: { fields: [{ name: 'd', type: 'date', required: false, defaultValue: new Date(0) }] },
      };
      expect(await stored(config)).toStrictEqual({
        batchSize: 10,
        date: '2023-11-14T22:13:20.000Z',
        custom: { made: 'by toJSON' },
        nan: null,
        infinite: null,
        list: [null, null, null, null],
        schema: { fields: [{ name: 'd', type: 'date', required: false, defaultValue: '1970-01-01T00:00:00.000Z' }] },
      });
    });

    on.needs('!sortedKeys')('keeps the order of its keys', async () => {
      const config = { zeta: 1, batchSize: 10, alpha: { y: 1, b: 2, a: 3 }, beta: [{ q: 1, c: 2 }] };
      expect(JSON.stringify(await stored(config))).toBe(JSON.stringify(config));
    });

    const cycle = {};
    cycle.self = cycle;
    const thrower = {
      toJSON() {
        throw new TypeError('not today');
      },
    };
    test.each([
      ['a BigInt', { batchSize: 10, big: 10n }],
      ['a cycle', { batchSize: 10, cycle }],
      ['a BigInt as a default value', { batchSize: 10, schema: { fields: [{ name: 'n', type: 'x', required: true, defaultValue: 1n }] } }],
      ['a toJSON that throws', { batchSize: 10, thrower }],
    ])('with %s is refused with the TypeError as cause, and nothing is written', async (_, config) => {
      const job = makeJob(2);
      const error = await rejection(on.store.saveJobState({ ...job, config }), 'INVALID_ARGUMENT');
      expect(error.cause).toBeInstanceOf(TypeError);
      expect(error.retryable).toBe(false);
      expect(await on.store.getJobState(job.id)).toBeNull();

      await on.store.saveJobState(job);
      await rejection(on.store.saveJobState({ ...job, status: 'PAUSED', config }), 'INVALID_ARGUMENT');
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });
  });

  test('with a BigInt as a number of its own is refused with the TypeError as cause', async () => {
    const job = makeJob(2);
    for (const fields of [{ totalRecords: 5n }, { startedAt: 5n }, { batches: [{ ...job.batches[0], index: 0n }] }]) {
      const error = await rejection(on.store.saveJobState({ ...job, ...fields }), 'INVALID_ARGUMENT');
      expect(error.cause).toBeInstanceOf(TypeError);
    }
    expect(await on.store.getJobState(job.id)).toBeNull();
  });

  describe('calls on one job that are not awaited', () => {
    test('take effect in their order: of many saves the last one counts', async () => {
      const job = makeLocalJob(2);
      await Promise.all(Array.from({ length: 50 }, (_, n) => on.store.saveJobState({ ...job, totalRecords: n })));
      expect((await on.store.getJobState(job.id)).totalRecords).toBe(49);
    });

    test('take effect in their order: of many updates of a batch the last one counts', async () => {
      for (const distributed of [undefined, true]) {
        const job = makeJob(2, { distributed });
        await on.store.saveJobState(job);
        const [{ id }] = job.batches;
        await Promise.all(Array.from({ length: 50 }, (_, n) => on.store.updateBatchState(job.id, id, makeState(id, 'PROCESSING', n, 0))));
        expect((await on.store.getJobState(job.id)).batches[0].processedCount).toBe(49);
      }
    });

    test('take effect in their order: a save and an update after it, an update and a save after it', async () => {
      const job = makeLocalJob(2);
      const [{ id }] = job.batches;
      const calls = [];
      for (let n = 0; n < 20; n++) {
        calls.push(on.store.saveJobState({ ...job, totalRecords: n }));
        calls.push(on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', n, 0)));
      }
      await Promise.all(calls);
      expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status: 'COMPLETED', processedCount: 19 });

      await Promise.all([on.store.updateBatchState(job.id, id, makeState(id, 'FAILED', 1, 9)), on.store.saveJobState(job)]);
      expect((await on.store.getJobState(job.id)).batches[0]).toMatchObject({ status: 'PENDING', processedCount: 0 });
    });

    test('do not lose each other’s updates: 50 batches updated at once are all updated', async () => {
      for (const distributed of [undefined, true]) {
        const job = makeJob(50, { distributed });
        await on.store.saveJobState(job);
        await Promise.all(job.batches.map(({ id, index }) => on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', index, 1))));
        const { batches } = await on.store.getJobState(job.id);
        expect(batches.map(({ status, processedCount }) => [status, processedCount])).toEqual(
          job.batches.map(({ index }) => ['COMPLETED', index]),
        );
      }
    });

    test('are what the arguments said when the call was made, not what they say later', async () => {
      const job = makeLocalJob(1, { config: { batchSize: 10, note: 'then' } });
      const saved = on.store.saveJobState(job);
      job.config.note = 'later';
      job.batches[0].status = 'FAILED';
      await saved;
      expect(await on.store.getJobState(job.id)).toMatchObject({ config: { note: 'then' }, batches: [{ status: 'PENDING' }] });
    });

    on.needs('shared')('do not lose the updates that another store makes at the same time to other batches of the job', async () => {
      const other = await on.open();
      for (const distributed of [undefined, true]) {
        const job = makeJob(40, { distributed });
        await on.store.saveJobState(job);
        const store = (index) => (index % 2 ? other : on.store);
        await Promise.all(
          job.batches.map(({ id, index }) => store(index).updateBatchState(job.id, id, makeState(id, 'COMPLETED', index, 0))),
        );
        const { batches } = await on.store.getJobState(job.id);
        expect(batches.map(({ status, processedCount }) => [status, processedCount])).toEqual(
          job.batches.map(({ index }) => ['COMPLETED', index]),
        );
      }
    });
  });

  test('calls on many jobs at once do not disturb each other', async () => {
    const jobs = Array.from({ length: 30 }, () => makeJob(3));
    await Promise.all(
      jobs.map(async (job) => {
        await on.store.saveJobState(job);
        await sleep(0);
        const { batchId } = await claim(on.store, job.id, job.id);
        await on.store.updateBatchState(job.id, batchId, makeState(batchId, 'COMPLETED', 10, 0));
      }),
    );
    for (const job of jobs) {
      const { batches } = await on.store.getJobState(job.id);
      expect(batches.map(({ status }) => status)).toEqual(['COMPLETED', 'PENDING', 'PENDING']);
      expect(batches[0].workerId).toBe(job.id);
    }
  });
});
