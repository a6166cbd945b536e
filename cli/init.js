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
      const script = scriptFor(scheme, schema);
      if (values.json) return stdout.json({ database: NAMES[scheme], statements: statementsOf(script) });
      return stdout.write(script);
    }
    // Not with a ping first: SQLite makes the file here.
    return connection.use(
      () => (values.json ? stdout.json({ created: true }) : stdout.line('The tables and indexes are there.')),
      (store) => store.initialize(),
    );
  },
};

/** The statements that `initialize()` runs on an empty database. */
function scriptFor(scheme, schema) {
  const folder = FOLDERS[scheme];
  const migration = readFileSync(join(__dirname, '..', 'migrations', folder, '0001_tables.sql'), 'utf8').trim();
  const parts = [`-- @batchactions/state-sqlx ${require('../package.json').version}, for ${NAMES[scheme]}`];
  if (folder === 'postgres' && schema !== undefined) {
    const name = `"${schema.replaceAll('"', '""')}"`;
    parts.push(`create schema if not exists ${name};\nset search_path to ${name};`);
  }
  parts.push(migration);
  if (scheme === 'mysql') parts.push(STATES_INDEX);
  parts.push(RIGHTS[folder]);
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

const STATES_INDEX = `-- MySQL only, and not needed: it makes reading a large job faster.
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

const statementsOf = (script) =>
  script
    .replace(/^--.*$/gm, '')
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
