'use strict';

// Who may see the page, and which requests may change something.

const { Refusal } = require('./refusal.js');

/** Headers that a proxy adds. A request that has one of them isn't from this machine, or pretends not to be. */
const FROM_PROXY =
  /^(?:via|forwarded|x-(?:original-)?forwarded.*|x-envoy-.*|x-real-ip|(?:x-|x-cluster-|true-|fastly-)?client-ip|cf-connecting-ip(?:v6)?)$/;

/**
 * Resolves where the request may go on, and rejects with a `Refusal` where not.
 * @returns {Promise<boolean>} `false` where `authorize` has answered the request itself.
 */
async function checkAccess(request, response, { authorize, tell }) {
  if (authorize === undefined) {
    checkLocal(request);
  } else {
    let allowed;
    try {
      allowed = await authorize(request, response);
    } catch (error) {
      tell(error);
      throw new Refusal(403, 'FORBIDDEN', 'Whether you may see this page could not be found out: the log of the server says why.');
    }
    if (response.headersSent || response.writableEnded) return false;
    // Only `true`: a function that forgets to return something, or returns a user who may be another one, must not let anyone in.
    if (allowed !== true) {
      if (allowed !== false) tell(new TypeError(`authorize must answer true or false, not ${allowed === null ? 'null' : typeof allowed}`));
      throw new Refusal(403, 'FORBIDDEN', 'You may not see this page.');
    }
  }
  return true;
}

/** Without `authorize`, only a program of this machine may ask, and only by a name of this machine. */
function checkLocal(request) {
  const remote = request.socket?.remoteAddress;
  if (remote === undefined || !/^(?:::1|(?:::ffff:)?127(?:\.\d{1,3}){3})$/i.test(remote)) {
    throw new Refusal(403, 'FORBIDDEN', 'Without the option authorize, this page answers only requests from the machine that it runs on.');
  }
  const proxied = Object.keys(request.headers).find((name) => FROM_PROXY.test(name));
  if (proxied !== undefined) {
    throw new Refusal(403, 'FORBIDDEN', `This request came by way of a proxy (header ${proxied}): that takes the option authorize.`);
  }
  // A site may let its own name resolve to 127.0.0.1, and so read this page from a browser on this machine. The header Host still has its name.
  if (!isLoopbackHost(hostOf(request))) {
    throw new Refusal(403, 'FORBIDDEN', 'Without the option authorize, this page answers only to localhost, 127.0.0.1 and [::1] as host.');
  }
}

/**
 * A script, image or frame of another site may not read from here. It could not see the answer, but its length or its time may tell something, and a download costs
 * the database. A link of another site leads to a page, and to nothing else.
 */
function checkFetched({ headers }, isPage) {
  const site = headers['sec-fetch-site'];
  if (site !== 'cross-site' && site !== 'same-site') return;
  if (isPage && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document') return;
  throw new Refusal(403, 'FORBIDDEN', 'This request comes from the page of another site.');
}

/** A request that changes something must come from a script of this page. */
function checkOrigin(request) {
  const { origin, 'sec-fetch-site': site, 'content-type': type = '' } = request.headers;
  if (origin === undefined) throw new Refusal(403, 'FORBIDDEN', 'An action needs the header Origin, as browsers send it.');
  // Behind a proxy that ends TLS, the scheme of the page isn't known here.
  const isOtherScheme = request.socket?.encrypted === true && !/^https:/i.test(origin);
  if (isOtherScheme || hostOfOrigin(origin) !== hostOf(request)) {
    throw new Refusal(
      403,
      'FORBIDDEN',
      'This action comes from another origin than the page. A proxy between must pass on the header Host.',
    );
  }
  if (site !== undefined && site !== 'same-origin') throw new Refusal(403, 'FORBIDDEN', 'This action comes from the page of another site.');
  if (type.split(';')[0].trim().toLowerCase() !== 'application/json') {
    throw new Refusal(415, 'UNSUPPORTED_MEDIA_TYPE', 'An action needs the content type application/json.');
  }
}

/** What the request calls this server. (HTTP/2 has another header for it.) */
function hostOf({ headers }) {
  return String(headers.host ?? headers[':authority'] ?? '').toLowerCase();
}

function hostOfOrigin(origin) {
  return /^https?:\/\/([^/@?#\s]+)$/i.exec(origin)?.[1].toLowerCase();
}

function isLoopbackHost(host) {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/.test(host);
}

module.exports = { checkAccess, checkFetched, checkOrigin };
