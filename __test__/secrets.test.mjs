// A password never shows: in no message, stack, cause or property of an error, in nothing that a store shows of itself, and in nothing that a process
// prints as it ends. Every case here really fails, with a code, whatever was wrong: the password, its place, or what stands around it.

import { randomBytes } from 'node:crypto';
import { Sequelize } from 'sequelize';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../index.js';
import { postgres } from './support/dialects/postgres.mjs';
import { databasesWith } from './support/databases.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { runNode } from './support/run-node.mjs';
import { expectNoSecret } from './support/secrets.mjs';
import { deadPort, startServer } from './support/servers.mjs';
import { addressOf, needs } from './support/suite.mjs';
import { createUser } from './support/users.mjs';

const servers = databasesWith('server');

/** Letters that nothing else has. */
const letters = () => randomBytes(9).toString('base64url').replace(/[-_]/g, 'Q');
/** A password whose parts are separated by all that means something in a URL. */
const hostile = () => ['@', '/', '#', '?', '%', ':', '&', ' ', 'ü', '"', "'", '\\'].map((separator) => `${separator}${letters()}`).join('');

/**
 * The store can't be made, or its first call fails: with one of these codes, and without a part of the secrets in anything.
 * @returns {Promise<string>} the code
 */
async function expectSilentFailure(make, secrets, codes) {
  let store;
  let error;
  try {
    store = make();
    onTestFinished(() => store.close());
    await store.getJobState('j');
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(StateStoreError);
  expect(codes, error.message).toContain(error.code);
  expectNoSecret(error, secrets);
  if (store) expectNoSecret(store, secrets);
  return error.code;
}

const WRONG_URL = ['INVALID_CONNECTION', 'UNSUPPORTED_DATABASE'];
const ANY = [...WRONG_URL, 'INVALID_ARGUMENT', 'CONNECTION_FAILED'];

describe('a URL that is wrong', () => {
  let port;
  beforeAll(async () => {
    port = await deadPort();
  });

  const secret = hostile();
  const E = encodeURIComponent(secret);
  const plain = letters();
  /** `[what is wrong, its URL]`; `AT` is where the server would be, if there were one. */
  const MALFORMED = [
    ['a mistyped scheme', `postgress://u:${E}@AT/d`],
    ['a scheme of another database', `mssql://u:${E}@AT/d`],
    ['the scheme of a file', `sqlite://u:${plain}@AT/d`],
    ['the scheme of a file before the whole', `sqlite:postgres://u:${E}@AT/d`],
    ['the scheme of a file before the whole', `sqlite://mysql://u:${E}@AT/d`],
    ['the scheme of a file before a login', `sqlite:///u:${plain}@AT/d`],
    ['the scheme of a file before a login', `sqlite:/u:${plain}@AT`],
    ['no colon', `postgres//u:${E}@AT/d`],
    ['no slashes', `postgres:u:${E}@AT/d`],
    ['one slash', `postgres:/u:${E}@AT/d`],
    ['three slashes', `mysql:///u:${E}@AT/d`],
    ['no scheme', `u:${E}@AT/d`],
    ['an empty scheme', `://u:${E}@AT/d`],
    ['a space before it', ` mysql//u:${E}@AT/d`],
    ['a port that is a word', `postgres://u:${E}@127.0.0.1:port/d`],
    ['a port that is too large', `mysql://u:${E}@127.0.0.1:99999/d`],
    ['a negative port', `mariadb://u:${E}@127.0.0.1:-1/d`],
    ['a space in the host', `postgres://u:${E}@127.0 .0.1/d`],
    ['half an IPv6 address', `postgres://u:${E}@[::1/d`],
    ['a login in the host', `postgres://x@u%3A${E}%40AT/d`],
    ['no database', `mysql://u:${E}@AT`],
    ['U+0000 in the password', `postgres://u:${E}%00@AT/d`],
    ['bytes that are not UTF-8 in the password', `postgres://u:${E}%ff@AT/d`],
    ['bytes that are not UTF-8 in the user', `postgres://%ff:${E}@AT/d`],
    ['half an escape in the password', `postgres://u:${E}%@AT/d`],
    ['no hexadecimal digits in an escape', `mysql://u:${E}%zz@AT/d`],
    ['the password as a parameter', `postgres://u@AT/d?password=${E}`],
    ['a parameter that is unknown', `mysql://u:${E}@AT/d?nonsense=1`],
    ['a parameter of a wrong value', `postgres://u:${E}@AT/d?sslmode=sure`],
    ['a socket that is not there', `postgres://u:${E}@/d?host=%2Fno%2Fsuch%2Ffolder`],
    ['a socket that is not there', `mysql://u:${E}@localhost/d?socket=%2Fno%2Fsuch.sock`],
    ['a socket that is a URL', `postgres://u@/d?host=${encodeURIComponent(`postgres://u:${plain}@h/d`)}`],
    ['a line break in the middle', `postgres:\n//u:${E}@AT/d`],
    ['the whole URL twice', `postgres://u:${E}@AT/postgres://u:${E}@AT/d`],
  ];

  it.each(MALFORMED)('%s: %#', async (_, url) => {
    const whole = url.replaceAll('AT', `127.0.0.1:${port}`);
    await expectSilentFailure(() => new SqlxStateStore(whole), [secret, plain], ANY);
  });

  it.each([
    '@',
    '/',
    '#',
    '?',
    '%',
    ':',
    '&',
    '=',
    ' ',
    '\\',
    '[',
    ']',
    '|',
    '\t',
    '\n',
    'ü',
    '😀',
    '\ud800',
    '"',
    "'",
    '%2',
    '%zz',
    '%ff',
    '%00',
  ])('a password with %j that is not escaped, in the middle, at its ends, and after digits that look like a port', async (special) => {
    const [one, two] = [letters(), letters()];
    for (const password of [
      `${one}${special}${two}`,
      `${special}${one}`,
      `${one}${special}`,
      `12${special}${two}`,
      `${special}${special}${one}`,
    ]) {
      for (const scheme of ['postgres', 'postgresql', 'mysql', 'mariadb']) {
        const url = `${scheme}://u:${password}@127.0.0.1:${port}/d`;
        await expectSilentFailure(() => new SqlxStateStore(url), [one, two], ANY);
      }
    }
  });

  it('a URL object', async () => {
    await expectSilentFailure(() => new SqlxStateStore(new URL(`mssql://u:${E}@127.0.0.1/d`)), [secret], WRONG_URL);
    await expectSilentFailure(() => new SqlxStateStore(new URL(`mysql://u:${E}@127.0.0.1:${port}/d`)), [secret], ['CONNECTION_FAILED']);
  });
});

describe('settings that are wrong', () => {
  const secret = hostile();
  const url = `postgres://u:${encodeURIComponent(secret)}@127.0.0.1:1/d`;
  const login = `u:${secret}@127.0.0.1`;
  const parts = { dialect: 'postgres', host: '127.0.0.1', port: 1, user: 'u', password: secret };
  const sequelize = (config, options = {}, dialect = 'postgres') => ({
    config: { host: '127.0.0.1', port: '1', database: 'd', username: 'u', password: secret, ...config },
    options: { dialect, ...options },
    getDialect: () => dialect,
  });

  it.each([
    ['a list of URLs', [url]],
    ['the URL as the dialect', { dialect: url }],
    ['a login as the dialect', { dialect: login }],
    ['the URL as the host', { ...parts, host: url }],
    ['a login as the host', { ...parts, host: login }],
    ['an object as the host', { ...parts, host: { password: secret } }],
    ['the URL as the database', { ...parts, database: url }],
    ['the URL as the user', { ...parts, user: url }],
    ['the URL as the socket', { ...parts, socketPath: url }],
    ['the URL as the file', { dialect: 'sqlite', storage: url }],
    ['the URL beside nothing', { url }],
    ['the URL beside the dialect', { dialect: 'postgres', connectionString: url }],
    ['the password as a port', { ...parts, port: secret }],
    ['the password as an object', { ...parts, password: { password: secret } }],
    ['the password in a list', { ...parts, password: [secret] }],
    ['the password with U+0000', { ...parts, password: `${secret}\0` }],
    ['the password under another name', { ...parts, pass: secret }],
    ['an unknown dialect', { ...parts, dialect: 'mssql' }],
    ['no dialect', { ...parts, dialect: undefined }],
    ['a port out of range', { ...parts, port: 99_999 }],
    ['Sequelize: another dialect', sequelize({}, {}, 'mssql')],
    ['Sequelize: underscored', sequelize({}, { define: { underscored: true } })],
    ['Sequelize: a schema', sequelize({}, { define: { schema: 's' } }, 'mysql')],
    ['Sequelize: the password as an object', sequelize({ password: { password: secret } })],
    ['Sequelize: the URL as the host', sequelize({ host: url })],
    ['Sequelize: the password as a port', sequelize({ port: secret })],
    ['Sequelize: a pool of a wrong kind', sequelize({ pool: { max: 'many' } })],
    ['Sequelize: a writer that is a wrong URL', sequelize({}, { replication: { write: `postgress://${login}/d` } })],
    ['Sequelize: a writer that is a list', sequelize({ port: 'none' }, { replication: { write: [{ password: secret }] } })],
    ['Sequelize: a writer whose password is none', sequelize({}, { replication: { write: { password: { secret } } } })],
    ['Sequelize: encryption that is the password', sequelize({}, { dialectOptions: { ssl: secret } })],
    ['Sequelize: settings of the driver that are the URL', sequelize({}, { dialectOptions: url })],
    ['Sequelize: settings that are the URL', sequelize({}, url)],
  ])('%s', async (_, connection) => {
    await expectSilentFailure(() => new SqlxStateStore(connection), [secret], ANY);
  });

  it.each([
    ['the URL', url],
    ['a URL object', new URL(url)],
    ['an option that is unknown', { passwd: secret }],
    ['the URL as an option', { url }],
    ['an unknown option of the pool', { pool: { password: secret } }],
    ['the URL as the pool', { pool: url }],
    ['a wrong client key', { ssl: { key: { pem: secret } } }],
    ['a wrong limit', { connectTimeoutMs: -1 }],
  ])('options that are %s', async (_, options) => {
    for (const connection of [url, parts, sequelize({})]) {
      await expectSilentFailure(() => new SqlxStateStore(connection, options), [secret], ['INVALID_ARGUMENT']);
    }
  });
});

/** The same place in every form that a store is made from. */
function everyForm({ dialect, host = '127.0.0.1', port, database, user, password, socketPath }) {
  const url = new URL(`${dialect}://${host}:${port}/${database}`);
  url.username = encodeURIComponent(user);
  url.password = encodeURIComponent(password);
  const fromParts = { dialect, host, port, database, user, password };
  const dialectOptions = socketPath ? { socketPath } : {};
  const shared = { dialect, logging: false, dialectOptions };
  const login = { host, port, database, username: user, password };
  if (socketPath) url.searchParams.set('socket', socketPath);
  return [
    ['a URL', () => url.href],
    ['a URL object', () => url],
    ['parts', () => ({ ...fromParts, ...(socketPath && { socketPath }) })],
    ['a Sequelize instance', () => new Sequelize({ ...shared, ...login })],
    ['a Sequelize instance made from a URL', () => new Sequelize(url.href.replace(/\?.*/, ''), shared)],
    ['a Sequelize instance with replication', () => new Sequelize({ ...shared, replication: { write: login, read: [login] } })],
  ];
}

for (const database of servers) {
  describe(`${database.name}: a login that fails`, () => {
    let db;
    let place;
    beforeAll(async () => {
      db = await database.create();
      place = { dialect: database.dialect.name, ...addressOf(db), database: db.name };
    });
    afterAll(() => db?.drop());

    const noDatabase = database.dialect.unknownDatabaseCode;
    const expectAllFail = async (where, secrets, due = 'CONNECTION_FAILED') => {
      for (const [form, connection] of everyForm(where)) {
        const code = await expectSilentFailure(() => new SqlxStateStore(connection()), secrets, [due]);
        expect(code, form).toBe(due);
      }
    };

    it('no server listens', async () => {
      const secret = hostile();
      await expectAllFail({ ...place, user: 'u', password: secret, port: await deadPort() }, [secret]);
    });

    it('the server hangs up', async () => {
      const secret = hostile();
      const server = await startServer((socket) => socket.destroy());
      onTestFinished(() => server.close());
      await expectAllFail({ ...place, user: 'u', password: secret, port: server.port }, [secret]);
    });

    it('there is no such user', async () => {
      const secret = hostile();
      await expectAllFail({ ...place, user: `unknown_${letters()}`, password: secret }, [secret]);
    });

    it('there is no such database', async () => {
      const user = await createUser(db, { rights: 'none', password: hostile() });
      onTestFinished(() => user.drop());
      await expectAllFail(
        { ...place, user: user.name, password: user.password, database: 'no_such_database' },
        [user.password],
        noDatabase,
      );
    });

    needs(database, 'asksForPasswords')('there is no such socket', async () => {
      const secret = hostile();
      await expectAllFail({ ...place, user: 'u', password: secret, socketPath: '/no/such.sock' }, [secret]);
    });

    needs(database, 'asksForPasswords')('the password is wrong', async () => {
      const [user, wrong] = [await createUser(db, { rights: 'none', password: hostile() }), hostile()];
      onTestFinished(() => user.drop());
      await expectAllFail({ ...place, user: user.name, password: wrong }, [wrong, user.password]);
    });

    needs(database, 'asksForPasswords')('the password is right, and the user may do nothing', async () => {
      const user = await createUser(db, { rights: 'none', password: hostile() });
      onTestFinished(() => user.drop());
      await expectAllFail({ ...place, user: user.name, password: user.password }, [user.password], noDatabase);
    });
  });
}

describe('postgres: a login that fails', () => {
  onOwnServer(postgres)('the password is wrong, however the server asks for it', async () => {
    const server = await startOwnServer(postgres);
    onTestFinished(() => server.end());
    const admin = await postgres.connect(server.url);
    onTestFinished(() => admin.end());
    const [{ hba_file: file }] = await admin.query('show hba_file');
    const [right, wrong] = [hostile(), hostile()];
    for (const [user, encryption, method] of [
      ['asked_scram', 'scram-sha-256', 'scram-sha-256'],
      ['asked_md5', 'md5', 'md5'],
      ['asked_plainly', 'scram-sha-256', 'password'],
    ]) {
      await admin.query(`set password_encryption = '${encryption}'`);
      await admin.query(`create role ${user} login password '${right.replaceAll(`'`, `''`)}'`);
      await admin.query(
        `copy (values ('host all postgres 127.0.0.1/32 trust'), ('host all all 127.0.0.1/32 ${method}')) to '${file}' with (format text)`,
      );
      await admin.query('select pg_reload_conf()');
      const where = { dialect: 'postgres', port: Number(new URL(server.url).port), database: 'postgres', user };
      // The server reads its settings in its own time; it has once it refuses a login without a password.
      const asks = (password) =>
        postgres.connect(`postgres://${user}:${encodeURIComponent(password)}@127.0.0.1:${where.port}/postgres`).then(
          (connection) => connection.end().then(() => false),
          (error) => /password authentication failed/.test(error.message),
        );
      await expect.poll(() => asks(wrong), { timeout: 30_000 }).toBe(true);
      expect(await asks(right)).toBe(false);
      for (const [, connection] of everyForm({ ...where, password: wrong })) {
        await expectSilentFailure(() => new SqlxStateStore(connection()), [wrong, right], ['CONNECTION_FAILED']);
      }
    }
  });
});

describe('what a process prints as it ends', () => {
  const secret = hostile();
  const E = encodeURIComponent(secret);

  it.each([
    [
      'a call that is not awaited rejects',
      (port) => `postgres://u:${E}@127.0.0.1:${port}/d`,
      `new SqlxStateStore(process.env.THE_URL).getJobState('j');`,
    ],
    ['the constructor throws', (port) => `postgress://u:${E}@127.0.0.1:${port}/d`, 'new SqlxStateStore(process.env.THE_URL);'],
    [
      'it prints all that it has, and then throws',
      (port) => `mysql://u:${E}@127.0.0.1:${port}/d`,
      `const store = new SqlxStateStore(process.env.THE_URL);
       const error = await store.initialize().catch((reason) => reason);
       for (const value of [store, error]) {
         console.log(value, String(value), JSON.stringify(value), [value], { value });
         console.dir(value, { showHidden: true, depth: null });
         console.error(value);
       }
       process.emitWarning(error);
       throw error;`,
    ],
  ])('%s', async (_, url, source) => {
    const { code, stdout, stderr } = await runNode(source, {
      env: { THE_URL: url(await deadPort()), NODE_DEBUG: '', RUST_LOG: 'trace', RUST_BACKTRACE: 'full' },
    });
    expect(code).toBe(1);
    expect(stderr).toContain('StateStoreError');
    expectNoSecret(stdout + stderr, [secret]);
  });
});

it('a test that looks for a password finds it', () => {
  const secret = hostile();
  const hidden = new StateStoreError('x', {
    code: 'INTERNAL',
    cause: new Error('y', { cause: { deep: [{ it: encodeURIComponent(secret) }] } }),
  });
  expect(() => expectNoSecret(hidden, [secret])).toThrow();
  expect(() => expectNoSecret(Object.defineProperty({}, 'it', { value: secret.slice(9, 15), enumerable: false }), [secret])).toThrow();
  expectNoSecret(hidden, [letters()]);
});
