// What many processes do to one job while processes, connections and servers fail, and whether a correct store could have answered them so.
//
// Each test lets a fleet of processes do a job as the importer's workers do, breaks something meanwhile, and hands the history of all calls to
// the checker (`checker.mjs`). A fault that hit nothing proves nothing: it is inflicted again, on a new job, a few times.
//
//   npx vitest run __test__/history                     one job for each fault and database: minutes
//   HISTORY_SCALE=20 npx vitest run __test__/history    jobs of twenty times as many batches
//   HISTORY_KEEP=folder                                 keeps each history there, as JSON, with what the checker found
//
// No time is asserted but this: a call returns within what the options say that a statement may take, and a margin (`longest` in `fleet.mjs`).

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { findServer, startOwnServer } from '../support/own-servers.mjs';
import { startQuietableProxy } from '../support/servers.mjs';
import { onEveryDatabase, SqlxStateStore } from '../support/suite.mjs';
import { connect } from '../support/raw.mjs';
import { observe, scale } from './fleet.mjs';

const long = { timeout: 240_000 * Math.max(1, scale) };

/** Attempts to hit something. */
const ROUNDS = 4;

/** Runs until the fault has hit what it should, and expects no violation in any run. */
async function expectCorrect(run, hit) {
  const tried = [];
  for (let round = 0; round < ROUNDS; round++) {
    const { violations, facts } = await run();
    report(facts);
    // The first few say what is wrong; there may be thousands.
    expect({ found: violations.length, violations: violations.slice(0, 5) }).toEqual({ found: 0, violations: [] });
    if (hit(facts)) return;
    tried.push(facts);
  }
  expect.fail(`the fault hit nothing in ${ROUNDS} runs: ${JSON.stringify(tried, null, 1)}`);
}

/** With HISTORY_KEEP, the numbers of each run too. */
function report(facts) {
  if (process.env.HISTORY_KEEP) console.log(expect.getState().currentTestName, facts);
}

const wait = (least, most) => sleep(least + Math.random() * (most - least));

onEveryDatabase((on) => {
  const raw = () => (on.database.raw ? (...args) => on.query(...args) : undefined);
  const target = () => ({ store: on.store, url: on.url, query: raw() });

  describe('nothing fails', () => {
    // Where no lease ends, nothing is taken from anybody, and there is exactly one who is told that it finalized the job.
    const calm = { leaseMs: 120_000, stalls: false, faultless: true };

    on.needs('shared')('four processes', long, async () => {
      const all = (facts) => facts.finalizers === 1 && facts.reclaimed === 0 && facts.failed === 0 && facts.released > 0;
      await expectCorrect(() => observe({ ...target(), ...calm }), all);
    });

    test('sixteen workers of one store', long, async () => {
      const all = (facts) => facts.finalizers === 1 && facts.reclaimed === 0 && facts.failed === 0 && facts.released > 0;
      await expectCorrect(() => observe({ ...target(), ...calm, inProcess: true, failingEvery: 20 }), all);
    });
  });

  describe('workers are late', () => {
    test('that keep silent for longer than their lease, in one store', long, async () => {
      const all = (facts) => facts.reclaimed > 0 && facts.failures.LEASE_LOST > 0;
      await expectCorrect(() => observe({ ...target(), inProcess: true, faultless: true }), all);
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
        () => observe({ ...target(), fault, failingEvery: 25 }),
        (facts) => facts.reclaimed > 0 && facts.failures.LEASE_LOST > 0,
      );
    });
  });

  // The control: it shows that the whole of this, and not the checker alone, sees what goes wrong.
  if (on.database.name === 'sqlite-memory') {
    describe('workers are late and hand over no token', () => {
      test('so that a store which they share can not tell them apart, which is found', long, async () => {
        const rules = new Set();
        for (let round = 0; round < ROUNDS && !rules.has('fencing'); round++) {
          const { violations } = await observe({ ...target(), inProcess: true, explicit: false });
          for (const { rule } of violations) rules.add(rule);
        }
        expect([...rules]).toContain('fencing');
      });
    });
  }

  describe('processes are killed', () => {
    on.needs('shared')('and others take over, under the same and under new ids', long, async () => {
      const fault = async (fleet) => {
        let taken = 0;
        let cut = 0;
        while (!fleet.isDone && fleet.interruptions.length < 12 * scale) {
          await wait(150, 500);
          const member = fleet.random();
          if (!member) continue;
          const underWay = await fleet.kill(member);
          if (!member.killed) continue;
          cut += underWay.length;
          taken++;
          fleet.start(taken % 2 === 0 ? member.workerName : `late${taken}`);
        }
        fleet.counts.cut = cut;
      };
      await expectCorrect(
        () => observe({ ...target(), fault }),
        (facts) => facts.kills >= 5 && facts.cut >= 5 && facts.reclaimed > 0,
      );
    });
  });

  describe('connections are killed by the server', () => {
    // Those of this database only, and of those only the fleet's. What the store repeats by itself does not show in the history, so the server
    // says how many were in the middle of something.
    const list = {
      postgres: (db) =>
        db.query(
          `select pid as "id", state <> 'idle' as "busy" from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and state is not null`,
        ),
      async mysql(db) {
        const threads = await db.query('show full processlist');
        return threads.filter((thread) => thread.db === on.own.name).map(({ Id, Command }) => ({ id: Id, busy: Command !== 'Sleep' }));
      },
    };
    const end = {
      postgres: async (db, id) => (await db.query('select pg_terminate_backend(?) as "ended"', [id]))[0].ended,
      mysql: (db, id) =>
        db.query(`kill ${Number(id)}`).then(
          () => true,
          (error) => {
            if (/unknown thread/i.test(error.message)) return false;
            throw error;
          },
        ),
    };

    on.except(['sqlite'], 'it has no connections that a server could end')('while they are in use', long, async () => {
      const protocol = on.mysqlFamily ? 'mysql' : 'postgres';
      const killer = await on.connect();
      let spared;
      const fault = async (fleet) => {
        fleet.counts.ended = fleet.counts.inUse = 0;
        while (!fleet.isDone) {
          await wait(20, 80);
          const open = (await list[protocol](killer)).filter(({ id }) => !spared.has(id));
          open.sort((a, b) => Number(b.busy) - Number(a.busy));
          for (const { id, busy } of open.slice(0, 3)) {
            if (!(await end[protocol](killer, id))) continue;
            fleet.counts.ended++;
            if (busy) fleet.counts.inUse++;
          }
        }
      };
      await expectCorrect(
        async () => {
          // The test's own; the fleet's are not there yet.
          await on.query('select 1');
          spared = new Set((await list[protocol](killer)).map(({ id }) => id));
          return observe({ ...target(), fault, options: { statementTimeoutMs: 5_000 } });
        },
        // PostgreSQL says that it ends the connection in place of an answer, so the store knows what did not happen, and repeats even a claim.
        (facts) => facts.inUse >= 10 && (on.dialect === 'postgres' || facts.failed > 0),
      );
    });
  });

  describe('the network goes quiet', () => {
    // Half of the fleet is behind a door that can be shut without a sound. Its leases end meanwhile, the other half takes over, and what was on
    // its way arrives when nobody waits for it any more.
    const options = { statementTimeoutMs: 1_500, connectTimeoutMs: 1_000 };

    const throughDoor = async (run, inflict) => {
      const { hostname, port } = new URL(on.url);
      const door = await startQuietableProxy({ host: hostname, port: Number(port) || (on.mysqlFamily ? 3306 : 5432) });
      onTestFinished(() => door.close());
      const url = new URL(on.url);
      url.hostname = '127.0.0.1';
      url.port = String(door.port);
      const fault = async (fleet) => {
        for (const name of ['q0', 'q1']) fleet.start(name, { url: url.href });
        await expect.poll(() => fleet.isDone || door.open > 2, { timeout: 20_000 }).toBe(true);
        try {
          await inflict(fleet, door, url.href);
        } finally {
          door.resume();
        }
      };
      return observe({ ...target(), ...run, fault, options, processes: 2 });
    };

    const noNetwork = on.except(['sqlite'], 'there is no network between it and its store');

    noNetwork('in both directions, and resumes or ends', long, async () => {
      const inflict = async (fleet, door, url) => {
        for (let times = 0; times < 2 * scale && !fleet.isDone; times++) {
          await wait(200, 500);
          door.silence();
          await wait(2_500, 3_500);
          if (times % 2 === 1) door.cut();
          door.resume();
        }
        // Many workers that never heard a word from the server, for longer than any of their calls may take: one after the other would take longer.
        door.silence();
        fleet.start('new', { url, workers: 16, shared: true });
        await wait(8_000, 8_000);
      };
      await expectCorrect(
        () => throughDoor({ batches: Math.ceil(140 * scale) }, inflict),
        (facts) => facts.failed > 10 && facts.reclaimed > 0,
      );
    });

    noNetwork('in the direction of the replies, so that claims are made that nobody knows of', long, async () => {
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
        () => throughDoor({ batches: Math.ceil(140 * scale), failingEvery: 30 }, inflict),
        (facts) => facts.failed > 10 && facts.reclaimed > 0 && facts.lostClaims > 0,
      );
    });
  });
});

// On servers of the test's own, for nobody may end another.
describe.each(['postgres', 'mariadb'])('%s', (kind) => {
  const { missing } = findServer(kind);
  const required = (process.env.REQUIRE_DATABASES ?? '').split(',').map((name) => name.trim());
  // Missing programs are said by name; where this database is required, the test runs, and fails with what is missing.
  const isExempt = missing !== undefined && !required.includes(kind);
  const onOwnServer = (name, body) => (isExempt ? test.skip(`${name} [exempt, ${kind}: ${missing}]`, () => {}) : test(name, long, body));

  describe('the server is started again', () => {
    const restarting = async (again) => {
      const server = await startOwnServer(kind);
      onTestFinished(() => server.end());
      const store = new SqlxStateStore(server.url);
      onTestFinished(() => store.close());
      await store.initialize();

      // Every second time it stays away for longer than the store tries again by itself.
      const fault = async (fleet) => {
        fleet.counts.restarts = 0;
        while (!fleet.isDone && fleet.counts.restarts < 4 * scale) {
          await wait(300, 600);
          if (fleet.isDone) return;
          await again(server, fleet.counts.restarts++ % 2 === 0 ? 0 : 2_500);
        }
      };
      const query = async (...args) => {
        const db = await connect(kind, server.url);
        return db.query(...args).finally(() => db.end());
      };
      await expectCorrect(
        () => observe({ store, url: server.url, query, fault, batches: Math.ceil(120 * scale), options: { statementTimeoutMs: 1_500 } }),
        (facts) => facts.restarts >= 2 && facts.failed > 10 && facts.reclaimed > 0,
      );
    };

    onOwnServer('in order', () => restarting((server, downMs) => server.restart(downMs)));
    onOwnServer('after its main process was killed', () => restarting((server, downMs) => server.crash(downMs)));
  });
});
