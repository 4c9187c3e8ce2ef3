// The session cookie of Auth.js 5, made and read by @auth/core.
import { Auth, customFetch } from '@auth/core';
import { decode, encode, getToken } from '@auth/core/jwt';
import { SignJWT } from 'jose';
import { SessionStore, defaultCookies } from './node_modules/@auth/core/lib/utils/cookie.js';
import { header, tampered } from './keys.mjs';

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
  if (how.account) return signIn(how.account, how.lines);
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
    : how.database ? crypto.randomUUID() : await encode({ token, secret, maxAge, salt: name });
  const store = new SessionStore({ name, options }, {}, LOGGER);
  const value = how.tampered ? tampered(made) : made;
  return { cookies: store.chunk(value, {}).map(({ name, value }) => ({ name, value })) };
}

// Has Auth.js sign in a user who comes back from a provider with the account `account`, in an app with the lines of
// docs/logins/authjs.md, if there are `lines`.
async function signIn(account, lines) {
  const provider = {
    id: 'google', type: 'oauth', clientId: 'client', clientSecret: 'secret', checks: ['none'],
    issuer: 'https://accounts.example.com',
    authorization: 'https://accounts.example.com/authorize',
    token: 'https://accounts.example.com/token',
    userinfo: 'https://accounts.example.com/userinfo',
    profile: ({ sub, email }) => ({ id: sub, email }),
    async [customFetch](url) {
      const answers = { '/token': { access_token: 'access', token_type: 'bearer' }, '/userinfo': { sub: account, email: 'ada@example.com' } };
      return Response.json(answers[new URL(url).pathname]);
    },
  };
  const base = { basePath: '/auth', trustHost: true, secret: SECRETS.own, session: { strategy: 'jwt' } };
  const config = { ...base, ...(lines && configOf(lines)), providers: [provider] };
  const answer = await Auth(new Request('https://app.example.com/auth/callback/google?code=code'), config);
  const pairs = answer.headers.getSetCookie().map((line) => line.split(';')[0].split('='));
  const session = pairs.filter(([name]) => name.includes('session-token'));
  return { cookies: session.map(([name, value]) => ({ name, value })) };
}

// Returns what the lines hand to NextAuth.
function configOf(lines) {
  let given;
  const NextAuth = (config) => {
    given = config;
    return {};
  };
  new Function('NextAuth', 'Google', lines.replace(/^export /, ''))(NextAuth, {});
  return given;
}

async function read(cookies) {
  const secureCookie = cookies.some(({ name }) => name.startsWith('__Secure-'));
  const req = { headers: { cookie: header(cookies) } };
  const found = await getToken({ req, secureCookie, secret: [SECRETS.next, SECRETS.own], logger: LOGGER, decode });
  return found && { user: found.sub, organization: found.org_id ?? null };
}
