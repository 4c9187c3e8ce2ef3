// @ts-check
// The experiments: what a visitor of the page can do to the sidecar, and what to expect.
import { countMints, describeMints, readBehaviour, requestJson, setBehaviour, withJson } from './requests.js';
import { byTestId, messageOf, readClaims } from './token-panel.js';

/** @typedef {import('./demo.js').DemoUser} DemoUser */
/** @typedef {import('./demo.js').Session} Session */

const BURST_SIZE = 20;

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

/** @param {(isDown: boolean) => void} tell */
export function setUpVeltDown(tell) {
  const result = byTestId('velt-down-result');
  const button = byTestId('velt-down');
  const show = (/** @type {string | null} */ failure) => {
    const isDown = failure !== null;
    button.dataset.down = String(isDown);
    button.textContent = isDown ? 'Bring Velt back' : 'Take Velt down';
    result.textContent = isDown ? `Velt answers every mint with \u201c${failure}\u201d.` : 'Velt mints tokens.';
  };
  onClickTry('velt-down', result, async () => {
    const behaviour = await readBehaviour();
    const failure = behaviour.failure ? null : 'unavailable';
    await setBehaviour({ ...behaviour, failure });
    show(failure);
    tell(failure !== null);
  });
  readBehaviour().then(
    (behaviour) => show(behaviour.failure ?? null),
    (error) => { result.textContent = `Failed: ${messageOf(error)}`; },
  );
}

/** @param {DemoUser[]} users @param {Session} session */
export function setUpForge(users, session) {
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

export function setUpBurst() {
  const result = byTestId('burst-result');
  onClickTry('burst', result, async () => {
    const mintsBefore = await countMints();
    const start = performance.now();
    const outcomes = await Promise.allSettled(Array.from({ length: BURST_SIZE }, () => askRoute()));
    const milliseconds = Math.round(performance.now() - start);
    const mintsAfter = await countMints();
    result.dataset.mints = String(mintsAfter - mintsBefore);
    result.textContent = `${describeBurst(outcomes)}, in ${milliseconds} ms. ${describeMints(mintsBefore, mintsAfter)}`;
  });
}

/** Asks without the package, which would send one request for all twenty. @returns {Promise<string>} */
async function askRoute() {
  return (await requestJson('/api/velt/token', { method: 'POST' })).token;
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
export function setUpExpire(session) {
  const result = byTestId('expire-result');
  onClickTry('expire', result, async () => {
    const clients = session.clients();
    clients.forEach((client) => client.expireNow());
    result.textContent = clients.length
      ? 'Both clients treated their token as expired and asked again: see the results above.'
      : 'No user is signed in.';
  });
}
