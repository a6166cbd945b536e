// What the demo shows while it runs: lines, and below them a progress bar. On a terminal the bar is one line that is rewritten; in a file
// or a pipe it is a line for every tenth of the work.

const terminal = process.stdout.isTTY;
let bar = '';
let tenth = 0;

export const number = (value) => Math.round(value).toLocaleString('en-US');
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

export function say(line) {
  if (terminal && bar) process.stdout.write(`\r\x1b[K${line}\n${bar}`);
  else console.log(line);
}

/** Shows a `JobProgress`. */
export function showProgress({
  totalRecords,
  processedRecords,
  failedRecords,
  percentage,
  currentBatch,
  totalBatches,
  elapsedMs,
  ...rest
}) {
  const done = processedRecords + failedRecords;
  const filled = Math.floor(percentage / 4);
  const left = rest.estimatedRemainingMs === undefined ? '' : `, ${seconds(rest.estimatedRemainingMs)} left`;
  bar =
    `  [${'#'.repeat(filled)}${'.'.repeat(25 - filled)}] ${String(percentage).padStart(3)}%  ${number(done)} of ${number(totalRecords)} rows, ` +
    `${currentBatch} of ${totalBatches} batches, ${seconds(elapsedMs)}${left}`;
  if (terminal) {
    // A bar that goes on in the next line can't be rewritten.
    bar = bar.slice(0, process.stdout.columns - 1);
    process.stdout.write(`\r\x1b[K${bar}`);
  } else if (Math.floor(percentage / 10) > tenth) console.log(bar);
  tenth = Math.floor(percentage / 10);
}

/** Leaves the bar where it is. */
export function endProgress() {
  if (terminal && bar) process.stdout.write('\n');
  bar = '';
}
