/**
 * The SQL state store for `@batchactions`: PostgreSQL, MySQL, MariaDB and SQLite.
 *
 * Durations (`…Ms`) are in milliseconds, times in epoch milliseconds by the database's clock; counts and indexes are whole numbers.
 *
 * Only the constructor throws. Every method but `poolStats` returns a promise, which rejects with a {@link StateStoreError}; `@throws` names the codes that are
 * particular to a method. Before a call rejects, the store repeats what failed for a passing reason (a server that restarts, a deadlock) and can be
 * repeated safely, for up to `statementTimeoutMs`.
 */

/** The state of a job. `COMPLETED`, `ABORTED` and `FAILED` are final. */
export type JobStatus = 'CREATED' | 'PREVIEWING' | 'PREVIEWED' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'ABORTED' | 'FAILED';

/** The state of a batch. `COMPLETED` and `FAILED` are final: only an explicit `updateBatchState` leaves them. */
export type BatchStatus = 'PENDING' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'FAILED';

/** The state of a record. `valid` and `pending` are still to be processed; `invalid` and `failed` count as failed. */
export type RecordStatus = 'pending' | 'valid' | 'invalid' | 'processed' | 'failed';

/** A job's configuration. Keys that are not declared here are stored too, as `JSON.stringify` writes them. */
export interface JobConfig {
  readonly id?: string;
  /**
   * Where `schema.fields` is an array, each field is stored with its `name`, `type`, `required` and, where present, `defaultValue`, `separator` and
   * `aliases` only: validators and transforms are functions. A `toJSON` of the configuration, the schema, its fields or one of them applies first.
   */
  readonly schema?: Record<string, unknown>;
  /** Records per batch. */
  readonly batchSize: number;
  readonly maxConcurrentBatches?: number;
  readonly continueOnError?: boolean;
  readonly maxRetries?: number;
  readonly retryDelayMs?: number;
  readonly skipEmptyRows?: boolean;
}

/** Which rule a record breaks. */
export type ValidationErrorCode =
  'REQUIRED' | 'TYPE_MISMATCH' | 'PATTERN_MISMATCH' | 'CUSTOM_VALIDATION' | 'UNKNOWN_FIELD' | 'DUPLICATE_VALUE' | 'EXTERNAL_DUPLICATE';

/** What is wrong with a record. */
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
 * One record of a job. `raw` and `parsed` hold anything that `JSON.stringify` can write, within the database's limits: nesting (31 levels on MariaDB, 100
 * on MySQL, about 14,500 on PostgreSQL with the default `max_stack_depth`; deeper is `INVALID_ARGUMENT`) and, on MySQL, keys of 65,535 bytes
 * (`VALUE_TOO_LONG`).
 */
export interface ProcessedRecord {
  /** The record's place in the job: a 32-bit integer, unique within the job. */
  readonly index: number;
  readonly raw: RawRecord;
  readonly parsed: RawRecord;
  readonly status: RecordStatus;
  readonly errors: readonly ValidationError[];
  /**
   * Plain text. What its column can't hold is cut or replaced, never refused: 65,535 bytes on MySQL and MariaDB (a cut text ends in `… [cut]`), no U+0000
   * on PostgreSQL, the characters of the column's character set.
   */
  readonly processingError?: string;
  /** Accepted, but not stored: it has no column. */
  readonly retryCount?: number;
}

/** One batch of a job. */
export interface Batch {
  /** At most 36 characters, unique in the whole database. A UUID where the column's type is `uuid`. */
  readonly id: string;
  /** A 32-bit integer, unique within the job. */
  readonly index: number;
  readonly status: BatchStatus;
  /** Always empty in what the store returns: see `getBatchRecords`. */
  readonly records: readonly ProcessedRecord[];
  readonly processedCount: number;
  readonly failedCount: number;
  /** The worker that holds the batch, or held it last. */
  readonly workerId?: string;
  /** When it was claimed or renewed, in epoch ms. */
  readonly claimedAt?: number;
  readonly recordStartIndex?: number;
  /** Inclusive. */
  readonly recordEndIndex?: number;
}

/** A job with its batches. */
export interface JobState {
  /** At most 36 characters. A UUID where the column's type is `uuid`. */
  readonly id: string;
  readonly config: JobConfig;
  readonly status: JobStatus;
  readonly batches: readonly Batch[];
  readonly totalRecords: number;
  /** Epoch ms. */
  readonly startedAt?: number;
  /** Epoch ms. `saveJobState` sets it where a final job comes without it. */
  readonly completedAt?: number;
  /** `true` where workers claim the job's batches. The store returns `true` or leaves it out. */
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
  /** Records that are `processed`. */
  readonly processedRecords: number;
  /** Records that are `failed` or `invalid`. */
  readonly failedRecords: number;
  /** `totalRecords` less those two, never below 0. */
  readonly pendingRecords: number;
  /** Processed and failed records in percent of `totalRecords`, rounded. 0 where `totalRecords` is 0; above 100 where more records are stored than it says. */
  readonly percentage: number;
  /** Batches that are COMPLETED. */
  readonly currentBatch: number;
  readonly totalBatches: number;
  /** From `startedAt` to `completedAt`, or to now. */
  readonly elapsedMs: number;
  /** Present while some records are pending and some are done. */
  readonly estimatedRemainingMs?: number;
}

/** A claim on a batch. */
export interface BatchReservation {
  readonly jobId: string;
  readonly batchId: string;
  readonly batchIndex: number;
  readonly workerId: string;
  /** Epoch ms. */
  readonly claimedAt: number;
  readonly recordStartIndex: number;
  /** Inclusive. */
  readonly recordEndIndex: number;
  /**
   * The claim's fencing token. It grows with each claim of the batch, and starts over where the job is deleted. A system that your processor writes to can
   * compare it, and so reject writes of a stale worker. (The term: M. Kleppmann, "How to do distributed locking", 2016.)
   */
  readonly token: number;
}

/** What `claimBatch` returns. */
export type ClaimBatchResult =
  | { readonly claimed: true; readonly reservation: BatchReservation }
  | { readonly claimed: false; readonly reason: 'NO_PENDING_BATCHES' | 'JOB_NOT_FOUND' | 'JOB_NOT_PROCESSING' };

/** The batches of a distributed job, counted by state. */
export interface DistributedJobStatus {
  readonly jobId: string;
  readonly totalBatches: number;
  readonly completedBatches: number;
  readonly failedBatches: number;
  readonly processingBatches: number;
  readonly pendingBatches: number;
  /** There are batches, and none is PENDING, PROCESSING or PAUSED. Also `true` for a distributed job that lists no batches. */
  readonly isComplete: boolean;
}

/** A job as `listJobs` returns it: without its batches. */
export type JobSummary = Omit<JobState, 'batches'>;

/** Which jobs `listJobs` returns. */
export interface ListJobsOptions {
  /** @default jobs of any status */
  readonly status?: JobStatus;
  /** Jobs per page: 1 to 1,000. @default 100 */
  readonly limit?: number;
  /** The last job of the page before: the next page begins after it. The job need not exist any more. @default the first page */
  readonly after?: { readonly id: string; readonly startedAt?: number };
}

/**
 * A batch as `batches` returns it: without its records. In a distributed job, `recordStartIndex` and `recordEndIndex` are 0 where `saveJobState` was given
 * none.
 */
export type BatchSummary = Omit<Batch, 'records'>;

/** Which batches `batches` returns. */
export interface BatchesOptions {
  /** One status or several. @default all */
  readonly status?: BatchStatus | readonly BatchStatus[];
  /** Batches per page: 1 to 1,000. @default 100 */
  readonly limit?: number;
  /** The index of the last batch of the page before: the next page begins after it. @default the first page */
  readonly after?: number;
}

/** What `stats` counts. */
export interface StoreStats {
  /** All jobs, counted by status. One whose status another program made up is left out. */
  readonly jobs: Readonly<Record<JobStatus, number>>;
  /**
   * The batches of distributed jobs that aren't final, counted by status, as far as they are still open. Those of a job that the Sequelize adapter prepared
   * count from its first claim on.
   */
  readonly batches: Readonly<Record<'PENDING' | 'PROCESSING' | 'PAUSED', number>>;
  /** How long ago the oldest claim on these batches was made or renewed, in ms by the database's clock. Absent where nothing is claimed. */
  readonly oldestClaimMs?: number;
}

/** What `ping` found. */
export interface PingResult {
  readonly database: 'PostgreSQL' | 'MySQL' | 'MariaDB' | 'SQLite';
  /** As the server says it, without what a distribution adds: `15.20`, `10.11.19`, say. */
  readonly version: string;
  /** How long the answer to one statement took, in ms to three decimals, without making the connection. */
  readonly latencyMs: number;
  /** The database's clock less this process's clock, in whole ms; known as exactly as half of `latencyMs`. */
  readonly clockSkewMs: number;
}

/** The store's connections at this moment. */
export interface PoolStats {
  /** Connections that a call uses, or that are being made for one. */
  readonly used: number;
  /** Open connections that no call uses. */
  readonly idle: number;
  /** Calls that wait for a connection. */
  readonly pending: number;
  /** The most connections: `pool.max`. A file of SQLite has one connection that writes, and up to four that read; in memory there is one. */
  readonly max: number;
}

/** How `abortJob` ends a job. */
export interface AbortOptions {
  /**
   * Takes the claimed batches from their workers at once: they become PENDING, and the holder's next fenced call rejects with `LEASE_LOST`.
   * @default false: what is claimed may be saved and completed
   */
  readonly now?: boolean;
  /**
   * Also aborts a job that isn't distributed. Only where the process that runs it is gone: one that lives overwrites the status with its next batch.
   * @default false
   */
  readonly force?: boolean;
}

/** Which records `retryFailed` takes, and how it packs them. */
export interface RetryOptions {
  /** The statuses of the records to retry. @default ['failed'] */
  readonly statuses?: readonly Exclude<RecordStatus, 'processed'>[];
  /** Records per batch: 1 to 100,000. @default the source job's `config.batchSize` */
  readonly batchSize?: number;
}

/** The job that `retryFailed` made. */
export interface RetryResult {
  readonly jobId: string;
  readonly totalRecords: number;
  readonly totalBatches: number;
}

/** Which jobs `purge` deletes. */
export interface PurgeOptions {
  /** Only jobs that ended (`completedAt`, or where that is missing `startedAt`) longer ago than this, in ms. 0 takes all; a job with neither time is kept. */
  readonly olderThanMs: number;
  /** Final statuses only. @default ['COMPLETED', 'ABORTED', 'FAILED'] */
  readonly statuses?: readonly ('COMPLETED' | 'ABORTED' | 'FAILED')[];
  /**
   * The most jobs to delete in this call, the oldest first. A call that reaches it looks for nothing that belongs to no job, so that call after call costs
   * no more than one: go on until a call deletes fewer. @default all
   */
  readonly limit?: number;
  /** Deletes nothing, and says what would be deleted. @default false */
  readonly dryRun?: boolean;
  /**
   * Also deletes what belongs to no job and is of unknown age. Only while no import is being prepared: its records are saved before its job, and would be
   * deleted. @default false
   */
  readonly withoutJob?: boolean;
}

/** What `purge` deleted, or with `dryRun` would delete. */
export interface PurgeResult {
  /** The ids of the deleted jobs, the oldest first. */
  readonly jobIds: readonly string[];
  /** Batch rows, those without a job included. */
  readonly batches: number;
  /** Records, those without a job included. */
  readonly records: number;
  /**
   * Ids of jobs that no row of jobs has, and whose batches or records were deleted: what an interrupted `retryFailed` or `prepare` left. (An interrupted
   * `deleteJob` leaves a job that is ABORTED, which is among `jobIds`.)
   */
  readonly orphans: readonly string[];
  /** Ids of jobs that were kept because a worker holds a batch of theirs. */
  readonly skipped: readonly string[];
}

/** Which claim a fenced call belongs to. */
export interface FenceOptions {
  /** `BatchReservation.token`. @default the token of this store's last claim on the batch; none where it made no claim */
  readonly token?: number;
}

/** Which records `records` streams. */
export interface RecordsOptions {
  /** One status or several. @default all */
  readonly status?: RecordStatus | readonly RecordStatus[];
  /** @default all batches */
  readonly batchId?: string;
  /** The lowest record index to stream. @default the job's first */
  readonly from?: number;
}

/** The kinds of failure. They are stable: match on them, never on a message. */
export type StateStoreErrorCode =
  /** An argument or an option is wrong. The message names it. */
  | 'INVALID_ARGUMENT'
  /** The URL, the parts, the Sequelize instance or the environment don't say where the database is, or ask for what the store can't give. */
  | 'INVALID_CONNECTION'
  /** A dialect that is not served (`mssql`, say), or a server that is too old. */
  | 'UNSUPPORTED_DATABASE'
  /** The database is unreachable, or refuses the login. */
  | 'CONNECTION_FAILED'
  /** The connection ended in the middle of a call. The call may have taken effect. */
  | 'CONNECTION_LOST'
  /** No connection of the pool became free in time, or a statement ran too long; that one may have taken effect. */
  | 'TIMEOUT'
  /** Other transactions were in the way: a deadlock, a serialization failure, or a row lock that was not released in time. `retryable`. */
  | 'CONFLICT'
  /** The database user lacks a right, or the database or its file is read-only. `retryable` only after a failover to a read-only server. */
  | 'PERMISSION_DENIED'
  /** The tables don't exist: call `initialize()`. */
  | 'TABLES_MISSING'
  /** The tables exist, but a column or an index is missing or unsuitable. The message names it. */
  | 'TABLES_INCOMPATIBLE'
  /** A value is longer than its column or the server allows. */
  | 'VALUE_TOO_LONG'
  /** An id or an index is taken. */
  | 'CONSTRAINT'
  /** The batch was claimed again, or given back, since the claim that the call belongs to: stop working on it, and claim the next one. */
  | 'LEASE_LOST'
  /** The store is closed. */
  | 'CLOSED'
  /** The database refuses for a reason of its own, which the message tells: a full disk, say, or a sequence without a number left. */
  | 'DATABASE_ERROR'
  /** A defect of this package: please report it. */
  | 'INTERNAL';

/** What every method rejects with, and the constructor throws. Its stack leads to the caller of the method. It never holds a password. */
export declare class StateStoreError extends Error {
  constructor(message: string, options: { code: StateStoreErrorCode; retryable?: boolean; cause?: unknown });
  readonly name: 'StateStoreError';
  readonly code: StateStoreErrorCode;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** The error of the database, of `JSON.stringify` or of a function of yours, where that is the reason. */
  readonly cause?: unknown;
}

/** Where a store's database is, without user and password. The systems are OpenTelemetry's names. */
export interface StoreServer {
  /** `mariadb` where the URL or the dialect says so, `mysql` else: without asking the server. */
  readonly system: 'postgresql' | 'mysql' | 'mariadb' | 'sqlite';
  /** The host, or the Unix socket. Absent for SQLite. */
  readonly host?: string;
  readonly port?: number;
  /** The database's name; for SQLite its file, or `:memory:`. */
  readonly database?: string;
  /** PostgreSQL: the schema, where the options or the connection name one. */
  readonly schema?: string;
}

/**
 * The channel of every call: `diagnostics_channel.tracingChannel('batchactions.store')`. Its five channels get a {@link StoreCall} in the order that Node
 * documents for `tracePromise`: `start`, `end`, then `error` where the call rejects, `asyncStart` and `asyncEnd`. Without a subscriber nothing is made.
 */
export type StoreCallChannel = 'batchactions.store';

/** What subscribers are told of a call. It is one object from `start` to `asyncEnd`. Keys that don't apply are absent, as are ids that are not strings. */
export interface StoreCall {
  /** The method's name. `records()` shows as one call for each page; a queued save shows as answered at once. `poolStats()` makes no call and is not shown. */
  readonly operation: string;
  readonly jobId?: string;
  /** Of `records`, that of its options. A claim's is in its `result`. */
  readonly batchId?: string;
  readonly workerId?: string;
  /** How many records `saveBatchRecords` stores. */
  readonly count?: number;
  readonly server?: StoreServer;
  /** From `asyncStart` on: what the call resolves with; of `records`, an object with a page's `records`. */
  result?: unknown;
  /** From `error` on: what the call rejects with. */
  error?: unknown;
}

/** The channel of what no call reports, a {@link StoreWarning} each: `diagnostics_channel.subscribe('batchactions.store.warning', (warning) => …)`. */
export type StoreWarningChannel = 'batchactions.store.warning';

/** What a warning is about. The names are stable; later versions may add others. */
export type StoreWarningKind =
  /** A job's list of batches could not be brought up to date after a batch had changed. The call succeeded; the next change makes up for it. */
  | 'list-behind'
  /** `leaseRenewal` could not renew a claim. The next round tries again; a claim that isn't renewed for long becomes stale. */
  | 'renewal-failed'
  /**
   * A batch was taken from its worker: by `reclaimStaleBatches` or `abortJob` with `now` of this store; or a claim of this store was found lost, as it was
   * renewed or as queued records were written.
   */
  | 'claim-taken'
  /** `reclaimStaleBatches` of this store made a batch FAILED, because it was claimed `maxClaims` times. */
  | 'batch-given-up'
  /** Queued records, or a queued job or state, could not be stored after their calls were answered (`durability: 'batch'`). */
  | 'queued-write-failed'
  /** A connection ended or was given up. The call may have been repeated and have succeeded. */
  | 'connection-lost'
  /** The server has no connection left for this store, which works with those that it has. */
  | 'connection-refused'
  /** MySQL, SQLite: `initialize()` could not create an index that only makes reads of jobs faster. */
  | 'index-missing'
  /** A background task of the store panicked: a defect of this package. */
  | 'panic';

/** What happened in the background of a store. At most 256 wait for a blocked event loop; those beyond are dropped, and the next one says how many. */
export interface StoreWarning {
  readonly kind: StoreWarningKind;
  /** What happened, for a log. It may hold ids, and never a password. */
  readonly message: string;
  readonly server: StoreServer;
  readonly jobId?: string;
  readonly batchId?: string;
  readonly workerId?: string;
  /** How many events the warning stands for, where it is more than one. */
  readonly count?: number;
  /** How many warnings were dropped before this one. */
  readonly dropped?: number;
  readonly error?: StateStoreError;
}

/**
 * How the connection is encrypted, and which servers are trusted. Files are read again for each connection. A server that is not trusted is
 * `CONNECTION_FAILED`, a file that can't be used is `INVALID_CONNECTION`; neither is `retryable`.
 */
export interface SslOptions {
  /**
   * - `disable`: never encrypted.
   * - `prefer`: encrypted where the server offers it; its certificate is not checked.
   * - `require`: encrypted; the certificate is not checked, but with `ca` as in `verify-ca`.
   * - `verify-ca`, `verify-full`: encrypted, and the certificate is valid now, signed by a trusted authority and names the host in its subjectAltName
   *   (a common name doesn't count). In this version the two are the same.
   *
   * @default 'verify-full' where `ca` is given, else 'prefer'
   */
  readonly mode?: 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';
  /** Authorities to trust in addition to Mozilla's list: PEM text, or the path of a PEM file. Refused with `mode: 'prefer'`. */
  readonly ca?: string;
  /** The client's certificate and its chain: PEM text, or the path of a PEM file. Needs `key`. */
  readonly cert?: string;
  /** The client's key, unencrypted: PEM text, or the path of a PEM file. Needs `cert`. */
  readonly key?: string;
}

/**
 * Returns a password that expires, such as a cloud's token. The store calls it before it makes a connection, where the last answer is older than
 * `passwordTtlMs`, and at once, once, where the server refuses the password. Calls that need an answer at the same time share one; the store waits for up
 * to `connectTimeoutMs`. Where the function fails, the call that needed it rejects with `CONNECTION_FAILED` and what was thrown as `cause`; where it
 * returns no string, with `INVALID_ARGUMENT`.
 *
 * It runs on the thread that made the store, so not while that thread's event loop is blocked. It doesn't keep the process alive, and is released when
 * the store is closed.
 */
export type PasswordFunction = () => string | PromiseLike<string>;

/** The store's connections. */
export interface PoolOptions {
  /** The most connections: 1 to 1,000. SQLite writes through one of them at a time. @default 10; of a Sequelize instance, its own */
  readonly max?: number;
  /** Connections that stay open when idle: 0 to `max`. @default 0; of a Sequelize instance, its own */
  readonly min?: number;
  /** How long a call waits for a connection, in ms; then `TIMEOUT`. @default 30_000 */
  readonly acquireTimeoutMs?: number;
  /** How long an unused connection stays open, in ms. @default 10_000 */
  readonly idleTimeoutMs?: number;
}

/**
 * Options of a store. Properties of getters and prototypes count too. An option that is unknown, of the wrong type or out of range is `INVALID_ARGUMENT`, as
 * is an object whose content is not in its properties, such as a `Map` or a promise. Durations are 1 to 86,400,000 ms.
 */
export interface SqlxStateStoreOptions {
  /** PostgreSQL: the schema of the tables, at most 63 bytes. `initialize()` creates it where it is missing. @default the first schema of the server's search path */
  readonly schema?: string;
  /** The password, or a function that returns one. It replaces the password of the URL, the parts or the Sequelize instance. */
  readonly password?: string | PasswordFunction;
  /** How long an answer of the function `password` is used for new connections, in ms. Refused without such a function. @default 600_000 */
  readonly passwordTtlMs?: number;
  readonly pool?: PoolOptions;
  /** How long making a connection may take, in ms. A refused connection fails at once. @default 15_000 */
  readonly connectTimeoutMs?: number;
  /** How long a statement may take, in ms, before it is `TIMEOUT`; and how long a call is repeated that fails for a passing reason. @default 30_000 */
  readonly statementTimeoutMs?: number;
  readonly ssl?: SslOptions;
  /**
   * Prepared statements per connection: 0 to 10,000. 0 is for a transaction pooler: nothing is kept between transactions, and each statement is in one.
   * @default 100
   */
  readonly statementCache?: number;
  /**
   * When `saveProcessedRecord` resolves. `record`: once the record is committed. `batch`: once it is queued.
   *
   * With `batch`, two more calls are queued, which an import makes for each batch: `saveJobState` with the status PROCESSING of a job that isn't distributed,
   * and `updateBatchState` without a claim, of a job that this store doesn't know as distributed. Of these only what the last ones leave is written: a job
   * replaces the one before it.
   *
   * What is queued is written together, after 50 ms at the latest, and is committed before any other call on its job through this store takes effect
   * and before `close()` resolves. A list of batches that takes more than 5 ms to write is written less often, after 500 ms at the latest. To both comes the
   * time of a write of the same job that is under way. The queue of a job holds 10,000 records or 16 MB; a save that finds it full resolves once there is room. A queue that is
   * not empty keeps the process alive. `process.exit()` and a crash lose it, which is safe: an unfinished batch is processed again as a whole.
   *
   * Where a queued record can't be stored, the failure sticks to its batch: further saves to the batch, its COMPLETED, and `close()` reject with the reason,
   * and `saveJobState` stores the batch as FAILED even if told COMPLETED. Saving that record again, before the others, clears the failure, as does claiming,
   * giving back or reopening the batch. A queued record whose claim was lost is the new holder's to store: later calls with that claim reject with
   * `LEASE_LOST`, and `close()` doesn't.
   *
   * After a failure, the job can't go on: queued calls on it reject with the reason. `saveJobState` with another status is always tried: as FAILED, PAUSED or
   * ABORTED it resolves, and a job that should be COMPLETED is stored as FAILED, and the call rejects.
   * @default 'record'
   */
  readonly durability?: 'record' | 'batch';
  /**
   * The store renews each of its claims every `everyMs`, from a native thread, so that a blocked event loop doesn't lose them; for `forMs` after the claim
   * at most, so that a hung worker does.
   * @default none: claims are not renewed
   */
  readonly leaseRenewal?: { readonly everyMs: number; readonly forMs: number };
  /** A stale batch that was claimed this often becomes FAILED instead of PENDING. @default unlimited */
  readonly maxClaims?: number;
  /** Accepted for compatibility, without effect: the tables' names are fixed. */
  readonly tablePrefix?: string;
}

/** The name of the options in `@batchactions/state-sequelize`. */
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
 * As much of a Sequelize v6 instance as the store needs. It reads dialect, host or socket, port, database, user, password, storage, pool size, SSL and
 * `define.schema`, and uses none of the instance's connections, models, hooks and transactions.
 */
export interface SequelizeLike {
  readonly config: object;
  getDialect(): string;
}

/** A `URL` of the web's standard, from any realm. */
export interface UrlLike {
  readonly href: string;
}

/**
 * A state store on a SQL database. It implements `StateStore` and `DistributedStateStore` of `@batchactions/core`.
 *
 * The constructor never connects and never blocks; the first call connects. An open store doesn't keep the process alive.
 */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging -- see below
export declare class SqlxStateStore {
  /**
   * @param connection A `postgres://`, `postgresql://`, `mysql://`, `mariadb://` or `sqlite:` URL (`sqlite::memory:`, `sqlite:file.db`,
   *   `sqlite:///absolute/file.db`) as text or `URL`; or its parts; or a Sequelize v6 instance. On PostgreSQL, libpq's environment variables (`PGHOST`,
   *   `PGPASSWORD`, `PGSSLMODE`, …) fill in what it leaves open.
   * @throws `INVALID_CONNECTION`, `UNSUPPORTED_DATABASE` or `INVALID_ARGUMENT`.
   */
  constructor(connection: string | UrlLike | ConnectionOptions | SequelizeLike, options?: SqlxStateStoreOptions);

  /**
   * Creates the tables and indexes that are missing; runs no DDL where nothing is. Any number of processes may call it at once. Other calls on this store
   * wait for it.
   * @throws `TABLES_INCOMPATIBLE` where a column is missing or of an unsuitable type, or a needed index has other columns or is not unique.
   * @throws `UNSUPPORTED_DATABASE` where the server is too old: MySQL below 8.0, MariaDB below 10.6.
   * @throws `CLOSED` where the store is closed while the call waits for another process that creates the tables.
   */
  initialize(): Promise<void>;

  /**
   * Stores a job and the list of its batches. With `distributed: true` it also inserts the batches that workers claim, in the same transaction; those that
   * exist stay as they are, so an old snapshot can't undo a claim.
   *
   * A final job without `completedAt` keeps the stored one, or gets the database's now; a job that is not final and comes without one has none. Where the
   * job's row is inserted (after it was deleted, say), the store forgets its claims on an earlier job of the same id. A distributed job that became final
   * while a reply was lost stays final. With `durability: 'batch'` the call may be queued: see there.
   * @throws `CONSTRAINT` where a batch's index or id is taken.
   */
  saveJobState(job: JobState): Promise<void>;
  /**
   * A job with its batches in their present state; `null` where it doesn't exist.
   *
   * `batches` is made when it is first looked at, and shows the state at the time of the call. Until then it is an accessor, which is like data to everything
   * that reads, copies, compares or prints the job.
   * @throws `TABLES_INCOMPATIBLE` where the column `batches` does not hold a list of batches.
   */
  getJobState(jobId: string): Promise<JobState | null>;
  /**
   * Sets a batch's status and counts. No effect where the job or the batch doesn't exist. With `durability: 'batch'` the call may be queued: see there.
   * @param fence The claim that the update belongs to: by default the last one that this store had made on the batch when the method was called.
   * @throws `LEASE_LOST` where the batch was claimed again or given back since that claim; nothing changes.
   * @throws `CONNECTION_LOST` where the reply of an update to PENDING, PROCESSING or PAUSED without a claim, of a distributed job, is lost: it is not
   *   repeated, because another worker may have claimed the batch since.
   */
  updateBatchState(jobId: string, batchId: string, state: BatchState, fence?: FenceOptions): Promise<void>;

  /**
   * Stores one record; it replaces the one with the same index. Saves made while a write is under way are written together.
   * @throws `LEASE_LOST` as `updateBatchState` does.
   */
  saveProcessedRecord(jobId: string, batchId: string, record: ProcessedRecord, fence?: FenceOptions): Promise<void>;
  /** Stores many records, all or none; they replace those with the same indexes. Where an index comes twice, the later record counts. */
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
   * Streams the records of a job by index, in about 4 MB of memory and one record, whatever the sizes of the job and of its records. It reads page by page
   * and holds no connection between pages, so the loop's body may save.
   */
  records(jobId: string, options?: RecordsOptions): AsyncIterableIterator<ProcessedRecord>;

  /** How far a job is. For an unknown job: zeros, except for the counts of its records. */
  getProgress(jobId: string): Promise<JobProgress>;

  /**
   * Claims a PENDING batch of a job that is PROCESSING, the lowest index first within one store. No two callers get the same batch.
   *
   * `NO_PENDING_BATCHES` doesn't mean that the job is done: the batch of a worker that dies becomes PENDING again.
   * @param workerId At most 128 characters.
   * @throws `CONFLICT` where other transactions keep all PENDING batches locked for a second.
   * @throws `CONNECTION_LOST` where the reply is lost: a batch may be claimed, and `reclaimStaleBatches` brings it back.
   */
  claimBatch(jobId: string, workerId: string): Promise<ClaimBatchResult>;
  /**
   * Gives a batch back: it becomes PENDING where it is PROCESSING and `workerId` holds it; otherwise nothing changes.
   * @throws `LEASE_LOST` where this store's claim on the batch is no longer the last one.
   * @throws `CONNECTION_LOST` where the reply is lost and the store has no claim on the batch: it is not repeated.
   */
  releaseBatch(jobId: string, batchId: string, workerId: string): Promise<void>;
  /**
   * Moves `claimedAt` to now where the batch is PROCESSING and `workerId` holds it; `false` where not, PAUSED included. (The option `leaseRenewal` renews
   * PAUSED batches too, so that they are not stale when they go on.)
   * @throws `LEASE_LOST` as `updateBatchState` does.
   */
  renewBatch(jobId: string, batchId: string, workerId: string, fence?: FenceOptions): Promise<boolean>;
  /**
   * Takes PROCESSING batches from their workers that were claimed or renewed more than `timeoutMs` ago, or have no `claimedAt`: they become PENDING, or
   * FAILED by `maxClaims`. Returns how many. Any number of workers may call it at once.
   *
   * It also finalizes a job that is PROCESSING although all its batches are done, where the newest claim (or `startedAt`, where no claim is recorded) is
   * older than `timeoutMs`: its last worker died, or was silent for that long, before it could. A distributed job that lists no batches is finalized at once.
   * `tryFinalizeJob` returns `true` to no caller then.
   */
  reclaimStaleBatches(jobId: string, timeoutMs: number): Promise<number>;
  /** The job's batches, counted by state. For an unknown job: zeros, and not complete. */
  getDistributedStatus(jobId: string): Promise<DistributedJobStatus>;
  /**
   * Finalizes a job that is PROCESSING and whose batches are all done (none PENDING, PROCESSING or PAUSED): it becomes FAILED where a batch is, else
   * COMPLETED, with the database's now as `completedAt`. Returns `true` to the one caller that did it.
   * @throws `CONNECTION_LOST` where the reply is lost: the job may be final, and a second call returns `false` then.
   */
  tryFinalizeJob(jobId: string): Promise<boolean>;

  /** A page of jobs without their batches: the newest `startedAt` first, jobs without one last. */
  listJobs(options?: ListJobsOptions): Promise<readonly JobSummary[]>;
  /** Deletes a job, its batches and its records, in slices; `true` if there was anything. Where it fails halfway, call it again. */
  deleteJob(jobId: string): Promise<boolean>;

  /** A job without its batches; `null` where it doesn't exist. It costs the same in any job. */
  getJob(jobId: string): Promise<JobSummary | null>;
  /**
   * A page of a job's batches by index, with their holders; `[]` for an unknown job. In a distributed job a page costs the same however many batches there are;
   * of other jobs, and of one that the Sequelize adapter prepared and no worker has claimed of, the list is read whole.
   *
   * With `status`, a page costs at most what 1,000 batches cost where no more have these statuses. Where more have, it is read by index, and costs as much as
   * the batches of other statuses that it passes: those that are done, for the first page of PENDING ones.
   */
  batches(jobId: string, options?: BatchesOptions): Promise<readonly BatchSummary[]>;
  /** Counts jobs by status and open batches by status, for a metric or an overview. It costs little more than a count of these. */
  stats(): Promise<StoreStats>;
  /**
   * Makes a round trip to the database, on a new connection where none is open, and says what is there. It needs no tables. A file of SQLite that
   * `initialize()` would make need not be there yet, and is not made.
   */
  ping(): Promise<PingResult>;
  /**
   * The connections at this moment, without asking the database. After `close()` all counts but `max` are 0. It returns no promise, and throws only where it
   * is called on something that is no store.
   */
  poolStats(): PoolStats;

  /**
   * Pauses a distributed job that is PROCESSING: nothing is claimed any more; what is claimed goes on and is saved. `true` where this call changed the status.
   *
   * `claimBatch` says `JOB_NOT_PROCESSING` then. A worker that ends on that doesn't come back by itself: let its loop poll until the job is final.
   * @throws `INVALID_ARGUMENT` where the job isn't distributed: its process overwrites the status with its next batch.
   * @throws `CONNECTION_LOST` where the reply is lost: the job may be paused. It is not repeated, because another caller may have resumed the job since.
   */
  pauseJob(jobId: string): Promise<boolean>;
  /**
   * Lets a PAUSED distributed job go on. Where all its batches are done by now, it is finalized instead, and `tryFinalizeJob` returns `true` to no caller. `true`
   * where this call changed the status.
   * @throws `INVALID_ARGUMENT` where the job isn't distributed.
   * @throws `CONNECTION_LOST` as `pauseJob` does.
   */
  resumeJob(jobId: string): Promise<boolean>;
  /**
   * Makes a job that isn't final ABORTED, with the database's now as `completedAt`. `true` where this call changed the status. A final job stays as it is; of one
   * that is ABORTED already, `now` takes what is still claimed.
   * @throws `INVALID_ARGUMENT` where the job isn't distributed, without `force`.
   * @throws `CONNECTION_LOST` where the reply is lost: the job may be ABORTED. Call it again, which does what is left to do.
   */
  abortJob(jobId: string, options?: AbortOptions): Promise<boolean>;
  /**
   * Makes a new distributed job, PROCESSING, of the failed records of a final job: their `raw` as it came, `pending`, with their indexes. Its configuration is the
   * source's with `retryOf`, the source's id. `null` where there are no such records; the source stays as it is.
   *
   * A batch's `recordStartIndex` and `recordEndIndex` are its first and last record's, and say nothing about their number. The job's row is written last, so an interrupted
   * call leaves nothing that can be claimed; `purge` removes its records a day later.
   * @throws `INVALID_ARGUMENT` where the source doesn't exist, isn't final, or has a batch that a worker still holds (of a job that was aborted); or has no usable
   *   `config.batchSize` and none is given.
   */
  retryFailed(jobId: string, options?: RetryOptions): Promise<RetryResult | null>;
  /**
   * Deletes finished jobs with their batches and records, in slices, and what an interrupted `retryFailed` left a day ago or more. A job with a batch that a
   * worker holds is kept, and listed; a claim that is a day old and older than `olderThanMs` does not count.
   *
   * Batches and records that belong to no job otherwise, of an import that died before it saved its job, say, are deleted with `withoutJob` only: nothing in
   * them tells how old they are. Where the call fails halfway, call it again.
   */
  purge(options: PurgeOptions): Promise<PurgeResult>;

  /**
   * Ends the connections, after the calls under way are done and what is queued is written. It doesn't wait for an `initialize()` that waits for another
   * process. Later calls reject with `CLOSED`; a second `close()` settles as the first.
   * @throws The reason for which a queued record, job or state could not be stored (`durability: 'batch'`).
   */
  close(): Promise<void>;
}

/** `close()` for `await using`, where the language's or Node's types have `Symbol.asyncDispose`. */
// oxlint-disable-next-line typescript/no-unsafe-declaration-merging -- the class has the method wherever the name exists
export interface SqlxStateStore extends AsyncDisposal<SymbolConstructor> {}
/** A method named `asyncDispose`, where `Symbols` has that symbol. */
export type AsyncDisposal<Symbols> = Symbols extends { readonly asyncDispose: infer Name extends symbol }
  ? Record<Name, () => Promise<void>>
  : {};

/** The same class, under its name in `@batchactions/state-sequelize`. */
export declare const SequelizeStateStore: typeof SqlxStateStore;
export type SequelizeStateStore = SqlxStateStore;
