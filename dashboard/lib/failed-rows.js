'use strict';

// The failed records of a job as text for a file: CSV for a spreadsheet, NDJSON for a program. Each is an async generator of pieces of text, and holds one page
// of records at a time, however many there are. The rows of the CSV are those of the command `batchactions-sqlx failed`; a test compares them.

const { errorsOf } = require('./record-errors.js');

const FAILED = ['failed', 'invalid'];
const FINAL = new Set(['COMPLETED', 'ABORTED', 'FAILED']);

/** Rows go out in pieces of about this many characters. */
const PIECE = 65_536;

/** The most columns of raw fields. Fields beyond them are in one more column, as JSON, so that no file takes more memory, and no field is lost. */
const MOST_COLUMNS = 2_000;

/**
 * CSV (RFC 4180): a row a record, its raw fields first, then what the store knows of it. The columns are found by reading the records once before.
 *
 * @param store A store: `records` is called.
 * @param {{ id: string, status: string }} job
 * @param {object} [options]
 * @param {(record: object) => object | Promise<object>} [options.redact] What is written of a record.
 * @param {boolean} [options.bom] Whether it begins with a byte order mark, without which Excel takes UTF-8 for something else.
 */
async function* csvOfRecords(store, job, { redact, bom = false } = {}) {
  // While a job runs, a record with other fields may fail between the two readings. Those go into the last column.
  const columns = new Columns(!FINAL.has(job.status));
  for await (const record of failedRecords(store, job.id, redact)) columns.add(record);
  let piece = `${bom ? '\uFEFF' : ''}${line(columns.head())}`;
  for await (const record of failedRecords(store, job.id, redact)) {
    piece += line(columns.row(record));
    if (piece.length < PIECE) continue;
    yield piece;
    piece = '';
  }
  if (piece !== '') yield piece;
}

/** NDJSON: each record with all that it has, as one line of JSON. */
async function* ndjsonOfRecords(store, job, { redact } = {}) {
  let piece = '';
  for await (const record of failedRecords(store, job.id, redact)) {
    piece += `${JSON.stringify(record)}\n`;
    if (piece.length < PIECE) continue;
    yield piece;
    piece = '';
  }
  if (piece !== '') yield piece;
}

async function* failedRecords(store, jobId, redact) {
  for await (const record of store.records(jobId, { status: FAILED })) yield await redacted(record, redact);
}

/** A record as `redact` leaves it. */
async function redacted(record, redact) {
  if (redact === undefined) return record;
  const shown = await redact(record);
  if (typeof shown !== 'object' || shown === null)
    throw new TypeError(`redact must return a record, not ${shown === null ? 'null' : typeof shown}`);
  return shown;
}

const isFields = (raw) => typeof raw === 'object' && raw !== null && !Array.isArray(raw);

/** The columns: the fields of all records, in the order in which they first occur, then what the store knows of a record. */
class Columns {
  #fields = new Set();
  /** A record's raw data is not fields: a column of its own holds it. */
  #hasValues = false;
  #hasMore;

  constructor(hasMore) {
    this.#hasMore = hasMore;
  }

  add({ raw }) {
    if (!isFields(raw)) {
      this.#hasValues = true;
      return;
    }
    for (const key of Object.keys(raw)) {
      if (this.#fields.has(key)) continue;
      if (this.#fields.size < MOST_COLUMNS) this.#fields.add(key);
      else this.#hasMore = true;
    }
  }

  head() {
    // A field of such a name keeps it, so that the file can be corrected and imported; ours gets a line behind.
    const own = (name) => (this.#fields.has(name) ? own(`${name}_`) : name);
    const values = this.#hasValues ? ['_raw'] : [];
    const more = this.#hasMore ? ['_moreFields'] : [];
    return [...this.#fields, ...[...values, '_index', '_status', '_errors', '_processingError', ...more].map(own)];
  }

  row({ index, raw, status, errors, processingError }) {
    const fields = isFields(raw) ? raw : {};
    const row = Array.from(this.#fields, (key) => (Object.hasOwn(fields, key) ? fields[key] : undefined));
    if (this.#hasValues) row.push(isFields(raw) ? undefined : raw);
    row.push(index, status, errorsOf({ errors }), processingError);
    const more = Object.entries(fields).filter(([key]) => !this.#fields.has(key));
    if (this.#hasMore) row.push(more.length === 0 ? undefined : Object.fromEntries(more));
    else if (more.length > 0 || (!this.#hasValues && !isFields(raw))) {
      throw new Error(`record ${index} changed while the file was written, and has a field without a column`);
    }
    return row;
  }
}

function line(values) {
  return `${values.map(cell).join(',')}\r\n`;
}

// A spreadsheet runs a cell that begins so as a formula, which may send the sheet's content elsewhere (OWASP: CSV injection). The last four are the wide
// forms of the first four. Blanks, control and invisible characters in front (a U+0000, say) may be dropped by the program that opens the file.
const FORMULA = /^(?:[\t\r\n]|[\s\p{Cc}\p{Cf}]*[=+\-@\uff1d\uff0b\uff0d\uff20])/u;
/** A number with a sign is a number to a spreadsheet as well: -5 stays -5. */
const NUMBER = /^ *[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)? *$/;
/**
 * The same inside a cell. Where semicolons or tabs separate cells, as they do in many countries, a whole row of commas is one cell, whose quotes mean nothing:
 * what follows a semicolon, a tab or a line break is then a cell of its own, and quotes at its beginning are dropped.
 */
const FORMULA_INSIDE =
  /[=+\-@\uff1d\uff0b\uff0d\uff20](?<=[;\t\r\n][\s\p{Cc}\p{Cf}"]*.)(?!(?<=[+-])(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[;\t\r\n])/gu;

/** A cell's text. What would run as a formula gets an apostrophe in front, which spreadsheets take for "this is text". */
function cell(value) {
  if (value === undefined || value === null) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  const inside = text.replace(FORMULA_INSIDE, "'$&");
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${inside}` : inside;
  // Quoted, so that no program that splits at semicolons or tabs too makes several cells of one.
  return /[",;\t\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}

module.exports = { FAILED, csvOfRecords, ndjsonOfRecords, redacted };
