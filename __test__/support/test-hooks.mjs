// An addon with hooks for tests, and an index.js for it: it panics where a test asks for it, and tells the text of a statement by its name. It is a second
// addon in the process: a file that uses it should open no store of the usual one.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Where the addon and its index.js are. */
export const folder = fileURLToPath(new URL('../../target/test-hooks/', import.meta.url));
const require = createRequire(import.meta.url);
if (!existsSync(`${folder}index.js`)) throw new Error('the addon with hooks for tests is missing: node scripts/build.mjs --test-hooks');

export const { SqlxStateStore, StateStoreError } = require(`${folder}index.js`);
/** The hooks: `panicAt(place, message)`, `panicsToCome()`, `statementText(name)`. */
export const hooks = require.cache[Object.keys(require.cache).find((file) => file.startsWith(folder) && file.endsWith('.node'))].exports;
