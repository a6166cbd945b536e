// getJobState: what it shows is the state at the time of the call, whoever changed it and whenever the batches are looked at; and the accessor of the
// batches is like data to everything that reads or copies the job.

import assert from 'node:assert';
import { inspect } from 'node:util';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeBatch, makeJob, makeLocalJob, makeState, newId } from '../support/fixtures.mjs';
import { startCountingProxy } from '../support/servers.mjs';
import { storeOn } from '../support/store.mjs';
import { SqlxStateStore, claim, complete, onEveryDatabase, rejection, urlThrough } from '../support/suite.mjs';

const descriptor = (job) => Object.getOwnPropertyDescriptor(job, 'batches');
const isAccessor = (job) => typeof descriptor(job).get === 'function';

onEveryDatabase((on) => {
  /** A stored job of several chunks, which this store has read. */
  const stored = async (job = makeJob(200)) => {
    await on.store.saveJobState(job);
    expect((await on.store.getJobState(job.id)).batches).toStrictEqual(job.batches);
    return job;
  };

  describe('the time of the call', () => {
    it('decides what is shown, also where it is looked at after later changes', async () => {
      const job = await stored();
      const expected = job.batches.map((batch) => ({ ...batch }));
      const calls = [];
      for (let n = 0; n < 12; n++) {
        const { batchId, batchIndex, claimedAt } = await claim(on.store, job.id, `worker "${n}"`);
        Object.assign(expected[batchIndex], { status: 'PROCESSING', workerId: `worker "${n}"`, claimedAt });
        if (n % 3 === 1) {
          await complete(on.store, job.id, batchId, 'FAILED');
          Object.assign(expected[batchIndex], { status: 'FAILED', processedCount: 7, failedCount: 3 });
        }
        if (n % 3 === 2) {
          await on.store.releaseBatch(job.id, batchId, `worker "${n}"`);
          expected[batchIndex] = { ...job.batches[batchIndex] };
        }
        calls.push([await on.store.getJobState(job.id), expected.map((batch) => ({ ...batch }))]);
      }
      await on.store.saveJobState({ ...job, status: 'COMPLETED', batches: job.batches.slice(0, 3) });
      await on.store.deleteJob(job.id);
      for (const [was, batches] of calls.reverse()) expect(was.batches).toStrictEqual(batches);
      expect(await on.store.getJobState(job.id)).toBeNull();
    });

    it('a job that is made again under the same id is the new one', async () => {
      const id = newId();
      for (const batches of [200, 200, 100, 0, 1, 300]) {
        const job = makeJob(batches, { id });
        job.batches.forEach((batch, at) => (batch.id = `${newId('b')}.${at}`));
        await on.store.saveJobState(job);
        expect(await on.store.getJobState(id)).toStrictEqual(job);
        await on.store.deleteJob(id);
        expect(await on.store.getJobState(id)).toBeNull();
      }
    });

    it('the list grows and changes batch by batch, as the engine stores it', async () => {
      const job = makeLocalJob(0);
      for (let index = 0; index < 140; index++) {
        job.batches.push(makeBatch(job.id, index, { status: 'COMPLETED', processedCount: index }));
        if (index > 70) job.batches[index - 70].failedCount = index;
        if (index % 9 === 0 || index > 120) {
          await on.store.saveJobState(job);
          expect(await on.store.getJobState(job.id)).toStrictEqual(job);
        }
      }
    });
  });

  on.needs('server', 'transactionIds')('is read again with few bytes from a server whose rows say when they changed', async () => {
    const proxy = await startCountingProxy(on.address);
    onTestFinished(() => proxy.close());
    const store = new SqlxStateStore(urlThrough(proxy.port, on.url));
    onTestFinished(() => store.close());
    const job = makeJob(1_000);
    await on.store.saveJobState(job);
    const received = async () => {
      const before = proxy.received;
      const { batches } = await store.getJobState(job.id);
      expect(batches).toHaveLength(1_000);
      return proxy.received - before;
    };
    // In a job of 1,000 batches the claim of every tenth one also writes the job's list, and the next read takes the whole list from the server. This claim
    // is of batch 0, which does; the claim after the first read is of batch 1, which doesn't.
    await claim(store, job.id, 'w');
    // While a transaction is under way that is older than the rows, in any database of the server, they count as new.
    const [{ xid }] = await on.query('select txid_current()::text xid');
    const isPast = async () => (await on.query('select txid_snapshot_xmin(txid_current_snapshot()) > ?::bigint past', [xid]))[0].past;
    await expect.poll(isPast, { timeout: 120_000 }).toBe(true);
    const first = await received();
    const { batchId } = await claim(store, job.id, 'w');
    await complete(store, job.id, batchId);
    const second = await received();
    expect(first).toBeGreaterThan(20_000);
    expect(second).toBeLessThan(first / 20);
  });

  describe('what another program changes between two calls', () => {
    const jobRows = '"batchactions_jobs"';
    const batchRows = '"batchactions_batches"';
    const setList = (job, list) => on.query(`update ${jobRows} set "batches" = ? where "id" = ?`, [JSON.stringify(list), job.id]);
    const shown = async (job) => (await on.store.getJobState(job.id)).batches;
    const raw = on.needs('raw', 'shared');

    raw('the whole list, of the same number of batches and the same length', async () => {
      const job = await stored(makeLocalJob(200));
      const other = job.batches.map((batch, at) => ({
        ...batch,
        id: [...batch.id].reverse().join(''),
        index: job.batches[199 - at].index,
      }));
      expect(JSON.stringify(other)).toHaveLength(JSON.stringify(job.batches).length);
      await setList(job, other);
      expect(await shown(job)).toStrictEqual(other);
    });

    raw('one character in the middle of the list', async () => {
      const job = await stored(makeLocalJob(200));
      job.batches[100].processedCount = 1;
      await setList(job, job.batches);
      expect(await shown(job)).toStrictEqual(job.batches);
    });

    raw('the order of the list', async () => {
      const job = await stored();
      await setList(job, [...job.batches].reverse());
      await claim(on.store, job.id, 'w');
      const batches = await shown(job);
      expect(batches.map(({ id }) => id)).toEqual(job.batches.map(({ id }) => id).reverse());
      expect(batches.at(-1)).toMatchObject({ status: 'PROCESSING', workerId: 'w' });
      expect(batches.at(-2).status).toBe('PENDING');
    });

    raw('the list to something else, which rejects at the call', async () => {
      const job = await stored();
      await setList(job, { no: 'list' });
      expect((await rejection(on.store.getJobState(job.id), 'TABLES_INCOMPATIBLE')).message).toContain(job.id);
      await setList(job, job.batches);
      expect(await shown(job)).toStrictEqual(job.batches);
    });

    raw('the counts of a batch that is done', async () => {
      const job = await stored();
      const { batchId, claimedAt } = await claim(on.store, job.id, 'w');
      await complete(on.store, job.id, batchId);
      const done = { ...job.batches[0], status: 'COMPLETED', processedCount: 10, workerId: 'w', claimedAt };
      expect((await shown(job))[0]).toStrictEqual(done);
      await on.query(`update ${batchRows} set "processedCount" = 9, "failedCount" = 1 where "id" = ?`, [batchId]);
      expect((await shown(job))[0]).toStrictEqual({ ...done, processedCount: 9, failedCount: 1 });
    });

    raw('a worker and the time of its claim, there and gone', async () => {
      const job = await stored();
      const { id } = job.batches[150];
      for (const [worker, time] of [
        ['w1', 5],
        ['w2', 5],
        ['', null],
        [null, 6],
        ['\u001e=,"\u001f', 7],
        [null, null],
      ]) {
        await on.query(`update ${batchRows} set "workerId" = ?, "claimedAt" = ? where "id" = ?`, [worker, time, id]);
        const expected = { ...job.batches[150], ...(worker !== null && { workerId: worker }), ...(time !== null && { claimedAt: time }) };
        expect((await shown(job))[150]).toStrictEqual(expected);
      }
    });

    raw('rows that are deleted and inserted again, and one for another', async () => {
      const job = await stored();
      await claim(on.store, job.id, 'w');
      const [first, , , fourth] = await on.rows(job.id);
      await on.query(`delete from ${batchRows} where "id" in (?, ?)`, [first.id, fourth.id]);
      // What the list says of it.
      expect((await shown(job))[0]).toStrictEqual({ ...job.batches[0], status: 'PROCESSING' });
      const insert = (id, index, status) =>
        on.query(`insert into ${batchRows} ("id", "jobId", "batchIndex", "status") values (?, ?, ?, ?)`, [id, job.id, index, status]);
      // As many as before: one anew, and one that the list does not have.
      await insert(first.id, 0, 'PAUSED');
      await insert(newId('b'), 3, 'FAILED');
      const batches = await shown(job);
      expect([batches[0].status, batches[3].status]).toEqual(['PAUSED', 'PENDING']);
      await on.query(`update ${batchRows} set "batchIndex" = -1 where "id" = ?`, [first.id]);
      await on.query(`update ${batchRows} set "status" = 'COMPLETED' where "jobId" = ? and "batchIndex" >= 4`, [job.id]);
      expect((await shown(job)).map(({ status }) => status)).toEqual([
        'PAUSED',
        ...Array(3).fill('PENDING'),
        ...Array(196).fill('COMPLETED'),
      ]);
      await on.query(`delete from ${batchRows} where "jobId" = ?`, [job.id]);
      expect(await shown(job)).toStrictEqual(job.batches.map((batch, at) => (at === 0 ? { ...batch, status: 'PROCESSING' } : batch)));
    });

    raw('by another store, whose changes both see', async () => {
      const [job, other] = [await stored(), await on.open()];
      for (let n = 0; n < 6; n++) {
        const { batchId } = await claim(n % 2 ? other : on.store, job.id, 'w');
        await complete(n % 2 ? on.store : other, job.id, batchId);
        expect(await other.getJobState(job.id)).toStrictEqual(await on.store.getJobState(job.id));
        expect((await shown(job)).filter(({ status }) => status === 'COMPLETED')).toHaveLength(n + 1);
      }
    });

    on.needs(
      'raw',
      'shared',
      'rowLocks',
    )('in a transaction that is open while another call reads', async () => {
      const job = await stored();
      const connection = await on.begin();
      await connection.query(`update ${batchRows} set "processedCount" = 5 where "id" = ?`, [job.batches[77].id]);
      await connection.query(`update ${jobRows} set "totalRecords" = 5 where "id" = ?`, [job.id]);
      const before = await on.store.getJobState(job.id);
      await complete(on.store, job.id, job.batches[3].id);
      await on.store.getJobState(job.id);
      await connection.query('commit');
      const after = await on.store.getJobState(job.id);
      expect([before.totalRecords, before.batches[77].processedCount]).toEqual([2_000, 0]);
      expect([after.totalRecords, after.batches[77].processedCount, after.batches[3].status]).toEqual([5, 5, 'COMPLETED']);
    });
  });

  describe('the accessor', () => {
    const read = async () => {
      const job = makeJob(3);
      await on.store.saveJobState(job);
      return [await on.store.getJobState(job.id), job];
    };

    it('is own, enumerable and configurable, in the place of the key, and becomes data when it is looked at', async () => {
      const [job, expected] = await read();
      const keys = ['id', 'config', 'status', 'batches', 'totalRecords', 'startedAt', 'distributed'];
      expect(Object.keys(job)).toEqual(keys);
      expect(descriptor(job)).toMatchObject({ enumerable: true, configurable: true, get: expect.any(Function), set: expect.any(Function) });
      expect(Object.getPrototypeOf(job)).toBe(Object.prototype);
      const { batches } = job;
      expect(batches).toStrictEqual(expected.batches);
      expect(descriptor(job)).toEqual({ value: batches, writable: true, enumerable: true, configurable: true });
      expect(job.batches).toBe(batches);
      expect(Reflect.ownKeys(job)).toEqual(keys);
    });

    const copies = {
      'JSON.stringify': (job) => JSON.parse(JSON.stringify(job)),
      spread: (job) => ({ ...job }),
      'rest parameters': ({ id, ...rest }) => ({ id, ...rest }),
      'Object.assign': (job) => Object.assign({}, job),
      'Object.entries': (job) => Object.fromEntries(Object.entries(job)),
      'Object.values': (job) => Object.fromEntries(Object.values(job).map((value, at) => [Object.keys(job)[at], value])),
      'for … in': (job) => {
        const copy = {};
        for (const key in job) copy[key] = job[key];
        return copy;
      },
      structuredClone,
      postMessage: (job) => {
        const { port1, port2 } = new MessageChannel();
        port1.postMessage(job);
        const { message } = receiveMessageOnPort(port2);
        port1.close();
        return message;
      },
      'the object itself': (job) => job,
    };
    it.each(Object.keys(copies))('is seen through by %s', async (how) => {
      const [job, expected] = await read();
      const copy = copies[how](job);
      expect(copy).toStrictEqual(expected);
      expect(Object.keys(copy)).toEqual(Object.keys(expected));
      expect(job).toStrictEqual(expected);
    });

    it('is seen through by comparisons', async () => {
      for (const compare of [
        (job, expected) => assert.deepEqual(job, expected),
        (job, expected) => assert.deepStrictEqual(job, expected),
        (job, expected) => assert.deepStrictEqual(expected, job),
        (job, expected) => assert.notDeepStrictEqual(job, { ...expected, batches: [] }),
        (job, expected) => expect(job).toEqual(expected),
        (job, expected) => expect(job).not.toEqual({ ...expected, batches: [] }),
        (job, expected) => expect(job).toStrictEqual(expected),
        (job, expected) => expect(expected).toStrictEqual(job),
        (job, { batches: [batch] }) => expect(job).toMatchObject({ batches: [batch, {}, {}] }),
        (job, expected) => expect([job]).toContainEqual(expected),
        async (job) => expect(job).toStrictEqual(await on.store.getJobState(job.id)),
      ]) {
        await compare(...(await read()));
      }
    });

    it('is shown like data', async () => {
      for (const show of [
        inspect,
        (job) => inspect(job, { showHidden: true, depth: 5, getters: true }),
        (job) => inspect({ in: [job] }, false, 6),
      ]) {
        const [job] = await read();
        const plain = { ...(await on.store.getJobState(job.id)) };
        expect(show(job)).toBe(show(plain));
        expect(show(job)).toBe(show(plain));
      }
      const [frozen] = await read();
      expect(inspect(Object.freeze(frozen))).toBe(inspect({ ...frozen }));
    });

    it('takes another value', async () => {
      const [job] = await read();
      job.batches = 5;
      expect(descriptor(job)).toEqual({ value: 5, writable: true, enumerable: true, configurable: true });
      expect(inspect(job)).toContain('batches: 5');
      const [looked] = await read();
      expect(looked.batches).toHaveLength(3);
      looked.batches = undefined;
      expect(looked).toHaveProperty('batches', undefined);
      const [changed] = await read();
      changed.batches.push('x');
      expect(changed.batches).toHaveLength(4);
      const [assigned] = await read();
      expect(Object.assign(assigned, { batches: [] }).batches).toEqual([]);
      const [deleted] = await read();
      delete deleted.batches;
      expect('batches' in deleted).toBe(false);
      expect(inspect(deleted)).not.toContain('batches');
      const [defined] = await read();
      const { get } = descriptor(defined);
      Object.defineProperty(defined, 'batches', { value: 1 });
      expect(get.call(undefined)).toHaveLength(3);
      expect(defined.batches).toBe(1);
    });

    it('never throws, in an object that is frozen, sealed, inherited from or behind a proxy', async () => {
      for (const lock of [Object.freeze, Object.seal, Object.preventExtensions, Object.create, (job) => new Proxy(job, {})]) {
        const [job, expected] = await read();
        const locked = lock(job);
        expect(locked.batches).toStrictEqual(expected.batches);
        expect(locked.batches).toBe(locked.batches);
        expect({ ...job }).toStrictEqual(expected);
      }
    });

    it('may be set where data may be', async () => {
      const [frozen] = await read();
      Object.freeze(frozen);
      expect(() => (frozen.batches = [])).toThrow(TypeError);
      expect(frozen.batches).toHaveLength(3);
      const [sealed] = await read();
      Object.seal(sealed);
      sealed.batches = [];
      expect(sealed.batches).toEqual([]);
      const [above] = await read();
      const below = Object.create(above);
      below.batches = 'own';
      expect([below.batches, Object.keys(below), isAccessor(above)]).toEqual(['own', ['batches'], true]);
    });

    it('outlives the store', async () => {
      const store = on.has('shared') ? await on.open() : on.store;
      const job = makeJob(3);
      await store.saveJobState(job);
      const was = await store.getJobState(job.id);
      if (store !== on.store) await store.close();
      expect(was).toStrictEqual(job);
    });
  });

  it('ids with every kind of character are told apart', async () => {
    const ids = ['a,b', 'a"b', 'a\\b', '\u001e', '\u001f', 'é', '🚴', '[1]', "'", ' x', '=', '}'];
    const job = makeJob(ids.length);
    const own = newId();
    job.batches.forEach((batch, at) => (batch.id = `${own}${ids[at]}${at}`));
    await on.store.saveJobState(job);
    for (const { id } of job.batches) await on.store.updateBatchState(job.id, id, makeState(id, 'COMPLETED', 1));
    expect((await on.store.getJobState(job.id)).batches).toStrictEqual(
      job.batches.map((batch) => ({ ...batch, status: 'COMPLETED', processedCount: 1 })),
    );
  });

  on.needs('shared')('a table may have been replaced by a view of it', async () => {
    const own = await on.createEmpty();
    const store = storeOn(own.url);
    onTestFinished(() => store.close());
    await store.initialize();
    const job = makeJob(3);
    await store.saveJobState(job);
    for (const table of ['jobs', 'batches']) {
      await own.query(`alter table batchactions_${table} rename to all_${table}`);
      await own.query(`create view batchactions_${table} as select * from all_${table}`);
    }
    for (let call = 0; call < 2; call++) expect(await store.getJobState(job.id)).toEqual(job);
  });
});
