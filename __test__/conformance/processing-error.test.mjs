// `processingError` in a column that holds fewer characters, or fewer of them, than the text has: the record is stored all the same, with what the
// column's own character set can hold.

import { describe, expect, onTestFinished } from 'vitest';
import { makeRecord, newId } from '../support/fixtures.mjs';
import { onEveryDatabase, openStore } from '../support/suite.mjs';

const TEXT = 'ASCII é € … Ж 中 😀 end';

/** What comes back of the text, by the column's character set. */
const BY_CHARSET = {
  utf8mb4: TEXT,
  utf16: TEXT,
  utf32: TEXT,
  utf8mb3: 'ASCII é € … Ж 中 \ufffd end',
  ucs2: 'ASCII é € … Ж 中 \ufffd end',
  latin1: 'ASCII é € … ? ? ? end',
  cp1251: 'ASCII ? € … Ж ? ? end',
  gbk: 'ASCII é ? … Ж 中 ? end',
  ascii: 'ASCII ? ? ? ? ? ? end',
};
/** The same, by the database's encoding. */
const BY_ENCODING = {
  UTF8: TEXT,
  SQL_ASCII: TEXT,
  LATIN1: 'ASCII é ? ? ? ? ? end',
  WIN1252: 'ASCII é € … ? ? ? end',
  WIN1251: 'ASCII ? € … Ж ? ? end',
  EUC_JP: 'ASCII ? ? ? ? ? ? end',
};

/** What is stored of a record with this `processingError`, the same by every way to save it. */
async function stored(store, processingError) {
  const [single, bulk] = [newId(), newId()];
  const record = makeRecord(0, { status: 'failed', processingError });
  await store.saveProcessedRecord(single, 'b', record);
  await store.saveProcessedRecord(single, 'b', record);
  await store.saveBatchRecords(bulk, 'b', [record, ...Array.from({ length: 60 }, (_, n) => makeRecord(n + 1))]);
  const [one] = await store.getFailedRecords(single);
  const [other] = await store.getFailedRecords(bulk);
  expect(other).toStrictEqual(one);
  expect({ ...one, processingError }).toStrictEqual(record);
  return one.processingError;
}

onEveryDatabase((on) => {
  describe('processingError', () => {
    for (const [charset, back] of Object.entries(BY_CHARSET)) {
      on.needs('columnCharsets')(
        `in a column of ${charset} loses only the characters that this has not, and what is too long`,
        async () => {
          const own = await on.createEmpty();
          const store = openStore(own);
          await store.initialize();
          await own.query(`alter table "batchactions_records" modify "processingError" text character set ${charset}`);
          expect(await stored(store, TEXT)).toBe(back);

          const mark = back.includes('…') ? '… [cut]' : '... [cut]';
          for (const long of ['x'.repeat(70_000), 'é'.repeat(70_000), '€'.repeat(70_000), '😀'.repeat(40_000), `x${'😀'.repeat(40_000)}`]) {
            const cut = await stored(store, long);
            const kept = cut.endsWith(mark) ? cut.slice(0, -mark.length) : cut;
            const one = kept.at(-1) === '?' || kept.at(-1) === '\ufffd' ? kept.at(-1) : [...long].at(-1);
            expect([...kept].slice(1).every((character) => character === one)).toBe(true);
            const [{ most }] = await own.query('select max(length("processingError")) as "most" from "batchactions_records"');
            expect(Number(most)).toBeLessThanOrEqual(65_535);
            if (cut !== kept) expect(Number(most)).toBeGreaterThan(charset === 'gbk' ? 32_700 : 65_500);
            await own.query('delete from "batchactions_records"');
          }
          await store.close();
        },
      );
    }

    on.needs('textLimit')('in a longer or shorter column is cut where that ends', async () => {
      const own = await on.createEmpty();
      const cases = [
        ['longtext', 'y'.repeat(100_000)],
        ['varchar(200)', `${'y'.repeat(200 - 9)}… [cut]`],
      ];
      for (const [type, back] of cases) {
        const store = openStore(own);
        await store.initialize();
        await own.query('delete from "batchactions_records"');
        await own.query(`alter table "batchactions_records" modify "processingError" ${type} character set utf8mb4`);
        expect(await stored(store, 'y'.repeat(100_000))).toBe(back);
        await store.close();
      }
    });

    for (const [encoding, back] of Object.entries(BY_ENCODING)) {
      on.needs('databaseEncodings')(`in a database of ${encoding} loses only the characters that this has not`, async () => {
        const { serverUrl } = on.database;
        const name = `${on.own.name}_${encoding.toLowerCase()}`;
        const server = await on.dialect.connect(serverUrl);
        await server.query(
          `create database ${on.dialect.quote(name)} template template0 encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`,
        );
        const url = new URL(serverUrl);
        url.pathname = `/${name}`;
        const stores = [openStore({ url: url.href }), openStore({ url: url.href }, { statementCache: 0 })];
        onTestFinished(async () => {
          for (const store of stores) await store.close();
          await server.query(`drop database if exists ${on.dialect.quote(name)}`);
          await server.end();
        });
        await stores[0].initialize();
        for (const store of stores) expect(await stored(store, TEXT)).toBe(back);
      });
    }
  });
});
