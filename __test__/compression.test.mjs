// PostgreSQL compresses long values. The list of a job's batches is rewritten often, so the store asks for the fast compression, lz4.

import { describe, expect, onTestFinished, test } from 'vitest';
import { databases } from './support/databases.mjs';
import { makeJob, makeRecord } from './support/fixtures.mjs';
import { claim, complete, SqlxStateStore } from './support/suite.mjs';
import { createUser } from './support/users.mjs';

const postgres = databases.find(({ name }) => name === 'postgres');

/** Why there is nothing to choose between. */
async function whyNot() {
  if (!postgres) return 'there is no PostgreSQL';
  const own = await postgres.create();
  const [setting] = await own.query(
    `select enumvals::text[] as "values" from pg_settings where name = 'default_toast_compression' and source = 'default'`,
  );
  await own.drop();
  return setting?.values.includes('lz4') ? undefined : 'the server is told how to compress, or has no lz4';
}

const missing = await whyNot();
const withLz4 = missing === undefined ? test : (name) => test.skip(`${name} [exempt: ${missing}]`, () => {});

describe('postgres', () => {
  async function fresh(setting) {
    const own = await postgres.create();
    onTestFinished(() => own.drop());
    if (setting) await own.query(`alter database "${new URL(own.url).pathname.slice(1)}" set default_toast_compression = ${setting}`);
    const store = new SqlxStateStore(own.url, { pool: { max: 1 } });
    onTestFinished(() => store.close());
    await store.initialize();
    const compression = async (column, table) => {
      const [row] = await own.query(`select pg_column_compression("${column}") as how from batchactions_${table}`);
      return row.how;
    };
    return { own, store, list: () => compression('batches', 'jobs'), raw: () => compression('raw', 'records') };
  }

  withLz4('a long list is compressed by lz4, whichever call writes it, and no record is', async () => {
    const { own, store, list, raw } = await fresh();
    const other = await own.connect();
    onTestFinished(() => other.end());
    await other.query('set default_toast_compression = pglz');
    const compressAgain = () => other.query(`update batchactions_jobs set "batches" = ("batches"::text || ' ')::json`);

    const job = makeJob(80);
    await store.saveJobState(job);
    expect(await list()).toBe('lz4');
    expect(await store.getJobState(job.id)).toMatchObject({ batches: job.batches.map(({ id }) => ({ id })) });

    // What a call asks for ends with it.
    await store.saveProcessedRecord(job.id, 'b', makeRecord(0, { raw: { text: 'abc'.repeat(5_000) } }));
    expect(await raw()).toBe('pglz');

    await compressAgain();
    expect(await list()).toBe('pglz');
    const { batchId } = await claim(store, job.id);
    expect(await list()).toBe('lz4');
    await complete(store, job.id, batchId);

    for (let left = 79; left > 0; left--) await complete(store, job.id, (await claim(store, job.id)).batchId);
    await compressAgain();
    expect(await store.tryFinalizeJob(job.id)).toBe(true);
    expect(await list()).toBe('lz4');
    expect(await store.getJobState(job.id)).toMatchObject({ status: 'COMPLETED' });
  });

  for (const right of ['select on pg_catalog.pg_settings', 'execute on function pg_catalog.pg_show_all_settings()'])
    withLz4(`a user without the right to ${right} saves all the same`, async () => {
      const { own, store, list } = await fresh();
      await own.query(`revoke ${right} from public`);
      const user = await createUser(own);
      onTestFinished(user.drop);
      const theirs = new SqlxStateStore(user.url);
      onTestFinished(() => theirs.close());
      const job = makeJob(80);
      await theirs.saveJobState(job);
      expect(await list()).toBe('pglz');
      expect((await store.getJobState(job.id)).batches).toHaveLength(80);
    });

  withLz4('a database that is told what to compress by is not told otherwise', async () => {
    const { store, list } = await fresh('pglz');
    await store.saveJobState(makeJob(80));
    expect(await list()).toBe('pglz');
  });
});
