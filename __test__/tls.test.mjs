/**
 * Encryption, against servers that this file starts with certificates that it makes: which servers the store trusts by which settings, and the errors
 * for the others.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Sequelize } from 'sequelize';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { SqlxStateStore } from '../index.js';
import { serverDialects } from './support/dialects/index.mjs';
import { createAuthority } from './support/certificates.mjs';
import { createOwnDatabase, DATABASE } from './support/own-accounts.mjs';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { rejection } from './support/suite.mjs';

const USER = 'reader';
const PASSWORD = 'c0rrect horse/battery@staple#?%';
const HERE = ['localhost', '127.0.0.1'];

const authority = createAuthority('An authority of the tests');
const stranger = createAuthority('Another authority');
const { ca } = authority;

/** What the server may show. */
const shown = {
  good: authority.issue({ hosts: HERE }),
  'for another host': authority.issue({ hosts: ['db.example.test'] }),
  expired: authority.issue({ hosts: HERE, expired: true }),
  'with a common name and no subjectAltName': authority.issue({ name: 'localhost' }),
  'signed by itself': createAuthority('localhost', HERE),
};

const folder = mkdtempSync(join(tmpdir(), 'batchactions-tls-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fileOf(name, text) {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}
const caFile = fileOf('ca.pem', ca);

/** Opens a store, makes it connect, and says what the server saw of it. */
async function use(store, look = async () => undefined) {
  try {
    await store.initialize();
    return await look();
  } finally {
    await store.close();
  }
}

/** The error with which a store fails to connect: never with a secret, and never worth another try. */
async function refusal(store, code = 'CONNECTION_FAILED') {
  try {
    const error = await rejection(store.initialize(), code);
    expect({ message: error.message, retryable: error.retryable }).toEqual({ message: error.message, retryable: false });
    expect(`${error.stack} ${error.cause?.stack}`).not.toContain(PASSWORD);
    return error;
  } finally {
    await store.close();
  }
}

for (const dialect of serverDialects) {
  describe(dialect.name, () => {
    const onThisServer = onOwnServer(dialect);
    const open = { tls: undefined, plain: undefined };
    let shows = 'good';

    /** The server with encryption, or the one without, started once. */
    function server(which) {
      open[which] ??= (async () => {
        const own = await startOwnServer(dialect, which === 'tls' ? { tls: shown.good } : {});
        const database = await createOwnDatabase(dialect, own.url);
        await database.createUser(USER, PASSWORD);
        return { own, database };
      })();
      return open[which];
    }

    /** The server, showing one of the certificates. */
    async function showing(name) {
      const { own, database } = await server('tls');
      if (shows !== name) await own.setTls(shown[name]);
      shows = name;
      return database;
    }

    afterAll(async () => {
      for (const started of Object.values(open)) {
        const { own } = (await started?.catch(() => undefined)) ?? {};
        await own?.end();
      }
    });

    /** Whether a store's connections are encrypted, once the server has seen the end of those of the store before it: each way that it finds. */
    const encryptedBy = (database, store) =>
      use(store, async () => {
        let ways;
        const look = async () => (ways = new Set(await database.encrypted(USER))).size;
        await expect.poll(look, { timeout: 60_000 }).toBe(1);
        return [...ways];
      });

    onThisServer('each mode encrypts, or does not, as it says: options', async () => {
      const database = await showing('good');
      const url = database.urlOf(USER, PASSWORD);
      for (const [ssl, encrypted] of [
        [undefined, true],
        [{}, true],
        [{ mode: 'disable' }, false],
        [{ mode: 'disable', ca }, false],
        [{ mode: 'prefer' }, true],
        [{ mode: 'require' }, true],
        [{ mode: 'require', ca }, true],
        [{ mode: 'verify-ca', ca }, true],
        [{ mode: 'verify-full', ca }, true],
        [{ mode: 'verify-full', ca: caFile }, true],
        [{ mode: 'verify-full', ca: stranger.ca + ca }, true],
        [{ ca }, true],
        [{ ca: caFile }, true],
      ]) {
        const seen = await encryptedBy(database, new SqlxStateStore(url, ssl && { ssl }));
        expect({ ssl, seen }).toEqual({ ssl, seen: [encrypted] });
        const byName = await encryptedBy(
          database,
          new SqlxStateStore(database.urlOf(USER, PASSWORD, { host: 'localhost' }), ssl && { ssl }),
        );
        expect({ ssl, seen: byName }).toEqual({ ssl, seen: [encrypted] });
      }
    });

    onThisServer('each mode encrypts, or does not, as it says: parameters of a URL', async () => {
      const database = await showing('good');
      const file = encodeURIComponent(caFile);
      for (const [query, encrypted] of [
        ['?sslmode=disable', false],
        ['?ssl-mode=DISABLED', false],
        ['?ssl=false', false],
        ['?sslmode=prefer', true],
        ['?sslmode=require', true],
        ['?ssl-mode=REQUIRED', true],
        [`?sslmode=verify-ca&sslrootcert=${file}`, true],
        [`?ssl-mode=VERIFY_CA&ssl-ca=${file}`, true],
        [`?sslmode=verify-full&sslrootcert=${file}`, true],
        [`?ssl-mode=VERIFY_IDENTITY&ssl-ca=${file}`, true],
        [`?ssl=true&ssl-ca=${file}`, true],
        [`?sslrootcert=${file}`, true],
      ]) {
        const seen = await encryptedBy(database, new SqlxStateStore(database.urlOf(USER, PASSWORD, { query })));
        expect({ query, seen }).toEqual({ query, seen: [encrypted] });
      }
      const strangers = encodeURIComponent(fileOf('stranger.pem', stranger.ca));
      const query = `?sslmode=verify-full&sslrootcert=${strangers}`;
      expect((await refusal(new SqlxStateStore(database.urlOf(USER, PASSWORD, { query })))).message).toMatch(/unknown issuer/);
      // An option goes before the URL.
      expect(await encryptedBy(database, new SqlxStateStore(database.urlOf(USER, PASSWORD, { query }), { ssl: { ca } }))).toEqual([true]);
    });

    onThisServer('a certificate that can not be trusted is refused, and the message says why', async () => {
      const url = (await showing('good')).urlOf(USER, PASSWORD);
      const unknown = /unknown issuer: give the certificate of the authority that signed it \(ssl\.ca\)/;
      const wrong = /unknown issuer: none of the authorities in ssl\.ca signed it/;
      const name = /for another host:.*"127\.0\.0\.1".*db\.example\.test/;
      for (const [certificate, ssl, reason] of [
        ['good', { mode: 'verify-full' }, unknown],
        ['good', { mode: 'verify-ca' }, unknown],
        ['good', { mode: 'verify-full', ca: stranger.ca }, wrong],
        ['good', { mode: 'verify-ca', ca: stranger.ca }, wrong],
        ['good', { mode: 'require', ca: stranger.ca }, wrong],
        ['good', { ca: stranger.ca }, wrong],
        ['for another host', { mode: 'verify-full', ca }, name],
        ['for another host', { mode: 'verify-ca', ca }, /for another host:.*verify-ca checks the name too/],
        ['expired', { mode: 'verify-full', ca }, /has expired: .*\d+ seconds ago/],
        ['expired', { mode: 'verify-ca', ca }, /has expired: .*\d+ seconds ago/],
        ['with a common name and no subjectAltName', { mode: 'verify-full', ca }, /for another host: .*subjectAltName/],
        ['signed by itself', { mode: 'verify-full', ca: shown['signed by itself'].ca }, /that of an authority .*self-signed/],
        ['signed by itself', { mode: 'verify-full', ca }, /that of an authority .*self-signed/],
      ]) {
        await showing(certificate);
        const { message } = await refusal(new SqlxStateStore(url, { ssl }));
        expect({ certificate, ssl, message }).toEqual({ certificate, ssl, message: expect.stringMatching(reason) });
      }
      for (const certificate of Object.keys(shown)) {
        const database = await showing(certificate);
        // Who asks for encryption alone takes any of them.
        for (const mode of ['prefer', 'require']) {
          expect(await encryptedBy(database, new SqlxStateStore(url, { ssl: { mode } }))).toEqual([true]);
        }
      }
    });

    onThisServer('a server without encryption is refused where encryption is demanded', async () => {
      const { database } = await server('plain');
      const url = database.urlOf(USER, PASSWORD);
      for (const ssl of [{ mode: 'require' }, { mode: 'verify-ca' }, { mode: 'verify-full' }, { ca }]) {
        const { message } = await refusal(new SqlxStateStore(url, { ssl }));
        expect(message).toMatch(/the server offers no encryption \(TLS\)/);
      }
      for (const options of [undefined, { ssl: { mode: 'prefer' } }, { ssl: { mode: 'disable' } }]) {
        await use(new SqlxStateStore(url, options));
      }
    });

    onThisServer('certificates of the client’s that are wrong are refused by name', async () => {
      const url = (await showing('good')).urlOf(USER, PASSWORD);
      const mine = authority.issue({ name: 'mine' });
      const broken = ca.replace(/\n[^-\n]{10}/, '\n**********');
      const hollow = '-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n';
      for (const [ssl, reason] of [
        [{ mode: 'verify-full', ca: join(folder, 'nowhere.pem') }, /ssl\.ca is neither PEM text nor .*nowhere\.pem/],
        [{ ca: fileOf('empty.pem', '') }, /ssl\.ca holds no certificate in PEM/],
        [{ ca: fileOf('text.pem', 'a certificate') }, /ssl\.ca holds no certificate in PEM/],
        [{ ca: broken }, /ssl\.ca holds a certificate that is not sound PEM/],
        [{ ca: fileOf('broken.pem', broken) }, /ssl\.ca holds a certificate that is not sound PEM/],
        [{ ca: hollow }, /ssl\.ca holds something that is no certificate/],
        [{ ca: mine.key }, /ssl\.ca holds no certificate in PEM/],
        [{ mode: 'require', cert: join(folder, 'nowhere.pem'), key: mine.key }, /ssl\.cert is neither PEM text nor .*nowhere\.pem/],
        [{ mode: 'require', cert: mine.key, key: mine.key }, /ssl\.cert holds no certificate in PEM/],
        [{ mode: 'require', cert: mine.cert, key: mine.cert }, /ssl\.key holds no private key in PEM/],
        [
          { mode: 'require', cert: mine.cert, key: mine.key.replaceAll(/-----.*-----\n/g, '') },
          /ssl\.key is neither PEM text nor .*the file: /,
        ],
      ]) {
        const { message, stack } = await refusal(new SqlxStateStore(url, { ssl }), 'INVALID_CONNECTION');
        expect({ ssl, message }).toEqual({ ssl, message: expect.stringMatching(reason) });
        for (const line of mine.key.split('\n').filter((part) => part.length > 20)) expect(stack).not.toContain(line.slice(0, 20));
      }
      const others = { mode: 'require', cert: mine.cert, key: authority.issue().key };
      expect((await refusal(new SqlxStateStore(url, { ssl: others }))).message).toMatch(
        /ssl\.key is not the key of the certificate ssl\.cert/,
      );
    });

    onThisServer('a client’s certificate is shown to a server that asks for one', async () => {
      const database = await showing('good');
      const certified = 'certified';
      await database.createUser(certified, PASSWORD, { demands: 'require x509' });
      const url = database.urlOf(certified, PASSWORD);
      const { cert, key } = authority.issue({ name: certified });
      for (const ssl of [
        { ca, cert, key },
        { mode: 'require', cert: fileOf('cert.pem', cert), key: fileOf('key.pem', key) },
      ]) {
        expect(await use(new SqlxStateStore(url, { ssl }), () => database.encrypted(certified))).toContain(true);
      }
      const query = `?sslmode=require&sslcert=${encodeURIComponent(fileOf('cert.pem', cert))}&sslkey=${encodeURIComponent(fileOf('key.pem', key))}`;
      await use(new SqlxStateStore(database.urlOf(certified, PASSWORD, { query })));
      expect((await refusal(new SqlxStateStore(url, { ssl: { ca } }))).message).toMatch(/certificate|denied/);
      const strange = stranger.issue({ name: certified });
      const { message } = await refusal(new SqlxStateStore(url, { ssl: { ca, cert: strange.cert, key: strange.key } }));
      expect(message).toMatch(/the server refused TLS with \w+: it may not trust the client's certificate \(ssl\.cert\)/);
    });

    onThisServer('`dialectOptions.ssl` of a Sequelize instance means to the store what it means to Sequelize', async () => {
      const strict = { rejectUnauthorized: true };
      const lax = { rejectUnauthorized: false };
      const mine = authority.issue({ name: 'mine' });
      const both = (accepts) => [accepts, accepts];
      /** The certificate, `dialectOptions.ssl`, and whether Sequelize and the store take it. */
      const cases = [
        ['good', { ca }, both(true)],
        ['good', { ca: [stranger.ca, ca] }, both(true)],
        ['good', { ca: Buffer.from(ca) }, both(true)],
        ['good', { ...strict, ca }, both(true)],
        ['good', { require: true, ...strict, ca }, both(true)],
        ['good', { ...strict, ca, cert: mine.cert, key: mine.key }, both(true)],
        ['good', { ...strict }, both(false)],
        ['good', { require: true, ...strict }, both(false)],
        ['good', { ca: stranger.ca }, both(false)],
        ['good', { ...lax }, both(true)],
        ['good', { require: true, ...lax }, both(true)],
        ['good', { ...lax, ca: stranger.ca }, both(true)],
        ['expired', { ca }, both(false)],
        ['expired', { ...lax, ca }, both(true)],
        ['for another host', { ...lax, ca }, both(true)],
        ['signed by itself', { ...lax }, both(true)],
        // Not each driver checks the name unless it is told to; the store always does.
        ['for another host', { ca }, [!dialect.sequelizeTls.checksName, false]],
        ['for another host', { ca, verifyIdentity: true }, both(false)],
        // Node takes the common name where there is no other, and a certificate that is an authority's; the store does neither.
        ['with a common name and no subjectAltName', { ca, verifyIdentity: true }, [true, false]],
        ['signed by itself', { ca: shown['signed by itself'].ca, verifyIdentity: true }, [true, false]],
      ];
      if (dialect.sequelizeTls.takesTrue) cases.push(['good', true, both(false)]);
      for (const [certificate, ssl, [bySequelize, byStore]] of cases) {
        const database = await showing(certificate);
        const { port } = new URL(database.urlOf(USER, PASSWORD));
        const place = { dialect: dialect.name, host: 'localhost', port, database: DATABASE, username: USER, password: PASSWORD };
        // The drivers write into the objects that they are given.
        const copy = () => (ssl === true ? true : { ...ssl });
        const sequelize = new Sequelize({
          ...place,
          dialectOptions: { ...dialect.sequelizeOptions, ssl: copy() },
          logging: false,
          retry: { max: 0 },
        });
        const store = new SqlxStateStore(new Sequelize({ ...place, dialectOptions: { ssl: copy() }, logging: false }));
        const taken = await sequelize.authenticate().then(
          () => true,
          (error) => (expect(error.message).toMatch(/certificate|altnames|self.signed|issuer/i), false),
        );
        await sequelize.close();
        const trusted = byStore ? (await encryptedBy(database, store)).every(Boolean) : !(await refusal(store));
        expect({ certificate, ssl, bySequelize: taken, byStore: trusted }).toEqual({ certificate, ssl, bySequelize, byStore });
      }
    });

    onThisServer('`dialectOptions.ssl` on a server without encryption', async () => {
      const { database } = await server('plain');
      const { port } = new URL(database.urlOf(USER, PASSWORD));
      const place = {
        dialect: dialect.name,
        host: '127.0.0.1',
        port,
        database: DATABASE,
        username: USER,
        password: PASSWORD,
        logging: false,
      };
      const sequelize = (dialectOptions) => {
        const made = new Sequelize({ ...place, dialectOptions: { ...dialect.sequelizeOptions, ...dialectOptions }, retry: { max: 0 } });
        onTestFinished(() => made.close());
        return made;
      };
      const demands = () => sequelize({ ssl: { rejectUnauthorized: false } });
      await expect(demands().authenticate()).rejects.toThrow(/ssl|secure/i);
      expect((await refusal(new SqlxStateStore(demands()))).message).toMatch(/offers no encryption/);
      for (const dialectOptions of [{}, { ssl: false }]) {
        await sequelize({ ...dialectOptions }).authenticate();
        await use(new SqlxStateStore(sequelize({ ...dialectOptions })));
      }
    });
  });
}

describe('settings that do not fit together', () => {
  const { cert, key } = authority.issue();
  test.each([
    ['mysql://h/d', { ssl: { cert } }, 'INVALID_ARGUMENT', /options\.ssl\.cert needs ssl\.key/],
    ['postgres://h/d', { ssl: { key } }, 'INVALID_ARGUMENT', /options\.ssl\.key needs ssl\.cert/],
    ['postgres://h/d?sslcert=c.pem', undefined, 'INVALID_CONNECTION', /ssl\.cert needs ssl\.key/],
    ['postgres://h/d', { ssl: { mode: 'prefer', ca } }, 'INVALID_ARGUMENT', /options\.ssl\.mode "prefer" .*ssl\.ca.*verify-full/],
    ['mysql://h/d?ssl-mode=PREFERRED&ssl-ca=c.pem', undefined, 'INVALID_CONNECTION', /ssl\.mode "prefer"/],
  ])('%s', (url, options, code, message) => {
    expect(() => new SqlxStateStore(url, options)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('a URL and the options may each give a part: both are used', async () => {
    // Each is read as the store connects, so that an error about the URL's file shows that it counts beside the option.
    for (const [parameter, ssl] of [
      ['sslcert', { key }],
      ['sslkey', { cert }],
    ]) {
      const { message } = await rejection(
        use(new SqlxStateStore(`postgres://u@127.0.0.1:1/d?${parameter}=missing.pem`, { ssl })),
        'INVALID_CONNECTION',
      );
      expect(message).toContain(`ssl.${parameter.slice(3)} is neither PEM text nor the path of a file`);
    }
    const { message } = await rejection(use(new SqlxStateStore('postgres://u@127.0.0.1:1/d', { ssl: { cert, key } })), 'CONNECTION_FAILED');
    expect(message).toMatch(/refused/);
  });
});
