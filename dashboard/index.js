'use strict';

// A page that shows the jobs of a store. One request handler serves all: two HTML files, their scripts and style, and the JSON that the scripts ask for.
//
//   lib/access.js        who may see it, and which requests may change something
//   lib/views.js         what the pages show: reads the store
//   lib/actions.js       what the pages do, where `actions` allows it
//   lib/failed-rows.js   the failed rows as a file
//   lib/record-errors.js what is wrong with a record
//   lib/fresh.js         so that many open pages cost the database what one costs
//   assets/              what the browser gets

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { pipeline } = require('node:stream/promises');
const { inspect } = require('node:util');
const { checkAccess, checkFetched, checkOrigin } = require('./lib/access.js');
const { ACTIONS, act } = require('./lib/actions.js');
const { csvOfRecords, ndjsonOfRecords } = require('./lib/failed-rows.js');
const { Fresh } = require('./lib/fresh.js');
const { id, oneOf, readBody, readQuery, required, whole } = require('./lib/query.js');
const { Refusal, refusalOf } = require('./lib/refusal.js');
const views = require('./lib/views.js');

const TYPES = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
  json: 'application/json; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  ndjson: 'application/x-ndjson; charset=utf-8',
  txt: 'text/plain; charset=utf-8',
};

/** On every answer. The browser loads nothing but what this handler serves, and runs no script or style that stands in a page. */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** The addresses that a link of another site may lead to. */
const PAGES = ['', '/', '/job'];
/** A download reads all failed rows of a job, twice for CSV: so many at once, and no more. */
const DOWNLOADS = 4;

const ASSETS = ['page.js', 'jobs.js', 'job.js', 'style.css', 'icon.svg'];

/** The methods of the store that are called. */
const READS = ['listJobs', 'getJob', 'getProgress', 'batches', 'stats', 'getDistributedStatus', 'records', 'ping'];
const CHANGES = ['pauseJob', 'resumeJob', 'abortJob', 'retryFailed', 'purge', 'reclaimStaleBatches'];

function createDashboard(store, options = {}) {
  const settings = readSettings(store, options);
  const context = { store, settings, fresh: new Fresh(), downloads: 0 };
  const routes = routesOf(context);

  /** Answers a request. The promise never rejects. */
  return async function dashboard(request, response) {
    try {
      if (!(await checkAccess(request, response, settings))) return;
      await answer(request, response);
    } catch (error) {
      refuse(request, response, error);
    }
  };

  async function answer(request, response) {
    const { path, search } = locate(request.url);
    const within = below(path, settings.basePath);
    checkFetched(request, PAGES.includes(within));
    const route = routes.get(within === '' ? '/' : within);
    if (within === undefined || route === undefined) throw new Refusal(404, 'NOT_FOUND', 'There is nothing at this address.');
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    if (!Object.hasOwn(route, method)) {
      const allow = Object.keys(route)
        .flatMap((name) => (name === 'GET' ? ['GET', 'HEAD'] : [name]))
        .join(', ');
      throw new Refusal(405, 'METHOD_NOT_ALLOWED', `This address takes ${allow.replace(', ', ' and ')} only.`, { allow });
    }
    // The links of the pages are relative, so a page's address must end in a slash. Express has cut the path that it is mounted at off `url`.
    if (within === '' || within === '/') {
      const asked = locate(request.originalUrl ?? request.url).path;
      if (!asked.endsWith('/')) {
        const last = asked.slice(asked.lastIndexOf('/') + 1);
        return send(request, response, 308, 'txt', 'This page is at the same address with a slash at its end.\n', {
          location: `./${last}/${search && `?${search}`}`,
        });
      }
    }
    await route[method](request, response, search);
  }

  function refuse(request, response, error) {
    const { status, code, message, headers } = refusalOf(error, settings.tell);
    // In the middle of a file there is one way left to say that it isn't whole.
    if (response.headersSent) return void response.destroy();
    const wantsJson = /\/api\/[^/]*$/.test((request.url ?? '').split('?')[0]);
    if (wantsJson) send(request, response, status, 'json', JSON.stringify({ error: { code, message } }), headers);
    else send(request, response, status, 'txt', `${message}\n`, headers);
  }
}

/** What is at which path, below the path that the page is mounted at: a function for each method. */
function routesOf(context) {
  const { store, settings } = context;
  const routes = new Map();
  const get = (path, run) => routes.set(path, { GET: run });

  const file = (path, name) => {
    const type = name.slice(name.lastIndexOf('.') + 1);
    const content = readFileSync(join(__dirname, 'assets', name));
    get(path, (request, response) => send(request, response, 200, type, content));
  };
  file('/', 'jobs.html');
  file('/job', 'job.html');
  for (const name of ASSETS) file(`/${name}`, name);

  const view = (name, needed, readers, read) => {
    get(`/api/${name}`, async (request, response, search) => {
      const query = readQuery(search, readers);
      for (const key of needed) required(query, key);
      send(request, response, 200, 'json', JSON.stringify(await read(context, query)));
    });
  };
  view('jobs', [], { status: oneOf(...views.JOB_STATUSES), after: id, afterStartedAt: whole }, views.jobs);
  view('job', ['id'], { id, status: oneOf(...views.BATCH_STATUSES), after: whole }, views.job);
  view('errors', ['id'], { id }, views.errors);
  view('rows', ['id'], { id, from: whole }, views.rows);

  const download = (type, write) => {
    get(`/failed.${type}`, async (request, response, search) => {
      const query = readQuery(search, { id });
      const jobId = required(query, 'id');
      views.mayShowRecords(settings);
      const job = await views.mustExist(store, jobId);
      // The id may hold any character; a file's name may not.
      const name = `failed-${jobId.replace(/[^\w-]+/g, '_').slice(0, 60)}.${type}`;
      const headers = { 'content-disposition': `attachment; filename="${name}"` };
      if (request.method === 'HEAD') return send(request, response, 200, type, '', headers);
      if (context.downloads >= DOWNLOADS) {
        const message = `${DOWNLOADS} downloads are under way, which is the most at once: try again when one of them has ended.`;
        throw new Refusal(429, 'TOO_MANY_REQUESTS', message, { 'retry-after': '10' });
      }
      context.downloads++;
      try {
        await stream(response, type, headers, write(store, job, { redact: settings.redact }));
      } finally {
        context.downloads--;
      }
    });
  };
  download('csv', (store, job, options) => csvOfRecords(store, job, { ...options, bom: true }));
  download('ndjson', ndjsonOfRecords);

  for (const [name, { takes }] of Object.entries(ACTIONS)) {
    routes.set(`/api/${name}`, {
      async POST(request, response) {
        if (!settings.actions) {
          throw new Refusal(403, 'FORBIDDEN', 'This page is read-only: createDashboard(store, { actions: true }) makes it act.');
        }
        checkOrigin(request);
        const body = await readBody(request, takes);
        send(request, response, 200, 'json', JSON.stringify(await act(context, name, body)));
      },
    });
  }
  return routes;
}

/** Sends pieces of text as they come, as fast as the client takes them. */
async function stream(response, type, headers, pieces) {
  try {
    // Before the headers: what goes wrong until here gets an answer of its own.
    const first = await pieces.next();
    response.writeHead(200, { ...HEADERS, 'content-type': TYPES[type], ...headers });
    await pipeline(async function* all() {
      if (!first.done) yield first.value;
      yield* pieces;
    }, response);
  } catch (error) {
    // The client has gone away.
    if (error?.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  } finally {
    await pieces.return();
  }
}

function send(request, response, status, type, body, headers = {}) {
  if (response.destroyed) return;
  const bytes = Buffer.from(body);
  response.writeHead(status, { ...HEADERS, 'content-type': TYPES[type], 'content-length': bytes.length, ...headers });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

/** The path and the parameters of a request's URL, as they came: nothing is decoded or made shorter, so a path is one of the routes or none. */
function locate(url) {
  const [, path, search = ''] = /^([^?#]*)(?:\?([^#]*))?/s.exec(url ?? '');
  if (!path.startsWith('/')) throw new Refusal(400, 'BAD_REQUEST', 'The address of a request must begin with a slash.');
  return { path, search };
}

/** The rest of a path below another one; `undefined` where it isn't below it. */
function below(path, base) {
  if (!path.startsWith(base)) return undefined;
  const rest = path.slice(base.length);
  return rest === '' || rest.startsWith('/') ? rest : undefined;
}

/** The options, checked: a mistake in them must not open the page. */
function readSettings(store, options) {
  const readers = {
    authorize: (value) => mustBe(value, 'a function', typeof value === 'function'),
    redact: (value) => mustBe(value, 'a function', typeof value === 'function'),
    onError: (value) => mustBe(value, 'a function', typeof value === 'function'),
    actions: (value) => mustBe(value, 'true or false', typeof value === 'boolean'),
    showRecords: (value) => mustBe(value, 'true or false', typeof value === 'boolean'),
    staleAfterMs: (value) => mustBe(value, 'a whole number of milliseconds, more than 0', Number.isSafeInteger(value) && value > 0),
    basePath: (value) =>
      mustBe(value, 'a path that begins with a slash and ends in none', typeof value === 'string' && /^(?:\/[^/?#\s]+)*$/.test(value)),
  };
  if (typeof options !== 'object' || options === null) throw new TypeError('createDashboard: the options must be an object');
  const settings = { actions: false, showRecords: false, staleAfterMs: 900_000, basePath: '', onError: warn };
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(readers, name))
      throw new TypeError(`createDashboard: there is no option ${name}; there are ${Object.keys(readers).join(', ')}`);
    if (value === undefined) continue;
    const wrong = readers[name](value);
    if (wrong) throw new TypeError(`createDashboard: ${name} must be ${wrong}`);
    settings[name] = value;
  }
  settings.tell = teller(settings.onError);
  for (const method of settings.actions ? [...READS, ...CHANGES] : READS) {
    if (typeof store?.[method] !== 'function') {
      throw new TypeError(
        `createDashboard: the store has no method ${method}. It must be a store of @batchactions/state-sqlx of the same version`,
      );
    }
  }
  return settings;
}

function mustBe(value, what, holds) {
  return holds ? undefined : what;
}

/** Calls `onError`. Where that throws or rejects, both errors become warnings: a request has its answer whatever a logger does. */
function teller(onError) {
  return async function tell(error) {
    try {
      await onError(error);
    } catch (reason) {
      warn(error);
      warn(reason);
    }
  };
}

function warn(error) {
  process.emitWarning(error instanceof Error ? error : new Error(`an error of the dashboard: ${inspect(error)}`));
}

module.exports = { createDashboard };
