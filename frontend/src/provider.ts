import { TokenError } from './error.js';
import { createSource, type Source } from './tokens.js';
import type { AuthProvider, ProviderOptions, User } from './types.js';

/** Most users whose providers are kept. A server that renders pages comes across many. */
const MOST_USERS = 99;

/** Provider, its tokens, and the options of the latest call: React passes a new `onError` at each render. */
type Entry = [provider: AuthProvider<any>, tokens: Source, options: ProviderOptions];

export const entries = new Map<string, Entry>();

export const keyOf = (user: User, { url }: ProviderOptions): string => JSON.stringify([user, url]);

export const tokensOf = ({ userId, organizationId }: User, options: ProviderOptions): Source =>
  createSource({ ...options, userId, organizationId: organizationId! });

export const makeProvider = <U extends User>(
  user: U,
  tokens: Source,
  report: (error: unknown) => void,
): AuthProvider<U> => ({
  user,
  generateToken: () => tokens.generateToken(),
  retryConfig: { retryCount: 3, retryDelay: 1e3 },
  onError(error) {
    tokens._judge(error);
    report(error);
  },
});

export function veltAuthProvider<U extends User>(user: U, options: ProviderOptions = {}): AuthProvider<U> {
  const key = keyOf(user, options);
  let entry = entries.get(key);
  if (!entry) {
    const tokens = tokensOf(user, options);
    const report = (error: unknown) => entry![2].onError?.(error);
    entry = [makeProvider(user, tokens, report), tokens, options];
    tokens.onSignedOut(() => report(new TokenError('signed_out')));
    if (entries.size > MOST_USERS) entries.clear();
    entries.set(key, entry);
  }
  entry[2] = options;
  return entry[0];
}
