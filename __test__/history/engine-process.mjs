// A process that runs an import: node engine-process.mjs <plan, as JSON>
// Its history goes to a file, line by line and at once, so that what it did is known when it is killed in the middle.

import { openSync, writeSync } from 'node:fs';
import { SqlxStateStore } from '../../index.js';
import { runImport } from './engine.mjs';
import { recorder } from './importer.mjs';

const { url, name, file, ...plan } = JSON.parse(process.argv[2]);
const output = openSync(file, 'a');
const record = recorder(name, (line) => writeSync(output, `${JSON.stringify(line)}\n`));

const store = new SqlxStateStore(url, { durability: 'batch', connectTimeoutMs: 60_000 });
// Whoever kills it counts the time from here.
process.stdout.write('begun\n');
await runImport(store, { ...plan, record });
await record('engine', 'close', {}, () => store.close());
