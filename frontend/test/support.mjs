// What the tests share: a token route over real HTTP, a browser's globals, and a check for lost rejections.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after } from 'node:test';

const lost = [];
process.on('unhandledRejection', (error) => lost.push(error));
after(() => assert.deepEqual(lost, [], 'a rejection that no code handles'));

// Browsers have it; Node does from version 21 on.
globalThis.navigator ??= {};

export const HOUR = 3_600_000;

/** Seconds since 1970, `ms` from now, as `expiresAt` and `exp` count. */
export const secondsIn = (ms) => Math.round((Date.now() + ms) / 1000);

/** JWT with these claims; its signature is of no interest to a page. */
export const jwt = (claims) =>
  ['{"alg":"none"}', JSON.stringify(claims), 'signature']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until a condition holds. */
export async function until(condition, what = 'the condition') {
  for (let tries = 0; !(await condition()); tries++) {
    assert.ok(tries < 400, `${what} does not come true`);
    await sleep(5);
  }
}

export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

/**
 * A token route on loopback. `answer` is called with the request's number, from 1, and its parsed body. It returns
 * [status, body, headers], or a function that writes to the response itself.
 */
export async function route(test, answer = (number) => [200, { token: `token-${number}` }]) {
  const journal = [];
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (part) => (text += part));
    request.on('end', async () => {
      const body = text ? JSON.parse(text) : undefined;
      const entry = { method: request.method, headers: request.headers, body, gone: false };
      response.on('close', () => (entry.gone = !response.writableFinished));
      journal.push(entry);
      const reply = await answer(journal.length, body, request);
      if (typeof reply === 'function') return reply(response);
      const [status, content, headers = {}] = reply;
      const isText = typeof content === 'string';
      response.writeHead(status, { 'Content-Type': isText ? 'text/html' : 'application/json', ...headers });
      response.end(isText ? content : JSON.stringify(content));
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}/api/velt/token`, journal };
}

/** Error with which a promise rejects. */
export const errorOf = (promise) =>
  promise.then(
    (value) => assert.fail(`resolved to ${typeof value}`),
    (error) => error,
  );

/** Replaces a global for one test. */
export function withGlobal(test, name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  test.after(() => {
    if (before) Object.defineProperty(globalThis, name, before);
    else delete globalThis[name];
  });
}

/** Gives this process a window's events. Returns a function that fires one. */
export function withWindow(test, { hidden = false } = {}) {
  const target = new EventTarget();
  const document = { hidden };
  withGlobal(test, 'document', document);
  withGlobal(test, 'addEventListener', target.addEventListener.bind(target));
  withGlobal(test, 'removeEventListener', target.removeEventListener.bind(target));
  const fire = (type, facts = {}) => target.dispatchEvent(Object.assign(new Event(type), facts));
  return { fire, document };
}

/** Web Locks (https://w3c.github.io/web-locks/), as far as exclusive locks with a signal go. */
export class Locks {
  #tails = new Map();
  requests = 0;

  async request(name, { signal }, callback) {
    this.requests++;
    const before = this.#tails.get(name) ?? Promise.resolve();
    let free;
    this.#tails.set(
      name,
      before.then(() => new Promise((resolve) => (free = resolve))),
    );
    const given = new Promise((_, reject) => {
      const abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      signal.addEventListener('abort', abort);
    });
    try {
      await Promise.race([before, given]);
    } catch (error) {
      before.then(() => sleep(0)).then(() => free());
      throw error;
    }
    try {
      await sleep(0);
      return await callback({ name });
    } finally {
      free();
    }
  }
}

/** Makes sources that are closed when the test ends. */
export function sources(test, create) {
  return (options) => {
    const made = create(options);
    test.after(() => made.close());
    return made;
  };
}
