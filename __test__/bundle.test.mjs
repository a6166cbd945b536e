// Bundled programs that use the store: with the package left outside the bundle, or its binary copied beside it.

import { execFile } from 'node:child_process';
import { copyFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { thisPlatform } from '../scripts/platforms.mjs';
import { BINARY, emptyFolder, installBinary, installedFolder } from './support/installed.mjs';

/** A program that uses the store, in a folder where it is installed. */
function program() {
  const folder = installedFolder();
  installBinary(folder, thisPlatform());
  writeFileSync(
    join(folder, 'app.mjs'),
    `import { SqlxStateStore } from '@batchactions/state-sqlx';
     import { smokeJob } from './smoke-job.mjs';
     smokeJob(SqlxStateStore, 'sqlite::memory:').then(() => console.log('works'));`,
  );
  return folder;
}

function bundle(folder, options) {
  return build({
    entryPoints: [join(folder, 'app.mjs')],
    bundle: true,
    platform: 'node',
    target: 'node20',
    logLevel: 'silent',
    ...options,
  });
}

async function run(path) {
  const { stdout } = await promisify(execFile)(process.execPath, [path], { timeout: 120_000 });
  return stdout.trim();
}

test.each(['cjs', 'esm'])('an external package works in a bundle of format %s', async (format) => {
  const folder = program();
  const outfile = join(folder, format === 'esm' ? 'bundle.mjs' : 'bundle.cjs');
  const { warnings } = await bundle(folder, { format, outfile, external: ['@batchactions/state-sqlx'] });
  expect(warnings).toEqual([]);
  expect(await run(outfile)).toBe('works');
});

test("with the loader 'copy', the bundle takes the binary along, and needs no node_modules", async () => {
  const outdir = emptyFolder();
  await bundle(program(), { format: 'cjs', outdir, loader: { '.node': 'copy' } });
  expect(readdirSync(outdir)).toContainEqual(expect.stringMatching(/^state-sqlx\..*\.node$/));
  expect(await run(join(outdir, 'app.js'))).toBe('works');
});

test("the same as an ES module, with the `require` that esbuild's format leaves to a banner", async () => {
  const outdir = emptyFolder();
  const banner = { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);` };
  await bundle(program(), { format: 'esm', outdir, outExtension: { '.js': '.mjs' }, banner, loader: { '.node': 'copy' } });
  expect(await run(join(outdir, 'app.mjs'))).toBe('works');
});

test('a bundle as webpack and ncc make it: the binary is beside it, and only the `require` of its package knows where', async () => {
  const folder = program();
  const outfile = join(emptyFolder(), 'bundle.cjs');
  const name = `state-sqlx.${thisPlatform()}.node`;
  const { outputFiles } = await bundle(folder, {
    format: 'cjs',
    write: false,
    external: [`@batchactions/state-sqlx-${thisPlatform()}`],
  });
  // They make every other `require` one that finds nothing.
  const text = outputFiles[0].text
    .replace(`require("@batchactions/state-sqlx-${thisPlatform()}")`, `module.require(${JSON.stringify(`./${name}`)})`)
    .replace('require(local)', `(() => { throw Object.assign(new Error('Cannot find module'), { code: 'MODULE_NOT_FOUND' }); })()`);
  writeFileSync(outfile, text);
  copyFileSync(BINARY, join(outfile, '..', name));
  expect(text).toContain('module.require');
  expect(await run(outfile)).toBe('works');
});

test('without either, the bundler says what it lacks', async () => {
  const failure = await bundle(program(), { format: 'cjs', write: false }).catch((error) => error);
  expect(failure).toBeInstanceOf(Error);
  expect(failure.errors.map(({ text }) => text)).toEqual([expect.stringContaining('No loader is configured for ".node" files')]);
});
