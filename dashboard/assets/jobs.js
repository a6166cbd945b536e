// The page of the jobs.

import {
  Failure,
  act,
  ask,
  byId,
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
  sentenceOf,
  setAttribute,
  setText,
  showFilter,
  showStatus,
  showTime,
} from './page.js';

const DAY_MS = 86_400_000;
let next;

const refresh = keepFresh((signal) => {
  const query = parameters();
  return read('jobs', { status: query.get('status'), after: query.get('after'), afterStartedAt: query.get('afterStartedAt') }, signal);
}, show);

function show(answer) {
  const query = parameters();
  const status = query.get('status') ?? undefined;
  next = answer.next;

  setText(byId('database'), answer.database);
  byId('actions').hidden = !answer.allowed.actions;
  const all = Object.values(answer.counts).reduce((sum, jobs) => sum + jobs, 0);
  const choices = Object.entries(answer.counts).filter(([name, jobs]) => jobs > 0 || name === status);
  const labels = [['', `All ${number(all)}`], ...choices.map(([name, jobs]) => [name, `${name} ${number(jobs)}`])];
  showFilter(byId('filter'), labels, status, (value) => {
    goTo({ status: value || undefined, after: undefined, afterStartedAt: undefined }, refresh);
  });

  const { PENDING, PROCESSING, PAUSED } = answer.openBatches;
  const oldest = answer.oldestClaimMs === undefined ? '' : `; the oldest claim was made or renewed ${duration(answer.oldestClaimMs)} ago`;
  const open = `${count(PENDING, 'batch', 'batches')} to claim, ${number(PROCESSING)} being worked on${PAUSED > 0 ? `, ${number(PAUSED)} paused` : ''}${oldest}`;
  setText(
    byId('open'),
    `${PENDING + PROCESSING + PAUSED > 0 ? open : 'No batch of a distributed job is open'}${counted(answer.countsAgeMs)}.`,
  );

  patch(byId('jobs'), answer.jobs, { key: (job) => job.id, create: makeRow, update: (row, job) => fillRow(row, job, answer.now) });
  byId('none').hidden = answer.jobs.length > 0;
  setText(byId('none'), status ? `There is no job that is ${status}.` : 'There is no job.');
  enable(byId('first'), query.has('after'));
  enable(byId('next'), next !== undefined);
}

function makeRow(job) {
  const bar = make('progress', { max: '1', 'aria-label': 'Batches done' });
  return make(
    'tr',
    {},
    make('th', { scope: 'row' }, make('a', { class: 'id', href: jobAddress(job.id) }, job.id)),
    make('td', {}, make('span')),
    make('td', { class: 'number' }),
    make('td', {}, bar, make('span')),
    make('td', {}, make('time')),
    make('td', { class: 'number' }),
  );
}

function fillRow(row, job, now) {
  const [, status, rows, batches, started, took] = row.children;
  showStatus(status.firstChild, job.status);
  setText(rows, number(job.totalRecords));
  const [bar, text] = batches.children;
  bar.hidden = !job.batches;
  if (job.batches) {
    const { total, COMPLETED, FAILED } = job.batches;
    const done = COMPLETED + FAILED;
    setAttribute(bar, 'value', total > 0 ? done / total : 0);
    setText(text, `${number(done)} of ${number(total)}, ${percent(done, total)}`);
  } else setText(text, job.distributed ? '' : 'not distributed');
  showTime(started.firstChild, job.startedAt);
  const end = job.completedAt ?? (job.status === 'PROCESSING' || job.status === 'PAUSED' ? now : undefined);
  setText(took, job.startedAt === undefined || end === undefined ? '–' : duration(end - job.startedAt));
}

addEventListener('popstate', refresh);
onPress(byId('first'), () => goTo({ after: undefined, afterStartedAt: undefined }, refresh));
onPress(byId('next'), () => goTo({ after: next.after, afterStartedAt: next.afterStartedAt }, refresh));
byId('purge').addEventListener('click', purge);

function purge() {
  const days = make('input', { type: 'number', min: '0', max: '36500', step: '1', value: '30', required: '' });
  const look = make('button', { type: 'button' }, 'Show what would be deleted');
  const result = make('p', { role: 'status' });
  const olderThanMs = () => Math.round(Number(days.value) * DAY_MS);

  const dialog = ask({
    title: 'Purge finished jobs',
    question:
      'Deletes jobs that are COMPLETED, ABORTED or FAILED, with their batches and records, and what an interrupted retry left. This can’t be undone.',
    fields: [make('label', {}, 'Ended more than ', days, ' days ago'), make('p', {}, look), result],
    label: 'Delete them',
    danger: true,
    ready: false,
    run: async (isOpen) => {
      // The field may be changed while this runs.
      const given = { olderThanMs: olderThanMs() };
      const sum = { jobs: 0, records: 0, skipped: 0 };
      const deleted = () => `Deleted ${count(sum.jobs, 'job')} with ${count(sum.records, 'record')}`;
      try {
        for (;;) {
          const { jobs, records, skipped, more } = await act('purge', given);
          sum.jobs += jobs;
          sum.records += records;
          sum.skipped = skipped;
          setText(result, `Deleted ${count(sum.jobs, 'job')} so far…`);
          if (!more) break;
          // The jobs of a request that is under way are deleted, whatever the page does. No further one is sent.
          if (!isOpen()) return `${deleted()} before it was cancelled.`;
        }
      } catch (error) {
        if (sum.jobs === 0 || isOpen()) throw error;
        throw new Failure(`${deleted()} before it failed: ${sentenceOf(error)}`);
      } finally {
        refresh();
      }
      const kept = sum.skipped > 0 ? `, and kept ${count(sum.skipped, 'job')} that a worker holds a batch of` : '';
      return `${deleted()}${kept}.`;
    },
  });
  // What is deleted is what was shown.
  days.addEventListener('input', () => {
    dialog.setReady(false);
    setText(result, '');
  });
  look.addEventListener('click', async () => {
    if (!days.reportValidity()) return;
    setText(result, 'Looking…');
    try {
      const { jobs, batches, records, orphans, skipped } = await act('purge', { olderThanMs: olderThanMs(), dryRun: true });
      const parts = [`${count(jobs, 'job')} with ${count(batches, 'batch', 'batches')} and ${count(records, 'record')} would be deleted.`];
      if (orphans > 0) parts.push(`Among them is what ${count(orphans, 'job')} that no longer exist left behind.`);
      if (skipped > 0) parts.push(`${count(skipped, 'job')} would be kept, because a worker holds a batch.`);
      setText(result, parts.join(' '));
      dialog.setReady(jobs > 0 || orphans > 0);
    } catch (error) {
      setText(result, sentenceOf(error));
    }
  });
}
