/** The words of the command line: what is not understood, where the database is said to be, and help. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { afterAll, describe, expect, test } from 'vitest';
import { databasesWith } from '../support/databases.mjs';
import { SqlxStateStore } from '../support/suite.mjs';
import { command, json } from '../support/command.mjs';

const require = createRequire(import.meta.url);
const { holdsPassword } = require('../../cli/connection.js');
const { spoken } = require('../../cli/spoken.js');
const { clean, time, toJson } = require('../../cli/text.js');
const { pauseAfter } = require('../../cli/pace.js');
const COMMANDS = ['doctor', 'init', 'jobs', 'show', 'watch', 'failed', 'errors', 'pause', 'resume', 'abort', 'retry', 'reclaim', 'purge'];
const OF_A_JOB = ['show', 'watch', 'failed', 'errors', 'pause', 'resume', 'abort', 'retry', 'reclaim'];

/** A URL with which nothing has to be reached. */
const NOWHERE = 'postgres://user@127.0.0.1:1/app';
const SECRET = 'hunter2-of-this-test';

const withoutStack = ({ stderr }) => expect(stderr).not.toMatch(/^\s+at |Error:|node:internal/m);

/** Exit 2, the message, and the usage line of the subcommand; nothing on stdout. */
function expectUsage(ended, message, usage) {
  expect(ended).toMatchObject({ code: 2, stdout: '' });
  const [first, second] = ended.stderr.split('\n');
  expect(first).toMatch(message);
  if (usage) expect(second).toMatch(new RegExp(`^usage: batchactions-sqlx ${usage}`));
  withoutStack(ended);
}

describe('help', () => {
  test('--help, help and --version need no database', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect(await command(['--version'])).toEqual({ code: 0, signal: null, stdout: `${version}\n`, stderr: '' });
    for (const words of [['--help'], ['help'], ['-h']]) {
      const { code, stdout, stderr } = await command(words);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${name}\\b`, 'm'));
    }
  });

  test.each(COMMANDS)('%s --help and help %s say the same, with its usage and every option', async (name) => {
    const [first, second] = [await command([name, '--help']), await command(['help', name])];
    expect(first).toEqual(second);
    expect(first).toMatchObject({ code: 0, stderr: '' });
    expect(first.stdout).toMatch(new RegExp(`^usage: batchactions-sqlx ${name}`));
    for (const option of Object.keys(require(`../../cli/help.js`).COMMANDS.get(name).options ?? {})) {
      expect(first.stdout).toContain(`--${option}`);
    }
    for (const line of first.stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(130);
  });
});

describe('words that it does not know', () => {
  test('an unknown command is exit 2, and a near one is named', async () => {
    expectUsage(await command(['wach', 'job']), /there is no command "wach": did you mean watch\?/, '<command>');
    expectUsage(await command(['frobnicate']), /there is no command "frobnicate": the commands are doctor, init/, '<command>');
    expectUsage(await command(['help', 'frobnicate']), /there is no command/);
    expectUsage(await command([]), /which command/);
    expectUsage(await command(['--json', 'jobs']), /the options come after the command/);
  });

  test.each(OF_A_JOB)('%s without a job, with two, and with an unknown option is exit 2 with its usage line', async (name) => {
    expectUsage(await command([name], { url: NOWHERE }), /the job is missing/, `${name} <job>`);
    expectUsage(await command([name, 'a', 'b'], { url: NOWHERE }), /"b" is one word too many/, `${name} <job>`);
    expectUsage(await command([name, 'a', '--frobnicate'], { url: NOWHERE }), /Unknown option '--frobnicate'/, `${name} <job>`);
  });

  test.each([
    ['purge --older-than 3', /--older-than must be a duration such as 30d, 12h, 15m, 90s or 500ms, not "3"/],
    ['purge --older-than -3d', /--older-than/],
    ['purge --older-than 3weeks', /"3weeks"/],
    ['purge', /--older-than is missing/],
    ['purge --older-than 1d --statuses PROCESSING', /--statuses takes COMPLETED, ABORTED, FAILED, and not "PROCESSING"/],
    ['reclaim job', /--timeout is missing/],
    ['reclaim job --timeout soon', /"soon"/],
    ['watch job --interval 1ms', /--interval must be from 100ms to 1h/],
    ['watch job --interval 25d', /--interval must be from 100ms to 1h/],
    ['reclaim job --timeout 999ms', /--timeout must be 1s or more/],
    ['show -job', /Unknown option '-j' \(a job id that begins with - stands at the end, after --\)/],
    ['failed job', /--format is missing: csv, ndjson or json/],
    ['failed job --format xlsx', /--format takes csv, ndjson, json, and not "xlsx"/],
    ['failed job --format csv --output .', /this is a folder/],
    ['retry job --batch-size 0', /--batch-size must be a whole number from 1 to 100000, not "0"/],
    ['retry job --statuses processed', /--statuses takes failed, invalid, pending, valid/],
    ['jobs --limit many', /--limit must be a whole number/],
    ['jobs --status DONE', /--status takes CREATED/],
  ])('%s is exit 2 with the reason', async (line, message) => {
    const words = line.split(' ');
    // The folder is looked at once the job is found.
    const url = line.includes('--output') ? await withJob() : NOWHERE;
    expectUsage(await command(words, { url }), message, words[0]);
  });
});

let own;
/** A database with a job named `job`. */
async function withJob() {
  own ??= await databasesWith('file')[0].create();
  const store = new SqlxStateStore(own.url);
  await store.initialize();
  await store.saveJobState({ id: 'job', config: { batchSize: 1 }, status: 'COMPLETED', batches: [], totalRecords: 0 });
  await store.close();
  return own.url;
}
afterAll(() => own?.drop());

describe('where the database is', () => {
  test('neither DATABASE_URL nor --url is exit 2', async () => {
    expectUsage(await command(['jobs']), /set DATABASE_URL, or give --url/, 'jobs');
    expectUsage(await command(['jobs', '--url', '']), /--url must be/, 'jobs');
  });

  test('a URL of another tool is exit 2 with the store’s own words', async () => {
    expectUsage(await command(['jobs'], { url: 'mysql2://u@h/d' }), /mysql2: is how another tool writes its URLs/);
    expectUsage(await command(['jobs'], { url: 'not a url' }), /the URL has no scheme/);
    expectUsage(await command(['jobs'], { url: 'mssql://h/d' }), /mssql/);
  });

  test('a database that can’t be reached is exit 4 with the store’s own message, for every command', async () => {
    const more = { failed: ['--format', 'csv'], reclaim: ['--timeout', '1m'], purge: ['--older-than', '1d', '--yes'], abort: ['--yes'] };
    for (const name of COMMANDS.filter((name) => name !== 'doctor')) {
      const words = [name, ...(OF_A_JOB.includes(name) ? ['job'] : []), ...(more[name] ?? [])];
      const ended = await command(words, { url: `postgres://user:${SECRET}@127.0.0.1:1/app` });
      expect(ended, name).toMatchObject({ code: 4, stdout: '' });
      expect(ended.stderr, name).toMatch(/^batchactions-sqlx: .*PostgreSQL database "app" at 127\.0\.0\.1:1.*refused/);
      expect(ended.stderr.trim().split('\n'), name).toHaveLength(1);
      expect(ended.stderr, name).not.toContain(SECRET);
    }
  });

  test('--url with a password is exit 2, says why, and repeats it nowhere', async () => {
    for (const url of [
      `postgres://user:${SECRET}@127.0.0.1:1/app`,
      `mysql://user:${SECRET}/?#@127.0.0.1/app`,
      `postgresql://user:${SECRET}@/app?host=/tmp`,
      `postgres://user@127.0.0.1:1/app?password=${SECRET}`,
    ]) {
      const ended = await command(['jobs', '--url', url]);
      expectUsage(ended, /--url holds a password, and every user of this machine can read it there, by ps/, 'jobs');
      expect(ended.stderr).not.toContain(SECRET);
    }
  });

  test('a URL where a word is expected is not repeated either', async () => {
    const url = `postgres://user:${SECRET}@127.0.0.1:1/app`;
    for (const words of [
      [url],
      ['help', url],
      ['show', 'job', url],
      ['jobs', '--limit', url],
      ['jobs', '--status', url],
      ['purge', '--older-than', url],
    ]) {
      const ended = await command(words, { url: NOWHERE });
      expectUsage(ended, /a word that looks like a URL/);
      expect(ended.stderr).not.toContain(SECRET);
    }
  });

  test.each([
    ['postgres://user:pw@host/db', true],
    ['postgres://user@host/db', false],
    ['postgres://user:@host/db', false],
    ['postgres://host:5432/db', false],
    ['postgres://user@host:5432/db?sslmode=require', false],
    ['postgres://[::1]:5432/db', false],
    ['postgres://user:p/w@host/db', true],
    ['postgres://user:12/w@host/db', true],
    ['postgres://user:p?w@host/db', true],
    ['postgres://user:p#w@host/db', true],
    ['postgres://user:p@w@host/db', true],
    ['postgresql://user:pw@/db?host=/cloudsql/p:r:n', true],
    ['postgresql://user@/db?host=/cloudsql/p:r:n', false],
    ['postgres://host/db?user=u&password=pw', true],
    ['postgres://host/db?user=u%40tenant', false],
    ['postgres://user@host/db?p%61ssword=pw', true],
    ['postgres://user@host/db?sslmode=require&pass%77ord=pw', true],
    ['postgres://user@host/db?password=', false],
    ['postgres://user%3Apw@host/db', true],
    ['postgres://us%40er@host/db', false],
    ['postgres://us%er@host/db', false],
    ['mysql://user@host/db', false],
    ['sqlite:file.db', false],
    ['sqlite:///srv/data:1/a.db', false],
    ['sqlite:user@host.db', false],
  ])('%s holds a password: %s', (url, holds) => {
    expect(holdsPassword(url)).toBe(holds);
  });

  test('--url without a password, and --password-stdin, connect', async () => {
    const url = await withJob();
    expect(await json(['show', 'job', '--url', url])).toMatchObject({ code: 0, value: { job: { id: 'job' } } });
    expect(await json(['show', 'job', '--url', url, '--password-stdin'], { input: 'not needed\n' })).toMatchObject({ code: 0 });
  });

  test('--url counts before DATABASE_URL', async () => {
    expect(await json(['jobs', '--url', await withJob()], { url: NOWHERE })).toMatchObject({ code: 0, value: [{ id: 'job' }] });
  });

  test('a parameter without effect is warned of by its name, and the command works', async () => {
    const ended = await json(['jobs', '--url', `${await withJob()}?frobnicate=${SECRET}`]);
    expect(ended.stderr).not.toContain(SECRET);
  });
});

test('a job that does not exist is exit 3 for every command that names one', async () => {
  const url = await withJob();
  const more = { failed: ['--format', 'csv'], reclaim: ['--timeout', '1m'], abort: ['--yes'] };
  for (const name of OF_A_JOB) {
    const ended = await command([name, 'nothing', ...(more[name] ?? [])], { url });
    expect(ended, name).toMatchObject({ code: 3, stdout: '', stderr: 'batchactions-sqlx: there is no job "nothing"\n' });
  }
});

test('tables that are missing are exit 1 and say what to do', async () => {
  const empty = await databasesWith('file')[0].create();
  try {
    await command(['init'], { url: empty.url });
    await empty.query('drop table "batchactions_jobs"');
    const ended = await command(['jobs'], { url: empty.url });
    expect(ended).toMatchObject({ code: 1, stdout: '' });
    expect(ended.stderr).toMatch(/no such table.*: run batchactions-sqlx init first$/m);
  } finally {
    await empty.drop();
  }
});

test('the store’s words for programs are the command’s words', () => {
  for (const [message, words] of [
    ['no such table: t: call initialize() first', 'no such table: t: run batchactions-sqlx init first'],
    ['abort it there, or, if that process is gone, with { force: true }', 'abort it there, or, if that process is gone, with --force'],
    ['wait, or take it away with abortJob(jobId, { now: true })', 'wait, or take it away with batchactions-sqlx abort --now'],
    ['options.schema is for PostgreSQL only', '--schema is for PostgreSQL only'],
    ['create one of them, or set the option schema', 'create one of them, or set --schema'],
    ['options.batchSize is missing', '--batch-size is missing'],
    ['no answer within 30000 ms (connectTimeoutMs)', 'no answer within 30000 ms (connect_timeout)'],
    ['(a pooler?): give statementCache: 0: text', '(a pooler?): put pgbouncer=true into the URL: text'],
  ]) {
    expect(spoken(message)).toBe(words);
  }
});

test('a time that is no date is shown as it is stored', async () => {
  expect(time(9e15)).toBe('9000000000000000');
  expect(time(0)).toBe('1970-01-01 00:00:00Z');
  const url = await withJob();
  const store = new SqlxStateStore(url);
  const at = { startedAt: 9e15, completedAt: 9e15 };
  await store.saveJobState({ id: 'far', config: { batchSize: 1 }, status: 'FAILED', batches: [], totalRecords: 0, ...at });
  await store.close();
  for (const words of [['jobs'], ['show', 'far']]) {
    const ended = await command(words, { url });
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toContain('9000000000000000');
  }
});

test.each([
  ['the first look', 60_000, 0, 1_000],
  ['a look after one that failed', 60_000, 0, 1_000],
  ['one look that the store repeated', 60_000, 20, 1_000],
  ['a look that failed', 0, 60_000, 1_000],
  ['looks that take long', 500, 700, 5_000],
  ['looks that take very long', 60_000, 60_000, 10_000],
])('watch waits after %s', (_, took, tookBefore, pause) => {
  expect(pauseAfter(took, tookBefore, 1_000)).toBe(pause);
  expect(pauseAfter(took, tookBefore, 3_600_000)).toBe(3_600_000);
});

test('control characters of the database or the command line do not reach the terminal', async () => {
  const url = await withJob();
  const store = new SqlxStateStore(url);
  await store.saveJobState({ id: 'evil\u001b[31m', config: { batchSize: 1 }, status: 'FAILED', batches: [], totalRecords: 0 });
  await store.close();
  for (const words of [['jobs'], ['show', 'evil\u001b[31m'], ['errors', 'evil\u001b[31m'], ['show', 'no\u001b[31m']]) {
    const { stdout, stderr } = await command(words, { url });
    expect(stdout + stderr).toMatch(/\\u001b\[31m/);
    // oxlint-disable-next-line no-control-regex -- it is what must not be there
    expect(stdout + stderr).not.toMatch(/\u001b/);
  }
});

test('characters that reorder text or can’t be seen are escaped, in text and in JSON, which means the same', () => {
  const unsafe = ['\u0000', '\u007f', '\u009b', '\u061c', '\u200b', '\u200d', '\u202e', '\u2066', '\ufeff', '\u{e0001}', '\u{e007f}'];
  for (const character of unsafe) {
    const value = { [`a${character}`]: `\\${character}"` };
    expect(toJson(value)).not.toContain(character);
    expect(JSON.parse(toJson(value))).toEqual(value);
    expect(clean(`a${character}b`)).toMatch(/^a(\\u[\da-f]{4})+b$/);
  }
  expect(clean('\u{e0001}')).toBe('\\udb40\\udc01');
  expect(clean('Žluť 🚴 日本')).toBe('Žluť 🚴 日本');
});
