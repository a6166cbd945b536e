/**
 * Spans and metrics of stores, by OpenTelemetry's semantic conventions. It needs the package `@opentelemetry/api`, and an SDK to send what it makes.
 *
 * ```js
 * const { instrument } = require('@batchactions/state-sqlx/otel');
 * instrument({ stores: [store] });
 * ```
 *
 * docs/operations.md has the table of metrics and attributes.
 */

import type { MeterProvider, TracerProvider } from '@opentelemetry/api';
import type { SqlxStateStore } from '../index.js';

export interface InstrumentOptions {
  /** @default the global one, as it is when `instrument` is called: start the SDK first */
  readonly meterProvider?: MeterProvider;
  /** @default the global one */
  readonly tracerProvider?: TracerProvider;
  /**
   * The stores whose connections, jobs and batches are shown. The array is read at each collection, which makes one call of `stats()` for each store. A store
   * that can't answer within 2 s is left out of that collection with its jobs and batches; its connections are shown. All SQLite databases in memory have
   * the name `:memory:`, so that jobs and batches of two of them overwrite each other: list one at most. Spans and the other metrics are of all stores of the
   * process, whether they are listed or not.
   * @default none
   */
  readonly stores?: readonly ObservedStore[];
}

/** As much of a store as is observed. */
export type ObservedStore = Pick<SqlxStateStore, 'stats' | 'poolStats'>;

/** Ends the instrumentation; the spans of calls under way end with those. It can be called any number of times. It is also its `Symbol.dispose`, where that exists: `using ended = instrument()`. */
export interface Instrumentation extends Disposal<SymbolConstructor> {
  (): void;
}
/** A method named `dispose`, where `Symbols` has that symbol. */
export type Disposal<Symbols> = Symbols extends { readonly dispose: infer Name extends symbol } ? Record<Name, () => void> : {};

/** Begins to make spans of all calls of all stores of the process, and metrics of them, of their warnings, and of the listed `stores`. */
export declare function instrument(options?: InstrumentOptions): Instrumentation;
