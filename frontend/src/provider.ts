import { TokenError } from './error.js';
import { createSource, type Source } from './tokens.js';
import type { AuthProvider, ProviderOptions, User, VeltClient } from './types.js';

/** Most users whose providers are kept. A server that renders pages comes across many. */
const MOST_USERS = 99;

interface Entry {
  _provider: AuthProvider<any>;
  _tokens: Source;
  /** Options of the latest call, since React hands in a new `onError` with each rendering. */
  _options: ProviderOptions;
}

const entries = new Map<string, Entry>();

export const RETRIES = { retryCount: 3, retryDelay: 1000 };

export const keyOf = (user: User, { url }: ProviderOptions): string => JSON.stringify([user, url]);

export const tokensOf = ({ userId, organizationId }: User, options: ProviderOptions): Source =>
  createSource({ ...options, userId, organizationId: organizationId! });

export function veltAuthProvider<U extends User>(user: U, options: ProviderOptions = {}): AuthProvider<U> {
  const key = keyOf(user, options);
  let entry = entries.get(key);
  if (!entry) {
    const _tokens = tokensOf(user, options);
    const tell = (error: unknown) => entry!._options.onError?.(error);
    const onError = (error: unknown) => {
      _tokens._judge(error);
      tell(error);
    };
    const { generateToken } = _tokens;
    entry = { _tokens, _options: options, _provider: { user, generateToken, retryConfig: RETRIES, onError } };
    _tokens.onSignedOut(() => tell(new TokenError('signed_out')));
    if (entries.size > MOST_USERS) entries.clear();
    entries.set(key, entry);
  }
  entry._options = options;
  return entry._provider;
}

export async function signOut(client: Pick<VeltClient, 'signOutUser'>): Promise<void> {
  entries.forEach(({ _tokens }) => _tokens.signedOut());
  await client.signOutUser();
}
