'use strict';

// The command `batchactions-sqlx`: finds the subcommand, runs it, and turns whatever ends it into a line and an exit code. Each subcommand is a file of
// this folder, which exports its words and options, its help, and `run`. It uses the store's public methods alone; `doctor` has one native call more.

const { EXIT, PipeClosed, UsageError, exitCodeOf } = require('./exit.js');
const { readArguments } = require('./arguments.js');
const { COMMANDS, generalHelp, helpOf, nearest, usageOf } = require('./help.js');
const { Stdout } = require('./output.js');
const { spoken } = require('./spoken.js');
const { quoted } = require('./text.js');

const NAME = 'batchactions-sqlx';

/** The subcommand's own exit code, or that of the error that ended it. */
async function run(argv, stdout) {
  const [name, ...rest] = argv;
  if (name === '--version' || name === '-v' || name === '-V') return stdout.line(require('../package.json').version);
  if (name === 'help' || name === '--help' || name === '-h') return help(rest, stdout);
  if (name === undefined) throw Object.assign(new UsageError('which command?'), { usage: generalHelp() });
  const command = COMMANDS.get(name);
  if (command === undefined) throw unknown(name);
  try {
    const { values, words } = readArguments(command, rest);
    if (values.help) return await stdout.write(helpOf(name));
    return await command.run({ values, words, stdout });
  } catch (error) {
    if (error instanceof UsageError) error.usage ??= usageOf(name);
    throw error;
  }
}

function help(words, stdout) {
  const [name] = words;
  if (name === undefined || name.startsWith('-')) return stdout.write(generalHelp());
  if (!COMMANDS.has(name)) throw unknown(name);
  return stdout.write(helpOf(name));
}

function unknown(name) {
  const near = nearest(name);
  const known = near === undefined ? `the commands are ${[...COMMANDS.keys()].join(', ')}` : `did you mean ${near}?`;
  const what = name.startsWith('-') ? 'the options come after the command' : `there is no command ${quoted(name)}`;
  return Object.assign(new UsageError(`${what}: ${known}`), { usage: `usage: ${NAME} <command> [options]\n` });
}

/** What a person reads of an error. */
function report(error) {
  const { message, usage } = error;
  if (message) process.stderr.write(`${NAME}: ${spoken(message)}\n`);
  if (usage) process.stderr.write(usage);
}

async function main(argv) {
  const stdout = new Stdout();
  // A reader of stderr that has ended is no reason to end with a stack.
  process.stderr.on('error', () => {});
  try {
    const code = await run(argv, stdout);
    await stdout.end();
    process.exitCode = typeof code === 'number' ? code : EXIT.OK;
  } catch (error) {
    if (error instanceof PipeClosed) {
      process.exitCode = EXIT.OK;
      return;
    }
    // What was found before the failure.
    await stdout.end().catch(() => {});
    report(error);
    process.exitCode = exitCodeOf(error);
  }
}

module.exports = { main };
