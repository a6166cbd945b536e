// Which binary is loaded on which platform, and the error where there is none. A process can't change its machine, so these tests fake the platform.

import { execFile } from 'node:child_process';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { platforms, thisPlatform } from '../scripts/platforms.mjs';
import { BINARY, installBinary, installedFolder } from './support/installed.mjs';

/** Loads the package in a process that believes to be on this machine, and says what came of it. */
function load(folder, { os, cpu, libc }) {
  writeFileSync(
    join(folder, 'machine.cjs'),
    `Object.defineProperty(process, 'platform', { value: ${JSON.stringify(os)} });
     Object.defineProperty(process, 'arch', { value: ${JSON.stringify(cpu)} });
     process.report.getReport = () => ({ header: ${libc === 'glibc' ? `{ glibcVersionRuntime: '2.31' }` : '{}'} });`,
  );
  writeFileSync(
    join(folder, 'load.cjs'),
    `try {
       const { SqlxStateStore } = require('@batchactions/state-sqlx');
       import('./smoke-job.mjs').then(({ smokeJob }) => smokeJob(SqlxStateStore, 'sqlite::memory:')).then(() => console.log('works'));
     } catch (error) {
       if (error.code !== 'BINARY_UNAVAILABLE') throw error;
       console.log(error.message);
       console.log(error.cause ? 'with its cause' : 'without a cause');
     }`,
  );
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ['--require', './machine.cjs', 'load.cjs'], { cwd: folder, timeout: 120_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stderr}`, { cause: error }));
      else resolve(stdout.trim().split('\n'));
    });
  });
}

const machines = Object.entries(platforms).map(([name, { os, cpu, libc }]) => [name, { os: os[0], cpu: cpu[0], libc: libc?.[0] }]);

describe.each(machines)('on %s', (name, machine) => {
  test('its binary is loaded, though others are there', async () => {
    const folder = installedFolder();
    for (const [other] of machines) installBinary(folder, other, `throw new Error('the binary of ${other} was loaded');`);
    expect(await load(folder, machine)).toEqual([
      `@batchactions/state-sqlx can't be used on ${machine.os} ${machine.cpu}${machine.libc ? `, ${machine.libc}` : ''}: ` +
        `the binary for ${name} does not load: the binary of ${name} was loaded`,
      'with its cause',
    ]);
  });

  test('without it, the error names the package and what to do', async () => {
    const [message, cause] = await load(installedFolder(), machine);
    expect(message).toContain(`can't be used on ${machine.os} ${machine.cpu}`);
    expect(message).toContain(`the package @batchactions/state-sqlx-${name} is not installed`);
    expect(message).toContain('npm install --include=optional');
    expect(message).toContain('npm run build');
    expect(cause).toBe('with its cause');
  });
});

test("this machine's binary works from its package", async () => {
  const folder = installedFolder();
  const name = thisPlatform();
  installBinary(folder, name);
  const [, machine] = machines.find(([known]) => known === name);
  expect(await load(folder, machine)).toEqual(['works']);
});

test.each([
  ['freebsd x64', { os: 'freebsd', cpu: 'x64' }],
  ['linux arm, glibc', { os: 'linux', cpu: 'arm', libc: 'glibc' }],
  ['linux riscv64, musl', { os: 'linux', cpu: 'riscv64', libc: 'musl' }],
  ['win32 ia32', { os: 'win32', cpu: 'ia32' }],
])('on %s, for which there is no binary, the error says so and where there are some', async (name, machine) => {
  const [message, cause] = await load(installedFolder(), machine);
  expect(cause).toBe('without a cause');
  expect(message).toContain(`can't be used on ${name}: there is no binary for this platform`);
  expect(message).toContain('Linux (glibc and musl), macOS and Windows, each on x64 and arm64');
  expect(message).toContain('npm run build');
});

test('a local build that does not load is reported too', async () => {
  const folder = installedFolder();
  const name = thisPlatform();
  writeFileSync(join(folder, 'node_modules', '@batchactions', 'state-sqlx', `state-sqlx.${name}.node`), 'no binary');
  const [, machine] = machines.find(([known]) => known === name);
  const [message, cause] = await load(folder, machine);
  expect(message).toContain(`the binary for ${name} does not load: `);
  expect(cause).toBe('with its cause');
});

test('a binary that needs a newer C library is reported as such, and not as missing', async () => {
  const folder = installedFolder();
  installBinary(
    folder,
    'linux-x64-gnu',
    'throw new Error("/lib64/libc.so.6: version `GLIBC_2.17\' not found (required by state-sqlx.node)");',
  );
  const [message] = await load(folder, { os: 'linux', cpu: 'x64', libc: 'glibc' });
  expect(message).toContain("version `GLIBC_2.17' not found");
  expect(message).toContain("This system's C library is older than the binary takes");
  expect(message).not.toContain('is not installed');
});

describe('a binary beside index.js', () => {
  const name = thisPlatform();
  const [, machine] = machines.find(([known]) => known === name);
  const beside = (folder, text) => {
    const local = join(folder, 'node_modules', '@batchactions', 'state-sqlx', `state-sqlx.${name}.node`);
    if (text === undefined) copyFileSync(BINARY, local);
    else writeFileSync(local, text);
  };

  test('is loaded where no package of the platform is installed, as in a clone of the repository', async () => {
    const folder = installedFolder();
    beside(folder);
    expect(await load(folder, machine)).toEqual(['works']);
  });

  test('is not looked at where the package is', async () => {
    const folder = installedFolder();
    installBinary(folder, name);
    beside(folder, 'no binary');
    expect(await load(folder, machine)).toEqual(['works']);
  });

  test('does not stand in for a package that does not load', async () => {
    const folder = installedFolder();
    installBinary(folder, name, 'throw new Error("broken");');
    beside(folder);
    const [message] = await load(folder, machine);
    expect(message).toContain(`the binary for ${name} does not load: broken`);
  });
});

// As in Deno without all permissions, and in runtimes that have none.
test.each([
  ['that throws', `{ get excludeNetwork() { throw new Error('no permission'); } }`],
  ['whose getReport throws', `{ getReport() { throw new Error('no permission'); } }`],
  ['that is missing', 'undefined'],
])('a process.report %s does not end the loading', async (_, report) => {
  const folder = installedFolder();
  installBinary(folder, thisPlatform());
  writeFileSync(join(folder, 'report.cjs'), `Object.defineProperty(process, 'report', { value: ${report} });`);
  writeFileSync(join(folder, 'load.cjs'), `require('@batchactions/state-sqlx'); console.log('works');`);
  const { stdout } = await promisify(execFile)(process.execPath, ['--require', './report.cjs', 'load.cjs'], { cwd: folder });
  expect(stdout).toBe('works\n');
});

const permission = Number(process.versions.node.split('.')[0]) < 23 ? '--experimental-permission' : '--permission';
test.each([
  [`${permission} without --allow-addons`, [permission, '--allow-fs-read=*'], '--allow-addons'],
  ['--no-addons', ['--no-addons'], 'without --no-addons'],
])('where Node runs with %s, the error names the flag', async (_, flags, remedy) => {
  const folder = installedFolder();
  installBinary(folder, thisPlatform());
  const source = `try { require('@batchactions/state-sqlx'); } catch (error) { console.log(error.code, error.message); }`;
  writeFileSync(join(folder, 'load.cjs'), source);
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, 'load.cjs'], { cwd: folder });
  expect(stdout).toContain('BINARY_UNAVAILABLE');
  expect(stdout).toContain(remedy);
});

test('where Node runs with permissions that suffice, it works', async () => {
  const folder = installedFolder();
  installBinary(folder, thisPlatform());
  writeFileSync(join(folder, 'load.cjs'), `require('@batchactions/state-sqlx'); console.log('works');`);
  const flags = [permission, '--allow-fs-read=*', '--allow-addons'];
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, 'load.cjs'], { cwd: folder });
  expect(stdout).toBe('works\n');
});
