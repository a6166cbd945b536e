/** Options are read as JavaScript reads properties: own ones, those of getters, and those of prototypes. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { makeJob, makeRecord, makeState } from './support/fixtures.mjs';
import { collect, rejection, SqlxStateStore, StateStoreError } from './support/suite.mjs';

/** The ways to have properties: an object that has these. */
const WAYS = {
  'own properties': (values) => values,
  getters: (values) =>
    Object.defineProperties(
      {},
      Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { get: () => value, enumerable: true }])),
    ),
  'a prototype': (values) => Object.create(values),
  'the getters of a class': (values) => {
    const prototype = {};
    for (const [name, value] of Object.entries(values)) Object.defineProperty(prototype, name, { get: () => value });
    return Object.create(prototype);
  },
  'a class with a toJSON that hides them': (values) => Object.assign(Object.create({ toJSON: () => ({}) }), values),
  'an object without a prototype': (values) => Object.assign(Object.create(null), values),
  'a proxy': (values) => new Proxy(values, {}),
};

const SECTIONS = {
  pool: ['max', 'min', 'acquireTimeoutMs', 'idleTimeoutMs'],
  ssl: ['mode', 'ca', 'cert', 'key'],
  leaseRenewal: ['everyMs', 'forMs'],
};

function refusal(make) {
  try {
    make();
  } catch (error) {
    expect(error).toBeInstanceOf(StateStoreError);
    return error;
  }
  return expect.unreachable('it was accepted');
}
const messageOf = (make) => refusal(make).message;
const storeWith = (options, connection = 'postgres://localhost/db') => new SqlxStateStore(connection, options);
/** The names that the message of an unknown option lists. */
const knownOf = (make) => /known are (.*)$/.exec(messageOf(make))[1].split(', ');

describe.each(Object.entries(WAYS))('from %s', (_, having) => {
  test('every option of the constructor counts', () => {
    // A wrong value shows that it was read.
    for (const name of knownOf(() => storeWith({ unknown: 1 }))) {
      expect(
        messageOf(() => storeWith(having({ [name]: [] }))),
        name,
      ).toContain(name);
    }
    for (const [section, names] of Object.entries(SECTIONS)) {
      expect(knownOf(() => storeWith({ [section]: { unknown: 1 } }))).toEqual(names);
      for (const name of names) {
        const others = section === 'leaseRenewal' ? { everyMs: 10, forMs: 20 } : {};
        expect(messageOf(() => storeWith({ [section]: having({ ...others, [name]: [] }) }))).toContain(`${section}.${name}`);
      }
    }
  });

  test('every part of a connection counts', () => {
    const known = knownOf(() => new SqlxStateStore({ dialect: 'postgres', unknown: 1 }));
    for (const name of known.filter((each) => each !== 'storage')) {
      expect(() => new SqlxStateStore(having({ dialect: 'postgres', [name]: [] })), name).toThrow(StateStoreError);
    }
    expect(() => new SqlxStateStore(having({ dialect: 'sqlite', storage: [] }))).toThrow(/storage|SQLite/);
  });

  test('every option of a method counts', async () => {
    const store = new SqlxStateStore(having({ dialect: 'sqlite', storage: ':memory:' }), having({ maxClaims: 5 }));
    onTestFinished(() => store.close());
    await store.initialize();
    const job = makeJob(1);
    const [{ id }] = job.batches;
    await store.saveJobState(job);
    await store.saveBatchRecords(job.id, id, [makeRecord(0), makeRecord(1, { status: 'failed' })]);
    expect(await collect(store.records(job.id, having({ status: 'failed' })))).toHaveLength(1);
    expect(await collect(store.records(job.id, having({ from: 1 })))).toHaveLength(1);
    expect(await collect(store.records(job.id, having({ batchId: 'another' })))).toEqual([]);
    expect(await store.listJobs(having({ status: 'PAUSED' }))).toEqual([]);
    expect(await store.listJobs(having({ after: having({ id: job.id, startedAt: job.startedAt }) }))).toEqual([]);
    const { reservation } = await store.claimBatch(job.id, 'w');
    const stale = having({ token: reservation.token - 1 });
    await rejection(store.updateBatchState(job.id, id, makeState(id, 'COMPLETED'), stale), 'LEASE_LOST');
    await rejection(store.saveProcessedRecord(job.id, id, makeRecord(0), stale), 'LEASE_LOST');
    await rejection(store.renewBatch(job.id, id, 'w', stale), 'LEASE_LOST');
    expect(await store.renewBatch(job.id, id, 'w', having({ token: reservation.token }))).toBe(true);
  });
});

test.each([
  ['a Map', new Map([['max', 5]])],
  ['a Set', new Set(['max'])],
  ['a Promise', Promise.resolve({ max: 5 })],
  ['a boxed Number', Object(5)],
  ['a boxed String', Object('max')],
  ['a Date', new Date()],
  ['a RegExp', /max/],
  ['a WeakMap', new WeakMap()],
  ['a URLSearchParams', new URLSearchParams('max=5')],
])('%s holds what its properties are not: refused by its name, wherever it stands', async (name, value) => {
  const refused = { code: 'INVALID_ARGUMENT', message: expect.stringContaining(`not ${name}`) };
  expect(refusal(() => storeWith(value))).toMatchObject(refused);
  for (const section of Object.keys(SECTIONS)) {
    expect(refusal(() => storeWith({ [section]: value }))).toMatchObject({
      ...refused,
      message: expect.stringMatching(`options.${section} .* not ${name}`),
    });
  }
  expect(refusal(() => new SqlxStateStore(value))).toMatchObject(refused);
  const store = new SqlxStateStore('sqlite::memory:');
  onTestFinished(() => store.close());
  await expect(store.records('j', value).next()).rejects.toMatchObject(refused);
  await expect(store.listJobs(value)).rejects.toMatchObject(refused);
  await expect(store.listJobs({ after: value })).rejects.toMatchObject(refused);
  await expect(store.saveProcessedRecord('j', 'b', makeRecord(0), value)).rejects.toMatchObject(refused);
  await expect(store.updateBatchState('j', 'b', makeState('b', 'FAILED'), value)).rejects.toMatchObject(refused);
  await expect(store.renewBatch('j', 'b', 'w', value)).rejects.toMatchObject(refused);
});

test('an unknown option is refused where a prototype has it too', () => {
  expect(messageOf(() => storeWith(Object.create({ poolSize: 5 })))).toContain('options.poolSize is unknown');
});

describe('a toJSON of a configuration or a schema says what is stored', () => {
  const field = { name: 'email', type: 'email', required: true };
  const hidden = { name: 'secret', type: 'string', required: false };
  class Fields extends Array {
    toJSON() {
      return [...this].filter(({ name }) => name !== 'secret');
    }
  }
  class Schema {
    fields = [field, hidden];
    toJSON() {
      return { fields: [{ ...field, pattern: /x/, transform: String }], strict: true };
    }
  }
  class Config {
    batchSize = 5;
    schema = { fields: [field, hidden] };
    toJSON() {
      return { batchSize: 5, schema: new Schema(), tenant: 't' };
    }
  }
  const said = { fields: [field], strict: true };
  test.each([
    ['of a schema', { batchSize: 5, schema: new Schema() }, { batchSize: 5, schema: said }],
    ['of a configuration, and then of its schema', new Config(), { batchSize: 5, schema: said, tenant: 't' }],
    [
      'of the list of fields',
      { batchSize: 5, schema: { fields: Fields.from([field, hidden]) } },
      { batchSize: 5, schema: { fields: [field] } },
    ],
    [
      'of a field',
      { batchSize: 5, schema: { fields: [{ ...hidden, toJSON: () => ({ ...field, customValidator: () => true, extra: 1 }) }] } },
      { batchSize: 5, schema: { fields: [field] } },
    ],
    [
      'that gives the object itself, which is asked once',
      {
        batchSize: 5,
        asked: 0,
        toJSON() {
          this.asked += 1;
          return this;
        },
      },
      { batchSize: 5, asked: 1 },
    ],
    [
      'of a schema that hides its fields',
      { batchSize: 5, schema: { fields: [hidden], toJSON: () => ({ version: 2 }) } },
      { batchSize: 5, schema: { version: 2 } },
    ],
  ])('%s', async (_, config, stored) => {
    const store = new SqlxStateStore('sqlite::memory:');
    onTestFinished(() => store.close());
    await store.initialize();
    const job = makeJob(0, { config });
    await store.saveJobState(job);
    expect((await store.getJobState(job.id)).config).toEqual(stored);
  });

  test('one that throws is the cause', async () => {
    const thrown = new Error('not today');
    const schema = {
      fields: [],
      toJSON() {
        throw thrown;
      },
    };
    const store = new SqlxStateStore('sqlite::memory:');
    onTestFinished(() => store.close());
    expect((await rejection(store.saveJobState(makeJob(0, { config: { batchSize: 1, schema } })), 'INVALID_ARGUMENT')).cause).toBe(thrown);
  });
});
