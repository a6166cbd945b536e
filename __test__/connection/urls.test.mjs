// URLs and instances as platforms and other tools have them, against real servers. What each of them means stands in the tables of src/settings/tests.

import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Sequelize } from 'sequelize';
import { describe, expect, onTestFinished, test } from 'vitest';
import { databases } from '../support/databases.mjs';
import { runNode } from '../support/run-node.mjs';
import { makeJob } from '../support/fixtures.mjs';
import { freshDatabase, rejection, SqlxStateStore, onDatabasesWith } from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';

function open(connection, options) {
  const store = new SqlxStateStore(connection, options);
  onTestFinished(() => store.close());
  return store;
}

function withParameters(url, parameters) {
  const changed = new URL(url);
  for (const [name, value] of Object.entries(parameters)) changed.searchParams.set(name, value);
  return changed;
}

const postgres = databases.find(({ name }) => name === 'postgres');
const onPostgres = postgres ? test : (name) => test.skip(`${name} [exempt: there is no PostgreSQL]`, () => {});

/** In which schemas of a database the tables are. */
const schemasOf = async (db) =>
  (await db.query(`select schemaname as "name" from pg_tables where tablename = 'batchactions_jobs'`)).map(({ name }) => name);

describe('postgres', () => {
  onPostgres('the socket of the server, in the ways of libpq', async (context) => {
    const db = await freshDatabase(postgres);
    const [{ folders }] = await db.query(`select current_setting('unix_socket_directories') as folders`);
    const { username, port, pathname } = new URL(db.url);
    const folder = folders.split(/, */).find((each) => existsSync(join(each, `.s.PGSQL.${port || 5432}`)));
    if (!folder) return context.skip('this server has no socket on this machine');
    const login = await postgres.dialect.connect(`postgres://${username}@localhost${pathname}?host=${folder}`).catch((error) => error);
    if (login instanceof Error) return context.skip(`the server lets no one in by the socket: ${login.message}`);
    await login.end();
    const at = port || 5432;
    for (const url of [
      `postgresql://${username}@${pathname}?host=${folder}&port=${at}`,
      `postgresql://${username}@${pathname}?host=${encodeURIComponent(folder)}&port=${at}`,
      `postgresql://${username}@${encodeURIComponent(folder)}:${at}${pathname}`,
      `postgres://${pathname}?host=${folder}&port=${at}&user=${username}`,
      `postgres://${username}@localhost${pathname}?unix_socket=${folder}/.s.PGSQL.${at}`,
      // A socket is never encrypted.
      `postgres://${username}@${pathname}?host=${folder}&port=${at}&sslmode=require`,
    ]) {
      await open(url).initialize();
    }
    expect(await schemasOf(db)).toEqual(['public']);
  });

  onPostgres('Prisma’s parameters', async () => {
    const db = await freshDatabase(postgres);
    await db.query('create schema imports');
    const url = withParameters(db.url, { schema: 'imports', connection_limit: '5', pool_timeout: '20', connect_timeout: '15' });
    await open(url.href).initialize();
    expect(await schemasOf(db)).toEqual(['imports']);
    await open(withParameters(db.url, { schema: 'public', connection_limit: '5' })).initialize();
    expect((await schemasOf(db)).sort()).toEqual(['imports', 'public']);
  });

  onPostgres('`options`: a search path of several schemas, and with it a pooler, an application’s name', async () => {
    const db = await freshDatabase(postgres);
    await db.query('create schema "my imports"');
    const options = String.raw`-c search_path="my\ imports",public -c statement_timeout=20s`;
    for (const parameters of [{ options }, { options, pgbouncer: 'true' }, { options, application_name: 'an app' }]) {
      const store = open(withParameters(db.url, parameters));
      await store.initialize();
      expect(await store.getJobState('j')).toBeNull();
    }
    expect(await schemasOf(db)).toEqual(['my imports']);
    const names = await db.query('select application_name as "name" from pg_stat_activity where datname = current_database()');
    expect(names.map(({ name }) => name)).toContain('an app');
  });

  onPostgres('`statement_timeout` is the server’s limit and the store’s', async () => {
    const db = await freshDatabase(postgres);
    await open(db.url).initialize();
    const store = open(withParameters(db.url, { options: '-c statement_timeout=300' }));
    await store.saveJobState(makeJob(1, { id: 'j' }));
    await db.query('alter table batchactions_jobs rename to jobs');
    await db.query('create view batchactions_jobs as select jobs.* from jobs, pg_sleep(20)');
    await rejection(store.getJobState('j'), 'TIMEOUT');
  });

  onPostgres('`target_session_attrs=read-write` refuses a session that takes no writes, and it may be tried again', async () => {
    const db = await freshDatabase(postgres);
    await open(db.url).initialize();
    await db.query(`alter database "${db.name}" set default_transaction_read_only = on`);
    const error = await rejection(
      open(withParameters(db.url, { target_session_attrs: 'read-write' })).getJobState('j'),
      'CONNECTION_FAILED',
    );
    expect(error).toMatchObject({ retryable: true, message: expect.stringContaining('target_session_attrs') });
    expect(await open(withParameters(db.url, { target_session_attrs: 'primary' })).getJobState('j')).toBeNull();
    expect(await open(withParameters(db.url, { target_session_attrs: 'any' })).getJobState('j')).toBeNull();
  });

  onPostgres('a Sequelize instance: its `options` are passed on whole', async () => {
    const db = await freshDatabase(postgres);
    await db.query('create schema imports');
    const sequelize = new Sequelize(db.url, { logging: false, dialectOptions: { options: '-c geqo=off -c search_path=imports' } });
    onTestFinished(() => sequelize.close());
    await open(sequelize).initialize();
    expect(await schemasOf(db)).toEqual(['imports']);
  });

  onPostgres('a Sequelize instance made from a URL that demands encryption is never connected without it', async () => {
    const db = await freshDatabase(postgres);
    const sequelize = new Sequelize(withParameters(db.url, { sslmode: 'verify-full' }).href, { logging: false });
    onTestFinished(() => sequelize.close());
    const error = await rejection(open(sequelize).initialize(), 'CONNECTION_FAILED');
    expect(error.message).toMatch(/no encryption|certificate/);
  });
});

onDatabasesWith('server', (database) => {
  test('a Sequelize instance: a password that is a number is its digits', async () => {
    const db = await freshDatabase(database);
    const user = await createUser(db, { password: '1234567890', rights: 'all' });
    onTestFinished(() => user.drop());
    const { hostname: host, port, pathname } = new URL(db.url);
    const config = { host, port, database: pathname.slice(1), username: user.name, password: 1234567890, pool: {} };
    const store = new SqlxStateStore({ config, options: {}, getDialect: () => db.dialect.name });
    await store.initialize();
    expect(await store.getJobState('missing')).toBeNull();
    await store.close();
  });

  test('spaces and line ends around the URL are ignored', async () => {
    const db = await freshDatabase(database);
    const store = open(`  ${db.url}\n`);
    await store.initialize();
    const job = makeJob(1);
    await store.saveJobState(job);
    expect(await db.query('select "id" from batchactions_jobs')).toEqual([{ id: job.id }]);
  });

  test('a parameter that is unknown is warned of once per process, by its name and never its value', async () => {
    const url = withParameters('postgres://u@127.0.0.1/d', { nonsense: 'hunter2', unheard_of: 'hunter2' }).href;
    const mysql = url.replace('postgres', 'mysql');
    const source = `
        process.on('warning', ({ name, code, message }) => console.log(JSON.stringify({ name, code, message })));
        for (const url of [${JSON.stringify(url)}, ${JSON.stringify(mysql)}, ${JSON.stringify(url)} + '&third=1']) new SqlxStateStore(url);`;
    const { stdout, stderr } = await runNode(source);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { name: 'StateStoreWarning', code: 'PARAMETER_IGNORED', message: expect.stringMatching(/nonsense, unheard_of/) },
      { name: 'StateStoreWarning', code: 'PARAMETER_IGNORED', message: expect.stringMatching(/third/) },
    ]);
    expect(stdout + stderr).not.toContain('hunter2');
  });
});

describe('sqlite', () => {
  test('the spellings of a file and of memory', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'batchactions-urls-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    await open(`sqlite:file:${folder}/a.db?mode=rwc`).initialize();
    await open(` sqlite://${folder}/b.db `).initialize();
    await rejection(open(`sqlite:file:${folder}/c.db?mode=rw`).initialize(), 'CONNECTION_FAILED');
    await open('sqlite:///:memory:').initialize();
    const files = readdirSync(folder);
    expect(files).toEqual(expect.arrayContaining(['a.db', 'b.db']));
    expect(files).not.toContain('c.db');
    expect(existsSync(':memory:')).toBe(false);
  });
});
