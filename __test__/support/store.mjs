// Stores with a connect timeout for a busy machine.

import { SqlxStateStore } from '../../index.js';

/** A store, for which a busy machine may take its time to let a connection in. */
export function storeOn(connection, options) {
  return new SqlxStateStore(connection, { connectTimeoutMs: 60_000, ...options });
}
