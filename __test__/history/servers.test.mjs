// What many processes do to one job while its server ends and starts again: see `processes.test.mjs`.

import { describe, expect, onTestFinished } from 'vitest';
import { mariadb } from '../support/dialects/mysql.mjs';
import { postgres } from '../support/dialects/postgres.mjs';
import { makeJob } from '../support/fixtures.mjs';
import { onOwnServer, startOwnServer } from '../support/own-servers.mjs';
import { SqlxStateStore } from '../support/suite.mjs';
import { observe, scale } from './fleet.mjs';
import { expectCorrect, long, wait } from './runs.mjs';

// On servers of the test's own, because a test may end no other.
describe.each([postgres, mariadb])('$name', (dialect) => {
  const onThisServer = onOwnServer(dialect, long);

  describe('the server is started again', () => {
    const restarting = async (again) => {
      const server = await startOwnServer(dialect);
      onTestFinished(() => server.end());
      const store = new SqlxStateStore(server.url);
      onTestFinished(() => store.close());
      await store.initialize();

      // The second time, and every other one then, it stays away for longer than the store tries again by itself.
      const fault = async (fleet) => {
        fleet.counts.restarts = 0;
        while (!fleet.isDone && fleet.counts.restarts < 3 * scale) {
          await wait(300, 600);
          if (fleet.isDone) return;
          await again(server, fleet.counts.restarts % 2 === 0 ? 0 : 2_000);
          fleet.counts.restarts++;
        }
      };
      const query = async (...args) => {
        const db = await dialect.connect(server.url);
        return db.query(...args).finally(() => db.end());
      };
      const run = { store, url: server.url, query, fault, batches: Math.ceil(100 * scale), runMs: 180_000 * Math.max(1, scale) };
      await expectCorrect(
        () => observe({ ...run, options: { statementTimeoutMs: 1_500 } }),
        (facts) => facts.restarts >= 2 && facts.failed > 10 && facts.reclaimed > 0,
      );
    };

    onThisServer('in order', () => restarting((server, downMs) => server.restart(downMs)));
    onThisServer('after its main process was killed', () => restarting((server, downMs) => server.crash(downMs)));
  });

  onThisServer('a job that was read before shows what changed while the server started again', async () => {
    const server = await startOwnServer(dialect);
    onTestFinished(() => server.end());
    const store = new SqlxStateStore(server.url);
    onTestFinished(() => store.close());
    await store.initialize();
    const job = makeJob(200);
    await store.saveJobState(job);
    for (const again of ['restart', 'crash']) {
      expect((await store.getJobState(job.id)).batches).toStrictEqual(job.batches);
      await server[again](0);
      job.batches[150].processedCount++;
      const db = await dialect.connect(server.url);
      const update = 'update "batchactions_batches" set "processedCount" = ? where "id" = ?';
      await db.query(update, [job.batches[150].processedCount, job.batches[150].id]).finally(() => db.end());
      expect((await store.getJobState(job.id)).batches).toStrictEqual(job.batches);
    }
  });
});
