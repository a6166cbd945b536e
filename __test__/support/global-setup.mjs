// Before all tests: finds the databases, once. After them: drops what they left, and stops what was started here.

import { discover, namedBy } from './discover.mjs';

export default async function setup() {
  // A database that is asked for by name has to be there.
  const required = ['REQUIRE_DATABASES', 'TEST_DATABASES'].map((variable) => [variable, namedBy(variable) ?? []]);

  const { found, missing, leftOut, run, stop } = await discover();
  // The test processes inherit it, and so do the processes that they start. The reporter, in this process, reads it too.
  process.env.BATCHACTIONS_TEST_DATABASES = JSON.stringify({ found, missing, leftOut, run });
  const reasons = new Map([
    ...missing.map(({ name, reason }) => [name, reason]),
    ...leftOut.map((name) => [name, 'TEST_DATABASES leaves it out']),
  ]);
  for (const [variable, databases] of required) {
    const absent = databases.filter((name) => reasons.has(name));
    if (absent.length === 0) continue;
    await stop();
    throw new Error(`${variable}: ${absent.map((name) => `${name} is missing (${reasons.get(name)})`).join('; ')}`);
  }

  const { dropLeftovers } = await import('./databases.mjs');
  return async () => {
    await dropLeftovers();
    await stop();
  };
}
