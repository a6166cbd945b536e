'use strict';

/** Why a request gets no other answer: a status, a code for programs, and a sentence for people. */
class Refusal extends Error {
  constructor(status, code, message, headers = {}) {
    super(message);
    this.name = 'Refusal';
    Object.assign(this, { status, code, headers });
  }
}

/** The statuses of the store's errors, by their codes. Any other is 500. */
const STATUSES = {
  INVALID_ARGUMENT: 400,
  VALUE_TOO_LONG: 400,
  CONSTRAINT: 409,
  LEASE_LOST: 409,
  CLOSED: 503,
  CONFLICT: 503,
  CONNECTION_FAILED: 503,
  CONNECTION_LOST: 503,
  TIMEOUT: 503,
};

/**
 * What is answered after an error. The store's messages are made for people, and hold no secret. Of any other error nothing is shown: `tell` gets it.
 */
function refusalOf(error, tell) {
  if (error instanceof Refusal) return error;
  // Not `instanceof`: there may be two copies of the store's package.
  if (error?.name === 'StateStoreError' && typeof error.code === 'string') {
    const status = Object.hasOwn(STATUSES, error.code) ? STATUSES[error.code] : 500;
    return new Refusal(status, error.code, String(error.message).slice(0, 2_000));
  }
  tell(error);
  return new Refusal(500, 'INTERNAL', 'This request failed for a reason that is not shown here: the log of the server has it.');
}

module.exports = { Refusal, refusalOf };
