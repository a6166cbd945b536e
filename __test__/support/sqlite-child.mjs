// One connection of the package sqlite3, in a process of its own: see `remote.mjs`.

import { serve } from './remote.mjs';

serve(async (file) => {
  const { default: sqlite3 } = await import('sqlite3');
  const database = await new Promise((resolve, reject) => {
    const opened = new sqlite3.Database(file, (error) => (error ? reject(error) : resolve(opened)));
  });
  database.configure('busyTimeout', 10_000);
  database.serialize();
  return {
    query: (sql, params) =>
      new Promise((resolve, reject) => database.all(sql, params, (error, rows) => (error ? reject(error) : resolve(rows)))),
    close: () => new Promise((resolve, reject) => database.close((error) => (error ? reject(error) : resolve()))),
  };
});
