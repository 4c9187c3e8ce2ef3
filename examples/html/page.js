import { initVelt } from '@veltdev/client';
import { signIn, signOut } from 'velt-sidecar';
import { apiKey, proxyDomain } from './settings.js';

let leaving = false;
const element = (id) => document.getElementById(id);
const say = (text) => { document.querySelector('[data-testid=who]').textContent = text; };

// The login proxy says who is signed in: the name that it gives the sidecar too, byte for byte.
const answer = await fetch('/oauth2/userinfo', { cache: 'no-store' });
if (answer.ok) {
  const { user } = await answer.json();
  say(`Signed in as ${user}.`);
  // organizationId is velt.organization of sidecar.toml.
  await collaborate({ userId: user, organizationId: 'acme', name: user });
} else {
  say('Signed out.');
  element('sign-in').hidden = false;
}

async function collaborate(user) {
  const client = await initVelt(apiKey, { proxyDomain });
  client.setDocument('first-page', { documentName: 'First page' });
  element('sign-out').hidden = false;
  element('sign-out').onclick = async () => {
    // First Velt, then the login: a token that comes between the two would be the old user's.
    leaving = true;
    await signOut(client).finally(() => location.assign('/oauth2/sign_out'));
  };
  const onError = (error) => say(`Signed in as ${user.name}, but not to Velt: ${error.message}`);
  const session = await signIn(client, user, { onError }).catch(onError);
  // Another tab has signed out.
  session?.tokens.onSignedOut(() => leaving || location.reload());
}
