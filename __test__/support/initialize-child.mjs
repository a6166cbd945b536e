/** A process of its own that waits for its siblings, and then initializes the database at the URL it is told. */
import { SqlxStateStore } from '../../index.js';

process.once('message', async ({ url, options }) => {
  const store = new SqlxStateStore(url, options);
  let outcome = 'done';
  try {
    await store.initialize();
    await store.getJobState('nobody');
    await store.close();
  } catch (error) {
    outcome = `${error.code}: ${error.message}`;
  }
  process.send(outcome, () => process.disconnect());
});
process.send('ready');
