'use strict';

// What the page shows: each function reads the store, and makes the JSON that a script of the page asks for.

const { FAILED, redacted } = require('./failed-rows.js');
const { errorsOf, listOf, partsOf, textOf } = require('./record-errors.js');
const { Refusal } = require('./refusal.js');

const JOBS = 50;
const BATCHES = 100;
const ROWS = 50;
const COUNTED_ERRORS = 10_000;
const SHOWN_GROUPS = 50;

const JOB_STATUSES = ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'];
const BATCH_STATUSES = ['PENDING', 'PROCESSING', 'PAUSED', 'COMPLETED', 'FAILED'];
const OPEN = new Set(['PROCESSING', 'PAUSED']);

/** A count is kept until the next one costs a tenth of the time, but for no longer than `Fresh` keeps anything. */
const COUNT = { share: 0.1 };

/** A page of jobs, with how many there are of each status. */
async function jobs({ store, fresh, settings }, { status, after, afterStartedAt }) {
  const place = after === undefined ? undefined : { id: after, ...(afterStartedAt !== undefined && { startedAt: afterStartedAt }) };
  const options = { limit: JOBS + 1, ...(status && { status }), ...(place && { after: place }) };
  const [page, stats, server] = await Promise.all([
    fresh.get(`jobs ${JSON.stringify(options)}`, () => store.listJobs(options)),
    fresh.get('stats', () => store.stats(), COUNT),
    serverOf(store, fresh),
  ]);
  const shown = page.value.slice(0, JOBS);
  // How far the open ones are. The newest jobs come first, so these are on the first page as a rule.
  const open = shown.filter((job) => job.distributed && OPEN.has(job.status)).slice(0, 20);
  const counts = new Map(await Promise.all(open.map(async ({ id }) => [id, await batchCounts(store, fresh, id)])));
  return {
    ageMs: ageOf(page),
    now: Date.now() + server.clockSkewMs,
    database: server.name,
    allowed: allowed(settings),
    countsAgeMs: Math.max(...[stats, ...counts.values()].map(ageOf)),
    counts: stats.value.jobs,
    openBatches: stats.value.batches,
    oldestClaimMs: stats.value.oldestClaimMs,
    jobs: shown.map((job) => ({ ...jobOf(job), ...(counts.has(job.id) && { batches: countsOf(counts.get(job.id).value) }) })),
    next: page.value.length > JOBS ? { after: shown.at(-1).id, afterStartedAt: shown.at(-1).startedAt } : undefined,
  };
}

/** One job, with a page of its batches. */
async function job({ store, fresh, settings }, { id, status, after }) {
  const found = await fresh.get(`job ${id}`, () => store.getJob(id));
  if (found.value === null) throw noSuchJob(id);
  const options = { limit: BATCHES + 1, ...(status && { status }), ...(after !== undefined && { after }) };
  const [page, counts, progress, server] = await Promise.all([
    fresh.get(`batches ${id} ${JSON.stringify(options)}`, () => store.batches(id, options)),
    batchCounts(store, fresh, id),
    fresh.get(`progress ${id}`, () => store.getProgress(id), COUNT),
    serverOf(store, fresh),
  ]);
  const now = Date.now() + server.clockSkewMs;
  const shown = page.value.slice(0, BATCHES);
  return {
    ageMs: Math.max(ageOf(found), ageOf(page)),
    now,
    database: server.name,
    allowed: allowed(settings),
    staleAfterMs: settings.staleAfterMs,
    job: { ...jobOf(found.value), config: configOf(found.value.config) },
    progress: { ...progress.value, ageMs: ageOf(progress) },
    counts: found.value.distributed ? countsOf(counts.value) : undefined,
    countsAgeMs: ageOf(counts),
    batches: shown.map((batch) => batchOf(batch, found.value, now, settings.staleAfterMs)),
    next: page.value.length > BATCHES ? shown.at(-1).index : undefined,
  };
}

/**
 * Counts the first failed records by field and code of their errors, as the command `batchactions-sqlx errors` does. With `showRecords`, each has an example of
 * its message.
 */
async function errors({ store, fresh, settings }, { id }) {
  const read = async () => {
    await mustExist(store, id);
    const groups = new Map();
    let rows = 0;
    let complete = true;
    for await (const stored of store.records(id, { status: FAILED })) {
      if (rows === COUNTED_ERRORS) {
        complete = false;
        break;
      }
      rows++;
      const record = settings.showRecords ? await redacted(stored, settings.redact) : stored;
      // A record with three errors of one kind is one record.
      const seen = new Set();
      for (const { message, ...kind } of kindsOf(record, settings.showRecords)) {
        const key = JSON.stringify(kind);
        if (seen.has(key)) continue;
        seen.add(key);
        const group = groups.get(key);
        if (group) group.count++;
        else groups.set(key, { ...kind, count: 1, ...(settings.showRecords && { example: cut(message, 300) }) });
      }
    }
    const sorted = [...groups.values()].sort((a, b) => b.count - a.count);
    return {
      rows,
      complete,
      limit: COUNTED_ERRORS,
      groups: sorted.slice(0, SHOWN_GROUPS),
      more: Math.max(0, sorted.length - SHOWN_GROUPS),
    };
  };
  const answer = await fresh.get(`errors ${id}`, read, COUNT);
  return { ageMs: ageOf(answer), ...answer.value };
}

/** A page of failed records. */
async function rows({ store, settings }, { id, from }) {
  mayShowRecords(settings);
  await mustExist(store, id);
  const shown = [];
  let next;
  for await (const stored of store.records(id, { status: FAILED, ...(from !== undefined && { from }) })) {
    if (shown.length === ROWS) {
      next = stored.index;
      break;
    }
    // `redact` may change the record, and the next page is found by its index.
    const { index } = stored;
    const record = await redacted(stored, settings.redact);
    shown.push({
      index,
      status: textOf(record.status),
      errors: cut(errorsOf(record), 1_000),
      raw: cut(JSON.stringify(record.raw) ?? '', 2_000),
    });
  }
  return { ageMs: 0, rows: shown, next };
}

function mayShowRecords({ showRecords }) {
  if (showRecords) return;
  throw new Refusal(403, 'FORBIDDEN', 'Records are hidden: createDashboard(store, { showRecords: true }) shows them.');
}

async function mustExist(store, id) {
  const found = await store.getJob(id);
  if (found === null) throw noSuchJob(id);
  return found;
}

function noSuchJob(id) {
  return new Refusal(404, 'NOT_FOUND', `There is no job ${JSON.stringify(cut(id, 80))}.`);
}

/** What is wrong with a record. A message may hold a value of the record, so it isn't told apart by it where records are hidden. */
function* kindsOf({ errors, processingError }, showRecords) {
  for (const error of listOf(errors)) {
    const { field, code, message, severity } = partsOf(error);
    yield { field: cut(field, 200), code: cut(code, 200), ...(severity === 'warning' && { severity }), message };
  }
  if (processingError !== undefined && processingError !== null) {
    const message = textOf(processingError);
    yield { field: '', code: showRecords ? cut(`Processing: ${message}`, 200) : 'Processing', message };
  }
}

function batchCounts(store, fresh, id) {
  return fresh.get(`counts ${id}`, () => store.getDistributedStatus(id), COUNT);
}

function countsOf({ totalBatches, completedBatches, failedBatches, processingBatches, pendingBatches }) {
  return {
    total: totalBatches,
    COMPLETED: completedBatches,
    FAILED: failedBatches,
    PROCESSING: processingBatches,
    PENDING: pendingBatches,
    PAUSED: Math.max(0, totalBatches - completedBatches - failedBatches - processingBatches - pendingBatches),
  };
}

function jobOf({ id, status, totalRecords, startedAt, completedAt, distributed }) {
  return { id, status, totalRecords, startedAt, completedAt, distributed: distributed === true };
}

/** What is worth a line of a job's configuration. The rest may be anything, and hold anything. */
function configOf(config) {
  const shown = {};
  for (const key of ['batchSize', 'maxConcurrentBatches', 'continueOnError', 'maxRetries', 'retryOf']) {
    const value = config?.[key];
    if (['string', 'number', 'boolean'].includes(typeof value)) shown[key] = typeof value === 'string' ? cut(value, 255) : value;
  }
  return shown;
}

function batchOf(batch, { distributed }, now, staleAfterMs) {
  const { index, id, status, processedCount, failedCount, workerId, claimedAt, recordStartIndex, recordEndIndex } = batch;
  const held = status === 'PROCESSING' || status === 'PAUSED';
  const claimAgeMs = held && claimedAt !== undefined ? Math.max(0, now - claimedAt) : undefined;
  // As `reclaimStaleBatches` sees it.
  const stale = distributed === true && status === 'PROCESSING' && (claimAgeMs === undefined || claimAgeMs > staleAfterMs);
  return { index, id, status, processedCount, failedCount, workerId, claimAgeMs, stale, recordStartIndex, recordEndIndex };
}

async function serverOf(store, fresh) {
  const { value } = await fresh.get('ping', () => store.ping(), { keepMs: 60_000 });
  return { name: `${value.database} ${value.version}`, clockSkewMs: Math.round(value.clockSkewMs) };
}

function allowed({ actions, showRecords }) {
  return { actions, showRecords };
}

function ageOf({ readAt }) {
  return Math.round(performance.now() - readAt);
}

/** Text of at most this many characters, with no half of a character at its end. */
function cut(text, length) {
  return text.length > length ? `${text.slice(0, length).replace(/[\uD800-\uDBFF]$/, '')}…` : text;
}

module.exports = { jobs, job, errors, rows, mayShowRecords, mustExist, JOB_STATUSES, BATCH_STATUSES };
