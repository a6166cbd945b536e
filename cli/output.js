'use strict';

// Where results go: stdout, or a file that is complete or not there. Both write in blocks, and wait while the other side is busy, so that a result of
// any size takes little memory.

const { closeSync, lstatSync, openSync, realpathSync, rmSync, statSync } = require('node:fs');
const { open, rename } = require('node:fs/promises');
const { randomBytes } = require('node:crypto');
const { dirname, join } = require('node:path');
const { isatty } = require('node:tty');
const { CommandError, EXIT, PipeClosed, UsageError } = require('./exit.js');
const { toJson } = require('./text.js');

/** Text is written once it is this long. */
const BLOCK = 64 << 10;

/** stdout. Writing throws `PipeClosed` once its reader has ended. */
class Stdout {
  #block = '';
  #stream = process.stdout;
  #failure;

  constructor() {
    this.#stream.on('error', (error) => {
      this.#failure ??= error;
    });
  }

  get isTerminal() {
    return this.#stream.isTTY === true;
  }

  async write(text) {
    this.#block += text;
    if (this.#block.length >= BLOCK) await this.flush();
  }

  line(text = '') {
    return this.write(`${text}\n`);
  }

  /** A value as one line of JSON. */
  json(value) {
    return this.line(toJson(value));
  }

  async flush() {
    const block = this.#block;
    this.#block = '';
    if (block !== '') await new Promise((resolve) => this.#stream.write(block, resolve));
    // A pipe reports its end in an event, which comes after the write.
    if (this.#failure === undefined) return;
    if (this.#failure.code === 'EPIPE') throw new PipeClosed();
    throw new CommandError(`stdout can't be written: ${this.#failure.message}`, EXIT.FAILED);
  }

  end() {
    return this.flush();
  }

  /** Nothing can be taken back. */
  discard() {}
  abandon() {}
}

/**
 * A file beside its final name, which it gets by `end()`: a reader finds the old file there, or the whole new one. `discard()` removes it, and is
 * synchronous, so that it can be called as the process ends.
 */
class FileOutput {
  isTerminal = false;
  #block = '';

  /** `made` gets the output before there is a file. */
  static async create(path, made) {
    const output = new FileOutput();
    output.path = realPath(path);
    // Not with the file's own name in it, which may be as long as a name can be.
    output.temporary = join(dirname(output.path), `.batchactions-sqlx-${randomBytes(6).toString('hex')}.part`);
    const mode = modeOf(output.path);
    made(output);
    try {
      // Synchronous, so that no signal comes between the file and the object that removes it.
      closeSync(openSync(output.temporary, 'wx', mode ?? 0o666));
      output.file = await open(output.temporary, 'r+');
      if (mode !== undefined) await output.file.chmod(mode);
    } catch (error) {
      throw new CommandError(`${path} can't be written: ${error.message}`, EXIT.FAILED);
    }
    return output;
  }

  async write(text) {
    this.#block += text;
    if (this.#block.length >= BLOCK) await this.#flush();
  }

  async #flush() {
    const block = this.#block;
    this.#block = '';
    try {
      if (block !== '') await this.file.appendFile(block);
    } catch (error) {
      throw new CommandError(`${this.path} can't be written: ${error.message}`, EXIT.FAILED);
    }
  }

  async end() {
    await this.#flush();
    try {
      await this.file.sync();
      await this.file.close();
      await rename(this.temporary, this.path);
    } catch (error) {
      throw new CommandError(`${this.path} can't be written: ${error.message}`, EXIT.FAILED);
    }
  }

  discard() {
    rmSync(this.temporary, { force: true });
  }

  async abandon() {
    this.discard();
    // Whatever it reports, the file is gone.
    await this.file.close().catch(() => {});
  }
}

/** A device, a named pipe or a socket: it can't be replaced, so it is written as it is. */
class DeviceOutput {
  static async create(path) {
    const output = new DeviceOutput();
    output.path = path;
    output.file = await open(path, 'w').catch((error) => {
      throw new CommandError(`${path} can't be written: ${error.message}`, EXIT.FAILED);
    });
    output.isTerminal = isatty(output.file.fd);
    return output;
  }

  async write(text) {
    await this.file.appendFile(text).catch((error) => {
      if (error.code === 'EPIPE') throw new PipeClosed();
      throw new CommandError(`${this.path} can't be written: ${error.message}`, EXIT.FAILED);
    });
  }

  end() {
    return this.file.close();
  }

  discard() {}

  async abandon() {
    await this.file.close().catch(() => {});
  }
}

/** Where `--output` leads: `undefined` and `-` are stdout. `made` gets what is to be discarded where a signal ends the process. */
async function outputTo(path, stdout, made) {
  if (path === undefined || path === '-') return stdout;
  if (path === '') throw new UsageError('--output must be the name of a file');
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isDirectory()) throw new UsageError('--output must be the name of a file, and this is a folder');
  return found === undefined || found.isFile() ? FileOutput.create(path, made) : DeviceOutput.create(path);
}

/** The file that a link leads to: the link stays. */
function realPath(path) {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return path;
  try {
    return realpathSync(path);
  } catch (error) {
    throw new CommandError(`${path} can't be written: ${error.message}`, EXIT.FAILED);
  }
}

function modeOf(path) {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? undefined : found.mode & 0o777;
}

module.exports = { Stdout, outputTo };
