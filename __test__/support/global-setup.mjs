// Before all tests: finds the databases, once. After them: drops what they left, and stops what was started here.

import { discover, names } from './discover.mjs';

export default async function setup() {
  const required = (process.env.REQUIRE_DATABASES ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean)
    .flatMap((name) => (name === 'sqlite' ? ['sqlite-file', 'sqlite-memory'] : [name]));
  const unknown = required.filter((name) => !names.includes(name));
  if (unknown.length > 0)
    throw new Error(`REQUIRE_DATABASES names what no test knows: ${unknown.join(', ')}. Known: sqlite, ${names.join(', ')}`);

  const { found, missing, run, stop } = await discover();
  // The test processes inherit it, and so do the processes that they start. The reporter, in this process, reads it too.
  process.env.BATCHACTIONS_TEST_DATABASES = JSON.stringify({ found, missing, run });
  const wanted = missing.filter(({ name }) => required.includes(name));
  if (wanted.length > 0) {
    await stop();
    throw new Error(`REQUIRE_DATABASES: ${wanted.map(({ name, reason }) => `${name} is missing (${reason})`).join('; ')}`);
  }

  const { dropLeftovers } = await import('./databases.mjs');
  return async () => {
    await dropLeftovers();
    await stop();
  };
}
