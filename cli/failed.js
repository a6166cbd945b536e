'use strict';

const { FINAL, choiceOption, listOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const csv = require('./csv.js');
const { UsageError, refused } = require('./exit.js');
const { interruptible } = require('./interrupt.js');
const { listOf, partsOf } = require('./record-errors.js');
const { outputTo } = require('./output.js');
const { jobOf } = require('./progress.js');
const { clean, count, plural, toJson } = require('./text.js');

const FORMATS = ['csv', 'ndjson', 'json'];
const STATUSES = ['failed', 'invalid'];

/** The most columns of raw fields. Fields beyond them are in one more column, as JSON, so that no file takes more memory, and no field is lost. */
const MOST_COLUMNS = 2_000;

module.exports = {
  usage: 'failed <job> --format csv|ndjson|json [--output FILE]',
  summary: 'Writes the failed records of a job as a file',
  words: ['job'],
  options: { format: { type: 'string' }, output: { type: 'string', short: 'o' }, statuses: { type: 'string' } },
  help: `
  --format csv          a row a record: its raw fields, then index, status, errors and
                        processing error. A cell that a spreadsheet would run as a formula
                        begins with an apostrophe
  --format ndjson       a line of JSON a record, with everything
  --format json         an array of the same; --json means this format
  --output FILE         the file, which is complete or not there; stdout by default
  --statuses S,S        failed, invalid; both by default
`,

  async run({ values, words: [jobId], stdout }) {
    const format = choiceOption(values, 'format', FORMATS) ?? (values.json ? 'json' : undefined);
    if (format === undefined) throw new UsageError('--format is missing: csv, ndjson or json');
    const status = listOption(values, 'statuses', STATUSES) ?? STATUSES;
    const connection = await Connection.of(values);
    return connection.use(async (store) => {
      const job = await jobOf(store, jobId);
      let unfinished;
      const { output, written } = await interruptible(
        () => unfinished?.discard(),
        async () => {
          const output = await outputTo(values.output, stdout, (made) => {
            unfinished = made;
          });
          try {
            const written = await write[format](output, job, () => store.records(jobId, { status }));
            await output.end();
            return { output, written };
          } catch (error) {
            await output.abandon();
            throw error;
          }
        },
      );
      // Beside a file, or where it would not be seen among the rows.
      if (output !== stdout || (written === 0 && stdout.isTerminal)) {
        process.stderr.write(
          `${plural(written, 'record')} of job ${clean(jobId)}${output === stdout ? '' : ` written to ${clean(values.output)}`}\n`,
        );
      }
    });
  },
};

const write = {
  async ndjson(output, _, records) {
    let written = 0;
    for await (const record of records()) {
      await output.write(`${toJson(record)}\n`);
      written++;
    }
    return written;
  },

  async json(output, _, records) {
    let written = 0;
    await output.write('[');
    for await (const record of records()) {
      await output.write(`${written === 0 ? '\n' : ',\n'}${toJson(record)}`);
      written++;
    }
    await output.write('\n]\n');
    return written;
  },

  async csv(output, job, records) {
    // While a job runs, a record with other fields may fail between the two passes. Those go into the last column.
    const columns = await Columns.of(records(), FINAL.includes(job.status));
    // A file has the values as they are.
    const row = output.isTerminal ? (values) => `${clean(csv.row(values).slice(0, -2))}\r\n` : csv.row;
    await output.write(row(columns.head()));
    let written = 0;
    for await (const record of records()) {
      await output.write(row(columns.row(record)));
      written++;
    }
    if (columns.lost > 0) {
      throw refused(
        `${plural(columns.lost, 'record')} of job ${clean(job.id)} changed while the file was written, and ${count(columns.lost)} have fields without a column: run the command again`,
      );
    }
    return written;
  },
};

const isFields = (raw) => typeof raw === 'object' && raw !== null && !Array.isArray(raw);

/** The columns of a CSV: the fields of all records' raw data, in the order in which they first occur, then what the store knows of a record. */
class Columns {
  #fields = new Set();
  /** A record's raw data is not fields: a column of its own holds it. */
  #hasValues = false;
  #hasMore;
  lost = 0;

  static async of(records, isFinal) {
    const columns = new Columns();
    columns.#hasMore = !isFinal;
    for await (const { raw } of records) {
      if (!isFields(raw)) {
        columns.#hasValues = true;
        continue;
      }
      for (const key of Object.keys(raw)) {
        if (columns.#fields.has(key)) continue;
        if (columns.#fields.size < MOST_COLUMNS) columns.#fields.add(key);
        else columns.#hasMore = true;
      }
    }
    return columns;
  }

  head() {
    const taken = new Set(this.#fields);
    // A field of that name keeps it, and ours gets a line below.
    const own = (name) => (taken.has(name) ? own(`${name}_`) : name);
    const head = [...this.#fields];
    if (this.#hasValues) head.push(own('_raw'));
    head.push(own('_index'), own('_status'), own('_errors'), own('_processingError'));
    if (this.#hasMore) head.push(own('_moreFields'));
    return head;
  }

  row({ index, raw, status, errors, processingError }) {
    const fields = isFields(raw) ? raw : {};
    const row = Array.from(this.#fields, (key) => (Object.hasOwn(fields, key) ? fields[key] : undefined));
    if (this.#hasValues) row.push(isFields(raw) ? undefined : raw);
    row.push(index, status, listOf(errors).map(errorText).join('; '), processingError);
    const more = Object.keys(fields).filter((key) => !this.#fields.has(key));
    if (this.#hasMore) row.push(more.length === 0 ? undefined : Object.fromEntries(more.map((key) => [key, fields[key]])));
    else if (more.length > 0 || (!this.#hasValues && !isFields(raw))) this.lost++;
    return row;
  }
}

/** `email: is not an address (TYPE_MISMATCH)` */
function errorText(error) {
  const { field, message, code } = partsOf(error);
  const where = field === '' ? '' : `${field}: `;
  return `${where}${message}${code === '' ? '' : ` (${code})`}`.trim();
}
