// The numeric ids of records, which have 32 bits on PostgreSQL, MySQL and MariaDB: saving a record that is there takes none, and where none is left a new
// record is refused and replaces no other.

import { describe, expect } from 'vitest';
import { makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { claim, onEveryDatabase, openStore, rejection } from '../support/suite.mjs';

const LAST_ID = 2_147_483_647;
const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);

/** Every way to save records: by name, a function that saves those with these indexes. */
const ways = {
  'saveProcessedRecord, one after the other': async (store, id, batch, indexes, fields) => {
    for (const index of indexes) await store.saveProcessedRecord(id, batch, makeRecord(index, fields));
  },
  'saveProcessedRecord, all at once': (store, id, batch, indexes, fields) =>
    Promise.all(indexes.map((index) => store.saveProcessedRecord(id, batch, makeRecord(index, fields)))),
  saveBatchRecords: (store, id, batch, indexes, fields) =>
    store.saveBatchRecords(
      id,
      batch,
      indexes.map((index) => makeRecord(index, fields)),
    ),
};

/** A store inserts a job's records, or copies them, until that is refused because one exists; the refused attempt, one per job, may take ids. */
const showThatRecordsExist = (store, id, indexes) => ways.saveBatchRecords(store, id, 'b', indexes, {});

onEveryDatabase((on) => {
  const limited = on.needs('limitedIds');

  /** The id that a new record gets. */
  const takeId = async (query = on.query.bind(on), store = on.store) => {
    const id = newId();
    await store.saveProcessedRecord(id, 'b', makeRecord(0));
    const [row] = await query('select "id" from "batchactions_records" where "jobId" = ?', [id]);
    return Number(row.id);
  };

  describe('saving records that are there takes no id', () => {
    for (const [name, save] of Object.entries(ways)) {
      limited(name, { timeout: 60_000 }, async () => {
        const id = newId();
        // Next to each other, and far from each other.
        for (const indexes of [range(0, 500), range(0, 500).map((n) => 1_000 + n * 1_000)]) {
          await on.store.saveBatchRecords(
            id,
            'b',
            indexes.map((index) => makeRecord(index)),
          );
          await showThatRecordsExist(on.store, id, indexes);
          const before = await takeId();
          await save(on.store, id, 'b', indexes, { status: 'failed' });
          await save(on.store, id, 'b', indexes.toReversed(), { status: 'invalid' });
          expect(await takeId()).toBe(before + 1);
        }
        expect((await on.store.getFailedRecords(id)).map(({ status }) => status)).toEqual(Array(1_000).fill('invalid'));
      });

      if (name === 'saveBatchRecords') continue;
      limited(`${name}, of a batch that is claimed`, { timeout: 60_000 }, async () => {
        const job = makeJob(1);
        await on.store.saveJobState(job);
        const { batchId } = await claim(on.store, job.id);
        await on.store.saveBatchRecords(
          job.id,
          batchId,
          range(0, 500).map((index) => makeRecord(index)),
        );
        const before = await takeId();
        await save(on.store, job.id, batchId, range(0, 500), { status: 'failed' });
        await save(on.store, job.id, batchId, range(0, 500).toReversed(), { status: 'invalid' });
        expect(await takeId()).toBe(before + 1);
        expect(await on.store.getFailedRecords(job.id)).toHaveLength(500);
      });
    }

    limited('beside new ones, which take one each', async () => {
      for (const [name, save] of Object.entries(ways)) {
        const id = newId();
        await save(on.store, id, 'b', range(0, 40), {});
        await showThatRecordsExist(on.store, id, range(0, 40));
        const before = await takeId();
        await save(on.store, id, 'b', range(20, 60), { status: 'failed' });
        expect((await takeId()) - before - 1, name).toBe(20);
        expect(await on.store.getFailedRecords(id)).toHaveLength(40);
      }
    });
  });

  describe('where no id is left', () => {
    const prepared = async () => {
      const empty = await on.createEmpty();
      const store = openStore(empty, { pool: { max: 2 } });
      await store.initialize();
      const job = makeJob(1, { id: newId() });
      await store.saveJobState(job);
      const { batchId } = await claim(store, job.id);
      await store.saveBatchRecords(
        'plain',
        'b',
        range(0, 100).map((index) => makeRecord(index)),
      );
      await store.saveBatchRecords(
        job.id,
        batchId,
        range(0, 100).map((index) => makeRecord(index)),
      );
      // The last one, which is what MySQL's next insert meets.
      await empty.query(
        `insert into "batchactions_records" ("id", "jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors")
         values (${LAST_ID}, 'last', 'b', 0, 'pending', '{"n":"last"}', '{}', '[]')`,
      );
      await on.dialect.setLastRecordId(empty, LAST_ID);
      const rows = (where) =>
        empty
          .query(`select * from "batchactions_records" where ${where} order by "jobId", "recordIndex"`)
          .then((all) => JSON.stringify(all));
      return { empty, store, job, batchId, rows };
    };

    limited(
      'records that are there are saved, new ones are refused with what to do, and no other is changed',
      { timeout: 60_000 },
      async () => {
        const { empty, store, job, batchId, rows } = await prepared();
        const places = [
          ['plain', 'b'],
          [job.id, batchId],
        ];
        for (const [id, batch] of places) {
          for (const [name, save] of Object.entries(ways)) {
            const others = await rows(`"jobId" <> '${id}'`);
            for (const indexes of [[3], range(10, 20), range(0, 100)]) {
              const status = ['failed', 'invalid', 'processed'][indexes.length % 3];
              await save(store, id, batch, indexes, { status });
              const back = (await store.getBatchRecords(id, batch)).filter(({ index }) => indexes.includes(index));
              expect(
                back.map((record) => record.status),
                name,
              ).toEqual(indexes.map(() => status));
            }
            const before = await rows('1 = 1');
            for (const indexes of [[100], range(100, 110), range(100, 200)]) {
              const error = await rejection(save(store, id, batch, indexes, {}), 'DATABASE_ERROR');
              expect(error.message, name).toMatch(/no id is left .* alter table batchactions_records .* bigint/);
              expect(error.retryable).toBe(false);
            }
            expect(await rows('1 = 1')).toBe(before);
            expect(await rows(`"jobId" <> '${id}'`)).toBe(others);
          }
          // A bulk save is all or nothing; of saves made at once, only those of new records fail.
          const before = await rows('1 = 1');
          await rejection(ways.saveBatchRecords(store, id, batch, range(50, 150), { status: 'valid' }), 'DATABASE_ERROR');
          expect(await rows('1 = 1')).toBe(before);
          const saves = range(90, 110).map((index) => store.saveProcessedRecord(id, batch, makeRecord(index, { status: 'valid' })));
          const outcomes = await Promise.allSettled(saves);
          expect(outcomes.map(({ status }) => status)).toEqual(range(90, 110).map((index) => (index < 100 ? 'fulfilled' : 'rejected')));
          expect((await store.getPendingRecords(id)).map(({ index }) => index)).toEqual(range(90, 100));
        }

        // What the message says helps.
        const { message } = await rejection(store.saveProcessedRecord('plain', 'b', makeRecord(100)), 'DATABASE_ERROR');
        for (const statement of message.slice(message.indexOf('alter table')).split(';')) await empty.query(statement);
        const fresh = openStore(empty);
        for (const [name, save] of Object.entries(ways)) await save(fresh, name.slice(0, 36), 'b', range(0, 60), {});
        expect(await takeId(empty.query, fresh)).toBeGreaterThan(LAST_ID);
        await fresh.close();
        await store.close();
      },
    );

    on.needs('sequences')('an id that another record has is refused, and that record stays as it is', async () => {
      const { empty, store, rows } = await prepared();
      const before = await rows('1 = 1');
      for (const [name, save] of Object.entries(ways)) {
        await on.dialect.setLastRecordId(empty, 1);
        await rejection(save(store, 'plain', 'b', range(100, name === 'saveBatchRecords' ? 200 : 101), {}), 'CONSTRAINT');
      }
      expect(await rows('1 = 1')).toBe(before);
      await store.close();
    });
  });
});
