// Runs `cargo test` without this machine's libpq environment variables, because the tests set their own connections.
//
//   node scripts/test-rust.mjs [arguments for cargo test]

import { spawnSync } from 'node:child_process';
import { unsetPostgresVariables } from '../__test__/support/environment.mjs';

unsetPostgresVariables();
const { status, error } = spawnSync('cargo', ['test', '--release', ...process.argv.slice(2)], { stdio: 'inherit' });
if (error) console.error(error.message);
process.exitCode = status ?? 1;
