// Guarantees of the records: how they are saved, how they are read, and the `records` iterator. What their columns hold: fidelity.test.mjs.

import { describe, expect, test } from 'vitest';
import { makeRecord, nested, newId, RECORD_STATUSES } from '../support/fixtures.mjs';
import { collect, onEveryDatabase, rejection } from '../support/suite.mjs';

const range = (from, to) => Array.from({ length: to - from }, (_, offset) => from + offset);

onEveryDatabase((on) => {
  describe('records of a megabyte', () => {
    test('are read by every method, in the order of their indexes', async () => {
      const [id, batch] = [newId(), newId('batch')];
      const large = (index, status) =>
        makeRecord(index, { status, raw: { text: 'r'.repeat(400_000) }, parsed: { text: 'p'.repeat(600_000) } });
      const records = [4, 1, 3, 0, 5, 2].map((index) => large(index, index % 2 ? 'failed' : 'pending'));
      for (const record of records) await on.store.saveProcessedRecord(id, batch, record);
      const sorted = records.toSorted((a, b) => a.index - b.index);
      const of = (status) => sorted.filter((record) => record.status === status);
      expect(await on.store.getBatchRecords(id, batch)).toStrictEqual(sorted);
      expect(await on.store.getFailedRecords(id)).toStrictEqual(of('failed'));
      expect(await on.store.getPendingRecords(id)).toStrictEqual(of('pending'));
      expect(await collect(on.store.records(id))).toStrictEqual(sorted);
      expect(await collect(on.store.records(id, { batchId: batch }))).toStrictEqual(sorted);
      expect(await collect(on.store.records(id, { status: 'failed', from: 2 }))).toStrictEqual(of('failed').slice(1));
    });
  });

  describe('a large result', () => {
    const rows = 60_000;
    const big = (index) =>
      makeRecord(index, {
        status: 'pending',
        raw: { text: `row ${index} ${'x'.repeat(300)}` },
        parsed: { index, tags: ['a', 'b', { c: index }] },
      });
    const prepared = async () => {
      const id = newId();
      for (let from = 0; from < rows; from += 2_000) await on.store.saveBatchRecords(id, 'b', range(from, from + 2_000).map(big));
      return id;
    };

    test('comes whole and in order, and does not hold the event loop for as long as to parse it at once', async () => {
      const id = await prepared();
      // The longest that a timer had to wait while `work` was done.
      const longestStall = async (work) => {
        let [last, longest] = [performance.now(), 0];
        const timer = setInterval(() => {
          const now = performance.now();
          longest = Math.max(longest, now - last);
          last = now;
        }, 1);
        const result = await work();
        await new Promise((resolve) => setTimeout(resolve, 5));
        clearInterval(timer);
        return [longest, result];
      };
      // A ratio of two things measured in one run; the best of some rounds, for others may hold the processor.
      const stalls = [];
      while (stalls.length < 10 && !stalls.some((stall) => stall < 0.7)) {
        const [sliced, records] = await longestStall(() => on.store.getPendingRecords(id));
        expect(records).toHaveLength(rows);
        for (const place of [0, 4_999, 5_000, 31_234, rows - 1]) expect(records[place]).toStrictEqual(big(place));
        const text = JSON.stringify(records);
        const [atOnce] = await longestStall(async () => JSON.parse(text));
        stalls.push(sliced / atOnce);
      }
      expect(Math.min(...stalls)).toBeLessThan(0.7);
    });
  });

  describe('bulk saves of large records', () => {
    test('go through, 30 records of a megabyte in one call', async () => {
      const id = newId();
      const records = range(0, 30).map((index) => makeRecord(index, { raw: { text: String(index % 10).repeat(1_000_000) } }));
      await on.store.saveBatchRecords(id, 'b', records);
      expect(await on.store.getBatchRecords(id, 'b')).toStrictEqual(records);
    });
  });

  describe('a saved record', () => {
    test('comes back as it was saved, also before its job exists', async () => {
      const id = newId();
      const record = makeRecord(7, {
        raw: { name: ' Ann ', age: '31' },
        parsed: { name: 'Ann', age: 31, tags: ['a', null, { b: 1.5 }] },
        status: 'failed',
        errors: [
          {
            field: 'age',
            message: 'too old',
            code: 'MAX',
            value: 31,
            severity: 'error',
            category: 'RANGE',
            suggestion: '30',
            metadata: { max: 30 },
          },
          { field: 'name', message: 'x', code: 'y' },
        ],
        processingError: 'it failed: “why?”',
      });
      expect(await on.store.saveProcessedRecord(id, 'b', record)).toBeUndefined();
      expect(await on.store.getBatchRecords(id, 'b')).toStrictEqual([record]);
      expect(await on.store.getFailedRecords(id)).toStrictEqual([record]);
    });

    test('has no key for what it was saved without', async () => {
      const record = await on.stored({ processingError: undefined });
      expect(Object.keys(record).sort()).toEqual(['errors', 'index', 'parsed', 'raw', 'status']);
    });

    test('does not bring its retryCount back: it has no column', async () => {
      expect(await on.stored({ retryCount: 3 })).not.toHaveProperty('retryCount');
    });

    test('without errors has none', async () => {
      expect((await on.stored({ errors: undefined })).errors).toEqual([]);
    });

    test.each(RECORD_STATUSES)('keeps the status %s', async (status) => {
      expect((await on.stored({ status })).status).toBe(status);
    });

    test('takes the place of the one with the same index, as a whole, also from another batch', async () => {
      const id = newId();
      await on.store.saveProcessedRecord(
        id,
        'one',
        makeRecord(3, { status: 'failed', errors: [{ field: 'f', message: 'm', code: 'c' }], processingError: 'x' }),
      );
      const second = makeRecord(3, { raw: { second: true }, status: 'processed' });
      await on.store.saveProcessedRecord(id, 'two', second);
      expect(await on.store.getBatchRecords(id, 'one')).toEqual([]);
      expect(await on.store.getBatchRecords(id, 'two')).toStrictEqual([second]);
      expect(await collect(on.store.records(id))).toStrictEqual([second]);
    });

    test('is another one in another job', async () => {
      const [one, two] = [newId(), newId()];
      await on.store.saveProcessedRecord(one, 'b', makeRecord(0, { raw: 1 }));
      await on.store.saveProcessedRecord(two, 'b', makeRecord(0, { raw: 2 }));
      expect(await on.store.getBatchRecords(one, 'b')).toMatchObject([{ raw: 1 }]);
      expect(await on.store.getBatchRecords(two, 'b')).toMatchObject([{ raw: 2 }]);
    });

    test('may have any 32-bit index', async () => {
      const id = newId();
      const indexes = [-2147483648, -1, 0, 2147483647];
      for (const index of indexes) await on.store.saveProcessedRecord(id, 'b', makeRecord(index));
      expect((await on.store.getBatchRecords(id, 'b')).map(({ index }) => index)).toEqual(indexes);
    });

    on.needs('raw')('is one row, whose JSON columns hold JSON', async () => {
      const id = newId();
      const record = makeRecord(5, { raw: { a: 1 }, parsed: [2], status: 'invalid', errors: [{ field: 'f', message: 'm', code: 'c' }] });
      await on.store.saveProcessedRecord(id, 'b', makeRecord(5));
      await on.store.saveProcessedRecord(id, 'b', record);
      const [row, ...more] = await on.query('select * from "batchactions_records" where "jobId" = ?', [id]);
      expect(more).toEqual([]);
      expect(row).toMatchObject({ jobId: id, batchId: 'b', recordIndex: 5, status: 'invalid', processingError: null });
      expect([row.raw, row.parsed, row.errors].map((text) => JSON.parse(text))).toEqual([record.raw, record.parsed, record.errors]);
    });
  });

  describe('saveBatchRecords', () => {
    test('stores them all, to be read by index', async () => {
      const id = newId();
      const records = range(0, 2_503).map((index) => makeRecord(index, { status: RECORD_STATUSES[index % 5] }));
      expect(await on.store.saveBatchRecords(id, 'b', records.toReversed())).toBeUndefined();
      expect(await on.store.getBatchRecords(id, 'b')).toStrictEqual(records);
    });

    test('of none resolves, and stores none', async () => {
      const id = newId();
      expect(await on.store.saveBatchRecords(id, 'b', [])).toBeUndefined();
      expect(await on.store.getBatchRecords(id, 'b')).toEqual([]);
    });

    test('takes the place of records with the same indexes, so that it can be made again', async () => {
      const id = newId();
      const first = range(0, 300).map((index) => makeRecord(index, { status: 'failed', processingError: 'x' }));
      const second = range(0, 300).map((index) => makeRecord(index, { raw: { again: index } }));
      await on.store.saveBatchRecords(id, 'one', first);
      await on.store.saveBatchRecords(id, 'one', first);
      expect(await on.store.getFailedRecords(id)).toStrictEqual(first);
      await on.store.saveBatchRecords(id, 'two', second.slice(100));
      expect(await on.store.getBatchRecords(id, 'one')).toStrictEqual(first.slice(0, 100));
      expect(await on.store.getBatchRecords(id, 'two')).toStrictEqual(second.slice(100));
    });

    test('puts new records beside those that are there, and takes the place of the others, in any part of a large call', async () => {
      const id = newId();
      const old = [7, 2_499].map((index) => makeRecord(index, { status: 'failed' }));
      const all = range(0, 2_500).map((index) => makeRecord(index, { raw: { again: index } }));
      await on.store.saveBatchRecords(id, 'one', old);
      await on.store.saveBatchRecords(id, 'two', all);
      expect(await on.store.getBatchRecords(id, 'two')).toStrictEqual(all);
      expect(await on.store.getBatchRecords(id, 'one')).toEqual([]);
      // A job in which a record was there is not a job that takes no new ones.
      const more = range(2_500, 2_700).map((index) => makeRecord(index));
      await on.store.saveBatchRecords(id, 'three', more);
      expect(await on.store.getBatchRecords(id, 'three')).toStrictEqual(more);
    });

    on.needs('copy')('copies many records that are new, as long as no record of the job was there already', async () => {
      await on.query('create table statements (at serial, said text)');
      await on.query(`create function note_statement() returns trigger language plpgsql as
          $$ begin insert into statements (said) values ((regexp_match(current_query(), '^\\s*(\\w+)'))[1]); return null; end $$`);
      await on.query('create trigger note before insert on "batchactions_records" for each statement execute function note_statement()');
      try {
        const said = async (store, id, from, to) => {
          await on.query('delete from statements');
          const records = range(from, to).map((index) => makeRecord(index));
          await store.saveBatchRecords(id, `b${from}`, records);
          expect(await store.getBatchRecords(id, `b${from}`)).toStrictEqual(records);
          return (await on.query('select said from statements order by at')).map((row) => row.said);
        };
        // One connection, so that each call gets the one that a refused copy was made on.
        for (const options of [{ pool: { max: 1 } }, { pool: { max: 1 }, statementCache: 0 }]) {
          const store = await on.open(options);
          const id = newId();
          expect(await said(store, id, 0, 49)).toEqual(['with']);
          expect(await said(store, id, 100, 150)).toEqual(['copy']);
          expect(await said(store, id, 1_000, 3_500)).toEqual(['copy', 'copy', 'copy']);
          // What the refused copy noted was rolled back with it.
          expect(await said(store, id, 3_400, 3_500)).toEqual(['with']);
          expect(await said(store, id, 4_000, 4_100)).toEqual(['with']);
          expect(await said(store, newId(), 0, 100)).toEqual(['copy']);
        }
      } finally {
        await on.query('drop trigger note on "batchactions_records"');
        await on.query('drop function note_statement');
        await on.query('drop table statements');
      }
    });

    test('stores every character as it is, however many records there are', async () => {
      const [id, batch] = [newId(), 'b\\\t\n\r\'"%_{}'];
      const texts = [
        '\\N',
        '\\.',
        '\\',
        '\\\\t',
        '\t',
        '\n',
        '\r\n',
        '\v\f\b',
        '',
        'null',
        '{"a"}',
        "'; --",
        '$1 ?',
        '\u007f',
        '😀 é\u2028',
      ];
      const records = range(0, 300).map((index) => {
        const text = texts[index % texts.length];
        return makeRecord(index, { status: 'failed', raw: { [text]: text }, parsed: [text], processingError: text });
      });
      await on.store.saveBatchRecords(id, batch, records);
      expect(await on.store.getBatchRecords(id, batch)).toStrictEqual(records);
    });

    test('counts the later one where an index comes twice', async () => {
      const id = newId();
      const records = [
        ...range(0, 200).map((index) => makeRecord(index)),
        ...range(50, 150).map((index) => makeRecord(index, { status: 'failed' })),
      ];
      await on.store.saveBatchRecords(id, 'b', records);
      expect((await on.store.getFailedRecords(id)).map(({ index }) => index)).toEqual(range(50, 150));
      expect(await on.store.getProcessedRecords(id)).toHaveLength(100);
    });

    test.each([
      ['an index', { index: 2 ** 31 }],
      ['a status', { status: 'unheard of' }],
      ['a value', { raw: { n: 1n } }],
    ])('stores all or nothing: %s that is wrong in the last record undoes the rest', async (_, wrong) => {
      const id = newId();
      const records = range(0, 1_500).map((index) => makeRecord(index));
      await rejection(on.store.saveBatchRecords(id, 'b', [...records, { ...makeRecord(1_500), ...wrong }]), 'INVALID_ARGUMENT');
      expect(await on.store.getBatchRecords(id, 'b')).toEqual([]);
    });

    on.needs('raw')('stores all or nothing where it is the database that refuses a record in the middle', async () => {
      const id = newId();
      const accept = await on.dialect.refuseRows(on, 'records', `"jobId" = '${id}' and "recordIndex" = 2400`);
      try {
        const records = range(0, 2_500).map((index) => makeRecord(index));
        await expect(on.store.saveBatchRecords(id, 'b', records)).rejects.toThrow();
        expect(await on.store.getBatchRecords(id, 'b')).toEqual([]);
        await on.store.saveBatchRecords(id, 'b', records.slice(0, 2_400));
        expect(await on.store.getBatchRecords(id, 'b')).toHaveLength(2_400);
      } finally {
        await accept();
      }
    });
  });

  describe('reads', () => {
    test('give each record to the readers of its status, by index', async () => {
      const id = newId();
      const records = range(0, 50).map((index) => makeRecord(index, { status: RECORD_STATUSES[(index * 3) % 5] }));
      await on.store.saveBatchRecords(id, 'odd', records.filter(({ index }) => index % 2).toReversed());
      await on.store.saveBatchRecords(id, 'even', records.filter(({ index }) => index % 2 === 0).toReversed());
      const having = (...wanted) => records.filter(({ status }) => wanted.includes(status));
      expect(await on.store.getFailedRecords(id)).toStrictEqual(having('failed', 'invalid'));
      expect(await on.store.getPendingRecords(id)).toStrictEqual(having('pending', 'valid'));
      expect(await on.store.getProcessedRecords(id)).toStrictEqual(having('processed'));
      expect(await on.store.getBatchRecords(id, 'odd')).toStrictEqual(records.filter(({ index }) => index % 2));
    });

    test('give an empty list for an unknown job or batch', async () => {
      const id = newId();
      await on.store.saveProcessedRecord(id, 'b', makeRecord(0));
      for (const read of ['getFailedRecords', 'getPendingRecords', 'getProcessedRecords'])
        expect(await on.store[read](newId())).toEqual([]);
      expect(await on.store.getBatchRecords(newId(), 'b')).toEqual([]);
      expect(await on.store.getBatchRecords(id, 'other')).toEqual([]);
    });
  });

  describe('saves of one record that are not awaited', () => {
    test('take effect in the order of the calls: the last one counts', async () => {
      const id = newId();
      await Promise.all(range(0, 200).map((n) => on.store.saveProcessedRecord(id, 'b', makeRecord(0, { raw: { n } }))));
      expect(await on.store.getBatchRecords(id, 'b')).toMatchObject([{ raw: { n: 199 } }]);
    });

    test('take effect in the order of the calls where saves of other records are between them', async () => {
      const id = newId();
      const calls = range(0, 1_000).map((n) => on.store.saveProcessedRecord(id, 'b', makeRecord(n % 7, { raw: { n } })));
      await Promise.all(calls);
      expect((await on.store.getBatchRecords(id, 'b')).map(({ raw }) => raw.n)).toEqual([994, 995, 996, 997, 998, 999, 993]);
    });

    test('take effect in the order of the calls, whichever method saves them', async () => {
      for (let round = 0; round < 10; round++) {
        const id = newId();
        const bulk = (n) =>
          on.store.saveBatchRecords(
            id,
            'b',
            range(0, 20).map((index) => makeRecord(index, { raw: { n } })),
          );
        const single = (n) =>
          Promise.all(range(0, 20).map((index) => on.store.saveProcessedRecord(id, 'b', makeRecord(index, { raw: { n } }))));
        await Promise.all([single(0), bulk(1), single(2), bulk(3)]);
        expect(new Set((await on.store.getBatchRecords(id, 'b')).map(({ raw }) => raw.n))).toEqual(new Set([3]));
        await Promise.all([bulk(4), single(5), bulk(6), single(7)]);
        expect(new Set((await on.store.getBatchRecords(id, 'b')).map(({ raw }) => raw.n))).toEqual(new Set([7]));
      }
    });

    test('are what the arguments said when the call was made, not what they say later', async () => {
      const id = newId();
      const record = makeRecord(0, { raw: { n: 'then' } });
      const saves = [on.store.saveProcessedRecord(id, 'b', record), on.store.saveBatchRecords(id, 'b', [record])];
      record.raw.n = 'later';
      await Promise.all(saves);
      expect(await on.store.getBatchRecords(id, 'b')).toMatchObject([{ raw: { n: 'then' } }]);
    });

    test('fail alone: what can’t be stored does not harm what is saved beside it', async () => {
      const id = newId();
      const wrong = new Map([
        [10, [{ raw: { n: 1n } }, 'b', 'INVALID_ARGUMENT']],
        [20, [{}, 'b'.repeat(37), 'VALUE_TOO_LONG']],
        [30, [{ status: 'nonsense' }, 'b', 'INVALID_ARGUMENT']],
        ...(on.has('nestingLimit') ? [[40, [{ raw: nested(200) }, 'b', 'INVALID_ARGUMENT']]] : []),
      ]);
      await Promise.all(
        range(0, 100).map(async (index) => {
          const [fields, batchId, code] = wrong.get(index) ?? [{}, 'b'];
          const save = on.store.saveProcessedRecord(id, batchId, makeRecord(index, fields));
          await (code ? rejection(save, code) : save);
        }),
      );
      const kept = range(0, 100).filter((index) => !wrong.has(index));
      expect((await collect(on.store.records(id))).map(({ index }) => index)).toEqual(kept);
    });

    test('are committed when they resolve, in whatever number they are made', async () => {
      const id = newId();
      await Promise.all(
        range(0, 300).map(async (index) => {
          await on.store.saveProcessedRecord(id, `b${index}`, makeRecord(index));
          expect(await on.store.getBatchRecords(id, `b${index}`)).toHaveLength(1);
        }),
      );
    });
  });

  describe('records()', () => {
    const saved = async (count, fields = () => ({})) => {
      const id = newId();
      const records = range(0, count).map((index) => makeRecord(index, { status: RECORD_STATUSES[index % 5], ...fields(index) }));
      await on.store.saveBatchRecords(
        id,
        'even',
        records.filter(({ index }) => index % 2 === 0),
      );
      await on.store.saveBatchRecords(
        id,
        'odd',
        records.filter(({ index }) => index % 2),
      );
      return { id, records };
    };

    test('gives all records of a job by index, however many', async () => {
      const { id, records } = await saved(3_217);
      expect(await collect(on.store.records(id))).toStrictEqual(records);
    });

    test('gives nothing for an unknown job', async () => {
      expect(await collect(on.store.records(newId()))).toEqual([]);
    });

    test('selects by one status, by several, by batch, from an index, and by all of them', async () => {
      const { id, records } = await saved(2_300);
      const cases = [
        [{ status: 'failed' }, ({ status }) => status === 'failed'],
        [{ status: ['failed', 'valid'] }, ({ status }) => ['failed', 'valid'].includes(status)],
        [{ status: ['valid', 'valid'] }, ({ status }) => status === 'valid'],
        [{ batchId: 'odd' }, ({ index }) => index % 2 === 1],
        [{ batchId: 'unknown' }, () => false],
        [{ from: 2_298 }, ({ index }) => index >= 2_298],
        [{ from: 2_300 }, () => false],
        [{ from: -5 }, () => true],
        [
          { from: 1_000, batchId: 'odd', status: ['processed', 'pending'] },
          (r) => r.index >= 1_000 && r.index % 2 === 1 && [0, 3].includes(r.index % 5),
        ],
        [{}, () => true],
        [{ status: undefined, batchId: undefined, from: undefined }, () => true],
      ];
      for (const [options, matches] of cases) expect(await collect(on.store.records(id, options))).toStrictEqual(records.filter(matches));
    });

    test('is an async iterable iterator, and stays at its end', async () => {
      const { id } = await saved(1);
      const iterator = on.store.records(id);
      expect(iterator[Symbol.asyncIterator]()).toBe(iterator);
      expect(await iterator.next()).toMatchObject({ done: false, value: { index: 0 } });
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
    });

    test('may be left early, and then is at its end', async () => {
      const { id } = await saved(2_100);
      const iterator = on.store.records(id);
      for await (const { index } of iterator) if (index === 3) break;
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
      expect(await collect(on.store.records(id))).toHaveLength(2_100);
    });

    test('holds no connection: with a pool of one the loop’s body may save', async () => {
      const store = await on.open({ pool: { max: 1 } });
      const id = newId();
      await store.saveBatchRecords(
        id,
        'b',
        range(0, 1_234).map((index) => makeRecord(index, { status: 'valid' })),
      );
      let seen = 0;
      for await (const record of store.records(id, { status: 'valid' })) {
        expect(record.index).toBe(seen++);
        await store.saveProcessedRecord(id, 'b', { ...record, status: 'processed' });
      }
      expect(seen).toBe(1_234);
      expect(await store.getProcessedRecords(id)).toHaveLength(1_234);
    });

    test('gives each record once to each of many loops at a time', async () => {
      const { id, records } = await saved(1_500);
      const all = await Promise.all(range(0, 10).map(() => collect(on.store.records(id))));
      for (const one of all) expect(one).toStrictEqual(records);
    });

    test('gives each call of next() that is not awaited its own record', async () => {
      const { id, records } = await saved(5);
      const iterator = on.store.records(id);
      const results = await Promise.all(range(0, 7).map(() => iterator.next()));
      expect(results.filter(({ done }) => !done).map(({ value }) => value)).toStrictEqual(records);
    });
  });
});
