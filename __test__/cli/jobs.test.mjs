/** `jobs`, `show` and the commands that change a job: what they print, what they change, and their exit codes. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databasesWith } from '../support/databases.mjs';
import { makeJob, makeLocalJob, makeRecord, makeState, newId } from '../support/fixtures.mjs';
import {
  claim,
  collect,
  complete,
  freshDatabase,
  onEveryDatabase,
  openStore,
  prepare,
  rejection,
  SqlxStateStore,
} from '../support/suite.mjs';
import { command, json, start } from '../support/command.mjs';

onEveryDatabase((on) => {
  on.needs('shared')('show has the job, its progress, and who holds which batch', async () => {
    const job = makeJob(4);
    await prepare(on.store, job);
    const { batchId } = await claim(on.store, job.id, 'worker-1');
    await complete(on.store, job.id, batchId);
    await claim(on.store, job.id, 'worker-2');
    const third = await claim(on.store, job.id, 'worker-3');
    await complete(on.store, job.id, third.batchId, 'FAILED');

    const { code, value, stderr } = await json(['show', job.id], { url: on.url });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(value).toMatchObject({
      job: { id: job.id, status: 'PROCESSING', distributed: true, totalRecords: 40 },
      progress: { totalRecords: 40, totalBatches: 4, currentBatch: 1 },
      batches: { total: 4, completed: 1, failed: 1, processing: 1, pending: 1, paused: 0 },
      processing: [{ index: 1, workerId: 'worker-2', claimedAt: expect.any(Number) }],
      failed: [{ index: 2, workerId: 'worker-3', failedCount: 3 }],
    });
    expect(value.job).not.toHaveProperty('batches.0');
    const { stdout } = await command(['show', job.id], { url: on.url });
    expect(stdout).toMatch(/^status +PROCESSING$/m);
    expect(stdout).toMatch(/^batches +4: 1 completed, 1 failed, 1 processing, 1 pending$/m);
    expect(stdout).toMatch(/^ +1 {2}10 to 19 {2}worker-2 +\d+(\.\d)? s /m);
    expect(stdout).toMatch(/^ +2 {2}20 to 29 {2}worker-3 +3 /m);
  });

  on.needs('shared')('abort --now of an ABORTED job asks before it takes what is claimed, and says how much that was', async () => {
    const job = makeJob(4);
    const { id } = job;
    await prepare(on.store, job);
    const held = [await claim(on.store, id), await claim(on.store, id)];
    const statuses = async () => (await on.store.batches(id)).map(({ status }) => status);
    expect(await command(['abort', id, '--yes'], { url: on.url })).toMatchObject({ code: 0, stdout: `Job ${id} is ABORTED.\n` });
    const claimed = ['PROCESSING', 'PROCESSING', 'PENDING', 'PENDING'];
    expect(await statuses()).toEqual(claimed);
    // Without --now there is nothing to ask.
    expect(await command(['abort', id], { url: on.url })).toMatchObject({ code: 0, stdout: `Job ${id} is ABORTED already.\n`, stderr: '' });
    expect(await statuses()).toEqual(claimed);

    const refused = await command(['abort', id, '--now'], { url: on.url });
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr.split('\n').slice(0, 3)).toEqual([
      `Job ${id} is ABORTED already.`,
      '2 batches are held by workers: taken away at once, and the work on them is lost.',
      "batchactions-sqlx: taking batches from workers can't be undone, and there is no terminal to ask at: give --yes to do it",
    ]);
    expect(await statuses()).toEqual(claimed);
    // They are still their workers' own.
    await complete(on.store, id, held[0].batchId);

    expect(await command(['abort', id, '--now', '--yes'], { url: on.url })).toMatchObject({
      code: 0,
      stdout: `Job ${id} is ABORTED already. 1 batch was taken from workers.\n`,
    });
    expect(await statuses()).toEqual(['COMPLETED', 'PENDING', 'PENDING', 'PENDING']);
    await rejection(on.store.updateBatchState(id, held[1].batchId, makeState(held[1].batchId, 'COMPLETED', 10)), 'LEASE_LOST');
    // Nothing is held any more, so there is nothing to ask.
    expect(await json(['abort', id, '--now'], { url: on.url })).toMatchObject({
      code: 0,
      stderr: '',
      value: { jobId: id, changed: false, status: 'ABORTED', taken: 0 },
    });
  });

  on.needs('shared')('retry of a job of which a worker holds a batch is refused in the words of the command', async () => {
    const job = makeJob(2);
    const { id } = job;
    await prepare(on.store, job);
    const { batchId } = await claim(on.store, id, 'worker-7');
    await on.store.saveProcessedRecord(id, batchId, makeRecord(0, { status: 'failed' }));
    await on.store.abortJob(id);
    for (const words of [[], ['--json'], ['--batch-size', '1']]) {
      expect(await command(['retry', id, ...words], { url: on.url })).toMatchObject({
        code: 1,
        stdout: '',
        stderr: `batchactions-sqlx: the records of job "${id}" can't be retried: worker "worker-7" still holds batch "${batchId}", and may store more records: wait, or take it away with batchactions-sqlx abort --now\n`,
      });
    }
    // What it says to do is done.
    expect(await command(['abort', id, '--now', '--yes'], { url: on.url })).toMatchObject({ code: 0 });
    expect(await json(['retry', id], { url: on.url })).toMatchObject({ code: 0, value: { totalRecords: 1 } });
  });

  on.needs('shared')('purge keeps a job of which a worker holds a batch, names it, and is exit 0', async () => {
    const db = await freshDatabase(on.database);
    const store = openStore(db);
    await store.initialize();
    const [live, done] = [makeJob(1), makeJob(1)];
    for (const job of [live, done]) await prepare(store, job);
    await claim(store, live.id);
    for (const { id } of [live, done]) await store.abortJob(id);
    await db.query('update "batchactions_jobs" set "completedAt" = "completedAt" - 3600000');
    const kept = `  kept, because a worker holds a batch: ${live.id}\n`;
    expect(await command(['purge', '--older-than', '30m', '--dry-run'], { url: db.url })).toMatchObject({
      code: 0,
      stdout: `1 job, 1 batch and 10 records would be deleted.\n  jobs: ${done.id}\n${kept}`,
    });
    expect(await json(['purge', '--older-than', '30m', '--yes'], { url: db.url })).toMatchObject({
      code: 0,
      stderr: '',
      value: { jobIds: [done.id], skipped: [live.id] },
    });
    expect(await store.batches(live.id)).toMatchObject([{ status: 'PROCESSING' }]);
    expect(await collect(store.records(live.id))).toHaveLength(10);
    expect(await command(['purge', '--older-than', '30m', '--yes'], { url: db.url })).toMatchObject({
      code: 0,
      stdout: `0 jobs, 0 batches and 0 records deleted.\n${kept}`,
    });
  });
});

describe('on a SQLite file', () => {
  let own;
  let store;
  let url;
  beforeAll(async () => {
    own = await databasesWith('file')[0].create();
    ({ url } = own);
    store = new SqlxStateStore(url);
    await store.initialize();
  });
  afterAll(async () => {
    await store.close();
    await own.drop();
  });

  const at = (words) => command(words, { url });
  const status = async (id) => (await store.getJob(id))?.status;
  async function prepared(batches = 2, fields) {
    const job = makeJob(batches, fields);
    await prepare(store, job);
    return job;
  }

  test('jobs lists the newest first, as many as asked for, and by status', async () => {
    const fresh = await databasesWith('file')[0].create();
    const jobs = new SqlxStateStore(fresh.url);
    await jobs.initialize();
    expect(await command(['jobs'], { url: fresh.url })).toMatchObject({ code: 0, stdout: 'There are no jobs.\n' });
    const made = Array.from({ length: 5 }, (_, n) =>
      makeLocalJob(0, { startedAt: 1_700_000_000_000 + n, status: n === 2 ? 'FAILED' : 'COMPLETED' }),
    );
    for (const job of made) await jobs.saveJobState(job);
    await jobs.close();
    const ids = made.map(({ id }) => id).toReversed();
    const list = async (...words) => (await json(['jobs', ...words], { url: fresh.url })).value.map(({ id }) => id);
    expect(await list()).toEqual(ids);
    expect(await list('--limit', '2')).toEqual(ids.slice(0, 2));
    expect(await list('--status', 'failed')).toEqual([ids[2]]);
    const { stdout } = await command(['jobs', '--limit', '2'], { url: fresh.url });
    expect(stdout).toMatch(/^JOB +STATUS +RECORDS +STARTED +TOOK +KIND\n/);
    expect(stdout).toMatch(/^There are more: --limit 20/m);
    expect(stdout).toContain('2023-11-14 22:13:20Z');
    await fresh.drop();
  });

  test('pause and resume change the status, and are exit 0 where it was so already', async () => {
    const { id } = await prepared();
    expect(await json(['pause', id], { url })).toMatchObject({ code: 0, value: { jobId: id, changed: true, status: 'PAUSED' } });
    expect(await at(['pause', id])).toMatchObject({ code: 0, stdout: `Job ${id} is PAUSED already.\n` });
    expect(await store.claimBatch(id, 'w')).toMatchObject({ claimed: false, reason: 'JOB_NOT_PROCESSING' });
    expect(await at(['resume', id])).toMatchObject({ code: 0, stdout: `Job ${id} is PROCESSING.\n` });
    expect(await at(['resume', id])).toMatchObject({ code: 0, stdout: `Job ${id} is PROCESSING already.\n` });
  });

  test('a final job is never changed: exit 1 with its status', async () => {
    const { id } = await prepared(1, { status: 'COMPLETED' });
    for (const words of [
      ['pause', id],
      ['resume', id],
      ['abort', id, '--yes'],
      ['abort', id, '--now'],
    ]) {
      expect(await at(words)).toMatchObject({
        code: 1,
        stdout: '',
        stderr: `batchactions-sqlx: job ${id} is COMPLETED, so nothing was changed\n`,
      });
    }
    expect(await json(['abort', id, '--now'], { url })).toMatchObject({
      code: 1,
      value: { jobId: id, changed: false, status: 'COMPLETED' },
    });
    expect(await status(id)).toBe('COMPLETED');
  });

  test('a job that one process works on is refused with the store’s reason, and aborted with --force', async () => {
    const job = makeLocalJob(1);
    await store.saveJobState(job);
    for (const words of [
      ['pause', job.id],
      ['resume', job.id],
      ['abort', job.id, '--yes'],
    ]) {
      const ended = await at(words);
      expect(ended).toMatchObject({ code: 1, stdout: '' });
      expect(ended.stderr).toMatch(/^batchactions-sqlx: .*distributed/);
    }
    expect(await status(job.id)).toBe('PROCESSING');
    expect(await at(['abort', job.id, '--yes', '--force'])).toMatchObject({ code: 0, stdout: `Job ${job.id} is ABORTED.\n` });
    expect(await at(['abort', job.id, '--yes', '--force'])).toMatchObject({ code: 0, stdout: `Job ${job.id} is ABORTED already.\n` });
  });

  test('abort without a terminal and without --yes is exit 2 with that reason, and changes nothing', async () => {
    const { id } = await prepared(3);
    await claim(store, id);
    const ended = await at(['abort', id]);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr).toMatch(/30 of 30 records are pending, and will not be processed/);
    expect(ended.stderr).toMatch(/1 batch is held by a worker: their work may still be saved/);
    expect(ended.stderr).toMatch(/aborting a job can't be undone, and there is no terminal to ask at: give --yes/);
    expect(ended.stderr).toMatch(/^usage: batchactions-sqlx abort <job>/m);
    expect(await status(id)).toBe('PROCESSING');
    expect(await json(['abort', id, '--yes', '--now'], { url })).toMatchObject({ code: 0, value: { changed: true, status: 'ABORTED' } });
    expect(await store.batches(id, { status: 'PROCESSING' })).toEqual([]);
  });

  test('a batch that a worker has paused is taken by abort --now too, and asked for', async () => {
    const { id } = await prepared(2);
    const { batchId } = await claim(store, id);
    await store.updateBatchState(id, batchId, makeState(batchId, 'PAUSED'));
    expect((await at(['abort', id])).stderr).toMatch(/1 batch is held by a worker/);
    expect(await at(['abort', id, '--yes'])).toMatchObject({ code: 0 });
    expect(await at(['abort', id, '--now'])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/1 batch is held by a worker/),
    });
    expect(await json(['abort', id, '--now', '--yes'], { url })).toMatchObject({ code: 0, value: { changed: false, taken: 1 } });
    expect((await store.batches(id)).map(({ status: of, workerId }) => [of, workerId])).toEqual([
      ['PENDING', undefined],
      ['PENDING', undefined],
    ]);
  });

  test('reclaim takes stale batches, and says so', async () => {
    const { id } = await prepared(3);
    await claim(store, id);
    await own.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 3600000 where "jobId" = ?', [id]);
    expect(await at(['reclaim', id, '--timeout', '2h'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No batch of job/) });
    expect(await json(['reclaim', id, '--timeout', '15m'], { url })).toMatchObject({
      code: 0,
      value: { reclaimed: 1, status: 'PROCESSING' },
    });
  });

  test('retry makes a new job of the failed records of a final job', async () => {
    const job = makeLocalJob(1, { size: 5, status: 'PROCESSING' });
    await store.saveBatchRecords(job.id, job.batches[0].id, [
      makeRecord(0),
      makeRecord(1, { status: 'failed', raw: { a: 1 } }),
      makeRecord(2, { status: 'invalid' }),
      makeRecord(3, { status: 'failed', raw: { a: 3 } }),
    ]);
    await store.saveJobState(job);
    expect(await at(['retry', job.id])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/is PROCESSING: a job is retried once/),
    });
    await store.saveJobState({ ...job, status: 'FAILED' });
    const { code, value } = await json(['retry', job.id, '--batch-size', '1'], { url });
    expect({ code, value }).toMatchObject({ code: 0, value: { totalRecords: 2, totalBatches: 2 } });
    expect(await store.getJob(value.jobId)).toMatchObject({ status: 'PROCESSING', distributed: true, config: { retryOf: job.id } });
    const records = await collect(store.records(value.jobId));
    expect(records.map(({ index, raw, status: of }) => [index, raw, of])).toEqual([
      [1, { a: 1 }, 'pending'],
      [3, { a: 3 }, 'pending'],
    ]);
    expect((await at(['jobs'])).stdout).toMatch(new RegExp(`^${value.jobId} .*retry of ${job.id}$`, 'm'));
    expect(await json(['retry', job.id, '--statuses', 'valid'], { url })).toMatchObject({ code: 0, value: null });
    expect((await at(['retry', job.id, '--statuses', 'valid'])).stdout).toMatch(/there is nothing to retry/);
  });

  test('retry of a job that says no size of a batch is exit 2 and names the option that is missing', async () => {
    const { id } = await prepared(1, { status: 'FAILED', config: {} });
    const statuses = ['--statuses', 'pending'];
    expect(await at(['retry', id, ...statuses])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/^batchactions-sqlx: --batch-size is missing: job /),
    });
    expect(await json(['retry', id, ...statuses, '--batch-size', '5'], { url })).toMatchObject({ code: 0, value: { totalBatches: 2 } });
  });

  test('purge shows what it would delete, wants --yes, and deletes that and nothing else', async () => {
    const old = 1_600_000_000_000;
    const fields = { startedAt: old, completedAt: old };
    const [gone, young, open] = [
      makeLocalJob(1, { status: 'COMPLETED', ...fields }),
      makeLocalJob(1, { status: 'COMPLETED', startedAt: Date.now(), completedAt: Date.now() }),
      makeLocalJob(1, { status: 'PROCESSING', startedAt: old }),
    ];
    for (const job of [gone, young, open]) await prepare(store, job);
    const dry = await json(['purge', '--older-than', '365d', '--dry-run'], { url });
    expect(dry).toMatchObject({ code: 0, stderr: '' });
    expect(dry.value.jobIds).toContain(gone.id);
    expect(dry.value.jobIds).not.toContain(young.id);
    const refused = await at(['purge', '--older-than', '365d']);
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toMatch(new RegExp(`${dry.value.jobIds.length} jobs?, .* will be deleted`));
    expect(refused.stderr).toMatch(/deleting can't be undone, and there is no terminal to ask at: give --yes/);
    expect(await status(gone.id)).toBe('COMPLETED');
    expect((await json(['purge', '--older-than', '365d', '--yes'], { url })).value).toEqual(dry.value);
    expect([await status(gone.id), await status(young.id), await status(open.id)]).toEqual([undefined, 'COMPLETED', 'PROCESSING']);
    expect(await collect(store.records(gone.id))).toEqual([]);
    expect((await at(['purge', '--older-than', '365d'])).stdout).toMatch(/^0 jobs, 0 batches and 0 records would be deleted/);
  });

  test('Ctrl-C in the middle of purge loses nothing: what it did not delete is whole, or is deleted by the next one', async () => {
    const fresh = await databasesWith('file')[0].create();
    const jobs = new SqlxStateStore(fresh.url);
    await jobs.initialize();
    const old = { status: 'COMPLETED', startedAt: 1_600_000_000_000, completedAt: 1_600_000_000_000 };
    const made = Array.from({ length: 40 }, () => makeLocalJob(1, { size: 2_000, ...old }));
    const kept = makeLocalJob(1, { size: 2_000, status: 'COMPLETED', startedAt: Date.now(), completedAt: Date.now() });
    for (const job of [...made, kept]) await prepare(jobs, job);
    const left = async () => (await fresh.query('select "id" from "batchactions_jobs"')).map(({ id }) => id);

    const running = start(['purge', '--older-than', '1d', '--yes'], { url: fresh.url });
    running.process.stdin.end();
    await expect.poll(async () => (await left()).length, { interval: 2, timeout: 60_000 }).toBeLessThan(41);
    running.process.kill('SIGINT');
    const ended = await running.ended;
    // Where it was done before the signal came, there was nothing to interrupt.
    if (ended.code !== 0) {
      expect(ended).toMatchObject({ code: 130, stdout: '', stderr: expect.stringMatching(/stopped in the middle/) });
    }
    const counts = await fresh.query('select "jobId", count(*) as "n" from "batchactions_records" group by "jobId"');
    const half = counts.filter(({ n }) => Number(n) !== 2_000);
    expect(half.length).toBeLessThanOrEqual(1);
    expect(await command(['purge', '--older-than', '1d', '--yes'], { url: fresh.url })).toMatchObject({ code: 0 });
    expect(await left()).toEqual([kept.id]);
    expect(await fresh.query('select distinct "jobId" from "batchactions_records"')).toEqual([{ jobId: kept.id }]);
    await jobs.close();
    await fresh.drop();
  });
});

test('a job’s id may look like an option after --', async () => {
  const own = await databasesWith('file')[0].create();
  const store = new SqlxStateStore(own.url);
  await store.initialize();
  const id = `--${newId()}`;
  await store.saveJobState(makeLocalJob(0, { id }));
  await store.close();
  expect(await json(['show'], { url: own.url })).toMatchObject({ code: 2 });
  const ended = await command(['show', '--json', '--', id], { url: own.url });
  expect(JSON.parse(ended.stdout).job.id).toBe(id);
  await own.drop();
});
