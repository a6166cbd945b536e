/** `ports.ts` compiles against the declarations that the package ships. */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');

it('the declarations fit the ports of the core, and have each value type in full', async () => {
  const output = await new Promise((resolve) => {
    const folder = dirname(fileURLToPath(import.meta.url));
    execFile(process.execPath, [tsc, '--noEmit', '--project', folder], (error, stdout, stderr) =>
      resolve(error ? stdout + stderr : 'no errors'),
    );
  });
  expect(output).toBe('no errors');
});
