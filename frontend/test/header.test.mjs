// The header's way: tokens come along with responses that the app fetches anyway.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVeltTokens } from '../dist/index.js';
import { HOUR, errorOf, gate, jwt, route, secondsIn, sleep, sources, until } from './support.mjs';

const withToken = (token, headers = {}) => new Response('{}', { headers: { 'X-Velt-Token': token, ...headers } });
const withStatus = (status) => new Response('{}', { headers: { 'X-Velt-Token-Status': status } });

test('observed token is served without a request, and the response stays as it is', async (t) => {
  const { url, journal } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  const response = withToken('observed');
  assert.equal(tokens.observe(response), response);
  assert.equal(response.bodyUsed, false);
  assert.equal(await tokens.generateToken(), 'observed');
  assert.equal(journal.length, 0);
});

test('fetch observes, for text, URL and Request alike', async (t) => {
  const { url, journal } = await route(t, (n) => [200, { n }, { 'X-Velt-Token': `header-${n}` }]);
  const tokens = sources(t, createVeltTokens)({ url });
  const { fetch: observing } = tokens;
  for (const [index, input] of [url, new URL(url), new Request(url)].entries()) {
    const response = await observing(input);
    assert.deepEqual(await response.json(), { n: index + 1 });
    assert.equal(await tokens.generateToken(), `header-${index + 1}`);
  }
  assert.equal(journal.length, 3);
  assert.ok((await errorOf(observing('http://127.0.0.1:1/'))) instanceof TypeError);
});

test('newest observed token wins', async (t) => {
  const tokens = sources(t, createVeltTokens)({});
  tokens.observe(withToken('first'));
  tokens.observe(withToken('second'));
  assert.equal(await tokens.generateToken(), 'second');
});

test('names of the headers are settings', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url, tokenHeader: 'X-Mine' });
  tokens.observe(withToken('other'));
  tokens.observe(new Response('', { headers: { 'x-mine': 'mine' } }));
  assert.equal(await tokens.generateToken(), 'mine');
});

test('response without a token falls back to the route', async (t) => {
  for (const response of [withStatus('anonymous'), withStatus('unavailable'), new Response(''), withToken('')]) {
    const { url, journal } = await route(t);
    const tokens = sources(t, createVeltTokens)({ url });
    tokens.observe(response);
    await sleep(20);
    assert.equal(journal.length, 0);
    assert.equal(await tokens.generateToken(), 'token-1');
  }
});

test('status pending asks the route before Velt does', async (t) => {
  const { url, journal } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.observe(withStatus('pending'));
  tokens.observe(withStatus('pending'));
  await until(() => journal.length);
  assert.equal(await tokens.generateToken(), 'token-1');
  tokens.observe(withStatus('pending'));
  await sleep(20);
  assert.equal(journal.length, 1);
});

test('status pending that leads to an error is silent', async (t) => {
  const { url, journal } = await route(t, () => [401, { error: '', code: 'no_identity' }]);
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.observe(withStatus('pending'));
  await until(() => journal.length);
  await sleep(20);
});

test('observed token ends the wait for the route', async (t) => {
  const { url, journal } = await route(t, () => new Promise(() => {}));
  const tokens = sources(t, createVeltTokens)({ url });
  const waiting = tokens.generateToken();
  await until(() => journal.length);
  tokens.observe(withToken('observed'));
  assert.equal(await waiting, 'observed');
  await until(() => journal[0].gone, 'the end of the request');
});

test('observed token with under five minutes left is not served', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.observe(withToken(jwt({ exp: secondsIn(4 * 60_000) })));
  assert.equal(await tokens.generateToken(), 'token-1');
});

test('clock of the server decides over an observed token', async (t) => {
  const { url } = await route(t);
  const server = Date.now() - 10 * HOUR;
  const token = jwt({ exp: Math.round((server + 60_000) / 1000) });
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.observe(withToken(token, { Date: new Date(server).toUTCString() }));
  assert.equal(await tokens.generateToken(), 'token-1');
});

test('token that names another user is not taken', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url, userId: 'adä', tabs: false });
  const mine = jwt({ userId: 'adä', exp: secondsIn(HOUR) });
  tokens.observe(withToken(mine));
  tokens.observe(withToken(jwt({ userId: 'grace', exp: secondsIn(HOUR) })));
  assert.equal(await tokens.generateToken(), mine);
});

test('response of another origin is not believed', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  const response = Object.defineProperty(withToken('planted'), 'type', { value: 'cors' });
  assert.equal(tokens.observe(response), response);
  assert.equal(await tokens.generateToken(), 'token-1');
});

test('odd responses pass through unharmed', async (t) => {
  const tokens = sources(t, createVeltTokens)({});
  for (const odd of [undefined, null, 7, 'text', {}, { url: 'not a url', headers: new Headers() }, { headers: {} }]) {
    assert.equal(tokens.observe(odd), odd);
  }
});

test('responses that arrive after the sign-out count for no user', async (t) => {
  const held = gate();
  const { url } = await route(t, async (_, __, { method }) => {
    if (method === 'GET') await held.opened;
    return [200, { token: 'asked' }, { 'X-Velt-Token': 'late' }];
  });
  const tokens = sources(t, createVeltTokens)({ url });
  const late = tokens.fetch(url);
  tokens.observe(withToken('ada'));
  tokens.signedOut();
  held.open();
  await late;
  tokens.observe(withToken('grace'));
  assert.equal(await tokens.generateToken(), 'asked');
  tokens.observe(withToken('grace'));
  assert.equal(await tokens.generateToken(), 'asked');
});

test('token in the page is served first', async (t) => {
  const { url, journal } = await route(t);
  assert.equal(await sources(t, createVeltTokens)({ url, initial: 'embedded' }).generateToken(), 'embedded');
  assert.equal(journal.length, 0);
  const old = jwt({ exp: secondsIn(60_000) });
  assert.equal(await sources(t, createVeltTokens)({ url, initial: old }).generateToken(), 'token-1');
});

test('token in Server-Timing is taken once, by the first user of the document', async (t) => {
  const { url } = await route(t);
  const entries = t.mock.method(performance, 'getEntriesByType', () => [
    { serverTiming: [{ name: 'db' }, { name: 'velt-token', description: 'timed' }] },
  ]);
  assert.equal(await sources(t, createVeltTokens)({ url, initial: null }).generateToken(), 'token-1');
  const fresh = await import(`../dist/index.js?document=${Math.random()}`);
  assert.equal(await sources(t, fresh.createVeltTokens)({ url, initial: null }).generateToken(), 'token-2');
  assert.equal(await sources(t, fresh.createVeltTokens)({ url }).generateToken(), 'timed');
  assert.equal(await sources(t, fresh.createVeltTokens)({ url }).generateToken(), 'token-3');
  assert.deepEqual(entries.mock.calls[0].arguments, ['navigation']);
});
