/** A database and users on a server of the test's own, for what has to do with logging in. */

export const DATABASE = 'store';

/** @param {string} adminUrl Of the server, as `startOwnServer` gives it. */
export async function createOwnDatabase(dialect, adminUrl) {
  const { accounts } = dialect;
  // A connection for each statement: such servers are ended and started again.
  const statement = async (url, sql, params) => {
    const connection = await dialect.connect(url);
    return connection.query(sql, params).finally(() => connection.end());
  };
  await statement(adminUrl, `create database "${DATABASE}"`);
  const url = new URL(`/${DATABASE}`, adminUrl).href;
  const admin = { query: (sql, params) => statement(url, sql, params) };
  await accounts.prepare(admin);
  return {
    /** The URL by which the server's administrator connects. */
    url,
    query: admin.query,

    /** The URL by which a user connects. */
    urlOf(user, password, { host = '127.0.0.1', query = '' } = {}) {
      const url = new URL(adminUrl);
      Object.assign(url, { hostname: host, username: user, password: encodeURIComponent(password), pathname: `/${DATABASE}` });
      return url.href + query;
    },

    /** A user who may do anything in the database. The options are those of the dialect's `accounts.create`. */
    createUser: (user, password, options = {}) => accounts.create(admin, user, password, options),

    setPassword: (user, password) => accounts.setPassword(admin, user, password),

    /** Ends all connections of a user; how many there were. */
    endConnections: (user) => accounts.endConnections(admin, user),

    /** Whether each connection of a user is encrypted. */
    encrypted: (user) => accounts.encrypted(admin, user),

    /** Has the server ask for each password again, where it remembers logins. */
    forgetLogins: () => accounts.forgetLogins(admin),
  };
}
