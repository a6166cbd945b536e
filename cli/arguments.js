'use strict';

// The words of the command line: options by `util.parseArgs`, durations, lists and numbers. What is not understood is a `UsageError`.

const { parseArgs } = require('node:util');
const { UsageError } = require('./exit.js');
const { quoted } = require('./text.js');

/** The options of every command that talks to a database. */
const CONNECTION = {
  url: { type: 'string' },
  schema: { type: 'string' },
  'password-stdin': { type: 'boolean' },
  json: { type: 'boolean' },
};
const COMMON = { help: { type: 'boolean', short: 'h' } };

/** Reads the words of a subcommand: `{ values, words }`, with as many words as the command has positional arguments. */
function readArguments(command, argv) {
  let parsed;
  try {
    parsed = parseArgs({ args: argv, options: { ...CONNECTION, ...COMMON, ...command.options }, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's words name an option, and never its value.
    const said = error.message.split('\n')[0].replace(/\. To specify a positional.*$/, '');
    const isUnknown = error.code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION' && command.words !== undefined;
    throw new UsageError(isUnknown ? `${said} (a job id that begins with - stands at the end, after --)` : said);
  }
  const { values, positionals } = parsed;
  const expected = command.words ?? [];
  if (!values.help) {
    if (positionals.length > expected.length) throw new UsageError(`${quoted(positionals[expected.length])} is one word too many`);
    if (positionals.length < expected.length) throw new UsageError(`the ${expected[positionals.length]} is missing`);
  }
  return { values, words: positionals };
}

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A duration such as 30d, 12h, 15m, 90s or 500ms, in milliseconds. `undefined` where the option is not given. */
function durationOption(values, name) {
  const text = values[name];
  if (text === undefined) return undefined;
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const ms = Math.round(Number(number) * UNITS[unit]);
  if (number === undefined || !Number.isSafeInteger(ms)) {
    throw new UsageError(`--${name} must be a duration such as 30d, 12h, 15m, 90s or 500ms, not ${quoted(text)}`);
  }
  return ms;
}

/** A whole number from `least` to `most`. */
function numberOption(values, name, least, most) {
  const text = values[name];
  if (text === undefined) return undefined;
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number >= least && number <= most))
    throw new UsageError(`--${name} must be a whole number from ${least} to ${most}, not ${quoted(text)}`);
  return number;
}

/** Words of `known`, separated by commas. `as` gives them the letters that the store expects. */
function listOption(values, name, known) {
  const text = values[name];
  if (text === undefined) return undefined;
  const words = text.split(',').map((word) => word.trim());
  return words.map((word) => {
    const found = known.find((one) => one.toLowerCase() === word.toLowerCase());
    if (found === undefined) throw new UsageError(`--${name} takes ${known.join(', ')}, and not ${quoted(word)}`);
    return found;
  });
}

/** One word of `known`. */
function choiceOption(values, name, known) {
  const list = listOption(values, name, known);
  if (list !== undefined && list.length !== 1) throw new UsageError(`--${name} takes one of ${known.join(', ')}`);
  return list?.[0];
}

const JOB_STATUSES = ['CREATED', 'PREVIEWING', 'PREVIEWED', 'PROCESSING', 'PAUSED', 'COMPLETED', 'ABORTED', 'FAILED'];
const FINAL = ['COMPLETED', 'ABORTED', 'FAILED'];

module.exports = { readArguments, durationOption, numberOption, listOption, choiceOption, JOB_STATUSES, FINAL };
