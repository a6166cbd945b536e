// A process that runs an import: node engine-process.mjs <plan, as JSON>
// Its history goes to a file, line by line and at once, so that what it did is known when it is killed in the middle.

import { openSync, writeSync } from 'node:fs';
import { SqlxStateStore } from '../../index.js';
import { runImport } from './engine.mjs';
import { recorder } from './importer.mjs';

const { url, name, file, killedAfter, ...plan } = JSON.parse(process.argv[2]);
const output = openSync(file, 'a');
let calls = 0;
const record = recorder(name, (line) => {
  writeSync(output, `${JSON.stringify(line)}\n`);
  // Tells the test that it is time to kill it, and goes on.
  if ('call' in line && ++calls === killedAfter) process.stdout.write('now\n');
});

const store = new SqlxStateStore(url, { durability: 'batch', connectTimeoutMs: 60_000 });
await runImport(store, { ...plan, record });
await record('engine', 'close', {}, () => store.close());
