// As much of `@batchactions/core` as the README uses.

export type * from '../ports.js';
import type { RawRecord } from '../ports.js';

export interface DataSource {
  read(): AsyncIterable<string | Uint8Array>;
}
export declare class BufferSource implements DataSource {
  constructor(content: string | Uint8Array);
  read(): AsyncIterable<string | Uint8Array>;
}
export type RecordProcessorFn = (record: RawRecord, context: { readonly jobId: string; readonly recordIndex: number }) => Promise<void>;
