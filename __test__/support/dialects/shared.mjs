// What several dialects share.

/** A server that is busy with its disk may take seconds to let a connection in, and what is not there refuses at once. */
export const CONNECT_TIMEOUT_MS = 60_000;

/** A string of SQL. */
export const literal = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll(`'`, `''`)}'`;

/** Rows of a catalogue, one for each column of each index, as indexes by name. */
export function groupIndexes(rows) {
  const indexes = {};
  for (const { index, unique, column } of rows) {
    indexes[index] ??= { unique: Boolean(Number(unique)), columns: [] };
    indexes[index].columns.push(column);
  }
  return indexes;
}
