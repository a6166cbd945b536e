// The operations that the sequences are made of: how they are generated, performed and printed.
//
// An operation is a plain array, [store, method, ...arguments], that makes sense in every state: so a sequence can be cut anywhere when it
// shrinks, and it prints as the calls that it stands for. A store of `null` is another program that writes past the stores. Ids begin with `#`, which stands for
// what makes them unique in the database.
//
// Three operations are not one call. `saveList` changes the list of a local job in place and saves it, as core's engine does. `atOnce` makes several calls without
// waiting for any of them, through one store; `race` does so through several.

import fc from 'fast-check';
import { collect, StateStoreError } from '../support/suite.mjs';

/** Longer than anything takes here, and shorter than what `backdate` moves and `longAgo` is away. */
export const TIMEOUT_MS = 600_000;
export const startedAt = 1_700_000_000_000;
const longAgo = 1_600_000_000_000;

/** The jobs, and the ids that each one's batches mostly have: the first two share one, so that they collide at times, but not always. */
export const jobs = { '#job1': ['#a', '#b', '#c', '#d'], '#job2': ['#d', '#e', '#f', '#g'], '#job3': ['#h', '#i', '#j', '#k'] };
export const jobIds = Object.keys(jobs);
/** The id that a batch of a job has at this place. Only a list that grows has more places than `jobs` has ids. */
const batchAt = (jobId, place) => jobs[jobId][place] ?? `${jobId}.${place}`;
/** Each store's worker. */
const workers = ['ann', 'bob', 'cyd'];

// The first of the choices is the one that the others shrink to.
const oneOf = (...choices) => fc.oneof({ withCrossShrink: true }, ...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })));
const chance = (percent, arbitrary, otherwise = fc.constant(undefined)) => oneOf([100 - percent, otherwise], [percent, arbitrary]);
const weighted = (weights) => oneOf(...Object.entries(weights).map(([value, weight]) => [weight, fc.constant(value)]));
/** An object without the keys whose value is undefined. */
const object = (fields) => fc.record(fields).map((made) => JSON.parse(JSON.stringify(made)));

const jobId = weighted({ '#job1': 30, '#job2': 4, '#job3': 2 });
// Stand for what is known only when a call's turn comes: the worker of its store, and the batch that its store claimed last.
const OWN = '@own';
const LAST = '@last';
const workerId = chance(20, fc.constantFrom(...workers), fc.constant(OWN));
/** The jobs and batches that come first are met most, so that calls meet. */
const place = weighted({ 0: 6, 1: 4, 2: 2, 3: 1 }).map(Number);
const counts = { processedCount: fc.nat({ max: 9 }), failedCount: fc.nat({ max: 3 }) };
const batchStatus = weighted({ COMPLETED: 8, PROCESSING: 4, PENDING: 3, FAILED: 3, PAUSED: 1 });
const jobStatus = weighted({ PROCESSING: 50, PAUSED: 2, CREATED: 1, COMPLETED: 1, ABORTED: 2, FAILED: 1 });
const recordStatus = fc.constantFrom('processed', 'failed', 'invalid', 'valid', 'pending');
const fence = chance(25, object({ token: weighted({ 1: 4, 2: 2, 3: 3, 4: 1, 5: 1 }).map(Number) }));

/** A batch of a snapshot, which may be of any age: its state need not be what the database has. `place` says which one of its job's. */
const snapshot = object({
  place,
  foreign: chance(2, fc.constant(true)),
  index: chance(5, fc.nat({ max: 4 })),
  status: weighted({ PENDING: 14, PROCESSING: 3, COMPLETED: 2, FAILED: 1, PAUSED: 1 }),
  ...counts,
  unbounded: chance(10, fc.constant(true)),
  workerId: chance(40, fc.constantFrom(...workers)),
  claimedAt: chance(60, fc.constant(longAgo)),
});
// In any order: the list's order is not that of the indexes.
const snapshots = (minLength) =>
  fc.uniqueArray(snapshot, { selector: ({ place, foreign }) => (foreign ? 'foreign' : place), minLength, maxLength: 4 });

function batchOf(jobId, { place, foreign, index = place, status, processedCount, failedCount, unbounded, workerId, claimedAt }) {
  const id = foreign ? (jobId === '#job1' ? '#e' : '#a') : jobs[jobId][place];
  const batch = { id, index, status, processedCount, failedCount };
  if (!unbounded) Object.assign(batch, { recordStartIndex: place * 10, recordEndIndex: place * 10 + 9 });
  if (status === 'PROCESSING' && workerId) Object.assign(batch, { workerId, ...(claimedAt && { claimedAt }) });
  return batch;
}

/** `distributed`: how many of a hundred are. */
const job = (distributed) =>
  object({
    id: weighted({ '#job1': 8, '#job2': 3, '#job3': 3 }),
    config: fc.constant({ batchSize: 10 }),
    status: jobStatus,
    batches: snapshots(0),
    totalRecords: fc.nat({ max: 12 }),
    startedAt: chance(85, fc.nat({ max: 2 })),
    completedAt: chance(15, fc.constant(startedAt + 7_000)),
    distributed: chance(distributed, fc.constant(true)),
  }).map(({ startedAt: round, ...fields }) => ({
    ...fields,
    batches: fields.batches.map((batch) => batchOf(fields.id, batch)),
    // No two jobs at one time, so that their order is certain.
    ...(round !== undefined && { startedAt: startedAt + 10 * round + jobIds.indexOf(fields.id) }),
  }));

/** A change of a list: `at` is one of its places, wherever that is once the change is made. */
const edit = oneOf(
  [
    8,
    object({ edit: fc.constant('append'), place: fc.nat({ max: 7 }), index: fc.nat({ max: 9 }), unbounded: chance(20, fc.constant(true)) }),
  ],
  [6, object({ edit: fc.constant('set'), at: fc.nat({ max: 7 }), state: object({ status: batchStatus, ...counts }) })],
  [3, object({ edit: fc.constant('replace'), at: fc.nat({ max: 7 }), state: object({ status: batchStatus, ...counts }) })],
  [2, object({ edit: fc.constant('remove'), at: fc.nat({ max: 7 }) })],
  [1, object({ edit: fc.constant('move'), at: fc.nat({ max: 7 }), to: fc.nat({ max: 7 }) })],
  [1, object({ edit: fc.constant('reverse') })],
  [1, object({ edit: fc.constant('clear') })],
);

/** Changes a list in place. */
function change(list, jobId, { edit: kind, place, index, unbounded, at, to, state }) {
  const [batch] = list.slice(at % list.length || 0);
  const position = list.indexOf(batch);
  if (kind === 'append' && !list.some(({ id }) => id === batchAt(jobId, place))) {
    const bounds = unbounded ? {} : { recordStartIndex: index * 10, recordEndIndex: index * 10 + 9 };
    list.push({
      id: batchAt(jobId, place),
      index,
      status: 'PROCESSING',
      records: [{ index }],
      processedCount: 0,
      failedCount: 0,
      ...bounds,
    });
  } else if (kind === 'reverse') list.reverse();
  else if (kind === 'clear') list.length = 0;
  else if (batch === undefined) return;
  else if (kind === 'set') Object.assign(batch, state);
  else if (kind === 'replace') list[position] = { ...batch, ...state };
  else if (kind === 'remove') list.splice(position, 1);
  else if (kind === 'move') list.splice(to % list.length, 0, ...list.splice(position, 1));
}

/** The job that `saveList` saves: `lists` has the list of each job, by id, which is the same array each time. */
function changed(jobId, edits, totalRecords, lists) {
  if (!lists.has(jobId)) lists.set(jobId, []);
  const batches = lists.get(jobId);
  for (const one of edits) change(batches, jobId, one);
  const rest = { config: { batchSize: 10 }, status: 'PROCESSING', totalRecords, startedAt: startedAt + jobIds.indexOf(jobId) };
  return { id: jobId, ...rest, batches };
}

/** What the distributed importer begins with. */
const prepared = (id) =>
  snapshots(1).map((batches) => {
    const fields = {
      config: { batchSize: 10 },
      status: 'PROCESSING',
      totalRecords: 10,
      startedAt: startedAt + jobIds.indexOf(id),
      distributed: true,
    };
    return [0, 'saveJobState', { id, ...fields, batches: batches.map((batch) => batchOf(id, { ...batch, foreign: false })) }];
  });

/** What `records` is to select. */
const selection = object({
  status: chance(50, chance(50, recordStatus, fc.uniqueArray(recordStatus, { minLength: 1, maxLength: 3 }))),
  batchId: chance(30, fc.constantFrom(...jobs['#job1'])),
  from: chance(40, fc.nat({ max: 5 })),
});

/** Which batches `batches` is to give. */
const batchPage = object({
  status: chance(60, chance(50, batchStatus, fc.uniqueArray(batchStatus, { minLength: 1, maxLength: 3 }))),
  limit: chance(50, fc.integer({ min: 1, max: 3 })),
  after: chance(40, fc.integer({ min: -1, max: 3 })),
});

const incumbentStatus = weighted({ PENDING: 4, PROCESSING: 2, COMPLETED: 2, FAILED: 1 });
/** A job as the incumbent stores it. No other job has the ids of its batches. */
const incumbents = (statuses) => ({
  id: '#job3',
  config: { batchSize: 10 },
  status: 'PROCESSING',
  batches: statuses.map((status, index) => ({
    id: jobs['#job3'][index],
    index,
    status,
    records: [],
    processedCount: status === 'COMPLETED' ? 10 : 0,
    failedCount: 0,
    recordStartIndex: index * 10,
    recordEndIndex: index * 10 + 9,
  })),
  totalRecords: 10 * statuses.length,
  startedAt: startedAt + 2,
  distributed: true,
});

const record = object({
  index: fc.nat({ max: 5 }),
  raw: fc.nat({ max: 9 }).map((n) => ({ n })),
  parsed: fc.constant({}),
  status: recordStatus,
  errors: chance(20, fc.constant([{ field: 'f', message: 'm', code: 'c' }]), fc.constant([])),
  processingError: chance(20, fc.constant('why')),
});

const retried = fc.uniqueArray(fc.constantFrom('failed', 'invalid', 'valid', 'pending'), { minLength: 1, maxLength: 3 });
const purge = object({
  olderThanMs: fc.constant(0),
  statuses: chance(40, fc.uniqueArray(fc.constantFrom('COMPLETED', 'ABORTED', 'FAILED'), { minLength: 1, maxLength: 2 })),
  dryRun: chance(30, fc.boolean()),
  withoutJob: chance(30, fc.boolean()),
});

/**
 * Sequences of operations on this many stores.
 * @param {{ stores: number, raw: boolean, queues: boolean, maxLength: number }} on `raw`: whether another program can write to the database. `queues`: the
 *   stores queue calls on local jobs, so there are more of these.
 */
export function sequences({ stores, raw, queues, maxLength }) {
  const store = fc.nat({ max: stores - 1 });
  const call = (method, ...rest) =>
    fc.tuple(store, ...rest).map(([number, ...args]) => [number, method, ...(args.at(-1) === undefined ? args.slice(0, -1) : args)]);
  const onJob = (method, ...rest) => call(method, jobId, ...rest);
  const batchId = chance(50, fc.constant(LAST), chance(6, fc.constantFrom('#a', '#e', '#z'), place));
  const onBatch = (method, ...rest) =>
    onJob(method, batchId, ...rest).map(([number, name, id, batch, ...args]) => [number, name, id, jobs[id][batch] ?? batch, ...args]);
  const update = object({ status: weighted({ COMPLETED: 8, FAILED: 3, PENDING: 5, PROCESSING: 2, PAUSED: 1 }), ...counts });

  const saveList = onJob('saveList', fc.array(edit, { maxLength: 3 }), fc.nat({ max: 12 }));
  const oneOfMany = oneOf(
    [4, saveList],
    [3, onBatch('updateBatchState', update, fence)],
    [2, onBatch('saveProcessedRecord', record, fence)],
    [1, call('saveJobState', job(30))],
    [1, onJob('saveWithStatus', weighted({ PAUSED: 4, ABORTED: 1, FAILED: 1, PROCESSING: 1 }))],
  );
  // Which of the incumbent's jobs get rows depends on what is written of such calls, so they are not made on one.
  const ofStores = ([, , job]) => (job.id ?? job) !== '#job3';
  const atOnce = fc
    .array(oneOfMany.filter(ofStores), { minLength: 2, maxLength: 6 })
    .map((calls) => [calls[0][0], 'atOnce', calls.map(([, ...rest]) => [calls[0][0], ...rest])]);

  // What steers a job, with claims and finalizations at the same moment, each through a store of its own. Which of the incumbent's jobs get rows is the
  // store's choice.
  const now = object({ now: chance(50, fc.boolean()) });
  const racing = (number, id) =>
    oneOf(
      [4, fc.constant([number, 'claimBatch', id, OWN])],
      [2, fc.constant([number, 'tryFinalizeJob', id])],
      [3, fc.constant([number, 'pauseJob', id])],
      [3, fc.constant([number, 'resumeJob', id])],
      [1, now.map((options) => [number, 'abortJob', id, options])],
    );
  // Milliseconds after which each call is made. Calls that are made at the same moment mostly take effect in the order in which they are made.
  const delays = fc.tuple(...Array.from({ length: stores }, () => fc.nat({ max: 2 })));
  const race = jobId
    .filter((id) => id !== '#job3')
    .chain((id) => fc.tuple(fc.tuple(...Array.from({ length: stores }, (_, number) => racing(number, id))), delays))
    .map(([calls, after]) => [null, 'race', calls, after]);

  const backdate = fc.tuple(fc.constant(null), fc.constant('backdate'), jobId);
  const prepareAsIncumbent = fc
    .array(incumbentStatus, { minLength: 1, maxLength: 4 })
    .map((statuses) => [null, 'prepareAsIncumbent', incumbents(statuses)]);
  const operation = oneOf(
    [22, onJob('claimBatch', workerId)],
    [14, onBatch('updateBatchState', update, fence)],
    [5, onBatch('releaseBatch', workerId)],
    [4, onBatch('renewBatch', workerId, fence)],
    [6, onJob('reclaimStaleBatches', fc.constant(TIMEOUT_MS))],
    [5, onJob('tryFinalizeJob')],
    [2, onJob('getDistributedStatus')],
    [3, onJob('pauseJob')],
    [4, onJob('resumeJob')],
    [2, onJob('abortJob', chance(60, object({ now: chance(70, fc.boolean()), force: chance(30, fc.boolean()) })))],
    [3, onJob('retryFailed', chance(60, object({ statuses: chance(60, retried), batchSize: chance(50, fc.integer({ min: 1, max: 3 })) })))],
    // In which order the records of several jobs are written is not determined where they are queued.
    ...(queues ? [] : [[2, call('purge', purge)]]),
    [4, call('saveJobState', job(queues ? 45 : 88))],
    ...(queues ? [[25, saveList]] : []),
    ...(queues ? [[8, atOnce]] : []),
    // As the application does to pause or resume a job: what the store gives, with another status.
    [3, onJob('readAndSave', weighted({ PROCESSING: 10, PAUSED: 1, ABORTED: 1 }))],
    [2, onJob('getJobState')],
    [6, onBatch('saveProcessedRecord', record, fence)],
    [3, onBatch('saveBatchRecords', fc.array(record, { maxLength: 3 }))],
    [1, onJob('getFailedRecords')],
    [1, onJob('getPendingRecords')],
    [1, onJob('getProcessedRecords')],
    [1, onBatch('getBatchRecords')],
    [1, onJob('readRecords', selection)],
    [3, onJob('getProgress')],
    [1, call('listJobs', object({ status: chance(50, jobStatus), limit: chance(70, fc.integer({ min: 1, max: 5 })) }))],
    [2, onJob('getJob')],
    [3, onJob('batches', batchPage)],
    [2, call('stats')],
    [1, call('deleteJob', weighted({ '#job1': 2, '#job2': 4, '#job3': 4 }))],
    ...(stores > 1 ? [[8, race]] : []),
    ...(raw ? [[4, backdate]] : []),
    ...(raw ? [[1, prepareAsIncumbent]] : []),
  );
  // What would rarely come together by chance: a worker's way through a batch, and a claim that goes stale.
  const work = fc.tuple(store, jobId, update).map(([number, id, state]) => [
    [number, 'claimBatch', id, OWN],
    [number, 'updateBatchState', id, LAST, state],
  ]);
  const expiry = fc.tuple(store, jobId).map(([number, id]) => [
    [null, 'backdate', id],
    [number, 'reclaimStaleBatches', id, TIMEOUT_MS],
  ]);
  const some = oneOf([80, operation.map((one) => [one])], [4, work], ...(raw ? [[12, expiry]] : []));

  const beginning = [
    chance(queues ? 40 : 97, prepared('#job1')),
    chance(queues ? 25 : 50, prepared('#job2')),
    chance(raw ? 50 : 0, prepareAsIncumbent),
  ];
  const rest = fc.array(some, { maxLength: maxLength - beginning.length, size: 'max' });
  return fc.tuple(rest, ...beginning).map(([more, ...first]) => [...first.filter(Boolean), ...more.flat()].slice(0, maxLength));
}

/** An operation as it is made, where `last` is the last reservation of its store, and `lists` has the list of each job that `saveList` saves. */
export function resolved([store, method, ...args], last, lists) {
  if (method === 'saveList') return [store, 'saveJobState', changed(...args, lists)];
  if (method === 'saveWithStatus') return [store, 'saveJobState', { ...changed(args[0], [], 0, lists), status: args[1] }];
  const made = args.map((arg) => (arg === OWN ? workers[store] : arg));
  if (made[1] === LAST) [made[0], made[1]] = last ? [last.jobId, last.batchId] : [made[0], jobs[made[0]][0]];
  if (method === 'updateBatchState') made[2] = { batchId: made[1], ...made[2] };
  return [store, method, ...made];
}

/** Replaces `from` by `to` where a string in a value begins with it. */
export function renamed(value, from, to) {
  if (typeof value === 'string') return value.startsWith(from) ? to + value.slice(from.length) : value;
  if (Array.isArray(value)) return value.map((item) => renamed(item, from, to));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, renamed(item, from, to)]));
}

/** What is not one call of one method. */
const composed = {
  async listJobs(store, { limit, ...options }) {
    const all = [];
    let after;
    for (;;) {
      const page = await store.listJobs({ ...options, limit, after });
      all.push(...page);
      if (page.length === 0 || limit === undefined) return all;
      after = page.at(-1);
    }
  },
  /** The job that was made is looked at and deleted, because its ids are known to nothing else. */
  async retryFailed(store, jobId, options) {
    const retried = await store.retryFailed(jobId, options);
    if (retried === null) return null;
    const { id: _id, startedAt: _startedAt, batches, ...job } = await store.getJobState(retried.jobId);
    const records = await collect(store.records(retried.jobId));
    await store.deleteJob(retried.jobId);
    const { totalRecords, totalBatches } = retried;
    return { totalRecords, totalBatches, job, batches: batches.map(({ id: _batchId, ...batch }) => batch), records };
  },
  /** The order of two jobs that have just ended is not known. */
  async purge(store, options) {
    const { jobIds, orphans, skipped, ...counts } = await store.purge(options);
    return { ...counts, jobIds: jobIds.toSorted(), orphans: orphans.toSorted(), skipped: skipped.toSorted() };
  },
  readRecords: (store, jobId, options) => collect(store.records(jobId, options)),
  async readAndSave(store, jobId, status) {
    const job = await store.getJobState(jobId);
    if (job) await store.saveJobState({ ...job, status });
    return job;
  },
};

/** Makes the call. `outside` has what is done past the stores. */
export async function perform([store, method, ...args], stores, outside) {
  try {
    if (store === null) return { value: await outside[method](...args) };
    const call = composed[method] ?? ((target, ...rest) => target[method](...rest));
    return { value: await call(stores[store], ...args) };
  } catch (error) {
    // Anything else is not a store's answer, but a mistake of this test or a trouble of its connection.
    if (!(error instanceof StateStoreError)) throw error;
    return { code: error.code };
  }
}

/** `store1.claimBatch('job1', 'ann')`, and what came of it. */
export function print([store, method, ...args], got) {
  if (method === 'atOnce' || method === 'race') return `at once: ${args[0].map((one) => print(one)).join(' ')}  // ${text(got)}`;
  const call = `${store === null ? 'past the stores: ' : `store${store}.`}${method}(${args.map((arg) => text(arg)).join(', ')})`;
  if (!got) return call;
  return `${call}  // ${got.code ?? text(got.value)}`;
}

function text(value) {
  if (Array.isArray(value)) return `[${value.map(text).join(', ')}]`;
  if (typeof value === 'string') return `'${value.replace(/^#/, '')}'`;
  if (typeof value !== 'object' || value === null) return String(value);
  const entries = Object.entries(value).map(([key, item]) => `${key}: ${text(item)}`);
  return entries.length > 0 ? `{ ${entries.join(', ')} }` : '{}';
}
