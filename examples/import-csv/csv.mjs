// Reads and writes CSV row by row, so that memory use does not depend on the file's size.

import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';

/** Yields each row of a CSV file as an object with the names of its header as keys. A quoted field may hold commas, but no line break. */
export async function* readCsv(path) {
  let header;
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
    const fields = split(line);
    if (header) yield Object.fromEntries(header.map((name, i) => [name, fields[i] ?? '']));
    else header = fields;
  }
}

function split(line) {
  if (!line.includes('"')) return line.split(',');
  const field = /(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g;
  return Array.from(line.matchAll(field), ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain);
}

/** Writes a CSV file of an iterable of objects that all have the same keys. */
export async function writeCsv(path, rows) {
  const file = createWriteStream(path);
  let header;
  for (const row of rows) {
    if (!header) {
      header = Object.keys(row);
      file.write(`${header.join(',')}\n`);
    }
    if (!file.write(`${header.map((name) => quote(row[name])).join(',')}\n`)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'finish');
}

function quote(value) {
  const text = String(value);
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
