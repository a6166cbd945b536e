// The calls that a worker of the distributed importer makes to the store.

/**
 * `claimBatch`, and again where it gives up after its second because the last PENDING batches were locked by others all the time, as on a machine
 * whose disk is busy. It has claimed nothing then.
 */
export async function claimPatiently(store, jobId, workerId) {
  for (;;) {
    try {
      return await store.claimBatch(jobId, workerId);
    } catch (error) {
      if (error.code !== 'CONFLICT' || !error.retryable) throw error;
    }
  }
}

/**
 * Claims and completes batches until none is left, and tries to finalize the job after each.
 *
 * @param {{ releaseEvery?: number }} [options] `releaseEvery`: of this many batches it gives one back and goes on.
 * @returns What it saw: the batches that it completed, the reason why it stopped, how many were PENDING then, and how often it was the one
 *   to finalize the job.
 */
export async function work(store, jobId, workerId, { releaseEvery = Infinity } = {}) {
  const completed = [];
  let claims = 0;
  let finalized = 0;
  for (;;) {
    const result = await claimPatiently(store, jobId, workerId);
    if (!result.claimed) {
      const { pendingBatches: pending } = await store.getDistributedStatus(jobId);
      return { completed, reason: result.reason, pending, finalized };
    }
    const { batchId, batchIndex } = result.reservation;
    if (++claims % releaseEvery === 0) {
      await store.releaseBatch(jobId, batchId, workerId);
      continue;
    }
    await store.updateBatchState(jobId, batchId, { batchId, status: 'COMPLETED', processedCount: batchIndex, failedCount: 1 });
    completed.push(batchIndex);
    if (await store.tryFinalizeJob(jobId)) finalized++;
  }
}
