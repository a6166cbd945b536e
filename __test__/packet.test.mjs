// max_allowed_packet limits the size of a statement on MySQL and MariaDB. A job that can be stored can also be finalized, however its list of batches grows
// until then.

import { describe, expect, onTestFinished } from 'vitest';
import { serverDialects } from './support/dialects/index.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { makeJob, makeState } from './support/fixtures.mjs';
import { claim, openStore, rejection } from './support/suite.mjs';

const PACKET = 1 << 20;

for (const dialect of serverDialects) {
  describe(dialect.name, () => {
    onOwnServer(dialect, { needs: 'packetLimit', timeout: 300_000 })(
      'the largest job that can be stored can be finalized, and one more batch is refused',
      async () => {
        const server = await startOwnServer(dialect);
        onTestFinished(() => server.end());
        const first = await dialect.connect(server.url);
        await first.query(`set global max_allowed_packet = ${PACKET}`);
        await first.end();
        const raw = await dialect.connect(server.url);
        onTestFinished(() => raw.end().catch(() => {}));
        const store = openStore({ url: server.url });
        await store.initialize();

        for (const distributed of [true, false]) {
          const job = (batches) =>
            makeJob(batches, { id: `j${batches}`, distributed, config: { batchSize: 10, text: 'x'.repeat(50_000) } });
          let [fits, refused] = [1, 20_000];
          while (refused - fits > 1) {
            const middle = Math.floor((fits + refused) / 2);
            const { id } = job(middle);
            const error = await store.saveJobState(job(middle)).then(
              () => undefined,
              (reason) => reason,
            );
            if (error) {
              expect(error).toMatchObject({
                code: 'VALUE_TOO_LONG',
                retryable: false,
                message: expect.stringContaining('max_allowed_packet'),
              });
              expect(error.message).toContain(String(PACKET));
              expect(error.message).toContain(id);
              expect(await store.getJobState(id)).toBeNull();
              refused = middle;
            } else {
              if (middle < refused - 1) await store.deleteJob(id);
              fits = middle;
            }
          }
          await rejection(store.saveJobState(job(refused)), 'VALUE_TOO_LONG');

          const { id } = job(fits);
          await store.saveJobState(job(fits));
          // The server has the room, but for what each batch may grow.
          expect(fits).toBeGreaterThan(3_000);
          if (distributed) {
            await claim(store, id, 'w'.repeat(128));
            // As large as its states can be.
            await raw.query(
              `update "batchactions_batches" set "status" = 'COMPLETED', "processedCount" = -2147483648, "failedCount" = -2147483648 where "jobId" = ?`,
              [id],
            );
            expect(await store.tryFinalizeJob(id)).toBe(true);
            const { status, batches } = await store.getJobState(id);
            expect(status).toBe('COMPLETED');
            expect(batches).toHaveLength(fits);
            const [{ text }] = await raw.query('select "batches" as "text" from "batchactions_jobs" where "id" = ?', [id]);
            expect(JSON.parse(text).every((batch) => batch.processedCount === -2147483648)).toBe(true);
            // And saved again as it is now.
            await store.saveJobState({ ...job(fits), status: 'COMPLETED', completedAt: 1_800_000_000_000 });
          } else {
            const [last] = job(fits).batches.slice(-1);
            await store.updateBatchState(id, last.id, makeState(last.id, 'PROCESSING', 2_147_483_647, 2_147_483_647));
            const { batches } = await store.getJobState(id);
            expect(batches.at(-1)).toMatchObject({ status: 'PROCESSING', failedCount: 2_147_483_647 });
          }
        }
        await store.close();
      },
    );
  });
}
