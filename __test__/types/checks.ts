/**
 * The types, checked by the compiler (see `compile.mjs`): the store fits the two ports as `@batchactions/core` declares them, and each value type is
 * core's to the letter. Nothing here is run. It needs no types but the language's: no DOM, no Node.
 */
import {
  SequelizeStateStore,
  SqlxStateStore,
  StateStoreError,
  type AbortOptions,
  type Batch,
  type BatchesOptions,
  type BatchReservation,
  type BatchState,
  type BatchStatus,
  type BatchSummary,
  type ClaimBatchResult,
  type ConnectionOptions,
  type DistributedJobStatus,
  type FenceOptions,
  type JobConfig,
  type JobProgress,
  type JobState,
  type JobStatus,
  type JobSummary,
  type ListJobsOptions,
  type PingResult,
  type PoolOptions,
  type PoolStats,
  type ProcessedRecord,
  type PurgeOptions,
  type PurgeResult,
  type RawRecord,
  type RecordsOptions,
  type RecordStatus,
  type RetryOptions,
  type RetryResult,
  type SequelizeLike,
  type SequelizeStateStoreOptions,
  type SqlxStateStoreOptions,
  type SslOptions,
  type StateStoreErrorCode,
  type StoreCall,
  type StoreCallChannel,
  type StoreServer,
  type StoreWarning,
  type StoreWarningChannel,
  type StoreWarningKind,
  type StoreStats,
  type UrlLike,
  type ValidationError,
  type ValidationErrorCode,
} from '../../index.js';
import type * as port from './ports.js';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** One object type for an intersection, so that two ways to write a type compare equal. */
type Flat<T> = T extends object ? { [K in keyof T]: T[K] } : T;
function same<A, B>(..._mismatch: Equal<Flat<A>, Flat<B>> extends true ? [] : [never]): void {}
function is<_A extends B, B>(): void {}

same<JobStatus, port.JobStatus>();
same<BatchStatus, port.BatchStatus>();
same<RecordStatus, port.RecordStatus>();
same<JobConfig, port.JobConfig>();
same<ValidationError, port.ValidationError>();
same<ValidationErrorCode, port.ValidationErrorCode>();
same<RawRecord, port.RawRecord>();
same<ProcessedRecord, port.ProcessedRecord>();
same<Batch, port.Batch>();
same<JobState, port.JobState>();
same<BatchState, port.BatchState>();
same<JobProgress, port.JobProgress>();
same<BatchReservation, port.BatchReservation & { readonly token: number }>();
same<DistributedJobStatus, port.DistributedJobStatus>();
same<Extract<ClaimBatchResult, { claimed: false }>, Extract<port.ClaimBatchResult, { claimed: false }>>();
is<ClaimBatchResult, port.ClaimBatchResult>();
same<keyof Extract<ClaimBatchResult, { claimed: true }>, 'claimed' | 'reservation'>();
same<JobSummary, Omit<port.JobState, 'batches'>>();
same<BatchSummary, Omit<port.Batch, 'records'>>();
same<keyof StoreStats['jobs'], JobStatus>();
same<keyof StoreStats['batches'], Exclude<BatchStatus, 'COMPLETED' | 'FAILED'>>();
same<PoolStats, { readonly used: number; readonly idle: number; readonly pending: number; readonly max: number }>();

same<SequelizeStateStoreOptions, SqlxStateStoreOptions>();
same<
  keyof SqlxStateStoreOptions,
  | 'schema'
  | 'password'
  | 'passwordTtlMs'
  | 'pool'
  | 'connectTimeoutMs'
  | 'statementTimeoutMs'
  | 'ssl'
  | 'statementCache'
  | 'durability'
  | 'leaseRenewal'
  | 'maxClaims'
  | 'tablePrefix'
>();
same<keyof PoolOptions, 'max' | 'min' | 'acquireTimeoutMs' | 'idleTimeoutMs'>();
same<keyof SslOptions, 'mode' | 'ca' | 'cert' | 'key'>();
same<
  StateStoreErrorCode,
  | 'INVALID_ARGUMENT'
  | 'INVALID_CONNECTION'
  | 'UNSUPPORTED_DATABASE'
  | 'CONNECTION_FAILED'
  | 'CONNECTION_LOST'
  | 'TIMEOUT'
  | 'CONFLICT'
  | 'PERMISSION_DENIED'
  | 'TABLES_MISSING'
  | 'TABLES_INCOMPATIBLE'
  | 'VALUE_TOO_LONG'
  | 'CONSTRAINT'
  | 'LEASE_LOST'
  | 'CLOSED'
  | 'DATABASE_ERROR'
  | 'INTERNAL'
>();

// The store.

declare const store: SqlxStateStore;
const stateStore: port.StateStore = store;
const distributed: port.DistributedStateStore = store;
const constructors: (new (connection: string) => port.DistributedStateStore)[] = [SqlxStateStore, SequelizeStateStore];
const alias: SequelizeStateStore = new SqlxStateStore('sqlite::memory:');
const original: SqlxStateStore = new SequelizeStateStore('sqlite::memory:');
const isStore: boolean = alias instanceof SequelizeStateStore;
void [stateStore, distributed, constructors, original, isStore];

class Subclass extends SqlxStateStore {
  override async getJobState(jobId: string): Promise<JobState | null> {
    return super.getJobState(jobId);
  }
}
void Subclass;

/** As the engine asks what a store can do. */
function isDistributed(candidate: port.StateStore): candidate is port.DistributedStateStore {
  return 'claimBatch' in candidate;
}

/** What comes out of the store fits core, and what comes out of core, or out of the store, can be handed to it again. */
async function roundTrip(core: port.DistributedStateStore, job: port.JobState, record: port.ProcessedRecord): Promise<void> {
  await store.saveJobState(job);
  await store.saveProcessedRecord(job.id, 'b', record);
  const ours: port.JobState | null = await store.getJobState(job.id);
  const theirs: JobState | null = await core.getJobState(job.id);
  if (ours) await store.saveJobState(ours);
  if (theirs) await store.saveJobState({ ...theirs, status: 'PAUSED' });
  const again = await store.getJobState(job.id);
  if (again) await core.saveJobState(again);
  for (const batch of again?.batches ?? []) {
    const state: port.BatchState = { ...batch, batchId: batch.id };
    await store.updateBatchState(job.id, batch.id, state);
    await core.updateBatchState(job.id, batch.id, { ...batch, batchId: batch.id });
    await store.saveBatchRecords(job.id, batch.id, await core.getBatchRecords(job.id, batch.id));
    await core.saveBatchRecords(job.id, batch.id, await store.getBatchRecords(job.id, batch.id));
  }
  for await (const each of store.records(job.id)) {
    await core.saveProcessedRecord(job.id, 'b', each);
    const failed: port.ProcessedRecord = { ...each, status: 'failed', processingError: 'x' };
    await store.saveProcessedRecord(job.id, 'b', failed);
  }
  const progress: port.JobProgress = await store.getProgress(job.id);
  const status: port.DistributedJobStatus = await store.getDistributedStatus(job.id);
  const claim: port.ClaimBatchResult = await store.claimBatch(job.id, 'w');
  const reservation: port.BatchReservation | undefined = claim.claimed ? claim.reservation : undefined;
  void [progress, status, reservation];
  // @ts-expect-error A key that core does not know is kept, and is not in the type.
  void again?.config.tenant;
}

async function construct(sequelize: SequelizeLike): Promise<void> {
  const url: UrlLike = { href: 'postgres://localhost/db' };
  new SqlxStateStore(url);
  new SqlxStateStore('postgres://localhost/db', {});
  new SqlxStateStore(sequelize, { tablePrefix: 'x_', durability: 'record' });
  const parts: ConnectionOptions = { dialect: 'mysql', host: 'h', port: 3306, database: 'd', user: 'u', password: async () => 'p' };
  new SqlxStateStore(parts, {
    schema: 's',
    pool: { max: 1, min: 0, acquireTimeoutMs: 1, idleTimeoutMs: 1 },
    connectTimeoutMs: 1,
    statementTimeoutMs: 1,
    ssl: { mode: 'verify-full', ca: 'PEM', cert: 'PEM', key: 'PEM' },
    password: () => 'p',
    passwordTtlMs: 60_000,
    statementCache: 0,
    leaseRenewal: { everyMs: 1, forMs: 2 },
    maxClaims: 3,
  });

  // @ts-expect-error There is nothing to connect to.
  new SqlxStateStore();
  // @ts-expect-error A port is not a connection.
  new SqlxStateStore(5432);
  // @ts-expect-error A dialect that is not served.
  new SqlxStateStore({ dialect: 'mssql' });
  // @ts-expect-error An unknown option.
  new SqlxStateStore('sqlite::memory:', { unknown: true });
  // @ts-expect-error The pool's options are in `pool`.
  new SqlxStateStore('sqlite::memory:', { max: 5 });
  // @ts-expect-error Both durations are needed.
  new SqlxStateStore('sqlite::memory:', { leaseRenewal: { everyMs: 5 } });
  // @ts-expect-error An unknown durability.
  new SqlxStateStore('sqlite::memory:', { durability: 'sometimes' });
  // @ts-expect-error An unknown mode.
  new SqlxStateStore('sqlite::memory:', { ssl: { mode: 'sometimes' } });
}

async function call(job: JobState, batch: Batch, record: ProcessedRecord): Promise<void> {
  const state: BatchState = { batchId: batch.id, status: 'COMPLETED', processedCount: 1, failedCount: 0 };
  const fence: FenceOptions = { token: 1 };
  await store.saveJobState(job);
  await store.updateBatchState(job.id, batch.id, state, fence);
  await store.saveProcessedRecord(job.id, batch.id, record, fence);
  await store.saveBatchRecords(job.id, batch.id, [record]);
  const renewed: boolean = await store.renewBatch(job.id, batch.id, 'w', fence);
  const deleted: boolean = await store.deleteJob(job.id);
  const finalized: boolean = await store.tryFinalizeJob(job.id);
  const reclaimed: number = await store.reclaimStaleBatches(job.id, 60_000);
  void [renewed, deleted, finalized, reclaimed];

  const steered: boolean[] = [await store.pauseJob(job.id), await store.resumeJob(job.id), await store.abortJob(job.id)];
  const abort: AbortOptions = { now: true, force: false };
  steered.push(await store.abortJob(job.id, abort));
  const retry: RetryOptions = { statuses: ['failed', 'invalid'], batchSize: 50 };
  const retried: RetryResult | null = await store.retryFailed(job.id, retry);
  // @ts-expect-error It may be null.
  void retried.jobId;
  const old: PurgeOptions = { olderThanMs: 0, statuses: ['ABORTED'], limit: 5, dryRun: true };
  const purged: PurgeResult = await store.purge(old);
  void [steered, purged.jobIds[0], purged.batches + purged.records, purged.orphans, purged.skipped];
  // @ts-expect-error What was processed is not retried.
  await store.retryFailed(job.id, { statuses: ['processed'] });
  // @ts-expect-error An age has to be given.
  await store.purge({ dryRun: true });
  // @ts-expect-error Only final jobs are purged.
  await store.purge({ olderThanMs: 0, statuses: ['PROCESSING'] });

  const options: RecordsOptions = { status: ['failed', 'invalid'], batchId: batch.id, from: 5 };
  for await (const each of store.records(job.id, options)) same<typeof each, ProcessedRecord>();
  for await (const each of store.records(job.id, { status: 'failed' })) void each.index;

  const listing: ListJobsOptions = { status: 'PROCESSING', limit: 10 };
  const [newest] = await store.listJobs(listing);
  if (newest) await store.listJobs({ after: newest });
  // @ts-expect-error A listed job comes without its batches.
  void newest?.batches;

  const alone = await store.getJob(job.id);
  same<typeof alone, JobSummary | null>();
  // @ts-expect-error It may be null.
  void alone.status;
  const paging: BatchesOptions = { status: ['PENDING', 'PROCESSING'], limit: 10, after: -1 };
  const [lowest] = await store.batches(job.id, paging);
  if (lowest) await store.batches(job.id, { status: 'FAILED', after: lowest.index });
  same<typeof lowest, BatchSummary | undefined>();
  // @ts-expect-error A batch comes without its records.
  void lowest?.records;
  const stats: StoreStats = await store.stats();
  const oldest: number | undefined = stats.oldestClaimMs;
  // @ts-expect-error Batches that are done are not counted.
  void stats.batches.COMPLETED;
  const ping: PingResult = await store.ping();
  const { used, idle, pending, max }: PoolStats = store.poolStats();
  void [stats.jobs.FAILED, oldest, ping.database === 'SQLite', ping.latencyMs, used, idle, pending, max];

  const claim = await store.claimBatch(job.id, 'w');
  if (claim.claimed) {
    const token: number = claim.reservation.token;
    void token;
    // @ts-expect-error There is no reason where it was claimed.
    void claim.reason;
  } else {
    same<typeof claim.reason, 'NO_PENDING_BATCHES' | 'JOB_NOT_FOUND' | 'JOB_NOT_PROCESSING'>();
    // @ts-expect-error There is no reservation where it was not.
    void claim.reservation;
  }

  const found = await store.getJobState(job.id);
  // @ts-expect-error It may be null.
  void found.status;
  if (found) {
    // @ts-expect-error Values are read-only.
    found.status = 'PAUSED';
    // @ts-expect-error So are lists.
    found.batches.push(batch);
    const isDistributedJob: boolean | undefined = found.distributed;
    void isDistributedJob;
  }

  // @ts-expect-error Optional keys are absent, never undefined.
  await store.saveJobState({ ...job, startedAt: undefined });
  // @ts-expect-error Not a job.
  await store.saveJobState({ id: 'j' });
  // @ts-expect-error A status of a record is not one of a batch.
  await store.updateBatchState('j', 'b', { batchId: 'b', status: 'processed', processedCount: 0, failedCount: 0 });
  // @ts-expect-error A status of a batch is not one of a record.
  await store.saveProcessedRecord('j', 'b', { ...record, status: 'COMPLETED' });
  // @ts-expect-error The fence holds a token, it is not one.
  await store.updateBatchState('j', 'b', state, 1);
  // @ts-expect-error A worker claims under a name.
  await store.claimBatch('j');
  // @ts-expect-error Milliseconds, not a text.
  await store.reclaimStaleBatches('j', '15m');
  // @ts-expect-error An unknown filter.
  store.records('j', { state: 'failed' });
  // @ts-expect-error An unknown status.
  await store.listJobs({ status: 'DONE' });
  // @ts-expect-error A status of a job is not one of a batch.
  await store.batches('j', { status: 'ABORTED' });
  // @ts-expect-error The next page begins after an index, not after a batch.
  await store.batches('j', { after: lowest });
}

function inspectError(reason: unknown): StateStoreErrorCode | undefined {
  if (!(reason instanceof StateStoreError)) return undefined;
  const error: Error = reason;
  const retryable: boolean = reason.retryable;
  const name: 'StateStoreError' = reason.name;
  void [error, retryable, name, reason.cause];
  // @ts-expect-error A code that does not exist.
  if (reason.code === 'OOPS') return undefined;
  // @ts-expect-error An error has a code.
  void new StateStoreError('x', {});
  void new StateStoreError('x', { code: 'INTERNAL', retryable: false, cause: reason });
  return reason.code;
}

function subscribe(call: StoreCall, warning: StoreWarning): void {
  same<
    StoreWarningKind,
    | 'list-behind'
    | 'renewal-failed'
    | 'claim-taken'
    | 'batch-given-up'
    | 'queued-write-failed'
    | 'connection-lost'
    | 'connection-refused'
    | 'index-missing'
    | 'panic'
  >();
  const channels: [StoreCallChannel, StoreWarningChannel] = ['batchactions.store', 'batchactions.store.warning'];
  const server: StoreServer | undefined = call.server ?? warning.server;
  const code: StateStoreErrorCode | undefined = warning.error?.code;
  const { jobId }: { readonly jobId?: string } = warning;
  void [channels, server, code, jobId];
  // @ts-expect-error A kind that does not exist.
  if (warning.kind === 'oops') return;
}

void [isDistributed, roundTrip, construct, call, inspectError, subscribe];
