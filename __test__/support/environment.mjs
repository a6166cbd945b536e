/**
 * Removes libpq's variables, which the drivers and the store read too, from the environment of this process and so of every process that it starts:
 * the tests set themselves where and how they connect.
 */
export function unsetPostgresVariables() {
  for (const name of Object.keys(process.env)) {
    if (/^PG[A-Z]/.test(name)) delete process.env[name];
  }
}
