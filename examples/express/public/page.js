import { initVelt } from '@veltdev/client';
import { signIn, signOut } from 'velt-sidecar';
import settings from '/settings.js';

let leaving = false;
const element = (id) => document.getElementById(id);
const say = (text) => { document.querySelector('[data-testid=who]').textContent = text; };

// { userId, organizationId, name }, or an empty object. The sidecar asks the same path.
const user = await (await fetch('/api/me', { cache: 'no-store' })).json();
if (user.userId) {
  say(`Signed in as ${user.name}.`);
  await collaborate();
} else {
  say('Signed out.');
  element('sign-in').hidden = false;
}

async function collaborate() {
  const client = await initVelt(settings.apiKey, { proxyDomain: settings.proxyDomain });
  client.setDocument('first-page', { documentName: 'First page' });
  element('sign-out').hidden = false;
  element('sign-out').onsubmit = async (event) => {
    event.preventDefault();
    // First Velt, then the session: a token that comes between the two would be the old user's.
    leaving = true;
    await signOut(client).finally(() => event.target.submit());
  };
  const onError = (error) => say(`Signed in as ${user.name}, but not to Velt: ${error.message}`);
  const session = await signIn(client, user, { onError }).catch(onError);
  // Another tab has signed out.
  session?.tokens.onSignedOut(() => leaving || location.reload());
}
