// The databases that this run tests on, and fresh empty ones on each of them.
//
// In a vitest run `global-setup.mjs` has looked for them once, and hands the list on in the environment. Elsewhere, in a script or a
// benchmark, importing this file looks for them.

import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { discover } from './discover.mjs';
import { connect, quote } from './raw.mjs';

const { found, missing: absent, run } = await list();

/** What was not found, and why. */
export const missing = absent;

/**
 * @typedef {object} TestDatabase A database of its own, empty at first.
 * @property {string} url What a store is given.
 * @property {string} dialect
 * @property {string} name
 * @property {(sql: string, params?: unknown[]) => Promise<Record<string, any>[]>} query SQL past the store: see `raw.mjs`.
 * @property {() => Promise<{ query: Function, end(): Promise<void> }>} connect One more such connection, for a transaction of the test's.
 * @property {(name: string) => string} q Quotes a name.
 * @property {() => Promise<void>} drop
 */

/**
 * One entry for each database found. `raw`: it can be read and written past the store. `shared`: more than one store, and more than one
 * process, can open it.
 *
 * @type {{ name: string, dialect: 'sqlite' | 'postgres' | 'mysql' | 'mariadb', version: string, serverUrl?: string, raw: boolean,
 *   shared: boolean, create(): Promise<TestDatabase> }[]}
 */
export const databases = found.map((entry) => {
  const outside = entry.name !== 'sqlite-memory';
  return { ...entry, raw: outside, shared: outside, create: () => create(entry) };
});

/** Drops what the run left behind, where a test or its process was ended before it could. */
export async function dropLeftovers() {
  await rm(folder(run), { recursive: true, force: true });
  for (const { dialect, serverUrl } of found.filter((entry) => entry.serverUrl)) {
    const catalog =
      dialect === 'postgres'
        ? 'select datname as "name" from pg_database'
        : 'select schema_name as "name" from information_schema.schemata';
    const server = await connect(dialect, serverUrl);
    for (const { name } of await server.query(catalog)) {
      if (name.startsWith(prefix(run))) await drop(server, dialect, name);
    }
    await server.end();
  }
}

async function list() {
  const { BATCHACTIONS_TEST_DATABASES: known } = process.env;
  if (known) return JSON.parse(known);
  const discovered = await discover();
  process.once('exit', () => rmSync(folder(discovered.run), { recursive: true, force: true }));
  return discovered;
}

function prefix(id) {
  return `batchactions_test_${id}_`;
}

function folder(id) {
  return join(tmpdir(), `batchactions-test-${id}`);
}

async function create({ name: entry, dialect, serverUrl }) {
  const name = prefix(run) + randomBytes(5).toString('hex');
  if (entry === 'sqlite-memory') {
    const refuse = async () => {
      throw new Error('sqlite-memory lives inside its store: there is no second connection to it');
    };
    return {
      url: 'sqlite::memory:',
      dialect,
      name,
      query: refuse,
      connect: refuse,
      q: (part) => quote(dialect, part),
      drop: async () => {},
    };
  }

  const { url, target, remove } = dialect === 'sqlite' ? await createFile(name) : await createOnServer(dialect, serverUrl, name);
  const open = [];
  const newConnection = async () => {
    const connection = await connect(dialect, target);
    open.push(connection);
    return connection;
  };
  let first;
  return {
    url,
    dialect,
    name,
    query: async (sql, params) => (await (first ??= newConnection())).query(sql, params),
    connect: newConnection,
    q: (part) => quote(dialect, part),
    async drop() {
      first = undefined;
      // A test may have ended its connection already.
      await Promise.allSettled(open.splice(0).map((connection) => connection.end()));
      await remove();
    },
  };
}

async function createFile(name) {
  await mkdir(folder(run), { recursive: true });
  const file = join(folder(run), `${name}.db`);
  const remove = () => Promise.all(['', '-wal', '-shm', '-journal'].map((suffix) => rm(file + suffix, { force: true })));
  return { url: `sqlite://${file}`, target: file, remove };
}

async function createOnServer(dialect, serverUrl, name) {
  const onServer = async (use) => {
    const server = await connect(dialect, serverUrl);
    await use(server).finally(() => server.end());
  };
  // `template0`: nobody is ever connected to it, so that databases can be made at the same time.
  const options = dialect === 'postgres' ? `template template0 encoding 'UTF8'` : 'character set utf8mb4';
  await onServer((server) => server.query(`create database ${quote(dialect, name)} ${options}`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, target: url.href, remove: () => onServer((server) => drop(server, dialect, name)) };
}

/** Drops a database, and ends the sessions in it first. */
export async function drop(server, dialect, name) {
  for (let tries = 1; ; tries++) {
    try {
      // PostgreSQL 12 knows no `with (force)`.
      if (dialect === 'postgres') await server.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = ?', [name]);
      return await server.query(`drop database if exists ${quote(dialect, name)}`);
    } catch (error) {
      // Another connection came in between; the server has waited for five seconds for it to end.
      if (error.code !== '55006' || tries === 10) throw error;
    }
  }
}
