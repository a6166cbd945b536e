/** A small job from its claim to its end, in a new database at `url`: what shows that a binary works. Needs nothing but the store. */
export async function smokeJob(SqlxStateStore, url) {
  const store = new SqlxStateStore(url);
  await store.initialize();
  const record = { index: 0, raw: { a: '1' }, parsed: {}, status: 'pending', errors: [] };
  await store.saveBatchRecords('job', 'batch', [record]);
  const batch = { id: 'batch', index: 0, status: 'PENDING', records: [], processedCount: 0, failedCount: 0 };
  await store.saveJobState({
    id: 'job',
    config: { batchSize: 1 },
    status: 'PROCESSING',
    distributed: true,
    batches: [batch],
    totalRecords: 1,
  });
  const { claimed } = await store.claimBatch('job', 'worker');
  await store.saveProcessedRecord('job', 'batch', { ...record, parsed: { a: 1 }, status: 'processed' });
  await store.updateBatchState('job', 'batch', { batchId: 'batch', status: 'COMPLETED', processedCount: 1, failedCount: 0 });
  const finalized = await store.tryFinalizeJob('job');
  const [{ parsed }] = await store.getProcessedRecords('job');
  await store.close();
  const error = await store.getProgress('job').catch((reason) => reason);
  const right = claimed && finalized && parsed.a === 1 && error.name === 'StateStoreError' && error.code === 'CLOSED';
  if (!right) throw new Error(`the job went wrong: ${JSON.stringify({ claimed, finalized, parsed, error: String(error) })}`);
}
