/** The command at a terminal: the progress bar of `watch`, questions, and the password. And `watch` without one. */
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { databasesWith } from '../support/databases.mjs';
import { makeJob, makeState, newId } from '../support/fixtures.mjs';
import { startProxy } from '../support/servers.mjs';
import { addressOf, claim, freshDatabase, openStore, prepare, SqlxStateStore, urlThrough } from '../support/suite.mjs';
import { createUser } from '../support/users.mjs';
import { atTerminal, command, hasTerminals, screen, shell, start } from '../support/command.mjs';

const run = hasTerminals
  ? test
  : (name) => test.skip(`${name} [exempt: there is no program "script" here, which makes a terminal]`, () => {});

let own;
let store;
let url;
beforeAll(async () => {
  own = await databasesWith('file')[0].create();
  ({ url } = own);
  store = new SqlxStateStore(url);
  await store.initialize();
});
afterAll(async () => {
  await store.close();
  await own.drop();
});

async function prepared(batches = 4) {
  const job = makeJob(batches);
  await prepare(store, job);
  return job;
}

/** Works on a batch as a worker does: 7 records are processed, 3 fail. */
async function work(jobId) {
  const { batchId, recordStartIndex: from } = await claim(store, jobId);
  for (let at = 0; at < 10; at++) {
    const status = at < 7 ? 'processed' : 'failed';
    await store.saveProcessedRecord(jobId, batchId, { index: from + at, raw: {}, parsed: {}, status, errors: [] });
  }
  await store.updateBatchState(jobId, batchId, makeState(batchId, 'COMPLETED', 7, 3));
}

async function finish(jobId, batches) {
  for (let at = 0; at < batches; at++) await work(jobId);
  await store.tryFinalizeJob(jobId);
}

/** The lines of JSON that `watch` printed. */
const looks = ({ stdout }) =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('watch without a terminal', () => {
  test('prints a line of JSON a look, and ends with the job: COMPLETED is 0', async () => {
    const { id } = await prepared();
    const running = start(['watch', id, '--interval', '100ms'], { url });
    await running.until(/"percentage":0/);
    await work(id);
    await running.until(/"percentage":25/);
    await finish(id, 3);
    const ended = await running.ended;
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const all = looks(ended);
    expect(all[0]).toMatchObject({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      jobId: id,
      status: 'PROCESSING',
      totalRecords: 40,
      processedRecords: 0,
      pendingRecords: 40,
      batches: { total: 4, pending: 4 },
    });
    expect(all.at(-1)).toMatchObject({
      status: 'COMPLETED',
      processedRecords: 28,
      failedRecords: 12,
      percentage: 100,
      batches: { completed: 4 },
    });
    expect(all.filter(({ status }) => status === 'COMPLETED')).toHaveLength(1);
  });

  test.each([
    ['COMPLETED', 0],
    ['FAILED', 1],
    ['ABORTED', 3],
  ])('a job that is %s is exit %i', async (status, code) => {
    const job = makeJob(1, { status });
    await store.saveJobState(job);
    const ended = await command(['watch', job.id], { url });
    expect(ended).toMatchObject({ code, stderr: '' });
    expect(looks(ended)).toMatchObject([{ status }]);
  });

  test('a job that is deleted meanwhile is exit 3', async () => {
    const { id } = await prepared(1);
    const running = start(['watch', id, '--interval', '100ms'], { url });
    await running.until(/PROCESSING/);
    await store.deleteJob(id);
    const ended = await running.ended;
    expect(ended).toMatchObject({ code: 3, stderr: '' });
    expect(looks(ended).at(-1)).toMatchObject({ jobId: id, status: 'DELETED' });
  });

  test('a paused job is shown as such, and watched on', async () => {
    const { id } = await prepared(1);
    const running = start(['watch', id, '--interval', '100ms'], { url });
    await running.until(/PROCESSING/);
    await store.pauseJob(id);
    await running.until(/PAUSED/);
    await store.resumeJob(id);
    await finish(id, 1);
    expect(await running.ended).toMatchObject({ code: 0 });
  });

  test('into head it ends quietly with 0', async () => {
    const { id } = await prepared(1);
    const ended = await shell(`set -o pipefail; $cli watch ${id} --interval 100ms | head -n 1`, { url });
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(looks(ended)).toMatchObject([{ status: 'PROCESSING' }]);
  });

  test('SIGINT ends the watching with 130, and not the job', async () => {
    const { id } = await prepared(1);
    const running = start(['watch', id, '--interval', '100ms'], { url });
    await running.until(/PROCESSING/);
    running.process.kill('SIGINT');
    expect(await running.ended).toMatchObject({ code: 130, stderr: '' });
    expect((await store.getJob(id)).status).toBe('PROCESSING');
  });

  const postgres = databasesWith('schemas')[0];
  (postgres ? test : test.skip)('a database that is away for a while is said, and watched on until it is back', async () => {
    const db = await freshDatabase(postgres);
    const remote = openStore(db);
    await remote.initialize();
    const job = makeJob(1);
    await prepare(remote, job);
    const target = addressOf(db);
    let proxy = await startProxy(target);
    onTestFinished(() => proxy.close());
    // The store gives a call up after this time, where the database is away.
    const url = urlThrough(proxy.port, db.url, '?options=-c%20statement_timeout%3D1000');
    const running = start(['watch', job.id, '--interval', '100ms'], { url });
    await running.until(/PROCESSING/);
    const { port } = proxy;
    await proxy.close();
    // One failed look after the other: none makes it wait for long.
    await running.until(/"error":\{"code":"CONNECTION_[^]*"error":\{"code":"CONNECTION_/);
    proxy = await startProxy(target, port);
    const after = running.stdout.length;
    await expect.poll(() => running.stdout.slice(after), { timeout: 60_000 }).toMatch(/"status":"PROCESSING"/);
    await remote.abortJob(job.id);
    const ended = await running.ended;
    expect(ended).toMatchObject({ code: 3, stderr: '' });
    expect(looks(ended).find(({ error }) => error)?.error.message).toMatch(/PostgreSQL database .* at 127\.0\.0\.1/);
  });

  (postgres ? test : test.skip)('a look that takes long is said while it lasts, without a terminal and at one', async () => {
    const db = await freshDatabase(postgres);
    const remote = openStore(db);
    await remote.initialize();
    const job = makeJob(1);
    await prepare(remote, job);
    const watching = [start(['watch', job.id, '--interval', '100ms'], { url: db.url })];
    if (hasTerminals) watching.push(atTerminal(['watch', job.id, '--interval', '100ms'], { url: db.url }));
    for (const running of watching) await running.until(/PROCESSING| {2}0 %/);
    const connection = await db.connect();
    await connection.query('begin');
    await connection.query('lock table batchactions_jobs in access exclusive mode');
    await watching[0].until(/"error":\{"code":"NO_ANSWER"/);
    await watching[1]?.until(/No answer for 5\.0 s, still waiting\.\r\n/);
    await watching[1]?.until(/seen \d[^\r]* ago/);
    await connection.query('commit');
    await connection.end();
    await remote.abortJob(job.id);
    for (const running of watching) expect((await running.ended).code).toBe(3);
    expect(looks(watching[0]).at(-1)).toMatchObject({ status: 'ABORTED' });
  });

  const server = databasesWith('server')[0];
  (server ? test : test.skip)('it goes on over connections that end, and says so', async () => {
    const db = await freshDatabase(server);
    const remote = openStore(db);
    await remote.initialize();
    const job = makeJob(1);
    await prepare(remote, job);
    const running = start(['watch', job.id, '--interval', '100ms'], { url: db.url });
    await running.until(/PROCESSING/);
    const before = looks(running).length;
    for (const session of await server.dialect.sessions(db)) await server.dialect.endSession(db, session);
    await expect
      .poll(() => looks({ stdout: running.stdout.slice(0, running.stdout.lastIndexOf('\n')) }).length, { timeout: 60_000 })
      .toBeGreaterThan(before + 1);
    await remote.abortJob(job.id);
    expect(await running.ended).toMatchObject({ code: 3, stderr: '' });
  });
});

describe('watch at a terminal', () => {
  run('draws a bar in one line, and ends with the result', async () => {
    const { id } = await prepared();
    const running = atTerminal(['watch', id, '--interval', '100ms'], { url });
    await running.until(/ {2}0 %/);
    await work(id);
    await running.until(/25 %/);
    await finish(id, 3);
    const { code, stdout } = await running.ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/█+░+/);
    expect(stdout).toMatch(/10\/40/);
    expect(stdout).toMatch(/3 failed/);
    expect(stdout).toMatch(/\d\/s/);
    // What is left on the screen is the result, in one line.
    expect(screen(stdout).filter((line) => line !== '')).toEqual([
      expect.stringMatching(/^Job \S+ is COMPLETED after .*: 40 of 40 records, 12 failed\.$/),
    ]);
    expect(stdout).not.toMatch(/\?25l/);
  });

  for (const columns of [20, 40, 60, 200]) {
    run(`no line is longer than a terminal of ${columns} columns`, async () => {
      const { id } = await prepared(2);
      const running = atTerminal(['watch', id, '--interval', '100ms'], { url, columns });
      await running.until(/ {2}0 %/);
      await work(id);
      await running.until(/50 %/);
      running.type('\u0003');
      const { code, stdout } = await running.ended;
      expect(code).toBe(130);
      // oxlint-disable-next-line no-control-regex -- the colours take no room
      const lines = stdout.replace(/\u001b\[[\d;]*[mK]/g, '').split(/[\r\n]+/);
      for (const line of lines) expect(line.replace('^C', '').length).toBeLessThan(columns);
    });
  }

  run('Ctrl-C ends the watching with 130, and leaves the terminal as it was', async () => {
    const { id } = await prepared(2);
    const running = atTerminal(['watch', id], {
      url,
      before: 'stty -a > /dev/stderr; ',
      after: '; code=$?; stty -a > /dev/stderr; echo "exit $code"',
    });
    await running.until(/ {2}0 %/);
    running.type('\u0003');
    const { stdout } = await running.ended;
    expect(stdout).toMatch(/exit 130\r\n$/);
    const [before, after] = stdout
      .split(/(?=speed \d+ baud)/)
      .slice(-2)
      .map((text) => text.split(/\r\n/).slice(0, 6).join('\n'));
    expect(after).toBe(before);
    // The cursor was never hidden.
    expect(stdout).not.toMatch(/\?25l/);
    expect((await store.getJob(id)).status).toBe('PROCESSING');
  });

  run('NO_COLOR has no colours; without it there are some', async () => {
    const { id } = await prepared(2);
    // oxlint-disable-next-line no-control-regex -- it is what is looked for
    const colour = /\u001b\[\d+m/;
    for (const [env, has] of [
      [{ NO_COLOR: '1' }, false],
      // Node finds no colours where CI is set.
      [{ CI: undefined }, true],
    ]) {
      const running = atTerminal(['watch', id], { url, env });
      await running.until(/ {2}0 %/);
      running.type('\u0003');
      const { stdout } = await running.ended;
      expect(colour.test(stdout)).toBe(has);
      const doctor = await atTerminal(['doctor'], { url, env }).ended;
      expect(colour.test(doctor.stdout)).toBe(has);
    }
  });

  run('TERM=dumb has plain lines, without control sequences', async () => {
    const { id } = await prepared(2);
    const running = atTerminal(['watch', id, '--interval', '100ms'], { url, env: { TERM: 'dumb' } });
    await running.until(/ 0 %/);
    await finish(id, 2);
    const { code, stdout } = await running.ended;
    expect(code).toBe(0);
    // oxlint-disable-next-line no-control-regex -- it is what must not be there
    expect(stdout).not.toMatch(/\u001b|\r(?!\n)/);
    expect(stdout).toMatch(/is COMPLETED/);
  });

  run('a terminal without UTF-8 gets a bar of ASCII', async () => {
    const { id } = await prepared(2);
    const running = atTerminal(['watch', id], { url, env: { LANG: 'C' } });
    await running.until(/ {2}0 %/);
    running.type('\u0003');
    const { stdout } = await running.ended;
    expect(stdout).toMatch(/-{10}/);
    expect(stdout).not.toMatch(/[█░]/);
  });

  run('PAUSED is shown', async () => {
    const { id } = await prepared(2);
    await store.pauseJob(id);
    const running = atTerminal(['watch', id], { url });
    await running.until(/PAUSED/);
    running.type('\u0003');
    expect((await running.ended).code).toBe(130);
  });

  run('--json prints lines of JSON at a terminal too', async () => {
    const job = makeJob(1, { status: 'FAILED' });
    await store.saveJobState(job);
    const { code, stdout } = await atTerminal(['watch', job.id, '--json'], { url }).ended;
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ status: 'FAILED' });
  });
});

describe('confirmations', () => {
  run('abort shows what it will do, and does it where the job’s id is typed', async () => {
    const { id } = await prepared(3);
    const running = atTerminal(['abort', id], { url });
    await running.until(/to go on: /);
    expect(running.stdout).toMatch(/30 of 30 records are pending/);
    running.type(`${id}\r`);
    expect(await running.ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/is ABORTED\.\r\n$/) });
    expect((await store.getJob(id)).status).toBe('ABORTED');
  });

  run('anything else, Ctrl-C and Ctrl-D change nothing', async () => {
    const { id } = await prepared(3);
    for (const [typed, code] of [
      ['yes\r', 1],
      ['\r', 1],
      ['\u0003', 130],
      ['\u0004', 130],
    ]) {
      const running = atTerminal(['abort', id], { url });
      await running.until(/to go on: /);
      running.type(typed);
      const ended = await running.ended;
      expect(ended.code, JSON.stringify(typed)).toBe(code);
      // The shell's prompt stands in a line of its own.
      expect(ended.stdout).toMatch(/\n$/);
    }
    expect((await store.getJob(id)).status).toBe('PROCESSING');
  });

  run('an id of any characters is shown harmless, and can be confirmed', async () => {
    for (const [id, typed] of [
      [' two  words ', ' two  words '],
      [`a\u001b[31m${newId()}`, undefined],
    ]) {
      await prepare(store, makeJob(1, { id }));
      const running = atTerminal(['abort', id], { url });
      await running.until(/to go on: /);
      const [, shown] = /Type (.*) to go on: /.exec(running.stdout);
      expect(shown).toBe(id.replaceAll('\u001b', '\\u001b'));
      running.type(`${typed ?? shown}\r`);
      expect((await running.ended).code).toBe(0);
      expect((await store.getJob(id)).status).toBe('ABORTED');
    }
  });

  run('purge wants the number of jobs', async () => {
    const old = { status: 'COMPLETED', startedAt: 1_600_000_000_000, completedAt: 1_600_000_000_000 };
    const job = makeJob(1, old);
    await store.saveJobState(job);
    const running = atTerminal(['purge', '--older-than', '1000d'], { url });
    await running.until(/to go on: /);
    running.type(`${/Type (\d+) to go on/.exec(running.stdout)[1]}\r`);
    expect(await running.ended).toMatchObject({ code: 0 });
    expect(await store.getJob(job.id)).toBe(null);
  });
});

describe('passwords', () => {
  const server = databasesWith('asksForPasswords')[0];
  const onServer = server ? run : (name) => test.skip(`${name} [exempt: no server here asks for a password]`, () => {});
  let db;
  let user;
  beforeAll(async () => {
    if (!server) return;
    db = await server.create();
    await command(['init'], { url: db.url });
    user = await createUser(db, { rights: 'all' });
  });
  afterAll(async () => {
    await user?.drop();
    await db?.drop();
  });

  /** As it may stand in a command line. */
  function withoutPassword() {
    const bare = new URL(user.url);
    bare.password = '';
    return bare.href;
  }

  onServer('one that is missing is asked for, is not echoed, and stands in no command line', async () => {
    const running = atTerminal(['jobs', '--url', withoutPassword()]);
    await running.until(/Password: /);
    const lines = commandLines().filter((line) => line.includes('batchactions-sqlx.js'));
    expect(lines.length).toBeGreaterThan(0);
    running.type(`${user.password}\r`);
    const { code, stdout } = await running.ended;
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'Password: \r\nThere are no jobs.\r\n' });
    for (const line of lines) expect(line).not.toContain(user.password);
  });

  onServer('a wrong one is exit 4, and is not repeated; Ctrl-C is 130, and the terminal echoes again', async () => {
    const wrong = atTerminal(['jobs', '--url', withoutPassword()]);
    await wrong.until(/Password: /);
    wrong.type('not-the-password\r');
    const ended = await wrong.ended;
    expect(ended.code).toBe(4);
    expect(ended.stdout).not.toContain('not-the-password');
    expect(ended.stdout.match(/Password: /g)).toHaveLength(1);

    const stopped = atTerminal(['jobs', '--url', withoutPassword()], {
      after: '; code=$?; stty -a | grep -o "[-]*echo " ; echo "exit $code"',
    });
    await stopped.until(/Password: /);
    stopped.type('not-the-pass\u0003');
    const { stdout } = await stopped.ended;
    expect(stdout).toMatch(/(^|\n)echo \r\n/);
    expect(stdout).toMatch(/exit 130\r\n$/);
    expect(stdout).not.toContain('not-the-pass');
  });

  onServer('--password-stdin at a terminal asks, and does not echo', async () => {
    const running = atTerminal(['jobs', '--url', withoutPassword(), '--password-stdin']);
    await running.until(/Password: /);
    running.type(`${user.password}\r`);
    expect(await running.ended).toMatchObject({ code: 0, stdout: 'Password: \r\nThere are no jobs.\r\n' });
  });

  onServer('--password-stdin reads it, and without a terminal nothing is asked', async () => {
    expect(
      await command(['jobs', '--url', withoutPassword(), '--password-stdin'], { input: `${user.password}\nnot the password\n` }),
    ).toMatchObject({
      code: 0,
      stderr: '',
    });
    const none = await command(['jobs', '--url', withoutPassword()]);
    expect(none).toMatchObject({ code: 4, stdout: '' });
    expect(none.stderr).toMatch(/^batchactions-sqlx: /);
    const wrong = await command(['jobs', '--url', withoutPassword(), '--password-stdin'], { input: 'not-the-password' });
    expect(wrong.code).toBe(4);
    expect(wrong.stderr).not.toContain('not-the-password');
  });

  onServer('one in DATABASE_URL is in no output, whatever fails', async () => {
    const gone = new URL(user.url);
    gone.port = '1';
    for (const [words, at] of [
      [['doctor', '--json'], gone.href],
      [['jobs'], gone.href],
      [['jobs'], user.url.replace(user.password, `${user.password}/`)],
    ]) {
      const { stdout, stderr } = await command(words, { url: at });
      expect(stdout + stderr).not.toContain(user.password);
    }
  });
});

/** The command lines of all processes, as every user of the machine can read them. */
function commandLines() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')];
      } catch {
        // It has ended meanwhile, or is another user's.
        return [];
      }
    });
}
