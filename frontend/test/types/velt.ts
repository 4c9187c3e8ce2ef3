// Compiled against each major version of Velt's types; never run.

import type { User, Velt, VeltAuthProvider } from '@veltdev/types';
import {
  TokenError,
  createVeltTokens,
  signIn,
  signOut,
  veltAuthProvider,
  type SignedIn,
  type TokenErrorCode,
  type VeltClient,
} from 'velt-sidecar';

declare const client: Velt;
declare const user: User;
const literal = { userId: 'ada', organizationId: 'acme', name: 'Ada', email: 'ada@example.com' };

export const providers: VeltAuthProvider[] = [
  veltAuthProvider(user),
  veltAuthProvider(literal),
  veltAuthProvider({ userId: 'ada' }, { url: '/token', onError: (error: unknown) => console.error(error) }),
  { user, generateToken: createVeltTokens().generateToken },
];

export const asClient: VeltClient = client;

export async function page(): Promise<string> {
  const session: SignedIn<User> = await signIn(client, user, { patience: 1000, tabs: false });
  const other = await signIn(client, literal);
  const email: string = other.user.email;
  await client.setVeltAuthProvider(veltAuthProvider(session.user));
  await session.signOut();
  await signOut(client);
  return email;
}

export async function tokens(signal: AbortSignal): Promise<string> {
  const source = createVeltTokens({ userId: user.userId, initial: null, fetch, tokenHeader: 'X', statusHeader: 'Y' });
  const response: Response = source.observe(await source.fetch('/api/me'));
  const { generateToken, refused, signedOut, onSignedOut, close } = source;
  const end: () => void = onSignedOut(() => signedOut());
  end();
  refused(response.headers.get('X') ?? '');
  close();
  return generateToken({ signal });
}

export function judge(error: unknown): TokenErrorCode | number | undefined {
  if (!(error instanceof TokenError)) return;
  const after: number | undefined = error.retryAfter;
  switch (error.code) {
    case 'signed_out':
    case 'user_mismatch':
      return error.sidecarCode;
    default:
      return error.retryable ? after : error.status;
  }
}

// @ts-expect-error A user has an id.
veltAuthProvider({ organizationId: 'acme' });
// @ts-expect-error The user's id comes from the user.
veltAuthProvider(user, { userId: 'grace' });
// @ts-expect-error There is no token in a header that is missing.
createVeltTokens().refused(new Headers().get('X-Velt-Token'));
// @ts-expect-error No client of Velt.
signIn({}, user);
