// Guarantees of `saveJobState`, `getJobState` and `updateBatchState`.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';

const jobStatuses = ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'];
const batchStatuses = ['PENDING', 'PROCESSING', 'PAUSED', 'COMPLETED', 'FAILED'];

onEveryDatabase((on) => {
  const plain = (batches, fields) => makeJob(batches, { distributed: undefined, ...fields });

  describe('a stored job', () => {
    test('is null where there is none', async () => {
      expect(await on.store.getJobState(newId())).toBeNull();
    });

    test('comes back as it was saved', async () => {
      const job = plain(3, { completedAt: 1_700_000_009_999, config: { id: 'c', batchSize: 10, maxRetries: 3, continueOnError: true } });
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
      await on.store.saveJobState({ ...plain(0, { id, startedAt: undefined }), batches: [batch] });
      const found = await on.store.getJobState(id);
      expect(Object.keys(found).sort()).toEqual(['batches', 'config', 'id', 'status', 'totalRecords']);
      expect(Object.keys(found.batches[0]).sort()).toEqual(['failedCount', 'id', 'index', 'processedCount', 'records', 'status']);
    });

    test('has no key for what was undefined, or distributed: false', async () => {
      const job = { ...plain(1), startedAt: undefined, completedAt: undefined, distributed: false };
      await on.store.saveJobState(job);
      expect(Object.keys(await on.store.getJobState(job.id)).sort()).toEqual(['batches', 'config', 'id', 'status', 'totalRecords']);
    });

    test('is replaced as a whole by the next save: what that one lacks is gone', async () => {
      const id = newId();
      await on.store.saveJobState(plain(3, { id, completedAt: 1_700_000_000_001, config: { batchSize: 10, note: 'first' } }));
      const second = plain(1, { id, startedAt: undefined, status: 'PAUSED', totalRecords: 7, config: { batchSize: 20 } });
      await on.store.saveJobState(second);
      expect(await on.store.getJobState(id)).toStrictEqual(second);
    });

    on.needs('raw')('has null for absent times and false for an absent distributed in its row', async () => {
      const id = newId();
      await on.store.saveJobState(makeJob(0, { id, completedAt: 5 }));
      await on.store.saveJobState(plain(0, { id, startedAt: undefined }));
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
      const job = plain(0, { totalRecords: undefined });
      expect(job).not.toHaveProperty('totalRecords');
      await on.store.saveJobState(job);
      expect((await on.store.getJobState(job.id)).totalRecords).toBe(0);
    });

    test.each(jobStatuses)('keeps the status %s', async (status) => {
      const job = plain(1, { status });
      await on.store.saveJobState(job);
      expect((await on.store.getJobState(job.id)).status).toBe(status);
    });

    test.each(batchStatuses)('keeps a batch that is %s', async (status) => {
      const id = newId();
      const job = plain(0, { id, batches: [makeBatch(id, 0, { status, processedCount: 4, failedCount: 2 })] });
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
      const job = plain(0, { id, batches: [makeBatch(id, 0, { status: 'FAILED' }), makeBatch(id, 0, { id: `${id}.again` })] });
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
      await on.store.saveJobState(plain(0, { id, batches: [live(id)] }));
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
      const job = plain(0, { config });
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

  describe('saveJobState with distributed: true', () => {
    on.needs('raw')('writes a row for each batch', async () => {
      const job = makeJob(2);
      await on.store.saveJobState(job);
      expect(await on.rows(job.id)).toEqual(
        job.batches.map((batch) => ({
          id: batch.id,
          jobId: job.id,
          batchIndex: batch.index,
          status: 'PENDING',
          workerId: null,
          claimedAt: null,
          recordStartIndex: batch.recordStartIndex,
          recordEndIndex: batch.recordEndIndex,
          processedCount: 0,
          failedCount: 0,
          version: 0,
        })),
      );
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
      const job = plain(2);
      await on.store.saveJobState(job);
      expect(await on.store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 0, isComplete: false });
      expect(await on.store.claimBatch(job.id, 'w')).toEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
    });

    test('sets the state of the batches to what it says, as often as it is called', async () => {
      const job = plain(2);
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
      for (const status of batchStatuses) {
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

  describe('calls on one job that are not awaited', () => {
    test('take effect in their order: of many saves the last one counts', async () => {
      const job = plain(2);
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
      const job = plain(2);
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
      const job = plain(1, { config: { batchSize: 10, note: 'then' } });
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

  describe('ids', () => {
    const long = (characters, unit) => {
      const head = newId('');
      return head + unit.repeat(characters - head.length);
    };

    test.each([
      ['ASCII', 'x'],
      ['emoji', '😀'],
    ])('of 36 characters of %s are stored', async (_, unit) => {
      const [id, batchId] = [long(36, unit), long(36, unit)];
      expect([...id]).toHaveLength(36);
      await on.store.saveJobState(makeJob(0, { id, batches: [makeBatch(id, 0, { id: batchId })] }));
      expect((await on.store.getJobState(id)).batches[0].id).toBe(batchId);
      expect(await claim(on.store, id)).toMatchObject({ jobId: id, batchId });
    });

    test.each([
      ['ASCII', 'x'],
      ['emoji', '😀'],
    ])('of 37 characters of %s are refused with VALUE_TOO_LONG, and nothing is written', async (_, unit) => {
      const id = newId();
      const tooLong = long(37, unit);
      await rejection(on.store.saveJobState(makeJob(1, { id: tooLong })), 'VALUE_TOO_LONG');
      await rejection(on.store.saveJobState(makeJob(0, { id, batches: [makeBatch(id, 0, { id: tooLong })] })), 'VALUE_TOO_LONG');
      expect(await on.store.getJobState(id)).toBeNull();
      await rejection(
        on.store.saveProcessedRecord(id, tooLong, { index: 0, raw: {}, parsed: {}, status: 'valid', errors: [] }),
        'VALUE_TOO_LONG',
      );
      expect(await on.store.getPendingRecords(id)).toEqual([]);
    });

    on.needs('caseInsensitiveIds').each([
      ['case', (id) => id.toUpperCase()],
      ['accents', (id) => id.replace('e', 'é')],
    ])('of jobs that differ in %s only collide: CONSTRAINT, and the records that were there stay', async (_, variant) => {
      const id = newId('case');
      const records = [makeRecord(0), makeRecord(1)];
      await on.store.saveBatchRecords(id, 'b', records);
      const other = variant(id);
      const error = await rejection(on.store.saveProcessedRecord(other, 'b', makeRecord(1, { status: 'failed' })), 'CONSTRAINT');
      expect(error.message).toContain(JSON.stringify(other));
      const bulk = [makeRecord(2), makeRecord(1, { status: 'failed' })];
      await rejection(on.store.saveBatchRecords(other, 'b', bulk), 'CONSTRAINT');
      expect(await on.store.getBatchRecords(id, 'b')).toStrictEqual(records);
    });

    test('of batches with any characters are found in the list of a job that is not distributed', async () => {
      const ids = ['plain-1', 'b 2', 'quote"d', 'back\\slash', "apos'trophe", 'ünï', '日本', '😀', '%', 'a/b', '\u2028'].map(
        (id) => `${newId()}${id}`,
      );
      const job = makeJob(0, { distributed: undefined, batches: ids.map((id, index) => makeBatch('x', index, { id })) });
      await on.store.saveJobState(job);
      for (const [index, id] of ids.entries()) await on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', index, 1));
      await on.store.updateBatchState(job.id, ids[0].slice(0, -1), makeState(ids[0].slice(0, -1), 'FAILED', 9, 9));
      const expected = job.batches.map((batch, index) => ({ ...batch, status: 'COMPLETED', processedCount: index, failedCount: 1 }));
      expect((await on.store.getJobState(job.id)).batches).toEqual(expected);
    });

    test('of a batch that hold half of a surrogate pair have U+FFFD in its place', async () => {
      const job = makeJob(1);
      job.batches[0].id = `\ud800${job.id}`;
      await on.store.saveJobState(job);
      const [batch] = (await on.store.getJobState(job.id)).batches;
      expect(batch.id).toBe(`\ufffd${job.id}`);
      await complete(on.store, job.id, (await claim(on.store, job.id)).batchId);
      expect((await on.store.getJobState(job.id)).batches).toMatchObject([{ id: batch.id, status: 'COMPLETED' }]);
    });

    on.needs('!caseInsensitiveIds')('differ where their case differs', async () => {
      const id = newId('case');
      const [lower, upper] = [makeJob(1, { id }), makeJob(1, { id: id.toUpperCase() })];
      await on.store.saveJobState(lower);
      expect(await on.store.getJobState(upper.id)).toBeNull();
      await on.store.saveJobState(upper);
      expect(await on.store.getJobState(lower.id)).toStrictEqual(lower);
      expect(await on.store.getJobState(upper.id)).toStrictEqual(upper);
    });

    on.needs('caseInsensitiveIds')('of batches that differ in case only collide: CONSTRAINT, and nothing is stored', async () => {
      const [one, two] = [newId(), newId()];
      const batchId = newId('batch');
      await on.store.saveJobState(makeJob(0, { id: one, batches: [makeBatch(one, 0, { id: batchId })] }));
      await rejection(
        on.store.saveJobState(makeJob(0, { id: two, batches: [makeBatch(two, 0, { id: batchId.toUpperCase() })] })),
        'CONSTRAINT',
      );
      expect(await on.store.getJobState(two)).toBeNull();
      const three = newId();
      const batches = [makeBatch(three, 0, { id: `${three}-x` }), makeBatch(three, 1, { id: `${three}-X` })];
      await rejection(on.store.saveJobState(makeJob(0, { id: three, batches })), 'CONSTRAINT');
      expect(await on.store.getJobState(three)).toBeNull();
    });

    on.needs('caseInsensitiveIds')('of jobs that differ in case only collide: CONSTRAINT, and the job that was there stays', async () => {
      const job = plain(1);
      await on.store.saveJobState(job);
      await rejection(on.store.saveJobState({ ...job, id: job.id.toUpperCase(), totalRecords: 99 }), 'CONSTRAINT');
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
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
