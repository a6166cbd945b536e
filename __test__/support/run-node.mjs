/** A Node process of its own, for what can only be seen from outside: that it ends by itself, and how. */
import { execFile } from 'node:child_process';

export const INDEX = new URL('../../index.js', import.meta.url);

/**
 * Runs the source of an ES module that finds the package's exports in scope. `code` is null where the process had to be killed.
 *
 * @returns {Promise<{ code: number | null, signal: string | null, stdout: string, stderr: string }>}
 */
export function runNode(source, { cwd, env = {}, timeout = 30_000 } = {}) {
  const module = `import { SqlxStateStore, StateStoreError } from ${JSON.stringify(INDEX.href)};\n${source}`;
  const options = { cwd, env: { ...process.env, ...env }, timeout, killSignal: 'SIGKILL' };
  return new Promise((resolve) => {
    execFile(process.execPath, ['--input-type=module', '--eval', module], options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      resolve({ code, signal: error?.signal ?? null, stdout, stderr });
    });
  });
}
