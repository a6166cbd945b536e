/** Each snippet of the READMEs, of docs/connecting.md and of docs/operations.md, in TypeScript or JavaScript, compiles as a strict TypeScript user's would. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { diagnose } from './compile.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const PAGES = ['README.md', 'dashboard/README.md', 'docs/connecting.md', 'docs/operations.md'].map((name) => [
  name,
  readFileSync(join(root, name), 'utf8'),
]);

// Beside node_modules, where the snippets find Sequelize.
const folder = mkdtempSync(join(root, 'node_modules', '.snippets-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const EXTENSIONS = { ts: '.mts', typescript: '.mts', js: '.mjs', mjs: '.mjs', javascript: '.mjs' };
const snippets = PAGES.flatMap(([name, page]) =>
  [...page.matchAll(/^ *```(\w+)[^\n]*\n(.*?)^ *```$/gms)]
    .filter(([, language]) => language in EXTENSIONS)
    .map(({ 1: language, 2: text, index }, number) => {
      const line = page.slice(0, index).split('\n').length;
      const file = `snippet-${name.replace(/\W/g, '-')}-${number}${EXTENSIONS[language]}`;
      return [`${name}, line ${line}, ${language}`, join(folder, file), text];
    }),
);

const WRONG = join(folder, 'wrong.mjs');
const wrong = `import { SqlxStateStore } from '@batchactions/state-sqlx';\nnew SqlxStateStore(5432);\n`;

let said;
beforeAll(() => {
  // Each is a module, whatever it imports, so that two may have a name in common.
  for (const [, file, text] of snippets) writeFileSync(file, `${text}\nexport {};\n`);
  writeFileSync(WRONG, wrong);
  const stub = (name) => [join(here, 'stubs', `${name}.d.ts`)];
  said = diagnose('typescript', [...snippets.map(([, file]) => file), WRONG, join(here, 'stubs', 'globals.d.ts')], {
    lib: ['ES2022', 'ESNext.Disposable'],
    module: 'nodenext',
    moduleResolution: 'nodenext',
    types: ['node'],
    allowJs: true,
    checkJs: true,
    // A snippet shows how something is made, and not always what is done with it.
    noUnusedLocals: false,
    paths: {
      '@batchactions/core': stub('core'),
      '@batchactions/import': stub('import'),
      '@batchactions/distributed': stub('distributed'),
      '@batchactions/state-sqlx': [join(root, 'index.d.ts')],
      '@batchactions/state-sqlx/otel': [join(root, 'otel', 'index.d.ts')],
      '@batchactions/state-sqlx-dashboard': [join(root, 'dashboard', 'index.d.ts')],
      '@batchactions/state-sequelize': [join(root, 'index.d.ts')],
      '@nestjs/common': stub('nestjs'),
      express: stub('express'),
      fastify: stub('fastify'),
    },
  });
});

test('there are snippets', () => {
  expect(snippets.length).toBeGreaterThan(3);
});

test.each(snippets)('%s', (_, file) => {
  expect(said.filter((line) => line.includes(file))).toEqual([]);
});

test('what is wrong is a mistake in a snippet, and in nothing around them', () => {
  const files = snippets.map(([, file]) => file);
  expect(said.filter((line) => !files.some((file) => line.includes(file)))).toEqual([expect.stringMatching(/wrong\.mjs.*TS2345/)]);
});
