// What the pages have in common. Every value becomes text (`textContent`) or an attribute's value: none is read as HTML.

const EVERY_MS = 2_000;
/** From this age on, what is seen is called old. */
const OLD_MS = 10_000;

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. An attribute that is `undefined` or `false` is left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children);
  return element;
}

export function setAttribute(element, name, value) {
  if (value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Changes the text of an element where it differs, so that a selection in it stays where it doesn't. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` those of `items`. An element that has the key of an item stays the same one, and where it is: focus, selection and scroll
 * position stay too.
 */
export function patch(parent, items, { key, create, update }) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const keys = new Set(items.map((item) => String(key(item))));
  for (const [name, child] of old) {
    if (keys.has(name)) continue;
    // The focus must not fall back to the beginning of the page.
    if (child.contains(document.activeElement)) (child.closest('[tabindex]') ?? byId('main')).focus({ preventScroll: true });
    child.remove();
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

/** A list of links, one for each of `[value, label]`, of which one is the present choice. */
export function showFilter(list, choices, present, choose) {
  patch(list, choices, {
    key: ([value]) => value,
    create: ([value]) => {
      const link = make('a');
      link.addEventListener('click', (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        choose(value);
      });
      return make('li', {}, link);
    },
    update: (item, [value, label]) => {
      const link = item.firstChild;
      setText(link, label);
      setAttribute(link, 'href', addressWith({ status: value || undefined, after: undefined, afterStartedAt: undefined }));
      setAttribute(link, 'aria-current', value === (present ?? '') && 'true');
    },
  });
}

/** Whether a button does something. It keeps the focus where it doesn't. */
export function enable(button, enabled) {
  setAttribute(button, 'aria-disabled', !enabled && 'true');
}

export function onPress(button, press) {
  button.addEventListener('click', () => {
    if (button.getAttribute('aria-disabled') !== 'true') press();
  });
}

export const parameters = () => new URLSearchParams(location.search);

/** The page's address with other parameters. */
export function addressWith(changes) {
  const query = parameters();
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const search = query.toString();
  return search ? `?${search}` : location.pathname;
}

/** A failure with a sentence for people. */
export class Failure extends Error {}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Failure('The server of this page does not answer.');
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Failure(`The server of this page gave an answer that is not its own (status ${response.status}).`);
  }
  if (!response.ok) throw new Failure(answer.error ? `${answer.error.message} (${answer.error.code})` : `Status ${response.status}.`);
  return answer;
}

export function read(name, query, signal) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  return request(`api/${name}?${new URLSearchParams(given)}`, { signal });
}

export function act(name, body) {
  return request(`api/${name}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
}

/** The sentence of a failure. Anything else is a defect of this page, and goes to the console too. */
export function sentenceOf(error) {
  if (!(error instanceof Failure)) console.error(error);
  return error.message;
}

/**
 * Reads and shows, every two seconds while the page is visible. The next read begins two seconds after the last one ended, so a slow database isn't asked more
 * than it answers; what is seen stays, and says how old it is.
 * @returns {() => void} Reads now.
 */
export function keepFresh(load, show) {
  const [seen, trouble, auto] = [byId('seen'), byId('trouble'), byId('auto')];
  let [timer, ticker, under, seenAt, askedAt] = [];

  async function refresh() {
    clearTimeout(timer);
    under?.abort();
    const mine = new AbortController();
    under = mine;
    const mineAt = performance.now();
    askedAt = mineAt;
    try {
      const answer = await load(mine.signal);
      if (mine.signal.aborted) return;
      show(answer);
      // The answer may have been long under way, too.
      seenAt = Math.min(mineAt, performance.now() - answer.ageMs);
      trouble.hidden = true;
      setText(trouble, '');
    } catch (error) {
      if (mine.signal.aborted) return;
      trouble.hidden = false;
      // Said once, not every two seconds: it is read out.
      setText(trouble, sentenceOf(error));
    }
    under = undefined;
    tick();
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (document.visibilityState === 'visible' && auto.checked) timer = setTimeout(refresh, EVERY_MS);
  }

  function tick() {
    const waits = under !== undefined && performance.now() - askedAt > 2 * EVERY_MS ? ', waiting for an answer' : '';
    if (seenAt === undefined) {
      setText(seen, under ? `Reading…${waits}` : 'Nothing read yet');
      return;
    }
    const age = performance.now() - seenAt;
    setText(seen, `Seen ${age < 3_000 ? 'now' : `${duration(age)} ago`}${waits}`);
    seen.classList.toggle('old', age > OLD_MS && (auto.checked || waits !== ''));
  }

  function whileVisible() {
    clearInterval(ticker);
    if (document.visibilityState === 'visible') {
      ticker = setInterval(tick, 1_000);
      if (auto.checked || seenAt === undefined) refresh();
    } else clearTimeout(timer);
  }

  document.addEventListener('visibilitychange', whileVisible);
  auto.addEventListener('change', () => (auto.checked ? refresh() : clearTimeout(timer)));
  byId('refresh').addEventListener('click', refresh);
  whileVisible();
  return refresh;
}

/** Goes to another view of the same page: its address changes, so that it can be shared and the browser's Back works. */
export function goTo(changes, refresh) {
  history.pushState(null, '', addressWith(changes));
  refresh();
}

/**
 * Asks before something is done. `fields` are elements between the question and the buttons. `run` does it, and returns what to say then; where it fails, the
 * dialog stays and says why. Cancel and Escape close the dialog while it runs too: `run` gets a function that says whether the dialog is still open, and what
 * comes of the rest is said on the page.
 */
export function ask({ title, question, fields = [], label, danger = false, run, ready = true }) {
  const said = make('p', { role: 'alert', class: 'trouble', hidden: '' });
  const cancel = make('button', { type: 'button', autofocus: '' }, 'Cancel');
  const confirm = make('button', { type: 'button', class: danger ? 'danger' : undefined }, label);
  const heading = make('h2', { id: 'dialog-title' }, title);
  const text = make('p', { id: 'dialog-text' }, question);
  const dialog = make('dialog', { 'aria-labelledby': 'dialog-title', 'aria-describedby': 'dialog-text' }, heading, text, ...fields, said);
  dialog.append(make('p', { class: 'buttons' }, cancel, confirm));
  document.body.append(dialog);

  const fail = (error) => {
    said.hidden = false;
    setText(said, sentenceOf(error));
  };
  enable(confirm, ready);
  cancel.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => dialog.remove());
  onPress(confirm, async () => {
    enable(confirm, false);
    said.hidden = true;
    try {
      const done = await run(() => dialog.open);
      dialog.close();
      say(done);
    } catch (error) {
      if (!dialog.open) return say(sentenceOf(error));
      fail(error);
      enable(confirm, true);
    }
  });
  dialog.showModal();
  return { fail, setReady: (value) => enable(confirm, value) };
}

/** Says what was done. `parts` may hold links. */
export function say(parts) {
  byId('said').replaceChildren(...[parts].flat());
}

export function checkbox(label) {
  const box = make('input', { type: 'checkbox' });
  return { box, field: make('label', {}, box, ` ${label}`) };
}

export function showStatus(element, status) {
  setText(element, status);
  setAttribute(element, 'class', 'status');
  setAttribute(element, 'data-status', status);
}

export const jobAddress = (id) => `job?${new URLSearchParams({ id })}`;

export const number = (value) => Math.round(value).toLocaleString('en-US');
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

const percents = new Intl.NumberFormat('en-US', { style: 'percent', maximumFractionDigits: 1 });
/** Never 100 % while something is left. */
export const percent = (part, whole) => percents.format(whole > 0 ? (part < whole ? Math.min(part / whole, 0.999) : 1) : 0);

/** A duration in its two largest units: `2 h 5 min`. */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  const two = (large, unit, small, smaller) => `${large} ${unit}${small > 0 ? ` ${small} ${smaller}` : ''}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, 'min', seconds % 60, 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return two(hours, 'h', minutes % 60, 'min');
  return two(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** How old a count is, where that is worth a word: `, counted 5 min ago`. A count that takes long is kept for long. */
export const counted = (ageMs) => (ageMs > 5_000 ? `, counted ${duration(ageMs)} ago` : '');

const times = new Intl.DateTimeFormat('en-CA', { dateStyle: 'short', timeStyle: 'medium', hourCycle: 'h23' });
const zonedTimes = new Intl.DateTimeFormat('en-CA', { dateStyle: 'short', timeStyle: 'long', hourCycle: 'h23' });

/** Shows a time in an element `time`, or that there is none. */
export function showTime(element, epochMs) {
  const date = new Date(epochMs ?? NaN);
  const known = !Number.isNaN(date.getTime());
  setText(element, known ? times.format(date) : '–');
  setAttribute(element, 'datetime', known && date.toISOString());
  // With the zone, for a comparison with a log.
  setAttribute(element, 'title', known && zonedTimes.format(date));
}
