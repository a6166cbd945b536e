// Streams a job's records, and prints the process's memory before and its peak: node stream.mjs <url> <job id>

import { readFileSync } from 'node:fs';
import { SqlxStateStore } from '../index.js';

const memory = (key) => Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
const [url, id] = process.argv.slice(2);
const store = new SqlxStateStore(url);
await store.initialize();
const before = memory('VmRSS');
const began = performance.now();
let count = 0;
for await (const record of store.records(id)) if (record.raw.name.startsWith('Customer')) count++;
const seconds = (performance.now() - began) / 1_000;
console.log(JSON.stringify({ count, rate: count / seconds, before, most: memory('VmHWM') }));
await store.close();
