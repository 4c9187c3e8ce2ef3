// The session of Supabase in the cookies that @supabase/ssr writes, and the claims that it reads there.
import { createServerClient, parseCookieHeader, serializeCookieHeader } from '@supabase/ssr';
import { SignJWT, jwtVerify } from 'jose';
import { Keys, header, tampered, times } from './keys.mjs';

const REF = 'abcdefghijklmnopqrst';
const PROJECT = `https://${REF}.supabase.co`;
// The older secret, with which a project signs by HMAC.
const SECRET = new TextEncoder().encode('the-older-shared-secret-of-the-project-40ch');
const FOREIGN_SECRET = new TextEncoder().encode('the-shared-secret-of-another-project-of-40');

export async function open() {
  const keys = await Keys.generate('ES256', '6b1c1a2e-9a3f-4a43-8f3c-0a4a7c1d2e3f');
  return { make: (how) => make(keys, how), read: (cookies) => read(keys, cookies), jwks: () => keys.jwks() };
}

async function make(keys, how) {
  const claims = {
    ...times(how, 3600), iss: `${PROJECT}/auth/v1`, aud: 'authenticated', sub: how.user, role: 'authenticated',
    email: 'ada@example.com', phone: '', aal: 'aal1', session_id: '0f8fad5b-d9cb-469f-a165-70867728950e',
    amr: [{ method: 'password', timestamp: 1 }], is_anonymous: how.anonymous ?? false,
    app_metadata: { provider: 'email', providers: ['email'], organization_id: how.organization },
    user_metadata: { organization_id: 'organization-that-the-user-has-written' },
  };
  if (how.role) Object.assign(claims, { iss: 'supabase', role: how.role, aud: undefined, sub: undefined });
  const signed = how.shared
    ? await new SignJWT(claims).setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
      .sign(how.keys === 'foreign' ? FOREIGN_SECRET : SECRET)
    : await keys.signed(claims, how, { typ: 'JWT' });
  // Other cookies of the library's own, of a sign-in by PKCE and of a user who is kept apart.
  const other = how.neighbours
    ? ['code-verifier', 'flow-12345678-code-verifier', 'flows-code-verifier', 'user']
    : [];
  const neighbours = other.map((end) => ({ name: `sb-${REF}-auth-token-${end}`, value: 'base64-eyJhIjoxfQ' }));
  return { cookies: [...neighbours, ...(await written(how.tampered ? tampered(signed) : signed, how))] };
}

// Has the library write the session. It takes none that has expired, so such a session is written as valid, and
// the token in it exchanged: the browser keeps the cookie of a session that has expired since.
async function written(access_token, how) {
  const jar = new Map();
  const user = { id: how.user, aud: 'authenticated', email: 'ada@example.com', user_metadata: { notes: 'n'.repeat(how.length ?? 0) } };
  const client = createServerClient(PROJECT, 'sb_publishable_of_the_test', {
    cookieEncoding: how.encoding ?? 'base64url',
    realtime: { transport: class {} },
    global: { fetch: async () => Response.json(user) },
    cookies: {
      getAll: () => [...jar].map(([name, value]) => ({ name, value })),
      setAll: (all) => all.forEach(({ name, value }) => jar.set(name, value)),
    },
  });
  const { exp } = JSON.parse(Buffer.from(access_token.split('.')[1], 'base64url'));
  const now = Date.now;
  Date.now = () => (exp - 3600) * 1000;
  const { error } = await client.auth.setSession({ access_token, refresh_token: 'v1.refresh' });
  Date.now = now;
  if (error) throw error;
  return [...jar].map(([name, value]) => {
    // The serializer with which a server's `setAll` sets cookies.
    const [pair] = serializeCookieHeader(name, value, {}).split(';');
    return { name, value: pair.slice(name.length + 1) };
  });
}

async function read(keys, cookies) {
  const client = createServerClient(PROJECT, 'sb_publishable_of_the_test', {
    realtime: { transport: class {} },
    global: { fetch: (url, options) => answer(keys, String(url), options) },
    cookies: {
      getAll: () => parseCookieHeader(header(cookies)),
      setAll: () => {},
    },
  });
  const { data } = await client.auth.getClaims();
  const claims = data?.claims;
  return claims ? { user: claims.sub, organization: claims.app_metadata?.organization_id ?? null } : null;
}

// Answers as Supabase's server: with its keys, with the user of a token signed by the older secret, and with a
// refusal to renew a session.
async function answer(keys, url, { headers }) {
  if (url.endsWith('/jwks.json')) return Response.json(await keys.jwks());
  const refused = () => Response.json({ code: 403, error_code: 'bad_jwt', msg: 'invalid JWT' }, { status: 403 });
  if (!url.endsWith('/user')) return refused();
  const token = new Headers(headers).get('authorization').slice('Bearer '.length);
  const options = { algorithms: ['HS256'], audience: 'authenticated' };
  return jwtVerify(token, SECRET, options).then(({ payload }) => Response.json({ id: payload.sub }), refused);
}
