// As much of `express` as the dashboard's README uses.

declare function express(): express.App;
declare namespace express {
  interface App {
    use(
      path: string,
      handler: (request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => unknown,
    ): App;
  }
}
export = express;
