// Access tokens of issuers whose keys a verifier fetches, with the claims that each issuer's documents list. Read
// by jose, as the guides of these issuers read them.
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { Keys, times } from './keys.mjs';

// Claims and header of the tokens of each issuer, and the claim that is the organization.
const ISSUERS = {
  // https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
  auth0: {
    issuer: 'https://your-tenant.eu.auth0.com/', audience: 'https://app.example.com/api', life: 86400,
    claims: ({ user, organization, program }) => (program
      ? { sub: 'client@clients', azp: 'client', gty: 'client-credentials' }
      : { sub: user, azp: 'client', scope: 'openid', org_id: organization }),
    organization: ({ org_id: id }) => id,
  },
  // https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/#access-token
  okta: {
    issuer: 'https://your-org.okta.com/oauth2/default', audience: 'api://default', life: 3600,
    claims: ({ user, organization, groups }) => ({
      ver: 1, jti: 'AT.j', cid: 'client', uid: user, scp: ['openid'], sub: 'ada@example.com', org_id: organization, groups,
    }),
    user: ({ uid }) => uid,
    organization: ({ org_id: id }) => id,
  },
  // https://workos.com/docs/reference/authkit/session-tokens/access-token
  workos: {
    issuer: 'https://api.workos.com/user_management/client_123', life: 300,
    claims: ({ user, organization }) => ({
      sub: user, sid: 'session_1', jti: 'j', ...(organization && { org_id: organization, role: 'member', permissions: [] }),
    }),
    organization: ({ org_id: id }) => id,
  },
  // https://www.keycloak.org/docs/latest/server_admin/#_oidc_token_claims
  keycloak: {
    issuer: 'https://login.example.com/realms/my-realm', audience: 'my-app', life: 300,
    claims: ({ user, organization, groups }) => ({
      jti: 'j', typ: 'Bearer', azp: 'my-app', sub: user, sid: 's', acr: '1', scope: 'openid email profile',
      email_verified: true, name: 'Ada', preferred_username: 'ada', email: 'ada@example.com',
      realm_access: { roles: ['offline_access'] }, groups, org_id: organization,
    }),
    organization: ({ org_id: id }) => id,
  },
  // https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
  entra: {
    issuer: 'https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0',
    audience: '66666666-7777-8888-9999-000000000000', life: 4200,
    claims: ({ user, organization }) => ({
      azp: 'client', azpacr: '1', name: 'Ada', oid: user, preferred_username: 'ada@example.com', scp: 'access',
      sub: 'pairwise-of-this-app', tid: organization ?? '11111111-2222-3333-4444-555555555555', uti: 'u', ver: '2.0',
    }),
    user: ({ oid }) => oid,
    organization: ({ tid }) => tid,
  },
};

export async function open(at, name) {
  const keys = await Keys.generate('RS256', `key-of-${name}`);
  const jwks = createRemoteJWKSet(new URL(`${at}/${name}/jwks`));
  return {
    make: (how) => make(name, keys, how),
    read: (cookies, token) => read(name, jwks, token ?? cookies[0].value),
    jwks: () => keys.jwks(),
  };
}

async function make(name, keys, how) {
  const { issuer: iss, audience: aud, life, claims } = ISSUERS[name];
  const header = { typ: how.type ?? 'JWT' };
  const token = await keys.sign({ ...claims(how), ...times(how, life), iss, ...(aud && { aud }) }, how, header);
  return { token, cookies: how.cookie ? [{ name: how.cookie, value: token }] : [] };
}

async function read(name, jwks, token) {
  const { issuer, audience, user = ({ sub }) => sub, organization } = ISSUERS[name];
  const found = await jwtVerify(token, jwks, { issuer, audience, algorithms: ['RS256'] }).catch(() => null);
  return found && { user: user(found.payload), organization: organization(found.payload) ?? null };
}
