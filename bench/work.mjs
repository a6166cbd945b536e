// The benchmarks' input: records, batches, jobs, callers.

import { makeBatch, makeLocalJob } from '../__test__/support/fixtures.mjs';

export const range = (count) => Array.from({ length: count }, (_, index) => index);
export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

let sequence = 0;
export const newId = () => `bench-${process.pid}-${++sequence}`;

/** About 340 bytes, like a row of an import. */
export function recordOf(index, status = 'processed') {
  const row = {
    name: `Customer ${index}`,
    email: `customer.${index}@example.com`,
    city: 'Springfield',
    amount: '1234.50',
    note: 'delivered on time',
  };
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
