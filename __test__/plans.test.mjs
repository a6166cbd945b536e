// A worker's calls for a batch cost no more in a job of more batches: the plans of their statements over a job of 20,000 batches. So do the calls of a page that
// shows the job.
//
// The statements have names, by which the addon with hooks for tests tells the text that it sent last; so what is explained is what the store sends. A plan
// fails where it sorts, or where it reads more rows than a few: as the database counts them, not as it guesses. The table is explained as it is after the
// job was stored, when no statistics know the job, and again with statistics.
//
// PRINT_PLANS=1 prints the plans.

import { beforeAll, describe, expect } from 'vitest';
import { makeJob, makeState } from './support/fixtures.mjs';
import { claim, complete, onEveryDatabase, sleep } from './support/suite.mjs';
import { SqlxStateStore, hooks } from './support/test-hooks.mjs';

const batches = 20_000;
/** Rows that a statement may look at: those that other workers hold, and their neighbours. */
const few = 60;

const SORTS = /\bSort\b|filesort|TEMP B-TREE|temporary/i;
onEveryDatabase((on) => {
  describe('in the middle of a job of 20,000 batches', () => {
    const { dialect } = on;
    const job = makeJob(batches);
    let connection;
    let held;
    let open;

    const prepared = async () => {
      if (connection) return;
      // Two SQLite libraries in one process must not have one file open.
      await on.store.close();
      const store = new SqlxStateStore(on.url, { connectTimeoutMs: 60_000 });
      await store.saveJobState(job);
      // A tenth is done, by the store's own calls; some are held.
      await Promise.all(
        Array.from({ length: 16 }, async () => {
          for (let n = 0; n < batches / 160; n++) await complete(store, job.id, (await claim(store, job.id)).batchId);
        }),
      );
      held = [];
      for (let n = 0; n < 16; n++) held.push(await claim(store, job.id, 'worker'));
      // Every statement is sent at least once: the rest of them by these calls.
      await runTheOthers(store);
      await runTheOverview(store);
      await store.close();
      connection = await on.own.connect();
      await dialect.prepareToExplain(connection, hooks.statementText);
    };
    if (on.has('raw')) beforeAll(prepared);

    async function runTheOthers(store) {
      const { batchId } = await claim(store, job.id, 'worker');
      await store.renewBatch(job.id, batchId, 'worker');
      await store.releaseBatch(job.id, batchId, 'worker');
      await store.updateBatchState(job.id, 'missing', makeState('missing', 'COMPLETED'));
      await claim(store, job.id, 'stale');
      expect(await store.reclaimStaleBatches(job.id, 900_000)).toBe(0);
      expect(await store.tryFinalizeJob(job.id)).toBe(false);
      // A job of its own, so that the batches of the large one stay as they are: there, one is stale, and none is left to claim.
      const small = makeJob(1);
      await store.saveJobState(small);
      await claim(store, small.id);
      await sleep(5);
      expect(await store.reclaimStaleBatches(small.id, 1)).toBe(1);
      await claim(store, small.id);
      expect((await store.claimBatch(small.id, 'worker')).reason).toBe('NO_PENDING_BATCHES');
    }

    async function runTheOverview(store) {
      // Another job, of which nothing is counted.
      await store.saveJobState(makeJob(2_000, { status: 'ABORTED' }));
      await store.getJob(job.id);
      expect(await store.batches(job.id, { status: 'PROCESSING' })).toHaveLength(held.length + 1);
      expect(await store.batches(job.id, { status: 'PENDING', limit: 20, after: 15_000 })).toHaveLength(20);
      open = (await store.stats()).batches;
      expect(await store.getDistributedStatus(job.id)).toMatchObject({ totalBatches: batches });
      await store.getProgress(job.id);
    }

    /** What stands for each placeholder, by the statement's name; positional ones repeat. */
    const values = () => {
      const last = held.at(-1);
      const from = last.batchIndex + 1;
      const [minutes, any] = [900_000, null];
      const change = [job.id, last.batchId, 'worker', any];
      const mysqlChange = [last.batchId, job.id, 'worker', any, any];
      if (dialect.numbersValues) {
        return {
          claim: [job.id, 'worker', from],
          set_batch_state: [job.id, last.batchId, 'COMPLETED', 10, 0, any, false],
          // One that has no row, so that it looks on.
          set_unclaimed_batch_state: [job.id, 'missing', 'COMPLETED', 10, 0, 'missing', false],
          list_snapshot: [job.id, 'missing'],
          release: change,
          renew: [...change, true],
          claim_snapshot: [job.id],
          reclaim_snapshot: [job.id, minutes, from],
          has_open_batch: [job.id, from],
          reclaim: [job.id, minutes, any],
          reclaim_select: [job.id, minutes, any],
        };
      }
      return {
        claim_select: [job.id, job.id, from, job.id],
        claim_update: ['worker', 1, last.batchId, job.id],
        set_batch_state: ['COMPLETED', 10, 0, last.batchId, job.id, any, any, false],
        list_snapshot: [job.id, 'missing', job.id],
        release: mysqlChange,
        renew: [last.batchId, job.id, true, 'worker', any, any],
        claim_snapshot: [job.id, job.id, job.id],
        reclaim_snapshot_next: [job.id, minutes, job.id, from],
        reclaim_snapshot_rest: [job.id, job.id],
        has_open_batch: [job.id, from, job.id],
        reclaim_select: [1, job.id, minutes],
      };
    };
    const names = dialect.plannedStatements;

    const checkPlans = async (name, given, { most = few, sorts = false, has = /(?:)/ } = {}) => {
      const text = hooks.statementText(name);
      expect(text, `the store sent a statement named ${name}`).toBeTypeOf('string');
      for (const plan of await dialect.explain(connection, text, given)) {
        if (process.env.PRINT_PLANS) console.log(`## ${on.database.name}: ${name}\n${plan.text}\n`);
        if (!sorts) expect(plan.text).not.toMatch(SORTS);
        expect(plan.text).not.toMatch(dialect.scan);
        expect(plan.text).toMatch(has);
        expect(plan.text).not.toContain('JIT');
        expect(plan.rows, plan.text).toBeLessThanOrEqual(most);
      }
    };

    // The batches that a reclaim takes are sorted, so that they are locked in order: these few, and no other.
    const check = (name) => checkPlans(name, values()[name], { sorts: name === 'reclaim' || name === 'reclaim_select' });

    // What a page or a scrape asks for every few seconds.

    const five = (status) => Array(5).fill(status);
    const page = (after, status) => [job.id, after, ...(dialect.numbersValues ? [] : [status]), ...five(status), 20];
    const frequent = (status, most = 1_000) =>
      dialect.numbersValues ? [job.id, ...five(status), most] : [most, job.id, ...five(status), most + 1];
    const overview = [
      ['getJob looks at a few rows', () => checkPlans('job_row', [job.id])],
      ['a page of batches looks at its rows', () => checkPlans('batch_page', page(9_000, null))],
      ['a page of batches of a frequent status looks at its rows', () => checkPlans('batch_page', page(9_000, 'PENDING'))],
      [
        'a page of batches of a rare status looks at the batches of that status',
        async () => {
          await checkPlans('has_frequent_status', frequent('PROCESSING'), { has: dialect.readsStatusIndex });
          await checkPlans('batch_page_by_status', [job.id, -1, ...five('PROCESSING'), 20], {
            sorts: true,
            has: /batchactions_batches_job_id_status/,
          });
        },
      ],
      [
        'whether a status is frequent looks at no more batches than count',
        // MySQL and MariaDB collect them first.
        () => checkPlans('has_frequent_status', frequent('PENDING', 1_000), { has: dialect.readsStatusIndex, most: 2 * 1_001 + few }),
      ],
      [
        'stats looks at the open batches of jobs that are not final, and counts them in their index',
        () => checkPlans('stats', [], { sorts: true, has: dialect.readsStatusIndex, most: open.PENDING + 2 * open.PROCESSING + few }),
      ],
      // Each batch, or record, is counted where the index has it.
      [
        'getDistributedStatus counts the batches in their index',
        () => checkPlans('batch_counts', [job.id], { has: /batchactions_batches_job_id_status/, most: batches + few }),
      ],
      [
        'getProgress counts the records in their index',
        () => checkPlans('record_counts', [job.id], { has: /batchactions_records_job_id_status/ }),
      ],
    ];

    const checks = [...names.map((name) => [`${name} looks at a few rows`, () => check(name)]), ...overview];
    for (const [title, body] of checks) on.needs('raw')(title, body);

    for (const [title, body] of checks) {
      on.needs('raw')(`${title} once the table is analyzed`, async () => {
        await connection.query(dialect.analyze);
        await body();
      });
    }
  });
});
