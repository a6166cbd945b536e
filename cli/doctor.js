'use strict';

const { durationOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { EXIT, UsageError, exitCodeOf } = require('./exit.js');
const { spoken } = require('./spoken.js');
const { clean, count, duration, isClean, plural } = require('./text.js');

const EXAMINE = Symbol.for('batchactions-sqlx.examine');

/** The oldest versions that work. */
const OLDEST = { PostgreSQL: [12, 0], MySQL: [8, 0], MariaDB: [10, 6], SQLite: [3, 38] };
/** The database's clock decides about leases; times that the application sets are by its own. */
const SKEW_MS = 2_000;
/** The size below which a job of some ten thousand batches does not fit. */
const PACKET = 16 << 20;
/** What a batch takes in the list of its job. */
const BYTES_PER_BATCH = 190;
/** Open jobs that are looked at, the newest first. */
const MOST_JOBS = 200;
/** Jobs that a check names. */
const NAMED = 5;
/** As in @batchactions/distributed. */
const STALE_MS = 900_000;
/** The checks that stand for an error, with what to do: before the first answer of the database, and after it. */
const NOT_REACHED = ['reachable', 'correct the URL, the login, its rights or the network, or start the server'];
const INTERRUPTED = ['interrupted', 'the checks that would follow were not made: correct this, and run doctor again'];

module.exports = {
  usage: 'doctor [--stale-after 15m]',
  summary: 'Checks the database and the tables, and says what to do',
  options: { 'stale-after': { type: 'string' } },
  help: `
Each check is ok, warn or fail, with what it saw and what to do. It changes nothing.

  --stale-after DURATION  after how long a claimed batch counts as stale: the timeout of your workers
  --json                { ok, checks: [{ name, mark, saw, todo }] }
`,

  async run({ values, stdout }) {
    const staleMs = durationOption(values, 'stale-after') ?? STALE_MS;
    const connection = await Connection.of(values);
    const report = new Report(values.json, stdout);
    let reached = false;
    const examine = async (store, ping) => {
      reached = true;
      await report.ok('reachable', `${ping.database} ${clean(ping.version)}, ${ping.latencyMs.toFixed(1)} ms a round trip`);
      await look({ store, ping, report, staleMs });
    };
    try {
      await connection.use(examine);
    } catch (error) {
      // A URL that can't be used is no finding about a database.
      if (error instanceof UsageError || error.code === undefined) throw error;
      // What was found before it is reported too, so it is one of the checks.
      const [name, todo] = reached ? INTERRUPTED : NOT_REACHED;
      await report.fail(name, spoken(error.message), todo);
      await report.end();
      return exitCodeOf(error);
    }
    return report.end();
  },

  // For tests, which give them facts that no server at hand has.
  checkVersion,
  checkClock,
  checkPooler,
  checkPacket,
};

/** The findings, which a person reads as they come. */
class Report {
  #checks = [];

  constructor(asJson, stdout) {
    this.asJson = asJson;
    this.stdout = stdout;
  }

  async #add(mark, name, saw, todo) {
    this.#checks.push({ name, mark, saw, ...(todo === undefined ? {} : { todo }) });
    if (this.asJson) return;
    await this.stdout.line(`${painted(mark)}  ${name.padEnd(NAME_WIDTH)}  ${saw}`);
    if (todo !== undefined) for (const line of todo.split('\n')) await this.stdout.line(`${' '.repeat(NAME_WIDTH + 8)}${line}`);
    await this.stdout.flush();
  }

  ok(name, saw) {
    return this.#add('ok', name, saw);
  }

  warn(name, saw, todo) {
    return this.#add('warn', name, saw, todo);
  }

  fail(name, saw, todo) {
    return this.#add('fail', name, saw, todo);
  }

  /** The exit code. */
  async end() {
    const ok = this.#checks.every(({ mark }) => mark !== 'fail');
    if (this.asJson) await this.stdout.json({ ok, checks: this.#checks });
    return ok ? EXIT.OK : EXIT.FAILED;
  }
}

const NAME_WIDTH = 'max_allowed_packet'.length;
const COLORS = { ok: 32, warn: 33, fail: 31 };

function painted(mark) {
  const text = mark.padEnd(4);
  const { stdout } = process;
  const hasColors = stdout.isTTY && !process.env.NO_COLOR && stdout.hasColors();
  return hasColors ? `\u001b[${COLORS[mark]}m${text}\u001b[39m` : text;
}

async function look({ store, ping, report, staleMs }) {
  await checkVersion(report, ping);
  await checkClock(report, ping);
  const examination = await store[EXAMINE]();
  await checkPooler(report, examination.session);
  await checkPacket(report, examination);
  if (!(await checkTables(report, examination))) return;
  await checkRights(report, examination);
  await checkIds(report, examination, ping.database);
  // A user who can't read can't be told more.
  if (examination.denied.some(({ right }) => right === 'select')) return;
  await checkJobs(report, store, ping, staleMs);
}

function checkVersion(report, { database, version }) {
  const [oldest, older] = OLDEST[database];
  // A beta is `18beta1`.
  const [major, minor] = version.split(/[.-]/).map((part) => Number.parseInt(part, 10));
  if (major > oldest || (major === oldest && !(minor < older)))
    return report.ok('version', `${database} ${oldest}.${older} and newer work`);
  return report.fail('version', `${database} ${clean(version)} is too old`, `use ${database} ${oldest}.${older} or newer`);
}

function checkClock(report, { clockSkewMs }) {
  const ahead = clockSkewMs > 0 ? 'ahead of' : 'behind';
  const saw = `the database is ${duration(Math.abs(clockSkewMs))} ${ahead} this machine`;
  if (Math.abs(clockSkewMs) <= SKEW_MS) return report.ok('clock', saw);
  return report.warn(
    'clock',
    saw,
    'leases go by the database, so they are safe; durations are wrong by that much: synchronise both by NTP',
  );
}

function checkPooler(report, { port, serverPort, ageMs, expectsPooler }) {
  const isOlder = ageMs !== undefined && ageMs !== null && ageMs > process.uptime() * 1_000 + 1_000;
  const isElsewhere = Boolean(port && serverPort && port !== serverPort);
  if (expectsPooler) return report.ok('pooler', 'the store is set for a transaction pooler (statementCache: 0, or pgbouncer=true)');
  if (!isOlder && !isElsewhere) return report.ok('pooler', 'none is seen between this machine and the server');
  const saw = isOlder
    ? `the server began this session ${duration(ageMs)} ago, before this command: a pooler keeps it`
    : `this machine connects to port ${port}, and the server is at ${serverPort}: a pooler, a proxy or a mapped port`;
  return report.warn(
    'pooler',
    saw,
    'if it is a pooler in transaction mode, put pgbouncer=true into the URL, or give the store statementCache: 0',
  );
}

function checkPacket(report, { maxPacket }) {
  if (maxPacket === null) return undefined;
  const saw = `${Math.round(maxPacket / 1_048_576)} MiB: jobs of up to about ${count(Math.floor(maxPacket / BYTES_PER_BATCH / 1_000) * 1_000)} batches`;
  if (maxPacket >= PACKET) return report.ok('max_allowed_packet', saw);
  return report.warn(
    'max_allowed_packet',
    saw,
    'raise it to 64M where jobs or records are larger: a larger one is refused with VALUE_TOO_LONG',
  );
}

/** Whether the tables can be looked at further. */
async function checkTables(report, { missing, incompatible }) {
  if (incompatible !== null) {
    await report.fail('tables', spoken(incompatible), 'docs/limits.md has the types that work');
    return false;
  }
  if (missing.length === 0) {
    await report.ok('tables', 'the 3 tables, their columns and 5 indexes are there');
    return true;
  }
  const objects = missing.map(
    (statement) => /create (?:unique )?(?:table|index)(?: if not exists)? [`"]?(\w+)/.exec(statement)?.[1] ?? statement,
  );
  const isWhole = missing.length === 8;
  await report.fail(
    'tables',
    isWhole
      ? 'there are none, or this user may not see them'
      : `${plural(missing.length, 'table or index is', 'tables or indexes are')} missing: ${objects.map(clean).join(', ')}`,
    'run batchactions-sqlx init, or give its statements to a DBA: batchactions-sqlx init --print',
  );
  // Without an index, everything else can be looked at, and may take long.
  return false;
}

function checkRights(report, { denied }) {
  if (denied.length === 0) return report.ok('rights', 'select, insert, update and delete on the tables');
  const saw = denied.map(({ right, on }) => `${right} on ${clean(on)}`).join(', ');
  const readOnly = denied.length === 1 && denied[0].right !== 'select' ? ` (${spoken(denied[0].message)})` : '';
  return report.fail(
    'rights',
    `denied: ${saw}${readOnly}`,
    'grant them to the user of the URL (init --print ends with the statements), or connect to the server that takes writes',
  );
}

function checkIds(report, { ids }, database) {
  if (ids === null) return undefined;
  if (ids.behind) {
    const { given, highest, statement } = ids.behind;
    return report.fail(
      'ids of records',
      `the sequence is at ${count(given)}, and records have ids up to ${count(highest)}: new records would get ids that exist`,
      `a restore does that; while no worker runs, let the sequence go on after the records: ${clean(statement)}`,
    );
  }
  const share = ids.highest / ids.limit;
  const saw = `${count(ids.highest)} of ${ids.limit > 2 ** 53 ? '2^63' : count(ids.limit)} used (${(share * 100).toFixed(share < 0.001 ? 3 : 1)} %)`;
  if (share < 0.5) return report.ok('ids of records', saw);
  const larger =
    database === 'PostgreSQL'
      ? 'alter table batchactions_records alter column id type bigint; alter sequence batchactions_records_id_seq as bigint'
      : 'alter table batchactions_records modify id bigint auto_increment';
  const todo = `make the column larger, while no worker runs (it rewrites the table): ${larger}\npurge does not help: ids are not given out again`;
  return share < 0.9 ? report.warn('ids of records', saw, todo) : report.fail('ids of records', saw, todo);
}

async function checkJobs(report, store, { clockSkewMs }, staleMs) {
  const open = await store.listJobs({ status: 'PROCESSING', limit: MOST_JOBS });
  const looked =
    open.length === MOST_JOBS
      ? `the newest ${MOST_JOBS} jobs that are PROCESSING`
      : plural(open.length, 'job is PROCESSING', 'jobs are PROCESSING');
  const [stale, complete] = [[], []];
  for (const { id, distributed } of open) {
    if (!distributed) continue;
    const { isComplete, processingBatches } = await store.getDistributedStatus(id);
    if (isComplete) complete.push(id);
    const batches = processingBatches === 0 ? 0 : await staleBatches(store, id, Date.now() + clockSkewMs - staleMs);
    if (batches > 0) stale.push({ id, batches });
  }
  if (stale.length === 0) await report.ok('stale batches', `${looked}: no batch is held for longer than ${duration(staleMs)}`);
  else {
    const saw = stale.map(({ id, batches }) => `${plural(batches, 'batch', 'batches')} of ${clean(id)}`);
    await report.warn(
      'stale batches',
      `held for longer than ${duration(staleMs)}: ${named(saw)}`,
      `their workers are dead, or slower than that: ${reclaim(stale[0].id, option(staleMs))}`,
    );
  }
  if (complete.length === 0) await report.ok('unfinished jobs', `${looked}: none has all its batches done`);
  else {
    await report.warn(
      'unfinished jobs',
      `complete, and not final: ${named(complete.map(clean))}`,
      `the last worker died before it could finalize: ${reclaim(complete[0], '1m')}`,
    );
  }
}

/** A duration as an option takes it; `reclaim` takes none below 1s. */
const option = (ms) => (ms % 60_000 === 0 ? `${Math.max(ms / 60_000, 1)}m` : `${Math.max(ms, 1_000)}ms`);

/** A line for a shell. An id may hold anything. */
function reclaim(id, timeout) {
  if (!isClean(id)) return `batchactions-sqlx reclaim <job> --timeout ${timeout}`;
  const word = /^[\w.:@-]+$/.test(id) ? id : `'${id.replaceAll("'", `'\\''`)}'`;
  return id.startsWith('-')
    ? `batchactions-sqlx reclaim --timeout ${timeout} -- ${word}`
    : `batchactions-sqlx reclaim ${word} --timeout ${timeout}`;
}

const named = (words) => `${words.slice(0, NAMED).join(', ')}${words.length > NAMED ? ` and ${count(words.length - NAMED)} more` : ''}`;

async function staleBatches(store, jobId, before) {
  let stale = 0;
  for (let after; ;) {
    const page = await store.batches(jobId, { status: 'PROCESSING', limit: 1_000, after });
    stale += page.filter(({ claimedAt }) => claimedAt === undefined || claimedAt < before).length;
    if (page.length < 1_000) return stale;
    after = page.at(-1).index;
  }
}
