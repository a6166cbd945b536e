// Fails if a binary needs a later version of glibc than a release may.
//
//   node scripts/check-glibc.mjs <binary> …

import { readFileSync } from 'node:fs';
import { argv } from 'node:process';
import { pathToFileURL } from 'node:url';

/** CentOS 7, Debian 8, Ubuntu 14.04, and everything later. */
const NEWEST = 17;

/** The newest version of the C library that a binary requires. */
export function glibc(path) {
  return `2.${Math.max(...minorVersions(path))}`;
}

function minorVersions(path) {
  return Array.from(readFileSync(path, 'latin1').matchAll(/GLIBC_2\.(\d+)/g), ([, minor]) => Number(minor));
}

if (import.meta.url === pathToFileURL(argv[1]).href) {
  const paths = argv.slice(2);
  if (paths.length === 0) throw new Error('usage: node scripts/check-glibc.mjs <binary> …');
  for (const path of paths) {
    const minors = minorVersions(path);
    if (minors.length === 0) throw new Error(`${path} is not made for glibc`);
    console.log(`${path}: glibc ${glibc(path)} or later`);
    if (Math.max(...minors) > NEWEST) {
      console.error(`A release must run with glibc 2.${NEWEST}: build it with --glibc 2.${NEWEST}.`);
      process.exitCode = 1;
    }
  }
}
