'use strict';

// Spans and metrics of stores, by OpenTelemetry's semantic conventions for database clients and messaging. It listens on the channels on which every store
// of the process reports its calls and warnings (see StoreCall and StoreWarning in index.d.ts), so it neither loads the addon nor changes a store.

const { channel } = require('node:diagnostics_channel');
const { performance } = require('node:perf_hooks');
const { version } = require('../package.json');

const NAME = '@batchactions/state-sqlx';
/** The buckets that the conventions advise, in seconds. */
const DB_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];
const MESSAGING_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** A claim receives a message: a batch from the table that is the queue. */
const CLAIM = 'claimBatch';
const CLAIM_ATTRIBUTES = {
  'messaging.system.name': 'batchactions',
  'messaging.destination.name': 'batchactions_batches',
  'messaging.operation.name': CLAIM,
  'messaging.operation.type': 'receive',
};

function loadApi() {
  try {
    return require('@opentelemetry/api');
  } catch (cause) {
    if (cause.code !== 'MODULE_NOT_FOUND') throw cause;
    throw new Error(`${NAME}/otel needs the package @opentelemetry/api, which is not installed: npm install @opentelemetry/api`, { cause });
  }
}

const api = loadApi();

/** `StoreWarningKind` of the store's index.d.ts, and what stands for warnings that were left out. */
const WARNING_KINDS = [
  'list-behind',
  'renewal-failed',
  'claim-taken',
  'batch-given-up',
  'queued-write-failed',
  'connection-lost',
  'connection-refused',
  'index-missing',
  'panic',
  'dropped',
];

/** How long a collection waits for the `stats()` of the stores, in milliseconds. */
const STATS_MS = 2_000;
const LATE = Symbol('late');

/** The method that tells where a store is. What only wraps a store has none. */
const SERVER = Symbol.for('batchactions-sqlx.server');

/** `db.namespace`: the database, on PostgreSQL with the schema. By the conventions, a component that is missing is left out with its separator. */
function namespaceOf(server) {
  const components = [server?.database, server?.schema].filter((each) => each !== undefined);
  return components.length === 0 ? undefined : components.join('|');
}

/** The attributes of a server, without those that it lacks. */
function serverAttributes(server, { system = true } = {}) {
  const attributes = {};
  const set = (name, value) => {
    if (value !== undefined) attributes[name] = value;
  };
  if (system) set('db.system.name', server?.system);
  if (system) set('db.namespace', namespaceOf(server));
  set('server.address', server?.host);
  set('server.port', server?.port);
  return attributes;
}

/** The attributes of calls, made once for each server and operation. */
class Attributes {
  #byServer = new WeakMap();
  #unknown = new Map();

  #of(server) {
    if (server === undefined) return this.#unknown;
    if (!this.#byServer.has(server)) this.#byServer.set(server, new Map());
    return this.#byServer.get(server);
  }

  get({ server, operation }) {
    const known = this.#of(server);
    if (!known.has(operation)) {
      const call = { ...serverAttributes(server), 'db.operation.name': operation };
      known.set(operation, {
        call,
        // What tells instances of one span apart is no part of its name.
        span: operation === CLAIM ? { ...call, ...CLAIM_ATTRIBUTES } : call,
        spanName: spanName(server, operation),
        claim: operation === CLAIM ? { ...CLAIM_ATTRIBUTES, ...serverAttributes(server, { system: false }) } : undefined,
      });
    }
    return known.get(operation);
  }
}

/** `{db.operation.name} {target}`, or of a claim `{messaging.operation.name} {messaging.destination.name}`. */
function spanName(server, operation) {
  if (operation === CLAIM) return `${CLAIM} ${CLAIM_ATTRIBUTES['messaging.destination.name']}`;
  const { host, port } = server ?? {};
  const target = namespaceOf(server) ?? (host && (port === undefined ? host : `${host}:${port}`));
  return target === undefined ? operation : `${operation} ${target}`;
}

function errorType(error) {
  const { code, name } = Object(error);
  return typeof code === 'string' ? code : typeof name === 'string' ? name : '_OTHER';
}

const idsOf = ({ jobId, batchId, workerId, count }) => {
  const ids = {};
  if (jobId !== undefined) ids['batchactions.job.id'] = jobId;
  if (batchId !== undefined) ids['batchactions.batch.id'] = batchId;
  if (workerId !== undefined) ids['batchactions.worker.id'] = workerId;
  if (count !== undefined) ids['batchactions.record.count'] = count;
  return ids;
};

/**
 * @param {import('./index.js').InstrumentOptions} [options]
 * @returns {import('./index.js').Instrumentation}
 */
function instrument({ meterProvider, tracerProvider, stores = [] } = {}) {
  const tracer = (tracerProvider ?? api.trace.getTracerProvider()).getTracer(NAME, version);
  const meter = (meterProvider ?? api.metrics.getMeterProvider()).getMeter(NAME, version);
  const attributes = new Attributes();

  const duration = meter.createHistogram('db.client.operation.duration', {
    description: 'Duration of database client operations.',
    unit: 's',
    advice: { explicitBucketBoundaries: DB_BUCKETS },
  });
  const claimDuration = meter.createHistogram('messaging.client.operation.duration', {
    description: 'Duration of messaging operation initiated by a producer or consumer client.',
    unit: 's',
    advice: { explicitBucketBoundaries: MESSAGING_BUCKETS },
  });
  const consumed = meter.createCounter('messaging.client.consumed.messages', {
    description: 'Number of messages that were delivered to the application.',
    unit: '{message}',
  });
  const warnings = meter.createCounter('batchactions.store.warnings', {
    description: 'What happened in the background of a store, by kind.',
    unit: '{warning}',
  });

  // The calls under way. Each of them ends.
  const calls = new Map();
  let ended = false;
  /** Set while this file makes a call of its own, which gets no span. */
  let own;

  const onStart = (call) => {
    if (own !== undefined) own.server = call.server;
    if (call.server !== undefined && !counting.has(call.server)) countFromZero(call.server);
    const known = attributes.get(call);
    const began = performance.now();
    const span =
      own === undefined
        ? tracer.startSpan(known.spanName, { kind: api.SpanKind.CLIENT, attributes: { ...known.span, ...idsOf(call) } })
        : undefined;
    calls.set(call, { known, began, span });
  };

  const onEnd = (call) => {
    // It began before this instrumentation.
    const begun = calls.get(call);
    if (begun === undefined) return;
    calls.delete(call);
    if (ended && calls.size === 0) unsubscribeEnd();
    const { known, began, span } = begun;
    const seconds = (performance.now() - began) / 1_000;
    const failed = 'error' in call ? { 'error.type': errorType(call.error) } : undefined;
    duration.record(seconds, failed ? { ...known.call, ...failed } : known.call);
    const batchId = known.claim && call.result?.reservation?.batchId;
    if (known.claim) {
      claimDuration.record(seconds, failed ? { ...known.claim, ...failed } : known.claim);
      if (batchId !== undefined) consumed.add(1, known.claim);
    }
    if (span === undefined) return;
    if (batchId !== undefined) span.setAttributes({ 'batchactions.batch.id': batchId, 'messaging.message.id': batchId });
    if (failed) {
      span.setAttributes(failed);
      span.setStatus({ code: api.SpanStatusCode.ERROR, message: String(call.error?.message ?? call.error) });
    }
    span.end();
  };

  /** The servers whose warnings are counted. */
  const counting = new WeakSet();
  // Prometheus sees no increase in a counter whose first value is 1. So an alert would miss the first warning of a process, often the only one.
  const countFromZero = (server) => {
    counting.add(server);
    for (const kind of WARNING_KINDS) warnings.add(0, { ...serverAttributes(server), 'batchactions.warning.kind': kind });
  };

  const onWarning = ({ kind, count = 1, dropped = 0, server }) => {
    const known = serverAttributes(server);
    warnings.add(count, { ...known, 'batchactions.warning.kind': kind });
    if (dropped > 0) warnings.add(dropped, { ...known, 'batchactions.warning.kind': 'dropped' });
  };

  const unsubscribeStart = subscribe('tracing:batchactions.store:start', onStart);
  const unsubscribeEnd = subscribe('tracing:batchactions.store:asyncEnd', onEnd);
  const unsubscribeWarnings = subscribe('batchactions.store.warning', onWarning);

  /** `stats()` of a store, and where it is. */
  const ask = (store) => {
    own = { server: undefined };
    try {
      const counts = store.stats();
      return { counts, server: own.server };
    } finally {
      own = undefined;
    }
  };
  const stopObserving = observe(meter, () => new Set(stores), ask);

  const end = () => {
    if (ended) return;
    ended = true;
    unsubscribeStart();
    unsubscribeWarnings();
    stopObserving();
    // The spans of calls under way are to end.
    if (calls.size === 0) unsubscribeEnd();
  };
  // Node 20 has `Symbol.dispose` since 20.0, other runtimes may not.
  if (Symbol.dispose) end[Symbol.dispose] = end;
  return end;
}

/** Subscribes, and returns what ends it. */
function subscribe(name, listener) {
  const to = channel(name);
  to.subscribe(listener);
  return () => to.unsubscribe(listener);
}

/** The gauges of the given stores: their connections, and what one `stats()` per collection and store counts. */
function observe(meter, stores, ask) {
  const connections = meter.createObservableUpDownCounter('db.client.connection.count', {
    description: 'The number of connections that are currently in state described by the `state` attribute.',
    unit: '{connection}',
  });
  const limit = meter.createObservableUpDownCounter('db.client.connection.limit', {
    description: 'The maximum number of open connections allowed.',
    unit: '{connection}',
  });
  const pending = meter.createObservableUpDownCounter('db.client.connection.pending_requests', {
    description: 'The number of current pending requests for an open connection.',
    unit: '{request}',
  });
  const jobs = meter.createObservableGauge('batchactions.jobs', { description: 'Jobs, by status.', unit: '{job}' });
  const batches = meter.createObservableGauge('batchactions.batches.open', {
    description: 'Batches of distributed jobs that are neither COMPLETED nor FAILED, by status.',
    unit: '{batch}',
  });
  const oldest = meter.createObservableGauge('batchactions.claims.oldest_age', {
    description: 'How long ago the oldest claim was made or renewed.',
    unit: 's',
  });
  const pools = [connections, limit, pending];
  const counts = [jobs, batches, oldest];
  const poolNames = new PoolNames();
  /** Where the stores are that do not tell it: as their last `stats()` has it. */
  const servers = new WeakMap();
  /** The stores whose `stats()` is under way. */
  const asked = new WeakSet();

  const couldNot = (error) => {
    if (error?.code !== 'CLOSED') api.diag.warn(`${NAME}/otel: a store could not be observed`, error);
  };

  // Apart from the others, because it waits for nothing: connections are shown just when the database is slow.
  const observePools = (result) => {
    for (const store of stores()) {
      try {
        const tells = typeof store[SERVER] === 'function';
        // A name that changed would leave the old one among the metrics, so this waits for the first `stats()` to have begun.
        if (!tells && !servers.has(store)) continue;
        const { used, idle, pending: waiting, max } = store.poolStats();
        const pool = { 'db.client.connection.pool.name': poolNames.of(store, tells ? store[SERVER]() : servers.get(store)) };
        result.observe(connections, used, { ...pool, 'db.client.connection.state': 'used' });
        result.observe(connections, idle, { ...pool, 'db.client.connection.state': 'idle' });
        result.observe(limit, max, pool);
        result.observe(pending, waiting, pool);
      } catch (error) {
        couldNot(error);
      }
    }
  };

  const observeCounts = async (result, store, late) => {
    // That of an earlier collection is not over.
    if (asked.has(store)) return;
    const { counts: answer, server } = ask(store);
    servers.set(store, server);
    asked.add(store);
    const answered = Promise.resolve(answer).finally(() => asked.delete(store));
    const stats = await Promise.race([answered, late]);
    if (stats === LATE) throw new Error(`stats() did not answer within ${STATS_MS} ms`);
    const place = serverAttributes(server);
    for (const [status, count] of Object.entries(stats.jobs)) result.observe(jobs, count, { ...place, 'batchactions.job.status': status });
    for (const [status, count] of Object.entries(stats.batches)) {
      result.observe(batches, count, { ...place, 'batchactions.batch.status': status });
    }
    if (stats.oldestClaimMs !== undefined) result.observe(oldest, stats.oldestClaimMs / 1_000, place);
  };

  const observeAllCounts = async (result) => {
    let timer;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, STATS_MS, LATE);
      timer.unref?.();
    });
    // Concurrently, so that a slow database delays no other. A store that can't be asked is left out, and the others are shown.
    const observed = await Promise.allSettled(Array.from(stores(), (store) => observeCounts(result, store, late)));
    clearTimeout(timer);
    for (const { status, reason } of observed) if (status === 'rejected') couldNot(reason);
  };

  // In this order, so that connections are counted before `stats()` takes one.
  meter.addBatchObservableCallback(observePools, pools);
  meter.addBatchObservableCallback(observeAllCounts, counts);
  return () => {
    meter.removeBatchObservableCallback(observePools, pools);
    meter.removeBatchObservableCallback(observeAllCounts, counts);
  };
}

/** Names of pools, unique within the process: `host:port/namespace`, and `…#2` for a second store in the same namespace. */
class PoolNames {
  #byStore = new WeakMap();
  #given = new Map();

  of(store, server) {
    if (!this.#byStore.has(store)) {
      const { system, host, port } = server ?? {};
      const address = port === undefined ? (host ?? system ?? 'unknown') : `${host}:${port}`;
      const namespace = namespaceOf(server);
      const base = namespace === undefined ? address : `${address}/${namespace}`;
      const number = (this.#given.get(base) ?? 0) + 1;
      this.#given.set(base, number);
      this.#byStore.set(store, number === 1 ? base : `${base}#${number}`);
    }
    return this.#byStore.get(store);
  }
}

module.exports.instrument = instrument;
