// Which binary is loaded where, and what is said where there is none. A process can't change its machine, so these tell it that it is on another one.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { platforms, thisPlatform } from '../scripts/platforms.mjs';
import { installBinary, installedFolder } from './support/installed.mjs';

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

test('a local build that does not load is told too', async () => {
  const folder = installedFolder();
  const name = thisPlatform();
  writeFileSync(join(folder, 'node_modules', '@batchactions', 'state-sqlx', `state-sqlx.${name}.node`), 'no binary');
  const [, machine] = machines.find(([known]) => known === name);
  const [message, cause] = await load(folder, machine);
  expect(message).toContain(`the binary for ${name} does not load: `);
  expect(cause).toBe('with its cause');
});

test('a binary that wants a newer C library is told from one that is missing', async () => {
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
