'use strict';

// The errors of a record, whatever a program stored as such.
//
// The command `batchactions-sqlx` reads them by the same rules (`cli/record-errors.js`). It is in another package, and this one has no dependency, so the rules
// are here too; a test compares the files and counts that both make of odd errors.

/** A string as it is, anything else as JSON. (The text of an object may be anything, and to ask for it may throw.) */
const asText = (value) => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));

/** A stored value as text; what is missing is ''. */
const textOf = (value) => (value === undefined || value === null ? '' : asText(value));

/** A list, also where something else was stored. */
function listOf(errors) {
  if (Array.isArray(errors)) return errors;
  return errors === undefined || errors === null ? [] : [errors];
}

/** What an error says, as text; what is missing is ''. A value that has none of it is its own message. */
function partsOf(error) {
  const fields = typeof error === 'object' && error !== null && !Array.isArray(error) ? error : {};
  const parts = { field: textOf(fields.field), code: textOf(fields.code), message: textOf(fields.message), severity: fields.severity };
  const isEmpty = parts.field === '' && parts.code === '' && parts.message === '';
  return isEmpty ? { ...parts, message: asText(error) } : parts;
}

/** `email: is not an address (TYPE_MISMATCH)` */
function lineOf(error) {
  const { field, message, code } = partsOf(error);
  return `${field === '' ? '' : `${field}: `}${message}${code === '' ? '' : ` (${code})`}`.trim();
}

/** What is wrong with a record, in one line. */
function errorsOf({ errors, processingError }) {
  const lines = listOf(errors).map(lineOf);
  if (processingError !== undefined && processingError !== null) lines.push(textOf(processingError));
  return lines.join('; ');
}

module.exports = { errorsOf, listOf, partsOf, textOf };
