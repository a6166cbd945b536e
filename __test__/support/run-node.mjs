/** Runs Node in another process, for what can only be seen from outside: that it exits, and how. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const INDEX = new URL('../../index.js', import.meta.url);

/**
 * Runs the source of an ES module that finds the package's exports in scope. `code` is null where the process had to be killed.
 *
 * @returns {Promise<{ code: number | null, signal: string | null, stdout: string, stderr: string }>}
 */
export function runNode(source, options) {
  const module = `import { SqlxStateStore, StateStoreError } from ${JSON.stringify(INDEX.href)};\n${source}`;
  return run(['--input-type=module', '--eval', module], options);
}

/** Runs a file, which finds `argument` in `process.argv[2]` as JSON, and may call `gc()`. */
export function runFile(file, argument, options) {
  return run(['--expose-gc', fileURLToPath(file), JSON.stringify(argument)], options);
}

function run(args, { cwd, env = {}, timeout = 170_000 } = {}) {
  const options = { cwd, env: { ...process.env, ...env }, timeout, killSignal: 'SIGKILL' };
  return new Promise((resolve) => {
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0;
      resolve({ code, signal: error?.signal ?? null, stdout, stderr });
    });
  });
}
