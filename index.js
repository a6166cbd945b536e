'use strict';

// Loads the addon of this platform and is the JavaScript half of the boundary: what crosses is one JSON text a call, written and read here, by the
// user's own engine (see src/js/boundary.rs). A test runner may load this file in many realms of one thread, and each has an `Error`, an `Array` and timers
// of its own. So values and errors are made here, nothing of a realm is kept in the addon, and no timer is used.

const { existsSync } = require('node:fs');
const { performance } = require('node:perf_hooks');
const { join } = require('node:path');
const { types } = require('node:util');

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

/** A wrong argument in a message: short, and without running any of its code. */
function describe(value) {
  if (typeof value === 'string') return stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  if (typeof value === 'bigint') return `${value}n`;
  if (isArray(value)) return 'an array';
  return isObject(value) ? 'an object' : String(value);
}

/** A value that JSON has no word for. `shown` in src/fields.rs reads the mark. */
const marked = (value) => ({ [describe(value)]: 'not JSON' });

/** Whether JSON would drop the value or make it null. */
const isDropped = (value) =>
  typeof value === 'number' ? !Number.isFinite(value) : ['function', 'symbol', 'bigint'].includes(typeof value);

/** For `JSON.stringify`: shows what it would drop or make another thing of, so that an option of a wrong type is refused and not ignored. */
function visible(key, value) {
  return isDropped(value) || value !== this[key] || types.isBoxedPrimitive(value) ? marked(this[key]) : value;
}

/** A field of a job, batch or record that has a type of its own. A BigInt stays one, so that `JSON.stringify` says what is wrong with it. */
function typed(value) {
  if (typeof value === 'bigint' || isArray(value)) return value;
  return isObject(value) || isDropped(value) ? marked(value) : value;
}

// A field's validators and transforms are functions, and its pattern is an object that JSON can't hold, so only what can be read again is stored.
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

/** What `JSON.stringify` looks inside of: what the value's `toJSON` says, where it has one. It is asked once, as `JSON.stringify` does. */
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

// The order of the keys is part of the contract: another adapter's readers see it.
function storableBatch(batch) {
  if (!isObject(batch) || Array.isArray(batch)) return batch;
  const { id, index, status, processedCount, failedCount, recordStartIndex, recordEndIndex } = batch;
  // What is undefined is left out when it is written; null, as a database's client gives it, is to be as well.
  return {
    // As the column has it: no database holds a lone surrogate.
    id: typeof id === 'string' ? id.toWellFormed() : typed(id),
    index: typed(index),
    status: typed(status),
    records: [],
    processedCount: typed(processedCount),
    failedCount: typed(failedCount),
    recordStartIndex: typed(recordStartIndex ?? undefined),
    recordEndIndex: typed(recordEndIndex ?? undefined),
  };
}

/** A job without the records of its batches, which would make the text as large as the import. */
function storableJob(job) {
  const { id, config, status, batches, totalRecords, startedAt, completedAt, distributed } = job;
  const stored = {
    id: typed(id),
    config: storableConfig(config),
    status: typed(status),
    batches: typed(batches),
    totalRecords: typed(totalRecords),
    distributed: typed(distributed),
    // A time that is null is one that is not set, as a database's client gives it.
    startedAt: typed(startedAt ?? undefined),
    completedAt: typed(completedAt ?? undefined),
  };
  if (Array.isArray(batches)) {
    stored.batches = batches.map(storableBatch);
    if (batches.some((batch) => isObject(batch) && batch.workerId !== undefined)) {
      stored.holders = batches.map((batch) =>
        isObject(batch) ? { workerId: typed(batch.workerId), claimedAt: typed(batch.claimedAt ?? undefined) } : {},
      );
    }
  }
  return stored;
}

// Records and states are read field by field too: what a class has behind getters counts, and what is not stored does no harm.

function storableRecord(record) {
  if (!isObject(record) || Array.isArray(record)) return record;
  const { index, raw, parsed, status, errors, processingError } = record;
  return { index: typed(index), raw, parsed, status: typed(status), errors: typed(errors), processingError: typed(processingError) };
}

function storableState(state) {
  if (Array.isArray(state)) return state;
  const { batchId, status, processedCount, failedCount } = state;
  return { batchId: typed(batchId), status: typed(status), processedCount: typed(processedCount), failedCount: typed(failedCount) };
}

// What options have, at the places that src/settings/ and src/model/ read. `open`: what else is there does no harm.
const OPTIONS = {
  store: {
    known: [
      'schema',
      'password',
      'passwordTtlMs',
      'connectTimeoutMs',
      'statementTimeoutMs',
      'statementCache',
      'durability',
      'maxClaims',
      'tablePrefix',
    ],
    within: {
      pool: { known: ['max', 'min', 'acquireTimeoutMs', 'idleTimeoutMs'] },
      ssl: { known: ['mode', 'ca', 'cert', 'key'] },
      leaseRenewal: { known: ['everyMs', 'forMs'] },
    },
  },
  connection: { known: ['dialect', 'host', 'port', 'database', 'user', 'password', 'socketPath', 'storage'] },
  fence: { known: ['token'] },
  records: { known: ['status', 'batchId', 'from'] },
  jobs: { known: ['status', 'limit'], within: { after: { known: ['id', 'startedAt'], open: true } } },
};

/** The name of a thing whose properties are not what it holds, so that options can't be read of it. */
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

/** The names that an object and its prototypes have to be listed by, but for what every object inherits. */
function listed(value) {
  const names = Object.keys(value);
  for (let above = Object.getPrototypeOf(value); above; above = Object.getPrototypeOf(above)) {
    if (Object.getPrototypeOf(above) !== null) names.push(...Object.keys(above));
  }
  return names;
}

/** Options as JavaScript reads them: those of getters and prototypes too, which `JSON.stringify` leaves out. Unknown ones go along, to be refused. */
function readOptions(what, value, { known, within = {}, open = false }) {
  if (!isObject(value)) return value;
  const kind = unreadable(value);
  if (kind) throw invalid(`${what} must be an object with the options as its properties, not ${kind}`);
  const read = Object.create(null);
  for (const key of new Set([...known, ...Object.keys(within), ...(open ? [] : listed(value))])) {
    const option = key === 'toJSON' ? undefined : value[key];
    if (option !== undefined) read[key] = Object.hasOwn(within, key) ? readOptions(`${what}.${key}`, option, within[key]) : option;
  }
  return read;
}

const isSequelize = (source) => typeof source.getDialect === 'function' || (isObject(source.config) && isObject(source.options));

/** Certificates come as text, as a buffer, or as a list of either. */
const pem = (value) => (Array.isArray(value) ? value.map(pem).join('\n') : Buffer.isBuffer(value) ? value.toString() : value);

// What else stands in the URL that an instance was made from, Sequelize puts here too.
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

// A demand for protection is read too, so that one that can't be met is refused.
const PROTECTION = /^(ssl|tls|gss|use_?ssl|require_?(ssl|peer|auth)|verify_?server_?certificate)/i;

function dialectOptions(options) {
  if (!isObject(options)) return options;
  const demands = listed(options).filter((name) => name !== 'ssl' && PROTECTION.test(name));
  const read = Object.fromEntries([...DIALECT_OPTIONS, ...demands].map((name) => [name, options[name]]));
  const { ssl } = options;
  if (!isObject(ssl)) return { ...read, ssl };
  // All of it, so that what can't be given is refused.
  const all = Object.fromEntries(listed(ssl).map((name) => [name, ssl[name]]));
  const { rejectUnauthorized, verifyIdentity, ca, cert, key } = ssl;
  return { ...read, ssl: { ...all, rejectUnauthorized, verifyIdentity, ca: pem(ca), cert: pem(cert), key: pem(key) } };
}

/** What is read of a Sequelize instance. It is known by its shape, not its class: the user's copy of Sequelize is not ours. */
function sequelizeSettings(sequelize) {
  const config = sequelize.config ?? {};
  const options = sequelize.options ?? {};
  const server = ({ host, port, database, username, password }) => ({ host, port, database, username, password });
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

// libpq's variables, and what it finds files by. Those that it knows and the store can't obey are read too, so that they are refused.
const ENVIRONMENT =
  `PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGOPTIONS PGAPPNAME PGCONNECT_TIMEOUT PGTARGETSESSIONATTRS
  PGCHANNELBINDING PGSERVICE PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY PGSSLNEGOTIATION PGSSLCOMPRESSION PGSSLCRL PGSSLCRLDIR PGSSLSNI PGSSLCERTMODE
  PGSSLMINPROTOCOLVERSION PGSSLMAXPROTOCOLVERSION PGREQUIRESSL PGREQUIREPEER PGREQUIREAUTH PGGSSENCMODE PGGSSDELEGATION PGDATESTYLE PGTZ PGGEQO
  PGCLIENTENCODING SSL_CERT_FILE HOME APPDATA`.split(/\s+/);

/** The variables that are set. From here and not from the process: a worker thread may have an environment of its own. */
function environment() {
  const set = {};
  for (const name of ENVIRONMENT) {
    try {
      const value = process.env[name];
      if (typeof value === 'string' && value !== '') set[name] = value;
    } catch {
      // A runtime that does not let this program read it.
    }
  }
  return set;
}

function connectionSource(source) {
  if (typeof source === 'string') return { url: source, environment: environment() };
  if (source instanceof URL) return { url: source.href, environment: environment() };
  return { ...(isSequelize(source) ? { sequelize: sequelizeSettings(source) } : { parts: source }), environment: environment() };
}

/** Told once a process for each name: the value may be a secret. */
function warnOfIgnored(names) {
  if (names.length === 0) return;
  const [each, have] = names.length === 1 ? ['parameter', 'has'] : ['parameters', 'have'];
  process.emitWarning(`the connection's ${each} ${names.join(', ')} ${have} no effect on this store`, {
    type: 'StateStoreWarning',
    code: 'PARAMETER_IGNORED',
  });
}

function storableConnection(connection) {
  // A `URL` of another realm is no `instanceof URL`.
  const source = connectionSource(typeof connection.href === 'string' ? connection.href : connection);
  if (isObject(source.parts)) source.parts = readOptions('connection', source.parts, OPTIONS.connection);
  return source;
}

const write = {
  record: (value) => stringify(storableRecord(value)),
  records: (value) => stringify(Array.isArray(value) ? value.map(storableRecord) : value),
  state: (value) => stringify(storableState(value)),
  job: (value) => stringify(storableJob(value)),
  options: (value, what, shape) => stringify(readOptions(what, value, shape), visible),
  connection: (value) => stringify(storableConnection(value), visible),
};

/** Where in a value the thing is that `JSON.stringify` refused: a BigInt, or an object inside itself. Runs only once it has refused. */
function unwritable(value, path, inside = new Set()) {
  if (typeof value === 'bigint') return `${path} is a BigInt, and JSON has none`;
  if (!isObject(value)) return undefined;
  if (inside.has(value)) return `${path} is an object that holds itself`;
  // Deeper than this, the stack ends before JSON does.
  if (inside.size > 200 || typeof value.toJSON === 'function') return undefined;
  inside.add(value);
  for (const key of Object.keys(value)) {
    const found = unwritable(value[key], Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`, inside);
    if (found) return found;
  }
  inside.delete(value);
  return undefined;
}

/** What an error says, or what was thrown in its place: it may be anything, and may throw again when it is looked at. */
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
    // A getter that throws is what stopped JSON.stringify too: its error says more.
  }
  try {
    // The one way to end the stack here: JSON.stringify calls itself for each level.
    if (error instanceof RangeError && /call stack/i.test(error.message)) return 'it nests too deeply for JSON.stringify: flatten it';
  } catch {
    // Anything may be thrown, and this is something that throws again.
  }
  return messageOf(error);
}

/** The JSON text of an argument, or the error that refuses it: whatever the argument is and does, nothing is thrown here. */
function encode(how, what, value, shape) {
  try {
    const isUrl = how === 'connection' && typeof value === 'string';
    if ((!isObject(value) && !isUrl) || (how === 'connection' && Array.isArray(value))) {
      const expected =
        how === 'connection' ? 'a URL, connection options or a Sequelize instance' : how === 'records' ? 'an array' : 'an object';
      // A URL in place of the options holds a password, perhaps.
      const given = how === 'options' && typeof value === 'string' ? 'a string' : describe(value);
      return invalid(`${what} must be ${expected}, not ${given}`);
    }
    return write[how](value, what, shape);
  } catch (error) {
    if (isOurs(error)) return error;
    return invalid(`${what} can't be written as JSON: ${whyUnwritable(what, value, error)}`, error);
  }
}

/** The text of options that may be left out. */
const optional = (what, value, shape) => (value === undefined ? undefined : encode('options', what, value, shape));

// What functions of the user's threw lately: it does not cross the boundary, only its key does. More of them than are ever on their way at once.
const thrown = new Map();
const KEPT = 32;
let lastThrown = 0;

function keepThrown(value) {
  thrown.set(++lastThrown, value);
  if (thrown.size > KEPT) thrown.delete(thrown.keys().next().value);
  return lastThrown;
}

/** The function that gives the password, where one does: that of the options goes before that of the connection. */
function passwordFunction(connection, options) {
  try {
    if (isObject(options) && options.password !== undefined) return options.password;
    if (!isObject(connection)) return undefined;
    if (!isSequelize(connection)) return connection.password;
    return connection.options?.replication?.write?.password ?? connection.config?.password;
  } catch {
    // A getter that throws: it does so again where the arguments are written, and there is refused.
    return undefined;
  }
}

/** What the other side calls when it needs a password. */
function asker(password) {
  return (request) => {
    new Promise((resolve) => resolve(password())).then(
      (answer) => request.answer(answer),
      (error) => request.fail(messageOf(error), keepThrown(error)),
    );
  };
}

/** A `StateStoreError` for a failure on the other side of the boundary. */
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
 * What a call rejects with. Its stack begins at the method: `site` has that where the call had left the stack. Where it was not captured, the engine knows
 * which `async` functions wait for the call, and names those.
 */
function failed(failure, site) {
  const error = isOurs(failure) ? failure : makeError(failure);
  if (site === undefined) {
    Error.captureStackTrace?.(error, run);
  } else if (typeof site.stack === 'string' && site.stack.includes('\n')) {
    error.stack = `${error.name}: ${error.message}${site.stack.slice(site.stack.indexOf('\n'))}`;
  }
  return error;
}

/** Where a call comes from. It costs some microseconds, so the calls that are made for each record and each batch go without. */
function callSite() {
  const site = {};
  Error.captureStackTrace?.(site, run);
  return site;
}

const NATIVE = Symbol('the store in the addon');

/** The addon's half of a store. It is found by way of a property, and so through a `Proxy` around the store too. */
function nativeOf(store, method) {
  let native;
  try {
    native = store?.[NATIVE];
  } catch {
    // A proxy that has been revoked, or that throws: no store.
  }
  if (native instanceof addon.SqlxStateStore) return native;
  throw invalid(`${method} was called on ${describe(store)} and not on a store: call it as store.${method}(…)`);
}

// Saves that are queued are answered at once, and a loop that awaits nothing else would keep timers and sockets waiting: so after as many milliseconds without
// a turn of the event loop, a save waits for one. The addon makes it, because timers may be fake.
const TURN_MS = 10;
const now = performance.now.bind(performance);
let turn;
let turnAsked = 0;

function turnIfDue(native) {
  if (turn !== undefined) return now() - turnAsked > TURN_MS ? turn : undefined;
  turnAsked = now();
  turn = native._turn().then(() => (turn = undefined));
  return undefined;
}

/** One call: `start` begins it in the addon, `read` makes a value of what that gives. */
async function run(store, method, start, read, site = callSite) {
  let from;
  try {
    const native = nativeOf(store, method);
    const pending = start(native);
    // What is answered already, as a save that is queued is.
    if (pending === null) return await turnIfDue(native);
    from = site();
    return await read(await pending);
  } catch (failure) {
    throw failed(failure, from);
  }
}

const nowhere = () => undefined;
const asIs = (value) => value;

/** A result, which the addon gives as text. */
function parsed(text) {
  if (typeof text !== 'string') return text;
  try {
    return parse(text);
  } catch (error) {
    const message = `a column does not hold JSON, so another program wrote it: ${error.message}`;
    throw new StateStoreError(message, { code: 'TABLES_INCOMPATIBLE' });
  }
}

/** All of an array of records. A large one comes in slices, and the event loop gets a turn before each of them. */
async function gathered(result) {
  if (typeof result === 'string') return parsed(result);
  const records = [];
  for (let slice = await result.next(); slice !== undefined; slice = await result.next()) {
    for (const record of parsed(slice)) records.push(record);
  }
  return records;
}

/** Whether this Linux has glibc. Only musl's loader has a name like that, and where there is no report, that name tells. */
function hasGlibc() {
  try {
    const { report } = process;
    // A report with the network looks up the names of all open sockets, which can take seconds. Node below 20.13 does not know the setting.
    const { excludeNetwork } = report;
    report.excludeNetwork = true;
    try {
      return Boolean(report.getReport().header.glibcVersionRuntime);
    } finally {
      report.excludeNetwork = excludeNetwork;
    }
  } catch {
    // There is none in some runtimes, and Deno gives it to a program with all permissions only.
    return !hasMuslLoader();
  }
}

function hasMuslLoader() {
  try {
    return existsSync(`/lib/ld-musl-${{ x64: 'x86_64', arm64: 'aarch64' }[process.arch]}.so.1`);
  } catch {
    // Deno throws where this program may not look.
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
 * The addon, from its package where that is installed. A bundler puts the binary beside the bundle and knows its new place in the `require` of the package
 * only. In a clone of the repository no such package is installed, and what was built is beside this file.
 */
function loadAddon() {
  const name = platform();
  try {
    // Written out, and in a `try`, so that bundlers find the one that is installed and let the others be.
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
    // A module of ES has no `__dirname`, and a bundle may be one.
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

// Of how many records the database finds out whether they fit on a page of `records`: in the beginning; next time, as many as would fit if they were like those of
// the last page, but not much more than those, for what does not fit is looked at in vain; and at most.
const FIRST_PAGE = 20;
const PAGE_BYTES = 2 << 20;
const GROWTH = 8;
const LARGEST_PAGE = 1_000;

/** One page of `records`, with its length in bytes. */
function recordPage(jobId, options, after, limit) {
  const start = (native) => native._recordPage(jobId, optional('options', options, OPTIONS.records), after, limit);
  return run(this, 'records', start, parsed);
}

class SqlxStateStore {
  constructor(connection, options) {
    const password = passwordFunction(connection, options);
    let native;
    try {
      native = new addon.SqlxStateStore(
        encode('connection', 'connection', connection),
        optional('options', options, OPTIONS.store),
        typeof password === 'function' ? asker(password) : undefined,
      );
    } catch (failure) {
      const error = failed(failure);
      Error.captureStackTrace?.(error, new.target);
      throw error;
    }
    Object.defineProperty(this, NATIVE, { value: native });
    warnOfIgnored(native._ignoredParameters());
  }

  initialize() {
    return run(this, 'initialize', (native) => native.initialize(), asIs);
  }

  saveJobState(job) {
    return run(this, 'saveJobState', (native) => native.saveJobState(encode('job', 'job', job)), asIs);
  }

  getJobState(jobId) {
    return run(this, 'getJobState', (native) => native.getJobState(jobId), parsed);
  }

  updateBatchState(jobId, batchId, state, fence) {
    const start = (native) =>
      native.updateBatchState(jobId, batchId, encode('state', 'state', state), optional('fence', fence, OPTIONS.fence));
    return run(this, 'updateBatchState', start, asIs);
  }

  saveProcessedRecord(jobId, batchId, record, fence) {
    const start = (native) =>
      native.saveProcessedRecord(jobId, batchId, encode('record', 'record', record), optional('fence', fence, OPTIONS.fence));
    return run(this, 'saveProcessedRecord', start, asIs, nowhere);
  }

  saveBatchRecords(jobId, batchId, records) {
    const start = (native) => native.saveBatchRecords(jobId, batchId, encode('records', 'records', records));
    return run(this, 'saveBatchRecords', start, asIs);
  }

  getFailedRecords(jobId) {
    return run(this, 'getFailedRecords', (native) => native.getFailedRecords(jobId), gathered);
  }

  getPendingRecords(jobId) {
    return run(this, 'getPendingRecords', (native) => native.getPendingRecords(jobId), gathered);
  }

  getProcessedRecords(jobId) {
    return run(this, 'getProcessedRecords', (native) => native.getProcessedRecords(jobId), gathered);
  }

  getBatchRecords(jobId, batchId) {
    return run(this, 'getBatchRecords', (native) => native.getBatchRecords(jobId, batchId), gathered);
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
    return run(this, 'getProgress', (native) => native.getProgress(jobId), parsed);
  }

  claimBatch(jobId, workerId) {
    return run(this, 'claimBatch', (native) => native.claimBatch(jobId, workerId), parsed, nowhere);
  }

  releaseBatch(jobId, batchId, workerId) {
    return run(this, 'releaseBatch', (native) => native.releaseBatch(jobId, batchId, workerId), asIs);
  }

  renewBatch(jobId, batchId, workerId, fence) {
    const start = (native) => native.renewBatch(jobId, batchId, workerId, optional('fence', fence, OPTIONS.fence));
    return run(this, 'renewBatch', start, asIs);
  }

  reclaimStaleBatches(jobId, timeoutMs) {
    return run(this, 'reclaimStaleBatches', (native) => native.reclaimStaleBatches(jobId, timeoutMs), asIs);
  }

  getDistributedStatus(jobId) {
    return run(this, 'getDistributedStatus', (native) => native.getDistributedStatus(jobId), parsed);
  }

  tryFinalizeJob(jobId) {
    return run(this, 'tryFinalizeJob', (native) => native.tryFinalizeJob(jobId), asIs);
  }

  listJobs(options) {
    return run(this, 'listJobs', (native) => native.listJobs(optional('options', options, OPTIONS.jobs)), parsed);
  }

  deleteJob(jobId) {
    return run(this, 'deleteJob', (native) => native.deleteJob(jobId), asIs);
  }

  close() {
    return run(this, 'close', (native) => native.close(), asIs);
  }

  // Node 20 has no `await using`, but compilers that translate it look for this name there.
  async [Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]() {
    nativeOf(this, 'close');
    await this.close();
  }
}

addon.install();
// A realm may load this file more than once (`jest.resetModules`, say): it has one class of stores and one of errors. No other realm is kept alive.
addon.realms ??= new WeakMap();
if (!addon.realms.has(Error)) addon.realms.set(Error, { SqlxStateStore, StateStoreError });
const own = addon.realms.get(Error);

// Assigned one by one, so that Node finds the names for `import { SqlxStateStore }`.
module.exports.SqlxStateStore = own.SqlxStateStore;
module.exports.SequelizeStateStore = own.SqlxStateStore;
module.exports.StateStoreError = own.StateStoreError;
