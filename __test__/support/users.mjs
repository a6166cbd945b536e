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
  const drop = db.dialect === 'postgres' ? await createRole(db, name, password, rights) : await createAccount(db, name, password, rights);
  return { name, password, url: url.href, drop };
}

const literal = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll(`'`, `''`)}'`;

async function createRole(db, name, password, rights) {
  await db.query(`create role "${name}" login password E${literal(password)}`);
  if (rights === 'all') await db.query(`grant all on schema public to "${name}"`);
  if (rights === 'data') {
    await db.query(`revoke create on schema public from public`);
    await db.query(`grant select, insert, update, delete on all tables in schema public to "${name}"`);
    await db.query(`grant usage on all sequences in schema public to "${name}"`);
  }
  return async () => {
    await db.query(`drop owned by "${name}" cascade`);
    await db.query(`drop role "${name}"`);
  };
}

async function createAccount(db, name, password, rights) {
  await db.query(`create user '${name}'@'%' identified by ${literal(password)}`);
  if (rights === 'all') await grant(db, name, ['select', 'insert', 'update', 'delete', 'create', 'drop', 'index', 'alter', 'references']);
  if (rights === 'data') await grant(db, name, ['select', 'insert', 'update', 'delete']);
  return () => db.query(`drop user '${name}'@'%'`);
}

async function grant(db, name, privileges) {
  try {
    await db.query(`grant ${privileges.join(', ')} on \`${db.name}\`.* to '${name}'@'%'`);
  } catch (error) {
    // A test server's user may do everything except pass it on; then the grant is written where the server keeps it.
    if (!/access denied/i.test(error.message)) throw error;
    const columns = privileges.map((privilege) => `${privilege}_priv`.replace(/^./, (letter) => letter.toUpperCase()));
    await db.query(
      `insert into mysql.db (Host, Db, User, ${columns.join(', ')}) values ('%', ?, ?, ${columns.map(() => `'Y'`).join(', ')})`,
      [db.name, name],
    );
    await db.query('flush privileges');
  }
}
