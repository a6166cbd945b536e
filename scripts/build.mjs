// Builds the addon and copies it next to index.js, as state-sqlx.<platform>.node.
//
//   node scripts/build.mjs [--if-stale] [--target <Rust target>] [--glibc <version>] [--test-hooks]
//
// --if-stale: only if it is missing or older than its sources.
// --glibc: for Linux systems with this version of glibc, say 2.17, and later. Without it, the addon needs the version of the machine that it was built on.
// --test-hooks: for tests, an addon with the feature `test-hooks`, in target/test-hooks with an index.js of its own. Only our own crate is compiled for
//   it again, and without optimization.
//
// `napi build` does this too, but in a target folder and with an environment of its own, so that nothing it compiles serves `cargo test`
// and `cargo clippy`, and the other way round. This is the plain `cargo build` that they share everything with.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseTriple } from '@napi-rs/cli';
import { installTools, withTools } from './tools.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values: options } = parseArgs({
  options: { 'if-stale': { type: 'boolean' }, target: { type: 'string' }, glibc: { type: 'string' }, 'test-hooks': { type: 'boolean' } },
});

const { napi } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const triple = options.target ?? /^host: (.+)$/m.exec(run('rustc', ['-vV']))[1];
const folder = options['test-hooks'] ? join(root, 'target', 'test-hooks') : root;
const addon = join(folder, `${napi.binaryName}.${parseTriple(triple).platformArchABI}.node`);

if (options['test-hooks']) {
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(root, 'index.js'), join(folder, 'index.js'));
}
if (!options['if-stale'] || isStale()) build();

function isStale() {
  const modified = statSync(addon, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = ['src', 'migrations', 'build.rs', 'Cargo.toml', 'Cargo.lock'].flatMap((name) => files(join(root, name)));
  return sources.some((file) => statSync(file).mtimeMs > modified);
}

function files(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => files(join(path, name)));
}

function build() {
  const began = new Date();
  const { command, target, env } = howToBuild();
  const hooks = options['test-hooks'] ? ['--features', 'test-hooks', '--config', 'profile.release.package.state-sqlx.opt-level=0'] : [];
  const messages = run('cargo', [command, '--release', '--lib', '--message-format=json-render-diagnostics', ...target, ...hooks], env)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { filenames } = messages.findLast(
    ({ reason, target: { crate_types: types } = {} }) => reason === 'compiler-artifact' && types.includes('cdylib'),
  );
  const library = filenames.find((name) => /\.(so|dylib|dll)$/.test(name));
  // Through a temporary name, so that a process that has loaded the old addon keeps it intact.
  copyFileSync(library, `${addon}.new`);
  // A source that is edited during the build is newer than the addon, and makes it stale.
  utimesSync(`${addon}.new`, began, began);
  renameSync(`${addon}.new`, addon);
}

/** Plain cargo, but for what a release needs of another system's C library: that is Zig's. */
function howToBuild() {
  const musl = triple.endsWith('-linux-musl');
  if (!options.glibc && !musl) return { command: 'build', target: options.target ? ['--target', triple] : [] };
  const tools = installTools('zig');
  return {
    command: 'zigbuild',
    target: ['--target', musl ? triple : `${triple}.${options.glibc}`],
    env: {
      ...withTools(tools),
      CARGO_ZIGBUILD_ZIG_PATH: join(tools, 'ziglang', 'zig'),
      // On musl, Rust builds static programs by default, but an addon is a shared library.
      ...(musl && { RUSTFLAGS: '-C target-feature=-crt-static' }),
    },
  };
}

function run(command, args, env = process.env) {
  const { stdout, status, error } = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 30,
  });
  if (error?.code === 'ENOENT') {
    console.error(`There is no ${command}: the addon is written in Rust, and building it needs a Rust toolchain (https://rustup.rs).`);
    process.exit(1);
  }
  if (error) throw error;
  if (status !== 0) process.exit(1);
  return stdout;
}
