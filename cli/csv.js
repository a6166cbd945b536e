'use strict';

// Rows as CSV (RFC 4180), safe to open in a spreadsheet.

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

const row = (values) => `${values.map(cell).join(',')}\r\n`;

module.exports = { cell, row };
