'use strict';

/** No answer is kept for longer. So a reading of more than a minute takes more than a tenth of the time, where that is its `share`. */
const MOST_MS = 600_000;

/**
 * Answers of the store, kept for a moment, so that ten open pages cost the database what one costs.
 *
 * What is asked for while it is being read is read once. What takes long is kept for longer (`share`): counting a million records every two seconds would be
 * more than a look at them is worth.
 */
class Fresh {
  #values = new Map();
  #pending = new Map();

  /**
   * @param {string} key
   * @param {() => Promise<unknown>} load
   * @param {{ keepMs?: number, share?: number }} [options] An answer is kept for `keepMs`, or until reading took no more than `share` of the time since, but for
   *   ten minutes at most.
   * @returns {Promise<{ value: any, readAt: number }>} `readAt` is when the reading began: what is read may be as old as that.
   */
  async get(key, load, { keepMs = 1_000, share = 1 } = {}) {
    const known = this.#values.get(key);
    if (known && known.until > performance.now()) return known;
    const pending = this.#pending.get(key);
    if (pending) return pending;

    const readAt = performance.now();
    const reading = load().then((value) => {
      const ended = performance.now();
      const answer = { value, readAt, until: ended + Math.min(MOST_MS, Math.max(keepMs, (ended - readAt) / share)) };
      // After `forget` another reading may be under way, and this one is of the time before.
      if (this.#pending.get(key) === reading) this.#keep(key, answer);
      return answer;
    });
    this.#pending.set(key, reading);
    try {
      return await reading;
    } finally {
      if (this.#pending.get(key) === reading) this.#pending.delete(key);
    }
  }

  /** Something has changed: later reads see it. */
  forget() {
    this.#values.clear();
    this.#pending.clear();
  }

  #keep(key, answer) {
    this.#values.delete(key);
    this.#values.set(key, answer);
    // The oldest go first: there may be as many keys as there are jobs and pages of batches.
    for (const old of this.#values.keys()) {
      if (this.#values.size <= 500) break;
      this.#values.delete(old);
    }
  }
}

module.exports = { Fresh };
