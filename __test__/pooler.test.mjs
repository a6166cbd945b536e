// PostgreSQL behind PgBouncer in transaction mode, where each transaction may get another server connection: `statementCache: 0`.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { command, json } from './support/command.mjs';
import { databases } from './support/databases.mjs';
import { deadPort } from './support/servers.mjs';
import { makeJob, makeRecord, makeState, newId } from './support/fixtures.mjs';
import { claim, collect, complete, rejection, SqlxStateStore } from './support/suite.mjs';
import { work } from './support/work.mjs';

const script = fileURLToPath(new URL('../scripts/pgbouncer', import.meta.url));
const postgres = databases.find(({ name }) => name === 'postgres');
const range = (count) => Array.from({ length: count }, (_, index) => index);

/** The program; where it can't be had, why. */
const { program, missing } = postgres
  ? await promisify(execFile)(script).then(
      ({ stdout }) => ({ program: stdout.trim() }),
      (error) => ({ missing: String(error.stderr || error.message).trim() }),
    )
  : { missing: 'there is no PostgreSQL' };
const behindPooler = missing === undefined ? test : (name) => test.skip(`${name} [exempt, no PgBouncer: ${missing}]`, () => {});

/** A PgBouncer in front of the server, with fewer connections to it than its clients have. `settings` are lines of its file that come last. */
async function startPooler(serverUrl, settings = '') {
  const server = new URL(serverUrl);
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-pooler-'));
  const port = await deadPort();
  const password = server.password ? ` password=${decodeURIComponent(server.password)}` : '';
  const config = `
[databases]
* = host=${server.hostname} port=${server.port || 5432} user=${decodeURIComponent(server.username)}${password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_round_robin = 1
${process.getuid?.() === 0 ? 'user = nobody' : ''}
${settings}
`;
  await writeFile(join(folder, 'pgbouncer.ini'), config);
  await chmod(folder, 0o755);
  const pooler = spawn(program, [join(folder, 'pgbouncer.ini')], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  pooler.stderr.on('data', (text) => (said += text));
  onTestFinished(async () => {
    if (pooler.exitCode === null) {
      pooler.kill('SIGKILL');
      await once(pooler, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  });
  for (const deadline = Date.now() + 60_000; ;) {
    try {
      await (await postgres.dialect.connect(urlAt(serverUrl, port))).end();
      return port;
    } catch (error) {
      if (Date.now() > deadline || pooler.exitCode !== null)
        throw new Error(`PgBouncer does not answer: ${error.message}\n${said}`, { cause: error });
      await sleep(100);
    }
  }
}

function urlAt(from, port) {
  const url = new URL(from);
  url.hostname = '127.0.0.1';
  url.port = String(port);
  return url.href;
}

async function setUp(options) {
  const own = await postgres.create();
  onTestFinished(() => own.drop());
  const url = urlAt(own.url, await startPooler(own.url));
  const open = async (more) => {
    const store = new SqlxStateStore(url, { statementCache: 0, ...options, ...more });
    onTestFinished(() => store.close());
    return store;
  };
  return { own, url, open };
}

describe('a store behind a transaction pooler', () => {
  behindPooler('works as without one, with many calls at once', async () => {
    const { open } = await setUp();
    const store = await open({ pool: { max: 10 } });
    await store.initialize();
    await store.initialize();
    const job = makeJob(200);
    await Promise.all(
      job.batches.map((batch) =>
        store.saveBatchRecords(
          job.id,
          batch.id,
          range(10).map((n) => makeRecord(batch.index * 10 + n, { status: 'pending' })),
        ),
      ),
    );
    await store.saveJobState(job);
    const stores = [store, await open({ pool: { max: 10 } })];
    const results = await Promise.all(range(16).map((n) => work(stores[n % 2], job.id, `w${n}`, { releaseEvery: 9 })));
    expect(results.flatMap(({ completed }) => completed).toSorted((a, b) => a - b)).toEqual(range(200));
    expect(results.reduce((sum, { finalized }) => sum + finalized, 0)).toBe(1);
    expect((await store.getJobState(job.id)).status).toBe('COMPLETED');
    expect(await collect(store.records(job.id))).toHaveLength(2_000);
    expect(await store.getPendingRecords(job.id)).toHaveLength(2_000);
    expect((await store.listJobs()).map(({ id }) => id)).toEqual([job.id]);
    expect(await store.deleteJob(job.id)).toBe(true);
  });

  behindPooler('the command works with pgbouncer=true, and says without it what is missing', async () => {
    const { url, open } = await setUp();
    const store = await open();
    await store.initialize();
    const { code, value } = await json(['doctor'], { url: `${url}?pgbouncer=true` });
    expect({ code, value }).toMatchObject({ code: 0, value: { ok: true } });
    expect(value.checks.find(({ name }) => name === 'pooler')).toMatchObject({
      mark: 'ok',
      saw: expect.stringMatching(/transaction pooler/),
    });
    const without = await json(['doctor'], { url });
    expect(without).toMatchObject({ code: 4, stderr: '', value: { ok: false, checks: [{ name: 'reachable', mark: 'fail' }] } });
    expect(without.value.checks[0].saw).toMatch(/pooler.*pgbouncer=true/);
  });

  behindPooler('doctor warns of one that works without pgbouncer=true, as it does in session mode', async () => {
    const own = await postgres.create();
    onTestFinished(() => own.drop());
    await command(['init'], { url: own.url });
    const settings = 'pool_mode = session\nignore_startup_parameters = extra_float_digits, options';
    const { code, value } = await json(['doctor'], { url: urlAt(own.url, await startPooler(own.url, settings)) });
    expect({ code, ok: value.ok }).toEqual({ code: 0, ok: true });
    expect(value.checks.find(({ name }) => name === 'pooler')).toMatchObject({
      mark: 'warn',
      saw: expect.stringMatching(/pooler/),
      todo: expect.stringContaining('put pgbouncer=true into the URL'),
    });
  });

  behindPooler('fences, renews and reclaims', async () => {
    const { own, open } = await setUp({ leaseRenewal: { everyMs: 100, forMs: 60_000 } });
    const [old, young] = [await open(), await open()];
    await old.initialize();
    const job = makeJob(2);
    await old.saveJobState(job);
    const held = await claim(old, job.id, 'old');
    await Promise.all(range(50).map((n) => old.saveProcessedRecord(job.id, held.batchId, makeRecord(n))));
    await own.query(`update "batchactions_batches" set "status" = 'PENDING', "version" = "version" + 1 where "id" = ?`, [held.batchId]);
    await claim(young, job.id, 'young');
    await rejection(old.saveProcessedRecord(job.id, held.batchId, makeRecord(0, { status: 'failed' })), 'LEASE_LOST');
    await rejection(old.updateBatchState(job.id, held.batchId, makeState(held.batchId, 'FAILED')), 'LEASE_LOST');
    await complete(young, job.id, held.batchId);
    expect(await young.reclaimStaleBatches(job.id, 60_000)).toBe(0);
    expect(await young.getFailedRecords(job.id)).toEqual([]);
  });

  behindPooler('keeps to its schema, which no server connection remembers', async () => {
    const { own, open } = await setUp();
    const stores = await Promise.all(['one', 'two "quoted"'].map((schema) => open({ schema })));
    for (const store of stores) await store.initialize();
    const id = newId();
    await Promise.all(
      stores.flatMap((store, n) => range(40).map((index) => store.saveProcessedRecord(id, 'b', makeRecord(index, { raw: { n } })))),
    );
    for (const [n, store] of stores.entries()) {
      expect((await store.getBatchRecords(id, 'b')).map(({ raw }) => raw.n)).toEqual(range(40).map(() => n));
    }
    expect((await own.query(`select count(*)::int as "n" from "one"."batchactions_records"`))[0].n).toBe(40);
  });

  behindPooler('claims by the index there, too', async () => {
    const { own, open } = await setUp();
    const store = await open();
    await store.initialize();
    await store.saveJobState(makeJob(20_000));
    const job = (await store.listJobs())[0];
    await own.query('analyze');
    const read = async () =>
      Number((await own.query(`select seq_tup_read as "n" from pg_stat_user_tables where relname = 'batchactions_batches'`))[0].n);
    const before = await read();
    for (const n of range(50)) await complete(store, job.id, (await claim(store, job.id, `w${n}`)).batchId);
    await expect.poll(read, { timeout: 5_000 }).toBe(before);
  });

  behindPooler('says what to do where it is not told of the pooler', async () => {
    const { url } = await setUp();
    const store = new SqlxStateStore(url);
    onTestFinished(() => store.close());
    const error = await store.initialize().then(
      () => expect.fail('it resolved'),
      (reason) => reason,
    );
    expect(error.message).toContain('statementCache: 0');
  });
});
