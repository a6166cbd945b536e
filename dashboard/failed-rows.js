'use strict';

// The failed records of a job as text for a file: CSV for a spreadsheet, NDJSON for a program. Each is an async generator of pieces of text, and holds one
// page of records at a time, however many there are.
//
// `dashboard/failed-rows.js` is the same file: the two packages are installed apart from each other. A test compares them.

const FAILED = ['failed', 'invalid'];

/** Rows go out in pieces of about this many characters. */
const PIECE = 65_536;

/** More columns than a spreadsheet is of use with, and than need to be kept in memory. */
const MAX_COLUMNS = 1_000;

/**
 * CSV as RFC 4180 has it: a row for each record, with its index, its status, its errors joined by `; `, and a column for each key that a record's `raw` has.
 * The columns are found by reading the records once before.
 *
 * @param store A store: `records` is called.
 * @param {string} jobId
 * @param {object} [options]
 * @param {string | readonly string[]} [options.status] Which records. Default: failed and invalid ones.
 * @param {(record: object) => object | Promise<object>} [options.redact] What is written of a record.
 * @param {boolean} [options.bom] Whether it begins with a byte order mark, without which Excel takes UTF-8 for something else. Default: no.
 */
async function* csvOfRecords(store, jobId, { status = FAILED, redact, bom = false } = {}) {
  const columns = await columnsOf(store, jobId, { status, redact });
  // The records' own keys keep their names, so that the file can be corrected and imported.
  const own = ['_index', '_status', '_errors'].map((name) => {
    let free = name;
    while (columns.has(free)) free = `_${free}`;
    return free;
  });
  let piece = `${bom ? '\uFEFF' : ''}${line([...own, ...columns])}`;
  for await (const record of redacted(store, jobId, { status, redact })) {
    const raw = rawOf(record);
    for (const key of Object.keys(raw)) {
      if (!columns.has(key))
        throw new Error(`a record with a new column, ${JSON.stringify(key.slice(0, 80))}, was saved meanwhile: repeat it`);
    }
    piece += line([
      record.index,
      record.status,
      errorsOf(record),
      ...Array.from(columns, (key) => (Object.hasOwn(raw, key) ? raw[key] : '')),
    ]);
    if (piece.length >= PIECE) {
      yield piece;
      piece = '';
    }
  }
  if (piece !== '') yield piece;
}

/** NDJSON: each record with all that it has, as one line of JSON. The options are those of `csvOfRecords`. */
async function* ndjsonOfRecords(store, jobId, { status = FAILED, redact } = {}) {
  let piece = '';
  for await (const record of redacted(store, jobId, { status, redact })) {
    piece += `${JSON.stringify(record)}\n`;
    if (piece.length >= PIECE) {
      yield piece;
      piece = '';
    }
  }
  if (piece !== '') yield piece;
}

/** The keys of all records, in the order in which they come. */
async function columnsOf(store, jobId, options) {
  const columns = new Set();
  for await (const record of redacted(store, jobId, options)) {
    for (const key of Object.keys(rawOf(record))) columns.add(key);
    if (columns.size > MAX_COLUMNS) throw new TooManyColumns();
  }
  return columns;
}

/** CSV can't have these records. NDJSON can. */
class TooManyColumns extends Error {
  constructor() {
    super(`these records have more than ${MAX_COLUMNS.toLocaleString('en-US')} different keys, too many for columns: take them as NDJSON`);
    this.name = 'TooManyColumns';
  }
}

async function* redacted(store, jobId, { status, redact }) {
  for await (const record of store.records(jobId, { status })) yield redact ? await redact(record) : record;
}

function rawOf({ raw }) {
  return typeof raw === 'object' && raw !== null ? raw : { raw };
}

/** What is wrong with a record, in one line. */
function errorsOf({ errors, processingError }) {
  const texts = (Array.isArray(errors) ? errors : []).map((error) => {
    const { field, message, code } = error ?? {};
    return [field, message ?? code].filter((part) => part !== undefined && part !== '').join(': ');
  });
  if (processingError !== undefined) texts.push(processingError);
  return texts.join('; ');
}

function line(values) {
  return `${values.map(cell).join(',')}\r\n`;
}

/** Spreadsheets run a text that begins so as a formula, some after spaces too. Numbers are none. */
const FORMULA = /^\s*[=+\-@\uFF0B\uFF0D\uFF1D\uFF20]|^[\t\r\n]/;
const NUMBER = /^[+-]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:[eE][+-]?\d+)?$/;

function cell(value) {
  let text = value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
  if (FORMULA.test(text) && !NUMBER.test(text)) text = `'${text}`;
  // A spreadsheet may split at semicolons and tabs too, and run what follows them.
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

module.exports = { csvOfRecords, ndjsonOfRecords, errorsOf, TooManyColumns };
