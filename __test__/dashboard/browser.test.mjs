// Guarantees of the dashboard in a real browser. Each page that is opened fails its test where anything is written to the console as an error or a warning, where
// the content security policy is violated, or where another host is asked for something.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ARGUMENTS, findChromium } from '../../scripts/chromium.mjs';
import { StateStoreError } from '../../index.js';
import { databasesWith } from '../support/databases.mjs';
import { makeBatch, makeJob, makeLocalJob, makeRecord, newId } from '../support/fixtures.mjs';
import { claim, complete, prepare } from '../support/suite.mjs';
import { storeOn } from '../support/store.mjs';
import { serve } from './serve.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const executablePath = findChromium();
const database = databasesWith('raw')[0];

if (!executablePath && process.env.CI) {
  test('the dashboard in a browser', () => expect.fail('there is no Chromium: node scripts/chromium.mjs installs it'));
} else if (!executablePath) {
  test.skip('[not run: there is no Chromium; node scripts/chromium.mjs installs it]', () => {});
} else if (!database) {
  test.skip('[not run: this run has no database that can be written past the store]', () => {});
} else {
  describe(database.name, inBrowser);
}

function inBrowser() {
  let browser;
  let own;
  let store;
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
    own = await database.create();
    store = storeOn(own.url);
    await store.initialize();
  });
  afterAll(async () => {
    await browser?.close();
    await store?.close();
    await own?.drop();
  });

  let opened = [];
  afterEach(async () => {
    const problems = opened.flatMap(({ found }) => found);
    await Promise.all(opened.map(({ context }) => context.close()));
    opened = [];
    expect(problems).toEqual([]);
  });

  /** A new window. `clock: true` stops the page's time: `page.clock` moves it. */
  async function open(url, { colorScheme = 'light', clock = false, expected = [], ...rest } = {}) {
    const context = await browser.newContext({ colorScheme, ...rest });
    const page = await context.newPage();
    const found = [];
    opened.push({ context, found });
    const problem = (text) => {
      if (!expected.some((pattern) => pattern.test(text))) found.push(text);
    };
    page.on('console', (message) => {
      if (['error', 'warning', 'assert'].includes(message.type())) problem(`console: ${message.text()}`);
    });
    page.on('pageerror', (error) => problem(`error: ${error.stack}`));
    page.on('dialog', (dialog) => {
      problem(`dialog: ${dialog.message()}`);
      return dialog.dismiss();
    });
    page.on('request', (request) => {
      if (new URL(request.url()).origin !== new URL(url).origin) problem(`request: ${request.url()}`);
    });
    await page.addInitScript(() => {
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
        console.error(`CSP: ${violatedDirective} ${blockedURI}`),
      );
    });
    if (clock) {
      await page.clock.install();
      await page.clock.pauseAt(Date.now() + 3_600_000);
    }
    await page.goto(url);
    await read(page);
    return page;
  }

  /** Until the page has read its data for the first time. */
  const read = (page) => page.waitForFunction(() => document.getElementById('seen').textContent.startsWith('Seen'));

  /** Makes the page read again without a touch of mouse or keyboard, and waits until it has. */
  async function refresh(page) {
    const answered = page.waitForResponse((response) => response.url().includes('/api/job') && response.request().method() === 'GET');
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await (await answered).finished();
    // The answer is shown in a task of the page.
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
  }

  const texts = (page, selector) => page.locator(selector).allTextContents();
  const until = (assertion) => expect.poll(assertion, { timeout: 60_000 });
  const jobUrl = (url, id) => `${url}job?${new URLSearchParams({ id })}`;

  async function violations(page) {
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, { preload: false }));
    expect(found.passes.length).toBeGreaterThan(10);
    return found.violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
  }

  /** A job in the middle of its work: a batch is done, two are held, of which one is stale. */
  async function makeRunning(fields) {
    const job = makeJob(6, fields);
    await prepare(store, job);
    await claim(store, job.id, 'worker-1');
    await own.query('update "batchactions_batches" set "claimedAt" = "claimedAt" - 7200000 where "jobId" = ?', [job.id]);
    await claim(store, job.id, 'worker-2');
    await complete(store, job.id, (await claim(store, job.id, 'worker-3')).batchId);
    return job;
  }

  async function makeFailed(records) {
    const job = makeJob(1, { size: records.length });
    await store.saveJobState(job);
    const { batchId } = await claim(store, job.id, 'worker-1');
    await store.saveBatchRecords(job.id, batchId, records);
    await complete(store, job.id, batchId);
    await store.tryFinalizeJob(job.id);
    return job.id;
  }

  const invalid = (index, fields) =>
    makeRecord(index, { status: 'invalid', errors: [{ field: 'email', code: 'REQUIRED', message: 'email is missing' }], ...fields });

  describe('the page of the jobs', () => {
    test('lists jobs newest first, filters them, pages through them, and goes back', async () => {
      const begin = 4_000_000_000_000;
      const ids = [];
      for (let i = 0; i < 60; i++) {
        const job = makeJob(1, { startedAt: begin + i, ...(i % 6 === 0 && { status: 'ABORTED' }) });
        await store.saveJobState(job);
        ids.unshift(job.id);
      }
      const page = await open(await serve(store));
      expect(await texts(page, '#jobs th')).toEqual(ids.slice(0, 50));
      await page.click('#next');
      await until(async () => (await texts(page, '#jobs th')).slice(0, 10)).toEqual(ids.slice(50));
      await page.goBack();
      await until(() => texts(page, '#jobs th')).toEqual(ids.slice(0, 50));
      await page.click('#filter a:has-text("ABORTED")');
      await until(async () => (await texts(page, '#jobs th')).length).toBe(10);
      expect(new Set(await texts(page, '#jobs .status'))).toEqual(new Set(['ABORTED']));
      expect(await page.getAttribute('#filter a:has-text("ABORTED")', 'aria-current')).toBe('true');
      await page.reload();
      await read(page);
      expect(await texts(page, '#jobs th')).toHaveLength(10);
      await page.click('#jobs a >> nth=0');
      await page.waitForURL(/job\?id=/);
      for (const id of ids) await store.deleteJob(id);
    });
  });

  describe('the page of a job', () => {
    test('shows progress, holders and ages of claims, and marks what is stale', async () => {
      const { id } = await makeRunning();
      const page = await open(jobUrl(await serve(store), id));
      expect(await page.title()).toBe(`Job ${id}`);
      expect(await page.textContent('#status')).toBe('PROCESSING');
      expect(await page.getAttribute('#progress', 'aria-valuenow')).toBe('16');
      expect(await page.getAttribute('#progress', 'aria-valuetext')).toBe('1 of 6 batches, 16.7%');
      const rows = await page.$$eval('#batches tr', (found) => found.map((row) => [...row.children].map(({ textContent }) => textContent)));
      expect(rows.map((cells) => [cells[0], cells[1], cells[2], cells[5]])).toEqual([
        ['0', 'PROCESSING', '0–9', 'worker-1'],
        ['1', 'PROCESSING', '10–19', 'worker-2'],
        ['2', 'COMPLETED', '20–29', 'worker-3'],
        ...[3, 4, 5].map((i) => [String(i), 'PENDING', `${i}0–${i}9`, '–']),
      ]);
      expect(rows[0][6]).toMatch(/^2 h(?: \d+ min)? ago – stale$/);
      expect(rows[1][6]).toMatch(/ s ago$/);
      expect(await page.textContent('#stale')).toMatch(/^1 batch of these/);
      await page.click('#filter a:has-text("PENDING")');
      await until(() => texts(page, '#batches th')).toEqual(['3', '4', '5']);
    });

    test('a job that one process works on has its batches too', async () => {
      const job = makeLocalJob(3);
      await store.saveJobState(job);
      const page = await open(jobUrl(await serve(store), job.id));
      expect(await texts(page, '#batches .status')).toEqual(['PENDING', 'PENDING', 'PENDING']);
      expect(await page.textContent('#facts')).toContain('by one process');
    });

    test('an unknown job is said in a sentence', async () => {
      const url = await serve(store);
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(jobUrl(url, 'nowhere'));
      await until(() => page.textContent('#trouble')).toBe('There is no job "nowhere". (NOT_FOUND)');
      await context.close();
    });

    test('an address without an id is said in a sentence', async () => {
      const url = await serve(store);
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(`${url}job`);
      await until(() => page.textContent('#trouble')).toBe('The address names no job.');
      await context.close();
    });

    test('errors and failed rows come on request, and can be downloaded', async () => {
      const id = await makeFailed([
        invalid(0, { raw: { email: '' } }),
        invalid(1),
        makeRecord(2, {
          status: 'failed',
          errors: [{ field: 'email', code: 'REQUIRED', message: 'email is empty', severity: 'warning' }],
          processingError: 'no rate',
        }),
      ]);
      const page = await open(jobUrl(await serve(store, { showRecords: true }), id));
      await page.click('#count');
      await until(() => page.textContent('#counted')).toBe('Of all 3 failed rows.');
      expect(await texts(page, '#errors tr')).toEqual([
        '2emailREQUIREDemail is missing',
        '1emailREQUIRED (warning)email is empty',
        '1–Processing: no rateno rate',
      ]);
      await page.click('#show');
      await until(() => texts(page, '#rows th')).toEqual(['0', '1', '2']);
      expect(await page.textContent('#rows tr >> nth=0')).toBe('0invalidemail: email is missing (REQUIRED){"email":""}');
      for (const [link, suffix, lines] of [
        ['#csv', 'csv', 5],
        ['#ndjson', 'ndjson', 4],
      ]) {
        const [download] = await Promise.all([page.waitForEvent('download'), page.click(link)]);
        expect(download.suggestedFilename()).toBe(`failed-${id}.${suffix}`);
        expect(readFileSync(await download.path(), 'utf8').split('\n')).toHaveLength(lines);
      }
    });

    test('the first 10,000 failed rows are counted, and the page says so', async () => {
      const stub = Object.assign(Object.create(store), {
        async *records() {
          for (let i = 0; i < 10_001; i++) yield invalid(i);
        },
      });
      bind(stub, store);
      const id = await makeFailed([invalid(0)]);
      const page = await open(jobUrl(await serve(stub), id));
      await page.click('#count');
      await until(() => page.textContent('#counted')).toBe('Of the first 10,000 failed rows; there are more.');
      expect(await texts(page, '#errors tr')).toEqual(['10,000emailREQUIREDhidden']);
    });

    test('without showRecords it offers no record', async () => {
      const id = await makeFailed([invalid(0)]);
      const page = await open(jobUrl(await serve(store), id));
      expect(await page.isVisible('#rows-hidden')).toBe(true);
      for (const hidden of ['#show', '#csv', '#ndjson', '#actions']) expect(await page.isVisible(hidden)).toBe(false);
    });
  });

  describe('a refresh', () => {
    test('changes what is different, and keeps focus, selection and scroll position', async () => {
      const { id } = await makeLong(90);
      const page = await open(`${jobUrl(await serve(store), id)}&status=PENDING`);
      await page.evaluate(() => {
        globalThis.kept = document.querySelectorAll('#batches tr')[40];
        const text = globalThis.kept.children[2].firstChild;
        getSelection().setBaseAndExtent(text, 0, text, text.length);
        document.querySelector('#filter a').focus();
        scrollTo(0, 900);
      });
      const look = () =>
        page.evaluate(() => ({
          same: document.contains(globalThis.kept),
          selected: String(getSelection()),
          focused: document.activeElement.textContent.replace(/\d+/, ''),
          scrolled: Math.round(scrollY),
          rows: document.querySelectorAll('#batches tr').length,
        }));
      const before = await look();
      expect(before).toMatchObject({ same: true, focused: 'All ', rows: 90 });
      expect(before.scrolled).toBeGreaterThan(100);
      expect(before.selected).not.toBe('');
      // The last row goes, and the count on the focused link's neighbours changes.
      await own.query(`update "batchactions_batches" set "status" = 'COMPLETED' where "jobId" = ? and "batchIndex" = 89`, [id]);
      await until(async () => {
        await refresh(page);
        return (await look()).rows;
      }).toBe(89);
      // Counts are kept for longer than pages.
      await until(async () => {
        await refresh(page);
        return page.textContent('#filter');
      }).toContain('COMPLETED 1');
      expect(await look()).toEqual({ ...before, rows: 89 });
    });

    test('where the focused row goes away, the focus stays near it', async () => {
      const jobs = [];
      for (let i = 0; i < 3; i++) {
        const job = makeJob(1, { startedAt: 5_000_000_000_000 + i });
        await store.saveJobState(job);
        jobs.unshift(job.id);
      }
      const page = await open(await serve(store));
      await page.focus('#jobs a >> nth=1');
      await store.deleteJob(jobs[1]);
      await until(async () => {
        await refresh(page);
        return page.textContent('#jobs');
      }).not.toContain(jobs[1]);
      expect(await page.evaluate(() => document.activeElement.getAttribute('aria-label'))).toBe('Table of jobs');
    });

    test('comes by itself every two seconds while the page is visible, never while it is hidden, and at once when it is seen again', async () => {
      const { id } = await makeRunning();
      const page = await open(jobUrl(await serve(store), id), { clock: true });
      let requests = 0;
      page.on('request', () => requests++);
      const answered = () => page.waitForResponse(/api\/job/).then((response) => response.finished());
      const show = (state) =>
        page.evaluate((state) => {
          Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }, state);

      for (let i = 1; i <= 3; i++) {
        // Long enough for one reading, and for what was seen before to be seconds old.
        await Promise.all([answered(), page.clock.runFor(3_900)]);
        await until(() => page.textContent('#seen')).toBe('Seen now');
        expect(requests).toBe(i);
      }
      await show('hidden');
      await page.clock.runFor(600_000);
      expect(requests).toBe(3);
      await Promise.all([answered(), show('visible')]);
      expect(requests).toBe(4);
      // Not where the reader has switched it off.
      await page.uncheck('#auto');
      await page.clock.runFor(600_000);
      expect(requests).toBe(4);
    });

    test('a slow or lost database shows the age of what is seen, and the reason once there is one', async () => {
      const { id } = await makeRunning();
      let answer = (...args) => store.getJob(...args);
      const stub = bind(Object.assign(Object.create(store), { getJob: (...args) => answer(...args) }), store);
      const page = await open(jobUrl(await serve(stub), id), { clock: true, expected: [/503/] });
      let fail;
      answer = () => new Promise((_, reject) => (fail = reject));
      // The page's time is not that of the handler, which may still have an answer.
      await until(async () => {
        await page.clock.runFor(2_500);
        return typeof fail;
      }).toBe('function');
      await page.clock.runFor(60_000);
      expect(await page.textContent('#seen')).toMatch(/^Seen 1 min \d+ s ago, waiting for an answer$/);
      expect(await page.isVisible('#trouble')).toBe(false);
      expect(await texts(page, '#batches tr')).toHaveLength(6);
      fail(new StateStoreError('127.0.0.1:5432 refuses connections', { code: 'CONNECTION_FAILED', retryable: true }));
      await until(() => page.textContent('#trouble')).toBe('127.0.0.1:5432 refuses connections (CONNECTION_FAILED)');
      expect(await texts(page, '#batches tr')).toHaveLength(6);
      // The database is back.
      answer = (...args) => store.getJob(...args);
      await until(async () => {
        await page.clock.runFor(2_500);
        return page.isVisible('#trouble');
      }).toBe(false);
      await until(() => page.textContent('#seen')).toMatch(/^Seen (?:now|\d s ago)$/);
    });
  });

  /** A job of `length` batches of one record each, past the store. */
  async function makeLong(length) {
    const job = makeJob(1, { size: 1, totalRecords: length });
    await store.saveJobState(job);
    for (let from = 1; from < length; from += 1_000) {
      const rows = Array.from({ length: Math.min(1_000, length - from) }, (_, i) => from + i);
      const values = rows.map((i) => `('${job.id}.b${i}', '${job.id}', ${i}, 'PENDING', ${i}, ${i}, 0, 0, 0)`);
      await own.query(
        `insert into "batchactions_batches" ("id", "jobId", "batchIndex", "status", "recordStartIndex", "recordEndIndex", "processedCount", "failedCount", "version") values ${values.join(', ')}`,
      );
    }
    return job;
  }

  test('a job of 100,000 batches is a page of 100 rows and one request for each refresh', async () => {
    const { id } = await makeLong(100_000);
    const url = await serve(store);
    const page = await open(jobUrl(url, id));
    await page.uncheck('#auto');
    const requests = [];
    // Not one that began before it was switched off.
    page.on('request', (request) => request.url().includes('after=') && requests.push(request.url()));
    const nodes = () => page.evaluate(() => document.getElementsByTagName('*').length);
    expect(await page.textContent('#filter')).toContain('All 100,000');
    expect(await texts(page, '#batches tr')).toHaveLength(100);
    expect(await nodes()).toBeLessThan(2_000);
    await page.click('#next');
    await until(() => page.textContent('#batches th >> nth=0')).toBe('100');
    await page.click('#refresh');
    await until(() => requests.length).toBe(2);
    expect(new Set(requests)).toEqual(new Set([`${url}api/job?${new URLSearchParams({ id, after: 99 })}`]));
    await page.goto(`${jobUrl(url, id)}&after=99899`);
    await read(page);
    expect(await page.textContent('#batches tr:last-child th')).toBe('99,999');
    expect(await page.getAttribute('#next', 'aria-disabled')).toBe('true');
    expect(await nodes()).toBeLessThan(2_000);
    await store.deleteJob(id);
  });

  test.each([
    '<img src=x onerror=alert(1)>',
    `"><script>alert(1)</script>`,
    `' onfocus='alert(1)' autofocus='`,
    'javascript:alert(1)',
    '&lt;b&gt;{{7*7}}${7*7}',
    '__proto__',
    '../../api/pause#?&=%00%',
    '\u202Egnp.exe\u2066',
  ])('%j is text wherever it stands', async (hostile) => {
    const id = `${newId('x')}${hostile}`.slice(0, 36);
    const record = makeRecord(0, {
      status: 'failed',
      raw: { [hostile]: hostile, __proto__: { polluted: 1 } },
      errors: [{ field: hostile, code: hostile, message: hostile }],
      processingError: hostile,
    });
    const batch = makeBatch(newId(), 0, { size: 1 });
    const job = makeJob(1, { id, batches: [batch], totalRecords: 1, config: { batchSize: 1, retryOf: hostile } });
    await store.saveJobState(job);
    await store.saveBatchRecords(id, batch.id, [record]);
    await claim(store, id, hostile);

    const url = await serve(store, { showRecords: true, actions: true });
    const page = await open(url);
    await until(() => texts(page, '#jobs th')).toContain(id);
    await page.evaluate((id) => [...document.querySelectorAll('#jobs a')].find((link) => link.textContent === id).click(), id);
    await until(() => page.textContent('#id')).toBe(id);
    await read(page);
    expect(await page.textContent('#batches tr >> nth=0')).toContain(hostile);
    expect(await texts(page, '#facts a')).toEqual([hostile]);
    await page.click('#count');
    await until(() => texts(page, '#errors th')).toEqual(['1', '1']);
    expect(await page.textContent('#errors')).toContain(hostile);
    await page.click('#show');
    await until(() => texts(page, '#rows th')).toEqual(['0']);
    expect(await page.textContent('#rows')).toContain(JSON.stringify(hostile).slice(1, -1));
    await page.click('#actions button:has-text("Pause")');
    await page.click('dialog button:has-text("Pause")');
    await until(() => page.textContent('#status')).toBe('PAUSED');
    expect(await page.evaluate(() => [document.scripts.length, document.images.length, {}.polluted])).toEqual([1, 0, undefined]);
    await store.deleteJob(id);
  });

  describe('actions', () => {
    test('pause, resume and abort ask first, and say what came of it', async () => {
      const { id } = await makeRunning();
      const page = await open(jobUrl(await serve(store, { actions: true }), id));
      const press = async (label, confirmation = label) => {
        await page.click(`#actions button:has-text("${label}")`);
        expect(await page.evaluate(() => document.activeElement.textContent)).toBe('Cancel');
        await page.click(`dialog button:has-text("${confirmation}")`);
      };
      await page.click('#actions button:has-text("Pause")');
      await page.click('dialog button:has-text("Cancel")');
      expect(await store.getJob(id)).toMatchObject({ status: 'PROCESSING' });
      await press('Pause');
      await until(() => page.textContent('#said')).toBe('The job is paused.');
      await until(() => page.textContent('#status')).toBe('PAUSED');
      await press('Resume');
      await until(() => page.textContent('#said')).toBe('The job goes on.');
      await until(() => page.isVisible('#actions button:has-text("Reclaim")')).toBe(true);
      await press('Reclaim stale batches', 'Reclaim');
      await until(() => page.textContent('#said')).toBe('1 batch was reclaimed.');
      await page.click('#actions button:has-text("Abort")');
      await page.check('dialog input[type=checkbox]');
      await page.click('dialog button:has-text("Abort the job")');
      await until(() => page.textContent('#said')).toBe('The job is aborted.');
      expect(await store.getJob(id)).toMatchObject({ status: 'ABORTED' });
      expect(await store.batches(id, { status: 'PROCESSING' })).toEqual([]);
    });

    test('a job of one process is aborted only where its reader says that the process is gone', async () => {
      const job = makeLocalJob(1);
      await store.saveJobState(job);
      const page = await open(jobUrl(await serve(store, { actions: true }), job.id));
      expect(await texts(page, '#actions button')).toEqual(['Abort…']);
      await page.click('#actions button');
      await page.dispatchEvent('dialog button:has-text("Abort the job")', 'click');
      expect(await store.getJob(job.id)).toMatchObject({ status: 'PROCESSING' });
      expect(await page.isVisible('dialog')).toBe(true);
      await page.check('dialog input[type=checkbox]');
      await page.click('dialog button:has-text("Abort the job")');
      await until(() => page.textContent('#status')).toBe('ABORTED');
    });

    test('a retry leads to the job that it made', async () => {
      const id = await makeFailed([invalid(0), makeRecord(1, { status: 'failed' })]);
      const page = await open(jobUrl(await serve(store, { actions: true }), id));
      await page.click('#actions button:has-text("Retry")');
      await page.check('dialog input[type=checkbox]');
      await page.click('dialog button:has-text("Make the job")');
      await until(() => page.textContent('#said')).toMatch(/^2 rows in 1 batch: job /);
      await page.click('#said a');
      await until(() => page.textContent('#facts')).toContain(id);
      await store.deleteJob(await page.textContent('#id'));
    });

    test('what failed is said in the dialog, which stays', async () => {
      const { id } = await makeRunning();
      const stub = bind(
        Object.assign(Object.create(store), {
          async pauseJob() {
            throw new StateStoreError('the database has gone away', { code: 'CONNECTION_LOST' });
          },
        }),
        store,
      );
      const page = await open(jobUrl(await serve(stub, { actions: true }), id), { expected: [/503/] });
      await page.click('#actions button:has-text("Pause")');
      await page.click('dialog button:has-text("Pause")');
      await until(() => page.textContent('dialog .trouble')).toBe('the database has gone away (CONNECTION_LOST)');
      await page.keyboard.press('Escape');
      await until(() => page.isVisible('dialog')).toBe(false);
      expect(await page.evaluate(() => document.activeElement.textContent)).toBe('Pause…');
    });

    test('a purge shows what it would delete before it can be confirmed', async () => {
      const id = await makeFailed([invalid(0)]);
      const page = await open(await serve(store, { actions: true }));
      await page.click('#purge');
      await page.dispatchEvent('dialog button:has-text("Delete them")', 'click');
      expect(await store.getJob(id)).not.toBeNull();
      await page.fill('dialog input', '0');
      await page.click('dialog button:has-text("Show what would be deleted")');
      await until(() => page.textContent('dialog [role=status]')).toMatch(/^\d+ jobs? with .* would be deleted\./);
      expect(await store.getJob(id)).not.toBeNull();
      await page.click('dialog button:has-text("Delete them")');
      await until(() => page.textContent('#said')).toMatch(/^Deleted \d+ jobs? with/);
      expect(await store.getJob(id)).toBeNull();
    });
  });

  describe('a purge of more jobs than a request deletes', () => {
    /** A page whose purge has deleted 50 jobs of 120, and waits for its second request. `release` lets the server answer that: `then` comes before its answer. */
    async function half({ expected } = {}) {
      await store.purge({ olderThanMs: 0 });
      for (let i = 0; i < 120; i++) await store.saveJobState(makeJob(1, { status: 'COMPLETED' }));
      const slices = [];
      let release;
      const then = new Promise((resolve) => (release = resolve));
      const stub = bind(
        Object.assign(Object.create(store), {
          async purge(options) {
            if (options.dryRun) return store.purge(options);
            slices.push(options.olderThanMs);
            if (slices.length === 2) await (await then)?.();
            return store.purge(options);
          },
        }),
        store,
      );
      const page = await open(await serve(stub, { actions: true }), { expected });
      await page.click('#purge');
      await page.fill('dialog input', '0');
      await page.click('dialog button:has-text("Show what would be deleted")');
      await until(() => page.textContent('dialog [role=status]')).toMatch(/^120 jobs with /);
      await page.click('dialog button:has-text("Delete them")');
      await until(() => page.textContent('dialog [role=status]')).toBe('Deleted 50 jobs so far…');
      await until(() => slices.length).toBe(2);
      const left = async () => (await store.purge({ olderThanMs: 0, dryRun: true })).jobIds.length;
      return { page, slices, release, left };
    }

    test.each([
      ['Cancel', (page) => page.click('dialog button:has-text("Cancel")')],
      ['Escape', (page) => page.keyboard.press('Escape')],
    ])('ends with the request that is under way by %s, and the page says what was deleted', async (_, cancel) => {
      const { page, slices, release, left } = await half();
      await cancel(page);
      await until(() => page.isVisible('dialog')).toBe(false);
      release();
      await until(() => page.textContent('#said')).toBe('Deleted 100 jobs with 0 records before it was cancelled.');
      expect([slices.length, await left()]).toEqual([2, 20]);
      await until(() => page.textContent('#filter a:has-text("COMPLETED")')).toBe('COMPLETED 20');
    });

    test('goes on to the end where the dialog stays, with the days that were shown', async () => {
      const { page, slices, release, left } = await half();
      await page.fill('dialog input', '1');
      release();
      await until(() => page.textContent('#said')).toBe('Deleted 120 jobs with 0 records.');
      expect([slices, await left()]).toEqual([[0, 0, 0], 0]);
    });

    test('says on the page what failed where the dialog is closed, and what was deleted before', async () => {
      const { page, slices, release, left } = await half({ expected: [/503/] });
      await page.keyboard.press('Escape');
      release(() => {
        throw new StateStoreError('the database has gone away', { code: 'CONNECTION_LOST' });
      });
      const said = 'Deleted 50 jobs with 0 records before it failed: the database has gone away (CONNECTION_LOST)';
      await until(() => page.textContent('#said')).toBe(said);
      expect([slices.length, await left()]).toEqual([2, 70]);
    });
  });

  test('counts that are kept for long say how old they are', async () => {
    const id = await makeFailed([invalid(0)]);
    const url = await serve(store);
    /** Makes the ages in an answer five minutes older. */
    const older = async (route) => {
      const response = await route.fetch();
      const answer = await response.json();
      for (const age of ['ageMs', 'countsAgeMs']) if (age in answer) answer[age] += 300_000;
      await route.fulfill({ response, json: answer });
    };
    const jobs = await open(url);
    expect(await jobs.textContent('#open')).not.toContain('counted');
    await jobs.route('**/api/jobs?*', older);
    await until(() => jobs.textContent('#open')).toMatch(/, counted 5 min(?: \d+ s)? ago\.$/);

    const job = await open(jobUrl(url, id));
    expect(await job.textContent('#facts')).not.toContain('counted');
    await job.route(/\/api\/(?:job|errors)\?/, older);
    await until(() => job.textContent('#facts')).toMatch(/1 of 1 \(100%\), counted 5 min(?: \d+ s)? ago/);
    await job.click('#count');
    await until(() => job.textContent('#counted')).toMatch(/^Of all 1 failed row, counted 5 min(?: \d+ s)? ago\.$/);
  });

  describe.each(['light', 'dark'])('in the %s theme', (colorScheme) => {
    test('axe-core finds no violation on the page of the jobs and its dialog', async () => {
      await makeRunning();
      await makeFailed([invalid(0)]);
      const page = await open(await serve(store, { actions: true }), { colorScheme });
      expect(await violations(page)).toEqual([]);
      await page.click('#purge');
      expect(await violations(page)).toEqual([]);
    });

    test('axe-core finds no violation on the page of a job, whatever is open', async () => {
      const { id } = await makeRunning();
      await store.saveBatchRecords(id, `${id}.b3`, [invalid(30), makeRecord(31, { status: 'failed', processingError: 'no' })]);
      const page = await open(jobUrl(await serve(store, { actions: true, showRecords: true }), id), { colorScheme });
      expect(await violations(page)).toEqual([]);
      await page.click('#count');
      await page.click('#show');
      await until(async () => (await texts(page, '#errors tr')).length + (await texts(page, '#rows tr')).length).toBe(4);
      expect(await violations(page)).toEqual([]);
      await page.click('#actions button:has-text("Abort")');
      expect(await violations(page)).toEqual([]);
    });

    test('axe-core finds no violation while the database is lost', async () => {
      const { id } = await makeRunning();
      let lost = false;
      const stub = bind(
        Object.assign(Object.create(store), {
          async getJob(...args) {
            if (lost) throw new StateStoreError('gone', { code: 'CONNECTION_FAILED' });
            return store.getJob(...args);
          },
        }),
        store,
      );
      const page = await open(jobUrl(await serve(stub), id), { colorScheme, expected: [/503/] });
      lost = true;
      await until(() => page.isVisible('#trouble')).toBe(true);
      expect(await violations(page)).toEqual([]);
    });
  });

  test('everything can be reached and done by keyboard', async () => {
    const { id } = await makeRunning({ startedAt: 6_000_000_000_000 });
    const page = await open(await serve(store, { actions: true, showRecords: true }));
    await page.uncheck('#auto');
    await page.evaluate(() => document.activeElement.blur());
    // Behind the last element comes the window of the browser, and then the first again.
    const focused = () => page.evaluate(() => (document.activeElement === document.body ? '' : document.activeElement.textContent.trim()));
    const tabTo = async (wanted) => {
      const passed = [];
      while (passed.length < 60) {
        await page.keyboard.press('Tab');
        const now = await focused();
        const [outside, outline] = await page.evaluate(() => [
          document.activeElement === document.body,
          getComputedStyle(document.activeElement).outlineStyle,
        ]);
        if (!outside) expect([now, outline]).toEqual([now, 'solid']);
        if (wanted.test(now)) return;
        passed.push(now);
      }
      expect.fail(`Tab does not lead to ${wanted}: ${passed.join(' | ')}`);
    };
    await tabTo(/^Skip to the jobs$/);
    await page.keyboard.press('Enter');
    expect(await page.evaluate(() => document.activeElement.id)).toBe('main');
    await tabTo(new RegExp(`^${id}$`));
    await page.keyboard.press('Enter');
    await page.waitForURL(/job\?id=/);
    await read(page);
    await tabTo(/^Pause…$/);
    await page.keyboard.press('Enter');
    expect(await focused()).toBe('Cancel');
    // The focus stays in the dialog, and Escape leads back.
    await page.keyboard.press('Escape');
    expect(await focused()).toBe('Pause…');
    await page.keyboard.press('Enter');
    await tabTo(/^Pause$/);
    await page.keyboard.press('Space');
    await until(() => page.textContent('#said')).toBe('The job is paused.');
    // The refresh takes away the button that was pressed, and the focus with it.
    await until(() => page.textContent('#status')).toBe('PAUSED');
    await page.evaluate(() => document.getElementById('main').focus());
    await tabTo(/^COMPLETED 1$/);
    await page.keyboard.press('Enter');
    await until(() => texts(page, '#batches th')).toEqual(['2']);
    await tabTo(/^Count errors$/);
    await page.keyboard.press('Enter');
    await until(() => page.textContent('#counted')).toBe('No row has failed.');
    await tabTo(/^Show failed rows$/);
    await page.keyboard.press('Enter');
    await until(() => page.textContent('#rows-said')).toBe('No row has failed.');
    await tabTo(/^Download NDJSON$/);
  });

  test('it fits a narrow window: only tables scroll sideways', async () => {
    const { id } = await makeRunning();
    const page = await open(jobUrl(await serve(store, { actions: true, showRecords: true }), id), {
      viewport: { width: 320, height: 600 },
    });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(320);
  });
}

/** The other methods of a store, for a stand-in that has one of its own: they need their store as `this`. */
function bind(stub, store) {
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(store))) {
    if (name !== 'constructor' && !Object.hasOwn(stub, name))
      Object.defineProperty(stub, name, { value: (...args) => store[name](...args) });
  }
  return stub;
}
