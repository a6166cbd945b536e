// Random sequences of calls on several stores, made on the reference model (model.mjs) and on each database: after every call the answers agree,
// and so does all that can be observed, row by row and through the methods.
//
//   npx vitest run model                     300 sequences of up to 60 calls on each database, from a seed that is new each time
//   MODEL_RUNS=5000 npx vitest run model     a longer run
//   MODEL_SEED=17 npx vitest run model       the same sequences again (and for as many MODEL_RUNS)
//   MODEL_SEED=19 MODEL_PATH=8:5:4 npx vitest run model -t 'sqlite-file.*record'
//                                            one failure again, as its report says
//   MODEL_MET=1 npx vitest run model         with how often the calls had which answer
//
// fast-check and not proptest, because what users call is the JavaScript surface: so the boundary, index.js included, is between the model and
// the database. Plain arrays of calls and not `fc.commands`, because each call makes sense in every state: a sequence can be cut anywhere, it prints
// as the calls that it stands for, and seed and path alone bring it back.
//
// Half as many sequences again are made with `durability: 'batch'`, on one store, because what another one sees of queued calls is not determined. What such
// calls leave is compared once a later call has waited for them, and at the end. There are more local jobs in these sequences, and calls that are
// made at once.
//
// On sqlite-memory there is one store, which the workers share, and nothing reaches its tables past it: no time goes by, no batch has gone stale too often, and no
// job comes from the incumbent. Stale claims come from the snapshots that `saveJobState` is given, and the state is what the methods show.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'vitest';
import { onEveryDatabase, SqlxStateStore } from '../support/suite.mjs';
import { sequences } from './operations.mjs';
import { Difference, Run } from './run.mjs';

const runs = Number(process.env.MODEL_RUNS ?? 300);
const { MODEL_PATH: path } = process.env;
const seed = Number(process.env.MODEL_SEED ?? Math.floor(Math.random() * 2 ** 31));
const MAX_LENGTH = 60;
/**
 * Sequences under way at once: a commit's wait for the disk is another one's time. Each in a database of its own, because a claim may pass over a
 * batch that is locked, and MariaDB and MySQL lock rows of other jobs beside those of the job that a call is about.
 */
const LANES = path ? 1 : 4;

/** What 300 sequences come to 15 times at least, each. Without it they would test less than they say. */
const DUE = [
  'abortJob: true',
  'abortJob: INVALID_ARGUMENT',
  'claimBatch: claimed',
  'claimBatch: JOB_NOT_FOUND',
  'claimBatch: JOB_NOT_PROCESSING',
  'claimBatch: NO_PENDING_BATCHES',
  'deleteJob: true',
  'pauseJob: true',
  'purge: done',
  'resumeJob: true',
  'retryFailed: nothing done',
  'reclaimStaleBatches: 1',
  'releaseBatch: done',
  'releaseBatch: LEASE_LOST',
  'renewBatch: true',
  'saveJobState: CONSTRAINT',
  'saveProcessedRecord: LEASE_LOST',
  'tryFinalizeJob: true',
  'updateBatchState: done',
  'updateBatchState: LEASE_LOST',
];
/** What half as many sequences with queued calls come to. */
const DUE_QUEUED = [
  'queued saveJobState: done',
  'queued saveJobState: nothing done',
  'queued updateBatchState: done',
  'queued updateBatchState: nothing done',
  'queued saveProcessedRecord: done',
  'queued saveProcessedRecord: nothing done',
  'queued readAndSave: ',
  'atOnce: all queued',
  'atOnce: some queued',
  'claimBatch: claimed',
  'updateBatchState: done',
  'updateBatchState: LEASE_LOST',
  'listJobs: ',
  'deleteJob: true',
];
/** Where there are several stores. */
const DUE_AT_ONCE = ['race: 0 of 3', 'race: 1 of 3', 'race: 2 of 3', 'race: 3 of 3'];
const DUE_IN_TIME = ['prepareAsIncumbent: done', 'reclaimStaleBatches: 0, the job', 'reclaimStaleBatches: 1, a batch FAILED'];

onEveryDatabase((on) => {
  const [raw, shared] = [on.has('raw'), on.has('shared')];
  const due = [...DUE, ...(raw ? DUE_IN_TIME : []), ...(shared ? DUE_AT_ONCE : [])];
  const settings = [
    { durability: 'record', stores: shared ? [{}, {}, { maxClaims: 2 }] : [{}], share: 1, due },
    { durability: 'batch', stores: [{ durability: 'batch' }], share: 2, due: DUE_QUEUED },
  ];

  test.each(settings)(
    `with durability $durability does what the model does, in sequences of calls`,
    { timeout: 120_000 + runs * 2_000 },
    async ({ durability, stores: options, share, due }) => {
      const met = new Map();
      const tell = (what) => met.set(what, (met.get(what) ?? 0) + 1);
      let failed;

      const lane = async (number) => {
        const own = await on.createEmpty();
        const stores = options.map((more) => new SqlxStateStore(own.url, more));
        const queues = durability === 'batch';
        const generated = sequences({ stores: stores.length, raw, queues, maxLength: MAX_LENGTH });
        const property = fc.asyncProperty(generated, async (operations) => {
          // One failure is enough, and gets the machine to itself.
          if (failed !== undefined && failed !== number) return;
          try {
            await new Run(own, raw, stores, options).run(operations, tell);
          } catch (error) {
            failed ??= number;
            if (failed === number) throw error;
          }
        });
        try {
          for (const store of stores) await store.initialize();
          return await fc.check(property, { seed: seed + number, path, numRuns: Math.ceil(runs / share / LANES) });
        } finally {
          for (const store of stores) await store.close();
        }
      };
      const results = await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
      if (failed !== undefined) assert.fail(report(results[failed], `${on.database.name}.*${durability}`, options));

      const calls = [...met.values()].reduce((sum, times) => sum + times, 0);
      console.log(`durability '${durability}': ${Math.ceil(runs / share)} sequences, ${calls} calls, MODEL_SEED=${seed}`);
      if (process.env.MODEL_MET)
        console.log(
          [...met]
            .map(([what, times]) => `${what}: ${times} times`)
            .sort()
            .join('\n'),
        );
      const missed = due.filter((kind) => ![...met.keys()].some((what) => what.startsWith(kind)));
      if (runs >= 300 && !path) assert.deepEqual(missed, [], 'the sequences did not come to what they are made to come to');
    },
  );
});

function report({ seed: failing, counterexamplePath, numRuns, numShrinks, errorInstance }, name, options) {
  return [
    `sequence ${numRuns} differs, and was made shorter ${numShrinks} times. Again with`,
    `  MODEL_SEED=${failing} MODEL_PATH=${counterexamplePath} npx vitest run model -t '${name}'`,
    options.map((more, number) => `store${number} ${JSON.stringify(more)}`).join(', '),
    errorInstance.message,
    ...(errorInstance instanceof Difference ? [] : [errorInstance.stack]),
  ].join('\n');
}
