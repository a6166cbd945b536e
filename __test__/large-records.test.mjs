// Large records: bulk saves in bounded memory, and the record that is larger than the server takes.
//
// LARGE_RECORDS is how many records of 100 kB the memory test saves: 3,000 (300 MB), unless it says otherwise.

import { describe, expect } from 'vitest';
import { makeRecord, newId } from './support/fixtures.mjs';
import { onEveryDatabase, rejection } from './support/suite.mjs';
import { runNode } from './support/run-node.mjs';

const RECORDS = Number(process.env.LARGE_RECORDS ?? 3_000);
const MB = 1 << 20;
/** Characters in a large record of the test that reads. */
const LARGE = 560_000;

/** Saves the records, 100 a call; prints the memory of the process after the first five calls, and the most that it had until the end. */
const saveAll = (url, id) => `
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
const memory = (key) => Number(new RegExp(key + ':\\\\s+(\\\\d+) kB').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
// Nothing that a server could compress. Each record has a piece of its own.
const text = randomBytes(300_000).toString('base64');
const record = (index) => {
  const from = (index * 37) % 300_000;
  return { index, raw: { text: text.slice(from, from + 50_000) }, parsed: { text: text.slice(from, from + 50_000) }, status: 'pending', errors: [] };
};
const store = new SqlxStateStore(${JSON.stringify(url)});
await store.initialize();
let warm;
for (let call = 0; call < ${RECORDS / 100}; call++) {
  await store.saveBatchRecords(${JSON.stringify(id)}, 'batch ' + call, Array.from({ length: 100 }, (_, n) => record(call * 100 + n)));
  if (call === 4) warm = memory('VmRSS');
}
console.log(JSON.stringify({ warm, most: memory('VmHWM') }));
await store.close();
`;

/** Reads the job with `records()`; prints the memory of the process after the small records, the most that it had until the end, and the indexes in short. */
const readAll = (url, id, small) => `
import { readFileSync } from 'node:fs';
const memory = (key) => Number(new RegExp(key + ':\\\\s+(\\\\d+) kB').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
const store = new SqlxStateStore(${JSON.stringify(url)});
let warm;
let next = 0;
for await (const { index, raw } of store.records(${JSON.stringify(id)})) {
  if (index !== next++) throw new Error('record ' + index + ' comes out of order');
  if (raw.text.length !== (index < ${small} ? 10 : ${LARGE})) throw new Error('record ' + index + ' is not what was saved');
  if (index === ${small} - 1) warm = memory('VmRSS');
}
console.log(JSON.stringify({ warm, most: memory('VmHWM'), read: next }));
await store.close();
`;

onEveryDatabase((on) => {
  describe('large records', () => {
    on.needs('shared')('behind small ones are read by records() in bounded memory', { timeout: 600_000 }, async () => {
      const [id, small, large] = [newId(), 1_000, 400];
      const textOf = (index) => (index < small ? 'x'.repeat(10) : 'y'.repeat(LARGE));
      const record = (index) => makeRecord(index, { status: 'pending', raw: { text: textOf(index) } });
      const save = (from, to) =>
        on.store.saveBatchRecords(
          id,
          'b',
          Array.from({ length: to - from }, (_, n) => record(from + n)),
        );
      await save(0, small);
      for (let from = small; from < small + large; from += 20) await save(from, from + 20);
      const { code, stdout, stderr } = await runNode(readAll(on.url, id, small), { timeout: 600_000 });
      expect(code, stderr).toBe(0);
      const { warm, most, read } = JSON.parse(stdout);
      expect(read).toBe(small + large);
      // All of them have 220 MB; a page has 2, of which V8 and the store hold a few copies until they are collected.
      expect((most - warm) / MB, `${Math.round(warm / MB)} MB after the small ones, ${Math.round(most / MB)} MB at most`).toBeLessThan(80);
      await on.store.deleteJob(id);
    });

    on.needs('shared')(`${RECORDS} of 100 kB, 100 a call, are saved in bounded memory`, { timeout: 600_000 }, async () => {
      const id = newId();
      const { code, stdout, stderr } = await runNode(saveAll(on.url, id), { timeout: 600_000 });
      expect(code, stderr).toBe(0);
      const { warm, most } = JSON.parse(stdout);
      const [{ count }] = await on.query('select count(*) as "count" from "batchactions_records" where "jobId" = ?', [id]);
      expect(Number(count)).toBe(RECORDS);
      // A call is 10 MB of text, of which V8 and the store hold a few copies until they are collected.
      expect((most - warm) / MB, `${Math.round(warm / MB)} MB after five calls, ${Math.round(most / MB)} MB at most`).toBeLessThan(150);
      await on.store.deleteJob(id);
    });

    on.needs('packetLimit')(
      'one that is larger than the server takes is refused, alone or among others, and nothing is written',
      async () => {
        const id = newId();
        const [{ most }] = await on.query('select @@max_allowed_packet as "most"');
        const large = makeRecord(1, { raw: { text: 'x'.repeat(Number(most)) } });
        const single = await rejection(on.store.saveProcessedRecord(id, 'b', large), 'VALUE_TOO_LONG');
        const bulk = await rejection(on.store.saveBatchRecords(id, 'b', [makeRecord(0), large, makeRecord(2)]), 'VALUE_TOO_LONG');
        for (const { message, retryable } of [single, bulk]) {
          expect(message).toContain('max_allowed_packet');
          expect(message).toContain(String(most));
          expect(retryable).toBe(false);
        }
        expect(await on.store.getBatchRecords(id, 'b')).toEqual([]);
        // What fits is taken as before.
        await on.store.saveBatchRecords(id, 'b', [makeRecord(0), makeRecord(2)]);
        expect(await on.store.getBatchRecords(id, 'b')).toHaveLength(2);
      },
    );
  });
});
