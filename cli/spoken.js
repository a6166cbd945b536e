'use strict';

// The store's messages say what a program is to call. The words of the command stand here for them.

const { clean } = require('./text.js');

const WORDS = [
  [/\bcall initialize\(\)/g, 'run batchactions-sqlx init'],
  [/\binitialize\(\)/g, 'batchactions-sqlx init'],
  [/\babortJob\(jobId, \{ now: true \}\)/g, 'batchactions-sqlx abort --now'],
  [/\{ force: true \}/g, '--force'],
  [/\boptions\.schema\b|\bthe option schema\b/g, '--schema'],
  [/\boptions\.batchSize\b/g, '--batch-size'],
  [/\boptions\.statuses\b/g, '--statuses'],
  [/\boptions\.limit\b/g, '--limit'],
  [/\boptions\.olderThanMs\b/g, '--older-than'],
  [/\btimeoutMs\b/g, '--timeout'],
  // These an operator gives by the URL.
  [/\bgive statementCache: 0/g, 'put pgbouncer=true into the URL'],
  [/\bneed statementCache: 0/g, 'need pgbouncer=true in the URL'],
  [/\(connectTimeoutMs\)/g, '(connect_timeout)'],
];

/** A message of the store, harmless and in the command's words. */
const spoken = (message) => clean(WORDS.reduce((text, [word, ours]) => text.replace(word, ours), message.replace(/\s*\n\s*/g, ' ')));

module.exports = { spoken };
