// What other calls see of calls that `durability: 'batch'` queues besides saves of records: `saveJobState` of a local job, and `updateBatchState`.

import { expect, onTestFinished } from 'vitest';
import { makeJob, makeLocalJob, makeState } from '../support/fixtures.mjs';
import { claim, onEveryDatabase } from '../support/suite.mjs';

onEveryDatabase((on) => {
  const open = () => on.open({ durability: 'batch' });

  on.needs('shared')('listJobs lists a job whose save has resolved', async () => {
    const store = await open();
    const job = makeLocalJob(1);
    await store.saveJobState(job);
    expect((await store.listJobs({ limit: 1_000 })).map(({ id }) => id)).toContain(job.id);
  });

  on.needs('shared')('a job that was read as distributed is one: its calls are not queued', async () => {
    const store = await open();
    const job = makeJob(1);
    const [{ id }] = job.batches;
    await on.store.saveJobState(job);
    await store.getJobState(job.id);
    await store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 10));
    expect((await on.store.getJobState(job.id)).batches[0].status).toBe('COMPLETED');
  });

  on.needs('shared')('a batch that a queued state opens is the next that the store claims', async () => {
    const store = await open();
    const job = makeJob(3);
    const [first, second] = job.batches.map(({ id }) => id);
    await on.store.saveJobState(job);
    await on.store.updateBatchState(job.id, first, makeState(first, 'FAILED'));
    expect((await claim(store, job.id)).batchId).toBe(second);
    await store.updateBatchState(job.id, first, makeState(first, 'PENDING'));
    expect((await claim(store, job.id)).batchId).toBe(first);
  });

  on.needs('rowLocks')('they are bounded: with 1,000 states of a job pending, the next call waits', async () => {
    const store = await open();
    const job = makeLocalJob(1);
    await store.saveJobState(job);
    await store.getJobState(job.id);
    const other = await on.lockRows('jobs', '"id" = ?', [job.id]);
    onTestFinished(() => store.deleteJob(job.id));
    await store.saveJobState(job);
    for (let n = 0; n < 1_000; n++) await store.updateBatchState(job.id, `b${n}`, makeState(`b${n}`, 'FAILED'));
    let answered = false;
    const last = store.updateBatchState(job.id, 'last', makeState('last', 'FAILED')).then(() => (answered = true));
    await on.store.listJobs({ limit: 1 });
    expect(answered).toBe(false);
    await other.query('rollback');
    await last;
  });
});
