// Imports of core's engine with `durability: 'batch'`, whose process is killed again and again at any point. A new one restores the job each time, until it is
// done, and the history of all calls goes to the checker (`import-checker.mjs`).
//
// HISTORY_SCALE and HISTORY_KEEP: see `processes.test.mjs`.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { newId } from '../support/fixtures.mjs';
import { collect, onEveryDatabase } from '../support/suite.mjs';
import { assemble } from './checker.mjs';
import { scale } from './fleet.mjs';
import { checkImport } from './import-checker.mjs';
import { isFailing } from './importer.mjs';
import { long, wait } from './runs.mjs';

const SCRIPT = fileURLToPath(new URL('./engine-process.mjs', import.meta.url));
const KILLS = Math.ceil(8 * scale);
/**
 * How the processes work, in turns, and after how many calls they are killed. Those that think about each record live through several writes; the others make
 * calls as fast as the store takes them.
 */
const LIVES = [
  { concurrent: 1, thinkMs: 1, calls: [100, 400] },
  { concurrent: 3, thinkMs: 1, calls: [100, 400] },
  { concurrent: 3, thinkMs: 2, calls: [20, 200] },
  { concurrent: 1, thinkMs: 0, calls: [20, 1_000] },
];

/** Runs one process. Where `killedAfter` is given, it is killed once it has made so many calls. Returns its lines, and whether it was killed. */
async function runProcess(plan) {
  const child = spawn(process.execPath, [SCRIPT, JSON.stringify(plan)], { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (text) => (errors += text));
  const exited = once(child, 'exit');
  if (plan.killedAfter) {
    await Promise.race([once(child.stdout, 'data'), exited]);
    // It goes on meanwhile.
    await Promise.race([wait(0, 20), exited]);
    child.kill('SIGKILL');
  }
  const [code, signal] = await exited;
  const text = await readFile(plan.file, 'utf8').catch(() => '');
  // The last line may be half a line.
  const lines = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
  const killed = plan.killedAfter !== undefined && signal === 'SIGKILL';
  return { lines, killed, crash: killed || code === 0 ? undefined : `${plan.name} ended with ${code ?? signal}: ${errors}` };
}

/** What is stored, as the readings of the processes have it. */
async function look(store, jobId) {
  const job = await store.getJobState(jobId);
  const records = await collect(store.records(jobId));
  return { job, records: records.map(({ index, parsed }) => ({ index, ...parsed })), progress: await store.getProgress(jobId) };
}

async function observe(on) {
  const plan = { jobId: newId('import'), url: on.url, batches: Math.ceil(200 * scale), batchSize: 8 };
  const folder = await mkdtemp(join(tmpdir(), 'batchactions-import-'));
  const history = { lines: [], killed: [], crashes: [] };
  const run = async (life) => {
    const name = `engine${history.killed.length}`;
    const { lines, killed, crash } = await runProcess({ ...plan, ...life, name, file: join(folder, `${name}.jsonl`) });
    history.lines.push(...lines);
    if (killed) history.killed.push(name);
    if (crash) history.crashes.push(crash);
    return killed;
  };
  try {
    let isKilled = true;
    for (let n = 0; isKilled && n < KILLS; n++) {
      const {
        calls: [least, most],
        ...life
      } = LIVES[n % LIVES.length];
      isKilled = await run({ ...life, killedAfter: Math.floor(least + Math.random() * (most - least)) });
    }
    if (isKilled) await run({ concurrent: 3, thinkMs: 0 });
    const { lines, ...rest } = history;
    const seen = await look(on.store, plan.jobId);
    const whole = { ...rest, calls: assemble(lines), plan: { ...plan, failing: isFailing }, seen };
    const result = checkImport(whole);
    await keep(plan.jobId, whole, result);
    return result;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** As in `fleet.mjs`. */
async function keep(jobId, history, result) {
  const { HISTORY_KEEP: folder } = process.env;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${jobId}.json`), JSON.stringify({ ...result, ...history }, null, 1));
  console.log(expect.getState().currentTestName, result.facts);
}

onEveryDatabase((on) => {
  on.needs('shared')('an import is restored after each kill of its process, and done in the end', long, async () => {
    for (let round = 1; ; round++) {
      const { violations, facts } = await observe(on);
      expect({ found: violations.length, violations: violations.slice(0, 5) }).toEqual({ found: 0, violations: [] });
      // Kills that cost nothing, or came before anything was stored, prove nothing.
      if (facts.kills >= 5 && facts.restores >= 3 && facts.skipping >= 2 && facts.lost >= 1) return;
      if (round === 5) expect.fail(`the kills hit nothing in ${round} runs: ${JSON.stringify(facts)}`);
    }
  });
});
