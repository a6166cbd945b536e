// What happens when something outside gets in the way: a row that another transaction has locked, a full disk, a database with other collations, a late
// worker. A call takes effect or it does not, and one claim's trouble is not another's.

import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { INDEX } from '../support/run-node.mjs';
import { startSlowProxy } from '../support/servers.mjs';
import { storeOn } from '../support/store.mjs';
import { makeJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import { claim, collect, complete, onEveryDatabase, rejection, urlThrough } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const saved = async (store, batches) => {
    const job = makeJob(batches);
    await store.saveJobState(job);
    return job;
  };

  describe('a job row that another transaction has locked', () => {
    on.needs('rowLocks')('costs no claim and no completion: the copy in the job’s row is brought up to date later', async () => {
      const store = await on.open({ statementTimeoutMs: 5_000 });
      const job = await saved(on.store, 3);
      const other = await on.lockRows('jobs', '"id" = ?', [job.id]);
      const held = await claim(store, job.id);
      await complete(store, job.id, held.batchId);
      expect((await on.row(held.batchId)).status).toBe('COMPLETED');
      expect(await on.behind(job.id)).toEqual([0]);
      await other.query('rollback');
      await claim(store, job.id);
      expect(await on.behind(job.id)).toEqual([]);
    });
  });

  describe('renewal', () => {
    const options = { leaseRenewal: { everyMs: 100, forMs: 30_000 } };
    const claimedAt = async (batchId) => (await on.row(batchId)).claimedAt;
    const renewed = async (batchId) => {
      const before = await claimedAt(batchId);
      await expect.poll(() => claimedAt(batchId), { timeout: 10_000 }).toBeGreaterThan(before);
    };

    on.needs('raw')('goes on for the present holder when a late one learns that it lost its claim', async () => {
      const store = await on.open(options);
      const job = await saved(store, 1);
      const late = await claim(store, job.id, 'late');
      await store.releaseBatch(job.id, late.batchId, 'late');
      const present = await claim(store, job.id, 'present');
      await rejection(store.updateBatchState(job.id, late.batchId, makeState(late.batchId, 'FAILED'), { token: late.token }), 'LEASE_LOST');
      await renewed(present.batchId);
    });

    on.needs('rowLocks')('of one batch that another transaction has locked does not cost the others', async () => {
      const store = await on.open(options);
      const job = await saved(store, 3);
      const held = [await claim(store, job.id), await claim(store, job.id), await claim(store, job.id)];
      const other = await on.lockRows('batches', '"id" = ?', [held[0].batchId]);
      await renewed(held[1].batchId);
      await renewed(held[2].batchId);
      await other.query('rollback');
      await renewed(held[0].batchId);
    });

    on.needs('server')('whose rounds are shorter than the way to the server gets there, by few connections', async () => {
      const proxy = await startSlowProxy(on.address, 30);
      onTestFinished(() => proxy.close());
      // None is closed because it is idle, so that each that is new has a reason.
      const pool = { max: 5, idleTimeoutMs: 600_000 };
      const store = storeOn(urlThrough(proxy.port, on.url), { leaseRenewal: { everyMs: 10, forMs: 120_000 }, pool });
      onTestFinished(() => store.close());
      const job = await saved(store, 3);
      const held = [await claim(store, job.id), await claim(store, job.id), await claim(store, job.id)];
      for (let round = 0; round < 3; round++) for (const { batchId } of held) await renewed(batchId);
      // One a round would be dozens.
      expect(proxy.connections).toBeLessThanOrEqual(10);
    });
  });

  describe('saves that are under way together', () => {
    on.needs('rowLocks')('do not fail with one whose record another transaction has locked', async () => {
      const store = await on.open({ statementTimeoutMs: 10_000 });
      const [free, locked] = [newId(), newId()];
      await store.saveProcessedRecord(locked, 'b', makeRecord(0));
      const other = await on.lockRows('records', '"jobId" = ? and "recordIndex" = 0', [locked]);
      // The first write is under way while the others are queued, so that those go together.
      const first = store.saveProcessedRecord(free, 'b', makeRecord(0));
      const stuck = store.saveProcessedRecord(locked, 'b', makeRecord(0));
      const beside = store.saveProcessedRecord(free, 'b', makeRecord(1));
      const error = await rejection(stuck, 'CONFLICT');
      expect(error.retryable).toBe(true);
      await Promise.all([first, beside]);
      await other.query('rollback');
      expect(await collect(store.records(free))).toHaveLength(2);
    });
  });

  describe('records of a megabyte', () => {
    test('stream in pages that stay small', async () => {
      const id = newId();
      const raw = { text: 'x'.repeat(1 << 20) };
      for (let index = 0; index < 40; index++) await on.store.saveProcessedRecord(id, 'b', makeRecord(index, { raw }));
      const indexes = [];
      for await (const record of on.store.records(id)) {
        expect(record.raw.text.length).toBe(1 << 20);
        indexes.push(record.index);
      }
      expect(indexes).toEqual(Array.from({ length: 40 }, (_, index) => index));
    });
  });

  describe('a statement that takes longer than it may', () => {
    on.needs('memory')('costs nothing but itself: the database stays', async () => {
      const store = storeOn(on.url, { statementTimeoutMs: 100 });
      onTestFinished(() => store.close());
      const until = async (call) => {
        for (;;) {
          try {
            return await call();
          } catch (error) {
            expect(error).toMatchObject({ code: 'TIMEOUT', retryable: true });
          }
        }
      };
      await until(() => store.initialize());
      const kept = makeJob(2);
      await until(() => store.saveJobState(kept));
      await until(() => store.saveProcessedRecord(kept.id, kept.batches[0].id, makeRecord(0)));
      // Its list alone is 60 MB.
      const large = makeJob(300_000);
      const error = await rejection(store.saveJobState(large), 'TIMEOUT');
      expect(error.retryable).toBe(true);
      expect(error.message).not.toContain('dropped');
      expect(await until(() => store.getJobState(large.id))).toBeNull();
      expect(await until(() => store.getJobState(kept.id))).toStrictEqual(kept);
      expect(await until(() => store.getProcessedRecords(kept.id))).toHaveLength(1);
      await until(() => complete(store, kept.id, kept.batches[0].id));
      expect(await until(() => store.getDistributedStatus(kept.id))).toMatchObject({ completedBatches: 1 });
    });
  });

  describe('a database whose collation is a binary one', () => {
    on.needs('columnCharsets')('works like any other', async () => {
      const empty = await on.createEmpty();
      const name = new URL(empty.url).pathname.slice(1);
      await empty.query(`alter database "${name}" character set utf8mb4 collate utf8mb4_bin`);
      const store = storeOn(empty.url);
      await store.initialize();
      const job = await saved(store, 2);
      const held = await claim(store, job.id);
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(0, { status: 'failed', processingError: 'ü 😀' }));
      expect(await store.getFailedRecords(job.id)).toMatchObject([{ index: 0, processingError: 'ü 😀' }]);
      await complete(store, job.id, held.batchId);
      await store.releaseBatch(job.id, (await claim(store, job.id)).batchId, 'worker');
      expect(await store.reclaimStaleBatches(job.id, 60_000)).toBe(0);
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ completedBatches: 1, pendingBatches: 1 });
      expect((await store.getJobState(job.id)).batches.map(({ status }) => status)).toEqual(['COMPLETED', 'PENDING']);
      expect((await store.listJobs()).map(({ id }) => id)).toEqual([job.id]);
      await store.close();
    });
  });

  describe('a disk that is full', () => {
    // `ulimit -f` limits the size of a file that a process writes, which ends a commit like a full disk does.
    (process.platform === 'win32' ? on.exempt('there is no ulimit') : on.needs('file'))('costs only claims that say so', async () => {
      const job = await saved(on.store, 200);
      await sleep(0);
      const script = `
          const { SqlxStateStore } = require(${JSON.stringify(new URL(INDEX).pathname)});
          const store = new SqlxStateStore(${JSON.stringify(on.url)});
          (async () => {
            const claimed = [];
            for (let n = 0; n < 200; n++) {
              try {
                const result = await store.claimBatch(${JSON.stringify(job.id)}, 'worker-' + 'w'.repeat(100));
                claimed.push(result.reservation.batchIndex);
              } catch { break; }
            }
            process.stdout.write(JSON.stringify(claimed), () => process.exit(0));
          })();`;
      // In blocks of 1,024 bytes: room for some commits and not for all.
      const limited = `trap "" XFSZ; ulimit -f 600; exec "$0" -e "$1"`;
      const { stdout } = await promisify(execFile)('bash', ['-c', limited, process.execPath, script]);
      const claimed = JSON.parse(stdout);
      expect(claimed.length).toBeLessThan(200);
      const stored = (await on.rows(job.id)).filter(({ status }) => status === 'PROCESSING').map(({ batchIndex }) => batchIndex);
      expect(stored).toEqual(expect.arrayContaining(claimed));
    });
  });
});
