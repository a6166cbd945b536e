/** Ports without a server, with a server that says nothing or the wrong thing, and with a database behind a proxy of the test's. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** A port of this machine that no server listens on. */
export async function deadPort() {
  const server = await listen(createServer());
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** What `use` makes of a port that no server listens on. Where another process took it meanwhile, `use` gets another port. */
export async function untilFree(use) {
  for (let tries = 1; ; tries++) {
    try {
      return await use(await deadPort());
    } catch (error) {
      if (error.code !== 'EADDRINUSE' || tries === 20) throw error;
    }
  }
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

/** A server that hands every connection on to another port, and counts the bytes that come from there: `received`. */
export async function startCountingProxy(target) {
  const handle = await startServer((client) => {
    const upstream = connect(target);
    upstream.on('data', ({ length }) => (handle.received += length));
    upstream.on('error', () => client.destroy());
    upstream.on('close', () => client.destroy());
    client.on('close', () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });
  handle.received = 0;
  return handle;
}

/** A server that hands every connection on to another port, each way `ms` late. */
export function startSlowProxy(target, ms) {
  return startServer((client) => {
    const upstream = connect(target);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ]) {
      from.on('data', (data) => setTimeout(() => to.write(data), ms));
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
}

/**
 * A server that hands every connection on to another port, and can go quiet without a word: then it still accepts connections and keeps those
 * that it has, and hands nothing on. What arrives meanwhile is late, not lost, unless the connections are cut.
 *
 * `silence()` both directions, or with `{ replies: true }` only what the other port answers; `resume()`; `cut()` ends all connections.
 */
export async function startQuietableProxy(target) {
  const pairs = new Set();
  const quiet = { requests: false, replies: false };
  const apply = ({ client, upstream }) => {
    for (const [socket, isQuiet] of [
      [client, quiet.requests],
      [upstream, quiet.replies],
    ]) {
      if (isQuiet) socket.pause();
      else socket.resume();
    }
  };
  const handle = await startServer((client) => {
    const upstream = connect(target);
    const pair = { client, upstream };
    pairs.add(pair);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ]) {
      from.on('data', (data) => to.write(data));
      from.on('end', () => to.end());
      from.on('error', () => {});
      from.on('close', () => {
        pairs.delete(pair);
        to.destroySoon();
      });
    }
    apply(pair);
  });
  const set = (requests, replies) => {
    Object.assign(quiet, { requests, replies });
    for (const pair of pairs) apply(pair);
  };
  return {
    port: handle.port,
    /** Connections that are open. */
    get open() {
      return pairs.size;
    },
    silence: ({ replies = false } = {}) => set(!replies, true),
    resume: () => set(false, false),
    cut() {
      for (const { client, upstream } of pairs) {
        client.destroy();
        upstream.destroy();
      }
    },
    async close() {
      this.cut();
      await handle.close();
    },
  };
}

/**
 * A server that hands every connection on to another port, and can lose one reply: `loseReply()` ends the connection on which the next request that
 * matches is made, once the server has answered it. Connections made after that are kept waiting until `resume()`.
 */
export async function startLossyProxy(target) {
  let armed;
  let waiting;
  const handle = await startServer((client) => {
    const upstream = connect(target);
    let lost;
    client.pause();
    Promise.resolve(waiting?.promise).then(() => client.resume());
    client.on('data', (data) => {
      if (armed?.to.test(data.toString('latin1'))) {
        lost = armed.lost;
        armed = undefined;
      }
      upstream.write(data);
    });
    upstream.on('data', (data) => {
      if (!lost) return client.write(data);
      waiting = deferred();
      client.destroy();
      upstream.destroy();
      return lost.resolve();
    });
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ]) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  return {
    port: handle.port,
    /** Resolves once the reply is lost. */
    loseReply(to = /^/) {
      armed = { to, lost: deferred() };
      return armed.lost.promise;
    },
    resume() {
      waiting?.resolve();
      waiting = undefined;
    },
    async close() {
      this.resume();
      await handle.close();
    },
  };
}

function deferred() {
  let resolve;
  const promise = new Promise((resolved) => (resolve = resolved));
  return { promise, resolve };
}

async function listen(server, port = 0) {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
