// What the README's snippets take for granted: what the user has, and what a snippet before has imported.

declare const sequelize: import('sequelize').Sequelize;
declare const schema: import('@batchactions/import').SchemaDefinition;
declare const source: import('@batchactions/core').DataSource;
declare const workerId: string;
declare const store: import('@batchactions/state-sqlx').SqlxStateStore;
declare function saveUser(record: import('@batchactions/core').RawRecord): Promise<void>;
declare const signer: { getAuthToken(): Promise<string> };

declare function isEmployee(request: import('node:http').IncomingMessage): Promise<boolean>;
declare function isOperator(request: import('node:http').IncomingMessage): Promise<boolean>;

declare const CsvParser: typeof import('@batchactions/import').CsvParser;
declare const SqlxStateStore: typeof import('@batchactions/state-sqlx').SqlxStateStore;

declare namespace NodeJS {
  interface ProcessEnv {
    readonly DATABASE_URL: string;
  }
}
