/** Token with the end of its life by this page's clock, in milliseconds since 1970. */
export interface Held {
  token: string;
  until: number;
}

/** Milliseconds: a token with less left is not served from memory. */
export const MARGIN = 3e5;

/** Milliseconds: Velt's documented life of a token, 48 hours. */
const LONGEST = 1728e5;

/** Whether a value is visible ASCII, which is all that a header carries. */
export const isToken = (value: unknown): value is string =>
  typeof value === 'string' && /^[!-~]+$/.test(value);

/** Claims of a JWT, not verified. Empty if they can't be read: to this package, a token is a text. */
export function claimsOf(token: string): { userId?: unknown; exp?: unknown } {
  try {
    const bytes = atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'));
    return JSON.parse(decodeURIComponent(escape(bytes))) ?? {};
  } catch {
    return {};
  }
}

/** Time of the server that sent these headers: this page's clock may be wrong. */
export const timeOf = (headers?: Headers): number => Date.parse(headers?.get('date')!) || Date.now();

/**
 * End of a token's life by this page's clock: by `expiresAt`, else by the token's own `exp`, else 48 hours on.
 * `began` is when the token was asked for: an answer may lie in a laptop that sleeps.
 */
export function endOfLife(token: string, headers?: Headers, expiresAt?: unknown, began = Date.now()): number {
  const end = [expiresAt, claimsOf(token).exp].find((time) => typeof time === 'number' && time > 0);
  return began + Math.min(end ? (end as number) * 1e3 - timeOf(headers) : LONGEST, LONGEST);
}
