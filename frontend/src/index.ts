/** Velt tokens from velt-sidecar in a web page: docs/frontend.md. */

import * as provider from './provider.js';
import * as sign from './sign-in.js';
import { createSource } from './tokens.js';
import type { AuthProvider, ProviderOptions, SignedIn, TokenOptions, User, VeltClient, VeltTokens } from './types.js';

export { TokenError, type OwnCode, type SidecarCode, type TokenErrorCode } from './error.js';
export type * from './types.js';

/** Creates the source of tokens for one user. Does no work before its first use, so that a server may call it. */
export const createVeltTokens: (options?: TokenOptions) => VeltTokens = createSource;

/**
 * Returns Velt's `authProvider` for a user: the same object each time for an equal user, so that React may call
 * this while rendering and Velt signs in once.
 */
export const veltAuthProvider: <U extends User>(user: U, options?: ProviderOptions) => AuthProvider<U> =
  provider.veltAuthProvider;

/**
 * Signs a user in to Velt: with `setVeltAuthProvider` where the client has it, else with `identify` and a token.
 * Signs an earlier user out first. Of several calls in a row the last one counts, and the earlier promises reject
 * with the code `superseded`; a call for the same user joins.
 */
export const signIn: <U extends User>(
  client: VeltClient,
  user: U,
  options?: ProviderOptions,
) => Promise<SignedIn<U>> = sign.signIn;

/** Forgets the tokens of all providers, in all tabs, and signs out of Velt. Call it before your own logout. */
export const signOut: (client: Pick<VeltClient, 'signOutUser'>) => Promise<void> = sign.signOut;
