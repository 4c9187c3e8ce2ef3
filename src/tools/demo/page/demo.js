// @ts-check
// The page's own logic: who is signed in, and both deliveries of the token.
import { createDelivery } from './deliveries.js';
import { setUpBurst, setUpExpire, setUpForge, setUpVeltDown } from './experiments.js';
import { createGuide } from './guide.js';
import { createEventPanel, createSocketPanel, pollFigures } from './live.js';
import { asError, countMints, describeMints, requestJson, withJson } from './requests.js';
import { byTestId, copyOnClick, messageOf } from './token-panel.js';

/** @typedef {{id: string, name: string, email: string}} DemoUser */
/** @typedef {{emulatorUrl: string, sidecarUrl: string, adminUrl: string, appUrl: string, apiKey: string, users: DemoUser[]}} Config */
/** @typedef {{userId: string | null, name?: string, email?: string, organizationId?: string}} Me */
/** @typedef {ReturnType<typeof createGuide>} Guide */

const RESULTS_ABOUT_USER = ['forge-result', 'burst-result', 'expire-result'];

main().catch((error) => {
  showProblem(error);
  document.body.dataset.state = 'failed';
});

async function main() {
  const source = byTestId('source');
  copyOnClick(byTestId('source-copy'), () => source.textContent ?? '');
  const guide = createGuide();
  pollFigures();
  /** @type {Config} */
  const config = await requestJson('/__velt-demo/config');
  showAddresses(config);
  const session = createSession(config, guide);
  addUserButtons(config.users, session);
  byTestId('refresh').addEventListener('click', () => session.signInAgain());
  setUpVeltDown((isDown) => guide.note({ kind: 'velt', isDown }));
  setUpForge(config.users, session);
  setUpBurst();
  setUpExpire(session);
  await session.signInAgain();
}

// ---- Session

/** @typedef {ReturnType<typeof createSession>} Session */
/** @param {Config} config @param {Guide} guide */
function createSession(config, guide) {
  const route = createDelivery('route', config.apiKey, showComparison);
  const header = createDelivery('header', config.apiKey, showComparison);
  const deliveries = [route, header];
  const socketPanel = createSocketPanel();
  const eventPanel = createEventPanel();
  /** @type {Me} */
  let me = { userId: null };
  let currentRun = 0;
  /** @type {Promise<unknown>} */
  let lastLogin = Promise.resolve();

  return {
    switchUser,
    signInAgain: () => run(() => lastLogin),
    currentUserId: () => me.userId,
    clients: () => deliveries.flatMap(({ client }) => client() ?? []),
  };

  /** @param {string | null} userId */
  function switchUser(userId) {
    for (const testId of RESULTS_ABOUT_USER) byTestId(testId).replaceChildren();
    guide.note({ kind: 'user', id: userId });
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
    deliveries.forEach(({ begin }) => begin());
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
    deliveries.forEach(({ panel }) => panel.fail(error));
    showComparison();
  }

  /** Logins go out one after the other, so that the last click wins. @param {string | null} userId */
  function changeLogin(userId) {
    const send = () => requestJson('/__velt-demo/login', withJson('POST', { user: userId ?? '' }));
    const login = lastLogin.then(send);
    lastLogin = login.catch(() => undefined);
    return login;
  }

  /** @param {() => boolean} isCurrent */
  async function signIn(isCurrent) {
    const mintsBefore = await countMints().catch(asError);
    const found = await requestJson('/api/me');
    if (!isCurrent()) return;
    me = found;
    showCurrentUser(me);
    socketPanel.connect();
    eventPanel.connect();
    await Promise.all(deliveries.map(({ deliver, answerWithoutUser }) => {
      return isUser(me) ? deliver(me, isCurrent) : answerWithoutUser(isCurrent);
    }));
    const mintsAfter = await countMints().catch(asError);
    if (!isCurrent()) return;
    showComparison();
    byTestId('sign-in-mints').textContent = describeMints(mintsBefore, mintsAfter);
  }

  function showComparison() {
    const routeToken = route.panel.token();
    const headerToken = header.panel.token();
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
  byTestId('address-app').textContent = new URL(config.appUrl).host;
}

/** @param {unknown} error */
function showProblem(error) {
  const element = byTestId('page-problem');
  element.hidden = error === null;
  element.textContent = error === null ? '' : messageOf(error);
}
