/** The tests' Sequelize adapter on a test database: in this process where it can be, beside the store. */
import { onTestFinished } from 'vitest';
import { startRemote } from './remote.mjs';
import { connectSequelize, IncumbentLikeStore } from './sequelize-models.mjs';

const CHILD = new URL('./incumbent-child.mjs', import.meta.url);

/** An `IncumbentLikeStore`; for a SQLite file one in another process, with the same methods, and no models to get at. */
export async function openIncumbent({ dialect: { name, schemes, sequelizeOptions }, url }, options) {
  const db = { dialect: { name, sequelizeOptions }, url };
  if (!schemes.includes('sqlite')) return new IncumbentLikeStore(connectSequelize(db, options));
  const { call, end } = await startRemote(CHILD, db, options);
  const methods = Object.getOwnPropertyNames(IncumbentLikeStore.prototype).filter((name) => name !== 'constructor');
  const incumbent = Object.fromEntries(methods.map((name) => [name, (...args) => call(name, ...args)]));
  return { ...incumbent, close: () => incumbent.close().finally(end) };
}

/** The same, closed after the test. */
export async function freshIncumbent(db, options) {
  const incumbent = await openIncumbent(db, options);
  onTestFinished(() => incumbent.close());
  return incumbent;
}
