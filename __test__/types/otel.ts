/** The declarations of `@batchactions/state-sqlx/otel`, which need those of `@opentelemetry/api`. */
import type { MeterProvider, TracerProvider } from '@opentelemetry/api';
import type { SqlxStateStore } from '../../index.js';
import { instrument, type Instrumentation } from '../../otel/index.js';

export function observe(store: SqlxStateStore, meterProvider: MeterProvider, tracerProvider: TracerProvider): Instrumentation {
  const end = instrument({ stores: [store], meterProvider, tracerProvider });
  const ended: void = end();
  void ended;
  instrument()();
  // @ts-expect-error Not a store.
  instrument({ stores: [{}] });
  // @ts-expect-error An unknown option.
  instrument({ store });
  return end;
}
