/**
 * A page that shows the jobs of a `SqlxStateStore`: jobs, batches and their holders, errors, failed rows; where you allow it, it pauses, resumes, aborts, retries
 * and purges.
 *
 * It is safe as it comes: read-only, without records, and only for the machine that it runs on.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ProcessedRecord, SqlxStateStore } from '@batchactions/state-sqlx';

/** What the page calls of a store. */
export type DashboardStore = Pick<
  SqlxStateStore,
  | 'listJobs'
  | 'getJob'
  | 'getProgress'
  | 'batches'
  | 'stats'
  | 'getDistributedStatus'
  | 'records'
  | 'ping'
  | 'pauseJob'
  | 'resumeJob'
  | 'abortJob'
  | 'retryFailed'
  | 'purge'
  | 'reclaimStaleBatches'
>;

export interface DashboardOptions {
  /**
   * Whether a request may go on: it is asked for each one, and only `true` lets it. A request whose `method` is POST is an action. It may answer the request itself
   * (with a 401 or a redirect to a login); then its result doesn't matter. Where it throws or rejects, the request is refused.
   * @default only requests from this machine, by the name of `localhost`, `127.0.0.1` or `[::1]`, and not by way of a proxy
   */
  readonly authorize?: (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;
  /** Whether jobs can be paused, resumed, aborted, retried, reclaimed and purged. @default false */
  readonly actions?: boolean;
  /** Whether failed records, and messages that may hold values of theirs, can be seen and downloaded. @default false */
  readonly showRecords?: boolean;
  /**
   * What is shown and downloaded of a record: without passwords, say. It gets a copy of the record, and may change it. A value stands in up to five places, all of
   * which it must clear: `raw`, `parsed`, each error's `value` (`suggestion`, `metadata`), each error's `message`, and `processingError`. So make a new record of what
   * may be seen.
   * @default the record
   */
  readonly redact?: (record: ProcessedRecord) => ProcessedRecord | Promise<ProcessedRecord>;
  /** A batch whose claim is older than this is marked as stale, and reclaimed by that action. The same as your workers' `timeoutMs`. @default 900_000 */
  readonly staleAfterMs?: number;
  /** The path that the page is at, where the framework doesn't cut it off `request.url`: `/batches`, say. Express does, Fastify and Node don't. @default '' */
  readonly basePath?: string;
  /** Gets what `authorize` and `redact` throw, and what no request can be told. Where it throws or rejects, both errors are process warnings. @default a process warning */
  readonly onError?: (error: unknown) => void;
}

/** Answers a request. The promise is for tests, and never rejects. */
export type DashboardHandler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/**
 * Makes the page: a handler for Node's `http`, Express, Fastify and what else gives a request and a response of Node.
 * @throws TypeError where an option is unknown or wrong, or the store lacks a method.
 */
export declare function createDashboard(store: DashboardStore, options?: DashboardOptions): DashboardHandler;
