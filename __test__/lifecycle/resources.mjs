// What a process holds, as Linux tells: memory, threads, open files.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Bytes of memory, threads, sockets, and files that a database is in. */
export function resources() {
  const { heapTotal, heapUsed } = process.memoryUsage();
  // Without the pages of files, which come and go with the memory that the machine has left.
  const own = Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
  const threads = readdirSync('/proc/self/task').length;
  // Of JavaScript's heap only what is in use: how much it keeps beside that is V8's affair.
  const held = { memory: own - heapTotal + heapUsed, threads, sockets: 0, files: 0 };
  for (const descriptor of readdirSync('/proc/self/fd')) {
    let target;
    try {
      target = readlinkSync(`/proc/self/fd/${descriptor}`);
    } catch {
      // The descriptor that listed the folder.
      continue;
    }
    if (target.startsWith('socket:')) held.sockets++;
    else if (/\.db(-wal|-shm)?( \(deleted\))?$/.test(target)) held.files++;
  }
  return held;
}

/** Collects what is unreferenced, with its finalizers. */
export async function collectGarbage() {
  for (let round = 0; round < 3; round++) {
    globalThis.gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * Waits until the process holds no more threads, sockets and files than at first: what a store held ends a moment after it. Returns what is too
 * much after 90 s, and undefined where nothing is.
 */
export async function settle(first) {
  const deadline = Date.now() + 90_000;
  for (;;) {
    await collectGarbage();
    const now = resources();
    const more = ['threads', 'sockets', 'files'].filter((kind) => now[kind] > first[kind]);
    if (more.length === 0) return undefined;
    if (Date.now() > deadline) return Object.fromEntries(more.map((kind) => [kind, `${first[kind]} at first, ${now[kind]} in the end`]));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Bytes by which memory grew from the first sample `[work, memory]` to the last, as the line of least squares through all of them says. */
export function growth(samples) {
  const mean = (at) => samples.reduce((sum, sample) => sum + sample[at], 0) / samples.length;
  const [work, memory] = [mean(0), mean(1)];
  const covariance = samples.reduce((sum, sample) => sum + (sample[0] - work) * (sample[1] - memory), 0);
  const slope = covariance / samples.reduce((sum, sample) => sum + (sample[0] - work) ** 2, 0);
  return slope * (samples.at(-1)[0] - samples[0][0]);
}
