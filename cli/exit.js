'use strict';

// How the command ends: its exit codes, and the errors that carry them. Whatever goes wrong becomes one line on stderr, and never a stack.

const EXIT = {
  OK: 0,
  /** The job failed, or a check did not hold, or the database refuses the call. */
  FAILED: 1,
  USAGE: 2,
  /** The job does not exist, was deleted or aborted. */
  NOT_FOUND: 3,
  UNREACHABLE: 4,
  /** Ended by Ctrl-C, as shells report it. */
  INTERRUPTED: 130,
  TERMINATED: 143,
};

/** Ends the command with this message and exit code. */
class CommandError extends Error {
  constructor(message, code) {
    super(message);
    this.exitCode = code;
  }
}

/** The words of the command line are wrong: the usage line of the subcommand follows the message. */
class UsageError extends CommandError {
  constructor(message) {
    super(message, EXIT.USAGE);
  }
}

/** The reader of stdout has ended, as `head` does: there is nothing left to do, and nothing to say. */
class PipeClosed extends Error {}

const notFound = (message) => new CommandError(message, EXIT.NOT_FOUND);
const refused = (message) => new CommandError(message, EXIT.FAILED);

const UNREACHABLE = new Set(['CONNECTION_FAILED', 'CONNECTION_LOST', 'TIMEOUT']);
const WRONG_WORDS = new Set(['INVALID_ARGUMENT', 'INVALID_CONNECTION']);

/** The exit code of whatever ended a command. */
function exitCodeOf(error) {
  if (error instanceof CommandError) return error.exitCode;
  if (UNREACHABLE.has(error?.code)) return EXIT.UNREACHABLE;
  return WRONG_WORDS.has(error?.code) ? EXIT.USAGE : EXIT.FAILED;
}

/** A store refuses with INVALID_ARGUMENT also what is wrong with the job, and not with the words. An option it names first in its message. */
const ofJob = (error) => {
  throw error.code === 'INVALID_ARGUMENT' && !error.message.startsWith('options.') ? refused(error.message) : error;
};

module.exports = { EXIT, CommandError, UsageError, PipeClosed, notFound, refused, ofJob, exitCodeOf, UNREACHABLE };
