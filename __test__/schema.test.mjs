/** The tables: what initialize() makes, what it says of tables that do not fit, and where it makes them. */
import { describe, expect, it } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../index.js';
import { createTables, hasOptionalIndex, listTables, OPTIONAL_INDEX, readCatalogue, SUMMARY_INDEX, TABLES } from './support/catalogue.mjs';
import { databases } from './support/databases.mjs';
import { makeJob, makeLocalJob, makeRecord, without } from './support/fixtures.mjs';
import { createUser } from './support/users.mjs';
import { freshDatabase, needs, openStore, prepare, rejection } from './support/suite.mjs';

/** Every method that needs the tables, with arguments that are in order. */
const CALLS = {
  saveJobState: (store) => store.saveJobState(makeLocalJob(3, { id: 'j', size: 2 })),
  'saveJobState of a distributed job': (store) => store.saveJobState(makeJob(3, { id: 'j', size: 2 })),
  getJobState: (store) => store.getJobState('j'),
  updateBatchState: (store) => store.updateBatchState('j', 'b', { batchId: 'b', status: 'COMPLETED', processedCount: 0, failedCount: 0 }),
  saveProcessedRecord: (store) => store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' })),
  saveBatchRecords: (store) => store.saveBatchRecords('j', 'b', [makeRecord(0, { status: 'pending' })]),
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
  getJob: (store) => store.getJob('j'),
  batches: (store) => store.batches('j'),
  stats: (store) => store.stats(),
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
      await prepare(store, makeLocalJob(3, { id: 'j', size: 2 }));
      expect(await store.getJobState('j')).toStrictEqual(makeLocalJob(3, { id: 'j', size: 2 }));
    });

    if (!database.has('raw')) {
      needs(database, 'raw')('the catalogue and incompatible tables');
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
      await db.dialect.dropIndex(db, 'batchactions_records', 'batchactions_records_job_id_status');
      await db.dialect.dropIndex(db, 'batchactions_records', 'batchactions_records_job_id_record_index');

      const store = openStore(db);
      await store.initialize();

      const made = await readCatalogue(db);
      for (const table of TABLES) {
        expect(made[table].columns, table).toStrictEqual(whole[table].columns);
        expect(made[table].indexes, table).toMatchObject(whole[table].indexes);
      }
      await prepare(store, makeJob(3, { id: 'j', size: 2 }));
      expect(await store.getJobState('j')).toStrictEqual(makeJob(3, { id: 'j', size: 2 }));
    });

    it('initialize() accepts a column and a table of another program', async () => {
      const db = await freshDatabase(database);
      await createTables(db);
      await db.query('alter table batchactions_jobs add column "tenant" varchar(36)');
      await db.query('create table batchactions_notes (id int)');
      const store = openStore(db);
      await store.initialize();
      await prepare(store, makeJob(3, { id: 'j', size: 2 }));
      expect(await store.getJobState('j')).toStrictEqual(makeJob(3, { id: 'j', size: 2 }));
      await db.query(`update batchactions_jobs set "tenant" = 'another'`);
      await store.saveJobState({ ...makeJob(3, { id: 'j', size: 2 }), status: 'PAUSED' });
      expect(await db.query('select "tenant", "status" from batchactions_jobs')).toMatchObject([{ tenant: 'another', status: 'PAUSED' }]);
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

    needs(database, 'server')('the index that is optional is made where it may be, and is missed by no call', async () => {
      const db = await freshDatabase(database);
      await createTables(db);
      const user = await createUser(db, { rights: 'data' });
      const limited = openStore({ url: user.url });
      const job = makeJob(3, { id: 'j', size: 2 });
      const works = async (store) => {
        await store.initialize();
        await store.saveJobState(job);
        expect(await store.getJobState('j')).toStrictEqual(job);
        await store.deleteJob('j');
      };
      await works(limited);
      expect(await hasOptionalIndex(db)).toBe(false);
      await works(openStore(db));
      expect(await hasOptionalIndex(db)).toBe(database.has('optionalIndex'));
      if (database.has('optionalIndex')) {
        await db.dialect.dropIndex(db, 'batchactions_batches', OPTIONAL_INDEX);
        await works(limited);
        expect(await hasOptionalIndex(db)).toBe(false);
      }
      await limited.close();
      await user.drop();
    });

    needs(database, 'file')('the index of summaries is made where it may be, and is missed by no call', async () => {
      const db = await freshDatabase(database);
      await createTables(db);
      const hasIndex = async () => (await db.query('select name from sqlite_master where name = ?', [SUMMARY_INDEX])).length === 1;
      const job = makeJob(3, { id: 'j', size: 2 });
      const works = async (store) => {
        expect(await store.getJob('j')).toStrictEqual(without(job, 'batches'));
        expect(await store.listJobs()).toStrictEqual([without(job, 'batches')]);
        expect(await store.getProgress('j')).toMatchObject({ totalRecords: 6, totalBatches: 3 });
        expect((await store.stats()).jobs.PROCESSING).toBe(1);
      };
      // While another process writes, it is not made, and initialize() resolves.
      await db.query('pragma journal_mode = wal');
      const writer = await db.connect();
      await writer.query('begin immediate');
      const store = openStore(db, { statementTimeoutMs: 1_000 });
      await store.initialize();
      expect(await hasIndex()).toBe(false);
      await writer.query('rollback');
      await writer.end();
      await store.saveJobState(job);
      await works(store);
      await store.initialize();
      expect(await hasIndex()).toBe(true);
      await works(store);
    });

    describe('initialize() looks at indexes and types', () => {
      /** Rejects with TABLES_INCOMPATIBLE, changes nothing, and says all of these words. */
      const isRefused = async (db, words) => {
        const before = await readCatalogue(db);
        const error = await rejection(openStore(db).initialize(), 'TABLES_INCOMPATIBLE');
        expect(error.retryable).toBe(false);
        for (const word of words) expect(error.message).toContain(word);
        expect(await readCatalogue(db)).toStrictEqual(before);
      };
      const RECORD_INDEX = 'batchactions_records_job_id_record_index';
      const needed = 'a unique index of batchactions_records (jobId, recordIndex)';

      /** What stands in the place of the unique index of records: the statement, and what the error says of it. */
      const wrong = {
        'other columns': [`unique index ${RECORD_INDEX} on batchactions_records ("jobId", "batchId")`, '(jobId, batchId)'],
        'the columns in another order': [
          `unique index ${RECORD_INDEX} on batchactions_records ("recordIndex", "jobId")`,
          '(recordIndex, jobId)',
        ],
        'fewer columns': [`unique index ${RECORD_INDEX} on batchactions_records ("jobId")`, '(jobId)'],
        'more columns': [
          `unique index ${RECORD_INDEX} on batchactions_records ("jobId", "recordIndex", "batchId")`,
          '(jobId, recordIndex, batchId)',
        ],
        'the right columns, not unique': [
          `index ${RECORD_INDEX} on batchactions_records ("jobId", "recordIndex")`,
          'an index of batchactions_records',
        ],
      };
      if (database.has('indexPrefixes')) {
        wrong['the beginning of an id'] = [
          `unique index ${RECORD_INDEX} on batchactions_records ("jobId"(10), "recordIndex")`,
          'jobId(10)',
        ];
      }
      if (database.has('partialIndexes')) {
        wrong['some of the rows'] = [
          `unique index ${RECORD_INDEX} on batchactions_records ("jobId", "recordIndex") where "recordIndex" > 5`,
          'leaves out rows',
        ];
        wrong['an expression'] = [`unique index ${RECORD_INDEX} on batchactions_records (lower("jobId"), "recordIndex")`, 'an expression'];
        wrong['another table'] = [`unique index ${RECORD_INDEX} on other_records ("jobId", "recordIndex")`, 'of other_records (jobId'];
      }
      if (database.has('indexMethods')) {
        wrong['the right columns, of another method'] = [
          `index ${RECORD_INDEX} on batchactions_records using brin ("jobId", "recordIndex")`,
          'of the method brin',
        ];
      }
      it.each(Object.keys(wrong))('an index with the right name on %s is refused', async (kind) => {
        const db = await freshDatabase(database);
        await createTables(db);
        await db.query('create table other_records ("jobId" varchar(36), "recordIndex" int)');
        await db.dialect.dropIndex(db, 'batchactions_records', RECORD_INDEX);
        const [statement, found] = wrong[kind];
        await db.query(`create ${statement}`);
        await isRefused(db, [RECORD_INDEX, found, needed]);
      });

      it('an index of batches that is not unique is refused', async () => {
        const db = await freshDatabase(database);
        await createTables(db);
        await db.dialect.dropIndex(db, 'batchactions_batches', 'batchactions_batches_job_id_batch_index');
        await db.query('create index batchactions_batches_job_id_batch_index on batchactions_batches ("jobId", "batchIndex")');
        await isRefused(db, ['batchactions_batches_job_id_batch_index', 'a unique index of batchactions_batches (jobId, batchIndex)']);
      });

      needs(database, 'disabledIndexes')('an index that is disabled is refused', async () => {
        const db = await freshDatabase(database);
        await createTables(db);
        const word = await database.dialect.disableIndex(db, RECORD_INDEX);
        await isRefused(db, [RECORD_INDEX, word, needed]);
      });

      it('initialize() accepts more indexes, and an index of more columns', async () => {
        const db = await freshDatabase(database);
        await createTables(db);
        await db.dialect.dropIndex(db, 'batchactions_batches', 'batchactions_batches_job_id_status');
        await db.query('create index batchactions_batches_job_id_status on batchactions_batches ("jobId", "status", "batchIndex" desc)');
        await db.query('create index by_worker on batchactions_batches ("workerId")');
        const before = await readCatalogue(db);
        const store = openStore(db);
        await store.initialize();
        expect(await readCatalogue(db)).toStrictEqual(before);
        await prepare(store, makeJob(3, { id: 'j', size: 2 }));
        expect(await store.claimBatch('j', 'w')).toMatchObject({ claimed: true });
      });

      it(`an index of another name ${database.has('indexHints') ? 'is not the one that statements name' : 'is as good as the right one'}`, async () => {
        const db = await freshDatabase(database);
        await createTables(db);
        await db.dialect.dropIndex(db, 'batchactions_records', RECORD_INDEX);
        await db.query('create unique index by_hand on batchactions_records ("jobId", "recordIndex")');
        const store = openStore(db);
        await store.initialize();
        const names = Object.keys((await readCatalogue(db)).batchactions_records.indexes);
        expect(names).toContain('by_hand');
        expect(names.includes(RECORD_INDEX)).toBe(database.has('indexHints'));
        await store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' }));
        await store.saveBatchRecords('j', 'b', [makeRecord(0, { status: 'pending' }), makeRecord(1, { status: 'pending' })]);
        expect(await store.getPendingRecords('j')).toHaveLength(2);
      });

      it.each(database.dialect.refusedTypes)('%s.%s: %s as %s is refused', async (table, column, usual, type) => {
        const db = await freshDatabase(database);
        await createTables(db, (text) =>
          text.replace(/CREATE TABLE[^;]*/g, (statement) =>
            statement.includes(table) ? statement.replace(new RegExp(`(["\`]${column}["\`] )${escaped(usual)}`), `$1${type}`) : statement,
          ),
        );
        await isRefused(db, [table, column, database.dialect.writtenType(type), 'needs']);
      });

      it('a column that may not be null, an id that nothing makes, and a table without a key are refused', async () => {
        const change = async (from, to, words) => {
          const db = await freshDatabase(database);
          const changed = (text) => {
            expect(text).toMatch(from);
            return text.replace(from, to);
          };
          await createTables(db, changed);
          await isRefused(db, words);
        };
        await change(/(["`]workerId["`] VARCHAR\(128\))/, `$1 NOT NULL DEFAULT ''`, ['workerId', 'batchactions_batches', 'null']);
        const [generated, plain] = database.dialect.generatedId;
        await change(generated, plain, ['column id of batchactions_records', 'default']);
        await change(database.dialect.primaryKey, '', ['column id of batchactions_jobs', 'primary key']);
      });
    });

    if (!database.has('schemas')) {
      it('the option `schema` is refused, and the message names it', async () => {
        const db = await freshDatabase(database);
        expect(() => new SqlxStateStore(db.url, { schema: 'imports' })).toThrow(
          expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('schema') }),
        );
      });
      return;
    }

    describe('in a schema', () => {
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

          const job = makeJob(3, { id: 'j', size: 2 });
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
        for (const [n, store] of stores.entries()) await prepare(store, makeLocalJob(3, { id: 'same', size: 2, totalRecords: n }));
        for (const [n, store] of stores.entries()) {
          expect(await store.getJobState('same')).toStrictEqual(makeLocalJob(3, { id: 'same', size: 2, totalRecords: n }));
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

function escaped(text) {
  return text.replace(/[()]/g, '\\$&');
}

/** A job to claim from, in tables that the store itself would not write to. */
function insertJob(db) {
  return db.query(`insert into batchactions_jobs ("id", "status", "config", "batches", "distributed") values (?, ?, ?, ?, ?)`, [
    'j',
    'PROCESSING',
    '{}',
    '[]',
    true,
  ]);
}
