// As much of `@batchactions/distributed` as the README uses.

import type { DataSource, RecordProcessorFn, StateStore } from '@batchactions/core';
import type { SchemaDefinition, SourceParser } from '@batchactions/import';

export declare class DistributedImport {
  constructor(config: {
    readonly schema: SchemaDefinition;
    readonly batchSize?: number;
    readonly continueOnError?: boolean;
    readonly stateStore: StateStore;
    readonly staleBatchTimeoutMs?: number;
  });
  prepare(
    source: DataSource,
    parser: SourceParser,
  ): Promise<{ readonly jobId: string; readonly totalBatches: number; readonly totalRecords: number }>;
  processWorkerBatch(
    jobId: string,
    processor: RecordProcessorFn,
    workerId: string,
  ): Promise<{
    readonly claimed: boolean;
    readonly jobComplete: boolean;
    readonly jobId: string;
    readonly processedCount: number;
    readonly failedCount: number;
  }>;
}
