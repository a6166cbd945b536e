/** A database and users on a server of the test's own, for what has to do with logging in. */
import { connect } from './raw.mjs';

export const DATABASE = 'store';
const OWNERS = 'owners';

const literal = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll(`'`, `''`)}'`;

/**
 * @param {'postgres' | 'mariadb' | 'mysql'} kind
 * @param {string} adminUrl Of the server, as `startOwnServer` gives it.
 */
export async function createOwnDatabase(kind, adminUrl) {
  const isPostgres = kind === 'postgres';
  // A connection for each statement: such servers are ended and started again.
  const statement = async (url, sql, params) => {
    const connection = await connect(kind, url);
    return connection.query(sql, params).finally(() => connection.end());
  };
  await statement(adminUrl, `create database "${DATABASE}"`);
  const url = new URL(`/${DATABASE}`, adminUrl).href;
  const admin = { query: (sql, params) => statement(url, sql, params) };
  if (isPostgres) {
    await admin.query(`create role ${OWNERS}`);
    await admin.query(`grant create on schema public to ${OWNERS}`);
  }
  const named = (user) => (isPostgres ? `"${user}"` : `'${user}'@'%'`);
  return {
    /** The URL by which the server's administrator comes in. */
    url,
    query: admin.query,

    /** The URL by which a user comes in. */
    urlOf(user, password, { host = '127.0.0.1', query = '' } = {}) {
      const url = new URL(adminUrl);
      Object.assign(url, { hostname: host, username: user, password: encodeURIComponent(password), pathname: `/${DATABASE}` });
      return url.href + query;
    },

    /**
     * A user who may do anything in the database. MySQL and MariaDB are told `identified`, the way to ask for the password, with `?` in place of
     * that, and `further`, what they demand beside.
     */
    async createUser(user, password, { identified = 'by ?', further = '' } = {}) {
      if (isPostgres) {
        await admin.query(`create role ${named(user)} login in role ${OWNERS} password E${literal(password)}`);
        // What one of them makes belongs to all.
        await admin.query(`alter role ${named(user)} set role ${OWNERS}`);
        return;
      }
      const how = identified.replace('?', () => literal(password));
      await admin.query(`create user ${named(user)} identified ${how} ${further}`);
      await admin.query(`grant all on "${DATABASE}".* to ${named(user)}`);
    },

    async setPassword(user, password) {
      if (isPostgres) await admin.query(`alter role ${named(user)} password E${literal(password)}`);
      else await admin.query(`alter user ${named(user)} identified by ${literal(password)}`);
    },

    /** Ends all connections of a user; how many there were. */
    async endConnections(user) {
      if (isPostgres) {
        const ended = await admin.query(
          'select pg_terminate_backend(pid) from pg_stat_activity where usename = ? and pid <> pg_backend_pid()',
          [user],
        );
        return ended.length;
      }
      const rows = await admin.query('select id as "id" from information_schema.processlist where user = ?', [user]);
      // Who has just ended by itself is gone all the same.
      for (const { id } of rows) await admin.query(`kill ${Number(id)}`).catch(() => {});
      return rows.length;
    },

    /** Whether each connection of a user is encrypted. */
    async encrypted(user) {
      const rows = isPostgres
        ? await admin.query('select s.ssl as "tls" from pg_stat_ssl s join pg_stat_activity a on a.pid = s.pid where a.usename = ?', [user])
        : await admin.query(
            `select s.variable_value <> '' as "tls" from performance_schema.status_by_thread s
             join performance_schema.threads t on t.thread_id = s.thread_id
             where s.variable_name = 'Ssl_cipher' and t.processlist_user = ?`,
            [user],
          );
      return rows.map(({ tls }) => Boolean(tls));
    },
  };
}
