'use strict';

// The errors of a record, whatever a program stored as such.

const { textOf } = require('./text.js');

/** A list, also where something else was stored. */
function listOf(errors) {
  if (Array.isArray(errors)) return errors;
  return errors === undefined || errors === null ? [] : [errors];
}

const part = (value) => (value === undefined || value === null ? '' : textOf(value));

/** What an error says, as text; what is missing is ''. A value that has none of it is its own message. */
function partsOf(error) {
  const fields = typeof error === 'object' && error !== null && !Array.isArray(error) ? error : {};
  const parts = { field: part(fields.field), code: part(fields.code), message: part(fields.message), severity: fields.severity };
  const isEmpty = parts.field === '' && parts.code === '' && parts.message === '';
  return isEmpty ? { ...parts, message: textOf(error) } : parts;
}

module.exports = { listOf, partsOf };
