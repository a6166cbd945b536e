// Checks the addon's dependencies and the origin of the tools.
//
//   npm run supply-chain
//
// - The lock files pin every package by its hash, and name no registry but crates.io.
// - ARCHITECTURE.md says how many crates there are, and names each direct one.
// - cargo-deny (deny.toml): licences, sources, bans, which crates run code when they are built; advisories, where its database can be fetched.
// - npm audit of the development tools, where the registry answers that. The package itself has no dependency.
//
// What could not be checked is named at the end. REQUIRE_ADVISORIES=1 makes that a failure.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installTools, withTools } from './tools.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Advisories on development tools that are accepted: by id (`GHSA-…`), with the reason. */
const acceptedAdvisories = {};

const unchecked = [];

try {
  checkCargoLock();
  checkNpmLock();
  checkArchitecture();
  checkCrates();
  checkTools();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
for (const line of unchecked) console.log(`  NOT CHECKED: ${line}`);
if (unchecked.length > 0 && process.env.REQUIRE_ADVISORIES) {
  console.error('REQUIRE_ADVISORIES is set, and not everything could be checked.');
  process.exit(1);
}

function checkCargoLock() {
  const crates = lockedCrates().filter(({ source }) => source !== undefined);
  for (const { name, source, checksum } of crates) {
    assert.equal(source, 'registry+https://github.com/rust-lang/crates.io-index', `Cargo.lock has ${name} from elsewhere than crates.io`);
    assert.match(checksum ?? '', /^[0-9a-f]{64}$/, `Cargo.lock has no checksum of ${name}`);
  }
  say(`Cargo.lock: ${crates.length} crates, all of crates.io, each with its checksum`);
}

function checkNpmLock() {
  for (const file of ['package-lock.json', 'scripts/tools/postgres/package-lock.json']) {
    const { packages } = JSON.parse(read(file));
    const locked = Object.entries(packages).filter(([path]) => path !== '');
    for (const [path, { resolved, integrity }] of locked) {
      // Which registry a package comes from is its user's setting (see .npmrc): its hash says that it is the right one.
      assert.equal(resolved, undefined, `${file} says where ${path} is from`);
      assert.match(integrity ?? '', /^sha512-/, `${file} has no hash of ${path}`);
    }
    say(`${file}: ${locked.length} packages, each with its hash`);
  }
}

function checkArchitecture() {
  const section = /^## Dependencies\n(.*?)(?=^## |(?![^]))/ms.exec(read('ARCHITECTURE.md'))?.[1] ?? '';
  const count = lockedCrates().length - 1;
  assert.ok(section.includes(`${count} crates`), `ARCHITECTURE.md must say under Dependencies that there are ${count} crates`);

  const { packages } = JSON.parse(run('cargo', ['metadata', '--format-version', '1', '--locked', '--no-deps']).stdout);
  const direct = packages.flatMap(({ dependencies }) => dependencies.map(({ name }) => name));
  const missing = direct.filter((name) => !section.includes(`\`${name}\``));
  assert.deepEqual(missing, [], 'ARCHITECTURE.md must say under Dependencies why these crates are there');
  say(`ARCHITECTURE.md: ${count} crates, and why the ${direct.length} direct ones are there`);
}

/** The packages of Cargo.lock, which is TOML of the simplest kind: this one first, for it has no source. */
function lockedCrates() {
  const value = (block, key) => new RegExp(`^${key} = "(.*)"$`, 'm').exec(block)?.[1];
  return read('Cargo.lock')
    .split('[[package]]')
    .slice(1)
    .map((block) => ({ name: value(block, 'name'), source: value(block, 'source'), checksum: value(block, 'checksum') }));
}

function checkCrates() {
  const env = withTools(installTools('cargo-deny'));
  const deny = (...checks) => run('cargo', ['deny', '--locked', 'check', '--hide-inclusion-graph', ...checks], { env });

  const { status, output } = deny('licenses', 'bans', 'sources');
  assert.equal(status, 0, output);
  say(`cargo-deny: ${output.trim()}`);

  const advisories = deny('advisories');
  if (advisories.status === 0) say(`cargo-deny: ${advisories.output.trim()}`);
  else if (/failed to fetch advisory database/.test(advisories.output)) {
    unchecked.push('advisories on crates: the database of RustSec could not be fetched');
  } else assert.fail(advisories.output);
}

function checkTools() {
  const { stdout, output } = run('npm', ['audit', '--json']);
  const { vulnerabilities, error, message } = json(stdout) ?? {};
  if (vulnerabilities === undefined) {
    unchecked.push(
      `advisories on npm packages: the registry does not audit (${(message ?? error?.summary ?? output).trim().split('\n')[0]})`,
    );
    return;
  }
  // A package that only depends on one with an advisory has that one's name there.
  const advisories = Object.values(vulnerabilities).flatMap(({ via }) => via.filter((cause) => typeof cause === 'object'));
  const ids = advisories.map(({ url }) => url.split('/').at(-1));
  const refused = advisories.filter((_, index) => !(ids[index] in acceptedAdvisories));
  assert.ok(refused.length === 0, `npm audit:\n${refused.map(({ name, title, url }) => `  ${name}: ${title} (${url})`).join('\n')}`);
  const unused = Object.keys(acceptedAdvisories).filter((id) => !ids.includes(id));
  assert.ok(unused.length === 0, `acceptedAdvisories has what no package has any more: ${unused.join(', ')}`);
  say(`npm audit: ${advisories.length} advisories on development tools, each accepted for a reason`);
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function run(command, args, { env = process.env } = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', env, maxBuffer: 1 << 28 });
  if (error) throw error;
  return { status, stdout, output: `${stdout}${stderr}` };
}

function read(name) {
  return readFileSync(join(root, name), 'utf8');
}

function say(line) {
  console.log(`  ${line}`);
}
