/**
 * Tables that a user's own migration made with other column types: `uuid`, an enum, `jsonb`. Every method answers there as it does on the tables
 * that initialize() makes.
 */
import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { both, retype } from './support/column-types.mjs';
import { createTables, readCatalogue } from './support/catalogue.mjs';
import { databasesWith } from './support/databases.mjs';
import { DIFFICULT, JOB_STATUSES, makeBatch, makeJob, makeRecord, makeRecords, makeState } from './support/fixtures.mjs';
import { collect, freshDatabase, needs, openStore, rejection, SqlxStateStore } from './support/suite.mjs';

/** An id that is the same in two runs of the calls. */
const uuid = (n) => `0b0f8d5e-6c1a-4d3e-9f00-${String(n).padStart(12, '0')}`;

/** A job of `count` batches whose ids are all UUIDs. */
function jobOfUuids(n, count, fields) {
  const batches = Array.from({ length: count }, (_, index) => makeBatch(uuid(n), index, { id: uuid(n * 1_000 + index) }));
  return makeJob(count, { id: uuid(n), batches, ...fields });
}

/** What differs from run to run. */
function settled(answer) {
  const times = ['claimedAt', 'completedAt', 'elapsedMs', 'estimatedRemainingMs'];
  return JSON.parse(JSON.stringify(answer ?? null), (key, value) => (times.includes(key) && typeof value === 'number' ? 'a time' : value));
}

/** Calls every method in every way that has a statement of its own, and returns what each call answered. */
async function answers(store) {
  const all = [];
  const say = async (name, promise) => {
    const answer = await promise.catch((error) => {
      // What the server says is no part of a store's answer.
      if (!['LEASE_LOST', 'CONSTRAINT'].includes(error.code)) throw error;
      return error.code;
    });
    all.push([name, settled(answer)]);
    return answer;
  };
  const [one, two] = [uuid(91), uuid(92)];
  const job = jobOfUuids(1, 4, { config: { batchSize: 10, note: 'Grüße' } });
  const { id } = job;

  for (const batch of job.batches) {
    const fields = { status: 'pending', raw: { n: batch.index, text: DIFFICULT.quotes }, parsed: [0.1 + 0.2, -1, 1e21, null, true, 'é'] };
    await say('saveBatchRecords', store.saveBatchRecords(id, batch.id, makeRecords(batch, fields)));
  }
  await say(
    'saveBatchRecords, many',
    store.saveBatchRecords(uuid(2), uuid(2_000), makeRecords(makeBatch(uuid(2), 0, { recordEndIndex: 119 }))),
  );
  await say(
    'saveBatchRecords, again',
    store.saveBatchRecords(uuid(2), uuid(2_000), makeRecords(makeBatch(uuid(2), 0, { recordEndIndex: 139 }))),
  );
  await say('saveJobState', store.saveJobState(job));
  await say('saveJobState, again', store.saveJobState(job));
  await say('saveJobState, taken', store.saveJobState(jobOfUuids(3, 1, { batches: [makeBatch(uuid(3), 0, { id: job.batches[0].id })] })));
  await say('getJobState', store.getJobState(id));
  await say('getJobState, unknown', store.getJobState(uuid(77)));
  await say('getDistributedStatus', store.getDistributedStatus(id));

  const first = (await say('claimBatch', store.claimBatch(id, one))).reservation;
  const second = (await say('claimBatch', store.claimBatch(id, two))).reservation;
  await say('renewBatch', store.renewBatch(id, first.batchId, one));
  await say('renewBatch of another', store.renewBatch(id, first.batchId, two));
  const failed = makeRecord(0, { status: 'failed', errors: [{ field: 'a', message: 'b' }], processingError: 'no\nway', raw: 5 });
  await say('saveProcessedRecord, fenced', store.saveProcessedRecord(id, first.batchId, failed));
  await say(
    'saveProcessedRecord, fenced, several',
    Promise.all([1, 2, 3, 4, 5].map((index) => store.saveProcessedRecord(id, first.batchId, makeRecord(index)))),
  );
  await say(
    'saveProcessedRecord, of two claims',
    Promise.all(
      [first, second].flatMap(({ batchId, recordStartIndex }) =>
        [6, 7].map((n) => store.saveProcessedRecord(id, batchId, makeRecord(recordStartIndex + n))),
      ),
    ),
  );
  await say('saveProcessedRecord, not fenced', store.saveProcessedRecord(id, job.batches[3].id, makeRecord(30, { status: 'invalid' })));
  await say('updateBatchState, fenced', store.updateBatchState(id, first.batchId, makeState(first.batchId, 'COMPLETED', 9, 1)));
  await say('releaseBatch', store.releaseBatch(id, second.batchId, two));
  await say('saveProcessedRecord, lost', store.saveProcessedRecord(id, second.batchId, makeRecord(11, { status: 'failed' })));
  await say('claimBatch', store.claimBatch(id, two));
  await say('updateBatchState, paused', store.updateBatchState(id, job.batches[3].id, makeState(job.batches[3].id, 'PAUSED')));
  await say('updateBatchState, pending', store.updateBatchState(id, job.batches[3].id, makeState(job.batches[3].id, 'PENDING')));
  await say('reclaimStaleBatches, none', store.reclaimStaleBatches(id, 600_000));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await say('reclaimStaleBatches', store.reclaimStaleBatches(id, 1));
  await say('tryFinalizeJob, too early', store.tryFinalizeJob(id));
  for (;;) {
    const { reservation } = await say('claimBatch', store.claimBatch(id, one));
    if (!reservation) break;
    await say('updateBatchState', store.updateBatchState(id, reservation.batchId, makeState(reservation.batchId, 'FAILED', 1, 9)));
  }
  await say('getProgress', store.getProgress(id));
  await say('tryFinalizeJob', store.tryFinalizeJob(id));
  await say('claimBatch of a job that is done', store.claimBatch(id, one));
  await say('claimBatch, unknown', store.claimBatch(uuid(77), one));
  await say('getJobState', store.getJobState(id));

  await say('getFailedRecords', store.getFailedRecords(id));
  await say('getPendingRecords', store.getPendingRecords(id));
  await say('getProcessedRecords', store.getProcessedRecords(id));
  await say('getBatchRecords', store.getBatchRecords(id, first.batchId));
  await say('records', collect(store.records(id)));
  await say('records, many', collect(store.records(uuid(2))));
  await say('records, some', collect(store.records(id, { status: ['failed', 'invalid'], from: 1 })));
  await say('records of a batch', collect(store.records(id, { batchId: first.batchId, status: 'processed', from: 2 })));

  // A job of the engine's, whose batches have no rows.
  const engine = jobOfUuids(4, 3, { distributed: undefined, startedAt: 1_700_000_000_001 });
  await say(
    'updateBatchState, no job',
    store.updateBatchState(engine.id, engine.batches[0].id, makeState(engine.batches[0].id, 'PROCESSING')),
  );
  await say('saveJobState', store.saveJobState(engine));
  await say(
    'updateBatchState, no row',
    store.updateBatchState(engine.id, engine.batches[1].id, makeState(engine.batches[1].id, 'COMPLETED', 10, 0)),
  );
  await say('getJobState', store.getJobState(engine.id));
  await say('getProgress', store.getProgress(engine.id));
  for (const status of JOB_STATUSES) await say(`saveJobState ${status}`, store.saveJobState({ ...engine, status }));
  const jobs = await say('listJobs', store.listJobs());
  await say('listJobs, a page', store.listJobs({ limit: 1 }));
  await say('listJobs, another', store.listJobs({ after: jobs[0], limit: 1 }));
  await say('listJobs of a status', store.listJobs({ status: 'FAILED' }));
  const steered = jobOfUuids(5, 2);
  await say('saveJobState', store.saveJobState(steered));
  await say('pauseJob', store.pauseJob(steered.id));
  await say('resumeJob', store.resumeJob(steered.id));
  await say('claimBatch', store.claimBatch(steered.id, one));
  await say('abortJob', store.abortJob(steered.id, { now: true }));
  await say('getJobState', store.getJobState(steered.id));
  const { jobId: retried, ...made } = await store.retryFailed(id, { statuses: ['failed', 'invalid', 'pending', 'valid'], batchSize: 2 });
  await say('retryFailed', Promise.resolve(made));
  await say('records of the retry', collect(store.records(retried)));
  await store.deleteJob(retried);
  await say('purge, nothing', store.purge({ olderThanMs: 0, statuses: ['COMPLETED'], dryRun: true }));
  await say('purge', store.purge({ olderThanMs: 0, statuses: ['ABORTED'] }));
  await say('deleteJob', store.deleteJob(id));
  await say('deleteJob, again', store.deleteJob(id));
  await say('deleteJob, records alone', store.deleteJob(uuid(2)));
  // More than two of the slices in which they are deleted.
  const many = Array.from({ length: 10_100 }, (_, index) => makeRecord(index));
  await store.saveBatchRecords(uuid(3), uuid(1_003), many);
  await say('deleteJob, in slices', store.deleteJob(uuid(3)));
  await say('deleteJob, in slices, again', store.deleteJob(uuid(3)));
  return all;
}

for (const database of databasesWith('raw')) {
  describe(database.name, () => {
    const usual = (async () => {
      const db = await database.create();
      const store = new SqlxStateStore(db.url);
      try {
        await store.initialize();
        return await answers(store);
      } finally {
        await store.close();
        await db.drop();
      }
    })();
    usual.catch(() => {});

    it.each(Object.keys(database.dialect.foreignTypes))('%s: every method answers as on the usual tables', async (kind) => {
      const db = await freshDatabase(database);
      await createTables(db, database.dialect.foreignTypes[kind]);
      const before = await readCatalogue(db);
      const reference = await freshDatabase(database);
      await createTables(reference);
      expect(before, 'the types are others').not.toStrictEqual(await readCatalogue(reference));

      const store = openStore(db);
      await store.initialize();
      expect(await readCatalogue(db), 'initialize() changes nothing').toStrictEqual(before);
      const expected = await usual;
      const got = await answers(store);
      for (const [n, call] of got.entries()) expect(call, `call ${n}`).toStrictEqual(expected[n]);
      expect(got.length).toBe(expected.length);
      // And without initialize().
      const other = openStore(db);
      await other.saveJobState(jobOfUuids(5, 2));
      expect(await other.claimBatch(uuid(5), uuid(91))).toMatchObject({ claimed: true, reservation: { batchIndex: 0, token: 1 } });
    });

    describe('its own types', () => {
      if (database.has('columnTypesChange')) testStrictTypes(database);
      if (database.has('columnCharsets')) testEnums(database);
      testStoredUuids(database);
    });
  });
}

/** Where a type is checked in every statement, and a type is a thing that can be altered. */
function testStrictTypes(database) {
  it('a string that is no uuid is INVALID_ARGUMENT, which shows it', async () => {
    const db = await freshDatabase(database);
    await createTables(db, database.dialect.foreignTypes['uuid ids']);
    const store = openStore(db);
    const job = jobOfUuids(1, 1);
    await store.saveJobState(job);
    const record = makeRecord(0);
    for (const call of [
      () => store.getJobState('job-1'),
      () => store.saveJobState(makeJob(1, { id: 'job-1' })),
      () => store.saveProcessedRecord('job-1', uuid(1_000), record),
      () =>
        store.saveBatchRecords(
          uuid(1),
          'job-1',
          Array.from({ length: 60 }, (_, index) => makeRecord(index)),
        ),
      () => store.claimBatch('job-1', 'worker'),
      () => store.updateBatchState(job.id, 'job-1', makeState('job-1', 'COMPLETED')),
      () => store.deleteJob('job-1'),
    ]) {
      const error = await rejection(call(), 'INVALID_ARGUMENT');
      expect(error.message).toContain('job-1');
      expect(error.message).toContain('UUID');
      expect(error.retryable).toBe(false);
    }
    expect(await collect(store.records(job.id))).toEqual([]);
  });

  it('a UUID in capital letters is the same id', async () => {
    const db = await freshDatabase(database);
    await createTables(db, database.dialect.foreignTypes['uuid ids']);
    const store = openStore(db);
    const job = jobOfUuids(1, 1);
    await store.saveJobState(job);
    expect((await store.getJobState(job.id.toUpperCase())).id).toBe(job.id);
  });

  it('what jsonb refuses becomes U+FFFD there, and stays in a json column beside it', async () => {
    const db = await freshDatabase(database);
    await createTables(db, retype(['raw', 'config'], 'JSONB'));
    const store = openStore(db);
    const difficult = { nul: 'a\u0000b', escaped: '\\u0000', lone: '\ud800', 'key\u0000': 1 };
    const fixed = { nul: 'a\ufffdb', escaped: '\\u0000', lone: '\ufffd', 'key\ufffd': 1 };
    const records = (count) => Array.from({ length: count }, (_, index) => makeRecord(index, { raw: difficult, parsed: difficult }));
    await store.saveProcessedRecord('single', 'b', records(1)[0]);
    await store.saveBatchRecords('few', 'b', records(2));
    await store.saveBatchRecords('copied', 'b', records(60));
    for (const job of ['single', 'few', 'copied']) {
      for (const record of await store.getBatchRecords(job, 'b')) expect(record).toMatchObject({ raw: fixed, parsed: difficult });
    }
    await store.saveJobState(makeJob(1, { id: 'j', config: { batchSize: 1, note: 'a\u0000b' } }));
    expect((await store.getJobState('j')).config.note).toBe('a\ufffdb');
  });

  it('an enum that lacks a status says so when that is stored', async () => {
    const db = await freshDatabase(database);
    const lacking = (text) => `create type job_status as enum ('CREATED', 'PROCESSING', 'COMPLETED');\n${text}`;
    await createTables(db, both(retype(['status'], 'job_status', 'batchactions_jobs'), lacking));
    const store = openStore(db);
    await store.initialize();
    await store.saveJobState(makeJob(1, { id: 'j' }));
    const error = await rejection(store.saveJobState(makeJob(1, { id: 'j', status: 'PAUSED' })), 'TABLES_INCOMPATIBLE');
    expect(error.message).toMatch(/enum.*PAUSED.*alter type/);
    await db.query(`alter type job_status add value 'PAUSED'`);
    await store.saveJobState(makeJob(1, { id: 'j', status: 'PAUSED' }));
  });

  it('types that change under an open store are noticed, and each call goes on', async () => {
    const db = await freshDatabase(database);
    const store = openStore(db, { pool: { max: 3 } });
    await store.initialize();
    const job = jobOfUuids(1, 4);
    await store.saveJobState(job);
    const use = async () => {
      const { reservation } = await store.claimBatch(job.id, uuid(91));
      await store.saveProcessedRecord(job.id, reservation.batchId, makeRecord(reservation.recordStartIndex, { raw: { nul: 'a' } }));
      await store.updateBatchState(job.id, reservation.batchId, makeState(reservation.batchId, 'COMPLETED', 1, 0));
      expect((await store.getJobState(job.id)).batches[reservation.batchIndex].status).toBe('COMPLETED');
      return collect(store.records(job.id));
    };
    const alter = async (table, column, type) =>
      db.query(`alter table batchactions_${table} alter column "${column}" type ${type} using "${column}"::text::${type}`);
    expect(await use()).toHaveLength(1);
    await alter('jobs', 'id', 'uuid');
    await alter('batches', 'id', 'uuid');
    await alter('batches', 'jobId', 'uuid');
    await alter('records', 'raw', 'jsonb');
    expect(await use()).toHaveLength(2);
    await alter('jobs', 'id', 'text');
    await alter('batches', 'version', 'bigint');
    await alter('records', 'batchId', 'uuid');
    expect(await use()).toHaveLength(3);
    for (const [table, column] of [
      ['batches', 'id'],
      ['batches', 'jobId'],
      ['records', 'batchId'],
    ])
      await alter(table, column, 'varchar(40)');
    expect(await use()).toHaveLength(4);
  });

  it('the index of a uuid column serves a value that is cast to it', async () => {
    const db = await freshDatabase(database);
    await createTables(db, database.dialect.foreignTypes.all);
    const store = openStore(db);
    await store.initialize();
    await store.saveJobState(jobOfUuids(1, 50));
    const connection = await db.connect();
    await connection.query(`prepare looked_for (text) as select * from batchactions_batches where "id" = $1::text::uuid`);
    await connection.query('set enable_seqscan = off; set plan_cache_mode = force_generic_plan');
    const plan = await connection.query(`explain execute looked_for('${uuid(1_003)}')`);
    expect(plan.map((row) => row['QUERY PLAN']).join('\n')).toMatch(
      /Index Scan using batchactions_batches_pkey[^]*Index Cond: \(id = \(?\$1\)?::uuid\)/,
    );
  });
}

/** Where an enum is a part of its column. */
function testEnums(database) {
  it('an enum that lacks a status says so when that is stored', async () => {
    const db = await freshDatabase(database);
    await createTables(db, retype(['status'], `ENUM('CREATED', 'PROCESSING')`, 'batchactions_jobs'));
    const store = openStore(db);
    await store.initialize();
    const error = await rejection(store.saveJobState(makeJob(1, { id: 'j', status: 'PAUSED' })), 'TABLES_INCOMPATIBLE');
    expect(error.message).toMatch(/enum.*status/);
  });
}

/** Where a column is a UUID, and what is compared with it is text. */
function testStoredUuids(database) {
  needs(database, 'textUuids')('a string that is no uuid is INVALID_ARGUMENT where it is stored', async () => {
    const db = await freshDatabase(database);
    await createTables(db, database.dialect.foreignTypes['uuid ids']);
    const store = openStore(db);
    for (const call of [
      () => store.saveJobState(makeJob(1, { id: 'job-1', distributed: undefined })),
      () => store.saveProcessedRecord('job-1', randomUUID(), makeRecord(0)),
      () => store.saveBatchRecords(randomUUID(), 'job-1', [makeRecord(0), makeRecord(1)]),
    ]) {
      const error = await rejection(call(), 'INVALID_ARGUMENT');
      expect(error.message).toContain('job-1');
    }
    expect(await store.getJobState('job-1')).toBeNull();
  });
}
