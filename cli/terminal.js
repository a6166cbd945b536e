'use strict';

// Questions at a terminal: a password, which is not shown, and the confirmation of what can't be undone.

const readline = require('node:readline');
const { EXIT, CommandError, UsageError } = require('./exit.js');
const { clean } = require('./text.js');

/** Whether there is a terminal to ask at. Questions go to stderr: stdout may lead elsewhere. */
const canAsk = () => process.stdin.isTTY === true && process.stderr.isTTY === true;

const interrupted = () => new CommandError('', EXIT.INTERRUPTED);

/** Asks for a line that is not shown. */
function askHidden(question) {
  const { stdin, stderr } = process;
  return new Promise((resolve, reject) => {
    let answer = '';
    const wasRaw = stdin.isRaw;
    stdin.setRawMode(true);
    stdin.setEncoding('utf8');
    stderr.write(question);
    const end = (settle, value) => {
      stdin.off('data', onData);
      stdin.off('end', onEnd);
      stdin.setRawMode(wasRaw);
      stdin.pause();
      stderr.write('\n');
      settle(value);
    };
    const onEnd = () => end(reject, interrupted());
    const onData = (data) => {
      for (const key of data) {
        if (key === '\r' || key === '\n') return end(resolve, answer);
        // Ctrl-C and Ctrl-D, which mean nothing by themselves in raw mode.
        if (key === '\u0003' || key === '\u0004') return end(reject, interrupted());
        if (key === '\u0015') answer = '';
        else if (key === '\u007f' || key === '\b') answer = [...answer].slice(0, -1).join('');
        else answer += key;
      }
      return undefined;
    };
    stdin.on('data', onData);
    stdin.on('end', onEnd);
    stdin.resume();
  });
}

/** Asks for a line. */
function ask(question) {
  const lines = readline.createInterface({ input: process.stdin, output: process.stderr, terminal: true, historySize: 0 });
  return new Promise((resolve, reject) => {
    lines.on('SIGINT', () => lines.close());
    // Ctrl-C and Ctrl-D: without an answer, and in the middle of the line.
    const onClose = () => {
      process.stderr.write('\n');
      reject(interrupted());
    };
    lines.on('close', onClose);
    lines.question(question, (answer) => {
      lines.off('close', onClose);
      lines.close();
      resolve(answer);
    });
  });
}

/** Before something that can't be undone: `--yes`, or `expected` typed at a terminal. */
async function confirm(values, { what, expected }) {
  if (values.yes) return;
  if (!canAsk()) throw new UsageError(`${what} can't be undone, and there is no terminal to ask at: give --yes to do it`);
  const shown = clean(expected);
  const answer = await ask(`Type ${shown} to go on: `);
  // An id may begin or end with a space, and may hold characters that no key types.
  if (![answer, answer.trim()].some((text) => text === expected || text === shown))
    throw new CommandError('not confirmed: nothing was changed', EXIT.FAILED);
}

/** The first line of stdin, for `--password-stdin`. A terminal would show what is typed, so there it is asked for. */
async function readPassword() {
  if (process.stdin.isTTY) return askHidden('Password: ');
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8').split(/\r?\n/, 1)[0];
}

module.exports = { askHidden, canAsk, confirm, readPassword };
