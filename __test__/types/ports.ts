/**
 * The types, checked by `tsc --noEmit`: the store fits the two ports as a core package declares them, and each value type has the fields
 * that it must have. Nothing here is run.
 */
import {
  SequelizeStateStore,
  SqlxStateStore,
  StateStoreError,
  type Batch,
  type BatchReservation,
  type BatchState,
  type BatchStatus,
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
  type PoolOptions,
  type ProcessedRecord,
  type RecordsOptions,
  type RecordStatus,
  type SequelizeLike,
  type SequelizeStateStoreOptions,
  type SqlxStateStoreOptions,
  type SslOptions,
  type StateStoreErrorCode,
  type ValidationError,
} from '../../index.js';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** One object type for an intersection, so that two ways to write a type compare equal. */
type Flat<T> = T extends object ? { [K in keyof T]: T[K] } : T;
function same<A, B>(..._mismatch: Equal<Flat<A>, Flat<B>> extends true ? [] : [never]): void {}
function is<_A extends B, B>(): void {}

// The values, as the ports name them.

namespace port {
  export type JobStatus = 'CREATED' | 'PREVIEWING' | 'PREVIEWED' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'ABORTED' | 'FAILED';
  export type BatchStatus = 'PENDING' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'FAILED';
  export type RecordStatus = 'pending' | 'valid' | 'invalid' | 'processed' | 'failed';

  export interface JobConfig {
    readonly id?: string;
    readonly schema?: object;
    readonly batchSize: number;
    readonly maxConcurrentBatches?: number;
    readonly continueOnError?: boolean;
    readonly maxRetries?: number;
    readonly retryDelayMs?: number;
    readonly skipEmptyRows?: boolean;
    readonly [key: string]: unknown;
  }

  export interface ValidationError {
    readonly field: string;
    readonly message: string;
    readonly code: string;
    readonly value?: unknown;
    readonly severity?: string;
    readonly category?: string;
    readonly suggestion?: string;
    readonly metadata?: unknown;
  }

  export interface ProcessedRecord {
    readonly index: number;
    readonly raw: object;
    readonly parsed: object;
    readonly status: RecordStatus;
    readonly errors: readonly ValidationError[];
    readonly processingError?: string;
    readonly retryCount?: number;
  }

  export interface Batch {
    readonly id: string;
    readonly index: number;
    readonly status: BatchStatus;
    readonly records: readonly ProcessedRecord[];
    readonly processedCount: number;
    readonly failedCount: number;
    readonly workerId?: string;
    readonly claimedAt?: number;
    readonly recordStartIndex?: number;
    readonly recordEndIndex?: number;
  }

  export interface JobState {
    readonly id: string;
    readonly config: JobConfig;
    readonly status: JobStatus;
    readonly batches: readonly Batch[];
    readonly totalRecords: number;
    readonly startedAt?: number;
    readonly completedAt?: number;
    readonly distributed?: true;
  }

  export interface BatchState {
    readonly batchId: string;
    readonly status: BatchStatus;
    readonly processedCount: number;
    readonly failedCount: number;
  }

  export interface JobProgress {
    readonly totalRecords: number;
    readonly processedRecords: number;
    readonly failedRecords: number;
    readonly pendingRecords: number;
    readonly percentage: number;
    readonly currentBatch: number;
    readonly totalBatches: number;
    readonly elapsedMs: number;
    readonly estimatedRemainingMs?: number;
  }

  export interface BatchReservation {
    readonly jobId: string;
    readonly batchId: string;
    readonly batchIndex: number;
    readonly workerId: string;
    readonly claimedAt: number;
    readonly recordStartIndex: number;
    readonly recordEndIndex: number;
  }

  export type ClaimBatchResult =
    | { readonly claimed: true; readonly reservation: BatchReservation }
    | { readonly claimed: false; readonly reason: 'NO_PENDING_BATCHES' | 'JOB_NOT_FOUND' | 'JOB_NOT_PROCESSING' };

  export interface DistributedJobStatus {
    readonly jobId: string;
    readonly totalBatches: number;
    readonly completedBatches: number;
    readonly failedBatches: number;
    readonly processingBatches: number;
    readonly pendingBatches: number;
    readonly isComplete: boolean;
  }

  export interface StateStore {
    saveJobState(job: JobState): Promise<void>;
    getJobState(jobId: string): Promise<JobState | null>;
    updateBatchState(jobId: string, batchId: string, state: BatchState): Promise<void>;
    saveProcessedRecord(jobId: string, batchId: string, record: ProcessedRecord): Promise<void>;
    getFailedRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
    getPendingRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
    getProcessedRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
    getProgress(jobId: string): Promise<JobProgress>;
  }

  export interface DistributedStateStore extends StateStore {
    claimBatch(jobId: string, workerId: string): Promise<ClaimBatchResult>;
    releaseBatch(jobId: string, batchId: string, workerId: string): Promise<void>;
    reclaimStaleBatches(jobId: string, timeoutMs: number): Promise<number>;
    saveBatchRecords(jobId: string, batchId: string, records: readonly ProcessedRecord[]): Promise<void>;
    getBatchRecords(jobId: string, batchId: string): Promise<readonly ProcessedRecord[]>;
    getDistributedStatus(jobId: string): Promise<DistributedJobStatus>;
    tryFinalizeJob(jobId: string): Promise<boolean>;
  }
}

same<JobStatus, port.JobStatus>();
same<BatchStatus, port.BatchStatus>();
same<RecordStatus, port.RecordStatus>();
same<JobConfig, port.JobConfig>();
same<ValidationError, port.ValidationError>();
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
  | 'TABLES_MISSING'
  | 'TABLES_INCOMPATIBLE'
  | 'VALUE_TOO_LONG'
  | 'CONSTRAINT'
  | 'LEASE_LOST'
  | 'CLOSED'
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
const disposable: AsyncDisposable = store;
void [stateStore, distributed, constructors, original, isStore, disposable];

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

async function construct(sequelize: SequelizeLike): Promise<void> {
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
  await using own = new SqlxStateStore('sqlite::memory:');
  await own.initialize();

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

  const options: RecordsOptions = { status: ['failed', 'invalid'], batchId: batch.id, from: 5 };
  for await (const each of store.records(job.id, options)) same<typeof each, ProcessedRecord>();
  for await (const each of store.records(job.id, { status: 'failed' })) void each.index;

  const listing: ListJobsOptions = { status: 'PROCESSING', limit: 10 };
  const [newest] = await store.listJobs(listing);
  if (newest) await store.listJobs({ after: newest });
  // @ts-expect-error A listed job comes without its batches.
  void newest?.batches;

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
    // @ts-expect-error `distributed` is absent or true.
    const plain: false | undefined = found.distributed;
    void plain;
  }

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

void [isDistributed, construct, call, inspectError];
