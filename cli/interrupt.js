'use strict';

// Ctrl-C and other signals that end the command: what is unfinished is taken back, and the process ends at once, whatever it waits for. The database
// rolls back what was not committed.

const { EXIT } = require('./exit.js');

const EXITS = { SIGINT: EXIT.INTERRUPTED, SIGTERM: EXIT.TERMINATED, SIGHUP: 129 };

/** Runs `body`, and `undo`, which must be synchronous, where a signal ends the process meanwhile. `undo` may return a line for stderr. */
async function interruptible(undo, body) {
  const handlers = Object.entries(EXITS).map(([signal, code]) => [
    signal,
    () => {
      const said = undo();
      if (said) process.stderr.write(`${said}\n`);
      process.exit(code);
    },
  ]);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  try {
    return await body();
  } finally {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  }
}

module.exports = { interruptible };
