'use strict';

// Loads the addon of this platform and gives it the JavaScript half of the boundary: what crosses is one JSON text a call, written and read by the
// user's own engine (see src/json.rs).

const { existsSync } = require('node:fs');
const { join } = require('node:path');
const {
  types: { isBoxedPrimitive },
} = require('node:util');

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
  return isDropped(value) || value !== this[key] || isBoxedPrimitive(value) ? marked(this[key]) : value;
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

function storableConfig(config) {
  if (!isObject(config) || !isObject(config.schema) || !Array.isArray(config.schema.fields)) return config;
  return { ...config, schema: { ...config.schema, fields: config.schema.fields.map(storableField) } };
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

const isSequelize = (source) => typeof source.getDialect === 'function' || (isObject(source.config) && isObject(source.options));

/** Certificates come as text, as a buffer, or as a list of either. */
const pem = (value) => (Array.isArray(value) ? value.map(pem).join('\n') : Buffer.isBuffer(value) ? value.toString() : value);

function dialectOptions(options) {
  if (!isObject(options)) return options;
  const { ssl, socketPath, application_name } = options;
  if (!isObject(ssl)) return { ssl, socketPath, application_name };
  const { rejectUnauthorized, verifyIdentity, ca, cert, key } = ssl;
  return { ssl: { rejectUnauthorized, verifyIdentity, ca: pem(ca), cert: pem(cert), key: pem(key) }, socketPath, application_name };
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

function connectionSource(source) {
  if (typeof source === 'string') return { url: source };
  if (source instanceof URL) return { url: source.href };
  return isSequelize(source) ? { sequelize: sequelizeSettings(source) } : { parts: source };
}

const write = {
  record: (value) => stringify(storableRecord(value)),
  records: (value) => stringify(Array.isArray(value) ? value.map(storableRecord) : value),
  state: (value) => stringify(storableState(value)),
  job: (value) => stringify(storableJob(value)),
  options: (value) => stringify(value, visible),
  connection: (value) => stringify(connectionSource(value), visible),
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
function encode(how, what, value) {
  try {
    const isUrl = how === 'connection' && typeof value === 'string';
    if ((!isObject(value) && !isUrl) || (how === 'connection' && Array.isArray(value))) {
      const expected =
        how === 'connection' ? 'a URL, connection options or a Sequelize instance' : how === 'records' ? 'an array' : 'an object';
      // A URL in place of the options holds a password, perhaps.
      const given = how === 'options' && typeof value === 'string' ? 'a string' : describe(value);
      return invalid(`${what} must be ${expected}, not ${given}`);
    }
    const text = write[how](value);
    return text === undefined ? invalid(`${what} must be an object, and its toJSON gives ${describe(text)}`) : text;
  } catch (error) {
    return invalid(`${what} can't be written as JSON: ${whyUnwritable(what, value, error)}`, error);
  }
}

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
function makeError(message, code, retryable, causeMessage, causeCode, thrownKey) {
  let cause;
  if (thrown.has(thrownKey)) {
    cause = thrown.get(thrownKey);
  } else if (typeof causeMessage === 'string') {
    cause = new Error(causeMessage);
    if (typeof causeCode === 'string') cause.code = causeCode;
  }
  return new StateStoreError(message, { code, retryable, cause });
}

/** Whether this Linux has glibc. Only musl's loader has a name like that, and where there is no report, that name tells. */
function hasGlibc() {
  const { report } = process;
  if (!report) return !existsSync(`/lib/ld-musl-${{ x64: 'x86_64', arm64: 'aarch64' }[process.arch]}.so.1`);
  // A report with the network looks up the names of all open sockets, which can take seconds. Node below 20.13 does not know the setting.
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  try {
    return Boolean(report.getReport().header.glibcVersionRuntime);
  } finally {
    report.excludeNetwork = excludeNetwork;
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
  } else {
    const old = /GLIBC_/.test(cause.message) ? `. This system's C library is older than the binary takes: ${FROM_SOURCE}` : '';
    why = `the binary for ${name} does not load: ${cause.message}${old}`;
  }
  const error = new Error(`@batchactions/state-sqlx can't be used on ${os} ${arch}${libc}: ${why}`, cause && { cause });
  return Object.assign(error, { code: 'BINARY_UNAVAILABLE' });
}

function loadAddon() {
  const name = platform();
  // Beside this file in a clone of the repository.
  const local = join(__dirname, `state-sqlx.${name}.node`);
  try {
    if (existsSync(local)) return require(local);
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
    throw loadError(name, cause);
  }
  throw loadError(name);
}

// Of how many records the database finds out whether they fit on a page of `records`: in the beginning; next time, as many as would fit if they were like those of
// the last page, but not much more than those, for what does not fit is looked at in vain; and at most.
const FIRST_PAGE = 20;
const PAGE_BYTES = 2 << 20;
const GROWTH = 8;
const LARGEST_PAGE = 1_000;

/** All of a large array of records, a slice at a time, so that the event loop gets a turn in between. */
async function gather(result) {
  const reader = await result;
  if (Array.isArray(reader)) return reader;
  const records = [];
  for (let slice = reader.next(); slice; slice = reader.next()) {
    for (const record of slice) records.push(record);
    await new Promise(setImmediate);
  }
  return records;
}

/** Joins the two halves. A subclass, because the addon's own class could be called without `new`. */
function connect(addon) {
  addon.install(encode, parse, makeError);
  const { _recordPage: recordPage } = addon.SqlxStateStore.prototype;
  delete addon.SqlxStateStore.prototype._recordPage;

  class SqlxStateStore extends addon.SqlxStateStore {
    constructor(connection, options) {
      const password = passwordFunction(connection, options);
      super(connection, options, typeof password === 'function' ? asker(password) : undefined);
    }

    async getFailedRecords(jobId) {
      return gather(super.getFailedRecords(jobId));
    }

    async getPendingRecords(jobId) {
      return gather(super.getPendingRecords(jobId));
    }

    async getProcessedRecords(jobId) {
      return gather(super.getProcessedRecords(jobId));
    }

    async getBatchRecords(jobId, batchId) {
      return gather(super.getBatchRecords(jobId, batchId));
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

    // Node 20 has no `await using`, but compilers that translate it look for this name there.
    [Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose')]() {
      return this.close();
    }
  }
  return { SqlxStateStore, StateStoreError };
}

const addon = loadAddon();
// A test runner may load this file more than once in a thread. There is one addon, so there is one class of stores and one of errors.
addon.connected ??= connect(addon);

// Assigned one by one, so that Node finds the names for `import { SqlxStateStore }`.
module.exports.SqlxStateStore = addon.connected.SqlxStateStore;
module.exports.SequelizeStateStore = addon.connected.SqlxStateStore;
module.exports.StateStoreError = addon.connected.StateStoreError;
