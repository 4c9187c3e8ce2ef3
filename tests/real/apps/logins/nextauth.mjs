// The session cookie of NextAuth 4, made and read by next-auth.
import { createRequire } from 'node:module';
import { SignJWT } from 'jose';
import { tampered } from './keys.mjs';

const require = createRequire(import.meta.url);
const { encode, getToken } = require('next-auth/jwt');
const { AuthHandler } = require('./node_modules/next-auth/core/index.js');
const { SessionStore, defaultCookies } = require('./node_modules/next-auth/core/lib/cookie.js');

const SECRETS = {
  own: 'the-secret-of-the-app-with-44-characters-QQ==',
  next: 'the-next-secret-of-the-app-44-characters-Qg==',
  foreign: 'the-secret-of-another-app-44-characters-Qw==',
};
const LOGGER = { debug() {}, warn() {}, error() {} };

export function open() {
  return { make, read };
}

async function make(how) {
  if (how.account) return signIn(how.account);
  const { name, options } = defaultCookies(how.secure ?? false).sessionToken;
  const secret = SECRETS[how.keys ?? 'own'];
  const maxAge = how.expired ? -120 : 30 * 24 * 60 * 60;
  const token = {
    name: 'Ada', email: 'ada@example.com', picture: null, sub: how.user, org_id: how.organization,
    // A claim that a callback of the app has added.
    notes: 'n'.repeat(how.length ?? 0),
  };
  const made = how.algorithm === 'HS256'
    ? await new SignJWT({ ...token, exp: Math.floor(Date.now() / 1000) + maxAge })
      .setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(secret))
    : how.database ? crypto.randomUUID() : await encode({ token, secret, maxAge });
  const store = new SessionStore({ name, options }, {}, LOGGER);
  const value = how.tampered ? tampered(made) : made;
  return { cookies: store.chunk(value, {}).map(({ name, value }) => ({ name, value })) };
}

// Has NextAuth sign in a user who comes back from a provider with the account `account`.
async function signIn(account) {
  const provider = {
    id: 'google', name: 'Google', type: 'oauth', clientId: 'client', clientSecret: 'secret', checks: ['none'],
    authorization: 'https://accounts.example.com/authorize',
    token: { url: 'https://accounts.example.com/token', request: async () => ({ tokens: { access_token: 'access' } }) },
    userinfo: { url: 'https://accounts.example.com/userinfo', request: async () => ({ sub: account }) },
    profile: ({ sub }) => ({ id: sub, email: 'ada@example.com' }),
  };
  const req = { action: 'callback', providerId: 'google', method: 'GET', query: { code: 'code' }, cookies: {}, headers: {}, origin: 'https://app.example.com' };
  const options = { providers: [provider], secret: SECRETS.own, logger: LOGGER };
  const { cookies } = await AuthHandler({ req, options });
  const session = cookies.filter(({ name }) => name.includes('session-token'));
  return { cookies: session.map(({ name, value }) => ({ name, value })) };
}

async function read(cookies) {
  const secureCookie = cookies.some(({ name }) => name.startsWith('__Secure-'));
  const req = { cookies: Object.fromEntries(cookies.map(({ name, value }) => [name, value])), headers: {} };
  const found = await getToken({ req, secureCookie, secret: SECRETS.own, logger: LOGGER });
  return found && { user: found.sub, organization: found.org_id ?? null };
}
