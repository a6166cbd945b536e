'use strict';

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Connection } = require('./connection.js');

const FOLDERS = { postgres: 'postgres', postgresql: 'postgres', mysql: 'mysql', mariadb: 'mysql', sqlite: 'sqlite' };
const NAMES = { postgres: 'PostgreSQL', postgresql: 'PostgreSQL', mysql: 'MySQL', mariadb: 'MariaDB', sqlite: 'SQLite' };

module.exports = {
  usage: 'init [--print]',
  summary: 'Creates the tables and indexes that are missing, or prints the statements for a DBA',
  options: { print: { type: 'boolean' } },
  help: `
  --print               prints the statements for the database of the URL, and connects to nothing
  --json                { created: true } or, with --print, { database, statements }
`,

  async run({ values, stdout }) {
    const connection = await Connection.of(values);
    if (values.print) {
      const { scheme, schema } = await connection.target();
      const parts = partsFor(scheme, schema);
      if (values.json) return stdout.json({ database: NAMES[scheme], statements: parts.flatMap(({ statements }) => statements) });
      return stdout.write(`${parts.map(({ text }) => text).join('\n\n')}\n`);
    }
    // Not with a ping first: SQLite makes the file here.
    return connection.use(
      () => (values.json ? stdout.json({ created: true }) : stdout.line('The tables and indexes are there.')),
      (store) => store.initialize(),
    );
  },
};

/** The statements that `initialize()` runs on an empty database, as `{ text, statements }`: parts of a script, in which comments stand too. */
function partsFor(scheme, schema) {
  const folder = FOLDERS[scheme];
  const parts = [{ text: `-- @batchactions/state-sqlx ${require('../package.json').version}, for ${NAMES[scheme]}`, statements: [] }];
  if (folder === 'postgres' && schema !== undefined) {
    // A name may hold a semicolon, so this is not split as the rest.
    const name = `"${schema.replaceAll('"', '""')}"`;
    const statements = [`create schema if not exists ${name}`, `set search_path to ${name}`];
    parts.push({ text: `${statements.join(';\n')};`, statements });
  }
  const fixed = [readFileSync(join(__dirname, '..', 'migrations', folder, '0001_tables.sql'), 'utf8').trim()];
  if (scheme === 'mysql') fixed.push(STATES_INDEX);
  parts.push(...fixed.map((text) => ({ text, statements: statementsOf(text) })));
  if (RIGHTS[folder] !== undefined) parts.push({ text: RIGHTS[folder], statements: [] });
  return parts;
}

const STATES_INDEX = `-- MySQL only, and not needed: it makes reading a large job faster. Skip it where the server is MariaDB.
create index \`batchactions_batches_job_id_state\` on \`batchactions_batches\`
  (\`jobId\`, \`batchIndex\`, \`status\`, \`processedCount\`, \`failedCount\`, \`claimedAt\`, \`workerId\`);`;

const RIGHTS = {
  postgres: `-- What the application's user needs, beside usage of the schema:
-- grant select, insert, update, delete on batchactions_jobs, batchactions_records, batchactions_batches to app;
-- grant usage on sequence "batchactions_records_id_seq" to app;`,
  mysql: `-- What the application's user needs:
-- grant select, insert, update, delete on app.batchactions_jobs to 'app'@'%';
-- grant select, insert, update, delete on app.batchactions_records to 'app'@'%';
-- grant select, insert, update, delete on app.batchactions_batches to 'app'@'%';`,
  sqlite: undefined,
};

/** Of text of this package, which has no semicolon inside a statement. */
const statementsOf = (text) =>
  text
    .replace(/^--.*$/gm, '')
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
