// Tokens of an Amazon Cognito user pool in the cookies that Amplify writes, checked by aws-jwt-verify.
import { CookieStorage } from '@aws-amplify/core';
import { DefaultTokenStore } from '@aws-amplify/auth/cognito';
import { CognitoJwtVerifier } from 'aws-jwt-verify';
import { Keys, times } from './keys.mjs';

const POOL = 'eu-west-1_AbCdEfGhI';
const CLIENT = '1example23456789';
const ISSUER = `https://cognito-idp.eu-west-1.amazonaws.com/${POOL}`;
const CONFIGURATION = { Cognito: { userPoolId: POOL, userPoolClientId: CLIENT } };

export async function open() {
  const keys = await Keys.generate('RS256', 'qwertyuiopasdfghjklzxcvbnm1234567890ABCDEFG=');
  return { make: (how) => make(keys, how), read: (cookies, token) => read(keys, cookies, token), jwks: () => keys.jwks() };
}

async function make(keys, how) {
  const { iat, exp } = times(how, 3600);
  const both = { sub: how.user, iss: ISSUER, iat, exp, auth_time: iat, origin_jti: 'o', jti: 'j' };
  const groups = how.groups && { 'cognito:groups': how.groups };
  const username = how.username ?? how.user;
  const id = { ...both, ...groups, token_use: 'id', aud: CLIENT, 'cognito:username': username, email: 'ada@example.com', email_verified: true, 'custom:org_id': how.organization };
  const access = { ...both, ...groups, token_use: 'access', client_id: CLIENT, username, scope: 'openid' };
  // Cognito's tokens have no typ.
  const idToken = await keys.sign(id, how, {});
  const accessToken = await keys.sign(access, how, {});
  return { token: how.kind === 'access' ? accessToken : idToken, cookies: await stored(idToken, accessToken, username) };
}

// Has Amplify store the tokens in cookies, with a document that is no more than a jar.
async function stored(idToken, accessToken, username) {
  const jar = new Map();
  const document = {
    get cookie() {
      return [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    },
    set cookie(line) {
      const [pair] = line.split(';');
      const end = pair.indexOf('=');
      if (/expires=Thu, 01 Jan 1970/i.test(line) || pair.endsWith('=')) jar.delete(pair.slice(0, end));
      else jar.set(pair.slice(0, end), pair.slice(end + 1));
    },
  };
  globalThis.document = document;
  try {
    const store = new DefaultTokenStore();
    store.setAuthConfig(CONFIGURATION);
    store.setKeyValueStorage(new CookieStorage());
    await store.storeTokens({ idToken, accessToken, refreshToken: 'refresh', clockDrift: 0, username });
  } finally {
    delete globalThis.document;
  }
  return [...jar].map(([name, value]) => ({ name, value }));
}

async function read(keys, cookies, token) {
  const verifier = CognitoJwtVerifier.create({ userPoolId: POOL, tokenUse: token ? null : 'id', clientId: CLIENT });
  verifier.cacheJwks(await keys.jwks());
  const found = token ?? cookies.find(({ name }) => name.endsWith('.idToken'))?.value;
  if (!found) return null;
  const claims = await verifier.verify(found).catch(() => null);
  return claims && { user: claims.sub, organization: claims['custom:org_id'] ?? null };
}
