// Every call of a store is seen on the channels of `diagnostics_channel.tracingChannel('batchactions.store')`.

import { AsyncLocalStorage } from 'node:async_hooks';
import { tracingChannel } from 'node:diagnostics_channel';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { makeJob, makeLocalJob, makeRecord, makeState } from '../support/fixtures.mjs';
import { INDEX, runNode } from '../support/run-node.mjs';
import { SqlxStateStore, collect, onEveryDatabase, rejection } from '../support/suite.mjs';
import { callChannel, subscribe, watchCalls } from '../support/telemetry.mjs';

async function openStore(options) {
  const store = new SqlxStateStore('sqlite::memory:', options);
  onTestFinished(() => store.close().catch(() => {}));
  await store.initialize();
  return store;
}

/** Arguments by the names of parameters: a new method that takes these is tested as it is. Others are left out. */
const ARGUMENTS = {
  job: makeJob(0, { id: 'job' }),
  jobId: 'job',
  batchId: 'batch',
  workerId: 'worker',
  state: makeState('batch', 'FAILED'),
  record: makeRecord(0),
  records: [makeRecord(0), makeRecord(1)],
  timeoutMs: 1_000,
};
/** These ask no database, so there is no call to see. */
const NO_CALLS = ['constructor', 'poolStats'];

const methods = Object.entries(Object.getOwnPropertyDescriptors(SqlxStateStore.prototype))
  .filter(([name, { value }]) => typeof value === 'function' && !NO_CALLS.includes(name))
  .map(([name, { value }]) => [
    name,
    /\(([^)]*)\)/
      .exec(String(value))[1]
      .split(/\s*,\s*/)
      .filter(Boolean),
  ]);

/** Calls a method, to its end. */
const call = async (store, name, parameters, args = ARGUMENTS) => {
  const result = store[name](...parameters.map((parameter) => args[parameter]));
  return Symbol.asyncIterator in result ? collect(result) : result;
};
const outcome = (promise) =>
  promise.then(
    (result) => ({ result }),
    (error) => ({ error }),
  );

/** Where methods are declared, with the names of their parameters. */
const declarations = readFileSync(new URL('../../index.d.ts', import.meta.url), 'utf8');

describe('each method of the class', () => {
  test.each(methods.filter(([name]) => new RegExp(`^  ${name}\\(jobId: `, 'm').test(declarations)))(
    '%s, which is declared with an id of a job, is seen with that id',
    async (name, parameters) => {
      expect(parameters[0]).toBe('jobId');
      const store = await openStore();
      const events = watchCalls();
      await outcome(call(store, name, parameters));
      expect(events.map(({ seen }) => seen.jobId)).toEqual(events.map(() => 'job'));
    },
  );

  test('is among these', () => {
    expect(methods.map(([name]) => name)).toEqual(expect.arrayContaining(['initialize', 'saveJobState', 'records', 'close', 'deleteJob']));
  });

  test.each(methods)('%s is seen from its start to its end, with what it is about', async (name, parameters) => {
    const store = await openStore();
    const events = watchCalls();
    const { result, error } = await outcome(call(store, name, parameters));
    events.end();
    const [{ call: context, seen }] = events;
    expect(events.map(({ event }) => event)).toEqual(['start', 'end', ...(error ? ['error'] : []), 'asyncStart', 'asyncEnd']);
    for (const event of events) expect(event.call).toBe(context);
    const about = Object.fromEntries(
      ['jobId', 'batchId', 'workerId'].filter((id) => parameters.includes(id)).map((id) => [id, ARGUMENTS[id]]),
    );
    if (parameters.includes('job')) about.jobId = 'job';
    if (parameters.includes('records')) about.count = 2;
    expect(seen).toEqual({ operation: name, ...about, server: { system: 'sqlite', database: ':memory:' } });
    if (error) expect(context.error).toBe(error);
    else if (name !== 'records') expect(context.result).toBe(result);
  });

  test.each(methods.filter(([name]) => name !== 'initialize' && name !== 'close'))(
    '%s of a closed store is seen to reject',
    async (name, parameters) => {
      const store = await openStore();
      await store.close();
      const events = watchCalls();
      const { error } = await outcome(call(store, name, parameters));
      expect(error).toMatchObject({ code: 'CLOSED' });
      expect(events.map(({ event }) => event)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
      expect(events.find(({ event }) => event === 'error').seen).toMatchObject({ operation: name, error });
    },
  );
});

test('what is refused at once is seen too, without ids that are not strings', async () => {
  const store = await openStore();
  const events = watchCalls();
  const error = await rejection(store.claimBatch(7.5, { toString: () => 'x' }), 'INVALID_ARGUMENT');
  expect(events.map(({ event }) => event)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
  expect(events[0].call).toEqual({ operation: 'claimBatch', server: expect.anything(), error });
});

test('a call on what is no store is seen, and rejects as ever', async () => {
  const events = watchCalls();
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  for (const self of [undefined, {}, proxy]) await rejection(SqlxStateStore.prototype.getProgress.call(self, 'j'), 'INVALID_ARGUMENT');
  expect(events.filter(({ event }) => event === 'start').map(({ seen }) => seen)).toEqual(
    Array.from({ length: 3 }, () => ({ operation: 'getProgress', jobId: 'j' })),
  );
});

test('arguments that throw when they are looked at break no call', async () => {
  const store = await openStore();
  watchCalls();
  const throwing = {
    get id() {
      throw new Error('not today');
    },
  };
  await rejection(store.saveJobState(throwing), 'INVALID_ARGUMENT');
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  await rejection(store.saveBatchRecords('j', 'b', proxy), 'INVALID_ARGUMENT');
});

test('a save that is queued is seen as answered', async () => {
  const store = await openStore({ durability: 'batch' });
  const job = makeLocalJob(1);
  const events = watchCalls();
  await store.saveJobState(job);
  await store.updateBatchState(job.id, job.batches[0].id, makeState(job.batches[0].id, 'PROCESSING'));
  await store.saveProcessedRecord(job.id, job.batches[0].id, makeRecord(0));
  expect(events.map(({ event, seen }) => `${seen.operation} ${event}`)).toEqual(
    ['saveJobState', 'updateBatchState', 'saveProcessedRecord'].flatMap((name) =>
      ['start', 'end', 'asyncStart', 'asyncEnd'].map((event) => `${name} ${event}`),
    ),
  );
});

test('records() is seen as one call for each page', async () => {
  const store = await openStore();
  await store.saveBatchRecords(
    'j',
    'b',
    Array.from({ length: 100 }, (_, index) => makeRecord(index)),
  );
  const events = watchCalls();
  expect(await collect(store.records('j'))).toHaveLength(100);
  const pages = events.filter(({ event }) => event === 'asyncEnd');
  expect(pages.every(({ seen }) => seen.operation === 'records' && seen.jobId === 'j')).toBe(true);
  expect(pages.flatMap(({ seen }) => seen.result.records)).toHaveLength(100);
});

test('records() of one batch is seen with the batch, and an option that throws breaks no call', async () => {
  const store = await openStore();
  const events = watchCalls();
  expect(await collect(store.records('j', { batchId: 'b' }))).toEqual([]);
  expect(events.map(({ seen }) => [seen.jobId, seen.batchId])).toEqual(events.map(() => ['j', 'b']));
  await rejection(collect(store.records('j', { batchId: 5 })), 'INVALID_ARGUMENT');
  const throwing = {
    get batchId() {
      throw new Error('not today');
    },
  };
  await rejection(collect(store.records('j', throwing)), 'INVALID_ARGUMENT');
  await rejection(collect(store.records('j', null)), 'INVALID_ARGUMENT');
});

test("`await using` is seen as the store's close()", async () => {
  const store = await openStore();
  const events = watchCalls();
  await store[Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]();
  expect(events.map(({ seen }) => seen.operation)).toEqual(['close', 'close', 'close', 'close']);
});

onEveryDatabase((on) => {
  test('a call says where the database is, and not who asks', async () => {
    const events = watchCalls();
    await on.store.getProgress('j');
    const { server } = events[0].call;
    if (!on.has('server')) {
      expect(server).toEqual({ system: 'sqlite', database: on.has('memory') ? ':memory:' : on.url.replace('sqlite://', '') });
      return;
    }
    const url = new URL(on.url);
    const system = { 'postgres:': 'postgresql', 'mysql:': 'mysql', 'mariadb:': 'mariadb' }[url.protocol];
    expect(server).toEqual({ system, ...on.address, database: url.pathname.slice(1) });
  });
});

test.each([
  ['a socket', 'postgresql:///db?host=/var/run/pg', { system: 'postgresql', host: '/var/run/pg', port: undefined, database: 'db' }],
  ['parts', { dialect: 'mariadb', host: 'h', database: 'd' }, { system: 'mariadb', host: 'h', port: 3306, database: 'd' }],
  ['a password', 'mysql://me:hunter2@h:1/d', { system: 'mysql', host: 'h', port: 1, database: 'd' }],
  ['a schema', 'postgres://u@h/d', { system: 'postgresql', host: 'h', port: 5432, database: 'd', schema: 's' }, { schema: 's' }],
])('where the database is, of %s', async (_, connection, expected, options) => {
  const store = new SqlxStateStore(connection, options);
  await store.close();
  const events = watchCalls();
  await store.close();
  const { server } = events[0].call;
  expect(server).toEqual(JSON.parse(JSON.stringify(expected)));
});

test('without a subscriber nothing is looked at twice', async () => {
  const store = await openStore();
  const looked = { times: 0 };
  const job = {
    ...makeJob(0),
    get id() {
      looked.times += 1;
      return 'job';
    },
  };
  await store.saveJobState(job);
  expect(looked.times).toBe(1);
  const events = watchCalls();
  await store.saveJobState(job);
  expect(looked.times).toBe(3);
  events.end();
  await store.saveJobState(job);
  expect(looked.times).toBe(4);
  expect(events).toHaveLength(4);
});

test.each(['start', 'end', 'asyncStart', 'asyncEnd'])('a subscriber of %s alone is told', async (event) => {
  const store = await openStore();
  const heard = [];
  subscribe(callChannel(event), (call) => heard.push(call.operation));
  await store.getProgress('j');
  expect(heard).toEqual(['getProgress']);
});

test("a subscriber by Node's tracingChannel is told, and what is bound to its start is there during the call", async () => {
  const store = await openStore();
  const channels = tracingChannel('batchactions.store');
  const storage = new AsyncLocalStorage();
  const heard = [];
  const subscribers = Object.fromEntries(
    ['start', 'end', 'asyncStart', 'asyncEnd', 'error'].map((event) => [event, () => heard.push([event, storage.getStore()])]),
  );
  channels.start.bindStore(storage, ({ operation }) => operation);
  channels.subscribe(subscribers);
  onTestFinished(() => {
    channels.start.unbindStore(storage);
    channels.unsubscribe(subscribers);
  });
  await store.getProgress('j');
  expect(heard).toEqual(['start', 'end', 'asyncStart', 'asyncEnd'].map((event) => [event, 'getProgress']));
});

test('with subscribers, the stack of a rejection leads to the caller of the method', async () => {
  const store = new SqlxStateStore('postgres://u@127.0.0.1:1/d');
  onTestFinished(() => store.close());
  watchCalls();
  const importOrders = async (call) => await call();
  for (const call of [
    () => store.claimBatch('j', 'w'),
    () => store.getProgress('j'),
    () => store.saveProcessedRecord('j', 'b', makeRecord(0)),
    () => store.claimBatch(7.5, 'w'),
    () => store.getProgress(7.5),
  ]) {
    const { stack } = await importOrders(call).catch((error) => error);
    expect(stack).toContain('importOrders');
    const inside = stack.split('\n    at ').filter((frame) => frame.includes('/index.js:'));
    expect(inside.filter((frame) => !/^(async )?SqlxStateStore\./.test(frame))).toEqual([]);
  }
});

test('a subscriber that throws breaks no call: its error is uncaught, as Node has it', async () => {
  const { code, stdout, stderr } = await runNode(`
    import { channel } from 'node:diagnostics_channel';
    const uncaught = [];
    process.on('uncaughtException', (error) => uncaught.push(error.message));
    for (const event of ['start', 'end', 'asyncStart', 'asyncEnd', 'error']) {
      channel('tracing:batchactions.store:' + event).subscribe(() => { throw new Error(event); });
    }
    channel('batchactions.store.warning').subscribe(() => { throw new Error('warning'); });
    const store = new SqlxStateStore('sqlite::memory:', { maxClaims: 1 });
    await store.initialize();
    await store.saveJobState(${JSON.stringify(makeJob(1, { id: 'j' }))});
    const { claimed } = await store.claimBatch('j', 'w');
    await new Promise((resolve) => setTimeout(resolve, 20));
    const given = await store.reclaimStaleBatches('j', 1);
    const { code } = await store.getProgress(5).catch((error) => error);
    await store.close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    console.log(JSON.stringify({ claimed, given, code, uncaught: [...new Set(uncaught)].sort() }));
  `);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    claimed: true,
    given: 1,
    code: 'INVALID_ARGUMENT',
    uncaught: ['asyncEnd', 'asyncStart', 'end', 'error', 'start', 'warning'],
  });
});

test('under fake timers', async () => {
  const store = await openStore();
  vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'Date', 'performance'] });
  onTestFinished(() => vi.useRealTimers());
  const events = watchCalls();
  await store.saveProcessedRecord('j', 'b', makeRecord(0));
  expect(await store.getProcessedRecords('j')).toHaveLength(1);
  expect(events).toHaveLength(8);
  expect(vi.getTimerCount()).toBe(0);
});

test('in a second realm: its promises and errors are its own', async () => {
  const file = fileURLToPath(INDEX);
  const context = vm.createContext({ process, Buffer, URL });
  const realm = vm.runInContext('({ Error, Promise, Object })', context);
  const parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
  const load = vm.compileFunction(readFileSync(file, 'utf8'), parameters, { parsingContext: context, filename: file });
  const module = { exports: {} };
  load(module.exports, createRequire(file), module, file, dirname(file));
  const store = new module.exports.SqlxStateStore('sqlite::memory:');
  onTestFinished(() => store.close());
  await store.initialize();
  const events = watchCalls();
  const promise = store.getProgress(5);
  expect(promise).toBeInstanceOf(realm.Promise);
  const error = await promise.catch((reason) => reason);
  expect(error).toBeInstanceOf(realm.Error);
  expect(events.find(({ event }) => event === 'error').call.error).toBe(error);
  expect(events[0].call).toBeInstanceOf(realm.Object);
});
