// Fuzzes the code that parses user input: the text that crosses the boundary, connection URLs and options, Sequelize's settings.
//
//   node scripts/fuzz.mjs [--seconds 60] [target…]
//
// The properties are in src/fuzzing/, the first inputs in fuzz/seeds. A run keeps new inputs in fuzz/corpus, and inputs that break a property in
// fuzz/artifacts. After fixing the defect, put the input into fuzz/seeds, which `cargo test` replays.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values, positionals } = parseArgs({ options: { seconds: { type: 'string', default: '60' } }, allowPositionals: true });
const known = readdirSync(join(root, 'fuzz', 'seeds'));
const unknown = positionals.filter((target) => !known.includes(target));
if (unknown.length > 0) fail(`There is no target ${unknown.join(', ')}: there are ${known.join(', ')}.`);
if (!/^[1-9]\d*$/.test(values.seconds)) fail(`--seconds must be a whole number, not ${values.seconds}.`);

// libFuzzer's instrumentation is not stable Rust: this lets the stable compiler do it too.
const env = { ...process.env, RUSTC_BOOTSTRAP: '1' };

if (ask('cargo', ['fuzz', '--version']) === undefined) fail('cargo-fuzz is missing: cargo install cargo-fuzz');
if (ask('c++', ['--version']) === undefined) fail('A C++ compiler is missing: libFuzzer is compiled with it.');

// AddressSanitizer finds what is read and written out of bounds; it is part of the toolchains that rustup installs on Linux and macOS.
const libraries = join(ask('rustc', ['--print', 'target-libdir']).trim());
const sanitized = existsSync(libraries) && readdirSync(libraries).some((name) => /rt[._]asan/.test(name));
if (!sanitized) console.log('This toolchain has no AddressSanitizer, so nothing looks for accesses out of bounds.');
const sanitizer = ['--sanitizer', sanitized ? 'address' : 'none'];

// Once, for all targets; the first time takes some minutes.
run(['build', ...sanitizer]);
for (const target of positionals.length > 0 ? positionals : known) {
  const corpus = join(root, 'fuzz', 'corpus', target);
  mkdirSync(corpus, { recursive: true });
  console.log(`\n${target}, ${values.seconds} s`);
  const limits = ['-rss_limit_mb=1024', '-malloc_limit_mb=128', '-timeout=10', '-max_len=16384'];
  const told = [
    `-max_total_time=${values.seconds}`,
    `-dict=${join(root, 'fuzz', 'dictionary.txt')}`,
    '-verbosity=0',
    '-print_final_stats=1',
  ];
  run(['run', ...sanitizer, target, corpus, join(root, 'fuzz', 'seeds', target), '--', ...told, ...limits]);
}

/** The output of a command; undefined if it can't be run. */
function ask(command, args) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0 ? stdout : undefined;
}

function run(args) {
  const { status } = spawnSync('cargo', ['fuzz', ...args], { cwd: root, env, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
