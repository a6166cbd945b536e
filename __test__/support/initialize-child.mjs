/** A process of its own that waits for its siblings, and then initializes the database at the URL in the message. */
import { storeOn } from './store.mjs';

process.once('message', async ({ url, options }) => {
  const store = storeOn(url, options);
  let outcome = 'done';
  try {
    await store.initialize();
    await store.getJobState('missing');
    await store.close();
  } catch (error) {
    outcome = `${error.code}: ${error.message}`;
  }
  process.send(outcome, () => process.disconnect());
});
process.send('ready');
