// Runs the command `batchactions-sqlx` as a process: with pipes, or at a terminal that `script` (util-linux) makes.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const BIN = fileURLToPath(new URL('../../bin/batchactions-sqlx.js', import.meta.url));

/** What the user's own shell may have set is left out. */
function environment(env) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(DATABASE_URL|NO_COLOR|FORCE_COLOR|TERM|LANG|LC_.*|PG.*)$/.test(name));
  return { ...Object.fromEntries(kept), LANG: 'C.UTF-8', TERM: 'xterm-256color', ...env };
}

/** A running command: what it has said so far, and `ended`, which resolves with `{ code, signal, stdout, stderr }`. */
class Running {
  stdout = '';
  stderr = '';

  constructor(file, args, { env = {}, cwd } = {}) {
    this.process = spawn(file, args, { env: environment(env), cwd, stdio: 'pipe' });
    for (const name of ['stdout', 'stderr']) {
      this.process[name].setEncoding('utf8').on('data', (text) => {
        this[name] += text;
      });
    }
    this.process.stdin.on('error', () => {});
    this.ended = new Promise((resolve, reject) => {
      this.process.on('error', reject);
      this.process.on('close', (code, signal) => resolve({ code, signal, stdout: this.stdout, stderr: this.stderr }));
    });
  }

  type(text) {
    this.process.stdin.write(text);
  }

  /** Resolves once it has said something that matches. */
  async until(pattern) {
    for (;;) {
      if (pattern.test(this.stdout + this.stderr)) return;
      const ended = await Promise.race([this.ended, new Promise((resolve) => setTimeout(resolve, 20))]);
      if (ended && !pattern.test(this.stdout + this.stderr)) {
        throw new Error(`it ended with ${ended.code} before it said ${pattern}:\n${this.stdout}\n${this.stderr}`);
      }
    }
  }
}

/** `url` is given as DATABASE_URL. */
const withUrl = ({ url, env, ...options }) => ({ ...options, env: { ...(url === undefined ? {} : { DATABASE_URL: url }), ...env } });

/** Starts the command. `nodeOptions` are Node's. */
export function start(words, { nodeOptions = [], ...options } = {}) {
  return new Running(process.execPath, [...nodeOptions, BIN, ...words], withUrl(options));
}

/** Runs the command to its end. `input` is its stdin. */
export async function command(words, { input = '', ...options } = {}) {
  const running = start(words, options);
  running.process.stdin.end(input);
  return running.ended;
}

/** As `command`, and parses what it prints with `--json`. */
export async function json(words, options) {
  const ended = await command([...words, '--json'], options);
  return { ...ended, value: ended.stdout === '' ? undefined : JSON.parse(ended.stdout) };
}

/** Runs a line of the shell, in which `$cli` stands for the command. */
export async function shell(line, options = {}) {
  const running = new Running('bash', ['-c', line.replaceAll('$cli', `"${process.execPath}" "${BIN}"`)], withUrl(options));
  running.process.stdin.end();
  return running.ended;
}

export const hasTerminals = process.platform === 'linux' && existsSync('/usr/bin/script');

/**
 * Starts the command at a terminal of so many columns. All that it says is in `stdout`, as the terminal gets it.
 *
 * Ctrl-C is a signal to the shell too. The trap keeps it alive, so that what it ends with is the command's own exit code; the default action
 * would end a dash with 130, whatever the command did.
 */
export function atTerminal(words, { columns = 100, before = '', after = '', ...options } = {}) {
  const quoted = [process.execPath, BIN, ...words].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
  const line = `trap : INT; stty cols ${columns}; ${before}${quoted}${after}`;
  return new Running('script', ['-qec', line, '/dev/null'], withUrl(options));
}

/** The lines of a terminal's output, as they stand in the end: what is written over is gone. */
export function screen(text) {
  return text.split('\r\n').map((line) => line.split('\r').at(-1).replaceAll('\u001b[K', ''));
}
