// The page behind real servers, and requests that no browser would send.

import { createServer, request } from 'node:http';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import express from 'express';
import fastify from 'fastify';
import { createDashboard } from '../../dashboard/index.js';

/** The three ways to mount a handler, each at the path `/batches`: `{ name, mount(store, options) }`, which resolves to the page's address. */
export const MOUNTS = [
  { name: "Node's http", mount: (store, options) => listen(createServer(createDashboard(store, { basePath: '/batches', ...options }))) },
  {
    name: 'Express 5',
    mount(store, options) {
      const app = express();
      app.use('/batches', createDashboard(store, options));
      return listen(createServer(app));
    },
  },
  {
    name: 'Express 5, behind express.json()',
    mount(store, options) {
      const app = express();
      app.use(express.json());
      app.use('/batches', createDashboard(store, options));
      return listen(createServer(app));
    },
  },
  {
    name: 'Fastify 5',
    async mount(store, options) {
      const dashboard = createDashboard(store, { basePath: '/batches', ...options });
      const app = fastify();
      app.register(async (scope) => {
        // The handler reads the bodies itself.
        scope.removeAllContentTypeParsers();
        scope.addContentTypeParser('*', (_request, _payload, done) => done(null));
        const answer = (given, reply) => {
          reply.hijack();
          return dashboard(given.raw, reply.raw);
        };
        scope.all('/batches', answer);
        scope.all('/batches/*', answer);
      });
      await app.listen({ host: '127.0.0.1', port: 0 });
      onTestFinished(() => app.close());
      return `http://127.0.0.1:${app.server.address().port}/batches/`;
    },
  },
];

/** The page at the root of a server of this test's. */
export async function serve(store, options) {
  const url = await listen(createServer(createDashboard(store, options)));
  return url.replace('batches/', '');
}

async function listen(server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}/batches/`;
}

/**
 * A request with any headers, method and path: `path` goes out as it is, relative to the address.
 * @returns {Promise<{ status: number, headers: object, text: string, json: any }>}
 */
export async function ask(url, path = '', { method = 'GET', headers = {}, body } = {}) {
  const { hostname, port, pathname } = new URL(url);
  const sent = request({
    hostname,
    port,
    method,
    path: path.startsWith('!') ? path.slice(1) : pathname + path,
    headers,
    setHost: headers.host === undefined,
  });
  sent.end(body);
  const [response] = await once(sent, 'response');
  const chunks = [];
  for await (const chunk of response) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString('utf8');
  const json = /^application.json/.test(response.headers['content-type'] ?? '') && text.startsWith('{') ? JSON.parse(text) : undefined;
  return { status: response.statusCode, headers: response.headers, text, json };
}

/** An action, as the page's script asks for it. */
export function act(url, name, body, { headers = {}, ...rest } = {}) {
  const given = { origin: new URL(url).origin, 'sec-fetch-site': 'same-origin', 'content-type': 'application/json', ...headers };
  const sent = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return ask(url, `api/${name}`, { method: 'POST', headers: sent, body: typeof body === 'string' ? body : JSON.stringify(body), ...rest });
}
