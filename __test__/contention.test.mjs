// Many workers on one job: in one store, in many stores, in many processes. What is asserted is what happened, not how long it took.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { makeJob } from './support/fixtures.mjs';
import { onEveryDatabase } from './support/suite.mjs';
import { work } from './support/work.mjs';

const batches = 400;
const workers = 16;

/** What a process says next. */
async function message(child) {
  const died = once(child, 'exit').then(([code, signal]) => {
    throw new Error(`a worker process ended with ${code ?? signal}`);
  });
  const [said] = await Promise.race([once(child, 'message'), died]);
  died.catch(() => {});
  return said;
}

onEveryDatabase((on) => {
  const saved = async () => {
    const job = makeJob(batches);
    await on.store.saveJobState(job);
    return job;
  };

  /** That the workers did everything once, and that the job says so. */
  const expectDone = async (job, results) => {
    const indexes = job.batches.map(({ index }) => index);
    expect(results.flatMap(({ completed }) => completed).toSorted((a, b) => a - b)).toEqual(indexes);
    // One that comes last may find the job finalized already.
    for (const { reason } of results) expect(['NO_PENDING_BATCHES', 'JOB_NOT_PROCESSING']).toContain(reason);
    expect(results.reduce((sum, { finalized }) => sum + finalized, 0)).toBe(1);

    const found = await on.store.getJobState(job.id);
    expect(found).toMatchObject({ status: 'COMPLETED', completedAt: expect.any(Number) });
    expect(found.batches).toMatchObject(indexes.map((index) => ({ index, status: 'COMPLETED', processedCount: index, failedCount: 1 })));
    expect(await on.store.getDistributedStatus(job.id)).toMatchObject({
      totalBatches: batches,
      completedBatches: batches,
      isComplete: true,
    });
    expect(await on.store.tryFinalizeJob(job.id)).toBe(false);
    if (on.has('raw')) expect(await on.behind(job.id)).toEqual([]);
  };

  const neverStoppedEarly = (results) => expect(results.map(({ pending }) => pending)).toEqual(results.map(() => 0));

  test('16 callers of one store claim 400 batches, each once, and stop when none is PENDING', async () => {
    const job = await saved();
    const results = await Promise.all(Array.from({ length: workers }, (_, n) => work(on.store, job.id, `w${n}`)));
    neverStoppedEarly(results);
    await expectDone(job, results);
  });

  test('16 callers of one store that give some batches back claim all of them in the end', async () => {
    const job = await saved();
    const results = await Promise.all(Array.from({ length: workers }, (_, n) => work(on.store, job.id, `w${n}`, { releaseEvery: 5 })));
    await expectDone(job, results);
  });

  on.needs('shared')('16 stores claim 400 batches, each once, and stop when none is PENDING', async () => {
    const job = await saved();
    const stores = await Promise.all(Array.from({ length: workers }, () => on.open({ pool: { max: 2 } })));
    const results = await Promise.all(stores.map((store, n) => work(store, job.id, `w${n}`)));
    neverStoppedEarly(results);
    await expectDone(job, results);
  });

  on.needs('shared')('16 stores that give some batches back claim all of them in the end', async () => {
    const job = await saved();
    const stores = await Promise.all(Array.from({ length: workers }, () => on.open({ pool: { max: 2 } })));
    const results = await Promise.all(stores.map((store, n) => work(store, job.id, `w${n}`, { releaseEvery: 5 })));
    await expectDone(job, results);
  });

  on.needs('shared')('4 processes of 4 callers claim 400 batches, each once, and stop when none is PENDING', async () => {
    const job = await saved();
    const script = fileURLToPath(new URL('./support/claim-worker.mjs', import.meta.url));
    const processes = Array.from({ length: 4 }, (_, n) => fork(script, [on.url, job.id, '4', `p${n}`], { execArgv: [] }));
    onTestFinished(() => processes.forEach((child) => child.kill('SIGKILL')));
    const ended = processes.map((child) => once(child, 'exit'));
    await Promise.all(processes.map(message));
    const results = await Promise.all(
      processes.map(async (child) => {
        const told = message(child);
        child.send('go');
        return told;
      }),
    );
    neverStoppedEarly(results.flat());
    await expectDone(job, results.flat());
    // The processes end by themselves: a closed store keeps none alive.
    for (const [code] of await Promise.all(ended)) expect(code).toBe(0);
  });
});
