// Where the file of a SQLite store is.

import { existsSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Sequelize } from 'sequelize';
import { describe, expect, it, onTestFinished } from 'vitest';
import { open, sequelizeOf, temporaryFolder, expectToWork, expectToShare, expectConnectionFailed } from '../support/connections.mjs';
import { runNode } from '../support/run-node.mjs';
import { IncumbentLikeStore } from '../support/sequelize-models.mjs';

describe('a SQLite file', () => {
  it('sqlite:relative.db is in the working folder', async () => {
    const folder = temporaryFolder();
    const source = `
      const store = new SqlxStateStore('sqlite:relative.db');
      await store.initialize();
      await store.close();`;
    expect(await runNode(source, { cwd: folder })).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(folder)).toContain('relative.db');
  });

  it('sqlite:///absolute.db is where it says', async () => {
    const file = join(temporaryFolder(), 'absolute.db');
    await open(`sqlite://${file}`).initialize();
    expect(existsSync(file)).toBe(true);
  });

  it('a file name is taken as it is where it is not a URL', async () => {
    const folder = temporaryFolder();
    const name = 'a b?mode=memory%20ü#1.db';
    await open({ dialect: 'sqlite', storage: join(folder, name) }).initialize();
    expect(readdirSync(folder)).toContain(name);
    const sequelize = sequelizeOf({ dialect: 'sqlite', storage: join(folder, 's q?mode=memory%20ü#2.db'), logging: false });
    await expectToShare(open(sequelize), sequelize);
  });

  it('a Sequelize instance made from a URL names the file that Sequelize itself opens', async () => {
    const folder = temporaryFolder();
    for (const url of [`sqlite:${folder}/one.db`, `sqlite://${folder}/two.db`]) {
      const sequelize = sequelizeOf(url, { logging: false });
      await expectToShare(open(sequelize), sequelize);
    }
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(['one.db', 'two.db']));
  });

  it('a relative one too', async () => {
    const folder = temporaryFolder();
    const source = `
            import { createRequire } from 'node:module';
      const { Sequelize } = createRequire(${JSON.stringify(import.meta.url)})('sequelize');
      for (const url of ['sqlite:relative.db', 'sqlite:./dotted.db']) {
        const sequelize = new Sequelize(url, { logging: false });
        const store = new SqlxStateStore(sequelize);
        await store.initialize();
        await store.close();
        const [rows] = await sequelize.query('select count(*) as n from batchactions_jobs');
        console.log(rows[0].n);
        await sequelize.close();
      }`;
    expect(await runNode(source, { cwd: folder, env: { NODE_NO_WARNINGS: '1' } })).toMatchObject({ code: 0, stdout: '0\n0\n', stderr: '' });
    expect(readdirSync(folder)).toEqual(expect.arrayContaining(['relative.db', 'dotted.db']));
  });

  const twice = 'that another SQLite library in this process has open is refused, and works once it is closed there';
  if (process.platform !== 'linux') {
    it.skip(`${twice}: exempt, which files a process has open can be seen on Linux only`);
  } else {
    it(twice, async () => {
      const file = join(temporaryFolder(), 'twice.db');
      const sequelize = new Sequelize({ dialect: 'sqlite', storage: file, logging: false });
      onTestFinished(() => sequelize.close().catch(() => {}));
      await new IncumbentLikeStore(sequelize).initialize();
      const link = `${file}-link`;
      symlinkSync(file, link);
      const stores = [`sqlite://${file}`, { dialect: 'sqlite', storage: link }, sequelize].map((connection) => open(connection));
      const reason = /another SQLite library in this process has .*twice\.db.* open/i;
      await Promise.all(stores.map((store) => expectConnectionFailed(store, reason)));
      await sequelize.close();
      for (const store of stores) await expectToWork(store);
    });
  }

  it('in a folder that does not exist: rejects with the reason, in every form', async () => {
    const file = join(temporaryFolder(), 'no-such-folder', 'x.db');
    const sequelize = new Sequelize({ dialect: 'sqlite', storage: file, logging: false });
    for (const connection of [`sqlite://${file}`, { dialect: 'sqlite', storage: file }, sequelize]) {
      await expectConnectionFailed(open(connection), /no-such-folder.*does not exist/i, [], { retryable: false });
    }
    expect(existsSync(file)).toBe(false);
  });

  it('that is a folder: rejects with the reason', async () => {
    await expectConnectionFailed(open({ dialect: 'sqlite', storage: temporaryFolder() }), /unable to open|directory/i, [], {
      retryable: false,
    });
  });
});
