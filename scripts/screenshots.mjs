// Writes docs/screenshots/: the dashboard's two pages, light and dark, of made-up jobs in a SQLite file.
//
//   npm run screenshots

import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SqlxStateStore } from '@batchactions/state-sqlx';
import { chromium } from 'playwright-core';
import { createDashboard } from '../dashboard/index.js';
import { madeUpOrders, validate } from '../examples/import-csv/orders.mjs';
import { ARGUMENTS, findChromium } from './chromium.mjs';

const SIZE = 100;
const target = fileURLToPath(new URL('../docs/screenshots/', import.meta.url));

const executablePath = findChromium();
if (!executablePath) throw new Error('there is no Chromium: node scripts/chromium.mjs installs it');
const folder = mkdtempSync(join(tmpdir(), 'screenshots-'));
const store = new SqlxStateStore(`sqlite://${join(folder, 'state.db')}`);
try {
  await store.initialize();
  const minutesAgo = (minutes) => Date.now() - minutes * 60_000;
  await makeJob('orders-2026-11-24', { batches: 8, done: 8, startedAt: minutesAgo(5_900), status: 'COMPLETED' });
  await makeJob('customers-import', { batches: 5, done: 2, startedAt: minutesAgo(4_300), status: 'ABORTED' });
  await makeJob('orders-2026-11-26', { batches: 10, done: 10, startedAt: minutesAgo(1_500), status: 'COMPLETED' });
  await makeJob('prices-nightly', { batches: 6, done: 3, startedAt: minutesAgo(240), status: 'PAUSED' });
  const running = await makeJob('orders-2026-11-28', { batches: 40, done: 17, startedAt: minutesAgo(4), held: 4 });
  await takeScreenshots(running);
} finally {
  await store.close();
  rmSync(folder, { recursive: true, force: true });
}

/** A job of made-up orders, the first batches of which are done. */
async function makeJob(id, { batches: count, done, startedAt, status, held = 0 }) {
  const batches = Array.from({ length: count }, (_, index) => ({
    id: `${id}-${index}`,
    index,
    status: 'PENDING',
    records: [],
    processedCount: 0,
    failedCount: 0,
    recordStartIndex: index * SIZE,
    recordEndIndex: index * SIZE + SIZE - 1,
  }));
  const rows = [...madeUpOrders(count * SIZE)];
  const pending = (raw, index) => ({ index, raw, parsed: {}, status: 'pending', errors: [] });
  for (const { id: batchId, recordStartIndex: from } of batches) {
    await store.saveBatchRecords(
      id,
      batchId,
      rows.slice(from, from + SIZE).map((raw, i) => pending(raw, from + i)),
    );
  }
  const job = { id, config: { batchSize: SIZE }, batches, totalRecords: rows.length, startedAt, distributed: true };
  await store.saveJobState({ ...job, status: 'PROCESSING' });
  for (let i = 0; i < done; i++) {
    const { reservation } = await store.claimBatch(id, `worker-${1 + (i % 4)}`);
    const { batchId, recordStartIndex: from } = reservation;
    const records = rows.slice(from, from + SIZE).map((raw, at) => {
      const errors = validate(raw);
      return { ...pending(raw, from + at), status: errors.length > 0 ? 'invalid' : 'processed', errors };
    });
    await store.saveBatchRecords(id, batchId, records);
    const failedCount = records.filter((record) => record.status === 'invalid').length;
    await store.updateBatchState(id, batchId, { batchId, status: 'COMPLETED', processedCount: SIZE - failedCount, failedCount });
  }
  for (let i = 0; i < held; i++) await store.claimBatch(id, `worker-${1 + i}`);
  if (status) await store.saveJobState({ ...job, status, ...(status !== 'PAUSED' && { completedAt: startedAt + 95_000 + count * 7_000 }) });
  return id;
}

async function takeScreenshots(id) {
  mkdirSync(target, { recursive: true });
  const server = createServer(createDashboard(store, { actions: true, showRecords: true })).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
  try {
    for (const colorScheme of ['light', 'dark']) {
      const context = await browser.newContext({ colorScheme, viewport: { width: 1_000, height: 700 } });
      const page = await context.newPage();
      const open = async (path) => {
        await page.goto(`http://127.0.0.1:${server.address().port}/${path}`);
        await page.waitForFunction(() => document.getElementById('seen').textContent.startsWith('Seen'));
      };
      await open('');
      await page.screenshot({ path: join(target, `jobs-${colorScheme}.png`), clip: { x: 0, y: 0, width: 1_000, height: 480 } });
      await open(`job?id=${id}&after=14`);
      await page.click('#count');
      await page.click('#show');
      await page.waitForFunction(
        () => document.querySelectorAll('#errors tr').length > 0 && document.querySelectorAll('#rows tr').length > 0,
      );
      // A page of a few batches and rows, which shows all its parts.
      await page.evaluate(() => {
        document.activeElement.blur();
        for (const list of document.querySelectorAll('#batches, #rows')) while (list.children.length > 6) list.lastChild.remove();
      });
      await page.screenshot({ path: join(target, `job-${colorScheme}.png`), fullPage: true });
      await context.close();
    }
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
  }
  console.log(`written to ${target}`);
}
