//! The keys in a document: a JWK set (RFC 7517), one key as PEM, or certificates; and keys made of secrets.

use std::collections::BTreeMap;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key as MacKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as ParsedKey;

use crate::algorithm::Algorithm;

/// Most keys in one document. Providers publish two to ten.
pub const MAX_KEYS: usize = 64;

/// Bytes before the point in the DER form of every P-256 key (RFC 5480 section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Length of an uncompressed P-256 point, in bytes: `04`, then two coordinates of 32 bytes.
const P256_POINT: usize = 65;

/// Most zero bytes in front of a coordinate that an issuer may have left out. More of them stand before the
/// coordinates of one key in 2^39; a coordinate of another curve is shorter by more.
const MOST_ZEROS: usize = 4;

/// Keys that signatures can be checked with.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// A key, and what it may be used for.
pub struct Key {
    id: Option<String>,
    kind: Kind,
    /// Algorithm that the key is for, if the key's owner names one.
    algorithm: Option<String>,
    public: KeyMaterial,
}

/// A key in the form in which signatures are checked.
enum KeyMaterial {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point of P-256 or P-384, or a key of Ed25519.
    Bytes(Vec<u8>),
    Secret(Box<MacKey>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
    /// A secret that is shared with the issuer. Never read from a document.
    Secret,
}

/// Reason why a document holds no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// The document is no JWK set, no PEM, or PEM of an unexpected kind of key.
    Malformed,
    /// The document has more than [`MAX_KEYS`] keys.
    TooMany,
    /// The document is a JWK set in which no key can check a signature.
    NoneUsable,
}

/// Key as it stands in the document. Other members, such as certificates, are not read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set. Keys of other kinds and for other uses are left out (RFC 7517 section 5).
    ///
    /// # Errors
    ///
    /// See [`KeySetError`].
    pub fn from_jwks(document: &[u8]) -> Result<Self, KeySetError> {
        // RFC 8259 section 8.1 lets a byte order mark be ignored.
        let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
        let set: Jwks = serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        if set.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let keys =
            set.keys.into_iter().filter_map(|key| Key::from_jwk(serde_json::from_value(key).ok()?));
        let keys: Vec<Key> = keys.collect();
        if keys.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self { keys }) }
    }

    /// Reads the one key of `id`: PEM of a P-256 key, as an AWS load balancer's is.
    ///
    /// # Errors
    ///
    /// [`KeySetError::Malformed`].
    pub fn from_pem(id: &str, document: &[u8]) -> Result<Self, KeySetError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(document);
        let der = der.map_err(|_| KeySetError::Malformed)?;
        let point = der.strip_prefix(&P256_PREFIX).ok_or(KeySetError::Malformed)?;
        if point.len() != P256_POINT {
            return Err(KeySetError::Malformed);
        }
        let (id, public) = (Some(id.to_owned()), KeyMaterial::Bytes(point.to_vec()));
        Ok(Self { keys: vec![Key { id, kind: Kind::P256, algorithm: None, public }] })
    }

    /// Reads a JSON object that has a certificate as PEM under each key's id. Only the keys in the certificates
    /// count: the publisher's own server vouches for them. Certificates of other keys than RSA are left out.
    ///
    /// # Errors
    ///
    /// See [`KeySetError`].
    pub fn from_certificates(document: &[u8]) -> Result<Self, KeySetError> {
        let object: BTreeMap<String, String> =
            serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        if object.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> =
            object.into_iter().filter_map(|(id, pem)| Key::from_certificate(id, &pem)).collect();
        if keys.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self { keys }) }
    }

    /// Makes keys of HS256 (RFC 7518 section 3.2) of secrets, whose bytes are the keys.
    pub fn of_secrets(secrets: &[SecretString]) -> Self {
        let key = |secret: &SecretString| Key {
            id: None,
            kind: Kind::Secret,
            algorithm: None,
            public: KeyMaterial::Secret(Box::new(MacKey::new(
                HMAC_SHA256,
                secret.expose_secret().as_bytes(),
            ))),
        };
        Self { keys: secrets.iter().map(key).collect() }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the number of keys that can check a signature made with one of `algorithms`.
    pub fn count_fitting(&self, algorithms: &[Algorithm]) -> usize {
        let fits = |key: &&Key| algorithms.iter().any(|algorithm| key.fits(*algorithm));
        self.keys.iter().filter(fits).count()
    }

    /// Returns the kinds of the keys: the algorithm of each key, by its name in RFC 7518, or the type of a
    /// key that names no algorithm.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| match (&key.algorithm, key.kind) {
            (Some(algorithm), _) => algorithm,
            (None, Kind::Rsa) => "RSA",
            (None, Kind::P256) => "P-256",
            (None, Kind::P384) => "P-384",
            (None, Kind::Ed25519) => "Ed25519",
            (None, Kind::Secret) => "HS256",
        })
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys has this id; without an id, whether there is exactly one key.
    pub(crate) fn knows(&self, id: Option<&str>) -> bool {
        match id {
            Some(_) => self.keys.iter().any(|key| key.id.as_deref() == id),
            None => self.keys.len() == 1,
        }
    }

    /// Returns the keys of this id that may have been used with `algorithm`: an id may stand twice, with keys
    /// of different kinds (RFC 7517 section 4.5). A token without an id is checked only if there is exactly
    /// one key. Secrets have no ids, and each of them is tried.
    pub(crate) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let known = algorithm.is_symmetric() || self.knows(id);
        self.keys.iter().filter(move |key| {
            known && (id.is_none() || key.id.as_deref() == id) && key.fits(algorithm)
        })
    }
}

impl Key {
    fn from_jwk(jwk: Jwk) -> Option<Self> {
        let for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.is_none_or(|uses| uses.iter().any(|purpose| purpose == "verify"));
        if !for_signatures {
            return None;
        }
        let (kind, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (modulus, exponent) = (number(&jwk.n?)?, number(&jwk.e?)?);
                (Kind::Rsa, KeyMaterial::Rsa { modulus, exponent })
            }
            ("EC", Some("P-256")) => (Kind::P256, point(&jwk.x?, &jwk.y?, 32)?),
            ("EC", Some("P-384")) => (Kind::P384, point(&jwk.x?, &jwk.y?, 48)?),
            ("OKP", Some("Ed25519")) => (Kind::Ed25519, KeyMaterial::Bytes(decoded(&jwk.x?)?)),
            // A symmetric key (`oct`) that is published is no secret any more.
            _ => return None,
        };
        Some(Self { id: jwk.kid, kind, algorithm: jwk.alg, public: key })
    }

    /// Reads the RSA key in a certificate. `None` if there is none.
    fn from_certificate(id: String, pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let ParsedKey::RSA(key) = certificate.public_key().parsed().ok()? else { return None };
        let without_zeros = |number: &[u8]| {
            let first = number.iter().position(|byte| *byte != 0)?;
            Some(number[first..].to_vec())
        };
        let (modulus, exponent) = (without_zeros(key.modulus)?, without_zeros(key.exponent)?);
        let public = KeyMaterial::Rsa { modulus, exponent };
        Some(Self { id: Some(id), kind: Kind::Rsa, algorithm: None, public })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => Kind::Rsa,
            Algorithm::Es256 => Kind::P256,
            Algorithm::Es384 => Kind::P384,
            Algorithm::EdDsa => Kind::Ed25519,
            Algorithm::Hs256 => Kind::Secret,
        };
        let named = self.algorithm.as_deref();
        self.kind == kind
            && named.is_none_or(|named| Algorithm::from_name(named) == Some(algorithm))
    }

    /// Whether `signature`, in base64url, is a signature of this key for `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        // A signature that is no base64url is as wrong as any other.
        let Some(signature) = decoded(signature) else { return false };
        match &self.public {
            KeyMaterial::Rsa { modulus, exponent } => {
                let parameters = match algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa | Algorithm::Hs256 => {
                        return false;
                    }
                };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, &signature).is_ok()
            }
            KeyMaterial::Bytes(key) => {
                let algorithm: &dyn VerificationAlgorithm = match algorithm {
                    Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDsa => &ED25519,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, key).verify(message, &signature).is_ok()
            }
            KeyMaterial::Secret(key) => {
                algorithm == Algorithm::Hs256 && hmac::verify(key, message, &signature).is_ok()
            }
        }
    }
}

/// Reads a point of a curve whose coordinates have `width` bytes each (RFC 7518 section 6.2.1.2). Issuers that
/// write a coordinate as a number leave out zeros in front of it, for one key in 128, or add one.
fn point(x: &str, y: &str, width: usize) -> Option<KeyMaterial> {
    // 4 stands for a point that is not compressed (SEC 1 section 2.3.3).
    let mut point = vec![4];
    for coordinate in [number(x)?, number(y)?] {
        let missing = width.checked_sub(coordinate.len()).filter(|zeros| *zeros <= MOST_ZEROS)?;
        point.resize(point.len() + missing, 0);
        point.extend(coordinate);
    }
    Some(KeyMaterial::Bytes(point))
}

/// Reads a number above 0, without the zeros in front of it. Some issuers put a zero before a number (RFC 7518
/// section 6.3.1.1), and aws-lc-rs takes none.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decoded(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

/// Reads base64url without padding (RFC 7515 section 2).
fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests;
