/**
 * The store and a Sequelize adapter on one database: each reads what the other wrote, and either makes the tables. The Sequelize side is
 * the tests' own, on real Sequelize 6.
 */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createTables, readCatalogue } from '../support/catalogue.mjs';
import { databases } from '../support/databases.mjs';
import { freshIncumbent, openIncumbent } from '../support/incumbent.mjs';
import { storeOn } from '../support/store.mjs';
import {
  BATCH_STATUSES,
  DIFFICULT,
  JOB_STATUSES,
  makeJob,
  makeLocalJob,
  makeRows,
  makeRecord,
  RECORD_STATUSES,
  without,
} from '../support/fixtures.mjs';
import { freshDatabase, needs, openStore, prepare } from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';

const stateOf = ({ id, status, processedCount, failedCount }) => ({ id, status, processedCount, failedCount });

for (const database of databases) {
  if (!database.has('shared')) {
    describe(database.name, () => needs(database, 'shared')('interop'));
    continue;
  }

  describe(database.name, () => {
    describe('what the incumbent wrote, the store reads', () => {
      let db;
      let incumbent;
      let store;

      beforeAll(async () => {
        db = await database.create();
        incumbent = await openIncumbent(db);
        await incumbent.initialize();
        store = storeOn(db.url);
        await store.initialize();
      });

      afterAll(async () => {
        await store?.close();
        await incumbent?.close();
        await db?.drop();
      });

      it.each(JOB_STATUSES)('a job that is %s', async (status) => {
        const job = makeLocalJob(3, {
          id: `read-${status}`,
          size: 2,
          status,
          completedAt: 1_700_000_009_999,
          config: { batchSize: 2, note: DIFFICULT },
        });
        await incumbent.saveJobState(job);
        expect(await store.getJobState(job.id)).toStrictEqual(job);
      });

      it('a job with nothing but what it must have: what is null there is absent here', async () => {
        const job = makeLocalJob(0, { id: 'read-bare', size: 2, startedAt: undefined });
        await incumbent.saveJobState(job);
        expect(await store.getJobState(job.id)).toStrictEqual(without(job, 'startedAt'));
      });

      it('a distributed job with batches in every state, and who holds them', async () => {
        const job = makeJob(BATCH_STATUSES.length, { id: 'read-batches', size: 2 });
        await incumbent.saveJobState(job);
        await incumbent.insertBatchRows(job);
        const claim = await incumbent.claimBatch(job.id, 'theirs');
        expect(claim.reservation.batchIndex).toBe(0);
        for (const [index, status] of BATCH_STATUSES.entries()) {
          const batchId = job.batches[index].id;
          await incumbent.updateBatchState(job.id, batchId, { batchId, status, processedCount: index, failedCount: 10 + index });
        }
        const [first, ...others] = job.batches.map((batch, index) => ({
          ...batch,
          status: BATCH_STATUSES[index],
          processedCount: index,
          failedCount: 10 + index,
        }));
        const held = { ...first, workerId: 'theirs', claimedAt: claim.reservation.claimedAt };
        expect(await store.getJobState(job.id)).toStrictEqual({ ...job, batches: [held, ...others] });
        expect(await store.getDistributedStatus(job.id)).toStrictEqual({
          jobId: job.id,
          totalBatches: 5,
          completedBatches: 1,
          failedBatches: 1,
          processingBatches: 1,
          pendingBatches: 1,
          isComplete: false,
        });
      });

      it('records in every state, with and without errors', async () => {
        const jobId = 'read-records';
        const errors = [{ field: 'name', message: 'Grüße: “leer”', code: 'EMPTY', value: null, metadata: DIFFICULT }];
        const records = RECORD_STATUSES.map((status, index) => makeRecord(index, { status }));
        records.push(
          makeRecord(5, { raw: DIFFICULT, parsed: DIFFICULT, errors, status: 'failed', processingError: 'Žádné 🚴🏽‍♀️ spojení' }),
          makeRecord(6, { raw: {}, parsed: {}, status: 'processed' }),
        );
        await incumbent.saveBatchRecords(jobId, 'read-records-b0', records.slice(0, 4));
        for (const record of records.slice(4)) await incumbent.saveProcessedRecord(jobId, 'read-records-b1', record);

        expect(await store.getBatchRecords(jobId, 'read-records-b0')).toStrictEqual(records.slice(0, 4));
        expect(await store.getBatchRecords(jobId, 'read-records-b1')).toStrictEqual(records.slice(4));
        const having = (...statuses) => records.filter(({ status }) => statuses.includes(status));
        expect(await store.getPendingRecords(jobId)).toStrictEqual(having('pending', 'valid'));
        expect(await store.getFailedRecords(jobId)).toStrictEqual(having('failed', 'invalid'));
        expect(await store.getProcessedRecords(jobId)).toStrictEqual(having('processed'));
      });

      it('big texts', async () => {
        const record = makeRecord(0, { raw: { text: 'ž'.repeat(500_000) }, processingError: 'x'.repeat(60_000), status: 'failed' });
        await incumbent.saveBatchRecords('read-big', 'read-big-b0', [record]);
        expect(await store.getFailedRecords('read-big')).toStrictEqual([record]);
      });

      it('and what it changes later', async () => {
        const job = makeLocalJob(2, { id: 'read-later', size: 2 });
        await incumbent.saveJobState(job);
        await store.getJobState(job.id);
        const [done, open] = job.batches;
        await incumbent.updateBatchState(job.id, done.id, { batchId: done.id, status: 'COMPLETED', processedCount: 2, failedCount: 0 });
        const batches = [{ ...done, status: 'COMPLETED', processedCount: 2 }, open];
        expect(await store.getJobState(job.id)).toStrictEqual({ ...job, batches });
      });
    });

    describe('what the store wrote, the incumbent reads', () => {
      let db;
      let incumbent;
      let store;

      beforeAll(async () => {
        db = await database.create();
        store = storeOn(db.url);
        await store.initialize();
        incumbent = await openIncumbent(db);
        await incumbent.initialize();
      });

      afterAll(async () => {
        await store?.close();
        await incumbent?.close();
        await db?.drop();
      });

      it.each(JOB_STATUSES)('a job that is %s', async (status) => {
        const job = makeLocalJob(3, {
          id: `written-${status}`,
          size: 2,
          status,
          completedAt: 1_700_000_009_999,
          config: { batchSize: 2, note: DIFFICULT },
        });
        await store.saveJobState(job);
        expect(await incumbent.getJobState(job.id)).toStrictEqual(job);
      });

      it('a job with nothing but what it must have: what is absent here is null there', async () => {
        const job = without(makeLocalJob(0, { id: 'written-bare', size: 2 }), 'startedAt', 'totalRecords');
        await store.saveJobState(job);
        expect(await incumbent.jobRow(job.id)).toMatchObject({ totalRecords: 0, startedAt: null, completedAt: null, distributed: false });
        expect(await incumbent.getJobState(job.id)).toStrictEqual({ ...job, totalRecords: 0 });
      });

      it('a distributed job, with a row for each of its batches', async () => {
        const job = makeJob(5, { id: 'written-batches', size: 2 });
        await store.saveJobState(job);
        expect(await incumbent.getJobState(job.id)).toStrictEqual(job);
        expect(await incumbent.batchRows(job.id)).toStrictEqual(makeRows(job));
      });

      it('a claim, a finished batch and a batch given back: in the rows and in the JSON', async () => {
        const job = makeJob(3, { id: 'written-claims', size: 2 });
        await store.saveJobState(job);
        const [first, second, third] = job.batches;
        const { reservation } = await store.claimBatch(job.id, 'ours');
        await store.claimBatch(job.id, 'ours');
        await store.claimBatch(job.id, 'ours');
        await store.updateBatchState(job.id, first.id, { batchId: first.id, status: 'COMPLETED', processedCount: 1, failedCount: 1 });
        await store.releaseBatch(job.id, third.id, 'ours');

        const rows = await incumbent.batchRows(job.id);
        expect(rows.map(({ status, version }) => [status, version])).toStrictEqual([
          ['COMPLETED', 1],
          ['PROCESSING', 1],
          ['PENDING', 2],
        ]);
        expect(rows[0].workerId).toBe('ours');
        expect(Number(rows[0].claimedAt)).toBe(reservation.claimedAt);
        expect((await incumbent.getJobState(job.id)).batches.map(stateOf)).toStrictEqual([
          { id: first.id, status: 'COMPLETED', processedCount: 1, failedCount: 1 },
          { id: second.id, status: 'PROCESSING', processedCount: 0, failedCount: 0 },
          { id: third.id, status: 'PENDING', processedCount: 0, failedCount: 0 },
        ]);
      });

      it('records in every state, with and without errors', async () => {
        const jobId = 'written-records';
        const errors = [{ field: 'name', message: 'Grüße: “leer”', code: 'EMPTY', value: null, metadata: DIFFICULT }];
        const records = RECORD_STATUSES.map((status, index) => makeRecord(index, { status }));
        records.push(
          makeRecord(5, { raw: DIFFICULT, parsed: DIFFICULT, errors, status: 'failed', processingError: 'Žádné 🚴🏽‍♀️ spojení' }),
          makeRecord(6, { raw: {}, parsed: {}, status: 'processed' }),
        );
        await store.saveBatchRecords(jobId, 'written-records-b0', records.slice(0, 4));
        for (const record of records.slice(4)) await store.saveProcessedRecord(jobId, 'written-records-b1', record);

        expect(await incumbent.getBatchRecords(jobId, 'written-records-b0')).toStrictEqual(records.slice(0, 4));
        expect(await incumbent.getBatchRecords(jobId, 'written-records-b1')).toStrictEqual(records.slice(4));
        expect((await incumbent.recordRow(jobId, 0)).processingError).toBeNull();
      });

      it('big texts', async () => {
        const record = makeRecord(0, { raw: { text: 'ž'.repeat(500_000) }, processingError: 'x'.repeat(60_000), status: 'failed' });
        await store.saveBatchRecords('written-big', 'written-big-b0', [record]);
        expect(await incumbent.getFailedRecords('written-big')).toStrictEqual([record]);
      });

      it('a record that either of them saved before, and the other one again', async () => {
        const jobId = 'written-again';
        const batchId = 'written-again-b0';
        await store.saveBatchRecords(jobId, batchId, [makeRecord(0, { status: 'pending' }), makeRecord(1, { status: 'pending' })]);
        await incumbent.saveProcessedRecord(jobId, batchId, makeRecord(0, { status: 'failed', processingError: 'theirs' }));
        await store.saveProcessedRecord(jobId, batchId, makeRecord(0, { status: 'processed' }));
        await store.saveProcessedRecord(jobId, batchId, makeRecord(1, { status: 'failed', processingError: 'ours' }));
        await incumbent.saveProcessedRecord(jobId, batchId, makeRecord(1, { status: 'processed' }));
        const expected = [makeRecord(0, { status: 'processed' }), makeRecord(1, { status: 'processed' })];
        expect(await store.getBatchRecords(jobId, batchId)).toStrictEqual(expected);
        expect(await incumbent.getBatchRecords(jobId, batchId)).toStrictEqual(expected);
      });
    });

    describe('the tables', () => {
      it('Sequelize accepts those of the store as they are: sync() changes nothing', async () => {
        const db = await freshDatabase(database);
        const store = openStore(db);
        await store.initialize();
        await prepare(store, makeJob(3, { id: 'kept', size: 2 }));
        const before = await readCatalogue(db);

        await (await freshIncumbent(db)).initialize();

        expect(await readCatalogue(db)).toStrictEqual(before);
        expect(await store.getJobState('kept')).toStrictEqual(makeJob(3, { id: 'kept', size: 2 }));
        expect(await store.getPendingRecords('kept')).toHaveLength(6);
      });

      it('the store accepts those of Sequelize as they are: initialize() keeps the columns, the indexes and the rows', async () => {
        const db = await freshDatabase(database);
        const incumbent = await freshIncumbent(db);
        await incumbent.initialize();
        await prepare(incumbent, makeLocalJob(3, { id: 'kept', size: 2 }));
        const before = await readCatalogue(db);

        const store = openStore(db);
        await store.initialize();
        await store.initialize();

        const after = await readCatalogue(db);
        for (const [table, { columns, indexes }] of Object.entries(before)) {
          expect(after[table].columns, table).toStrictEqual(columns);
          expect(after[table].indexes, table).toMatchObject(indexes);
        }
        expect(await store.getJobState('kept')).toStrictEqual(makeLocalJob(3, { id: 'kept', size: 2 }));
        expect(await store.getPendingRecords('kept')).toHaveLength(6);
      });

      const unprivileged = 'a user who may not create anything initializes and works on tables that are there';
      needs(database, 'file')('initialize() leaves the schema of complete tables untouched', async () => {
        const db = await freshDatabase(database);
        await (await freshIncumbent(db)).initialize();
        await openStore(db).initialize();
        const before = await db.query('select name, sql from sqlite_master order by name');
        const [{ schema_version: version }] = await db.query('pragma schema_version');
        await openStore(db).initialize();
        expect(await db.query('pragma schema_version')).toStrictEqual([{ schema_version: version }]);
        expect(await db.query('select name, sql from sqlite_master order by name')).toStrictEqual(before);
      });

      needs(database, 'server').each(['Sequelize', 'the store', 'hand-written statements'])(
        `${unprivileged}: made by %s`,
        async (maker) => {
          const db = await freshDatabase(database);
          if (maker === 'Sequelize') await (await freshIncumbent(db)).initialize();
          else if (maker === 'the store') await openStore(db).initialize();
          else await createTables(db);
          const user = await createUser(db, { rights: 'data' });
          onTestFinished(() => user.drop());

          const store = openStore({ url: user.url });
          await store.initialize();
          const job = makeJob(2, { id: 'unprivileged', size: 2 });
          await prepare(store, job);
          const { reservation } = await store.claimBatch(job.id, 'w');
          await store.saveProcessedRecord(job.id, reservation.batchId, makeRecord(0, { status: 'processed' }));
          await store.updateBatchState(job.id, reservation.batchId, {
            batchId: reservation.batchId,
            status: 'COMPLETED',
            processedCount: 2,
            failedCount: 0,
          });
          expect(await store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
          expect((await store.getDistributedStatus(job.id)).completedBatches).toBe(1);
          expect(await store.deleteJob(job.id)).toBe(true);
        },
      );
    });
  });
}
