// @ts-check
// The page's own logic: who is logged in, both deliveries of the token, and the experiments.
import { createEventPanel, createSocketPanel, pollFigures } from './live.js';
import { byTestId, copyOnClick, createTokenPanel, messageOf, readClaims } from './token-panel.js';
import { initVelt } from './velt-stand-in.js';
import { fetchToken, signInByHeader, signInByRoute, tokenFromHeader } from './velt.js';

/** @typedef {{id: string, name: string, email: string}} DemoUser */
/** @typedef {{emulatorUrl: string, sidecarUrl: string, adminUrl: string, apiKey: string, users: DemoUser[]}} Config */
/** @typedef {{userId: string | null, name?: string, email?: string, organizationId?: string}} Me */
/** @typedef {ReturnType<typeof createTokenPanel>} TokenPanel */

const BURST_SIZE = 20;
const RESULTS_ABOUT_USER = ['forge-result', 'burst-result', 'expire-result'];

/** @type {Record<string, string>} */
const STATUS_MEANINGS = {
  anonymous: 'no user is logged in',
  pending: 'the token is still being minted, the next answer will carry it',
  refused: 'Velt refused to mint a token',
  unavailable: 'Velt does not answer, or answers with an error',
  timeout: 'Velt did not answer in time',
  'rate-limited': 'Velt wants fewer requests',
  malformed: 'Velt answered with something that is no token',
};

main().catch((error) => {
  showProblem(error);
  document.body.dataset.state = 'failed';
});

async function main() {
  showSource();
  pollFigures();
  /** @type {Config} */
  const config = await requestJson('/__velt-demo/config');
  showAddresses(config);
  const emulator = connectEmulator(config.emulatorUrl);
  const session = createSession(config, emulator);
  addUserButtons(config.users, session);
  byTestId('refresh').addEventListener('click', () => session.signInAgain());
  setUpVeltDown(emulator);
  setUpForge(config.users, session);
  setUpBurst(emulator);
  setUpExpire(session);
  await session.signInAgain();
}

// ---- Requests

/** @param {string} url @param {RequestInit} [init] */
async function requestJson(url, init) {
  const response = await fetch(url, { cache: 'no-store', ...init }).catch((error) => {
    throw new Error(`${url} cannot be reached: ${messageOf(error)}`);
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answered HTTP ${response.status}: ${text}`);
  return text ? JSON.parse(text) : null;
}

/** @param {string} method @param {unknown} body @returns {RequestInit} */
function withJson(method, body) {
  return { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

/** @typedef {ReturnType<typeof connectEmulator>} Emulator */
/** @param {string} emulatorUrl */
function connectEmulator(emulatorUrl) {
  const behaviourUrl = `${emulatorUrl}/emulator/behaviour`;
  return {
    countMints: async () => (await requestJson(`${emulatorUrl}/emulator/journal`)).mints,
    readBehaviour: () => requestJson(behaviourUrl),
    /** @param {unknown} behaviour */
    setBehaviour: (behaviour) => requestJson(behaviourUrl, withJson('PUT', behaviour)),
  };
}

// ---- Session

/** @typedef {ReturnType<typeof createSession>} Session */
/** @param {Config} config @param {Emulator} emulator */
function createSession(config, emulator) {
  const routePanel = createTokenPanel('route');
  const headerPanel = createTokenPanel('header');
  const socketPanel = createSocketPanel();
  const eventPanel = createEventPanel();
  /** @type {Awaited<ReturnType<typeof initVelt>>[]} */
  let clients = [];
  /** @type {Me} */
  let me = { userId: null };
  let currentRun = 0;
  /** @type {Promise<unknown>} */
  let lastLogin = Promise.resolve();

  return {
    switchUser,
    signInAgain: () => run(() => lastLogin),
    currentUserId: () => me.userId,
    clients: () => clients,
  };

  /** @param {string | null} userId */
  function switchUser(userId) {
    for (const testId of RESULTS_ABOUT_USER) byTestId(testId).replaceChildren();
    return run(() => changeLogin(userId));
  }

  /**
   * A later run takes the page over: results of an earlier run are not shown any more.
   * @param {() => Promise<unknown>} prepare
   */
  async function run(prepare) {
    currentRun += 1;
    const thisRun = currentRun;
    const isCurrent = () => thisRun === currentRun;
    document.body.dataset.state = 'loading';
    showProblem(null);
    clients.forEach((client) => client.signOutUser());
    clients = [];
    routePanel.begin();
    headerPanel.begin();
    showComparison();
    byTestId('same-token').textContent = 'Waiting for both tokens.';
    byTestId('sign-in-mints').textContent = '';
    try {
      await prepare();
      if (isCurrent()) await signIn(isCurrent);
    } catch (error) {
      if (isCurrent()) showFailure(error);
    }
    if (isCurrent()) document.body.dataset.state = 'ready';
  }

  /** @param {unknown} error */
  function showFailure(error) {
    showProblem(error);
    byTestId('current-user').textContent = 'unknown';
    routePanel.fail(error);
    headerPanel.fail(error);
    showComparison();
  }

  /** Logins go out one after the other, so that the last click wins. @param {string | null} userId */
  function changeLogin(userId) {
    const send = () => userId
      ? requestJson('/__velt-demo/login', withJson('POST', { user: userId }))
      : requestJson('/__velt-demo/logout', { method: 'POST' });
    const login = lastLogin.then(send);
    lastLogin = login.catch(() => undefined);
    return login;
  }

  /** @param {() => boolean} isCurrent */
  async function signIn(isCurrent) {
    const mintsBefore = await emulator.countMints().catch(asError);
    const found = await requestJson('/api/me');
    if (!isCurrent()) return;
    me = found;
    showCurrentUser(me);
    socketPanel.connect();
    eventPanel.connect();
    await Promise.all([deliverByRoute(isCurrent), deliverByHeader(isCurrent)]);
    const mintsAfter = await emulator.countMints().catch(asError);
    if (!isCurrent()) return;
    showComparison();
    showSignInMints(mintsBefore, mintsAfter);
  }

  /** @param {() => boolean} isCurrent */
  async function deliverByRoute(isCurrent) {
    const fail = (/** @type {unknown} */ error) => { if (isCurrent()) routePanel.fail(error); };
    if (!isUser(me)) return showAnswerWithoutUser(routePanel, fetchToken, isCurrent);
    await signInByRoute(await openClient(routePanel, isCurrent), me, fail);
  }

  /** @param {() => boolean} isCurrent */
  async function deliverByHeader(isCurrent) {
    const fail = (/** @type {unknown} */ error) => { if (isCurrent()) headerPanel.fail(explainStatus(error)); };
    if (!isUser(me)) return showAnswerWithoutUser(headerPanel, fetchHeaderToken, isCurrent);
    await signInByHeader(await openClient(headerPanel, isCurrent), me, fail);
  }

  /** @param {TokenPanel} panel @param {() => boolean} isCurrent */
  async function openClient(panel, isCurrent) {
    const client = await initVelt(config.apiKey, config);
    client.watch((progress) => {
      if (!isCurrent()) return;
      panel.show(progress);
      showComparison();
    });
    if (isCurrent()) clients.push(client);
    return client;
  }

  function showComparison() {
    const routeToken = routePanel.token();
    const headerToken = headerPanel.token();
    const element = byTestId('same-token');
    const isComparable = routeToken !== '' && headerToken !== '';
    const isSame = isComparable && routeToken === headerToken;
    element.dataset.same = isComparable ? (isSame ? 'yes' : 'no') : 'none';
    element.textContent = !isComparable ? 'Nothing to compare: there are not two tokens.'
      : isSame ? 'Same token: both ways gave the very same string.'
        : 'Different tokens: the two ways gave different strings.';
  }
}

/** @param {Me} me @returns {me is import('./velt-stand-in.js').User} */
function isUser(me) {
  return Boolean(me.userId);
}

/**
 * Shows what the sidecar answers without a logged-in user, although there is no user to sign in to Velt.
 * @param {TokenPanel} panel @param {() => Promise<string>} askForToken @param {() => boolean} isCurrent
 */
async function showAnswerWithoutUser(panel, askForToken, isCurrent) {
  const answer = await askForToken().catch(asError);
  if (!isCurrent()) return;
  if (answer instanceof Error) return panel.showNoUser(explainStatus(answer));
  panel.show({ kind: 'checking', token: answer });
  panel.fail(new Error('a token came although no user is logged in'));
}

async function fetchHeaderToken() {
  return tokenFromHeader(await fetch('/api/me', { cache: 'no-store' }));
}

/** @param {unknown} error */
function explainStatus(error) {
  const status = error instanceof Error && typeof error.cause === 'string' ? error.cause : '';
  const meaning = STATUS_MEANINGS[status];
  return meaning ? new Error(`X-Velt-Token-Status: ${status} \u2013 ${meaning}`) : error;
}

/** @param {unknown} error */
function asError(error) {
  return error instanceof Error ? error : new Error(String(error));
}

/** @param {number | Error} before @param {number | Error} after */
function showSignInMints(before, after) {
  byTestId('sign-in-mints').textContent = describeMints(before, after);
}

/** @param {number | Error} before @param {number | Error} after */
function describeMints(before, after) {
  if (before instanceof Error) return `Velt\u2019s journal is unknown: ${before.message}`;
  if (after instanceof Error) return `Velt\u2019s journal is unknown: ${after.message}`;
  const mints = after - before;
  return mints === 1 ? 'Velt minted 1 token for this.' : `Velt minted ${mints || 'no'} tokens for this.`;
}

// ---- Head of the page

/** @param {DemoUser[]} users @param {Session} session */
function addUserButtons(users, session) {
  const noneButton = byTestId('user-none');
  noneButton.addEventListener('click', () => session.switchUser(null));
  for (const user of users) {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.testid = `user-${user.id}`;
    button.dataset.user = user.id;
    button.title = user.email;
    button.textContent = user.name;
    button.addEventListener('click', () => session.switchUser(user.id));
    noneButton.before(button);
  }
}

/** @param {Me} me */
function showCurrentUser(me) {
  const element = byTestId('current-user');
  element.dataset.user = me.userId ?? '';
  element.textContent = me.userId ? `${me.name} (${me.userId})` : 'no user';
  for (const button of byTestId('users').querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.user === (me.userId ?? '')));
  }
}

/** @param {Config} config */
function showAddresses(config) {
  byTestId('address-proxy').textContent = location.host;
  byTestId('address-sidecar').textContent = new URL(config.sidecarUrl).host;
  byTestId('address-emulator').textContent = new URL(config.emulatorUrl).host;
  byTestId('address-admin').textContent = new URL(config.adminUrl).host;
}

/** @param {unknown} error */
function showProblem(error) {
  const element = byTestId('page-problem');
  element.hidden = error === null;
  element.textContent = error === null ? '' : messageOf(error);
}

async function showSource() {
  const element = byTestId('source');
  copyOnClick(byTestId('source-copy'), () => element.textContent ?? '');
  try {
    const response = await fetch('/assets/velt.js');
    if (!response.ok) throw new Error(`/assets/velt.js answered HTTP ${response.status}`);
    element.textContent = await response.text();
  } catch (error) {
    element.textContent = messageOf(error);
  }
}

// ---- Experiments

/**
 * Runs an experiment on each click, and shows its failure where its result would be.
 * @param {string} testId @param {HTMLElement} result @param {() => Promise<void>} experiment
 */
function onClickTry(testId, result, experiment) {
  const button = /** @type {HTMLButtonElement} */ (byTestId(testId));
  button.addEventListener('click', async () => {
    // Not `disabled`, which would take the keyboard focus away.
    if (button.ariaBusy === 'true') return;
    button.ariaBusy = 'true';
    try {
      await experiment();
    } catch (error) {
      result.textContent = `Failed: ${messageOf(error)}`;
    }
    button.ariaBusy = 'false';
  });
}

/** @param {Emulator} emulator */
function setUpVeltDown(emulator) {
  const result = byTestId('velt-down-result');
  const showBehaviour = (/** @type {string | null} */ failure) => {
    byTestId('velt-down').setAttribute('aria-checked', String(failure !== null));
    result.textContent = failure === null ? 'Velt mints tokens. After a failure, the sidecar finds that out by itself within seconds.' : `Velt answers every mint with \u201c${failure}\u201d.`;
  };
  onClickTry('velt-down', result, async () => {
    const behaviour = await emulator.readBehaviour();
    const failure = behaviour.failure ? null : 'unavailable';
    await emulator.setBehaviour({ ...behaviour, failure });
    showBehaviour(failure);
  });
  emulator.readBehaviour().then(
    (behaviour) => showBehaviour(behaviour.failure ?? null),
    (error) => { result.textContent = `Failed: ${messageOf(error)}`; },
  );
}

/** @param {DemoUser[]} users @param {Session} session */
function setUpForge(users, session) {
  const result = byTestId('forge-result');
  onClickTry('forge', result, async () => {
    const ownId = session.currentUserId();
    // A forged header with the user's own id would prove nothing.
    const victim = ownId === 'grace' ? users.find(({ id }) => id !== ownId)?.id ?? 'ada' : 'grace';
    const forgedHeader = { method: 'POST', headers: { 'X-Forwarded-User': victim } };
    const forgedBody = withJson('POST', { userId: victim });
    result.replaceChildren(
      await tryForgery('header', `Header X-Forwarded-User: ${victim}`, forgedHeader, ownId),
      await tryForgery('body', `Body {"userId":"${victim}"}`, forgedBody, ownId),
    );
  });
}

/** @param {string} kind @param {string} title @param {RequestInit} init @param {string | null} ownId */
async function tryForgery(kind, title, init, ownId) {
  const response = await fetch('/api/velt/token', { cache: 'no-store', ...init });
  const answer = await response.json().catch(() => null);
  const tokenUser = response.ok ? readClaims(answer.token).userId : null;
  const outcome = !response.ok ? 'refused' : tokenUser === ownId ? 'own-token' : 'forged';
  const text = {
    refused: answer?.error ?? 'no explanation was given',
    'own-token': `a token for ${tokenUser}, as before: what was forged had no effect`,
    forged: `a token for ${tokenUser}: THE FORGERY WORKED`,
  }[outcome];

  const entry = document.createElement('p');
  entry.dataset.attempt = kind;
  entry.dataset.outcome = outcome;
  entry.dataset.status = String(response.status);
  const heading = document.createElement('strong');
  heading.textContent = title;
  entry.append(heading, ` \u2192 HTTP ${response.status}, ${text}`);
  return entry;
}

/** @param {Emulator} emulator */
function setUpBurst(emulator) {
  const result = byTestId('burst-result');
  onClickTry('burst', result, async () => {
    const mintsBefore = await emulator.countMints();
    const start = performance.now();
    const outcomes = await Promise.allSettled(Array.from({ length: BURST_SIZE }, () => fetchToken()));
    const milliseconds = Math.round(performance.now() - start);
    const mintsAfter = await emulator.countMints();
    result.dataset.mints = String(mintsAfter - mintsBefore);
    result.textContent = `${describeBurst(outcomes)}, in ${milliseconds} ms. ${describeMints(mintsBefore, mintsAfter)}`;
  });
}

/** @param {PromiseSettledResult<string>[]} outcomes */
function describeBurst(outcomes) {
  const tokens = outcomes.flatMap((outcome) => outcome.status === 'fulfilled' ? [outcome.value] : []);
  const errors = outcomes.flatMap((outcome) => outcome.status === 'rejected' ? [messageOf(outcome.reason)] : []);
  const different = new Set(tokens).size;
  const parts = [];
  if (tokens.length) parts.push(`${tokens.length} tokens, ${different === 1 ? 'all the same' : `${different} different`}`);
  if (errors.length) parts.push(`${errors.length} without a token (${[...new Set(errors)].join('; ')})`);
  return parts.join(', ');
}

/** @param {Session} session */
function setUpExpire(session) {
  const result = byTestId('expire-result');
  onClickTry('expire', result, async () => {
    const clients = session.clients();
    clients.forEach((client) => client.expireNow());
    result.textContent = clients.length
      ? 'Both clients took their token for expired and asked again: see the verdicts.'
      : 'No user is signed in.';
  });
}
