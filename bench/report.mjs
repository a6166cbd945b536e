// Draws docs/benchmarks.md and its charts from the figures of a run: node bench/report.mjs
// It replaces the text between the markers in docs/benchmarks.md; the rest is written by hand.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BLUE = '#2f6fb0';
const GREY = '#a9b0b8';
const GREEN = '#4d9a6a';

const thousands = (value) => (value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString('en'));
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

const CHARTED = /^(saveBatchRecords|saveProcessedRecord|import|claimBatch, the median|get(Pending|Batch)Records)/;

function drawn(rows, database) {
  const groups = rows
    .filter((row) => row.database === database && CHARTED.test(row.work) && row.baseline !== null)
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

function goal({ goals, less }) {
  const said = [
    goals.baseline && `${less ? '≤' : '≥'} ${goals.baseline} × Sequelize`,
    goals.limit && `≥ ${goals.limit.toFixed(2)} of the limit`,
    goals.most && `≤ ${goals.most}`,
  ].filter(Boolean);
  return said.join(', ') || '–';
}

/** Whether a row reaches its goals; undefined if it has none. */
export function reaches({ ours, baseline, limit, goals, less }) {
  const met = [
    goals.baseline && baseline !== null && (less ? ours / baseline <= goals.baseline : ours / baseline >= goals.baseline),
    goals.limit && limit !== null && ours / limit >= goals.limit,
    goals.most && ours <= goals.most,
  ].filter((each) => typeof each === 'boolean');
  return met.length ? met.every(Boolean) : undefined;
}

const table = (head, rows) => [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

function tables({ rows, whole, profile, machine, rounds }) {
  const parts = [
    `Measured on ${machine.cpus} cores of ${machine.model} with ${machine.memoryGB} GB, ${machine.platform}, Node ${machine.node}, the databases on the same machine; ` +
      `medians of ${rounds} rounds, of one where the work is a whole import. Rates are a second.`,
  ];
  for (const database of new Set(rows.map((row) => row.database))) {
    const own = rows.filter((row) => row.database === database);
    const ratio = (row, other) => (row[other] === null ? '–' : `${(row.ours / row[other]).toFixed(2)}`);
    const value = (number) => (number === null ? '–' : thousands(number));
    const met = (row) => ({ true: 'yes', false: '**no**', undefined: '' })[reaches(row)];
    parts.push(`### ${database} ${own[0].version}\n\n![${database}](benchmarks/${database}.svg)`);
    parts.push(
      table(
        ['work', 'this store', 'Sequelize', 'ratio', 'limit', 'ratio', 'goal', 'reached'],
        own.map((row) => [
          row.unit === 'a second' ? row.work : `${row.work}, ${row.unit}`,
          value(row.ours),
          value(row.baseline),
          ratio(row, 'baseline'),
          row.limit === null ? '–' : `${value(row.limit)} (${row.limitName.replace('\\', '\\\\')})`,
          ratio(row, 'limit'),
          goal(row),
          met(row),
        ]),
      ),
    );
  }
  if (whole.length) {
    const [small, large] = whole.map(({ prepare, work }) => prepare + work);
    parts.push(
      `### A distributed job from beginning to end\n\nPostgreSQL, 4 worker processes: prepare, then claim, load, save each record, complete and finalize. ` +
        `Ten times the records take ${(large / small).toFixed(1)} times the time (goal: at most 11).`,
    );
    parts.push(
      table(
        ['records', 'prepare, s', 'work, s', 'in all, s', 'memory of the largest worker, MB', 'one getJobState at the end, ms'],
        whole.map((each) => [
          each.records.toLocaleString('en'),
          each.prepare.toFixed(1),
          each.work.toFixed(1),
          (each.prepare + each.work).toFixed(1),
          each.megabytes.toFixed(0),
          each.getJobState.toFixed(0),
        ]),
      ),
    );
  }
  if (profile.length) {
    parts.push(
      '### Where the time of a call goes\n\nMedians in ms. The server: the same statement by `pgbench`, and for a bulk save an insert of rows that the server has already.',
    );
    parts.push(
      table(
        ['database', 'call', 'whole', 'boundary', '`JSON.stringify`', 'server', 'the rest: way there, driver, queue, threads'],
        profile.map(({ database, call, ...part }) => [
          database,
          call,
          ...['whole', 'boundary', 'stringify', 'server', 'rest'].map((key) => part[key].toFixed(3)),
        ]),
      ),
    );
  }
  return parts.join('\n\n');
}

export async function writeReport(results, docs) {
  for (const database of new Set(results.rows.map((row) => row.database))) {
    await writeFile(join(docs, 'benchmarks', `${database}.svg`), drawn(results.rows, database));
  }
  const page = join(docs, 'benchmarks.md');
  const text = await readFile(page, 'utf8');
  const [before, rest] = text.split('<!-- figures -->\n');
  const after = rest.split('<!-- end of figures -->')[1];
  await writeFile(page, `${before}<!-- figures -->\n\n${tables(results)}\n\n<!-- end of figures -->${after}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const docs = fileURLToPath(new URL('../docs/', import.meta.url));
  await writeReport(JSON.parse(await readFile(join(docs, 'benchmarks', 'results.json'), 'utf8')), docs);
}
