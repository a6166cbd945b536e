// Helpers for suites that run on every database.

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { databases, databasesWith } from './databases.mjs';
import { reasonOf } from './dialects/capabilities.mjs';
import { makeRecord, makeRecords, makeState, newId } from './fixtures.mjs';
import { storeOn } from './store.mjs';

/**
 * Runs `body` once for each database, in a `describe` block of its name.
 * @param {(on: Subject) => void} body
 */
export function onEveryDatabase(body) {
  for (const database of databases) {
    describe(database.name, () => body(new Subject(database)));
  }
}

/**
 * Runs `body` once for each database that has a capability, in a `describe` block of its name, for tests that make their databases themselves. Where
 * there is none, that is reported as a skipped test.
 * @param {(database: object) => void} body
 */
export function onDatabasesWith(capability, body) {
  const having = databasesWith(capability);
  for (const database of having) describe(database.name, () => body(database));
  if (having.length === 0) test.skip(`[exempt: this run has no database of which this is true: ${capability}]`, () => {});
}

/** One database under test, fresh for the `describe` block, with one store on it that the block's tests share: each uses ids of its own. */
class Subject {
  constructor(database) {
    this.database = database;
    this.dialect = database.dialect;
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

  /** Where the server listens. */
  get address() {
    return addressOf(this);
  }

  /** SQL past the store: see `databases.mjs`. */
  query(sql, params) {
    return this.own.query(sql, params);
  }

  /** A connection past the store, for a transaction of the test's. Closed after the test. */
  async connect() {
    const connection = await this.own.connect();
    onTestFinished(() => connection.end().catch(() => {}));
    return connection;
  }

  /** As `connect()`, in a transaction for writing. On SQLite it holds the one place of a writer until it ends. */
  async begin() {
    const connection = await this.connect();
    for (const statement of this.dialect.begin) await connection.query(statement);
    return connection;
  }

  /** As `begin()`, in which the rows of a table where `condition` holds are locked. */
  async lockRows(table, condition, params) {
    const connection = await this.begin();
    await connection.query(`select 1 from "batchactions_${table}" where ${condition} for update`, params);
    return connection;
  }

  /** Resolves once a session of this database waits for a lock. */
  async untilOneWaits() {
    const waiting = () => this.dialect.countWaiting(this);
    await expect.poll(waiting, { timeout: 60_000, interval: 250 }).toBeGreaterThan(0);
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

  /** Whether the database has a capability of `capabilities.mjs`; with '!' before the name, whether it lacks it. */
  has(capability) {
    return this.database.has(capability);
  }

  /** `test`, for databases with all of these capabilities. On any other the test is reported as skipped, with the reason in its name. */
  needs(...capabilities) {
    return needs(this.database, ...capabilities);
  }

  /** `test` where this database does not run it, for this reason. */
  exempt(reason) {
    return exempt(this.database, reason);
  }

  /** A record of these fields as it comes back: the same from either way to save it and every way to read it. */
  async stored(fields) {
    const record = makeRecord(0, fields);
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
    if (!this.has('raw')) {
      await sleep(60);
      return 30;
    }
    await this.backdate(jobId);
    return 60_000;
  }
}

/** As `Subject.needs`, for a test that makes its databases itself. */
export function needs(database, ...capabilities) {
  const lacking = capabilities.find((capability) => !database.has(capability));
  return lacking ? exempt(database, reasonOf(lacking)) : test;
}

function exempt(database, reason) {
  const titled = (name) => `${name} [exempt, ${database.name}: ${reason}]`;
  const skip = (name) => test.skip(titled(name), () => {});
  return Object.assign(skip, { each: (cases) => (name) => test.skip.each(cases)(titled(name), () => {}) });
}

/** As the importer prepares a distributed job: the records of each batch, then the job. */
export async function prepare(store, job) {
  for (const batch of job.batches) await store.saveBatchRecords(job.id, batch.id, makeRecords(batch));
  await store.saveJobState(job);
}

/** The host and port of a database's server. */
export function addressOf({ url, dialect }) {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port) || dialect.defaultPort };
}

/** A database's URL by way of a port of this machine, as a proxy has it. */
export function urlThrough(port, url, parameters = '') {
  const through = new URL(url);
  Object.assign(through, { hostname: '127.0.0.1', port: String(port) });
  if (parameters) through.search = parameters;
  return through.href;
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
  await store.updateBatchState(jobId, batchId, makeState(batchId, status, status === 'COMPLETED' ? 10 : 7, status === 'COMPLETED' ? 0 : 3));
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
