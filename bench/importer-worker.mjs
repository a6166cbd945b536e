// A worker process of a distributed import: node importer-worker.mjs <side> <url> <dialect> <options of the store> <job id> <name>
// It connects, says 'ready', waits for a message, works until nothing is left, and sends what it did and its peak memory.

import { once } from 'node:events';
import { work } from './importer.mjs';
import { openStore } from './sides.mjs';
import { peakMegabytes, threadSeconds } from './work.mjs';

const [side, url, dialect, options, id, name] = process.argv.slice(2);
const store = await openStore(side, { url, dialect }, JSON.parse(options));
await store.initialize();
process.send('ready');
await once(process, 'message');
const done = await work(store, id, name);
const threads = threadSeconds();
await store.close();
process.send({ ...done, pid: process.pid, threads, megabytes: peakMegabytes() });
process.disconnect();
