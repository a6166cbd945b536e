/**
 * A test runner runs each of its files in a realm of its own, with an `Error`, an `Array` and timers of its own, and loads `index.js` there again, while
 * there is one addon in the process. What a store gives is of the realm that made it.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import vm from 'node:vm';
import { expect, onTestFinished, test } from 'vitest';
import { makeJob, makeRecord } from './support/fixtures.mjs';

const INDEX = fileURLToPath(new URL('../index.js', import.meta.url));

/** A realm as Jest makes one, and `index.js` as it is loaded there. */
function makeRealm() {
  const context = vm.createContext({ process, Buffer, URL });
  const intrinsics = vm.runInContext('({ Error, Array, Object, Promise })', context);
  const load = () => {
    const parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
    const run = vm.compileFunction(readFileSync(INDEX, 'utf8'), parameters, { parsingContext: context, filename: INDEX });
    const module = { exports: {} };
    run(module.exports, createRequire(INDEX), module, INDEX, dirname(INDEX));
    return module.exports;
  };
  return { ...intrinsics, load };
}

const GIVES_NO_PROMISE = ['poolStats'];

function thrownBy(call) {
  try {
    call();
  } catch (error) {
    return error;
  }
  return expect.unreachable('it returned');
}

/** What a promise, of whatever realm, rejects with. */
const reasonOf = (promise) =>
  promise.then(
    () => expect.unreachable('it resolved'),
    (reason) => reason,
  );

async function open(realm, { SqlxStateStore } = realm.load()) {
  const store = new SqlxStateStore('sqlite::memory:');
  onTestFinished(() => store.close());
  await store.initialize();
  return store;
}

/** The error that a promise of this realm rejects with. */
async function rejection(realm, promise) {
  expect(promise).toBeInstanceOf(realm.Promise);
  const error = await reasonOf(promise);
  expect(error).toBeInstanceOf(realm.Error);
  expect(error.name).toBe('StateStoreError');
  return error;
}

/** Whatever a store gives, and refuses with. */
async function expectItsOwn(realm, store) {
  const job = makeJob(1);
  const [{ id: batchId }] = job.batches;
  const large = Array.from({ length: 8 }, (_, index) => makeRecord(index, { raw: { text: 'x'.repeat(500_000), list: [1] } }));
  await store.saveBatchRecords(job.id, batchId, large);
  await store.saveJobState(job);
  for (const records of [await store.getBatchRecords(job.id, batchId), await store.getProcessedRecords(job.id)]) {
    expect(records).toBeInstanceOf(realm.Array);
    expect(records).toHaveLength(8);
    expect(records[7]).toBeInstanceOf(realm.Object);
    expect(records[7].raw.list).toBeInstanceOf(realm.Array);
  }
  expect(await store.getFailedRecords(job.id)).toBeInstanceOf(realm.Array);
  expect((await store.getJobState(job.id)).batches).toBeInstanceOf(realm.Array);
  expect(await store.listJobs()).toBeInstanceOf(realm.Array);
  for await (const record of store.records(job.id)) expect(record).toBeInstanceOf(realm.Object);

  expect(await rejection(realm, store.getProgress(5))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(await rejection(realm, store.saveProcessedRecord('j', 'b', { index: 1n }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  const taken = { ...job, id: 'another', batches: [{ ...job.batches[0], index: 5 }] };
  expect(await rejection(realm, store.saveJobState(taken))).toMatchObject({ code: 'CONSTRAINT' });
}

test('in each of several realms, one after another and in turns', async () => {
  const realms = [makeRealm(), makeRealm(), makeRealm()];
  const stores = [];
  for (const realm of realms) {
    stores.push(await open(realm));
    await expectItsOwn(realm, stores.at(-1));
  }
  // The last one that was loaded changes nothing for the first.
  await Promise.all(realms.map((realm, at) => expectItsOwn(realm, stores[at])));
});

test('what the constructor throws is of the realm too', () => {
  for (const realm of [makeRealm(), makeRealm()]) {
    const { SqlxStateStore, StateStoreError } = realm.load();
    for (const given of [['nonsense'], [5], ['sqlite::memory:', { unknown: 1 }], ['sqlite::memory:', new Map()]]) {
      let thrown;
      try {
        new SqlxStateStore(...given);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(realm.Error);
      expect(thrown).toBeInstanceOf(StateStoreError);
    }
  }
});

test('a realm that loads the file again has the same classes, and another realm has others', () => {
  const [realm, other] = [makeRealm(), makeRealm()];
  const first = realm.load();
  other.load();
  expect(realm.load().SqlxStateStore).toBe(first.SqlxStateStore);
  expect(realm.load().StateStoreError).toBe(first.StateStoreError);
  expect(other.load().StateStoreError).not.toBe(first.StateStoreError);
});

test('what a password function of a realm throws is the cause', async () => {
  const realm = makeRealm();
  const { SqlxStateStore } = realm.load();
  makeRealm().load();
  const thrown = new realm.Error('no token today');
  const store = new SqlxStateStore('postgres://u@127.0.0.1:1/d', {
    password: () => {
      throw thrown;
    },
  });
  onTestFinished(() => store.close());
  expect((await rejection(realm, store.getProgress('j'))).cause).toBe(thrown);
});

test('a URL is a URL, of whatever realm', async () => {
  // What has an `href` and is no `instanceof URL`, as a URL of another realm.
  class URL {
    #href = 'sqlite::memory:';
    get href() {
      return this.#href;
    }
    get protocol() {
      return 'sqlite:';
    }
    get password() {
      return '';
    }
  }
  const { SqlxStateStore } = makeRealm().load();
  for (const url of [new URL(), new globalThis.URL('sqlite::memory:')]) {
    const store = new SqlxStateStore(url);
    onTestFinished(() => store.close());
    await store.initialize();
    expect(await store.listJobs()).toEqual([]);
  }
  expect(() => new SqlxStateStore(new globalThis.URL('gopher://h/d'))).toThrow(/gopher/);
});

test('a realm that is over is not kept in memory', async () => {
  const script = `
    const vm = require('node:vm');
    const { readFileSync } = require('node:fs');
    const file = ${JSON.stringify(INDEX)};
    const require_ = require('node:module').createRequire(file);
    const weak = [];
    async function one() {
      const context = vm.createContext({ process, Buffer, URL });
      weak.push(new WeakRef(context));
      const run = vm.compileFunction(readFileSync(file, 'utf8'), ['exports', 'require', 'module', '__filename', '__dirname'], { parsingContext: context });
      const module = { exports: {} };
      run(module.exports, require_, module, file, require('node:path').dirname(file));
      const store = new module.exports.SqlxStateStore('sqlite::memory:');
      await store.initialize();
      await store.getProgress(5).catch(() => {});
      await store.close();
    }
    (async () => {
      for (let n = 0; n < 20; n++) await one();
      for (let n = 0; n < 10; n++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        gc();
      }
      console.log(weak.filter((each) => each.deref() !== undefined).length);
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '-e', script], { timeout: 60_000 });
  // The first has the list of them.
  expect(Number(stdout)).toBeLessThanOrEqual(2);
});

test('a store behind a proxy works', async () => {
  const store = await open(makeRealm());
  const unbound = { get: (target, key) => target[key] };
  for (const handler of [{}, unbound]) {
    const proxy = new Proxy(store, handler);
    const job = makeJob(1);
    await proxy.saveJobState(job);
    expect(await proxy.getJobState(job.id)).toMatchObject({ id: job.id });
    for await (const record of proxy.records(job.id)) expect.unreachable(record);
    expect(await proxy.claimBatch(job.id, 'w')).toMatchObject({ claimed: true });
    expect('claimBatch' in proxy).toBe(true);
  }
  expect(await Object.create(store).getProgress('j')).toMatchObject({ totalRecords: 0 });
});

test('a method that is called on no store rejects, or throws where it gives no promise, and the message says how to call it', async () => {
  const { SqlxStateStore, StateStoreError } = makeRealm().load();
  const proxied = Proxy.revocable({}, {});
  proxied.revoke();
  const methods = Object.getOwnPropertyNames(SqlxStateStore.prototype).filter((name) => name !== 'constructor');
  expect(methods.length).toBeGreaterThan(18);
  for (const wrong of [undefined, null, 5, 'text', {}, [], new (makeRealm().load().SqlxStateStore)('sqlite::memory:'), proxied.proxy]) {
    for (const name of [...methods, Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]) {
      const call = () => SqlxStateStore.prototype[name].call(wrong, 'j', 'b', 'w');
      const error = GIVES_NO_PROMISE.includes(name) ? thrownBy(call) : await reasonOf(name === 'records' ? call().next() : call());
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', retryable: false });
      expect(error.message).toContain(`store.${typeof name === 'symbol' ? 'close' : name}(`);
    }
  }
});
