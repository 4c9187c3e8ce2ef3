// @ts-check
// Requests of the page, all of them to its own origin: one forwarded port shows the whole demo.
import { messageOf } from './token-panel.js';

/** @param {string} url @param {RequestInit} [init] */
export async function requestJson(url, init) {
  const response = await fetch(url, { cache: 'no-store', ...init }).catch((error) => {
    throw new Error(`${url} can\u2019t be reached: ${messageOf(error)}`);
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answered HTTP ${response.status}: ${text}`);
  return text ? JSON.parse(text) : null;
}

/** @param {string} method @param {unknown} body @returns {RequestInit} */
export function withJson(method, body) {
  return { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

/** @param {unknown} error */
export function asError(error) {
  return error instanceof Error ? error : new Error(String(error));
}

// ---- The emulator, through the login proxy

/** Prefix of the demo's own paths, and of the emulator's, which begin with /emulator/. */
export const OWN_PATHS = '/__velt-demo';

export async function countMints() {
  return (await requestJson(`${OWN_PATHS}/emulator/journal`)).mints;
}

export function readBehaviour() {
  return requestJson(`${OWN_PATHS}/emulator/behaviour`);
}

/** @param {unknown} behaviour */
export function setBehaviour(behaviour) {
  return requestJson(`${OWN_PATHS}/emulator/behaviour`, withJson('PUT', behaviour));
}

/** @param {number | Error} before @param {number | Error} after */
export function describeMints(before, after) {
  if (before instanceof Error) return `Velt\u2019s journal is unknown: ${before.message}`;
  if (after instanceof Error) return `Velt\u2019s journal is unknown: ${after.message}`;
  const mints = after - before;
  return mints === 1 ? 'Velt minted 1 token for this.' : `Velt minted ${mints || 'no'} tokens for this.`;
}
