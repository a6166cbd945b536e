// The file of a SQLite store: removed or replaced while the store has it open, and where it or its folder may not be written.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sqlite } from './support/dialects/sqlite.mjs';
import { plainUser } from './support/postgres-package.mjs';
import { INDEX } from './support/run-node.mjs';
import { makeJob, makeRecord, newId } from './support/fixtures.mjs';
import { claim, complete, rejection, SqlxStateStore } from './support/suite.mjs';

const onUnix = process.platform === 'win32' ? test.skip : test;

async function newFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-file-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

function openOn(file, options) {
  const store = new SqlxStateStore(`sqlite://${file}`, options);
  onTestFinished(() => store.close().catch(() => {}));
  return store;
}

/** A file with tables, and with nothing of SQLite's beside it. */
async function makeFile(file, job) {
  const store = new SqlxStateStore(`sqlite://${file}`);
  await store.initialize();
  if (job) {
    await store.saveJobState(job);
    await store.saveBatchRecords(job.id, 'b', [makeRecord(0)]);
  }
  await store.close();
}

const removeAll = (file) => Promise.all(['', '-wal', '-shm'].map((suffix) => rm(file + suffix, { force: true })));

describe('a file that was removed', () => {
  onUnix('is noticed by the next call of any kind, which makes none in its place', async () => {
    const file = join(await newFolder(), 'f.db');
    const store = openOn(file);
    await store.initialize();
    const job = makeJob(2);
    await store.saveJobState(job);
    const held = await claim(store, job.id);
    await removeAll(file);
    for (const call of [
      () => store.saveProcessedRecord(job.id, held.batchId, makeRecord(0)),
      () => store.saveBatchRecords(job.id, 'b', [makeRecord(0)]),
      () => store.saveJobState(job),
      () => store.getJobState(job.id),
      () => store.getProgress(job.id),
      () => store.getBatchRecords(job.id, 'b'),
      () => store.claimBatch(job.id, 'w'),
      () => complete(store, job.id, held.batchId),
      () => store.reclaimStaleBatches(job.id, 0),
      () => store.tryFinalizeJob(job.id),
      () => store.deleteJob(job.id),
    ]) {
      const error = await rejection(call(), 'TABLES_MISSING');
      expect(error.message).toContain('initialize()');
      expect(existsSync(file)).toBe(false);
    }
  });

  onUnix('is made again by `initialize`, and nothing of the old one is in it', async () => {
    const file = join(await newFolder(), 'f.db');
    const store = openOn(file);
    await store.initialize();
    const [before, after] = [makeJob(1), makeJob(1)];
    await store.saveJobState(before);
    await removeAll(file);
    await store.initialize();
    await store.saveJobState(after);
    expect(await store.getJobState(before.id)).toBeNull();
    await store.close();
    const db = await sqlite.connect(file);
    expect(await db.query('select id from batchactions_jobs')).toEqual([{ id: after.id }]);
    await db.end();
  });

  onUnix('without its -wal and -shm leaves the new one sound', async () => {
    const file = join(await newFolder(), 'f.db');
    const store = openOn(file);
    await store.initialize();
    await store.saveJobState(makeJob(50));
    await rm(file);
    await store.initialize();
    const job = makeJob(2);
    await store.saveJobState(job);
    expect(await store.getJobState(job.id)).toStrictEqual(job);
    await store.close();
    const db = await sqlite.connect(file);
    expect(await db.query('pragma integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    expect(await db.query('select id from batchactions_jobs')).toEqual([{ id: job.id }]);
    await db.end();
  });

  onUnix('before the first call was there is missing to a call, and not made by it', async () => {
    const folder = await newFolder();
    const store = openOn(join(folder, 'never.db'));
    await rejection(store.getJobState('j'), 'TABLES_MISSING');
    await rejection(store.saveProcessedRecord('j', 'b', makeRecord(0)), 'TABLES_MISSING');
    expect(await readdir(folder)).toEqual([]);
    await store.initialize();
    expect(await store.getJobState('j')).toBeNull();
  });

  onUnix('and comes back is the same one', async () => {
    const file = join(await newFolder(), 'f.db');
    const job = makeJob(1);
    await makeFile(file, job);
    const store = openOn(file);
    expect(await store.getJobState(job.id)).toStrictEqual(job);
    await rename(file, `${file}.away`);
    await rejection(store.getJobState(job.id), 'TABLES_MISSING');
    await rename(`${file}.away`, file);
    expect(await store.getJobState(job.id)).toStrictEqual(job);
  });
});

describe('a file that was replaced', () => {
  onUnix('is left by the next call, which opens the new one', async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    const [here, there] = [makeJob(2), makeJob(2)];
    await makeFile(other, there);
    await makeFile(file, here);
    const store = openOn(file);
    // Readers and the writer have it open.
    expect(await store.getJobState(here.id)).toStrictEqual(here);
    await claim(store, here.id);
    await rename(other, file);
    expect(await store.getJobState(here.id)).toBeNull();
    expect(await store.getJobState(there.id)).toStrictEqual(there);
    const held = await claim(store, there.id);
    await store.saveProcessedRecord(there.id, held.batchId, makeRecord(5));
    await complete(store, there.id, held.batchId);
    await store.close();
    const db = await sqlite.connect(file);
    expect(await db.query('select recordIndex from batchactions_records order by recordIndex')).toEqual([
      { recordIndex: 0 },
      { recordIndex: 5 },
    ]);
    await db.end();
  });

  const onLinux = process.platform === 'linux' ? test : test.skip;
  onLinux('is not mixed with the journal of the one before by the call after one that could not remove that', async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    const [here, there] = [makeJob(2), makeJob(2)];
    await makeFile(other, there);
    await makeFile(file, here);
    const store = openOn(file);
    await claim(store, here.id);
    // A folder stands where the journal is moved to.
    const aside = `${file}-wal-old-${process.pid}`;
    await mkdir(join(aside, 'full'), { recursive: true });
    await rename(other, file);
    for (let tries = 0; tries < 2; tries++) {
      const error = await rejection(store.getJobState(there.id), 'CONNECTION_FAILED');
      expect(error.message).toContain('-wal');
    }
    await rm(aside, { recursive: true });
    expect(await store.getJobState(here.id)).toBeNull();
    expect(await store.getJobState(there.id)).toStrictEqual(there);
    await complete(store, there.id, there.batches[0].id);
    await store.close();
    const db = await sqlite.connect(file);
    expect(await db.query('select id from batchactions_jobs')).toEqual([{ id: there.id }]);
    await db.end();
  });

  onUnix('takes all calls that are made at once, and none is lost', async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    const [here, there] = [makeJob(40), makeJob(40)];
    await makeFile(other, there);
    await makeFile(file, here);
    const store = openOn(file);
    await claim(store, here.id);
    await rename(other, file);
    const claims = Array.from({ length: 20 }, () => claim(store, there.id));
    const saves = Array.from({ length: 20 }, (_, index) => store.saveProcessedRecord(there.id, 'c', makeRecord(100 + index)));
    await Promise.all([...claims, ...saves]);
    expect(await store.getBatchRecords(there.id, 'c')).toHaveLength(20);
    expect(await store.getDistributedStatus(there.id)).toMatchObject({ processingBatches: 20 });
  });

  onUnix('is left by every store of the process, one after the other', async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    const [here, there] = [makeJob(2), makeJob(4)];
    await makeFile(other, there);
    await makeFile(file, here);
    const stores = [openOn(file), openOn(file)];
    for (const store of stores) await claim(store, here.id);
    await rename(other, file);
    const indexes = [];
    for (const store of [...stores, ...stores]) indexes.push((await claim(store, there.id)).batchIndex);
    expect(indexes).toEqual([0, 1, 2, 3]);
    for (const store of stores) await store.close();
    const db = await sqlite.connect(file);
    expect(await db.query('pragma integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    expect(await db.query("select count(*) as n from batchactions_batches where status = 'PROCESSING'")).toEqual([{ n: 4 }]);
    await db.end();
    expect((await readdir(folder)).filter((name) => name.includes('old'))).toEqual([]);
  });

  onUnix("rejects what was queued for the old one (`durability: 'batch'`), and takes what is saved after", async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    await makeFile(other);
    await makeFile(file);
    const store = openOn(file, { durability: 'batch' });
    const [early, late] = [newId(), newId()];
    await store.initialize();
    // Queued at once: the file is replaced before 50 ms are over, and before anything else looks.
    const queued = store.saveProcessedRecord(early, 'b', makeRecord(0));
    const replaced = rename(other, file);
    await queued;
    await replaced;
    await store.saveProcessedRecord(late, 'b', makeRecord(1));
    expect(await store.getBatchRecords(early, 'b')).toEqual([]);
    const error = await rejection(store.saveProcessedRecord(early, 'b', makeRecord(2)), 'CONNECTION_LOST');
    expect(error).toMatchObject({ retryable: false, message: expect.stringContaining('f.db') });
    expect(await store.getBatchRecords(late, 'b')).toHaveLength(1);
    await rejection(store.close(), 'CONNECTION_LOST');
    const db = await sqlite.connect(file);
    expect(await db.query('select recordIndex from batchactions_records')).toEqual([{ recordIndex: 1 }]);
    await db.end();
  });

  onUnix('rejects what was queued of the same job for the old one, and not what was queued for the new one', async () => {
    const folder = await newFolder();
    const [file, other] = [join(folder, 'f.db'), join(folder, 'other.db')];
    await makeFile(other);
    await makeFile(file);
    const store = openOn(file, { durability: 'batch' });
    await store.initialize();
    const id = newId();
    await store.saveProcessedRecord(id, 'before', makeRecord(0));
    await rename(other, file);
    await store.saveProcessedRecord(id, 'after', makeRecord(1));
    expect((await store.getProcessedRecords(id)).map(({ index }) => index)).toEqual([1]);
    await rejection(store.close(), 'CONNECTION_LOST');
  });
});

/** Runs a script as a user that permissions apply to, with a store on the file; what it logs. */
async function runAsPlainUser(file, script) {
  const source = `
    const { SqlxStateStore } = require(${JSON.stringify(new URL(INDEX).pathname)});
    const store = new SqlxStateStore(${JSON.stringify(`sqlite://${file}`)});
    const outcome = (promise) => promise.then((value) => ({ value }), ({ code, retryable, message }) => ({ code, retryable, message }));
    (async () => {
      const result = await (async () => { ${script} })();
      await store.close().catch(() => {});
      console.log(JSON.stringify(result));
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', source], { cwd: tmpdir(), ...(await plainUser()) });
  return JSON.parse(stdout);
}

describe('where something may not be written', () => {
  const calls = (job) => `
    const job = ${JSON.stringify(job)};
    return {
      initialize: await outcome(store.initialize()),
      job: await outcome(store.getJobState(job.id)),
      records: await outcome(store.getBatchRecords(job.id, 'b')),
      save: await outcome(store.saveProcessedRecord(job.id, 'b', ${JSON.stringify(makeRecord(1))})),
      claim: await outcome(store.claimBatch(job.id, 'w')),
    };`;
  const denied = { code: 'PERMISSION_DENIED', retryable: false, message: expect.any(String) };
  const expectReadsOnly = (result, job) => {
    expect(result).toMatchObject({ initialize: {}, job: { value: { id: job.id } }, records: { value: [{ index: 0 }] } });
    expect(result.initialize).toEqual({});
    expect([result.save, result.claim]).toEqual([denied, denied]);
  };

  /** A file in a folder of its own, both the other user's to read, and to write as `may` says. */
  const prepare = async ({ fileMode, folderMode, journal = 'wal' }) => {
    const folder = await newFolder();
    const file = join(folder, 'f.db');
    const job = makeJob(2);
    await makeFile(file, job);
    if (journal !== 'wal') {
      const db = await sqlite.connect(file);
      await db.query(`pragma journal_mode = ${journal}`);
      await db.end();
    }
    const { uid = process.getuid(), gid = process.getgid() } = await plainUser();
    await chown(file, uid, gid);
    await chown(folder, uid, gid);
    await chmod(file, fileMode);
    await chmod(folder, folderMode);
    onTestFinished(() => chmod(folder, 0o755));
    return { folder, file, job };
  };

  onUnix('a file in a folder that may be written can be read', async () => {
    const { file, job } = await prepare({ fileMode: 0o444, folderMode: 0o755 });
    expectReadsOnly(await runAsPlainUser(file, calls(job)), job);
  });

  onUnix('a file that is not in WAL can be read', async () => {
    const { file, job } = await prepare({ fileMode: 0o444, folderMode: 0o555, journal: 'delete' });
    expectReadsOnly(await runAsPlainUser(file, calls(job)), job);
  });

  onUnix('a folder lets a file that is not in WAL be read', async () => {
    const { file, job } = await prepare({ fileMode: 0o644, folderMode: 0o555, journal: 'delete' });
    expectReadsOnly(await runAsPlainUser(file, calls(job)), job);
  });

  onUnix('a folder with a file in WAL is named', async () => {
    const { file, job } = await prepare({ fileMode: 0o644, folderMode: 0o555 });
    const result = await runAsPlainUser(file, calls(job));
    expect(Object.values(result)).toEqual(Array.from({ length: 5 }, () => denied));
    expect(result.job.message).toContain('f.db');
  });

  onUnix('a file that may not be read either, and a folder without a file, are named', async () => {
    const { file, folder, job } = await prepare({ fileMode: 0o000, folderMode: 0o555 });
    expect(await runAsPlainUser(file, calls(job))).toMatchObject({ initialize: denied, job: denied, save: denied });
    const made = await runAsPlainUser(join(folder, 'new.db'), 'return outcome(store.initialize())');
    expect(made).toEqual({ ...denied, message: expect.stringContaining('new.db') });
  });
});
