// The dashboard's files of failed rows, and its counts of errors, are those of the command: two packages have code for them, which must not drift apart.

import { describe, expect } from 'vitest';
import { makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { command, json } from '../support/command.mjs';
import { onEveryDatabase } from '../support/suite.mjs';
import { ask, serve } from './serve.mjs';

const failed = (index, raw, fields) => makeRecord(index, { status: 'failed', raw, ...fields });
const error = (field, message, code) => ({ field, message, code });

const CASES = {
  'fields that differ': [failed(0, { a: 1, b: 'x' }), failed(1, { b: null, c: { d: [1] } }), failed(2, {})],
  'cells that would run': [
    '=1+1',
    '+1',
    '-x',
    '@a',
    '\t=1',
    '\r=1',
    '＝1',
    '-5',
    '+4.5e3',
    'a;=1',
    'b\t=1',
    ' =1',
    '\0=1',
    'a\n-1',
    'a;-5;"=2',
    "a;=cmd|' /C calc'!A0;b",
  ].map((text, i) => failed(i, { text, [text]: i })),
  'quotes and line ends': [failed(0, { 'a,"b"': 'c\r\n"d"', e: ' f ' })],
  'errors and processing errors': [
    failed(0, { a: 1 }, { errors: [error('a', 'one; two', 'X'), { message: 'three' }, error('', 'four', 'Y')], processingError: '=boom' }),
    failed(1, { a: 1 }, { status: 'invalid', errors: [error('b', '', 'Z')] }),
  ],
  'fields with the names of the columns': [failed(0, { _index: 'x', _errors: 'y', _raw: 'z' })],
  'warnings, and errors of one kind': [
    failed(0, { a: 1 }, { errors: [error('a', 'one', 'X'), error('a', 'two', 'X'), { ...error('a', 'three', 'X'), severity: 'warning' }] }),
    failed(1, { a: 1 }, { errors: [{ ...error('a', 'one', 'X'), severity: 'error' }, error('a', 'one', 'Y')], processingError: 'no' }),
  ],
  'errors and raw data of any kind': [
    [{ a: 1 }, {}],
    [{ a: 1 }, null],
    [{ a: 1 }, 'text'],
    [{ a: 1 }, ''],
    [{ a: 1 }, 0],
    [{ a: 1 }, { field: 'f', code: 'C', message: 'alone' }],
    [{ a: 1 }, [{ field: { x: 1 }, code: [7], message: { y: '\u202e' } }, null, 3, { field: null, message: 'm' }]],
    [{ a: 1 }, [{ path: 'x', severity: 'warning' }, ['a', 1], [], 'text', false]],
    ['\u001b[31m', [{ message: '\u001b]0;x\u0007' }]],
  ].map(([raw, errors], i) => failed(i, raw, { errors })),
  'no record': [],
};

/** Other programs store what the store refuses to save. */
const isForeign = ({ raw, errors }) => typeof raw !== 'object' || !Array.isArray(errors);

async function save(on, job, records) {
  if (records.length > 0) {
    const saved = records.map((record) => (isForeign(record) ? { ...record, raw: {}, errors: [] } : record));
    await on.store.saveBatchRecords(job.id, job.batches[0].id, saved);
  }
  for (const { index, raw, errors } of records.filter(isForeign)) {
    const values = [JSON.stringify(raw), JSON.stringify(errors), job.id, index];
    await on.query('update "batchactions_records" set "raw" = ?, "errors" = ? where "jobId" = ? and "recordIndex" = ?', values);
  }
  await on.store.saveJobState(job);
}

/** The command escapes more characters in JSON, for the terminal. It means the same. */
const meant = (text, type) => (type === 'csv' ? text : text.split('\n').map((line) => line && JSON.stringify(JSON.parse(line))));

const sorted = (kinds) => kinds.map((kind) => JSON.stringify(kind)).toSorted();

onEveryDatabase((on) => {
  describe.each(Object.entries(CASES))('%s', (_, records) => {
    const needed = records.some(isForeign) ? ['shared', 'raw'] : ['shared'];
    for (const status of ['COMPLETED', 'PROCESSING']) {
      on.needs(...needed)(`of a job that is ${status} are the same by the page and by the command`, async () => {
        const job = makeJob(1, { id: newId(), status });
        await save(on, job, records);
        const url = await serve(on.store, { showRecords: true });
        for (const type of ['csv', 'ndjson']) {
          const { text } = await ask(url, `failed.${type}?id=${job.id}`);
          const { code, stdout } = await command(['failed', job.id, '--format', type], { url: on.url });
          expect([type, code, meant(text.replace(/^\uFEFF/, ''), type)]).toEqual([type, 0, meant(stdout, type)]);
        }
      });
    }

    // The text of a processing error is no kind to the page where records are hidden, and to the command it is one without its numbers.
    on.needs(...needed)('are counted alike by the page and by the command, but for processing errors', async () => {
      const job = makeJob(1, { id: newId(), status: 'COMPLETED' });
      await save(on, job, records);
      const { code, value } = await json(['errors', job.id], { url: on.url });
      const ofCommand = value.errors.filter((kind) => kind.code !== 'processingError');
      const expected = ofCommand.map(({ field = '', code = '', severity, records }) => ({ field, code, severity, rows: records }));
      for (const showRecords of [false, true]) {
        const { rows, groups } = (await ask(await serve(on.store, { showRecords }), `api/errors?id=${job.id}`)).json;
        const ofPage = groups.filter((kind) => !kind.code.startsWith('Processing'));
        const kinds = ofPage.map(({ field, code, severity = 'error', count }) => ({ field, code, severity, rows: count }));
        expect([code, rows, sorted(kinds)]).toEqual([0, value.records, sorted(expected)]);
        const examples = new Set(ofCommand.flatMap(({ samples }) => samples));
        if (showRecords) for (const { example } of ofPage.filter((kind) => kind.example !== '')) expect(examples).toContain(example);
        else expect(groups.filter((kind) => 'example' in kind)).toEqual([]);
      }
    });
  });
});
