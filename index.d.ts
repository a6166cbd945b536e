/**
 * The SQL state store for `@batchactions`: PostgreSQL, MySQL, MariaDB and SQLite.
 *
 * Times are epoch milliseconds by the database's clock, durations are milliseconds, counts are whole numbers.
 * Every method returns a promise, and every promise rejects with a {@link StateStoreError}: nothing throws but the constructor.
 * A call either took effect or it did not; `retryable` says whether the same call can succeed when it is made again. What is transient (a server that
 * restarts, a deadlock) is repeated before that, for as long as a statement may take.
 */

/** The state of a job. `COMPLETED`, `ABORTED` and `FAILED` are final. */
export type JobStatus = 'CREATED' | 'PREVIEWING' | 'PREVIEWED' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'ABORTED' | 'FAILED';

/** The state of a batch. `COMPLETED` and `FAILED` are final: only an explicit `updateBatchState` leaves them. */
export type BatchStatus = 'PENDING' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'FAILED';

/** The state of a record. `valid` and `pending` are still to be processed, `invalid` and `failed` count as failed. */
export type RecordStatus = 'pending' | 'valid' | 'invalid' | 'processed' | 'failed';

/** A job's configuration. Keys that are not declared here are kept, as `JSON.stringify` writes them. */
export interface JobConfig {
  readonly id?: string;
  /**
   * Where `schema.fields` is an array, each field is stored with its `name`, `type`, `required` and, where present,
   * `defaultValue`, `separator` and `aliases` only: validators and transforms are functions and can't be stored. A `toJSON` of the configuration, the
   * schema, its fields or one of them decides first.
   */
  readonly schema?: Record<string, unknown>;
  /** Records in a batch. */
  readonly batchSize: number;
  readonly maxConcurrentBatches?: number;
  readonly continueOnError?: boolean;
  readonly maxRetries?: number;
  /** Milliseconds. */
  readonly retryDelayMs?: number;
  readonly skipEmptyRows?: boolean;
}

/** Which rule a record breaks. */
export type ValidationErrorCode =
  'REQUIRED' | 'TYPE_MISMATCH' | 'PATTERN_MISMATCH' | 'CUSTOM_VALIDATION' | 'UNKNOWN_FIELD' | 'DUPLICATE_VALUE' | 'EXTERNAL_DUPLICATE';

/** What was wrong with a record. */
export interface ValidationError {
  readonly field: string;
  readonly message: string;
  readonly code: ValidationErrorCode;
  readonly value?: unknown;
  readonly severity?: 'error' | 'warning';
  readonly category?: 'VALIDATION' | 'FORMAT' | 'DUPLICATE' | 'PROCESSING' | 'CUSTOM';
  readonly suggestion?: string;
  readonly metadata?: Record<string, unknown>;
}

/** The fields of a record, by name. */
export interface RawRecord {
  readonly [key: string]: unknown;
}

/**
 * One record of a job. `raw` and `parsed` may hold anything that `JSON.stringify` can write. Nested more than 31 levels deep (MariaDB), 100 (MySQL) or
 * as many as the server's `max_stack_depth` allows (PostgreSQL, about 14,500 with the default, which is more than V8 writes), it is refused with
 * `INVALID_ARGUMENT`; a key of more than 65,535 bytes with `VALUE_TOO_LONG` (MySQL).
 */
export interface ProcessedRecord {
  /** The record's place in the whole job. A 32-bit integer, unique within the job. */
  readonly index: number;
  readonly raw: RawRecord;
  readonly parsed: RawRecord;
  readonly status: RecordStatus;
  readonly errors: readonly ValidationError[];
  /**
   * Plain text. It is cut, and its characters are replaced, to what the column can hold: 65,535 bytes on MySQL and MariaDB, where a cut one ends in
   * `… [cut]`, no U+0000 on PostgreSQL, and the characters of the column's own character set.
   */
  readonly processingError?: string;
  /** Accepted, and not stored: there is no column for it. */
  readonly retryCount?: number;
}

/** One batch of a job. */
export interface Batch {
  /** At most 36 characters, unique in the whole database. A UUID where the tables' columns are `uuid`. */
  readonly id: string;
  /** A 32-bit integer, unique within the job. */
  readonly index: number;
  readonly status: BatchStatus;
  /** Always empty in what the store returns: see `getBatchRecords`. */
  readonly records: readonly ProcessedRecord[];
  readonly processedCount: number;
  readonly failedCount: number;
  /** Who holds the batch, or held it last. */
  readonly workerId?: string;
  /** When it was claimed or renewed: epoch ms, by the database's clock. */
  readonly claimedAt?: number;
  readonly recordStartIndex?: number;
  /** Inclusive. */
  readonly recordEndIndex?: number;
}

/** A job with its batches. */
export interface JobState {
  /** At most 36 characters. A UUID where the tables' columns are `uuid`. */
  readonly id: string;
  readonly config: JobConfig;
  readonly status: JobStatus;
  readonly batches: readonly Batch[];
  readonly totalRecords: number;
  /** Epoch ms. */
  readonly startedAt?: number;
  /** Epoch ms. In a job that is saved as final without it, the store sets it: see `saveJobState`. */
  readonly completedAt?: number;
  /** `true` where workers claim the job's batches; absent, in what the store returns, where they don't. */
  readonly distributed?: boolean;
}

/** What `updateBatchState` sets. */
export interface BatchState {
  readonly batchId: string;
  readonly status: BatchStatus;
  readonly processedCount: number;
  readonly failedCount: number;
}

/** How far a job is. */
export interface JobProgress {
  readonly totalRecords: number;
  /** Records `processed`. */
  readonly processedRecords: number;
  /** Records `failed` or `invalid`. */
  readonly failedRecords: number;
  /** `totalRecords` less those two, and never below 0. */
  readonly pendingRecords: number;
  /** Processed and failed records in percent of `totalRecords`, rounded; 0 where that is 0, and above 100 where more records were saved than it says. */
  readonly percentage: number;
  /** Batches COMPLETED. */
  readonly currentBatch: number;
  readonly totalBatches: number;
  /** From `startedAt` to `completedAt`, or to now. */
  readonly elapsedMs: number;
  /** Given while something is pending and something is done. */
  readonly estimatedRemainingMs?: number;
}

/** A claim on a batch. */
export interface BatchReservation {
  readonly jobId: string;
  readonly batchId: string;
  readonly batchIndex: number;
  readonly workerId: string;
  /** Epoch ms, by the database's clock. */
  readonly claimedAt: number;
  readonly recordStartIndex: number;
  /** Inclusive. */
  readonly recordEndIndex: number;
  /**
   * The fencing token of this claim: it grows with each claim of the batch (and starts over where the job was deleted). Hand it to whatever the processor writes to, so
   * that a late writer can be told from the present one. (The term: M. Kleppmann, "How to do distributed locking", 2016.)
   */
  readonly token: number;
}

/** What `claimBatch` gives. */
export type ClaimBatchResult =
  | { readonly claimed: true; readonly reservation: BatchReservation }
  | { readonly claimed: false; readonly reason: 'NO_PENDING_BATCHES' | 'JOB_NOT_FOUND' | 'JOB_NOT_PROCESSING' };

/** How many batches of a distributed job are in which state. */
export interface DistributedJobStatus {
  readonly jobId: string;
  readonly totalBatches: number;
  readonly completedBatches: number;
  readonly failedBatches: number;
  readonly processingBatches: number;
  readonly pendingBatches: number;
  /** There are batches, and none of them is PENDING, PROCESSING or PAUSED. `true` as well for a distributed job that lists no batches. */
  readonly isComplete: boolean;
}

/** A job as `listJobs` gives it: without its batches. */
export type JobSummary = Omit<JobState, 'batches'>;

/** What `listJobs` looks for. */
export interface ListJobsOptions {
  readonly status?: JobStatus;
  /**
   * How many at most: 1 to 1,000.
   * @default 100
   */
  readonly limit?: number;
  /** Only jobs after this one: the last of the page before. It need not exist any more. */
  readonly after?: { readonly id: string; readonly startedAt?: number };
}

/** Which claim a fenced call belongs to. */
export interface FenceOptions {
  /** `BatchReservation.token`. Where it is not given, the last claim that this store made on the batch decides. */
  readonly token?: number;
}

/** What `records` streams. */
export interface RecordsOptions {
  /** One status, or several. All where it is not given. */
  readonly status?: RecordStatus | readonly RecordStatus[];
  readonly batchId?: string;
  /** The lowest record index to begin with. */
  readonly from?: number;
}

/** The kinds of failure. They are stable: match on them, never on a message. */
export type StateStoreErrorCode =
  /** An argument or an option is not what it must be. The message names it. */
  | 'INVALID_ARGUMENT'
  /** The URL, the parts, the Sequelize instance or the environment do not say where the database is, or ask for something that the store can't give. */
  | 'INVALID_CONNECTION'
  /** A dialect that is not served (`mssql`, say), or a server that is too old. */
  | 'UNSUPPORTED_DATABASE'
  /** The database could not be reached, or refused the login. */
  | 'CONNECTION_FAILED'
  /** The connection ended in the middle of a call: it is not known whether the call took effect. */
  | 'CONNECTION_LOST'
  /** No connection of the pool became free in time, or a statement ran longer than it may. */
  | 'TIMEOUT'
  /** Other transactions were in the way: a deadlock, a serialization failure, or a row lock that was not had in time. `retryable`. */
  | 'CONFLICT'
  /** The login lacks a right, or the database or its file is read-only. `retryable` only after a failover to a server that is read-only. */
  | 'PERMISSION_DENIED'
  /** The tables do not exist: call `initialize()`. */
  | 'TABLES_MISSING'
  /** The tables exist, and a column or an index of them is missing or is not what it must be. */
  | 'TABLES_INCOMPATIBLE'
  /** A value is longer than its column or than the server takes. */
  | 'VALUE_TOO_LONG'
  /** An id or an index that is taken. */
  | 'CONSTRAINT'
  /** The batch has been claimed again, or given back, since this claim on it: stop working on it, and claim the next one. */
  | 'LEASE_LOST'
  /** The store has been closed. */
  | 'CLOSED'
  /** The database refused for a reason of its own, which the message tells: a full disk, or a sequence that has no number left. */
  | 'DATABASE_ERROR'
  /** This package has a defect: please report it. */
  | 'INTERNAL';

/** What every method rejects with, and the constructor throws. Its stack leads to the caller of the method. It never holds a password. */
export declare class StateStoreError extends Error {
  constructor(message: string, options: { code: StateStoreErrorCode; retryable?: boolean; cause?: unknown });
  readonly name: 'StateStoreError';
  readonly code: StateStoreErrorCode;
  /** Whether the same call may succeed when it is made again. */
  readonly retryable: boolean;
  /** What the database, `JSON.stringify` or a function of yours said, where it was that. */
  readonly cause?: unknown;
}

/**
 * How the connection is encrypted and whom it trusts. Files are read again for each connection. A server that is not trusted is refused with
 * `CONNECTION_FAILED` and the reason, a file that can't be used with `INVALID_CONNECTION` and its name; neither is `retryable`.
 */
export interface SslOptions {
  /**
   * `disable`: never. `prefer`: where the server offers it, no certificate is checked. `require`: always, no certificate is checked; with `ca`, as
   * `verify-ca`.
   * `verify-ca` and `verify-full`: always, and the certificate has not expired, is signed by a trusted authority and names the host in its
   * subjectAltName (a common name does not count). In this version the two are the same: `verify-ca` checks the name as well.
   *
   * @default 'verify-full' where `ca` is given, else 'prefer'
   */
  readonly mode?: 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';
  /** The authorities to trust beside Mozilla's list: PEM text, or the path of a PEM file. Not to be had with `mode: 'prefer'`. */
  readonly ca?: string;
  /** The client's certificate, and what leads from it to an authority: PEM text, or the path of a PEM file. It needs `key`. */
  readonly cert?: string;
  /** The client's key, not encrypted: PEM text, or the path of a PEM file. It needs `cert`. */
  readonly key?: string;
}

/**
 * Gives a password that is good for a while, such as a cloud's token. It is called before a connection is made where its last answer is older than
 * `passwordTtlMs`, and at once, once, where the server refuses the password. Calls that need an answer at the same time share one; after
 * `connectTimeoutMs` it is no longer waited for. Where it throws or its promise is rejected, the call that needed it rejects with `CONNECTION_FAILED`
 * and what was thrown as the `cause`; where it gives something else than a string, with `INVALID_ARGUMENT`.
 *
 * It runs on the thread that made the store, and so never while that thread's event loop is blocked. It never keeps the process alive, and is let go
 * when the store is closed.
 */
export type PasswordFunction = () => string | PromiseLike<string>;

/** How many connections a store may have, and how long it waits for them. */
export interface PoolOptions {
  /**
   * Connections at most: 1 to 1,000. SQLite writes through one of them at a time.
   * @default 10
   */
  readonly max?: number;
  /**
   * Connections that stay open when idle.
   * @default 0
   */
  readonly min?: number;
  /**
   * How long a call waits for a connection before it rejects with `TIMEOUT`, in milliseconds.
   * @default 30_000
   */
  readonly acquireTimeoutMs?: number;
  /**
   * After how long without use a connection is closed, in milliseconds.
   * @default 10_000
   */
  readonly idleTimeoutMs?: number;
}

/**
 * Options of a store, read as properties: those of getters and prototypes count. One that is unknown, of the wrong type or out of range throws
 * `INVALID_ARGUMENT`, and the message names it; so does a thing whose properties are not what it holds, such as a `Map` or a promise.
 */
export interface SqlxStateStoreOptions {
  /** PostgreSQL: the schema of the tables, at most 63 bytes. `initialize()` creates it where it is missing. */
  readonly schema?: string;
  /** The password, or a function that gives one. It goes before the password of the URL, the parts or the Sequelize instance. */
  readonly password?: string | PasswordFunction;
  /**
   * For how long an answer of the function `password` is good for new connections: 1 to 86,400,000 ms.
   * @default 600_000
   */
  readonly passwordTtlMs?: number;
  readonly pool?: PoolOptions;
  /**
   * How long making a connection may take, in milliseconds: some serverless databases wake up in 8 seconds. A refused connection fails at once all the same.
   * @default 15_000
   */
  readonly connectTimeoutMs?: number;
  /**
   * How long a statement may take before it is given up with `TIMEOUT`, in milliseconds.
   * @default 30_000
   */
  readonly statementTimeoutMs?: number;
  readonly ssl?: SslOptions;
  /**
   * Prepared statements kept per connection: 0 to 10,000. 0 also stands for a transaction pooler in front of
   * PostgreSQL: nothing is kept between transactions then, and each statement is in one.
   * @default 100
   */
  readonly statementCache?: number;
  /**
   * When `saveProcessedRecord` resolves. `record`: once it is committed.
   *
   * `batch`: once it is queued. What is queued is written together, 50 ms later at the latest, and is committed before any other call on that
   * job through this store takes effect, and before `close()` resolves. The queue holds 10,000 records or 16 MB of a job; a save that finds it full
   * resolves when there is room. While something is queued the process stays alive; `process.exit()` loses it, as a crash does, which is safe
   * because an unfinished batch is processed again as a whole. A record that can't be stored then sticks to its batch: further saves to
   * the batch, its COMPLETED, and `close()` reject with the reason, and `saveJobState` stores the batch as FAILED even if told COMPLETED, until that
   * record is saved again (first, then the others), or the batch is claimed again, given back or reopened. A queued record whose claim was lost is
   * the new holder's to store: later calls with that claim reject with `LEASE_LOST`, and `close()` does not.
   * @default 'record'
   */
  readonly durability?: 'record' | 'batch';
  /**
   * Renews every batch that this store has claimed, every `everyMs`, from a native thread, so that a blocked event loop does not
   * lose its claim; for `forMs` after the claim at most, so that a hung worker does.
   * @default none: no claim is renewed
   */
  readonly leaseRenewal?: { readonly everyMs: number; readonly forMs: number };
  /**
   * A stale batch that has been claimed this often becomes FAILED instead of PENDING.
   * @default unlimited
   */
  readonly maxClaims?: number;
  /** Accepted for compatibility, and without effect: the names of the tables are fixed. */
  readonly tablePrefix?: string;
}

/** The name that the options have in `@batchactions/state-sequelize`. */
export type SequelizeStateStoreOptions = SqlxStateStoreOptions;

/** Where the database is, in parts. */
export interface ConnectionOptions {
  readonly dialect: 'postgres' | 'mysql' | 'mariadb' | 'sqlite';
  /** @default '127.0.0.1' */
  readonly host?: string;
  /** @default 5432 for PostgreSQL, 3306 for MySQL and MariaDB */
  readonly port?: number;
  readonly database?: string;
  readonly user?: string;
  readonly password?: string | PasswordFunction;
  /** The server's Unix socket (PostgreSQL: the folder that it is in), instead of a host. */
  readonly socketPath?: string;
  /** SQLite: the file, or `:memory:`. */
  readonly storage?: string;
}

/**
 * As much of a Sequelize v6 instance as is read: dialect, host or socket, port, database, user, password, storage, pool size, SSL and
 * `define.schema`. Its connections, models, hooks and transactions are not used.
 */
export interface SequelizeLike {
  readonly config: object;
  getDialect(): string;
}

/** A `URL`: that of the web's standard, of whatever realm. */
export interface UrlLike {
  readonly href: string;
}

/**
 * A state store on a SQL database. It implements `StateStore` and `DistributedStateStore` of `@batchactions/core`.
 *
 * Making one never connects and never blocks; the first call connects. An open store never keeps the process alive.
 */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging -- see below
export declare class SqlxStateStore {
  /**
   * @param connection `postgres://`, `postgresql://`, `mysql://`, `mariadb://` or `sqlite:` URL (`sqlite::memory:`, `sqlite:file.db`,
   *   `sqlite:///absolute/file.db`), as text or as a `URL`; or the same in parts; or a Sequelize v6 instance. On PostgreSQL, libpq's environment
   *   variables (`PGHOST`, `PGPASSWORD`, `PGSSLMODE`, …) fill in what it leaves open.
   * @throws StateStoreError `INVALID_CONNECTION`, `UNSUPPORTED_DATABASE` or `INVALID_ARGUMENT`.
   */
  constructor(connection: string | UrlLike | ConnectionOptions | SequelizeLike, options?: SqlxStateStoreOptions);

  /**
   * Creates the tables and indexes that are missing. Idempotent, safe to call from many processes at once, and without any DDL where
   * nothing is missing. Calls that are made on this store meanwhile wait for it.
   *
   * Rejects with `TABLES_INCOMPATIBLE` where a table lacks a column, where a column is of a type that can't work, or where an index that is needed has
   * other columns or is not unique; the message names it. `uuid` ids, enums, `text` and wider `varchar`, `bigint` and `unsigned` numbers, `numeric` times
   * and `jsonb` work. Rejects with `UNSUPPORTED_DATABASE` where the server is too old (MySQL below 8.0, MariaDB below 10.6), and with `CLOSED` where the
   * store is closed while this call waits for another process that makes the tables.
   */
  initialize(): Promise<void>;

  /**
   * Stores a job and the list of its batches. With `distributed: true` the batches that workers claim are stored in the same transaction;
   * those that exist already stay as they are, so that an old snapshot can't undo a claim.
   *
   * A final status without `completedAt` keeps the stored one, or gets the database's now; a status that is not final without one has none. A job that
   * was not there before, after its row was deleted say, drops the tokens of this store's claims on an earlier one of the same id. A distributed job that
   * became final while a reply was lost stays final.
   *
   * Rejects with `CONSTRAINT` where a batch's index or id is taken.
   */
  saveJobState(job: JobState): Promise<void>;
  /** A job with its batches in their present state; `null` where there is none. */
  getJobState(jobId: string): Promise<JobState | null>;
  /**
   * Sets a batch's status and counts. Without effect where there is no such job or no such batch in it.
   *
   * Rejects with `LEASE_LOST` where this store, or `fence.token`, claimed the batch and it has been claimed or given back since. The claim is the last one
   * that the store had made when this was called, not when its turn came.
   *
   * Without a claim, an update of a batch of a distributed job to PENDING, PROCESSING or PAUSED is not repeated after a lost reply, because another worker
   * may have claimed the batch since: it rejects with `CONNECTION_LOST`.
   */
  updateBatchState(jobId: string, batchId: string, state: BatchState, fence?: FenceOptions): Promise<void>;

  /**
   * Stores one record, in place of the one with the same index. Calls made while a write is under way are written together.
   * Rejects with `LEASE_LOST` as `updateBatchState` does.
   */
  saveProcessedRecord(jobId: string, batchId: string, record: ProcessedRecord, fence?: FenceOptions): Promise<void>;
  /** Stores many records, all or none, in place of those with the same indexes. Where one index comes twice, the later record counts. */
  saveBatchRecords(jobId: string, batchId: string, records: readonly ProcessedRecord[]): Promise<void>;
  /** The records that are `failed` or `invalid`, by index. */
  getFailedRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
  /** The records that are `pending` or `valid`, by index. */
  getPendingRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
  /** The records that are `processed`, by index. */
  getProcessedRecords(jobId: string): Promise<readonly ProcessedRecord[]>;
  /** All records of a batch, by index. */
  getBatchRecords(jobId: string, batchId: string): Promise<readonly ProcessedRecord[]>;
  /**
   * The records of a job by index, as a stream in memory that is bounded by bytes (about 4 MB and one record), whatever the sizes of the job and of its
   * records. It reads a page at a time and holds no connection between pages, so that the loop's body may save.
   */
  records(jobId: string, options?: RecordsOptions): AsyncIterableIterator<ProcessedRecord>;

  /** How far a job is. For an unknown job: zeros, but for the counts of its records. */
  getProgress(jobId: string): Promise<JobProgress>;

  /**
   * Claims a PENDING batch of a job that is PROCESSING, the lowest index first within one store. No two callers ever get the same batch.
   *
   * `NO_PENDING_BATCHES` means that a plain read found none. It does not mean that the job is done: a batch comes back where its worker dies. While there
   * is one that other transactions have locked, the call tries again, for a second at most, and then rejects with `CONFLICT`, which is `retryable`. A claim
   * whose reply is lost rejects with `CONNECTION_LOST` and may have been made; `reclaimStaleBatches` brings it back.
   * @param workerId At most 128 characters.
   */
  claimBatch(jobId: string, workerId: string): Promise<ClaimBatchResult>;
  /**
   * Gives a batch back: PENDING, where it is PROCESSING and held by `workerId`, and this store's claim on it, if it made one, is still the last; otherwise
   * nothing changes, and a claim that was lost rejects with `LEASE_LOST`. Without a claim of this store's it is not repeated after a lost reply.
   */
  releaseBatch(jobId: string, batchId: string, workerId: string): Promise<void>;
  /**
   * Moves `claimedAt` to now while the batch is PROCESSING and held by `workerId`; `false` where it is not (a PAUSED one too), `LEASE_LOST` as in
   * `updateBatchState`. The option `leaseRenewal` renews PAUSED batches as well, so that they are not stale when they go on.
   */
  renewBatch(jobId: string, batchId: string, workerId: string, fence?: FenceOptions): Promise<boolean>;
  /**
   * Gives back the PROCESSING batches that were claimed, or renewed, longer than `timeoutMs` ago, or that have no `claimedAt`: they become PENDING, or FAILED
   * with `maxClaims`. Returns how many batches were taken from their workers. Safe to call from many workers at once.
   *
   * It also finalizes a job whose batches are all done and that is still PROCESSING, where the newest claim is older than `timeoutMs` (`startedAt` counts
   * where no claim is recorded): its last worker died, or was silent for that long, before it could. A distributed job that lists no batches is finalized at
   * once. No caller gets `true` from `tryFinalizeJob` for a job that was finalized so.
   */
  reclaimStaleBatches(jobId: string, timeoutMs: number): Promise<number>;
  /** How many batches are in which state. For an unknown job: zeros, and not complete. */
  getDistributedStatus(jobId: string): Promise<DistributedJobStatus>;
  /**
   * Finalizes a job that is PROCESSING and whose batches are all done (none PENDING, PROCESSING or PAUSED): FAILED where a batch is, else COMPLETED, with
   * the database's now as `completedAt`. `true` for the one caller that did it. Where the reply is lost it rejects with `CONNECTION_LOST`, and the job may be
   * final: a second call gives `false` then.
   */
  tryFinalizeJob(jobId: string): Promise<boolean>;

  /** Jobs without their batches, the newest `startedAt` first, those without one last; a page at a time. */
  listJobs(options?: ListJobsOptions): Promise<readonly JobSummary[]>;
  /** Deletes a job, its batches and its records, in slices. `true` if there was anything. Where it fails in the middle, call it again. */
  deleteJob(jobId: string): Promise<boolean>;

  /**
   * Ends the connections, once the calls under way are done and what is queued is written. It does not wait for an `initialize()` that waits for another
   * process: that one rejects with `CLOSED`, as do further calls; further `close` calls do as the first. With `durability: 'batch'` it rejects, after all that, where a queued record could not be stored.
   */
  close(): Promise<void>;
}

/** `close()`, for `await using`: where the types of the language or of Node have its name, `Symbol.asyncDispose`. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging -- the class has the method wherever the name exists
export interface SqlxStateStore extends AsyncDisposal<SymbolConstructor> {}
/** A method of the name `asyncDispose`, where `Symbols` has it. */
export type AsyncDisposal<Symbols> = Symbols extends { readonly asyncDispose: infer Name extends symbol }
  ? Record<Name, () => Promise<void>>
  : {};

/** The same class, under the name that it has in `@batchactions/state-sequelize`. */
export declare const SequelizeStateStore: typeof SqlxStateStore;
export type SequelizeStateStore = SqlxStateStore;
