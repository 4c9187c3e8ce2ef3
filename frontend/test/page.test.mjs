// One page: one request for many callers, patience, and how long a token is served from memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenError, createVeltTokens } from '../dist/index.js';
import { HOUR, errorOf, gate, jwt, route, secondsIn, sleep, sources, until } from './support.mjs';

test('many callers share one request', async (t) => {
  const held = gate();
  const { url, journal } = await route(t, () => held.opened.then(() => [200, { token: 'one' }]));
  const { generateToken } = sources(t, createVeltTokens)({ url });
  const all = Promise.all(Array.from({ length: 50 }, () => generateToken()));
  await until(() => journal.length);
  held.open();
  assert.deepEqual(await all, Array(50).fill('one'));
  assert.equal(journal.length, 1);
  assert.equal(await generateToken(), 'one');
  assert.equal(journal.length, 1);
});

test('request names the user, takes JSON and follows no redirect', async (t) => {
  const calls = [];
  const tokens = sources(t, createVeltTokens)({
    userId: 'ada',
    tabs: false,
    fetch: async (...call) => {
      calls.push(call);
      return Response.json({ token: 'one' });
    },
  });
  await tokens.generateToken();
  const [[url, { signal, headers, ...rest }]] = calls;
  assert.equal(url, '/api/velt/token');
  assert.ok(signal instanceof AbortSignal);
  assert.deepEqual(headers, { Accept: 'application/json', 'Content-Type': 'application/json' });
  assert.deepEqual(rest, {
    method: 'POST',
    body: '{"userId":"ada"}',
    redirect: 'manual',
  });
});

test('caller who aborts leaves the others their token', async (t) => {
  const held = gate();
  const { url, journal } = await route(t, () => held.opened.then(() => [200, { token: 'one' }]));
  const { generateToken } = sources(t, createVeltTokens)({ url });
  const leaving = new AbortController();
  const gone = generateToken({ signal: leaving.signal });
  const staying = generateToken();
  await until(() => journal.length);
  leaving.abort();
  const error = await errorOf(gone);
  assert.ok(error instanceof TokenError);
  assert.equal(error.code, 'aborted');
  held.open();
  assert.equal(await staying, 'one');
  assert.equal(journal.length, 1);
});

test('request ends when all callers abort, and the next caller asks anew', async (t) => {
  const { url, journal } = await route(t, (number) =>
    number === 1 ? new Promise(() => {}) : [200, { token: 'two' }],
  );
  const { generateToken } = sources(t, createVeltTokens)({ url });
  const leaving = [new AbortController(), new AbortController()];
  const gone = leaving.map(({ signal }) => errorOf(generateToken({ signal })));
  await until(() => journal.length);
  leaving[0].abort();
  await sleep(20);
  assert.equal(journal[0].gone, false);
  leaving[1].abort();
  assert.deepEqual((await Promise.all(gone)).map(({ code }) => code), ['aborted', 'aborted']);
  await until(() => journal[0].gone, 'the end of the request');
  assert.equal(await generateToken(), 'two');
});

test('aborted signal asks nothing', async (t) => {
  const { url, journal } = await route(t);
  const { generateToken } = sources(t, createVeltTokens)({ url });
  assert.equal((await errorOf(generateToken({ signal: AbortSignal.abort() }))).code, 'aborted');
  await sleep(20);
  assert.equal(journal.length, 0);
});

for (const [status, code, after] of [
  [504, 'token_pending', '0'],
  [503, 'token_queued', undefined],
  [429, 'token_rate_limited', '0'],
  [503, 'token_unavailable', 'Thu, 01 Jan 1970 00:00:00 GMT'],
]) {
  test(`page waits while the answer is ${code}`, async (t) => {
    const wait = { error: 'Ask again.', code };
    const headers = after === undefined ? {} : { 'Retry-After': after };
    const { url, journal } = await route(t, (number) =>
      number < 3 ? [status, wait, headers] : [200, { token: 'there' }],
    );
    assert.equal(await sources(t, createVeltTokens)({ url }).generateToken(), 'there');
    assert.equal(journal.length, 3);
  });
}

test('page waits as long as Retry-After says', async (t) => {
  const { url, journal } = await route(t, (number) =>
    number < 2 ? [503, { error: '', code: 'token_unavailable' }, { 'Retry-After': '1' }] : [200, { token: 'there' }],
  );
  const began = Date.now();
  await sources(t, createVeltTokens)({ url }).generateToken();
  assert.ok(Date.now() - began >= 990);
  assert.equal(journal.length, 2);
});

test('Retry-After beyond the patience fails at once', async (t) => {
  for (const after of ['30', new Date(Date.now() + 31_000).toUTCString()]) {
    const { url, journal } = await route(t, () => [
      503,
      { error: 'Velt is down.', code: 'token_unavailable' },
      { 'Retry-After': after },
    ]);
    const began = Date.now();
    const error = await errorOf(sources(t, createVeltTokens)({ url }).generateToken());
    assert.ok(Date.now() - began < 1000);
    assert.equal(error.message, 'Velt is down.');
    const { code, status, retryable, retryAfter } = error;
    assert.deepEqual({ code, status, retryable }, { code: 'token_unavailable', status: 503, retryable: true });
    assert.ok(retryAfter > 28_000 && retryAfter <= 31_000, `${retryAfter}`);
    assert.equal(journal.length, 1);
  }
});

test('date in Retry-After is compared with the clock of the server', async (t) => {
  const { url } = await route(t, () => [
    503,
    { error: '', code: 'token_unavailable' },
    { Date: 'Sun, 06 Nov 1994 08:49:37 GMT', 'Retry-After': 'Sun, 06 Nov 1994 08:50:07 GMT' },
  ]);
  const error = await errorOf(sources(t, createVeltTokens)({ url }).generateToken());
  assert.equal(error.retryAfter, 30_000);
});

test('patience that ends during a further attempt gives the reason of the last answer', async (t) => {
  const { url, journal } = await route(t, (number) =>
    number === 1 ? [503, { error: 'no', code: 'token_unavailable' }] : new Promise(() => {}),
  );
  const error = await errorOf(sources(t, createVeltTokens)({ url, patience: 900 }).generateToken());
  assert.deepEqual([error.code, error.status, error.retryable], ['token_unavailable', 503, true]);
  assert.equal(journal.length, 2);
});

test('patience ends a request that hangs, also in a fetch that ignores its signal', async (t) => {
  const { url } = await route(t, () => new Promise(() => {}));
  for (const fetch of [undefined, () => new Promise(() => {})]) {
    const tokens = sources(t, createVeltTokens)({ url, patience: 60, ...(fetch && { fetch }) });
    const began = Date.now();
    const { code, retryable } = await errorOf(tokens.generateToken());
    assert.deepEqual({ code, retryable }, { code: 'timeout', retryable: true });
    assert.ok(Date.now() - began < 1000);
  }
});

test('patience ends the pauses with the last error', async (t) => {
  t.mock.method(Math, 'random', () => 1);
  const { url, journal } = await route(t, () => [504, { error: 'Pending.', code: 'token_pending' }]);
  const error = await errorOf(sources(t, createVeltTokens)({ url, patience: 1000 }).generateToken());
  assert.equal(error.code, 'token_pending');
  assert.equal(journal.length, 2);
});

test('token with more than five minutes left is served from memory', async (t) => {
  for (const [left, requests] of [
    [HOUR, 1],
    [6 * 60_000, 1],
    [4 * 60_000, 2],
    [-HOUR, 2],
  ]) {
    const { url, journal } = await route(t, (n) => [200, { token: `t${n}`, expiresAt: secondsIn(left) }]);
    const { generateToken } = sources(t, createVeltTokens)({ url });
    await generateToken();
    assert.equal(await generateToken(), `t${requests}`);
    assert.equal(journal.length, requests, `${left} ms left`);
  }
});

test('life is measured by the clock of the server', async (t) => {
  // The page's clock is a year ahead of the server's.
  const server = Date.now() - 365 * 24 * HOUR;
  for (const [left, requests] of [
    [HOUR, 1],
    [60_000, 2],
  ]) {
    const { url, journal } = await route(t, (n) => [
      200,
      { token: `t${n}`, expiresAt: Math.round((server + left) / 1000) },
      { Date: new Date(server).toUTCString() },
    ]);
    const { generateToken } = sources(t, createVeltTokens)({ url });
    await generateToken();
    await generateToken();
    assert.equal(journal.length, requests);
  }
});

test('life ends with exp where the answer names no end, and after 48 hours without either', async (t) => {
  for (const [answer, requests] of [
    [jwt({ exp: secondsIn(60_000) }), 2],
    [jwt({ exp: secondsIn(HOUR) }), 1],
    [jwt({ exp: 'soon' }), 1],
    ['opaque', 1],
    [{ token: jwt({ exp: secondsIn(60_000) }), expiresAt: secondsIn(HOUR) }, 1],
    [{ token: jwt({ exp: secondsIn(60_000) }), expiresAt: -1 }, 2],
    [{ token: 'opaque', expiresAt: 'soon' }, 1],
    [{ token: 'opaque', expiresAt: {} }, 1],
    [{ token: 'opaque', expiresAt: null }, 1],
  ]) {
    const shape = typeof answer === 'string' ? JSON.stringify(answer) : JSON.stringify(answer);
    const { url, journal } = await route(t, () => [200, JSON.parse(shape), { 'Content-Type': 'application/json' }]);
    const fetched = sources(t, createVeltTokens)({
      url,
      fetch: async (...args) => {
        const response = await fetch(...args);
        await response.arrayBuffer();
        return new Response(shape, { headers: response.headers });
      },
    });
    await fetched.generateToken();
    await fetched.generateToken();
    assert.equal(journal.length, requests, shape.slice(0, 40));
  }
});

test('token in memory is served without a pause', async (t) => {
  const { url } = await route(t);
  const { generateToken } = sources(t, createVeltTokens)({ url, userId: 'ada' });
  await generateToken();
  let isPaused = true;
  setTimeout(() => (isPaused = false));
  await generateToken();
  assert.equal(isPaused, true);
});

test('fetch is looked up at each call', async (t) => {
  const tokens = sources(t, createVeltTokens)({});
  t.mock.method(globalThis, 'fetch', async function () {
    assert.equal(this, undefined);
    return Response.json({ token: 'late' });
  });
  assert.equal(await tokens.generateToken(), 'late');
});

test('closed source gives no token', async (t) => {
  const { url, journal } = await route(t, () => new Promise(() => {}));
  const tokens = createVeltTokens({ url });
  const waiting = errorOf(tokens.generateToken());
  await until(() => journal.length);
  tokens.close();
  tokens.close();
  assert.equal((await waiting).code, 'aborted');
  assert.equal((await errorOf(tokens.generateToken())).code, 'aborted');
  await until(() => journal[0].gone);
});
