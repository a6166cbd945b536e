'use strict';

// Reads what a request asks for. What is unknown, missing or wrong is refused with its name.

const { Refusal } = require('./refusal.js');

const BODY_LIMIT = 16_384;

const bad = (message) => new Refusal(400, 'BAD_REQUEST', message);

/** A wrong value as messages show it. */
const shown = (value) => JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);

/** The parameters of a URL, each of which has to be among `readers`: `{ name: (text) => value }`. */
function readQuery(search, readers) {
  const values = {};
  for (const [name, text] of new URLSearchParams(search)) {
    if (!Object.hasOwn(readers, name)) throw bad(`There is no parameter ${shown(name)} here.`);
    if (Object.hasOwn(values, name)) throw bad(`The parameter ${name} stands twice.`);
    values[name] = readers[name](text, name);
  }
  return values;
}

function id(text, name) {
  if (text === '' || text.length > 255) throw bad(`${name} must be an id, of 1 to 255 characters, not ${shown(text)}.`);
  return text;
}

function oneOf(...allowed) {
  return (text, name) => {
    if (!allowed.includes(text)) throw bad(`${name} must be one of ${allowed.join(', ')}, not ${shown(text)}.`);
    return text;
  };
}

function whole(text, name) {
  const value = Number(text);
  if (!/^-?\d{1,16}$/.test(text) || !Number.isSafeInteger(value)) throw bad(`${name} must be a whole number, not ${shown(text)}.`);
  return value;
}

function required(values, name) {
  if (values[name] === undefined) throw bad(`The parameter ${name} is missing.`);
  return values[name];
}

/** The JSON object in a request's body, each key of which has to be among `readers`. */
async function readBody(request, readers) {
  const body = await readJson(request);
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw bad('The body must be a JSON object.');
  const values = {};
  for (const [name, value] of Object.entries(body)) {
    if (!Object.hasOwn(readers, name)) throw bad(`The body must not have ${shown(name)}.`);
    values[name] = readers[name](value, name);
  }
  return values;
}

const ofType = (type, article, then = (value) => value) => {
  return (value, name) => {
    if (typeof value !== type) throw bad(`${name} must be ${article} ${type}.`);
    return then(value, name);
  };
};
const text = ofType('string', 'a', id);
const flag = ofType('boolean', 'a');
const duration = ofType('number', 'a', (value, name) => {
  if (!Number.isSafeInteger(value) || value < 0) throw bad(`${name} must be a whole number of milliseconds, 0 or more.`);
  return value;
});

async function readJson(request) {
  // A framework may have read it before (`express.json()`).
  if (request.body !== undefined) return request.body;
  const chunks = [];
  let size = 0;
  try {
    // To leave the loop must not end the connection: the answer is still to be sent.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      size += chunk.length;
      if (size > BODY_LIMIT) {
        // HTTP/2 has no such header: a connection there has many requests.
        const headers = request.httpVersionMajor < 2 ? { connection: 'close' } : {};
        throw new Refusal(413, 'TOO_LARGE', `The body must have at most ${BODY_LIMIT} bytes.`, headers);
      }
      chunks.push(chunk);
    }
  } catch (error) {
    // The client has gone away in the middle: that is no failure of this server's.
    if (error?.code === 'ECONNRESET' || error?.code === 'ERR_STREAM_PREMATURE_CLOSE') throw bad('The body was cut off.');
    throw error;
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw bad('The body is not JSON.');
  }
}

module.exports = { readQuery, readBody, id, oneOf, whole, required, text, flag, duration };
