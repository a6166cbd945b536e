// What the package exports, and what a store shows of itself.

import { createRequire } from 'node:module';
import { Sequelize } from 'sequelize';
import { describe, expect, it, onTestFinished } from 'vitest';
import { SequelizeStateStore, SqlxStateStore, StateStoreError } from '../../index.js';
import { open, rejectionOf } from '../support/connections.mjs';
import { INDEX, runNode } from '../support/run-node.mjs';
import { expectNoSecret } from '../support/secrets.mjs';

const require = createRequire(import.meta.url);

describe('the exports', () => {
  it('are the same by import and by require', () => {
    const cjs = require('../../index.js');
    expect(cjs.SqlxStateStore).toBe(SqlxStateStore);
    expect(cjs.SequelizeStateStore).toBe(SqlxStateStore);
    expect(cjs.StateStoreError).toBe(StateStoreError);
  });

  it('have the class under the name of the adapter that it replaces', () => {
    expect(SequelizeStateStore).toBe(SqlxStateStore);
  });

  it('are named exports for an ES module', async () => {
    const source = `import * as all from ${JSON.stringify(INDEX.href)};
      import { SequelizeStateStore } from ${JSON.stringify(INDEX.href)};
      console.log(all.SqlxStateStore === SequelizeStateStore, typeof all.StateStoreError, new SqlxStateStore('sqlite::memory:') instanceof SequelizeStateStore);`;
    expect(await runNode(source)).toMatchObject({ code: 0, stdout: 'true function true\n' });
  });

  it('StateStoreError is an Error that an application can make', () => {
    const cause = new TypeError('why');
    const error = new StateStoreError('what', { code: 'CONSTRAINT', retryable: true, cause });
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: 'StateStoreError', message: 'what', code: 'CONSTRAINT', retryable: true, cause });
    expect(new StateStoreError('what', { code: 'INTERNAL' }).retryable).toBe(false);
  });

  it.each(['claimBatch', 'releaseBatch', 'getBatchRecords', 'getDistributedStatus', 'tryFinalizeJob', 'reclaimStaleBatches'])(
    '`%s` is in a store, as the engine asks',
    (method) => {
      const store = open('sqlite::memory:');
      expect(method in store).toBe(true);
      expect(typeof store[method]).toBe('function');
    },
  );

  it('a subclass is a store', async () => {
    class Mine extends SqlxStateStore {
      async getJobState(jobId) {
        return (await super.getJobState(jobId)) ?? 'none';
      }
    }
    const store = new Mine('sqlite::memory:');
    onTestFinished(() => store.close());
    await store.initialize();
    expect(store).toBeInstanceOf(Mine);
    expect(await store.getJobState('j')).toBe('none');
  });
});

describe('what a store shows of itself', () => {
  it.each([
    ['a URL', 'postgres://reader:hunter2%21x@127.0.0.1:1/db'],
    ['parts', { dialect: 'mysql', host: '127.0.0.1', port: 1, user: 'reader', password: 'hunter2!x', database: 'db' }],
    ['a Sequelize instance', new Sequelize('mariadb://reader:hunter2%21x@127.0.0.1:1/db', { logging: false })],
  ])('made from %s: no password', async (form, connection) => {
    const store = open(connection);
    expectNoSecret(store, ['hunter2!x', 'hunter2']);
    expect(await rejectionOf(store.getJobState('j'))).toMatchObject({ code: 'CONNECTION_FAILED' });
    expectNoSecret(store, ['hunter2!x', 'hunter2']);
  });
});
