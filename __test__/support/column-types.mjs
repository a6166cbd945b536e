/** Changes of the text that makes the tables, for tables with other column types. */

/** The text with another type for the columns of these names, in all tables or in one. */
export const retype = (names, type, table) => (text) =>
  text.replace(/CREATE TABLE[^;]*/g, (statement) => {
    if (table && !statement.includes(table)) return statement;
    return statement.replace(
      /(["`])(\w+)\1(\s+)(?:VARCHAR\(\d+\)|JSON|INTEGER|BIGINT|TEXT|BOOLEAN|TINYINT\(1\))(?! auto_increment| PRIMARY)/g,
      (whole, q, name, space) => (names.includes(name) ? `${q}${name}${q}${space}${type}` : whole),
    );
  });

/** One change after the other. */
export const both =
  (...changes) =>
  (text) =>
    changes.reduce((changed, change) => change(changed), text);

/** Columns by what they hold. */
export const IDS = ['id', 'jobId', 'batchId'];
export const TIMES = ['startedAt', 'completedAt', 'claimedAt'];
export const NUMBERS = [
  'totalRecords',
  'recordIndex',
  'batchIndex',
  'recordStartIndex',
  'recordEndIndex',
  'processedCount',
  'failedCount',
  'version',
];
export const JSONS = ['config', 'batches', 'raw', 'parsed', 'errors'];

/** SQL's list of these words, for an enum. */
export const listOf = (words) => words.map((word) => `'${word}'`).join(', ');
