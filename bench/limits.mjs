// What a database achieves without a store: its own tools, and for SQLite the fastest driver of Node.js. Each limit is a function that returns a
// rate.

import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import Database from 'better-sqlite3';
import { newId, range, recordOf } from './work.mjs';

const run = promisify(execFile);
const COLUMNS = '"jobId", "batchId", "recordIndex", "status", "raw", "parsed", "errors", "processingError"';
const UPSERT_TAIL = `on conflict ("jobId", "recordIndex") do update
set "batchId" = excluded."batchId", "status" = excluded."status", "raw" = excluded."raw", "parsed" = excluded."parsed",
    "errors" = excluded."errors", "processingError" = excluded."processingError"`;

export async function has(program) {
  return run(program, ['--version']).then(
    () => true,
    () => false,
  );
}

/** The limits that can be measured for a database, by name. */
export async function limitsOf({ dialect }, own, folder, times) {
  if (dialect.name === 'postgres') return postgresLimits(own, folder, times);
  if (dialect.name === 'sqlite') return sqliteLimits(own, times);
  return {};
}

async function postgresLimits(own, folder, times) {
  const limits = {};
  if (await has('psql')) {
    const file = join(folder, 'rows.tsv');
    limits['psql \\copy'] = async () => {
      const id = newId();
      const count = times(10_000);
      const row = (n) =>
        [id, 'b', n, 'processed', JSON.stringify(recordOf(n).raw), JSON.stringify(recordOf(n).parsed), '[]', '\\N'].join('\t');
      await writeFile(file, range(count).map(row).join('\n') + '\n');
      const copy = `\\copy batchactions_records (${COLUMNS}) from '${file}'`;
      const { stdout } = await run('psql', [own.url, '-X', '-c', '\\timing on', '-c', copy]);
      return count / (Number(/Time: ([\d.]+) ms/.exec(stdout)[1]) / 1_000);
    };
  }
  if (await has('pgbench')) {
    await own.query(
      `insert into "batchactions_batches" ("id", "jobId", "batchIndex") select 'p' || n, 'pgbench', n from generate_series(1, 4000) n`,
    );
    limits['pgbench upsert, 1 client'] = () => pgbench(own, folder, UPSERT, 1);
    limits['pgbench upsert, 16 clients'] = () => pgbench(own, folder, UPSERT, 16);
    limits['pgbench update returning'] = () => pgbench(own, folder, UPDATE, 1);
  }
  return limits;
}

const { raw, parsed } = recordOf(1);
/** As the store writes one record that is saved alone. */
export const UPSERT = `\\set n random(1, 1000000000)
insert into batchactions_records (${COLUMNS})
values ('pgbench', 'b', :n, 'processed', '${JSON.stringify(raw)}', '${JSON.stringify(parsed)}', '[]', null)
${UPSERT_TAIL};
`;
/** As UPSERT, each client upserting rows of its own, one after another: `each` of them, from `next`. */
export const UPSERT_EACH = `\\set n :client_id * :each + :next
\\set next :next + 1
${UPSERT.slice(UPSERT.indexOf('insert'))}`;
const UPDATE = `\\set n random(1, 4000)
update batchactions_batches set "status" = 'PROCESSING', "version" = "version" + 1 where "id" = 'p' || :n returning "batchIndex";
`;

/** Transactions per second, measured for one second or for a given number of transactions. `settings`: of the sessions, as `-c` takes them. */
export async function pgbench(own, folder, script, clients, { transactions, define = [], settings = [] } = {}) {
  const { hostname, port, username, pathname } = new URL(own.url);
  const file = join(folder, 'script.sql');
  await writeFile(file, script);
  const server = ['-h', hostname, '-p', port || '5432', '-U', decodeURIComponent(username)];
  const much = transactions ? ['-t', `${transactions}`] : ['-T', '1'];
  const how = ['-n', '-M', 'prepared', '-c', `${clients}`, '-j', '2', ...much, ...define.flatMap((each) => ['-D', each])];
  const env = { ...process.env, PGOPTIONS: settings.map((each) => `-c ${each}`).join(' ') };
  const { stdout } = await run('pgbench', [...how, ...server, '-f', file, pathname.slice(1)], { env });
  return Number(/tps = ([\d.]+)/.exec(stdout)[1]);
}

/** A prepared statement in a loop, in one transaction a call, as the store's own settings have it: WAL, and `synchronous` normal. */
function sqliteLimits(own, times) {
  const loop = (size, calls) => () => {
    const database = new Database(fileURLToPath(own.url.replace('sqlite:', 'file:')));
    try {
      database.pragma('journal_mode = wal');
      database.pragma('synchronous = normal');
      const places = '?, ?, ?, ?, ?, ?, ?, ?';
      const upsert = database.prepare(`insert into "batchactions_records" (${COLUMNS}) values (${places}) ${UPSERT_TAIL}`);
      const save = database.transaction((id, records) => {
        for (const { index, status, raw, parsed, errors } of records) {
          upsert.run(id, 'b', index, status, JSON.stringify(raw), JSON.stringify(parsed), JSON.stringify(errors), null);
        }
      });
      const id = newId();
      const began = performance.now();
      for (const call of range(calls)) {
        save(
          id,
          range(size).map((n) => recordOf(call * size + n)),
        );
      }
      return (size * calls) / ((performance.now() - began) / 1_000);
    } finally {
      database.close();
    }
  };
  return { 'better-sqlite3, 1,000 a call': loop(1_000, times(10)), 'better-sqlite3, 100 a call': loop(100, times(50)) };
}
