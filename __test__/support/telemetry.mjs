// What subscribers of the store's channels see.

import { channel } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import { expect, onTestFinished } from 'vitest';

export const EVENTS = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'];
export const callChannel = (event) => channel(`tracing:batchactions.store:${event}`);
export const warningChannel = channel('batchactions.store.warning');

/** The kinds of warnings that index.d.ts promises. */
export const WARNING_KINDS = (() => {
  const types = readFileSync(new URL('../../index.d.ts', import.meta.url), 'utf8');
  const [, declared] = /export type StoreWarningKind =(.*?);\n/s.exec(types);
  return [...declared.matchAll(/\| '([\w-]+)'/g)].map(([, kind]) => kind);
})();

/** Subscribes until the test ends, or until the function that comes back is called. */
export function subscribe(to, listener) {
  const heard = (message) => listener(message);
  to.subscribe(heard);
  const end = () => to.unsubscribe(heard);
  onTestFinished(end);
  return end;
}

/** The events of all calls from now on: `{ event, call }`, and `seen`, a copy of the call at that moment. */
export function watchCalls() {
  const events = [];
  const ends = EVENTS.map((event) => subscribe(callChannel(event), (call) => events.push({ event, call, seen: { ...call } })));
  return Object.assign(events, { end: () => ends.forEach((end) => end()) });
}

/** The warnings from now on. */
export function watchWarnings() {
  const warnings = [];
  subscribe(warningChannel, (warning) => warnings.push(warning));
  return warnings;
}

/** The first warning that has these fields, once it is there. */
export async function warningLike(warnings, fields, timeout = 20_000) {
  const like = (warning) => Object.entries(fields).every(([name, value]) => warning[name] === value);
  await expect.poll(() => warnings.find(like) ?? warnings.map(({ kind }) => kind), { timeout, interval: 20 }).toMatchObject(fields);
  return warnings.find(like);
}

/** Gives the background time to say more, which it should not: an event of its own kind follows what was sent before. */
export const settled = () => new Promise((resolve) => setTimeout(resolve, 50));
