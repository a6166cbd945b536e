'use strict';

// The commands, and what `--help` says of them.

const COMMANDS = new Map(
  Object.entries({
    doctor: require('./doctor.js'),
    init: require('./init.js'),
    jobs: require('./jobs.js'),
    show: require('./show.js'),
    watch: require('./watch.js'),
    failed: require('./failed.js'),
    errors: require('./errors.js'),
    pause: require('./steer.js').pause,
    resume: require('./steer.js').resume,
    abort: require('./steer.js').abort,
    retry: require('./retry.js'),
    reclaim: require('./reclaim.js'),
    purge: require('./purge.js'),
  }),
);

const CONNECTION_HELP = `
Where the database is:
  DATABASE_URL          postgres://, mysql://, mariadb:// or sqlite: (the environment variable)
  --url URL             instead of it, without a password: command lines can be read by ps
  --password-stdin      reads the password from stdin; at a terminal you are asked for it
  --schema NAME         PostgreSQL: the schema of the tables
`;

const EXITS = `
Exit codes: 0 ok, 1 the job failed or a check did not hold, 2 usage, 3 not found or aborted, 4 the database can't be reached.
`;

function generalHelp() {
  const width = Math.max(...[...COMMANDS.values()].map(({ usage }) => usage.length));
  const lines = [...COMMANDS.values()].map(({ usage, summary }) =>
    usage.length > 34 ? `  ${usage}\n${' '.repeat(38)}${summary}` : `  ${usage.padEnd(Math.min(width, 34))}  ${summary}`,
  );
  return `usage: batchactions-sqlx <command> [options]

See and steer the jobs of @batchactions/state-sqlx.

${lines.join('\n')}
  help [<command>]                    what a command does, and its options
  --version                           the version of the package
${CONNECTION_HELP}  --json                for machines: JSON instead of text
${EXITS}`;
}

const usageOf = (name) => `usage: batchactions-sqlx ${COMMANDS.get(name).usage}\n`;

function helpOf(name) {
  const { summary, help } = COMMANDS.get(name);
  return `${usageOf(name)}\n${summary}.\n${help}${CONNECTION_HELP}${EXITS}`;
}

/** The command that was probably meant: it begins alike, or differs by a letter or two. */
function nearest(word) {
  const names = [...COMMANDS.keys(), 'help'];
  const begun = names.filter((name) => word.length >= 2 && name.startsWith(word));
  if (begun.length === 1) return begun[0];
  const [best] = names.map((name) => ({ name, distance: distance(name, word) })).sort((a, b) => a.distance - b.distance);
  return best.distance <= 2 && best.distance < best.name.length ? best.name : undefined;
}

/** How many letters have to be changed, added or left out (Levenshtein). */
function distance(a, b) {
  if (b.length > 20) return b.length;
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}

module.exports = { COMMANDS, generalHelp, helpOf, nearest, usageOf };
