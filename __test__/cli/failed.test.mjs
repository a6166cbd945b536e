/** `failed` and `errors`: the failed records as a file, and what is wrong with them. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databasesWith } from '../support/databases.mjs';
import { makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { onEveryDatabase, SqlxStateStore } from '../support/suite.mjs';
import { atTerminal, command, hasTerminals, json, shell, start } from '../support/command.mjs';

// Line ends are the command's own.
// oxlint-disable-next-line no-control-regex -- it is what must not be there
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/;

const require = createRequire(import.meta.url);
const csv = require('../../cli/csv.js');

const folder = mkdtempSync(join(tmpdir(), 'failed-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The rows of a CSV text, by the grammar of RFC 4180. */
function parseCsv(text) {
  const rows = [[]];
  const cells = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy;
  for (let found; (found = cells.exec(text));) {
    rows.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    if (found[3] === '\r\n') rows.push([]);
  }
  expect(rows.pop()).toEqual([]);
  return rows;
}

const invalidEmail = { field: 'email', message: '"x" is no address', code: 'TYPE_MISMATCH' };
const RECORDS = [
  makeRecord(0),
  makeRecord(1, { status: 'invalid', raw: { email: 'x', name: 'Ada, "the" first\r\nprogrammer' }, errors: [invalidEmail] }),
  makeRecord(2, {
    status: 'failed',
    raw: { name: '=HYPERLINK("http://evil")', age: -5, more: { a: [1] } },
    errors: [invalidEmail, { field: 'name', message: 'is too long; or not', code: 'CUSTOM_VALIDATION' }],
    processingError: 'row 2 timed out',
  }),
  makeRecord(3, { status: 'failed', raw: { email: '', name: null, Žluť: '🚴' }, processingError: 'row 3 timed out' }),
  makeRecord(4, { status: 'pending' }),
  makeRecord(5, { status: 'failed', raw: { email: 'x' } }),
];

async function makeFailedJob(store, fields) {
  const job = makeLocalJob(1, { size: RECORDS.length, status: 'FAILED', ...fields });
  await store.saveBatchRecords(job.id, job.batches[0].id, RECORDS);
  await store.saveJobState(job);
  return job.id;
}

onEveryDatabase((on) => {
  let id;
  beforeAll(async () => {
    if (on.has('shared')) id = await makeFailedJob(on.store);
  });

  on.needs('shared')('CSV has a row for each failed record, with all fields of raw, and neutralises formulas', async () => {
    const ended = await command(['failed', id, '--format', 'csv'], { url: on.url });
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const [head, ...rows] = parseCsv(ended.stdout);
    expect(head.toSorted()).toEqual(
      ['email', 'name', 'age', 'more', 'Žluť', '_index', '_status', '_errors', '_processingError'].toSorted(),
    );
    expect(head.slice(-4)).toEqual(['_index', '_status', '_errors', '_processingError']);
    const byName = rows.map((row) => Object.fromEntries(row.map((cell, at) => [head[at], cell])));
    const empty = { email: '', name: '', age: '', more: '', Žluť: '', _errors: '', _processingError: '' };
    const email = 'email: "x" is no address (TYPE_MISMATCH)';
    expect(byName).toEqual([
      { ...empty, email: 'x', name: 'Ada, "the" first\r\nprogrammer', _index: '1', _status: 'invalid', _errors: email },
      {
        ...empty,
        name: `'=HYPERLINK("http://evil")`,
        age: '-5',
        more: '{"a":[1]}',
        _index: '2',
        _status: 'failed',
        _errors: `${email}; name: is too long; or not (CUSTOM_VALIDATION)`,
        _processingError: 'row 2 timed out',
      },
      { ...empty, Žluť: '🚴', _index: '3', _status: 'failed', _processingError: 'row 3 timed out' },
      { ...empty, email: 'x', _index: '5', _status: 'failed' },
    ]);
  });

  on.needs('shared')('NDJSON and JSON have everything that the store has of the records', async () => {
    const stored = await on.store.getFailedRecords(id);
    expect(stored).toHaveLength(4);
    const lines = await command(['failed', id, '--format', 'ndjson'], { url: on.url });
    expect(lines).toMatchObject({ code: 0, stderr: '' });
    expect(
      lines.stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(stored);
    for (const words of [['--format', 'json'], ['--json']]) {
      const array = await command(['failed', id, ...words], { url: on.url });
      expect(array).toMatchObject({ code: 0, stderr: '' });
      expect(JSON.parse(array.stdout)).toEqual(stored);
    }
    const invalid = await command(['failed', id, '--format', 'json', '--statuses', 'invalid'], { url: on.url });
    expect(JSON.parse(invalid.stdout)).toEqual(stored.filter(({ status }) => status === 'invalid'));
  });

  on.needs('shared')('errors counts by field and code, and processing errors by their text', async () => {
    const { code, value, stderr } = await json(['errors', id], { url: on.url });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(value).toEqual({
      jobId: id,
      records: 4,
      failed: 3,
      invalid: 1,
      withoutError: 1,
      errors: [
        { field: 'email', code: 'TYPE_MISMATCH', severity: 'error', records: 2, firstIndex: 1, samples: ['"x" is no address'] },
        { code: 'processingError', severity: 'error', records: 2, firstIndex: 2, samples: ['row 2 timed out', 'row 3 timed out'] },
        { field: 'name', code: 'CUSTOM_VALIDATION', severity: 'error', records: 1, firstIndex: 2, samples: ['is too long; or not'] },
      ],
    });
    const { stdout } = await command(['errors', id], { url: on.url });
    expect(stdout).toMatch(/^4 records of job \S+ failed \(3 failed, 1 invalid\)/);
    expect(stdout).toMatch(/^ +2 {2}email +TYPE_MISMATCH +1 {2}"x" is no address$/m);
    expect(stdout).toMatch(/^1 record without an error that was stored$/m);
  });

  on.needs('shared')('a job without failed records has an empty file', async () => {
    const done = makeLocalJob(0, { status: 'COMPLETED' });
    await on.store.saveJobState(done);
    const of = async (format) => (await command(['failed', done.id, '--format', format], { url: on.url })).stdout;
    expect(await of('csv')).toBe('_index,_status,_errors,_processingError\r\n');
    expect(await of('ndjson')).toBe('');
    expect(JSON.parse(await of('json'))).toEqual([]);
    expect((await command(['errors', done.id], { url: on.url })).stdout).toBe(`Job ${done.id} has no failed records.\n`);
  });
});

describe('columns', () => {
  let own;
  let store;
  beforeAll(async () => {
    own = await databasesWith('file')[0].create();
    store = new SqlxStateStore(own.url);
    await store.initialize();
  });
  afterAll(async () => {
    await store.close();
    await own.drop();
  });

  async function headAndRows(records, fields) {
    const job = makeLocalJob(1, { status: 'FAILED', ...fields });
    await store.saveBatchRecords(job.id, job.batches[0].id, records);
    await store.saveJobState(job);
    const { code, stdout, stderr } = await command(['failed', job.id, '--format', 'csv'], { url: own.url });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return parseCsv(stdout);
  }
  const failed = (index, raw) => makeRecord(index, { status: 'failed', raw });

  test('fields with the names of our columns keep theirs', async () => {
    const [head, row] = await headAndRows([failed(0, { _index: 'mine', _errors: 'too' })]);
    expect(head).toEqual(['_index', '_errors', '_index_', '_status', '_errors_', '_processingError']);
    expect(row).toEqual(['mine', 'too', '0', 'failed', '', '']);
  });

  test('raw data that is not an object has a column of its own', async () => {
    const rows = await headAndRows([failed(0, ['a', 1]), failed(1, 'text'), failed(2, { a: 1 })]);
    expect(rows).toEqual([
      ['a', '_raw', '_index', '_status', '_errors', '_processingError'],
      ['', '["a",1]', '0', 'failed', '', ''],
      ['', 'text', '1', 'failed', '', ''],
      ['1', '', '2', 'failed', '', ''],
    ]);
  });

  test('a header that would run as a formula is neutralised, and __proto__ is a field like others', async () => {
    const [head, row] = await headAndRows([failed(0, JSON.parse('{"=cmd()":"1","__proto__":"2"}'))]);
    expect(head.slice(0, 2)).toEqual([`'=cmd()`, '__proto__']);
    expect(row.slice(0, 2)).toEqual(['1', '2']);
  });

  test('fields beyond the 2,000th are in one column, and none is lost', async () => {
    const raw = Object.fromEntries(Array.from({ length: 2_500 }, (_, at) => [`f${at}`, at]));
    const [head, row] = await headAndRows([failed(0, raw)]);
    expect(head).toHaveLength(2_005);
    expect(head.at(-1)).toBe('_moreFields');
    const all = { ...Object.fromEntries(head.slice(0, 2_000).map((name, at) => [name, Number(row[at])])), ...JSON.parse(row.at(-1)) };
    expect(all).toEqual(raw);
  });

  test('while a job runs, there is a column for fields that come after the first look', async () => {
    const [head] = await headAndRows([failed(0, { a: 1 })], { status: 'PROCESSING' });
    expect(head).toEqual(['a', '_index', '_status', '_errors', '_processingError', '_moreFields']);
  });
});

describe('what other programs stored', () => {
  let own;
  let store;
  let id;
  beforeAll(async () => {
    own = await databasesWith('file')[0].create();
    store = new SqlxStateStore(own.url);
    await store.initialize();
    ({ id } = makeLocalJob(0));
    await store.saveJobState(makeLocalJob(0, { id, status: 'FAILED' }));
    const rows = [
      ['{"a":1}', '{}'],
      ['{"a":1}', 'null'],
      ['{"a":1}', '"text"'],
      ['{"a":1}', '[{"field":{"x":1},"code":[7],"message":{"y":"\u202e"}},null,3,{"field":null,"message":"m"}]'],
      ['"\\u001b[31m"', '[{"message":"\\u001b]0;x\\u0007"}]'],
    ];
    for (const [at, [raw, errors]] of rows.entries()) {
      await own.query(
        `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors") values (?, 'b', ?, 'failed', ?, '{}', ?)`,
        [id, at, raw, errors],
      );
    }
  });
  afterAll(async () => {
    await store.close();
    await own.drop();
  });

  test('errors and raw data of any kind are rows like others', async () => {
    const { code, stdout, stderr } = await command(['failed', id, '--format', 'csv'], { url: own.url });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [head, ...rows] = parseCsv(stdout);
    const errors = rows.map((row) => row[head.indexOf('_errors')]);
    expect(errors.slice(0, 4)).toEqual(['{}', '', 'text', '{"x":1}: {"y":"\u202e"} ([7]); null; 3; m']);
    expect(rows).toHaveLength(5);
    for (const format of ['ndjson', 'json']) {
      const ended = await command(['failed', id, '--format', format], { url: own.url });
      expect(ended).toMatchObject({ code: 0, stderr: '' });
    }
    const counted = await json(['errors', id], { url: own.url });
    expect(counted).toMatchObject({ code: 0, stderr: '', value: { records: 5 } });
    expect(await command(['errors', id], { url: own.url })).toMatchObject({ code: 0, stderr: '' });
  });

  test('raw data that is no JSON ends the file with the reason, and without a file', async () => {
    const broken = makeLocalJob(0, { status: 'FAILED' });
    await store.saveJobState(broken);
    await own.query(
      `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors") values (?, 'b', 0, 'failed', '{broken', '{}', '[]')`,
      [broken.id],
    );
    const path = join(folder, 'broken.csv');
    const ended = await command(['failed', broken.id, '--format', 'csv', '--output', path], { url: own.url });
    expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^batchactions-sqlx: a column does not hold JSON/) });
    expect(existsSync(path)).toBe(false);
  });

  test('JSON has no control character, and means what is stored', async () => {
    const { stdout } = await command(['failed', id, '--format', 'ndjson'], { url: own.url });
    expect(stdout).not.toMatch(UNSAFE);
    const parsed = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(parsed).toEqual(await store.getFailedRecords(id));
  });

  (hasTerminals ? test : test.skip)('CSV at a terminal is escaped, and a file has the values as they are', async () => {
    const shown = await atTerminal(['failed', id, '--format', 'csv'], { url: own.url }).ended;
    expect(shown.code).toBe(0);
    expect(shown.stdout.replace(/\r?\r\n/g, '\n')).not.toMatch(UNSAFE);
    expect(shown.stdout).toContain('\\u001b[31m');
    expect((await command(['failed', id, '--format', 'csv'], { url: own.url })).stdout).toContain('\u001b[31m');
  });
});

describe('cells', () => {
  test.each([
    ['=1+1', `'=1+1`],
    ['+cmd|calc', `'+cmd|calc`],
    ['-2+3', `'-2+3`],
    ['@SUM(A1)', `'@SUM(A1)`],
    ['\t=1', `"'\t'=1"`],
    ['\r=1', `"'\r'=1"`],
    ['\n=1', `"'\n'=1"`],
    ['\0=1', `'\0=1`],
    [' =1', `' =1`],
    ["a;=cmd|' /C calc'!A0;b", `"a;'=cmd|' /C calc'!A0;b"`],
    ['a\t@x', `"a\t'@x"`],
    ['a\r\n- x', `"a\r\n'- x"`],
    ['a; "\0=1', `"a; ""\0'=1"`],
    ['a;-5;b', '"a;-5;b"'],
    ['a;-5+1;b', `"a;'-5+1;b"`],
    ['a;-5', `"a;'-5"`],
    ['\uff1d1', `'\uff1d1`],
    ['=1,2"', `"'=1,2"""`],
    ['-5', '-5'],
    [-5, '-5'],
    ['+49123456', '+49123456'],
    ['-1.5e3', '-1.5e3'],
    ['-', `'-`],
    ['a-b', 'a-b'],
    ['a,b', '"a,b"'],
    ['a;=1', `"a;'=1"`],
    ['a"b', '"a""b"'],
    ['a\nb', '"a\nb"'],
    [' a ', '" a "'],
    ['', ''],
    [null, ''],
    [undefined, ''],
    [0, '0'],
    [false, 'false'],
    [{ a: '=1' }, '"{""a"":""=1""}"'],
  ])('%j is written as %j', (value, text) => {
    expect(csv.cell(value)).toBe(text);
  });

  test('of a million characters that are nearly a formula are written in a moment', () => {
    for (const text of ['\t'.repeat(1e6), `-${'1'.repeat(1e6)}x`, `;-${'1'.repeat(1e6)}x`, `;${' '.repeat(1e6)}=`]) {
      expect(csv.cell(text).length).toBeGreaterThan(1e6);
    }
  });
});

describe('large jobs', () => {
  const LARGE = 200_000;
  const SMALL = 2_000;
  let own;
  const ids = { [LARGE]: newId(), [SMALL]: newId() };

  beforeAll(async () => {
    own = await databasesWith('file')[0].create();
    const store = new SqlxStateStore(own.url);
    await store.initialize();
    for (const size of [SMALL, LARGE]) {
      const job = makeLocalJob(1, { id: ids[size], size, status: 'FAILED' });
      for (let from = 0; from < size; from += 2_000) {
        const records = Array.from({ length: 2_000 }, (_, at) =>
          makeRecord(from + at, { status: 'failed', raw: { n: String(from + at), text: 'x'.repeat(200) }, errors: [invalidEmail] }),
        );
        await store.saveBatchRecords(job.id, job.batches[0].id, records);
      }
      await store.saveJobState(job);
    }
    await store.close();
    // Says at the end how much memory the process has taken.
    writeFileSync(
      join(folder, 'rss.cjs'),
      `process.on('exit', () => require('node:fs').writeFileSync(process.env.RSS_FILE, String(process.resourceUsage().maxRSS)));`,
    );
  });
  afterAll(() => own.drop());

  test.each(['csv', 'ndjson', 'json', 'errors'])('%s of 200,000 records takes little more memory than of 2,000', async (format) => {
    const words = (id) =>
      format === 'errors' ? ['errors', id] : ['failed', id, '--format', format, '--output', join(folder, `large.${format}`)];
    const memory = {};
    for (const size of [SMALL, LARGE]) {
      const file = join(folder, 'rss');
      const options = { url: own.url, env: { RSS_FILE: file }, nodeOptions: ['--require', join(folder, 'rss.cjs')] };
      const ended = await command(words(ids[size]), options);
      expect(ended.code, ended.stderr).toBe(0);
      memory[size] = Number(readFileSync(file, 'utf8')) / 1_024;
    }
    if (format !== 'errors') {
      const text = readFileSync(join(folder, `large.${format}`), 'utf8');
      // Each format has a line a record, and its own first and last lines.
      expect(text.split('\n').length).toBe(LARGE + { csv: 2, ndjson: 1, json: 3 }[format]);
    }
    // All records take 80 MB as text, and several times that as values.
    expect(memory[LARGE] - memory[SMALL], `${memory[SMALL]} MB and ${memory[LARGE]} MB`).toBeLessThan(64);
  });

  test.each(['csv', 'ndjson', 'json'])('%s into head ends quietly with 0', async (format) => {
    const ended = await shell(`set -o pipefail; $cli failed ${ids[LARGE]} --format ${format} | head -n 2`, { url: own.url });
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout.split('\n')).toHaveLength(3);
  });

  test('a reader that is slow takes its time, and gets everything', async () => {
    const ended = await shell(`$cli failed ${ids[LARGE]} --format ndjson | (sleep 1; wc -l)`, { url: own.url });
    expect(ended).toMatchObject({ code: 0, stdout: `${LARGE}\n`, stderr: '' });
  });

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'])('%s in the middle leaves the old file, and nothing half', async (signal) => {
    const here = mkdtempSync(join(folder, 'interrupted-'));
    const path = join(here, 'failed.csv');
    writeFileSync(path, 'old');
    const running = start(['failed', ids[LARGE], '--format', 'csv', '-o', path], { url: own.url });
    running.process.stdin.end();
    // The temporary file is there: it is being written.
    await expect.poll(() => readdirSync(here).length, { interval: 5, timeout: 60_000 }).toBe(2);
    running.process.kill(signal);
    const { code, stderr } = await running.ended;
    expect({ code, stderr }).toEqual({ code: { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal], stderr: '' });
    expect(readdirSync(here)).toEqual(['failed.csv']);
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  test('--output replaces the file that a link leads to, and the link stays', async () => {
    const here = mkdtempSync(join(folder, 'link-'));
    writeFileSync(join(here, 'real.csv'), 'old', { mode: 0o600 });
    symlinkSync('real.csv', join(here, 'link.csv'));
    const ended = await command(['failed', ids[SMALL], '--format', 'csv', '--output', join(here, 'link.csv')], { url: own.url });
    expect(ended).toMatchObject({ code: 0, stdout: '' });
    expect(ended.stderr).toBe(`2,000 records of job ${ids[SMALL]} written to ${join(here, 'link.csv')}\n`);
    expect(readFileSync(join(here, 'real.csv'), 'utf8').split('\r\n')).toHaveLength(SMALL + 2);
    expect(readdirSync(here).toSorted()).toEqual(['link.csv', 'real.csv']);
  });

  test('--output takes a name as long as the system does', async () => {
    const path = join(folder, `${'n'.repeat(251)}.csv`);
    expect(await command(['failed', ids[SMALL], '--format', 'csv', '--output', path], { url: own.url })).toMatchObject({ code: 0 });
    expect(existsSync(path)).toBe(true);
  });

  test('--output to a folder that is not there, and to one that can’t be written, is exit 1 with the reason', async () => {
    for (const path of [join(folder, 'missing', 'a.csv'), '/proc/a.csv']) {
      const ended = await command(['failed', ids[SMALL], '--format', 'csv', '-o', path], { url: own.url });
      expect(ended).toMatchObject({ code: 1, stdout: '' });
      expect(ended.stderr).toContain(`batchactions-sqlx: ${path} can't be written: `);
    }
  });

  test('a full disk is exit 1 with the reason, and leaves nothing', async () => {
    if (!existsSync('/dev/full')) return;
    const ended = await shell(`$cli failed ${ids[SMALL]} --format csv > /dev/full`, { url: own.url });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(/stdout can't be written: .*ENOSPC/);
    const device = await command(['failed', ids[SMALL], '--format', 'csv', '--output', '/dev/full'], { url: own.url });
    expect(device.code).toBe(1);
    expect(existsSync('/dev/full')).toBe(true);
  });
});
