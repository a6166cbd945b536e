/** Users of a server that a test makes for itself: with a password, or with fewer rights than the one in the database's URL. */
import { randomBytes } from 'node:crypto';

/**
 * A new user. `rights` on the test's database: `data` (select, insert, update and delete in the tables that are there, and no DDL), `all`,
 * or `none`. What comes back has the URL to connect by, and `drop()`.
 */
export async function createUser(db, { password = randomBytes(12).toString('hex'), rights = 'data' } = {}) {
  const name = `u_${randomBytes(6).toString('hex')}`;
  const url = new URL(db.url);
  url.username = name;
  url.password = encodeURIComponent(password);
  const drop = await db.dialect.createUser(db, name, password, rights);
  return { name, password, url: url.href, drop };
}
