// @ts-check
// Stand-in for Velt's browser SDK, served where the loaders of @veltdev/react and @veltdev/client fetch the SDK
// (<proxyDomain>/lib/sdk@VERSION/velt.js). The stand-in signs users in and out and nothing else: there are no
// comments, no presence, no documents. The emulator that has served this file checks each token.
//
// Checked as in the real SDK: the token's user and organization must be those of the page's user. What the real
// SDK does beyond its documentation is unknown, and is not imitated. `data-velt-...` attributes of the element in
// the corner are for tests.

/** @typedef {{userId: string, organizationId: string, name?: string, email?: string}} User */
/**
 * @typedef {object} AuthProvider
 * @property {User} user
 * @property {() => Promise<string>} [generateToken]
 * @property {{retryCount?: number, retryDelay?: number}} [retryConfig]
 * @property {(error: unknown) => void} [onError]
 */
/**
 * @typedef {object} Claims
 * @property {string} userId
 * @property {number} jti number of the token among those of this emulator
 * @property {string} [organizationId]
 * @property {{type: string, id: string}[]} [resources]
 */
/** @typedef {(event: {code: string, message: string, userId: string, timestamp: number}) => void} Listener */

const VERIFY = new URL('../../emulator/verify', import.meta.url);
/** Longest delay of setTimeout; a browser fires a longer one at once. */
const LONGEST_DELAY = 2 ** 31 - 1;
const ELEMENT = 'velt-emulator';

class Client {
  /** Number of the last sign-in or sign-out; an answer that belongs to an earlier one is dropped. */
  #turn = 0;
  #signIns = 0;
  /** @type {Set<Listener>} */ #errorListeners = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #expiry;

  /** @param {string} apiKey */
  async init(apiKey) {
    if (!apiKey) throw new Error('Velt.init needs an API key');
    // A page may call this again, as React does for a second VeltProvider, while a user is signed in.
    if (!document.getElementById(ELEMENT)) show('signed-out', 'Signed out of Velt (emulator)');
    return this;
  }

  /** @param {AuthProvider} provider @returns {Promise<User | null>} */
  async setVeltAuthProvider(provider) {
    const turn = this.#begin(`Velt (emulator) asks for a token of ${provider.user.userId}`);
    try {
      const token = await askForToken(provider, () => turn === this.#turn);
      return await this.#signIn(turn, provider.user, token, () => {
        this.setVeltAuthProvider(provider);
      });
    } catch (error) {
      this.#refuse(turn, error);
      provider.onError?.(error);
      return null;
    }
  }

  /** @param {User} user @param {{authToken?: string, throwError?: boolean}} [options] */
  async identify(user, { authToken = '', throwError = false } = {}) {
    const turn = this.#begin(`Velt (emulator) checks a token of ${user.userId}`);
    try {
      return await this.#signIn(turn, user, authToken, () => {
        const event = { code: 'token_expired', message: 'The token expired.', userId: user.userId };
        for (const listener of this.#errorListeners) listener({ ...event, timestamp: Date.now() });
      });
    } catch (error) {
      this.#refuse(turn, error);
      if (throwError) throw error;
      return null;
    }
  }

  async signOutUser() {
    this.#begin('');
    show('signed-out', 'Signed out of Velt (emulator)');
  }

  /** @param {string} name */
  on(name) {
    // The stand-in has no other event, so a subscription to another one stays silent.
    if (name !== 'error') console.warn(`The stand-in for Velt's SDK never fires "${name}".`);
    return {
      subscribe: (/** @type {Listener} */ listener) => {
        if (name === 'error') this.#errorListeners.add(listener);
        return { unsubscribe: () => this.#errorListeners.delete(listener) };
      },
    };
  }

  // Documents are Velt's; the stand-in takes their names and forgets them.
  async setDocument() {}
  setDocumentId() {}

  /** @param {string} doing */
  #begin(doing) {
    clearTimeout(this.#expiry);
    if (doing) show('asking', doing);
    return ++this.#turn;
  }

  /** @param {number} turn @param {User} user @param {unknown} token @param {() => void} onExpiry */
  async #signIn(turn, user, token, onExpiry) {
    if (typeof token !== 'string' || token === '') throw new Error('no token was given to Velt');
    const { claims, remainingSeconds } = await verify(token);
    compare(user, claims);
    if (turn !== this.#turn) return null;
    const delay = remainingSeconds * 1000;
    if (delay <= LONGEST_DELAY) this.#expiry = setTimeout(onExpiry, delay);
    this.#signIns += 1;
    const { userId, organizationId } = user;
    const text = `Signed in to Velt (emulator) as ${userId}, organization ${organizationId}`;
    show('signed-in', text, { userId, organizationId, token: claims.jti, signIns: this.#signIns });
    return user;
  }

  /** @param {number} turn @param {unknown} error */
  #refuse(turn, error) {
    if (turn !== this.#turn) return;
    const reason = error instanceof Error ? error.message : String(error);
    show('refused', `Not signed in to Velt (emulator): ${reason}`);
  }
}

/** @param {AuthProvider} provider @param {() => boolean} isWanted */
async function askForToken({ generateToken, retryConfig }, isWanted) {
  if (!generateToken) throw new Error('the auth provider has no generateToken');
  for (let left = retryConfig?.retryCount ?? 0; ; left -= 1) {
    try {
      return await generateToken();
    } catch (error) {
      if (left <= 0 || !isWanted()) throw error;
      await new Promise((resolve) => { setTimeout(resolve, retryConfig?.retryDelay ?? 0); });
    }
  }
}

/** @param {string} token @returns {Promise<{claims: Claims, remainingSeconds: number}>} */
async function verify(token) {
  const response = await fetch(VERIFY, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token }),
  });
  const answer = await response.json();
  if (response.ok) return answer;
  throw new Error(answer.error?.message ?? `the emulator answered HTTP ${response.status}`);
}

/** @param {User} user @param {Claims} claims */
function compare(user, { userId, organizationId, resources }) {
  if (user.userId !== userId) {
    throw new Error(`the token is for the user ${userId}, and the page's user is ${user.userId}`);
  }
  if (!user.organizationId) throw new Error('user.organizationId is missing');
  // A token of the API "legacy" names no organization.
  const organizations = resources
    ? resources.filter(({ type }) => type === 'organization').map(({ id }) => id)
    : [organizationId ?? user.organizationId];
  if (organizations.includes(user.organizationId)) return;
  const named = organizations.join(', ') || 'none';
  throw new Error(`the token is for the organization ${named}, not for ${user.organizationId}`);
}

/**
 * @param {'signed-out' | 'asking' | 'signed-in' | 'refused'} state
 * @param {string} text
 * @param {{userId?: string, organizationId?: string, token?: number, signIns?: number}} [details]
 */
function show(state, text, { userId = '', organizationId = '', token = 0, signIns } = {}) {
  const element = document.getElementById(ELEMENT) ?? newElement();
  element.textContent = text;
  const { dataset } = element;
  dataset.veltState = state;
  dataset.veltUser = userId;
  dataset.veltOrganization = organizationId;
  dataset.veltToken = token ? String(token) : '';
  if (signIns) dataset.veltSignIns = String(signIns);
}

function newElement() {
  const element = document.createElement('div');
  element.id = ELEMENT;
  element.dataset.testid = ELEMENT;
  element.setAttribute('role', 'status');
  // Through the CSSOM, which a Content-Security-Policy without 'unsafe-inline' allows.
  Object.assign(element.style, {
    position: 'fixed', right: '12px', bottom: '12px', zIndex: '2147483647', maxWidth: '80vw',
    padding: '8px 12px', borderRadius: '8px', font: '14px/1.4 system-ui, sans-serif',
    background: '#1d2433', color: '#fff', boxShadow: '0 2px 8px rgb(0 0 0 / 40%)',
  });
  document.body.append(element);
  return element;
}

Object.assign(window, { Velt: new Client() });
