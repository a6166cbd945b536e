// The databases that the tests know. One is added by its file in this folder and its place in the list below.
//
// A dialect holds everything that the tests know about one database: how to connect, which capabilities it has (`capabilities.mjs`), and the
// statements that differ. The files have the same members in the same order, and tests ask the dialect instead of comparing its name.

import { mariadb, mysql } from './mysql.mjs';
import { postgres } from './postgres.mjs';
import { sqlite } from './sqlite.mjs';

/** In the order in which a run reports them. */
export const dialects = [sqlite, postgres, mariadb, mysql];

/** Those whose servers a test can start for itself (`own-servers.mjs`). */
export const serverDialects = dialects.filter(({ ownServer }) => ownServer !== undefined);

export function dialectNamed(name) {
  const dialect = dialects.find((each) => each.name === name);
  if (!dialect) throw new Error(`there is no dialect ${name}. Known: ${dialects.map((each) => each.name).join(', ')}`);
  return dialect;
}
