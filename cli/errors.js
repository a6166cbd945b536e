'use strict';

const { Connection } = require('./connection.js');
const { jobOf } = require('./progress.js');
const { listOf, partsOf } = require('./record-errors.js');
const { clean, count, cut, plural, table } = require('./text.js');

/** The most kinds of errors that are counted apart, so that messages without end take no memory without end. The rest is counted as one kind. */
const MOST_KINDS = 10_000;
/** Messages that are kept of each kind. */
const SAMPLES = 3;
const LONGEST_SAMPLE = 200;

module.exports = {
  usage: 'errors <job>',
  summary: 'Counts the errors of failed records by field and code, the most frequent first',
  words: ['job'],
  help: `
An error of a record counts once for each field and code. A processing error, which has neither,
counts by its text without its numbers.

  --json                { jobId, records, failed, invalid, withoutError,
                          errors: [{ field, code, severity, records, firstIndex, samples }] }
`,

  async run({ values, words: [jobId], stdout }) {
    const connection = await Connection.of(values);
    return connection.use(async (store) => {
      await jobOf(store, jobId);
      const counts = new Counts();
      for await (const record of store.records(jobId, { status: ['failed', 'invalid'] })) counts.add(record);
      const result = { jobId, ...counts.result() };
      if (values.json) return stdout.json(result);
      return stdout.write(`${describe(result).join('\n')}\n`);
    });
  },
};

class Counts {
  #records = { failed: 0, invalid: 0 };
  #withoutError = 0;
  #kinds = new Map();
  #others = 0;

  add({ index, status, errors, processingError }) {
    this.#records[status]++;
    const seen = new Set();
    for (const error of listOf(errors)) {
      const { field, code, message, severity } = partsOf(error);
      const kind = { field: named(field), code: named(code), severity: severity === 'warning' ? 'warning' : 'error' };
      this.#count(JSON.stringify(kind), kind, message, index, seen);
    }
    if (typeof processingError === 'string') {
      // `row 17 timed out after 3 s` and `row 18 timed out after 5 s` are one kind.
      const folded = cut(processingError, LONGEST_SAMPLE).replace(/\d+/g, '#');
      this.#count(`processing ${folded}`, { code: 'processingError', severity: 'error' }, processingError, index, seen);
    }
    if (seen.size === 0) this.#withoutError++;
  }

  #count(key, kind, message, index, seen) {
    if (seen.has(key)) return;
    seen.add(key);
    let known = this.#kinds.get(key);
    if (known === undefined) {
      if (this.#kinds.size === MOST_KINDS) {
        this.#others++;
        return;
      }
      known = { ...kind, records: 0, firstIndex: index, samples: [] };
      this.#kinds.set(key, known);
    }
    known.records++;
    const sample = cut(message, LONGEST_SAMPLE);
    if (known.samples.length < SAMPLES && sample !== '' && !known.samples.includes(sample)) known.samples.push(sample);
  }

  result() {
    const { failed, invalid } = this.#records;
    const errors = [...this.#kinds.values()].sort((a, b) => b.records - a.records || a.firstIndex - b.firstIndex);
    return {
      records: failed + invalid,
      failed,
      invalid,
      withoutError: this.#withoutError,
      errors,
      ...(this.#others > 0 ? { others: this.#others } : {}),
    };
  }
}

/** Absent where it is missing. */
const named = (text) => (text === '' ? undefined : cut(text, LONGEST_SAMPLE));

function describe({ jobId, records, failed, invalid, withoutError, errors, others }) {
  if (records === 0) return [`Job ${clean(jobId)} has no failed records.`];
  const lines = [`${plural(records, 'record')} of job ${clean(jobId)} failed (${count(failed)} failed, ${count(invalid)} invalid).`, ''];
  const rows = errors.map(({ field, code, severity, records: times, firstIndex, samples }) => [
    count(times),
    field ?? '-',
    `${code ?? '-'}${severity === 'warning' ? ' (warning)' : ''}`,
    String(firstIndex),
    cut(samples[0] ?? '', 80),
  ]);
  lines.push(...table(['RECORDS', 'FIELD', 'CODE', 'FIRST', 'MESSAGE, FOR EXAMPLE'], rows, [0, 3]));
  if (others > 0) lines.push(`${plural(others, 'more error')} of other kinds`);
  if (withoutError > 0) lines.push(`${plural(withoutError, 'record')} without an error that was stored`);
  return lines;
}
