import { headers } from 'next/headers';
import { Collaboration } from './collaboration';
import { currentUserId } from './session';

export default async function Page() {
  const userId = await currentUserId();
  if (!userId) {
    return (
      <form method="post" action="/login">
        <h1>Next.js</h1>
        <p data-testid="who">Signed out.</p>
        <label>User <input name="user" data-testid="user" required /></label>{' '}
        <button data-testid="sign-in">Sign in</button>
      </form>
    );
  }
  // From the sidecar, which has removed the browser's own header of this name. Without it the page asks the
  // token route: the token may not be there yet.
  const token = (await headers()).get('x-velt-token');
  return (
    <Collaboration
      // organizationId is velt.organization of sidecar.toml.
      user={{ userId, organizationId: 'acme', name: userId }}
      token={token}
      apiKey={process.env.VELT_API_KEY ?? ''}
      sdkHost={process.env.VELT_SDK_HOST ?? ''}
    />
  );
}
