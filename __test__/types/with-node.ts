/** What needs types of others: the real `Sequelize`, and a `URL`, which `@types/node` has. */
import { Sequelize } from 'sequelize';
import { SequelizeStateStore, SqlxStateStore } from '../../index.js';
import type { DistributedStateStore, StateStore } from './ports.js';

export function open(sequelize: Sequelize): DistributedStateStore[] {
  const swapped: StateStore = new SequelizeStateStore(sequelize);
  const made = new SequelizeStateStore(new Sequelize('sqlite::memory:'), { tablePrefix: 'x_' });
  const url: StateStore = new SqlxStateStore(new URL('postgres://localhost/db'));
  void [swapped, url];
  // @ts-expect-error A model is not an instance.
  new SequelizeStateStore(Sequelize);
  return [made];
}
