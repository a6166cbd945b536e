// A process of workers on one job: node fleet-process.mjs <plan, as JSON>
// Its history goes to a file, line by line and at once, so that what it did is known when it is killed in the middle.

import { openSync, writeSync } from 'node:fs';
import { SqlxStateStore } from '../../index.js';
import { now, recorder, work } from './importer.mjs';

const { url, options, name, workers, workerName, shared, file, runMs, ...plan } = JSON.parse(process.argv[2]);
const output = openSync(file, 'a');
const record = recorder(name, (line) => writeSync(output, `${JSON.stringify(line)}\n`));
const giveUpAt = now() + runMs;
const queues = options.durability === 'batch';

// Workers that share a store tell it their tokens; one that has a store of its own leaves them to it.
const pool = { max: shared ? 4 : 2, acquireTimeoutMs: options.statementTimeoutMs, idleTimeoutMs: 2_000 };
const stores = Array.from({ length: shared ? 1 : workers }, () => new SqlxStateStore(url, { pool, ...options }));
await Promise.all(
  Array.from({ length: workers }, (_, n) =>
    work(stores[shared ? 0 : n], { ...plan, workerId: `${workerName}.${n}`, record, explicit: shared, queues, giveUpAt }),
  ),
);
await Promise.all(stores.map((store, n) => record(`${workerName}.${n}`, 'close', {}, () => store.close())));
