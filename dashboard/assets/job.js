// The page of one job.

import {
  Failure,
  act,
  ask,
  byId,
  checkbox,
  count,
  counted,
  duration,
  enable,
  goTo,
  jobAddress,
  keepFresh,
  make,
  number,
  onPress,
  parameters,
  patch,
  percent,
  read,
  say,
  sentenceOf,
  setAttribute,
  setText,
  showFilter,
  showStatus,
  showTime,
} from './page.js';

const FINAL = new Set(['COMPLETED', 'ABORTED', 'FAILED']);
const RATE_OVER_MS = 60_000;
/** What the keys of a job's configuration are called here. */
const CONFIG = {
  batchSize: 'Rows in a batch',
  maxConcurrentBatches: 'Batches at once',
  continueOnError: 'Goes on after errors',
  maxRetries: 'Retries',
  retryOf: 'Retry of',
};

const id = parameters().get('id') ?? '';
let next;
let seen;
/** How many rows were done when, of the last minute. */
let samples = [];

const refresh = keepFresh((signal) => {
  if (id === '') throw new Failure('The address names no job.');
  const query = parameters();
  return read('job', { id, status: query.get('status'), after: query.get('after') }, signal);
}, show);

document.title = `Job ${id}`.trim();
setText(byId('id'), id);

function show(answer) {
  seen = answer;
  next = answer.next;
  const query = parameters();
  const status = query.get('status') ?? undefined;
  setText(byId('database'), answer.database);
  showStatus(byId('status'), answer.job.status);
  showProgress(answer);
  showActions(answer);

  const of = (name) => (answer.counts ? ` ${number(name === '' ? answer.counts.total : answer.counts[name])}` : '');
  const names = ['PENDING', 'PROCESSING', 'PAUSED', 'COMPLETED', 'FAILED'];
  const choices = names.filter((name) => !answer.counts || answer.counts[name] > 0 || name === status || name === 'PROCESSING');
  showFilter(byId('filter'), [['', `All${of('')}`], ...choices.map((name) => [name, `${name}${of(name)}`])], status, (value) =>
    goTo({ status: value || undefined, after: undefined }, refresh),
  );

  patch(byId('batches'), answer.batches, { key: (batch) => batch.index, create: makeBatch, update: fillBatch });
  const stale = answer.batches.filter((batch) => batch.stale).length;
  const rule = `A claim that is older than ${duration(answer.staleAfterMs)} is marked as stale.`;
  setText(byId('stale'), stale > 0 ? `${count(stale, 'batch', 'batches')} of these may have lost the worker. ${rule}` : rule);
  byId('none').hidden = answer.batches.length > 0;
  setText(byId('none'), status ? `No batch is ${status}${query.has('after') ? ' from here on' : ''}.` : 'No batch is here.');
  enable(byId('first'), query.has('after'));
  enable(byId('next'), next !== undefined);

  const { showRecords } = answer.allowed;
  byId('rows-hidden').hidden = showRecords;
  byId('rows-shown').hidden = !showRecords;
  if (showRecords) for (const type of ['csv', 'ndjson']) setAttribute(byId(type), 'href', `failed.${type}?${new URLSearchParams({ id })}`);
}

function showProgress({ job, progress, counts, countsAgeMs, now }) {
  const total = counts ? counts.total : progress.totalBatches;
  const failedBatches = counts ? counts.FAILED : 0;
  const done = counts ? counts.COMPLETED : progress.currentBatch;
  const held = counts ? counts.PROCESSING + counts.PAUSED : 0;
  const ended = done + failedBatches;
  const bar = byId('progress');
  setAttribute(bar, 'aria-valuenow', total > 0 ? Math.floor((100 * ended) / total) : 0);
  setAttribute(bar, 'aria-valuetext', `${number(ended)} of ${count(total, 'batch', 'batches')}, ${percent(ended, total)}`);
  let x = 0;
  for (const [name, batches] of [
    ['done', done],
    ['failed', failedBatches],
    ['held', held],
  ]) {
    const width = total > 0 ? (100 * batches) / total : 0;
    const part = bar.querySelector(`.${name}`);
    setAttribute(part, 'x', x);
    setAttribute(part, 'width', width);
    x += width;
  }

  const rows = progress.processedRecords + progress.failedRecords;
  const rate = rateOf(job, rows, progress);
  const left = Math.max(0, job.totalRecords - rows);
  const end = job.completedAt ?? now;
  const facts = [
    ['Batches done', `${number(ended)} of ${number(total)} (${percent(ended, total)})${counted(counts ? countsAgeMs : progress.ageMs)}`],
    ['Rows done', `${number(rows)} of ${number(job.totalRecords)}${counted(progress.ageMs)}`],
    ['Rows failed', number(progress.failedRecords)],
    ['Rate', rate === undefined ? '–' : `${rate < 10 ? rate.toFixed(1) : number(rate)} rows/s`],
    ['Remaining', job.status === 'PROCESSING' && rate > 0 && left > 0 ? `about ${duration((1_000 * left) / rate)}` : '–'],
    [
      job.completedAt === undefined && !FINAL.has(job.status) ? 'Runs for' : 'Took',
      job.startedAt === undefined ? '–' : duration(end - job.startedAt),
    ],
    ['Started', job.startedAt],
    ['Ended', job.completedAt],
    ['Worked on', job.distributed ? 'by workers' : 'by one process'],
    ...Object.entries(job.config).map(([key, value]) => [
      CONFIG[key] ?? key,
      value === true ? 'yes' : value === false ? 'no' : String(value),
    ]),
  ];
  patch(byId('facts'), facts, {
    key: ([name]) => name.replace(/^(?:Runs for|Took)$/, 'time'),
    create: ([name]) =>
      make(
        'div',
        {},
        make('dt'),
        make('dd', {}, ...(name === 'Started' || name === 'Ended' ? [make('time')] : name === CONFIG.retryOf ? [make('a')] : [])),
      ),
    update: (fact, [name, value]) => {
      const [term, description] = fact.children;
      setText(term, name);
      if (name === 'Started' || name === 'Ended') showTime(description.firstChild, value);
      else if (name === CONFIG.retryOf) {
        setText(description.firstChild, value);
        setAttribute(description.firstChild, 'href', jobAddress(value));
      } else setText(description, value);
    },
  });
}

/** Rows per second: of the last minute while the job runs, as far as this page has seen it; else of all its time. */
function rateOf(job, rows, progress) {
  const overall = progress.elapsedMs > 0 && rows > 0 ? (1_000 * rows) / progress.elapsedMs : undefined;
  if (job.status !== 'PROCESSING') {
    samples = [];
    return FINAL.has(job.status) ? overall : undefined;
  }
  const at = performance.now() - progress.ageMs;
  // A count that is shown again is no new one.
  if (samples.length === 0 || at - samples.at(-1).at > 500) samples.push({ at, rows });
  samples = samples.filter((sample) => at - sample.at <= RATE_OVER_MS);
  const first = samples[0];
  const last = samples.at(-1);
  return last.at - first.at >= 5_000 ? (1_000 * Math.max(0, last.rows - first.rows)) / (last.at - first.at) : overall;
}

function makeBatch() {
  const cells = Array.from({ length: 6 }, (_, i) => make('td', { class: i === 0 || i > 3 ? undefined : 'number' }));
  cells[0].append(make('span'));
  cells[4].setAttribute('class', 'code');
  return make('tr', {}, make('th', { scope: 'row', class: 'number' }), ...cells);
}

function fillBatch(row, batch) {
  const [index, status, range, processed, failed, holder, claim] = row.children;
  setText(index, number(batch.index));
  setAttribute(index, 'title', batch.id);
  showStatus(status.firstChild, batch.status);
  const { recordStartIndex: from, recordEndIndex: to } = batch;
  setText(range, from === undefined || to === undefined ? '–' : `${number(from)}–${number(to)}`);
  setText(processed, number(batch.processedCount));
  setText(failed, number(batch.failedCount));
  setText(holder, batch.workerId ?? '–');
  const age = batch.claimAgeMs === undefined ? (batch.stale ? 'never' : '–') : `${duration(batch.claimAgeMs)} ago`;
  setText(claim, batch.stale ? `${age} – stale` : age);
  setAttribute(claim, 'class', batch.stale && 'stale');
}

onPress(byId('first'), () => goTo({ after: undefined }, refresh));
onPress(byId('next'), () => goTo({ after: next }, refresh));
addEventListener('popstate', refresh);

// Errors and failed rows are read on request: they cost more than a look.

let counting = false;
byId('count').addEventListener('click', async () => {
  if (counting) return;
  counting = true;
  setText(byId('counted'), 'Counting…');
  try {
    showErrors(await read('errors', { id }));
  } catch (error) {
    setText(byId('counted'), sentenceOf(error));
  } finally {
    counting = false;
  }
});

function showErrors({ ageMs, rows, complete, limit, groups, more }) {
  const over = complete
    ? `Of all ${count(rows, 'failed row')}${counted(ageMs)}.`
    : `Of the first ${number(limit)} failed rows${counted(ageMs)}; there are more.`;
  setText(
    byId('counted'),
    rows === 0
      ? `No row has failed${counted(ageMs)}.`
      : `${over}${more > 0 ? ` ${count(more, 'rarer kind')} of errors are left out.` : ''}`,
  );
  byId('errors-table').hidden = groups.length === 0;
  const codeOf = ({ code, severity }) => `${code || '–'}${severity === 'warning' ? ' (warning)' : ''}`;
  const rowsOf = groups.map((group) => [number(group.count), group.field || '–', codeOf(group), group.example ?? 'hidden']);
  byId('errors').replaceChildren(...rowsOf.map((cells) => makeCells(cells, ['number', 'code', 'code', 'text'])));
}

let nextRow;
onPress(byId('show'), () => showRows());
onPress(byId('rows-first'), () => showRows());
onPress(byId('rows-next'), () => showRows(nextRow));

let reading = false;
async function showRows(from) {
  if (reading) return;
  reading = true;
  setText(byId('rows-said'), 'Reading…');
  try {
    const { rows, next } = await read('rows', { id, from });
    nextRow = next;
    byId('rows-table').hidden = rows.length === 0;
    byId('rows-pages').hidden = rows.length === 0;
    const makeStatus = (status) => make('span', { class: 'status', 'data-status': status }, status);
    const cellsOf = ({ index, status, errors, raw }) => [number(index), makeStatus(status), errors, raw];
    byId('rows').replaceChildren(...rows.map((row) => makeCells(cellsOf(row), ['number', '', 'text', 'text code'])));
    setText(
      byId('rows-said'),
      rows.length === 0 ? 'No row has failed.' : `${count(rows.length, 'row')}, from row ${number(rows[0].index)} on.`,
    );
    enable(byId('rows-first'), from !== undefined);
    enable(byId('rows-next'), next !== undefined);
  } catch (error) {
    setText(byId('rows-said'), sentenceOf(error));
  } finally {
    reading = false;
  }
}

function makeCells([first, ...rest], [firstClass, ...classes]) {
  const head = make('th', { scope: 'row', class: firstClass }, first);
  return make('tr', {}, head, ...rest.map((cell, i) => make('td', { class: classes[i] }, cell)));
}

// Actions, where the server allows them. Which of them apply depends on the job.

const ACTIONS = [
  { name: 'pause', label: 'Pause', applies: ({ status, distributed }) => distributed && status === 'PROCESSING', open: pause },
  { name: 'resume', label: 'Resume', applies: ({ status, distributed }) => distributed && status === 'PAUSED', open: resume },
  {
    name: 'reclaim',
    label: 'Reclaim stale batches',
    applies: ({ status, distributed }) => distributed && !FINAL.has(status),
    open: reclaim,
  },
  { name: 'retry', label: 'Retry failed rows', applies: ({ status }) => FINAL.has(status), open: retry },
  { name: 'abort', label: 'Abort', danger: true, applies: ({ status }) => !FINAL.has(status), open: abort },
];

function showActions({ allowed, job }) {
  byId('actions').hidden = !allowed.actions;
  if (!allowed.actions) return;
  patch(
    byId('actions'),
    ACTIONS.filter(({ applies }) => applies(job)),
    {
      key: ({ name }) => name,
      create: ({ label, danger, open }) => {
        const button = make('button', { type: 'button', class: danger && 'danger' }, `${label}…`);
        button.addEventListener('click', () => open(seen.job));
        return button;
      },
      update: () => {},
    },
  );
}

/** Acts, and reads again: a request that failed may have taken effect too. */
async function change(name, body) {
  try {
    return await act(name, { id, ...body });
  } finally {
    refresh();
  }
}

function pause() {
  ask({
    title: 'Pause this job?',
    question: 'No batch is claimed any more. Batches that are claimed go on, and are saved.',
    label: 'Pause',
    run: async () => ((await change('pause')).changed ? 'The job is paused.' : 'Nothing changed: the job was not PROCESSING any more.'),
  });
}

function resume() {
  ask({
    title: 'Resume this job?',
    question:
      'Workers that still ask for batches get them. A worker that has ended must be started again. Where all batches are done, the job ends.',
    label: 'Resume',
    run: async () => ((await change('resume')).changed ? 'The job goes on.' : 'Nothing changed: the job was not PAUSED any more.'),
  });
}

function reclaim() {
  ask({
    title: 'Reclaim stale batches?',
    question: `Takes batches from workers that have not renewed their claims for ${duration(seen.staleAfterMs)}, so that others can claim them. A job whose batches are all done ends.`,
    label: 'Reclaim',
    run: async () => `${count((await change('reclaim')).count, 'batch was', 'batches were')} reclaimed.`,
  });
}

function retry() {
  const { box, field } = checkbox('invalid rows too');
  ask({
    title: 'Retry the failed rows?',
    question: 'Makes a new distributed job of the failed rows as they came. Workers must be told its id. This job stays as it is.',
    fields: [field],
    label: 'Make the job',
    run: async () => {
      const { made } = await change('retry', { invalid: box.checked });
      if (made === null) return 'There is no such row, so no job was made.';
      const link = make('a', { href: jobAddress(made.jobId), class: 'id' }, made.jobId);
      return [`${count(made.totalRecords, 'row')} in ${count(made.totalBatches, 'batch', 'batches')}: job `, link, '.'];
    },
  });
}

function abort({ distributed }) {
  const { box, field } = distributed
    ? checkbox('Take the claimed batches from their workers at once')
    : checkbox('The process that runs this job is gone');
  const { setReady } = ask({
    title: 'Abort this job?',
    question: distributed
      ? 'It becomes ABORTED, and no batch is claimed any more. Claimed batches may still be completed. This can’t be undone.'
      : 'One process runs this job. Where it lives, it overwrites what is done here. This can’t be undone.',
    fields: [field],
    label: 'Abort the job',
    danger: true,
    ready: distributed,
    run: async () => {
      const { changed } = await change('abort', distributed ? { now: box.checked } : { force: box.checked });
      return changed ? 'The job is aborted.' : 'Nothing changed: the job had ended.';
    },
  });
  if (!distributed) box.addEventListener('change', () => setReady(box.checked));
}

addEventListener('pageshow', (event) => {
  // From the browser's cache of pages: what was said belongs to another time.
  if (event.persisted) say('');
});
