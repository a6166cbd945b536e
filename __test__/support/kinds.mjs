/** A value of every kind that JavaScript has, for arguments and options that must refuse most of them. */

const thrown = new Error('not today');

/** Each is a function, because some values can be read only once. */
export const KINDS = {
  undefined: () => undefined,
  null: () => null,
  'a boolean': () => true,
  'a number': () => 42,
  'a negative number': () => -1,
  'a fraction': () => 1.5,
  '2 ** 31': () => 2 ** 31,
  '2 ** 53': () => 2 ** 53,
  NaN: () => NaN,
  Infinity: () => Infinity,
  'a BigInt': () => 1n,
  text: () => 'x',
  'empty text': () => '',
  'long text': () => 'x'.repeat(1_000),
  'U+0000': () => 'a\0b',
  'a symbol': () => Symbol('s'),
  'a function': () => () => 'x',
  'an array': () => ['x'],
  'an object': () => ({}),
  'a Map': () => new Map(),
  'a Set': () => new Set(['x']),
  'a promise': () => Promise.resolve('x'),
  'a Date': () => new Date(0),
  'a boxed text': () => Object('x'),
  'a boxed number': () => Object(42),
  'a boxed boolean': () => Object(true),
  'a RegExp': () => /x/,
  'a WeakMap': () => new WeakMap(),
  'a buffer': () => new Uint8Array(4),
  'search parameters': () => new URLSearchParams('max=5'),
  'a cycle': () => {
    const cycle = {};
    cycle.self = cycle;
    return cycle;
  },
  'an object whose getter throws': () => ({
    get x() {
      throw thrown;
    },
  }),
  'a proxy that throws': () => new Proxy({}, throwing(thrown)),
  'a proxy that throws what can’t be read': () => new Proxy({}, throwing(revoked())),
  'a proxy that throws nothing': () => new Proxy({}, throwing(undefined)),
  'a revoked proxy': revoked,
  'a revoked proxy of a function': () => revoked(() => 1),
};

/** The kinds but these. */
export function kindsBut(...accepted) {
  const unknown = accepted.filter((kind) => !(kind in KINDS));
  if (unknown.length > 0) throw new Error(`there is no kind ${unknown.join(', ')}`);
  return Object.keys(KINDS).filter((kind) => !accepted.includes(kind));
}

function revoked(target = {}) {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

function throwing(what) {
  const trap = () => {
    throw what;
  };
  return { get: trap, has: trap, ownKeys: trap, getOwnPropertyDescriptor: trap, getPrototypeOf: trap };
}
