/**
 * Takes what this machine's user has set for libpq, which the drivers and the store read too, out of the environment of this process, and so of every
 * process that it starts: the tests say themselves where and how they connect.
 */
export function unsetPostgresVariables() {
  for (const name of Object.keys(process.env)) {
    if (/^PG[A-Z]/.test(name)) delete process.env[name];
  }
}
