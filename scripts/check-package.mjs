// Packs the packages as for publishing, installs them in empty folders without a network, and uses them as a user would.
//
//   npm run check-package

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseTriple } from '@napi-rs/cli';
import { glibc } from './check-glibc.mjs';
import { platforms, thisPlatform } from './platforms.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = join(root, 'node_modules', '.bin');

// What the installed package is asked to do. Before it stands how the store is imported.
const runJob = `import('./smoke-job.mjs').then(async ({ smokeJob }) => {
  await smokeJob(SqlxStateStore, 'sqlite::memory:');
  await smokeJob(SqlxStateStore, \`sqlite:\${process.pid}.db\`);
  console.log('ok');
});`;

const types = `
import { SequelizeStateStore, SqlxStateStore, StateStoreError, type ClaimBatchResult, type SequelizeStateStoreOptions } from '@batchactions/state-sqlx';
const options: SequelizeStateStoreOptions = { leaseRenewal: { everyMs: 1_000, forMs: 60_000 } };
const store: SqlxStateStore = new SequelizeStateStore('sqlite::memory:', options);
export const claim: Promise<ClaimBatchResult> = store.claimBatch('job', 'worker');
export const isClosed = (error: unknown) => error instanceof StateStoreError && error.code === 'CLOSED';
`;

// What the installed dashboard is asked to do. Before it stands how it is imported.
const runPage = `import('node:http').then(async ({ createServer }) => {
  const store = new SqlxStateStore('sqlite::memory:');
  await store.initialize();
  const server = createServer(createDashboard(store, { actions: true, showRecords: true }));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  for (const [path, status] of [['', 200], ['job?id=a', 200], ['page.js', 200], ['style.css', 200], ['api/jobs', 200], ['api/job?id=a', 404], ['package.json', 404]]) {
    const answer = await fetch(\`http://127.0.0.1:\${port}/\${path}\`);
    if (answer.status !== status) throw new Error(\`\${path}: \${answer.status} \${await answer.text()}\`);
    await answer.arrayBuffer();
  }
  server.closeAllConnections();
  server.close();
  await store.close();
  console.log('ok');
});`;

const pageTypes = `
import { createServer } from 'node:http';
import { SqlxStateStore } from '@batchactions/state-sqlx';
import { createDashboard, type DashboardOptions } from '@batchactions/state-sqlx-dashboard';
const options: DashboardOptions = { authorize: async (request) => request.headers.cookie === 'x', redact: (record) => ({ ...record, raw: {} }) };
export const server = createServer(createDashboard(new SqlxStateStore('sqlite::memory:'), options));
`;

const work = realpathSync(mkdtempSync(join(tmpdir(), 'check-package-')));
try {
  check();
} finally {
  rmSync(work, { recursive: true, force: true });
}

function check() {
  const { main, platform } = pack();

  tool('publint', [main.tarball, '--strict']);
  tool('attw', [main.tarball, '--no-color', '--no-emoji']);
  say('publint and are-the-types-wrong find nothing');

  const user = install('user', [main.tarball, platform.tarball]);
  assert.deepEqual(installed(user), ['@batchactions/state-sqlx', platform.name], 'two packages are installed, and nothing else');
  run(user, 'job.cjs', `const { SqlxStateStore } = require('@batchactions/state-sqlx');\n${runJob}`);
  run(user, 'job.mjs', `import { SqlxStateStore } from '@batchactions/state-sqlx';\n${runJob}`);
  run(
    user,
    'names.mjs',
    `import { SqlxStateStore, SequelizeStateStore, StateStoreError } from '@batchactions/state-sqlx';
     import { createRequire } from 'node:module';
     const required = createRequire(import.meta.url)('@batchactions/state-sqlx');
     if (SequelizeStateStore !== SqlxStateStore || required.SqlxStateStore !== SqlxStateStore || required.StateStoreError !== StateStoreError) throw new Error('there is more than one class');
     console.log('ok');`,
  );
  for (const name of ['types.mts', 'types.cts']) compile(user, name, types);
  say('works from CommonJS and from ES modules, and its types from both');

  command(user);
  say('its command batchactions-sqlx makes the tables of a new SQLite file, lists its jobs, and is there by npx');

  const swapped = install('swapped', [`@batchactions/state-sequelize@file:${main.tarball}`, platform.tarball]);
  assert.deepEqual(installed(swapped), ['@batchactions/state-sequelize', platform.name]);
  run(swapped, 'job.mjs', `import { SequelizeStateStore as SqlxStateStore } from '@batchactions/state-sequelize';\n${runJob}`);
  say('works under the name @batchactions/state-sequelize, by an npm alias');

  const page = packDashboard();
  for (const [name, args] of [
    ['publint', [page.tarball, '--strict']],
    ['attw', [page.tarball, '--no-color', '--no-emoji']],
  ]) {
    tool(name, args);
  }
  const both = install('both', [main.tarball, platform.tarball, page.tarball]);
  assert.deepEqual(installed(both), ['@batchactions/state-sqlx', page.name, platform.name], 'the dashboard brings nothing else');
  const names = ['{ SqlxStateStore }', '{ createDashboard }'];
  const from = ['@batchactions/state-sqlx', page.name];
  run(both, 'page.cjs', `${names.map((name, i) => `const ${name} = require('${from[i]}');\n`).join('')}${runPage}`);
  run(both, 'page.mjs', `${names.map((name, i) => `import ${name} from '${from[i]}';\n`).join('')}${runPage}`);
  for (const name of ['page-types.mts', 'page-types.cts']) {
    compile(both, name, pageTypes, ['--typeRoots', join(root, 'node_modules', '@types'), '--types', 'node']);
  }
  say('the dashboard answers from CommonJS and from ES modules, and its types from both');

  const alone = install('alone', ['--omit=optional', main.tarball]);
  const { status, stderr } = node(alone, 'alone.mjs', `import '@batchactions/state-sqlx';`);
  assert.notEqual(status, 0);
  const message = stderr.split('\n').find((line) => line.startsWith('Error: '));
  assert.ok(
    message?.includes(platform.name) && message.includes('--include=optional'),
    `the error names the package and the remedy:\n${stderr}`,
  );
  say(`without its platform package it says:\n    ${message}`);
}

/** Packs copies, as a release does: `napi pre-publish` is what makes the platform packages optional dependencies. Here there is one of them. */
function pack() {
  const { files, napi: settings } = readJson(join(root, 'package.json'));
  const always = ['package.json', 'README.md', 'LICENSE'];
  const stage = join(work, 'stage');
  for (const name of [...always, ...files]) cpSync(join(root, name), join(stage, name), { recursive: true });

  napi(stage, ['create-npm-dirs']);
  checkPlatforms(stage);
  const folder = thisPlatform();
  const binary = `${settings.binaryName}.${folder}.node`;
  cpSync(join(root, binary), join(stage, 'npm', folder, binary));
  const manifest = readJson(join(stage, 'package.json'));
  manifest.napi.targets = settings.targets.filter((target) => parseTriple(target).platformArchABI === folder);
  writeFileSync(join(stage, 'package.json'), JSON.stringify(manifest));
  napi(stage, ['pre-publish', '--tag-style', 'npm', '--skip-optional-publish', '--no-gh-release']);

  const main = packOne(stage);
  const platform = packOne(join(stage, 'npm', folder));
  const { scripts, dependencies = {}, optionalDependencies, version } = readJson(join(stage, 'package.json'));
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare'])
    assert.equal(scripts[name], undefined, `there is no ${name} script`);
  assert.deepEqual(dependencies, {}, 'there is no dependency');
  assert.deepEqual(optionalDependencies, { [platform.name]: version });
  assert.equal(platform.version, version);

  const expected = [
    ...always,
    'index.js',
    'index.d.ts',
    ...filesIn('bin'),
    ...filesIn('cli'),
    ...filesIn('migrations'),
    ...filesIn('otel'),
  ];
  assert.deepEqual(main.files, expected.toSorted(), 'the package holds this, and nothing else');
  assert.deepEqual(platform.files, ['README.md', binary, 'package.json'].toSorted());

  say(`${main.name}: ${kilobytes(main.tarball)}, ${main.files.join(', ')}`);
  say(
    `${platform.name}: ${kilobytes(platform.tarball)}, its addon ${kilobytes(join(root, binary))}, for glibc ${glibc(join(root, binary))} or later`,
  );
  return { main, platform };
}

/** The files in a folder of the repository, by their paths in it. */
function filesIn(folder) {
  const entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => relative(root, join(entry.parentPath, entry.name)));
}

/** Packs the dashboard, which is a package of its own. */
function packDashboard() {
  const folder = join(root, 'dashboard');
  const manifest = readJson(join(folder, 'package.json'));
  const { version, engines, license } = readJson(join(root, 'package.json'));
  assert.deepEqual(
    { version: manifest.version, engines: manifest.engines, license: manifest.license, peers: manifest.peerDependencies },
    { version, engines, license, peers: { '@batchactions/state-sqlx': `^${version}` } },
    'the dashboard is of the version of the store',
  );
  for (const kind of ['dependencies', 'optionalDependencies', 'scripts']) assert.equal(manifest[kind], undefined, `it has no ${kind}`);
  const page = packOne(folder);
  const within = (name) => readdirSync(join(folder, name)).map((file) => `${name}/${file}`);
  const expected = ['LICENSE', 'README.md', 'package.json', 'index.js', 'index.d.ts', ...within('lib'), ...within('assets')];
  assert.deepEqual(page.files, expected.toSorted(), 'the package holds this, and nothing else');
  say(`${page.name}: ${kilobytes(page.tarball)}, ${page.files.join(', ')}`);
  return page;
}

/** Checks that each platform has a package, that npm installs it on that platform only, and that index.js looks for it. */
function checkPlatforms(stage) {
  const folders = readdirSync(join(stage, 'npm')).toSorted();
  assert.deepEqual(folders, Object.keys(platforms), 'there is a package for each platform');
  const source = readFileSync(join(root, 'index.js'), 'utf8');
  for (const folder of folders) {
    const { name, os, cpu, libc, engines, license, publishConfig } = readJson(join(stage, 'npm', folder, 'package.json'));
    assert.deepEqual({ libc: undefined, ...platforms[folder] }, { os, cpu, libc });
    assert.deepEqual(
      { engines, license, publishConfig },
      { engines: { node: '>= 20' }, license: 'MIT', publishConfig: { access: 'public' } },
    );
    assert.ok(source.includes(`case '${folder}':\n        return require('${name}');`), `index.js looks for ${name}`);
  }
  say(`${folders.length} platforms: ${folders.join(', ')}`);
}

/** Runs one of the tools that check a package as its users' tools would. */
function tool(name, args) {
  const { status, stdout, stderr } = spawnSync(join(bin, name), args, { cwd: work, encoding: 'utf8', env: environment() });
  assert.equal(status, 0, `${name}:\n${stdout}${stderr}`);
}

function napi(folder, args) {
  execFileSync(join(bin, 'napi'), args, { cwd: folder, stdio: 'pipe' });
}

function packOne(folder) {
  const [{ name, version, filename, files }] = JSON.parse(npm(folder, ['pack', '--json', '--ignore-scripts', '--pack-destination', work]));
  return { name, version, tarball: join(work, filename), files: files.map(({ path }) => path).toSorted() };
}

/** An empty project with these packages, in a folder of its own. */
function install(name, packages) {
  const folder = join(work, name);
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{ "private": true }');
  cpSync(join(root, 'scripts', 'smoke-job.mjs'), join(folder, 'smoke-job.mjs'));
  npm(folder, ['install', '--offline', '--no-audit', '--no-fund', ...packages]);
  return folder;
}

/** The packages in a project, under their installed names. */
function installed(folder) {
  const modules = join(folder, 'node_modules');
  return readdirSync(modules)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) => (name.startsWith('@') ? readdirSync(join(modules, name)).map((inner) => `${name}/${inner}`) : [name]))
    .toSorted();
}

function npm(folder, args) {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8', env: environment() });
  assert.equal(status, 0, `npm ${args.join(' ')} failed:\n${stdout}${stderr}`);
  return stdout;
}

/** Without what the npm that runs this script tells its scripts: it would change what the npm inside does. */
function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_PATH$)/i.test(name)));
}

function node(folder, name, source) {
  writeFileSync(join(folder, name), source);
  return spawnSync(process.execPath, [name], { cwd: folder, encoding: 'utf8', env: environment() });
}

function run(folder, name, source) {
  const { status, stdout, stderr } = node(folder, name, source);
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'ok\n', stderr: '' }, `${name}:\n${source}`);
}

function compile(folder, name, source, more = []) {
  writeFileSync(join(folder, name), source);
  const flags = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,esnext.disposable', ...more];
  // Not `.bin/tsc`, which may belong to the older TypeScript that is installed too.
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...flags, name], { cwd: folder, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** The command, as a user who installed the package has it. */
function command(folder) {
  const npx = (...words) => npm(folder, ['exec', '--offline', '--', 'batchactions-sqlx', ...words]);
  const { version } = readJson(join(root, 'package.json'));
  assert.equal(npx('--version'), `${version}\n`);
  npx('init', '--url', 'sqlite:command.db');
  assert.equal(npx('jobs', '--url', 'sqlite:command.db', '--json'), '[]\n');
  assert.match(npx('init', '--print', '--url', 'postgres://localhost/app'), /create table if not exists batchactions_records/);
}

function kilobytes(path) {
  return `${Math.round(statSync(path).size / 1000).toLocaleString('en-US')} kB`;
}

function say(line) {
  console.log(`  ${line}`);
}
