'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { durationOption } = require('./arguments.js');
const { Connection } = require('./connection.js');
const { EXIT, UNREACHABLE, UsageError, notFound } = require('./exit.js');
const { interruptible } = require('./interrupt.js');
const { pauseAfter } = require('./pace.js');
const { stateOf } = require('./progress.js');
const { progressLine } = require('./progress-line.js');
const { spoken } = require('./spoken.js');
const { clean, count, duration, plural, quoted } = require('./text.js');

const EXITS = { COMPLETED: EXIT.OK, FAILED: EXIT.FAILED, ABORTED: EXIT.NOT_FOUND };

const LONGEST_INTERVAL_MS = 3_600_000;
/** A look that takes longer is said: the store may repeat it for much longer. */
const SLOW_MS = 5_000;
const NO_ANSWER = { code: 'NO_ANSWER', message: `the database has not answered for ${duration(SLOW_MS)}` };
/** The rate is that of the last half minute. */
const RATE_MS = 30_000;
/** A terminal's line is drawn as often, so that it shows how old it is while the database doesn't answer. */
const REDRAW_MS = 1_000;

module.exports = {
  usage: 'watch <job> [--interval 1s]',
  summary: 'Follows a job to its end, and ends with its result',
  words: ['job'],
  options: { interval: { type: 'string' } },
  help: `
At a terminal it draws a progress bar (NO_COLOR and TERM=dumb are respected), elsewhere it prints
a line of JSON for each look. It ends with 0 where the job is COMPLETED, 1 where it is FAILED, 3
where it is ABORTED or was deleted. It goes on while the database can't be reached for a while.
Ctrl-C ends the watching, and not the job.

  --interval DURATION   the time between two looks, 1s by default, 1h at most; where looking takes long
                        it is more, up to 10s
  --json                lines of JSON at a terminal too
`,

  async run({ values, words: [jobId], stdout }) {
    const interval = durationOption(values, 'interval') ?? 1_000;
    if (interval < 100 || interval > LONGEST_INTERVAL_MS) throw new UsageError('--interval must be from 100ms to 1h');
    const connection = await Connection.of(values);
    return connection.use(async (store, { clockSkewMs }) => {
      const display = displayOn(stdout, values.json === true);
      return interruptible(
        () => display.stop(),
        async () => {
          try {
            return await follow({ store, jobId, interval, display, clockSkewMs });
          } finally {
            display.stop();
          }
        },
      );
    });
  },
};

async function follow({ store, jobId, interval, display, clockSkewMs }) {
  const rate = new Rate();
  let seen = false;
  let tookBefore = 0;
  for (;;) {
    const began = performance.now();
    let took = 0;
    // Where stdout has ended, the next look's line finds that out.
    const slow = setTimeout(() => Promise.resolve(display.trouble(NO_ANSWER)).catch(() => {}), SLOW_MS);
    try {
      const state = await stateOf(store, jobId).finally(() => clearTimeout(slow));
      took = performance.now() - began;
      if (state === null) {
        if (!seen) throw notFound(`there is no job ${quoted(jobId)}`);
        await display.gone(jobId);
        return EXIT.NOT_FOUND;
      }
      seen = true;
      const look = lookOf(state, rate, Date.now() + clockSkewMs);
      const exit = EXITS[look.status];
      await (exit === undefined ? display.show(look) : display.end(look));
      if (exit !== undefined) return exit;
    } catch (error) {
      // Before the first look, the store has tried for as long as it does.
      if (!seen || !isPassing(error)) throw error;
      await display.trouble(error);
    }
    await sleep(pauseAfter(took, tookBefore, interval));
    tookBefore = took;
  }
}

/** Whether the next look may succeed. Refused logins and missing rights stay. */
const isPassing = (error) => error.retryable === true || (UNREACHABLE.has(error.code) && error.retryable !== false);

/** What one look at a job shows. */
function lookOf({ job, progress, batches }, rate, now) {
  const { totalRecords, processedRecords, failedRecords, pendingRecords, percentage, currentBatch, totalBatches } = progress;
  const { id: jobId, status, startedAt, completedAt } = job;
  const look = {
    jobId,
    status,
    totalRecords,
    processedRecords,
    failedRecords,
    pendingRecords,
    percentage,
    batches: batches ?? { total: totalBatches, completed: currentBatch },
  };
  const perSecond = rate.of(processedRecords + failedRecords, status === 'PROCESSING');
  if (perSecond !== undefined) look.recordsPerSecond = Math.round(perSecond * 10) / 10;
  if (perSecond > 0 && pendingRecords > 0 && completedAt === undefined) look.remainingMs = Math.round((pendingRecords / perSecond) * 1_000);
  if (startedAt !== undefined) look.elapsedMs = Math.max((completedAt ?? Math.round(now)) - startedAt, 0);
  return look;
}

/** Records per second, over the looks of the last half minute. */
class Rate {
  #looks = [];

  of(done, isRunning) {
    // A pause, or records that are done again, begin a new measurement.
    if (!isRunning || done < (this.#looks.at(-1)?.done ?? 0)) this.#looks = [];
    const now = performance.now();
    this.#looks.push({ now, done });
    while (this.#looks.length > 2 && now - this.#looks[1].now >= RATE_MS) this.#looks.shift();
    const [first] = this.#looks;
    return isRunning && now > first.now ? ((done - first.done) / (now - first.now)) * 1_000 : undefined;
  }
}

function displayOn(stdout, asJson) {
  if (asJson || !stdout.isTerminal) return new Lines(stdout);
  return process.env.TERM === 'dumb' ? new PlainText(stdout) : new Bar();
}

/** Lines of JSON, for programs. */
class Lines {
  constructor(stdout) {
    this.stdout = stdout;
  }

  async show(look) {
    await this.stdout.json({ time: new Date().toISOString(), ...look });
    await this.stdout.flush();
  }

  end(look) {
    return this.show(look);
  }

  gone(jobId) {
    return this.show({ jobId, status: 'DELETED' });
  }

  trouble({ code, message }) {
    return this.show({ error: { code, message: spoken(message) } });
  }

  stop() {}
}

/** A line where something changed, for a terminal that can't move its cursor. */
class PlainText {
  #last;
  #said = new Set();

  constructor(stdout) {
    this.stdout = stdout;
  }

  async #say(text) {
    if (text === this.#last) return;
    this.#last = text;
    await this.stdout.line(text);
    await this.stdout.flush();
  }

  show(look) {
    this.#said.clear();
    return this.#say(`${clean(look.jobId)} ${look.status} ${look.percentage} %, ${recordsOf(look)}`);
  }

  end(look) {
    return this.#say(result(look));
  }

  gone(jobId) {
    return this.#say(goneText(jobId));
  }

  async trouble(error) {
    if (this.#said.has(error.code)) return;
    this.#said.add(error.code);
    await this.#say(troubleText(error));
  }

  stop() {}
}

/** A bar that is drawn again in its line. The cursor is never hidden, so that whatever ends the process leaves the terminal as it was. */
class Bar {
  #look;
  #at;
  #trouble;
  /** The codes of the reasons that stand above the bar. */
  #said = new Set();
  #timer = setInterval(() => this.#draw(), REDRAW_MS);
  #onResize = () => this.#draw();
  #isDrawn = false;

  constructor() {
    this.#timer.unref();
    process.stdout.on('resize', this.#onResize);
  }

  #draw() {
    if (this.#look === undefined) return;
    const line = progressLine(this.#look, {
      width: process.stdout.columns || 80,
      ageMs: performance.now() - this.#at,
      trouble: this.#trouble,
      hasColors: !process.env.NO_COLOR && process.stdout.hasColors?.() === true,
      hasBlocks: /utf-?8/i.test(process.env.LC_ALL || process.env.LC_CTYPE || process.env.LANG || ''),
    });
    process.stdout.write(`\r${line}\u001b[K`);
    this.#isDrawn = true;
  }

  #print(text) {
    process.stdout.write(`${this.#isDrawn ? '\r\u001b[K' : ''}${text}\n`);
    this.#isDrawn = false;
    this.#look = undefined;
  }

  show(look) {
    this.#look = look;
    this.#at = performance.now();
    this.#trouble = undefined;
    this.#said.clear();
    this.#draw();
  }

  end(look) {
    this.#trouble = undefined;
    this.#print(result(look));
  }

  gone(jobId) {
    this.#print(goneText(jobId));
  }

  trouble(error) {
    // Each reason stands above the bar once; the bar says that there is one.
    if (!this.#said.has(error.code)) {
      this.#said.add(error.code);
      const look = this.#look;
      this.#print(troubleText(error));
      this.#look = look;
    }
    this.#trouble = error;
    this.#draw();
  }

  stop() {
    clearInterval(this.#timer);
    process.stdout.off('resize', this.#onResize);
    if (this.#isDrawn) process.stdout.write('\n');
    this.#isDrawn = false;
  }
}

const recordsOf = ({ totalRecords, processedRecords, failedRecords }) =>
  `${count(processedRecords + failedRecords)} of ${plural(totalRecords, 'record')}, ${count(failedRecords)} failed`;

function result(look) {
  const took = look.elapsedMs === undefined ? '' : ` after ${duration(look.elapsedMs)}`;
  return `Job ${clean(look.jobId)} is ${look.status}${took}: ${recordsOf(look)}.`;
}

const goneText = (jobId) => `Job ${clean(jobId)} was deleted.`;
const troubleText = ({ code, message }) =>
  code === NO_ANSWER.code ? `No answer for ${duration(SLOW_MS)}, still waiting.` : `No answer, trying again: ${spoken(message)}`;
