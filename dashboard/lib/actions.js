'use strict';

// What the page does: each function calls one method of the store, and answers what came of it.

const { Refusal } = require('./refusal.js');
const { duration, flag, text } = require('./query.js');
const { mustExist } = require('./views.js');

/** A purge deletes this many jobs in a call, so that a request doesn't take minutes. The page repeats it. */
const PURGED = 50;

const ACTIONS = {
  pause: {
    takes: { id: text },
    run: async ({ store }, { id }) => ({ changed: await store.pauseJob(id) }),
  },
  resume: {
    takes: { id: text },
    run: async ({ store }, { id }) => ({ changed: await store.resumeJob(id) }),
  },
  abort: {
    takes: { id: text, now: flag, force: flag },
    run: async ({ store }, { id, ...options }) => ({ changed: await store.abortJob(id, options) }),
  },
  retry: {
    takes: { id: text, invalid: flag },
    run: async ({ store }, { id, invalid }) => ({ made: await store.retryFailed(id, invalid ? { statuses: ['failed', 'invalid'] } : {}) }),
  },
  reclaim: {
    takes: { id: text },
    run: async ({ store, settings }, { id }) => ({ count: await store.reclaimStaleBatches(id, settings.staleAfterMs) }),
  },
  purge: {
    takes: { olderThanMs: duration, dryRun: flag },
    needs: ['olderThanMs'],
    async run({ store }, { olderThanMs, dryRun = false }) {
      const result = await store.purge(dryRun ? { olderThanMs, dryRun } : { olderThanMs, limit: PURGED });
      const { jobIds, batches, records, orphans, skipped } = result;
      return {
        jobs: jobIds.length,
        batches,
        records,
        orphans: orphans.length,
        skipped: skipped.length,
        more: !dryRun && jobIds.length === PURGED,
      };
    },
  },
};

/** Runs an action with what the body gives it. */
async function act(context, name, body) {
  const { run, needs = ['id'] } = ACTIONS[name];
  for (const key of needs) if (body[key] === undefined) throw new Refusal(400, 'BAD_REQUEST', `The body must have ${key}.`);
  // The store's methods change nothing where there is no such job, and say no more than that.
  if (body.id !== undefined) await mustExist(context.store, body.id);
  try {
    return await run(context, body);
  } finally {
    // Where it failed too: it may have taken effect.
    context.fresh.forget();
  }
}

module.exports = { ACTIONS, act };
