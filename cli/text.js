'use strict';

// Values as people read them.

// Control characters, and those that reorder text or can't be seen: what the database holds may come from anywhere, and must not reach the terminal as
// commands, or look like other text.
// oxlint-disable-next-line no-control-regex, no-misleading-character-class -- these are what is looked for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;

/** `\u001b`, and two of these for a character of two UTF-16 units, as in JSON. */
const escaped = (unsafe) =>
  unsafe
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');

/** Text of the database, or of the command line, on one line and harmless. */
const clean = (text) => String(text).replace(UNSAFE, escaped);
const isClean = (text) => clean(text) === text;

/** A value as JSON that is harmless too: it means the same. */
const toJson = (value) => JSON.stringify(value).replace(UNSAFE, escaped);

/** A value that is expected to be text, and that another program may have stored as something else. */
const textOf = (value) => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));

/** A word of the command line in a message. What looks like a URL may hold a password, and is not repeated. */
const quoted = (word) => (/:\/\/|:.*@/s.test(word) ? 'a word that looks like a URL' : `"${clean(cut(word, 80))}"`);

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const count = (number) => number.toLocaleString('en-US');

/** `1 batch`, `2 batches`. */
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A time, to the second, in UTC: workers and database may be elsewhere. What is no date is shown as it is stored. */
function time(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : `${date.toISOString().slice(0, 19).replace('T', ' ')}Z`;
}

/** How long something took: `4 ms`, `0.4 s`, `12 s`, `4 min 10 s`, `3 h 20 min`, `9 d 4 h`. */
function duration(ms) {
  if (ms < 100) return `${Math.round(Math.max(ms, 0))} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const two = (large, small, of) => (small === 0 ? large : `${large} ${small} ${of}`);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(`${minutes} min`, seconds % 60, 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return two(`${hours} h`, minutes % 60, 'min');
  return two(`${Math.floor(hours / 24)} d`, hours % 24, 'h');
}

/** Rows as a table: the columns that `right` names are aligned to the right. Cells are made harmless. */
function table(head, rows, right = []) {
  const all = [head, ...rows.map((row) => row.map(clean))];
  const widths = head.map((_, at) => Math.max(...all.map((row) => row[at].length)));
  const cell = (text, at) => (right.includes(at) ? text.padStart(widths[at]) : text.padEnd(widths[at]));
  return all.map((row) => row.map(cell).join('  ').trimEnd());
}

module.exports = { clean, count, cut, duration, isClean, plural, quoted, table, textOf, time, toJson };
