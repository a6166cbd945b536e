// Runs a small job with the binary beside index.js, in memory and in a file, and in other databases, which must be empty: on each platform that a
// release is for, and in Bun and Deno.
//
//   node scripts/smoke.mjs [<URL> …]

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SqlxStateStore } from '../index.js';
import { smokeJob } from './smoke-job.mjs';

const folder = mkdtempSync(join(tmpdir(), 'smoke-'));
try {
  await smokeJob(SqlxStateStore, 'sqlite::memory:');
  await smokeJob(SqlxStateStore, `sqlite:${join(folder, 'smoke.db')}`);
  for (const url of process.argv.slice(2)) await smokeJob(SqlxStateStore, url);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const { bun, deno, node } = process.versions;
console.log(`ok: ${bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : `Node ${node}`} on ${process.platform} ${process.arch}`);
