// An import by the engine in a process of its own: node engine-process.mjs <side> <url> <dialect> <options of the store> <records>
// Prints its rate until everything is stored, how late the event loop was (p99.9, ms), its peak memory, and the CPU seconds of its threads.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { MEMORY, MemoryStore, rowsOf, runEngine } from './engine.mjs';
import { openStore } from './sides.mjs';
import { peakMegabytes, threadSeconds } from './work.mjs';

const [side, url, dialect, options, count] = process.argv.slice(2);
const records = Number(count);
const store = side === MEMORY ? new MemoryStore() : await openStore(side, { url, dialect }, JSON.parse(options));
await store.initialize();
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
const began = performance.now();
const { id } = await runEngine(store, rowsOf(records));
const rate = records / ((performance.now() - began) / 1_000);
// The last delay counts too, and is noticed once the loop has turned.
await sleep(20);
delay.disable();
const threads = threadSeconds();
const { status, totalRecords } = await store.getJobState(id);
if (status !== 'COMPLETED' || totalRecords !== records) throw new Error(`the import ended as ${status}, with ${totalRecords} records`);
await store.close();
console.log(JSON.stringify({ rate, late: delay.percentile(99.9) / 1e6, megabytes: peakMegabytes(), threads }));
