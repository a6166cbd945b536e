// What the tests of connections share: the forms that a store is made from, and how to expect that it works or fails.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Sequelize } from 'sequelize';
import { expect, onTestFinished } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { makeJob, makeRecord } from './fixtures.mjs';
import { expectNoSecret } from './secrets.mjs';
import { IncumbentLikeStore } from './sequelize-models.mjs';
import { addressOf, prepare } from './suite.mjs';

export function open(connection, options) {
  const store = new SqlxStateStore(connection, options);
  onTestFinished(() => store.close());
  return store;
}

export function sequelizeOf(...args) {
  const sequelize = new Sequelize(...args);
  onTestFinished(() => sequelize.close());
  return sequelize;
}

export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'batchactions-connection-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A database's URL in parts, as `ConnectionOptions` names them. */
export function partsOf(db) {
  if (db.url.startsWith('sqlite:')) return { dialect: 'sqlite', storage: db.url.replace(/^sqlite:(\/\/)?/, '') };
  const url = new URL(db.url);
  const parts = {
    dialect: db.dialect.name,
    ...addressOf(db),
    database: url.pathname.slice(1),
    user: decodeURIComponent(url.username),
  };
  return url.password ? { ...parts, password: decodeURIComponent(url.password) } : parts;
}

/** The same, as Sequelize names them. */
export function sequelizePartsOf(db) {
  const { user: username, ...parts } = partsOf(db);
  return { ...parts, ...(username && { username }), logging: false };
}

export function withUrl(db, change) {
  const url = new URL(db.url);
  change(url);
  return url.href;
}

/** The store works, and on the database that it should: what it saved is there for a look from outside. */
export async function expectToWork(store, db) {
  await store.initialize();
  const job = makeJob(3, { id: `works-${Math.random().toString(36).slice(2)}`, size: 2 });
  await prepare(store, job);
  expect(await store.getJobState(job.id)).toStrictEqual(job);
  expect((await store.claimBatch(job.id, 'w')).claimed).toBe(true);
  if (db) expect(await db.query('select "id" as "id" from batchactions_jobs where "id" = ?', [job.id])).toHaveLength(1);
  return job;
}

/** The store works where this Sequelize instance looks; which it does afterwards, for a SQLite file is never open in both. */
export async function expectToShare(store, sequelize) {
  const job = await expectToWork(store);
  await store.close();
  expect(await new IncumbentLikeStore(sequelize).getJobState(job.id)).toMatchObject({ id: job.id, status: 'PROCESSING' });
}

export const rejectionOf = (promise) =>
  promise.then(
    () => expect.unreachable('it resolved'),
    (error) => error,
  );

export const thrownBy = (action) => {
  try {
    action();
  } catch (error) {
    return error;
  }
  return expect.unreachable('it did not throw');
};

/** Far less than the 30 s of a pool that tries again and again, and more than a name server takes that drops a question. */
export const SOON = 20_000;

/** The database can't be had: known soon, with the reason, and whether it may come by itself. */
export async function expectConnectionFailed(store, reason, secrets = [], { retryable = true } = {}) {
  for (const call of [
    () => store.getJobState('j'),
    () => store.initialize(),
    () => store.saveProcessedRecord('j', 'b', makeRecord(0, { status: 'pending' })),
  ]) {
    const started = performance.now();
    const error = await rejectionOf(call());
    expect(performance.now() - started).toBeLessThan(SOON);
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ name: 'StateStoreError', code: 'CONNECTION_FAILED', retryable });
    expect(error.message).toMatch(reason);
    expect(error.message).not.toMatch(/pool timed out/i);
    expectNoSecret(error, secrets);
    expectNoSecret(store, secrets);
  }
}
