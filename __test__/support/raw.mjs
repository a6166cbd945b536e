// Connections of the tests' own, past the store, through the usual JavaScript drivers.

import mysql from 'mysql2/promise';
import pg from 'pg';
import { startRemote } from './remote.mjs';

/** ms. A server that is busy with its disk may take seconds to let a connection in, and what is not there refuses at once. */
const CONNECT_TIMEOUT = 60_000;

/**
 * One connection. SQL is written one way for all: `"name"` quotes a name, `?` stands for a parameter. JSON columns come back as the
 * text that is stored, bigints as numbers.
 *
 * @param {'sqlite' | 'postgres' | 'mysql' | 'mariadb'} dialect
 * @param {string} target A URL; for SQLite the path of the file.
 * @returns {Promise<{ query(sql: string, params?: unknown[]): Promise<Record<string, any>[]>, end(): Promise<void> }>}
 */
export function connect(dialect, target) {
  if (dialect === 'postgres') return connectPostgres(target);
  if (dialect === 'sqlite') return connectSqlite(target);
  return connectMysql(target);
}

/** Quotes a name as the dialect does. */
export function quote(dialect, name) {
  return dialect === 'postgres' ? `"${name.replaceAll('"', '""')}"` : `\`${name.replaceAll('`', '``')}\``;
}

async function connectPostgres(connectionString) {
  const { builtins, getTypeParser } = pg.types;
  const asText = [builtins.JSON, builtins.JSONB];
  const types = {
    getTypeParser(oid, format) {
      if (asText.includes(oid)) return (text) => text;
      return oid === builtins.INT8 ? Number : getTypeParser(oid, format);
    },
  };
  const client = new pg.Client({ connectionString, types, connectionTimeoutMillis: CONNECT_TIMEOUT });
  // A connection that the server ends while it is idle says so in an event, which would otherwise end the process.
  client.on('error', () => {});
  await client.connect();
  return {
    async query(sql, params = []) {
      let position = 0;
      const numbered = sql.replace(/'[^']*'|"[^"]*"|\?/g, (part) => (part === '?' ? `$${++position}` : part));
      return (await client.query(numbered, params)).rows;
    },
    end: () => client.end(),
  };
}

async function connectMysql(uri) {
  const connection = await mysql.createConnection({ uri, connectTimeout: CONNECT_TIMEOUT, jsonStrings: true });
  connection.on('error', () => {});
  await connection.query("set session sql_mode = concat(@@sql_mode, ',ANSI_QUOTES'), lock_wait_timeout = 30");
  return {
    async query(sql, params = []) {
      const [rows] = await connection.query(sql, params);
      return Array.isArray(rows) ? rows : [];
    },
    end: () => connection.end(),
  };
}

/** In another process, so that a file may be open in a store of this one: see `remote.mjs`. */
async function connectSqlite(file) {
  const { call, end } = await startRemote(new URL('./sqlite-child.mjs', import.meta.url), file);
  return {
    query: (sql, params = []) => call('query', sql, params),
    end: () => call('close').finally(end),
  };
}
