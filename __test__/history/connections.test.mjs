// What many processes do to one job while their connections and the network fail: see `processes.test.mjs`.

import { describe, expect, onTestFinished } from 'vitest';
import { startQuietableProxy } from '../support/servers.mjs';
import { makeJob, makeRecord, newId } from '../support/fixtures.mjs';
import { onEveryDatabase, SqlxStateStore, urlThrough } from '../support/suite.mjs';
import { assemble, describe as describeCall } from './checker.mjs';
import { longest, observe, scale } from './fleet.mjs';
import { recorder } from './importer.mjs';
import { expectCorrect, long, targetOf, wait } from './runs.mjs';

onEveryDatabase((on) => {
  describe('connections are killed by the server', () => {
    const killing = (durability, statementTimeoutMs) => async () => {
      const killer = await on.connect();
      let spared;
      const fault = async (fleet) => {
        fleet.counts.ended = fleet.counts.inUse = 0;
        while (!fleet.isDone) {
          await wait(20, 80);
          // Those of the fleet. What the store repeats by itself does not show in the history, so the server says how many were in the middle of
          // something.
          const open = (await on.dialect.sessions(killer)).filter(({ id }) => !spared.has(id));
          open.sort((a, b) => Number(b.busy) - Number(a.busy));
          for (const connection of open.slice(0, 3)) {
            const { ended, busy } = await on.dialect.endSession(killer, connection);
            if (!ended) continue;
            fleet.counts.ended++;
            if (busy) fleet.counts.inUse++;
          }
        }
      };
      await expectCorrect(
        async () => {
          // The test's own; the fleet's are not there yet.
          await on.query('select 1');
          spared = new Set((await on.dialect.sessions(killer)).map(({ id }) => id));
          return observe({ ...targetOf(on), fault, durability: [durability], options: { statementTimeoutMs } });
        },
        (facts) => facts.inUse >= 10,
      );
    };

    on.needs('server')('while they are in use', long, killing('record', 5_000));

    // A queued write is repeated for as long as a statement may take. Then it fails for good, as it may, but a worker here has no answer to that.
    on.needs('server')("while they are in use, and saves are queued (`durability: 'batch'`)", long, killing('batch', 30_000));
  });

  describe('the network goes quiet', () => {
    // Half of the fleet is behind a door that can be shut without a sound. Its leases end meanwhile, the other half takes over, and what was on
    // its way arrives when no call waits for it any more.
    const options = { statementTimeoutMs: 1_500, connectTimeoutMs: 1_000 };

    const openDoor = async () => {
      const door = await startQuietableProxy(on.address);
      onTestFinished(() => door.close());
      return { door, url: urlThrough(door.port, on.url) };
    };

    const throughDoor = async (run, inflict) => {
      const { door, url } = await openDoor();
      const fault = async (fleet) => {
        for (const name of ['q0', 'q1']) fleet.start(name, { url });
        await expect.poll(() => fleet.isDone || door.open > 2, { timeout: 20_000 }).toBe(true);
        try {
          await inflict(fleet, door, url);
        } finally {
          door.resume();
        }
      };
      return observe({ ...targetOf(on), ...run, fault, options, processes: 2 });
    };

    const noNetwork = on.needs('server');

    noNetwork('in both directions, and resumes or ends', long, async () => {
      const inflict = async (fleet, door, url) => {
        for (let times = 0; times < 2 * scale && !fleet.isDone; times++) {
          await wait(200, 500);
          door.silence();
          // One that has never heard a word from the server.
          if (times === 0) fleet.start('new', { url });
          await wait(2_000, 2_500);
          if (times % 2 === 1) door.cut();
          door.resume();
        }
      };
      await expectCorrect(
        () => throughDoor({ batches: Math.ceil(120 * scale) }, inflict),
        (facts) => facts.failed > 10 && facts.reclaimed > 0,
      );
    });

    noNetwork('in the direction of the replies, so that claims are made that no worker knows of', long, async () => {
      const inflict = async (fleet, door) => {
        for (let times = 0; times < 30 * scale && !fleet.isDone; times++) {
          await wait(20, 100);
          door.silence({ replies: true });
          // Most of the time just so long that what is under way is done; else until the calls are given up.
          await (times % 12 === 6 ? wait(1_700, 2_200) : wait(20, 50));
          door.cut();
          door.resume();
        }
      };
      await expectCorrect(
        () => throughDoor({ batches: Math.ceil(120 * scale), failingEvery: 30 }, inflict),
        (facts) => facts.failed > 10 && facts.reclaimed > 0 && facts.lostClaims > 0,
      );
    });

    // Calls made at once, each with ids of its own: what they wait for is the server, and not each other.
    const crowds = {
      'jobs that are saved': (store, n) => [store.saveJobState(makeJob(1)), store.getProgress(`job ${n}`)],
      'records that are saved': (store, n) => [store.saveProcessedRecord(newId(), 'b', makeRecord(n)), store.getJobState(`job ${n}`)],
      'records that are saved in bulk': (store, n) => [store.saveBatchRecords(newId(), 'b', [makeRecord(n)])],
      'records that are saved alone and in bulk, in turn': (store, n) => [
        store.saveProcessedRecord(newId(), 'b', makeRecord(n)),
        store.saveBatchRecords(newId(), 'b', [makeRecord(n)]),
      ],
      'jobs that are finalized, and batches claimed': (store, n) => [store.tryFinalizeJob(`job ${n}`), store.claimBatch(`job ${n}`, 'w')],
      'a store that is closed': (store, n) => (n === 7 ? [store.close()] : []),
    };

    describe('and holds nothing up for longer than a call may take:', () => {
      for (const [name, crowd] of Object.entries(crowds)) {
        noNetwork(name, long, async () => {
          const { door, url } = await openDoor();
          const times = { statementTimeoutMs: 500, connectTimeoutMs: 500 };
          const open = () => {
            const store = new SqlxStateStore(url, { ...times, pool: { max: 3, acquireTimeoutMs: 500 } });
            onTestFinished(() => store.close());
            return store;
          };
          const stores = { fresh: open(), used: open() };
          // A busy machine may need longer than its limits allow to connect.
          const usable = () => Promise.all(['a', 'b', 'c'].map((id) => stores.used.getProgress(id))).then(() => true);
          await expect.poll(() => usable().catch(() => false), { timeout: 60_000 }).toBe(true);

          const lines = [];
          const record = recorder('here', (line) => lines.push(line));
          const made = [];
          door.silence();
          for (const [worker, store] of Object.entries(stores)) {
            for (let n = 0; n < 24; n++) {
              for (const call of crowd(store, n)) made.push(record(worker, name, {}, () => call));
            }
          }
          await Promise.all(made);
          door.resume();

          const calls = assemble(lines);
          // One after the other they would need 12 s at least.
          const late = calls.filter(({ invoked, returned }) => returned - invoked > longest(times) + 5_000);
          expect(late.map(describeCall)).toEqual([]);
          expect(calls.filter(({ error }) => error && !error.retryable).map(describeCall)).toEqual([]);
        });
      }
    });
  });
});
