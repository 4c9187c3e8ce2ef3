// Answers without a token: each becomes a TokenError that says whether to ask again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenError, createVeltTokens } from '../dist/index.js';
import { errorOf, gate, route, sources, until } from './support.mjs';

const SECRET = 'eyJhbGciOiJIUzI1NiJ9.secret.signature';

/** Asks and returns the error. What may be asked again is asked twice, 375 ms apart, if no Retry-After says more. */
async function errorFor(t, answer, options = {}) {
  t.mock.method(Math, 'random', () => 1);
  const { url, journal } = await route(t, () => answer);
  const error = await errorOf(sources(t, createVeltTokens)({ url, patience: 1000, ...options }).generateToken());
  assert.ok(error instanceof TokenError, `${error}`);
  assert.equal(error.name, 'TokenError');
  return { error, journal };
}

const said = (code) => ({ error: `About ${code}.`, code });

for (const [status, sent, code, retryable] of [
  [400, 'ambiguous_identity', 'ambiguous_identity', false],
  [400, 'bad_fingerprint', 'bad_fingerprint', false],
  [400, 'no_organization', 'no_organization', false],
  [401, 'no_identity', 'signed_out', false],
  [401, 'invalid_assertion', 'signed_out', false],
  [401, 'signed_out', 'signed_out', false],
  [403, 'user_mismatch', 'user_mismatch', false],
  [403, 'no_grants', 'no_grants', false],
  [403, 'cross_origin', 'cross_origin', false],
  [405, 'method_not_allowed', 'method_not_allowed', false],
  [408, 'slow_body', 'slow_body', true],
  [413, 'body_too_large', 'body_too_large', false],
  [429, 'renewed_recently', 'renewed_recently', true],
  [429, 'token_rate_limited', 'token_rate_limited', true],
  [500, 'internal_error', 'internal_error', true],
  [502, 'token_refused', 'token_refused', false],
  [502, 'token_malformed', 'token_malformed', false],
  [503, 'token_unavailable', 'token_unavailable', true],
  [503, 'a_code_of_tomorrow', 'a_code_of_tomorrow', true],
  [504, 'token_timeout', 'token_timeout', true],
]) {
  test(`${status} ${sent} becomes ${code}`, async (t) => {
    const headers = retryable ? { 'Retry-After': '60' } : {};
    const { error, journal } = await errorFor(t, [status, said(sent), headers]);
    assert.deepEqual(
      { code: error.code, status: error.status, retryable: error.retryable, sidecarCode: error.sidecarCode },
      { code, status, retryable, sidecarCode: sent },
    );
    assert.equal(error.message, `About ${sent}.`);
    assert.equal(error.retryAfter, retryable ? 60_000 : undefined);
    assert.equal(journal.length, 1);
  });
}

test('refusal with a Retry-After may be asked again', async (t) => {
  const { error } = await errorFor(t, [502, said('token_refused'), { 'Retry-After': '45' }]);
  assert.deepEqual([error.code, error.retryable, error.retryAfter], ['token_refused', true, 45_000]);
});

for (const [what, answer] of [
  ['login page', [200, '<!doctype html><title>Log in</title>']],
  ['login page with spaces before it', [200, '\n  <html>']],
  ['login page that calls itself JSON', [200, '<html>', { 'Content-Type': 'application/json' }]],
  ['redirect to a login page', [302, '', { Location: 'https://login.example/' }]],
  ['redirect within the site', [307, '', { Location: '/login' }]],
  ['401 with a page', [401, '<html>']],
]) {
  test(`${what} means signed out, and is asked once`, async (t) => {
    const { error, journal } = await errorFor(t, answer);
    assert.equal(error.code, 'signed_out');
    assert.equal(error.retryable, false);
    assert.equal(error.sidecarCode, undefined);
    assert.equal(journal.length, 1);
  });
}

test('redirect that the browser hides means signed out', async (t) => {
  const response = Object.defineProperty(new Response(null), 'type', { value: 'opaqueredirect' });
  Object.defineProperty(response, 'ok', { value: false });
  Object.defineProperty(response, 'status', { value: 0 });
  const tokens = sources(t, createVeltTokens)({ fetch: async () => response });
  assert.equal((await errorOf(tokens.generateToken())).code, 'signed_out');
});

test('login page after a redirect that a replaced fetch has followed means signed out', async (t) => {
  const { url } = await route(t, (_, __, { url }) =>
    url.endsWith('/login') ? [200, '<html>Log in</html>'] : [303, '', { Location: '/login' }],
  );
  const tokens = sources(t, createVeltTokens)({
    url,
    fetch: (input, init) => fetch(input, { ...init, redirect: 'follow' }),
  });
  assert.equal((await errorOf(tokens.generateToken())).code, 'signed_out');
});

for (const [what, content] of [
  ['broken JSON', `{"token":"${SECRET}"`],
  ['token as broken text', SECRET],
  ['nothing', ''],
  ['null', 'null'],
  ['a number', '7'],
  ['a list', `["${SECRET}"]`],
  ['an empty text', '""'],
  ['an object without a token', '{"value":"x"}'],
  ['a token of null', '{"token":null}'],
  ['a token that is a number', '{"token":7}'],
  ['an empty token', '{"token":""}'],
  ['a token in a list', `{"token":["${SECRET}"]}`],
  ['names of a prototype', '{"__proto__":{"token":7},"constructor":{"prototype":{"token":7}}}'],
  ['an error with status 200', '{"error":"x","code":"token_pending"}'],
]) {
  test(`200 with ${what} is a bad answer, and no error quotes it`, async (t) => {
    const { error } = await errorFor(t, [200, content, { 'Content-Type': 'application/json' }]);
    assert.deepEqual([error.code, error.status, error.retryable], ['bad_answer', 200, false]);
    assert.ok(!`${error.message} ${error.stack} ${error.cause}`.includes('secret'));
    assert.equal(Object.prototype.token, undefined);
  });
}

test('error page of another proxy is a bad answer that may pass', async (t) => {
  for (const [status, retryable] of [
    [404, false],
    [403, false],
    [500, true],
    [502, true],
    [503, true],
    [504, true],
  ]) {
    const { error } = await errorFor(t, [status, '<html>Bad Gateway</html>', { 'Retry-After': retryable ? '9' : '' }]);
    assert.deepEqual([error.code, error.status, error.retryable], ['bad_answer', status, retryable]);
  }
});

test('odd errors in JSON keep the status', async (t) => {
  for (const body of [null, [], 7, 'text', { code: 7 }, { code: '' }, { code: ['a'], error: {} }]) {
    const answer = [403, JSON.stringify(body), { 'Content-Type': 'application/json' }];
    const { error } = await errorFor(t, answer);
    assert.deepEqual([error.code, error.status, error.sidecarCode], ['bad_answer', 403, undefined]);
    assert.equal(typeof error.message, 'string');
  }
});

for (const after of ['99999999', '9'.repeat(400), 'Fri, 31 Dec 9999 23:59:59 GMT']) {
  test(`Retry-After ${after.slice(0, 12)} names a day at most`, async (t) => {
    const { error } = await errorFor(t, [503, said('token_unavailable'), { 'Retry-After': after }]);
    assert.equal(error.retryAfter, 86_400_000);
  });
}

test('Retry-After that names no time is no reason to hurry', async (t) => {
  for (const after of ['-5', 'soon', '', '0', 'NaN', '-Infinity', 'Thu, 01 Jan 1970 00:00:00 GMT']) {
    const { error, journal } = await errorFor(t, [503, said('token_unavailable'), { 'Retry-After': after }]);
    assert.equal(error.code, 'token_unavailable');
    assert.equal(journal.length, 2, after);
  }
});

test('cut-off answer is asked for again, and is a bad answer at last', async (t) => {
  const cut = (response) => {
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '500' });
    response.write(`{"token":"${SECRET}`);
    setTimeout(() => response.destroy(), 5);
  };
  const { url, journal } = await route(t, (number) => (number < 2 ? cut : [200, { token: 'whole' }]));
  const { generateToken } = sources(t, createVeltTokens)({ url });
  assert.equal(await generateToken(), 'whole');
  assert.equal(journal.length, 2);
  const { error } = await errorFor(t, cut);
  assert.deepEqual([error.code, error.retryable], ['bad_answer', true]);
  assert.ok(!`${error.message} ${error.stack} ${error.cause?.stack}`.includes('secret'));
});

test('endless answer ends with the patience', async (t) => {
  const drip = (response) => {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    const more = setInterval(() => response.write('x'.repeat(1000)), 5);
    response.on('close', () => clearInterval(more));
  };
  const { error, journal } = await errorFor(t, drip);
  assert.equal(error.code, 'timeout');
  await until(() => journal[0].gone, 'the end of the connection');
});

test('answer of ten megabytes is a bad answer', async (t) => {
  const huge = [200, `{"value":"${'x'.repeat(10_000_000)}"}`, { 'Content-Type': 'application/json' }];
  const { error } = await errorFor(t, huge, { patience: 10_000 });
  assert.equal(error.code, 'bad_answer');
});

test('server that is down is a network error that may pass', async (t) => {
  t.mock.method(Math, 'random', () => 1);
  const tokens = sources(t, createVeltTokens)({ url: 'http://127.0.0.1:1/', patience: 1000 });
  const error = await errorOf(tokens.generateToken());
  assert.deepEqual([error.code, error.status, error.retryable], ['network', undefined, true]);
  assert.ok(error.cause instanceof TypeError);
});

test('network that comes back in time is waited for', async (t) => {
  const { url } = await route(t);
  let calls = 0;
  const flaky = (...args) => (++calls < 3 ? Promise.reject(new TypeError('Failed to fetch')) : fetch(...args));
  assert.equal(await sources(t, createVeltTokens)({ url, fetch: flaky }).generateToken(), 'token-1');
});

test('replaced fetch of any behaviour leads to a TokenError', async (t) => {
  t.mock.method(Math, 'random', () => 1);
  for (const [what, fetch, code] of [
    ['throws', () => { throw new Error('boom'); }, 'network'],
    ['rejects with nothing', () => Promise.reject(), 'network'],
    ['answers undefined', async () => undefined, 'network'],
    ['answers a text', async () => 'text', 'bad_answer'],
    ['answers an object without headers', async () => ({ ok: true, status: 200 }), 'bad_answer'],
    ['answers a body that breaks', async () => ({ text: () => Promise.reject(new Error('x')) }), 'bad_answer'],
    ['answers data, as axios does', async () => ({ data: { token: 'x' }, status: 200 }), 'bad_answer'],
  ]) {
    const error = await errorOf(sources(t, createVeltTokens)({ fetch, patience: 1000 }).generateToken());
    assert.ok(error instanceof TokenError, what);
    assert.equal(error.code, code, what);
  }
});

test('failure is told to all callers, and the next call asks anew', async (t) => {
  const held = gate();
  const { url, journal } = await route(t, async (number) => {
    await held.opened;
    return number === 1 ? [401, said('no_identity')] : [200, { token: 'later' }];
  });
  const { generateToken } = sources(t, createVeltTokens)({ url });
  const errors = Promise.all([errorOf(generateToken()), errorOf(generateToken())]);
  held.open();
  assert.deepEqual((await errors).map(({ code }) => code), ['signed_out', 'signed_out']);
  assert.equal(await generateToken(), 'later');
  assert.equal(journal.length, 2);
});
