// Renewal before the end of a token's life, and a laptop that wakes. Time is the test's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVeltTokens } from '../dist/index.js';
import { HOUR, errorOf, secondsIn, sources, withWindow } from './support.mjs';

const MINUTE = 60_000;

/** A source whose tokens live for an hour, in a window of its own. */
async function page(t, { life = HOUR, answer, ...options } = {}) {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'], now: 1_800_000_000_000 });
  const window = withWindow(t);
  const calls = [];
  const fetch = async () => {
    calls.push(Date.now());
    if (answer) return answer(calls.length);
    return Response.json({ token: `token-${calls.length}`, expiresAt: secondsIn(life) });
  };
  const tokens = sources(t, createVeltTokens)({ fetch, ...options });
  await tokens.generateToken();
  const pass = async (ms) => {
    for (let step = 0; step < ms; step += MINUTE) {
      t.mock.timers.tick(Math.min(MINUTE, ms - step));
      for (let turn = 0; turn < 20; turn++) await null;
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { tokens, calls, pass, ...window };
}

test('token is renewed between ten and five minutes before its end', async (t) => {
  const { tokens, calls, pass } = await page(t);
  await pass(49 * MINUTE);
  assert.equal(calls.length, 1);
  await pass(7 * MINUTE);
  assert.equal(calls.length, 2);
  const left = calls[0] + HOUR - calls[1];
  assert.ok(left >= 4 * MINUTE && left <= 10 * MINUTE, `${left}`);
  assert.equal(await tokens.generateToken(), 'token-2');
  assert.equal(calls.length, 2);
});

test('pages do not renew at the same moment', async (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'], now: 1_800_000_000_000 });
  const delays = new Set();
  const timers = t.mock.method(globalThis, 'setTimeout');
  for (let page = 0; page < 10; page++) {
    const fetch = async () => Response.json({ token: 'x', expiresAt: secondsIn(HOUR) });
    await sources(t, createVeltTokens)({ fetch }).generateToken();
  }
  for (const { arguments: [, delay] } of timers.mock.calls) if (delay > 20 * MINUTE) delays.add(delay);
  assert.ok(delays.size > 5, [...delays].join());
});

test('hidden page does not renew before it is seen again', async (t) => {
  const { calls, pass, fire, document } = await page(t);
  document.hidden = true;
  await pass(3 * HOUR);
  fire('visibilitychange');
  await pass(MINUTE);
  assert.equal(calls.length, 1);
  document.hidden = false;
  fire('visibilitychange');
  await pass(1);
  assert.equal(calls.length, 2);
});

for (const type of ['visibilitychange', 'pageshow', 'online']) {
  test(`laptop that wakes renews an old token at ${type}, and keeps a young one`, async (t) => {
    const { tokens, calls, pass, fire } = await page(t);
    fire(type);
    await pass(1);
    assert.equal(calls.length, 1);
    // Timers stood still while the laptop slept.
    t.mock.timers.setTime(1_800_000_000_000 + 56 * MINUTE);
    calls.length = 1;
    fire(type);
    await pass(1);
    assert.equal(calls.length, 2);
    assert.equal(await tokens.generateToken(), 'token-2');
  });
}

test('old token is not served after a sleep, without any event', async (t) => {
  const { tokens, calls } = await page(t);
  t.mock.timers.setTime(1_800_000_000_000 + 72 * HOUR);
  assert.equal(await tokens.generateToken(), `token-${calls.length}`);
  assert.ok(calls.length > 1);
});

test('page from the back/forward cache asks anew, since it may have missed a sign-out', async (t) => {
  const { tokens, calls, pass, fire } = await page(t, {
    answer: (n) =>
      n === 1
        ? Response.json({ token: 'of-ada', expiresAt: secondsIn(HOUR) })
        : Response.json({ error: '', code: 'user_mismatch' }, { status: 403 }),
  });
  let heard = 0;
  tokens.onSignedOut(() => heard++);
  fire('pageshow', { persisted: true });
  await pass(1);
  assert.equal(calls.length, 2);
  assert.equal(heard, 1);
  assert.equal((await errorOf(tokens.generateToken())).code, 'user_mismatch');
});

test('token of a few seconds is renewed once a minute at most', async (t) => {
  const { calls, pass } = await page(t, { life: 15_000 });
  await pass(30 * MINUTE);
  assert.ok(calls.length >= 25 && calls.length <= 31, `${calls.length}`);
});

test('renewal that fails keeps the token, signs out no user, and is tried again', async (t) => {
  let isDown = false;
  t.mock.method(Math, 'random', () => 0.9);
  const { tokens, calls, pass } = await page(t, {
    patience: 1000,
    answer: (n) => {
      if (isDown) throw new TypeError('Failed to fetch');
      return Response.json({ token: `token-${n}`, expiresAt: secondsIn(HOUR) });
    },
  });
  let heard = 0;
  tokens.onSignedOut(() => heard++);
  isDown = true;
  await pass(54 * MINUTE);
  const failed = calls.length;
  assert.ok(failed > 1);
  assert.equal(heard, 0);
  assert.equal(await tokens.generateToken(), 'token-1');
  isDown = false;
  await pass(3 * MINUTE);
  assert.notEqual(await tokens.generateToken(), 'token-1');
});

test('page that was offline renews when it is online again', async (t) => {
  let isOffline = false;
  const { tokens, calls, fire, pass } = await page(t, {
    patience: 100,
    answer: (n) => {
      if (isOffline) throw new TypeError('Failed to fetch');
      return Response.json({ token: `token-${n}`, expiresAt: secondsIn(HOUR) });
    },
  });
  isOffline = true;
  t.mock.timers.setTime(1_800_000_000_000 + 58 * MINUTE);
  const { code, retryable } = await errorOf(tokens.generateToken());
  assert.deepEqual({ code, retryable }, { code: 'network', retryable: true });
  isOffline = false;
  fire('online');
  await pass(1);
  assert.equal(await tokens.generateToken(), `token-${calls.length}`);
});

test('life beyond what a timer holds does not turn into a loop', async (t) => {
  const { calls, pass } = await page(t, { life: 1000 * 365 * 24 * HOUR });
  await pass(40 * HOUR);
  assert.equal(calls.length, 1);
});

test('closed page renews no more', async (t) => {
  const { tokens, calls, pass, fire } = await page(t);
  tokens.close();
  fire('online');
  fire('pageshow', { persisted: true });
  await pass(3 * HOUR);
  assert.equal(calls.length, 1);
});
