/** initialize() called by many at once on an empty database, and again on one that is complete. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { listTables, readCatalogue } from './support/catalogue.mjs';
import { databases } from './support/databases.mjs';
import { startQuietableProxy } from './support/servers.mjs';
import { makeJob, makeRecord } from './support/fixtures.mjs';
import { addressOf, freshDatabase, needs, openStore, prepare, urlThrough } from './support/suite.mjs';

const CHILD = fileURLToPath(new URL('./support/initialize-child.mjs', import.meta.url));
const PROCESSES = 8;
const ROUNDS = 3;

/** Processes that have loaded the package and wait for the word. */
async function startChildren() {
  const children = Array.from({ length: PROCESSES }, () => fork(CHILD, { execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
  onTestFinished(() => children.forEach((child) => child.kill('SIGKILL')));
  await Promise.all(children.map((child) => nextMessage(child)));
  return children;
}

async function nextMessage(child) {
  const ended = new AbortController();
  try {
    return await Promise.race([
      once(child, 'message', ended).then(([message]) => message),
      once(child, 'exit', ended).then(([code, signal]) => `ended with ${code ?? signal} before it answered`),
    ]);
  } finally {
    ended.abort();
  }
}

async function initializeAll(children, message) {
  const outcomes = Promise.all(children.map((child) => nextMessage(child)));
  for (const child of children) child.send(message);
  return outcomes;
}

const everyone = Array.from({ length: PROCESSES }, () => 'done');

for (const database of databases) {
  describe(database.name, () => {
    needs(database, 'shared')(`${PROCESSES} processes at once on an empty database all succeed, ${ROUNDS} times over`, async () => {
      let expected;
      for (let round = 0; round < ROUNDS; round++) {
        const db = await freshDatabase(database);
        const children = await startChildren();
        expect(await initializeAll(children, { url: db.url }), `round ${round + 1}`).toStrictEqual(everyone);
        const made = { tables: await listTables(db), catalogue: await readCatalogue(db) };
        expected ??= made;
        expect(made).toStrictEqual(expected);
        const store = openStore(db);
        await prepare(store, makeJob(3, { id: 'j', size: 2 }));
        expect((await store.claimBatch('j', 'w')).claimed).toBe(true);
      }
    });

    needs(database, 'shared')('stores of one process at once on an empty database all succeed', async () => {
      const db = await freshDatabase(database);
      const stores = Array.from({ length: PROCESSES }, () => openStore(db));
      await Promise.all(stores.map((store) => store.initialize()));
      expect(await stores[0].getJobState('missing')).toBeNull();
    });

    needs(database, 'shared')('changes nothing where everything is there, while others work', async () => {
      const db = await freshDatabase(database);
      const store = openStore(db);
      await store.initialize();
      const job = makeJob(20, { id: 'j', size: 2 });
      await prepare(store, job);
      const before = { tables: await listTables(db), catalogue: await readCatalogue(db) };

      const claims = (async () => {
        const ids = [];
        for (let claim; (claim = await store.claimBatch('j', 'w')).claimed;) ids.push(claim.reservation.batchId);
        return ids;
      })();
      await Promise.all(Array.from({ length: 4 }, () => openStore(db).initialize()));

      expect(await claims).toStrictEqual(job.batches.map(({ id }) => id));
      expect({ tables: await listTables(db), catalogue: await readCatalogue(db) }).toStrictEqual(before);
      expect(await store.getPendingRecords('j')).toHaveLength(40);
    });

    needs(database, 'schemas')(`${PROCESSES} processes at once make one schema`, async () => {
      const db = await freshDatabase(database);
      const children = await startChildren();
      expect(await initializeAll(children, { url: db.url, options: { schema: 'imports' } })).toStrictEqual(everyone);
      expect((await listTables(db)).every((name) => name.startsWith('imports.'))).toBe(true);
    });

    needs(database, 'server')(
      'waits while another process makes the tables, and notices a server that falls silent meanwhile',
      async () => {
        const db = await freshDatabase(database);
        const other = await db.connect();
        await database.dialect.lockInitialization(other);
        const proxy = await startQuietableProxy(addressOf(db));
        onTestFinished(() => proxy.close());
        const [behind, straight] = [openStore({ url: urlThrough(proxy.port, db.url) }, { statementTimeoutMs: 1_000 }), openStore(db)];
        const outcome = (call) => call.then(() => 'done').catch((error) => error);
        let waiting = true;
        const waits = straight.initialize().finally(() => (waiting = false));
        const silenced = outcome(behind.initialize());
        await expect.poll(() => proxy.open, { timeout: 10_000 }).toBeGreaterThan(0);
        proxy.silence();
        // It would have waited for an hour.
        expect(await silenced).toMatchObject({ code: expect.stringMatching(/^(TIMEOUT|CONNECTION_FAILED)$/), retryable: true });
        await behind.close();
        expect(waiting).toBe(true);
        await other.end();
        await waits;
        expect(await straight.getJobState('missing')).toBeNull();
      },
    );

    needs(database, 'server')('ends with CLOSED where it waits for another process while the store is closed', async () => {
      const db = await freshDatabase(database);
      const other = await db.connect();
      onTestFinished(() => other.end().catch(() => {}));
      await database.dialect.lockInitialization(other);
      const store = openStore(db);
      const waiting = store.initialize().catch((error) => error);
      await store.close();
      expect(await waiting).toMatchObject({ code: 'CLOSED', retryable: false });
    });

    it('is waited for by the calls that are made meanwhile', async () => {
      for (const durability of ['record', 'batch']) {
        const store = openStore(await freshDatabase(database), { durability });
        const job = makeJob(3, { id: 'j', size: 2 });
        const calls = [
          store.initialize(),
          store.saveBatchRecords('j', job.batches[0].id, [makeRecord(0, { status: 'pending' })]),
          store.saveJobState(job),
          store.saveProcessedRecord('j', job.batches[0].id, makeRecord(1, { status: 'pending' })),
          store.getJobState('missing'),
          store.listJobs(),
        ];
        await Promise.all(calls);
        expect(await store.getPendingRecords('j')).toHaveLength(2);
      }
    });

    it('calls at once on one store all succeed, and so does one more', async () => {
      const store = openStore(await freshDatabase(database));
      await Promise.all(Array.from({ length: PROCESSES }, () => store.initialize()));
      const job = makeJob(3, { id: 'j', size: 2 });
      await prepare(store, job);
      expect(await store.initialize()).toBeUndefined();
      expect(await store.getJobState('j')).toStrictEqual(job);
    });
  });
}
