/** Token with the end of its life by this page's clock, in milliseconds since 1970. */
export type Held = [token: string, until: number];

/** Milliseconds: a token with less left is not served from memory. */
export const MARGIN = 3e5;

/** Milliseconds: Velt's documented life of a token, 48 hours. */
const LONGEST = 1728e5;

/** Whether a value is a text that is not empty. */
export const isText = (value: unknown): value is string => !!value && typeof value === 'string';

/** Claims of a JWT, not verified. Empty if the token is no JWT, which this package does not require. */
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

/** End of a token's life by this page's clock: by `expiresAt`, else by the token's own `exp`, else 48 hours on. */
export function endOfLife(token: string, headers?: Headers, expiresAt?: unknown): number {
  const end = ([expiresAt, claimsOf(token).exp] as number[]).find((time) => time > 0);
  return Date.now() + Math.min(end ? end * 1e3 - timeOf(headers) : LONGEST, LONGEST);
}
