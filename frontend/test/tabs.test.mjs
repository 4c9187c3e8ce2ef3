// Several tabs: one asks, all hear, and no tab takes what belongs to another user.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVeltTokens } from '../dist/index.js';
import { HOUR, Locks, errorOf, gate, jwt, route, secondsIn, sleep, sources, until, withGlobal, withWindow } from './support.mjs';

/** Tabs of one browser, each a source of its own. */
function browser(t, url, { locks = true } = {}) {
  withGlobal(t, 'navigator', locks ? { locks: new Locks() } : {});
  const open = sources(t, createVeltTokens);
  return (userId, more = {}) => open({ url, userId, ...more });
}

for (const locks of [true, false]) {
  const where = locks ? 'with locks' : 'without locks';

  test(`tab that opens later has the token of the first, ${where}`, async (t) => {
    const { url, journal } = await route(t);
    const tab = browser(t, url, { locks });
    const first = tab('ada');
    assert.equal(await first.generateToken(), 'token-1');
    for (let more = 0; more < 3; more++) assert.equal(await tab('ada').generateToken(), 'token-1');
    assert.equal(journal.length, 1);
  });

  test(`sign-out in one tab reaches all tabs of the user, ${where}`, async (t) => {
    const { url, journal } = await route(t);
    const tab = browser(t, url, { locks });
    const [one, two] = [tab('ada'), tab('ada')];
    const heard = [];
    one.onSignedOut(() => heard.push('one'));
    two.onSignedOut(() => heard.push('two'));
    await one.generateToken();
    await two.generateToken();
    one.signedOut();
    one.signedOut();
    await until(() => heard.length === 2, 'both listeners');
    await sleep(20);
    assert.deepEqual(heard.sort(), ['one', 'two']);
    assert.equal(await two.generateToken(), 'token-2');
    assert.equal(journal.length, 2);
  });

  test(`token of another user is never taken, ${where}`, async (t) => {
    const { url, journal } = await route(t, (n, { userId }) => [200, { token: `${userId}-${n}` }]);
    const tab = browser(t, url, { locks });
    assert.equal(await tab('ada').generateToken(), 'ada-1');
    assert.equal(await tab('ada', { organizationId: 'other' }).generateToken(), 'ada-2');
    assert.equal(await tab('grace').generateToken(), 'grace-3');
    assert.equal(journal.length, 3);
  });
}

test('tabs that ask at once send one request', async (t) => {
  const held = gate();
  const { url, journal } = await route(t, (n) => held.opened.then(() => [200, { token: `token-${n}` }]));
  const tab = browser(t, url);
  const all = ['ada', 'ada', 'ada', 'ada'].map((user) => tab(user).generateToken());
  await until(() => journal.length);
  await sleep(50);
  held.open();
  assert.deepEqual(await Promise.all(all), Array(4).fill('token-1'));
  assert.equal(journal.length, 1);
});

test('failure of one tab frees the lock for the next at once', async (t) => {
  const { url, journal } = await route(t, (n) =>
    n === 1 ? [403, { error: '', code: 'no_grants' }] : [200, { token: 'later' }],
  );
  const tab = browser(t, url);
  const began = Date.now();
  const [one, two] = await Promise.allSettled([tab('ada').generateToken(), tab('ada').generateToken()]);
  assert.equal(one.reason.code, 'no_grants');
  assert.equal(two.value, 'later');
  assert.equal(journal.length, 2);
  assert.ok(Date.now() - began < 2000);
});

test('tab that hangs with the lock blocks the others half their patience', async (t) => {
  const { url } = await route(t);
  const tab = browser(t, url);
  const hanging = tab('ada', { fetch: () => new Promise(() => {}), patience: 60_000 });
  const stuck = errorOf(hanging.generateToken());
  await sleep(50);
  const began = Date.now();
  assert.equal(await tab('ada', { patience: 400 }).generateToken(), 'token-1');
  const took = Date.now() - began;
  assert.ok(took >= 190 && took <= 400, `${took} ms`);
  hanging.close();
  await stuck;
});

test('lock is free again when the request ends, also in a fetch that ignores its signal', async (t) => {
  const { url } = await route(t);
  const tab = browser(t, url);
  const deaf = tab('ada', { fetch: () => new Promise(() => {}), patience: 50 });
  assert.equal((await errorOf(deaf.generateToken())).code, 'timeout');
  const began = Date.now();
  await tab('ada').generateToken();
  assert.ok(Date.now() - began < 1000);
});

test('tab that has its token waits for the lock no more', async (t) => {
  const { url } = await route(t);
  let waiting;
  const request = (_, { signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), (waiting = signal)));
  withGlobal(t, 'navigator', { locks: { request } });
  const tokens = sources(t, createVeltTokens)({ url, userId: 'ada' });
  const asked = tokens.generateToken();
  await until(() => waiting, 'the request for the lock');
  tokens.observe(new Response('', { headers: { 'X-Velt-Token': 'observed' } }));
  assert.equal(await asked, 'observed');
  await until(() => waiting.aborted, 'the end of the wait');
});

test('page that is left gives the lock back, and waits for it no more', async (t) => {
  const { url } = await route(t);
  const tab = browser(t, url);
  const hang = { fetch: () => new Promise(() => {}), patience: 60_000 };
  const left = [];
  for (let page = 0; page < 2; page++) {
    left.push(withWindow(t));
    errorOf(tab('ada', hang).generateToken());
    await sleep(50);
  }
  withWindow(t);
  const began = Date.now();
  const asked = tab('ada', { patience: 60_000 }).generateToken();
  // A browser may keep both pages for its back button, frozen.
  for (const page of left.reverse()) page.fire('pagehide', { persisted: true });
  assert.equal(await asked, 'token-1');
  assert.ok(Date.now() - began < 2000);
});

test('locks that refuse are done without', async (t) => {
  const { url } = await route(t);
  withGlobal(t, 'navigator', { locks: { request: async () => { throw new DOMException('no', 'SecurityError'); } } });
  const tokens = sources(t, createVeltTokens)({ url, userId: 'ada' });
  assert.equal(await tokens.generateToken(), 'token-1');
});

test('pages without a user, or with tabs = false, share nothing', async (t) => {
  const { url, journal } = await route(t);
  const tab = browser(t, url);
  await tab('ada').generateToken();
  assert.equal(await tab(undefined).generateToken(), 'token-2');
  assert.equal(await tab(undefined).generateToken(), 'token-3');
  assert.equal(await tab('ada', { tabs: false }).generateToken(), 'token-4');
  assert.equal(journal.length, 4);
});

test('observed token is shared', async (t) => {
  const { url, journal } = await route(t);
  const tab = browser(t, url);
  const [one, two] = [tab('ada'), tab('ada')];
  await two.generateToken();
  one.observe(new Response('', { headers: { 'X-Velt-Token': jwt({ exp: secondsIn(47 * HOUR), is: 'newer' }) } }));
  await sleep(20);
  two.signedOut();
  assert.equal(journal.length, 1);
});

test('tab of another user learns that a new user has signed in', async (t) => {
  const { url } = await route(t);
  const tab = browser(t, url);
  const ada = tab('ada');
  let heard = 0;
  ada.onSignedOut(() => heard++);
  await ada.generateToken();
  await tab('grace').generateToken();
  await until(() => heard === 1, 'the listener');
});

test('sign-out while a request runs gives its token to no caller', async (t) => {
  const held = gate();
  const { url, journal } = await route(t, () => held.opened.then(() => [200, { token: 'of-ada' }]));
  const tab = browser(t, url);
  const [one, two] = [tab('ada'), tab('ada')];
  const waiting = errorOf(one.generateToken());
  await until(() => journal.length);
  two.signedOut();
  assert.equal((await waiting).code, 'signed_out');
  await until(() => journal[0].gone, 'the end of the request');
  held.open();
});

test('late token of another tab is not taken after the sign-out', async (t) => {
  const { url, journal } = await route(t);
  const tab = browser(t, url);
  const one = tab('ada');
  await one.generateToken();
  one.signedOut();
  const name = 'velt' + JSON.stringify([url, 'ada', null]);
  const late = new BroadcastChannel(name);
  t.after(() => late.close());
  late.postMessage({ user: 'ada', token: 'late', until: Date.now() + HOUR });
  await sleep(30);
  assert.equal(await one.generateToken(), 'token-2');
  assert.equal(journal.length, 2);
});

test('messages of other shapes harm no tab', async (t) => {
  const { url, journal } = await route(t);
  const tab = browser(t, url);
  const one = tab('ada');
  let heard = 0;
  one.onSignedOut(() => heard++);
  await one.generateToken();
  const channel = new BroadcastChannel('velt' + JSON.stringify([url, 'ada', null]));
  t.after(() => channel.close());
  const far = Date.now() + HOUR;
  for (const message of [
    null,
    7,
    'text',
    [],
    {},
    { user: 'ada' },
    { user: 'ada', token: 7, until: far * 2 },
    { user: 'ada', token: '', until: far * 2 },
    { user: 'ada', token: ['x'], until: far * 2 },
    { user: 'ada', token: 'short', until: Date.now() + 1000 },
    { user: 'ada', token: 'never', until: NaN },
    { user: 'ada', token: jwt({ userId: 'grace' }), until: far * 2 },
  ]) {
    channel.postMessage(message);
  }
  await sleep(30);
  assert.equal(await one.generateToken(), 'token-1');
  assert.equal(heard, 0);
  assert.equal(journal.length, 1);
});

test('each listener runs by itself, so that one that throws keeps no other from hearing', async (t) => {
  const { url } = await route(t);
  const tokens = sources(t, createVeltTokens)({ url });
  const queued = [];
  const heard = [];
  const end = tokens.onSignedOut(() => heard.push('ended'));
  tokens.onSignedOut(() => {
    throw new Error('of the app');
  });
  tokens.onSignedOut(() => heard.push('other'));
  end();
  await tokens.generateToken();
  t.mock.method(globalThis, 'queueMicrotask', (run) => queued.push(run));
  tokens.signedOut();
  assert.deepEqual(heard, []);
  const [throwing, other] = queued;
  assert.throws(throwing, /of the app/);
  other();
  assert.deepEqual(heard, ['other']);
  assert.equal(queued.length, 2);
});

test('session that ended is told once, and only if there was one', async (t) => {
  let isIn = false;
  const { url } = await route(t, () => (isIn ? [200, { token: 'x' }] : [401, { error: '', code: 'no_identity' }]));
  const tokens = sources(t, createVeltTokens)({ url });
  let heard = 0;
  tokens.onSignedOut(() => heard++);
  assert.equal((await errorOf(tokens.generateToken())).code, 'signed_out');
  await sleep(5);
  assert.equal(heard, 0);
  isIn = true;
  await tokens.generateToken();
  tokens.signedOut();
  isIn = false;
  await errorOf(tokens.generateToken());
  await sleep(5);
  assert.equal(heard, 1);
});
