// The dashboard's files of failed rows are those of the command: two packages have code for them, which must not drift apart.

import { describe, expect } from 'vitest';
import { makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { command } from '../support/command.mjs';
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
  'no record': [],
};

onEveryDatabase((on) => {
  describe.each(Object.entries(CASES))('%s', (_, records) => {
    for (const status of ['COMPLETED', 'PROCESSING']) {
      on.needs('shared')(`of a job that is ${status} are the same by the page and by the command`, async () => {
        const job = makeJob(1, { id: newId(), status });
        if (records.length > 0) await on.store.saveBatchRecords(job.id, job.batches[0].id, records);
        await on.store.saveJobState(job);
        const url = await serve(on.store, { showRecords: true });
        for (const type of ['csv', 'ndjson']) {
          const { text } = await ask(url, `failed.${type}?id=${job.id}`);
          const { code, stdout } = await command(['failed', job.id, '--format', type], { url: on.url });
          expect([type, code, text.replace(/^\uFEFF/, '')]).toEqual([type, 0, stdout]);
        }
      });
    }
  });
});
