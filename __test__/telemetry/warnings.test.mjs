// What fails or changes in the background, where no call reports it, is published on the channel `batchactions.store.warning`: each kind is made to happen.
// (`panic` and what takes an addon with hooks is in `panics.test.mjs`.)

import { readFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { SUMMARY_INDEX } from '../support/catalogue.mjs';
import { makeBatch, makeJob, makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { runNode } from '../support/run-node.mjs';
import { expectNoSecret } from '../support/secrets.mjs';
import { SqlxStateStore, StateStoreError, claim, complete, onDatabasesWith, onEveryDatabase, rejection, sleep } from '../support/suite.mjs';
import { WARNING_KINDS, warningLike, watchWarnings } from '../support/telemetry.mjs';
import { createUser } from '../support/users.mjs';

test('each kind that index.d.ts promises is made to happen', () => {
  const files = ['warnings', 'panics'].map((name) => readFileSync(new URL(`${name}.test.mjs`, import.meta.url), 'utf8'));
  const isMade = (kind) => files.some((text) => text.includes(`describe('${kind}'`) || text.includes(`{ kind: '${kind}'`));
  expect(WARNING_KINDS.length).toBeGreaterThan(8);
  expect(WARNING_KINDS.filter((kind) => !isMade(kind))).toEqual([]);
});

onEveryDatabase((on) => {
  const saved = async (batches, store = on.store) => {
    const job = makeJob(batches);
    await store.saveJobState(job);
    return job;
  };
  /** A store on an empty database of its own, which a test may break. */
  const openAlone = async (options) => {
    const own = await on.createEmpty();
    const store = new SqlxStateStore(own.url, options);
    onTestFinished(() => store.close().catch(() => {}));
    await store.initialize();
    return { own, store };
  };
  const expectAboutThisDatabase = (warning) => {
    expect(warning.server.system).toMatch(on.has('server') ? /^(postgresql|mysql|mariadb)$/ : /^sqlite$/);
    expect(warning.message).not.toBe('');
    if (warning.error) {
      expect(warning.error).toBeInstanceOf(StateStoreError);
      expect(warning.error.code).toMatch(/^[A-Z_]+$/);
    }
    const secret = on.has('server') && new URL(on.url).password;
    if (secret.length > 5) expectNoSecret(warning, [secret]);
  };

  describe('list-behind', () => {
    on.needs('raw')('where the list of a job could not be brought up to date after a claim, which succeeds', async () => {
      const { own, store } = await openAlone();
      const job = await saved(2, store);
      await own.query(`update "batchactions_jobs" set "batches" = '{}' where "id" = ?`, [job.id]);
      const warnings = watchWarnings();
      await claim(store, job.id);
      const warning = await warningLike(warnings, { kind: 'list-behind', jobId: job.id });
      expect(warning.error.code).toBe('TABLES_INCOMPATIBLE');
      expectAboutThisDatabase(warning);
    });
  });

  describe('renewal-failed', () => {
    on.needs('raw')('where a claim could not be renewed, with its worker', async () => {
      const { own, store } = await openAlone({ leaseRenewal: { everyMs: 50, forMs: 60_000 } });
      const job = await saved(1, store);
      const { batchId } = await claim(store, job.id, 'w');
      const warnings = watchWarnings();
      await own.query('alter table "batchactions_batches" rename to "moved"');
      const warning = await warningLike(warnings, { kind: 'renewal-failed', jobId: job.id, batchId, workerId: 'w' });
      expect(warning.error.code).toBe('TABLES_MISSING');
      expectAboutThisDatabase(warning);
      await own.query('alter table "moved" rename to "batchactions_batches"');
      await complete(store, job.id, batchId);
    });

    test('not where it is renewed', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 20, forMs: 60_000 } });
      const job = await saved(3, store);
      const warnings = watchWarnings();
      const claims = [await claim(store, job.id), await claim(store, job.id), await claim(store, job.id)];
      await sleep(100);
      await complete(store, job.id, claims[0].batchId);
      await store.releaseBatch(job.id, claims[1].batchId, 'worker');
      await sleep(100);
      expect(warnings).toEqual([]);
    });
  });

  describe('claim-taken', () => {
    test('where reclaimStaleBatches takes batches, with each worker that held one', async () => {
      const job = await saved(3);
      const claims = [await claim(on.store, job.id, 'w1'), await claim(on.store, job.id, 'w2')];
      const timeoutMs = await on.expire(job.id);
      const warnings = watchWarnings();
      expect(await on.store.reclaimStaleBatches(job.id, timeoutMs)).toBe(2);
      for (const { batchId, workerId } of claims) {
        expectAboutThisDatabase(await warningLike(warnings, { kind: 'claim-taken', jobId: job.id, batchId, workerId }));
      }
      expect(warnings).toHaveLength(2);
      expect(await on.store.reclaimStaleBatches(job.id, timeoutMs)).toBe(0);
      await sleep(50);
      expect(warnings).toHaveLength(2);
    });

    test('where it takes many: fifty by name, and one warning for the others', async () => {
      const job = await saved(60);
      for (let n = 0; n < 60; n++) await claim(on.store, job.id);
      const timeoutMs = await on.expire(job.id);
      const warnings = watchWarnings();
      expect(await on.store.reclaimStaleBatches(job.id, timeoutMs)).toBe(60);
      await warningLike(warnings, { kind: 'claim-taken', jobId: job.id, count: 10 });
      expect(warnings).toHaveLength(51);
      expect(new Set(warnings.map(({ batchId }) => batchId)).size).toBe(51);
    });

    test('where abortJob with now takes batches, with each worker that held one', async () => {
      const job = await saved(3);
      const claims = [await claim(on.store, job.id, 'w1'), await claim(on.store, job.id, 'w2')];
      const warnings = watchWarnings();
      expect(await on.store.abortJob(job.id, { now: true })).toBe(true);
      for (const { batchId, workerId } of claims) {
        const warning = await warningLike(warnings, { kind: 'claim-taken', jobId: job.id, batchId, workerId });
        expectAboutThisDatabase(warning);
        expect(warning.message).toMatch(/aborted/);
      }
      expect(await on.store.abortJob(job.id, { now: true })).toBe(false);
      await sleep(50);
      expect(warnings).toHaveLength(2);
    });

    test('not where abortJob without now leaves them', async () => {
      const job = await saved(2);
      await claim(on.store, job.id, 'w1');
      const warnings = watchWarnings();
      await on.store.abortJob(job.id);
      await sleep(50);
      expect(warnings).toEqual([]);
    });

    on.needs('raw')('where the renewal of a claim finds it lost', async () => {
      const store = await on.open({ leaseRenewal: { everyMs: 30, forMs: 60_000 } });
      const job = await saved(1, store);
      const { batchId } = await claim(store, job.id, 'w');
      const warnings = watchWarnings();
      await on.query(`update "batchactions_batches" set "version" = "version" + 2, "workerId" = 'other' where "id" = ?`, [batchId]);
      const warning = await warningLike(warnings, { kind: 'claim-taken', jobId: job.id, batchId, workerId: 'w' });
      expect(warning.error.code).toBe('LEASE_LOST');
      expectAboutThisDatabase(warning);
      await sleep(100);
      expect(warnings).toHaveLength(1);
    });

    on.needs('raw')('where a queued record was not stored because its claim is lost', async () => {
      const store = await on.open({ durability: 'batch' });
      const job = await saved(1, store);
      const { batchId } = await claim(store, job.id, 'w');
      await on.query(`update "batchactions_batches" set "version" = "version" + 2, "workerId" = 'other' where "id" = ?`, [batchId]);
      const warnings = watchWarnings();
      await store.saveProcessedRecord(job.id, batchId, makeRecord(0));
      await store.saveProcessedRecord(job.id, batchId, makeRecord(1)).catch(() => {});
      const warning = await warningLike(warnings, { kind: 'claim-taken', jobId: job.id, batchId });
      expect(warning.error.code).toBe('LEASE_LOST');
    });
  });

  describe('batch-given-up', () => {
    test('where a stale batch became FAILED by maxClaims', async () => {
      const store = await on.open({ maxClaims: 1 });
      const job = await saved(2, store);
      const { batchId } = await claim(store, job.id, 'w');
      // The batch is not in the database of the shared store on sqlite-memory.
      const timeoutMs = on.has('raw') ? await on.expire(job.id) : 30;
      if (!on.has('raw')) await sleep(60);
      const warnings = watchWarnings();
      expect(await store.reclaimStaleBatches(job.id, timeoutMs)).toBe(1);
      expectAboutThisDatabase(await warningLike(warnings, { kind: 'batch-given-up', jobId: job.id, batchId, workerId: 'w' }));
      expect(warnings).toHaveLength(1);
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ failedBatches: 1 });
    });
  });

  describe('queued-write-failed', () => {
    on.needs('raw')('where queued records could not be stored, once for each batch', async () => {
      const { own, store } = await openAlone({ durability: 'batch' });
      const accept = await on.dialect.refuseRows(own, 'records', `"recordIndex" > 13`);
      const warnings = watchWarnings();
      const jobId = newId();
      // In one turn, so that they are one group.
      const saves = Array.from({ length: 20 }, (_, index) => store.saveProcessedRecord(jobId, 'b', makeRecord(index)));
      await Promise.all(saves);
      await store.getProgress(jobId);
      const warning = await warningLike(warnings, { kind: 'queued-write-failed', jobId, batchId: 'b' });
      expectAboutThisDatabase(warning);
      expect(warning.message).toContain('record 14');
      expect(warnings.reduce((sum, { count = 1 }) => sum + count, 0)).toBe(6);
      await accept();
    });

    on.needs('raw')('where a queued job could not be stored', async () => {
      const { own, store } = await openAlone({ durability: 'batch' });
      await on.dialect.refuseRows(own, 'jobs', `"totalRecords" = 13`);
      const warnings = watchWarnings();
      const job = makeLocalJob(1, { totalRecords: 13 });
      await store.saveJobState(job);
      expectAboutThisDatabase(await warningLike(warnings, { kind: 'queued-write-failed', jobId: job.id }));
    });

    test('not where a save rejects, which its caller sees', async () => {
      const warnings = watchWarnings();
      await rejection(on.store.saveBatchRecords(newId(), 'b', [makeRecord(2 ** 31)]), 'INVALID_ARGUMENT');
      await sleep(20);
      expect(warnings).toEqual([]);
    });
  });

  describe('connection-lost', () => {
    on.needs('server')('where an idle connection was ended, although the next call succeeds', async () => {
      const store = await on.open({ pool: { max: 1, min: 1 } });
      const job = await saved(1, store);
      const warnings = watchWarnings();
      const killer = await on.connect();
      for (const session of await on.dialect.sessions(killer)) await on.dialect.endSession(killer, session).catch(() => {});
      expect(await store.getProgress(job.id)).toMatchObject({ totalBatches: 1 });
      expectAboutThisDatabase(await warningLike(warnings, { kind: 'connection-lost' }));
    });

    on.needs('server', 'rowLocks')('where a connection ended in the middle of a call that is repeated', async () => {
      const { own, store } = await openAlone({ pool: { max: 2 } });
      const job = await saved(1, store);
      const blocker = await own.connect();
      onTestFinished(() => blocker.end().catch(() => {}));
      for (const statement of on.dialect.begin) await blocker.query(statement);
      await blocker.query('select 1 from "batchactions_jobs" for update');
      const warnings = watchWarnings();
      const claimed = claim(store, job.id);
      await expect.poll(() => on.dialect.countWaiting(own), { timeout: 60_000, interval: 100 }).toBeGreaterThan(0);
      const busy = (await on.dialect.sessions(blocker)).filter((session) => session.busy);
      for (const session of busy) await on.dialect.endSession(blocker, session);
      const warning = await warningLike(warnings, { kind: 'connection-lost' });
      expect(warning.error).toMatchObject({ code: 'CONNECTION_LOST', cause: expect.any(Error) });
      expectAboutThisDatabase(warning);
      await blocker.query('rollback');
      await claimed;
    });

    const serverEndsIt = on.dialect.name === 'postgres' && on.exempt('its server ends the statement, and the connection is kept');
    (serverEndsIt || on.needs('server', 'rowLocks'))('where a statement took too long, and its connection was dropped', async () => {
      const { own, store } = await openAlone({ statementTimeoutMs: 300 });
      const job = await saved(1, store);
      const blocker = await own.connect();
      onTestFinished(() => blocker.end().catch(() => {}));
      for (const statement of on.dialect.begin) await blocker.query(statement);
      await blocker.query('select 1 from "batchactions_jobs" for update');
      const warnings = watchWarnings();
      await store.tryFinalizeJob(job.id).catch(() => {});
      await store.deleteJob(job.id).catch(() => {});
      expect((await warningLike(warnings, { kind: 'connection-lost' })).error.code).toMatch(/TIMEOUT|CONFLICT/);
      await blocker.query('rollback');
    });
  });

  describe('connection-refused', () => {
    on.needs('server')('where the server has no connection left for the user, and the call waits for one of the store', async () => {
      const { own, store } = await openAlone();
      await store.close();
      const user = await createUser(own);
      onTestFinished(() => user.drop());
      const limit =
        on.dialect.name === 'postgres'
          ? `alter role "${user.name}" connection limit 2`
          : `alter user '${user.name}'@'%' with max_user_connections 2`;
      await own.query(limit);
      const few = new SqlxStateStore(user.url, { pool: { max: 8 } });
      onTestFinished(() => few.close());
      const warnings = watchWarnings();
      await Promise.all(Array.from({ length: 40 }, () => few.getProgress('j')));
      const warning = await warningLike(warnings, { kind: 'connection-refused' });
      expectAboutThisDatabase(warning);
      expectNoSecret(warning, [user.password]);
      // Its connections are gone before the user is.
      await few.close();
    });
  });

  describe('index-missing', () => {
    on.needs('file')('where initialize() can not create the index of summaries, and the store works', async () => {
      const { own, store } = await openAlone();
      await store.close();
      await own.query(`drop index ${SUMMARY_INDEX}`);
      // It has the index's name.
      await own.query(`create table ${SUMMARY_INDEX} (x)`);
      const other = new SqlxStateStore(own.url);
      onTestFinished(() => other.close());
      const warnings = watchWarnings();
      await other.initialize();
      const warning = await warningLike(warnings, { kind: 'index-missing' });
      expect(warning.message).toContain(SUMMARY_INDEX);
      expect(warning.error).toBeInstanceOf(StateStoreError);
      expectAboutThisDatabase(warning);
      await saved(2, other);
      expect(await other.listJobs()).toHaveLength(1);
    });

    on.needs('optionalIndex')('where initialize() may not create the optional index', async () => {
      const { own, store } = await openAlone();
      await store.close();
      await own.query('drop index batchactions_batches_job_id_state on batchactions_batches');
      const user = await createUser(own);
      const limited = new SqlxStateStore(user.url);
      const warnings = watchWarnings();
      await limited.initialize();
      await limited.close();
      await user.drop();
      const warning = await warningLike(warnings, { kind: 'index-missing' });
      expectAboutThisDatabase(warning);
      expectNoSecret(warning, [user.password]);
    });
  });
});

onDatabasesWith('memory', () => {
  test('a flood while the event loop is blocked is dropped beyond 256 warnings, and counted', async () => {
    const store = new SqlxStateStore('sqlite::memory:');
    onTestFinished(() => store.close());
    await store.initialize();
    const jobs = Array.from({ length: 10 }, () => makeJob(51));
    for (const job of jobs) {
      await store.saveJobState(job);
      for (let n = 0; n < 51; n++) await claim(store, job.id);
    }
    await sleep(30);
    const warnings = watchWarnings();
    const reclaims = jobs.map((job) => store.reclaimStaleBatches(job.id, 10));
    // The native threads go on meanwhile.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_000);
    expect(await Promise.all(reclaims)).toEqual(jobs.map(() => 51));
    await sleep(50);
    const heard = warnings.reduce((sum, { count = 1 }) => sum + count, 0);
    expect(warnings.length).toBeLessThan(510);
    expect(heard).toBeLessThan(510);

    const last = makeJob(1);
    await store.saveJobState(last);
    await claim(store, last.id);
    await sleep(30);
    await store.reclaimStaleBatches(last.id, 10);
    await warningLike(warnings, { jobId: last.id });
    const dropped = warnings.reduce((sum, { dropped = 0 }) => sum + dropped, 0);
    expect(warnings.length + dropped).toBe(511);
  });
});

test('warnings keep no process alive, and are sent after their thread has ended without harm', async () => {
  const { code, stdout, stderr } = await runNode(`
    import { Worker, isMainThread } from 'node:worker_threads';
    import { channel } from 'node:diagnostics_channel';
    const source = \`
      const { parentPort, workerData } = require('node:worker_threads');
      const { channel } = require('node:diagnostics_channel');
      const { SqlxStateStore } = require(workerData);
      channel('batchactions.store.warning').subscribe(() => {});
      (async () => {
        const store = new SqlxStateStore('sqlite::memory:', { durability: 'batch', leaseRenewal: { everyMs: 1, forMs: 60000 } });
        await store.initialize();
        await store.saveJobState(${JSON.stringify(makeJob(50, { id: 'j', batches: Array.from({ length: 50 }, (_, n) => makeBatch('j', n)) }))});
        for (let n = 0; n < 50; n++) await store.claimBatch('j', 'w');
        parentPort.postMessage('ready');
        // Each round takes what the rounds before claimed, and warns of it.
        for (;;) {
          await store.reclaimStaleBatches('j', 1);
          await store.claimBatch('j', 'w');
        }
      })();
    \`;
    const { fileURLToPath } = await import('node:url');
    const file = fileURLToPath(${JSON.stringify(new URL('../../index.js', import.meta.url).href)});
    for (let n = 0; n < 5; n++) {
      const worker = new Worker(source, { eval: true, execArgv: [], workerData: file });
      await new Promise((resolve) => worker.once('message', resolve));
      await new Promise((resolve) => setTimeout(resolve, 20));
      await worker.terminate();
    }
    channel('batchactions.store.warning').subscribe(() => {});
    const store = new SqlxStateStore('sqlite::memory:');
    await store.initialize();
    console.log('done');
  `);
  expect(stderr).toBe('');
  expect(stdout.trim()).toBe('done');
  expect(code).toBe(0);
});
