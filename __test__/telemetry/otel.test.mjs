// `@batchactions/state-sqlx/otel`, with OpenTelemetry's own SDK: names and units are those of its semantic conventions.

import { createRequire } from 'node:module';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AsyncLocalStorage } from 'node:async_hooks';
import { context, diag, metrics, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import {
  AggregationTemporality,
  DataPointType,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import * as conventions from '@opentelemetry/semantic-conventions/incubating';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { BATCH_STATUSES, JOB_STATUSES, makeJob, makeRecord } from '../support/fixtures.mjs';
import { runNode } from '../support/run-node.mjs';
import { SqlxStateStore, claim, complete, onEveryDatabase, sleep } from '../support/suite.mjs';
import { WARNING_KINDS, callChannel } from '../support/telemetry.mjs';

const require = createRequire(import.meta.url);
const { instrument } = require('../../otel/index.js');
const dashboard = readFileSync(new URL('../../docs/grafana.json', import.meta.url), 'utf8');
const operations = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');

/** What the SDK exports. */
let sdk;

beforeEach(() => {
  const spans = new InMemorySpanExporter();
  const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] });
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  // It collects when asked.
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const meterProvider = new MeterProvider({ readers: [reader] });
  sdk = {
    providers: { tracerProvider, meterProvider },
    spans: () => spans.getFinishedSpans(),
    /** Metrics by name, of one collection. */
    async collect() {
      exporter.reset();
      await reader.forceFlush();
      const [collected] = exporter.getMetrics();
      return new Map((collected?.scopeMetrics ?? []).flatMap(({ metrics }) => metrics).map((metric) => [metric.descriptor.name, metric]));
    },
    shutdown: () => Promise.all([tracerProvider.shutdown(), meterProvider.shutdown()]),
  };
});
afterEach(() => sdk.shutdown());

const start = (options) => {
  const end = instrument({ ...sdk.providers, ...options });
  onTestFinished(() => end());
  return end;
};

async function openStore(connection = 'sqlite::memory:', options = undefined) {
  const store = new SqlxStateStore(connection, options);
  onTestFinished(() => store.close().catch(() => {}));
  await store.initialize();
  return store;
}

/** What it exports by this name: `[attributes, value]`. */
const pointsOf = (metrics, name) => (metrics.get(name)?.dataPoints ?? []).map(({ attributes, value }) => [attributes, value]);
const valueOf = (metrics, name, attributes) =>
  pointsOf(metrics, name).find(([own]) => Object.entries(attributes).every(([key, value]) => own[key] === value))?.[1];

const OURS = /^batchactions\./;
/** Values of the conventions by what they are: attributes, metrics. */
const conventionsOf = (prefix) =>
  new Set(
    Object.entries(conventions)
      .filter(([name]) => name.startsWith(prefix))
      .map(([, value]) => value),
  );

/** The units of the conventions for what is exported. */
const UNITS = {
  [conventions.METRIC_DB_CLIENT_OPERATION_DURATION]: 's',
  [conventions.METRIC_MESSAGING_CLIENT_OPERATION_DURATION]: 's',
  [conventions.METRIC_MESSAGING_CLIENT_CONSUMED_MESSAGES]: '{message}',
  [conventions.METRIC_DB_CLIENT_CONNECTION_COUNT]: '{connection}',
  [conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT]: '{connection}',
  [conventions.METRIC_DB_CLIENT_CONNECTION_PENDING_REQUESTS]: '{request}',
  'batchactions.store.warnings': '{warning}',
  'batchactions.jobs': '{job}',
  'batchactions.batches.open': '{batch}',
  'batchactions.claims.oldest_age': 's',
};

/** A job that has seen every kind of call that has a metric: with a warning, and a claim under way. */
async function busyStore() {
  const store = await openStore('sqlite::memory:', { maxClaims: 1 });
  const job = makeJob(3);
  await store.saveJobState(job);
  await claim(store, job.id, 'dead');
  await sleep(20);
  await store.reclaimStaleBatches(job.id, 1);
  await claim(store, job.id, 'alive');
  await sleep(20);
  return { store, job };
}

describe('spans', () => {
  test('of each call, by the conventions for database clients, with the ids', async () => {
    const store = await openStore();
    start();
    await store.saveBatchRecords('job', 'batch', [makeRecord(0), makeRecord(1)]);
    const [span] = sdk.spans();
    expect(span).toMatchObject({ name: 'saveBatchRecords :memory:', kind: SpanKind.CLIENT, status: { code: SpanStatusCode.UNSET } });
    expect(span.attributes).toEqual({
      [conventions.ATTR_DB_SYSTEM_NAME]: 'sqlite',
      [conventions.ATTR_DB_NAMESPACE]: ':memory:',
      [conventions.ATTR_DB_OPERATION_NAME]: 'saveBatchRecords',
      'batchactions.job.id': 'job',
      'batchactions.batch.id': 'batch',
      'batchactions.record.count': 2,
    });
    expect(span.instrumentationScope).toMatchObject({ name: '@batchactions/state-sqlx', version: require('../../package.json').version });
  });

  test('of a claim by those for messaging too, with the batch that was claimed', async () => {
    const store = await openStore();
    const job = makeJob(1);
    await store.saveJobState(job);
    start();
    const { batchId } = await claim(store, job.id, 'w');
    await store.claimBatch(job.id, 'w');
    const [claimed, empty] = sdk.spans();
    expect(claimed).toMatchObject({ name: 'claimBatch batchactions_batches', kind: SpanKind.CLIENT });
    const messaging = {
      [conventions.ATTR_MESSAGING_SYSTEM_NAME]: 'batchactions',
      [conventions.ATTR_MESSAGING_DESTINATION_NAME]: 'batchactions_batches',
      [conventions.ATTR_MESSAGING_OPERATION_NAME]: 'claimBatch',
      [conventions.ATTR_MESSAGING_OPERATION_TYPE]: conventions.MESSAGING_OPERATION_TYPE_VALUE_RECEIVE,
      [conventions.ATTR_DB_SYSTEM_NAME]: conventions.DB_SYSTEM_NAME_VALUE_SQLITE,
      'batchactions.job.id': job.id,
      'batchactions.worker.id': 'w',
    };
    expect(claimed.attributes).toMatchObject({
      ...messaging,
      'batchactions.batch.id': batchId,
      [conventions.ATTR_MESSAGING_MESSAGE_ID]: batchId,
    });
    expect(empty.attributes).toMatchObject(messaging);
    expect(empty.attributes).not.toHaveProperty('batchactions.batch.id');
  });

  test('of a call that rejects: its code is the type of the error', async () => {
    const store = await openStore();
    start();
    const error = await store.getProgress(5).catch((reason) => reason);
    const [span] = sdk.spans();
    expect(span.status).toEqual({ code: SpanStatusCode.ERROR, message: error.message });
    expect(span.attributes[conventions.ATTR_ERROR_TYPE]).toBe('INVALID_ARGUMENT');
  });

  test('are children of the span that is active at the call', async () => {
    // As the context manager of the SDK does it.
    const storage = new AsyncLocalStorage();
    context.setGlobalContextManager({
      active: () => storage.getStore() ?? ROOT_CONTEXT,
      with: (active, body, self, ...args) => storage.run(active, () => body.apply(self, args)),
      bind: (_, target) => target,
      enable() {
        return this;
      },
      disable() {
        return this;
      },
    });
    onTestFinished(() => context.disable());
    const store = await openStore();
    start();
    const parent = sdk.providers.tracerProvider.getTracer('test').startSpan('import');
    await context.with(trace.setSpan(context.active(), parent), async () => {
      await store.getProgress('j');
      await Promise.all([store.getProgress('k'), store.listJobs()]);
    });
    await store.getProgress('alone');
    const spans = sdk.spans();
    expect(spans.map((span) => span.parentSpanContext?.spanId)).toEqual([
      ...Array.from({ length: 3 }, () => parent.spanContext().spanId),
      undefined,
    ]);
  });

  test('use no attributes but those of the conventions and our own', async () => {
    start();
    await busyStore();
    const known = conventionsOf('ATTR_');
    const names = new Set(sdk.spans().flatMap(({ attributes }) => Object.keys(attributes)));
    expect(names.size).toBeGreaterThan(8);
    for (const name of names) expect(OURS.test(name) || known.has(name), name).toBe(true);
  });
});

describe('metrics', () => {
  test('have the names and units of the conventions, and no others but our own', async () => {
    const stores = [];
    start({ stores });
    stores.push((await busyStore()).store);
    const metrics = await sdk.collect();
    expect([...metrics.keys()].sort()).toEqual(Object.keys(UNITS).sort());
    const known = conventionsOf('METRIC_');
    for (const [name, { descriptor }] of metrics) {
      expect({ name, unit: descriptor.unit }).toEqual({ name, unit: UNITS[name] });
      expect(descriptor.description).not.toBe('');
      expect(OURS.test(name) || known.has(name), name).toBe(true);
    }
  });

  test('hold no ids, and no attributes but those of the conventions and our own', async () => {
    const stores = [];
    start({ stores });
    const { store, job } = await busyStore();
    stores.push(store);
    await store.getProgress(5).catch(() => {});
    const metrics = await sdk.collect();
    const known = conventionsOf('ATTR_');
    for (const { dataPoints } of metrics.values()) {
      expect(dataPoints.length).toBeGreaterThan(0);
      for (const { attributes } of dataPoints) {
        expect(JSON.stringify(attributes)).not.toContain(job.id);
        for (const name of Object.keys(attributes)) expect(OURS.test(name) || known.has(name), name).toBe(true);
      }
    }
  });

  test('of calls: how long each operation took, and why it failed, in the buckets of the conventions', async () => {
    const store = await openStore();
    start();
    for (let n = 0; n < 5; n++) await store.getProgress('j');
    await store.getProgress(5).catch(() => {});
    const metric = (await sdk.collect()).get(conventions.METRIC_DB_CLIENT_OPERATION_DURATION);
    expect(metric.dataPointType).toBe(DataPointType.HISTOGRAM);
    const [succeeded, failed] = metric.dataPoints;
    expect(succeeded.value.count).toBe(5);
    expect(succeeded.value.buckets.boundaries).toEqual([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]);
    expect(succeeded.value.sum).toBeLessThan(60);
    expect(succeeded.attributes).toEqual({ 'db.system.name': 'sqlite', 'db.namespace': ':memory:', 'db.operation.name': 'getProgress' });
    expect(failed.value.count).toBe(1);
    expect(failed.attributes).toMatchObject({ 'error.type': 'INVALID_ARGUMENT' });
  });

  test('of claims: how many batches were given out, and how long it took', async () => {
    const store = await openStore();
    const job = makeJob(2);
    await store.saveJobState(job);
    start();
    for (let n = 0; n < 3; n++) await store.claimBatch(job.id, 'w');
    const metrics = await sdk.collect();
    expect(pointsOf(metrics, conventions.METRIC_MESSAGING_CLIENT_CONSUMED_MESSAGES)).toEqual([[expect.anything(), 2]]);
    const [duration] = metrics.get(conventions.METRIC_MESSAGING_CLIENT_OPERATION_DURATION).dataPoints;
    expect(duration.value.count).toBe(3);
    expect(duration.attributes).toEqual({
      'messaging.system.name': 'batchactions',
      'messaging.destination.name': 'batchactions_batches',
      'messaging.operation.name': 'claimBatch',
      'messaging.operation.type': 'receive',
    });
  });

  test('of warnings: how many of each kind', async () => {
    start();
    const store = await openStore('sqlite::memory:', { maxClaims: 1 });
    const job = makeJob(3);
    await store.saveJobState(job);
    for (let n = 0; n < 2; n++) await claim(store, job.id);
    await sleep(20);
    await store.reclaimStaleBatches(job.id, 1);
    const given = async () =>
      valueOf(await sdk.collect(), 'batchactions.store.warnings', {
        'batchactions.warning.kind': 'batch-given-up',
        'db.system.name': 'sqlite',
      });
    await expect.poll(given, { timeout: 10_000 }).toBe(2);
  });

  test('of warnings begin at 0 with the first call of a store, so that an alert sees the first one', async () => {
    start();
    await openStore();
    const points = pointsOf(await sdk.collect(), 'batchactions.store.warnings');
    expect(points.map(([attributes]) => attributes['batchactions.warning.kind']).toSorted()).toEqual(
      [...WARNING_KINDS, 'dropped'].toSorted(),
    );
    for (const [attributes, value] of points) expect([attributes['db.system.name'], value]).toEqual(['sqlite', 0]);
  });

  test('of connections: used, idle, waiting and the most, by pool', async () => {
    const [first, second] = [await openStore(), await openStore('sqlite::memory:')];
    start({ stores: [first, second] });
    const metrics = await sdk.collect();
    const pools = pointsOf(metrics, conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT);
    expect(pools.map(([attributes]) => attributes[conventions.ATTR_DB_CLIENT_CONNECTION_POOL_NAME])).toEqual([
      'sqlite/:memory:',
      'sqlite/:memory:#2',
    ]);
    for (const [, limit] of pools) expect(limit).toBe(1);
    const states = pointsOf(metrics, conventions.METRIC_DB_CLIENT_CONNECTION_COUNT).map(
      ([attributes, value]) => `${attributes[conventions.ATTR_DB_CLIENT_CONNECTION_STATE]} ${value}`,
    );
    expect(states).toEqual(['used 0', 'idle 1', 'used 0', 'idle 1']);
    expect(pointsOf(metrics, conventions.METRIC_DB_CLIENT_CONNECTION_PENDING_REQUESTS).map(([, value]) => value)).toEqual([0, 0]);
  });

  test('of jobs, open batches and the oldest claim, from one stats() per collection, which has no span of its own', async () => {
    const { store } = await busyStore();
    start({ stores: [store] });
    const metrics = await sdk.collect();
    expect(
      pointsOf(metrics, 'batchactions.jobs')
        .map(([attributes]) => attributes['batchactions.job.status'])
        .sort(),
    ).toEqual([...JOB_STATUSES].sort());
    expect(valueOf(metrics, 'batchactions.jobs', { 'batchactions.job.status': 'PROCESSING' })).toBe(1);
    const open = pointsOf(metrics, 'batchactions.batches.open');
    expect(open.every(([attributes]) => BATCH_STATUSES.includes(attributes['batchactions.batch.status']))).toBe(true);
    expect(valueOf(metrics, 'batchactions.batches.open', { 'batchactions.batch.status': 'PENDING' })).toBe(1);
    expect(valueOf(metrics, 'batchactions.batches.open', { 'batchactions.batch.status': 'PROCESSING' })).toBe(1);
    const [[, age]] = pointsOf(metrics, 'batchactions.claims.oldest_age');
    expect(age).toBeGreaterThan(0);
    expect(age).toBeLessThan(600);
    const calls = metrics.get(conventions.METRIC_DB_CLIENT_OPERATION_DURATION).dataPoints;
    expect(calls.map(({ attributes, value }) => [attributes['db.operation.name'], value.count])).toEqual([['stats', 1]]);
    expect(sdk.spans()).toEqual([]);
  });

  test('of a store that can not be asked are left out, and the others are there', async () => {
    const { store } = await busyStore();
    const unreachable = new SqlxStateStore('postgres://u@127.0.0.1:1/d');
    onTestFinished(() => unreachable.close());
    const closed = await openStore();
    await closed.close();
    const told = [];
    diag.setLogger({ error() {}, info() {}, debug() {}, verbose() {}, warn: (...args) => told.push(args) });
    onTestFinished(() => diag.disable());
    start({ stores: [unreachable, closed, store] });
    const metrics = await sdk.collect();
    expect(valueOf(metrics, 'batchactions.jobs', { 'batchactions.job.status': 'PROCESSING' })).toBe(1);
    expect(told.map(([text, error]) => [text, error.code])).toEqual([
      [expect.stringContaining('could not be observed'), 'CONNECTION_FAILED'],
    ]);
  });

  test('of a store whose stats() does not answer: the connections are there, those of other stores too, and it is asked once', async () => {
    const { store } = await busyStore();
    const asked = { times: 0 };
    const silent = Object.assign(Object.create(await openStore()), {
      stats() {
        asked.times += 1;
        return new Promise(() => {});
      },
    });
    const told = [];
    diag.setLogger({ error() {}, info() {}, debug() {}, verbose() {}, warn: (...args) => told.push(args) });
    onTestFinished(() => diag.disable());
    start({ stores: [silent, store, silent] });
    for (const _ of [1, 2]) {
      const metrics = await sdk.collect();
      const pools = pointsOf(metrics, conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT);
      expect(pools.map(([attributes]) => attributes[conventions.ATTR_DB_CLIENT_CONNECTION_POOL_NAME])).toEqual([
        'sqlite/:memory:',
        'sqlite/:memory:#2',
      ]);
      expect(valueOf(metrics, 'batchactions.jobs', { 'batchactions.job.status': 'PROCESSING' })).toBe(1);
    }
    expect(asked.times).toBe(1);
    expect(told.map(([, error]) => error.message)).toEqual(['stats() did not answer within 2000 ms']);
  });

  test('of a store that answered late are there again, and what only wraps a store is shown', async () => {
    const { store } = await busyStore();
    let answer;
    const late = new Promise((resolve) => (answer = resolve));
    let asked = 0;
    const wrapper = {
      poolStats: () => store.poolStats(),
      stats() {
        const stats = store.stats();
        return (asked += 1) === 1 ? late : stats;
      },
    };
    start({ stores: [wrapper] });
    expect((await sdk.collect()).has('batchactions.jobs')).toBe(false);
    answer(await store.stats());
    await late;
    const metrics = await sdk.collect();
    expect(valueOf(metrics, 'batchactions.jobs', { 'batchactions.job.status': 'PROCESSING', 'db.namespace': ':memory:' })).toBe(1);
    const pool = (collected) =>
      pointsOf(collected, conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT).map(
        ([attributes]) => attributes[conventions.ATTR_DB_CLIENT_CONNECTION_POOL_NAME],
      );
    expect(pool(metrics)).toEqual(['sqlite/:memory:']);
    expect(pool(await sdk.collect())).toEqual(['sqlite/:memory:']);
  });

  /** Runs a store through all that has a metric. Returns the names that Prometheus gives to the metrics, each with its labels. */
  const exportedNames = async () => {
    const stores = [];
    start({ stores });
    const { store } = await busyStore();
    stores.push(store);
    await store.getProgress(5).catch(() => {});
    const exported = new Map();
    for (const [name, { descriptor, dataPointType, dataPoints }] of await sdk.collect()) {
      const labels = dataPoints.flatMap(({ attributes }) => Object.keys(attributes)).map((key) => key.replaceAll('.', '_'));
      for (const each of prometheusNames(name, descriptor, dataPointType)) exported.set(each, new Set([...labels, 'le']));
    }
    return exported;
  };

  /** The metrics that expressions of Prometheus use, all of which are exported, with the labels that are asked for. */
  const namesIn = (expressions, exported) => {
    const used = new Set();
    for (const expression of expressions) {
      for (const [, name, filter = ''] of expression.matchAll(/\b((?:db_client|messaging_client|batchactions)_\w+)(\{[^}]*\})?/g)) {
        // Labels in `by (…)` are checked with the rest of the labels.
        if (exported.has(name)) {
          used.add(name);
          for (const [, label] of filter.matchAll(/(\w+)\s*(?:=|!=|=~|!~)/g))
            expect(exported.get(name), `${name}{${label}}`).toContain(label);
        } else {
          const isLabel = [...exported.values()].some((labels) => labels.has(name));
          expect(isLabel, `${name} in ${expression}`).toBe(true);
        }
      }
    }
    return used;
  };

  test('are those of the five alerts', async () => {
    const expressions = [...operations.matchAll(/^ *expr: (.+)$/gm)].map(([, expression]) => expression);
    expect(expressions).toHaveLength(5);
    const exported = await exportedNames();
    for (const expression of expressions) expect(namesIn([expression], exported).size, expression).toBeGreaterThan(0);
    // The kinds that an alert names exist.
    const kinds = [...operations.matchAll(/batchactions_warning_kind=~"([^"]+)"/g)].flatMap(([, all]) => all.split('|'));
    expect(kinds.length).toBeGreaterThan(0);
    for (const kind of kinds) expect(WARNING_KINDS).toContain(kind);
  });

  test('are in the dashboard, which shows no other', async () => {
    const exported = await exportedNames();
    const expressions = [...JSON.stringify(JSON.parse(dashboard)).matchAll(/"expr":"((?:[^"\\]|\\.)*)"/g)].map(([, text]) =>
      JSON.parse(`"${text}"`),
    );
    expect(expressions.length).toBeGreaterThan(8);
    const used = namesIn(expressions, exported);
    const shown = (name, { descriptor, dataPointType }) => prometheusNames(name, descriptor, dataPointType).some((each) => used.has(each));
    for (const [name, metric] of await sdk.collect()) expect(shown(name, metric), `${name} is in the dashboard`).toBe(true);
  });
});

/** The names under which Prometheus has a metric, by OpenTelemetry's rules: the unit and `total` are appended. */
function prometheusNames(name, { unit }, dataPointType) {
  const words = unit === 's' ? '_seconds' : '';
  const base = `${name.replaceAll('.', '_')}${words}`;
  if (dataPointType === DataPointType.HISTOGRAM) return [`${base}_bucket`, `${base}_count`, `${base}_sum`];
  return [name.endsWith('.warnings') || name.endsWith('.messages') ? `${base}_total` : base];
}

onEveryDatabase((on) => {
  test('spans and metrics say which database it is', async () => {
    start({ stores: [on.store] });
    await on.store.getProgress('j');
    const [span] = sdk.spans();
    const known = conventionsOf('DB_SYSTEM_NAME_VALUE_');
    expect(known.has(span.attributes['db.system.name'])).toBe(true);
    if (on.has('server')) {
      const { host, port } = on.address;
      const name = new URL(on.url).pathname.slice(1);
      expect(span.name).toBe(`getProgress ${name}`);
      expect(span.attributes).toMatchObject({ 'server.address': host, 'server.port': port, 'db.namespace': name });
      const pools = pointsOf(await sdk.collect(), 'db.client.connection.limit');
      expect(pools).toEqual([[{ 'db.client.connection.pool.name': `${host}:${port}/${name}` }, 10]]);
    }
  });

  on.needs('schemas')('two stores in one database are told apart by their schemas', async () => {
    const { url } = await on.createEmpty();
    const stores = [await openStore(url, { schema: 'north' }), await openStore(url, { schema: 'south' })];
    await stores[0].saveJobState(makeJob(1, { status: 'PROCESSING' }));
    start({ stores });
    await stores[1].getProgress('j');
    const name = new URL(url).pathname.slice(1);
    const [span] = sdk.spans();
    expect(span.name).toBe(`getProgress ${name}|south`);
    expect(span.attributes['db.namespace']).toBe(`${name}|south`);
    const collected = await sdk.collect();
    const processing = (schema) =>
      valueOf(collected, 'batchactions.jobs', { 'db.namespace': `${name}|${schema}`, 'batchactions.job.status': 'PROCESSING' });
    expect([processing('north'), processing('south')]).toEqual([1, 0]);
    const pools = pointsOf(collected, 'db.client.connection.limit').map(([attributes]) => attributes['db.client.connection.pool.name']);
    expect(pools.map((pool) => pool.replace(/.*\|/, ''))).toEqual(['north', 'south']);
  });
});

describe('instrument()', () => {
  test('ends when what it returns is called, and the spans of calls under way end with those', async () => {
    const store = await openStore();
    const before = callChannel('asyncEnd').hasSubscribers;
    const end = start({ stores: [store] });
    const calls = [store.getProgress('j'), store.getProgress(5).catch(() => {})];
    end();
    end();
    expect(callChannel('start').hasSubscribers).toBe(false);
    await Promise.all([...calls, store.getProgress('k')]);
    if (Symbol.dispose) expect(end[Symbol.dispose]).toBe(end);
    expect(
      sdk
        .spans()
        .map(({ attributes }) => [attributes['batchactions.job.id'], attributes['error.type']])
        .sort(),
    ).toEqual([
      [undefined, 'INVALID_ARGUMENT'],
      ['j', undefined],
    ]);
    expect([before, callChannel('asyncEnd').hasSubscribers]).toEqual([false, false]);
    const metrics = await sdk.collect();
    expect([...metrics.keys()]).toEqual(['db.client.operation.duration', 'batchactions.store.warnings']);
  });

  test('ends at once where no call is under way', async () => {
    const store = await openStore();
    const end = start({ stores: [store] });
    await store.getProgress('j');
    end();
    expect(['start', 'asyncEnd'].map((event) => callChannel(event).hasSubscribers)).toEqual([false, false]);
    await store.getProgress('k');
    expect(sdk.spans()).toHaveLength(1);
  });

  test('takes the global providers, and without any it costs nothing and does no harm', async () => {
    const store = await openStore();
    const end = instrument({ stores: [store] });
    await store.getProgress('j');
    end();
    metrics.setGlobalMeterProvider(sdk.providers.meterProvider);
    trace.setGlobalTracerProvider(sdk.providers.tracerProvider);
    onTestFinished(() => {
      metrics.disable();
      trace.disable();
    });
    const endGlobal = instrument();
    onTestFinished(() => endGlobal());
    await store.getProgress('j');
    expect(sdk.spans()).toHaveLength(1);
    expect((await sdk.collect()).has('db.client.operation.duration')).toBe(true);
    await complete(store, 'unknown', 'b');
  });

  test('is what the package exports as ./otel', async () => {
    const source = `console.log(typeof (await import('@batchactions/state-sqlx/otel')).instrument)`;
    const { code, stdout, stderr } = await runNode(source, { cwd: new URL('../..', import.meta.url) });
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'function\n', stderr: '' });
  });

  test('without @opentelemetry/api, says what is missing', () => {
    const folder = mkdtempSync(join(tmpdir(), 'batchactions-otel-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    for (const name of ['package.json', 'otel/index.js']) cpSync(new URL(`../../${name}`, import.meta.url), join(folder, name));
    expect(() => require(join(folder, 'otel', 'index.js'))).toThrow(/needs the package @opentelemetry\/api.*npm install/);
  });
});
