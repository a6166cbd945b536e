// Guarantees of what an operator looks at: `getJob`, `batches`, `stats`, `ping` and `poolStats`.

import { describe, expect, onTestFinished, test } from 'vitest';
import { BATCH_STATUSES, JOB_STATUSES, makeBatch, makeJob, makeLocalJob, makeState, newId, without } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, rejection, SqlxStateStore, urlThrough } from '../support/suite.mjs';

/** A batch as `batches` gives it before anything happens to it. */
const summary = (batch) => without(batch, 'records');

onEveryDatabase((on) => {
  describe('getJob', () => {
    test('gives what listJobs gives of the job, without the batches', async () => {
      for (const job of [
        makeJob(3, { config: { batchSize: 10, tenant: 'Ž', schema: { fields: [{ name: 'a', type: 'string', required: true }] } } }),
        makeLocalJob(2, { startedAt: undefined }),
        makeJob(1, { status: 'FAILED', completedAt: 1_700_000_001_000 }),
      ]) {
        await on.store.saveJobState(job);
        const found = await on.store.getJob(job.id);
        expect(found).toStrictEqual(without(job, 'batches'));
        expect(found).not.toHaveProperty('batches');
        expect((await on.store.listJobs({ limit: 1_000 })).find(({ id }) => id === job.id)).toStrictEqual(found);
      }
    });

    test('gives null for an unknown job', async () => {
      expect(await on.store.getJob('unknown')).toBeNull();
    });

    test('shows the job as it was saved last, also where the save is queued', async () => {
      const store = await on.open({ durability: 'batch' });
      const job = makeLocalJob(1);
      for (let n = 0; n < 20; n++) {
        void store.saveJobState({ ...job, totalRecords: n });
        expect(await store.getJob(job.id)).toMatchObject({ totalRecords: n });
      }
    });

    on.needs('raw')('does not read the list of the batches', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      // Not a list, so that its reader notices.
      await on.query(`update "batchactions_jobs" set "batches" = '{"not":"a list"}' where "id" = ?`, [job.id]);
      await rejection(on.store.getJobState(job.id), 'TABLES_INCOMPATIBLE');
      expect(await on.store.getJob(job.id)).toStrictEqual(without(job, 'batches'));
    });
  });

  describe('batches', () => {
    const indexes = (page) => page.map(({ index }) => index);

    /** All pages of this length, one after the other. */
    const pages = async (store, jobId, options) => {
      const all = [];
      for (
        let page = await store.batches(jobId, options);
        page.length > 0;
        page = await store.batches(jobId, { ...options, after: page.at(-1).index })
      )
        all.push(page);
      return all;
    };

    /** 12 batches, of each status some, in a list that is not in the order of the indexes; and what is in the list of them. */
    const mixed = (fields) => {
      const id = newId();
      const batches = Array.from({ length: 12 }, (_, n) =>
        makeBatch(id, (n * 5) % 12, { status: BATCH_STATUSES[n % 5], processedCount: n, failedCount: n % 2 }),
      );
      return makeJob(0, { id, batches, ...fields });
    };
    const byIndex = (job) => job.batches.toSorted((a, b) => a.index - b.index).map(summary);

    // Of the first its rows are read, of the second its list.
    const kinds = [
      ['a distributed job', (fields) => mixed(fields)],
      ['a local job', (fields) => mixed({ distributed: undefined, ...fields })],
    ];

    test.each(kinds)('of %s are given by index, page by page, each once', async (_, make) => {
      const job = make();
      // A batch that is PROCESSING and has no holder would be claimable again.
      for (const batch of job.batches)
        if (batch.status === 'PROCESSING') Object.assign(batch, { workerId: 'w', claimedAt: 1_700_000_000_000 });
      await on.store.saveJobState(job);
      const due = job.distributed ? byIndex(job) : byIndex(job).map((batch) => without(batch, 'workerId', 'claimedAt'));
      expect(await on.store.batches(job.id)).toStrictEqual(due);
      expect(await on.store.batches(job.id, {})).toStrictEqual(due);
      expect(await on.store.batches(job.id, { status: undefined, limit: undefined, after: undefined })).toStrictEqual(due);
      for (const limit of [1, 5, 6, 11, 12, 13]) {
        const found = await pages(on.store, job.id, { limit });
        expect(found.map(({ length }) => length)).toEqual(
          Array.from({ length: Math.ceil(12 / limit) }, (_item, n) => Math.min(limit, 12 - n * limit)),
        );
        expect(found.flat()).toStrictEqual(due);
      }
      expect(indexes(await on.store.batches(job.id, { after: -1, limit: 2 }))).toEqual([0, 1]);
      expect(indexes(await on.store.batches(job.id, { after: 9 }))).toEqual([10, 11]);
      expect(await on.store.batches(job.id, { after: 11 })).toEqual([]);
      expect(await on.store.batches(job.id, { after: 2_147_483_647 })).toEqual([]);
    });

    test.each(kinds)('of %s are selected by one status or several', async (_, make) => {
      const job = make();
      for (const batch of job.batches) if (batch.status === 'PROCESSING') Object.assign(batch, { workerId: 'w' });
      await on.store.saveJobState(job);
      const due = byIndex(job).map((batch) => (job.distributed ? batch : without(batch, 'workerId')));
      for (const status of [...BATCH_STATUSES, ['PENDING'], ['FAILED', 'PAUSED'], ['PENDING', 'PENDING'], BATCH_STATUSES]) {
        const selected = due.filter((batch) => [status].flat().includes(batch.status));
        expect(await on.store.batches(job.id, { status })).toStrictEqual(selected);
        expect((await pages(on.store, job.id, { status, limit: 1 })).flat()).toStrictEqual(selected);
      }
      await on.store.saveJobState({ ...makeJob(3), id: newId(), distributed: job.distributed ?? false });
      expect(await on.store.batches(job.id, { status: 'PENDING', after: 11 })).toEqual([]);
    });

    test('are 100 where no limit is given, and up to 1,000', async () => {
      for (const job of [makeJob(1_010, { size: 1 }), makeLocalJob(1_010, { size: 1 })]) {
        await on.store.saveJobState(job);
        expect(indexes(await on.store.batches(job.id))).toEqual(Array.from({ length: 100 }, (_, n) => n));
        expect(indexes(await on.store.batches(job.id, { limit: 1_000, after: 4 }))).toEqual(Array.from({ length: 1_000 }, (_, n) => n + 5));
      }
    });

    test('of a status that more than 1,000 have are the same, and so are those of a status that few have', async () => {
      const job = makeJob(1_100, { size: 1 });
      for (const batch of job.batches) if (batch.index % 11 === 7) batch.status = 'COMPLETED';
      // Exactly as many as are still counted as few, then one more.
      const many = job.batches.filter(({ status }) => status === 'PENDING');
      expect(many).toHaveLength(1_000);
      await on.store.saveJobState(job);
      const check = async (statuses) => {
        const due = job.batches.filter(({ status }) => statuses.includes(status)).map(summary);
        const found = await pages(on.store, job.id, { status: statuses, limit: 400 });
        expect(found.flat()).toStrictEqual(due);
      };
      await check(['PENDING']);
      await check(['COMPLETED']);
      await check(['COMPLETED', 'PENDING']);
      const { id } = job.batches[7];
      await on.store.updateBatchState(job.id, id, makeState(id, 'PENDING'));
      job.batches[7].status = 'PENDING';
      await check(['PENDING']);
    });

    test('have their holder and the time of the claim, and keep them when they are done', async () => {
      const job = makeJob(3);
      await on.store.saveJobState(job);
      const first = await claim(on.store, job.id, 'ann');
      const second = await claim(on.store, job.id, 'bob');
      await complete(on.store, job.id, first.batchId);
      const due = [
        { ...summary(job.batches[0]), status: 'COMPLETED', processedCount: 10, workerId: 'ann', claimedAt: first.claimedAt },
        { ...summary(job.batches[1]), status: 'PROCESSING', workerId: 'bob', claimedAt: second.claimedAt },
        summary(job.batches[2]),
      ];
      expect(await on.store.batches(job.id)).toStrictEqual(due);
      expect(await on.store.batches(job.id, { status: 'PROCESSING' })).toStrictEqual([due[1]]);
      await on.store.releaseBatch(job.id, second.batchId, 'bob');
      expect((await on.store.batches(job.id))[1]).toStrictEqual(summary(job.batches[1]));
      // As getJobState shows them.
      expect((await on.store.getJobState(job.id)).batches.map(summary)).toStrictEqual(await on.store.batches(job.id));
    });

    test('of an unknown job are none', async () => {
      expect(await on.store.batches('unknown')).toEqual([]);
      expect(await on.store.batches('unknown', { status: 'FAILED', limit: 1, after: 7 })).toEqual([]);
    });

    test('of a job without any are none', async () => {
      for (const job of [makeJob(0), makeLocalJob(0)]) {
        await on.store.saveJobState(job);
        expect(await on.store.batches(job.id)).toEqual([]);
      }
    });

    test('of a local job keep the keys that they have, and have none that they lack', async () => {
      const job = makeLocalJob(2);
      job.batches = job.batches.map((batch) => without(batch, 'recordStartIndex', 'recordEndIndex'));
      await on.store.saveJobState(job);
      expect(await on.store.batches(job.id)).toStrictEqual(job.batches.map(summary));
    });

    test('show states that are queued', async () => {
      const store = await on.open({ durability: 'batch' });
      const job = makeLocalJob(3);
      void store.saveJobState(job);
      const { id } = job.batches[1];
      for (let n = 0; n < 20; n++) {
        void store.updateBatchState(job.id, id, makeState(id, n % 2 ? 'PROCESSING' : 'COMPLETED', n, 0));
        const found = await store.batches(job.id, { status: n % 2 ? 'PROCESSING' : 'COMPLETED' });
        expect(found).toStrictEqual([{ ...summary(job.batches[1]), status: n % 2 ? 'PROCESSING' : 'COMPLETED', processedCount: n }]);
      }
    });

    on.needs('raw')('of a distributed job that another adapter prepared are those of its list, and none gets a row by that', async () => {
      const job = makeJob(3);
      await on.query(
        `insert into "batchactions_jobs" ("id", "status", "config", "batches", "totalRecords", "startedAt", "completedAt", "distributed")
         values (?, 'PROCESSING', ?, ?, 30, null, null, ?)`,
        [job.id, JSON.stringify(job.config), JSON.stringify(job.batches), true],
      );
      expect(await on.store.batches(job.id)).toStrictEqual(job.batches.map(summary));
      expect(await on.store.batches(job.id, { after: 0, limit: 1, status: 'PENDING' })).toStrictEqual([summary(job.batches[1])]);
      expect(await on.rows(job.id)).toEqual([]);
      // From the first claim on, they have rows.
      const { claimedAt } = await claim(on.store, job.id, 'w');
      expect(await on.store.batches(job.id, { limit: 1 })).toStrictEqual([
        { ...summary(job.batches[0]), status: 'PROCESSING', workerId: 'w', claimedAt },
      ]);
    });

    on.needs('raw')('of a distributed job are read without its list', async () => {
      const job = makeJob(2);
      await on.store.saveJobState(job);
      await on.query(`update "batchactions_jobs" set "batches" = '{"not":"a list"}' where "id" = ?`, [job.id]);
      expect(await on.store.batches(job.id)).toStrictEqual(job.batches.map(summary));
      expect(await on.store.batches(job.id, { status: 'PENDING', after: 0 })).toStrictEqual([summary(job.batches[1])]);
    });

    on.needs('raw')('of a job whose row is gone are none, whatever rows they have', async () => {
      const job = makeJob(2);
      await on.store.saveJobState(job);
      await on.query('delete from "batchactions_jobs" where "id" = ?', [job.id]);
      expect(await on.store.batches(job.id)).toEqual([]);
    });
  });

  describe('stats', () => {
    /** A store on a database without any job. */
    const alone = async (options) => {
      const own = await on.createEmpty();
      const store = new SqlxStateStore(own.url, { connectTimeoutMs: 60_000, ...options });
      onTestFinished(() => store.close());
      await store.initialize();
      return { own, store };
    };
    const counts = (names, counted) => Object.fromEntries(names.map((name) => [name, counted[name] ?? 0]));
    const stats = (jobs, { PENDING = 0, PROCESSING = 0, PAUSED = 0 } = {}) => ({
      jobs: counts(JOB_STATUSES, jobs),
      batches: { PENDING, PROCESSING, PAUSED },
    });

    test('has a zero for every status where there is nothing', async () => {
      const { store } = await alone();
      expect(await store.stats()).toStrictEqual(stats({}));
    });

    test('counts all jobs by status, and the open batches of distributed jobs that are not final', async () => {
      const { store } = await alone();
      for (const [n, status] of JOB_STATUSES.entries()) {
        for (let times = 0; times <= n; times++) await store.saveJobState(makeLocalJob(2, { status }));
      }
      const due = Object.fromEntries(JOB_STATUSES.map((status, n) => [status, n + 1]));
      expect(await store.stats()).toStrictEqual(stats(due));

      // One of each status, with one open batch and one that is done; only those that are not final count.
      for (const [n, status] of JOB_STATUSES.entries()) {
        const job = makeJob(2, { status });
        Object.assign(job.batches[0], { status: ['PENDING', 'PAUSED'][n % 2] });
        Object.assign(job.batches[1], { status: ['COMPLETED', 'FAILED'][n % 2] });
        await store.saveJobState(job);
        due[status]++;
      }
      const unfinished = JOB_STATUSES.map((status, n) => [status, n]).filter(
        ([status]) => !['COMPLETED', 'ABORTED', 'FAILED'].includes(status),
      );
      const PENDING = unfinished.filter(([, n]) => n % 2 === 0).length;
      expect(await store.stats()).toStrictEqual(stats(due, { PENDING, PAUSED: unfinished.length - PENDING }));
    });

    test('follows claims, completions and the end of the job', async () => {
      const { store } = await alone();
      const [job, other] = [makeJob(3), makeJob(1)];
      await store.saveJobState(job);
      await store.saveJobState(other);
      const jobs = { PROCESSING: 2 };
      expect(await store.stats()).toStrictEqual(stats(jobs, { PENDING: 4 }));
      for (let n = 0; n < 3; n++) {
        const { batchId } = await claim(store, job.id);
        const { oldestClaimMs, ...rest } = await store.stats();
        expect(rest).toStrictEqual(stats(jobs, { PENDING: 3 - n, PROCESSING: 1 }));
        expect(oldestClaimMs).toBeGreaterThanOrEqual(0);
        expect(oldestClaimMs).toBeLessThan(3_600_000);
        await complete(store, job.id, batchId);
        // Absent where nothing is claimed.
        expect(await store.stats()).toStrictEqual(stats(jobs, { PENDING: 3 - n }));
      }
      expect(await store.tryFinalizeJob(job.id)).toBe(true);
      expect(await store.stats()).toStrictEqual(stats({ PROCESSING: 1, COMPLETED: 1 }, { PENDING: 1 }));
    });

    on.needs('raw')('tells the age of the oldest claim on a batch that is still open, by the database’s clock', async () => {
      const { own, store } = await alone();
      const [job, other, local, final] = [makeJob(4), makeJob(2), makeLocalJob(0), makeJob(1)];
      for (const each of [job, other, local, final]) await store.saveJobState(each);
      const age = (jobId, batchId, ms) =>
        own.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - ? where "jobId" = ? and "id" = ?', [ms, jobId, batchId]);
      const HOUR = 3_600_000;
      const claimed = [];
      for (let n = 0; n < 3; n++) claimed.push(await claim(store, job.id));
      const held = await claim(store, other.id);
      await age(job.id, claimed[0].batchId, 9 * HOUR);
      await age(job.id, claimed[1].batchId, 5 * HOUR);
      await age(other.id, held.batchId, 2 * HOUR);
      const hours = async () => Math.floor((await store.stats()).oldestClaimMs / HOUR);
      expect(await hours()).toBe(9);
      // A batch that is done holds no worker any more; one that is PAUSED does.
      await complete(store, job.id, claimed[0].batchId);
      expect(await hours()).toBe(5);
      await store.updateBatchState(job.id, claimed[1].batchId, makeState(claimed[1].batchId, 'PAUSED'));
      expect(await hours()).toBe(5);
      await store.saveJobState({ ...job, status: 'ABORTED' });
      expect(await hours()).toBe(2);

      // By the database's clock, and never negative where that has been set back.
      await age(other.id, held.batchId, -20 * HOUR);
      expect((await store.stats()).oldestClaimMs).toBe(0);
      // A claim whose time is unknown has no age.
      await own.query('update "batchactions_batches" set "claimedAt" = null');
      expect(await store.stats()).not.toHaveProperty('oldestClaimMs');
    });

    on.needs('raw')('leaves out what it does not know, and goes on', async () => {
      const { own, store } = await alone();
      const [job, local] = [makeJob(4), makeLocalJob(2)];
      await store.saveJobState(job);
      await store.saveJobState(local);
      // A status of another program's is not final, and none of ours.
      await own.query(`update "batchactions_jobs" set "status" = 'QUEUED' where "id" = ?`, [job.id]);
      await own.query(`update "batchactions_batches" set "status" = 'SKIPPED' where "batchIndex" = 1`);
      expect(await store.stats()).toStrictEqual(stats({ PROCESSING: 1 }, { PENDING: 3 }));
      // Rows of a job that is not there, or not distributed.
      await own.query(`update "batchactions_batches" set "jobId" = 'gone' where "batchIndex" = 2`);
      await own.query('update "batchactions_batches" set "jobId" = ? where "batchIndex" = 3', [local.id]);
      expect(await store.stats()).toStrictEqual(stats({ PROCESSING: 1 }, { PENDING: 1 }));
    });

    test('counts jobs whose saves are queued', async () => {
      const { store } = await alone({ durability: 'batch' });
      const job = makeLocalJob(1);
      void store.saveJobState(job);
      expect(await store.stats()).toStrictEqual(stats({ PROCESSING: 1 }));
    });
  });

  describe('ping', () => {
    test('says which database is there, and how far away', async () => {
      const { latencyMs, clockSkewMs, ...server } = await on.store.ping();
      expect(server).toEqual({ database: on.dialect.label, version: expect.stringMatching(/^\d+\.\d+\S*$/) });
      expect(latencyMs).toBeGreaterThan(0);
      expect(latencyMs).toBeLessThan(60_000);
      // To the microsecond.
      expect(Math.round(latencyMs * 1_000) / 1_000).toBe(latencyMs);
      // Both clocks are this machine's, and the database's has whole milliseconds.
      expect(Number.isInteger(clockSkewMs)).toBe(true);
      expect(Math.abs(clockSkewMs)).toBeLessThanOrEqual(latencyMs / 2 + 5);
    });

    test('needs no tables, and creates none', async () => {
      const empty = await on.createEmpty();
      const store = new SqlxStateStore(empty.url, { connectTimeoutMs: 60_000 });
      onTestFinished(() => store.close());
      expect(await store.ping()).toMatchObject({ database: on.dialect.label });
      await rejection(store.listJobs(), 'TABLES_MISSING');
      await store.initialize();
      expect(await store.listJobs()).toEqual([]);
      expect(await store.ping()).toMatchObject({ database: on.dialect.label });
    });

    on.needs('server')('rejects where nothing answers', async () => {
      const store = new SqlxStateStore(urlThrough(1, on.url), { connectTimeoutMs: 2_000 });
      onTestFinished(() => store.close());
      await rejection(store.ping(), 'CONNECTION_FAILED');
    });

    test('rejects on a closed store', async () => {
      const store = new SqlxStateStore(on.url);
      await store.close();
      await rejection(store.ping(), 'CLOSED');
    });
  });

  describe('poolStats', () => {
    test('counts connections that are used and those that are idle', async () => {
      const store = await on.open({ pool: { max: 3 } });
      const { max } = store.poolStats();
      // A file has one connection that writes, beside those that read. In memory, one connection is the database.
      expect(max).toBe(on.has('memory') ? 1 : on.has('server') ? 3 : 4);
      // A store that was opened has a connection, which no call uses.
      const { idle } = store.poolStats();
      expect(store.poolStats()).toStrictEqual({ used: 0, idle, pending: 0, max });
      expect(idle).toBeGreaterThan(0);
      expect(idle).toBeLessThanOrEqual(max);
    });

    test('counts nothing before the first call and after the store is closed', async () => {
      const store = new SqlxStateStore(on.url, { pool: { max: 2 } });
      const before = store.poolStats();
      expect(before).toStrictEqual({ used: 0, idle: 0, pending: 0, max: before.max });
      await store.ping();
      expect(store.poolStats()).toStrictEqual({ used: 0, idle: 1, pending: 0, max: before.max });
      await store.close();
      expect(store.poolStats()).toStrictEqual(before);
      await store.close();
      expect(store.poolStats()).toStrictEqual(before);
    });

    on.needs('rowLocks')('counts the calls that wait for a connection', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const store = await on.open({ pool: { max: 1 } });
      const holder = await on.lockRows('batches', '"jobId" = ?', [job.id]);
      const { id } = job.batches[0];
      // The first call holds the one connection while it waits for the row.
      const held = store.updateBatchState(job.id, id, makeState(id, 'COMPLETED'));
      await expect.poll(() => store.poolStats(), { timeout: 60_000 }).toStrictEqual({ used: 1, idle: 0, pending: 0, max: 1 });
      const waiting = [store.getJob(job.id), store.getJob(job.id), store.ping()];
      await expect.poll(() => store.poolStats(), { timeout: 60_000 }).toStrictEqual({ used: 1, idle: 0, pending: 3, max: 1 });
      await holder.query('rollback');
      await Promise.all([held, ...waiting]);
      expect(store.poolStats()).toStrictEqual({ used: 0, idle: 1, pending: 0, max: 1 });
    });

    on.needs('!rowLocks', 'raw')('counts the writes that wait for the one connection that writes', async () => {
      const job = makeJob(1);
      await on.store.saveJobState(job);
      const store = await on.open({ pool: { max: 2 } });
      const { max } = store.poolStats();
      const holder = await on.begin();
      const { id } = job.batches[0];
      const writes = Array.from({ length: 3 }, (_, n) =>
        store.saveBatchRecords(`${job.id}.${n}`, id, [{ index: 0, raw: {}, parsed: {}, status: 'valid', errors: [] }]),
      );
      await expect.poll(() => store.poolStats(), { timeout: 60_000 }).toMatchObject({ used: 1, pending: 2, max });
      await holder.query('rollback');
      await Promise.all(writes);
      expect(store.poolStats()).toMatchObject({ used: 0, pending: 0, max });
    });

    test('throws a StateStoreError where it is called on something that is no store', () => {
      const { poolStats } = on.store;
      for (const store of [undefined, null, {}, SqlxStateStore]) {
        expect(() => poolStats.call(store)).toThrow(
          expect.objectContaining({ name: 'StateStoreError', code: 'INVALID_ARGUMENT', message: expect.stringContaining('poolStats') }),
        );
      }
    });
  });
});
