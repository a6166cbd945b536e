// Streams a job's records, and prints the process's memory before and its peak: node stream.mjs <url> <job id>

import { SqlxStateStore } from '../index.js';
import { megabytes, peakMegabytes } from './work.mjs';

const [url, id] = process.argv.slice(2);
const store = new SqlxStateStore(url);
await store.initialize();
const before = megabytes('VmRSS');
const began = performance.now();
let count = 0;
for await (const record of store.records(id)) if (record.raw.name.startsWith('Customer')) count++;
const seconds = (performance.now() - began) / 1_000;
console.log(JSON.stringify({ count, rate: count / seconds, before, most: peakMegabytes() }));
await store.close();
