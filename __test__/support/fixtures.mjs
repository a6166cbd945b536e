// Jobs, batches and records for tests and benchmarks: the only place where they are made. What is done with them stands in `suite.mjs`.

export const JOB_STATUSES = ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'];
export const BATCH_STATUSES = ['PENDING', 'PROCESSING', 'PAUSED', 'COMPLETED', 'FAILED'];
export const RECORD_STATUSES = ['pending', 'valid', 'invalid', 'processed', 'failed'];

let sequence = 0;

/** An id that nothing else has: at most 20 characters. */
export function newId(prefix = 'job') {
  return `${prefix}-${process.pid.toString(36)}-${(++sequence).toString(36)}`;
}

/**
 * A distributed job, PROCESSING, of `batches` batches of `size` records, as the importer prepares it. Other fields replace the usual ones; one that
 * is `undefined` is left out.
 */
export function makeJob(batches = 3, { size = 10, ...fields } = {}) {
  const id = fields.id ?? newId();
  const job = {
    id,
    config: { batchSize: size },
    status: 'PROCESSING',
    batches: Array.from({ length: batches }, (_, index) => makeBatch(id, index, { size })),
    totalRecords: batches * size,
    startedAt: 1_700_000_000_000,
    distributed: true,
    ...fields,
  };
  return without(job, ...Object.keys(job).filter((name) => job[name] === undefined));
}

/** A job that one process works on, so that it is not marked as distributed: as `makeJob` otherwise. */
export function makeLocalJob(batches, fields) {
  return makeJob(batches, { distributed: undefined, ...fields });
}

/** A PENDING batch of the job `jobId`, of `size` records. */
export function makeBatch(jobId, index, { size = 10, ...fields } = {}) {
  return {
    id: `${jobId}.b${index}`,
    index,
    status: 'PENDING',
    records: [],
    processedCount: 0,
    failedCount: 0,
    recordStartIndex: index * size,
    recordEndIndex: index * size + size - 1,
    ...fields,
  };
}

/** What `updateBatchState` is given. */
export function makeState(batchId, status, processedCount = 0, failedCount = 0) {
  return { batchId, status, processedCount, failedCount };
}

/** A processed record, as the engine saves it. */
export function makeRecord(index, fields = {}) {
  return { index, raw: { n: String(index) }, parsed: { n: index }, status: 'processed', errors: [], ...fields };
}

/** The records of a batch, from `recordStartIndex` to `recordEndIndex`: pending, as the importer prepares them. */
export function makeRecords({ recordStartIndex, recordEndIndex }, fields = {}) {
  const length = recordEndIndex - recordStartIndex + 1;
  return Array.from({ length }, (_, offset) => makeRecord(recordStartIndex + offset, { status: 'pending', ...fields }));
}

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

/** An array in an array, and so on, of this many levels. */
export function nested(levels) {
  return JSON.parse('['.repeat(levels) + ']'.repeat(levels));
}

/** The object without these keys. */
export function without(object, ...keys) {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

/** The rows of a job's batches, as they are once the job was saved. */
export function makeRows(job) {
  return job.batches.map((batch) => ({
    id: batch.id,
    jobId: job.id,
    batchIndex: batch.index,
    status: 'PENDING',
    workerId: null,
    claimedAt: null,
    recordStartIndex: batch.recordStartIndex,
    recordEndIndex: batch.recordEndIndex,
    processedCount: 0,
    failedCount: 0,
    version: 0,
  }));
}
