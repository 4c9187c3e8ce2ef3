// @ts-check
// The demo's own page about the reader's app: users, the route, outages, and what responses carried.

import { OWN_PATHS, readBehaviour, requestJson, setBehaviour, withJson } from './requests.js';
import { byTestId } from './token-panel.js';

const PAUSE_MS = 1000;
const ROUTE = '/api/velt/token';

/** Asks the demo at one of its own paths. @param {string} path @param {RequestInit} [init] */
const ask = (path, init) => requestJson(OWN_PATHS + path, init);

async function showUsers() {
  const [{ users }, { user }] = await Promise.all([ask('/config'), ask('/session')]);
  const buttons = [...users, { id: '', name: 'Sign out' }].map(({ id, name }) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.testid = `user-${id || 'none'}`;
    button.textContent = name;
    button.setAttribute('aria-pressed', String(id === (user ?? '')));
    button.addEventListener('click', async () => {
      await ask('/login', withJson('POST', { user: id }));
      await showUsers();
      await askRoute();
    });
    return button;
  });
  byTestId('users').replaceChildren(...buttons);
}

async function askRoute() {
  const result = byTestId('route');
  try {
    const response = await fetch(ROUTE, { method: 'POST', cache: 'no-store' });
    result.textContent = `HTTP ${response.status}: ${await response.text()}`;
  } catch (error) {
    result.textContent = String(error);
  }
}

/** @param {boolean} turn Whether to change the state first. */
async function showVelt(turn) {
  const button = byTestId('velt-down');
  let behaviour = await readBehaviour();
  if (turn) {
    const failure = behaviour.failure ? null : 'unavailable';
    behaviour = await setBehaviour({ ...behaviour, failure });
  }
  const isDown = Boolean(behaviour.failure);
  button.dataset.down = String(isDown);
  button.textContent = isDown ? 'Bring Velt back' : 'Take Velt down';
  byTestId('velt-state').textContent = isDown
    ? 'Velt answers every mint with \u201cunavailable\u201d.'
    : 'Velt mints tokens.';
}

/** Each look waits for the answer to the last one. */
async function watch() {
  try {
    const [app, responses] = await Promise.all([ask('/app'), ask('/responses')]);
    byTestId('app').textContent = app.address;
    byTestId('app-state').textContent = app.up ? 'answers' : 'does not answer: start it';
    showResponses(responses);
  } catch (error) {
    byTestId('app-state').textContent = `unknown: the demo does not answer (${error})`;
  }
  setTimeout(watch, PAUSE_MS);
}

/** @param {{number: number, path: string, status: number, carried: string}[]} responses */
function showResponses(responses) {
  const rows = responses.map(({ path, status, carried }) => {
    const row = document.createElement('tr');
    const shown = path === ROUTE && status === 200 ? 'token, in its body' : carried || 'no token, no status';
    for (const text of [String(status), path, shown]) row.insertCell().textContent = text;
    return row;
  });
  byTestId('responses').replaceChildren(...rows);
}

byTestId('ask').addEventListener('click', askRoute);
byTestId('velt-down').addEventListener('click', () => showVelt(true));
showUsers();
showVelt(false);
watch();
