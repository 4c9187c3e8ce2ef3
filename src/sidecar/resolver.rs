//! Tokens of the sidecar's own for teams that keep Velt's data themselves: Velt's frontend SDK sends such a
//! token to the team's resolver endpoints, which check it with `selfHosting.verifyToken` of Velt's server SDKs.
//!
//! A token names the user and nothing else: no organization, because one resolver call has entries of several.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::json;

use crate::inject::own_answer;
use ground::user_id::UserId;

/// Settings of the tokens for resolvers.
#[derive(Clone, Debug)]
pub struct ResolverSettings {
    /// The one path that answers a token.
    pub path: String,
    /// The one path that answers the public keys.
    pub keys_path: String,
    pub issuer: String,
    pub audience: Option<String>,
    pub life: Duration,
    /// PEM of the private key of P-256 that signs.
    pub key_file: PathBuf,
    /// PEM of a second private key, which is published and does not sign: the next one before a change of
    /// keys, and the former one after it.
    pub other_key_file: Option<PathBuf>,
}

/// Signs tokens for resolvers, and publishes the keys to check them with.
pub struct Resolver {
    settings: ResolverSettings,
    key: SigningKey,
    /// JWK set of the public keys.
    keys: Bytes,
}

/// Reason why a signing key can't be used: a fault of the file.
#[derive(Debug)]
pub struct KeyError {
    file: PathBuf,
    /// `None` if the file can be read and holds no private key of P-256.
    source: Option<io::Error>,
}

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.source {
            Some(error) => write!(formatter, "the signing key of resolver tokens, {file}: {error}"),
            None => write!(
                formatter,
                "the signing key of resolver tokens, {file}, is no private key of P-256 in PEM: make one \
                 with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
            ),
        }
    }
}

impl Error for KeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// A private key, and its public half as a JWK. No `Debug`.
struct SigningKey {
    pair: EcdsaKeyPair,
    id: String,
    jwk: serde_json::Value,
}

impl SigningKey {
    fn load(file: &Path) -> Result<Self, KeyError> {
        let error = |source| KeyError { file: file.to_owned(), source };
        let pem = std::fs::read(file).map_err(|source| error(Some(source)))?;
        let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| error(None))?;
        let der = der.secret_der();
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        Ok(Self::new(pair.map_err(|_| error(None))?))
    }

    fn new(pair: EcdsaKeyPair) -> Self {
        // An uncompressed point: 4, then two coordinates of 32 bytes (SEC 1 section 2.3.3).
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        // The members in the order of RFC 7638 section 3.3: the id is a key's thumbprint.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, thumbprint.as_bytes()).as_ref());
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "alg": "ES256", "use": "sig",
        });
        Self { pair, id, jwk }
    }
}

/// Claims of a token (RFC 7519 section 4.1).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    sub: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
}

impl Resolver {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// See [`KeyError`].
    pub fn load(settings: ResolverSettings) -> Result<Self, KeyError> {
        let key = SigningKey::load(&settings.key_file)?;
        let other = settings.other_key_file.as_deref().map(SigningKey::load).transpose()?;
        let others = other.filter(|other| other.id != key.id).map(|other| other.jwk);
        let keys: Vec<_> = [key.jwk.clone()].into_iter().chain(others).collect();
        let keys = Bytes::from(json!({ "keys": keys }).to_string());
        Ok(Self { settings, key, keys })
    }

    /// Whether `path` is the one that answers a token.
    pub(super) fn answers(&self, path: &str) -> bool {
        path == self.settings.path
    }

    /// Whether `path` is the one that answers the public keys.
    pub(super) fn publishes(&self, path: &str) -> bool {
        path == self.settings.keys_path
    }

    /// Returns the answer with a token for `user`: `{"token":"<jwt>"}`, as Velt's pages fetch it.
    pub(super) fn answer(&self, user: &UserId, now: SystemTime) -> Response<Bytes> {
        own_answer(StatusCode::OK, json!({ "token": self.sign(user.as_str(), now) }).to_string())
    }

    /// Returns the answer with the public keys, which caches may keep for a while.
    pub(super) fn published(&self) -> Response<Bytes> {
        let mut response = own_answer(StatusCode::OK, String::new()).map(|_| self.keys.clone());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        headers.remove(VARY);
        response
    }

    fn sign(&self, user: &str, now: SystemTime) -> String {
        let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut random = [0; 16];
        fill(&mut random).expect("the system has random numbers");
        let claims = Claims {
            iss: &self.settings.issuer,
            aud: self.settings.audience.as_deref(),
            sub: user,
            iat: issued,
            exp: issued + self.settings.life.as_secs(),
            jti: URL_SAFE_NO_PAD.encode(random),
        };
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.key.id }).to_string();
        let claims = serde_json::to_string(&claims).expect("strings and numbers only");
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = self.key.pair.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.expect("a key of P-256 signs any message");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn settings(folder: &Path) -> ResolverSettings {
        ResolverSettings {
            path: "/t".into(),
            keys_path: "/k".into(),
            issuer: "i".into(),
            audience: None,
            life: Duration::from_secs(300),
            key_file: folder.join("key"),
            other_key_file: Some(folder.join("other")),
        }
    }

    fn write_key(file: &Path) {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let text = STANDARD.encode(der.expect("a key").as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        fs::write(file, pem).expect("written");
    }

    #[test]
    fn keys_are_published_once_each_and_named_by_thumbprint() {
        let folder = tempfile::tempdir().expect("a folder");
        write_key(&folder.path().join("key"));
        write_key(&folder.path().join("other"));
        let count = |resolver: &Resolver| {
            let set: serde_json::Value = serde_json::from_slice(&resolver.keys).expect("JSON");
            set["keys"].as_array().map_or(0, Vec::len)
        };
        let resolver = Resolver::load(settings(folder.path())).expect("keys");
        assert_eq!(count(&resolver), 2);
        assert_eq!(resolver.key.id.len(), 43);
        fs::copy(folder.path().join("key"), folder.path().join("other")).expect("copied");
        assert_eq!(count(&Resolver::load(settings(folder.path())).expect("keys")), 1);
    }

    #[test]
    fn faulty_key_files_are_told_with_their_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = || Resolver::load(settings(folder.path())).err().expect("a fault").to_string();
        assert!(told().contains("key: No such file"), "{}", told());
        fs::write(folder.path().join("key"), "no PEM").expect("written");
        assert!(told().contains("no private key of P-256"), "{}", told());
    }
}
