// As much of `fastify` as the README uses.

declare function fastify(): fastify.App;
declare namespace fastify {
  interface App {
    addHook(name: 'onReady' | 'onClose', hook: () => Promise<void>): App;
    get(path: string, handler: () => Promise<unknown>): App;
  }
}
export = fastify;
