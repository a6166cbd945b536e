import { defineConfig } from 'vitest/config';
import DatabaseReporter from './__test__/support/reporter.mjs';

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.mjs'],
    globalSetup: './__test__/support/global-setup.mjs',
    reporters: ['default', new DatabaseReporter()],
    // The addon runs threads of its own, and the tests start processes: each test file gets a process, and two run at a time, which the
    // connection limits of a server with default settings allow for.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 60_000,
  },
});
