/** The store under Jest: several test files in one process, each in a realm of its own, with and without Jest's fake timers. */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const jest = join(dirname(createRequire(import.meta.url).resolve('jest/package.json')), 'bin', 'jest.js');

test('two test files in one process', async () => {
  const rootDir = fileURLToPath(new URL('jest', import.meta.url));
  const config = JSON.stringify({ rootDir, testMatch: ['**/*.jest.cjs'], transform: {}, testEnvironment: 'node', cache: false });
  const args = [jest, '--runInBand', '--ci', '--json', '--config', config];
  const { stdout, stderr } = await new Promise((resolve) => {
    execFile(process.execPath, args, { timeout: 120_000, maxBuffer: 1 << 26 }, (_, out, err) => resolve({ stdout: out, stderr: err }));
  });
  const { numPassedTests, numFailedTests, numTotalTests } = JSON.parse(stdout);
  expect({ numPassedTests, numFailedTests, numTotalTests }, stderr).toEqual({ numPassedTests: 6, numFailedTests: 0, numTotalTests: 6 });
});
