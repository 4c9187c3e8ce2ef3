import { useVeltClient } from '@veltdev/react';
import { signOut } from 'velt-sidecar';

export function SignOut() {
  const { client } = useVeltClient();

  // First Velt, then the login: a token that comes between the two would be the old user's.
  async function leave() {
    try {
      if (client) await signOut(client);
    } finally {
      location.assign('/oauth2/sign_out');
    }
  }

  return <button type="button" onClick={leave} data-testid="sign-out">Sign out</button>;
}
