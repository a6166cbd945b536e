// What comes back is what JSON.parse reads of what JSON.stringify writes, key order included, from every JSON column, by every way to save it and
// every way to read it. Random values look for what the examples below them do not think of.
//
//   npx vitest run fidelity                        200 sets of values on each database, from a seed that is new each time
//   FIDELITY_RUNS=5000 npx vitest run fidelity     a longer run
//   FIDELITY_SEED=17 FIDELITY_PATH=3:1 npx vitest run fidelity -t sqlite-file
//                                                  one failure again, as its report says

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { reasonOf } from '../support/dialects/capabilities.mjs';
import { makeJob, makeRecord, nested, newId } from '../support/fixtures.mjs';
import { collect, onEveryDatabase, rejection, SqlxStateStore } from '../support/suite.mjs';

const runs = Number(process.env.FIDELITY_RUNS ?? 200);
const { FIDELITY_PATH: path } = process.env;
const seed = Number(process.env.FIDELITY_SEED ?? Math.floor(Math.random() * 2 ** 31));

// ---------------------------------------------------------------------------------------------------------------------------------
// Values

/** Any UTF-16 code unit: halves of surrogate pairs and U+0000 among them. */
const codeUnit = fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit));
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.string({ unit: codeUnit, maxLength: 20 }),
  fc.constantFrom(
    '',
    '\u0000',
    '\\',
    '\\u0000',
    '\\ud800',
    '\ud800',
    '\udfff\ud800',
    '"',
    "'",
    '\u2028',
    '\ufeff',
    '\ufffd',
    '1e5',
    'null',
    '__proto__',
  ),
);
const key = fc.oneof(
  { weight: 4, arbitrary: text },
  // Keys that are array indexes come first in JavaScript, whatever order they were set in.
  fc.constantFrom('', '__proto__', 'constructor', 'toJSON', '0', '1', '10', '9', '-1', '01', '4294967294', '4294967295', '1.5', 'length'),
  fc.string({ unit: 'binary', minLength: 200, maxLength: 300 }),
);
const number = fc.oneof(
  fc.double(),
  fc.maxSafeInteger(),
  // The edges of what databases take for an integer, and of what a double holds.
  fc
    .tuple(fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64, 1e15, 1e16, 1e21, 1e22), fc.integer({ min: -2, max: 2 }))
    .map(([a, b]) => a + b),
  fc.constantFrom(
    -0,
    0.1 + 0.2,
    5e-324,
    2.2250738585072014e-308,
    Number.MAX_VALUE,
    -Number.MAX_VALUE,
    -(2 ** 63),
    NaN,
    Infinity,
    -Infinity,
  ),
);
const dropped = fc.constantFrom(undefined, () => 1, Symbol('s'));
const leaf = fc.oneof(
  { weight: 3, arbitrary: number },
  { weight: 3, arbitrary: text },
  fc.boolean(),
  fc.constant(null),
  dropped,
  fc.date({ noInvalidDate: false }),
  fc.constantFrom(
    new Map([[1, 2]]),
    new Set([1]),
    /x/g,
    new Uint8Array([1, 2]),
    Object('boxed'),
    Object(-1.5),
    Object(false),
    new Error('e'),
  ),
);

/** An object of these entries, all its own: `__proto__` too. The first of two equal keys counts for the order, the last for the value. */
function objectOf(entries, prototype = Object.prototype) {
  const object = Object.create(prototype);
  for (const [name, value] of entries) Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true });
  return object;
}

/** An array with a hole for each `undefined`. */
function sparse(items) {
  const array = [];
  array.length = items.length;
  items.forEach((item, place) => item !== undefined && (array[place] = item));
  return array;
}

const { value, object } = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 5, depthSize: 'small' }, { weight: 3, arbitrary: leaf }, tie('object'), tie('array'), tie('made')),
  object: fc
    .tuple(fc.array(fc.tuple(key, tie('value')), { maxLength: 6 }), fc.boolean())
    .map(([entries, bare]) => objectOf(entries, bare ? null : undefined)),
  array: fc.array(tie('value'), { maxLength: 6 }).map(sparse),
  made: tie('value').map((given) => ({ ignored: 1, toJSON: () => given })),
}));
/** What a column can be given: `undefined` is no JSON. */
const column = value.map((given) => (JSON.stringify(given) === undefined ? [given] : given));
const config = fc.record({ extra: object, rest: object, known: value, defaultValue: value }).map(({ extra, rest, known, defaultValue }) => {
  const field = { name: 'f', type: 't', required: true, defaultValue };
  // With a toJSON of its own it might be no object any more.
  return { ...extra, toJSON: undefined, batchSize: 10, known, schema: { ...rest, fields: [field] } };
});

// ---------------------------------------------------------------------------------------------------------------------------------
// What is due

/** `JSON.parse(JSON.stringify(given))`, with U+FFFD for halves of surrogate pairs where the database holds none. */
function due(given, wellFormed) {
  const whole = (item) => {
    if (typeof item === 'string') return item.toWellFormed();
    if (Array.isArray(item)) return item.map(whole);
    return typeof item === 'object' && item !== null ? objectOf(Object.entries(item).map(([name, it]) => [whole(name), whole(it)])) : item;
  };
  const read = JSON.parse(JSON.stringify(given));
  return wellFormed ? whole(read) : read;
}

/** A value as text, to be compared with another: with its keys in their order, or sorted where the database does not keep that. */
function textOf(given, sorted) {
  const inOrder = (item) => {
    if (Array.isArray(item)) return item.map(inOrder);
    if (typeof item !== 'object' || item === null) return item;
    return Object.keys(item)
      .sort()
      .map((name) => [name, inOrder(item[name])]);
  };
  return JSON.stringify(sorted ? inOrder(given) : given);
}

onEveryDatabase((on) => {
  describe('random values', () => {
    const sortsKeys = on.has('sortedKeys');
    const order = sortsKeys
      ? `whatever the order of the keys [exempt, ${on.database.name}: ${reasonOf('!sortedKeys')}]`
      : 'key order included';
    let run = 0;

    /** Saves them by every way, and compares what every way to read them gives. */
    const roundTrip = async ({ raw, parsed, errors, processingError, index, config: given }) => {
      const same = (back, saved, what) =>
        expect(textOf(back, sortsKeys), what).toBe(textOf(due(saved, on.has('!loneSurrogates')), sortsKeys));
      const [single, bulk] = [newId(), newId()];
      const record = makeRecord(index, { raw, parsed, errors });
      // A column of text, and no JSON: U+0000 and halves of pairs have tests of their own below.
      if (processingError !== undefined) record.processingError = processingError.toWellFormed().replaceAll('\0', ' ');
      await on.store.saveProcessedRecord(single, 'b', record);
      await on.store.saveBatchRecords(bulk, 'b', [makeRecord(index === 0 ? 1 : 0), record]);
      for (const id of [single, bulk]) {
        const readers = {
          getProcessedRecords: await on.store.getProcessedRecords(id),
          getBatchRecords: await on.store.getBatchRecords(id, 'b'),
          records: await collect(on.store.records(id, { status: 'processed' })),
        };
        for (const [reader, records] of Object.entries(readers)) {
          const [back] = records.filter((each) => each.index === index);
          for (const field of ['raw', 'parsed', 'errors']) same(back[field], record[field], `${field} by ${reader}`);
          expect(back.processingError).toBe(record.processingError);
        }
      }
      const job = makeJob(0, { config: given, startedAt: 1_700_000_000_000 + run++ });
      await on.store.saveJobState(job);
      same((await on.store.getJobState(job.id)).config, given, 'config by getJobState');
      const listed = await on.store.listJobs({ limit: 5 });
      same(listed.find(({ id }) => id === job.id).config, given, 'config by listJobs');
    };

    test(
      `come back as JSON.parse reads what JSON.stringify writes, ${order}, in ${runs} sets of them`,
      { timeout: 60_000 + runs * 1_000 },
      async () => {
        const sets = fc.record({
          raw: column,
          parsed: column,
          errors: fc.array(
            fc.record({ field: text, message: text, code: text, value, metadata: value }, { requiredKeys: ['field', 'message', 'code'] }),
            { maxLength: 3 },
          ),
          processingError: fc.option(text, { nil: undefined }),
          index: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
          config,
        });
        const result = await fc.check(fc.asyncProperty(sets, roundTrip), { seed, path, numRuns: runs });
        const again = `FIDELITY_SEED=${result.seed} FIDELITY_PATH=${result.counterexamplePath} npx vitest run fidelity -t ${on.database.name}`;
        if (result.failed) {
          expect.fail(`${fc.stringify(result.counterexample)}\nAgain with: ${again}\n${result.errorInstance?.message ?? 'interrupted'}`);
        }
        expect(result.numRuns).toBe(path ? result.numRuns : runs);
      },
    );
  });

  describe('a long key', () => {
    const long = (length) => ({ ['k'.repeat(length)]: 1, after: 2 });
    const save = [
      ['saveProcessedRecord', (id, fields) => on.store.saveProcessedRecord(id, 'b', makeRecord(0, fields))],
      ['saveBatchRecords', (id, fields) => on.store.saveBatchRecords(id, 'b', [makeRecord(1), makeRecord(0, fields)])],
      ['saveJobState', (id, { raw }) => on.store.saveJobState(makeJob(1, { id, config: { batchSize: 10, ...raw } }))],
    ];

    test('of 65,535 bytes comes back', async () => {
      expect((await on.stored({ raw: long(65_535) })).raw).toEqual(long(65_535));
    });

    on.needs('!keyLimit')('of a million bytes comes back', async () => {
      expect((await on.stored({ raw: long(1_000_000) })).raw).toEqual(long(1_000_000));
    });

    for (const [method, call] of save) {
      on.needs('keyLimit')(`of more is refused by ${method} with VALUE_TOO_LONG, and nothing is written`, async () => {
        const id = newId();
        const error = await rejection(call(id, { raw: long(65_536) }), 'VALUE_TOO_LONG');
        expect(error.message).toMatch(/key/);
        expect(await collect(on.store.records(id))).toEqual([]);
        expect(await on.store.getJobState(id)).toBeNull();
      });
    }
  });

  describe('a JSON value that is nested', () => {
    const deepest = on.dialect.deepestJson;

    /** The same number of levels in each column: `[what, record fields or config]`. */
    const places = (levels) => [
      ['raw', { raw: nested(levels) }],
      ['parsed', { parsed: nested(levels) }],
      ['errors', { errors: [{ field: 'f', message: 'm', code: 'c', value: nested(levels - 2) }] }],
    ];
    const configOf = (levels) => ({ batchSize: 10, deep: nested(levels - 1) });

    /** Refused by every way to save it, with nothing written. */
    const expectRefused = async (store, levels, names) => {
      const id = newId();
      for (const [place, fields] of places(levels)) {
        for (const save of [
          store.saveProcessedRecord(id, 'b', makeRecord(1, fields)),
          store.saveBatchRecords(id, 'b', [makeRecord(0), makeRecord(1, fields)]),
        ]) {
          const error = await rejection(save, 'INVALID_ARGUMENT');
          expect(error.message, place).toMatch(names);
          expect(error.retryable).toBe(false);
        }
      }
      const job = makeJob(1, { config: configOf(levels) });
      expect((await rejection(store.saveJobState(job), 'INVALID_ARGUMENT')).message).toMatch(names);
      expect(await collect(store.records(id))).toEqual([]);
      expect(await store.getJobState(job.id)).toBeNull();
      expect((await store.getDistributedStatus(job.id)).totalBatches).toBe(0);
    };

    const held = deepest ?? 3_000;
    test(`${held} levels deep comes back, from every column`, async () => {
      // As text, for comparing values that nest so deep would end the stack.
      for (const [place, fields] of places(held)) {
        const [single, bulk] = [newId(), newId()];
        await on.store.saveProcessedRecord(single, 'b', makeRecord(0, fields));
        await on.store.saveBatchRecords(bulk, 'b', [makeRecord(0, fields)]);
        for (const id of [single, bulk]) {
          for (const records of [
            await on.store.getProcessedRecords(id),
            await on.store.getBatchRecords(id, 'b'),
            await collect(on.store.records(id)),
          ]) {
            expect(textOf(records[0][place], on.has('sortedKeys'))).toBe(textOf(fields[place], on.has('sortedKeys')));
          }
        }
      }
      const job = makeJob(1, { config: configOf(held) });
      await on.store.saveJobState(job);
      expect(JSON.stringify((await on.store.getJobState(job.id)).config.deep)).toBe(JSON.stringify(job.config.deep));
    });

    on.needs('nestingLimit')(
      'deeper than the database holds is refused with INVALID_ARGUMENT, which says how deep that is, and nothing is written',
      () => expectRefused(on.store, deepest + 1, new RegExp(`levels.*at most ${deepest} levels`)),
    );

    test('deeper than JSON.stringify can go is refused with its RangeError as cause, and nothing is written', async () => {
      await expectRefused(on.store, 100_000, /deep/);
      const error = await rejection(
        on.store.saveProcessedRecord(newId(), 'b', makeRecord(0, { raw: nested(100_000) })),
        'INVALID_ARGUMENT',
      );
      expect(error.cause).toBeInstanceOf(RangeError);
    });

    on.needs('stackLimit')(
      'deeper than the server has stack for is refused with INVALID_ARGUMENT, which names the setting, and nothing is written',
      async () => {
        const own = await on.createEmpty();
        const store = new SqlxStateStore(own.url);
        await store.initialize();
        await store.close();
        await own.query(`alter database "${own.name}" set max_stack_depth = '100kB'`);
        const shallow = new SqlxStateStore(own.url);
        await expectRefused(shallow, 3_000, /nests too deeply.*max_stack_depth/).finally(() => shallow.close());
      },
    );
  });

  describe('a JSON value', () => {
    test.each([null, true, false, 0, -1.5, '', 'text', [[]], {}, [1, 'a', null]].map((value) => [JSON.stringify(value), value]))(
      'may be %s, as raw and as parsed',
      async (_, value) => {
        expect(await on.stored({ raw: value, parsed: value })).toMatchObject({ raw: value, parsed: value });
      },
    );

    test('is what JSON.stringify makes of it', async () => {
      class Money {
        toJSON() {
          return '12.50 €';
        }
      }
      const value = {
        date: new Date(1_700_000_000_123),
        money: new Money(),
        boxed: Object('text'),
        map: new Map([[1, 2]]),
        nan: NaN,
        infinity: Infinity,
        minusZero: -0,
        gone: undefined,
        method() {},
        [Symbol('s')]: 1,
        list: [undefined, () => 1, NaN, new Date(0)],
        inherited: Object.create({ no: 1 }, { yes: { value: 1, enumerable: true } }),
      };
      const expected = JSON.parse(JSON.stringify(value));
      const errors = [{ field: 'f', message: 'm', code: 'c', value: new Date(0), metadata: value }];
      const record = await on.stored({ raw: value, parsed: value, errors });
      expect(record.raw).toStrictEqual(expected);
      expect(record.parsed).toStrictEqual(expected);
      expect(record.errors).toStrictEqual([{ field: 'f', message: 'm', code: 'c', value: '1970-01-01T00:00:00.000Z', metadata: expected }]);
    });

    test('keeps every digit of a number', async () => {
      const numbers = [0.1 + 0.2, 1 / 3, 1e21, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 9007199254740991, -(2 ** 53)];
      numbers.push(123456789012345680000, 4.35, 100, 1e-7, 18446744073709552000, -9223372036854775808, 1.0000000000000002);
      expect((await on.stored({ raw: numbers })).raw).toStrictEqual(numbers);
    });

    test('keeps every character, U+0000 and U+2028 too', async () => {
      const text = 'plain "quoted" \\ / \b\f\n\r\t \u0000 \u0001 \u001f \u007f \u2028 é ü 漢字 😀 👩‍👩‍👧 \uFEFF \uFFFF \'; --';
      expect(await on.stored({ raw: { text, [text]: 1 }, parsed: text })).toMatchObject({ raw: { text, [text]: 1 }, parsed: text });
    });

    test('keeps keys that mean something to JavaScript', async () => {
      const raw = JSON.parse('{"__proto__": {"a": 1}, "constructor": 2, "toString": 3, "": 4}');
      const back = (await on.stored({ raw })).raw;
      expect(Object.keys(back).sort()).toEqual(Object.keys(raw).sort());
      expect(Object.getOwnPropertyDescriptor(back, '__proto__').value).toEqual({ a: 1 });
      expect(Object.getPrototypeOf(back)).toBe(Object.prototype);
    });

    on.needs('!sortedKeys')('keeps the order of its keys', async () => {
      const value = { zz: 1, b: { y: 1, x: [{ d: 1, c: 2 }] }, aaa: 2, a: 3 };
      const record = await on.stored({ raw: value, parsed: value, errors: [{ message: 'm', field: 'f', code: 'c' }] });
      expect(JSON.stringify(record.raw)).toBe(JSON.stringify(value));
      expect(JSON.stringify(record.parsed)).toBe(JSON.stringify(value));
      expect(Object.keys(record.errors[0])).toEqual(['message', 'field', 'code']);
    });

    test('may be large', async () => {
      const raw = { text: 'é'.repeat(1_000_000) };
      expect((await on.stored({ raw })).raw).toEqual(raw);
    });

    const lone = { half: 'a\ud800b', other: '\udc00', '\udbff': 1, whole: '\ud83d\ude00' };
    on.needs('loneSurrogates')('keeps lone surrogates', async () => {
      expect((await on.stored({ raw: lone })).raw).toStrictEqual(lone);
    });

    on.needs('!loneSurrogates')('has U+FFFD for lone surrogates', async () => {
      const replaced = { half: 'a\ufffdb', other: '\ufffd', '\ufffd': 1, whole: '😀' };
      const record = await on.stored({ raw: lone, errors: [{ field: '\ud800', message: 'm', code: 'c' }] });
      expect(record.raw).toStrictEqual(replaced);
      expect(record.errors[0].field).toBe('\ufffd');
    });

    const cycle = {};
    cycle.self = cycle;
    test.each([
      ['index: a BigInt', { index: 1n }],
      ['raw: a BigInt', { raw: { n: 1n } }],
      ['raw: a cycle', { raw: cycle }],
      ['parsed: a BigInt', { parsed: [1n] }],
      ['parsed: a cycle', { parsed: cycle }],
      ['errors: a BigInt', { errors: [{ field: 'f', message: 'm', code: 'c', value: 1n }] }],
      ['errors: a cycle', { errors: [{ field: 'f', message: 'm', code: 'c', metadata: cycle }] }],
    ])('that JSON.stringify refuses is refused with its TypeError as cause, and nothing is written (%s)', async (_, fields) => {
      const id = newId();
      const single = await rejection(on.store.saveProcessedRecord(id, 'b', makeRecord(0, fields)), 'INVALID_ARGUMENT');
      expect(single.cause).toBeInstanceOf(TypeError);
      expect(single.retryable).toBe(false);
      const bulk = await rejection(on.store.saveBatchRecords(id, 'b', [makeRecord(1), makeRecord(2, fields)]), 'INVALID_ARGUMENT');
      expect(bulk.cause).toBeInstanceOf(TypeError);
      expect(await collect(on.store.records(id))).toEqual([]);
    });
  });

  describe('a processingError', () => {
    test('keeps every character but those that a column of text can’t hold', async () => {
      const text = '"quoted" \\ \n\t\u0001\u2028 é 漢字 😀 \'; drop table x; --';
      expect((await on.stored({ processingError: text })).processingError).toBe(text);
      expect((await on.stored({ processingError: '' })).processingError).toBe('');
    });

    on.needs('nulInText')('keeps U+0000', async () => {
      expect((await on.stored({ processingError: 'a\u0000b\u0000' })).processingError).toBe('a\u0000b\u0000');
    });

    on.needs('!nulInText')('has U+FFFD for U+0000', async () => {
      expect((await on.stored({ processingError: 'a\u0000b\u0000' })).processingError).toBe('a\ufffdb\ufffd');
    });

    test('has U+FFFD for a lone surrogate, which UTF-8 can’t hold', async () => {
      expect((await on.stored({ processingError: 'a\ud800b 😀' })).processingError).toBe('a\ufffdb 😀');
    });

    on.needs('!textLimit')('may be long', async () => {
      const text = 'é😀'.repeat(100_000);
      expect((await on.stored({ processingError: text })).processingError).toBe(text);
    });

    test('of 65,535 bytes comes back whole', async () => {
      const text = `x${'é'.repeat(32_767)}`;
      expect(Buffer.byteLength(text)).toBe(65_535);
      expect((await on.stored({ processingError: text })).processingError).toBe(text);
    });

    on.needs('textLimit')('that is longer is cut at a character, and ends in … [cut]', async () => {
      for (const text of [`x${'é'.repeat(32_767)}y`, `${'😀'.repeat(20_000)}`, `xx${'漢'.repeat(100_000)}`]) {
        const { processingError: cut } = await on.stored({ processingError: text });
        expect(cut.endsWith('… [cut]')).toBe(true);
        const kept = cut.slice(0, -'… [cut]'.length);
        expect(text.startsWith(kept)).toBe(true);
        expect(cut).not.toContain('\ufffd');
        expect(cut.isWellFormed?.() ?? true).toBe(true);
        expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(65_535);
        expect(Buffer.byteLength(cut)).toBeGreaterThan(65_000);
      }
    });
  });
});
