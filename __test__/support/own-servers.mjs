// Database servers that a test starts for itself, to do to them what may be done to no other: end them in the middle, and start them again.
//
// They live in a temporary folder and on a free port of 127.0.0.1, and end with the process that started them at the latest.

import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir, userInfo } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'vitest';
import { plainUser } from './postgres-package.mjs';
import { connect } from './raw.mjs';
import { deadPort } from './servers.mjs';

const run = promisify(execFile);
const mysqlScript = fileURLToPath(new URL('../../scripts/mysql', import.meta.url));

/** How long a server may take to start: after a crash it repairs itself first. */
const PATIENCE_MS = 60_000;

const KINDS = {
  postgres: {
    programs: ['postgres', 'initdb'],
    folders: postgresFolders,
    user: plainUser,
    url: (port) => `postgres://postgres@127.0.0.1:${port}/postgres`,
    async make({ initdb }, data, how) {
      await run(initdb, ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], how);
      // The tests' own user comes in as he is; `certified` by a certificate with that name; others by
      // their password (md5 stands for SCRAM too, where that is how it is kept).
      const rules = ['host all postgres 127.0.0.1/32 trust', 'hostssl all certified 127.0.0.1/32 cert', 'host all all 127.0.0.1/32 md5'];
      await writeFile(join(data, 'pg_hba.conf'), `${rules.join('\n')}\n`);
    },
    // Nothing is lost where only processes end: what is written is in the system's hands.
    start: ({ postgres }, data, port, tls) => {
      const settings = ['fsync=off', 'max_connections=100', 'unix_socket_directories=', 'listen_addresses=127.0.0.1', `port=${port}`];
      if (tls) settings.push('ssl=on', `ssl_ca_file=${tls.ca}`, `ssl_cert_file=${tls.cert}`, `ssl_key_file=${tls.key}`);
      return [postgres, ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]];
    },
    // A process that starts after the settings were read again says so, and has the certificates too.
    async reloadTls(ask) {
      const read = async () => (await ask('select pg_conf_load_time()::text as "at"'))[0].at;
      const before = await read();
      await ask('select pg_reload_conf()');
      while ((await read()) === before) await sleep(20);
    },
    // Fast: it ends connections, rolls back what is open, and writes all out. Immediate: it ends, and repairs itself as it starts.
    orderly: ['SIGINT', 'SIGQUIT'],
  },
  mariadb: {
    programs: ['mariadbd', 'mariadb-install-db'],
    folders: () => ['/usr/sbin', '/usr/bin', '/usr/local/sbin', '/usr/local/bin', '/opt/homebrew/bin'],
    user: async () => ({}),
    url: (port) => `mysql://root@127.0.0.1:${port}/mysql`,
    async make({ 'mariadb-install-db': install }, data, how) {
      const flags = ['--no-defaults', `--datadir=${data}`, `--user=${userInfo().username}`];
      await run(install, [...flags, '--auth-root-authentication-method=normal', '--skip-test-db'], how);
    },
    start: ({ mariadbd }, data, port, tls) => [
      mariadbd,
      [
        '--no-defaults',
        `--datadir=${data}`,
        // As it starts, a server deletes the temporary tables in that folder, those of other servers too.
        `--tmpdir=${data}`,
        `--user=${userInfo().username}`,
        `--socket=${data}.sock`,
        `--pid-file=${data}.pid`,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        '--innodb-buffer-pool-size=32M',
        '--skip-log-bin',
        // With it on, the server tells which connections are encrypted.
        ...(tls ? ['--performance-schema=ON', `--ssl-ca=${tls.ca}`, `--ssl-cert=${tls.cert}`, `--ssl-key=${tls.key}`] : []),
      ],
    ],
    reloadTls: (ask) => ask('flush ssl'),
    orderly: ['SIGTERM'],
  },
  mysql: {
    // `scripts/mysql` runs it: what other packages call mysqld may be MariaDB.
    programs: ['mysqld'],
    folders: () => [
      join(process.env.MYSQL_TEST_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'mysql-test'), 'root/usr/sbin'),
    ],
    onPath: false,
    // A run may be required to have a MySQL, and have one that was started elsewhere.
    elsewhere: true,
    user: async () => ({}),
    url: (port) => `mysql://root@127.0.0.1:${port}/mysql`,
    async make(_, data, how) {
      await run(mysqlScript, ['mysqld', `--datadir=${data}`, '--initialize-insecure'], how);
    },
    start: (_, data, port, tls) => [
      mysqlScript,
      [
        'mysqld',
        `--datadir=${data}`,
        `--socket=${data}.sock`,
        `--pid-file=${data}.pid`,
        `--port=${port}`,
        '--bind-address=127.0.0.1',
        '--mysqlx=OFF',
        '--innodb-buffer-pool-size=32M',
        '--skip-log-bin',
        // It would make certificates of its own.
        ...(tls ? [`--ssl-ca=${tls.ca}`, `--ssl-cert=${tls.cert}`, `--ssl-key=${tls.key}`] : ['--tls-version=']),
      ],
    ],
    reloadTls: (ask) => ask('alter instance reload tls'),
    orderly: ['SIGTERM'],
  },
};

/** The programs that a server of this kind is started with; what is missing, where some are. */
function findServer(kind) {
  const { programs, folders, onPath = true } = KINDS[kind];
  const places = [...(onPath ? (process.env.PATH ?? '').split(delimiter) : []), ...folders()];
  const found = {};
  for (const program of programs) {
    const place = places.find((folder) => folder && existsSync(join(folder, program)));
    if (!place) return { missing: `there is no ${program} ${onPath ? 'on this machine' : `of scripts/${kind}`}` };
    found[program] = join(place, program);
  }
  return { programs: found };
}

/**
 * `test`, for what needs a server of the test's own of this kind. Missing programs are said by name; where this database is required, the test
 * runs, and fails with what is missing.
 */
export function onOwnServer(kind, options = {}) {
  const { missing } = findServer(kind);
  const required = (process.env.REQUIRE_DATABASES ?? '').split(',').map((name) => name.trim());
  const mustRun = required.includes(kind) && !KINDS[kind].elsewhere;
  if (missing === undefined || mustRun) return (name, body) => test(name, options, body);
  return (name) => test.skip(`${name} [exempt, ${kind}: ${missing}]`, () => {});
}

/** PostgreSQL keeps its servers away from the path, each version in a folder of its own. */
function postgresFolders() {
  const folders = [];
  try {
    folders.push(execFileSync('pg_config', ['--bindir'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim());
  } catch {
    // It belongs to another package than the server.
  }
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  return [...folders, ...versions.map((version) => join(base, version, 'bin'))];
}

/**
 * Starts a server of the test's own.
 * @param {'postgres' | 'mariadb' | 'mysql'} kind
 * @param {{ tls?: { ca: string, cert: string, key: string } }} [settings] `tls`: the certificates that it encrypts with, as PEM; without it, it
 *   offers no encryption.
 * @returns {Promise<{ url: string, setTls(tls: object): Promise<void>, stop(): Promise<void>, start(): Promise<void>, restart(downMs?: number): Promise<void>, crash(downMs?: number): Promise<void>,
 *   end(): Promise<void> }>} `restart` ends it in order (each time in the next of the ways that it has), `crash` kills its main process; both start it
 *   again after `downMs`, and resolve once it answers. `setTls` gives it other certificates as it runs.
 */
export async function startOwnServer(kind, { tls } = {}) {
  const { user, url, make, start, orderly, reloadTls } = KINDS[kind];
  const { programs, missing } = findServer(kind);
  if (missing) throw new Error(missing);
  const folder = await mkdtemp(join(tmpdir(), `batchactions-own-${kind}-`));
  const how = { cwd: folder, ...(await user()) };
  const data = join(folder, 'data');
  const pem = tls && { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  // Found once everything else is made, lest somebody else listens there by then.
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
        const connection = await connect(kind, address);
        await connection.query('select 1');
        await connection.end();
        return;
      } catch {
        // A server may end at once where processes of the one before it are not all gone: then it is started again.
        await sleep(100);
      }
    }
    throw new Error(`${kind} does not start: ${reason}`);
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
        const connection = await connect(kind, address);
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
