// Firebase's ID token and session cookie, checked by firebase-admin's own verifiers with certificates of the
// test's own.
import { createRequire } from 'node:module';
import { Keys, times } from './keys.mjs';

const require = createRequire(import.meta.url);
const verifiers = require('./node_modules/firebase-admin/lib/auth/token-verifier.js');

const PROJECT = 'my-project';
// Tokens of both kinds have keys of their own at Google, and issuers of their own.
const KINDS = {
  id: { issuer: 'https://securetoken.google.com/', information: verifiers.ID_TOKEN_INFO, life: 3600 },
  session: {
    issuer: 'https://session.firebase.google.com/',
    information: verifiers.SESSION_COOKIE_INFO,
    life: 5 * 24 * 3600,
  },
};

export async function open(at) {
  const keys = {
    id: await Keys.generate('RS256', 'a1b2c3d4e5f60718293a4b5c6d7e8f9001122334'),
    session: await Keys.generate('RS256', 'lk0P4g'),
  };
  return {
    make: (how) => make(keys, how),
    read: (cookies, token) => read(at, cookies, token),
    x509: (kind) => keys[kind].certificates(),
  };
}

async function make(keys, how) {
  const kind = how.kind ?? 'session';
  const { iat, exp } = times(how, KINDS[kind].life);
  const token = await keys[kind].sign({
    iss: KINDS[kind].issuer + PROJECT, aud: PROJECT, auth_time: iat, user_id: how.user, sub: how.user, iat, exp,
    email: 'ada@example.com', email_verified: true, org_id: how.organization,
    firebase: {
      identities: { email: ['ada@example.com'] },
      sign_in_provider: how.anonymous ? 'anonymous' : 'password',
      ...(how.tenant && { tenant: how.tenant }),
    },
  }, how);
  return { token, cookies: kind === 'session' ? [{ name: 'session', value: token }] : [] };
}

async function read(at, cookies, token) {
  const kind = token ? 'id' : 'session';
  const { issuer, information } = KINDS[kind];
  const app = { options: { projectId: PROJECT } };
  const url = `${at}/firebase/x509/${kind}`;
  const verifier = new verifiers.FirebaseTokenVerifier(url, issuer, information, app);
  const found = await verifier.verifyJWT(token ?? cookies[0].value).catch(() => null);
  return found && { user: found.uid, organization: found.org_id ?? null };
}
