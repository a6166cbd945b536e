// Loads one side, connects, and claims one batch; prints how long that took and how much memory the process has then.
//
//   node start-up.mjs <side> <dialect> <url>     where a side is what `openStore` of sides.mjs takes

const [side, dialect, url] = process.argv.slice(2);
const began = performance.now();
const { openStore } = await import('./sides.mjs');
const store = await openStore(side, { url, dialect });
await store.initialize();
const { claimed } = await store.claimBatch('start', `${process.pid}`);
if (!claimed) throw new Error('nothing was claimed');
const ms = performance.now() - began;
console.log(JSON.stringify({ ms, rss: process.memoryUsage().rss / (1 << 20) }));
process.exit(0);
