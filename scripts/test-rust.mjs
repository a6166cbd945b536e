// `cargo test`, whose tests say themselves where they connect: without what this machine's user has set for libpq.
//
//   node scripts/test-rust.mjs [arguments for cargo test]

import { spawnSync } from 'node:child_process';
import { unsetPostgresVariables } from '../__test__/support/environment.mjs';

unsetPostgresVariables();
const { status, error } = spawnSync('cargo', ['test', '--release', ...process.argv.slice(2)], { stdio: 'inherit' });
if (error) console.error(error.message);
process.exitCode = status ?? 1;
