export interface VeltUser {
  userId: string;
  organizationId: string;
  name: string;
}

/** Asks the login proxy who is signed in: the name that it gives the sidecar too, byte for byte. */
export async function askForUser(): Promise<VeltUser | null> {
  const answer = await fetch('/oauth2/userinfo', { cache: 'no-store' });
  if (!answer.ok) return null;
  const { user } = (await answer.json()) as { user: string };
  // organizationId is velt.organization of sidecar.toml.
  return { userId: user, organizationId: 'acme', name: user };
}
