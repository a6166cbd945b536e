// `npm run demo -- --watch`: the page of the demo's job, at the address that the demo prints, while the demo runs.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';

const DEMO = fileURLToPath(new URL('../../examples/import-csv/demo.mjs', import.meta.url));

test('the demo serves the page of its job while it runs, and ends without one', async () => {
  const demo = spawn(process.execPath, [DEMO, '--rows', '5000', '--watch'], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => demo.kill());
  let said = '';
  for (const stream of [demo.stdout, demo.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = new Promise((resolve) => demo.on('close', resolve));

  const address = () => /http:\/\/127\.0\.0\.1:\d+\/job\?id=([\w-]+)/.exec(said);
  await expect.poll(address, { timeout: 30_000 }).not.toBeNull();
  const [url, jobId] = address();
  const page = await fetch(url);
  expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
  // The job comes once the orchestrator has prepared it.
  const status = async () => (await fetch(new URL(`api/job?id=${jobId}`, url)).catch(() => undefined))?.status;
  await expect.poll(status, { timeout: 60_000, interval: 50 }).toBe(200);
  expect(await ended, said).toBe(0);
});
