'use strict';

// Where the database is, and with which password. A password comes from DATABASE_URL, from PostgreSQL's own variables and files, from stdin or from a
// question at the terminal. It stands in no command line, which every user of the machine can read by `ps`, and in no message.

const { EXIT, CommandError, UsageError } = require('./exit.js');
const { askHidden, canAsk, readPassword } = require('./terminal.js');

/** The package's own entry. Not at the top: `--help` works where the addon is missing. */
function library() {
  try {
    return require('../index.js');
  } catch (error) {
    throw new CommandError(error.message, EXIT.FAILED);
  }
}

/** Whether a URL holds a password, also one that breaks the URL because it is not escaped. In doubt it does. */
function holdsPassword(url) {
  const [, rest] = /^[^:]*:(.*)$/s.exec(url) ?? [undefined, url];
  const [before, ...after] = rest.split('?');
  if (/^\/\/[^:@]*:.+@/s.test(before)) return true;
  // A question mark or a number sign in a password ends the URL's host too early, and leaves the host among the parameters.
  const query = after.join('?');
  if (/^\/\/[^@/]*:/.test(before) && /^[^=&]*@/.test(query)) return true;
  if (/#.*@/s.test(rest)) return true;
  const [, user] = /^\/\/([^@/]*)@/.exec(before) ?? [];
  if (user !== undefined && /:./s.test(decoded(user))) return true;
  return query
    .split('#')
    .some((part) =>
      [...new URLSearchParams(part)].some(([name, value]) => /^(password|passwd|pass|pwd|sslpassword)$/i.test(name) && value !== ''),
    );
}

/** Text without its percent escapes, or as it is where they are none. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function urlOf(values) {
  const { url } = values;
  if (url === undefined) {
    const set = process.env.DATABASE_URL;
    if (set) return set;
    throw new UsageError('set DATABASE_URL, or give --url with a URL without a password, to say where the database is');
  }
  if (url === '') throw new UsageError('--url must be the URL of a database');
  if (holdsPassword(url)) {
    throw new UsageError(
      '--url holds a password, and every user of this machine can read it there, by ps: set DATABASE_URL instead, or leave the password out (you are asked for it at a terminal, and --password-stdin reads it)',
    );
  }
  return url;
}

const isPostgres = (url) => /^\s*postgres/i.test(url);
const isSqlite = (url) => /^\s*sqlite:/i.test(url);

/** Whether the server refused a login for its password. The second SQLSTATE has other reasons on PostgreSQL: no entry in pg_hba.conf, say. */
const wantsPassword = (url, error) => error?.code === 'CONNECTION_FAILED' && error.cause?.code === (isPostgres(url) ? '28P01' : '28000');

/** Opens stores, and asks for a password once, where the server refuses the login without one. */
class Connection {
  #url;
  #options;
  #password;

  static async of(values) {
    const url = urlOf(values);
    const connection = new Connection();
    connection.#url = url;
    // One command makes one call after the other.
    connection.#options = { pool: { max: 2 }, ...(values.schema === undefined ? {} : { schema: values.schema }) };
    if (values['password-stdin']) connection.#password = await readPassword();
    return connection;
  }

  #make() {
    const { SqlxStateStore } = library();
    const password = this.#password === undefined ? {} : { password: this.#password };
    try {
      return new SqlxStateStore(this.#url, { ...this.#options, ...password });
    } catch (error) {
      // The constructor connects to nothing: the URL, the environment or an option is wrong.
      throw new UsageError(error.message);
    }
  }

  /** What the database is and which schema the tables are in, by the URL. It is checked as a store checks it, and nothing connects. */
  async target() {
    await this.#make().close();
    const scheme = /^\s*([a-z]+)/i.exec(this.#url)[1].toLowerCase();
    const parameters = new URLSearchParams(this.#url.split('?').slice(1).join('?'));
    return { scheme, schema: this.#options.schema ?? parameters.get('schema') ?? undefined };
  }

  /** Gives `body` a store that has connected, and closes it. `reach` is the call that connects. */
  async use(body, reach = (store) => store.ping()) {
    let store = this.#make();
    try {
      let reached;
      try {
        reached = await reach(store);
      } catch (error) {
        if (isSqlite(this.#url) || !wantsPassword(this.#url, error) || this.#password !== undefined || !canAsk()) throw error;
        await store.close();
        this.#password = await askHidden('Password: ');
        store = this.#make();
        reached = await reach(store);
      }
      return await body(store, reached);
    } finally {
      // What a close could report is of queued saves, and there are none.
      await store.close().catch(() => {});
    }
  }
}

module.exports = { Connection, holdsPassword, library };
