// Compiles the checks of the types: with the oldest and the newest TypeScript, each way that they find modules, with and without Node's types.
//
//   npm run types

import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const folder = dirname(fileURLToPath(import.meta.url));
const root = join(folder, '..', '..');

const STRICT = {
  target: 'ES2022',
  lib: ['ES2022'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noImplicitOverride: true,
  noUnusedLocals: true,
  skipLibCheck: false,
  noEmit: true,
};

/** `[title, compile()]`: what is compiled how. */
export const COMPILATIONS = [];
for (const [version, resolutions] of [
  ['typescript-4.9', ['node16', 'nodenext']],
  ['typescript', ['node16', 'nodenext', 'bundler']],
]) {
  for (const resolution of resolutions) {
    for (const withNode of [false, true]) {
      const { version: number } = require(`${version}/package.json`);
      const title = `TypeScript ${number}, ${resolution}, ${withNode ? 'with' : 'without'} @types/node`;
      COMPILATIONS.push([title, () => compile(version, resolution, withNode)]);
    }
  }
}

function compile(version, resolution, withNode) {
  const files = ['checks.ts'];
  // The types of @opentelemetry/api take Node's or the DOM's.
  if (withNode) files.push('with-node.ts', 'otel.ts', 'dashboard.ts');
  if (withNode && version === 'typescript') files.push('disposal.ts');
  return diagnose(
    version,
    files.map((name) => join(folder, name)),
    {
      ...STRICT,
      module: resolution === 'bundler' ? 'esnext' : resolution,
      moduleResolution: resolution,
      types: withNode ? ['node'] : [],
      // As the dashboard's declarations name it.
      paths: { '@batchactions/state-sqlx': [join(root, 'index.d.ts')] },
    },
  );
}

// Sequelize's own declarations don't compile with `exactOptionalPropertyTypes`.
const OTHERS = join(realpathSync(join(root, 'node_modules')), 'sequelize');

/** What a compiler says of these files, a line each. */
export function diagnose(version, files, options) {
  const ts = require(version);
  const { options: converted, errors } = ts.convertCompilerOptionsFromJson({ ...STRICT, ...options }, root);
  const program = ts.createProgram(files, { ...converted, typeRoots: [join(root, 'node_modules', '@types')] });
  const ours = ts.getPreEmitDiagnostics(program).filter(({ file }) => !file?.fileName.startsWith(OTHERS));
  return [...errors, ...ours].map((diagnostic) => {
    const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n');
    const { line } = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start) ?? {};
    return `${diagnostic.file?.fileName ?? 'options'}:${line + 1}: TS${diagnostic.code}: ${text}`;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [title, run] of COMPILATIONS) {
    const wrongs = run();
    console.log(`  ${title}: ${wrongs.length === 0 ? 'ok' : wrongs.join('\n')}`);
    if (wrongs.length > 0) process.exitCode = 1;
  }
}
