// From @batchactions/state-sequelize to this package and back: a job that one of them began, the other one ends, on the same tables.
//
//   node examples/swap.mjs
//
// First way, no line of code changes. In package.json the old name stands for the new package, and every import stays as it is:
//
//   npm install @batchactions/state-sequelize@npm:@batchactions/state-sqlx
//
// Second way, one line changes:
//
//   -import { SequelizeStateStore } from '@batchactions/state-sequelize';
//   +import { SequelizeStateStore } from '@batchactions/state-sqlx';
//
// And back: undo it. Nothing has to be migrated in either direction.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QueryTypes, Sequelize } from 'sequelize';
import { SequelizeStateStore, SqlxStateStore } from '@batchactions/state-sqlx';

const folder = await mkdtemp(join(tmpdir(), 'swap-'));
const storage = join(folder, 'jobs.db');

// What an application has already: a Sequelize instance. The store reads from it where the database is and who may log in, and makes
// connections of its own. On a server both are used side by side. On SQLite one of them has the file open at a time: two copies of the
// SQLite library in one process can destroy a file that both have open, so the store refuses one that is.
const sequelize = new Sequelize({ dialect: 'sqlite', storage, logging: false });
const store = new SequelizeStateStore(sequelize);
await store.initialize();
await store.saveJobState({
  id: 'job-1',
  config: { batchSize: 100 },
  status: 'PROCESSING',
  batches: [],
  totalRecords: 0,
  startedAt: Date.now(),
});
await store.close();

// The tables are those of the Sequelize adapter, so what reads them today reads them tomorrow: reports, dashboards, other models.
const [row] = await sequelize.query('SELECT id, status FROM batchactions_jobs', { type: QueryTypes.SELECT });
console.log('through Sequelize:', row);
await sequelize.close();

// Later, when nothing else needs Sequelize, a URL will do.
const later = new SqlxStateStore(`sqlite://${storage}`);
const { id, status } = await later.getJobState('job-1');
console.log('through a URL:    ', { id, status });
await later.close();
await rm(folder, { recursive: true });
