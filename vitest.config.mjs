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
    // What hangs is found by them. Nothing is measured by them: the machine may be busy.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 180_000,
  },
});
