// Keys of the issuers of a test, and the documents under which an issuer publishes them.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SignJWT, exportJWK, exportPKCS8, exportSPKI, generateKeyPair } from 'jose';

// A key pair of an issuer. `foreign` is another pair under the same id, for a forged signature.
export class Keys {
  static async generate(algorithm, kid) {
    const options = { extractable: true };
    const keys = new Keys();
    Object.assign(keys, { algorithm, kid });
    keys.own = await generateKeyPair(algorithm, options);
    keys.foreign = await generateKeyPair(algorithm, options);
    return keys;
  }

  // Returns the keys as RFC 7517 has them.
  async jwks() {
    const { algorithm: alg, kid } = this;
    return { keys: [{ ...(await exportJWK(this.own.publicKey)), alg, kid, use: 'sig' }] };
  }

  pem() {
    return exportSPKI(this.own.publicKey);
  }

  // Returns the keys as Google has them: a certificate under each id. The key has signed its own certificate.
  async certificates() {
    const folder = mkdtempSync(join(tmpdir(), 'logins-'));
    try {
      const key = join(folder, 'key.pem');
      writeFileSync(key, await exportPKCS8(this.own.privateKey));
      const subject = ['-subj', '/CN=keys.of.the.test', '-days', '2'];
      return { [this.kid]: execFileSync('openssl', ['req', '-x509', '-key', key, ...subject]).toString() };
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  // Signs claims as `how` says: with the issuer's own key, with the foreign key (`keys: 'foreign'`), or by HMAC
  // with the public key for a secret (`algorithm: 'HS256'`).
  async sign(claims, how, header = { typ: 'JWT' }) {
    const signed = await this.signed(claims, how, header);
    return how.tampered ? tampered(signed) : signed;
  }

  async signed(claims, how, header) {
    const { algorithm: alg, kid } = this;
    const token = new SignJWT(claims);
    if (how.algorithm === 'HS256') {
      const secret = new TextEncoder().encode(await this.pem());
      return token.setProtectedHeader({ ...header, alg: 'HS256', kid }).sign(secret);
    }
    const pair = how.keys === 'foreign' ? this.foreign : this.own;
    return token.setProtectedHeader({ ...header, alg, kid }).sign(pair.privateKey);
  }
}

// Returns the times of a token that lives for `life` seconds, or that ended two minutes ago.
export function times(how, life) {
  const now = Math.floor(Date.now() / 1000);
  const iat = how.expired ? now - life - 120 : now;
  return { iat, exp: iat + life };
}

// Returns a token of which a part is changed, and the signature or the tag is not: in the claims "ada" becomes "eva";
// encrypted content gets another first character.
export function tampered(token) {
  const parts = token.split('.');
  if (parts.length === 5) {
    parts[3] = (parts[3].startsWith('A') ? 'B' : 'A') + parts[3].slice(1);
  } else {
    const claims = Buffer.from(parts[1], 'base64url').toString().replaceAll('ada', 'eva');
    parts[1] = Buffer.from(claims).toString('base64url');
  }
  return parts.join('.');
}

// Returns the value of the header Cookie.
export function header(cookies) {
  return cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
}
