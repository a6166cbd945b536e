// An import in a process of its own: node engine-process.mjs <side> <url> <dialect> <options of the store> <records>
// Prints its rate, its peak memory, and the CPU seconds of each of its threads.

import { rowsOf, runEngine } from './engine.mjs';
import { openStore } from './sides.mjs';
import { peakMegabytes, threadSeconds } from './work.mjs';

const [side, url, dialect, options, count] = process.argv.slice(2);
const records = Number(count);
const store = await openStore(side, { url, dialect }, JSON.parse(options));
await store.initialize();
const began = performance.now();
await runEngine(store, rowsOf(records));
const rate = records / ((performance.now() - began) / 1_000);
const threads = threadSeconds();
await store.close();
console.log(JSON.stringify({ rate, megabytes: peakMegabytes(), threads }));
