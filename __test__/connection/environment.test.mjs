// libpq's environment variables, against servers of the test's own: obeyed, or told of, and never dropped.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect } from 'vitest';
import { postgres } from '../support/dialects/postgres.mjs';
import { createAuthority } from '../support/certificates.mjs';
import { createOwnDatabase, DATABASE } from '../support/own-accounts.mjs';
import { onOwnServer, startOwnServer } from '../support/own-servers.mjs';
import { INDEX, runNode } from '../support/run-node.mjs';

const USER = 'reader';
const PASSWORD = 'c0rrect:horse\\battery';
const onThisServer = onOwnServer(postgres);

const authority = createAuthority('An authority of the tests');
const folder = mkdtempSync(join(tmpdir(), 'batchactions-environment-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fileOf(name, text, mode = 0o600) {
  const file = join(folder, name);
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}
const caFile = fileOf('ca.pem', authority.ca);

describe('the environment of PostgreSQL', () => {
  const started = {};
  afterAll(async () => {
    for (const each of Object.values(started)) await (await each.catch(() => undefined))?.own.end();
  });

  /** The server with encryption, or the one without, started once. */
  function server(which) {
    started[which] ??= (async () => {
      const own = await startOwnServer(postgres, which === 'tls' ? { tls: authority.issue({ hosts: ['localhost', '127.0.0.1'] }) } : {});
      const database = await createOwnDatabase(postgres, own.url);
      await database.createUser(USER, PASSWORD);
      return { own, database, port: new URL(own.url).port };
    })();
    return started[which];
  }

  /** What the user needs to come in. */
  const login = (port) => ({ PGHOST: '127.0.0.1', PGPORT: port, PGUSER: USER, PGDATABASE: DATABASE, PGPASSWORD: PASSWORD });

  // Written where it runs: in a process whose environment it is, or in a worker thread that has one of its own.
  const LOOK = `
    async function look(connection, options) {
      let store;
      try {
        store = new SqlxStateStore(connection, options);
        await store.initialize();
        return 'connected';
      } catch (error) {
        return error.code + ': ' + error.message;
      } finally {
        await store?.close();
      }
    }`;

  /** Opens a store in a process with these variables and no others of PostgreSQL's; what comes of it. */
  async function open(env, connection = 'postgres://', options = {}) {
    const none = Object.fromEntries(
      Object.keys(process.env).map((name) => [name, /^PG|^SSL_CERT/.test(name) ? undefined : process.env[name]]),
    );
    const source = `${LOOK}\nconsole.log(await look(${JSON.stringify(connection)}, ${JSON.stringify(options)}));`;
    const { code, stdout, stderr } = await runNode(source, { env: { ...none, HOME: folder, ...env } });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout.trim();
  }

  onThisServer('says where the database is, and who comes', async () => {
    const { port } = await server('plain');
    expect(await open(login(port))).toBe('connected');
    expect(await open(login(port), { dialect: 'postgres' })).toBe('connected');
    // What the URL says goes before it.
    const url = `postgres://${USER}:${encodeURIComponent(PASSWORD)}@127.0.0.1:${port}/${DATABASE}`;
    const wrong = { PGHOST: 'no.such.host.invalid', PGPORT: '1', PGUSER: 'x', PGDATABASE: 'x', PGPASSWORD: 'x' };
    expect(await open(wrong, url)).toBe('connected');
    expect(await open({ ...login(port), PGPASSWORD: 'wrong' })).toMatch(/^CONNECTION_FAILED: .*password authentication failed/);
  });

  onThisServer('PGSSLMODE=require never connects in plain text', async () => {
    const { port } = await server('plain');
    for (const PGSSLMODE of ['require', 'verify-ca', 'verify-full']) {
      expect(await open({ ...login(port), PGSSLMODE })).toMatch(/^CONNECTION_FAILED: .*no encryption/);
    }
    for (const PGSSLMODE of ['disable', 'prefer']) expect(await open({ ...login(port), PGSSLMODE })).toBe('connected');
    const encrypted = await server('tls');
    expect(await open({ ...login(encrypted.port), PGSSLMODE: 'require' })).toBe('connected');
  });

  onThisServer('PGSSLROOTCERT, PGCHANNELBINDING and SSL_CERT_FILE say which certificates to trust', async () => {
    const { port } = await server('tls');
    const all = login(port);
    expect(await open({ ...all, PGSSLMODE: 'verify-full' })).toMatch(/unknown issuer/);
    expect(await open({ ...all, PGSSLMODE: 'verify-full', PGSSLROOTCERT: caFile })).toBe('connected');
    const unverified = await open({ ...all, PGSSLMODE: 'require', PGCHANNELBINDING: 'require' });
    expect(unverified).toMatch(/^CONNECTION_FAILED: .*channel_binding=require.*ssl\.ca.*remove/);
    expect(await open({ ...all, PGSSLMODE: 'require', PGCHANNELBINDING: 'require', PGSSLROOTCERT: caFile })).toBe('connected');
    expect(await open({ ...all, PGSSLMODE: 'require', PGCHANNELBINDING: 'prefer' })).toBe('connected');
    expect(await open({ ...all, PGSSLROOTCERT: 'system', SSL_CERT_FILE: caFile })).toBe('connected');
    expect(await open({ ...all, PGSSLROOTCERT: 'system', SSL_CERT_FILE: fileOf('empty.pem', '') })).toMatch(
      /^INVALID_CONNECTION: .*empty\.pem.*SSL_CERT_FILE/,
    );
    expect(await open({ ...all, PGSSLROOTCERT: 'system' })).toMatch(
      /^(CONNECTION_FAILED: .*unknown issuer|INVALID_CONNECTION: .*SSL_CERT_FILE)/,
    );
  });

  onThisServer('the password file is read by the rules of libpq', async () => {
    const { port } = await server('plain');
    const { PGPASSWORD: _, ...all } = login(port);
    const line = `127.0.0.1:${port}:${DATABASE}:${USER}:${PASSWORD.replaceAll(/[\\:]/g, '\\$&')}\n`;
    expect(await open(all)).toMatch(/^CONNECTION_FAILED: .*password/);
    expect(await open({ ...all, PGPASSFILE: fileOf('good', `# mine\n*:1:*:*:no\n${line}`) })).toBe('connected');
    expect(await open({ ...all, PGPASSFILE: fileOf('other', line.replace(USER, 'other')) })).toMatch(/^CONNECTION_FAILED/);
    expect(await open({ ...all, PGPASSFILE: fileOf('wide', line, 0o644) })).toMatch(/^INVALID_CONNECTION: .*wide.*chmod 600/);
    expect(await open({ ...all, PGPASSFILE: join(folder, 'none') })).toMatch(/^INVALID_CONNECTION: .*none/);
    fileOf('.pgpass', line);
    expect(await open(all)).toBe('connected');
    chmodSync(join(folder, '.pgpass'), 0o640);
    expect(await open(all)).toMatch(/^CONNECTION_FAILED/);
    rmSync(join(folder, '.pgpass'));
  });

  onThisServer('PGOPTIONS and PGTARGETSESSIONATTRS reach the server', async () => {
    const { database, port } = await server('plain');
    await database.query('create schema elsewhere');
    await database.query('grant all on schema elsewhere to public');
    expect(await open({ ...login(port), PGOPTIONS: '-c search_path=no_such_schema' })).toMatch(/search_path/);
    expect(await open({ ...login(port), PGOPTIONS: '-c search_path=elsewhere' })).toBe('connected');
    expect(await database.query(`select 1 from pg_tables where schemaname = 'elsewhere'`)).toHaveLength(3);
    expect(await open({ ...login(port), PGTARGETSESSIONATTRS: 'read-write' })).toBe('connected');
    const readOnly = { ...login(port), PGOPTIONS: '-c default_transaction_read_only=on' };
    expect(await open({ ...readOnly, PGTARGETSESSIONATTRS: 'read-write' })).toMatch(/^CONNECTION_FAILED: .*target_session_attrs/);
    expect(await open({ ...readOnly, PGTARGETSESSIONATTRS: 'primary', PGSSLMODE: 'disable' })).not.toMatch(/target_session_attrs/);
  });

  onThisServer('a worker thread has its own', async () => {
    const { port } = await server('plain');
    const worker = `
      import { workerData } from 'node:worker_threads';
      import { SqlxStateStore } from ${JSON.stringify(INDEX.href)};
      ${LOOK}
      console.log(await look('postgres://'));`;
    const source = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      new Worker(url, { env: ${JSON.stringify(login(port))} });`;
    const { stdout, stderr } = await runNode(source, {
      env: { PGHOST: 'no.such.host.invalid', PGUSER: 'x', PGPASSWORD: 'y', PGDATABASE: 'z' },
    });
    expect({ stdout, stderr }).toEqual({ stdout: 'connected\n', stderr: '' });
  });

  onThisServer('what can’t be obeyed is refused by its name', async () => {
    for (const [name, value] of [
      ['PGSERVICE', 'mine'],
      ['PGSSLNEGOTIATION', 'direct'],
      ['PGSSLCRL', 'x'],
      ['PGSSLMODE', 'sometimes'],
    ]) {
      expect(await open({ [name]: value }, 'postgres://127.0.0.1/db')).toMatch(new RegExp(`^INVALID_CONNECTION: .*${name}`));
    }
  });
});
