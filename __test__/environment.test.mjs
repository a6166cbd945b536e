// A developer's libpq variables (PGHOST and the like) change neither where a test connects nor how.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const run = promisify(execFile);
const set = {
  PGHOST: 'nowhere.invalid',
  PGPORT: '1',
  PGUSER: 'another',
  PGDATABASE: 'another',
  PGSSLMODE: 'require',
  PGOPTIONS: '-c x.y=z',
};
const names = `Object.keys(process.env).filter((name) => name.startsWith('PG'))`;

test('no test process has it, and none that a test starts', async () => {
  const support = new URL('./support/databases.mjs', import.meta.url).href;
  const script = `
    import { execFileSync } from 'node:child_process';
    await import(${JSON.stringify(support)});
    const inherited = execFileSync(process.execPath, ['--print', 'JSON.stringify(${names.replaceAll("'", '"')})'], { encoding: 'utf8' });
    console.log(JSON.stringify({ own: ${names}, inherited: JSON.parse(inherited) }));`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script], { env: { ...process.env, ...set } });
  expect(JSON.parse(stdout)).toEqual({ own: [], inherited: [] });
  expect(Object.keys(process.env).filter((name) => name.startsWith('PG'))).toEqual([]);
});
