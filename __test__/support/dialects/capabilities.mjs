// What a test may need of a database, by name, and the reason why another database does not run that test. The reason becomes part of the test's
// name, so that an exemption shows in the output of every run.
//
// `missing` is the reason where a test needs the capability, `present` where it needs its absence ('!keyLimit').

export const CAPABILITIES = {
  // Where the tables are.
  raw: { missing: 'it lives inside its store, and nothing else can read or write it' },
  shared: { missing: 'it lives inside its store, and no second store or process can open it' },
  file: { missing: 'it is no file' },
  memory: { missing: 'its tables outlive its store' },
  server: { missing: 'it has no server, no users and no network' },

  // Locks and transactions.
  rowLocks: { missing: 'it has one writer, so that no row is locked while the store writes', present: 'it locks rows' },
  transactionIds: { missing: 'its rows do not say which transaction wrote them' },
  claimSteps: { missing: 'a claim is one statement', present: 'a claim looks at its job again once it has locked its batch' },
  copy: { missing: 'it has no COPY' },
  textUuids: { missing: 'its UUIDs are text, or are compared as UUIDs' },
  columnTypesChange: { missing: 'its statements do not depend on the types of columns' },

  // JSON.
  sortedKeys: { missing: 'it keeps the order of the keys', present: 'its JSON type sorts the keys' },
  keyLimit: { missing: 'it limits no key', present: 'its JSON type holds keys of at most 65,535 bytes' },
  nestingLimit: { missing: 'it sets no such limit' },
  stackLimit: { missing: 'it has no setting for it' },
  loneSurrogates: { missing: 'it refuses lone surrogates', present: 'it keeps them' },
  uncheckedJson: { missing: 'its columns refuse what is not JSON' },
  packetLimit: { missing: 'it takes more in one value than a JavaScript string holds' },

  // Text and ids.
  nulInText: { missing: 'its text has no U+0000', present: 'it keeps U+0000' },
  textLimit: { missing: 'its columns of text have no limit', present: 'its column holds 65,535 bytes' },
  columnCharsets: { missing: 'its columns have no character set of their own' },
  databaseEncodings: { missing: 'it has no databases of such encodings' },
  caseInsensitiveIds: { missing: 'it tells them apart', present: 'its default collation ignores case and accents' },
  limitedIds: { missing: 'its ids of records have 64 bits' },
  sequences: { missing: 'its ids of records come from no sequence' },
  rowTypeErrors: { missing: 'it reads a blob as text' },

  // Tables and indexes.
  schemas: { missing: 'it has no schemas within a database', present: 'it has schemas within a database' },
  indexPrefixes: { missing: 'it indexes whole columns' },
  partialIndexes: { missing: 'it has no partial indexes' },
  indexMethods: { missing: 'it has one kind of index' },
  indexHints: { missing: 'its statements name no index' },
  optionalIndex: { missing: 'initialize() makes no index there but those of the other adapter' },
  disabledIndexes: { missing: 'it has no way to disable an index' },

  // Servers.
  tableRights: { missing: 'its rights are granted on the whole database' },
  applicationName: { missing: 'it has no such parameter' },
  asksForPasswords: { missing: 'its server may let anyone in without a password' },
  versionProbe: { missing: 'its connections do not ask for the version first' },
  preparedStatementLimit: { missing: 'it sets no such limit' },
};

/** Whether a set of capabilities meets a requirement: a capability's name, or '!' and the name of one that has to be absent. */
export function meets(capabilities, requirement) {
  const [name, wanted] = parse(requirement);
  return capabilities.has(name) === wanted;
}

/** Why a database that does not meet the requirement is exempt. */
export function reasonOf(requirement) {
  const [name, wanted] = parse(requirement);
  const reason = CAPABILITIES[name][wanted ? 'missing' : 'present'];
  if (!reason) throw new Error(`capabilities.mjs gives no reason for ${requirement}`);
  return reason;
}

function parse(requirement) {
  const name = requirement.replace(/^!/, '');
  if (!(name in CAPABILITIES)) throw new Error(`capabilities.mjs knows no capability ${name}`);
  return [name, name === requirement];
}
