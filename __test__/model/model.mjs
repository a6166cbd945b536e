// The reference model: what a store does, in plain objects, without SQL, without a second copy and without concurrency. It is written from the
// contract, so that it can be read beside it; where it differs from the implementation, one of the two is wrong.
//
// Time has two values: FRESH, "by the database's clock, just now", and STALE, longer ago than any timeout. Every `timeoutMs` in the
// sequences is between the two.
//
// A few outcomes are the store's choice (which batch a claim takes where another store gave one back, whether a store has heard that a job is
// final). There the model looks at what the store answered, goes on from it where it was one of those allowed, and from another one where not.

import { JOB_STATUSES } from '../support/fixtures.mjs';

export const FRESH = 'fresh';
export const STALE = 'stale';

/** What a call rejects with: its message is the code. */
class Refused extends Error {}

const FINAL = ['COMPLETED', 'ABORTED', 'FAILED'];
const isFinal = (status) => FINAL.includes(status);
const isOpen = ({ status }) => ['PENDING', 'PROCESSING', 'PAUSED'].includes(status);
const isClaimable = ({ status }) => status === 'PENDING' || status === 'PROCESSING';
const byIndex = (a, b) => a.index - b.index;
const state = ({ status, processedCount, failedCount }) => ({ status, processedCount, failedCount });
const count = (items, ...statuses) => items.filter(({ status }) => statuses.includes(status)).length;

/** Without the keys that are undefined. */
const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

/** The database, and what each store on it remembers. */
export class Model {
  jobs = new Map(); // by id: the job as it was saved, with its `batches`
  rows = new Map(); // by batch id: what workers claim
  records = new Map(); // by job id: a map by record index of { batchId, record }

  /** @param {{ maxClaims?: number }[]} stores The options of the stores. */
  constructor(stores) {
    this.stores = stores.map(({ maxClaims = Infinity }, number) => ({ number, maxClaims, tokens: new Map() }));
    this.claimers = new Map(); // by job id: the stores that ever claimed of it
    this.adopted = new Set(); // the jobs of the incumbent's that have got rows
    this.refused = new Set(); // "job batch token": tokens with which queued saves were refused, after they were answered
  }

  copy() {
    const copy = new Model([]);
    const { stores, jobs, rows, records, claimers, adopted, refused } = this;
    return Object.assign(copy, structuredClone({ stores, jobs, rows, records, claimers, adopted, refused }));
  }

  /** What a call has to answer: `{ value }`, or `{ code }` where it rejects. `got` is what the store under test answered. */
  answer([store, method, ...args], got) {
    this.got = got;
    try {
      return { value: this[method](store, ...structuredClone(args)) };
    } catch (refused) {
      if (refused instanceof Refused) return { code: refused.message };
      throw refused;
    }
  }

  rowsOf(jobId) {
    return [...this.rows.values()].filter((row) => row.jobId === jobId).sort(byIndex);
  }

  rowOf(jobId, batchId) {
    const row = this.rows.get(batchId);
    return row?.jobId === jobId ? row : undefined;
  }

  recordsOf(jobId) {
    return [...(this.records.get(jobId)?.values() ?? [])];
  }

  /** The list of a job's batches as its JSON has to be: the state is that of the row, where there is one. */
  listOf(job) {
    return job.batches.map((batch) => ({ ...batch, ...state(this.rowOf(job.id, batch.id) ?? batch) }));
  }

  // Jobs

  saveJobState(store, job) {
    if (job.distributed) this.insertAbsent(store, job.id, job.batches);
    const keys = ['id', 'index', 'status', 'processedCount', 'failedCount', 'recordStartIndex', 'recordEndIndex'];
    const batches = job.batches.map((batch) => defined({ records: [], ...Object.fromEntries(keys.map((key) => [key, batch[key]])) }));
    const before = this.jobs.get(job.id);
    // Core's engine says that a job is done, and not when.
    const completedAt = job.completedAt ?? (isFinal(job.status) ? (before?.completedAt ?? FRESH) : undefined);
    this.jobs.set(job.id, { ...job, completedAt, batches });
    // A job that is made again: the store's claims on the one before it say nothing about it.
    if (!before) this.dropTokens(store, job.id);
    if (isFinal(job.status)) this.jobIsFinal(store, job.id);
  }

  /** Rows for the batches that have none. Those that have one stay as they are. All or nothing. */
  insertAbsent(store, jobId, batches) {
    const twice = (key) => new Set(batches.map((batch) => batch[key])).size < batches.length;
    const absent = batches.filter(({ id }) => !this.rowOf(jobId, id));
    const taken = absent.some(({ id, index }) => this.rows.has(id) || this.rowsOf(jobId).some((row) => row.index === index));
    if (twice('id') || twice('index') || taken) throw new Refused('CONSTRAINT');
    for (const { id, index, workerId, claimedAt, recordStartIndex = 0, recordEndIndex = 0, ...batch } of absent) {
      const held = batch.status === 'PROCESSING' && workerId !== undefined;
      const row = { id, jobId, index, recordStartIndex, recordEndIndex, ...state(batch), version: 0 };
      this.rows.set(id, row);
      if (held) Object.assign(row, { workerId, claimedAt: claimedAt && STALE });
      else if (isClaimable(batch)) this.open(store, row);
    }
  }

  /** As the application does to pause or resume a job. */
  readAndSave(store, jobId, status) {
    const job = this.getJobState(store, jobId);
    if (job) this.saveJobState(store, { ...job, status });
    return job;
  }

  /** A distributed job that the incumbent prepared has no rows until a call needs them. */
  needsRows(jobId) {
    const job = this.jobs.get(jobId);
    return Boolean(job?.distributed) && job.batches.length > 0 && this.rowsOf(jobId).length === 0;
  }

  adopt(store, jobId) {
    if (!this.needsRows(jobId)) return;
    this.insertAbsent(store, jobId, this.jobs.get(jobId).batches);
    this.adopted.add(jobId);
  }

  /** Whether the job has got its rows since this was asked last. */
  wasAdopted(jobId) {
    return this.adopted.delete(jobId);
  }

  getJobState(_store, jobId) {
    const job = this.jobs.get(jobId);
    if (!job) return null;
    const batches = this.listOf(job).map((batch) => {
      const { workerId, claimedAt } = this.rowOf(jobId, batch.id) ?? {};
      return defined({ ...batch, workerId, claimedAt });
    });
    return { ...this.summary(job), batches };
  }

  summary({ id, config, status, totalRecords, startedAt, completedAt, distributed }) {
    return defined({ id, config, status, totalRecords, startedAt, completedAt, distributed: distributed || undefined });
  }

  getJob(_store, jobId) {
    const job = this.jobs.get(jobId);
    return job ? this.summary(job) : null;
  }

  /** Of a distributed job, what workers can claim; of another one, what it lists. */
  batches(_store, jobId, { status, limit = 100, after = -Infinity } = {}) {
    const job = this.jobs.get(jobId);
    if (!job) return [];
    const rows = job.distributed ? this.rowsOf(jobId) : [];
    const statuses = status && [status].flat();
    return (rows.length > 0 ? rows : this.getJobState(0, jobId).batches)
      .filter((batch) => batch.index > after && (statuses === undefined || statuses.includes(batch.status)))
      .sort(byIndex)
      .slice(0, limit)
      .map(({ id, index, workerId, claimedAt, recordStartIndex, recordEndIndex, ...batch }) =>
        defined({ id, index, ...state(batch), recordStartIndex, recordEndIndex, workerId, claimedAt }),
      );
  }

  stats() {
    const jobs = [...this.jobs.values()];
    const unfinished = jobs.filter(({ distributed, status }) => distributed && !isFinal(status));
    const open = unfinished.flatMap(({ id }) => this.rowsOf(id)).filter(isOpen);
    const counts = (statuses, items) => Object.fromEntries(statuses.map((status) => [status, count(items, status)]));
    const claims = open.filter(({ status, claimedAt }) => status !== 'PENDING' && claimedAt !== undefined);
    const oldestClaimMs = claims.some(({ claimedAt }) => claimedAt === STALE) ? STALE : claims.length > 0 ? FRESH : undefined;
    return defined({ jobs: counts(JOB_STATUSES, jobs), batches: counts(['PENDING', 'PROCESSING', 'PAUSED'], open), oldestClaimMs });
  }

  /** All of them, page by page. */
  listJobs(_store, { status }) {
    const jobs = [...this.jobs.values()].filter((job) => status === undefined || job.status === status);
    // Which comes first of two that have not been started is not said.
    const order = (a, b) => (b.startedAt ?? -1) - (a.startedAt ?? -1) || (a.id < b.id ? -1 : 1);
    return jobs.sort(order).map((job) => this.summary(job));
  }

  /** A queued save was answered before the store found that its claim is lost. */
  refuseLater(store, jobId, batchId, { token = this.tokenAtCall(store, jobId, batchId).token } = {}) {
    this.refused.add(`${jobId} ${batchId} ${token}`);
  }

  deleteJob(store, jobId) {
    const found = this.jobs.has(jobId) || this.rowsOf(jobId).length > 0 || this.recordsOf(jobId).length > 0;
    this.jobs.delete(jobId);
    this.records.delete(jobId);
    for (const { id } of this.rowsOf(jobId)) this.rows.delete(id);
    this.jobIsFinal(store, jobId);
    return found;
  }

  dropTokens(store, jobId) {
    const { tokens } = this.stores[store];
    for (const [key, held] of tokens) if (held.jobId === jobId) tokens.delete(key);
  }

  /** The store that made a job final, or deleted it, drops its tokens. The others may, once they hear of it. */
  jobIsFinal(store, jobId) {
    this.dropTokens(store, jobId);
    for (const { tokens } of this.stores) {
      for (const held of tokens.values()) if (held.jobId === jobId) held.mayBeDropped = true;
    }
  }

  // Batches

  /** The token that a call without one takes. Of calls that are made at once, it is the one that the store had before the first of them. */
  tokenAtCall(store, jobId, batchId) {
    return (this.tokensAtCall ?? this.stores[store].tokens).get(`${jobId} ${batchId}`);
  }

  /** Makes calls that are made at once, through this store. */
  atOnce(store, calls) {
    this.tokensAtCall = structuredClone(this.stores[store].tokens);
    try {
      return calls();
    } finally {
      this.tokensAtCall = undefined;
    }
  }

  /** A fenced call goes through only while the version is the token. What is fenced and has no row has no version. */
  fence(store, jobId, batchId, { token } = {}) {
    const held = this.tokenAtCall(store, jobId, batchId);
    const expected = token ?? held?.token;
    if (expected === undefined || this.rowOf(jobId, batchId)?.version === expected) return;
    if (token === undefined && held.mayBeDropped && this.got.code !== 'LEASE_LOST') return;
    throw new Refused('LEASE_LOST');
  }

  updateBatchState(store, jobId, batchId, update, fence) {
    this.fence(store, jobId, batchId, fence);
    this.adopt(store, jobId);
    const row = this.rowOf(jobId, batchId);
    const listed = this.jobs.get(jobId)?.batches.find(({ id }) => id === batchId);
    const opens = update.status === 'PENDING' && row && row.status !== 'PENDING';
    if (listed) Object.assign(listed, state(update));
    if (row) Object.assign(row, state(update));
    if (opens) this.open(store, row, row);
  }

  /**
   * The batch is PENDING from now on. A store looks for the next batch behind its last claim, so one that has claimed of this job may pass over
   * what another store opened, until nothing higher is left.
   */
  open(store, row, { workerId, claimedAt } = {}) {
    const late = [...(this.claimers.get(row.jobId) ?? [])].filter((number) => number !== store);
    Object.assign(row, { status: 'PENDING', workerId, claimedAt, lateFor: new Set(late) });
  }

  claimBatch(store, jobId, workerId) {
    const job = this.jobs.get(jobId);
    const none = (reason) => ({ claimed: false, reason });
    if (!job) return none('JOB_NOT_FOUND');
    if (job.status !== 'PROCESSING') return none('JOB_NOT_PROCESSING');
    this.adopt(store, jobId);

    const pending = this.rowsOf(jobId).filter(({ status }) => status === 'PENDING');
    if (pending.length === 0) return none('NO_PENDING_BATCHES');
    const inTime = pending.findIndex(({ lateFor }) => !lateFor.has(store));
    const allowed = inTime < 0 ? pending : pending.slice(0, inTime + 1);
    const row = allowed.find(({ id }) => id === this.got.value?.reservation?.batchId) ?? allowed[0];

    Object.assign(row, { status: 'PROCESSING', workerId, claimedAt: FRESH, version: row.version + 1 });
    this.stores[store].tokens.set(`${jobId} ${row.id}`, { jobId, token: row.version });
    this.claimers.set(jobId, (this.claimers.get(jobId) ?? new Set()).add(store));
    const { id: batchId, index: batchIndex, recordStartIndex, recordEndIndex, version: token } = row;
    const reservation = { jobId, batchId, batchIndex, workerId, claimedAt: FRESH, recordStartIndex, recordEndIndex, token };
    return { claimed: true, reservation };
  }

  heldBy(workerId, jobId, batchId) {
    return this.rowsOf(jobId).find((row) => row.id === batchId && row.status === 'PROCESSING' && row.workerId === workerId);
  }

  releaseBatch(store, jobId, batchId, workerId) {
    this.fence(store, jobId, batchId);
    const row = this.heldBy(workerId, jobId, batchId);
    if (row) this.open(store, Object.assign(row, { version: row.version + 1 }));
  }

  renewBatch(store, jobId, batchId, workerId, fence) {
    this.fence(store, jobId, batchId, fence);
    const row = this.heldBy(workerId, jobId, batchId);
    if (row) row.claimedAt = FRESH;
    return row !== undefined;
  }

  reclaimStaleBatches(store, jobId) {
    this.adopt(store, jobId);
    const stale = this.rowsOf(jobId).filter(({ status, claimedAt }) => status === 'PROCESSING' && claimedAt !== FRESH);
    const gaveUp = stale.filter(({ version }) => Math.ceil(version / 2) >= this.stores[store].maxClaims);
    for (const row of stale) {
      row.version++;
      if (gaveUp.includes(row)) row.status = 'FAILED';
      else this.open(store, row);
    }
    // The worker that gave up the last batch may be the last one there, so no other would finalize the job.
    const claims = this.rowsOf(jobId).filter(({ claimedAt }) => claimedAt !== undefined);
    // Where no claim is recorded, the job's start counts, and that is always long ago here.
    const abandoned = claims.every(({ claimedAt }) => claimedAt === STALE);
    if (gaveUp.length > 0 || abandoned) this.finalize(store, jobId);
    return stale.length;
  }

  getDistributedStatus(store, jobId) {
    this.adopt(store, jobId);
    const rows = this.rowsOf(jobId);
    return {
      jobId,
      totalBatches: rows.length,
      completedBatches: count(rows, 'COMPLETED'),
      failedBatches: count(rows, 'FAILED'),
      processingBatches: count(rows, 'PROCESSING'),
      pendingBatches: count(rows, 'PENDING'),
      isComplete: this.isComplete(jobId),
    };
  }

  /** No batch is open. Of a distributed job that lists none, nothing is left to do either. */
  isComplete(jobId) {
    const [job, rows] = [this.jobs.get(jobId), this.rowsOf(jobId)];
    return rows.length > 0 ? !rows.some(isOpen) : Boolean(job?.distributed) && job.batches.length === 0;
  }

  tryFinalizeJob(store, jobId) {
    if (this.jobs.get(jobId)?.status === 'PROCESSING') this.adopt(store, jobId);
    return this.finalize(store, jobId);
  }

  finalize(store, jobId) {
    const [job, rows] = [this.jobs.get(jobId), this.rowsOf(jobId)];
    if (job?.status !== 'PROCESSING' || !this.isComplete(jobId)) return false;
    Object.assign(job, { status: count(rows, 'FAILED') > 0 ? 'FAILED' : 'COMPLETED', completedAt: FRESH });
    this.jobIsFinal(store, jobId);
    return true;
  }

  // Steering

  /** The job, where it is distributed: the status of another one is its process's. */
  steered(jobId, force = false) {
    const job = this.jobs.get(jobId);
    if (job && !job.distributed && !force) throw new Refused('INVALID_ARGUMENT');
    return job;
  }

  pauseJob(_store, jobId) {
    const job = this.steered(jobId);
    if (job?.status !== 'PROCESSING') return false;
    job.status = 'PAUSED';
    return true;
  }

  resumeJob(store, jobId) {
    const job = this.steered(jobId);
    if (job?.status !== 'PAUSED') return false;
    job.status = 'PROCESSING';
    this.finalize(store, jobId);
    return true;
  }

  abortJob(store, jobId, { now = false, force = false } = {}) {
    const job = this.steered(jobId, force);
    const aborts = job !== undefined && !isFinal(job.status);
    if (aborts) Object.assign(job, { status: 'ABORTED', completedAt: FRESH });
    if (now && job?.status === 'ABORTED') this.takeClaims(store, jobId);
    return aborts;
  }

  takeClaims(store, jobId) {
    const held = this.rowsOf(jobId).filter(({ status, workerId }) => status === 'PROCESSING' || (status === 'PAUSED' && workerId));
    for (const row of held) this.open(store, Object.assign(row, { version: row.version + 1 }));
  }

  /** The job that it makes, without its id and its batches' ids, which are the store's own. */
  retryFailed(_store, jobId, { statuses = ['failed'], batchSize } = {}) {
    const job = this.jobs.get(jobId);
    if (!isFinal(job?.status)) throw new Refused('INVALID_ARGUMENT');
    // A worker may still store records of the batch.
    const isHeld = ({ status, workerId }) => ['PROCESSING', 'PAUSED'].includes(status) && workerId;
    if (this.rowsOf(jobId).some(isHeld)) throw new Refused('INVALID_ARGUMENT');
    const records = this.selected(jobId, statuses).map(({ index, raw }) => ({ index, raw, parsed: raw, status: 'pending', errors: [] }));
    if (records.length === 0) return null;
    const size = batchSize ?? job.config.batchSize;
    const batches = Array.from({ length: Math.ceil(records.length / size) }, (_, at) => records.slice(at * size, (at + 1) * size));
    return {
      totalRecords: records.length,
      totalBatches: batches.length,
      job: {
        config: { ...job.config, batchSize: size, retryOf: jobId },
        status: 'PROCESSING',
        totalRecords: records.length,
        distributed: true,
      },
      batches: batches.map((some, index) => ({
        index,
        status: 'PENDING',
        records: [],
        processedCount: 0,
        failedCount: 0,
        recordStartIndex: some[0].index,
        recordEndIndex: some.at(-1).index,
      })),
      records,
    };
  }

  /** What `olderThanMs: 0` deletes of the jobs that are final, and of the records that have no job. */
  purge(store, { statuses = FINAL, dryRun = false, withoutJob = false }) {
    const result = { jobIds: [], batches: 0, records: 0, orphans: [], skipped: [] };
    const isLive = ({ status, workerId, claimedAt }) => ['PROCESSING', 'PAUSED'].includes(status) && workerId && claimedAt === FRESH;
    const drop = (jobId, batches, records) => {
      result.batches += batches;
      result.records += records;
      if (!dryRun) this.deleteJob(store, jobId);
    };
    for (const { id, status, completedAt, startedAt } of this.jobs.values()) {
      if (!isFinal(status) || !statuses.includes(status) || (completedAt ?? startedAt) === undefined) continue;
      result[this.rowsOf(id).some(isLive) ? 'skipped' : 'jobIds'].push(id);
    }
    for (const id of result.jobIds) drop(id, this.rowsOf(id).length, this.recordsOf(id).length);
    // No id of the sequences says when it was made.
    for (const id of withoutJob ? this.records.keys() : []) {
      const records = this.recordsOf(id);
      if (this.jobs.has(id) || result.jobIds.includes(id) || records.length === 0) continue;
      result.orphans.push(id);
      drop(id, 0, records.length);
    }
    return { ...result, jobIds: result.jobIds.sort(), orphans: result.orphans.sort(), skipped: result.skipped.sort() };
  }

  // Records

  saveProcessedRecord(store, jobId, batchId, record, fence) {
    this.fence(store, jobId, batchId, fence);
    // A later claim may get a token that was refused. The store goes on refusing it, unless it has forgotten what it knew of the batch's claims.
    if (fence && this.refused.has(`${jobId} ${batchId} ${fence.token}`) && this.got.code === 'LEASE_LOST') throw new Refused('LEASE_LOST');
    this.saveBatchRecords(store, jobId, batchId, [record]);
  }

  saveBatchRecords(_store, jobId, batchId, records) {
    if (!this.records.has(jobId)) this.records.set(jobId, new Map());
    const saved = this.records.get(jobId);
    for (const record of records) saved.set(record.index, { batchId, record });
  }

  selected(jobId, statuses, batchId, from = -Infinity) {
    return this.recordsOf(jobId)
      .filter((saved) => (batchId === undefined || saved.batchId === batchId) && saved.record.index >= from)
      .map(({ record }) => record)
      .filter(({ status }) => statuses === undefined || statuses.includes(status))
      .sort(byIndex);
  }

  getFailedRecords = (_store, jobId) => this.selected(jobId, ['failed', 'invalid']);
  getPendingRecords = (_store, jobId) => this.selected(jobId, ['pending', 'valid']);
  getProcessedRecords = (_store, jobId) => this.selected(jobId, ['processed']);
  getBatchRecords = (_store, jobId, batchId) => this.selected(jobId, undefined, batchId);
  readRecords = (_store, jobId, { status, batchId, from }) => this.selected(jobId, status && [status].flat(), batchId, from);

  getProgress(_store, jobId) {
    const [job, records] = [this.jobs.get(jobId), this.selected(jobId)];
    const { totalRecords = 0, startedAt, completedAt } = job ?? {};
    const [processedRecords, failedRecords] = [count(records, 'processed'), count(records, 'failed', 'invalid')];
    const done = processedRecords + failedRecords;
    const pendingRecords = Math.max(0, totalRecords - done);
    // Of a distributed job, what workers can claim: also a batch that a later snapshot does not list.
    const rows = job?.distributed ? this.rowsOf(jobId) : [];
    const batches = rows.length > 0 ? rows : job ? this.listOf(job) : [];
    // A time that ends now is any time.
    const elapsedMs = startedAt === undefined ? 0 : Number.isInteger(completedAt) ? Math.max(0, completedAt - startedAt) : FRESH;
    const counts = { totalRecords, processedRecords, failedRecords, pendingRecords };
    const percentage = totalRecords === 0 ? 0 : Math.round((done / totalRecords) * 100);
    const estimatedRemainingMs = pendingRecords > 0 && done > 0 ? FRESH : undefined;
    const [currentBatch, totalBatches] = [count(batches, 'COMPLETED'), batches.length];
    return defined({ ...counts, percentage, currentBatch, totalBatches, elapsedMs, estimatedRemainingMs });
  }

  // Past the stores

  backdate(_store, jobId) {
    for (const row of this.rowsOf(jobId)) row.claimedAt &&= STALE;
  }

  /** The incumbent writes a job and its list, and no rows. */
  prepareAsIncumbent(_store, job) {
    this.jobs.set(job.id, job);
  }
}
