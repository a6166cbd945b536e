/** The package in a folder of its own as npm lays it there, for what depends on where it is found. */
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { thisPlatform } from '../../scripts/platforms.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** This machine's binary. */
export const BINARY = join(root, `state-sqlx.${thisPlatform()}.node`);

/** An empty folder, removed after the test. */
export function emptyFolder() {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'installed-')));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A folder in whose node_modules the package is, without a binary. */
export function installedFolder() {
  const folder = emptyFolder();
  const main = join(folder, 'node_modules', '@batchactions', 'state-sqlx');
  mkdirSync(main, { recursive: true });
  for (const name of ['package.json', 'index.js']) copyFileSync(join(root, name), join(main, name));
  copyFileSync(join(root, 'scripts', 'smoke-job.mjs'), join(folder, 'smoke-job.mjs'));
  return folder;
}

/** Adds the package of a platform: with this machine's binary, or with a main file of this text. */
export function installBinary(folder, platform, text) {
  const name = `@batchactions/state-sqlx-${platform}`;
  const main = text === undefined ? `state-sqlx.${platform}.node` : 'main.js';
  const target = join(folder, 'node_modules', name);
  mkdirSync(target, { recursive: true });
  writeFileSync(join(target, 'package.json'), JSON.stringify({ name, main }));
  if (text === undefined) symlinkSync(BINARY, join(target, main));
  else writeFileSync(join(target, main), text);
}
