'use strict';

// Rows as CSV (RFC 4180), safe to open in a spreadsheet.

// A spreadsheet runs a cell that begins so as a formula, which may send the sheet's content elsewhere (OWASP: CSV injection). The last four are the wide
// forms of the first four.
const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
/** A number with a sign is a number to a spreadsheet as well: -5 stays -5. */
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** A cell's text. What would run as a formula gets an apostrophe in front, which spreadsheets take for "this is text". */
function cell(value) {
  if (value === undefined || value === null) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  // A spreadsheet may split at semicolons and tabs too, and run what follows them.
  return /[",;\t\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const row = (values) => `${values.map(cell).join(',')}\r\n`;

module.exports = { cell, row };
