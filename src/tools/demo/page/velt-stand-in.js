// @ts-check
// Stands in for Velt's browser client, which needs a Velt account and Velt's network. It has the
// calls that the package uses, with their real names, and has every token checked by the emulator.
// `watch`, `whenSignedOut` and `expireNow` do not exist in the real client: the demo page looks inside with them.

/** @typedef {{userId: string, name?: string, email?: string, organizationId?: string}} User */
/** @typedef {{retryCount?: number, retryDelay?: number}} RetryConfig */
/**
 * @typedef {object} AuthProvider
 * @property {User} user
 * @property {() => Promise<string>} generateToken
 * @property {RetryConfig} [retryConfig]
 * @property {(error: unknown) => void} [onError]
 */
/** @typedef {{code: string, message: string, userId: string, timestamp: number}} ErrorEvent */
/**
 * @typedef {{kind: 'asking', attempt: number, attempts: number, problem: string}
 *   | {kind: 'checking', token: string}
 *   | {kind: 'accepted', user: User}} Progress
 */

const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

/**
 * @param {string} apiKey
 * @param {{emulatorUrl: string}} config
 */
export async function initVelt(apiKey, { emulatorUrl }) {
  if (!apiKey) throw new Error('initVelt needs an API key');
  return new StandInClient(emulatorUrl);
}

export class StandInClient {
  #emulatorUrl;
  /** @type {User | null} */ #user = null;
  /** @type {AuthProvider | null} */ #provider = null;
  /** @type {Set<(event: ErrorEvent) => void>} */ #errorListeners = new Set();
  /** @type {Set<(progress: Progress) => void>} */ #watchers = new Set();
  /** @type {Set<() => void>} */ #signOutListeners = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #expiryTimer;

  /** @param {string} emulatorUrl */
  constructor(emulatorUrl) {
    this.#emulatorUrl = emulatorUrl;
  }

  /** @param {AuthProvider} provider @returns {Promise<User | null>} */
  async setVeltAuthProvider(provider) {
    this.#provider = provider;
    try {
      const token = await this.#askForToken(provider);
      return await this.#signIn(provider.user, token);
    } catch (error) {
      provider.onError?.(error);
      return null;
    }
  }

  /** @param {User} user @param {{authToken?: string, throwError?: boolean}} [options] */
  async identify(user, { authToken = '', throwError = false } = {}) {
    this.#provider = null;
    try {
      return await this.#signIn(user, authToken);
    } catch (error) {
      if (throwError) throw error;
      return null;
    }
  }

  signOutUser() {
    clearTimeout(this.#expiryTimer);
    this.#user = null;
    this.#provider = null;
    this.#errorListeners.clear();
    this.#signOutListeners.forEach((listener) => listener());
    this.#signOutListeners.clear();
  }

  /** @param {'error'} eventName */
  on(eventName) {
    if (eventName !== 'error') throw new Error(`the stand-in has no event "${eventName}"`);
    return {
      subscribe: (/** @type {(event: ErrorEvent) => void} */ listener) => {
        this.#errorListeners.add(listener);
        return { unsubscribe: () => this.#errorListeners.delete(listener) };
      },
    };
  }

  /** @param {(progress: Progress) => void} watcher */
  watch(watcher) {
    this.#watchers.add(watcher);
  }

  /** @param {() => void} listener */
  whenSignedOut(listener) {
    this.#signOutListeners.add(listener);
  }

  expireNow() {
    clearTimeout(this.#expiryTimer);
    if (this.#provider) this.setVeltAuthProvider(this.#provider);
    else if (this.#user) this.#emitExpiry(this.#user);
  }

  /** @param {AuthProvider} provider */
  async #askForToken({ generateToken, retryConfig }) {
    const attempts = 1 + (retryConfig?.retryCount ?? 0);
    this.#report({ kind: 'asking', attempt: 1, attempts, problem: '' });
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await generateToken();
      } catch (error) {
        if (attempt === attempts) throw error;
        const problem = error instanceof Error ? error.message : String(error);
        this.#report({ kind: 'asking', attempt: attempt + 1, attempts, problem });
        await pause(retryConfig?.retryDelay ?? 0);
        if (!this.#provider) throw new Error('signed out while asking for a token');
      }
    }
  }

  /** @param {User} user @param {string} token */
  async #signIn(user, token) {
    if (!token) throw new Error('no token was given to Velt');
    this.#report({ kind: 'checking', token });
    const { claims, remainingSeconds } = await verify(this.#emulatorUrl, token);
    if (claims.userId !== user.userId) {
      throw new Error(`the token is for ${claims.userId}, but the page says ${user.userId}`);
    }
    this.#user = user;
    this.#scheduleExpiry(remainingSeconds * 1000);
    this.#report({ kind: 'accepted', user });
    return user;
  }

  /** @param {number} delay */
  #scheduleExpiry(delay) {
    clearTimeout(this.#expiryTimer);
    // A browser fires a longer or undefined timeout at once.
    if (delay <= LONGEST_TIMEOUT_MS) this.#expiryTimer = setTimeout(() => this.expireNow(), delay);
  }

  /** @param {User} user */
  #emitExpiry({ userId }) {
    const message = 'The token expired.';
    const event = { code: 'token_expired', message, userId, timestamp: Date.now() };
    this.#errorListeners.forEach((listener) => listener(event));
  }

  /** @param {Progress} progress */
  #report(progress) {
    this.#watchers.forEach((watcher) => watcher(progress));
  }
}

/** @param {string} emulatorUrl @param {string} token */
async function verify(emulatorUrl, token) {
  const response = await fetch(`${emulatorUrl}/emulator/verify`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token }),
  }).catch((error) => {
    throw new Error(`the emulator at ${emulatorUrl} cannot be asked: ${error.message}`);
  });
  const answer = await response.json().catch(() => null);
  if (response.ok && answer?.valid) return answer;
  throw new Error(answer?.error?.message ?? `the emulator answered HTTP ${response.status}`);
}

/** @param {number} milliseconds */
function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
