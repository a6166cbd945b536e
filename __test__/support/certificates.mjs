// A certificate authority for tests, and the certificates that it signs: X.509 (RFC 5280) by hand, with Node's keys and signatures, so that the tests need
// neither a program nor a package.

import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { isIP } from 'node:net';

const DAY_MS = 86_400_000;

/** One element of DER (X.690): its tag, its length, what it holds. */
function der(tag, ...parts) {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const bytes = [];
  for (let rest = content.length; rest > 0; rest >>= 8) bytes.unshift(rest & 255);
  const length = content.length < 128 ? [content.length] : [128 | bytes.length, ...bytes];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}

const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, 'hex'));
const integer = (bytes) => der(0x02, bytes);
const yes = der(0x01, [255]);
const octets = (content) => der(0x04, content);
const bits = (content) => der(0x03, [0], content);
/** As `261124150000Z`. */
const time = (ms) => der(0x17, new Date(ms).toISOString().replace(/^..|[-:T]|\.\d+/g, ''));

const COMMON_NAME = oid('550403');
const BASIC_CONSTRAINTS = oid('551d13');
const SUBJECT_ALT_NAME = oid('551d11');
const ECDSA_WITH_SHA256 = sequence(oid('2a8648ce3d040302'));

const called = (name) => sequence(der(0x31, sequence(COMMON_NAME, der(0x0c, name))));
const altName = (host) => (isIP(host) ? der(0x87, host.split('.').map(Number)) : der(0x82, host));

function pem(label, bytes) {
  const lines = bytes.toString('base64').match(/.{1,64}/g);
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

function certificate({ name, issuer, publicKey, signingKey, authority, hosts, expired }) {
  const now = Date.now();
  const extensions = [sequence(BASIC_CONSTRAINTS, yes, octets(authority ? sequence(yes) : sequence()))];
  if (hosts.length > 0) extensions.push(sequence(SUBJECT_ALT_NAME, octets(sequence(...hosts.map(altName)))));
  const content = sequence(
    der(0xa0, integer([2])),
    integer(Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ECDSA_WITH_SHA256,
    called(issuer),
    sequence(time(now - 10 * DAY_MS), time(expired ? now - DAY_MS : now + 10 * DAY_MS)),
    called(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  );
  return pem('CERTIFICATE', sequence(content, ECDSA_WITH_SHA256, bits(sign('sha256', content, signingKey))));
}

const newKeys = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const keyText = ({ privateKey }) => privateKey.export({ type: 'pkcs8', format: 'pem' });

/**
 * An authority. `ca` is the certificate that makes its signatures count; with `key`, it also stands for a certificate that has signed itself.
 * @param {string[]} hosts
 */
export function createAuthority(name, hosts = []) {
  const keys = newKeys();
  const about = { name, issuer: name, publicKey: keys.publicKey, signingKey: keys.privateKey, authority: true, hosts, expired: false };
  const ca = certificate(about);
  return {
    ca,
    cert: ca,
    key: keyText(keys),
    /**
     * Signs a certificate. `hosts`: its subjectAltName, of names or IPv4 addresses; without hosts, it has none.
     * @returns {{ ca: string, cert: string, key: string }} PEM.
     */
    issue({ name: subject = 'server', hosts: names = [], expired = false } = {}) {
      const own = newKeys();
      const what = { name: subject, issuer: name, publicKey: own.publicKey, signingKey: keys.privateKey, authority: false };
      return { ca, cert: certificate({ ...what, hosts: names, expired }), key: keyText(own) };
    },
  };
}
