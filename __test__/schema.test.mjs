/** The tables: what initialize() makes, what it says of tables that do not fit, and where it makes them. */
import { describe, expect, it } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../index.js';
import { createTables, listTables, readCatalogue, TABLES } from './support/catalogue.mjs';
import { databases } from './support/databases.mjs';
import { makeJob, makeRecord, prepare } from './support/jobs.mjs';
import { freshDatabase, openStore } from './support/suite.mjs';

/** Every method that needs the tables, with arguments that are in order. */
const CALLS = {
  saveJobState: (store) => store.saveJobState(makeJob('j')),
  'saveJobState of a distributed job': (store) => store.saveJobState(makeJob('j', { distributed: true })),
  getJobState: (store) => store.getJobState('j'),
  updateBatchState: (store) => store.updateBatchState('j', 'b', { batchId: 'b', status: 'COMPLETED', processedCount: 0, failedCount: 0 }),
  saveProcessedRecord: (store) => store.saveProcessedRecord('j', 'b', makeRecord(0)),
  saveBatchRecords: (store) => store.saveBatchRecords('j', 'b', [makeRecord(0)]),
  getFailedRecords: (store) => store.getFailedRecords('j'),
  getPendingRecords: (store) => store.getPendingRecords('j'),
  getProcessedRecords: (store) => store.getProcessedRecords('j'),
  getBatchRecords: (store) => store.getBatchRecords('j', 'b'),
  records: (store) => store.records('j').next(),
  getProgress: (store) => store.getProgress('j'),
  claimBatch: (store) => store.claimBatch('j', 'w'),
  releaseBatch: (store) => store.releaseBatch('j', 'b', 'w'),
  renewBatch: (store) => store.renewBatch('j', 'b', 'w'),
  reclaimStaleBatches: (store) => store.reclaimStaleBatches('j', 60_000),
  getDistributedStatus: (store) => store.getDistributedStatus('j'),
  tryFinalizeJob: (store) => store.tryFinalizeJob('j'),
  listJobs: (store) => store.listJobs(),
  deleteJob: (store) => store.deleteJob('j'),
};

for (const database of databases) {
  describe(database.name, () => {
    it.each(Object.keys(CALLS))('%s rejects with TABLES_MISSING where there are none, and says what to call', async (name) => {
      const store = openStore(await freshDatabase(database));
      const error = await CALLS[name](store).then(
        () => expect.unreachable('it resolved'),
        (reason) => reason,
      );
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'TABLES_MISSING', message: expect.stringContaining('initialize()') });
    });

    it('a store that met no tables works once they are there', async () => {
      const store = openStore(await freshDatabase(database));
      await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'TABLES_MISSING' });
      await store.initialize();
      expect(await store.getJobState('j')).toBeNull();
      await prepare(store, makeJob('j'));
      expect(await store.getJobState('j')).toStrictEqual(makeJob('j'));
    });

    if (!database.raw) {
      it.skip('the catalogue and incompatible tables: exempt, nothing but the store can look into this database');
      return;
    }

    it('initialize() makes the tables that Sequelize makes: each column and each index', async () => {
      const db = await freshDatabase(database);
      await openStore(db).initialize();
      const reference = await freshDatabase(database);
      await createTables(reference);

      const made = await readCatalogue(db);
      const expected = await readCatalogue(reference);
      for (const table of TABLES) {
        const { indexes, ...rest } = expected[table];
        const { indexes: madeIndexes, ...madeRest } = made[table];
        expect(rest.columns.length, `${table} in the reference`).toBeGreaterThan(7);
        expect(madeRest, table).toStrictEqual(rest);
        // More indexes than these are allowed, others are not.
        const byName = Object.fromEntries(Object.keys(indexes).map((name) => [name, madeIndexes[name]]));
        expect(byName, table).toStrictEqual(indexes);
      }
    });

    it('initialize() makes no table under a name that another program may use', async () => {
      const db = await freshDatabase(database);
      await openStore(db).initialize();
      const names = (await listTables(db)).map((name) => name.replace(/^public\./, ''));
      expect(names).toEqual(expect.arrayContaining(TABLES));
      expect(names.filter((name) => !/batchactions/.test(name))).toStrictEqual([]);
    });

    it('initialize() makes what is missing beside what is there', async () => {
      const db = await freshDatabase(database);
      await createTables(db);
      const whole = await readCatalogue(db);
      await db.query('drop table batchactions_batches');
      await dropIndex(db, 'batchactions_records', 'batchactions_records_job_id_status');
      await dropIndex(db, 'batchactions_records', 'batchactions_records_job_id_record_index');

      const store = openStore(db);
      await store.initialize();

      const made = await readCatalogue(db);
      for (const table of TABLES) {
        expect(made[table].columns, table).toStrictEqual(whole[table].columns);
        expect(made[table].indexes, table).toMatchObject(whole[table].indexes);
      }
      await prepare(store, makeJob('j', { distributed: true }));
      expect(await store.getJobState('j')).toStrictEqual(makeJob('j', { distributed: true }));
    });

    it('a column or a table of somebody else is no obstacle', async () => {
      const db = await freshDatabase(database);
      await createTables(db);
      await db.query('alter table batchactions_jobs add column "tenant" varchar(36)');
      await db.query('create table batchactions_notes (id int)');
      const store = openStore(db);
      await store.initialize();
      await prepare(store, makeJob('j', { distributed: true }));
      expect(await store.getJobState('j')).toStrictEqual(makeJob('j', { distributed: true }));
      await db.query(`update batchactions_jobs set "tenant" = 'somebody'`);
      await store.saveJobState({ ...makeJob('j', { distributed: true }), status: 'PAUSED' });
      expect(await db.query('select "tenant", "status" from batchactions_jobs')).toMatchObject([{ tenant: 'somebody', status: 'PAUSED' }]);
    });

    it.each([
      ['batchactions_jobs', 'distributed'],
      ['batchactions_jobs', 'completedAt'],
      ['batchactions_records', 'processingError'],
      ['batchactions_records', 'errors'],
      ['batchactions_batches', 'version'],
      ['batchactions_batches', 'claimedAt'],
    ])('initialize() rejects with TABLES_INCOMPATIBLE where %s lacks %s, and changes nothing', async (table, column) => {
      const db = await freshDatabase(database);
      await createTables(db);
      await db.query(`alter table ${table} drop column "${column}"`.replaceAll('"', db.q('')[0]));
      const before = await readCatalogue(db);

      const error = await openStore(db)
        .initialize()
        .then(
          () => expect.unreachable('it resolved'),
          (reason) => reason,
        );

      expect(error).toMatchObject({ code: 'TABLES_INCOMPATIBLE', retryable: false });
      expect(error.message).toContain(table);
      expect(error.message).toContain(column);
      expect(await readCatalogue(db)).toStrictEqual(before);
    });

    it.each([
      ['getJobState', 'batchactions_jobs', 'distributed'],
      ['saveJobState', 'batchactions_jobs', 'distributed'],
      ['getFailedRecords', 'batchactions_records', 'processingError'],
      ['saveProcessedRecord', 'batchactions_records', 'processingError'],
      ['saveBatchRecords', 'batchactions_records', 'processingError'],
      ['claimBatch', 'batchactions_batches', 'version'],
    ])('%s where %s lacks %s rejects with TABLES_INCOMPATIBLE', async (name, table, column) => {
      const db = await freshDatabase(database);
      await createTables(db);
      await db.query(`alter table ${table} drop column "${column}"`.replaceAll('"', db.q('')[0]));
      if (name === 'claimBatch') await insertJob(db);
      await expect(CALLS[name](openStore(db))).rejects.toMatchObject({
        code: 'TABLES_INCOMPATIBLE',
        message: expect.stringContaining(column),
      });
    });

    if (database.dialect !== 'postgres') {
      it('the option `schema` is refused: only PostgreSQL has it', async () => {
        const db = await freshDatabase(database);
        expect(() => new SqlxStateStore(db.url, { schema: 'imports' })).toThrow(
          expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('schema') }),
        );
      });
      return;
    }

    describe('in a schema of PostgreSQL', () => {
      it.each(['imports', 'Mixed Case', 'with "quotes"', `o'clock`, 'ünïcode'])(
        '%s: the tables are made there, and nowhere else',
        async (schema) => {
          const db = await freshDatabase(database);
          const store = openStore(db, { schema });
          await store.initialize();
          await store.initialize();

          const reference = await freshDatabase(database);
          await createTables(reference);
          const expected = await readCatalogue(reference);
          const made = await readCatalogue(db, { schema });
          for (const table of TABLES) {
            expect(made[table].columns, table).toStrictEqual(expected[table].columns);
            expect(made[table].indexes, table).toMatchObject(expected[table].indexes);
          }
          for (const name of await listTables(db)) expect(name.startsWith(`${schema}.`), name).toBe(true);

          const job = makeJob('j', { distributed: true });
          await prepare(store, job);
          expect((await store.claimBatch('j', 'w')).claimed).toBe(true);
          expect(await store.getPendingRecords('j')).toHaveLength(6);
          expect(await store.listJobs()).toHaveLength(1);
          expect(await store.deleteJob('j')).toBe(true);
        },
      );

      it('stores in different schemas of one database do not see each other', async () => {
        const db = await freshDatabase(database);
        const stores = [openStore(db), openStore(db, { schema: 'one' }), openStore(db, { schema: 'two' })];
        for (const store of stores) await store.initialize();
        for (const [n, store] of stores.entries()) await prepare(store, makeJob('same', { totalRecords: n }));
        for (const [n, store] of stores.entries()) {
          expect(await store.getJobState('same')).toStrictEqual(makeJob('same', { totalRecords: n }));
        }
        await stores[1].deleteJob('same');
        expect(await stores[1].getJobState('same')).toBeNull();
        expect(await stores[2].getJobState('same')).not.toBeNull();
        expect(await stores[0].getPendingRecords('same')).toHaveLength(6);
      });

      it('TABLES_MISSING where the schema does not exist, though `public` has the tables', async () => {
        const db = await freshDatabase(database);
        await openStore(db).initialize();
        await expect(openStore(db, { schema: 'elsewhere' }).getJobState('j')).rejects.toMatchObject({ code: 'TABLES_MISSING' });
      });

      it('TABLES_INCOMPATIBLE is about the tables of the schema', async () => {
        const db = await freshDatabase(database);
        await openStore(db, { schema: 'imports' }).initialize();
        await createTables(db);
        await db.query('alter table imports.batchactions_jobs drop column "distributed"');
        await openStore(db).initialize();
        await expect(openStore(db, { schema: 'imports' }).initialize()).rejects.toMatchObject({ code: 'TABLES_INCOMPATIBLE' });
      });
    });
  });
}

function dropIndex(db, table, index) {
  const place = db.dialect === 'mysql' || db.dialect === 'mariadb' ? ` on ${table}` : '';
  return db.query(`drop index ${index}${place}`);
}

/** A job to claim from, in tables that the store itself would not write to. */
function insertJob(db) {
  return db.query(`insert into batchactions_jobs ("id", "status", "config", "batches", "distributed") values (?, ?, ?, ?, ?)`, [
    'j',
    'PROCESSING',
    '{}',
    '[]',
    db.dialect === 'postgres' ? true : 1,
  ]);
}
