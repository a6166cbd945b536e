// What many processes do to one job while some of them are late, stopped or killed, and whether a correct store could have answered them so.
//
// Each test lets a fleet of processes do a job as the importer's workers do, breaks something meanwhile, and hands the history of all calls to
// the checker (`checker.mjs`). A fault that hit nothing proves nothing: it is inflicted again, on a new job, a few times. Faults of connections
// and servers are in `connections.test.mjs` and `servers.test.mjs`.
//
// The stores have `durability: 'record'` where nothing else is said. With 'batch', answered saves may die with a process or a claim, and the checker has to
// tell from what is read whether a batch is COMPLETED with its records.
//
//   npx vitest run __test__/history                     one job for each fault and database: minutes
//   HISTORY_SCALE=20 npx vitest run __test__/history    jobs of twenty times as many batches, and as many faults
//   HISTORY_KEEP=folder                                 keeps each history there, as JSON, with what the checker found, and prints the numbers
//
// No time is asserted but this: a call returns within what the options say that a statement may take, and a margin (`longest` in `fleet.mjs`).

import { describe, expect, test } from 'vitest';
import { onEveryDatabase } from '../support/suite.mjs';
import { observe, scale } from './fleet.mjs';
import { now } from './importer.mjs';
import { expectCorrect, long, ROUNDS, targetOf, wait } from './runs.mjs';

onEveryDatabase((on) => {
  describe('nothing fails', () => {
    // Where no lease ends, nothing is taken from any worker, and exactly one is told that it finalized the job.
    const options = { statementTimeoutMs: 30_000, connectTimeoutMs: 30_000 };
    const calm = { leaseMs: 120_000, stalls: false, faultless: true, options };

    const expectCalm = async (given) => {
      const facts = await expectCorrect(
        () => observe({ ...targetOf(on), ...calm, ...given }),
        ({ released }) => released > 0,
      );
      expect(facts).toMatchObject({ finalizers: 1, reclaimed: 0, failed: 0, unanswered: 0 });
    };

    on.needs('shared')('four processes', long, () => expectCalm({}));

    test('sixteen workers of one store', long, () => expectCalm({ inProcess: true, failingEvery: 20 }));
  });

  describe('workers are late', () => {
    test('that keep silent for longer than their lease, in one store', long, async () => {
      const all = (facts) => facts.reclaimed > 0 && facts.failures.LEASE_LOST > 0;
      await expectCorrect(() => observe({ ...targetOf(on), inProcess: true, faultless: true }), all);
    });

    on.needs('shared')('that are stopped in the middle and go on after their lease', long, async () => {
      const fault = async (fleet) => {
        for (let stops = 0; stops < 3 * scale && !fleet.isDone; stops++) {
          await wait(200, 600);
          const member = fleet.random();
          if (member) await fleet.suspend(member, 2_000);
        }
      };
      await expectCorrect(
        // Of the processes whose workers share a store, and of the others, one queues its saves.
        () => observe({ ...targetOf(on), fault, failingEvery: 25, durability: ['record', 'batch', 'batch', 'record'] }),
        (facts) => facts.reclaimed > 0 && facts.failures.LEASE_LOST > 0,
      );
    });
  });

  describe('the job is paused and resumed', () => {
    on.needs('shared')('all the time, while workers are late and killed', long, async () => {
      const { store } = targetOf(on);
      const fault = async (fleet) => {
        const { id } = fleet.job;
        let late = 0;
        fleet.counts.paused = 0;
        while (!fleet.isDone) {
          const pause = { invoked: now(), changed: await store.pauseJob(id), paused: now() };
          if (pause.changed) fleet.counts.paused++;
          await wait(5, 60);
          fleet.pauses.push({ ...pause, resuming: now(), went: await store.resumeJob(id), resumed: now() });
          await wait(20, 200);
          const member = late < 2 && fleet.counts.paused % 8 === 0 ? fleet.random() : undefined;
          if (member === undefined) continue;
          await fleet.kill(member);
          if (member.killed) fleet.start(`late${++late}`);
        }
      };
      await expectCorrect(
        () => observe({ ...targetOf(on), fault, steered: true, failingEvery: 25 }),
        (facts) => facts.paused >= 5,
      );
    });
  });

  // The control: it shows that the whole of this, and not the checker alone, sees what goes wrong.
  describe('workers are late and hand over no token', () => {
    on.needs('memory')('so that a store which they share can not tell them apart, which is found', long, async () => {
      const rules = new Set();
      for (let round = 0; round < ROUNDS && !rules.has('fencing'); round++) {
        const { violations } = await observe({ ...targetOf(on), inProcess: true, explicit: false });
        for (const { rule } of violations) rules.add(rule);
      }
      expect([...rules]).toContain('fencing');
    });
  });

  describe('processes are killed', () => {
    const killing = (durability, hits) => async () => {
      const fault = async (fleet) => {
        let taken = 0;
        let cut = 0;
        let cutEnds = 0;
        // On, where the first kills came between two calls.
        const due = () => fleet.interruptions.length < 10 * scale || ((cut < 3 || cutEnds < 1) && fleet.interruptions.length < 40 * scale);
        while (!fleet.isDone && due()) {
          await wait(150, 500);
          // Every other one in the middle of the end of a batch, with which its last records may be written.
          const member = (taken % 2 === 1 && (await fleet.randomDuring('updateBatchState', 500))) || fleet.random();
          if (!member) continue;
          const underWay = await fleet.kill(member);
          if (!member.killed) continue;
          cut += underWay.length;
          cutEnds += underWay.filter(({ call }) => call === 'updateBatchState').length;
          taken++;
          fleet.start(taken % 4 < 2 ? member.workerName : `late${taken}`);
        }
        fleet.counts.cut = cut;
      };
      await expectCorrect(
        () => observe({ ...targetOf(on), fault, durability: [durability] }),
        (facts) => facts.kills >= 5 && facts.cut >= 3 && facts.reclaimed > 0 && hits(facts),
      );
    };

    on.needs('shared')(
      'and others take over, under the same and under new ids',
      long,
      killing('record', () => true),
    );

    // Saves that were answered die with the processes.
    on.needs('shared')(
      "while their saves are queued (`durability: 'batch'`)",
      long,
      killing('batch', ({ lostSaves, cutEnds }) => lostSaves > 0 && cutEnds > 0),
    );

    // What the process begins between the kill and its end is under way at its end, and no call that hangs.
    on.needs('shared')('by a signal that arrives late, as on a busy machine', long, async () => {
      const fault = async (fleet) => {
        let member;
        while (!fleet.isDone && !(member = fleet.random())) await wait(20, 50);
        if (!member) return;
        const { child } = member;
        child.kill = (signal) => setTimeout(() => Object.getPrototypeOf(child).kill.call(child, signal), 400);
        fleet.counts.cut = (await fleet.kill(member)).length;
      };
      await expectCorrect(
        () => observe({ ...targetOf(on), fault, batches: Math.ceil(60 * scale) }),
        (facts) => facts.kills === 1 && facts.cut > 0,
      );
    });
  });
});
