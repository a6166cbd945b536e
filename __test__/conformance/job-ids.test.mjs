// Ids of jobs and batches: of any characters, up to 36 of them, and compared as the database’s collation does.

import { describe, expect, test } from 'vitest';
import { makeBatch, makeJob, makeLocalJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection } from '../support/suite.mjs';

onEveryDatabase((on) => {
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
      const job = makeLocalJob(1);
      await on.store.saveJobState(job);
      await rejection(on.store.saveJobState({ ...job, id: job.id.toUpperCase(), totalRecords: 99 }), 'CONSTRAINT');
      expect(await on.store.getJobState(job.id)).toStrictEqual(job);
    });
  });
});
