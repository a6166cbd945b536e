'use strict';

// How often `watch` looks.

/** Looking at a job takes about a tenth of the time: counting the records of a large one is work for the server. */
const SHARE = 10;
/** The longest time between two looks that follows from it. */
const LONGEST_PAUSE_MS = 10_000;

/** How long to wait after a look. A single slow one, which the store may have repeated, doesn't count, and one that failed took 0. */
const pauseAfter = (took, tookBefore, interval) => Math.max(interval, Math.min(Math.min(took, tookBefore) * SHARE, LONGEST_PAUSE_MS));

module.exports = { pauseAfter };
