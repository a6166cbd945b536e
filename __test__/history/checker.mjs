// Whether a history of calls on one job is one that a correct store could have produced. In the manner of Jepsen's checkers (jepsen.io): it
// knows nothing of the store but what its callers were told and when, and what is stored at the end. Pure: no clock, no files, no database.
//
// A call is known by when it was invoked and when it returned, so its effect lies somewhere in between. Where the outcome is unknown (the
// process was killed, the reply was lost), the effect may lie anywhere after the invocation, or nowhere. Each rule says something only where
// every placement of the effects breaks the contract, so that what it reports is never an accident of timing.

/**
 * @typedef {object} Call One call of one worker, with what came of it.
 * @property {string} process The process that made it: another name for each process, also for one that takes over a worker's id.
 * @property {string} worker
 * @property {string} call The method.
 * @property {string} [batchId]
 * @property {number} [token] The fencing token that the call carries.
 * @property {number} [index] The record's index.
 * @property {string} [status] What `updateBatchState` sets.
 * @property {boolean} [queued] Of a save: its store has `durability: 'batch'`, so that it is answered once it is queued.
 * @property {number} invoked Milliseconds by a clock that all processes share, as is `returned`.
 * @property {number} [returned] Absent where it never did.
 * @property {any} [value] What it resolved with, or what the history needs of it: of `getJobState`, the `totalRecords` and, where a watcher reads, which
 *   batches are `completed`, by their place in the list; of `getBatchRecords`, of each record its `index` and its mark (`token`, `worker`).
 * @property {{ code: string, retryable: boolean, message: string }} [error] What it rejected with.
 *
 * @typedef {object} Batch
 * @property {string} id
 * @property {number[]} indexes Its records.
 * @property {'COMPLETED' | 'FAILED'} due The state that its workers give it.
 *
 * @typedef {object} Seen What is stored once everybody is done.
 * @property {object} job `getJobState`
 * @property {object} progress `getProgress`
 * @property {object} status `getDistributedStatus`
 * @property {Record<string, object[]>} records `getBatchRecords` of each batch, by its id.
 * @property {{ id: string, status: string, version: number, processedCount: number, failedCount: number }[]} [rows] Of the batches, where
 *   they can be read past the store.
 * @property {{ id: string, status: string, processedCount: number, failedCount: number }[]} [copy] The job's JSON column, likewise.
 *
 * @typedef {object} Pause
 * @property {number} invoked When `pauseJob` was called.
 * @property {number} paused When that returned.
 * @property {boolean} changed Whether it was true.
 * @property {number} resuming When `resumeJob` was called, which finalizes a job that is complete.
 * @property {number} resumed When that returned.
 * @property {boolean} went Whether it was true.
 *
 * @typedef {object} Conditions
 * @property {number} leaseMs The timeout that stale batches are reclaimed with.
 * @property {number} longestMs No call may take longer.
 * @property {boolean} [faultless] Nothing happened to a process, a connection or a server: every outcome is known.
 * @property {{ process: string, at: number, until?: number }[]} [interruptions] Processes that the test killed, or stopped for a while (`until`).
 * @property {Pause[]} [pauses] When the job was paused and resumed.
 * @property {string[]} [crashes] What became of processes that ended badly by themselves.
 */

/** How far two readings of time may be apart: the database rounds to milliseconds, and its clock may be adjusted. */
const SLACK_MS = 50;

/** Rejections after which the call may have taken effect. A claim and a finalization that could not connect sent nothing. */
const IN_DOUBT = new Set(['CONNECTION_LOST', 'TIMEOUT']);
const FENCED = new Set(['saveProcessedRecord', 'updateBatchState', 'renewBatch']);

const final = (status) => status === 'COMPLETED' || status === 'FAILED';

/** Puts together what a recorder wrote: one line as a call is invoked, one when it has returned. */
export function assemble(lines) {
  const calls = new Map();
  for (const { process, n, at, ...rest } of lines) {
    const key = `${process} ${n}`;
    if ('call' in rest) calls.set(key, { process, n, ...rest, invoked: at });
    else Object.assign(calls.get(key), rest, { returned: at });
  }
  return [...calls.values()].sort((a, b) => a.invoked - b.invoked);
}

/** A call as a line for people. */
export function describe({ process, worker, call, batchId, token, index, status, invoked, returned, value, error }) {
  const parts = [call, batchId, token !== undefined && `token ${token}`, index !== undefined && `record ${index}`, status];
  const what = parts.filter(Boolean).join(' ');
  const outcome = error ? `${error.code}: ${error.message}` : returned === undefined ? 'no reply' : JSON.stringify(value ?? 'done');
  return `${invoked.toFixed(3)}–${returned?.toFixed(3) ?? '?'} ${process} ${worker}: ${what} -> ${outcome}`;
}

/**
 * Checks a history.
 *
 * @param {{ calls: Call[], batches: Batch[], seen: Seen } & Conditions} history
 * @returns {{ violations: { rule: string, message: string, calls: string[] }[], facts: object }} `facts` says what happened, in numbers, for
 *   a test that has to know that a fault has hit something.
 */
export function check(history) {
  const context = new Context(history);
  const violations = [];
  for (const [rule, find] of Object.entries(RULES)) {
    for (const [message, ...calls] of find(context)) {
      violations.push({ rule, message, calls: calls.map(describe) });
    }
  }
  return { violations, facts: context.facts() };
}

class Context {
  constructor({ calls, batches, seen, interruptions = [], crashes = [], pauses = [], ...conditions }) {
    Object.assign(this, { calls, batches, seen, interruptions, crashes, pauses, ...conditions });
    this.rows = seen.rows && new Map(seen.rows.map((row) => [row.id, row]));
    this.claims = calls
      .filter((call) => call.call === 'claimBatch' && call.value?.claimed)
      .map((call) => ({ ...call, batchId: call.value.reservation.batchId, token: call.value.reservation.token }));
    this.reclaims = this.of('reclaimStaleBatches');
    this.releases = this.of('releaseBatch');
    this.finalizations = this.of('tryFinalizeJob');
    this.ends = this.of('updateBatchState').filter(({ status }) => final(status));
    this.fenced = calls.filter((call) => FENCED.has(call.call));
    this.recordReads = this.of('getBatchRecords').filter(answered);
    const kinds = ['claims', 'ends', 'releases', 'fenced', 'recordReads'];
    this.byBatch = new Map(batches.map(({ id }) => [id, Object.fromEntries(kinds.map((kind) => [kind, []]))]));
    for (const kind of kinds) {
      for (const call of this[kind]) this.byBatch.get(call.batchId)?.[kind].push(call);
    }
    for (const { claims } of this.byBatch.values()) claims.sort((a, b) => a.token - b.token);
    for (const [batchId, batch] of this.byBatch) batch.looks = this.looksAt(batchId, batch.recordReads);
    const watched = this.of('getJobState').filter((call) => answered(call) && call.value?.completed);
    this.watched = watched.map((call) => ({ call, completed: new Set(call.value.completed) }));
  }

  /** What was seen of a batch's records, by calls and at the end: of each, the token of the claim that it is of. */
  looksAt(batchId, reads) {
    const stored = (this.seen.records[batchId] ?? []).map((record) => ({ index: record.index, ...mark(record) }));
    const last = { process: 'the end', worker: '', call: 'getBatchRecords', batchId, invoked: Infinity, returned: Infinity, value: stored };
    return [...reads, last].map((call) => ({ call, tokens: new Map(call.value.map(({ index, token }) => [index, token])) }));
  }

  of(name) {
    return this.calls.filter(({ call }) => call === name);
  }

  /** When the lease of a claim was last known to begin again, at the earliest: its effect can't lie before the invocation. */
  leaseFrom(batchId, token) {
    const { claims, fenced } = this.byBatch.get(batchId);
    const renewals = fenced.filter((call) => call.call === 'renewBatch' && call.token === token && call.value === true);
    const begun = [...claims.filter((claim) => claim.token === token), ...renewals].map(({ invoked }) => invoked);
    return begun.length > 0 ? Math.max(...begun) : undefined;
  }

  /** Whether a claim may have been taken from its worker, or given back by it, before a moment. */
  mayHaveEnded(batchId, token, before) {
    const released = this.byBatch
      .get(batchId)
      .releases.some((call) => call.token === token && call.invoked < before && !refused(call, 'LEASE_LOST'));
    const from = this.leaseFrom(batchId, token);
    const stale = from !== undefined && before - from >= this.leaseMs - SLACK_MS;
    return released || (stale && this.reclaims.some((call) => call.invoked < before && tookSome(call)));
  }

  /** Whether a fenced call certainly took effect: its answer says so, but of a save that was only queued it says nothing, and a look that shows it does. */
  tookEffect(call) {
    if (!answered(call) || call.value === false) return false;
    return !call.queued || this.byBatch.get(call.batchId).looks.some(({ tokens }) => tokens.get(call.index) === call.token);
  }

  /**
   * Whether a save was certainly written before a moment. A queued one may die with its process, or with its claim. But it is written before any later call on
   * the job takes effect, and one that takes effect by the same claim shows that the claim had not been lost.
   */
  isWritten(save, before) {
    if (!answered(save)) return false;
    if (!save.queued) return save.returned < before;
    const shows = (call) => call.token === save.token && call.call !== 'saveProcessedRecord' && call.invoked >= save.returned;
    return this.byBatch.get(save.batchId).fenced.some((call) => shows(call) && call.returned < before && this.tookEffect(call));
  }

  /** Saves that were answered once they were queued, and then not there: what `durability: 'batch'` may cost. */
  *lostSaves() {
    for (const { fenced, looks } of this.byBatch.values()) {
      for (const save of fenced) {
        const isGone = ({ call, tokens }) => call.invoked > save.returned && (tokens.get(save.index) ?? 0) < save.token;
        if (save.queued && answered(save) && looks.some(isGone)) yield save;
      }
    }
  }

  facts() {
    const failures = {};
    for (const { error } of this.calls) if (error) failures[error.code] = (failures[error.code] ?? 0) + 1;
    const durations = this.calls.filter(({ returned }) => returned !== undefined).map((call) => call.returned - call.invoked);
    const longest = this.calls.reduce((most, call) => (took(call) > took(most) ? call : most), this.calls[0]);
    return {
      calls: this.calls.length,
      failures,
      failed: this.calls.filter((call) => call.error && call.error.code !== 'LEASE_LOST' && !(this.faultless && gaveUp(call))).length,
      unanswered: this.calls.length - durations.length,
      claims: this.claims.length,
      lostClaims: this.seen.rows ? lostClaims(this) : undefined,
      lostSaves: [...this.lostSaves()].length,
      cutEnds: this.ends.filter(({ returned }) => returned === undefined).length,
      watched: this.watched.length,
      reclaimed: this.reclaims.reduce((sum, { value }) => sum + (value ?? 0), 0),
      released: this.releases.filter(answered).length,
      finalizers: this.finalizations.filter(({ value }) => value === true).length,
      longest: longest && describe(longest),
      longestMs: longest && Math.round(took(longest)),
    };
  }
}

const answered = (call) => call.returned !== undefined && !call.error;
const refused = (call, code) => call.error?.code === code;
const inDoubt = (call) => call.returned === undefined || IN_DOUBT.has(call.error?.code);
const tookSome = (call) => !answered(call) || call.value > 0;
/** A claim may find the last batches locked by others for longer than it waits, though nothing is wrong. */
const gaveUp = (call) => call.call === 'claimBatch' && call.error?.code === 'CONFLICT';
const took = (call) => (call?.returned ?? call?.invoked ?? 0) - (call?.invoked ?? 0);

/** Each claim, release and reclaim of a batch adds 1 to its version. */
const claimsMade = ({ version }) => Math.ceil(version / 2);
const reopenings = ({ version }) => Math.floor(version / 2);

/** Claims that were made and that no worker knows of. */
function lostClaims({ rows, claims }) {
  return [...rows.values()].reduce((sum, row) => sum + claimsMade(row), 0) - claims.length;
}

/** A record's mark: which claim saved it. */
const mark = (record) => (record?.parsed?.worker === undefined ? undefined : record.parsed);

/** By name, each a generator of violations: a message, and the calls that show it. */
const RULES = {
  /** Tokens of one batch grow with each claim, and none comes twice. */
  *'tokens grow'({ byBatch }) {
    for (const [batchId, { claims }] of byBatch) {
      for (const [at, claim] of claims.entries()) {
        if (claim.token % 2 === 0) yield [`a claim on ${batchId} has a token that only a batch that is given back has`, claim];
        for (const later of claims.slice(at + 1)) {
          if (claim.token === later.token) yield [`two claims on ${batchId} have token ${claim.token}`, claim, later];
          else if (later.returned < claim.invoked) yield [`a claim on ${batchId} has a lower token than one before it`, later, claim];
        }
      }
    }
  },

  /** No two live claims on a batch: one is taken from a worker that keeps silent for as long as a lease, or given back, and not otherwise. */
  *'one live claim'(context) {
    for (const [batchId, { claims }] of context.byBatch) {
      for (const [at, next] of claims.entries()) {
        const held = claims[at - 1];
        if (held && held.token !== next.token && !context.mayHaveEnded(batchId, held.token, next.returned)) {
          yield [`${batchId} was claimed again while the claim with token ${held.token} was live`, held, next];
        }
      }
    }
  },

  /** No fenced call goes through once it could be known that its claim is over. */
  *fencing(context) {
    for (const [batchId, { claims, releases, fenced }] of context.byBatch) {
      for (const call of fenced) {
        if (call.token === undefined || !context.tookEffect(call)) continue;
        const before = (other) => other.returned !== undefined && other.returned < call.invoked;
        const newer = claims.find((claim) => claim.token > call.token && before(claim));
        const given = releases.find((release) => release.token === call.token && answered(release) && before(release));
        const lost = fenced.find((other) => other.token === call.token && refused(other, 'LEASE_LOST') && before(other));
        const over = newer ?? given ?? lost;
        if (over) yield [`a call with token ${call.token} on ${batchId} went through after that claim was over`, over, call];
      }
    }
  },

  /** No record changes to one of a claim that was over before: what is queued under a claim is written while that lasts, or never. */
  *'a claim that is over changes nothing'({ byBatch }) {
    for (const [batchId, { claims, looks }] of byBatch) {
      for (const later of looks) {
        for (const [index, token] of later.tokens) {
          const newer = token !== undefined && claims.find((claim) => claim.token > token);
          if (!newer) continue;
          const isOther = ({ call, tokens }) =>
            call.invoked > newer.returned && call.returned < later.call.invoked && tokens.get(index) !== token;
          const earlier = looks.find(isOther);
          if (earlier) {
            const message = `record ${index} of ${batchId} became that of token ${token} after token ${newer.token} was claimed`;
            yield [message, newer, earlier.call, later.call];
          }
        }
      }
    }
  },

  /** A rejection with LEASE_LOST is due only where the lease was lost. */
  *'leases are lost only where they are'(context) {
    for (const [batchId, { ends, fenced, releases }] of context.byBatch) {
      const version = context.rows?.get(batchId)?.version;
      for (const call of [...fenced, ...releases]) {
        if (!refused(call, 'LEASE_LOST')) continue;
        const end = ends.find((other) => other.token === call.token && answered(other));
        if (end) yield [`token ${call.token} of ${batchId} was refused, and it is the one that finished the batch`, call, end];
        else if (version === call.token) yield [`token ${call.token} of ${batchId} was refused, and it is still the last`, call];
        else if (!context.mayHaveEnded(batchId, call.token, call.returned)) {
          yield [`token ${call.token} of ${batchId} was refused while the claim was live`, call];
        }
      }
    }
  },

  /** A batch is finished once, by its last claim, and not opened again. */
  *'a finished batch stays'({ byBatch }) {
    for (const [batchId, { claims, ends }] of byBatch) {
      const done = ends.filter(answered);
      for (const end of done) {
        const other = done.find(({ token }) => token > end.token);
        if (other) yield [`${batchId} was finished by two claims`, end, other];
        const reopened = claims.find((claim) => claim.token > end.token || claim.invoked > end.returned);
        if (reopened) yield [`${batchId} was claimed after it was finished`, end, reopened];
      }
    }
  },

  /** Claims in the database are those that the workers were told of, and those whose reply was lost. What was given back was given back by a call. */
  *'claims add up'(context) {
    const { rows, byBatch, calls, reclaims, releases, faultless } = context;
    if (!rows) return;
    for (const [batchId, { claims }] of byBatch) {
      const row = rows.get(batchId);
      if (row && claims.length > claimsMade(row)) yield [`${batchId} has version ${row.version}, and more claims were told`, ...claims];
    }
    const lost = lostClaims(context);
    const doubtful = calls.filter((call) => call.call === 'claimBatch' && inDoubt(call));
    if (lost > doubtful.length) yield [`${lost} claims were made that no worker was told of, and ${doubtful.length} had no known outcome`];

    const opened = [...rows.values()].reduce((sum, row) => sum + reopenings(row), 0);
    const taken = reclaims.reduce((sum, { value }) => sum + (value ?? 0), 0);
    if (taken > opened) yield [`${taken} batches were reported as reclaimed, and ${opened} were opened again`];
    const given = releases.filter(answered);
    // One whose lease was over may have come too late, and says nothing of it where another worker has the batch.
    const certain = given.filter(
      (call) => call.returned - (context.leaseFrom(call.batchId, call.token) ?? -Infinity) < context.leaseMs - SLACK_MS,
    );
    if (faultless && (taken + certain.length > opened || taken + given.length < opened))
      yield [`${taken} batches were reclaimed and ${given.length} released, and ${opened} opened again`];
  },

  /** Every batch ends as it is due, and every record is the work of the claim that finished its batch. */
  *'every record is done'({ batches, byBatch, calls, seen, rows }) {
    const saves = new Map();
    for (const call of calls) {
      if (call.call !== 'saveProcessedRecord' || refused(call, 'LEASE_LOST')) continue;
      saves.set(`${call.index} ${call.token} ${call.worker}`, call);
    }
    const states = new Map(seen.job?.batches.map((batch) => [batch.id, batch]));
    for (const { id, indexes, due } of batches) {
      const { claims, ends } = byBatch.get(id);
      const status = states.get(id)?.status;
      if (status !== due) yield [`${id} is ${status} at the end, and ${due} is due`, ...ends];

      const records = new Map(seen.records[id]?.map((record) => [record.index, record]));
      const tokens = new Set();
      for (const index of indexes) {
        const record = records.get(index);
        const by = mark(record);
        if (!by || !['processed', 'failed'].includes(record.status)) {
          yield [`record ${index} of ${id} was never processed: it is ${JSON.stringify(record)}`];
          continue;
        }
        tokens.add(by.token);
        if (!claims.some((claim) => claim.token === by.token && claim.worker === by.worker)) {
          yield [`record ${index} of ${id} is of a claim that no worker has: ${JSON.stringify(by)}`];
        } else if (!saves.has(`${index} ${by.token} ${by.worker}`)) {
          yield [`record ${index} of ${id} is one that no worker saved: ${JSON.stringify(by)}`];
        }
      }
      if (records.size !== indexes.length) yield [`${id} has ${records.size} records, and ${indexes.length} are due`];

      const by = [...tokens];
      if (by.length > 1) yield [`the records of ${id} are of several claims: ${by.join(', ')}`, ...claims];
      const finished = ends.filter((end) => !refused(end, 'LEASE_LOST') && end.status === due);
      if (by.length === 1 && !finished.some(({ token }) => token === by[0])) {
        yield [`the records of ${id} are of token ${by[0]}, which did not finish it`, ...ends];
      }
      const last = rows?.get(id)?.version;
      if (rows && by.length === 1 && last !== by[0]) yield [`${id} has version ${last}, and its records are of token ${by[0]}`, ...ends];
      const told = finished.find((end) => answered(end) && by.length === 1 && end.token !== by[0]);
      if (told) yield [`the claim that finished ${id} is not the one that its records are of`, told];
    }
  },

  /**
   * A batch is COMPLETED once its holder is told so, with all the records that the holder saved before, which may have been queued until then. So it is where
   * the holder was not told, and it is seen COMPLETED.
   */
  *'a completed batch has its records'({ batches, byBatch, watched, seen }) {
    const atEnd = new Map(seen.job?.batches.map(({ id, status }) => [id, status]));
    for (const [place, { id }] of batches.entries()) {
      const { ends, fenced, looks } = byBatch.get(id);
      const told = ends.filter((end) => end.status === 'COMPLETED' && answered(end));
      for (const end of told) {
        const without = watched.find(({ call, completed }) => call.invoked > end.returned && !completed.has(place));
        if (without) yield [`${id} was COMPLETED, and then seen as if it were not`, end, { ...without.call, value: 'without it' }];
        if (atEnd.get(id) !== 'COMPLETED') yield [`${id} was COMPLETED, and is ${atEnd.get(id)} at the end`, end];
      }

      const sights = watched.filter(({ completed }) => completed.has(place)).map(({ call }) => call);
      const since = Math.min(...[...told, ...sights].map(({ returned }) => returned));
      const mayHaveEnded = (end) => end.status === 'COMPLETED' && !refused(end, 'LEASE_LOST') && end.invoked < since;
      const isHolder = ({ token }) => told.length === 0 || told.some((end) => end.token === token);
      const holders = ends.filter((end) => mayHaveEnded(end) && isHolder(end));
      for (const { call, tokens } of looks) {
        const isAfter = call.invoked > since || (call.invoked === Infinity && atEnd.get(id) === 'COMPLETED');
        if (!isAfter) continue;
        const isMissing = (save, end) =>
          save.call === 'saveProcessedRecord' &&
          save.token === end.token &&
          answered(save) &&
          save.returned <= end.invoked &&
          tokens.get(save.index) !== save.token;
        const missing = holders.map((end) => fenced.find((save) => isMissing(save, end)));
        // Where no holder was told, any of them may have ended it.
        if (holders.length === 0) yield [`${id} was COMPLETED by no holder`, ...sights.slice(0, 1)];
        else if (!missing.includes(undefined)) {
          const message = `${id} was COMPLETED without record ${missing[0].index} of its holder`;
          yield [message, missing[0], ...holders, { ...call, value: call.value.map(({ index, token }) => [index, token]) }];
        }
      }
    }
  },

  /** The job is finalized once, when nothing is open any more, in the state that is due. */
  *'one finalizer'({ finalizations, reclaims, pauses, claims, ends, batches, seen, leaseMs }) {
    const won = finalizations.filter(({ value }) => value === true);
    if (won.length > 1) yield [`${won.length} callers were told that they finalized the job`, ...won];

    const due = batches.some((batch) => batch.due === 'FAILED') ? 'FAILED' : 'COMPLETED';
    if (seen.job?.status !== due) yield [`the job is ${seen.job?.status}, and ${due} is due`, ...won];
    if (typeof seen.job?.completedAt !== 'number') yield ['the job has no completedAt'];

    for (const winner of won) {
      const claim = claims.find(({ invoked }) => invoked > winner.returned);
      if (claim) yield ['a batch was claimed after the job was finalized', winner, claim];
      for (const { id } of batches) {
        const done = ends.some((end) => end.batchId === id && end.invoked < winner.returned && !refused(end, 'LEASE_LOST'));
        if (!done) yield [`the job was finalized before ${id} was finished`, winner];
      }
    }

    // No worker needs to know where a reply was lost, or where it was reclaimStaleBatches: that steps in where the newest claim is stale.
    const claimed = Math.max(...claims.map(({ invoked }) => invoked), -Infinity);
    const lost = finalizations.some(inDoubt);
    const lastEnd = Math.max(...ends.filter((end) => !refused(end, 'LEASE_LOST')).map(({ invoked }) => invoked), -Infinity);
    const stepped = reclaims.some(
      (call) => call.returned === undefined || (call.returned - claimed >= leaseMs - SLACK_MS && call.returned > lastEnd),
    );
    const resumed = pauses.some((pause) => pause.went && pause.resumed > lastEnd);
    if (won.length === 0 && !lost && !stepped && !resumed) yield ['no worker was told that the job was finalized'];
  },

  /** What the store counts is what is stored. */
  *counts({ batches, seen }) {
    const { job, progress, status, records } = seen;
    const count = (list, wanted) => list.filter((record) => record.status === wanted).length;
    for (const batch of job?.batches ?? []) {
      const own = records[batch.id] ?? [];
      const [processed, failed] = [count(own, 'processed'), count(own, 'failed')];
      if (batch.processedCount !== processed || batch.failedCount !== failed) {
        yield [`${batch.id} counts ${batch.processedCount} + ${batch.failedCount} records, and holds ${processed} + ${failed}`];
      }
    }
    const all = Object.values(records).flat();
    const expected = {
      totalRecords: batches.reduce((sum, { indexes }) => sum + indexes.length, 0),
      processedRecords: count(all, 'processed'),
      failedRecords: count(all, 'failed'),
      pendingRecords: 0,
      percentage: 100,
      currentBatch: batches.filter(({ due }) => due === 'COMPLETED').length,
      totalBatches: batches.length,
    };
    for (const [key, value] of Object.entries(expected)) {
      if (progress[key] !== value) yield [`getProgress says ${key} ${progress[key]}, and ${value} is due`];
    }
    const statuses = {
      totalBatches: batches.length,
      completedBatches: expected.currentBatch,
      failedBatches: batches.length - expected.currentBatch,
      processingBatches: 0,
      pendingBatches: 0,
      isComplete: true,
    };
    for (const [key, value] of Object.entries(statuses)) {
      if (status[key] !== value) yield [`getDistributedStatus says ${key} ${status[key]}, and ${value} is due`];
    }
  },

  /** The copy of the batches in the job's JSON is that of the rows. */
  *'two copies'({ seen, rows }) {
    if (!rows) return;
    const state = (batch) => batch && `${batch.status} ${batch.processedCount} ${batch.failedCount}`;
    const copies = new Map(seen.copy.map((batch) => [batch.id, batch]));
    if (copies.size !== rows.size) yield [`the job lists ${copies.size} batches, and there are ${rows.size} rows`];
    for (const [id, row] of rows) {
      if (state(copies.get(id)) !== state(row)) yield [`${id} is ${state(copies.get(id))} in the job's list, and ${state(row)} in its row`];
    }
  },

  /** A claim is refused only for a reason that holds. */
  *'nothing is left behind'({ calls, byBatch, ends, batches, pauses }) {
    const attempts = calls.filter((call) => call.call === 'claimBatch' && inDoubt(call));
    const first = new Map();
    for (const [id, { claims }] of byBatch) first.set(id, Math.min(...claims.map(({ invoked }) => invoked)));
    const firstEnd = new Map();
    for (const end of ends.filter((call) => !refused(call, 'LEASE_LOST')))
      firstEnd.set(end.batchId, Math.min(firstEnd.get(end.batchId) ?? Infinity, end.invoked));

    for (const call of calls) {
      if (call.call !== 'claimBatch' || call.value?.claimed !== false) continue;
      const { reason } = call.value;
      if (reason === 'JOB_NOT_FOUND') yield ['the job was not found', call];
      const mayBePaused = pauses.some((pause) => pause.invoked < call.returned && call.invoked < pause.resumed);
      if (reason === 'JOB_NOT_PROCESSING' && !mayBePaused) {
        const open = batches.find(({ id }) => (firstEnd.get(id) ?? Infinity) > call.returned);
        if (open) yield [`the job was called final while ${open.id} was open`, call];
      }
      if (reason === 'NO_PENDING_BATCHES') {
        // Each attempt whose outcome is unknown may have taken one.
        const untouched = batches.filter(({ id }) => first.get(id) > call.returned);
        const possible = attempts.filter(({ invoked }) => invoked < call.returned).length;
        if (untouched.length > possible) yield [`no batch was called pending before ${untouched[0].id} was ever claimed`, call];
      }
    }
  },

  /** Nothing is claimed of a job that is paused. */
  *'a paused job is left alone'({ claims, pauses }) {
    for (const { changed, paused, resuming } of pauses) {
      const claim = changed && claims.find(({ invoked, returned }) => invoked > paused && returned < resuming);
      if (claim) yield ['a batch was claimed while the job was paused', claim];
    }
  },

  /** A read sees what was saved before it, and nothing that was never saved. */
  *reads(context) {
    const { calls, batches, byBatch } = context;
    const indexes = new Map(batches.map((batch) => [batch.id, batch.indexes]));
    const total = batches.reduce((sum, batch) => sum + batch.indexes.length, 0);
    const read = calls.filter(answered);
    for (const call of read) {
      if (call.call === 'getJobState' && call.value?.totalRecords !== total) yield ['a job was read that is not the one stored', call];
      if (call.call !== 'getBatchRecords') continue;
      const due = indexes.get(call.batchId);
      if (call.value.map(({ index }) => index).join() !== due.join())
        yield [`the records of ${call.batchId} were not read as stored`, call];
      const saves = byBatch.get(call.batchId).fenced.filter((other) => other.call === 'saveProcessedRecord');
      for (const { index, token, worker } of call.value) {
        const own = saves.filter((save) => save.index === index);
        const known =
          token === undefined || own.some((save) => save.token === token && save.worker === worker && save.invoked < call.returned);
        if (!known) yield [`record ${index} was read as no worker had saved it: ${worker}, token ${token}`, call];
        const newer = own.find((save) => save.token > (token ?? 0) && context.isWritten(save, call.invoked));
        if (newer) yield [`record ${index} was read as it was before a save`, newer, call];
      }
    }
  },

  /** Every call takes effect, or rejects with what says that the same call may succeed later; LEASE_LOST says that it may not. */
  *errors({ calls, faultless }) {
    for (const call of calls) {
      if (!call.error) continue;
      const { code, retryable } = call.error;
      if (code === 'LEASE_LOST' ? retryable : !retryable) yield [`a call failed with ${code}, retryable ${retryable}`, call];
      if (code === 'LEASE_LOST' && !FENCED.has(call.call) && call.call !== 'releaseBatch') yield [`${call.call} knows no lease`, call];
      if (faultless && code !== 'LEASE_LOST' && !gaveUp(call)) yield [`a call failed with ${code}, and nothing was in its way`, call];
    }
  },

  /** Nothing hangs: each call returns in its time, unless its process was killed or stopped. */
  *'nothing hangs'({ calls, interruptions, longestMs }) {
    for (const call of calls) {
      const own = interruptions.filter(({ process }) => process === call.process);
      if (call.returned === undefined) {
        if (!own.some(({ at, until }) => until === undefined && at >= call.invoked)) yield ['a call never returned', call];
        continue;
      }
      const stopped = own
        .filter(({ until }) => until !== undefined)
        .reduce((sum, { at, until }) => sum + Math.max(0, Math.min(until, call.returned) - Math.max(at, call.invoked)), 0);
      const ms = took(call) - stopped;
      if (ms > longestMs) yield [`a call took ${Math.round(ms)} ms, and ${longestMs} is the most`, call];
    }
  },

  /** No process ends but as it should. */
  *'no crash'({ crashes }) {
    for (const crash of crashes) yield [crash];
  },
};
