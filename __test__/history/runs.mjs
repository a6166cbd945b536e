// What the tests of histories share.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { scale } from './fleet.mjs';

export const long = { timeout: 480_000 * Math.max(1, scale) };

/** Attempts to hit something. */
export const ROUNDS = 24;

/** Runs until the fault has hit what it should, and expects no violation in any run. Returns what happened in the last one, in numbers. */
export async function expectCorrect(run, hit) {
  const tried = [];
  for (let round = 0; round < ROUNDS; round++) {
    const { violations, facts } = await run();
    if (process.env.HISTORY_KEEP) console.log(expect.getState().currentTestName, facts);
    // The first few say what is wrong; there may be thousands.
    expect({ found: violations.length, violations: violations.slice(0, 5) }).toEqual({ found: 0, violations: [] });
    if (hit(facts)) return facts;
    tried.push(facts);
  }
  return expect.fail(`the fault hit nothing in ${ROUNDS} runs: ${JSON.stringify(tried, null, 1)}`);
}

/** What a run on a `Subject` of `suite.mjs` works on: its database, with a store that no fault hits. */
export function targetOf(on) {
  return { store: on.store, url: on.url, query: on.has('raw') ? (...args) => on.query(...args) : undefined };
}

export const wait = (least, most) => sleep(least + Math.random() * (most - least));
