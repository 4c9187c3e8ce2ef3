//! Opens the encrypted sessions of Auth.js: a compact JWE (RFC 7516) with a key that is agreed on beforehand
//! (`dir`, RFC 7518 section 4.5). Nothing in a session decides how it is opened.
//!
//! Only a holder of the secret can make a session that opens, so the encryption is also the proof of where
//! the session comes from.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{HMAC_SHA512, Key as MacKey, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::{InvalidAssertion, MAX_ASSERTION_BYTES, json};

/// Bytes of the initialization vector and of the tag, of AES-GCM and of AES-CBC with HMAC
/// (RFC 7518 sections 5.3 and 5.2.5).
const GCM: (usize, usize) = (12, 16);
const CBC: (usize, usize) = (16, 32);

/// The way in which a library encrypts a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sealing {
    /// Auth.js (NextAuth 5): `A256CBC-HS512`; the cookie's name is the salt of the key
    /// (`@auth/core`, `jwt.ts`).
    Authjs,
    /// NextAuth 4: `A256GCM`, and no salt (`next-auth`, `jwt/index.ts`).
    Nextauth,
}

/// Number of bytes of a derived key.
#[derive(Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Parts of a compact JWE.
struct Jwe<'a> {
    /// Header as it came, which the tag covers.
    header: &'a str,
    vector: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

impl Sealing {
    /// Name of the encryption in the header (RFC 7518 section 5.1).
    fn encryption(self) -> &'static str {
        match self {
            Self::Authjs => "A256CBC-HS512",
            Self::Nextauth => "A256GCM",
        }
    }

    /// Derives the key for a cookie of the name `name` (RFC 5869).
    fn key(self, secret: &SecretString, name: &str) -> Vec<u8> {
        let (salt, info, length) = match self {
            Self::Authjs => (name, format!("Auth.js Generated Encryption Key ({name})"), 64),
            Self::Nextauth => ("", "NextAuth.js Generated Encryption Key".to_owned(), 32),
        };
        let mut key = vec![0; length];
        let root =
            Salt::new(HKDF_SHA256, salt.as_bytes()).extract(secret.expose_secret().as_bytes());
        root.expand(&[info.as_bytes()], Length(length))
            .and_then(|derived| derived.fill(&mut key))
            .expect("HKDF gives up to 8,160 bytes");
        key
    }

    /// Decrypts a session under `key`. `None` if another key has sealed it, or if it was changed.
    fn decrypt(self, key: &[u8], jwe: &Jwe<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Authjs => decrypt_cbc(key, jwe),
            Self::Nextauth => decrypt_gcm(key, jwe),
        }
    }
}

impl<'a> Jwe<'a> {
    fn parse(token: &'a [u8], sealing: Sealing) -> Result<Self, InvalidAssertion> {
        let malformed = InvalidAssertion::Malformed;
        if token.len() > MAX_ASSERTION_BYTES {
            return Err(malformed);
        }
        let token = std::str::from_utf8(token).map_err(|_| malformed)?;
        if !token.contains('.') {
            return Err(InvalidAssertion::SessionId);
        }
        let parts: Vec<&str> = token.split('.').collect();
        // The second part is an encrypted key; with `dir` it is empty.
        let [header, "", vector, ciphertext, tag] = parts[..] else { return Err(malformed) };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let fields = json::object(&decoded(header)?).ok_or(malformed)?;
        let is = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
        // Extensions, and compression, which can blow a session up, are not read.
        if fields.contains_key("crit") || fields.contains_key("zip") {
            return Err(malformed);
        }
        if !is("alg", "dir") || !is("enc", sealing.encryption()) {
            return Err(InvalidAssertion::Algorithm);
        }
        let (vector, ciphertext, tag) = (decoded(vector)?, decoded(ciphertext)?, decoded(tag)?);
        let lengths = match sealing {
            Sealing::Authjs => CBC,
            Sealing::Nextauth => GCM,
        };
        if (vector.len(), tag.len()) != lengths {
            return Err(malformed);
        }
        Ok(Self { header, vector, ciphertext, tag })
    }
}

/// Opens a session with one of `secrets`, and returns its claims.
///
/// # Errors
///
/// The fault of its form, or [`InvalidAssertion::Signature`] if none of the secrets has sealed it.
pub(super) fn open(
    token: &[u8],
    sealing: Sealing,
    secrets: &[SecretString],
    name: &str,
) -> Result<Map<String, Value>, InvalidAssertion> {
    let jwe = Jwe::parse(token, sealing)?;
    let opened =
        secrets.iter().find_map(|secret| sealing.decrypt(&sealing.key(secret, name), &jwe));
    let content = opened.ok_or(InvalidAssertion::Signature)?;
    json::object(&content).ok_or(InvalidAssertion::Malformed)
}

/// Decrypts AES-256-CBC with HMAC-SHA-512 (RFC 7518 section 5.2.2.2): the first half of the key is the MAC's.
fn decrypt_cbc(key: &[u8], jwe: &Jwe<'_>) -> Option<Vec<u8>> {
    let (mac_key, encryption_key) = key.split_at_checked(32)?;
    let bits = u64::try_from(jwe.header.len()).ok()? * 8;
    let parts = [jwe.header.as_bytes(), &jwe.vector, &jwe.ciphertext, &bits.to_be_bytes()];
    let mac = sign(&MacKey::new(HMAC_SHA512, mac_key), &parts.concat());
    verify_slices_are_equal(mac.as_ref().get(..CBC.1)?, &jwe.tag).ok()?;
    let key = UnboundCipherKey::new(&AES_256, encryption_key).ok()?;
    let vector: [u8; 16] = jwe.vector.as_slice().try_into().ok()?;
    let mut content = jwe.ciphertext.clone();
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
    let opened = key.decrypt(&mut content, DecryptionContext::Iv128(vector.into())).ok()?;
    Some(opened.to_vec())
}

/// Decrypts AES-256-GCM (RFC 7518 section 5.3).
fn decrypt_gcm(key: &[u8], jwe: &Jwe<'_>) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(&jwe.vector).ok()?;
    let mut content = [jwe.ciphertext.as_slice(), &jwe.tag].concat();
    let opened = key.open_in_place(nonce, Aad::from(jwe.header.as_bytes()), &mut content).ok()?;
    Some(opened.to_vec())
}

#[cfg(test)]
mod tests;
