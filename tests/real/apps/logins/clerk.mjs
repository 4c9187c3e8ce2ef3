// Clerk's session token and cookies, read by @clerk/backend as its middleware reads them.
import { createHash } from 'node:crypto';
import { createClerkClient } from '@clerk/backend';
import { Keys, header, times } from './keys.mjs';

const DOMAIN = 'clerk.example.com';
const APP = 'https://app.example.com';
const PUBLISHABLE_KEY = `pk_live_${Buffer.from(`${DOMAIN}$`).toString('base64')}`;

export async function open() {
  const keys = await Keys.generate('RS256', 'ins_2GIoQhbUpy0hX7B2cVkuTMinXoD');
  return { make: (how) => make(keys, how), read: (cookies) => read(keys, cookies), jwks: () => keys.jwks() };
}

async function make(keys, how) {
  const { iat, exp } = times(how, 60);
  const common = { azp: how.origin ?? APP, exp, fva: [0, -1], iat, iss: `https://${DOMAIN}`, nbf: iat - 10 };
  const session = { sid: 'sess_2GbDB4enNdCa5vS1zpC3Xzg9tK9', sub: how.user };
  const { organization } = how;
  const claims = { ...common, ...session, ...claimsOf(how.version, organization) };
  // A user who has yet to choose an organization, for Clerk's server.
  if (how.pending) claims.sts = 'pending';
  const token = await keys.sign(claims, how);
  // clerk-js writes the token under both names, and beside it the time of the sign-in.
  const both = (name, value) => [{ name, value }, { name: `${name}_${suffix()}`, value }];
  return { token, cookies: [...both('__session', token), ...both('__client_uat', String(iat))] };
}

// Returns the claims of the organization, which depend on the version of the token.
function claimsOf(version, organization) {
  if (version === 2) {
    const o = organization && { id: organization, rol: 'admin', slg: 'acme', per: '', fpm: '' };
    return { v: 2, sts: 'active', fea: '', pla: 'u:free', ...(o && { o }) };
  }
  if (!organization) return {};
  return { org_id: organization, org_role: 'org:admin', org_slug: 'acme', org_permissions: [] };
}

// Returns the end of the names of an instance's own cookies: `getCookieSuffix` of @clerk/shared, which that
// package does not export to others.
function suffix() {
  return createHash('sha1').update(PUBLISHABLE_KEY).digest('base64url').slice(0, 8);
}

async function read(keys, cookies) {
  const client = createClerkClient({ publishableKey: PUBLISHABLE_KEY, secretKey: 'sk_live_of_the_test' });
  const request = new Request(`${APP}/`, { headers: { cookie: header(cookies), 'sec-fetch-dest': 'empty' } });
  const options = { jwtKey: await keys.pem(), authorizedParties: [APP] };
  const state = await client.authenticateRequest(request, options);
  if (!state.isAuthenticated) return null;
  const { userId, orgId } = state.toAuth();
  return userId && { user: userId, organization: orgId ?? null };
}
