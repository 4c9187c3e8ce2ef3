// The app's own session, as in the guide of Next.js: a JWT in a cookie, signed with SESSION_SECRET. The sidecar has
// the same secret, and reads the same cookie.
import { jwtVerify, SignJWT } from 'jose';
import { cookies } from 'next/headers';

const COOKIE = 'session';
const NAMES = { issuer: 'nextjs-example', audience: 'nextjs-example' };

function secret() {
  const text = process.env.SESSION_SECRET ?? '';
  if (text.length < 32) throw new Error('SESSION_SECRET must have at least 32 characters');
  return new TextEncoder().encode(text);
}

export async function currentUserId(): Promise<string | null> {
  const session = (await cookies()).get(COOKIE)?.value;
  if (!session) return null;
  const options = { ...NAMES, algorithms: ['HS256'] };
  const verified = await jwtVerify(session, secret(), options).catch(() => null);
  return verified?.payload.sub ?? null;
}

export async function begin(userId: string) {
  const session = await new SignJWT()
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(userId)
    .setIssuer(NAMES.issuer)
    .setAudience(NAMES.audience)
    .setIssuedAt()
    .setExpirationTime('12h')
    .sign(secret());
  const secure = process.env.NODE_ENV === 'production';
  (await cookies()).set(COOKIE, session, { httpOnly: true, sameSite: 'lax', path: '/', secure });
}

export async function end() {
  (await cookies()).delete(COOKIE);
}
