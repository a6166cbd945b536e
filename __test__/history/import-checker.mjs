// Whether a history of an import whose process was killed again and again is one that a correct store with `durability: 'batch'` could have produced. As
// `checker.mjs`, it knows nothing of the store but what its callers were told, and it is pure.
//
// One process works on the job at a time. Each begins with a reading: `getJobState`, then `records`. What a reading may show follows from the calls before it. A
// queued call may be lost with its process, but only together with all later ones on the job and its batches, and not if a call that waits for the queue
// returned after it was made.

/** The calls that wait until what was queued is committed; so does a `saveJobState` with any other status than PROCESSING. */
const FLUSHES = new Set(['getJobState', 'records', 'getProgress', 'close']);

const flushes = ({ call, status }) => FLUSHES.has(call) || (call === 'saveJobState' && status !== 'PROCESSING');
const answered = (call) => call.returned !== undefined && !call.error;

/**
 * Checks a history.
 *
 * @param {object} history
 * @param {object[]} history.calls As `assemble` of `checker.mjs` makes them, those of each process behind those of the one before it. `saveJobState` has its
 *   `status`, `totalRecords` and `batches`; `updateBatchState` its state; `saveProcessedRecord` its `index`, `batchId` and a `save` that no other one has.
 * @param {string[]} history.killed The processes that the test killed.
 * @param {string[]} history.crashes What became of processes that ended badly by themselves.
 * @param {{ batches: number, batchSize: number, failing: (index: number) => boolean }} history.plan
 * @param {{ job: object, records: object[], progress: object }} history.seen What is stored at the end, as the readings have it.
 * @returns {{ violations: { rule: string, message: string }[], facts: object }}
 */
export function checkImport(history) {
  const context = new Context(history);
  const violations = [];
  for (const [rule, find] of Object.entries(RULES)) {
    for (const message of find(context)) violations.push({ rule, message });
  }
  return { violations, facts: context.facts() };
}

class Context {
  constructor({ calls, killed, crashes, plan, seen }) {
    const order = new Map(calls.map((call, at) => [call, at]));
    const at = calls.length;
    Object.assign(this, { calls, killed: new Set(killed), crashes, plan, seen, at: (call) => order.get(call) });
    this.jobSaves = calls.filter(({ call }) => call === 'saveJobState');
    this.states = calls.filter(({ call }) => call === 'updateBatchState');
    this.saves = calls.filter(({ call }) => call === 'saveProcessedRecord');
    this.savesByMark = new Map(this.saves.map((save) => [save.save, save]));
    this.lastFlushes = new Map();
    for (const call of calls) if (flushes(call) && answered(call)) this.lastFlushes.set(call.process, order.get(call));
    const readings = calls.filter(({ call, returned }) => call === 'getJobState' && returned !== undefined);
    this.readings = [
      ...readings.map((call) => ({ at: order.get(call), process: call.process, job: call.value, records: this.recordsAfter(call) })),
      { at, process: 'the end', job: seen.job, records: seen.records },
    ];
    this.findPositions();
  }

  /** The records that a process read after the job. It may have been killed in between. */
  recordsAfter(reading) {
    return this.calls.find(({ call, process }) => call === 'records' && process === reading.process)?.value;
  }

  /** Whether a call is certainly committed when its process has ended: one that waits for it has returned. */
  isCommitted(call) {
    return this.at(call) <= (this.lastFlushes.get(call.process) ?? -1);
  }

  /** Finds for each reading the call whose list it shows: the first that fits and is not older than what must be there. */
  findPositions() {
    let seen = -1;
    for (const reading of this.readings) {
      const made = this.jobSaves.filter((save) => this.at(save) < reading.at);
      reading.due = made.findLastIndex((save) => this.isCommitted(save));
      reading.last = made.length - 1;
      reading.least = Math.max(seen, reading.due);
      const fits = made.map((save, place) => place).filter((place) => this.fits(reading, made, place));
      reading.position = fits.find((place) => place >= reading.least) ?? (reading.job ? undefined : -1);
      reading.oldest = fits[0];
      seen = Math.max(seen, reading.position ?? -1);
    }
  }

  /** Whether a reading shows what this call saved, with states that were set between it and the next. */
  fits({ job, at }, saves, place) {
    const { status, totalRecords, batches } = saves[place];
    if (!job || job.status !== status || job.totalRecords !== totalRecords || job.batches.length !== batches.length) return false;
    const [from, to] = [this.at(saves[place]), saves[place + 1] ? this.at(saves[place + 1]) : at];
    const states = this.states.filter((state) => this.at(state) > from && this.at(state) < to);
    const isOf = (batch, other) =>
      batch.status === other.status && batch.processedCount === other.processedCount && batch.failedCount === other.failedCount;
    return batches.every((saved, n) => {
      const batch = job.batches[n];
      if (batch.id !== saved.id || batch.index !== saved.index) return false;
      const set = states.filter(({ batchId }) => batchId === batch.id);
      return isOf(batch, saved) || set.some((state) => isOf(batch, state));
    });
  }

  facts() {
    const restores = this.readings.slice(0, -1);
    return {
      calls: this.calls.length,
      processes: new Set(this.calls.map(({ process }) => process)).size,
      kills: this.killed.size,
      restores: restores.filter(({ job }) => job).length,
      // Restores that found less than the process before had been told.
      lost: restores.filter(({ position, last }) => position !== undefined && position < last).length,
      // Restores that found a batch done.
      skipping: restores.filter(({ job }) => job?.batches.some(({ status }) => status === 'COMPLETED')).length,
      unanswered: this.calls.filter(({ returned }) => returned === undefined).length,
    };
  }
}

/** By name, each a generator of messages. */
const RULES = {
  /** A restore finds a list that was saved, none that must be replaced by then, and none that is older than one that was seen before. */
  *lists({ readings }) {
    for (const { process, job, position, oldest, due, least } of readings) {
      if (!job && least >= 0) yield `${process} found no job, and there was one`;
      if (job && position === undefined) {
        if (oldest === undefined) yield `${process} found a list that no call had saved`;
        else if (oldest < due) yield `${process} found the list of save ${oldest}, and save ${due} was committed`;
        else yield `${process} found the list of save ${oldest}, and save ${least} had been seen`;
      }
    }
  },

  /** A record that must be there is, and nothing that was never saved. */
  *records(context) {
    const { readings, saves, savesByMark, at } = context;
    for (const { process, at: place, records } of readings) {
      if (!records) continue;
      const stored = new Map(records.map((record) => [record.index, record]));
      if (stored.size < records.length) yield `${process} found a record twice`;
      for (const { index, save: mark, batchId } of records) {
        const save = savesByMark.get(mark);
        if (!save || at(save) > place || save.index !== index || save.batchId !== batchId)
          yield `${process} found record ${index} as no call had saved it`;
      }
      const last = new Map();
      for (const save of saves) if (at(save) < place && context.isCommitted(save)) last.set(save.index, save);
      for (const [index, save] of last) {
        const found = savesByMark.get(stored.get(index)?.save);
        if (!found) yield `${process} did not find record ${index}, which was committed`;
        else if (at(found) < at(save)) yield `${process} found record ${index} as it was before a save that was committed`;
      }
    }
  },

  /** A batch is COMPLETED only once its records are stored: they are not older than it. */
  *'completed batches have their records'({ readings, saves, savesByMark, at }) {
    for (const { process, job, records } of readings) {
      if (!job || !records) continue;
      const stored = new Map(records.map((record) => [record.index, record]));
      for (const batch of job.batches.filter(({ status }) => status === 'COMPLETED')) {
        for (const save of saves.filter(({ batchId }) => batchId === batch.id)) {
          const found = savesByMark.get(stored.get(save.index)?.save);
          if (!found || at(found) < at(save)) yield `${process} found batch ${batch.index} COMPLETED without record ${save.index}`;
        }
      }
    }
  },

  /** What was seen once is not undone. */
  *'nothing comes back'({ readings, savesByMark, at }) {
    const seen = new Map();
    for (const { process, records } of readings) {
      if (!records) continue;
      const stored = new Map(records.map((record) => [record.index, savesByMark.get(record.save)]));
      for (const [index, before] of seen) {
        const now = stored.get(index);
        if (!now || at(now) < at(before)) yield `${process} found record ${index} as it was before it was seen`;
      }
      for (const [index, save] of stored) if (save) seen.set(index, save);
    }
  },

  /** In the end everything is done, and once. */
  *'the end'({ seen: { job, records, progress }, plan }) {
    if (job?.status !== 'COMPLETED') return yield `the job is ${job?.status}`;
    const total = plan.batches * plan.batchSize;
    if (job.totalRecords !== total) yield `the job has ${job.totalRecords} records, and ${total} are due`;
    const done = job.batches.filter(({ status }) => status === 'COMPLETED');
    const stored = new Map(records.map((record) => [record.index, record]));
    let failed = 0;
    for (let index = 0; index < plan.batches; index++) {
      const [batch, ...others] = done.filter((other) => other.index === index);
      if (!batch || others.length > 0) yield `batch ${index} was completed ${batch ? others.length + 1 : 0} times`;
      const indexes = Array.from({ length: plan.batchSize }, (_, n) => index * plan.batchSize + n);
      const failing = indexes.filter(plan.failing).length;
      failed += failing;
      if (batch && (batch.failedCount !== failing || batch.processedCount !== plan.batchSize - failing)) {
        yield `batch ${index} counts ${batch.processedCount} + ${batch.failedCount} records, and ${plan.batchSize - failing} + ${failing} are due`;
      }
      for (const n of indexes) {
        if (!stored.has(n)) yield `record ${n} is missing`;
        else if (batch && stored.get(n).batchId !== batch.id) yield `record ${n} is not the one that its batch saved`;
      }
    }
    if (records.length !== total) yield `${records.length} records are stored, and ${total} are due`;
    const counts = { totalRecords: total, processedRecords: total - failed, failedRecords: failed, pendingRecords: 0, percentage: 100 };
    for (const [key, value] of Object.entries({ ...counts, currentBatch: plan.batches })) {
      if (progress[key] !== value) yield `getProgress says ${key} ${progress[key]}, and ${value} is due`;
    }
  },

  /** No call is refused, and each returns, unless its process was killed. */
  *answers({ calls, killed }) {
    for (const { process, call, returned, error } of calls) {
      if (error) yield `${call} of ${process} failed: ${error.code}: ${error.message}`;
      if (returned === undefined && !killed.has(process)) yield `${call} of ${process} never returned`;
    }
  },

  /** No process ends but as it should. */
  *'no crash'({ crashes }) {
    yield* crashes;
  },
};
