// Database servers that a test starts for itself, so that it may kill, restart and reconfigure them.
//
// They live in a temporary folder and on a free port of 127.0.0.1, and end with the process that started them at the latest.

import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'vitest';
import { meets, reasonOf } from './dialects/capabilities.mjs';
import { namedBy } from './discover.mjs';
import { deadPort } from './servers.mjs';

/** How long a server may take to start: after a crash it repairs itself first. */
const PATIENCE_MS = 60_000;

/** The programs that a dialect's server is started with; what is missing, where some are. */
function findServer({ name, ownServer }) {
  const { programs, folders, onPath = true } = ownServer;
  const places = [...(onPath ? (process.env.PATH ?? '').split(delimiter) : []), ...folders()];
  const found = {};
  for (const program of programs) {
    const place = places.find((folder) => folder && existsSync(join(folder, program)));
    if (!place) return { missing: `there is no ${program} ${onPath ? 'on this machine' : `of scripts/${name}`}` };
    found[program] = join(place, program);
  }
  return { programs: found };
}

/**
 * `test`, for what needs a server of the test's own of this dialect. Missing programs are said by name; where this database is required, the test
 * runs, and fails with what is missing. `needs`: a capability without which the dialect is exempt.
 */
export function onOwnServer(dialect, { needs, ...options } = {}) {
  const skip = (reason) => (name) => test.skip(`${name} [exempt, ${dialect.name}: ${reason}]`, () => {});
  if (needs && !meets(new Set(dialect.capabilities), needs)) return skip(reasonOf(needs));
  if (namedBy('TEST_DATABASES')?.includes(dialect.name) === false) return skip('TEST_DATABASES leaves it out');
  const { missing } = findServer(dialect);
  const mustRun = namedBy('REQUIRE_DATABASES')?.includes(dialect.name) && !dialect.ownServer.elsewhere;
  if (missing === undefined || mustRun) return (name, body) => test(name, options, body);
  return skip(missing);
}

/**
 * Starts a server of the test's own.
 * @param {object} dialect One of `serverDialects`.
 * @param {{ tls?: { ca: string, cert: string, key: string } }} [settings] `tls`: the certificates that it encrypts with, as PEM; without it, it
 *   offers no encryption.
 * @returns {Promise<{ url: string, setTls(tls: object): Promise<void>, stop(): Promise<void>, start(): Promise<void>, restart(downMs?: number): Promise<void>, crash(downMs?: number): Promise<void>,
 *   end(): Promise<void> }>} `restart` ends it in order (each time in the next of the ways that it has), `crash` kills its main process; both start it
 *   again after `downMs`, and resolve once it answers. `setTls` gives it other certificates as it runs.
 */
export async function startOwnServer(dialect, { tls } = {}) {
  const { user, url, make, start, orderly, reloadTls } = dialect.ownServer;
  const { programs, missing } = findServer(dialect);
  if (missing) throw new Error(missing);
  const folder = await mkdtemp(join(tmpdir(), `batchactions-own-${dialect.name}-`));
  const how = { cwd: folder, ...(await user()) };
  const data = join(folder, 'data');
  const pem = tls && { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  // Chosen once everything else is made, so that another process has little time to take it.
  let port;
  let address;
  let server;

  const isUp = () => server !== undefined && server.exitCode === null && server.signalCode === null;
  const last = () => {
    if (isUp()) server.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };

  async function up() {
    const deadline = Date.now() + PATIENCE_MS;
    let reason = 'it did not start';
    while (Date.now() < deadline) {
      if (!isUp()) {
        server = spawn(...start(programs, data, port, pem), { ...how, stdio: ['ignore', 'ignore', 'pipe'] });
        server.stderr.on('data', (text) => (reason = String(text).trim()));
        server.on('error', (error) => (reason = error.message));
      }
      try {
        const connection = await dialect.connect(address);
        await connection.query('select 1');
        await connection.end();
        return;
      } catch {
        // A server may end at once where processes of the one before it are not all gone: then it is started again.
        await sleep(100);
      }
    }
    throw new Error(`${dialect.name} does not start: ${reason}`);
  }

  async function down(signal) {
    if (!isUp()) return;
    const exited = new Promise((resolve) => server.once('exit', resolve));
    const own = children(server.pid);
    server.kill(signal);
    const inTime = new AbortController();
    await Promise.race([exited, sleep(PATIENCE_MS, undefined, { signal: inTime.signal }).catch(() => {})]);
    inTime.abort();
    // Where it does not end as it was told to.
    if (isUp()) server.kill('SIGKILL');
    await exited;
    await gone(own);
  }

  async function writePem(certificates) {
    for (const [part, file] of Object.entries(pem)) {
      await writeFile(file, certificates[part], { mode: 0o600 });
      if (how.uid !== undefined) await chown(file, how.uid, how.gid);
    }
  }

  let restarts = 0;
  const handle = {
    get url() {
      return address;
    },
    async setTls(certificates) {
      await writePem(certificates);
      const ask = async (sql) => {
        const connection = await dialect.connect(address);
        return connection.query(sql).finally(() => connection.end());
      };
      // MySQL takes a certificate that has expired only as it starts.
      await reloadTls(ask).catch(() => handle.restart());
    },
    async restart(downMs = 0) {
      await down(orderly[restarts++ % orderly.length]);
      await sleep(downMs);
      await up();
    },
    /** Ends it in order; `start` starts it again, with what it had. */
    stop: () => down(orderly[0]),
    start: up,
    async crash(downMs = 0) {
      await down('SIGKILL');
      await sleep(downMs);
      await up();
    },
    async end() {
      await down(orderly[0]);
      await rm(folder, { recursive: true, force: true });
      process.off('exit', last);
    },
  };
  process.once('exit', last);
  try {
    if (how.uid !== undefined) await chown(folder, how.uid, how.gid);
    if (tls) await writePem(tls);
    await make(programs, data, how);
    port = await deadPort();
    address = url(port);
    await up();
  } catch (error) {
    await handle.end();
    throw error;
  }
  return handle;
}

/** The processes that a process has started. */
function children(pid) {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** Waits until processes that lost their parent have ended, as PostgreSQL's do by themselves. */
async function gone(pids) {
  const alive = (pid) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };
  for (let tries = 0; tries < 200 && pids.some(alive); tries++) await sleep(50);
}
