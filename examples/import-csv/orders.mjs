// What is imported: orders. This file knows what an order looks like, and nothing of batches, workers or databases.

const euros = { EUR: 1, USD: 0.92, GBP: 1.17, JPY: 0.0061 };

const invalid = (field, code, message, value) => ({ field, code, message, value });

/** What is wrong with a row, as a list of `ValidationError`. */
export function validate({ name, email, amount }) {
  const errors = [];
  if (name === '') errors.push(invalid('name', 'REQUIRED', 'name is missing', name));
  if (!/^[^@\s]+@[^@\s]+\.[^@\s]+$/.test(email)) errors.push(invalid('email', 'FORMAT', `"${email}" is not an e-mail address`, email));
  if (!(Number(amount) > 0)) errors.push(invalid('amount', 'RANGE', `amount must be more than 0, not ${amount}`, amount));
  return errors;
}

/** Does the work on a valid row, and returns what came of it. It throws where it can't be done. */
export function processOrder({ order, name, email, amount, currency }) {
  const rate = euros[currency];
  if (rate === undefined) throw new Error(`there is no exchange rate for ${currency}`);
  return { order: Number(order), name, email: email.toLowerCase(), euros: Math.round(Number(amount) * rate * 100) / 100 };
}

const first = ['Ada', 'Grace', 'Alan', 'Edsger', 'Barbara', 'Donald', 'Zoë', 'Niklaus', 'Радия', 'Øyvind'];
const last = ['Lovelace', 'Hopper', 'Turing', 'Dijkstra', 'Liskov', 'Knuth, Jr.', 'Nuñez', 'Wirth', 'Perlman', "O'Neil"];
const currencies = Object.keys(euros);

/** Made-up orders, the same ones each time. Some of them are bad: `isBad` says which. */
export function* madeUpOrders(count) {
  for (let i = 0; i < count; i++) {
    const name = i % 499 === 45 ? '' : `${first[i % 10]} ${last[Math.floor(i / 10) % 10]}`;
    const email = i % 97 === 13 ? `customer.${i}` : `customer.${i}@example.com`;
    const amount = (i % 211 === 7 ? -1 : 1) * (1 + ((i * 7919) % 100_000) / 100);
    const currency = i % 331 === 70 ? 'XTS' : currencies[i % 4];
    yield { order: 1000 + i, name, email, amount: amount.toFixed(2), currency };
  }
}

/** Whether row `i` of `madeUpOrders` is a bad one. */
export const isBad = (i) => i % 499 === 45 || i % 97 === 13 || i % 211 === 7 || i % 331 === 70;
