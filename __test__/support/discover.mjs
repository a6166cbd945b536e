// Finds the databases to test on, and starts what is missing and can be started.
//
// For each server, in this order: the URL in its environment variable (which is then the only place that is looked at), a server on
// its usual port of this machine, and last one that is started for the run. TEST_DATABASES leaves all others out. Where TEST_SERVERS names servers,
// by their URLs with spaces between them, the tests run on those and on nothing else.

import { randomBytes } from 'node:crypto';
import { dialects } from './dialects/index.mjs';
import { unsetPostgresVariables } from './environment.mjs';

// Each process of a test run imports this file before it connects anywhere.
unsetPostgresVariables();

/** Every database that the tests know, in the order in which they are reported. */
export const names = dialects.flatMap(({ name, places }) => (places ? Object.keys(places) : [name]));

/**
 * The databases that an environment variable names, with commas between them; undefined where it names none. A dialect's name stands for all its
 * databases: `sqlite` is `sqlite-file` and `sqlite-memory`.
 */
export function namedBy(variable) {
  const given = (process.env[variable] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean);
  if (given.length === 0) return undefined;
  const groups = new Map(dialects.filter(({ places }) => places).map(({ name, places }) => [name, Object.keys(places)]));
  const named = given.flatMap((name) => groups.get(name) ?? [name]);
  const unknown = named.filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    throw new Error(`${variable} names what no test knows: ${unknown.join(', ')}. Known: ${[...groups.keys(), ...names].join(', ')}`);
  }
  return named;
}

/**
 * @returns {Promise<{
 *   found: { name: string, dialect: string, version: string, serverUrl?: string }[],
 *   missing: { name: string, reason: string }[],
 *   leftOut: string[],
 *   run: string,
 *   stop(): Promise<void>,
 * }>} `dialect` is a dialect's name. `leftOut` is what TEST_DATABASES leaves out. `run` goes into the names of the run's databases, so that runs
 *   beside each other do not drop each other's. `stop` ends the servers that this call started, and no other.
 */
export async function discover() {
  const result = { found: [], missing: [], leftOut: [], run: randomBytes(4).toString('hex') };
  const started = [];
  result.stop = async () => {
    for (const stop of started.splice(0)) await stop();
  };

  const servers = (process.env.TEST_SERVERS ?? '').split(/\s+/).filter(Boolean);
  if (servers.length > 0) {
    result.found = await listServers(servers);
    return result;
  }

  const wanted = namedBy('TEST_DATABASES') ?? names;
  result.leftOut = names.filter((name) => !wanted.includes(name));
  for (const dialect of dialects) {
    const places = (dialect.places ? Object.keys(dialect.places) : [dialect.name]).filter((name) => wanted.includes(name));
    if (places.length === 0) continue;
    const { found = [], reason } = dialect.places ? await findLocal(dialect, places) : await findServer(dialect, started);
    result.found.push(...found);
    if (reason) result.missing.push(...places.map((name) => ({ name, reason })));
  }
  return result;
}

/** The named servers, each of which has to be there. Their names have their versions, so that there may be several of a kind. */
async function listServers(urls) {
  const found = [];
  for (const serverUrl of urls) {
    const scheme = new URL(serverUrl).protocol.slice(0, -1);
    const dialect = dialects.find(({ schemes }) => schemes.includes(scheme));
    const server = await identify(dialect, serverUrl).catch((error) => {
      throw new Error(`TEST_SERVERS: ${hostOf(serverUrl)} is not there: ${firstLine(error)}`, { cause: error });
    });
    found.push({ name: `${server.dialect} ${server.version}`, serverUrl, ...server });
  }
  return found;
}

/** The databases of a dialect that needs no server. */
async function findLocal(dialect, places) {
  try {
    const connection = await dialect.connect(':memory:');
    const [{ version }] = await connection.query('select sqlite_version() as "version"');
    await connection.end();
    const label = { 'sqlite-file': `in the store; read through SQLite ${version}` };
    return { found: places.map((name) => ({ name, dialect: dialect.name, version: label[name] ?? 'in the store' })) };
  } catch (error) {
    return { reason: `the package sqlite3 does not load: ${firstLine(error)}` };
  }
}

/** A dialect's server: where its environment variable says, at the usual places, or started for this run. */
async function findServer(dialect, started) {
  const given = process.env[`TEST_${dialect.name.toUpperCase()}_URL`];
  const { found, reason } = await probe(dialect, given ? [given] : dialect.usualUrls);
  if (found || given || !dialect.start) return { found, reason };
  try {
    const { url, stop } = await dialect.start();
    started.push(stop);
    return await probe(dialect, [url]);
  } catch (error) {
    return { reason: `${reason}; ${firstLine(error)}` };
  }
}

/** Looks for the dialect's server at each of the URLs. */
async function probe(dialect, urls) {
  const reasons = [];
  for (const serverUrl of urls) {
    try {
      const server = await identify(dialect, serverUrl);
      if (server.dialect === dialect.name) return { found: [{ name: dialect.name, serverUrl, ...server }] };
      reasons.push(`${hostOf(serverUrl)} is ${server.dialect} ${server.version}`);
    } catch (error) {
      reasons.push(`${hostOf(serverUrl)}: ${firstLine(error)}`);
    }
  }
  return { reason: reasons.join('; ') };
}

/** Which server answers at a URL. */
async function identify(dialect, url) {
  const connection = await dialect.connect(url);
  return dialect.identify(connection).finally(() => connection.end());
}

function hostOf(url) {
  return new URL(url).host;
}

function firstLine(error) {
  const text = error?.message || error?.code || String(error);
  return text.split('\n')[0];
}
