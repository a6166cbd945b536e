// Servers with unusual settings: the store sets what it needs on each connection, so that they make no difference.

import { describe, expect, onTestFinished } from 'vitest';
import { serverDialects } from './support/dialects/index.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { makeJob, makeRecord } from './support/fixtures.mjs';
import { claim, complete, SqlxStateStore } from './support/suite.mjs';

// Settings of the whole server, so it is one of the test's own.
describe.each(serverDialects)('$name', (dialect) => {
  onOwnServer(dialect)('what is saved is committed, whatever the server’s settings are', async () => {
    const server = await startOwnServer(dialect);
    onTestFinished(() => server.end());
    const settings = await dialect.connect(server.url);
    onTestFinished(() => settings.end());
    for (const setting of dialect.unusualSettings) {
      await dialect.applySetting(settings, setting);
      const store = new SqlxStateStore(server.url);
      await store.initialize();
      const job = makeJob(2);
      await store.saveJobState(job);
      const held = await claim(store, job.id);
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await store.saveBatchRecords(job.id, held.batchId, [makeRecord(1), makeRecord(2)]);
      await complete(store, job.id, held.batchId);
      await store.releaseBatch(job.id, (await claim(store, job.id)).batchId, 'worker');
      await complete(store, job.id, (await claim(store, job.id)).batchId);
      expect(await store.tryFinalizeJob(job.id), setting).toBe(true);
      await store.close();

      // Another connection sees only what was committed.
      const later = new SqlxStateStore(server.url);
      onTestFinished(() => later.close());
      const found = await later.getJobState(job.id);
      expect(found, setting).toMatchObject({ status: 'COMPLETED', batches: [{ status: 'COMPLETED' }, { status: 'COMPLETED' }] });
      expect(await later.getBatchRecords(job.id, held.batchId), setting).toEqual([0, 1, 2].map((index) => makeRecord(index)));
      expect(Math.abs(found.completedAt - Date.now()), setting).toBeLessThan(600_000);
    }
  });
});
