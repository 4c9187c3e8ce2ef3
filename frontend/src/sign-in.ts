import { TokenError } from './error.js';
import { entries, keyOf, makeProvider, tokensOf } from './provider.js';
import { sleep } from './tabs.js';
import type { ProviderOptions, SignedIn, User, VeltClient } from './types.js';

/** One call of `signIn`. */
interface Session {
  /** User and route, unless the call has failed or its user has signed out. */
  _key: string | undefined;
  _result: Promise<SignedIn<any>>;
  /** Forgets the token in all tabs, and stops. */
  _signOut(): Promise<void>;
  /** Ends the session, waits until Velt is done with it, and signs out of Velt if it was signed in. */
  _stop(code?: string): Promise<void>;
}

/** Latest call for each client. */
const sessions = new WeakMap<object, Session>();

export function signIn<U extends User>(
  client: VeltClient,
  user: U,
  options: ProviderOptions = {},
): Promise<SignedIn<U>> {
  const key = keyOf(user, options);
  const before = sessions.get(client);
  if (before?._key === key) return before._result;
  const tokens = tokensOf(user, options);
  const report = (error: unknown): void => options.onError?.(error);
  let subscription: { unsubscribe?: () => void } | void;
  let stopped: Promise<void> | undefined;

  /** Lets Velt sign in, and once more if it refuses the token. */
  const attempt = async (isLast?: boolean): Promise<void> => {
    let failure: unknown;
    const provider = makeProvider(user, tokens, (error) => report((failure = error)));
    try {
      const answer = await (client.setVeltAuthProvider
        ? client.setVeltAuthProvider(provider)
        : client.identify(user, { authToken: await provider.generateToken(), throwError: true }));
      // Velt resolves to null where it could not sign in.
      if (answer === null) throw failure;
    } catch (error) {
      const reason = tokens._judge(error);
      if (reason) throw reason;
      if (isLast) throw new TokenError('refused', { cause: error });
      return attempt(true);
    }
  };

  const enter = async (): Promise<SignedIn<U>> => {
    await before?._stop('superseded');
    if (stopped) throw stopped;
    tokens.onSignedOut(() => me._stop());
    await attempt();
    let again: Promise<void> | undefined;
    if (!client.setVeltAuthProvider) {
      subscription = client.on('error').subscribe((event) => {
        if (event?.code !== 'token_expired') return;
        tokens._judge(event);
        again ??= attempt()
          .catch(report)
          .then(() => (again = undefined));
      });
    }
    return { user, tokens, signOut: me._signOut };
  };

  const me = {
    _key: key,
    _signOut() {
      tokens.signedOut();
      return me._stop();
    },
  } as Session;
  sessions.set(client, me);
  me._result = new Promise((resolve, reject) => {
    const end = enter().then(resolve, (error) => {
      me._key = undefined;
      tokens.close();
      reject(error);
    });
    me._stop = (code = 'signed_out') =>
      (stopped ??= (async () => {
        me._key = undefined;
        tokens.close();
        reject(new TokenError(code));
        // Velt's promise may never settle.
        await Promise.race([end, sleep(1e4)]);
        subscription?.unsubscribe?.();
        await client.signOutUser();
      })().catch(report));
  });
  me._result.catch(report);
  return me._result;
}

export async function signOut(client: Pick<VeltClient, 'signOutUser'>): Promise<void> {
  entries.forEach((entry) => {
    // `onError` tells of a sign-out elsewhere, not of the caller's own. The next render passes `onError` again.
    entry[2] = {};
    entry[1].signedOut();
  });
  await (sessions.get(client)?._signOut() ?? client.signOutUser());
}
