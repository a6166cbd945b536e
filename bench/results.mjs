// What a run measured: rows with their goals, printed as they come, and kept for docs/benchmarks/results.json.

import { cpus, totalmem } from 'node:os';
import { median } from './work.mjs';

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} unit
 * @property {boolean} [less] Whether less is better.
 * @property {string} [limit] What the limit is.
 * @property {object} [goal] What the store must reach, for all databases or by dialect: `before`, `baseline`, `limit` as a ratio to that side, `most` and
 *   `least` as a value.
 *
 * @typedef {object} Measured Each round's value: of this version, of another version, of the Sequelize baseline, and of the limit.
 * @property {number[]} ours
 * @property {number[]} [before]
 * @property {number[]} [baseline]
 * @property {number[]} [limit]
 */

const GOALS = ['before', 'baseline', 'limit', 'most', 'least'];

/** Whether a row reaches its goals; undefined if it has none, or what they refer to was not measured. */
export function reaches({ ours, goals, less, ...sides }) {
  const met = ['before', 'baseline', 'limit'].map((side) => {
    const [goal, other] = [goals[side] ?? null, sides[side] ?? null];
    if (goal === null || other === null) return undefined;
    return less ? ours / other <= goal : ours / other >= goal;
  });
  met.push(
    (goals.most ?? null) === null ? undefined : ours <= goals.most,
    (goals.least ?? null) === null ? undefined : ours >= goals.least,
  );
  const known = met.filter((each) => each !== undefined);
  return known.length ? known.every(Boolean) : undefined;
}

const digits = (value) => Number(value.toFixed(2)).toString();

/** The goals of a row, in words. */
export function goalOf({ goals, less }) {
  const said = [
    (goals.before ?? null) !== null && `${less ? '≤' : '≥'} ${digits(goals.before)} × before`,
    (goals.baseline ?? null) !== null && `${less ? '≤' : '≥'} ${goals.baseline} × Sequelize`,
    (goals.limit ?? null) !== null && `${less ? '≤' : '≥'} ${digits(goals.limit)} of the limit`,
    (goals.most ?? null) !== null && `≤ ${goals.most}`,
    (goals.least ?? null) !== null && `≥ ${goals.least}`,
  ];
  return said.filter(Boolean).join(', ') || '–';
}

export class Results {
  machine = {
    node: process.version,
    cpus: cpus().length,
    model: cpus()[0]?.model,
    memoryGB: Math.round(totalmem() / 2 ** 30),
    platform: process.platform,
  };
  rows = [];
  growth = [];
  profile = [];

  constructor(scale) {
    this.scale = scale;
  }

  /** @param {string} section @param {object} database @param {Row} row @param {Measured} rates */
  add(section, { name: database, dialect, version }, { name, unit, limit, less = false, goal = {} }, rates) {
    const middle = (side) => (rates[side]?.length ? median(rates[side]) : null);
    const own = (wanted) => (typeof wanted === 'object' ? wanted[dialect.name] : wanted) ?? null;
    const row = {
      section,
      database,
      version,
      work: name,
      unit,
      less,
      ours: middle('ours'),
      before: middle('before'),
      baseline: middle('baseline'),
      limit: middle('limit'),
      limitName: limit ?? null,
      goals: Object.fromEntries(GOALS.map((key) => [key, own(goal[key])])),
      rates,
    };
    this.rows.push(row);
    this.#print(row);
  }

  heading(database, columns = ['ours', 'before', 'ratio', 'Sequelize', 'ratio', 'limit', 'ratio', '', 'goal']) {
    console.log(`\n${database.name} (${database.version})`);
    line('', ...columns);
  }

  #print(row) {
    const shown = (value) => (value === null ? '–' : value < 100 ? digits(value) : Math.round(value).toLocaleString('en'));
    const ratio = (other) => (other ? (row.ours / other).toFixed(2) : '–');
    const sides = ['before', 'baseline', 'limit'].flatMap((side) => [shown(row[side]), ratio(row[side])]);
    const met = { true: 'yes', false: 'NO', undefined: '' }[reaches(row)];
    line(`${row.work}, ${row.unit}`, shown(row.ours), ...sides, met, `  ${goalOf(row)}`);
  }
}

export function line(first, ...rest) {
  console.log(first.padEnd(88) + rest.map((cell) => cell.padStart(10)).join(' '));
}
