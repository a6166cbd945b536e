/** Jobs, batches and records as a user would make them. */

export const JOB_STATUSES = ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'];
export const BATCH_STATUSES = ['PENDING', 'PROCESSING', 'PAUSED', 'COMPLETED', 'FAILED'];
export const RECORD_STATUSES = ['pending', 'valid', 'invalid', 'processed', 'failed'];

/** A JSON object that a careless layer between JavaScript and the database would change. */
export const DIFFICULT = {
  unicode: 'Žluťoučký kůň, 日本語, العربية, 🚴🏽‍♀️, e\u0301',
  quotes: `'single' "double" \`back\` \\ \\n ? $1 :name %s`,
  control: '\u0000\u0001\n\r\t\u2028',
  numbers: [0, -1, 0.1 + 0.2, 1e21, -273.15, 1.7976931348623157e308, Number.MAX_SAFE_INTEGER],
  nothing: null,
  yes: true,
  no: false,
  empty: [{}, [], ''],
  nested: { a: [{ b: [{ c: 'd' }] }] },
  'key with "quotes"': 'Grüße',
};

/** A job with `batches` batches of `size` records each. */
export function makeJob(id, { batches = 3, size = 2, ...rest } = {}) {
  return {
    id,
    config: { batchSize: size },
    status: 'PROCESSING',
    batches: Array.from({ length: batches }, (_, index) => makeBatch(id, index, { size })),
    totalRecords: batches * size,
    startedAt: 1_700_000_000_123,
    ...rest,
  };
}

export function makeBatch(jobId, index, { size = 2, ...rest } = {}) {
  return {
    id: `${jobId}-b${index}`,
    index,
    status: 'PENDING',
    records: [],
    processedCount: 0,
    failedCount: 0,
    recordStartIndex: index * size,
    recordEndIndex: index * size + size - 1,
    ...rest,
  };
}

export function makeRecord(index, rest = {}) {
  return { index, raw: { line: `row ${index}` }, parsed: { row: index }, status: 'pending', errors: [], ...rest };
}

/** The records of a batch, from `recordStartIndex` to `recordEndIndex`. */
export function recordsOf(batch, rest = {}) {
  const length = batch.recordEndIndex - batch.recordStartIndex + 1;
  return Array.from({ length }, (_, offset) => makeRecord(batch.recordStartIndex + offset, rest));
}

/** As the importer prepares a distributed job: the records of each batch, then the job. */
export async function prepare(store, job) {
  for (const batch of job.batches) await store.saveBatchRecords(job.id, batch.id, recordsOf(batch));
  await store.saveJobState(job);
}

/** The object without these keys. */
export function without(object, ...keys) {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}
