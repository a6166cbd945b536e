// Loads one side, connects, and claims one batch; prints how long that took and how much memory the process has then.
//
//   node start-up.mjs ours|baseline <dialect> <url>

const [side, dialect, url] = process.argv.slice(2);
const began = performance.now();
let store;
if (side === 'ours') {
  const { SqlxStateStore } = await import('../index.js');
  store = new SqlxStateStore(url);
} else {
  const { connectSequelize, IncumbentLikeStore } = await import('../__test__/support/sequelize-models.mjs');
  store = new IncumbentLikeStore(connectSequelize({ dialect: { name: dialect }, url }));
}
await store.initialize();
const { claimed } = await store.claimBatch('start', `${side}-${process.pid}`);
if (!claimed) throw new Error('nothing was claimed');
const ms = performance.now() - began;
console.log(JSON.stringify({ ms, rss: process.memoryUsage().rss / (1 << 20) }));
process.exit(0);
