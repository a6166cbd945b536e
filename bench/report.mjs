// Makes the tables of docs/benchmarks.md and README.md, and the charts, from the figures of a run: node bench/report.mjs
// It replaces the text between the markers in these pages; the rest is written by hand.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { growthChart } from './growth.mjs';
import { goalOf, reaches } from './results.mjs';

const GROWTH = {
  importer: 'Distributed import, 2 worker processes: records/s over the records of the job',
  engine: 'Import by the engine: records/s over the records of the job',
};

const BLUE = '#2f6fb0';
const GREY = '#a9b0b8';
const GREEN = '#4d9a6a';

const thousands = (value) => (value < 100 ? value.toFixed(value < 10 ? 2 : 1) : Math.round(value).toLocaleString('en'));
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** Horizontal bars, a group for each task, on a logarithmic scale, because rates differ a hundredfold. */
function chart(title, groups) {
  const bars = groups.flatMap(({ bars: each }) => each);
  const low = 10 ** Math.floor(Math.log10(Math.min(...bars.map(({ value }) => value))));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...bars.map(({ value }) => value))));
  const [left, width, right] = [250, 480, 90];
  const x = (value) => left + (Math.log10(value / low) / Math.log10(high / low)) * width;
  let y = 56;
  const parts = [];
  for (let tick = low; tick <= high; tick *= 10) {
    parts.push(`<text x="${x(tick)}" y="44" text-anchor="middle" class="axis">${tick.toLocaleString('en')}</text>`);
  }
  for (const group of groups) {
    const middle = y + (group.bars.length * 15) / 2 + 3;
    parts.push(`<text x="${left - 10}" y="${middle}" text-anchor="end">${escaped(group.name)}</text>`);
    for (const { value, colour, label } of group.bars) {
      const length = Math.max(1, x(value) - left);
      parts.push(
        `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="12" fill="${colour}"><title>${escaped(label)}</title></rect>`,
      );
      parts.push(`<text x="${(left + length + 5).toFixed(1)}" y="${y + 10}" class="value">${thousands(value)}</text>`);
      y += 15;
    }
    y += 12;
  }
  const grid = [];
  for (let tick = low; tick <= high; tick *= 10) grid.push(`<path d="M${x(tick)} 50V${y - 6}" stroke="#dfe3e8"/>`);
  const legend = [
    ['this store', BLUE],
    ['Sequelize', GREY],
    ['the database’s own tool', GREEN],
  ].map(
    ([name, colour], n) =>
      `<rect x="${left + n * 130}" y="${y}" width="12" height="12" fill="${colour}"/><text x="${left + 18 + n * 130}" y="${y + 10}">${name}</text>`,
  );
  const height = y + 26;
  const total = left + width + right;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${height}" width="${total}" height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="#24292f">
<style>.axis, .value { font-size: 11px; fill: #57606a }</style>
<rect width="${total}" height="${height}" fill="#ffffff"/>
<text x="${left - 10}" y="20" text-anchor="end" font-weight="600">${escaped(title)}</text>
<text x="${left}" y="20" class="axis">a second; each line is ten times the one before</text>
${[...grid, ...parts, ...legend].join('\n')}
</svg>
`;
}

const CHARTED = /^(saveBatchRecords|saveProcessedRecord|claimBatch, the median|get(Pending|Batch)Records)/;

function drawn(rows, database) {
  const groups = rows
    .filter((row) => CHARTED.test(row.work) && row.baseline !== null)
    .map((row) => ({
      name: row.work.replace('claimBatch, the median one of 4,000 batches', 'claimBatch, 4,000 batches'),
      bars: [
        { value: row.ours, colour: BLUE, label: 'this store' },
        { value: row.baseline, colour: GREY, label: 'Sequelize' },
        ...(row.limit === null ? [] : [{ value: row.limit, colour: GREEN, label: row.limitName }]),
      ],
    }));
  return chart(database, groups);
}

export const table = (head, rows) => [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

/** The rows of one database, with columns for those sides that were measured. */
function rowsTable(rows) {
  const value = (number) => (number === null ? '–' : thousands(number));
  const ratio = (row, other) => (row[other] ? (row.ours / row[other]).toFixed(2) : '–');
  const limit = (row) => (row.limit === null ? '–' : `${value(row.limit)} (${row.limitName.replace('\\', '\\\\')})`);
  const met = (row) => ({ true: 'yes', false: '**no**', undefined: '' })[reaches(row)];
  const columns = [
    ['work', (row) => (row.unit === 'a second' ? row.work : `${row.work}, ${row.unit}`)],
    ['this store', (row) => value(row.ours)],
    ['before', (row) => value(row.before), 'before'],
    ['ratio', (row) => ratio(row, 'before'), 'before'],
    ['Sequelize', (row) => value(row.baseline), 'baseline'],
    ['ratio', (row) => ratio(row, 'baseline'), 'baseline'],
    ['limit', limit, 'limit'],
    ['ratio', (row) => ratio(row, 'limit'), 'limit'],
    ['goal', goalOf],
    ['reached', met],
  ].filter(([, , side]) => side === undefined || rows.some((row) => row[side] !== null));
  return table(
    columns.map(([name]) => name),
    rows.map((row) => columns.map(([, cell]) => cell(row))),
  );
}

const LABELS = { postgres: 'PostgreSQL', mariadb: 'MariaDB', mysql: 'MySQL', 'sqlite-file': 'SQLite' };
const place = (database) => Object.keys(LABELS).indexOf(database);

/** The rows of each database (`Map.groupBy`, which Node 20 does not have), PostgreSQL's first. */
function byDatabase(rows) {
  const groups = new Map();
  for (const row of rows.toSorted((a, b) => place(a.database) - place(b.database))) {
    groups.set(row.database, [...(groups.get(row.database) ?? []), row]);
  }
  return groups;
}

/** What a section was measured on: the sections may be measured on different days. */
const measuredOn = ({ cpus, model, memoryGB, platform, node }) =>
  `Measured on ${cpus} cores of ${model} with ${memoryGB} GB, ${platform}, Node ${node}, the databases on the same machine; medians of the rounds, of one ` +
  'where the work takes minutes.';

function jobTables({ rows, growth, machines }) {
  const parts = [
    '## Whole jobs',
    measuredOn(machines.jobs),
    'Batches of 100 records, in the manner of `@batchactions/distributed` (importer) and of `@batchactions/core` (engine).',
  ];
  for (const [mode, title] of Object.entries(GROWTH)) {
    if (growth.some((point) => point.mode === mode)) parts.push(`![${title}](benchmarks/growth-${mode}.svg)`);
  }
  for (const [database, own] of byDatabase(rows.filter(({ section }) => section === 'jobs'))) {
    parts.push(`### Jobs on ${LABELS[database]}, ${own[0].version}`, rowsTable(own));
  }
  return parts;
}

function callTables({ rows, machines }) {
  const parts = ['## Single calls', `${measuredOn(machines.calls)} Rates are a second.`];
  for (const [database, own] of byDatabase(rows.filter(({ section }) => section === 'calls'))) {
    parts.push(`### Calls on ${LABELS[database]}, ${own[0].version}`, `![${database}](benchmarks/${database}.svg)`, rowsTable(own));
  }
  return parts;
}

function partsTables({ rows, profile, machines }) {
  const keys = ['whole', 'boundary', 'stringify', 'server', 'rest'];
  const cells = profile.map(({ database, call, ...part }) => [database, call, ...keys.map((key) => part[key].toFixed(3))]);
  const head = ['database', 'call', 'whole', 'boundary', '`JSON.stringify`', 'server', 'the rest: way there, driver, queue, threads'];
  return [
    '### Where the time of a call goes',
    measuredOn(machines.parts),
    'Medians in ms. The server: the same statement by `pgbench`, and for a bulk save an insert of rows that the server has already.',
    table(head, cells),
    ...[...byDatabase(rows.filter(({ section }) => section === 'parts'))].map(([, own]) => rowsTable(own)),
  ];
}

/** The whole page's figures. */
function figures(results) {
  return [...jobTables(results), ...callTables(results), ...(results.profile.length ? partsTables(results) : [])].join('\n\n');
}

/** README's rows: the row of PostgreSQL by its beginning, and its name there. */
const README_ROWS = [
  [
    "distributed importer, 2 processes, 'batch', 1,000 batches",
    "distributed import of 100,000, 2 processes, `durability: 'batch'`, records/s",
  ],
  ["distributed importer, 2 processes, 'batch', 10,000 batches", 'the same of 1,000,000'],
  ["engine, 'batch', 100,000 records", "import of 100,000 by the engine, `durability: 'batch'`, records/s"],
  ["engine, 'batch', 1,000,000 records", 'the same of 1,000,000'],
  ["engine, 'record', 20,000 records", "import of 20,000 by the engine, `durability: 'record'`, records/s"],
  ['getJobState of 10,000 batches, not looked at', '`getJobState` of 10,000 batches, whose list is not looked at (as the importer), ms'],
  ['getJobState of 10,000 batches, looked at', 'the same, and its list is looked at, ms'],
  ['saveBatchRecords, 1,000 a call', '`saveBatchRecords`, 1,000 a call, records/s'],
  ['claimBatch, all of them', '`claimBatch` in a job of 4,000, claims/s'],
  ['getPendingRecords of 20,000', '`getPendingRecords` of 20,000, records/s'],
  ['start to first claim', '`require`, connect and claim, ms'],
];

function readmeTable({ rows, growth }) {
  const own = rows.filter(({ database }) => database === 'postgres');
  const cells = README_ROWS.map(([work, name]) => [own.find((row) => row.work === work), name]).filter(([row]) => row);
  const times = ({ ours, baseline, less }) => {
    if (baseline === null) return '–';
    const ratio = ours / baseline;
    // Of milliseconds, less is better: a fraction is a win, too.
    if (less && ratio < 0.75) return `1/${Math.round(1 / ratio)}`;
    return ratio < 10 ? ratio.toFixed(1) : `${Math.round(ratio)}`;
  };
  const value = (number) => (number === null ? '–' : thousands(number));
  return [
    '| PostgreSQL | this store | Sequelize | times |',
    '| --- | ---: | ---: | ---: |',
    ...cells.map(([row, name]) => `| ${name} | ${value(row.ours)} | ${value(row.baseline)} | ${times(row)} |`),
    ...(growth.some(({ mode }) => mode === 'importer') ? ['', `![${GROWTH.importer}](docs/benchmarks/growth-importer.svg)`] : []),
  ].join('\n');
}

/** Writes a file in the form that the project's formatter gives it. */
export async function writeFormatted(file, text) {
  await writeFile(file, await format(text, { ...(await resolveConfig(file)), filepath: file }));
}

/** Replaces what stands between two markers of a page; the rest is written by hand. */
export async function replaceBetween(page, name, text) {
  const old = await readFile(page, 'utf8');
  const [begin, end] = [`<!-- ${name} -->`, `<!-- end of ${name} -->`];
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${page} has no ${begin} … ${end}`);
  await writeFormatted(page, `${old.slice(0, from)}${begin}\n\n${text}\n\n${old.slice(to)}`);
}

/** @param {object} results @param {string} root The project's folder. */
export async function writeReport(results, root) {
  const charts = join(root, 'docs', 'benchmarks');
  for (const [database, own] of byDatabase(results.rows.filter(({ section }) => section === 'calls'))) {
    await writeFile(join(charts, `${database}.svg`), drawn(own, database));
  }
  for (const [mode, title] of Object.entries(GROWTH)) {
    const panels = [...byDatabase(results.growth.filter((point) => point.mode === mode))].map(([name, points]) => ({ name, points }));
    if (panels.length > 0) await writeFile(join(charts, `growth-${mode}.svg`), growthChart(title, panels));
  }
  await replaceBetween(join(root, 'docs', 'benchmarks.md'), 'figures', figures(results));
  await replaceBetween(join(root, 'README.md'), 'speed', readmeTable(results));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL('..', import.meta.url));
  await writeReport(JSON.parse(await readFile(join(root, 'docs', 'benchmarks', 'results.json'), 'utf8')), root);
}
