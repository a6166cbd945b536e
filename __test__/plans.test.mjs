// A worker's calls for a batch cost no more in a job of more batches: the plans of their statements over a job of 20,000 batches.
//
// The statements are read from the backends' source, so that what is explained is what the store sends; a function that is renamed, or has another
// number of statements, fails here. A plan fails where it sorts, or where it reads more rows than a few: as the database counts them, not as
// it guesses. The table is explained as it is after the job was stored, when no statistics know the job, and again with statistics.
//
// PRINT_PLANS=1 prints the plans.

import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect } from 'vitest';
import { makeJob } from './support/fixtures.mjs';
import { claim, complete, onEveryDatabase } from './support/suite.mjs';

const batches = 20_000;
/** Rows that a statement may look at: those that other workers hold, and their neighbours. */
const few = 60;

/** The SQL texts of one function of a backend, in their order. */
async function statements({ sourceFile }, name) {
  const source = await readFile(new URL(`../src/backend/${sourceFile}/mod.rs`, import.meta.url), 'utf8');
  const start = source.search(new RegExp(`async fn ${name}\\b`));
  expect(start, `${name} in ${sourceFile}/mod.rs`).toBeGreaterThan(-1);
  const body = source.slice(start, source.indexOf('\n    }\n', start));
  const texts = [...body.matchAll(/r#"([^]*?)"#|"((?:[^"\\]|\\.)*)"/g)].map(([, raw, plain]) => raw ?? plain);
  // A cast to a column's type is left out on the tables that the store makes.
  const plain = (text) => text.replace(/\\\n\s*/g, '').replace(/::"\w+\.\w+"(\[\])?/g, '');
  return texts.filter((text) => /^\s*(select|update|with)\b/.test(text)).map(plain);
}

const SORTS = /\bSort\b|filesort|TEMP B-TREE|temporary/i;
onEveryDatabase((on) => {
  describe('in the middle of a job of 20,000 batches', () => {
    const { dialect } = on;
    const job = makeJob(batches);
    let connection;
    let held;

    const prepared = async () => {
      if (connection) return;
      await on.store.saveJobState(job);
      // A tenth is done, by the store's own calls; some are held.
      await Promise.all(
        Array.from({ length: 16 }, async () => {
          for (let n = 0; n < batches / 160; n++) await complete(on.store, job.id, (await claim(on.store, job.id)).batchId);
        }),
      );
      held = [];
      for (let n = 0; n < 16; n++) held.push(await claim(on.store, job.id, 'worker'));
      connection = await on.own.connect();
      await dialect.prepareToExplain(connection);
    };
    if (on.has('raw')) beforeAll(prepared);

    /** What stands for each placeholder, by function and statement; positional ones repeat. */
    const values = () => {
      const last = held.at(-1);
      const from = last.batchIndex + 1;
      const [minutes, any] = [900_000, null];
      const change = [job.id, last.batchId, 'worker', any];
      const mysqlChange = [last.batchId, job.id, 'worker', any, any];
      return {
        numbered: {
          claim: [[job.id, 'worker', from]],
          update_batch: [[job.id, last.batchId, 'COMPLETED', 10, 0, any, false]],
          // One that has no row, so that it looks on.
          update_batch_or_look: [[job.id, 'missing', 'COMPLETED', 10, 0, 'missing', false]],
          release: [change],
          renew: [[...change, true]],
          claim_outlook: [[job.id]],
          reclaim_outlook: [[job.id, minutes, from]],
          has_open_batch: [[job.id, from]],
          reclaim: [[job.id, minutes, any]],
        },
        positional: {
          claim: [
            [job.id, job.id, from, job.id],
            ['worker', 1, last.batchId],
          ],
          update_batch: [['COMPLETED', 10, 0, last.batchId, job.id, any, any, false]],
          release: [mysqlChange],
          renew: [[last.batchId, job.id, true, 'worker', any, any]],
          claim_outlook: [[job.id, job.id, job.id]],
          reclaim_outlook: [
            [job.id, minutes, job.id, from],
            [job.id, job.id],
          ],
          has_open_batch: [[job.id, from, job.id]],
          reclaim: [undefined, [job.id, minutes]],
        },
      };
    };
    const names = ['claim', 'update_batch', 'release', 'renew', 'claim_outlook', 'reclaim_outlook', 'has_open_batch', 'reclaim'];
    names.push(...dialect.combinedCalls);

    const check = async (name) => {
      const list = values()[dialect.numbersValues ? 'numbered' : 'positional'][name];
      const texts = await statements(dialect, name);
      expect(texts).toHaveLength(list.length);
      for (const [place, text] of texts.entries()) {
        if (list[place] === undefined) continue;
        for (const plan of await dialect.explain(connection, text, list[place])) {
          if (process.env.PRINT_PLANS) console.log(`## ${on.database.name}: ${name}\n${plan.text}\n`);
          // The batches that a reclaim takes are sorted, so that they are locked in order: these few, and no other.
          if (name !== 'reclaim') expect(plan.text).not.toMatch(SORTS);
          expect(plan.text).not.toMatch(dialect.scan);
          expect(plan.text).not.toContain('JIT');
          expect(plan.rows, plan.text).toBeLessThanOrEqual(few);
        }
      }
    };

    for (const name of names) on.needs('raw')(`${name} looks at a few rows`, () => check(name));

    for (const name of names) {
      on.needs('raw')(`${name} looks at a few rows once the table is analyzed`, async () => {
        await connection.query(dialect.analyze);
        await check(name);
      });
    }
  });
});
