// As much of `fastify` as the README uses.

declare function fastify(): fastify.App;
declare namespace fastify {
  interface App {
    addHook(name: 'onReady' | 'onClose', hook: () => Promise<void>): App;
    get(path: string, handler: () => Promise<unknown>): App;
    all(path: string, handler: (request: Request, reply: Reply) => Promise<unknown>): App;
    register(plugin: (scope: App) => Promise<void>): App;
    removeAllContentTypeParsers(): void;
    addContentTypeParser(type: string, parse: (request: Request, payload: unknown, done: (error: Error | null) => void) => void): App;
  }
  interface Request {
    readonly raw: import('node:http').IncomingMessage;
  }
  interface Reply {
    readonly raw: import('node:http').ServerResponse;
    hijack(): Reply;
  }
}
export = fastify;
