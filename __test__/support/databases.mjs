// The databases that this run tests on, and empty ones of a test's own on each of them.
//
// In a vitest run `global-setup.mjs` has looked for them once, and hands the list on in the environment. Elsewhere, in a script or a
// benchmark, importing this file looks for them.

import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { meets } from './dialects/capabilities.mjs';
import { dialectNamed } from './dialects/index.mjs';
import { discover } from './discover.mjs';

const { found, missing: absent, run } = await list();

/** What was not found, and why. */
export const missing = absent;

/**
 * @typedef {object} TestDatabase A database of its own, empty at first.
 * @property {string} url What a store is given.
 * @property {object} dialect See `dialects/index.mjs`.
 * @property {string} name
 * @property {(sql: string, params?: unknown[]) => Promise<Record<string, any>[]>} query SQL past the store. It is written one way for all: `"name"`
 *   quotes a name, `?` stands for a parameter. JSON columns come back as the text that is stored, bigints as numbers.
 * @property {() => Promise<{ query: Function, end(): Promise<void> }>} connect One more such connection, for a transaction of the test's.
 * @property {(name: string) => string} q Quotes a name.
 * @property {() => Promise<void>} drop
 */

/**
 * One entry for each database found.
 *
 * @type {{ name: string, dialect: object, version: string, serverUrl?: string, has(capability: string): boolean, create(): Promise<TestDatabase> }[]}
 */
export const databases = found.map(({ dialect: dialectName, ...entry }) => {
  const dialect = dialectNamed(dialectName);
  const capabilities = new Set([...dialect.capabilities, ...(dialect.places?.[entry.name] ?? ['raw', 'shared'])]);
  const database = { ...entry, dialect, has: (capability) => meets(capabilities, capability) };
  return { ...database, create: () => create(database) };
});

/** Those that have all of these capabilities. */
export function databasesWith(...capabilities) {
  return databases.filter((database) => capabilities.every((capability) => database.has(capability)));
}

/** Drops what the run left behind, where a test or its process was ended before it could. */
export async function dropLeftovers() {
  await rm(folder(run), { recursive: true, force: true });
  for (const { dialect, serverUrl } of databasesWith('server')) {
    const server = await dialect.connect(serverUrl);
    for (const { name } of await server.query(dialect.databaseNames)) {
      if (name.startsWith(prefix(run))) await dialect.dropDatabase(server, name);
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

async function create({ name: entry, dialect, serverUrl, has }) {
  const name = prefix(run) + randomBytes(5).toString('hex');
  const q = (part) => dialect.quote(part);
  if (has('memory')) {
    const refuse = async () => {
      throw new Error(`${entry} lives inside its store: there is no second connection to it`);
    };
    return { url: 'sqlite::memory:', dialect, name, query: refuse, connect: refuse, q, drop: async () => {} };
  }

  const { url, target, remove } = has('file') ? await createFile(name) : await createOnServer(dialect, serverUrl, name);
  const open = [];
  const newConnection = async () => {
    const connection = await dialect.connect(target);
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
    q,
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
    const server = await dialect.connect(serverUrl);
    await use(server).finally(() => server.end());
  };
  await onServer((server) => dialect.createDatabase(server, name));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, target: url.href, remove: () => onServer((server) => dialect.dropDatabase(server, name)) };
}
