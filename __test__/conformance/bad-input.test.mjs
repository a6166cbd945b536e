// Every argument of every method, of every kind that it must not be: the call rejects with a code, names what is wrong, and changes nothing. It never
// throws where it is called, and it does not need the database to know.

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { KINDS, kindsBut } from '../support/kinds.mjs';
import { startServer } from '../support/servers.mjs';
import { makeJob, makeRecord, makeState } from '../support/fixtures.mjs';
import { collect, onEveryDatabase, SqlxStateStore, StateStoreError } from '../support/suite.mjs';

/** What each type of argument refuses. What JSON can't write at all comes last: everywhere it is a wrong value of a field that holds JSON. */
const UNWRITABLE = ['a BigInt', 'a cycle', ...Object.keys(KINDS).filter((kind) => /throws|revoked/.test(kind))];
const INTEGERS = ['a number', 'a negative number'];
const NOT_GIVEN = ['undefined', 'null'];
const REFUSED_BY = {
  id: kindsBut('text', 'empty text'),
  'optional id': kindsBut('text', 'empty text', ...NOT_GIVEN),
  integer: kindsBut(...INTEGERS),
  'optional integer': kindsBut(...INTEGERS, 'undefined'),
  'optional or null integer': kindsBut(...INTEGERS, ...NOT_GIVEN),
  'optional or null time': kindsBut(...INTEGERS, '2 ** 31', ...NOT_GIVEN),
  'optional time': kindsBut(...INTEGERS, '2 ** 31', 'undefined'),
  duration: kindsBut('a number', 'a fraction', '2 ** 31'),
  'page length': kindsBut('a number', 'undefined'),
  // Text that is another batch's is refused too.
  'id of the batch': kindsBut(),
  status: kindsBut(),
  'optional status': kindsBut(...NOT_GIVEN),
  'optional boolean': kindsBut('a boolean', ...NOT_GIVEN),
  'optional text': kindsBut('text', 'empty text', 'long text', 'U+0000', ...NOT_GIVEN),
  // A thing whose fields are read and then found missing.
  thing: kindsBut(),
  // Nothing in it has to be there.
  options: kindsBut('undefined', 'an object'),
  list: kindsBut(),
  'optional list': kindsBut('an array', ...NOT_GIVEN),
  // Things whose properties are not what they hold are `{}` to JSON.
  config: kindsBut('an object', 'a Map', 'a Set', 'a promise', 'a RegExp', 'a WeakMap', 'a buffer', 'search parameters'),
  json: ['undefined', 'a symbol', 'a function', 'a revoked proxy of a function', ...UNWRITABLE],
};
/** Longer than its column: refused with a code of its own. */
const TOO_LONG = ['id', 'optional id', 'id of the batch'];

/** `[method, what the message names, type, call(store, job, value)]`. The job is stored, with two batches, the first with one record. */
const ARGUMENTS = [];
const refuse = (method, name, type, call) => ARGUMENTS.push([method, name, type, call]);

for (const method of [
  'getJobState',
  'getFailedRecords',
  'getPendingRecords',
  'getProcessedRecords',
  'getProgress',
  'getDistributedStatus',
  'tryFinalizeJob',
  'deleteJob',
  'getJob',
  'batches',
  'pauseJob',
  'resumeJob',
  'abortJob',
  'retryFailed',
]) {
  refuse(method, 'jobId', 'id', (store, job, value) => store[method](value));
}
/** `[method, its other arguments]`, for the methods that are about a batch. */
const ofBatch = [
  ['updateBatchState', (batchId) => [makeState(batchId, 'COMPLETED')]],
  ['saveProcessedRecord', () => [makeRecord(9)]],
  ['saveBatchRecords', () => [[makeRecord(9)]]],
  ['getBatchRecords', () => []],
  ['releaseBatch', () => ['w']],
  ['renewBatch', () => ['w']],
];
for (const [method, others] of ofBatch) {
  refuse(method, 'jobId', 'id', (store, job, value) => store[method](value, 'b', ...others('b')));
  refuse(method, 'batchId', 'id', (store, job, value) => store[method](job.id, value, ...others(value)));
}
refuse('records', 'jobId', 'id', (store, job, value) => store.records(value).next());
refuse('claimBatch', 'jobId', 'id', (store, job, value) => store.claimBatch(value, 'w'));
refuse('claimBatch', 'workerId', 'id', (store, job, value) => store.claimBatch(job.id, value));
refuse('releaseBatch', 'workerId', 'id', (store, job, value) => store.releaseBatch(job.id, job.batches[0].id, value));
refuse('renewBatch', 'workerId', 'id', (store, job, value) => store.renewBatch(job.id, job.batches[0].id, value));
refuse('reclaimStaleBatches', 'jobId', 'id', (store, job, value) => store.reclaimStaleBatches(value, 1_000));
refuse('reclaimStaleBatches', 'timeoutMs', 'duration', (store, job, value) => store.reclaimStaleBatches(job.id, value));

refuse('saveJobState', 'job', 'thing', (store, job, value) => store.saveJobState(value));
const JOB = {
  id: 'id',
  status: 'status',
  config: 'config',
  batches: 'list',
  totalRecords: 'optional integer',
  startedAt: 'optional or null time',
  completedAt: 'optional or null time',
  distributed: 'optional boolean',
};
for (const [field, type] of Object.entries(JOB)) {
  refuse('saveJobState', `job.${field}`, type, (store, job, value) => store.saveJobState({ ...job, status: 'PAUSED', [field]: value }));
}
const withBatch = (store, job, batch) => store.saveJobState({ ...job, status: 'PAUSED', batches: [job.batches[0], batch] });
refuse('saveJobState', 'job.batches[1]', 'thing', withBatch);
const BATCH = {
  id: 'id',
  index: 'integer',
  status: 'status',
  processedCount: 'integer',
  failedCount: 'integer',
  recordStartIndex: 'optional or null integer',
  recordEndIndex: 'optional or null integer',
  workerId: 'optional id',
};
for (const [field, type] of Object.entries(BATCH)) {
  refuse('saveJobState', `job.batches[1].${field}`, type, (store, job, value) =>
    withBatch(store, job, { ...job.batches[1], [field]: value }),
  );
}
refuse('saveJobState', 'job.batches[1].claimedAt', 'optional or null time', (store, job, claimedAt) =>
  withBatch(store, job, { ...job.batches[1], workerId: 'w', claimedAt }),
);
refuse('saveJobState', 'job', 'json but undefined', (store, job, defaultValue) =>
  store.saveJobState({ ...job, status: 'PAUSED', config: { batchSize: 1, schema: { fields: [{ name: 'f', defaultValue }] } } }),
);
// What can't be written is refused; where it is in a column of JSON, the rest is dropped as JSON.stringify drops it.
REFUSED_BY['json but undefined'] = UNWRITABLE;

const update = (store, job, state, ...fence) => store.updateBatchState(job.id, job.batches[0].id, state, ...fence);
refuse('updateBatchState', 'state', 'thing', update);
for (const [field, type] of Object.entries({
  batchId: 'id of the batch',
  status: 'status',
  processedCount: 'integer',
  failedCount: 'integer',
})) {
  refuse('updateBatchState', `state.${field}`, type, (store, job, value) =>
    update(store, job, { ...makeState(job.batches[0].id, 'COMPLETED'), [field]: value }),
  );
}

const single = (store, job, record, ...fence) => store.saveProcessedRecord(job.id, job.batches[0].id, record, ...fence);
const bulk = (store, job, records) => store.saveBatchRecords(job.id, job.batches[0].id, records);
refuse('saveProcessedRecord', 'record', 'thing', single);
refuse('saveBatchRecords', 'records', 'list', bulk);
refuse('saveBatchRecords', 'records', 'thing', (store, job, value) => bulk(store, job, [makeRecord(0, { raw: 'new' }), value]));
const RECORD = {
  index: 'integer',
  status: 'status',
  raw: 'json',
  parsed: 'json',
  errors: 'optional list',
  processingError: 'optional text',
};
for (const [field, type] of Object.entries(RECORD)) {
  // What can't be written is named by the whole argument and where it is in it.
  refuse('saveProcessedRecord', 'record', type, (store, job, value) =>
    single(store, job, { ...makeRecord(0, { raw: 'new' }), [field]: value }),
  );
  refuse('saveBatchRecords', 'records', type, (store, job, value) =>
    bulk(store, job, [makeRecord(0, { raw: 'new' }), { ...makeRecord(1), [field]: value }]),
  );
}

const fenced = [
  ['updateBatchState', (store, job, fence) => update(store, job, makeState(job.batches[0].id, 'COMPLETED'), fence)],
  ['saveProcessedRecord', (store, job, fence) => single(store, job, makeRecord(9), fence)],
  ['renewBatch', (store, job, fence) => store.renewBatch(job.id, job.batches[0].id, 'w', fence)],
];
for (const [method, call] of fenced) {
  refuse(method, 'fence', 'options', call);
  refuse(method, 'fence', 'optional integer', (store, job, token) => call(store, job, { token }));
}

const page = (store, job, options) => store.records(job.id, options).next();
refuse('records', 'options', 'options', page);
refuse('records', 'options', 'optional status', (store, job, status) => page(store, job, { status }));
refuse('records', 'options', 'status', (store, job, status) => page(store, job, { status: ['valid', status] }));
refuse('records', 'options', 'optional id', (store, job, batchId) => page(store, job, { batchId }));
refuse('records', 'options', 'optional integer', (store, job, from) => page(store, job, { from }));
refuse('listJobs', 'options', 'options', (store, job, options) => store.listJobs(options));
refuse('listJobs', 'options', 'optional status', (store, job, status) => store.listJobs({ status }));
refuse('listJobs', 'options', 'page length', (store, job, limit) => store.listJobs({ limit }));
refuse('listJobs', 'options', 'optional thing', (store, job, after) => store.listJobs({ after }));
const batches = (store, job, options) => store.batches(job.id, options);
refuse('batches', 'options', 'options', batches);
refuse('batches', 'options.status', 'optional status', (store, job, status) => batches(store, job, { status }));
refuse('batches', 'options', 'status', (store, job, status) => batches(store, job, { status: ['PENDING', status] }));
refuse('batches', 'options.limit', 'page length', (store, job, limit) => batches(store, job, { limit }));
refuse('batches', 'options.after', 'optional integer', (store, job, after) => batches(store, job, { after }));
REFUSED_BY['optional thing'] = kindsBut(...NOT_GIVEN);
refuse('listJobs', 'options', 'id', (store, job, id) => store.listJobs({ after: { id } }));
refuse('listJobs', 'options', 'optional time', (store, job, startedAt) => store.listJobs({ after: { id: 'j', startedAt } }));

for (const method of ['abortJob', 'retryFailed'])
  refuse(method, 'options', 'options', (store, job, options) => store[method](job.id, options));
refuse('abortJob', 'options', 'optional boolean', (store, job, now) => store.abortJob(job.id, { now }));
refuse('abortJob', 'options', 'optional boolean', (store, job, force) => store.abortJob(job.id, { force }));
refuse('retryFailed', 'options', 'optional status', (store, job, statuses) => store.retryFailed(job.id, { statuses }));
refuse('retryFailed', 'options', 'status', (store, job, status) => store.retryFailed(job.id, { statuses: ['failed', status] }));
refuse('retryFailed', 'options', 'page length', (store, job, batchSize) => store.retryFailed(job.id, { batchSize }));
refuse('purge', 'options', 'options', (store, job, options) => store.purge(options));
refuse('purge', 'options', 'age', (store, job, olderThanMs) => store.purge({ olderThanMs }));
REFUSED_BY.age = kindsBut('a number', '2 ** 31');
refuse('purge', 'options', 'optional status', (store, job, statuses) => store.purge({ olderThanMs: 0, statuses }));
refuse('purge', 'options', 'status', (store, job, status) => store.purge({ olderThanMs: 0, statuses: ['FAILED', status] }));
refuse('purge', 'options', 'page length', (store, job, limit) => store.purge({ olderThanMs: 0, limit }));
refuse('purge', 'options', 'optional boolean', (store, job, dryRun) => store.purge({ olderThanMs: 0, dryRun }));

/** What can't be written at all is named by the argument that it is somewhere in. */
const nameIn = (message, name) => (message.includes("can't be written as JSON") ? name.match(/^\w+/)[0] : name);

/** What is wrong with how a call refuses each kind of value that it must refuse. */
async function wrongsOf(store, job, name, type, call) {
  const wrongs = [];
  for (const kind of REFUSED_BY[type]) {
    const code = kind === 'long text' && TOO_LONG.includes(type) ? 'VALUE_TOO_LONG' : 'INVALID_ARGUMENT';
    let promise;
    try {
      promise = call(store, job, KINDS[kind]());
    } catch (error) {
      wrongs.push(`${kind}: thrown where it was called: ${error.message}`);
      continue;
    }
    const error = await Promise.resolve(promise).then(
      () => undefined,
      (reason) => reason,
    );
    if (!(promise instanceof Promise)) wrongs.push(`${kind}: no promise`);
    else if (!(error instanceof StateStoreError)) wrongs.push(`${kind}: ${error === undefined ? 'accepted' : `rejected with ${error}`}`);
    else if (error.code !== code || error.retryable) wrongs.push(`${kind}: ${error.code}, ${error.message}`);
    else if (!error.message.includes(nameIn(error.message, name))) wrongs.push(`${kind}: the message names no ${name}: ${error.message}`);
  }
  return wrongs;
}

const named = ARGUMENTS.map(([method, name, type, call]) => [
  `${method}, ${name}, ${type}, ${REFUSED_BY[type].length} kinds`,
  name,
  type,
  call,
]);

onEveryDatabase((on) => {
  describe('a wrong argument is refused, named and without effect', () => {
    const job = makeJob(2, { id: 'the-job' });
    beforeAll(async () => {
      await on.store.saveJobState(job);
      await on.store.saveProcessedRecord(job.id, job.batches[0].id, makeRecord(0, { raw: 'old' }));
    });

    /** All that is stored. */
    const everything = async () => {
      if (on.has('raw')) {
        const tables = ['batchactions_jobs', 'batchactions_records', 'batchactions_batches'];
        return Promise.all(tables.map((table) => on.query(`select * from "${table}" order by "id"`)));
      }
      const jobs = await on.store.listJobs();
      return [
        jobs,
        await on.store.getJobState(job.id),
        await collect(on.store.records(job.id)),
        await on.store.getDistributedStatus(job.id),
      ];
    };

    test.each(named)('%s', async (_, name, type, call) => {
      const before = await everything();
      expect(await wrongsOf(on.store, job, name, type, call)).toEqual([]);
      expect(await everything()).toStrictEqual(before);
    });

    test('where it and all behind it are missing', async () => {
      const complete = {
        saveJobState: [job],
        getJobState: [job.id],
        updateBatchState: [job.id, 'b', makeState('b', 'COMPLETED')],
        saveProcessedRecord: [job.id, 'b', makeRecord(9)],
        saveBatchRecords: [job.id, 'b', [makeRecord(9)]],
        getFailedRecords: [job.id],
        getPendingRecords: [job.id],
        getProcessedRecords: [job.id],
        getBatchRecords: [job.id, 'b'],
        getProgress: [job.id],
        claimBatch: [job.id, 'w'],
        releaseBatch: [job.id, 'b', 'w'],
        renewBatch: [job.id, 'b', 'w'],
        reclaimStaleBatches: [job.id, 1_000],
        getDistributedStatus: [job.id],
        tryFinalizeJob: [job.id],
        deleteJob: [job.id],
        getJob: [job.id],
        batches: [job.id],
        pauseJob: [job.id],
        resumeJob: [job.id],
        abortJob: [job.id],
        retryFailed: [job.id],
        purge: [{ olderThanMs: 0 }],
      };
      const before = await everything();
      for (const [method, args] of Object.entries(complete)) {
        for (let given = 0; given < args.length; given++) {
          const promise = on.store[method](...args.slice(0, given));
          await expect(promise, `${method} with ${given}`).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
        }
      }
      await expect(on.store.records().next()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      expect(await everything()).toStrictEqual(before);
    });

    test('where it is a status that the call does not take', async () => {
      const before = await everything();
      const refused = [
        on.store.retryFailed(job.id, { statuses: ['processed'] }),
        on.store.retryFailed(job.id, { statuses: [] }),
        on.store.retryFailed(job.id, { batchSize: 100_001 }),
        on.store.purge({ olderThanMs: 0, statuses: ['PROCESSING'] }),
        on.store.purge({ olderThanMs: 0, statuses: [] }),
        on.store.purge({ olderThanMs: 0, limit: 0 }),
      ];
      for (const promise of refused) await expect(promise).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      expect(await everything()).toStrictEqual(before);
    });

    test('what a getter or a toJSON threw is the cause, and the store goes on', async () => {
      const thrown = new Error('not today');
      const trap = {
        get raw() {
          throw thrown;
        },
      };
      const record = makeRecord(0);
      const viaGetter = Object.defineProperties({ ...record }, Object.getOwnPropertyDescriptors(trap));
      const viaToJson = { ...record, raw: { toJSON: () => trap.raw } };
      for (const given of [viaGetter, viaToJson]) {
        const error = await on.store.saveProcessedRecord('j', 'b', given).catch((reason) => reason);
        expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('not today') });
        expect(error.cause).toBe(thrown);
        await expect(on.store.saveBatchRecords('j', 'b', [record, given])).rejects.toMatchObject({ cause: thrown });
      }
      expect(await collect(on.store.records('j'))).toEqual([]);
    });

    test('fields behind the getters of a class count, and fields that are not a record’s do no harm', async () => {
      class Row {
        index = 3;
        status = 'processed';
        ['\ud800'] = 1n;
        get raw() {
          return { n: 1 };
        }
        get parsed() {
          return { n: 2 };
        }
        toJSON() {
          return 'a row';
        }
      }
      await on.store.saveProcessedRecord('class', 'b', new Row());
      await on.store.saveBatchRecords('class-2', 'b', [new Row()]);
      const due = [{ index: 3, raw: { n: 1 }, parsed: { n: 2 }, status: 'processed', errors: [] }];
      expect(await on.store.getBatchRecords('class', 'b')).toEqual(due);
      expect(await on.store.getBatchRecords('class-2', 'b')).toEqual(due);
    });
  });
});

describe('a wrong argument is refused without the database', () => {
  let server;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.close());

  test.each([
    ['postgres', (port) => `postgres://u@127.0.0.1:${port}/d`],
    ['mysql', (port) => `mysql://u@127.0.0.1:${port}/d`],
    ['sqlite', () => `sqlite://${join('/no', 'such', 'folder.db')}`],
  ])('%s: where no server answers, the refusals are the same', async (_, urlOf) => {
    const store = new SqlxStateStore(urlOf(server.port), { connectTimeoutMs: 60_000 });
    onTestFinished(() => store.close());
    const job = makeJob(2, { id: 'the-job' });
    for (const [title, name, type, call] of named) expect(await wrongsOf(store, job, name, type, call), title).toEqual([]);
    expect(server.connections).toBe(0);
  });
});

describe('a wrong option of the constructor', () => {
  const texts = ['text', 'empty text', 'long text', 'U+0000'];
  const count = kindsBut('a number', 'undefined');
  const section = kindsBut('undefined', 'an object');
  const text = kindsBut('undefined', ...texts);
  const OPTIONS = [
    ['options', section, (value) => value],
    ['schema', kindsBut('undefined', 'text'), (schema) => ({ schema })],
    ['pool', section, (pool) => ({ pool })],
    ['pool.max', count, (max) => ({ pool: { max } })],
    ['pool.min', kindsBut('undefined'), (min) => ({ pool: { max: 9, min } })],
    ['pool.acquireTimeoutMs', count, (acquireTimeoutMs) => ({ pool: { acquireTimeoutMs } })],
    ['pool.idleTimeoutMs', count, (idleTimeoutMs) => ({ pool: { idleTimeoutMs } })],
    ['connectTimeoutMs', count, (connectTimeoutMs) => ({ connectTimeoutMs })],
    ['statementTimeoutMs', count, (statementTimeoutMs) => ({ statementTimeoutMs })],
    ['ssl', section, (ssl) => ({ ssl })],
    ['ssl.mode', kindsBut('undefined'), (mode) => ({ ssl: { mode } })],
    ['ssl.ca', text, (ca) => ({ ssl: { ca } })],
    ['ssl.cert', text, (cert) => ({ ssl: { cert } })],
    ['ssl.key', text, (key) => ({ ssl: { key } })],
    ['statementCache', count, (statementCache) => ({ statementCache })],
    ['durability', kindsBut('undefined'), (durability) => ({ durability })],
    ['leaseRenewal', kindsBut('undefined'), (leaseRenewal) => ({ leaseRenewal })],
    ['leaseRenewal.everyMs', kindsBut('a number'), (everyMs) => ({ leaseRenewal: { everyMs, forMs: 10 } })],
    ['leaseRenewal.forMs', kindsBut('a number'), (forMs) => ({ leaseRenewal: { everyMs: 10, forMs } })],
    ['maxClaims', count, (maxClaims) => ({ maxClaims })],
    ['tablePrefix', text, (tablePrefix) => ({ tablePrefix })],
    ['unknown', kindsBut('undefined'), (unknown) => ({ unknown })],
  ];

  /** What is wrong with how the constructor refuses these kinds. */
  const wrongsOfConstructor = (kinds, codes, word, make) =>
    kinds.flatMap((kind) => {
      let error;
      try {
        make(KINDS[kind]());
      } catch (thrown) {
        error = thrown;
      }
      if (!(error instanceof StateStoreError)) return [`${kind}: ${error === undefined ? 'accepted' : `threw ${error}`}`];
      // An object that can't be written is named by the whole argument.
      const isNamed = word.test(error.message) || /can't be written as JSON/.test(error.message);
      return codes.includes(error.code) && isNamed ? [] : [`${kind}: ${error.code}, ${error.message}`];
    });

  test.each(OPTIONS)('`%s` throws INVALID_ARGUMENT, and the message names it', (name, kinds, optionsOf) => {
    const make = (value) => new SqlxStateStore('postgres://localhost/db', optionsOf(value));
    expect(wrongsOfConstructor(kinds, ['INVALID_ARGUMENT'], new RegExp(name), make)).toEqual([]);
  });

  const whole = ['text', 'empty text', 'long text'];
  const part = kindsBut(...NOT_GIVEN, ...whole);
  test.each([
    ['dialect', 'postgres', kindsBut()],
    ['host', 'postgres', part],
    ['port', 'postgres', kindsBut(...NOT_GIVEN, 'a number')],
    ['database', 'postgres', part],
    ['user', 'postgres', part],
    // What a function gives is asked for when a connection is made.
    ['password', 'postgres', kindsBut(...NOT_GIVEN, ...whole, 'a function')],
    ['socketPath', 'postgres', part],
    ['storage', 'sqlite', kindsBut('text', 'long text')],
    ['unknown', 'postgres', kindsBut('undefined')],
  ])('`%s` of connection options throws, and the message names it', (name, dialect, kinds) => {
    const make = (value) => new SqlxStateStore({ dialect, [name]: value });
    const codes = ['INVALID_CONNECTION', 'INVALID_ARGUMENT', 'UNSUPPORTED_DATABASE'];
    const word = { dialect: /dialect|not a database/, socketPath: /socket/, storage: /storage|SQLite/ }[name] ?? new RegExp(name);
    expect(wrongsOfConstructor(kinds, codes, word, make)).toEqual([]);
  });

  test('a connection of a wrong kind throws, and the message names it', () => {
    const codes = ['INVALID_CONNECTION', 'INVALID_ARGUMENT'];
    expect(wrongsOfConstructor(kindsBut(), codes, /connection|URL|the first argument/, (value) => new SqlxStateStore(value))).toEqual([]);
  });
});
