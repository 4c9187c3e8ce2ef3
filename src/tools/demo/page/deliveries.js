// @ts-check
// The two ways of a token to Velt, each by the package velt-sidecar, each with a client and a panel of its own.
import { asError, OWN_PATHS } from './requests.js';
import { createTokenPanel } from './token-panel.js';
import { createVeltTokens, signIn } from './velt-sidecar.js';
import { initVelt } from './velt-stand-in.js';

/** @typedef {import('./velt-stand-in.js').User} User */
/** @typedef {Awaited<ReturnType<typeof initVelt>>} Client */
/** @typedef {{code?: string, retryable?: boolean, retryAfter?: number}} TokenError */

/** Shorter than the package's ten seconds, so that the page says soon what is wrong. */
const PATIENCE_MS = 1500;
const PAUSE_MS = 2000;

/** Tabs do not share tokens here: each shows what its own requests brought. */
const OPTIONS = { patience: PATIENCE_MS, tabs: false, initial: null };

/** @type {Record<string, string>} */
const STATUS_MEANINGS = {
  anonymous: 'no user is signed in',
  pending: 'the token is still being minted, the next answer will carry it',
  refused: 'Velt refused to mint a token',
  unavailable: 'Velt does not answer, or answers with an error',
  timeout: 'Velt did not answer in time',
  'rate-limited': 'Velt\u2019s rate limit is reached',
  malformed: 'Velt answered with something that is no token',
};

/** Way 1: Velt asks the token route whenever it needs a token. @param {Client} client @param {User} user */
async function byRoute(client, user) {
  await signIn(client, user, OPTIONS);
}

/** Way 2: the token comes in a header of a response of the app's own API. @param {Client} client @param {User} user */
async function byHeader(client, user) {
  const tokens = createVeltTokens({ ...OPTIONS, userId: user.userId });
  const identify = async () => {
    const response = await tokens.fetch('/api/me', { cache: 'no-store' });
    const authToken = await tokens.generateToken().catch((error) => {
      throw explain(error, response.headers.get('X-Velt-Token-Status'));
    });
    await client.identify(user, { authToken, throwError: true });
  };
  client.whenSignedOut(() => tokens.close());
  await identify();
  client.on('error').subscribe(({ code }) => {
    if (code === 'token_expired') identify().catch(() => {});
  });
}

/** @param {Error} error @param {string | null} status */
function explain(error, status) {
  const meaning = status && STATUS_MEANINGS[status];
  const { retryable, retryAfter } = /** @type {TokenError} */ (error);
  return meaning
    ? Object.assign(new Error(`X-Velt-Token-Status: ${status} \u2013 ${meaning}`), { retryable, retryAfter })
    : error;
}

/** @param {'route' | 'header'} name @param {string} apiKey @param {() => void} changed */
export function createDelivery(name, apiKey, changed) {
  const panel = createTokenPanel(name);
  /** @type {Client | null} */
  let client = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  return { begin, deliver, answerWithoutUser, panel, client: () => client };

  /** Forgets the user of before. */
  function begin() {
    clearTimeout(timer);
    client?.signOutUser();
    client = null;
    panel.begin();
  }

  /** @param {User} user @param {() => boolean} isCurrent */
  async function deliver(user, isCurrent) {
    const own = await initVelt(apiKey, { emulatorUrl: OWN_PATHS });
    if (!isCurrent()) return;
    client = own;
    own.watch((progress) => {
      if (!isCurrent()) return;
      panel.show(progress);
      changed();
    });
    await attempt(own, user, isCurrent);
  }

  /**
   * Signs in, and again after an error that may pass: as long as the sidecar asks for.
   * @param {Client} own @param {User} user @param {() => boolean} isCurrent
   */
  async function attempt(own, user, isCurrent) {
    try {
      await (name === 'route' ? byRoute(own, user) : byHeader(own, user));
    } catch (error) {
      if (!isCurrent()) return;
      const { retryable, retryAfter } = /** @type {TokenError} */ (error);
      const pause = retryable ? retryAfter ?? PAUSE_MS : undefined;
      panel.fail(error, pause);
      if (pause !== undefined) timer = setTimeout(() => attempt(own, user, isCurrent), pause);
    }
    changed();
  }

  /** Shows what the sidecar answers where no user is signed in. @param {() => boolean} isCurrent */
  async function answerWithoutUser(isCurrent) {
    const answer = await (name === 'route' ? askRoute() : askHeader()).catch(asError);
    if (!isCurrent()) return;
    if (answer instanceof Error) return panel.showNoUser(answer);
    panel.show({ kind: 'checking', token: answer });
    panel.fail(new Error('a token came although no user is signed in'));
  }
}

function askRoute() {
  const tokens = createVeltTokens(OPTIONS);
  return tokens.generateToken().finally(() => tokens.close());
}

async function askHeader() {
  const { headers } = await fetch('/api/me', { cache: 'no-store' });
  const token = headers.get('X-Velt-Token');
  if (!token) throw explain(new Error('no header of the sidecar'), headers.get('X-Velt-Token-Status'));
  return token;
}
