/**
 * Workers of the store and of a Sequelize adapter share a job, and the store adopts jobs that the other prepared. The Sequelize side is the
 * tests' own, on real Sequelize 6.
 */
import { describe, expect, it } from 'vitest';
import { databases } from '../support/databases.mjs';
import { freshIncumbent } from '../support/incumbent.mjs';
import { makeBatch, makeJob, makeLocalJob, makeRecord } from '../support/fixtures.mjs';
import { freshDatabase, openStore, prepare, needs } from '../support/suite.mjs';
import { claimPatiently } from '../support/work.mjs';

const batchRows = (db, jobId) => db.query('select * from batchactions_batches where "jobId" = ? order by "batchIndex"', [jobId]);

async function jsonBatches(db, jobId) {
  const [row] = await db.query('select "batches" as "batches" from batchactions_jobs where "id" = ?', [jobId]);
  return JSON.parse(row.batches);
}

const stateOf = ({ id, status, processedCount, failedCount }) => ({ id, status, processedCount, failedCount });

for (const database of databases) {
  if (!database.has('shared')) {
    describe(database.name, () => needs(database, 'shared')('interop'));
    continue;
  }

  describe(database.name, () => {
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

      it('workers of the incumbent alone complete a job that the store prepared', async () => {
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

      it('is completed by workers of the store that all start at once', async () => {
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
