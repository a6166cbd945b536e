// That the checker of imports finds what is wrong: each history here is broken in one way, and the rule that it breaks has to say so.

import { expect, test } from 'vitest';
import { checkImport } from './import-checker.mjs';

const plan = { batches: 3, batchSize: 2, failing: (index) => index === 3 };

/**
 * A history without a fault, of three processes. The first completes batch 0, pauses for a moment, runs batch 1, and is killed. What it did after the
 * pause is lost, but for one record. The second completes batch 1 and is killed while it runs batch 2. The third does what is left.
 */
function good() {
  const calls = [];
  let at = 0;
  const call = (process, name, details = {}, value = undefined) => {
    const made = { process, worker: 'engine', call: name, ...details, invoked: at, returned: at + 1, value };
    at += 10;
    calls.push(made);
    return made;
  };
  const stored = new Map();
  const list = [];
  let jobStored = null;
  const jobOf = (status, totalRecords) => ({ status, totalRecords, batches: list.map((batch) => ({ ...batch })) });
  const begin = (process) => {
    const read = call(process, 'getJobState', {}, structuredClone(jobStored));
    const records = call(process, 'records', {}, [...stored.values()]);
    return { read, records };
  };
  const set = (process, batch, status, processedCount = 0, failedCount = 0) => {
    Object.assign(batch, { status, processedCount, failedCount });
    return call(process, 'updateBatchState', { batchId: batch.id, status, processedCount, failedCount });
  };
  const record = (process, batch, index) => {
    const save = `${batch.id} ${index}`;
    return {
      save,
      made: call(process, 'saveProcessedRecord', { batchId: batch.id, index, save }),
      line: { index, batchId: batch.id, save },
    };
  };
  const keep = (...saved) => saved.forEach(({ line }) => stored.set(line.index, line));
  const save = (process, status, totalRecords) => call(process, 'saveJobState', jobOf(status, totalRecords));
  const open = (process, id, index) => {
    const batch = { id, index, status: 'PENDING', processedCount: 0, failedCount: 0 };
    list.push(batch);
    set(process, batch, 'PROCESSING');
    return batch;
  };

  const first = begin('p0');
  const a = open('p0', 'a', 0);
  const [a0, a1] = [record('p0', a, 0), record('p0', a, 1)];
  set('p0', a, 'COMPLETED', 2);
  const savedA = save('p0', 'PROCESSING', 2);
  const paused = save('p0', 'PAUSED', 2);
  keep(a0, a1);
  jobStored = jobOf('PAUSED', 2);
  const b = open('p0', 'b', 1);
  const [b2, b3] = [record('p0', b, 2), record('p0', b, 3)];
  keep(b2);
  const completedB = set('p0', b, 'COMPLETED', 1, 1);
  const lostSave = save('p0', 'PROCESSING', 4);

  const second = begin('p1');
  list.splice(0, list.length, ...structuredClone(jobStored.batches));
  const c = open('p1', 'c', 1);
  const [c2, c3] = [record('p1', c, 2), record('p1', c, 3)];
  set('p1', c, 'COMPLETED', 1, 1);
  save('p1', 'PROCESSING', 4);
  keep(c2, c3);
  jobStored = jobOf('PROCESSING', 4);
  const d = open('p1', 'd', 2);
  const underWay = record('p1', d, 4);
  delete underWay.made.returned;

  const third = begin('p2');
  list.splice(0, list.length, ...structuredClone(jobStored.batches));
  const e = open('p2', 'e', 2);
  const [e4, e5] = [record('p2', e, 4), record('p2', e, 5)];
  set('p2', e, 'COMPLETED', 2);
  save('p2', 'PROCESSING', 6);
  const ended = save('p2', 'COMPLETED', 6);
  const closed = call('p2', 'close');
  keep(e4, e5);
  const progress = { totalRecords: 6, processedRecords: 5, failedRecords: 1, pendingRecords: 0, percentage: 100, currentBatch: 3 };
  const seen = { job: jobOf('COMPLETED', 6), records: [...stored.values()], progress };
  const named = { first, second, third, a0, b2, b3, c2, savedA, paused, completedB, lostSave, underWay, ended, closed };
  return structuredClone({ calls, killed: ['p0', 'p1'], crashes: [], plan: { ...plan, failing: undefined }, seen, named });
}

/** What a history breaks, by rule, once `damage` has been done to it. */
function broken(damage) {
  const history = good();
  history.plan.failing = plan.failing;
  damage(history, history.named);
  return checkImport(history);
}

function expectFound(rule, damage, message) {
  const found = broken(damage).violations.filter((violation) => violation.rule === rule);
  expect(found.map((violation) => violation.message)).toEqual(expect.arrayContaining([expect.stringMatching(message)]));
}

const withoutRecord = (reading, index) => (reading.records.value = reading.records.value.filter((record) => record.index !== index));

test('a history without a fault is found to be one', () => {
  const { violations, facts } = broken(() => {});
  expect(violations).toEqual([]);
  expect(facts).toMatchObject({ processes: 3, kills: 2, restores: 2, skipping: 2, unanswered: 1 });
  // `lostSave` is lost, and so is the record behind it.
  expect(facts.lost).toBe(1);
});

test('what was queued may be there, too', () => {
  const { violations, facts } = broken((_, { second, lostSave, b3 }) => {
    second.read.value = { status: lostSave.status, totalRecords: lostSave.totalRecords, batches: structuredClone(lostSave.batches) };
    second.records.value.push(b3.line);
  });
  expect(violations.filter(({ message }) => message.startsWith('p1'))).toEqual([]);
  expect(facts.lost).toBe(0);
});

test('a process that was killed before it had its answer proves nothing', () => {
  const { violations } = broken(({ calls }, { first, paused }) => {
    delete paused.returned;
    calls.splice(calls.indexOf(first.records), 1);
  });
  expect(violations).toEqual([]);
});

test.each([
  [
    'a list that was never saved',
    ({ second }) => second.read.value.batches.push({ ...second.read.value.batches[0], id: 'x' }),
    /no call had saved/,
  ],
  ['a status that was never saved', ({ second }) => (second.read.value.status = 'FAILED'), /no call had saved/],
  ['a number of records that was never saved', ({ second }) => (second.read.value.totalRecords = 5), /no call had saved/],
  ['a state that was never set', ({ second }) => (second.read.value.batches[0].processedCount = 7), /no call had saved/],
  [
    'a list that must be replaced by then',
    ({ second, savedA }) => (second.read.value.status = savedA.status),
    /found the list of save 0, and save 1 was committed/,
  ],
  ['no job where there must be one', ({ second }) => (second.read.value = null), /found no job/],
  [
    'a list that is older than one that was seen',
    ({ second, third, lostSave, savedA }) => {
      const { status, totalRecords, batches } = lostSave;
      second.read.value = { status, totalRecords, batches: structuredClone(batches) };
      third.read.value = { status: savedA.status, totalRecords: savedA.totalRecords, batches: structuredClone(savedA.batches) };
    },
    /p2 found the list of save 0/,
  ],
])('lists: %s', (_, damage, message) => {
  expectFound('lists', (history, named) => damage(named), message);
});

test.each([
  ['a record that must be there', ({ second }) => withoutRecord(second, 0), /did not find record 0, which was committed/],
  ['a record that no call saved', ({ second }) => (second.records.value[1].save = 'x'), /record 1 as no call had saved it/],
  ['a record of another batch', ({ second }) => (second.records.value[1].batchId = 'b'), /record 1 as no call had saved it/],
  ['a record that is saved only later', ({ second, c2 }) => second.records.value.splice(2, 1, c2.line), /record 2 as no call had saved it/],
  ['a record twice', ({ second, a0 }) => second.records.value.push(a0.line), /a record twice/],
])('records: %s', (_, damage, message) => {
  expectFound('records', (history, named) => damage(named), message);
});

test('records: a save that is committed is not undone by an older one', () => {
  const damage = ({ seen }, { underWay }) => (seen.records.find(({ index }) => index === 4).save = underWay.save);
  expectFound('records', damage, /as it was before a save that was committed|as no call had saved/);
});

test('completed batches have their records: one is missing, or is another batch’s', () => {
  const rule = 'completed batches have their records';
  expectFound(rule, (_, { third }) => withoutRecord(third, 2), /p2 found batch 1 COMPLETED without record 2/);
  expectFound(rule, (_, { third, b2 }) => third.records.value.splice(2, 1, b2.line), /p2 found batch 1 COMPLETED without record 2/);
});

test('nothing comes back: a record is gone, or as it was', () => {
  const rule = 'nothing comes back';
  expectFound(rule, (_, { third }) => withoutRecord(third, 2), /p2 found record 2 as it was before it was seen/);
  expectFound(rule, ({ seen }, { b2 }) => seen.records.splice(2, 1, b2.line), /the end found record 2/);
});

test.each([
  ['the job is not done', ({ job }) => (job.status = 'PROCESSING'), /the job is PROCESSING/],
  ['records of the job are missing in its number', ({ job }) => (job.totalRecords = 4), /has 4 records, and 6 are due/],
  ['a batch is missing', ({ job }) => job.batches.pop(), /batch 2 was completed 0 times/],
  ['a batch was completed twice', ({ job }) => job.batches.push({ ...job.batches[0], id: 'x' }), /batch 0 was completed 2 times/],
  ['a batch counts wrong', ({ job }) => job.batches[1].failedCount++, /batch 1 counts 1 \+ 2 records, and 1 \+ 1 are due/],
  ['a record is missing', ({ records }) => records.pop(), /record \d is missing/],
  [
    'a record is of a batch that was not completed',
    ({ records }) => (records[0].batchId = 'b'),
    /record 0 is not the one that its batch saved/,
  ],
  ['progress is wrong', ({ progress }) => progress.processedRecords--, /processedRecords 4, and 5 is due/],
])('the end: %s', (_, damage, message) => {
  expectFound('the end', ({ seen }) => damage(seen), message);
});

test('answers: a call fails, or hangs', () => {
  const error = { code: 'INTERNAL', retryable: false, message: 'of the test' };
  expectFound('answers', (_, { savedA }) => Object.assign(savedA, { error }), /saveJobState of p0 failed: INTERNAL/);
  expectFound('answers', (_, { closed }) => delete closed.returned, /close of p2 never returned/);
});

test('no crash: a process ends badly', () => {
  expectFound('no crash', ({ crashes }) => crashes.push('p2 ended with SIGSEGV: '), /SIGSEGV/);
});
