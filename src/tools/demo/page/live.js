// @ts-check
// Parts that are updated all the time: the sidecar's figures, the WebSocket and the event stream.
import { byTestId, messageOf } from './token-panel.js';

const POLL_INTERVAL_MS = 1000;
const RECONNECT_DELAY_MS = 2000;
const LOG_LENGTH = 30;
const MISSING = '\u2013';

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

// ---- Figures

/** Each poll waits for the answer to the last one, so that a slow answer is never overtaken. */
export async function pollFigures() {
  const problem = byTestId('figures-problem');
  try {
    const response = await fetch('/__velt-demo/metrics', { cache: 'no-store' });
    if (!response.ok) throw new Error(`/__velt-demo/metrics answered HTTP ${response.status}`);
    showFigures(parseMetrics(await response.text()));
    problem.hidden = true;
  } catch (error) {
    problem.textContent = `Metrics are not up to date: ${messageOf(error)}`;
    problem.hidden = false;
  }
  setTimeout(pollFigures, POLL_INTERVAL_MS);
}

/** @param {string} text @returns {Sample[]} */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split('\n')) {
    const match = /^velt_sidecar_(\w+)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (match) samples.push({ name: match[1], labels: parseLabels(match[2] ?? ''), value: Number(match[3]) });
  }
  return samples;
}

/** @param {string} text */
function parseLabels(text) {
  return Object.fromEntries(Array.from(text.matchAll(/(\w+)="([^"]*)"/g), ([, name, value]) => [name, value]));
}

/** @param {Sample[]} samples */
function showFigures(samples) {
  const total = (/** @type {string} */ name) => sum(samples.filter((sample) => sample.name === name));
  const by = (/** @type {string} */ name, /** @type {string} */ label) => sumByLabel(samples, name, label);

  const requests = by('requests_total', 'outcome');
  setFigure('requests', formatCount(total('requests_total')), listLargest(requests));

  const lookups = by('token_lookups_total', 'result');
  const allLookups = total('token_lookups_total');
  const hits = (lookups.get('fresh') ?? 0) + (lookups.get('due') ?? 0);
  setFigure('hit-ratio', allLookups ? formatPercent(hits / allLookups) : MISSING, `${formatCount(hits)} of ${formatCount(allLookups)} look-ups`);

  const mints = by('mints_total', 'outcome');
  const failures = new Map([...mints].filter(([outcome]) => outcome !== 'minted'));
  setFigure('mints', mints.size ? formatCount(mints.get('minted') ?? 0) : MISSING, listLargest(failures) || 'none failed');

  setFigure('cached', formatCount(total('tokens_cached')), 'users with a token');

  const breaker = total('breaker_open');
  setFigure('breaker', breaker === null ? MISSING : breaker > 0 ? 'open' : 'closed', breaker ? 'no calls to Velt' : 'calls go to Velt');
  byTestId('figure-breaker').dataset.open = String(breaker === null ? '' : breaker > 0);

  const added = median(samples.filter(({ name }) => name === 'added_seconds_bucket'));
  setFigure('added', added === null ? MISSING : formatDuration(added), 'median, waits for a mint included');

  setFigure('in-flight', formatCount(total('requests_in_flight')), `WebSocket tunnels: ${formatCount(total('tunnels_open'))}`);
  setFigure('refused', formatCount(total('identity_refusals_total')), `spoofed headers: ${formatCount(total('spoof_attempts_total'))}`);
}

/**
 * Returns the median of a histogram, interpolated in its bucket.
 * @param {Sample[]} buckets Cumulative, as Prometheus has them. @returns {number | null}
 */
export function median(buckets) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const { labels, value } of buckets) {
    const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  const half = (counts.get(Infinity) ?? 0) / 2;
  if (!half) return null;
  let [lower, below] = [0, 0];
  for (const [upper, upTo] of [...counts].sort(([left], [right]) => left - right)) {
    // Above the last bound, the bound is all that is known.
    if (upTo >= half) return upper === Infinity ? lower : lower + (upper - lower) * (half - below) / (upTo - below);
    [lower, below] = [upper, upTo];
  }
  return null;
}

/** @param {Sample[]} samples @returns {number | null} */
function sum(samples) {
  return samples.length ? samples.reduce((result, sample) => result + sample.value, 0) : null;
}

/** @param {Sample[]} samples @param {string} name @param {string} label @returns {Map<string, number>} */
function sumByLabel(samples, name, label) {
  const sums = new Map();
  for (const sample of samples.filter((candidate) => candidate.name === name)) {
    const key = sample.labels[label] ?? 'other';
    sums.set(key, (sums.get(key) ?? 0) + sample.value);
  }
  return sums;
}

/** @param {Map<string, number>} sums */
function listLargest(sums) {
  const largest = [...sums].filter(([, value]) => value > 0).sort((left, right) => right[1] - left[1]).slice(0, 3);
  return largest.map(([name, value]) => `${formatCount(value)} ${name.replaceAll('_', ' ')}`).join(', ');
}

/** @param {string} name @param {string} value @param {string} detail */
function setFigure(name, value, detail) {
  byTestId(`figure-${name}`).textContent = value;
  byTestId(`figure-${name}-detail`).textContent = detail;
}

/** @param {number | null} count */
function formatCount(count) {
  return count === null ? MISSING : count.toLocaleString('en');
}

/** @param {number} ratio */
function formatPercent(ratio) {
  return `${(ratio * 100).toFixed(1)} %`;
}

/** @param {number} seconds */
function formatDuration(seconds) {
  const microseconds = seconds * 1_000_000;
  return microseconds < 1000 ? `${Math.round(microseconds)} \u00b5s` : `${(microseconds / 1000).toFixed(1)} ms`;
}

// ---- WebSocket

/** The user of a connection is settled when it opens, so each user gets a new one. */
export function createSocketPanel() {
  const form = /** @type {HTMLFormElement} */ (byTestId('ws-form'));
  const input = /** @type {HTMLInputElement} */ (byTestId('ws-input'));
  const sendButton = /** @type {HTMLButtonElement} */ (byTestId('ws-send'));
  const log = byTestId('ws-log');
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let reconnectTimer;

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (socket?.readyState !== WebSocket.OPEN || !input.value) return;
    socket.send(input.value);
    input.value = '';
  });

  return { connect };

  function connect() {
    clearTimeout(reconnectTimer);
    const previous = socket;
    const current = new WebSocket(new URL('/ws', location.href.replace(/^http/, 'ws')));
    socket = current;
    previous?.close();
    setState('connecting', 'connecting');
    current.addEventListener('open', () => ifCurrent(current, () => setState('open', 'open')));
    current.addEventListener('message', (event) => ifCurrent(current, () => addToLog(log, describeEcho(event.data))));
    current.addEventListener('close', (event) => ifCurrent(current, () => {
      setState('closed', `closed (${event.reason || `code ${event.code}`}), connecting again soon`);
      reconnectTimer = setTimeout(connect, RECONNECT_DELAY_MS);
    }));
  }

  /** @param {WebSocket} candidate @param {() => void} action */
  function ifCurrent(candidate, action) {
    if (candidate === socket) action();
  }

  /** @param {string} status @param {string} text */
  function setState(status, text) {
    setStatus('ws-status', status, text);
    sendButton.disabled = status !== 'open';
  }
}

/** @param {string} data */
function describeEcho(data) {
  try {
    const { n, user, echo } = JSON.parse(data);
    return `#${n} ${user ?? 'no user'}: ${echo}`;
  } catch {
    return `not understood: ${data}`;
  }
}

// ---- Event stream

export function createEventPanel() {
  const log = byTestId('sse-log');
  /** @type {EventSource | null} */
  let source = null;

  return { connect };

  function connect() {
    source?.close();
    const current = new EventSource('/api/events');
    source = current;
    setStatus('sse-status', 'connecting', 'connecting');
    current.addEventListener('open', () => setStatus('sse-status', 'open', 'open'));
    current.addEventListener('tick', (event) => addToLog(log, describeTick(event.data)));
    current.addEventListener('error', () => showError(current));
  }

  /** @param {EventSource} failed */
  function showError(failed) {
    // The browser gives no cause, and connects again by itself unless the answer was no event stream.
    if (failed.readyState === EventSource.CONNECTING) setStatus('sse-status', 'connecting', 'interrupted, connecting again');
    else setStatus('sse-status', 'closed', 'closed: the answer was no event stream');
  }
}

/** @param {string} data */
function describeTick(data) {
  try {
    const { n, at, user } = JSON.parse(data);
    return `#${n} ${user ?? 'no user'} ${new Date(at).toLocaleTimeString('en-GB')}`;
  } catch {
    return `not understood: ${data}`;
  }
}

// ---- Both

/** @param {string} testId @param {string} status @param {string} text */
function setStatus(testId, status, text) {
  const element = byTestId(testId);
  element.dataset.status = status;
  element.textContent = text;
}

/** Newest first, so that the log needs no scrolling. @param {HTMLElement} log @param {string} text */
function addToLog(log, text) {
  const entry = document.createElement('li');
  entry.textContent = text;
  log.prepend(entry);
  while (log.children.length > LOG_LENGTH) log.lastElementChild?.remove();
}
