// As much of `@batchactions/import` as the README uses.

import type { DataSource, RecordProcessorFn, StateStore } from '@batchactions/core';

export interface SchemaDefinition {
  readonly fields: readonly {
    readonly name: string;
    readonly type: 'string' | 'number' | 'boolean' | 'date' | 'email' | 'array' | 'custom';
    readonly required: boolean;
  }[];
}
export interface SourceParser {
  parse(data: string | Uint8Array): AsyncIterable<Record<string, unknown>>;
}
export declare class CsvParser implements SourceParser {
  parse(data: string | Uint8Array): AsyncIterable<Record<string, unknown>>;
}
export declare class BulkImport {
  constructor(config: {
    readonly schema: SchemaDefinition;
    readonly batchSize?: number;
    readonly continueOnError?: boolean;
    readonly maxConcurrentBatches?: number;
    readonly stateStore?: StateStore;
  });
  static restore(jobId: string, config: ConstructorParameters<typeof BulkImport>[0]): Promise<BulkImport | null>;
  getJobId(): string;
  from(source: DataSource, parser: SourceParser): this;
  start(processor: RecordProcessorFn): Promise<void>;
}
