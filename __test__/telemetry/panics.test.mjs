// A panic in the background, which no call reports, is a warning: on an addon that panics where a test asks for it.

import { describe, expect, onTestFinished, test } from 'vitest';
import { databases } from '../support/databases.mjs';
import { makeJob, makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { expectNoSecret } from '../support/secrets.mjs';
import { claim, complete } from '../support/suite.mjs';
import { warningLike, watchWarnings } from '../support/telemetry.mjs';
import { SqlxStateStore, StateStoreError, hooks } from '../support/test-hooks.mjs';

const SECRET = 'hunter2-and-the-rest';

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
    const expectPanic = async (warnings) => {
      const warning = await warningLike(warnings, { kind: 'panic' });
      expect(warning.message).toMatch(/a defect of this package at src\/\S+\.rs:\d+:\d+/);
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
      await expectPanic(warnings);
      await complete(store, job.id, batchId);
    });

    test('in the writer of queued records, beside the write that failed', async () => {
      const store = await open({ durability: 'batch' });
      const warnings = watchWarnings();
      const id = newId();
      hooks.panicAt('writer', SECRET);
      await store.saveProcessedRecord(id, 'b', makeRecord(0));
      await expectPanic(warnings);
      await warningLike(warnings, { kind: 'queued-write-failed', jobId: id, batchId: 'b' });
    });

    test('in the writer of a queued job, beside the write that failed', async () => {
      const store = await open({ durability: 'batch' });
      const warnings = watchWarnings();
      const job = makeLocalJob(1);
      hooks.panicAt('job writer', SECRET);
      await store.saveJobState(job);
      await expectPanic(warnings);
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
