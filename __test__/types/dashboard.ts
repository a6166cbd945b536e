// The dashboard's types, as its users write them. Node's types are needed: its handler takes a request and a response of Node.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { SqlxStateStore, type ProcessedRecord } from '../../index.js';
import { createDashboard, type DashboardHandler, type DashboardOptions, type DashboardStore } from '../../dashboard/index.js';

declare function isOperator(request: IncomingMessage): Promise<boolean>;

const store = new SqlxStateStore('sqlite::memory:');
const options: DashboardOptions = {
  authorize: (request) => isOperator(request),
  actions: true,
  showRecords: true,
  redact: ({ index, status, raw }: ProcessedRecord) => ({ index, status, raw: { city: raw.city }, parsed: {}, errors: [] }),
  staleAfterMs: 60_000,
  basePath: '/batches',
  onError: (error) => console.error(error),
};
export const handler: DashboardHandler = createDashboard(store, options);
createServer(handler);
createServer(createDashboard(store));

export const answered: Promise<void> = handler({} as IncomingMessage, {} as ServerResponse);
export const isStore: DashboardStore = store;

// @ts-expect-error -- an option that doesn't exist
createDashboard(store, { autorize: () => true });
// @ts-expect-error -- a forgotten `return`
createDashboard(store, { authorize: () => {} });
// @ts-expect-error -- a user is not an answer
createDashboard(store, { authorize: async () => ({ name: 'ada' }) });
// @ts-expect-error -- no store
createDashboard('sqlite::memory:');
