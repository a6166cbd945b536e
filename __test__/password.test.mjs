/**
 * Passwords, on servers that this file starts: each way of a server to ask for one, and the function that gives one that is good for a while.
 */
import { Sequelize } from 'sequelize';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { serverDialects } from './support/dialects/index.mjs';
import { createAuthority } from './support/certificates.mjs';
import { createOwnDatabase, DATABASE } from './support/own-accounts.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { INDEX, runNode } from './support/run-node.mjs';
import { makeRecord, newId } from './support/fixtures.mjs';
import { rejection, sleep, SqlxStateStore } from './support/suite.mjs';

const AWKWARD = [
  'with spaces, \'quotes\', "more" and `more`',
  String.raw`back\slash %41 %zz @:/?#[]&=+;$,`,
  'pässwörd ✓ 日本語 🔑',
  '{"a function":"not JSON"}',
  'ﬁve ① ½ no\u00a0break',
  ' ',
  'long '.repeat(20),
];

/** What a store that was made with this password says to its first question. */
async function tryLogin(connection, options) {
  const store = new SqlxStateStore(connection, options);
  try {
    await store.initialize();
    return await store.getJobState('missing');
  } finally {
    await store.close();
  }
}

for (const dialect of serverDialects) {
  describe(dialect.name, () => {
    const onThisServer = onOwnServer(dialect);
    let started;

    function server() {
      started ??= (async () => {
        const tls = createAuthority('An authority of the tests').issue({ hosts: ['127.0.0.1'] });
        const own = await startOwnServer(dialect, { tls });
        return { own, database: await createOwnDatabase(dialect, own.url) };
      })();
      return started;
    }

    /** A user of the test's own, and a function that gives its password, written down as it changes. */
    async function newUser() {
      const { database } = await server();
      const user = newId('u').replaceAll('-', '_');
      let password = `first ${user}`;
      await database.createUser(user, password);
      const account = {
        user,
        calls: 0,
        url: database.urlOf(user, ''),
        get password() {
          return password;
        },
        ask: async () => {
          account.calls++;
          return password;
        },
        async change() {
          password = `next ${user} ${newId()}`;
          await database.setPassword(user, password);
        },
        end: () => database.endConnections(user),
      };
      return account;
    }

    /** A store with tables. Closed after the test. */
    async function open(connection, options) {
      const store = new SqlxStateStore(connection, options);
      onTestFinished(() => store.close());
      await store.initialize();
      return store;
    }

    const many = (store, count) => Promise.all(Array.from({ length: count }, () => store.getJobState('missing')));

    afterAll(async () => {
      const { own } = (await started?.catch(() => undefined)) ?? {};
      await own?.end();
    });

    onThisServer('passwords of all characters, as an option, in parts, in a URL and in a Sequelize instance', async () => {
      const { database } = await server();
      for (const password of AWKWARD) {
        const user = newId('u').replaceAll('-', '_');
        await database.createUser(user, password);
        const url = database.urlOf(user, password);
        const bare = database.urlOf(user, '');
        const { port } = new URL(url);
        const place = { dialect: dialect.name, host: '127.0.0.1', port: Number(port), database: DATABASE };
        const sequelize = new Sequelize({ ...place, username: user, password, logging: false });
        onTestFinished(() => sequelize.close());
        for (const [connection, options] of [
          [url],
          [bare, { password }],
          [database.urlOf(user, 'another one'), { password }],
          [{ ...place, user, password }],
          [sequelize],
          [sequelize, { password: () => password }],
        ]) {
          for (const mode of ['disable', 'require']) {
            expect(await tryLogin(connection, { ...options, ssl: { mode } })).toBeNull();
          }
        }
        const error = await rejection(tryLogin(bare, { password: `${password}!` }), 'CONNECTION_FAILED');
        expect(error.retryable).toBe(false);
        if (password.trim()) expect(`${error.stack} ${error.cause?.stack}`).not.toContain(password);
      }
    });

    const methods = dialect.passwordMethods;
    onThisServer(`each way of this server to ask for a password: ${methods.join(', ')}`, async () => {
      const { database } = await server();
      for (const [index, how] of methods.entries()) {
        const user = `way_${index}`;
        const password = `${AWKWARD[2]} ${AWKWARD[4]}`;
        await database.createUser(user, password, { method: how });
        for (const mode of ['disable', 'require', 'disable']) {
          await database.forgetLogins();
          for (let round = 0; round < 2; round++) {
            expect(await tryLogin(database.urlOf(user, password), { ssl: { mode } })).toBeNull();
            await rejection(tryLogin(database.urlOf(user, 'wrong'), { ssl: { mode } }), 'CONNECTION_FAILED');
          }
        }
      }
    });

    onThisServer('the function is asked once for many, and not again while its answer is good', async () => {
      const account = await newUser();
      const store = await open(account.url, { password: account.ask, pool: { max: 8, idleTimeoutMs: 600_000 } });
      await Promise.all(Array.from({ length: 5 }, () => many(store, 8)));
      expect(account.calls).toBe(1);
      expect(await account.end()).toBeGreaterThan(0);
      await many(store, 8);
      expect(account.calls).toBe(1);
    });

    onThisServer('the first calls, all at once, share one question', async () => {
      const account = await newUser();
      let release;
      const gate = new Promise((resolve) => (release = resolve));
      const options = {
        password: async () => {
          await gate;
          return account.ask();
        },
      };
      const store = new SqlxStateStore(account.url, options);
      onTestFinished(() => store.close());
      const calls = Array.from({ length: 30 }, () => store.initialize());
      await sleep(50);
      release();
      await Promise.all(calls);
      expect(account.calls).toBe(1);
    });

    onThisServer('a password older than its TTL is asked for again when a connection is made', async () => {
      const account = await newUser();
      const store = await open(account.url, { password: account.ask, passwordTtlMs: 1, pool: { max: 1, idleTimeoutMs: 600_000 } });
      expect(account.calls).toBe(1);
      // No new connection, no question.
      await sleep(20);
      await many(store, 3);
      expect(account.calls).toBe(1);
      for (let round = 2; round <= 4; round++) {
        await account.end();
        await sleep(20);
        await many(store, 1);
        expect(account.calls).toBe(round);
      }
    });

    onThisServer('a password that was changed is asked for again at once, and the calls succeed', async () => {
      const account = await newUser();
      const store = await open(account.url, { password: account.ask, pool: { max: 8 } });
      await many(store, 8);
      for (let round = 2; round <= 6; round++) {
        await account.change();
        await account.end();
        await many(store, 20);
        // Asked once, whichever of them was refused first.
        expect(account.calls).toBe(round);
      }
      await store.saveProcessedRecord('job', 'batch', makeRecord(0));
    });

    onThisServer('a wrong password is asked for once more, and is then the reason', async () => {
      const account = await newUser();
      let calls = 0;
      const store = new SqlxStateStore(account.url, { password: () => `wrong ${++calls}` });
      onTestFinished(() => store.close());
      const error = await rejection(store.getJobState('j'), 'CONNECTION_FAILED');
      expect(error.retryable).toBe(false);
      expect(error.message).toMatch(/password|denied/i);
      expect(`${error.stack} ${error.cause?.stack}`).not.toMatch(/wrong \d/);
      expect(calls).toBe(2);
      // And where the second answer is the right one, no call fails.
      const answers = ['wrong', account.password];
      const other = await open(account.url, { password: () => answers.shift() });
      expect(await other.getJobState('j')).toBeNull();
      expect(answers).toEqual([]);
    });

    onThisServer('in parts, in a Sequelize instance, and before what the connection says', async () => {
      const account = await newUser();
      const { port } = new URL(account.url);
      const place = { dialect: dialect.name, host: '127.0.0.1', port: Number(port), database: DATABASE };
      const sequelizeOf = (password) => {
        const sequelize = new Sequelize({ ...place, username: account.user, password, logging: false });
        onTestFinished(() => sequelize.close());
        return sequelize;
      };
      let unused = 0;
      const neverAsked = () => `not used ${++unused}`;
      for (const [connection, options, asked] of [
        [{ ...place, user: account.user, password: account.ask }, undefined, 1],
        [{ ...place, user: account.user, password: neverAsked }, { password: account.ask }, 1],
        [{ ...place, user: account.user, password: neverAsked }, { password: account.password }, 0],
        [sequelizeOf(account.ask), undefined, 1],
        [sequelizeOf('wrong'), { password: account.ask }, 1],
        [sequelizeOf('wrong'), { password: account.password }, 0],
        [new URL(account.url), { password: account.ask }, 1],
      ]) {
        account.calls = 0;
        expect(await tryLogin(connection, options)).toBeNull();
        expect(account.calls).toBe(asked);
      }
      expect(unused).toBe(0);
    });
  });
}

const NOWHERE = 'postgres://user@127.0.0.1:1/none';

describe('a function that does not give a password', () => {
  // It is asked before the server is, so there need be none.
  function storeOf(password, options) {
    const store = new SqlxStateStore(NOWHERE, { password, ...options });
    onTestFinished(() => store.close());
    return store;
  }

  class TokenError extends Error {}

  test.each([
    ['throws', () => () => raise(new TokenError('no token today'))],
    ['rejects', () => async () => raise(new TokenError('no token today'))],
    ['rejects later', () => () => sleep(5).then(() => raise(new TokenError('no token today')))],
  ])('%s: CONNECTION_FAILED, with what it threw as the cause', async (how, make) => {
    const store = storeOf(make());
    const error = await rejection(store.getJobState('j'), 'CONNECTION_FAILED');
    expect(error.message).toMatch(/the function password failed: no token today/);
    expect(error.retryable).toBe(true);
    expect(error.cause).toBeInstanceOf(TokenError);
  });

  test('each of many calls that share the failure gets what was thrown, and the next asks again', async () => {
    const thrown = [];
    const store = storeOf(async () => {
      await sleep(20);
      thrown.push(new TokenError(`attempt ${thrown.length}`));
      throw thrown.at(-1);
    });
    const errors = await Promise.all(Array.from({ length: 10 }, () => rejection(store.getJobState('j'), 'CONNECTION_FAILED')));
    expect(thrown).toHaveLength(1);
    for (const error of errors) expect(error.cause).toBe(thrown[0]);
    const next = await rejection(store.getJobState('j'), 'CONNECTION_FAILED');
    expect(next.cause).toBe(thrown[1]);
  });

  test.each([
    ['a string', 'text'],
    ['a number', 7],
    ['nothing', undefined],
    ['null', null],
    ['an object', { password: 'hidden' }],
  ])('throws %s, which is no Error: it is the cause all the same', async (what, value) => {
    const error = await rejection(storeOf(() => raise(value)).getJobState('j'), 'CONNECTION_FAILED');
    expect(error.cause).toBe(value);
    expect(error.message).not.toContain('hidden');
  });

  test.each([
    ['an Error whose message is a number', `Object.assign(new Error(), { message: 7 })`],
    ['an Error whose message is an object', `Object.assign(new Error(), { message: {} })`],
    ['an Error whose message throws', `Object.defineProperty(new Error(), 'message', { get() { throw new Error('again'); } })`],
    ['a revoked proxy', `(() => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; })()`],
    ['a symbol', `Symbol('s')`],
  ])('throws %s: CONNECTION_FAILED, and the process lives on', async (what, thrown) => {
    const source = `
      const store = new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password: async () => { throw ${thrown}; } });
      for (let n = 0; n < 2; n++) await store.getJobState('j').catch((error) => console.log(error.code, /it throws/.test(error.message)));
      await store.close();`;
    expect(await runNode(source)).toMatchObject({
      code: 0,
      stderr: '',
      stdout: 'CONNECTION_FAILED true\nCONNECTION_FAILED true\n',
    });
  });

  test.each([
    ['a number', () => 12345, /gave number/],
    ['nothing', () => undefined, /gave undefined/],
    ['null', async () => null, /gave null/],
    ['an object', async () => ({ token: 'hidden' }), /gave object/],
    ['a Buffer', async () => Buffer.from('hidden'), /gave object/],
    ['a function', () => () => 'hidden', /gave function/],
    ['a character that no password has', () => 'hidden\0', /without U\+0000/],
  ])('gives %s: INVALID_ARGUMENT', async (what, password, message) => {
    const error = await rejection(storeOf(password).getJobState('j'), 'INVALID_ARGUMENT');
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/password/);
    expect(error.message).not.toMatch(/hidden|12345/);
    expect(error.retryable).toBe(false);
  });

  test('never answers: CONNECTION_FAILED after connectTimeoutMs, for all at once', async () => {
    let calls = 0;
    const password = () => {
      calls++;
      return new Promise(() => {});
    };
    const store = storeOf(password, { connectTimeoutMs: 2_000 });
    const errors = await Promise.all(Array.from({ length: 10 }, () => rejection(store.getJobState('j'), 'CONNECTION_FAILED')));
    for (const error of errors) {
      expect(error.message).toMatch(/the function password gave no answer within 2000 ms \(connectTimeoutMs\)/);
      expect(error.retryable).toBe(true);
    }
    expect(calls).toBe(1);
    await rejection(store.getJobState('j'), 'CONNECTION_FAILED');
    expect(calls).toBe(2);
  });

  test('answers after the store was closed: nothing happens', async () => {
    let release;
    const store = storeOf(() => new Promise((resolve) => (release = resolve)), { connectTimeoutMs: 300 });
    const call = rejection(store.getJobState('j'), 'CONNECTION_FAILED');
    await expect.poll(() => release, { timeout: 60_000 }).toBeTypeOf('function');
    await store.close();
    await call;
    release('late');
    await sleep(20);
    await rejection(store.getJobState('j'), 'CLOSED');
  });
});

function raise(value) {
  throw value;
}

describe('options', () => {
  test.each([
    [{ password: 5 }, /options\.password must be a string, or a function that gives one/],
    [{ password: 5n }, /options\.password/],
    [{ password: true }, /options\.password/],
    [{ password: ['hunter2'] }, /options\.password/],
    [{ password: { secret: 'hunter2' } }, /options\.password/],
    [{ password: Symbol('hunter2') }, /options\.password/],
    [{ password: null }, /options\.password is null/],
    [{ password: 'hunter2\0' }, /options\.password holds the character U\+0000/],
    [{ password: 'hunter2', passwordTtlMs: 1000 }, /options\.passwordTtlMs .*password is no function/],
    [{ passwordTtlMs: 1000 }, /options\.passwordTtlMs .*password is no function/],
    ...[0, -1, 1.5, 86_400_001, '1000', Number.NaN, Infinity, () => 5].map((passwordTtlMs) => [
      { password: () => 'hunter2', passwordTtlMs },
      /options\.passwordTtlMs must be a whole number from 1 to 86400000/,
    ]),
  ])('%o is refused', (options, message) => {
    const thrown = (() => {
      try {
        return new SqlxStateStore(NOWHERE, options);
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
    expect(thrown.stack.split('\n    at ')[0]).not.toMatch(/hunter2/);
  });

  test('a function that only looks like one is refused', () => {
    expect(() => new SqlxStateStore(NOWHERE, { password: { 'a function': 'not JSON' } })).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/password must be a string, or a function/) }),
    );
    const parts = { dialect: 'mysql', database: 'd', password: { 'a function': 'not JSON' } };
    expect(() => new SqlxStateStore(parts)).toThrow(expect.objectContaining({ code: 'INVALID_CONNECTION' }));
  });

  test('SQLite asks for none', async () => {
    let calls = 0;
    const store = new SqlxStateStore('sqlite::memory:', { password: () => `${++calls}`, passwordTtlMs: 60_000 });
    await store.initialize();
    await store.close();
    expect(calls).toBe(0);
  });
});

describe('the process', () => {
  test('an open store with such a function never keeps it alive', async () => {
    const source = `
      const store = new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password: () => 'x' });
      await store.getJobState('j').catch((error) => console.log(error.code));
      globalThis.store = store;`;
    expect(await runNode(source)).toMatchObject({ code: 0, stderr: '', stdout: 'CONNECTION_FAILED\n' });
  });

  test('a question that hangs does not outlive the call that asked it', async () => {
    const source = `
      const options = { password: () => new Promise(() => {}), connectTimeoutMs: 300 };
      globalThis.store = new SqlxStateStore(${JSON.stringify(NOWHERE)}, options);
      store.getJobState('j').catch((error) => console.log(error.code));`;
    expect(await runNode(source)).toMatchObject({ code: 0, stderr: '', stdout: 'CONNECTION_FAILED\n' });
  });

  test('process.exit in the middle of a question', async () => {
    const source = `
      const password = () => { setImmediate(() => process.exit(7)); return new Promise(() => {}); };
      new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password }).getJobState('j');`;
    for (let round = 0; round < 5; round++) expect(await runNode(source)).toMatchObject({ code: 7, signal: null, stderr: '' });
  });

  test('the function is let go when the store is closed, and when it is forgotten', async () => {
    const source = `
      import { setFlagsFromString } from 'node:v8';
      import { runInNewContext } from 'node:vm';
      setFlagsFromString('--expose-gc');
      const gc = runInNewContext('gc');
      const gone = new Set();
      const registry = new FinalizationRegistry((name) => gone.add(name));
      const kept = [];
      async function make(name, close) {
        const password = () => 'x';
        registry.register(password, name);
        const store = new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password });
        await store.getJobState('j').catch(() => {});
        if (close) { await store.close(); kept.push(store); }
      }
      await make('closed', true);
      await make('forgotten', false);
      for (let round = 0; round < 200 && gone.size < 2; round++) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      console.log([...gone].sort().join(), kept.length);`;
    expect(await runNode(source)).toMatchObject({ code: 0, stderr: '', stdout: 'closed,forgotten 1\n' });
  });

  test('worker threads that are ended in the middle of a question, 20 rounds of 4', async () => {
    const worker = `
      import { parentPort } from 'node:worker_threads';
      import { SqlxStateStore } from ${JSON.stringify(INDEX.href)};
      let asked = 0;
      const ask = () => { if (++asked === 3) parentPort.postMessage('asked'); return new Promise(() => {}); };
      const stores = [1, 2, 3].map(() => new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password: ask, connectTimeoutMs: 400 }));
      for (const store of stores) for (let n = 0; n < 5; n++) store.getJobState('j').catch(() => {});`;
    const source = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      let ended = 0;
      async function round() {
        const worker = new Worker(url);
        await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
        await worker.terminate();
        ended++;
      }
      const own = new SqlxStateStore(${JSON.stringify(NOWHERE)}, { password: async () => 'x' });
      for (let n = 0; n < 20; n++) {
        await Promise.all([round(), round(), round(), round()]);
        await own.getJobState('j').catch((error) => { if (error.code !== 'CONNECTION_FAILED') throw error; });
      }
      // The questions of the threads that are gone run out.
      await new Promise((resolve) => setTimeout(resolve, 600));
      console.log(ended);`;
    expect(await runNode(source, { timeout: 120_000 })).toMatchObject({ code: 0, signal: null, stderr: '', stdout: '80\n' });
  }, 150_000);
});
