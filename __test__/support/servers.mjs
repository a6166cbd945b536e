/** Ports with nobody behind them, with somebody who says nothing or the wrong thing, and with a database behind a door of the test's. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** A port of this machine that nobody listens on. */
export async function deadPort() {
  const server = await listen(createServer());
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A server that `greet`s each connection, and counts them. */
export async function startServer(greet = () => {}, port = 0) {
  const sockets = new Set();
  const handle = {
    connections: 0,
    async close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
  const server = createServer((socket) => {
    handle.connections++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    greet(socket);
  });
  await listen(server, port);
  handle.port = server.address().port;
  return handle;
}

/** A server that hands every connection on to another port. */
export function startProxy(target, port) {
  return startServer((socket) => {
    const upstream = connect(target);
    upstream.on('error', () => socket.destroy());
    upstream.on('close', () => socket.destroy());
    socket.on('close', () => upstream.destroy());
    socket.pipe(upstream).pipe(socket);
  }, port);
}

async function listen(server, port = 0) {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
