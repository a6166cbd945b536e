// One job of 100,000 batches from its first record to its final status, on each database with its default settings, in the manner of the importer:
// does it end, how long does it take, and how much memory do its processes take?
//
//   node bench/large-job.mjs [--batches 100000] [--size 1] [--processes 2] [--last 100000] [--database <name>]... [--store <index.js>]
//
// A batch has one record (--size), so that it takes minutes and not hours: it is the number of batches that this is about. With --last the workers
// do only the last ones, and those before are completed without being processed, for a version that takes hours. Where a server refuses the job, the
// error and the call that it came from are printed: a limit must be met at the beginning, by `saveJobState`, and the error must name the server's
// setting.

import { parseArgs } from 'node:util';
import { databasesWith } from '../__test__/support/databases.mjs';
import { runImporter } from './importer.mjs';
import { OURS } from './sides.mjs';
import { peakMegabytes } from './work.mjs';

const { values: options } = parseArgs({
  options: {
    batches: { type: 'string', default: '100000' },
    size: { type: 'string', default: '1' },
    processes: { type: 'string', default: '2' },
    database: { type: 'string', multiple: true },
    last: { type: 'string' },
    store: { type: 'string', default: OURS },
  },
});
const [batches, batchSize, processes] = [options.batches, options.size, options.processes].map(Number);
const skip = options.last ? batches - Number(options.last) : 0;

/** What limits the size of a statement. */
const SETTINGS = { mariadb: 'max_allowed_packet', mysql: 'max_allowed_packet' };

async function settingOf(database) {
  const name = SETTINGS[database.dialect.name];
  if (!name) return '';
  const own = await database.create();
  const [{ value }] = await own.query(`select @@global.${name} as "value"`);
  await own.drop();
  return `, ${name} ${value / (1 << 20)} MB`;
}

for (const database of databasesWith('shared').filter(({ name }) => (options.database ?? [name]).includes(name))) {
  const began = performance.now();
  const seconds = () => `${((performance.now() - began) / 1_000).toFixed(0)} s`;
  console.log(
    `\n${database.name} (${database.version}${await settingOf(database)}): ${batches.toLocaleString('en')} batches of ${batchSize}`,
  );
  const onPhase = (phase) => console.log(`  after ${seconds()}: ${phase}`);
  try {
    const job = { side: options.store, records: batches * batchSize, batchSize, processes, skip, onPhase };
    const { rate, prepareRate, megabytes } = await runImporter(database, job);
    console.log(
      `  after ${seconds()}: COMPLETED; prepared at ${prepareRate.toFixed(0)} records/s, worked off at ${rate.toFixed(0)} records/s`,
    );
    console.log(
      `  memory: ${megabytes.toFixed(0)} MB for the largest worker, ${peakMegabytes().toFixed(0)} MB at most so far for this process, the orchestrator`,
    );
  } catch (error) {
    console.log(`  after ${seconds()}: refused: ${error.code ?? error.name}: ${error.message}`);
    process.exitCode = 1;
  }
}
