/** `await using`, which TypeScript has since 5.2. */
import { SqlxStateStore } from '../../index.js';

export async function dispose(store: SqlxStateStore): Promise<AsyncDisposable> {
  await using own = new SqlxStateStore('sqlite::memory:');
  await own.initialize();
  const closed: Promise<void> = store[Symbol.asyncDispose]();
  await closed;
  return store;
}
