// An object in a process of its own, whose methods are called by messages.
//
// What works on a SQLite file beside the store has to live in another process: the package sqlite3 brings a second copy of the SQLite library,
// and two copies in one process break each other's locks on a file and delete each other's logs (sqlite.org/howtocorrupt.html, 2.2.1).

import { fork } from 'node:child_process';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Starts a script that `serve`s an object, which it makes with `args`. Arguments and results are copied; a method's error comes back as an
 * Error with the same name, message and code.
 *
 * The process ends with `end()`, and with the one that started it, which it keeps alive only while a call is under way.
 *
 * @returns {Promise<{ call(method: string, ...args: unknown[]): Promise<any>, end(): Promise<void> }>}
 */
export async function startRemote(script, ...args) {
  const file = fileURLToPath(script);
  const child = fork(file, [], { execArgv: [], serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const calls = new Map();
  let sequence = 0;

  const settle = (id, act) => {
    const call = calls.get(id);
    calls.delete(id);
    if (calls.size === 0) {
      child.unref();
      child.channel?.unref();
    }
    if (call) act(call);
  };
  child.on('message', ({ id, value, error }) => {
    settle(id, ({ resolve, reject, trace }) => {
      if (error) reject(Object.assign(trace, error, { stack: trace.stack.replace('Error', () => `${error.name}: ${error.message}`) }));
      else resolve(value);
    });
  });
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      for (const id of calls.keys()) settle(id, ({ reject }) => reject(new Error(`${basename(file)} ended with ${code ?? signal}`)));
      resolve();
    });
  });
  child.on('error', () => {});

  const call = (method, ...values) => {
    // Made here, so that an error says who asked.
    const trace = new Error();
    return new Promise((resolve, reject) => {
      const id = ++sequence;
      calls.set(id, { resolve, reject, trace });
      child.ref();
      child.channel?.ref();
      child.send({ id, method, args: values }, (error) => error && settle(id, () => reject(error)));
    });
  };
  const end = async () => {
    if (child.connected) child.disconnect();
    child.ref();
    await exited;
  };

  try {
    await call('', ...args);
  } catch (error) {
    await end();
    throw error;
  }
  return { call, end };
}

/** The other side: `make` gives the object, or a promise of it. */
export function serve(make) {
  let object;
  process.on('message', async ({ id, method, args }) => {
    const answer = { id };
    try {
      if (method) answer.value = await object[method](...args);
      else object = await make(...args);
    } catch ({ name, message, code }) {
      answer.error = { name, message, code };
    }
    // The process that asked may be gone.
    if (process.connected) process.send(answer, () => {});
  });
  process.once('disconnect', () => process.exit());
}
