// @ts-check
// One delivery on the page: the token, what is in it, how long it lives, and whether Velt accepts it.

/** @typedef {import('./velt-stand-in.js').Progress} Progress */

const SHOWN_START = 18;
const SHOWN_END = 12;

/** @param {string} testId @param {ParentNode} [within] @returns {HTMLElement} */
export function byTestId(testId, within = document) {
  const element = within.querySelector(`[data-testid="${testId}"]`);
  if (!(element instanceof HTMLElement)) throw new Error(`the page has no element "${testId}"`);
  return element;
}

/**
 * Reads the claims without checking the signature: only Velt can do that.
 * @param {string} token
 */
export function readClaims(token) {
  const payload = token.split('.')[1];
  if (!payload) throw new Error('not a JWT: it has no payload part');
  const base64 = payload.replace(/-/g, '+').replace(/_/g, '/');
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {HTMLElement} button @param {() => string} readText */
export function copyOnClick(button, readText) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    button.textContent = await copy(readText());
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

/** @param {string} text */
async function copy(text) {
  // The clipboard exists on https and on localhost only.
  if (!navigator.clipboard) return 'Needs HTTPS or localhost';
  return navigator.clipboard.writeText(text).then(
    () => 'Copied',
    (error) => `Not copied: ${messageOf(error)}`,
  );
}

/** @param {'route' | 'header'} delivery */
export function createTokenPanel(delivery) {
  const tokenElement = byTestId(`${delivery}-token`);
  const claimsElement = byTestId(`${delivery}-claims`);
  const remainingElement = byTestId(`${delivery}-remaining`);
  const verdictElement = byTestId(`${delivery}-verdict`);
  const reasonElement = byTestId(`${delivery}-reason`);
  const copyButton = /** @type {HTMLButtonElement} */ (byTestId(`${delivery}-copy`));
  /** @type {number | null} */
  let expiresAt = null;
  let timesAccepted = 0;
  let isWithVelt = false;

  copyOnClick(copyButton, () => tokenElement.dataset.token ?? '');
  setInterval(showRemaining, 1000);

  return { begin, show, fail, showNoUser, token: () => tokenElement.dataset.token ?? '' };

  function begin() {
    timesAccepted = 0;
    isWithVelt = false;
    setToken('');
    setReason('');
    setVerdict('waiting', 'Asking for a token');
  }

  /** @param {Progress} progress */
  function show(progress) {
    if (progress.kind === 'asking') showAsking(progress);
    if (progress.kind === 'checking') showToken(progress.token);
    if (progress.kind === 'accepted') showAccepted(progress.user.userId);
  }

  /** @param {unknown} error @param {number} [pause] Milliseconds until the page asks again. */
  function fail(error, pause) {
    if (isWithVelt) return setVerdict('refused', `Velt refuses: ${messageOf(error)}`);
    setToken('');
    setReason(messageOf(error));
    const more = pause === undefined ? '' : `; asking again in ${Math.ceil(pause / 1000)} s`;
    setVerdict('refused', `Not signed in to Velt${more}`);
  }

  /** No user is logged in, so no token is the expected result. @param {unknown} reason */
  function showNoUser(reason) {
    setReason(messageOf(reason));
    setVerdict('no-user', 'No user to sign in to Velt');
  }

  /** @param {{attempt: number, attempts: number, problem: string}} progress */
  function showAsking({ attempt, attempts, problem }) {
    isWithVelt = false;
    setReason(problem);
    setVerdict('waiting', `Asking for a token, attempt ${attempt} of ${attempts}`);
  }

  /** @param {string} token */
  function showToken(token) {
    isWithVelt = true;
    setReason('');
    setToken(token);
    setVerdict('waiting', 'Velt checks the token');
  }

  /** @param {string} userId */
  function showAccepted(userId) {
    isWithVelt = false;
    timesAccepted += 1;
    const renewals = timesAccepted > 1 ? ` (renewed ${timesAccepted - 1}\u00d7)` : '';
    setVerdict('accepted', `Velt accepts: signed in as ${userId}${renewals}`);
  }

  /** @param {string} token */
  function setToken(token) {
    tokenElement.dataset.token = token;
    tokenElement.textContent = token ? shorten(token) : 'no token';
    copyButton.disabled = !token;
    setClaims(token);
  }

  /** @param {string} token */
  function setClaims(token) {
    expiresAt = null;
    claimsElement.textContent = token ? '' : '\u2013';
    if (token) {
      try {
        const claims = readClaims(token);
        claimsElement.textContent = JSON.stringify(claims, null, 2);
        expiresAt = typeof claims.exp === 'number' ? claims.exp * 1000 : null;
      } catch (error) {
        claimsElement.textContent = `The claims can\u2019t be read: ${messageOf(error)}`;
      }
    }
    showRemaining();
  }

  function showRemaining() {
    remainingElement.textContent = expiresAt === null ? '\u2013' : describeRemaining(expiresAt - Date.now());
  }

  /** @param {string} reason */
  function setReason(reason) {
    reasonElement.textContent = reason;
    reasonElement.hidden = !reason;
  }

  /** @param {'waiting' | 'accepted' | 'refused' | 'no-user'} verdict @param {string} text */
  function setVerdict(verdict, text) {
    verdictElement.dataset.verdict = verdict;
    verdictElement.textContent = text;
  }
}

/** @param {string} token */
function shorten(token) {
  if (token.length <= SHOWN_START + SHOWN_END) return token;
  return `${token.slice(0, SHOWN_START)}\u2026${token.slice(-SHOWN_END)}`;
}

/** @param {number} milliseconds */
function describeRemaining(milliseconds) {
  if (milliseconds <= 0) return 'expired';
  const seconds = Math.floor(milliseconds / 1000);
  const twoDigits = (/** @type {number} */ number) => String(number).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  return `${hours} h ${twoDigits(Math.floor(seconds / 60) % 60)} min ${twoDigits(seconds % 60)} s`;
}
