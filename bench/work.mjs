// The benchmarks' input: records, batches, jobs, callers.

import { readdirSync, readFileSync } from 'node:fs';
import { makeBatch, makeLocalJob } from '../__test__/support/fixtures.mjs';

export const range = (count) => Array.from({ length: count }, (_, index) => index);
export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

let sequence = 0;
export const newId = () => `bench-${process.pid}-${++sequence}`;

/** A row as a parser gives it: every value is text. */
export function rowOf(index) {
  return {
    name: `Customer ${index}`,
    email: `customer.${index}@example.com`,
    city: 'Springfield',
    amount: '1234.50',
    note: 'delivered on time',
  };
}

/** About 340 bytes, like a row of an import. */
export function recordOf(index, status = 'processed') {
  const row = rowOf(index);
  return { index, raw: row, parsed: { ...row, amount: 1234.5 }, status, errors: [] };
}

/** Batches of 100 records. */
export const batchOf = (id, index) => makeBatch(id, index, { size: 100 });
export const jobOf = (id, batches, more) => makeLocalJob(batches, { id, size: 100, ...more });

/** Calls `work` `count` times, from a number of concurrent callers that each await one call after the other. */
export async function callers(many, count, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(range(many).map(caller));
}

/** This process's memory as the system counts it: `VmRSS` now, `VmHWM` at its peak. `process.resourceUsage` counts the parent's from before the fork. */
export function megabytes(key) {
  return Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1_024;
}

export const peakMegabytes = () => megabytes('VmHWM');

/** The name of a process or thread, and the CPU seconds that it used so far, by its `stat` file. The clock ticks a hundred times a second. */
export function clockOf(file) {
  const stat = readFileSync(file, 'utf8');
  const [begin, end] = [stat.indexOf('('), stat.lastIndexOf(')')];
  const fields = stat.slice(end + 2).split(' ');
  return { name: stat.slice(begin + 1, end), seconds: (Number(fields[11]) + Number(fields[12])) / 100 };
}

/** The CPU seconds that this process's threads have used so far, by their names; the first is `main`. */
export function threadSeconds() {
  const all = {};
  for (const thread of readdirSync('/proc/self/task')) {
    const { name, seconds } = clockOf(`/proc/self/task/${thread}/stat`);
    const key = Number(thread) === process.pid ? 'main' : name;
    all[key] = (all[key] ?? 0) + seconds;
  }
  return all;
}

/** Creates a number of records of a job in the database itself: one row, then copies of all existing rows until there are enough. */
export async function fill(database, id, count, status = 'processed') {
  const columns = '"status", "raw", "parsed", "errors"';
  const { raw, parsed, errors } = recordOf(0);
  const values = [id, status, ...[raw, parsed, errors].map((each) => JSON.stringify(each))];
  await database.query(
    `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", ${columns}) values (?, 'b', 0, ?, ?, ?, ?)`,
    values,
  );
  for (let have = 1; have < count; have *= 2) {
    await database.query(
      `insert into "batchactions_records" ("jobId", "batchId", "recordIndex", ${columns})
      select "jobId", "batchId", "recordIndex" + ${have}, ${columns} from "batchactions_records" where "jobId" = ? and "recordIndex" < ?`,
      [id, count - have],
    );
  }
}
