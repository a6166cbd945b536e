// Swaps @batchactions/state-sequelize for this package and back: either one works on the tables and jobs of the other.
//
//   node examples/swap.mjs
//
// Without a change to the code: in package.json the old name stands for the new package.
//
//   npm install @batchactions/state-sequelize@npm:@batchactions/state-sqlx
//
// Or with one line:
//
//   -import { SequelizeStateStore } from '@batchactions/state-sequelize';
//   +import { SequelizeStateStore } from '@batchactions/state-sqlx';
//
// To go back, undo it. Nothing has to be migrated in either direction.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QueryTypes, Sequelize } from 'sequelize';
import { SequelizeStateStore, SqlxStateStore } from '@batchactions/state-sqlx';

const folder = await mkdtemp(join(tmpdir(), 'swap-'));
const storage = join(folder, 'jobs.db');

// The application's Sequelize instance. The store reads from it where the database is and who logs in, and makes its own connections. On a
// server both work side by side. On SQLite only one of them may have the file open at a time: two copies of the SQLite library in one
// process can destroy a file that both have open, so the store refuses a file that is open elsewhere in the process.
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

// The tables are those of the Sequelize adapter, so reports, dashboards and models that read them keep working.
const [row] = await sequelize.query('SELECT id, status FROM batchactions_jobs', { type: QueryTypes.SELECT });
console.log('through Sequelize:', row);
await sequelize.close();

// Later, when nothing else needs Sequelize, a URL will do.
const later = new SqlxStateStore(`sqlite://${storage}`);
const { id, status } = await later.getJobState('job-1');
console.log('through a URL:    ', { id, status });
await later.close();
await rm(folder, { recursive: true });
