// Guarantees of the dashboard's handler: where it can be mounted, what it answers, and whom it refuses.

import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { createDashboard } from '../../dashboard/index.js';
import { Fresh } from '../../dashboard/lib/fresh.js';
import { StateStoreError } from '../../index.js';
import { makeJob, makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { claim, complete, onEveryDatabase, prepare } from '../support/suite.mjs';
import { storeOn } from '../support/store.mjs';
import { act, ask, MOUNTS, serve } from './serve.mjs';

const FINAL_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A store in memory for what does not depend on the database. */
let memory;
beforeAll(async () => {
  memory = storeOn('sqlite::memory:');
  await memory.initialize();
});
afterAll(() => memory.close());

/** A finished job with failed and invalid records. */
async function makeFailed(store, records) {
  const job = makeJob(1, { size: records.length });
  await store.saveJobState(job);
  const { batchId } = await claim(store, job.id);
  await store.saveBatchRecords(job.id, batchId, records);
  await complete(store, job.id, batchId);
  await store.tryFinalizeJob(job.id);
  return job.id;
}

const failed = (index, raw, fields) =>
  makeRecord(index, { status: 'invalid', raw, errors: [{ field: 'email', code: 'REQUIRED', message: 'email is missing' }], ...fields });

describe.each(MOUNTS)('in $name', ({ mount }) => {
  test('pages, scripts, data and actions are served below a path', async () => {
    const job = makeJob(3);
    await prepare(memory, job);
    const url = await mount(memory, { actions: true, showRecords: true });
    for (const [path, type] of [
      ['', 'text/html'],
      [`job?id=${job.id}`, 'text/html'],
      ['page.js', 'text/javascript'],
      ['jobs.js', 'text/javascript'],
      ['job.js', 'text/javascript'],
      ['style.css', 'text/css'],
      ['icon.svg', 'image/svg+xml'],
      ['api/jobs', 'application/json'],
      [`api/job?id=${job.id}`, 'application/json'],
      [`failed.csv?id=${job.id}`, 'text/csv'],
      [`failed.ndjson?id=${job.id}`, 'application/x-ndjson'],
    ]) {
      const answer = await ask(url, path);
      expect([path, answer.status, answer.headers['content-type']]).toEqual([path, 200, expect.stringContaining(type)]);
      expect(answer.headers).toMatchObject({
        'content-security-policy': FINAL_POLICY,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-store',
        'cross-origin-resource-policy': 'same-origin',
      });
    }
    expect(await act(url, 'pause', { id: job.id })).toMatchObject({ status: 200, json: { changed: true } });
    expect(await memory.getJob(job.id)).toMatchObject({ status: 'PAUSED' });
    expect(await ask(url, 'nowhere')).toMatchObject({ status: 404 });
  });

  test('without the slash at its end the address leads to the one with it, relative and with its parameters', async () => {
    const url = await mount(memory);
    expect(await ask(url, '!/batches?status=FAILED')).toMatchObject({ status: 308, headers: { location: './batches/?status=FAILED' } });
  });

  test('all links of the pages are relative', async () => {
    const url = await mount(memory);
    for (const path of ['', 'job?id=x']) {
      const { text } = await ask(url, path);
      const links = [...text.matchAll(/(?:href|src)="([^"]*)"/g)].map(([, link]) => link);
      expect(links.length).toBeGreaterThan(3);
      for (const link of links) expect(link).not.toMatch(/^\/|:/);
    }
  });

  test('a body that is too large is refused', async () => {
    const url = await mount(memory, { actions: true });
    const { status } = await act(url, 'pause', { id: 'x'.repeat(20_000) });
    expect([400, 413]).toContain(status);
  });
});

onEveryDatabase((on) => {
  test('jobs come newest first, filtered, counted and in pages', async () => {
    const own = await on.createEmpty();
    const store = storeOn(own.url);
    onTestFinished(() => store.close());
    await store.initialize();
    const ids = [];
    for (let i = 0; i < 60; i++) {
      const job = makeJob(1, { startedAt: 1_700_000_000_000 + i, ...(i % 3 === 0 && { status: 'COMPLETED' }) });
      await store.saveJobState(job);
      ids.unshift(job.id);
    }
    const url = await serve(store);
    const first = (await ask(url, 'api/jobs')).json;
    expect(first.jobs.map(({ id }) => id)).toEqual(ids.slice(0, 50));
    expect(first.counts).toMatchObject({ COMPLETED: 20, PROCESSING: 40, FAILED: 0 });
    const second = (await ask(url, `api/jobs?${new URLSearchParams(first.next)}`)).json;
    expect(second.jobs.map(({ id }) => id)).toEqual(ids.slice(50));
    expect(second.next).toBeUndefined();
    const done = (await ask(url, 'api/jobs?status=COMPLETED')).json;
    expect(done.jobs.map(({ status }) => status)).toEqual(Array(20).fill('COMPLETED'));
  });

  test('a job comes with its progress, holders and ages of claims, and a stale one is marked', async () => {
    const job = makeJob(4);
    await prepare(on.store, job);
    await claim(on.store, job.id, 'worker-1');
    if (on.has('raw')) await on.backdate(job.id, 10_000_000);
    await claim(on.store, job.id, 'worker-2');
    await complete(on.store, job.id, (await claim(on.store, job.id, 'worker-3')).batchId);
    const url = await serve(on.store);
    const { json } = await ask(url, `api/job?id=${job.id}`);
    expect(json).toMatchObject({
      job: { id: job.id, status: 'PROCESSING', totalRecords: 40, distributed: true },
      counts: { total: 4, COMPLETED: 1, PROCESSING: 2, PENDING: 1, FAILED: 0, PAUSED: 0 },
      allowed: { actions: false, showRecords: false },
    });
    expect(json.batches.map(({ index, status, workerId, stale }) => [index, status, workerId, stale])).toEqual([
      [0, 'PROCESSING', 'worker-1', on.has('raw')],
      [1, 'PROCESSING', 'worker-2', false],
      [2, 'COMPLETED', 'worker-3', false],
      [3, 'PENDING', undefined, false],
    ]);
    expect(json.batches[1].claimAgeMs).toBeGreaterThanOrEqual(0);
    expect(json.batches[1].claimAgeMs).toBeLessThan(900_000);
    const page = (await ask(url, `api/job?id=${job.id}&status=PROCESSING&after=0`)).json;
    expect(page.batches.map(({ index }) => index)).toEqual([1]);
  });

  test('batches come in pages of 100', async () => {
    const job = makeJob(130, { size: 1 });
    await on.store.saveJobState(job);
    const url = await serve(on.store);
    const first = (await ask(url, `api/job?id=${job.id}`)).json;
    expect([first.batches.length, first.batches[0].index, first.next]).toEqual([100, 0, 99]);
    const second = (await ask(url, `api/job?id=${job.id}&after=99`)).json;
    expect([second.batches.length, second.batches[0].index, second.next]).toEqual([30, 100, undefined]);
  });

  test('errors are counted by field and code, and failed rows come in pages', async () => {
    const records = Array.from({ length: 120 }, (_, i) =>
      i % 2 ? failed(i, { email: '' }) : makeRecord(i, { status: 'failed', processingError: `no rate for ${i % 4}` }),
    );
    const id = await makeFailed(on.store, records);
    const hidden = (await ask(await serve(on.store), `api/errors?id=${id}`)).json;
    expect(hidden).toMatchObject({ rows: 120, complete: true, limit: 10_000 });
    expect(hidden.groups).toHaveLength(2);
    expect(hidden.groups).toContainEqual({ field: 'email', code: 'REQUIRED', count: 60 });
    expect(hidden.groups).toContainEqual({ field: '', code: 'Processing', count: 60 });

    const url = await serve(on.store, { showRecords: true });
    const shown = (await ask(url, `api/errors?id=${id}`)).json;
    expect(shown.groups).toContainEqual({ field: 'email', code: 'REQUIRED', count: 60, example: 'email is missing' });
    expect(shown.groups).toContainEqual({ field: '', code: 'Processing: no rate for 2', count: 30, example: 'no rate for 2' });
    const first = (await ask(url, `api/rows?id=${id}`)).json;
    expect([first.rows.length, first.next]).toEqual([50, 50]);
    expect(first.rows[1]).toEqual({ index: 1, status: 'invalid', errors: 'email: email is missing (REQUIRED)', raw: '{"email":""}' });
    const third = (await ask(url, `api/rows?id=${id}&from=100`)).json;
    expect([third.rows.length, third.rows[0].index, third.next]).toEqual([20, 100, undefined]);
  });

  test('every action does what the method of its name does', async () => {
    const own = await on.createEmpty();
    const store = storeOn(own.url);
    onTestFinished(() => store.close());
    await store.initialize();
    const url = await serve(store, { actions: true, staleAfterMs: 1 });
    const job = makeJob(2);
    await prepare(store, job);
    const ok = async (name, body) => {
      const answer = await act(url, name, body);
      expect([name, answer.status, answer.text]).toEqual([name, 200, expect.any(String)]);
      return answer.json;
    };
    expect(await ok('pause', { id: job.id })).toEqual({ changed: true });
    expect(await ok('pause', { id: job.id })).toEqual({ changed: false });
    expect(await ok('resume', { id: job.id })).toEqual({ changed: true });
    const { batchId } = await claim(store, job.id);
    await vi.waitUntil(async () => (await ok('reclaim', { id: job.id })).count === 1, { timeout: 60_000 });
    expect((await claim(store, job.id)).batchId).toBe(batchId);
    await store.saveProcessedRecord(job.id, batchId, makeRecord(0, { status: 'failed', processingError: 'no' }));
    expect(await ok('abort', { id: job.id, now: true })).toEqual({ changed: true });
    expect(await store.getJob(job.id)).toMatchObject({ status: 'ABORTED' });
    const { made } = await ok('retry', { id: job.id });
    expect(made).toMatchObject({ totalRecords: 1, totalBatches: 1 });
    expect(await store.getJob(made.jobId)).toMatchObject({ config: { retryOf: job.id } });
    expect(await ok('purge', { olderThanMs: 0, dryRun: true })).toMatchObject({ jobs: 1, records: 20 });
    expect(await store.getJob(job.id)).not.toBeNull();
    expect(await ok('purge', { olderThanMs: 0 })).toMatchObject({ jobs: 1, records: 20, more: false });
    expect(await store.getJob(job.id)).toBeNull();
    expect(await store.getJob(made.jobId)).not.toBeNull();
  });

  test('what the store refuses is a sentence with its code', async () => {
    const url = await serve(on.store, { actions: true });
    const job = makeLocalJob(1);
    await on.store.saveJobState(job);
    const { status, json, text } = await act(url, 'pause', { id: job.id });
    expect(status).toBe(400);
    expect(json.error).toEqual({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('distributed') });
    expect(text).not.toContain(' at ');
  });
});

describe('failed rows as files', () => {
  const records = [
    failed(0, { name: 'Ada', note: '=HYPERLINK("http://x")', 'a,b': 1 }),
    failed(
      1,
      { name: '@cmd', amount: '-12.5', note: 'x;=1+1' },
      { errors: [{ field: 'a', message: 'one', code: 'C' }, { message: 'two' }] },
    ),
    makeRecord(2, {
      status: 'failed',
      raw: { name: '-cmd', nested: { a: [1] }, __proto__: null, zero: 0, no: null },
      processingError: '+boom',
    }),
  ];

  test('are CSV with a column for each field, in which no cell is a formula', async () => {
    const id = await makeFailed(memory, records);
    const { text, headers } = await ask(await serve(memory, { showRecords: true }), `failed.csv?id=${id}`);
    expect(headers['content-disposition']).toBe(`attachment; filename="failed-${id}.csv"`);
    expect(text.split('\r\n')).toEqual([
      '\uFEFFname,note,"a,b",amount,nested,zero,no,_index,_status,_errors,_processingError',
      `Ada,"'=HYPERLINK(""http://x"")",1,,,,,0,invalid,email: email is missing (REQUIRED),`,
      `'@cmd,"x;'=1+1",,-12.5,,,,1,invalid,"a: one (C); two",`,
      `'-cmd,,,,"{""a"":[1]}",0,,2,failed,,'+boom`,
      '',
    ]);
  });

  test('are NDJSON with everything', async () => {
    const id = await makeFailed(memory, records);
    const { text } = await ask(await serve(memory, { showRecords: true }), `failed.ndjson?id=${id}`);
    const lines = text.split('\n');
    expect(lines.pop()).toBe('');
    expect(lines.map((line) => JSON.parse(line))).toEqual(JSON.parse(JSON.stringify(records)));
  });

  test('pass through redact, and so do the rows and errors that are shown', async () => {
    const id = await makeFailed(memory, records);
    const redact = async (record) => ({ ...record, raw: { name: 'hidden' }, errors: [], processingError: undefined });
    const url = await serve(memory, { showRecords: true, redact });
    for (const path of ['failed.csv', 'failed.ndjson', 'api/rows', 'api/errors']) {
      const { status, text } = await ask(url, `${path}?id=${id}`);
      expect([path, status]).toEqual([path, 200]);
      for (const secret of ['Ada', 'cmd', 'boom', 'missing', 'two', 'nested']) expect(text).not.toContain(secret);
    }
  });

  test('a redact that throws, or forgets to return, gives a sentence and tells onError', async () => {
    const id = await makeFailed(memory, records);
    for (const redact of [
      () => {
        throw new Error('secret of mine');
      },
      () => undefined,
    ]) {
      const onError = vi.fn();
      const url = await serve(memory, { showRecords: true, redact, onError });
      for (const path of ['failed.csv', 'failed.ndjson', 'api/rows', 'api/errors']) {
        const { status, text } = await ask(url, `${path}?id=${id}`);
        expect([path, status]).toEqual([path, 500]);
        expect(text).not.toContain('secret');
        expect(text).not.toContain('Ada');
      }
      expect(onError).toHaveBeenCalledTimes(4);
    }
  });

  test('are written no faster than they are taken', async () => {
    let given = 0;
    const store = {
      ...Object.fromEntries(
        ['listJobs', 'getProgress', 'batches', 'stats', 'getDistributedStatus', 'ping'].map((name) => [name, () => {}]),
      ),
      getJob: async () => ({ id: 'j' }),
      async *records() {
        for (; given < 1_000_000; given++) yield failed(given, { text: 'x'.repeat(10_000) });
      },
    };
    const { hostname, port } = new URL(await serve(store, { showRecords: true }));
    const socket = connect(port, hostname);
    socket.pause();
    socket.write('GET /failed.ndjson?id=j HTTP/1.1\r\nhost: localhost\r\n\r\n');
    // Until it has stood still: the buffers between are full.
    let before = -1;
    await vi.waitUntil(
      () => {
        const still = given > 0 && given === before;
        before = given;
        return still;
      },
      { timeout: 60_000, interval: 500 },
    );
    expect(given).toBeLessThan(100_000);
    socket.destroy();
    // The reading ends with the client.
    await once(socket, 'close');
  });

  test('the answer breaks off, and does not end as if it were whole, where the database fails in the middle', async () => {
    const store = {
      ...Object.fromEntries(
        ['listJobs', 'getProgress', 'batches', 'stats', 'getDistributedStatus', 'ping'].map((name) => [name, () => {}]),
      ),
      getJob: async () => ({ id: 'j' }),
      async *records() {
        for (let i = 0; i < 100; i++) yield failed(i, { text: 'x'.repeat(10_000) });
        throw new StateStoreError('the connection ended', { code: 'CONNECTION_LOST' });
      },
    };
    await expect(ask(await serve(store, { showRecords: true }), 'failed.ndjson?id=j')).rejects.toThrow(/aborted|ECONNRESET/);
  });
});

describe('records are hidden', () => {
  test.each(['failed.csv', 'failed.ndjson', 'api/rows'])('%s is 403 without showRecords', async (path) => {
    const id = await makeFailed(memory, [failed(0, { email: 'ada' })]);
    const answer = await ask(await serve(memory), `${path}?id=${id}`);
    expect(answer.status).toBe(403);
    expect(answer.text).toContain('showRecords');
    expect(answer.text).not.toContain('ada');
  });

  test('no value of a record is in any answer without showRecords', async () => {
    const id = await makeFailed(memory, [
      failed(
        0,
        { email: 'topsecret' },
        { errors: [{ field: 'email', code: 'X', message: 'topsecret is no address', value: 'topsecret' }] },
      ),
      makeRecord(1, { status: 'failed', raw: {}, processingError: 'topsecret failed' }),
    ]);
    const url = await serve(memory);
    for (const path of ['api/jobs', `api/job?id=${id}`, `api/errors?id=${id}`])
      expect((await ask(url, path)).text).not.toContain('topsecret');
  });
});

describe('without authorize', () => {
  test.each(['localhost', 'localhost:8080', 'LOCALHOST', '127.0.0.1', '127.8.9.1:80', '[::1]', '[::1]:3000'])(
    'Host %s is answered',
    async (host) => {
      expect(await ask(await serve(memory), 'api/jobs', { headers: { host } })).toMatchObject({ status: 200 });
    },
  );

  test.each([
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'localhost@evil.example',
    '10.0.0.1',
    '[::2]',
    '',
    'localhost:80:80',
    '0.0.0.0',
    'a.localhost',
  ])('Host %j is refused: another site may resolve to this machine', async (host) => {
    for (const path of ['', 'api/jobs', 'style.css']) {
      const { status, text } = await ask(await serve(memory), path, { headers: { host } });
      expect(status).toBe(403);
      expect(text).toMatch(/localhost/);
    }
  });

  test.each([
    ['x-forwarded-for', '127.0.0.1'],
    ['X-Forwarded-For', ''],
    ['forwarded', 'for=127.0.0.1'],
    ['x-forwarded-host', 'localhost'],
    ['x-real-ip', '::1'],
    ['via', '1.1 proxy'],
    ...[
      'X-Original-Forwarded-For',
      'Fastly-Client-IP',
      'X-Cluster-Client-IP',
      'X-Envoy-External-Address',
      'Client-IP',
      'True-Client-IP',
    ].map((name) => [name, '10.0.0.1']),
  ])('a request with %s is refused', async (name, value) => {
    const { status, text } = await ask(await serve(memory), 'api/jobs', { headers: { [name]: value } });
    expect(status).toBe(403);
    expect(text).toContain('proxy');
  });

  test('a request from another address is refused, whatever its headers say', async () => {
    const address = Object.values(networkInterfaces())
      .flat()
      .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
    const check = async (port, host) => {
      const answer = await ask(`http://${host}:${port}/`, 'api/jobs', { headers: { host: 'localhost' } });
      expect(answer.status).toBe(403);
      expect(answer.text).toContain('authorize');
    };
    if (address) {
      const server = createServer(createDashboard(memory)).listen(0, '0.0.0.0');
      await once(server, 'listening');
      onTestFinished(() => server.close());
      await check(server.address().port, address);
    }
    // As it would be: the socket's address is what counts.
    const dashboard = createDashboard(memory);
    for (const remoteAddress of ['10.1.2.3', '::ffff:10.1.2.3', '128.0.0.1', undefined]) {
      const server = createServer((request, response) => {
        const seen = new Proxy(request, {
          get: (target, key) => (key === 'socket' ? { remoteAddress } : Reflect.get(target, key, target)),
        });
        return dashboard(seen, response);
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      onTestFinished(() => server.close());
      await check(server.address().port, '127.0.0.1');
    }
  });
});

describe('with authorize', () => {
  const far = { headers: { host: 'jobs.example', 'x-forwarded-for': '10.0.0.1' } };

  test('it is asked for every request, and true lets it pass from anywhere', async () => {
    const authorize = vi.fn(async () => true);
    const url = await serve(memory, { authorize });
    for (const path of ['', 'api/jobs', 'style.css', 'nowhere']) await ask(url, path, far);
    expect(authorize).toHaveBeenCalledTimes(4);
    expect(await ask(url, 'api/jobs', far)).toMatchObject({ status: 200 });
  });

  test.each([
    ['false', () => false, 0],
    ['a promise of false', async () => false, 0],
    ['undefined', () => {}, 1],
    ['a user', async () => ({ name: 'ada' }), 1],
    ['1', () => 1, 1],
    [
      'a throw',
      () => {
        throw new Error('secret');
      },
      1,
    ],
    ['a rejection', () => Promise.reject(new Error('secret')), 1],
  ])('%s refuses everything, on this machine too', async (_, authorize, reported) => {
    const onError = vi.fn();
    const url = await serve(memory, { authorize, onError, actions: true, showRecords: true });
    const answers = [await ask(url), await ask(url, 'api/jobs'), await ask(url, 'style.css'), await act(url, 'pause', { id: 'x' })];
    for (const { status, text } of answers) {
      expect(status).toBe(403);
      expect(text).toMatch(/\w+ .*\./);
      expect(text).not.toContain('secret');
    }
    expect(onError).toHaveBeenCalledTimes(reported * answers.length);
  });

  test('it may answer the request itself', async () => {
    const authorize = (_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic' }).end('who are you?');
      return true;
    };
    expect(await ask(await serve(memory, { authorize }), 'api/jobs')).toMatchObject({ status: 401, text: 'who are you?' });
  });
});

describe('addresses and methods', () => {
  test.each([
    'nowhere',
    'api',
    'api/',
    'api/constructor',
    '__proto__',
    'constructor',
    'index.html',
    'jobs.html',
    '../package.json',
    'assets/page.js',
    '..%2fpackage.json',
    '%2e%2e/package.json',
    '....//package.json',
    'page.js/',
    'page.js%00',
    '/page.js',
    './page.js',
    'lib/access.js',
    '%',
    'JOB',
  ])('%s is 404', async (path) => {
    const { status, text } = await ask(await serve(memory), path);
    expect(status).toBe(404);
    expect(text).toContain('nothing at this address');
    expect(text).not.toContain('batchactions');
  });

  test('outside its path everything is 404, and a request for a whole URL is 400', async () => {
    const url = await MOUNTS[0].mount(memory);
    for (const path of ['!/', '!/batchesjob', '!/batches2/', '!//batches/']) expect(await ask(url, path)).toMatchObject({ status: 404 });
    expect(await ask(url, '!http://evil.example/batches/')).toMatchObject({ status: 400 });
  });

  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE'])('%s of a page is 405, with Allow', async (method) => {
    const url = await serve(memory, { actions: true });
    for (const path of ['', 'job?id=x', 'api/jobs', 'style.css', 'failed.csv?id=x']) {
      const answer = await ask(url, path, { method });
      expect(answer).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' }, text: expect.stringContaining('GET and HEAD') });
    }
  });

  test.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'])('%s of an action is 405, with Allow', async (method) => {
    const url = await serve(memory, { actions: true });
    for (const name of ['pause', 'resume', 'abort', 'retry', 'reclaim', 'purge'])
      expect(await ask(url, `api/${name}`, { method })).toMatchObject({ status: 405, headers: { allow: 'POST' } });
  });

  test('HEAD answers as GET, without a body', async () => {
    const id = await makeFailed(memory, [failed(0, {})]);
    const url = await serve(memory, { showRecords: true });
    for (const path of ['', 'api/jobs', 'page.js', `failed.csv?id=${id}`]) {
      const [head, get] = [await ask(url, path, { method: 'HEAD' }), await ask(url, path)];
      expect([head.status, head.text, head.headers['content-type']]).toEqual([200, '', get.headers['content-type']]);
    }
  });
});

describe('bad questions', () => {
  test.each([
    ['api/job', 'id is missing'],
    ['api/job?id=', 'id must be'],
    [`api/job?id=${'x'.repeat(300)}`, 'id must be'],
    ['api/job?id=a&id=b', 'twice'],
    ['api/job?id=a&status=NO', 'status must be one of'],
    ['api/job?id=a&after=1.5', 'after must be a whole number'],
    ['api/job?id=a&after=1e3', 'after must be'],
    ['api/job?id=a&after=99999999999999999999', 'after must be'],
    ['api/jobs?status=constructor', 'status must be one of'],
    ['api/jobs?status=', 'status must be one of'],
    ['api/jobs?limit=1', 'no parameter \\"limit\\"'],
    ['api/jobs?__proto__=1', 'no parameter'],
    ['api/rows?id=a&from=x', 'from must be'],
    ['api/errors', 'id is missing'],
    ['failed.csv', 'id is missing'],
  ])('%s is 400', async (path, says) => {
    const { status, text } = await ask(await serve(memory, { showRecords: true }), path);
    expect([status, text]).toEqual([400, expect.stringContaining(says)]);
  });

  test.each(['api/job', 'api/errors', 'api/rows', 'failed.csv', 'failed.ndjson'])('%s of an unknown job is 404', async (path) => {
    for (const id of ['nowhere', '../../etc', "' or 1=1 --", '%F0%9F%9A%B4', '<script>']) {
      const { status, text } = await ask(await serve(memory, { showRecords: true }), `${path}?id=${id}`.replaceAll(' ', '+'));
      expect([status, text]).toEqual([404, expect.stringContaining('There is no job')]);
    }
  });

  test('an id with U+0000, or longer than the column, has an answer with a sentence', async () => {
    const url = await serve(memory);
    for (const id of ['a%00b', 'x'.repeat(200)]) {
      const { status, json } = await ask(url, `api/job?id=${id}`);
      expect([400, 404]).toContain(status);
      expect(json.error.message.length).toBeGreaterThan(10);
    }
  });
});

describe('actions', () => {
  const NAMES = ['pause', 'resume', 'abort', 'retry', 'reclaim', 'purge'];

  test.each(NAMES)('%s is refused unless actions is true', async (name) => {
    const job = makeJob(1);
    await prepare(memory, job);
    const { status, json } = await act(await serve(memory), name, { id: job.id, olderThanMs: 0 });
    expect([status, json.error.message]).toEqual([403, expect.stringContaining('read-only')]);
    expect(await memory.getJob(job.id)).toMatchObject({ status: 'PROCESSING' });
  });

  test.each(NAMES.filter((name) => name !== 'purge'))('%s of a job that does not exist is 404', async (name) => {
    const { status, json } = await act(await serve(memory, { actions: true }), name, { id: 'nowhere' });
    expect([status, json]).toEqual([404, { error: { code: 'NOT_FOUND', message: 'There is no job "nowhere".' } }]);
  });

  test.each([
    ['no Origin', { origin: undefined }, 403],
    ['the Origin of another site', { origin: 'https://evil.example' }, 403],
    ['the Origin of another port', { origin: 'http://127.0.0.1:1' }, 403],
    ['Origin null', { origin: 'null' }, 403],
    ['an Origin that only begins as ours', { origin: (own) => `${own}.evil.example` }, 403],
    ['an Origin with a user', { origin: (own) => own.replace('//', '//evil.example@') }, 403],
    ['a same-site request', { 'sec-fetch-site': 'same-site' }, 403],
    ['a cross-site request', { 'sec-fetch-site': 'cross-site' }, 403],
    ['a request by the address line', { 'sec-fetch-site': 'none' }, 403],
    ['a form', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['plain text', { 'content-type': 'text/plain' }, 415],
    ['no content type', { 'content-type': undefined }, 415],
    ['a content type that begins as JSON', { 'content-type': 'application/json-seq' }, 415],
  ])('%s changes nothing', async (_, headers, expected) => {
    const job = makeJob(1);
    await prepare(memory, job);
    const url = await serve(memory, { actions: true });
    const given = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name, typeof value === 'function' ? value(new URL(url).origin) : value]),
    );
    for (const name of NAMES) {
      const { status, json } = await act(url, name, { id: job.id }, { headers: given });
      expect([name, status, json.error.message]).toEqual([name, expected, expect.stringMatching(/\w+ .*\.$/)]);
    }
    expect(await memory.getJob(job.id)).toMatchObject({ status: 'PROCESSING' });
  });

  test('without Sec-Fetch-Site, which old browsers do not send, the Origin decides', async () => {
    const job = makeJob(1);
    await prepare(memory, job);
    const url = await serve(memory, { actions: true });
    const answer = await act(
      url,
      'pause',
      { id: job.id },
      { headers: { 'sec-fetch-site': undefined, 'content-type': 'Application/JSON; charset=utf-8' } },
    );
    expect(answer).toMatchObject({ status: 200, json: { changed: true } });
  });

  test.each([
    ['pause', 'not json', 'not JSON'],
    ['pause', '', 'not JSON'],
    ['pause', '[]', 'JSON object'],
    ['pause', 'null', 'JSON object'],
    ['pause', {}, 'must have id'],
    ['pause', { id: 1 }, 'id must be a string'],
    ['pause', { id: '' }, 'id must be'],
    ['pause', { id: 'a', force: true }, 'must not have \\"force\\"'],
    ['pause', '{"__proto__": {}, "id": "a"}', 'must not have'],
    ['abort', { id: 'a', now: 'yes' }, 'now must be a boolean'],
    ['purge', {}, 'must have olderThanMs'],
    ['purge', { olderThanMs: -1 }, 'olderThanMs must be'],
    ['purge', { olderThanMs: 1.5 }, 'olderThanMs must be'],
    ['purge', { olderThanMs: 0, statuses: ['PROCESSING'] }, 'must not have'],
  ])('%s with %j is 400', async (name, body, says) => {
    const { status, text } = await act(await serve(memory, { actions: true }), name, body);
    expect([status, text]).toEqual([400, expect.stringContaining(says)]);
  });

  test('a body of more than 16 kB is 413', async () => {
    const url = await serve(memory, { actions: true });
    for (const length of [20_000, 200_000]) expect(await act(url, 'pause', { id: 'x'.repeat(length) })).toMatchObject({ status: 413 });
  });
});

test('scripts and images of other sites read nothing; a link does', async () => {
  const url = await serve(memory);
  for (const site of ['cross-site', 'same-site']) {
    expect(await ask(url, 'api/jobs', { headers: { 'sec-fetch-site': site, 'sec-fetch-mode': 'no-cors' } })).toMatchObject({ status: 403 });
    const navigate = { 'sec-fetch-site': site, 'sec-fetch-mode': 'navigate' };
    for (const [path, dest, status] of [
      ['', 'document', 200],
      ['job?id=x', 'document', 200],
      ['', 'iframe', 403],
      ['failed.csv?id=x', 'document', 403],
      ['failed.ndjson?id=x', 'iframe', 403],
      ['api/jobs', 'document', 403],
    ]) {
      expect([path, dest, await ask(url, path, { headers: { ...navigate, 'sec-fetch-dest': dest } })]).toMatchObject([
        path,
        dest,
        { status },
      ]);
    }
  }
});

/** A store that has one job and these records. */
const storeOf = (records) => ({
  ...Object.fromEntries(['listJobs', 'getProgress', 'batches', 'stats', 'getDistributedStatus', 'ping'].map((name) => [name, () => {}])),
  getJob: async () => ({ id: 'j', status: 'COMPLETED' }),
  records,
});

test('a fifth download at once is refused with a sentence, and is written once another has ended', async () => {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  let begun = 0;
  const url = await serve(
    storeOf(async function* records() {
      begun++;
      await released;
      yield failed(0, { a: 1 });
    }),
    { showRecords: true },
  );
  const four = Array.from({ length: 4 }, () => ask(url, 'failed.ndjson?id=j'));
  await vi.waitUntil(() => begun === 4, { timeout: 60_000 });
  expect(await ask(url, 'failed.ndjson?id=j')).toMatchObject({ status: 429, text: expect.stringContaining('4 downloads are under way') });
  release();
  expect((await Promise.all(four)).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  expect(await ask(url, 'failed.ndjson?id=j')).toMatchObject({ status: 200 });
});

test('odd values of stored records do not end an export or a view', async () => {
  const odd = { toString: 1, valueOf: null };
  const records = [
    { index: 0, status: 'failed', raw: null, errors: null, processingError: null },
    { index: 1, status: 'failed', raw: { a: odd }, errors: { length: 1 }, processingError: odd },
    { index: 2, status: odd, raw: ['x'], errors: [null, 1, 'text', odd, { field: odd, message: odd, code: null }] },
    { index: 3, status: 'failed', raw: 'text' },
  ];
  const url = await serve(
    storeOf(async function* all() {
      yield* structuredClone(records);
    }),
    { showRecords: true },
  );
  for (const path of ['failed.csv', 'failed.ndjson', 'api/rows', 'api/errors']) {
    const { status, text } = await ask(url, `${path}?id=j`);
    expect([path, status]).toEqual([path, 200]);
    expect(text).toContain('toString');
  }
});

test.each([
  [
    'throws',
    () => {
      throw new Error('no log');
    },
  ],
  [
    'rejects',
    async () => {
      throw new Error('no log');
    },
  ],
])('an onError that %s becomes a warning, and the request is answered', async (_, onError) => {
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  onTestFinished(() => warned.mockRestore());
  const authorize = () => Promise.reject(new Error('no users'));
  expect(await ask(await serve(memory, { authorize, onError }), 'api/jobs')).toMatchObject({ status: 403 });
  await vi.waitUntil(() => warned.mock.calls.length === 2);
  expect(warned.mock.calls.map(([error]) => error.message)).toEqual(['no users', 'no log']);
});

test('an answer is as old as the beginning of its reading', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => vi.useRealTimers());
  const fresh = new Fresh();
  const load = vi.fn(async () => vi.advanceTimersByTime(29_000));
  const { readAt, until } = await fresh.get('slow', load);
  expect([performance.now() - readAt, until - performance.now()]).toEqual([29_000, 29_000]);
  await fresh.get('slow', load);
  expect(load).toHaveBeenCalledOnce();
});

test.each([
  [{ share: 0.1 }, 300, 3_000],
  [{ share: 0.1 }, 30_000, 300_000],
  [{ share: 0.1 }, 60_000, 600_000],
  [{ share: 0.1 }, 90_000, 600_000],
  [{ share: 0.5 }, 30_000, 60_000],
  [{ share: 0.1 }, 50, 1_000],
])('an answer with %j that took %d ms is kept for %d ms', async (options, took, kept) => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => vi.useRealTimers());
  const fresh = new Fresh();
  const load = vi.fn(async () => vi.advanceTimersByTime(took));
  await fresh.get('count', load, options);
  vi.advanceTimersByTime(kept - 1);
  await fresh.get('count', load, options);
  expect(load).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(1);
  await fresh.get('count', load, options);
  expect(load).toHaveBeenCalledTimes(2);
});

test('a client that goes away in the middle of a body is not told to onError', async () => {
  const onError = vi.fn();
  const dashboard = createDashboard(memory, { actions: true, onError });
  let answered;
  const server = createServer((request, response) => {
    answered = dashboard(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => server.close());
  const { port } = server.address();
  const socket = connect(port, '127.0.0.1');
  socket.write(
    `POST /api/pause HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\norigin: http://127.0.0.1:${port}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id"`,
  );
  await vi.waitUntil(() => answered !== undefined, { timeout: 60_000 });
  socket.destroy();
  await answered;
  expect(onError).not.toHaveBeenCalled();
});

describe('an error', () => {
  const broken = (error) => {
    const fail = async () => {
      throw error;
    };
    return new Proxy(memory, { get: (target, key) => (key === 'listJobs' ? fail : target[key]?.bind(target)) });
  };

  test('of the store is a sentence with its code', async () => {
    for (const [code, expected] of [
      ['CONNECTION_FAILED', 503],
      ['TIMEOUT', 503],
      ['CLOSED', 503],
      ['TABLES_MISSING', 500],
      ['INTERNAL', 500],
    ]) {
      const error = new StateStoreError(`what ${code} says`, { code });
      const { status, json, text } = await ask(await serve(broken(error)), 'api/jobs');
      expect([status, json]).toEqual([expected, { error: { code, message: `what ${code} says` } }]);
      expect(text).not.toContain('handler.test');
    }
  });

  test('of anything else is not shown, and goes to onError', async () => {
    const onError = vi.fn();
    const error = new Error('password=hunter2');
    const { status, json, text } = await ask(await serve(broken(error), { onError }), 'api/jobs');
    expect([status, json.error.code]).toEqual([500, 'INTERNAL']);
    expect(text).not.toMatch(/hunter2|handler.test/);
    expect(onError).toHaveBeenCalledExactlyOnceWith(error);
  });

  test('of a lost database leaves no password in the answer', async () => {
    const store = storeOn('postgres://ada:hunter2@127.0.0.1:1/app', { statementTimeoutMs: 200 });
    onTestFinished(() => store.close());
    const { status, json, text } = await ask(await serve(store), 'api/jobs');
    expect([status, json.error.code]).toEqual([503, 'CONNECTION_FAILED']);
    expect(text).not.toContain('hunter2');
  });
});

test('twenty open pages ask the database once', async () => {
  const calls = vi.fn();
  const store = new Proxy(memory, {
    get: (target, key) => (typeof target[key] === 'function' ? (...args) => (calls(key), target[key](...args)) : target[key]),
  });
  const url = await serve(store);
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(url, 'api/jobs')));
  for (const { status } of answers) expect(status).toBe(200);
  for (const name of ['listJobs', 'stats', 'ping']) expect(calls.mock.calls.filter(([key]) => key === name)).toHaveLength(1);
});

test('what an action changed is seen by the next question', async () => {
  const job = makeJob(1);
  await prepare(memory, job);
  const url = await serve(memory, { actions: true });
  for (const [name, status] of [
    ['pause', 'PAUSED'],
    ['resume', 'PROCESSING'],
    ['abort', 'ABORTED'],
  ]) {
    await ask(url, `api/job?id=${job.id}`);
    await act(url, name, { id: job.id });
    expect((await ask(url, `api/job?id=${job.id}`)).json.job.status).toBe(status);
  }
});

describe('createDashboard', () => {
  test.each([
    [{ autorize: () => true }, /no option autorize; there are authorize/],
    [{ authorize: true }, /authorize must be a function/],
    [{ authorize: null }, /authorize must be a function/],
    [{ actions: 'yes' }, /actions must be true or false/],
    [{ showRecords: 1 }, /showRecords must be/],
    [{ redact: {} }, /redact must be a function/],
    [{ staleAfterMs: 0 }, /staleAfterMs must be/],
    [{ basePath: 'batches' }, /basePath must be a path/],
    [{ basePath: '/batches/' }, /basePath must be a path/],
    [null, /options must be an object/],
  ])('%j is refused', (options, says) => {
    expect(() => createDashboard(memory, options)).toThrow(says);
  });

  test('a store without the methods is refused by name, and a read-only page needs those that read only', () => {
    expect(() => createDashboard({})).toThrow(/no method listJobs/);
    const reads = Object.fromEntries(
      ['listJobs', 'getJob', 'getProgress', 'batches', 'stats', 'getDistributedStatus', 'records', 'ping'].map((name) => [name, () => {}]),
    );
    createDashboard(reads);
    expect(() => createDashboard(reads, { actions: true })).toThrow(/no method pauseJob/);
  });

  test('an id of any characters is a file name that holds none of them', async () => {
    const id = `a/..\\"${newId()};\r\n`.slice(0, 36);
    const job = makeJob(1, { id });
    job.batches[0] = { ...job.batches[0], id: newId('b') };
    await memory.saveJobState(job);
    const { headers } = await ask(await serve(memory, { showRecords: true }), `failed.csv?id=${encodeURIComponent(id)}`);
    expect(headers['content-disposition']).toMatch(/^attachment; filename="failed-[\w-]+\.csv"$/);
  });
});
