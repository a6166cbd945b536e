/**
 * The store and a Sequelize adapter on one database: each reads what the other wrote, either makes the tables, and workers of both share
 * a job. The Sequelize side is the tests' own, on real Sequelize 6.
 */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createTables, readCatalogue } from './support/catalogue.mjs';
import { databases } from './support/databases.mjs';
import { openIncumbent } from './support/incumbent.mjs';
import { storeOn } from './support/store.mjs';
import {
  BATCH_STATUSES,
  DIFFICULT,
  JOB_STATUSES,
  makeBatch,
  makeJob,
  makeLocalJob,
  makeRecord,
  RECORD_STATUSES,
  without,
} from './support/fixtures.mjs';
import { freshDatabase, needs, openStore, prepare } from './support/suite.mjs';
import { createUser } from './support/users.mjs';
import { claimPatiently } from './support/work.mjs';

async function freshIncumbent(db, options) {
  const incumbent = await openIncumbent(db, options);
  onTestFinished(() => incumbent.close());
  return incumbent;
}

const batchRows = (db, jobId) => db.query('select * from batchactions_batches where "jobId" = ? order by "batchIndex"', [jobId]);

async function jsonBatches(db, jobId) {
  const [row] = await db.query('select "batches" as "batches" from batchactions_jobs where "id" = ?', [jobId]);
  return JSON.parse(row.batches);
}

const stateOf = ({ id, status, processedCount, failedCount }) => ({ id, status, processedCount, failedCount });

for (const database of databases) {
  if (!database.has('shared')) {
    it.skip(`interop on ${database.name}: exempt, no other adapter can open a database that lives inside a store`);
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
        expect(await incumbent.batchRows(job.id)).toStrictEqual(
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

    describe('workers of both kinds share a job', () => {
      const preparedBy = {
        'the store': async (store, incumbent, job) => prepare(store, job),
        'the incumbent, whose user inserted the batch rows': async (store, incumbent, job) => {
          await prepare(incumbent, job);
          await incumbent.insertBatchRows(job);
        },
        'the incumbent, which leaves the batch rows out': async (store, incumbent, job) => {
          await prepare(incumbent, job);
          // Its own workers find something as soon as a call of the store has adopted the job.
          await store.getDistributedStatus(job.id);
        },
      };

      for (const [preparer, prepareJob] of Object.entries(preparedBy)) {
        for (const [outcome, failing] of [
          ['COMPLETED', -1],
          ['FAILED', 7],
        ]) {
          it(`at the same time, prepared by ${preparer}: each batch once, one finalizer, ${outcome}`, async () => {
            const db = await freshDatabase(database);
            const shared = openStore(db);
            await shared.initialize();
            const incumbent = await freshIncumbent(db, { pool: { max: 4 } });
            const job = makeJob(60, { id: 'fleet', size: 2 });
            await prepareJob(shared, incumbent, job);

            const ours = [shared, shared, openStore(db), openStore(db)].map((store, n) => makeWorker(store, `ours-${n}`));
            const theirs = [0, 1, 2, 3].map((n) => makeWorker(incumbent, `theirs-${n}`, repeatRolledBack));
            const workers = [...ours, ...theirs];

            // Each kind has its part, however fast the other one is.
            const first = await Promise.all(workers.map((worker) => worker.claim(job.id)));
            expect(first.every(({ claimed }) => claimed)).toBe(true);
            await Promise.all(workers.map((worker, n) => worker.run(job.id, first[n], failing)));

            const claims = workers.flatMap((worker) => worker.claims);
            expect(claims.toSorted()).toStrictEqual(job.batches.map(({ id }) => id).toSorted());
            expect(workers.reduce((sum, worker) => sum + worker.finalized, 0)).toBe(1);

            const rows = await batchRows(db, job.id);
            const expected = job.batches.map(({ id, index }) =>
              index === failing
                ? { id, status: 'FAILED', processedCount: 1, failedCount: 1 }
                : { id, status: 'COMPLETED', processedCount: 2, failedCount: 0 },
            );
            expect(rows.map(stateOf)).toStrictEqual(expected);
            expect((await jsonBatches(db, job.id)).map(stateOf)).toStrictEqual(expected);
            expect(rows.every(({ version }) => version === 1)).toBe(true);

            const state = await shared.getJobState(job.id);
            expect(state.status).toBe(outcome);
            expect(state.completedAt).toBeGreaterThan(job.startedAt);
            expect(await shared.getProcessedRecords(job.id)).toHaveLength(120);
            expect((await shared.getDistributedStatus(job.id)).isComplete).toBe(true);
          });
        }
      }

      it('a worker of ours takes over from one of theirs that died', async () => {
        const { db, store, incumbent, job } = await sharedJob(database);
        const { reservation } = await incumbent.claimBatch(job.id, 'theirs');
        await db.query('update batchactions_batches set "claimedAt" = 1 where "id" = ?', [reservation.batchId]);

        expect(await store.reclaimStaleBatches(job.id, 60_000)).toBe(1);

        expect(await incumbent.getJobState(job.id).then(({ batches }) => batches[0].status)).toBe('PENDING');
        const again = await store.claimBatch(job.id, 'ours');
        expect(again.reservation).toMatchObject({ batchId: reservation.batchId, workerId: 'ours', token: 3 });
      });

      it('a worker of theirs takes over from one of ours, whose late writes then change nothing', async () => {
        const { db, store, incumbent, job } = await sharedJob(database);
        const { reservation } = await store.claimBatch(job.id, 'ours');
        const { batchId } = reservation;
        await db.query('update batchactions_batches set "claimedAt" = 1 where "id" = ?', [batchId]);

        expect(await incumbent.reclaimStaleBatches(job.id, 60_000)).toBe(1);
        expect((await incumbent.claimBatch(job.id, 'theirs')).reservation.batchId).toBe(batchId);

        const done = { batchId, status: 'COMPLETED', processedCount: 2, failedCount: 0 };
        const late = makeRecord(0, { status: 'processed' });
        await expect(store.saveProcessedRecord(job.id, batchId, late)).rejects.toMatchObject({ code: 'LEASE_LOST' });
        await expect(store.updateBatchState(job.id, batchId, done)).rejects.toMatchObject({ code: 'LEASE_LOST' });
        expect((await batchRows(db, job.id))[0]).toMatchObject({ status: 'PROCESSING', workerId: 'theirs', processedCount: 0 });
        expect((await store.getBatchRecords(job.id, batchId))[0].status).toBe('pending');
      });

      it('a batch that one kind gave back is there for the other', async () => {
        const { store, incumbent, job } = await sharedJob(database);
        const first = await incumbent.claimBatch(job.id, 'theirs');
        await incumbent.releaseBatch(job.id, first.reservation.batchId, 'theirs');
        const second = await store.claimBatch(job.id, 'ours');
        expect(second.reservation).toMatchObject({ batchId: first.reservation.batchId, token: 3 });
        await store.releaseBatch(job.id, second.reservation.batchId, 'ours');
        const third = await incumbent.claimBatch(job.id, 'theirs');
        expect(third.reservation.batchId).toBe(first.reservation.batchId);
      });

      it('a batch that the other kind gave back below is found when nothing higher is left', async () => {
        const { store, incumbent, job } = await sharedJob(database);
        const low = await incumbent.claimBatch(job.id, 'theirs');
        for (const { index } of job.batches.slice(1)) {
          expect((await store.claimBatch(job.id, 'ours')).reservation.batchIndex).toBe(index);
        }
        await incumbent.releaseBatch(job.id, low.reservation.batchId, 'theirs');
        expect((await store.claimBatch(job.id, 'ours')).reservation.batchIndex).toBe(0);
        expect(await store.claimBatch(job.id, 'ours')).toStrictEqual({ claimed: false, reason: 'NO_PENDING_BATCHES' });
      });

      it('a job that the store prepared is worked off by workers of the incumbent alone', async () => {
        const { db, store, incumbent, job } = await sharedJob(database);
        const worker = makeWorker(incumbent, 'theirs');
        await worker.run(job.id, await worker.claim(job.id), -1);
        expect(worker.claims).toStrictEqual(job.batches.map(({ id }) => id));
        expect(worker.finalized).toBe(1);
        const state = await store.getJobState(job.id);
        expect(state.status).toBe('COMPLETED');
        expect(state.batches.map(stateOf)).toStrictEqual((await batchRows(db, job.id)).map(stateOf));
      });
    });

    describe('a distributed job that the incumbent prepared, without batch rows', () => {
      async function preparedByIncumbent(job) {
        const db = await freshDatabase(database);
        const incumbent = await freshIncumbent(db);
        await incumbent.initialize();
        await prepare(incumbent, job);
        expect(await batchRows(db, job.id)).toStrictEqual([]);
        const store = openStore(db);
        await store.initialize();
        return { db, store, incumbent };
      }

      it('is worked off by workers of the store, which all begin at once', async () => {
        const job = makeJob(40, { id: 'adopted', size: 2 });
        const { db, store } = await preparedByIncumbent(job);
        const stores = [store, openStore(db), openStore(db), openStore(db)];
        const workers = stores.map((each, n) => makeWorker(each, `ours-${n}`, (step) => step()));
        await Promise.all(workers.map(async (worker) => worker.run(job.id, await worker.claim(job.id), -1)));

        expect(workers.flatMap((worker) => worker.claims).toSorted()).toStrictEqual(job.batches.map(({ id }) => id).toSorted());
        expect(workers.reduce((sum, worker) => sum + worker.finalized, 0)).toBe(1);
        const rows = await batchRows(db, job.id);
        expect(rows.map(({ id, recordStartIndex, recordEndIndex }) => ({ id, recordStartIndex, recordEndIndex }))).toStrictEqual(
          job.batches.map(({ id, recordStartIndex, recordEndIndex }) => ({ id, recordStartIndex, recordEndIndex })),
        );
        expect((await jsonBatches(db, job.id)).map(stateOf)).toStrictEqual(rows.map(stateOf));
        expect((await store.getJobState(job.id)).status).toBe('COMPLETED');
      });

      it.each([
        [
          'getDistributedStatus',
          async (store, job) => expect(await store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 3, pendingBatches: 3 }),
        ],
        ['reclaimStaleBatches', async (store, job) => expect(await store.reclaimStaleBatches(job.id, 60_000)).toBe(0)],
        ['tryFinalizeJob', async (store, job) => expect(await store.tryFinalizeJob(job.id)).toBe(false)],
        ['saveJobState', (store, job) => store.saveJobState(job)],
      ])('is adopted when the first call is %s', async (method, call) => {
        const job = makeJob(3, { id: 'adopted', size: 2 });
        const { db, store } = await preparedByIncumbent(job);
        await call(store, job);
        expect(await store.claimBatch(job.id, 'w')).toMatchObject({ claimed: true, reservation: { batchIndex: 0, token: 1 } });
        expect(await batchRows(db, job.id)).toHaveLength(3);
      });

      it('keeps what is done already', async () => {
        const done = makeBatch('adopted', 0, { size: 2, status: 'COMPLETED', processedCount: 1, failedCount: 1 });
        const job = makeJob(3, { id: 'adopted', size: 2 });
        const { store } = await preparedByIncumbent({ ...job, batches: [done, ...job.batches.slice(1)] });
        expect(await store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: 3, completedBatches: 1, pendingBatches: 2 });
        expect((await store.claimBatch(job.id, 'w')).reservation.batchIndex).toBe(1);
        expect((await store.getJobState(job.id)).batches[0]).toStrictEqual(done);
      });

      it('gets no batch rows where it is not distributed', async () => {
        const job = makeLocalJob(3, { id: 'plain', size: 2 });
        const { db, store } = await preparedByIncumbent(job);
        const [first] = job.batches;
        await store.updateBatchState(job.id, first.id, { batchId: first.id, status: 'COMPLETED', processedCount: 2, failedCount: 0 });
        await store.saveJobState({ ...job, batches: [{ ...first, status: 'COMPLETED', processedCount: 2 }, ...job.batches.slice(1)] });
        expect(await batchRows(db, job.id)).toStrictEqual([]);
      });
    });
  });
}

/** A job of four batches that the store prepared, for a worker of each kind. */
async function sharedJob(database) {
  const db = await freshDatabase(database);
  const store = openStore(db);
  await store.initialize();
  const incumbent = await freshIncumbent(db);
  const job = makeJob(4, { id: 'shared', size: 2 });
  await prepare(store, job);
  return { db, store, incumbent, job };
}

/**
 * A transaction of the incumbent that the database ended to resolve a deadlock, or did not let begin beside another writer of a SQLite file, is
 * its caller's to repeat.
 */
async function repeatRolledBack(step) {
  for (let tries = 1; ; tries++) {
    try {
      return await step();
    } catch (error) {
      if (tries === 50 || !/deadlock|record has changed|SQLITE_BUSY/i.test(error.message)) throw error;
    }
  }
}

/** A worker as the importer runs one. `make` makes each step of it. */
function makeWorker(store, workerId, make = (step) => step()) {
  const worker = {
    claims: [],
    finalized: 0,
    async claim(jobId) {
      await make(() => store.reclaimStaleBatches(jobId, 15 * 60_000));
      return make(() => claimPatiently(store, jobId, workerId));
    },
    async run(jobId, first, failing) {
      for (let claim = first; claim.claimed; claim = await worker.claim(jobId)) {
        const { batchId, batchIndex } = claim.reservation;
        worker.claims.push(batchId);
        for (const record of await make(() => store.getBatchRecords(jobId, batchId))) {
          await make(() => store.saveProcessedRecord(jobId, batchId, { ...record, status: 'processed' }));
        }
        const state =
          batchIndex === failing
            ? { batchId, status: 'FAILED', processedCount: 1, failedCount: 1 }
            : { batchId, status: 'COMPLETED', processedCount: 2, failedCount: 0 };
        await make(() => store.updateBatchState(jobId, batchId, state));
        if (await make(() => store.tryFinalizeJob(jobId))) worker.finalized++;
      }
    },
  };
  return worker;
}
