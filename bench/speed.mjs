// How fast the store is, compared with the adapter that it replaces, with another version of itself, and with what is possible: `npm run bench`
//
//   node bench/speed.mjs [--quick | --full] [--section jobs|calls|parts]... [--part <name>]... [--database <name>]...
//                        [--baseline <index.js>] [--json <file>]
//
// Sections: `jobs`, whole jobs as users run them (jobs.mjs; --part takes some of them); `calls`, single calls (calls.mjs); `parts`, where the time
// of a call goes (profile.mjs). Each row is done by this version, by the version at --baseline (a built checkout's index.js, which is loaded beside
// this one), by a baseline on Sequelize 6 (the tests' own adapter, which works like the one that the store replaces: find, then update; bulkCreate;
// JSON rewritten on each claim), and where there is a limit, by what achieves it: a store in memory, or a tool of the database that knows nothing of
// jobs. They take turns, round by round, so that other load on the machine affects all of them alike. The figures are medians of the rounds, and
// ratios to the others. Compare figures of one run only.
//
// --quick takes 3 minutes; without it, about 20. --full goes up to jobs of a million records and takes more than an hour; what it measures goes to
// docs/benchmarks/results.json (only the given sections, if there are some), from which docs/benchmarks.md, its charts and README's table are made.

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { databasesWith } from '../__test__/support/databases.mjs';
import { measureCalls, measureStart } from './calls.mjs';
import { measureJobs } from './jobs.mjs';
import { measureParts } from './profile.mjs';
import { writeFormatted, writeReport } from './report.mjs';
import { Results } from './results.mjs';
import { OURS } from './sides.mjs';

const SECTIONS = ['jobs', 'calls', 'parts'];
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    full: { type: 'boolean' },
    section: { type: 'string', multiple: true, default: SECTIONS },
    part: { type: 'string', multiple: true },
    database: { type: 'string', multiple: true },
    baseline: { type: 'string' },
    json: { type: 'string' },
  },
});
const unknown = options.section.find((each) => !SECTIONS.includes(each));
if (unknown) throw new Error(`there is no section ${unknown}, only ${SECTIONS.join(', ')}`);
const scale = options.quick ? 'quick' : options.full ? 'full' : 'usual';
const results = new Results(scale);
const bench = { scale, results, parts: options.part, sides: { ours: OURS, ...(options.baseline && { before: options.baseline }) } };

const { node, cpus, model = 'an unknown processor' } = results.machine;
console.log(`Node ${node}, ${cpus} × ${model}`);
for (const database of databasesWith('shared').filter(({ name }) => (options.database ?? [name]).includes(name))) {
  if (options.section.includes('jobs')) await measureJobs(database, bench);
  if (options.section.includes('calls')) {
    await measureCalls(database, bench);
    await measureStart(database, bench);
  }
  if (options.section.includes('parts') && database.dialect.name !== 'sqlite') await measureParts(database, bench);
}
if (options.json) await writeFile(options.json, JSON.stringify(results, null, 2) + '\n');
if (options.full && !options.database && !options.part) await keep();

/** Puts the measured sections in the place of those of an earlier run, and makes the documents anew. */
async function keep() {
  const file = fileURLToPath(new URL('../docs/benchmarks/results.json', import.meta.url));
  const kept = JSON.parse(await readFile(file, 'utf8'));
  const measured = ({ section }) => options.section.includes(section);
  const merged = {
    machines: { ...kept.machines, ...Object.fromEntries(options.section.map((section) => [section, results.machine])) },
    scale,
    rows: [...results.rows, ...kept.rows.filter((row) => !measured(row))],
    growth: options.section.includes('jobs') ? results.growth : kept.growth,
    profile: options.section.includes('parts') ? results.profile : kept.profile,
  };
  await writeFormatted(file, JSON.stringify(merged));
  await writeReport(merged, fileURLToPath(new URL('..', import.meta.url)));
}
