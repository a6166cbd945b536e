// What the suites that run on every database are written with.

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { databases } from './databases.mjs';
import { storeOn } from './store.mjs';

/** What a test may need of its database, and why some database hasn't got it. */
const exemptions = {
  raw: 'it lives inside its store, and nothing else can read or write it',
  shared: 'it lives inside its store, and no second store or process can open it',
};

/**
 * Runs `body` once for each database, in a `describe` block of its name.
 * @param {(on: Subject) => void} body
 */
export function onEveryDatabase(body) {
  for (const database of databases) {
    describe(database.name, () => body(new Subject(database)));
  }
}

/** One database under test, fresh for the `describe` block, with one store on it that the block's tests share: each uses ids of its own. */
class Subject {
  constructor(database) {
    this.database = database;
    this.dialect = database.dialect;
    this.mysqlFamily = ['mysql', 'mariadb'].includes(database.dialect);
    beforeAll(async () => {
      this.own = await database.create();
      this.store = storeOn(this.own.url);
      await this.store.initialize();
    });
    afterAll(async () => {
      await this.store?.close();
      await this.own?.drop();
    });
  }

  get url() {
    return this.own.url;
  }

  /** SQL past the store: see `raw.mjs`. */
  query(sql, params) {
    return this.own.query(sql, params);
  }

  /** A connection past the store, for a transaction of the test's. Closed after the test. */
  async connect() {
    const connection = await this.own.connect();
    onTestFinished(() => connection.end().catch(() => {}));
    return connection;
  }

  /** One more store on the same database (on sqlite-memory: on a new one). Closed after the test. */
  async open(options) {
    const store = storeOn(this.url, options);
    onTestFinished(() => store.close());
    await store.initialize();
    return store;
  }

  /** An empty database beside this one. Dropped after the test. A store on it has to be closed by then. */
  async createEmpty() {
    const empty = await this.database.create();
    onTestFinished(() => empty.drop());
    return empty;
  }

  /**
   * `test`, for what only some databases can do. Where this one can't, the test is reported as skipped, with the reason in its name.
   * @param {'raw' | 'shared'} capability
   */
  needs(capability) {
    return this.database[capability] ? test : this.exempt(exemptions[capability]);
  }

  /** `test`, for what the named dialects do not do. Where this one is among them, the test is reported as skipped, with the reason. */
  except(dialects, reason) {
    return dialects.includes(this.dialect) ? this.exempt(reason) : test;
  }

  exempt(reason) {
    return (name, ...rest) => test.skip(`${name} [exempt, ${this.database.name}: ${reason}]`, ...rest);
  }

  /** A record of these fields as it comes back: the same from either way to save it and every way to read it. */
  async stored(fields) {
    const record = recordOf(0, fields);
    const [single, many, batch] = [newId(), newId(), newId('batch')];
    await this.store.saveProcessedRecord(single, batch, record);
    await this.store.saveBatchRecords(many, batch, [record]);
    const [back] = await this.store.getBatchRecords(single, batch);
    const { getFailedRecords, getPendingRecords, getProcessedRecords } = this.store;
    const byStatus =
      { failed: getFailedRecords, invalid: getFailedRecords, processed: getProcessedRecords }[record.status] ?? getPendingRecords;
    for (const id of [single, many]) {
      expect(await this.store.getBatchRecords(id, batch)).toStrictEqual([back]);
      expect(await byStatus.call(this.store, id)).toStrictEqual([back]);
      expect(await collect(this.store.records(id))).toStrictEqual([back]);
    }
    return back;
  }

  /** The rows of a job's batches, by index. */
  async rows(jobId) {
    return this.query('select * from "batchactions_batches" where "jobId" = ? order by "batchIndex"', [jobId]);
  }

  /** The row of a batch. */
  async row(batchId) {
    const [row] = await this.query('select * from "batchactions_batches" where "id" = ?', [batchId]);
    return row;
  }

  /** The row of a job, with its JSON columns as text. */
  async jobRow(jobId) {
    const [row] = await this.query('select * from "batchactions_jobs" where "id" = ?', [jobId]);
    return row;
  }

  /** The copy of the batches in the job's JSON, as it is stored. */
  async copy(jobId) {
    return JSON.parse((await this.jobRow(jobId)).batches);
  }

  /** The indexes of the batches whose state in the job's JSON is not that of their rows. */
  async behind(jobId) {
    const [copy, rows] = [await this.copy(jobId), await this.rows(jobId)];
    expect(copy.map(({ id, index }) => [id, index]).sort((a, b) => a[1] - b[1])).toEqual(rows.map((row) => [row.id, row.batchIndex]));
    const state = ({ status, processedCount, failedCount }) => `${status} ${processedCount} ${failedCount}`;
    const inCopy = new Map(copy.map((batch) => [batch.id, state(batch)]));
    return rows.filter((row) => inCopy.get(row.id) !== state(row)).map((row) => row.batchIndex);
  }

  /** Makes the claims on a job's batches `ms` older than they are. */
  async backdate(jobId, ms = 3_600_000) {
    await this.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - ? where "jobId" = ?', [ms, jobId]);
  }

  /**
   * Makes every claim on a job's batches stale, and returns the timeout to reclaim them with. Where the rows can't be written past the
   * store, time has to pass.
   */
  async expire(jobId) {
    if (!this.database.raw) {
      await sleep(60);
      return 30;
    }
    await this.backdate(jobId);
    return 60_000;
  }
}

let sequence = 0;

/** An id that nothing else has: at most 20 characters. */
export function newId(prefix = 'job') {
  return `${prefix}-${process.pid.toString(36)}-${(++sequence).toString(36)}`;
}

/** A batch of the job `jobId`, of 10 records. */
export function batchOf(jobId, index, fields = {}) {
  return {
    id: `${jobId}.b${index}`,
    index,
    status: 'PENDING',
    records: [],
    processedCount: 0,
    failedCount: 0,
    recordStartIndex: index * 10,
    recordEndIndex: index * 10 + 9,
    ...fields,
  };
}

/** A job of `batches` batches, as the distributed importer prepares it; a field that is `undefined` is left out. */
export function jobOf(batches = 3, fields = {}) {
  const id = fields.id ?? newId();
  const job = {
    id,
    config: { batchSize: 10 },
    status: 'PROCESSING',
    batches: Array.from({ length: batches }, (_, index) => batchOf(id, index)),
    totalRecords: batches * 10,
    startedAt: 1_700_000_000_000,
    distributed: true,
    ...fields,
  };
  return Object.fromEntries(Object.entries(job).filter(([, value]) => value !== undefined));
}

/** A record, as the engine saves it. */
export function recordOf(index, fields = {}) {
  return { index, raw: { n: String(index) }, parsed: { n: index }, status: 'processed', errors: [], ...fields };
}

/** An array in an array, and so on: of so many levels. */
export function nested(levels) {
  return JSON.parse('['.repeat(levels) + ']'.repeat(levels));
}

/** What `updateBatchState` is given. */
export function stateOf(batchId, status, processedCount = 0, failedCount = 0) {
  return { batchId, status, processedCount, failedCount };
}

/** An empty database, dropped after the test. */
export async function freshDatabase(database) {
  const db = await database.create();
  onTestFinished(() => db.drop());
  return db;
}

/** A store on a database, closed after the test. */
export function openStore(db, options) {
  const store = storeOn(db.url, options);
  onTestFinished(() => store.close());
  return store;
}

/** Claims a batch that must be there, and returns the reservation. */
export async function claim(store, jobId, workerId = 'worker') {
  const result = await store.claimBatch(jobId, workerId);
  expect(result).toMatchObject({ claimed: true });
  return result.reservation;
}

/** Completes a batch of 10 records. */
export async function complete(store, jobId, batchId, status = 'COMPLETED') {
  await store.updateBatchState(jobId, batchId, stateOf(batchId, status, status === 'COMPLETED' ? 10 : 7, status === 'COMPLETED' ? 0 : 3));
}

/** All of an async iterable. */
export async function collect(iterable) {
  const all = [];
  for await (const item of iterable) all.push(item);
  return all;
}

/** The error that a promise rejects with: always a `StateStoreError`, with this code. */
export async function rejection(promise, code) {
  expect(promise).toBeInstanceOf(Promise);
  const error = await promise.then(
    (value) => expect.fail(`resolved with ${JSON.stringify(value)} where ${code} was due`),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(StateStoreError);
  expect(error).toBeInstanceOf(Error);
  expect(error.name).toBe('StateStoreError');
  expect(typeof error.retryable).toBe('boolean');
  expect({ code: error.code, message: error.message }).toEqual({ code, message: expect.any(String) });
  return error;
}

export { sleep, SqlxStateStore, StateStoreError };
