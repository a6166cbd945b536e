// Ends the output of a run with what it ran on: each database with its version and how many tests ran there, then the counts, then what
// was missing or left out. A test belongs to a database when one of the `describe` blocks around it has the database's name.

export default class DatabaseReporter {
  onTestRunEnd(modules, unhandledErrors, reason) {
    const { found, missing, leftOut } = JSON.parse(process.env.BATCHACTIONS_TEST_DATABASES ?? '{"found":[],"missing":[],"leftOut":[]}');
    const ran = new Map(found.map(({ name }) => [name, 0]));
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0 };

    for (const module of modules) {
      // What failed outside a test: a file that does not load, a hook of a `describe`.
      counts.failed += module.errors().length;
      for (const suite of module.children.allSuites()) counts.failed += suite.errors().length;

      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state in counts) counts[state]++;
        else counts.failed++; // It did not end.
        const database = around(test).find((name) => ran.has(name));
        if (database && state !== 'skipped') ran.set(database, ran.get(database) + 1);
      }
    }

    // The setup failed, and no test ran.
    if (reason === 'failed' && counts.failed === 0) counts.failed = 1;

    const label = ({ name, version }) => (name.endsWith(version) ? name : `${name} (${version})`);
    const lines = found.map((database) => `${label(database)}: ${ran.get(database.name)} tests ran`);
    lines.push(`${counts.passed} passed, ${counts.failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ''}`);
    lines.push(missing.length ? `Missing: ${missing.map(({ name, reason }) => `${name} (${reason})`).join(', ')}` : 'Missing: no database');
    if (leftOut.length > 0) lines.push(`Left out by TEST_DATABASES: ${leftOut.join(', ')}`);
    console.log(lines.join('\n'));
  }
}

function around(test) {
  const names = [];
  for (let block = test.parent; block.type === 'suite'; block = block.parent) names.push(block.name);
  return names;
}
