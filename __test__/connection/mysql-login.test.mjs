// Logins that MySQL's driver lacks, or gives to the right server only; and what a new session is told.

import { once } from 'node:events';
import { connect } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { describe, expect, onTestFinished, test } from 'vitest';
import { mariadb } from '../support/dialects/mysql.mjs';
import { createAuthority } from '../support/certificates.mjs';
import { createOwnDatabase } from '../support/own-accounts.mjs';
import { onOwnServer, startOwnServer } from '../support/own-servers.mjs';
import { databasesWith } from '../support/databases.mjs';
import { startServer } from '../support/servers.mjs';
import { freshDatabase, rejection, SqlxStateStore } from '../support/suite.mjs';

const SECRET = 'hunter2-s3cret';
const authority = createAuthority('An authority of the tests');
const certificate = authority.issue({ hosts: ['localhost', '127.0.0.1'] });

const CLIENT_SSL = 0x800;

function packet(number, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : Buffer.from(part))));
  return Buffer.concat([Buffer.from([body.length & 255, body.length >> 8, 0, number]), body]);
}

/** A server's first packet: MySQL 8, with encryption or without. */
function greeting(tls) {
  const low = 0xa208 | (tls ? CLIENT_SSL : 0);
  const capabilities = [low & 255, low >> 8];
  return packet(
    0,
    [10],
    '8.0.36\0',
    [1, 0, 0, 0],
    'abcdefgh\0',
    capabilities,
    [45, 2, 0],
    [8, 0],
    [21],
    Buffer.alloc(10),
    'ijklmnopqrst\0',
    'mysql_native_password\0',
  );
}

/** A server that asks for the password in clear text. What it was told stands in `heard`. */
async function startClearTextServer({ tls }) {
  const heard = [];
  const ask = async (stream, first) => {
    const data = first ?? (await once(stream, 'data'))[0];
    heard.push(data);
    stream.write(packet(data[3] + 1, [0xfe], 'mysql_clear_password\0'));
    stream.on('data', (more) => {
      heard.push(more);
      stream.end(packet(more[3] + 1, [0xff, 0x15, 0x04], '#28000Access denied'));
    });
  };
  // The request for encryption and its beginning may come as one, so that a server of its own takes what follows the request.
  const encrypted = createTlsServer({ cert: certificate.cert, key: certificate.key }, (stream) => {
    stream.on('error', () => {});
    ask(stream);
  });
  encrypted.listen(0, '127.0.0.1');
  await once(encrypted, 'listening');
  onTestFinished(() => encrypted.close());
  const server = await startServer(async (socket) => {
    socket.write(greeting(tls));
    const [data] = await once(socket, 'data');
    const isRequest = tls && data.readUIntLE(0, 3) === 32;
    if (!isRequest) return ask(socket, data);
    const inner = connect({ host: '127.0.0.1', port: encrypted.address().port });
    inner.on('error', () => socket.destroy());
    inner.write(data.subarray(36));
    socket.pipe(inner).pipe(socket);
  });
  onTestFinished(() => server.close());
  return { port: server.port, heard: () => Buffer.concat(heard).toString('latin1') };
}

/** What comes of a login; the store is closed. */
async function logIn(port, parameters) {
  const store = new SqlxStateStore(`mysql://u:${SECRET}@127.0.0.1:${port}/d${parameters}`);
  const error = await rejection(store.getJobState('j'), 'CONNECTION_FAILED').finally(() => store.close());
  expect(`${error.stack} ${error.cause?.stack}`).not.toContain(SECRET);
  return error;
}

describe('a password in clear text', () => {
  test.each([
    ['in plain text', false, ''],
    ['in plain text', false, '?ssl-mode=DISABLED'],
    ['over encryption that is not demanded', true, ''],
  ])('is not given %s', async (_, tls, parameters) => {
    const server = await startClearTextServer({ tls });
    const error = await logIn(server.port, parameters);
    expect(error).toMatchObject({ retryable: false, message: expect.stringMatching(/mysql_clear_password.*ssl-mode=VERIFY_IDENTITY/) });
    expect(server.heard()).not.toContain(SECRET);
  });

  test('is given over encryption that is demanded', async () => {
    const server = await startClearTextServer({ tls: true });
    await logIn(server.port, '?ssl-mode=REQUIRED');
    expect(server.heard()).toContain(SECRET);
  });
});

onOwnServer(mariadb)('a user of MariaDB’s ed25519 is refused for good, with what to do', async (context) => {
  const server = await startOwnServer(mariadb);
  onTestFinished(() => server.end());
  const database = await createOwnDatabase(mariadb, server.url);
  const plugin = await database.query(`install soname 'auth_ed25519'`).catch((error) => error);
  if (plugin instanceof Error) return context.skip(`this MariaDB comes without the plugin: ${plugin.message}`);
  await database.createUser('modern', SECRET, { method: 'via ed25519 using password(?)' });
  const store = new SqlxStateStore(database.urlOf('modern', SECRET));
  const error = await rejection(store.initialize(), 'CONNECTION_FAILED').finally(() => store.close());
  expect(error).toMatchObject({ retryable: false, message: expect.stringMatching(/client_ed25519.*mysql_native_password/) });
});

for (const database of databasesWith('versionProbe')) {
  test(`${database.name}: a session is set up by one \`set\` that a proxy can follow`, async () => {
    const db = await freshDatabase(database);
    const { hostname: host, port } = new URL(db.url);
    let said = '';
    const proxy = await startServer((socket) => {
      const upstream = connect({ host, port: Number(port || 3306) });
      upstream.on('error', () => socket.destroy());
      socket.on('close', () => upstream.destroy());
      socket.on('data', (data) => (said += data.toString('latin1')));
      socket.pipe(upstream).pipe(socket);
    });
    onTestFinished(() => proxy.close());
    const url = new URL(db.url);
    Object.assign(url, { hostname: '127.0.0.1', port: String(proxy.port), search: '?ssl-mode=DISABLED' });
    const store = new SqlxStateStore(url.href, { pool: { max: 1 } });
    await rejection(store.getJobState('j'), 'TABLES_MISSING');
    await store.close();
    const sets = said.match(/\bset (?!.*\bwhere\b)[ -~]*/gi);
    expect(sets).toHaveLength(1);
    expect(sets[0]).toMatch(/(transaction|tx)_isolation = 'READ-COMMITTED'/);
    expect(sets[0]).not.toMatch(/;|set .*set |select /i);
  });
}
