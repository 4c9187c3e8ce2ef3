// A real OpenID provider. Prints its port, then reads the URL to which its one client wants users sent back, and
// the URL at which it tells of logouts. The user is the name typed into the form.
import http from 'node:http';
import readline from 'node:readline';
import Provider from 'oidc-provider';

const LOGIN = '/login';
const FORM = `<!doctype html><title>provider</title><link rel=icon href=data:,>
<form method=post><input name=user><button>Sign in</button></form>`;

// The provider's own page loads a font from another server.
const logoutSource = (context, form) => {
  context.body = `<!doctype html><title>provider</title><link rel=icon href=data:,>${form}
<button form="op.logoutForm" name=logout value=yes data-testid=sign-out>Sign out</button>`;
};
const postLogoutSuccessSource = (context) => {
  context.body = '<!doctype html><title>provider</title><link rel=icon href=data:,><p>signed out</p>';
};

function start(issuer, redirectUri, logoutUri) {
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'front',
      client_secret: 'secret-of-the-front',
      redirect_uris: [redirectUri],
      backchannel_logout_uri: logoutUri,
      backchannel_logout_session_required: true,
    }],
    claims: { openid: ['sub'], email: ['email'], profile: ['name'] },
    findAccount: (context, id) => {
      const claims = { sub: id, email: `${id}@example.com`, name: `${id} of the test` };
      return { accountId: id, claims: () => claims };
    },
    // Grants the client access to the user's name without a question.
    async loadExistingGrant({ oidc }) {
      const { clientId } = oidc.client;
      const grant = new oidc.provider.Grant({ clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope('openid email profile');
      await grant.save();
      return grant;
    },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true, logoutSource, postLogoutSuccessSource },
    },
    interactions: { url: (context, { uid }) => `${LOGIN}/${uid}` },
    cookies: { keys: ['key of the test'] },
  });
  const answer = provider.callback();
  return async (request, response) => {
    if (!request.url.startsWith(LOGIN)) {
      answer(request, response);
    } else if (request.method === 'POST') {
      let body = '';
      for await (const part of request) body += part;
      const accountId = new URLSearchParams(body).get('user');
      await provider.interactionFinished(request, response, { login: { accountId } });
    } else {
      response.writeHead(200, { 'content-type': 'text/html' }).end(FORM);
    }
  };
}

let answer = (request, response) => response.writeHead(503).end();
const server = http.createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  console.log(JSON.stringify({ port }));
  readline.createInterface({ input: process.stdin }).once('line', (line) => {
    const [redirectUri, logoutUri] = line.split(' ');
    const issuer = `http://127.0.0.1:${port}`;
    answer = start(issuer, redirectUri, logoutUri);
    console.log(JSON.stringify({ issuer }));
  }).on('close', () => process.exit());
});
