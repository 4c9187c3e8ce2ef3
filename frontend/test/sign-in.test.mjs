// Way 2: signing in and out in order, with Velt's client as its types describe it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenError, createVeltTokens, signIn, signOut } from '../dist/index.js';
import { errorOf, gate, route, sleep, until } from './support.mjs';

const ada = { userId: 'ada', organizationId: 'acme' };
const grace = { userId: 'grace', organizationId: 'acme' };

/** Velt's client. `judge` says what Velt answers to a user and a token; it may throw. */
function velt({ judge = (user) => user, modern = true } = {}) {
  const journal = [];
  const listeners = new Set();
  const client = {
    journal,
    fail: (event) => [...listeners].forEach((listener) => listener(event)),
    listeners,
    async identify(user, options) {
      journal.push(`identify ${user.userId} ${options?.authToken}`);
      assert.equal(options?.throwError, true);
      return judge(user, options?.authToken);
    },
    async signOutUser() {
      await sleep(5);
      journal.push('out');
    },
    on(event) {
      assert.equal(event, 'error');
      return {
        subscribe(listener) {
          listeners.add(listener);
          return { unsubscribe: () => listeners.delete(listener) };
        },
      };
    },
  };
  if (modern) {
    client.setVeltAuthProvider = async (provider) => {
      client.provider = provider;
      const token = await provider.generateToken();
      journal.push(`provider ${provider.user.userId} ${token}`);
      return judge(provider.user, token, provider);
    };
  }
  return client;
}

for (const modern of [true, false]) {
  const way = modern ? 'provider' : 'identify';

  test(`user is signed in and out by ${way}`, async (t) => {
    const { url, journal } = await route(t);
    const client = velt({ modern });
    const session = await signIn(client, ada, { url });
    assert.equal(session.user, ada);
    assert.equal(await session.tokens.generateToken(), 'token-1');
    let heard = 0;
    session.tokens.onSignedOut(() => heard++);
    await session.signOut();
    await session.signOut();
    assert.deepEqual(client.journal, [`${way} ada token-1`, 'out']);
    assert.equal(heard, 1);
    assert.equal(client.listeners.size, 0);
    assert.equal(journal.length, 1);
    assert.equal((await errorOf(session.tokens.generateToken())).code, 'aborted');
  });

  test(`equal users join one sign-in by ${way}`, async (t) => {
    const { url } = await route(t);
    const client = velt({ modern });
    const [one, two] = await Promise.all([signIn(client, ada, { url }), signIn(client, { ...ada }, { url })]);
    assert.equal(one, two);
    assert.equal(await signIn(client, { ...ada }, { url }), one);
    assert.deepEqual(client.journal, [`${way} ada token-1`]);
    await one.signOut();
  });

  test(`earlier user is signed out first by ${way}`, async (t) => {
    const { url } = await route(t);
    const client = velt({ modern });
    await signIn(client, ada, { url });
    const session = await signIn(client, grace, { url });
    assert.deepEqual(client.journal, [`${way} ada token-1`, 'out', `${way} grace token-2`]);
    await session.signOut();
  });

  test(`last of several sign-ins in a row counts by ${way}`, async (t) => {
    const { url } = await route(t);
    const client = velt({ modern });
    const results = await Promise.allSettled(
      [ada, grace, ada, { userId: 'linus' }].map((user) => signIn(client, user, { url })),
    );
    assert.deepEqual(
      results.map(({ reason, value }) => reason?.code ?? value.user.userId),
      ['superseded', 'superseded', 'superseded', 'linus'],
    );
    assert.deepEqual(client.journal.filter((line) => line !== 'out').length, 1);
    assert.ok(client.journal.at(-1).startsWith(`${way} linus`));
    await results[3].value.signOut();
  });

  test(`user who signs in while Velt works on another waits for both by ${way}`, async (t) => {
    const { url } = await route(t);
    const held = gate();
    const client = velt({ modern, judge: (user) => (user === ada ? held.opened.then(() => user) : user) });
    const first = errorOf(signIn(client, ada, { url }));
    await until(() => client.journal.length);
    const second = signIn(client, grace, { url });
    assert.equal((await first).code, 'superseded');
    await sleep(20);
    assert.deepEqual(client.journal, [`${way} ada token-1`]);
    held.open();
    await (await second).signOut();
    assert.deepEqual(client.journal, [`${way} ada token-1`, 'out', `${way} grace token-2`, 'out']);
  });

  test(`token that Velt refuses is replaced once by ${way}`, async (t) => {
    const { url, journal } = await route(t);
    const judge = (user, token, provider) => {
      if (token !== 'token-1') return user;
      const error = new Error('Invalid user token');
      provider?.onError(error);
      throw error;
    };
    const client = velt({ modern, judge });
    const errors = [];
    const session = await signIn(client, ada, { url, onError: (error) => errors.push(error.message) });
    assert.deepEqual(client.journal, [`${way} ada token-1`, `${way} ada token-2`]);
    assert.equal(journal.length, 2);
    assert.equal(journal[1].body.refused.length, 64);
    await session.signOut();
  });

  test(`two refused tokens end the sign-in by ${way}, and it can be tried again`, async (t) => {
    const { url, journal } = await route(t);
    const client = velt({ modern, judge: () => null });
    const error = await errorOf(signIn(client, ada, { url }));
    assert.ok(error instanceof TokenError);
    assert.equal(error.code, 'refused');
    assert.deepEqual(client.journal, [`${way} ada token-1`, `${way} ada token-2`]);
    client.journal.length = 0;
    await errorOf(signIn(client, ada, { url }));
    assert.ok(client.journal.length > 0);
    assert.ok(journal.length <= 4);
  });

  test(`user is never signed in without a token by ${way}`, async (t) => {
    const { url } = await route(t, () => [401, { error: 'Sign in.', code: 'no_identity' }]);
    const client = velt({ modern });
    const errors = [];
    const error = await errorOf(signIn(client, ada, { url, onError: (error) => errors.push(error) }));
    assert.deepEqual([error.code, error.sidecarCode], ['signed_out', 'no_identity']);
    assert.deepEqual(client.journal, []);
    assert.deepEqual(errors, [error]);
  });

  test(`Velt that cannot be reached is no refusal by ${way}`, async (t) => {
    const { url, journal } = await route(t);
    const down = new TypeError('Failed to fetch');
    const client = velt({ modern, judge: () => Promise.reject(down) });
    assert.equal(await errorOf(signIn(client, ada, { url })), down);
    assert.equal(journal.length, 1);
  });

  test(`sign-out in another tab signs this page out of Velt, with ${way}`, async (t) => {
    const { url } = await route(t);
    const [one, two] = [velt({ modern }), velt({ modern })];
    await signIn(one, ada, { url });
    const session = await signIn(two, ada, { url });
    await session.signOut();
    await until(() => one.journal.includes('out'), 'the sign-out of the other tab');
    const again = await signIn(one, ada, { url });
    assert.deepEqual(one.journal, [`${way} ada token-1`, 'out', `${way} ada token-2`]);
    await again.signOut();
  });

  test(`sign-out that Velt fails goes to onError, with ${way}`, async (t) => {
    const { url } = await route(t);
    const client = velt({ modern });
    client.signOutUser = () => {
      throw new Error('boom');
    };
    const errors = [];
    const session = await signIn(client, ada, { url, onError: (error) => errors.push(error.message) });
    await session.signOut();
    assert.deepEqual(errors, ['boom']);
  });
}

test('expired token is reported, and the user is identified again, once for a burst', async (t) => {
  const { url, journal } = await route(t);
  const client = velt({ modern: false });
  const session = await signIn(client, ada, { url });
  client.fail({ code: 'too_many_retries' });
  client.fail(null);
  for (let event = 0; event < 5; event++) client.fail({ code: 'token_expired' });
  await until(() => client.journal.length === 2, 'the second identify');
  await sleep(20);
  assert.deepEqual(client.journal, ['identify ada token-1', 'identify ada token-2']);
  assert.equal(journal[1].body.refused.length, 64);
  client.fail({ code: 'token_expired' });
  await until(() => client.journal.length === 3, 'the third identify');
  await session.signOut();
  client.fail({ code: 'token_expired' });
  await sleep(20);
  assert.equal(client.journal.length, 4);
});

test('failure to identify again goes to onError', async (t) => {
  const { url } = await route(t, (n) => (n < 2 ? [200, { token: 'one' }] : [403, { error: '', code: 'no_grants' }]));
  const client = velt({ modern: false });
  const errors = [];
  const session = await signIn(client, ada, { url, tabs: false, onError: (error) => errors.push(error.code) });
  client.fail({ code: 'token_expired' });
  await until(() => errors.length, 'the error');
  assert.deepEqual(errors, ['no_grants']);
  assert.deepEqual(client.journal, ['identify ada one']);
  await session.signOut();
});

test('Velt that renews by the provider has each renewed token', async (t) => {
  const { url } = await route(t);
  const client = velt();
  const session = await signIn(client, ada, { url, tabs: false });
  session.tokens.refused('token-1');
  assert.equal(await client.provider.generateToken(), 'token-2');
  await session.signOut();
  assert.ok((await errorOf(client.provider.generateToken())) instanceof TokenError);
});

test('sign-out by the client alone ends the session of signIn, in all tabs', async (t) => {
  const { url } = await route(t);
  const [here, there] = [velt(), velt()];
  await signIn(here, ada, { url });
  // Another tab of the same user: its tokens are of their own, and hear by the channel.
  const other = createVeltTokens({ ...ada, url });
  let heard = 0;
  other.onSignedOut(() => heard++);
  await other.generateToken();
  await signOut(here);
  await until(() => heard === 1, 'the other tab');
  assert.deepEqual(here.journal, ['provider ada token-1', 'out']);
  await signOut(there);
  assert.deepEqual(there.journal, ['out']);
  other.close();
});
