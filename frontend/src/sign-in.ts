import { TokenError } from './error.js';
import { RETRIES, keyOf, tokensOf } from './provider.js';
import type { ProviderOptions, SignedIn, User, VeltClient } from './types.js';

/** One call of `signIn`. */
interface Session {
  /** User and route, unless the call has failed or its user has signed out. */
  _key: string | undefined;
  _result: Promise<SignedIn<any>>;
  /** Rejects the result and gives Velt no further token. */
  _supersede(): void;
  /** Resolves when Velt is done with the call. */
  _end: Promise<unknown>;
  /** Signs out of Velt, once. Does nothing before Velt is called, and after Velt has said no. */
  _leave(): Promise<void> | void;
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
  before?._supersede();
  const tokens = tokensOf(user, options);
  const report = (error: any): void => void (error.code === 'superseded' || options.onError?.(error));
  let subscription: { unsubscribe?: () => void } | void;
  let left: Promise<void> | undefined;

  /** Lets Velt sign in, and once more if it refuses the token. */
  const attempt = async (isLast?: boolean): Promise<void> => {
    let own: unknown;
    let failure: unknown;
    const generateToken = () =>
      tokens.generateToken().catch((error) => {
        throw (own = error);
      });
    const onError = (error: unknown) => {
      tokens._judge((failure = error));
      report(error);
    };
    try {
      const answer = await (client.setVeltAuthProvider
        ? client.setVeltAuthProvider({ user, generateToken, retryConfig: RETRIES, onError })
        : client.identify(user, { authToken: await generateToken(), throwError: true }));
      // Velt resolves to null where it could not sign in.
      if (answer === null || (failure && !answer)) throw failure;
    } catch (error) {
      if (own || !tokens._judge(error)) throw own ?? error;
      if (isLast) throw new TokenError('refused', { cause: error });
      return attempt(true);
    }
  };

  const enter = async (): Promise<SignedIn<U>> => {
    // Velt may never be done with the call before.
    await Promise.race([before?._end, new Promise((resolve) => setTimeout(resolve, 1e4))]);
    await before?._leave();
    if (sessions.get(client) !== me) throw 0;
    me._leave = () =>
      (left ??= (async () => {
        me._key = undefined;
        tokens.close();
        subscription?.unsubscribe?.();
        await client.signOutUser();
      })().catch(report));
    tokens.onSignedOut(() => me._leave());
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
    const signOut = async () => {
      tokens.signedOut();
      await me._leave();
    };
    return { user, tokens, signOut };
  };

  const me = { _key: key, _leave() {} } as Session;
  sessions.set(client, me);
  me._result = new Promise((resolve, reject) => {
    me._supersede = () => {
      tokens.close();
      reject(new TokenError('superseded'));
    };
    me._end = enter().then(resolve, (error) => {
      tokens.close();
      me._key = undefined;
      me._leave = () => {};
      reject(error);
    });
  });
  me._result.catch(report);
  return me._result;
}
