// Servers whose settings are not the usual ones: the store says on each connection what it needs, so that they make no difference.

import { describe, expect, onTestFinished } from 'vitest';
import { onOwnServer, startOwnServer } from './support/own-servers.mjs';
import { connect } from './support/raw.mjs';
import { makeJob, makeRecord } from './support/fixtures.mjs';
import { claim, complete, SqlxStateStore } from './support/suite.mjs';

/** Global settings, so they need a server of the test's own. */
const SETTINGS = {
  mariadb: [
    'set global autocommit = 0',
    `set global completion_type = 'CHAIN'`,
    `set global completion_type = 'RELEASE'`,
    `set global sql_mode = 'ORACLE'`,
    `set global sql_mode = 'ANSI,PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES'`,
    `set global sql_mode = ''`,
    `set global tx_isolation = 'SERIALIZABLE'`,
    `set global time_zone = '+05:30'`,
    // These cut what is read, refuse what reads much, or refuse an update.
    'set global sql_select_limit = 2',
    'set global sql_select_limit = 0',
    'set global max_join_size = 1',
    'set global sql_safe_updates = 1',
    'set global sql_auto_is_null = 1',
    'set global group_concat_max_len = 4',
    'set global max_sort_length = 8',
    'set global unique_checks = 0',
  ],
  mysql: [
    'set global autocommit = 0',
    `set global completion_type = 'CHAIN'`,
    `set global sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'`,
    `set global transaction_isolation = 'SERIALIZABLE'`,
    `set global time_zone = '+05:30'`,
    'set global sql_select_limit = 2',
    'set global sql_select_limit = 0',
    'set global max_join_size = 1',
    'set global sql_safe_updates = 1',
    'set global sql_auto_is_null = 1',
    'set global group_concat_max_len = 4',
    'set global max_sort_length = 4',
    'set global unique_checks = 0',
  ],
  postgres: [
    `alter system set default_transaction_isolation = 'serializable'`,
    `alter system set default_transaction_deferrable = on`,
    `alter system set timezone = 'Asia/Kolkata'`,
    `alter system set standard_conforming_strings = off`,
    `alter system set search_path = 'public'`,
    `alter system set plan_cache_mode = 'force_generic_plan'`,
    `alter system set statement_timeout = '1h'`,
    `alter system set lock_timeout = '1ms'`,
    `alter system set quote_all_identifiers = on`,
    `alter system set transform_null_equals = on`,
    `alter system set datestyle = 'German'`,
    `alter system set bytea_output = 'escape'`,
    `alter system set extra_float_digits = -15`,
  ],
};

describe.each(Object.keys(SETTINGS))('%s', (kind) => {
  onOwnServer(kind)('what is saved is committed, whatever the server’s settings are', async () => {
    const server = await startOwnServer(kind);
    onTestFinished(() => server.end());
    const settings = await connect(kind, server.url);
    onTestFinished(() => settings.end());
    for (const setting of SETTINGS[kind]) {
      await settings.query(setting);
      if (kind === 'postgres') await settings.query('select pg_reload_conf()');
      const store = new SqlxStateStore(server.url);
      await store.initialize();
      const job = makeJob(2);
      await store.saveJobState(job);
      const held = await claim(store, job.id);
      await store.saveProcessedRecord(job.id, held.batchId, makeRecord(0));
      await store.saveBatchRecords(job.id, held.batchId, [makeRecord(1), makeRecord(2)]);
      await complete(store, job.id, held.batchId);
      await store.releaseBatch(job.id, (await claim(store, job.id)).batchId, 'worker');
      await complete(store, job.id, (await claim(store, job.id)).batchId);
      expect(await store.tryFinalizeJob(job.id), setting).toBe(true);
      await store.close();

      // Another connection sees only what was committed.
      const later = new SqlxStateStore(server.url);
      onTestFinished(() => later.close());
      const found = await later.getJobState(job.id);
      expect(found, setting).toMatchObject({ status: 'COMPLETED', batches: [{ status: 'COMPLETED' }, { status: 'COMPLETED' }] });
      expect(await later.getBatchRecords(job.id, held.batchId), setting).toEqual([0, 1, 2].map((index) => makeRecord(index)));
      expect(Math.abs(found.completedAt - Date.now()), setting).toBeLessThan(600_000);
    }
  });
});
