/**
 * The two ports of `@batchactions/core` 0.0.7 and the values that cross them, as its declarations have them, so that the store's types can be checked
 * without it. Where this differs from core, no TypeScript user can compile: change it when core changes, and for no other reason.
 */

export type JobStatus = 'CREATED' | 'PREVIEWING' | 'PREVIEWED' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'ABORTED' | 'FAILED';
export type BatchStatus = 'PENDING' | 'PROCESSING' | 'PAUSED' | 'COMPLETED' | 'FAILED';
export type RecordStatus = 'valid' | 'invalid' | 'processed' | 'failed' | 'pending';

/** It has no index signature: with one, core's would not fit. */
export interface JobConfig {
  readonly id?: string;
  readonly schema?: Record<string, unknown>;
  readonly batchSize: number;
  readonly maxConcurrentBatches?: number;
  readonly continueOnError?: boolean;
  readonly maxRetries?: number;
  readonly retryDelayMs?: number;
  readonly skipEmptyRows?: boolean;
}

export interface RawRecord {
  readonly [key: string]: unknown;
}

export type ValidationErrorCode =
  'REQUIRED' | 'TYPE_MISMATCH' | 'PATTERN_MISMATCH' | 'CUSTOM_VALIDATION' | 'UNKNOWN_FIELD' | 'DUPLICATE_VALUE' | 'EXTERNAL_DUPLICATE';

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

export interface ProcessedRecord {
  readonly index: number;
  readonly raw: RawRecord;
  readonly parsed: RawRecord;
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

/** `distributed` is a boolean: core's own code sets it to either. */
export interface JobState {
  readonly id: string;
  readonly config: JobConfig;
  readonly status: JobStatus;
  readonly batches: readonly Batch[];
  readonly totalRecords: number;
  readonly startedAt?: number;
  readonly completedAt?: number;
  readonly distributed?: boolean;
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
