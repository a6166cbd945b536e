// As much of `fastify` as the README uses.

interface App {
  addHook(name: 'onReady' | 'onClose', hook: () => Promise<void>): App;
  get(path: string, handler: () => Promise<unknown>): App;
}
export default function fastify(): App;
