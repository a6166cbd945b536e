// That the checker finds what is wrong: each history here is broken in one way, and the rule that it breaks has to say so. A checker that has
// never failed proves nothing.

import { expect, test } from 'vitest';
import { assemble, check, describe } from './checker.mjs';

const LEASE = 1_000;

/**
 * A history without a fault: two workers, of two processes, do two batches of two records each. The first batch is reclaimed once from a worker
 * that kept silent for longer than its lease; then the other one does it.
 */
function good() {
  let at = 0;
  const calls = [];
  const call = (worker, name, details = {}, outcome = {}) => {
    const made = { process: worker[0], worker, call: name, ...details, invoked: at, returned: at + 1, value: undefined, ...outcome };
    at += 10;
    calls.push(made);
    return made;
  };
  const claim = (worker, batchId, token) => {
    const reservation = { batchId, token, workerId: worker };
    return call(worker, 'claimBatch', {}, { value: { claimed: true, reservation } });
  };
  const save = (worker, batchId, token, index) => call(worker, 'saveProcessedRecord', { batchId, token, index });
  const finish = (worker, batchId, token, status) => call(worker, 'updateBatchState', { batchId, token, status });
  const lost = { error: { code: 'LEASE_LOST', retryable: false, message: 'gone' }, value: undefined };

  const first = claim('a1', 'b0', 1);
  const read = call('a1', 'getBatchRecords', { batchId: 'b0' }, { value: [{ index: 0 }, { index: 1 }] });
  const early = save('a1', 'b0', 1, 0);
  const other = claim('b1', 'b1', 1);
  save('b1', 'b1', 1, 2);
  save('b1', 'b1', 1, 3);
  const otherEnd = finish('b1', 'b1', 1, 'COMPLETED');
  const notYet = call('b1', 'tryFinalizeJob', {}, { value: false });
  at += 2 * LEASE;
  const reclaim = call('b1', 'reclaimStaleBatches', {}, { value: 1 });
  const second = claim('b1', 'b0', 3);
  const reread = call('b1', 'getBatchRecords', { batchId: 'b0' }, { value: [{ index: 0, token: 1, worker: 'a1' }, { index: 1 }] });
  const renewal = call('b1', 'renewBatch', { batchId: 'b0', token: 3 }, { value: true });
  const late = call('a1', 'saveProcessedRecord', { batchId: 'b0', token: 1, index: 1 }, lost);
  save('b1', 'b0', 3, 0);
  const save1 = save('b1', 'b0', 3, 1);
  const end = finish('b1', 'b0', 3, 'COMPLETED');
  const finalize = call('b1', 'tryFinalizeJob', {}, { value: true });
  const none = call('a1', 'claimBatch', {}, { value: { claimed: false, reason: 'JOB_NOT_PROCESSING' } });

  const record = (index, worker, token, status) => ({ index, status, parsed: { worker, token } });
  const state = (id, version) => ({
    id,
    status: 'COMPLETED',
    version,
    processedCount: id === 'b0' ? 2 : 1,
    failedCount: id === 'b0' ? 0 : 1,
  });
  const rows = [state('b0', 3), state('b1', 1)];
  return {
    calls,
    batches: [
      { id: 'b0', indexes: [0, 1], due: 'COMPLETED' },
      { id: 'b1', indexes: [2, 3], due: 'COMPLETED' },
    ],
    seen: {
      job: { status: 'COMPLETED', completedAt: 1, totalRecords: 4, batches: rows.map((row) => ({ ...row })) },
      progress: {
        totalRecords: 4,
        processedRecords: 3,
        failedRecords: 1,
        pendingRecords: 0,
        percentage: 100,
        currentBatch: 2,
        totalBatches: 2,
      },
      status: { totalBatches: 2, completedBatches: 2, failedBatches: 0, processingBatches: 0, pendingBatches: 0, isComplete: true },
      records: {
        b0: [record(0, 'b1', 3, 'processed'), record(1, 'b1', 3, 'processed')],
        b1: [record(2, 'b1', 1, 'processed'), record(3, 'b1', 1, 'failed')],
      },
      rows,
      copy: rows.map((row) => ({ ...row })),
    },
    leaseMs: LEASE,
    longestMs: 100,
    faultless: true,
    // For the tests, to break.
    named: { first, read, early, other, otherEnd, notYet, reclaim, second, reread, renewal, late, save1, end, finalize, none },
    call,
    claim,
    save,
    finish,
    lost,
  };
}

/**
 * The same with `durability: 'batch'`: the saves are answered once they are queued. A watcher sees the second batch COMPLETED, and then both of them, and reads
 * the records of the first.
 */
function goodQueued() {
  const history = good();
  for (const call of history.calls) if (call.call === 'saveProcessedRecord') call.queued = true;
  const look = (name, after, details, value) =>
    history.call('watcher', name, details, { value, invoked: after.returned + 2, returned: after.returned + 3 });
  const { reread, end, finalize } = history.named;
  const marks = [0, 1].map((index) => ({ index, token: 3, worker: 'b1' }));
  Object.assign(history.named, {
    seenOne: look('getJobState', reread, {}, { totalRecords: 4, completed: [1] }),
    seenBoth: look('getJobState', end, {}, { totalRecords: 4, completed: [0, 1] }),
    seenRecords: look('getBatchRecords', finalize, { batchId: 'b0' }, marks),
  });
  return Object.assign(history, { look });
}

/** Which rules a history breaks. */
const broken = (history) => [...new Set(check(history).violations.map(({ rule }) => rule))];

/** What the rule says of a good history that `damage` has broken: there must be something, and other rules may say something too. */
function expectFound(rule, damage, message, history = good()) {
  damage(history, history.named);
  const { violations } = check(history);
  const found = violations.filter((violation) => violation.rule === rule);
  expect(found.map((violation) => violation.message)).toEqual(expect.arrayContaining([expect.stringMatching(message)]));
}

/** Without the call. */
const remove = (history, call) => history.calls.splice(history.calls.indexOf(call), 1);

/** The call is made without that an outcome is known. */
const forget = (call) => {
  delete call.returned;
  delete call.value;
};

const unavailable = (code, retryable = true) => ({ code, retryable, message: 'of the test' });

test('a history without a fault is found to be one', () => {
  const { violations, facts } = check(good());
  expect(violations).toEqual([]);
  expect(facts).toMatchObject({
    calls: 18,
    failures: { LEASE_LOST: 1 },
    failed: 0,
    unanswered: 0,
    claims: 3,
    lostClaims: 0,
    reclaimed: 1,
    finalizers: 1,
    longestMs: 1,
  });
});

test('without the rows, it is still one', () => {
  const history = good();
  delete history.seen.rows;
  delete history.seen.copy;
  expect(broken(history)).toEqual([]);
});

test('what a fault explains is no violation', () => {
  const history = good();
  history.faultless = false;
  const { first, finalize, notYet } = history.named;
  // Its process was killed while the completion of the job was under way, and a reply was lost before.
  forget(finalize);
  history.interruptions = [{ process: 'b', at: finalize.invoked + 1 }];
  delete notYet.value;
  notYet.error = unavailable('CONNECTION_LOST');
  // A claim that no worker knows of, given back by the same reclaim, and then the one that is known.
  history.calls.push({
    process: 'b',
    worker: 'b1',
    call: 'claimBatch',
    invoked: first.invoked,
    returned: 5,
    error: unavailable('TIMEOUT'),
  });
  history.seen.rows[0].version = 5;
  history.named.second.value.reservation.token = 5;
  for (const call of history.calls) if (call.token === 3) call.token = 5;
  for (const record of history.seen.records.b0) record.parsed.token = 5;
  expect(check(history).violations).toEqual([]);
});

test('one token twice', () => {
  expectFound('tokens grow', (h, { second }) => (second.value.reservation.token = 1), /two claims on b0 have token 1/);
});

test('a token lower than one before it', () => {
  const damage = (h, { first, second }) => {
    first.value.reservation.token = 3;
    second.value.reservation.token = 1;
  };
  expectFound('tokens grow', damage, /lower token/);
});

test('a token that no claim can have', () => {
  expectFound('tokens grow', (h, { second }) => (second.value.reservation.token = 2), /only a batch that is given back/);
});

test('two live claims: the batch was taken before its lease was over', () => {
  const damage = (h, { first, second }) => Object.assign(second, { invoked: first.returned + 1, returned: first.returned + 2 });
  expectFound('one live claim', damage, /while the claim with token 1 was live/);
});

test('two live claims: no worker had reclaimed the batch', () => {
  expectFound('one live claim', (h, { reclaim }) => (reclaim.value = 0), /while the claim with token 1 was live/);
});

test('two live claims: the lease had been renewed', () => {
  const damage = (h, { reclaim }) => {
    const renewed = { process: 'a', worker: 'a1', call: 'renewBatch', batchId: 'b0', token: 1, value: true };
    h.calls.push({ ...renewed, invoked: reclaim.invoked - 20, returned: reclaim.invoked - 19 });
  };
  expectFound('one live claim', damage, /while the claim with token 1 was live/);
});

test('a release ends a claim, and one that was refused does not', () => {
  const history = good();
  const { first, reclaim, second } = history.named;
  reclaim.value = 0;
  const release = { process: 'a', worker: 'a1', call: 'releaseBatch', batchId: 'b0', token: 1, invoked: first.returned + 50 };
  history.calls.push(Object.assign(release, { returned: release.invoked + 1 }));
  expect(broken(history)).toEqual([]);
  Object.assign(release, history.lost);
  expect(broken(history)).toContain('one live claim');
  expect(second.value.claimed).toBe(true);
});

test('a save of a claim that is over goes through', () => {
  const damage = (h, { late }) => delete late.error;
  expectFound('fencing', damage, /a call with token 1 on b0 went through after that claim was over/);
});

test('a completion of a claim that was given back goes through', () => {
  const damage = (h, { first }) => {
    const at = first.returned + 1;
    h.calls.push(
      { process: 'a', worker: 'a1', call: 'releaseBatch', batchId: 'b0', token: 1, invoked: at, returned: at + 1 },
      {
        process: 'a',
        worker: 'a1',
        call: 'updateBatchState',
        batchId: 'b0',
        token: 1,
        status: 'FAILED',
        invoked: at + 2,
        returned: at + 3,
      },
    );
  };
  expectFound('fencing', damage, /went through after that claim was over/);
});

test('a call goes through after one of the same claim was refused', () => {
  const damage = (h, { late }) => h.calls.push({ ...late, error: undefined, invoked: late.returned + 1, returned: late.returned + 2 });
  expectFound('fencing', damage, /went through after that claim was over/);
});

test('a save that was under way while the claim ended may go through', () => {
  const history = good();
  const { late, second } = history.named;
  delete late.error;
  late.invoked = second.invoked - 15;
  expect(broken(history)).not.toContain('fencing');
});

test('LEASE_LOST for a live claim', () => {
  const damage = (h, { late, first }) => Object.assign(late, { invoked: first.returned + 1, returned: first.returned + 2 });
  expectFound('leases are lost only where they are', damage, /refused while the claim was live/);
});

test('LEASE_LOST for the claim that finished the batch', () => {
  const damage = (h, { otherEnd }) => {
    const again = { ...otherEnd, ...h.lost, invoked: otherEnd.returned + 1, returned: otherEnd.returned + 2 };
    h.calls.push(again);
  };
  expectFound('leases are lost only where they are', damage, /it is the one that finished the batch/);
});

test('LEASE_LOST for a token that is still the last', () => {
  expectFound('leases are lost only where they are', (h, { late }) => (late.token = 3), /still the last|finished the batch/);
});

test('a batch that is finished twice', () => {
  const damage = (h, { first }) => h.finish('a1', 'b0', 1, 'FAILED') && first;
  expectFound('a finished batch stays', damage, /b0 was finished by two claims/);
});

test('a batch that is claimed after it was finished', () => {
  expectFound('a finished batch stays', (h) => h.claim('a1', 'b0', 5), /b0 was claimed after it was finished/);
});

test('a claim that is not in the database', () => {
  expectFound('claims add up', (h) => (h.seen.rows[0].version = 1), /more claims were told/);
});

test('a claim in the database that no worker made', () => {
  expectFound(
    'claims add up',
    (h) => (h.seen.rows[1].version = 3),
    /1 claims were made that no worker was told of, and 0 had no known outcome/,
  );
});

test('more batches reported as reclaimed than there were', () => {
  expectFound('claims add up', (h, { reclaim }) => (reclaim.value = 2), /2 batches were reported as reclaimed, and 1 were opened again/);
});

test('a batch that is given back by no call', () => {
  const damage = (h, { reclaim }) => (reclaim.value = 0);
  expectFound('claims add up', damage, /0 batches were reclaimed and 0 released, and 1 opened again/);
});

test('a batch that is not finished', () => {
  expectFound('every record is done', (h) => (h.seen.job.batches[0].status = 'PENDING'), /b0 is PENDING at the end/);
});

test('a batch in the wrong final state', () => {
  expectFound('every record is done', (h) => (h.seen.job.batches[1].status = 'FAILED'), /b1 is FAILED at the end, and COMPLETED is due/);
});

test('a record that was never processed', () => {
  const damage = (h) => Object.assign(h.seen.records.b0[1], { status: 'pending', parsed: {} });
  expectFound('every record is done', damage, /record 1 of b0 was never processed/);
});

test('a record that is missing, and one too many', () => {
  expectFound('every record is done', (h) => h.seen.records.b0.pop(), /record 1 of b0 was never processed/);
  expectFound('every record is done', (h) => h.seen.records.b0.push({ ...h.seen.records.b1[0] }), /b0 has 3 records, and 2 are due/);
});

test('a record of a claim that lost the batch', () => {
  const damage = (h) => Object.assign(h.seen.records.b0[0].parsed, { worker: 'a1', token: 1 });
  expectFound('every record is done', damage, /the records of b0 are of several claims: 1, 3/);
});

test('all records of a claim that lost the batch', () => {
  const damage = (h) => {
    for (const { parsed } of h.seen.records.b0) Object.assign(parsed, { worker: 'a1', token: 1 });
  };
  expectFound('every record is done', damage, /are of token 1, which did not finish it/);
});

test('a record of a claim that no worker has', () => {
  const damage = (h) => (h.seen.records.b0[0].parsed.worker = 'x1');
  expectFound('every record is done', damage, /record 0 of b0 is of a claim that no worker has/);
});

test('a record that no worker saved', () => {
  expectFound('every record is done', (h, { save1 }) => remove(h, save1), /record 1 of b0 is one that no worker saved/);
});

test('a version that is not that of the claim that finished', () => {
  expectFound('every record is done', (h) => (h.seen.rows[0].version = 4), /b0 has version 4, and its records are of token 3/);
});

test('two finalizers', () => {
  expectFound('one finalizer', (h, { notYet }) => (notYet.value = true), /2 callers were told that they finalized the job/);
});

test('a finalizer while a batch was open', () => {
  const damage = (h, { notYet, finalize }) => {
    notYet.value = true;
    finalize.value = false;
  };
  expectFound('one finalizer', damage, /the job was finalized before b0 was finished/);
  expectFound('one finalizer', damage, /a batch was claimed after the job was finalized/);
});

test('no finalizer', () => {
  expectFound('one finalizer', (h, { finalize }) => (finalize.value = false), /no worker was told that the job was finalized/);
});

test('no finalizer is told where a reply was lost, or where the last worker died and the job was reclaimed', () => {
  const history = good();
  history.faultless = false;
  const { finalize } = history.named;
  Object.assign(finalize, { value: undefined, error: unavailable('TIMEOUT') });
  expect(broken(history)).toEqual([]);
  // It could not connect: nothing was sent, so another worker must know.
  finalize.error = unavailable('CONNECTION_FAILED');
  expect(broken(history)).toEqual(['one finalizer']);
  const at = finalize.returned + 2 * LEASE;
  history.calls.push({ process: 'a', worker: 'a1', call: 'reclaimStaleBatches', invoked: at, returned: at + 1, value: 0 });
  expect(broken(history)).toEqual([]);
});

test('a job in the wrong final state, and one that is not final', () => {
  expectFound('one finalizer', (h) => (h.seen.job.status = 'FAILED'), /the job is FAILED, and COMPLETED is due/);
  expectFound('one finalizer', (h) => (h.batches[0].due = 'FAILED'), /the job is COMPLETED, and FAILED is due/);
  expectFound('one finalizer', (h) => (h.seen.job.status = 'PROCESSING'), /the job is PROCESSING/);
  expectFound('one finalizer', (h) => delete h.seen.job.completedAt, /no completedAt/);
});

test('counts that are not those of the records', () => {
  expectFound('counts', (h) => h.seen.job.batches[0].processedCount--, /b0 counts 1 \+ 0 records, and holds 2 \+ 0/);
  expectFound('counts', (h) => h.seen.progress.processedRecords--, /getProgress says processedRecords 2, and 3 is due/);
  expectFound('counts', (h) => h.seen.progress.pendingRecords++, /getProgress says pendingRecords 1, and 0 is due/);
  expectFound('counts', (h) => h.seen.progress.currentBatch--, /getProgress says currentBatch 1, and 2 is due/);
  expectFound('counts', (h) => h.seen.status.completedBatches--, /getDistributedStatus says completedBatches 1, and 2 is due/);
});

test('a copy that is not that of the rows', () => {
  expectFound('two copies', (h) => (h.seen.copy[0].status = 'PROCESSING'), /b0 is PROCESSING 2 0 in the job's list, and COMPLETED 2 0/);
  expectFound('two copies', (h) => h.seen.copy[1].failedCount--, /b1 is COMPLETED 1 0 in the job's list/);
  expectFound('two copies', (h) => h.seen.copy.pop(), /the job lists 1 batches, and there are 2 rows/);
});

test('with queued saves, a history without a fault is found to be one', () => {
  const { violations, facts } = check(goodQueued());
  expect(violations).toEqual([]);
  expect(facts).toMatchObject({ watched: 2, lostSaves: 0, cutEnds: 0 });
});

test('a queued save may die with its claim or its process', () => {
  const history = goodQueued();
  history.named.reread.value[0] = { index: 0 };
  const { violations, facts } = check(history);
  expect(violations).toEqual([]);
  expect(facts.lostSaves).toBe(1);
});

test('a queued save that is lost though a later call of its claim went through', () => {
  const damage =
    (value) =>
    (h, { early, reread }) => {
      reread.value[0] = { index: 0 };
      const at = early.returned + 1;
      const renewal = { process: 'a', worker: 'a1', call: 'renewBatch', batchId: 'b0', token: 1, value };
      h.calls.push({ ...renewal, invoked: at, returned: at + 1 });
    };
  expectFound('reads', damage(true), /record 0 was read as it was before a save/, goodQueued());
  // That one says that the claim was lost, and the save with it.
  const history = goodQueued();
  damage(false)(history, history.named);
  expect(broken(history)).toEqual([]);
});

test('a save of a claim that is over may be queued, and is never seen', () => {
  const history = goodQueued();
  const { late } = history.named;
  delete late.error;
  expect(broken(history)).toEqual([]);
  const seen = [{ index: 0 }, { index: 1, token: 1, worker: 'a1' }];
  const damage = (h) => h.look('getBatchRecords', late, { batchId: 'b0' }, seen);
  expectFound('fencing', damage, /a call with token 1 on b0 went through after that claim was over/, history);
});

test('a save that was queued before its claim was over and is written after it', () => {
  const damage = (h, { early, late }) => {
    h.calls.push({ ...early, index: 1, invoked: early.returned + 1, returned: early.returned + 2 });
    const seen = [{ index: 0 }, { index: 1, token: 1, worker: 'a1' }];
    h.look('getBatchRecords', late, { batchId: 'b0' }, seen);
  };
  const message = /record 1 of b0 became that of token 1 after token 3 was claimed/;
  expectFound('a claim that is over changes nothing', damage, message, goodQueued());
});

test('a batch that is COMPLETED without a record of its holder', () => {
  const rule = 'a completed batch has its records';
  const message = /b0 was COMPLETED without record 1 of its holder/;
  // The record is written after the end of its batch, so a process that is killed between the two loses it.
  const comesLate = (h, { seenRecords }) => (seenRecords.value[1] = { index: 1 });
  expectFound(rule, comesLate, message, goodQueued());
  const ofAnother = (h, { seenRecords }) => (seenRecords.value[1] = { index: 1, token: 1, worker: 'a1' });
  expectFound(rule, ofAnother, message, goodQueued());
  const neverComes = (h) => Object.assign(h.seen.records.b0[1], { status: 'pending', parsed: {} });
  expectFound(rule, neverComes, message, goodQueued());
  expectFound(rule, neverComes, message, good());

  // Its holder was killed, and was not told.
  const killed = (damage) => (h, named) => {
    forget(named.end);
    damage(h, named);
  };
  expectFound(rule, killed(comesLate), message, goodQueued());
  expectFound(rule, killed(neverComes), message, goodQueued());
  const history = goodQueued();
  killed(() => {})(history, history.named);
  expect(broken(history)).not.toContain(rule);
});

test('a batch that is COMPLETED, and is seen in another state', () => {
  const rule = 'a completed batch has its records';
  const seen = (h, { seenBoth }) => (seenBoth.value.completed = [1]);
  expectFound(rule, seen, /b0 was COMPLETED, and then seen as if it were not/, goodQueued());
  const atEnd = (h) => (h.seen.job.batches[0].status = 'PROCESSING');
  expectFound(rule, atEnd, /b0 was COMPLETED, and is PROCESSING at the end/, goodQueued());
});

test('a batch that is COMPLETED before a holder ends it', () => {
  const rule = 'a completed batch has its records';
  const refused = (h, { end }) => Object.assign(end, h.lost);
  expectFound(rule, refused, /b0 was COMPLETED by no holder/, goodQueued());
  const early = (h, { seenOne }) => (seenOne.value.completed = [0, 1]);
  expectFound(rule, early, /b0 was COMPLETED by no holder/, goodQueued());
});

test('a claim that is refused while a batch was never touched', () => {
  const damage = (h, { first, none }) => {
    Object.assign(none, { invoked: first.returned + 1, returned: first.returned + 2 });
    none.value.reason = 'NO_PENDING_BATCHES';
  };
  expectFound('nothing is left behind', damage, /no batch was called pending before b1 was ever claimed/);
});

test('a job that is called final while a batch is open, or not found', () => {
  const damage = (h, { second, none }) => Object.assign(none, { invoked: second.returned + 1, returned: second.returned + 2 });
  expectFound('nothing is left behind', damage, /the job was called final while b0 was open/);
  expectFound('nothing is left behind', (h, { none }) => (none.value.reason = 'JOB_NOT_FOUND'), /the job was not found/);
});

test('a claim while the job was paused is found', () => {
  const pause = (h, { invoked, returned }) =>
    (h.pauses = [{ invoked: invoked - 3, paused: invoked - 2, changed: true, resuming: returned + 2, resumed: returned + 3, went: true }]);
  expectFound('a paused job is left alone', (h, { second }) => pause(h, second), /was claimed while the job was paused/);
});

test('a job that is paused may be called so, and may be finalized as it is resumed', () => {
  const history = good();
  const { early, finalize } = history.named;
  const paused = { invoked: early.invoked - 1, paused: early.invoked - 1, changed: true };
  const end = finalize.returned + 1;
  history.pauses = [{ ...paused, resuming: early.returned + 1, resumed: early.returned + 1, went: true }];
  history.call(
    'c1',
    'claimBatch',
    {},
    { value: { claimed: false, reason: 'JOB_NOT_PROCESSING' }, invoked: early.invoked, returned: early.returned },
  );
  expect(broken(history)).toEqual([]);
  // The worker that ended the last batch found the job paused.
  finalize.value = false;
  expect(broken(history)).toContain('one finalizer');
  history.pauses.push({ invoked: finalize.invoked, paused: finalize.invoked, changed: true, resuming: end, resumed: end, went: true });
  expect(broken(history)).toEqual([]);
});

test('a read that misses a save, and one that sees what was never saved', () => {
  expectFound('reads', (h, { reread }) => (reread.value[0] = { index: 0 }), /record 0 was read as it was before a save/);
  expectFound('reads', (h, { reread }) => (reread.value[1].token = 9), /record 1 was read as no worker had saved it/);
  expectFound('reads', (h, { reread }) => reread.value.pop(), /the records of b0 were not read as stored/);
  const damage = (h, { end }) =>
    h.calls.push({ process: 'a', worker: 'a1', call: 'getJobState', invoked: end.invoked, returned: end.returned, value: null });
  expectFound('reads', damage, /a job was read that is not the one stored/);
});

test('errors that do not say what to do', () => {
  const failing =
    (error) =>
    (h, { notYet }) => {
      h.faultless = false;
      Object.assign(notYet, { value: undefined, error });
    };
  expectFound('errors', failing(unavailable('INTERNAL', false)), /failed with INTERNAL, retryable false/);
  expectFound('errors', failing(unavailable('CONNECTION_LOST', false)), /failed with CONNECTION_LOST, retryable false/);
  expectFound('errors', failing(unavailable('LEASE_LOST', false)), /tryFinalizeJob knows no lease/);
  expectFound('errors', (h, { late }) => (late.error.retryable = true), /failed with LEASE_LOST, retryable true/);
});

test('an error without a fault', () => {
  const damage = (h, { notYet }) => Object.assign(notYet, { value: undefined, error: unavailable('TIMEOUT') });
  expectFound('errors', damage, /failed with TIMEOUT, and nothing was in its way/);
});

test('a call that takes too long, and one that never returns', () => {
  expectFound('nothing hangs', (h, { end }) => (end.returned = end.invoked + 101), /a call took 101 ms, and 100 is the most/);
  expectFound('nothing hangs', (h, { end }) => forget(end), /a call never returned/);
});

test('what a killed or stopped process did not do is no hang, and what it did is', () => {
  const history = good();
  history.faultless = false;
  const { none, read } = history.named;
  forget(none);
  history.interruptions = [
    { process: 'a', at: none.invoked + 1 },
    { process: 'a', at: read.invoked + 1, until: read.invoked + 5_000 },
  ];
  read.returned = read.invoked + 5_050;
  expect(broken(history)).toEqual([]);
  read.returned = read.invoked + 5_200;
  expect(broken(history)).toEqual(['nothing hangs']);
  // The other process was not stopped.
  read.process = 'b';
  read.returned = read.invoked + 5_050;
  expect(broken(history)).toEqual(['nothing hangs']);
});

test('a process that ends by itself', () => {
  expectFound('no crash', (h) => (h.crashes = ['p1 ended with 134']), /p1 ended with 134/);
});

test('lines of several processes become calls, and a call becomes a line', () => {
  const calls = assemble([
    { process: 'p', n: 1, worker: 'p.0', call: 'claimBatch', at: 5 },
    { process: 'q', n: 1, worker: 'q.0', call: 'saveProcessedRecord', batchId: 'b', token: 3, index: 7, at: 2 },
    { process: 'p', n: 1, at: 9, error: unavailable('TIMEOUT') },
  ]);
  expect(calls.map(describe)).toEqual([
    '2.000–? q q.0: saveProcessedRecord b token 3 record 7 -> no reply',
    '5.000–9.000 p p.0: claimBatch -> TIMEOUT: of the test',
  ]);
});
