// What no store is made from, and options that are refused.

import { describe, expect, it } from 'vitest';
import { SqlxStateStore, StateStoreError } from '../../index.js';
import { open, thrownBy } from '../support/connections.mjs';
import { expectNoSecret } from '../support/secrets.mjs';

describe('what no store is made from', () => {
  it.each([
    '',
    'nonsense',
    '//host/db',
    'postgres',
    'postgres://host:notaport/db',
    'mysql://host:99999/db',
    'sqlite',
    // The two contradict each other.
    'postgres://u@host/db?ssl=true&sslmode=prefer',
    'postgres://u@host/db?sslmode=verify-full&sslmode=disable',
    'mysql://u@host/db?ssl-mode=disable&ssl=1',
  ])('the URL %j: INVALID_CONNECTION', (url) => {
    const error = thrownBy(() => new SqlxStateStore(url));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ code: 'INVALID_CONNECTION', retryable: false });
  });

  it.each(['mssql://sa@localhost/db', 'oracle://localhost/db', 'mongodb://localhost/db', 'http://localhost/'])(
    'the URL %s: UNSUPPORTED_DATABASE, and the message names the kind',
    (url) => {
      const error = thrownBy(() => new SqlxStateStore(url));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', retryable: false, message: expect.stringContaining(url.split(':')[0]) });
    },
  );

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['a number', 42],
    ['an empty object', {}],
    ['a list', ['postgres://localhost/db']],
    ['a function', () => 'postgres://localhost/db'],
    ['parts without a dialect', { host: 'localhost', database: 'db' }],
  ])('%s', (name, connection) => {
    const error = thrownBy(() => new SqlxStateStore(connection));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT']).toContain(error.code);
  });

  it.each([
    ['prot', { dialect: 'postgres', prot: 5432 }],
    ['port', { dialect: 'postgres', port: 70_000 }],
    ['port', { dialect: 'postgres', port: 0 }],
    ['host', { dialect: 'mysql', host: 5 }],
    ['database', { dialect: 'mysql', database: {} }],
    ['user', { dialect: 'mariadb', user: 5 }],
    ['password', { dialect: 'mariadb', password: 5 }],
    ['storage', { dialect: 'sqlite', storage: 5 }],
  ])('parts of which `%s` is not right are refused, and it is named: %j', (name, connection) => {
    const error = thrownBy(() => new SqlxStateStore(connection));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(['INVALID_CONNECTION', 'INVALID_ARGUMENT']).toContain(error.code);
    expect(error.message).toContain(name);
  });

  it('parts of a foreign dialect: UNSUPPORTED_DATABASE', () => {
    const error = thrownBy(() => new SqlxStateStore({ dialect: 'mssql', host: 'localhost' }));
    expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', message: expect.stringContaining('mssql') });
  });

  // Their drivers are not installed here, so that Sequelize itself refuses: the shape is what counts.
  it.each(['mssql', 'oracle', 'db2', 'snowflake', 'ibmi'])('a Sequelize instance for %s: UNSUPPORTED_DATABASE', (dialect) => {
    const config = { host: 'localhost', port: 1433, database: 'db', username: 'sa', password: 'x', pool: {} };
    const foreign = { config, options: { dialect, define: {}, dialectOptions: {} }, getDialect: () => dialect };
    const error = thrownBy(() => new SqlxStateStore(foreign));
    expect(error).toBeInstanceOf(StateStoreError);
    expect(error).toMatchObject({ code: 'UNSUPPORTED_DATABASE', retryable: false, message: expect.stringContaining(dialect) });
  });

  it.each([
    'postgres://u:SECRET@host:notaport/db',
    'mysql://u:SECRET@host:99999/db',
    'mssql://u:SECRET@host/db',
    'postgres//u:SECRET@host/db',
    'u:SECRET@host',
  ])('the error for %s does not hold the password', (url) => {
    const error = thrownBy(() => new SqlxStateStore(url.replace('SECRET', 'hunter2%21')));
    expect(error).toBeInstanceOf(StateStoreError);
    expectNoSecret(error, ['hunter2']);
  });

  it('the class is called without `new`', () => {
    expect(() => SqlxStateStore('sqlite::memory:')).toThrow();
  });
});

describe('the options', () => {
  const REFUSED = [
    ['unknown', { unknown: 1 }],
    ['Pool', { Pool: {} }],
    ['maximum', { pool: { maximum: 3 } }],
    ['every', { leaseRenewal: { every: 5, forMs: 10 } }],
    ['rejectUnauthorized', { ssl: { rejectUnauthorized: false } }],
    ['schema', { schema: 5 }],
    ['schema', { schema: '' }],
    ['pool', { pool: 5 }],
    ['pool', { pool: [] }],
    ['max', { pool: { max: 0 } }],
    ['max', { pool: { max: 1_001 } }],
    ['max', { pool: { max: 1.5 } }],
    ['max', { pool: { max: '3' } }],
    ['max', { pool: { max: NaN } }],
    ['min', { pool: { min: -1 } }],
    ['min', { pool: { max: 2, min: 3 } }],
    ['acquireTimeoutMs', { pool: { acquireTimeoutMs: -1 } }],
    ['acquireTimeoutMs', { pool: { acquireTimeoutMs: '5' } }],
    ['idleTimeoutMs', { pool: { idleTimeoutMs: -1 } }],
    ['connectTimeoutMs', { connectTimeoutMs: -1 }],
    ['connectTimeoutMs', { connectTimeoutMs: '5000' }],
    ['statementTimeoutMs', { statementTimeoutMs: -1 }],
    ['statementTimeoutMs', { statementTimeoutMs: NaN }],
    ['statementTimeoutMs', { statementTimeoutMs: true }],
    ['ssl', { ssl: true }],
    ['mode', { ssl: { mode: 'sometimes' } }],
    ['ca', { ssl: { ca: 5 } }],
    ['statementCache', { statementCache: -1 }],
    ['statementCache', { statementCache: 10_001 }],
    ['statementCache', { statementCache: 0.5 }],
    ['statementCache', { statementCache: '0' }],
    ['durability', { durability: 'sometimes' }],
    ['durability', { durability: 1 }],
    ['leaseRenewal', { leaseRenewal: true }],
    ['leaseRenewal', { leaseRenewal: 5_000 }],
    ['everyMs', { leaseRenewal: { everyMs: 0, forMs: 10 } }],
    ['everyMs', { leaseRenewal: { everyMs: '5', forMs: 10 } }],
    ['everyMs', { leaseRenewal: { forMs: 10 } }],
    ['forMs', { leaseRenewal: { everyMs: 5 } }],
    ['forMs', { leaseRenewal: { everyMs: 5, forMs: -10 } }],
    ['maxClaims', { maxClaims: 0 }],
    ['maxClaims', { maxClaims: -1 }],
    ['maxClaims', { maxClaims: 1.5 }],
    ['maxClaims', { maxClaims: '3' }],
    ['tablePrefix', { tablePrefix: 5 }],
  ];

  it.each(REFUSED)('`%s` is not right in %o: INVALID_ARGUMENT that names it', (name, options) => {
    for (const url of ['postgres://localhost/db', 'mysql://localhost/db']) {
      const error = thrownBy(() => new SqlxStateStore(url, options));
      expect(error).toBeInstanceOf(StateStoreError);
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', retryable: false });
      expect(error.message).toContain(name);
    }
  });

  it.each([
    ['a number', 5],
    ['a text', 'x'],
    ['a list', []],
    ['a function', () => {}],
  ])('%s instead of options: INVALID_ARGUMENT', (name, options) => {
    expect(thrownBy(() => new SqlxStateStore('postgres://localhost/db', options))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it.each([
    [undefined],
    [{}],
    [{ schema: undefined, pool: undefined, ssl: undefined, leaseRenewal: undefined, maxClaims: undefined, durability: undefined }],
    [{ pool: {} }],
    [{ pool: { max: 1 } }],
    [{ pool: { max: 1_000, min: 0, acquireTimeoutMs: 1, idleTimeoutMs: 1 } }],
    [{ pool: { max: undefined } }],
    [{ schema: 'imports' }],
    [{ connectTimeoutMs: 1, statementTimeoutMs: 1 }],
    [{ ssl: {} }],
    [{ ssl: { mode: 'disable' } }],
    [{ ssl: { mode: 'prefer' } }],
    [{ ssl: { mode: 'require' } }],
    [{ statementCache: 0 }],
    [{ statementCache: 10_000 }],
    [{ durability: 'record' }],
    [{ durability: 'batch' }],
    [{ leaseRenewal: { everyMs: 1_000, forMs: 60_000 } }],
    [{ maxClaims: 1 }],
    [{ tablePrefix: 'my_' }],
  ])('%o make a store, which can be closed', async (options) => {
    const store = open('postgres://localhost/db', options);
    expect(store).toBeInstanceOf(SqlxStateStore);
    expect(await store.close()).toBeUndefined();
    await expect(store.getJobState('j')).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('the object is read once: changing it later changes nothing', async () => {
    const options = { pool: { max: 1 }, tablePrefix: 'x_' };
    const store = open('sqlite::memory:', options);
    options.pool.max = 'nonsense';
    options.unknown = true;
    await store.initialize();
    expect(await store.getJobState('j')).toBeNull();
  });
});
