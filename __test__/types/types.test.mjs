/** The declarations that the package ships fit the ports of the core, and have each value type in full. */
import { expect, test } from 'vitest';
import { COMPILATIONS } from './compile.mjs';

test.each(COMPILATIONS)('%s', (_, compile) => {
  expect(compile()).toEqual([]);
});
