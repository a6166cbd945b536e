// The stores that take turns: this version, another version of this package, and the Sequelize baseline.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const OURS = fileURLToPath(new URL('../index.js', import.meta.url));
export const SEQUELIZE = 'sequelize';

/**
 * @param {string} side `SEQUELIZE`, or the path of an `index.js` of this package.
 * @param {{ url: string, dialect: string }} database
 * @param {object} [options] The store's options; the baseline has none.
 */
export async function openStore(side, { url, dialect }, options) {
  if (side !== SEQUELIZE) {
    const { SqlxStateStore } = createRequire(import.meta.url)(resolve(side));
    return new SqlxStateStore(url, options);
  }
  // Imported only where it is wanted: loading Sequelize takes 30 MB, which would count as a worker's.
  const { connectSequelize, IncumbentLikeStore } = await import('../__test__/support/sequelize-models.mjs');
  const { dialectNamed } = await import('../__test__/support/dialects/index.mjs');
  return new IncumbentLikeStore(connectSequelize({ dialect: dialectNamed(dialect), url }, { pool: { max: 16 } }));
}
