// Velt's authProvider: the same object for the same user, one mint, and what happens when Velt refuses a token.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenError, signOut, veltAuthProvider } from '../dist/index.js';
import { errorOf, route, sleep, until } from './support.mjs';

// Providers live as long as the page: their channels and renewals must not keep this process.
globalThis.BroadcastChannel = class extends BroadcastChannel {
  constructor(name) {
    super(name);
    this.unref();
  }
};
const { setTimeout: start } = globalThis;
globalThis.setTimeout = (run, wait, ...rest) => {
  const timer = start(run, wait, ...rest);
  return wait > 15_000 ? timer.unref() : timer;
};

// Providers are kept for the whole page, so each test has a route, and with it an address, of its own.
const ada = { userId: 'ada', organizationId: 'acme', name: 'Ada' };

test('equal users have the same provider, others have another', async (t) => {
  const { url } = await route(t);
  const provider = veltAuthProvider(ada, { url });
  assert.equal(veltAuthProvider({ ...ada }, { url, onError() {} }), provider);
  for (const other of [
    [{ ...ada, userId: 'grace' }, { url }],
    [{ ...ada, organizationId: 'other' }, { url }],
    [{ ...ada, name: 'Countess' }, { url }],
    [ada, { url: `${url}/other` }],
  ]) {
    assert.notEqual(veltAuthProvider(...other), provider);
  }
  assert.deepEqual(Object.keys(provider).sort(), ['generateToken', 'onError', 'retryConfig', 'user']);
  assert.equal(provider.user, ada);
  assert.deepEqual(provider.retryConfig, { retryCount: 3, retryDelay: 1000 });
});

test('rendering twice and again mints once', async (t) => {
  const { url, journal } = await route(t);
  const render = () => veltAuthProvider({ ...ada }, { url, onError: () => {} });
  const [, second] = [render(), render()];
  const token = await second.generateToken();
  render();
  assert.equal(await render().generateToken(), token);
  assert.equal(journal.length, 1);
  assert.deepEqual(journal[0].body, { userId: 'ada' });
  await signOut({ signOutUser() {} });
});

test('making a provider has no effect before Velt asks', async (t) => {
  const { url, journal } = await route(t);
  const opened = t.mock.method(globalThis, 'BroadcastChannel', function () {
    throw new Error('opened');
  });
  const timers = t.mock.method(globalThis, 'setTimeout');
  for (let user = 0; user < 300; user++) veltAuthProvider({ userId: `${user}` }, { url });
  assert.equal(opened.mock.callCount(), 0);
  assert.equal(timers.mock.callCount(), 0);
  assert.equal(journal.length, 0);
});

test('token that Velt refuses is reported once, at once, and the error is passed on', async (t) => {
  const { url, journal } = await route(t);
  const errors = [];
  const provider = veltAuthProvider(ada, { url, tabs: false, onError: () => errors.push('an old function') });
  veltAuthProvider(ada, { url, onError: (error) => errors.push(error) });
  assert.equal(await provider.generateToken(), 'token-1');
  const refusal = new Error('Invalid user token');
  provider.onError(refusal);
  provider.onError(refusal);
  await until(() => journal.length === 2, 'the report');
  assert.equal(journal[1].body.refused.length, 64);
  assert.equal(await provider.generateToken(), 'token-2');
  assert.deepEqual(errors, [refusal, refusal]);
  assert.equal(journal.length, 2);
});

test('error of the tokens is no refusal', async (t) => {
  const { url, journal } = await route(t, () => [403, { error: 'No.', code: 'no_grants' }]);
  const errors = [];
  const provider = veltAuthProvider(ada, { url, tabs: false, onError: (error) => errors.push(error) });
  const error = await errorOf(provider.generateToken());
  assert.ok(error instanceof TokenError);
  // Velt may wrap the error on its way.
  provider.onError(error);
  provider.onError(new Error('auth failed', { cause: error }));
  await sleep(20);
  assert.equal(journal.length, 1);
  assert.equal(errors.length, 2);
});

test('Velt that cannot be reached has refused nothing', async (t) => {
  const { url, journal } = await route(t);
  const provider = veltAuthProvider(ada, { url, tabs: false });
  await provider.generateToken();
  provider.onError(new TypeError('Failed to fetch'));
  await sleep(20);
  assert.equal(await provider.generateToken(), 'token-1');
  assert.equal(journal.length, 1);
});

test('sign-out forgets the token, and then signs out of Velt', async (t) => {
  const { url, journal } = await route(t);
  const errors = [];
  const provider = veltAuthProvider(ada, { url, onError: (error) => errors.push(error) });
  await provider.generateToken();
  const order = [];
  await signOut({
    async signOutUser() {
      await sleep(5);
      order.push('Velt');
    },
  });
  order.push('done');
  assert.deepEqual(order, ['Velt', 'done']);
  assert.deepEqual(errors.map(({ code }) => code), ['signed_out']);
  assert.equal(await provider.generateToken(), 'token-2');
  assert.equal(journal.length, 2);
  await signOut({ signOutUser() {} });
});

test('sign-out that Velt fails rejects with its error, and the token is forgotten', async (t) => {
  const { url } = await route(t);
  const provider = veltAuthProvider(ada, { url });
  await provider.generateToken();
  const boom = () => Promise.reject(new Error('boom'));
  assert.equal((await errorOf(signOut({ signOutUser: boom }))).message, 'boom');
  assert.equal(await provider.generateToken(), 'token-2');
  await signOut({ signOutUser() {} });
});
