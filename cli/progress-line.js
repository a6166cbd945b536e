'use strict';

// The progress bar of `watch`, in one line of any width.

const { clean, count, cut, duration } = require('./text.js');

/** A look that is older than this is shown with its age. */
const OLD_MS = 5_000;
const LONGEST_BAR = 40;
const SHORTEST_BAR = 10;

const COLORS = { red: 31, yellow: 33, cyan: 36 };

/** The line, shorter than `width` by one, because some terminals wrap a full one. What has no room is left out, the least important first. */
function progressLine(look, { width, ageMs, trouble, hasColors, hasBlocks }) {
  const { status, percentage, totalRecords, processedRecords, failedRecords, recordsPerSecond, remainingMs } = look;
  const isRunning = status === 'PROCESSING';
  const isOld = trouble !== undefined || ageMs > OLD_MS;
  const isLive = isRunning && !isOld;

  // From the most important to the least. `place` is where it stands in the line.
  const parts = [
    { text: `${String(Math.min(percentage, 100)).padStart(3)} %`, place: 2 },
    { text: isRunning ? undefined : status, place: 7, color: 'yellow' },
    { text: isOld ? `seen ${duration(ageMs)} ago` : undefined, place: 8, color: 'yellow' },
    { text: isLive && remainingMs !== undefined ? `${duration(remainingMs)} left` : undefined, place: 6 },
    { text: '-'.repeat(SHORTEST_BAR), place: 1, color: isRunning ? 'cyan' : 'yellow' },
    { text: `${count(processedRecords + failedRecords)}/${count(totalRecords)}`, place: 3 },
    { text: failedRecords > 0 ? `${count(failedRecords)} failed` : undefined, place: 4, color: 'red' },
    { text: isLive && recordsPerSecond !== undefined ? `${count(Math.round(recordsPerSecond))}/s` : undefined, place: 5 },
    { text: cut(clean(look.jobId), 24), place: 0 },
  ];
  const room = Math.max(width - 1, 1);
  let used = 0;
  const shown = [];
  for (const part of parts) {
    if (part.text === undefined) continue;
    const length = part.text.length + (shown.length === 0 ? 0 : 2);
    if (used + length > room) continue;
    used += length;
    shown.push(part);
  }
  const bar = shown.find(({ place }) => place === 1);
  if (bar !== undefined) bar.text = drawn(look, Math.min(SHORTEST_BAR + room - used, LONGEST_BAR), hasBlocks);
  const paint = ({ text, color }) => (hasColors && color ? `\u001b[${COLORS[color]}m${text}\u001b[39m` : text);
  return shown
    .sort((a, b) => a.place - b.place)
    .map(paint)
    .join('  ');
}

function drawn({ totalRecords, processedRecords, failedRecords }, length, hasBlocks) {
  const share = totalRecords === 0 ? 0 : Math.min((processedRecords + failedRecords) / totalRecords, 1);
  const full = Math.floor(share * length);
  return hasBlocks ? '█'.repeat(full) + '░'.repeat(length - full) : `${'#'.repeat(full)}${'-'.repeat(length - full)}`;
}

module.exports = { progressLine };
