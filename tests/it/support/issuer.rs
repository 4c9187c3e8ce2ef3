//! A stand-in of an issuer of assertions: pens that sign, and their keys over real HTTP.

use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::Response;
use serde_json::{Value, json};

use super::app::{AppBody, Arrived, FakeApp, full};
use super::velt::unix_seconds;

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A private key.
pub struct Pen {
    pub algorithm: &'static str,
    /// The public half, as it stands in a JWK set.
    pub jwk: Value,
    pub sign: Sign,
}

impl Pen {
    pub fn es256(id: &str) -> Self {
        Self::ecdsa(id, "ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384(id: &str) -> Self {
        Self::ecdsa(id, "ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ecdsa(
        id: &str,
        algorithm: &'static str,
        curve: &str,
        signing: &'static EcdsaSigningAlgorithm,
    ) -> Self {
        let pair = EcdsaKeyPair::generate(signing).expect("a key");
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y),
            "kid": id, "use": "sig", "alg": algorithm });
        let sign = move |message: &[u8]| {
            pair.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec()
        };
        Self { algorithm, jwk, sign: Box::new(sign) }
    }

    pub fn ed25519(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let x = base64(pair.public_key().as_ref());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id });
        let sign = move |message: &[u8]| pair.sign(message).as_ref().to_vec();
        Self { algorithm: "EdDSA", jwk, sign: Box::new(sign) }
    }

    pub fn rs256(id: &str) -> Self {
        Self::rsa(id, KeySize::Rsa2048, "RS256", &RSA_PKCS1_SHA256)
    }

    pub fn ps256(id: &str) -> Self {
        Self::rsa(id, KeySize::Rsa2048, "PS256", &RSA_PSS_SHA256)
    }

    fn rsa(
        id: &str,
        size: KeySize,
        algorithm: &'static str,
        encoding: &'static dyn RsaEncoding,
    ) -> Self {
        let pair = RsaKeyPair::generate(size).expect("a key");
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let (n, e) = (base64(&public.n), base64(&public.e));
        let jwk =
            json!({ "kty": "RSA", "n": n, "e": e, "kid": id, "use": "sig", "alg": algorithm });
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let random = SystemRandom::new();
            pair.sign(encoding, &random, message, &mut signature).expect("signed");
            signature
        };
        Self { algorithm, jwk, sign: Box::new(sign) }
    }

    pub fn id(&self) -> &str {
        self.jwk["kid"].as_str().expect("an id")
    }

    /// The usual header.
    pub fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "kid": self.id(), "typ": "JWT" })
    }

    /// Signs an assertion with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }

    /// Signs an assertion with any header and claims.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(claims));
        format!("{signed}.{}", base64((self.sign)(signed.as_bytes())))
    }

    /// Signs an assertion as an AWS load balancer does: every part is padded, and the padding is signed.
    pub fn sign_padded(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        format!("{signed}.{}", URL_SAFE.encode((self.sign)(signed.as_bytes())))
    }

    /// The public half of a P-256 pen as PEM.
    pub fn pem(&self) -> String {
        const PREFIX: [u8; 27] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ];
        let coordinate = |name: &str| {
            let text = self.jwk[name].as_str().expect("a coordinate");
            URL_SAFE_NO_PAD.decode(text).expect("base64url")
        };
        let der = [PREFIX.to_vec(), coordinate("x"), coordinate("y")].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims of an assertion for `user`.
pub fn claims(user: &str) -> Value {
    let now = unix_seconds();
    json!({ "iss": ISSUER, "aud": "app", "sub": user, "iat": now, "nbf": now, "exp": now + 300 })
}

pub const ISSUER: &str = "https://issuer.example";

type Script = Arc<dyn Fn(&Arrived) -> Response<AppBody> + Send + Sync>;

/// A server that publishes keys, or answers by the script of a test.
pub struct Issuer {
    pub server: FakeApp,
    script: Arc<Mutex<Script>>,
}

impl Issuer {
    pub async fn publishing(pens: &[&Pen]) -> Self {
        let script: Arc<Mutex<Script>> =
            Arc::new(Mutex::new(Arc::new(|_| Response::new(full("")))));
        let answering = Arc::clone(&script);
        let server = FakeApp::answering(move |arrived| {
            let script = answering.lock().expect("no panic").clone();
            script(arrived)
        })
        .await;
        let issuer = Self { server, script };
        issuer.publish(pens);
        issuer
    }

    /// Publishes these keys from now on, and no other keys.
    pub fn publish(&self, pens: &[&Pen]) {
        let keys: Vec<_> = pens.iter().map(|pen| pen.jwk.clone()).collect();
        let document = json!({ "keys": keys }).to_string();
        self.answer(move |_| Response::new(full(document.clone())));
    }

    pub fn answer<F>(&self, script: F)
    where
        F: Fn(&Arrived) -> Response<AppBody> + Send + Sync + 'static,
    {
        *self.script.lock().expect("no panic") = Arc::new(script);
    }

    pub fn fetch_count(&self) -> usize {
        self.server.journal().len()
    }

    /// Returns the settings of a sidecar that believes this issuer.
    pub fn toml(&self) -> String {
        format!(
            "[identity]\nsource = \"assertion\"\n[identity.assertion]\nheader = \"X-Assertion\"\n\
             jwks_url = \"http://{}/keys\"\nissuer = \"{ISSUER}\"\naudience = [\"app\"]\n",
            self.server.address
        )
    }
}
