'use strict';

// Loads the addon of this platform and is the JavaScript half of the boundary: each call passes one JSON text in each direction, which is written and read
// here, by the user's own engine (see src/js/boundary.rs). A test runner may load this file in many realms of one thread, each with its own `Error`, `Array`
// and timers. So values and errors are made here, the addon keeps nothing of a realm, and no timer is used.

const { channel } = require('node:diagnostics_channel');
const { existsSync } = require('node:fs');
const { performance } = require('node:perf_hooks');
const { join } = require('node:path');
const { inspect, types } = require('node:util');

class StateStoreError extends Error {
  constructor(message, { code, retryable = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = retryable;
  }
}
Object.defineProperty(StateStoreError.prototype, 'name', { value: 'StateStoreError', configurable: true, writable: true });

const { parse, stringify } = JSON;

const invalid = (message, cause) => new StateStoreError(message, { code: 'INVALID_ARGUMENT', cause });
const isObject = (value) => typeof value === 'object' && value !== null;

/** `Array.isArray` throws for a proxy that has been revoked. */
function isArray(value) {
  try {
    return Array.isArray(value);
  } catch {
    return false;
  }
}

/** `instanceof` throws for a proxy that has been revoked. */
function isOurs(error) {
  try {
    return error instanceof StateStoreError;
  } catch {
    return false;
  }
}

/** A wrong value as messages show it: short, and without running any code of the value. */
function describe(value) {
  if (typeof value === 'string') return stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  if (typeof value === 'bigint') return 'a BigInt';
  if (isArray(value)) return 'an array';
  return isObject(value) ? 'an object' : String(value);
}

/** Whether JSON can't express the value: `JSON.stringify` leaves it out, writes null in its place, or throws. */
function isInexpressible(value) {
  switch (typeof value) {
    case 'number':
      return !Number.isFinite(value);
    case 'function':
    case 'symbol':
    case 'bigint':
      return true;
    default:
      return false;
  }
}

/**
 * A value that must be of a simple type, for JSON. An object goes as an empty one, which no simple type takes either: its `toJSON` must not make something
 * valid of it.
 */
const simple = (value) => (isArray(value) ? [] : isObject(value) || isInexpressible(value) ? {} : value);

/** A field of a job, batch, record or state that has a type of its own: in an array of things, the one at the place `at`. */
function typed(value, expected, thing, key, at) {
  // `JSON.stringify` says what is wrong with it, unless the program gives BigInts a `toJSON`.
  if (typeof value === 'bigint') return value;
  if (isInexpressible(value)) {
    throw invalid(`${thing}${at === undefined ? '' : `[${at}]`}.${key} must be ${expected}, not ${describe(value)}`);
  }
  return isObject(value) && !isArray(value) ? {} : value;
}

const TEXT = 'a string';
const WHOLE = 'a whole number';
const TIME = 'a time in whole epoch milliseconds';

// The validators and transforms of a field are functions, and its pattern is an object that JSON can't express: stored is what can be read back.
function storableField(field) {
  const { name, type, required, defaultValue, separator, aliases } = isObject(field) ? field : {};
  const stored = {
    name: typeof name === 'string' ? name : '',
    type: typeof type === 'string' ? type : '',
    required: typeof required === 'boolean' ? required : false,
  };
  if (defaultValue !== undefined) stored.defaultValue = defaultValue;
  if (separator !== undefined) stored.separator = separator;
  if (aliases !== undefined) stored.aliases = aliases;
  return stored;
}

/** What `JSON.stringify` writes of a value: the result of its `toJSON`, if it has one. That is called once, as `JSON.stringify` does. */
function written(value, key) {
  if ((!isObject(value) && typeof value !== 'function') || typeof value.toJSON !== 'function') return value;
  const said = value.toJSON(key);
  if (!isObject(said) || typeof said.toJSON !== 'function') return said;
  return isArray(said) ? [...said] : { ...said, toJSON: undefined };
}

function storableConfig(config) {
  const said = written(config, 'config');
  if (!isObject(said) || isArray(said) || types.isBoxedPrimitive(said)) return said;
  const stored = { ...said };
  stored.schema = written(stored.schema, 'schema');
  const { schema } = stored;
  if (!isObject(schema)) return stored;
  const fields = written(schema.fields, 'fields');
  if (isArray(fields)) stored.schema = { ...schema, fields: fields.map((field, at) => storableField(written(field, String(at)))) };
  return stored;
}

// The order of the keys is part of the contract: readers of other adapters see it.
function storableBatch(batch, at) {
  if (!isObject(batch) || Array.isArray(batch)) return batch;
  const { id, index, status, processedCount, failedCount, recordStartIndex, recordEndIndex } = batch;
  const thing = 'job.batches';
  return {
    // As the column holds it: no database holds a lone surrogate.
    id: typeof id === 'string' ? id.toWellFormed() : typed(id, TEXT, thing, 'id', at),
    index: typed(index, WHOLE, thing, 'index', at),
    status: typed(status, TEXT, thing, 'status', at),
    records: [],
    processedCount: typed(processedCount, WHOLE, thing, 'processedCount', at),
    failedCount: typed(failedCount, WHOLE, thing, 'failedCount', at),
    // Null, as a database client gives it, is left out like undefined.
    recordStartIndex: typed(recordStartIndex ?? undefined, WHOLE, thing, 'recordStartIndex', at),
    recordEndIndex: typed(recordEndIndex ?? undefined, WHOLE, thing, 'recordEndIndex', at),
  };
}

function storableHolder(batch, at) {
  if (!isObject(batch)) return {};
  return {
    workerId: typed(batch.workerId, TEXT, 'job.batches', 'workerId', at),
    claimedAt: typed(batch.claimedAt ?? undefined, TIME, 'job.batches', 'claimedAt', at),
  };
}

/** A job without the records of its batches, which would make the text as large as the import. `call`: see `saveJob`. */
function storableJob(job, call) {
  const { id, config, status, batches, totalRecords, startedAt, completedAt, distributed } = job;
  const stored = {
    id: typed(id, TEXT, 'job', 'id'),
    config: storableConfig(config),
    status: typed(status, TEXT, 'job', 'status'),
    batches: typed(batches, 'an array', 'job', 'batches'),
    totalRecords: typed(totalRecords, WHOLE, 'job', 'totalRecords'),
    distributed: typed(distributed, 'a boolean', 'job', 'distributed'),
    // Null, as a database client gives it, is a time that is not set.
    startedAt: typed(startedAt ?? undefined, TIME, 'job', 'startedAt'),
    completedAt: typed(completedAt ?? undefined, TIME, 'job', 'completedAt'),
  };
  if (!Array.isArray(batches)) return stored;
  call.taken = call.captures.take(stored);
  if (call.taken !== undefined) {
    stored.batches = undefined;
    stored.changes = changedBatches(call.taken.seen, batches);
    return stored;
  }
  stored.batches = batches.map(storableBatch);
  if (batches.some((batch) => isObject(batch) && batch.workerId !== undefined)) stored.holders = batches.map(storableHolder);
  return stored;
}

// An import that is not distributed saves the whole job once a batch, with all batches so far. Its list is compared with the one that was captured last, and
// only what changed is written: comparing takes a thirtieth of the time. The values are compared, and not the objects, because callers may change them.

/** What changed in a list since `seen`, which becomes the list as it is now. */
function changedBatches(seen, batches) {
  const { length } = batches;
  const changes = { length, places: [], batches: [] };
  for (let at = 0; at < length; at++) {
    const batch = batches[at];
    if (at < seen.length && isSame(seen[at], batch)) continue;
    seen[at] = storableBatch(batch, at);
    changes.places.push(at);
    changes.batches.push(seen[at]);
  }
  seen.length = length;
  return changes;
}

const isSame = (seen, batch) =>
  isObject(batch) &&
  seen.id === batch.id &&
  seen.status === batch.status &&
  seen.processedCount === batch.processedCount &&
  seen.failedCount === batch.failedCount &&
  seen.index === batch.index &&
  seen.recordStartIndex === (batch.recordStartIndex ?? undefined) &&
  seen.recordEndIndex === (batch.recordEndIndex ?? undefined);

/** The most jobs whose lists a store keeps. It works on few at a time. */
const CAPTURED_JOBS = 16;

/** The lists that a store has captured, by the id of the job: here as values, and in the addon as text. */
class Captures {
  lists = new Map();

  /** Takes the list of a job, or makes one for a job that will probably be saved again. */
  take({ id, status, distributed }) {
    if (distributed || typeof id !== 'string') return undefined;
    const known = this.lists.get(id);
    if (known === undefined && status !== 'PROCESSING') return undefined;
    // Until the call has been made: if it is refused, the two halves may differ.
    this.lists.delete(id);
    return { id, status, seen: known?.seen ?? [], native: known?.native ?? new addon.CapturedBatches() };
  }

  /** The call has been made. */
  keep({ id, status, seen, native }) {
    if (status !== 'PROCESSING') return;
    this.lists.set(id, { seen, native });
    if (this.lists.size > CAPTURED_JOBS) this.lists.delete(this.lists.keys().next().value);
  }
}

const capturesOfStores = new WeakMap();

function capturesOf(native) {
  if (!capturesOfStores.has(native)) capturesOfStores.set(native, new Captures());
  return capturesOfStores.get(native);
}

/** `saveJobState`, with all of the list or with what changed in it. */
function saveJob(native, job) {
  const captures = capturesOf(native);
  const call = { captures, taken: undefined };
  const text = encode('job', 'job', job, call);
  const { taken } = call;
  if (taken === undefined || typeof text !== 'string') return native.saveJobState(text);
  const pending = native._saveChangedJobState(text, taken.native);
  captures.keep(taken);
  return pending;
}

// Records and states are read field by field too: fields behind the getters of a class count, and other fields do no harm.

function storableRecord(record, at) {
  if (!isObject(record) || Array.isArray(record)) return record;
  const { index, raw, parsed, status, errors, processingError } = record;
  const thing = at === undefined ? 'record' : 'records';
  return {
    index: typed(index, WHOLE, thing, 'index', at),
    raw,
    parsed,
    status: typed(status, TEXT, thing, 'status', at),
    errors: typed(errors, 'an array', thing, 'errors', at),
    processingError: typed(processingError, TEXT, thing, 'processingError', at),
  };
}

function storableState(state) {
  if (Array.isArray(state)) return state;
  const { batchId, status, processedCount, failedCount } = state;
  return {
    batchId: typed(batchId, TEXT, 'state', 'batchId'),
    status: typed(status, TEXT, 'state', 'status'),
    processedCount: typed(processedCount, WHOLE, 'state', 'processedCount'),
    failedCount: typed(failedCount, WHOLE, 'state', 'failedCount'),
  };
}

// How each kind of option is read. What JSON can't express is refused here; ranges and names are checked in src/settings/ and src/model/.

const must = (expected) => (value, path) => {
  if (isInexpressible(value)) throw invalid(`${path} must be ${expected}, not ${describe(value)}`);
  return simple(value);
};
const listOr = (read) => (value, path) =>
  isArray(value) ? Array.from(value, (item, at) => read(item, `${path}[${at}]`)) : read(value, path);
/** A password that a function gives does not cross: the function does, see `passwordFunction`. */
const functionOr = (read) => (value, path) => {
  if (typeof value !== 'function') return read(value, path);
  // It throws for a proxy that has been revoked, which could not be called later.
  Reflect.getPrototypeOf(value);
  return undefined;
};

const anObject = must('an object');
const text = must(TEXT);
const whole = must(WHOLE);
const aBoolean = must('a boolean');
const milliseconds = must('a whole number from 1 to 86400000');
/** A part of a connection may hold a secret, so src/settings/ refuses what is wrong without showing it. */
const part = simple;

/** In a shape: names that are not in it do no harm. */
const OPEN = Symbol('open');

// The names of all options, at the places where src/settings/ and src/model/ read them.
const OPTIONS = {
  store: {
    schema: text,
    password: functionOr(must('a string, or a function that gives one')),
    passwordTtlMs: milliseconds,
    connectTimeoutMs: milliseconds,
    statementTimeoutMs: milliseconds,
    statementCache: whole,
    durability: must('"record" or "batch"'),
    maxClaims: whole,
    tablePrefix: text,
    pool: { max: whole, min: whole, acquireTimeoutMs: milliseconds, idleTimeoutMs: milliseconds },
    ssl: { mode: text, ca: text, cert: text, key: text },
    leaseRenewal: { everyMs: milliseconds, forMs: milliseconds },
  },
  connection: {
    dialect: part,
    host: part,
    port: part,
    database: part,
    user: part,
    password: functionOr(part),
    socketPath: part,
    storage: part,
  },
  fence: { token: whole },
  records: { status: listOr(must('a status, or an array of at least one')), batchId: text, from: whole },
  abort: { now: aBoolean, force: aBoolean },
  retry: { statuses: listOr(must('an array of at least one of pending, valid, invalid, failed')), batchSize: whole },
  purge: {
    olderThanMs: must('a whole number of milliseconds from 0 on'),
    statuses: listOr(must('an array of at least one of COMPLETED, ABORTED, FAILED')),
    limit: whole,
    dryRun: aBoolean,
    withoutJob: aBoolean,
  },
  jobs: { status: must('a status'), limit: whole, after: { id: text, startedAt: must(TIME), [OPEN]: true } },
  batches: { status: listOr(must('a status, or an array of at least one')), limit: whole, after: whole },
};

/** The name of a thing that does not keep what it holds in properties, so that it can't be options. */
function unreadable(value) {
  const holds =
    typeof value[Symbol.iterator] === 'function' ||
    typeof value.then === 'function' ||
    types.isBoxedPrimitive(value) ||
    types.isDate(value) ||
    types.isRegExp(value) ||
    types.isWeakMap(value) ||
    types.isWeakSet(value) ||
    types.isAnyArrayBuffer(value) ||
    types.isArrayBufferView(value);
  if (!holds) return undefined;
  if (isArray(value)) return 'an array';
  return `a ${types.isBoxedPrimitive(value) ? 'boxed ' : ''}${Object.prototype.toString.call(value).slice(8, -1)}`;
}

/** The names of the enumerable properties of an object and its prototypes, except those that every object inherits. */
function listed(value) {
  const names = Object.keys(value);
  for (let above = Object.getPrototypeOf(value); above; above = Object.getPrototypeOf(above)) {
    if (Object.getPrototypeOf(above) !== null) names.push(...Object.keys(above));
  }
  return names;
}

/** Options as JavaScript reads them: also those of getters and prototypes, which `JSON.stringify` leaves out. Unknown names go along, to be refused. */
function readOptions(what, value, shape) {
  if (!isObject(value)) return anObject(value, what);
  const kind = unreadable(value);
  if (kind) throw invalid(`${what} must be an object with the options as its properties, not ${kind}`);
  const read = Object.create(null);
  for (const key of new Set([...Object.keys(shape), ...(shape[OPEN] ? [] : listed(value))])) {
    const option = key === 'toJSON' ? undefined : value[key];
    if (option === undefined) continue;
    const inside = Object.hasOwn(shape, key) ? shape[key] : simple;
    read[key] = typeof inside === 'function' ? inside(option, `${what}.${key}`) : readOptions(`${what}.${key}`, option, inside);
  }
  return read;
}

const isSequelize = (source) => typeof source.getDialect === 'function' || (isObject(source.config) && isObject(source.options));

/** Certificates are text, a buffer, or an array of either. */
const pem = (value) => (Array.isArray(value) ? value.map(pem).join('\n') : Buffer.isBuffer(value) ? value.toString() : value);

// Sequelize also puts the parameters of the URL that an instance was made from here.
const DIALECT_OPTIONS = [
  'socketPath',
  'application_name',
  'options',
  'sslmode',
  'ssl-mode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslaccept',
  'channel_binding',
  'target_session_attrs',
];

// Names that ask for protection are read too, so that what the store can't give is refused.
const PROTECTION = /^(ssl|tls|gss|use_?ssl|require_?(ssl|peer|auth)|verify_?server_?certificate)/i;

function dialectOptions(options) {
  if (!isObject(options)) return options;
  const demands = listed(options).filter((name) => name !== 'ssl' && PROTECTION.test(name));
  const read = Object.fromEntries([...DIALECT_OPTIONS, ...demands].map((name) => [name, options[name]]));
  const { ssl } = options;
  // Not an empty object: that would ask for TLS.
  if (!isObject(ssl)) return { ...read, ssl: isInexpressible(ssl) ? describe(ssl) : ssl };
  // All of it, so that what the store can't give is refused.
  const all = Object.fromEntries(listed(ssl).map((name) => [name, ssl[name]]));
  const { rejectUnauthorized, verifyIdentity, ca, cert, key } = ssl;
  return { ...read, ssl: { ...all, rejectUnauthorized, verifyIdentity, ca: pem(ca), cert: pem(cert), key: pem(key) } };
}

/** The settings of a Sequelize instance. It is recognized by its shape, because the user's copy of the class is not ours. */
function sequelizeSettings(sequelize) {
  const config = sequelize.config ?? {};
  const options = sequelize.options ?? {};
  const server = ({ host, port, database, username, password }) => ({
    host,
    port,
    database,
    username,
    password: typeof password === 'function' ? undefined : password,
  });
  const write = options.replication ? options.replication.write : undefined;
  return {
    dialect: typeof sequelize.getDialect === 'function' ? sequelize.getDialect() : options.dialect,
    config: { ...server(config), pool: isObject(config.pool) ? { max: config.pool.max, min: config.pool.min } : undefined },
    options: {
      storage: options.storage,
      schema: options.schema,
      dialectOptions: dialectOptions(options.dialectOptions),
      define: isObject(options.define) ? { schema: options.define.schema, underscored: options.define.underscored } : undefined,
      replication: isObject(options.replication)
        ? { write: isObject(write) ? { ...server(write), dialectOptions: dialectOptions(write.dialectOptions) } : write }
        : undefined,
    },
  };
}

// The variables of libpq, and those by which it finds files. Those that the store can't follow are read too, so that they are refused.
const ENVIRONMENT =
  `PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGOPTIONS PGAPPNAME PGCONNECT_TIMEOUT PGTARGETSESSIONATTRS
  PGCHANNELBINDING PGSERVICE PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY PGSSLNEGOTIATION PGSSLCOMPRESSION PGSSLCRL PGSSLCRLDIR PGSSLSNI PGSSLCERTMODE
  PGSSLMINPROTOCOLVERSION PGSSLMAXPROTOCOLVERSION PGREQUIRESSL PGREQUIREPEER PGREQUIREAUTH PGGSSENCMODE PGGSSDELEGATION PGDATESTYLE PGTZ PGGEQO
  PGCLIENTENCODING SSL_CERT_FILE HOME APPDATA`.split(/\s+/);

/** The variables that are set. They are read here and not in the addon because a worker thread may have an environment of its own. */
function environment() {
  const set = {};
  for (const name of ENVIRONMENT) {
    try {
      const value = process.env[name];
      if (typeof value === 'string' && value !== '') set[name] = value;
    } catch {
      // The runtime does not let this program read the variable.
    }
  }
  return set;
}

function connectionSource(source) {
  if (typeof source === 'string') return { url: source, environment: environment() };
  if (source instanceof URL) return { url: source.href, environment: environment() };
  return { ...(isSequelize(source) ? { sequelize: sequelizeSettings(source) } : { parts: source }), environment: environment() };
}

/** Warns of parameters that are ignored, by name only: a value may be a secret. */
function warnOfIgnored(names) {
  if (names.length === 0) return;
  const [each, have] = names.length === 1 ? ['parameter', 'has'] : ['parameters', 'have'];
  process.emitWarning(`the connection's ${each} ${names.join(', ')} ${have} no effect on this store`, {
    type: 'StateStoreWarning',
    code: 'PARAMETER_IGNORED',
  });
}

/** For `JSON.stringify`: what it would change or leave out goes as an empty object, so that it is refused and not ignored. */
function unchanged(key, value) {
  return isInexpressible(value) || value !== this[key] || types.isBoxedPrimitive(value) ? {} : value;
}

function storableConnection(connection, asksForPassword) {
  // A `URL` of another realm is no `instanceof URL`.
  const source = connectionSource(typeof connection.href === 'string' ? connection.href : connection);
  if (isObject(source.parts)) source.parts = readOptions('connection', source.parts, OPTIONS.connection);
  return { ...source, asksForPassword };
}

const write = {
  record: (value) => stringify(storableRecord(value)),
  records: (value) => stringify(Array.isArray(value) ? value.map(storableRecord) : value),
  state: (value) => stringify(storableState(value)),
  job: (value, what, call) => stringify(storableJob(value, call)),
  options: (value, what, shape) => stringify(readOptions(what, value, shape)),
  connection: (value, what, asksForPassword) => stringify(storableConnection(value, asksForPassword), unchanged),
};

/** What `JSON.stringify` refused in a value, and where: a BigInt, or an object inside itself. It runs only after a refusal. */
function unwritable(value, path, inside = new Set()) {
  if (typeof value === 'bigint') return `${path} is a BigInt, and JSON has none`;
  if (!isObject(value)) return undefined;
  if (inside.has(value)) return `${path} is an object that holds itself`;
  // Deeper than this, the stack may overflow here.
  if (inside.size > 200 || typeof value.toJSON === 'function') return undefined;
  inside.add(value);
  for (const key of Object.keys(value)) {
    const found = unwritable(value[key], Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`, inside);
    if (found) return found;
  }
  inside.delete(value);
  return undefined;
}

/** The message of what was thrown. That may be anything, and may throw again when it is read. */
function messageOf(error) {
  try {
    if (error instanceof Error && typeof error.message === 'string') return error.message;
  } catch {
    // It can't be read.
  }
  return `it throws ${describe(error)}`;
}

function whyUnwritable(what, value, error) {
  try {
    const found = unwritable(value, what);
    if (found) return found;
  } catch {
    // A getter throws, as it did for JSON.stringify: that error says more.
  }
  try {
    // JSON.stringify calls itself for each level.
    if (error instanceof RangeError && /call stack/i.test(error.message)) return 'it nests too deeply for JSON.stringify: flatten it';
  } catch {
    // What was thrown throws again when it is read.
  }
  return messageOf(error);
}

/** The JSON text of an argument, or the error that refuses it. It never throws, whatever the argument is and does. */
function encode(how, what, value, more) {
  try {
    const isUrl = how === 'connection' && typeof value === 'string';
    if ((!isObject(value) && !isUrl) || (how === 'connection' && Array.isArray(value))) {
      const expected =
        how === 'connection' ? 'a URL, connection options or a Sequelize instance' : how === 'records' ? 'an array' : 'an object';
      // It may be a URL, and hold a password.
      const given = how === 'options' && typeof value === 'string' ? 'a string' : describe(value);
      return invalid(`${what} must be ${expected}, not ${given}`);
    }
    return write[how](value, what, more);
  } catch (error) {
    if (isOurs(error)) return error;
    return invalid(`${what} can't be written as JSON: ${whyUnwritable(what, value, error)}`, error);
  }
}

/** The text of options that may be left out. */
const optional = (what, value, shape) => (value === undefined ? undefined : encode('options', what, value, shape));

// The values that the user's functions threw last. Only their keys cross the boundary. It keeps more of them than are ever on their way at the same time.
const thrown = new Map();
const KEPT = 32;
let lastThrown = 0;

function keepThrown(value) {
  thrown.set(++lastThrown, value);
  if (thrown.size > KEPT) thrown.delete(thrown.keys().next().value);
  return lastThrown;
}

/** The password, if it is a function. A password in the options overrules that of the connection. */
function passwordFunction(connection, options) {
  const password = givenPassword(connection, options);
  return typeof password === 'function' ? password : undefined;
}

function givenPassword(connection, options) {
  try {
    if (isObject(options) && options.password !== undefined) return options.password;
    if (!isObject(connection)) return undefined;
    if (!isSequelize(connection)) return connection.password;
    return connection.options?.replication?.write?.password ?? connection.config?.password;
  } catch {
    // A getter throws. It does so again when the arguments are encoded, and there it is refused.
    return undefined;
  }
}

/** The function that the addon calls when it needs a password. */
function asker(password) {
  return (request) => {
    new Promise((resolve) => resolve(password())).then(
      (answer) => request.answer(answer),
      (error) => request.fail(messageOf(error), keepThrown(error)),
    );
  };
}

/** The `StateStoreError` of a failure in the addon. */
function makeError(failure) {
  const { message, code, retryable, causeMessage, causeCode, thrown: key } = failure;
  if (typeof retryable !== 'boolean') return new StateStoreError(`the addon failed: ${message}`, { code: 'INTERNAL', cause: failure });
  let cause;
  if (thrown.has(key)) {
    cause = thrown.get(key);
  } else if (typeof causeMessage === 'string') {
    cause = new Error(causeMessage);
    if (typeof causeCode === 'string') cause.code = causeCode;
  }
  return new StateStoreError(message, { code, retryable, cause });
}

/**
 * The error that a call rejects with. Its stack begins at the method: it is taken from `site` if the call has left the stack since. Without a site, the
 * engine names the `async` functions that wait for the call. `inner`: the function that the stack begins behind.
 */
function failed(failure, site, inner = run) {
  const error = isOurs(failure) ? failure : makeError(failure);
  if (site === undefined) {
    Error.captureStackTrace?.(error, inner);
  } else if (typeof site.stack === 'string' && site.stack.includes('\n')) {
    error.stack = `${error.name}: ${error.message}${site.stack.slice(site.stack.indexOf('\n'))}`;
  }
  return error;
}

/** Where a call comes from. It costs some microseconds, so the calls that are made for each record and each batch do without. */
function callSite() {
  const site = {};
  Error.captureStackTrace?.(site, run);
  return site;
}

const NATIVE = Symbol('the store in the addon');

/** The addon's half of a store. It is in a property, so that it is also found through a `Proxy` around the store. */
function nativeOf(store, method) {
  let native;
  try {
    native = store?.[NATIVE];
  } catch {
    // A proxy that has been revoked, or that throws, is no store.
  }
  if (native instanceof addon.SqlxStateStore) return native;
  throw invalid(`${method} was called on ${describe(store)} and not on a store: call it as store.${method}(…)`);
}

// Queued saves are answered at once, and a loop that awaits nothing else would hold up timers and sockets. So after this many milliseconds without a turn of
// the event loop, a save waits for one. The addon makes the turn, because timers may be fake.
const TURN_MS = 5;
const now = performance.now.bind(performance);
let turn;
/** When the event loop was last seen to have a turn. */
let turnSeen = 0;

function turnIfDue(native) {
  turn ??= native._turn().then(() => {
    turnSeen = now();
    return (turn = undefined);
  });
  return now() - turnSeen > TURN_MS ? turn : undefined;
}

// What is seen from outside: each call on the channels of `diagnostics_channel.tracingChannel('batchactions.store')`, and what no call reports on one more.
// The channels are taken one by one because a TracingChannel says only since Node 20.13 whether it has subscribers, and not everywhere else.
const traceOf = (event) => channel(`tracing:batchactions.store:${event}`);
const [started, ended, asyncStarted, asyncEnded, rejected] = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'].map(traceOf);
const warned = channel('batchactions.store.warning');

const isTraced = () =>
  started.hasSubscribers || asyncEnded.hasSubscribers || rejected.hasSubscribers || ended.hasSubscribers || asyncStarted.hasSubscribers;

const servers = new WeakMap();

/** Where a store's database is. */
function serverOf(native) {
  if (!servers.has(native)) servers.set(native, Object.freeze(parse(native._server())));
  return servers.get(native);
}

/** What subscribers learn about a call. `about` has the call's arguments by name, unchecked: the caller may have passed values of any type. */
function contextOf(store, operation, about) {
  const context = { operation };
  try {
    const { jobId = about?.job?.id, batchId = about?.options?.batchId, workerId, records } = about ?? {};
    for (const [name, id] of Object.entries({ jobId, batchId, workerId })) if (typeof id === 'string') context[name] = id;
    if (isArray(records)) context.count = records.length;
    context.server = serverOf(nativeOf(store, operation));
  } catch {
    // A getter or a proxy throws, or `store` is none. The call itself meets that and rejects.
  }
  return context;
}

/** A call with subscribers, as Node documents `tracePromise`. That one makes promises of its own realm. */
function traced(store, method, start, read, about, site) {
  const context = contextOf(store, method, about);
  const settled = () => {
    asyncStarted.publish(context);
    asyncEnded.publish(context);
  };
  const call = () => {
    const promise = perform(store, method, start, read, site);
    ended.publish(context);
    return promise.then(
      (result) => {
        context.result = result;
        settled();
        return result;
      },
      (error) => {
        context.error = error;
        rejected.publish(context);
        settled();
        throw error;
      },
    );
  };
  if (typeof started.runStores === 'function') return started.runStores(context, call);
  started.publish(context);
  return call();
}

/** Publishes a warning of the addon, which calls this from its own event. It is one function for all stores, so that it keeps none of them alive. */
function publishWarning(text) {
  if (!warned.hasSubscribers) return;
  const warning = parse(text);
  if (warning.error !== undefined) warning.error = makeError(warning.error);
  warned.publish(warning);
}

/**
 * One call: `start` begins it in the addon, and `read` decodes its result. `about`: the arguments that subscribers are told of, by name: `jobId`, `batchId`,
 * `workerId`, `records`, `job`.
 */
function run(store, method, start, read, about, site = callSite) {
  return isTraced() ? traced(store, method, start, read, about, site) : perform(store, method, start, read, site);
}

async function perform(store, method, start, read, site) {
  let from;
  let inner = run;
  try {
    const native = nativeOf(store, method);
    const pending = start(native);
    inner = perform;
    // It is answered already: a save that is queued.
    if (pending === null) return await turnIfDue(native);
    from = site();
    const result = await pending;
    turnSeen = now();
    return await read(result);
  } catch (failure) {
    throw failed(failure, from, inner);
  }
}

const nowhere = () => undefined;
const asIs = (value) => value;

/** The value of a result that is JSON text. */
function parsed(text) {
  if (typeof text !== 'string') return text;
  try {
    return parse(text);
  } catch (error) {
    const message = `a column does not hold JSON, so another program wrote it: ${error.message}`;
    throw new StateStoreError(message, { code: 'TABLES_INCOMPATIBLE' });
  }
}

/** The whole array of a result. A large one comes in slices, and the event loop gets a turn before each of them. */
async function gathered(result) {
  if (typeof result === 'string') return parsed(result);
  const records = [];
  for (let slice = await result.next(); slice !== undefined; slice = await result.next()) {
    for (const record of parsed(slice)) records.push(record);
  }
  return records;
}

/** A job whose list of batches is made when it is first looked at. Core's workers read their job before each batch, for the number of its records. */
function jobOf(reader) {
  if (reader === null) return null;
  const job = parsed(reader.job());
  let batches;
  // Kept here as well, because an object that is frozen or sealed keeps its accessor.
  const look = () => {
    if (reader !== undefined) {
      batches = parse(reader.batches());
      reader = undefined;
    }
    return batches;
  };
  const hold = (object, value) =>
    Reflect.defineProperty(object, 'batches', { value, writable: true, enumerable: true, configurable: true });
  const settle = (value) => hold(job, value) && Reflect.deleteProperty(job, inspect.custom);
  const accessor = {
    get() {
      const value = look();
      if (Object.getOwnPropertyDescriptor(job, 'batches')?.get === accessor.get) settle(value);
      return value;
    },
    set(value) {
      // As with data: an object that inherits from the job gets a property of its own.
      if (this !== job ? hold(this, value) : settle(value)) return;
      if (this !== job || Object.isFrozen(job)) throw new TypeError("Cannot assign to read only property 'batches' of a job");
      [batches, reader] = [value, undefined];
    },
    enumerable: true,
    configurable: true,
  };
  // Without it, `console.log` would show the accessor.
  const show = function () {
    accessor.get();
    const is = Object.getOwnPropertyDescriptor(job, 'batches');
    return this === job && is?.get === accessor.get ? { ...job } : this;
  };
  Object.defineProperty(job, 'batches', accessor);
  return Object.defineProperty(job, inspect.custom, { value: show, writable: true, configurable: true });
}

/** Whether this Linux has glibc. */
function hasGlibc() {
  try {
    const { report } = process;
    // With the network, a report looks up the names of all open sockets, which can take seconds. Node below 20.13 does not know the setting.
    const { excludeNetwork } = report;
    report.excludeNetwork = true;
    try {
      return Boolean(report.getReport().header.glibcVersionRuntime);
    } finally {
      report.excludeNetwork = excludeNetwork;
    }
  } catch {
    // Some runtimes have no report, and Deno gives it only to a program with all permissions. The name of musl's loader tells then.
    return !hasMuslLoader();
  }
}

function hasMuslLoader() {
  try {
    return existsSync(`/lib/ld-musl-${{ x64: 'x86_64', arm64: 'aarch64' }[process.arch]}.so.1`);
  } catch {
    // Deno throws where this program may not read.
    return false;
  }
}

/** `linux-x64-gnu`, say: the name of this platform's binary. */
function platform() {
  const { platform: os, arch } = process;
  if (os === 'linux') return `${os}-${arch}-${hasGlibc() ? 'gnu' : 'musl'}`;
  return os === 'win32' ? `${os}-${arch}-msvc` : `${os}-${arch}`;
}

const FROM_SOURCE = 'build it from source: with Rust, `npm ci && npm run build` in a clone of the repository, and depend on that folder';

function loadError(name, cause) {
  const { platform: os, arch } = process;
  const libc = os !== 'linux' ? '' : name.endsWith('musl') ? ', musl' : ', glibc';
  let why;
  if (cause === undefined) {
    why = `there is no binary for this platform. There are some for Linux (glibc and musl), macOS and Windows, each on x64 and arm64. Elsewhere, ${FROM_SOURCE}`;
  } else if (cause.code === 'MODULE_NOT_FOUND') {
    why =
      `the package @batchactions/state-sqlx-${name} is not installed. It is an optional dependency: install again on the platform that it runs on, with ` +
      '`npm install --include=optional`, and where that does not bring it, without node_modules and the lock file that another platform made. ' +
      `In a bundle, leave @batchactions/state-sqlx external. Or ${FROM_SOURCE}`;
  } else if (cause.code === 'ERR_DLOPEN_DISABLED') {
    why = `this process may not load native addons: start Node ${process.permission ? 'with --allow-addons, beside --permission' : 'without --no-addons (NODE_OPTIONS may have it)'}`;
  } else if (cause.code === 'ERR_ACCESS_DENIED') {
    why = `this process may not read the binary: start Node with --allow-fs-read and the folder of the package, beside --permission. ${cause.message}`;
  } else {
    const old = /GLIBC_/.test(cause.message) ? `. This system's C library is older than the binary takes: ${FROM_SOURCE}` : '';
    why = `the binary for ${name} does not load: ${cause.message}${old}`;
  }
  const error = new Error(`@batchactions/state-sqlx can't be used on ${os} ${arch}${libc}: ${why}`, cause && { cause });
  return Object.assign(error, { code: 'BINARY_UNAVAILABLE' });
}

/**
 * The addon, from the package of this platform. A bundler puts the binary beside the bundle and rewrites its place only in the `require` of that package. In a
 * clone of the repository the package is not installed, and the addon that was built is beside this file.
 */
function loadAddon() {
  const name = platform();
  try {
    // Literal names in a `try`: bundlers find the package that is installed, and accept that the others are missing.
    switch (name) {
      case 'linux-x64-gnu':
        return require('@batchactions/state-sqlx-linux-x64-gnu');
      case 'linux-arm64-gnu':
        return require('@batchactions/state-sqlx-linux-arm64-gnu');
      case 'linux-x64-musl':
        return require('@batchactions/state-sqlx-linux-x64-musl');
      case 'linux-arm64-musl':
        return require('@batchactions/state-sqlx-linux-arm64-musl');
      case 'darwin-x64':
        return require('@batchactions/state-sqlx-darwin-x64');
      case 'darwin-arm64':
        return require('@batchactions/state-sqlx-darwin-arm64');
      case 'win32-x64-msvc':
        return require('@batchactions/state-sqlx-win32-x64-msvc');
      case 'win32-arm64-msvc':
        return require('@batchactions/state-sqlx-win32-arm64-msvc');
    }
  } catch (cause) {
    // An ES module has no `__dirname`, and a bundle may be one.
    const local = cause.code === 'MODULE_NOT_FOUND' && typeof __dirname === 'string' && join(__dirname, `state-sqlx.${name}.node`);
    if (!local || !existsSync(local)) throw loadError(name, cause);
    try {
      return require(local);
    } catch (error) {
      throw loadError(name, error);
    }
  }
  throw loadError(name);
}

const addon = loadAddon();

// The most records on a page of `records`. The first page has up to FIRST_PAGE. Each further page asks for as many as would fit into PAGE_BYTES if they were
// as large as those of the last page, but at most GROWTH times those, because the database reads in vain what does not fit, and at most LARGEST_PAGE.
const FIRST_PAGE = 20;
const PAGE_BYTES = 2 << 20;
const GROWTH = 8;
const LARGEST_PAGE = 1_000;

/** One page of `records`, with its length in bytes. */
function recordPage(jobId, options, after, limit) {
  const start = (native) => native._recordPage(jobId, optional('options', options, OPTIONS.records), after, limit);
  return run(this, 'records', start, parsed, { jobId, options });
}

class SqlxStateStore {
  constructor(connection, options) {
    const password = passwordFunction(connection, options);
    let native;
    try {
      native = new addon.SqlxStateStore(
        encode('connection', 'connection', connection, password !== undefined),
        optional('options', options, OPTIONS.store),
        password && asker(password),
        publishWarning,
      );
    } catch (failure) {
      throw failed(failure, undefined, new.target);
    }
    Object.defineProperty(this, NATIVE, { value: native });
    warnOfIgnored(native._ignoredParameters());
  }

  initialize() {
    return run(this, 'initialize', (native) => native.initialize(), asIs);
  }

  saveJobState(job) {
    return run(this, 'saveJobState', (native) => saveJob(native, job), asIs, { job });
  }

  getJobState(jobId) {
    return run(this, 'getJobState', (native) => native.getJobState(jobId), jobOf, { jobId });
  }

  updateBatchState(jobId, batchId, state, fence) {
    const start = (native) =>
      native.updateBatchState(jobId, batchId, encode('state', 'state', state), optional('fence', fence, OPTIONS.fence));
    return run(this, 'updateBatchState', start, asIs, { jobId, batchId });
  }

  saveProcessedRecord(jobId, batchId, record, fence) {
    const start = (native) =>
      native.saveProcessedRecord(jobId, batchId, encode('record', 'record', record), optional('fence', fence, OPTIONS.fence));
    return run(this, 'saveProcessedRecord', start, asIs, { jobId, batchId }, nowhere);
  }

  saveBatchRecords(jobId, batchId, records) {
    const start = (native) => native.saveBatchRecords(jobId, batchId, encode('records', 'records', records));
    return run(this, 'saveBatchRecords', start, asIs, { jobId, batchId, records });
  }

  getFailedRecords(jobId) {
    return run(this, 'getFailedRecords', (native) => native.getFailedRecords(jobId), gathered, { jobId });
  }

  getPendingRecords(jobId) {
    return run(this, 'getPendingRecords', (native) => native.getPendingRecords(jobId), gathered, { jobId });
  }

  getProcessedRecords(jobId) {
    return run(this, 'getProcessedRecords', (native) => native.getProcessedRecords(jobId), gathered, { jobId });
  }

  getBatchRecords(jobId, batchId) {
    return run(this, 'getBatchRecords', (native) => native.getBatchRecords(jobId, batchId), gathered, { jobId, batchId });
  }

  async *records(jobId, options) {
    let after;
    let limit = FIRST_PAGE;
    for (;;) {
      const { bytes, records } = await recordPage.call(this, jobId, options, after, limit);
      if (records.length === 0) return;
      yield* records;
      after = records[records.length - 1].index;
      const alike = Math.max(Math.floor((PAGE_BYTES * records.length) / bytes), 1);
      limit = Math.min(alike, GROWTH * records.length, LARGEST_PAGE);
    }
  }

  getProgress(jobId) {
    return run(this, 'getProgress', (native) => native.getProgress(jobId), parsed, { jobId });
  }

  claimBatch(jobId, workerId) {
    return run(this, 'claimBatch', (native) => native.claimBatch(jobId, workerId), parsed, { jobId, workerId }, nowhere);
  }

  releaseBatch(jobId, batchId, workerId) {
    return run(this, 'releaseBatch', (native) => native.releaseBatch(jobId, batchId, workerId), asIs, { jobId, batchId, workerId });
  }

  renewBatch(jobId, batchId, workerId, fence) {
    const start = (native) => native.renewBatch(jobId, batchId, workerId, optional('fence', fence, OPTIONS.fence));
    return run(this, 'renewBatch', start, asIs, { jobId, batchId, workerId });
  }

  reclaimStaleBatches(jobId, timeoutMs) {
    return run(this, 'reclaimStaleBatches', (native) => native.reclaimStaleBatches(jobId, timeoutMs), asIs, { jobId });
  }

  getDistributedStatus(jobId) {
    return run(this, 'getDistributedStatus', (native) => native.getDistributedStatus(jobId), parsed, { jobId });
  }

  tryFinalizeJob(jobId) {
    return run(this, 'tryFinalizeJob', (native) => native.tryFinalizeJob(jobId), asIs, { jobId });
  }

  listJobs(options) {
    return run(this, 'listJobs', (native) => native.listJobs(optional('options', options, OPTIONS.jobs)), parsed);
  }

  getJob(jobId) {
    return run(this, 'getJob', (native) => native.getJob(jobId), parsed, { jobId });
  }

  batches(jobId, options) {
    return run(this, 'batches', (native) => native.batches(jobId, optional('options', options, OPTIONS.batches)), parsed, { jobId });
  }

  stats() {
    return run(this, 'stats', (native) => native.stats(), parsed);
  }

  ping() {
    return run(this, 'ping', (native) => native.ping(), parsed);
  }

  poolStats() {
    try {
      const [used, idle, pending, max] = nativeOf(this, 'poolStats')._poolStats();
      return { used, idle, pending, max };
    } catch (failure) {
      throw failed(failure, undefined, SqlxStateStore.prototype.poolStats);
    }
  }

  deleteJob(jobId) {
    return run(this, 'deleteJob', (native) => native.deleteJob(jobId), asIs, { jobId });
  }

  pauseJob(jobId) {
    return run(this, 'pauseJob', (native) => native.pauseJob(jobId), asIs, { jobId });
  }

  resumeJob(jobId) {
    return run(this, 'resumeJob', (native) => native.resumeJob(jobId), asIs, { jobId });
  }

  abortJob(jobId, options) {
    return run(this, 'abortJob', (native) => native.abortJob(jobId, optional('options', options, OPTIONS.abort)), asIs, { jobId });
  }

  retryFailed(jobId, options) {
    return run(this, 'retryFailed', (native) => native.retryFailed(jobId, optional('options', options, OPTIONS.retry)), parsed, { jobId });
  }

  purge(options) {
    return run(this, 'purge', (native) => native.purge(optional('options', options, OPTIONS.purge)), parsed);
  }

  close() {
    return run(this, 'close', (native) => native.close(), asIs);
  }

  /** For `batchactions-sqlx doctor` alone. */
  [Symbol.for('batchactions-sqlx.examine')]() {
    return run(this, 'doctor', (native) => native._examine(), parsed);
  }

  /** For `@batchactions/state-sqlx/otel` alone. */
  [Symbol.for('batchactions-sqlx.server')]() {
    return serverOf(nativeOf(this, 'server'));
  }

  // Node 20 has no `await using`. Compilers that translate it look for this name there.
  async [Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]() {
    nativeOf(this, 'close');
    await this.close();
  }
}

addon.install();
// A realm may load this file more than once (`jest.resetModules`, say) and still has one class of stores and one of errors. The map keeps no realm alive.
addon.realms ??= new WeakMap();
if (!addon.realms.has(Error)) addon.realms.set(Error, { SqlxStateStore, StateStoreError });
const own = addon.realms.get(Error);

// Assigned one by one, so that Node finds the names for `import { SqlxStateStore }`.
module.exports.SqlxStateStore = own.SqlxStateStore;
module.exports.SequelizeStateStore = own.SqlxStateStore;
module.exports.StateStoreError = own.StateStoreError;
