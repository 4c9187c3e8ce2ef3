// A token that Velt refused is reported by its fingerprint, and never in a loop.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { createVeltTokens } from '../dist/index.js';
import { errorOf, route, sources, withGlobal } from './support.mjs';

const sha256 = (text) => createHash('sha256').update(text).digest('hex');

test('refused token is reported and replaced', async (t) => {
  const { url, journal } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url, userId: 'ada', tabs: false });
  const first = await tokens.generateToken();
  tokens.refused(first);
  tokens.refused(first);
  assert.equal(await tokens.generateToken(), 'token-2');
  assert.equal(await tokens.generateToken(), 'token-2');
  assert.deepEqual(
    journal.map(({ body }) => body),
    [{ userId: 'ada' }, { userId: 'ada', refused: sha256(first) }],
  );
});

for (const [where, crypto] of [
  ['over HTTPS', globalThis.crypto],
  ['over plain HTTP', {}],
]) {
  test(`fingerprint is SHA-256 for every length of a token, ${where}`, async (t) => {
    withGlobal(t, 'crypto', crypto);
    let sent;
    const fetch = async (_, { body }) => {
      sent = JSON.parse(body).refused;
      return Response.json({ token: 'another' });
    };
    const lengths = Array.from({ length: 200 }, (_, length) => length + 1);
    for (const length of [...lengths, 60_000]) {
      const token = 'eyJ0eXAiOiJKV1QifQ.~!-_'.repeat(3000).slice(0, length);
      const tokens = sources(t, createVeltTokens)({ fetch });
      tokens.refused(token);
      await tokens.generateToken();
      assert.equal(sent, sha256(token), `${length}`);
    }
  });
}

test('page that cannot make a fingerprint asks without, and takes no token that was refused', async (t) => {
  withGlobal(t, 'crypto', { subtle: { digest: () => Promise.reject(new Error('no')) } });
  const { url, journal } = await route(t, () => [200, { token: 'bad' }]);
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.refused(await tokens.generateToken());
  assert.equal((await errorOf(tokens.generateToken())).code, 'refused');
  assert.deepEqual(journal[1].body, {});
});

test('refused token is not taken again from a header', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  const carrying = () => new Response('', { headers: { 'X-Velt-Token': 'bad' } });
  tokens.observe(carrying());
  tokens.refused(await tokens.generateToken());
  tokens.observe(carrying());
  assert.equal(await tokens.generateToken(), 'token-1');
});

test('route that was asked too soon says when to ask again', async (t) => {
  const { url, journal } = await route(t, (number) =>
    number === 1
      ? [200, { token: 'bad' }]
      : [429, { error: 'Renewed a moment ago.', code: 'renewed_recently' }, { 'Retry-After': '50' }],
  );
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.refused(await tokens.generateToken());
  const { code, retryable, retryAfter } = await errorOf(tokens.generateToken());
  assert.deepEqual({ code, retryable, retryAfter }, { code: 'renewed_recently', retryable: true, retryAfter: 50_000 });
  assert.equal(journal.length, 2);
  assert.equal((await errorOf(tokens.generateToken())).code, 'renewed_recently');
  assert.equal(journal[2].body.refused, sha256('bad'));
});

test('route that answers the refused token again is not believed', async (t) => {
  const { url, journal } = await route(t, () => [200, { token: 'bad' }]);
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.refused(await tokens.generateToken());
  for (let call = 0; call < 3; call++) {
    const { code, retryable } = await errorOf(tokens.generateToken());
    assert.deepEqual({ code, retryable }, { code: 'refused', retryable: false });
  }
  assert.equal(journal.length, 4);
});

test('pod that has not heard of a refusal is told by the next request', async (t) => {
  // The first pod holds the refused token until it is reported there; the second holds another.
  const pods = { one: 'bad', two: 'good' };
  let pod = 'one';
  const { url, journal } = await route(t, (_, { refused }) => {
    if (refused === sha256(pods[pod])) pods[pod] = 'new';
    const soon = Math.round(Date.now() / 1000) + 60;
    return [200, { token: pods[pod], expiresAt: soon }];
  });
  const tokens = sources(t, createVeltTokens)({ url });
  tokens.refused(await tokens.generateToken());
  pod = 'two';
  assert.equal(await tokens.generateToken(), 'good');
  pod = 'one';
  assert.equal((await errorOf(tokens.generateToken())).code, 'refused');
  assert.equal(await tokens.generateToken(), 'new');
  assert.equal(journal.length, 4);
});

test('three refusals in a row end the reports, for five minutes', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  const { url, journal } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  for (let refusal = 1; refusal <= 3; refusal++) {
    tokens.refused(await tokens.generateToken());
    t.mock.timers.tick(61_000);
  }
  assert.equal((await errorOf(tokens.generateToken())).code, 'refused');
  assert.equal((await errorOf(tokens.generateToken())).code, 'refused');
  assert.equal(journal.length, 3);
  t.mock.timers.tick(300_000);
  assert.equal(await tokens.generateToken(), 'token-4');
  assert.equal(journal[3].body.refused, sha256('token-3'));
});

test('refusals with days between them are no row', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  for (let refusal = 1; refusal <= 5; refusal++) {
    assert.equal(await tokens.generateToken(), `token-${refusal}`);
    tokens.refused(`token-${refusal}`);
    t.mock.timers.tick(24 * 3_600_000);
  }
});

test('refusal of an older token leaves the held one', async (t) => {
  const { url, journal } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  await tokens.generateToken();
  tokens.refused('older');
  assert.equal(await tokens.generateToken(), 'token-1');
  assert.equal(journal.length, 1);
});

test('refused token never stands in a request', async (t) => {
  const bodies = [];
  const tokens = sources(t, createVeltTokens)({
    fetch: async (_, { body }) => {
      bodies.push(body);
      return Response.json({ token: 'good' });
    },
  });
  tokens.refused('very-secret-token');
  await tokens.generateToken();
  assert.ok(!bodies[0].includes('secret'));
});
