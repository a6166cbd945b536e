// Prepares a job: stores the rows of a CSV file in batches, and then the job itself. From then on workers can claim its batches.
//
//   DATABASE_URL=… node orchestrator.mjs <job id> <file.csv> [rows in a batch]

import { randomUUID } from 'node:crypto';
import { SqlxStateStore } from '@batchactions/state-sqlx';
import { readCsv } from './csv.mjs';

const [jobId, file, size = '500'] = process.argv.slice(2);
const batchSize = Number(size);

// The URL holds a password, and every user of the machine can read a process's arguments, so it comes in the environment.
const store = new SqlxStateStore(process.env.DATABASE_URL);
// Creates the tables where they are missing. Any process may call it at any time.
await store.initialize();

const batches = [];
let totalRecords = 0;
let records = [];

async function saveBatch() {
  const id = randomUUID();
  // All records of the batch or none. No worker can claim them before the job exists.
  await store.saveBatchRecords(jobId, id, records);
  batches.push({
    id,
    index: batches.length,
    status: 'PENDING',
    records: [],
    processedCount: 0,
    failedCount: 0,
    recordStartIndex: records[0].index,
    recordEndIndex: records.at(-1).index,
  });
  records = [];
}

for await (const raw of readCsv(file)) {
  records.push({ index: totalRecords++, raw, parsed: {}, status: 'pending', errors: [] });
  if (records.length === batchSize) await saveBatch();
}
if (records.length > 0) await saveBatch();

// Last, and in one transaction: with `distributed: true` the batches that the workers claim are stored with the job.
// `startedAt` is now, so that the store estimates the remaining time from the workers' pace.
const startedAt = Date.now();
await store.saveJobState({ id: jobId, config: { batchSize }, status: 'PROCESSING', distributed: true, batches, totalRecords, startedAt });
await store.close();
