// Chromium for the tests of the dashboard and for its screenshots.
//
//   node scripts/chromium.mjs   prints where it is; installs Debian's package where there is none (as root, or with sudo)
//
// TEST_CHROMIUM  the program, where it is elsewhere

import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';

const PLACES = ['/usr/bin/chromium', '/usr/bin/google-chrome', '/usr/bin/chromium-browser'];

/** What the browser must not do in a test: ask other hosts for anything, or show itself. */
export const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** The program's path, or `undefined`. */
export function findChromium() {
  const given = process.env.TEST_CHROMIUM;
  return (given ? [given] : PLACES).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function install() {
  const sudo = process.getuid?.() === 0 ? [] : ['sudo', '--non-interactive'];
  for (const args of [
    ['update', '--quiet'],
    ['install', '--quiet', '--yes', '--no-install-recommends', 'chromium'],
  ]) {
    const [program, ...rest] = [...sudo, 'apt-get', ...args];
    const { status, error } = spawnSync(program, rest, {
      stdio: ['ignore', 2, 2],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    });
    if (status !== 0)
      throw new Error(`Chromium could not be installed: ${program} ${rest.join(' ')} ended with ${error?.message ?? status}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!findChromium()) install();
  const found = findChromium();
  if (!found) throw new Error(`there is no Chromium at ${PLACES.join(', ')}, after its installation too: set TEST_CHROMIUM`);
  console.log(found);
}
