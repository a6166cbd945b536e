// A panic in the background, which no call reports, is a warning: on an addon that panics where a test asks for it.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { databases } from '../support/databases.mjs';
import { makeJob, makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { expectNoSecret } from '../support/secrets.mjs';
import { claim, complete, needs } from '../support/suite.mjs';
import { warningLike, watchWarnings } from '../support/telemetry.mjs';
import { SqlxStateStore, StateStoreError, hooks } from '../support/test-hooks.mjs';

const SOURCES = fileURLToPath(new URL('../../src', import.meta.url));
const SECRET = 'hunter2-and-the-rest';

test('each task that works in the background is made to panic', () => {
  const sources = readdirSync(SOURCES, { recursive: true }).filter((file) => file.endsWith('.rs') && file !== 'warnings.rs');
  const text = sources.map((file) => readFileSync(join(SOURCES, file), 'utf8')).join('');
  const tasks = [...text.matchAll(/\b(?:watch|panicked)\(\s*"([^"]+)"/g)].map(([, what]) => what);
  expect(tasks.length).toBeGreaterThan(5);
  const tests = readFileSync(fileURLToPath(import.meta.url), 'utf8');
  expect(tasks.filter((what) => !tests.includes(`expectPanic(warnings, '${what}')`))).toEqual([]);
});

for (const database of databases) {
  describe(database.name, () => {
    const open = async (options) => {
      const own = await database.create();
      const store = new SqlxStateStore(own.url, options);
      onTestFinished(async () => {
        await store.close().catch(() => {});
        await own.drop();
      });
      await store.initialize();
      return store;
    };
    const expectPanic = async (warnings, what) => {
      const warning = await warningLike(warnings, { kind: 'panic' });
      expect(warning.message).toMatch(new RegExp(`^${what} ended: a defect of this package at src/\\S+\\.rs:\\d+:\\d+`));
      expect(warning.error).toBeInstanceOf(StateStoreError);
      expect(warning.error.code).toBe('INTERNAL');
      expectNoSecret(warning, [SECRET]);
    };

    test('in a round of renewals', async () => {
      const store = await open({ leaseRenewal: { everyMs: 20, forMs: 60_000 } });
      const job = makeJob(1);
      await store.saveJobState(job);
      const { batchId } = await claim(store, job.id);
      const warnings = watchWarnings();
      hooks.panicAt('renewal', SECRET);
      await expectPanic(warnings, 'a round of renewals');
      await complete(store, job.id, batchId);
    });

    test('in the renewal of a lease, which the next round tries again', async () => {
      const store = await open({ leaseRenewal: { everyMs: 20, forMs: 60_000 } });
      const job = makeJob(1);
      await store.saveJobState(job);
      const { batchId, claimedAt } = await claim(store, job.id);
      const warnings = watchWarnings();
      hooks.panicAt('lease', SECRET);
      await expectPanic(warnings, 'the renewal of a lease');
      const renewed = async () => (await store.batches(job.id))[0].claimedAt;
      await expect.poll(renewed, { timeout: 10_000 }).toBeGreaterThan(claimedAt);
      await complete(store, job.id, batchId);
    });

    // A database in memory is its connection, so it is gone with it, and is never closed for being idle.
    needs(database, 'shared')('in the rollback of a call that panicked itself, whose connection is given up', async () => {
      const store = await open();
      const job = makeJob(2);
      const warnings = watchWarnings();
      hooks.panicAt('rollback', SECRET);
      hooks.panicAt('transaction', SECRET);
      await expect(store.saveJobState(job)).rejects.toMatchObject({ code: 'INTERNAL' });
      await expectPanic(warnings, 'the rollback of an unfinished call');
      expect(await store.getJobState(job.id)).toBeNull();
      expect((await store.batches(job.id)).length).toBe(0);
      await store.saveJobState(job);
      expect(await store.getJobState(job.id)).toStrictEqual(job);
    });

    needs(database, 'shared')('in closing idle connections, which the next round does', async () => {
      const store = await open({ pool: { max: 4, min: 0, idleTimeoutMs: 100 } });
      const warnings = watchWarnings();
      hooks.panicAt('idle connections', SECRET);
      await Promise.all(Array.from({ length: 4 }, () => store.getProgress('j')));
      await expectPanic(warnings, 'closing idle connections');
      await Promise.all(Array.from({ length: 4 }, () => store.getProgress('j')));
      // SQLite keeps one, which holds the file.
      await expect.poll(() => store.poolStats().idle, { timeout: 10_000 }).toBe(database.has('file') ? 1 : 0);
    });

    test('in the wait that keeps the process alive, which the next save begins again', async () => {
      const store = await open({ durability: 'batch' });
      const warnings = watchWarnings();
      const id = newId();
      hooks.panicAt('keep alive', SECRET);
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await expectPanic(warnings, 'the wait for an empty queue');
      hooks.panicAt('keep alive', SECRET);
      await store.saveProcessedRecord(id, 'b', makeRecord(1));
      await expect.poll(() => warnings.filter(({ kind }) => kind === 'panic').length, { timeout: 20_000 }).toBe(2);
      expect(await store.getBatchRecords(id, 'b')).toHaveLength(2);
    });

    test('in the writer of queued records, beside the write that failed', async () => {
      const store = await open({ durability: 'batch' });
      const warnings = watchWarnings();
      const id = newId();
      hooks.panicAt('writer', SECRET);
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await expectPanic(warnings, 'writing what is queued');
      await warningLike(warnings, { kind: 'queued-write-failed', jobId: id, batchId: 'b' });
    });

    test('in the writer of a queued job, beside the write that failed', async () => {
      const store = await open({ durability: 'batch' });
      const warnings = watchWarnings();
      const job = makeLocalJob(1);
      hooks.panicAt('job writer', SECRET);
      await store.saveJobState(job);
      await expectPanic(warnings, 'writing what is queued');
      await warningLike(warnings, { kind: 'queued-write-failed', jobId: job.id });
    });

    test('not in a call, which rejects', async () => {
      const store = await open();
      const warnings = watchWarnings();
      hooks.panicAt('call', SECRET);
      await expect(store.getProgress('j')).rejects.toMatchObject({ code: 'INTERNAL' });
      expect(warnings).toEqual([]);
    });
  });
}
