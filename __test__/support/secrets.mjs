/** Whether a password shows in anything that a program could log. */
import { inspect } from 'node:util';
import { expect } from 'vitest';

/** Everything that a log could show of a value. */
export function everythingIn(value, seen = new Set()) {
  if (typeof value === 'string') return value;
  if (value === null || (typeof value !== 'object' && typeof value !== 'function') || seen.has(value)) return String(value);
  seen.add(value);
  const names = [...Reflect.ownKeys(value), 'message', 'stack', 'cause'];
  return [
    inspect(value, { depth: Infinity, showHidden: true, getters: true }),
    JSON.stringify(value) ?? '',
    String(value),
    ...names.map(String),
    ...names.map((name) => everythingIn(value[name], seen)),
  ].join('\n');
}

/** A part that is shorter says too little to be told from chance. */
const PART = 6;

/** The parts of a password, as it is, in a URL and in JSON, that must not show. */
function partsOf(secret) {
  const forms = [secret, encodeURIComponent(secret.toWellFormed()), encodeURI(secret.toWellFormed()), JSON.stringify(secret).slice(1, -1)];
  const parts = forms.flatMap((form) =>
    form.length <= PART ? [form] : Array.from({ length: form.length - PART + 1 }, (_, from) => form.slice(from, from + PART)),
  );
  return new Set(parts);
}

/** No part of these passwords shows in the value, nor in anything that it leads to. */
export function expectNoSecret(value, secrets) {
  const text = everythingIn(value);
  const shown = secrets.flatMap((secret) => [...partsOf(secret)].filter((part) => text.includes(part)));
  expect(shown, text).toEqual([]);
}
